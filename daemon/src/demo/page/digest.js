// Digest authentication (RFC 2617, as in RFC 3261 section 22): the proof that a challenge asks for.

import { token } from "./message.js";
import { md5 } from "./md5.js";

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
