// SIP messages (RFC 3261 section 7): text in, values out, and back.

/** Reads a message: `{ method, uri }` or `{ status, reason }`, with `headers` and `body`; nothing when it is none. */
export function parse(text) {
  const end = text.indexOf("\r\n\r\n");
  if (end < 0) {
    return null;
  }
  // RFC 3261 section 7.3.1: a line that begins with white space goes on with the one before.
  const [first, ...rest] = text
    .slice(0, end)
    .replace(/\r\n[ \t]+/g, " ")
    .split("\r\n");
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
export function lines(message, name) {
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
  const pairs = params
    .split(";")
    .slice(1)
    .map((item) => item.trim().split("="));
  const found = pairs.find(([key]) => key.toLowerCase() === name);
  return found?.slice(1).join("=").replace(/^"|"$/g, "");
}

/** Number and method; the number is -1 when it is none. */
export function cseqOf(message) {
  const [number, method] = (header(message, "CSeq") ?? "").split(/\s+/);
  return { number: /^\d+$/.test(number) ? Number(number) : -1, method };
}

/** What names the transaction: the branch of the top Via. */
export function branchOf(message) {
  return param(list(message, "Via")[0], "branch");
}

/** What a response shares with its request (RFC 3261 section 17.1.3). */
export function transactionKey(message) {
  return `${branchOf(message)} ${cseqOf(message).method}`;
}

/** The user part of a URI, or the URI when it has none. */
export function userOf(uri) {
  return /^sips?:([^@;:]+)@/i.exec(uri)?.[1] ?? uri;
}

/** Something that nobody can guess, for tags, branches and Call-IDs. */
export function token() {
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

/** Reason phrases of the responses that are made here. */
export const REASONS = {
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
