// What does a page make of a telephone? The media of the browser.

import { PHONES } from "./phones/index.js";
import { SipmlPhone } from "./phones/sipml.js";

globalThis.makePhone = async (library, account) => {
  const stream = await navigator.mediaDevices.getUserMedia({ audio: true });
  const Phone = library === "sipml" ? SipmlPhone : PHONES[library];
  globalThis.phone = new Phone({ ...account, stream });
  return true;
};
