// How does a telephone made with SIPml5 behave? Nothing but what an application does with the library, which is a script
// of the page: it makes `SIPml`, and puts functions of its own before those of old browsers.

export class SipmlPhone {
  registered = false;
  /** The newest call. */
  call = null;

  constructor({ server, user, password, domain }) {
    this.account = {
      realm: domain,
      impi: user,
      impu: `sip:${user}@${domain}`,
      password,
      websocket_proxy_url: server,
      events_listener: { events: "*", listener: (event) => this.happened(event) },
    };
    // It would ask STUN servers out in the world.
    const { RTCPeerConnection } = window;
    window.RTCPeerConnection = class extends RTCPeerConnection {
      constructor() {
        super();
      }
    };
    this.media = { audio_remote: document.body.appendChild(document.createElement("audio")) };
  }

  start() {
    SIPml.init(() => {
      this.stack = new SIPml.Stack(this.account);
      this.stack.start();
    });
  }

  happened({ type, newSession }) {
    if (type === "started") this.registerAgain();
    if (type === "i_new_call") this.follow(newSession, "ringing");
  }

  registerAgain() {
    const listener = ({ type }) => {
      if (type === "connected") this.registered = true;
      if (type === "terminated") this.registered = false;
    };
    this.registration ??= this.stack.newSession("register", {
      expires: 600,
      events_listener: { events: "*", listener },
    });
    this.registration.register();
  }

  dial(user) {
    this.follow(this.stack.newSession("call-audio", this.media), "calling").call(user);
  }

  answer() {
    this.call.session.accept(this.media);
  }

  hangUp() {
    this.call.session.hangup();
  }

  hold() {
    return new Promise((done) => {
      this.call.waiting = ({ type }) => type === "m_local_hold_ok" && done(true);
      this.call.session.hold();
    });
  }

  follow(session, state) {
    const call = { session, state, why: null, waiting: null };
    this.call = call;
    session.addEventListener("*", (event) => {
      if (event.type === "i_ao_request" && event.getSipResponseCode() === 180) call.state = "ringing";
      if (event.type === "connected") call.state = "up";
      if (event.type === "terminated") [call.state, call.why] = ["ended", event.description];
      call.waiting?.(event);
    });
    return session;
  }
}
