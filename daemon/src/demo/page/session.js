// One call of the user agent: a dialog (RFC 3261 section 12), from its INVITE to its end.

import { branchOf, cseqOf, header, lines, list, token, uriOf } from "./message.js";

/** Methods that mean something here. */
export const ALLOW = "INVITE, ACK, CANCEL, BYE, OPTIONS, INFO";
/** RFC 3261 section 17.1.1.1: 64 times T1, the end of hope, in milliseconds. */
export const TIMEOUT = 32000;
/** RFC 3261 section 17.1.1.1: the first and the longest wait between two repeats, in milliseconds. */
const [T1, T2] = [500, 4000];

/**
 * One call. Events: `change` (look at `state`), `offer` (`{ sdp, answer(sdp) }`: the other side changes the media).
 * States: `calling`, `ringing`, `incoming`, `up`, `ended`.
 */
export class Session extends EventTarget {
  state;
  /** Why it ended. */
  reason = "";
  /** The other side's session description. */
  sdp = "";

  #agent;
  #invite;
  #local;
  #peer;
  #target;
  #routes = [];
  #cseq = 0;
  #remoteCseq = 0;
  #callId;
  #tag = token();
  #acks = new Map();
  #repeat = 0;
  #answered = false;
  #proved = false;
  #wantsEnd = false;

  constructor(agent, { uri, remote, outgoing, invite }) {
    super();
    Object.assign(this, { remote, outgoing, state: outgoing ? "calling" : "incoming" });
    this.#agent = agent;
    this.#invite = invite;
    if (outgoing) {
      this.#callId = token() + token();
      this.#local = `<${agent.aor}>;tag=${this.#tag}`;
      this.#peer = `<${uri}>`;
      this.#target = uri;
    } else {
      this.#callId = header(invite, "Call-ID");
      this.#local = `${header(invite, "To")};tag=${this.#tag}`;
      this.#peer = header(invite, "From");
      this.#target = uriOf(list(invite, "Contact")[0] ?? "");
      // RFC 3261 section 12.1.1: the callee takes the route set as it stands.
      this.#routes = list(invite, "Record-Route");
      this.#remoteCseq = cseqOf(invite).number;
      this.sdp = invite.body;
      agent.respond(invite, 180, { tag: this.#tag, headers: [["Contact", agent.contact]] });
    }
    agent.adopt(this);
  }

  /** By this the agent finds it: Call-ID and our own tag. */
  get key() {
    return `${this.#callId} ${this.#tag}`;
  }

  start(offer, proof = []) {
    const headers = [["Contact", this.#agent.contact], ["Allow", ALLOW], ...proof];
    const invite = this.#build("INVITE", { headers, body: offer });
    this.#invite = invite;
    this.#proved = proof.length > 0;
    this.#agent.request(invite, (response) => this.#invited(invite, response, offer));
  }

  /** Takes the call with this answer. */
  accept(answer) {
    if (this.state !== "incoming") {
      return;
    }
    this.#success(this.#invite, answer);
    this.#become("up");
  }

  /** Ends the call, in whatever state it is; one that comes in is declined with this status. */
  hangUp(status = 603) {
    switch (this.state) {
      case "incoming":
        this.#agent.respond(this.#invite, status, { tag: this.#tag });
        this.#end("declined");
        break;
      case "calling":
        // RFC 3261 section 9.1: a CANCEL has to wait for a provisional response.
        this.#wantsEnd = true;
        if (this.#answered) {
          this.#cancel();
        }
        break;
      case "ringing":
        this.#cancel();
        break;
      case "up":
        this.#agent.request(this.#build("BYE"), () => {});
        this.#end("hung up");
        break;
    }
  }

  /** Offers other media within the call; the answer, or an error. */
  offer(sdp) {
    const invite = this.#build("INVITE", { headers: [["Contact", this.#agent.contact]], body: sdp });
    return new Promise((resolve, reject) => {
      this.#agent.request(invite, (response) => {
        if (response.status < 200) {
          return;
        }
        this.#acknowledge(invite, response);
        if (response.status < 300) {
          resolve(response.body);
        } else {
          reject(new Error(`${response.status} ${response.reason}`));
        }
      });
    });
  }

  /** A request within the dialog. */
  receive(request) {
    const { number, method } = cseqOf(request);
    if (method === "ACK") {
      clearTimeout(this.#repeat);
      return;
    }
    if (method !== "CANCEL" && number <= this.#remoteCseq) {
      // RFC 3261 section 12.2.2: it was overtaken.
      this.#agent.respond(request, 500);
      return;
    }
    this.#remoteCseq = number;
    switch (method) {
      case "BYE":
        this.#agent.respond(request, 200);
        this.#end("the other side hung up");
        break;
      case "INVITE":
        this.#target = uriOf(list(request, "Contact")[0] ?? `<${this.#target}>`);
        this.sdp = request.body;
        this.#tell("offer", { sdp: request.body, answer: (sdp) => this.#success(request, sdp) });
        break;
      case "INFO":
      case "OPTIONS":
        this.#agent.respond(request, 200, { headers: [["Allow", ALLOW]] });
        break;
      default:
        this.#agent.respond(request, 501);
    }
  }

  /** The caller of an incoming call has given up. */
  cancelled(request) {
    if (this.state === "incoming") {
      this.#agent.respond(this.#invite, 487, { tag: this.#tag });
      const reason = header(request, "Reason") ?? "";
      this.#end(reason.includes("200") ? "taken elsewhere" : "the caller gave up");
    }
  }

  #invited(invite, response, offer) {
    const { status } = response;
    this.#answered = true;
    if (status >= 200) {
      this.#acknowledge(invite, response);
    }
    if (this.state === "up" || this.state === "ended") {
      // A success that came in spite of our CANCEL.
      if (this.state === "ended" && status < 300 && status >= 200) {
        this.#confirm(response);
        this.#agent.request(this.#build("BYE"), () => {});
      }
      return;
    }
    if (isChallenge(response) && !this.#proved && !this.#wantsEnd) {
      this.#answered = false;
      this.start(offer, [this.#agent.authorization(response, invite)]);
    } else if (status >= 300) {
      this.#end(status === 487 ? "given up" : `${status} ${response.reason}`);
    } else if (status >= 200) {
      this.#confirm(response);
      this.sdp = response.body;
      this.#become("up");
      if (this.#wantsEnd) {
        this.hangUp();
      }
    } else if (this.#wantsEnd) {
      this.#cancel();
    } else if (status > 100) {
      this.#become("ringing");
    }
  }

  /** RFC 3261 section 12.1.2: what the success says; the caller takes the route set backwards. */
  #confirm(response) {
    this.#peer = header(response, "To");
    this.#target = uriOf(list(response, "Contact")[0] ?? `<${this.#target}>`);
    this.#routes = list(response, "Record-Route").reverse();
  }

  /** Acknowledges a final response, and each repeat of it alike. */
  #acknowledge(invite, response) {
    if (response.local) {
      return;
    }
    const branch = branchOf(invite);
    let ack = this.#acks.get(branch);
    if (!ack) {
      const { number } = cseqOf(invite);
      if (response.status < 300) {
        // RFC 3261 section 13.2.2.4: within the dialog, as a transaction of its own.
        const routes = this.#routes.length ? this.#routes : list(response, "Record-Route").reverse();
        const target = uriOf(list(response, "Contact")[0] ?? `<${this.#target}>`);
        ack = this.#agent.build("ACK", target, {
          from: this.#local,
          to: header(response, "To"),
          callId: this.#callId,
          cseq: number,
          headers: routes.map((route) => ["Route", route]),
        });
      } else {
        ack = this.#sameHop(invite, "ACK", header(response, "To"));
      }
      this.#acks.set(branch, ack);
    }
    this.#agent.send(ack);
  }

  #cancel() {
    this.#agent.request(this.#sameHop(this.#invite, "CANCEL", header(this.#invite, "To")), () => {});
    this.#end("given up");
  }

  /** RFC 3261 sections 9.1 and 17.1.1.3: what belongs to the INVITE's own hop bears its branch and number. */
  #sameHop(invite, method, to) {
    const request = this.#agent.build(method, invite.uri, {
      from: this.#local,
      to,
      callId: this.#callId,
      cseq: cseqOf(invite).number,
      headers: lines(invite, "Route").map((route) => ["Route", route]),
    });
    request.headers[0] = ["Via", header(invite, "Via")];
    return request;
  }

  #build(method, { headers = [], body = "" } = {}) {
    const routes = this.#routes.map((route) => ["Route", route]);
    return this.#agent.build(method, this.#target, {
      from: this.#local,
      to: this.#peer,
      callId: this.#callId,
      cseq: ++this.#cseq,
      headers: [...routes, ...headers],
      body,
    });
  }

  /** RFC 3261 section 13.3.1.4: a success is repeated until it is acknowledged, whatever the transport. */
  #success(invite, sdp) {
    const headers = [
      ["Contact", this.#agent.contact],
      ["Allow", ALLOW],
    ];
    const send = () => this.#agent.respond(invite, 200, { tag: this.#tag, headers, body: sdp });
    const repeat = (wait, left) => {
      this.#repeat = setTimeout(() => {
        if (left <= 0) {
          this.hangUp();
          return;
        }
        send();
        repeat(Math.min(2 * wait, T2), left - wait);
      }, wait);
    };
    clearTimeout(this.#repeat);
    send();
    repeat(T1, TIMEOUT);
  }

  #end(reason) {
    clearTimeout(this.#repeat);
    this.reason = reason;
    this.#become("ended");
    // A late success of the INVITE is still to be acknowledged, and ended.
    setTimeout(() => this.#agent.forget(this), TIMEOUT);
  }

  #become(state) {
    this.state = state;
    this.#tell("change");
  }

  #tell(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}

/** Whether somebody wants to know who we are. */
export function isChallenge({ status, local }) {
  return (status === 401 || status === 407) && !local;
}
