// What does a page make of a telephone? The media of the browser.

import { PHONES } from "./phones/index.js";

globalThis.makePhone = async (library, account) => {
  const stream = await navigator.mediaDevices.getUserMedia({ audio: true });
  globalThis.phone = new PHONES[library]({ ...account, stream });
  return true;
};
