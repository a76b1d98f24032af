// The page: logs in, registers, calls and is called, and shows what happens.

import { Media, openSource } from "./call.js";
import { header, parse } from "./message.js";
import { Plot } from "./plot.js";
import { UserAgent } from "./sip.js";

/** SIP messages that are kept in sight. */
const LOG_MAX = 200;
/** Longest wait between attempts to reach the UC server, in milliseconds. */
const RECONNECT_MAX = 15000;

/** What a test, or a curious person in the console, may look at and use. */
const edgeward = {
  user: null,
  connection: "offline",
  registered: false,
  presence: {},
  /** `{ remote, outgoing, state, media, held, transport, source, setUp }`, and `reason` once it has ended. */
  call: null,
  stats: null,
  error: null,
  logIn,
  logOut,
  dial,
  accept,
  hangUp,
  hold,
  choose,
};
window.edgeward = edgeward;

let account = null;
let agent = null;
let cti = null;
let current = null;

const plot = new Plot(element("plot"), [{ colour: "--accent" }, { colour: "--jitter" }]);

// --- Log-in -------------------------------------------------------------------------------------------------------

async function logIn(login, password) {
  account = await authenticate(login, password);
  edgeward.user = account.login;
  agent = new UserAgent({ url: () => socketUrl("/wssip"), user: login, password, domain: account.domain });
  agent.addEventListener("change", renderConnection);
  agent.addEventListener("message", ({ detail }) => log(detail));
  agent.addEventListener("call", ({ detail }) => incoming(detail));
  agent.start();
  follow();
  render();
}

async function logOut() {
  current?.session?.hangUp();
  const leaving = agent;
  [account, agent, edgeward.user, edgeward.presence] = [null, null, null, {}];
  cti?.close();
  await leaving?.stop();
  renderConnection();
  render();
}

async function authenticate(login, password) {
  const body = JSON.stringify({ login, password });
  const headers = { "Content-Type": "application/json" };
  const response = await fetch("/xuc/api/2.0/auth/login", { method: "POST", headers, body });
  if (!response.ok) {
    throw new Error(response.status === 401 ? "User or password is wrong." : `The edge answers ${response.status}.`);
  }
  const { token, TTL, domain } = await response.json();
  return { login, password, domain, token, renew: Date.now() + TTL * 500 };
}

/** A new token: the old one has lived half its life, or is not taken any more. */
async function renew() {
  const { login, password } = account;
  const renewed = await authenticate(login, password);
  // Unless there was a log-out meanwhile.
  account &&= renewed;
}

/** TURN credentials. */
async function iceConfig() {
  if (Date.now() > account.renew) {
    await renew();
  }
  const ask = () => fetch("/xuc/api/2.0/ice", { headers: { "X-Auth-Token": account.token } });
  let response = await ask();
  if (response.status === 401) {
    await renew();
    response = await ask();
  }
  if (!response.ok) {
    throw new Error(`no TURN credentials: ${response.status}`);
  }
  return response.json();
}

/** Follows who is there, for as long as we are logged in. */
function follow(attempt = 0) {
  const socket = new WebSocket(socketUrl("/xuc/api/2.0/cti"));
  cti = socket;
  let opened = false;
  socket.onopen = () => {
    [opened, attempt] = [true, 0];
  };
  socket.onmessage = ({ data }) => {
    const { msgType, ctiMessage } = JSON.parse(data);
    if (msgType === "Presence") {
      edgeward.presence = ctiMessage;
      renderPeople();
    }
  };
  const followed = () => account && socket === cti;
  socket.onclose = async () => {
    await new Promise((resolve) => setTimeout(resolve, Math.min(500 * 2 ** attempt, RECONNECT_MAX)));
    if (followed() && !opened) {
      // Perhaps it was the token. If there is nobody to ask, the next attempt will tell.
      await renew().catch(() => {});
    }
    if (followed()) {
      follow(attempt + 1);
    }
  };
}

function socketUrl(path) {
  return `wss://${location.host}${path}?token=${encodeURIComponent(account.token)}`;
}

// --- Calls --------------------------------------------------------------------------------------------------------

async function dial(target) {
  if (current || !agent) {
    return;
  }
  const made = begin({ remote: target, outgoing: true });
  try {
    await prepare(made);
    const offer = await made.media.offer();
    if (current !== made) {
      return;
    }
    attach(made, agent.invite(target, offer));
  } catch (error) {
    end(made, error.message);
  }
}

function incoming(session) {
  if (current) {
    session.hangUp(486);
    return;
  }
  attach(begin({ remote: session.remote, outgoing: false }), session);
}

async function accept() {
  const made = current;
  if (made?.session?.state !== "incoming" || made.media) {
    return;
  }
  made.started = performance.now();
  try {
    await prepare(made);
    const answer = await made.media.answer(made.session.sdp);
    made.session.accept(answer);
  } catch (error) {
    made.session.hangUp(488);
    end(made, error.message);
  }
}

function hangUp() {
  if (current?.session) {
    current.session.hangUp();
  } else if (current) {
    end(current, "given up");
  }
}

async function hold(held = !current?.held) {
  const made = current;
  if (made?.session?.state !== "up" || made.held === held) {
    return;
  }
  try {
    const offer = await made.media.offer(held ? "sendonly" : "sendrecv");
    await made.media.accept(await made.session.offer(offer));
    made.held = held;
    element("remote").muted = held;
    render();
  } catch (error) {
    fail(`Hold was refused: ${error.message}`);
  }
}

function begin({ remote, outgoing }) {
  fail(null);
  clearStats();
  current = { remote, outgoing, held: false, started: performance.now(), transport: choice("transport") };
  render();
  return current;
}

/** Opens the sound and the way to the relay. */
async function prepare(made) {
  made.transport = choice("transport");
  const [source, ice] = await Promise.all([openSource(choice("source")), iceConfig()]);
  made.source = source;
  if (current !== made) {
    source.close();
    throw new Error("given up");
  }
  const onState = (state) => mediaChanged(made, state);
  made.media = new Media({ ice, transport: made.transport, source, onState });
  element("remote").srcObject = made.media.remote;
  element("remote").muted = false;
}

function attach(made, session) {
  made.session = session;
  session.addEventListener("change", () => sessionChanged(made));
  session.addEventListener("offer", async ({ detail: { sdp, answer } }) => answer(await made.media.answer(sdp)));
  render();
}

async function sessionChanged(made) {
  const { session } = made;
  if (session.state === "ended") {
    end(made, session.reason);
    return;
  }
  if (session.state === "up" && made.outgoing && !made.answered) {
    made.answered = performance.now();
    try {
      await made.media.accept(session.sdp);
    } catch (error) {
      session.hangUp();
      fail(`The answer cannot be used: ${error.message}`);
    }
  }
  made.answered ??= session.state === "up" ? performance.now() : undefined;
  render();
}

function mediaChanged(made, state) {
  if (state === "connected") {
    made.setUp ??= performance.now() - made.started;
  }
  if (state === "failed" && current === made) {
    fail("The media found no way. Is the TURN server reachable over this transport?");
    end(made, "no media");
    made.session?.hangUp();
  }
  render();
}

function end(made, reason) {
  made.media?.close();
  made.source?.close();
  if (current !== made) {
    return;
  }
  current = null;
  element("remote").srcObject = null;
  edgeward.call = { ...describe(made), state: "ended", reason };
  show("last", `${nameOf(made.remote)}: ${reason}.`);
  element("last").hidden = false;
  render();
}

/** What others may know of a call. */
function describe({ remote, outgoing, session, media, held, transport, source, setUp }) {
  const state = session?.state ?? "preparing";
  return { remote, outgoing, state, media: media?.state, held, transport, source: source?.kind, setUp };
}

// --- What is seen -------------------------------------------------------------------------------------------------

const CONNECTION = {
  offline: "Not connected",
  connecting: "Connecting",
  registering: "Registering",
  registered: "Registered",
  refused: "Registration refused",
};
const NUMBERS = { 600: "Echo", 601: "Call back", 602: "Ring" };
const CALL = {
  preparing: "Asking for a relay",
  calling: "Calling",
  ringing: "Ringing",
  incoming: "Incoming call",
  up: "In a call",
};

function renderConnection() {
  const state = agent?.state ?? "offline";
  [edgeward.connection, edgeward.registered] = [state, state === "registered"];
  element("status").dataset.state = state;
  const who = state === "registered" ? ` as ${agent.user}` : "";
  const why = agent?.reason ? `: ${agent.reason}` : "";
  show("status-text", agent ? `${CONNECTION[state]}${who}${why}` : "Not logged in");
  render();
}

function render() {
  element("login").hidden = account !== null;
  element("phone").hidden = account === null;
  element("log-out").hidden = account === null;
  element("idle").hidden = current !== null;
  element("active").hidden = current === null;
  for (const button of document.querySelectorAll("#idle button")) {
    button.disabled = !edgeward.registered || edgeward.presence[button.dataset.call] === "absent";
  }
  if (!current) {
    document.title = "Edgeward demo";
    element("path").dataset.state = "none";
    return;
  }
  edgeward.call = describe(current);
  const { state, held } = edgeward.call;
  show("call-state", held ? "On hold" : CALL[state]);
  show("peer", nameOf(current.remote));
  show("clock", clock());
  element("accept").hidden = state !== "incoming" || Boolean(current.media);
  element("hold").hidden = state !== "up";
  element("hold").setAttribute("aria-pressed", String(held));
  show("hold", held ? "Resume" : "Hold");
  show("hang-up", state === "incoming" ? "Decline" : "Hang up");
  document.title = state === "incoming" ? `● ${nameOf(current.remote)} calls` : "Edgeward demo";
  element("path").dataset.state = current.media?.state ?? "none";
  show("set-up", current.setUp ? `${Math.round(current.setUp)} ms` : "–");
}

function renderPeople() {
  const others = Object.entries(edgeward.presence).filter(([name]) => name !== edgeward.user);
  element("people").replaceChildren(
    ...others.map(([name, state]) => {
      const item = document.createElement("li");
      item.dataset.state = state;
      const button = make("button", `Call ${name}`);
      button.type = "button";
      button.dataset.call = name;
      item.append(make("span", "", "dot"), make("span", name), make("small", state), button);
      return item;
    }),
  );
  render();
}

function renderStats(stats) {
  const count = (value) => value.toLocaleString("en");
  for (const side of ["sent", "received"]) {
    const { packets, bytes, lost, rate } = stats[side];
    show(`${side}-packets`, count(packets));
    show(`${side}-bytes`, count(bytes));
    show(`${side}-rate`, `${(rate / 1000).toFixed(1)} kbit/s`);
    show(`${side}-lost`, lost > 0 ? `${count(lost)} (${((100 * lost) / (packets + lost)).toFixed(1)} %)` : "0");
  }
  for (const side of ["local", "remote"]) {
    const { type, address, port, protocol, relayProtocol } = stats.pair[side] ?? {};
    show(`${side}-type`, relayProtocol ? `${type} (TURN over ${relayProtocol.toUpperCase()})` : (type ?? "–"));
    show(`${side}-address`, address ? `${address}:${port} ${protocol}` : "");
  }
  show("round-trip", time(stats.roundTrip));
  show("jitter", time(stats.jitter));
  plot.add([stats.roundTrip, stats.jitter]);
}

function clearStats() {
  edgeward.stats = null;
  plot.clear();
  for (const figure of document.querySelectorAll("tbody td, dd, .path b")) {
    figure.textContent = "–";
  }
  show("local-address", "");
  show("remote-address", "");
}

/** Browsers tell these times in whole milliseconds. */
function time(value) {
  if (value === null) {
    return "–";
  }
  return value < 1 ? "< 1 ms" : `${Math.round(value)} ms`;
}

function nameOf(remote) {
  return NUMBERS[remote] ?? remote;
}

function clock() {
  if (!current?.answered) {
    return "";
  }
  const seconds = Math.floor((performance.now() - current.answered) / 1000);
  return `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")}`;
}

function log({ outgoing, text }) {
  const message = parse(text);
  const what = message?.method ? `${message.method} ${message.uri}` : `${message?.status} ${message?.reason}`;
  const to = message?.method ? "" : ` (${header(message, "CSeq")?.split(" ")[1]})`;
  const details = make("details");
  const summary = make("summary");
  const arrow = make("span", outgoing ? "→" : "←", outgoing ? "out" : "in");
  arrow.setAttribute("aria-label", outgoing ? "sent" : "received");
  summary.append(make("time", new Date().toISOString().slice(11, 23)), arrow, make("span", what + to));
  details.append(summary, make("pre", text));
  const item = make("li");
  item.append(details);
  element("log").prepend(item);
  while (element("log").children.length > LOG_MAX) {
    element("log").lastChild.remove();
  }
}

function fail(text) {
  edgeward.error = text;
  show("call-error", text ?? "");
}

function make(name, text = "", className = "") {
  return Object.assign(document.createElement(name), { textContent: text, className });
}

function element(id) {
  return document.getElementById(id);
}

function show(id, text) {
  element(id).textContent = text;
}

function choice(name) {
  return document.querySelector(`input[name="${name}"]:checked`).value;
}

/** Chooses for the next call: `{ transport, source }`. */
function choose(values) {
  for (const [name, value] of Object.entries(values)) {
    document.querySelector(`input[name="${name}"][value="${value}"]`).checked = true;
  }
}

// --- What is done -------------------------------------------------------------------------------------------------

element("login-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  show("login-error", "");
  const { login, password } = Object.fromEntries(new FormData(event.target));
  try {
    await logIn(login, password);
  } catch (error) {
    show("login-error", error.message);
  }
});

element("as-bob").addEventListener("click", () => {
  const { login, password } = element("login-form").elements;
  [login.value, password.value] = ["bob", "builder"];
});

element("idle").addEventListener("click", ({ target }) => {
  const button = target.closest("[data-call]");
  if (button) {
    dial(button.dataset.call);
  }
});

element("dial").addEventListener("submit", (event) => {
  event.preventDefault();
  dial(element("target").value.trim());
});

element("log-out").addEventListener("click", logOut);
element("accept").addEventListener("click", accept);
element("hold").addEventListener("click", () => hold());
element("hang-up").addEventListener("click", hangUp);
addEventListener("pagehide", () => {
  current?.session?.hangUp();
  agent?.leave();
});

setInterval(async () => {
  show("clock", clock());
  const stats = await current?.media?.stats();
  if (stats && current) {
    edgeward.stats = stats;
    renderStats(stats);
  }
}, 1000);
