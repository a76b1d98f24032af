// A SIP user agent over WebSocket (RFC 3261, RFC 7118): registers, calls, and lets itself be called.
//
// It knows nothing of media: session descriptions go in and out as text.

import { md5 } from "./md5.js";

const ALLOW = "INVITE, ACK, CANCEL, BYE, OPTIONS, INFO";
/** RFC 3261 section 17.1.1.1: T1 and T2, and 64*T1 as the end of hope, in milliseconds. */
const [T1, T2, TIMEOUT] = [500, 4000, 32000];
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
    const headers = [["Contact", this.#agent.contact], ["Allow", ALLOW]];
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

/** Reads a message: `{ method, uri }` or `{ status, reason }`, with `headers` and `body`; nothing when it is none. */
export function parse(text) {
  const end = text.indexOf("\r\n\r\n");
  if (end < 0) {
    return null;
  }
  // RFC 3261 section 7.3.1: a line that begins with white space goes on with the one before.
  const [first, ...rest] = text.slice(0, end).replace(/\r\n[ \t]+/g, " ").split("\r\n");
  const headers = rest.map((line) => {
    const colon = line.indexOf(":");
    return [longForm(line.slice(0, colon).trim()), line.slice(colon + 1).trim()];
  });
  const message = { headers, body: text.slice(end + 4) };
  const response = /^SIP\/2\.0 ([1-6]\d\d) (.*)$/.exec(first);
  const request = /^(\S+) (\S+) SIP\/2\.0$/.exec(first);
  if (response) {
    Object.assign(message, { status: Number(response[1]), reason: response[2] });
  } else if (request) {
    Object.assign(message, { method: request[1], uri: request[2] });
  } else {
    return null;
  }
  const complete = ["Via", "From", "To", "Call-ID", "CSeq"].every((name) => header(message, name));
  return complete && cseqOf(message).number >= 0 ? message : null;
}

export function write({ method, uri, status, reason, headers, body }) {
  const first = method ? `${method} ${uri} SIP/2.0` : `SIP/2.0 ${status} ${reason}`;
  const length = new TextEncoder().encode(body).length;
  const fields = [...headers, ["Content-Length", `${length}`]].map(([name, value]) => `${name}: ${value}`);
  return `${[first, ...fields].join("\r\n")}\r\n\r\n${body}`;
}

/** The first header line of a name. */
export function header(message, name) {
  return message.headers.find(([other]) => other.toLowerCase() === name.toLowerCase())?.[1];
}

/** All header lines of a name. */
function lines(message, name) {
  const named = message.headers.filter(([other]) => other.toLowerCase() === name.toLowerCase());
  return named.map(([, value]) => value);
}

/** All values of a name, over lines and commas, those in quotes and angle brackets not meant. */
export function list(message, name) {
  const items = lines(message, name).flatMap((line) => line.match(/(?:"(?:[^"\\]|\\.)*"|<[^>]*>|[^,"<])+/g) ?? []);
  return items.map((item) => item.trim());
}

/** The URI of a header value (RFC 3261 section 20.10). */
export function uriOf(value) {
  const bare = value.replace(/"(?:[^"\\]|\\.)*"/g, "");
  return /<([^>]*)>/.exec(bare)?.[1] ?? bare.split(";")[0].trim();
}

/** A parameter of a header value, those within the URI not meant. */
export function param(value, name) {
  const params = (value ?? "").replace(/^(?:"(?:[^"\\]|\\.)*"|[^"<])*<[^>]*>/, "");
  const pairs = params.split(";").slice(1).map((item) => item.trim().split("="));
  const found = pairs.find(([key]) => key.toLowerCase() === name);
  return found?.slice(1).join("=").replace(/^"|"$/g, "");
}

/** The value of an Authorization header for a challenge: MD5, with `qop=auth` where it is offered. */
export function digest(challenge, { user, password, method, uri, count = 1, cnonce = token() }) {
  const pairs = challenge.matchAll(/([\w-]+)=(?:"((?:[^"\\]|\\.)*)"|([^\s,]+))/g);
  const params = Object.fromEntries(Array.from(pairs, ([, key, quoted, bare]) => [key.toLowerCase(), quoted ?? bare]));
  const { realm = "", nonce = "", opaque } = params;
  const qop = (params.qop ?? "").split(",").some((offered) => offered.trim() === "auth");
  const ha1 = md5(`${user}:${realm}:${password}`);
  const ha2 = md5(`${method}:${uri}`);
  const nc = count.toString(16).padStart(8, "0");
  const response = md5(qop ? `${ha1}:${nonce}:${nc}:${cnonce}:auth:${ha2}` : `${ha1}:${nonce}:${ha2}`);
  const fields = [`username="${user}"`, `realm="${realm}"`, `nonce="${nonce}"`, `uri="${uri}"`];
  fields.push(`response="${response}"`, "algorithm=MD5");
  if (opaque !== undefined) {
    fields.push(`opaque="${opaque}"`);
  }
  if (qop) {
    fields.push("qop=auth", `nc=${nc}`, `cnonce="${cnonce}"`);
  }
  return `Digest ${fields.join(", ")}`;
}

function isChallenge({ status, local }) {
  return (status === 401 || status === 407) && !local;
}

function cseqOf(message) {
  const [number, method] = (header(message, "CSeq") ?? "").split(/\s+/);
  return { number: /^\d+$/.test(number) ? Number(number) : -1, method };
}

function branchOf(message) {
  return param(list(message, "Via")[0], "branch");
}

function transactionKey(message) {
  return `${branchOf(message)} ${cseqOf(message).method}`;
}

function userOf(uri) {
  return /^sips?:([^@;:]+)@/i.exec(uri)?.[1] ?? uri;
}

function token() {
  return Array.from(crypto.getRandomValues(new Uint8Array(8)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** RFC 3261 section 7.3.3: compact forms. */
function longForm(name) {
  return COMPACT[name.toLowerCase()] ?? name;
}

const COMPACT = {
  v: "Via",
  f: "From",
  t: "To",
  i: "Call-ID",
  m: "Contact",
  l: "Content-Length",
  c: "Content-Type",
  k: "Supported",
};

const REASONS = {
  100: "Trying",
  180: "Ringing",
  200: "OK",
  405: "Method Not Allowed",
  408: "Request Timeout",
  481: "Call/Transaction Does Not Exist",
  486: "Busy Here",
  487: "Request Terminated",
  488: "Not Acceptable Here",
  500: "Server Internal Error",
  501: "Not Implemented",
  503: "Service Unavailable",
  603: "Decline",
};
