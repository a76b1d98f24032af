// MD5 (RFC 1321) of a text in UTF-8, in hexadecimal: browsers have every digest but the one that SIP needs.

const SHIFTS = [7, 12, 17, 22, 5, 9, 14, 20, 4, 11, 16, 23, 6, 10, 15, 21];
const SINES = Uint32Array.from({ length: 64 }, (_, i) => Math.floor(Math.abs(Math.sin(i + 1)) * 2 ** 32));

export function md5(text) {
  const state = Uint32Array.of(0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476);
  const words = pad(new TextEncoder().encode(text));
  for (let block = 0; block < words.length; block += 16) {
    let [a, b, c, d] = state;
    for (let i = 0; i < 64; i++) {
      const [mixed, index] = step(i, b, c, d);
      const sum = (a + mixed + SINES[i] + words[block + index]) | 0;
      const shift = SHIFTS[(i >> 4) * 4 + (i & 3)];
      [a, b, c, d] = [d, (b + ((sum << shift) | (sum >>> (32 - shift)))) | 0, b, c];
    }
    state[0] += a;
    state[1] += b;
    state[2] += c;
    state[3] += d;
  }
  return Array.from(new Uint8Array(state.buffer), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** The function and the word of step `i` (RFC 1321 section 3.4). */
function step(i, b, c, d) {
  switch (i >> 4) {
    case 0:
      return [(b & c) | (~b & d), i];
    case 1:
      return [(d & b) | (~d & c), (5 * i + 1) % 16];
    case 2:
      return [b ^ c ^ d, (3 * i + 5) % 16];
    default:
      return [c ^ (b | ~d), (7 * i) % 16];
  }
}

/** A bit, zeros, and the length in bits, up to full blocks (RFC 1321 sections 3.1 and 3.2). */
function pad(bytes) {
  const padded = new Uint8Array((((bytes.length + 8) >> 6) + 1) * 64);
  padded.set(bytes);
  padded[bytes.length] = 0x80;
  new DataView(padded.buffer).setUint32(padded.length - 8, bytes.length * 8, true);
  return new Uint32Array(padded.buffer);
}
