// How is a telephone driven without a browser? Each line of the input is an expression; its value is a line of the
// output. There is no media: the descriptions are real, what they describe is not there.

import { createInterface } from "node:readline";
import WebSocket from "ws";
import { PHONES } from "./phones/index.js";
import { Connection, descriptions } from "./descriptions.js";

globalThis.makePhone = (library, { origin, ...account }) => {
  globalThis.WebSocket = class extends WebSocket {
    constructor(url, protocols) {
      super(url, protocols, { origin });
    }
  };
  globalThis.window = globalThis;
  globalThis.RTCPeerConnection = Connection;
  globalThis.RTCSessionDescription = Object;
  const stream = { getTracks: () => [], getAudioTracks: () => [], getVideoTracks: () => [] };
  globalThis.phone = new PHONES[library]({ ...account, stream, descriptions });
  return true;
};

// What a library throws later must not end the telephone: a browser would go on as well.
for (const fault of ["uncaughtException", "unhandledRejection"]) {
  process.on(fault, (error) => console.error(fault, error));
}
console.log = console.error;

for await (const line of createInterface({ input: process.stdin })) {
  const { id, expression } = JSON.parse(line);
  evaluate(expression).then(
    (value) => answer({ id, value: value ?? null }),
    (error) => answer({ id, error: String(error?.stack ?? error) }),
  );
}
process.exit(0);

async function evaluate(expression) {
  return await (0, eval)(`(${expression})`);
}

function answer(words) {
  process.stdout.write(`answer ${JSON.stringify(words)}\n`);
}
