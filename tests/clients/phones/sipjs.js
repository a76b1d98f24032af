// How does a telephone made with SIP.js behave? Nothing but what an application does with the library.

import { Inviter, Registerer, RegistererState, SessionState, UserAgent } from "sip.js";

export class SipJsPhone {
  registered = false;
  /** The newest call. */
  call = null;

  constructor({ server, user, password, domain, descriptions }) {
    this.domain = domain;
    this.agent = new UserAgent({
      uri: UserAgent.makeURI(`sip:${user}@${domain}`),
      authorizationUsername: user,
      authorizationPassword: password,
      contactName: user,
      transportOptions: { server },
      sessionDescriptionHandlerFactory: descriptions,
      logConfiguration: true,
      delegate: {
        onConnect: () => this.register(),
        onDisconnect: () => {
          this.registered = false;
          this.reconnect();
        },
        onInvite: (invitation) => this.follow(invitation, "ringing"),
      },
    });
    this.registerer = new Registerer(this.agent, { expires: 600 });
    this.registerer.stateChange.addListener((state) => {
      this.registered = state === RegistererState.Registered;
    });
  }

  start() {
    this.agent.start();
  }

  async reconnect() {
    for (;;) {
      await new Promise((later) => setTimeout(later, 500));
      try {
        return await this.agent.reconnect();
      } catch {
        // As often as it takes.
      }
    }
  }

  register() {
    // It stays registered in its own eyes while it is not connected, so that its state does not change.
    this.registerer.register({ requestDelegate: { onAccept: () => (this.registered = true) } });
  }

  dial(user) {
    const inviter = new Inviter(this.agent, UserAgent.makeURI(`sip:${user}@${this.domain}`));
    const call = this.follow(inviter, "calling");
    inviter.invite({ requestDelegate: { onProgress: () => (call.state = "ringing") } });
  }

  answer() {
    this.call.session.accept();
  }

  hangUp() {
    const { session } = this.call;
    switch (session.state) {
      case SessionState.Established:
        return session.bye();
      case SessionState.Initial:
        return session.reject();
      default:
        return session.cancel();
    }
  }

  /** Whether the call is on hold now; not while another offer is under way. */
  hold() {
    return this.offer(true);
  }

  resume() {
    return this.offer(false);
  }

  registerAgain() {
    this.register();
  }

  offer(hold) {
    return new Promise((done) => {
      this.call.session
        .invite({
          sessionDescriptionHandlerOptions: { hold },
          requestDelegate: { onAccept: () => done(true), onReject: () => done(false) },
        })
        .catch(() => done(false));
    });
  }

  follow(session, state) {
    const call = { session, state, offers: 0, why: null };
    this.call = call;
    session.delegate = { onInvite: () => (call.offers += 1), onAck: () => (call.state = "up") };
    session.stateChange.addListener((state) => {
      if (state === SessionState.Established && session instanceof Inviter) call.state = "up";
      if (state === SessionState.Terminated) call.state = "ended";
    });
    return call;
  }
}
