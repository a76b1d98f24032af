// What do the media of a telephone look like to its library, where there are none? Offers and answers that are never
// carried out.

const describe = (direction) =>
  [
    "v=0",
    "o=- 1 1 IN IP4 192.0.2.1",
    "s=-",
    "t=0 0",
    "m=audio 9 UDP/TLS/RTP/SAVPF 0",
    "c=IN IP4 0.0.0.0",
    "a=rtpmap:0 PCMU/8000",
    "a=mid:0",
    `a=${direction}`,
    "",
  ].join("\r\n");

/** An RTCPeerConnection as far as JsSIP asks for one. */
export class Connection extends EventTarget {
  iceConnectionState = "new";
  iceGatheringState = "complete";
  signalingState = "stable";
  localDescription = null;

  async createOffer() {
    return { type: "offer", sdp: describe("sendrecv") };
  }

  async createAnswer() {
    return { type: "answer", sdp: describe("sendrecv") };
  }

  async setLocalDescription(description) {
    this.localDescription = description;
    this.signalingState = description.type === "offer" ? "have-local-offer" : "stable";
  }

  async setRemoteDescription({ type }) {
    this.signalingState = type === "offer" ? "have-remote-offer" : "stable";
  }

  addTrack() {}

  getSenders() {
    return [];
  }

  close() {
    this.signalingState = "closed";
  }
}

/** A session description handler of SIP.js. */
export const descriptions = () => ({
  close() {},
  hasDescription: (type) => type === "application/sdp",
  getDescription: async (options) => ({
    body: describe(options?.hold ? "sendonly" : "sendrecv"),
    contentType: "application/sdp",
  }),
  setDescription: async () => {},
  sendDtmf: () => false,
});
