// The media of a call: a peer connection that relays everything, and what can be measured of it.

/** How long the first relay candidate may take, in milliseconds. */
const RELAY_TIMEOUT = 6000;

/** What is sent: the microphone, or a tone when there is none or none is wanted. */
export async function openSource(kind) {
  if (kind === "microphone") {
    try {
      const stream = await navigator.mediaDevices.getUserMedia({ audio: true });
      return { stream, kind, close: () => stream.getTracks().forEach((track) => track.stop()) };
    } catch {
      // No microphone, or no leave to use it: a tone shows as much.
    }
  }
  return tone();
}

/** A soft tone that swells every second, so that an echo can be heard as one. */
function tone() {
  const context = new AudioContext();
  const [oscillator, swell] = [context.createOscillator(), context.createOscillator()];
  const [volume, depth] = [context.createGain(), context.createGain()];
  const output = context.createMediaStreamDestination();
  oscillator.frequency.value = 330;
  volume.gain.value = 0.06;
  swell.frequency.value = 1;
  depth.gain.value = 0.05;
  swell.connect(depth).connect(volume.gain);
  oscillator.connect(volume).connect(output);
  oscillator.start();
  swell.start();
  return { stream: output.stream, kind: "tone", close: () => context.close() };
}

export class Media {
  /** The other side's sound. */
  remote = new MediaStream();

  #connection;
  #previous = null;
  #relayed;

  /** `ice` is what the UC server gave; `transport` is `udp`, `tcp` or `tls`: how to reach the TURN server. */
  constructor({ ice, transport, source, onState }) {
    const server = { urls: ice.urls[transport], username: ice.username, credential: ice.credential };
    this.#connection = new RTCPeerConnection({ iceServers: [server], iceTransportPolicy: "relay" });
    for (const track of source.stream.getAudioTracks()) {
      this.#connection.addTrack(track, source.stream);
    }
    this.#connection.ontrack = ({ track }) => this.remote.addTrack(track);
    this.#connection.onconnectionstatechange = () => onState(this.#connection.connectionState);
    this.#relayed = this.#firstRelay();
  }

  /** An offer; also one that changes the direction (`sendrecv`, `sendonly`) of a call that is up. */
  async offer(direction = "sendrecv") {
    const [audio] = this.#connection.getTransceivers();
    audio.direction = direction;
    await this.#connection.setLocalDescription();
    await this.#relayed;
    return this.#connection.localDescription.sdp;
  }

  async answer(sdp) {
    await this.#connection.setRemoteDescription({ type: "offer", sdp });
    await this.#connection.setLocalDescription();
    await this.#relayed;
    return this.#connection.localDescription.sdp;
  }

  async accept(sdp) {
    await this.#connection.setRemoteDescription({ type: "answer", sdp });
  }

  get state() {
    return this.#connection.connectionState;
  }

  close() {
    this.#connection.close();
  }

  /**
   * What there is to measure now; rates are since the last time. Nothing before there is a pair of candidates.
   * Times are in milliseconds, rates in bits per second, losses in packets.
   */
  async stats() {
    const report = await this.#connection.getStats();
    const all = [...report.values()];
    const of = (type) => all.filter((entry) => entry.type === type);
    const transport = of("transport")[0];
    const pair = report.get(transport?.selectedCandidatePairId);
    if (!pair) {
      return null;
    }
    const [local, remote] = [report.get(pair.localCandidateId), report.get(pair.remoteCandidateId)];
    const [inbound, outbound] = [of("inbound-rtp")[0] ?? {}, of("outbound-rtp")[0] ?? {}];
    const heard = of("remote-inbound-rtp")[0] ?? {};
    const now = {
      at: pair.timestamp,
      pair: { local: candidate(local), remote: candidate(remote) },
      roundTrip: ms(pair.currentRoundTripTime),
      jitter: ms(inbound.jitter),
      sent: side(outbound.packetsSent, outbound.bytesSent, heard.packetsLost),
      received: side(inbound.packetsReceived, inbound.bytesReceived, inbound.packetsLost),
    };
    const before = this.#previous ?? now;
    for (const way of ["sent", "received"]) {
      const seconds = (now.at - before.at) / 1000;
      now[way].rate = seconds > 0 ? ((now[way].bytes - before[way].bytes) * 8) / seconds : 0;
    }
    this.#previous = now;
    return now;
  }

  /** Resolves at the first relay candidate: all that is needed is there, and waiting for the rest takes seconds. */
  #firstRelay() {
    const connection = this.#connection;
    const { promise, resolve, reject } = Promise.withResolvers?.() ?? withResolvers();
    const timer = setTimeout(() => reject(new Error("the TURN server gave no relay in time")), RELAY_TIMEOUT);
    connection.onicecandidate = ({ candidate: found }) => {
      if (found?.type === "relay" || found?.candidate.includes(" typ relay ")) {
        resolve();
      }
    };
    connection.onicecandidateerror = ({ errorCode, errorText, url }) => {
      this.error = `${errorCode} ${errorText} (${url})`;
    };
    connection.onicegatheringstatechange = () => {
      if (connection.iceGatheringState === "complete") {
        // Without any effect where there was a relay.
        reject(new Error(this.error ? `no relay: ${this.error}` : "the TURN server gave no relay"));
      }
    };
    promise.finally(() => clearTimeout(timer)).catch(() => {});
    return promise;
  }
}

function candidate(entry) {
  if (!entry) {
    return null;
  }
  const { candidateType: type, address, port, protocol, relayProtocol } = entry;
  return { type, address, port, protocol, relayProtocol };
}

function side(packets = 0, bytes = 0, lost = 0) {
  return { packets, bytes, lost };
}

function ms(seconds) {
  return seconds === undefined ? null : seconds * 1000;
}

function withResolvers() {
  const parts = {};
  parts.promise = new Promise((resolve, reject) => Object.assign(parts, { resolve, reject }));
  return parts;
}
