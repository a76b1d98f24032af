// Which telephones are there?

import { JsSipPhone } from "./jssip.js";
import { SipJsPhone } from "./sipjs.js";

export const PHONES = { jssip: JsSipPhone, sipjs: SipJsPhone };
