// How does a telephone made with JsSIP behave? Nothing but what an application does with the library.

import JsSIP from "jssip";

export class JsSipPhone {
  registered = false;
  /** The newest call. */
  call = null;
  /** How often there was a new one. */
  calls = 0;

  constructor({ server, user, password, domain, stream }) {
    this.media = { mediaStream: stream };
    this.agent = new JsSIP.UA({
      sockets: [new JsSIP.WebSocketInterface(server)],
      uri: `sip:${user}@${domain}`,
      password,
      connection_recovery_min_interval: 1,
      connection_recovery_max_interval: 2,
    });
    this.agent.on("registered", () => (this.registered = true));
    for (const end of ["unregistered", "registrationFailed", "disconnected"]) {
      this.agent.on(end, () => (this.registered = false));
    }
    this.agent.on("newRTCSession", ({ originator, session }) => {
      if (originator === "remote") this.follow(session, "ringing");
    });
  }

  start() {
    this.agent.start();
  }

  dial(user) {
    this.follow(this.agent.call(user, this.media), "calling");
  }

  answer() {
    this.call.session.answer(this.media);
  }

  hangUp() {
    this.call.session.terminate();
  }

  /** Whether the call is on hold now; not while another offer is under way. */
  hold() {
    return new Promise((done) => this.call.session.hold({}, () => done(true)) || done(false));
  }

  resume() {
    return new Promise((done) => this.call.session.unhold({}, () => done(true)) || done(false));
  }

  registerAgain() {
    this.agent.register();
  }

  follow(session, state) {
    const call = { session, state, offers: 0, why: null };
    this.call = call;
    this.calls += 1;
    session.on("progress", ({ originator }) => originator === "remote" && (call.state = "ringing"));
    session.on("confirmed", () => (call.state = "up"));
    session.on("reinvite", () => (call.offers += 1));
    for (const end of ["ended", "failed"]) {
      session.on(end, ({ originator, cause }) => {
        call.state = "ended";
        call.why = `${originator}: ${cause}`;
      });
    }
  }
}
