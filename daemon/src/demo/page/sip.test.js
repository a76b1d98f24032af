// Does the user agent keep to the rules? `node sip.test.js`, which `cargo test` does as well where there is a node.

import assert from "node:assert/strict";
import { test } from "node:test";

import { digest } from "./digest.js";
import { md5 } from "./md5.js";
import { header, list, param, parse, uriOf, write } from "./message.js";
import { UserAgent } from "./sip.js";

/** The other end of the WebSocket, played by the tests. */
class FakeSocket {
  static OPEN = 1;
  static opened = [];
  readyState = 1;
  sent = [];

  constructor(url, protocol) {
    Object.assign(this, { url, protocol });
    FakeSocket.opened.push(this);
  }

  send(text) {
    this.sent.push(text);
  }

  close() {
    this.readyState = 3;
    this.onclose();
  }

  /** The next message that was sent. */
  next() {
    assert.notEqual(this.sent.length, 0, "something was sent");
    return parse(this.sent.shift());
  }

  /** Delivers a message and lets what follows from it happen. */
  async give(message) {
    this.onmessage({ data: typeof message === "string" ? message : write(message) });
    await settled();
  }

  /** Answers a request. */
  async answer(request, status, headers = [], body = "") {
    const copied = request.headers.filter(([name]) => ["Via", "From", "Call-ID", "CSeq"].includes(name));
    const to = header(request, "To");
    const tagged = status > 100 && !param(to, "tag") ? `${to};tag=them` : to;
    await this.give({ status, reason: "Reason", headers: [...copied, ["To", tagged], ...headers], body });
  }
}
globalThis.WebSocket = FakeSocket;

const settled = () => new Promise((resolve) => setImmediate(resolve));
const CHALLENGE = ["WWW-Authenticate", 'Digest realm="lan.example", nonce="n", algorithm=MD5, qop="auth"'];
const ROUTES = [
  ["Record-Route", "<sip:tok@127.0.0.1:5060;lr>, <sip:tok@localhost:8443;transport=ws;lr>"],
  ["Contact", "<sip:127.0.0.2:5060>"],
];

test("md5 gives the values of RFC 1321", () => {
  assert.equal(md5(""), "d41d8cd98f00b204e9800998ecf8427e");
  assert.equal(md5("message digest"), "f96b697d7cb7938d525a2f31aaf161d0");
  assert.equal(md5("1234567890".repeat(8)), "57edf4a22be3c955ac49da2e2107b67a");
});

test("a digest is that of RFC 2617 section 3.5, and one without qop", () => {
  const of = (qop) =>
    digest(`Digest realm="testrealm@host.com", ${qop}nonce="dcd98b7102dd2f0e8b11d0f600bfb0c093", opaque="5ccc"`, {
      user: "Mufasa",
      password: "Circle Of Life",
      method: "GET",
      uri: "/dir/index.html",
      cnonce: "0a4f113b",
    });
  const answer = of('qop="auth,auth-int", ');
  assert.match(answer, /response="6629fae49393a05397450978507c4ef1".*opaque="5ccc", qop=auth, nc=00000001/);
  assert.match(of(""), /response="670fd8c2df070c60b045671b8b24ff02"/);
  assert.doesNotMatch(of(""), /qop|cnonce/);
});

test("messages are read in all their forms", () => {
  const message = parse(
    'INVITE sip:a@b SIP/2.0\r\nv: SIP/2.0/WSS x;branch=1, SIP/2.0/UDP y\r\nFrom: "A, <x>" <sip:a@b;tag=no>;Tag=1\r\n' +
      "t: <sip:c@d>\r\ni: id\r\nCSeq: 1\r\n  INVITE\r\n\r\nbody",
  );
  assert.deepEqual(list(message, "via"), ["SIP/2.0/WSS x;branch=1", "SIP/2.0/UDP y"]);
  assert.equal(uriOf(header(message, "From")), "sip:a@b;tag=no");
  assert.equal(param(header(message, "From"), "tag"), "1");
  assert.equal(param("sip:a@b;tag=2", "tag"), "2");
  assert.equal(header(message, "CSeq"), "1 INVITE");
  assert.equal(message.body, "body");
  for (const bad of ["", "\r\n\r\n", "SIP/2.0 99 X\r\n\r\n", write(message).replace(/CSeq: 1/i, "CSeq: x")]) {
    assert.equal(parse(bad), null);
  }
});

test("it registers, refreshes after a loss by the same contact, and leaves", async (t) => {
  const { agent, socket } = await registered(t);
  assert.equal(socket.protocol, "sip");
  const states = [];
  agent.addEventListener("change", () => states.push(agent.state));

  socket.close();
  t.mock.timers.tick(500);
  const again = FakeSocket.opened.at(-1);
  again.onopen();
  const register = again.next();
  assert.equal(uriOf(list(register, "Contact")[0]), uriOf(agent.contact));
  assert.ok(Number.parseInt(header(register, "CSeq"), 10) > 2);
  // The old challenge may still do; if not, there is a new one.
  assert.match(header(register, "Authorization"), /nonce="n".*nc=00000002/);
  await again.answer(register, 401, [[CHALLENGE[0], CHALLENGE[1].replace('"n"', '"m"')]]);
  const proved = again.next();
  assert.match(header(proved, "Authorization"), /nonce="m".*nc=00000001/);
  await again.answer(proved, 200, [["Contact", `${agent.contact};expires=60`]]);
  assert.deepEqual(states, ["offline", "connecting", "registering", "registered"]);

  t.mock.timers.tick(39_000);
  assert.equal(again.sent.length, 0);
  t.mock.timers.tick(1_000);
  await again.answer(again.next(), 200, [["Contact", `${agent.contact};expires=60`]]);
  agent.leave();
  assert.equal(param(header(again.next(), "Contact"), "expires"), "0");
  const left = agent.stop();
  const leave = again.next();
  assert.equal(param(header(leave, "Contact"), "expires"), "0");
  await again.answer(leave, 200);
  await left;
  assert.equal(agent.state, "offline");
});

test("pings are answered and nonsense is not", async (t) => {
  const { socket } = await registered(t);
  await socket.give("\r\n\r\n");
  assert.deepEqual(socket.sent.splice(0), ["\r\n"]);
  for (const nonsense of ["\r\n", "hello", "SIP/2.0 200 OK\r\n\r\n"]) {
    await socket.give(nonsense);
  }
  await socket.give(request("BYE", { to: "<sip:alice@lan.example>;tag=unknown" }));
  assert.equal(socket.next().status, 481);
  await socket.give(request("OPTIONS"));
  assert.equal(socket.next().status, 200);
  await socket.give(request("MESSAGE"));
  assert.equal(socket.next().status, 405);
  assert.equal(socket.sent.length, 0);
});

test("it calls, proves who it is, and follows the route set backwards", async (t) => {
  const { agent, socket } = await registered(t);
  const session = agent.invite("600", "offer");
  const first = socket.next();
  assert.equal(first.body, "offer");
  await socket.answer(first, 401, [CHALLENGE]);
  const refused = socket.next();
  assert.equal(refused.method, "ACK");
  assert.equal(param(header(refused, "Via"), "branch"), param(header(first, "Via"), "branch"));
  const invite = socket.next();
  assert.match(header(invite, "Authorization"), /uri="sip:600@lan.example"/);
  await socket.answer(invite, 180);
  assert.equal(session.state, "ringing");
  // However long it rings.
  t.mock.timers.tick(60_000);
  await socket.answer(invite, 200, ROUTES, "answer");
  assert.deepEqual([session.state, session.sdp], ["up", "answer"]);
  const ack = socket.next();
  assert.equal(ack.uri, "sip:127.0.0.2:5060");
  assert.deepEqual(list(ack, "Route"), ["<sip:tok@localhost:8443;transport=ws;lr>", "<sip:tok@127.0.0.1:5060;lr>"]);
  assert.notEqual(param(header(ack, "Via"), "branch"), param(header(invite, "Via"), "branch"));
  await socket.answer(invite, 200, ROUTES, "answer");
  assert.deepEqual(socket.next(), ack);

  const held = session.offer("hold");
  const hold = socket.next();
  assert.deepEqual(list(hold, "Route"), list(ack, "Route"));
  await socket.answer(hold, 200, ROUTES, "held");
  assert.equal(socket.next().method, "ACK");
  assert.equal(await held, "held");

  session.hangUp();
  const bye = socket.next();
  assert.deepEqual([bye.method, header(bye, "To")], ["BYE", header(ack, "To")]);
  await socket.answer(bye, 200);
  assert.equal(session.state, "ended");
});

test("a call is given up only after the other side has said anything", async (t) => {
  const { agent, socket } = await registered(t);
  const session = agent.invite("602", "offer");
  const invite = socket.next();
  session.hangUp();
  assert.equal(socket.sent.length, 0);
  await socket.answer(invite, 100);
  const cancel = socket.next();
  assert.equal(cancel.method, "CANCEL");
  assert.equal(header(cancel, "Via"), header(invite, "Via"));
  await socket.answer(cancel, 200);
  // The success was faster: it is acknowledged, and ended.
  await socket.answer(invite, 200, ROUTES, "answer");
  assert.equal(socket.next().method, "ACK");
  assert.equal(socket.next().method, "BYE");
  assert.equal(session.state, "ended");
});

test("a request without an answer ends by itself", async (t) => {
  const { agent, socket } = await registered(t);
  const session = agent.invite("600", "offer");
  t.mock.timers.tick(32_000);
  assert.deepEqual([session.state, session.reason], ["ended", "408 Request Timeout"]);
  socket.readyState = 3;
  const other = agent.invite("600", "offer");
  await settled();
  assert.deepEqual([other.state, other.reason], ["ended", "503 Service Unavailable"]);
});

test("it is called, and repeats its success until that is acknowledged", async (t) => {
  const { agent, socket } = await registered(t);
  let session;
  agent.addEventListener("call", ({ detail }) => (session = detail));
  const invite = request("INVITE", { headers: ROUTES, body: "offer" });
  await socket.give(invite);
  const ringing = socket.next();
  assert.deepEqual([ringing.status, session.state, session.remote, session.sdp], [180, "incoming", "601", "offer"]);
  assert.equal(header(ringing, "Record-Route"), ROUTES[0][1]);
  await socket.give(invite);
  session.accept("answer");
  const ok = socket.next();
  assert.deepEqual([ok.status, ok.body, socket.sent.length], [200, "answer", 0]);
  t.mock.timers.tick(500);
  assert.deepEqual(socket.next(), ok);
  const to = header(ok, "To");
  await socket.give(request("ACK", { to, branch: "ack" }));
  t.mock.timers.tick(60_000);
  assert.equal(socket.sent.length, 0);

  let offered;
  session.addEventListener("offer", ({ detail }) => (offered = detail));
  await socket.give(request("INVITE", { to, number: 2, branch: "hold", headers: ROUTES, body: "hold" }));
  offered.answer("held");
  assert.deepEqual([offered.sdp, socket.next().body], ["hold", "held"]);
  await socket.give(request("ACK", { to, number: 2, branch: "ack2" }));
  await socket.give(request("BYE", { to, number: 1, branch: "late" }));
  assert.equal(socket.next().status, 500);
  await socket.give(request("BYE", { to, number: 3, branch: "bye" }));
  assert.deepEqual([socket.next().status, session.state], [200, "ended"]);
});

test("an incoming call ends unanswered: taken back, or declined", async (t) => {
  const { agent, socket } = await registered(t);
  let session;
  agent.addEventListener("call", ({ detail }) => (session = detail));
  await socket.give(request("INVITE", { body: "offer" }));
  assert.equal(socket.next().status, 180);
  await socket.give(request("CANCEL"));
  assert.deepEqual([socket.next().status, socket.next().status, session.state], [200, 487, "ended"]);
  await socket.give(request("CANCEL", { branch: "unknown" }));
  assert.equal(socket.next().status, 481);
  await socket.give(request("INVITE", { branch: "second", callId: "second" }));
  assert.equal(socket.next().status, 180);
  session.hangUp(486);
  assert.deepEqual([socket.next().status, session.state], [486, "ended"]);
});

/** An agent that has registered, in a time that only the test moves on. */
async function registered(t) {
  t.mock.timers.enable({ apis: ["setTimeout"] });
  const agent = new UserAgent({
    url: () => "wss://x/wssip?token=t",
    user: "alice",
    password: "p",
    domain: "lan.example",
  });
  agent.start();
  const socket = FakeSocket.opened.at(-1);
  socket.onopen();
  await socket.answer(socket.next(), 401, [CHALLENGE]);
  const register = socket.next();
  assert.match(header(register, "Authorization"), /username="alice".*uri="sip:lan.example"/);
  await socket.answer(register, 200, [["Contact", `${agent.contact};expires=600`]]);
  assert.equal(agent.state, "registered");
  return { agent, socket };
}

function request(method, { to, number = 1, branch = "1", callId = "theirs", headers = [], body = "" } = {}) {
  return {
    method,
    uri: "sip:alice@phone.invalid",
    headers: [
      ["Via", `SIP/2.0/WSS edge;branch=z9hG4bK${branch}, SIP/2.0/UDP 127.0.0.2;branch=z9hG4bK${branch}`],
      ["From", '"Call back" <sip:601@lan.example>;tag=them'],
      ["To", to ?? "<sip:alice@lan.example>"],
      ["Call-ID", callId],
      ["CSeq", `${number} ${method}`],
      ...headers,
    ],
    body,
  };
}
