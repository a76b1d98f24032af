// A SIP user agent over WebSocket (RFC 3261, RFC 7118): registers, calls, and lets itself be called.
//
// It knows nothing of media: session descriptions go in and out as text.

import { digest } from "./digest.js";
import {
  REASONS,
  branchOf,
  cseqOf,
  header,
  lines,
  list,
  param,
  parse,
  token,
  transactionKey,
  uriOf,
  userOf,
  write,
} from "./message.js";
import { ALLOW, Session, TIMEOUT, isChallenge } from "./session.js";

/** Lifetime of a registration in seconds; it is refreshed at two thirds of it. */
const EXPIRES = 60;
/** Waits between attempts to connect, in milliseconds. */
const RECONNECT = { first: 500, longest: 15000 };

/**
 * Events: `change` (look at `state`), `message` (`{ outgoing, text }`), `call` (an incoming `Session`).
 * States: `offline`, `connecting`, `registering`, `registered`, `refused`.
 */
export class UserAgent extends EventTarget {
  state = "offline";
  reason = "";

  #socket = null;
  #stopped = true;
  #retry = 0;
  #timers = { refresh: 0, reconnect: 0 };
  #clients = new Map();
  #sessions = new Map();
  #invites = new Map();
  #register = { callId: token(), tag: token(), cseq: 0, challenge: null };
  #instance = crypto.randomUUID();

  /** `url` is asked for at each attempt to connect. */
  constructor({ url, user, password, domain }) {
    super();
    Object.assign(this, { url, user, password, domain });
    this.aor = `sip:${user}@${domain}`;
    // RFC 7118 section 5: a browser has no address, and says so.
    this.host = `${token()}.invalid`;
    this.contact = `<sip:${token()}@${this.host};transport=ws>`;
  }

  start() {
    this.#stopped = false;
    this.#connect();
  }

  /** Leaves: unregisters and closes. */
  async stop() {
    this.#stopped = true;
    clearTimeout(this.#timers.refresh);
    clearTimeout(this.#timers.reconnect);
    if (this.state === "registered") {
      await this.#sendRegister(0).catch(() => {});
    }
    this.#socket?.close(1000);
    this.#become("offline");
  }

  /** Unregisters without waiting, for a page that is about to go. */
  leave() {
    if (this.state === "registered") {
      this.send(this.#buildRegister(0));
    }
  }

  /** Calls a number or a user with this offer. */
  invite(target, offer) {
    const uri = target.includes("@") ? target : `sip:${target}@${this.domain}`;
    const session = new Session(this, { uri, remote: target, outgoing: true });
    session.start(offer);
    return session;
  }

  /** For sessions: a new request with the headers that all have. */
  build(method, uri, { from, to, callId, cseq, headers = [], body = "" }) {
    return {
      method,
      uri,
      headers: [
        ["Via", `SIP/2.0/WSS ${this.host};branch=z9hG4bK${token()}`],
        ["Max-Forwards", "70"],
        ["From", from],
        ["To", to],
        ["Call-ID", callId],
        ["CSeq", `${cseq} ${method}`],
        ...headers,
        ["User-Agent", "Edgeward demo"],
        ...(body ? [["Content-Type", "application/sdp"]] : []),
      ],
      body,
    };
  }

  send(message) {
    if (this.#socket?.readyState !== WebSocket.OPEN) {
      return false;
    }
    const text = write(message);
    this.#socket.send(text);
    this.#tell("message", { outgoing: true, text });
    return true;
  }

  /**
   * Sends a request and calls back for each response; without one in time, with a 408 of our own.
   * Over a reliable transport nothing is repeated (RFC 3261 section 17.1).
   */
  request(request, onResponse) {
    const key = transactionKey(request);
    const give = (status) => onResponse({ status, reason: REASONS[status], headers: [], body: "", local: true });
    const client = { onResponse, timer: setTimeout(() => this.#clients.delete(key) && give(408), TIMEOUT) };
    this.#clients.set(key, client);
    if (!this.send(request)) {
      clearTimeout(client.timer);
      this.#clients.delete(key);
      queueMicrotask(() => give(503));
    }
  }

  /** The header that answers a challenge (RFC 2617 section 3.2.2). */
  authorization(challenged, { method, uri }) {
    const [asked, answer] =
      challenged.status === 401 ? ["WWW-Authenticate", "Authorization"] : ["Proxy-Authenticate", "Proxy-Authorization"];
    const { user, password } = this;
    // How often the nonce was used.
    const count = (challenged.count = (challenged.count ?? 0) + 1);
    return [answer, digest(header(challenged, asked) ?? "", { user, password, method, uri, count })];
  }

  respond(request, status, { tag, headers = [], body = "" } = {}) {
    const to = header(request, "To");
    const copy = (...names) => names.flatMap((name) => lines(request, name).map((value) => [name, value]));
    // RFC 3261 section 12.1.1: the route set goes back in what makes a dialog.
    const routes = status > 100 && status < 300 ? copy("Record-Route") : [];
    const response = {
      status,
      reason: REASONS[status] ?? "Answer",
      headers: [
        ...copy("Via", "From", "Call-ID", "CSeq"),
        ["To", tag && !param(to, "tag") ? `${to};tag=${tag}` : to],
        ...routes,
        ...headers,
        ...(body ? [["Content-Type", "application/sdp"]] : []),
      ],
      body,
    };
    this.send(response);
  }

  adopt(session) {
    this.#sessions.set(session.key, session);
  }

  forget(session) {
    this.#sessions.delete(session.key);
  }

  #connect() {
    this.#become("connecting");
    const socket = new WebSocket(this.url(), "sip");
    this.#socket = socket;
    socket.onopen = () => {
      this.#retry = 0;
      this.#refresh();
    };
    socket.onmessage = ({ data }) => this.#receive(data);
    socket.onclose = () => this.#closed(socket);
  }

  #closed(socket) {
    if (socket !== this.#socket) {
      return;
    }
    clearTimeout(this.#timers.refresh);
    if (this.#stopped) {
      return;
    }
    this.#become("offline", "connection lost");
    // Doubled waits, and never all clients at once.
    const wait = Math.min(RECONNECT.first * 2 ** this.#retry++, RECONNECT.longest) * (0.5 + Math.random() / 2);
    this.#timers.reconnect = setTimeout(() => this.#connect(), wait);
  }

  async #refresh() {
    const socket = this.#socket;
    if (this.state !== "registered") {
      this.#become("registering");
    }
    const response = await this.#sendRegister(EXPIRES);
    if (socket !== this.#socket || this.#stopped) {
      return;
    }
    if (response.status !== 200) {
      this.#become("refused", `${response.status} ${response.reason}`);
      this.#timers.refresh = setTimeout(() => this.#refresh(), RECONNECT.longest);
      return;
    }
    this.#become("registered");
    const mine = list(response, "Contact").find((contact) => uriOf(contact) === uriOf(this.contact));
    const granted = Number(param(mine ?? "", "expires") ?? header(response, "Expires") ?? EXPIRES);
    this.#timers.refresh = setTimeout(() => this.#refresh(), (granted * 2000) / 3);
  }

  /** Registers, or leaves; with a proof for the last challenge, which may still be good. */
  async #sendRegister(expires) {
    const response = await this.#final(this.#buildRegister(expires));
    if (!isChallenge(response)) {
      return response;
    }
    this.#register.challenge = response;
    return this.#final(this.#buildRegister(expires));
  }

  #buildRegister(expires) {
    const { callId, tag, challenge } = this.#register;
    const [method, uri] = ["REGISTER", `sip:${this.domain}`];
    return this.build(method, uri, {
      from: `<${this.aor}>;tag=${tag}`,
      to: `<${this.aor}>`,
      callId,
      cseq: ++this.#register.cseq,
      headers: [
        ["Contact", `${this.contact};+sip.instance="<urn:uuid:${this.#instance}>";reg-id=1;expires=${expires}`],
        ["Expires", `${expires}`],
        ["Supported", "path, outbound"],
        ["Allow", ALLOW],
        ...(challenge ? [this.authorization(challenge, { method, uri })] : []),
      ],
    });
  }

  #final(request) {
    return new Promise((resolve) => this.request(request, (response) => response.status >= 200 && resolve(response)));
  }

  #receive(data) {
    // RFC 5626 section 3.5.1: a double line break is a ping, a single one its answer.
    if (typeof data !== "string" || !data.trim()) {
      if (data === "\r\n\r\n") {
        this.#socket.send("\r\n");
      }
      return;
    }
    this.#tell("message", { outgoing: false, text: data });
    const message = parse(data);
    if (!message) {
      return;
    }
    if (message.method) {
      this.#request(message);
      return;
    }
    const key = transactionKey(message);
    const client = this.#clients.get(key);
    if (!client) {
      return;
    }
    const invite = cseqOf(message).method === "INVITE";
    if (message.status >= 200) {
      clearTimeout(client.timer);
      // A success of an INVITE may come again, and is to be acknowledged again.
      client.timer = setTimeout(() => this.#clients.delete(key), invite ? TIMEOUT : 0);
    } else if (invite) {
      // It rings, for as long as it rings.
      clearTimeout(client.timer);
    }
    client.onResponse(message);
  }

  #request(request) {
    const session = this.#sessions.get(`${header(request, "Call-ID")} ${param(header(request, "To"), "tag")}`);
    if (session) {
      session.receive(request);
      return;
    }
    if (param(header(request, "To"), "tag")) {
      if (request.method !== "ACK") {
        this.respond(request, 481);
      }
      return;
    }
    switch (request.method) {
      case "INVITE":
        this.#incoming(request);
        break;
      case "CANCEL": {
        const invited = this.#invites.get(branchOf(request));
        this.respond(request, invited ? 200 : 481, { tag: token() });
        invited?.cancelled(request);
        break;
      }
      case "OPTIONS":
        this.respond(request, 200, { tag: token(), headers: [["Allow", ALLOW]] });
        break;
      case "ACK":
        break;
      default:
        this.respond(request, 405, { tag: token(), headers: [["Allow", ALLOW]] });
    }
  }

  #incoming(invite) {
    const branch = branchOf(invite);
    if (this.#invites.has(branch)) {
      return;
    }
    const from = header(invite, "From");
    const session = new Session(this, { uri: uriOf(from), remote: userOf(uriOf(from)), outgoing: false, invite });
    this.#invites.set(branch, session);
    setTimeout(() => this.#invites.delete(branch), 4 * TIMEOUT);
    this.#tell("call", session);
  }

  #become(state, reason = "") {
    Object.assign(this, { state, reason });
    this.#tell("change");
  }

  #tell(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}
