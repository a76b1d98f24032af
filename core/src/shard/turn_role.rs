//! Which bytes go into the TURN server, and where do its verdicts go?

use core::{net::SocketAddr, ops::Range};

use crate::{
    action::{
        Action, BindError, ConnId, Egress, Foreign, Icmp, IpFields, Parcel, Prefix, RelayId, Run, ShardId, SocketId,
        Source,
    },
    conn::{Reader, Stage, TurnStream},
    shard::{Shard, Step},
    time::{Instant, Now},
    turn::{self, Ask, Client, IpHeader, Payload, To, Verdict},
};

/// Where the bytes are that a verdict speaks of.
#[derive(Clone, Copy)]
enum Input<'a> {
    /// A datagram: this many bytes into this run.
    Run {
        index: u32,
        start: usize,
        bytes: &'a [u8],
        fields: IpFields,
    },
    /// Cut out of a stream.
    Bytes { bytes: &'a [u8], fields: IpFields },
    /// There were none.
    Nothing,
}

impl Shard {
    pub(super) fn from_turn_clients(&mut self, now: Now, on: SocketId, runs: &[Run<'_>], out: &mut Egress) {
        for (index, run) in (0..).zip(runs) {
            let client = Client::Datagram {
                socket: on,
                peer: run.peer,
                local: run.local,
            };
            for segment in run.segments() {
                let Some(turn) = &mut self.turn else { return };
                let bytes = &run.bytes[segment.clone()];
                let verdict = turn.client(&mut Self::cx(now, &mut self.rng, &mut self.stats, out), client, bytes);
                if let To::Shard(to) = verdict.to {
                    self.forward_datagram(to, on, run, bytes);
                    continue;
                }
                let input = Input::Run {
                    index,
                    start: segment.start,
                    bytes,
                    fields: run.fields,
                };
                self.carry(verdict, input, out);
            }
        }
        self.turn_asks(now, out);
    }

    pub(super) fn from_peers(&mut self, now: Now, relay: RelayId, runs: &[Run<'_>], out: &mut Egress) {
        for (index, run) in (0..).zip(runs) {
            for segment in run.segments() {
                let Some(turn) = &mut self.turn else { return };
                let bytes = &run.bytes[segment.clone()];
                let verdict = turn.peer(
                    &mut Self::cx(now, &mut self.rng, &mut self.stats, out),
                    relay,
                    run.peer,
                    bytes,
                );
                let input = Input::Run {
                    index,
                    start: segment.start,
                    bytes,
                    fields: run.fields,
                };
                self.carry(verdict, input, out);
            }
        }
    }

    pub(super) fn from_turn_stream(&mut self, now: Now, id: ConnId, bytes: &[u8], out: &mut Egress) -> Step {
        if self.conns.get(id.0).is_some_and(|conn| !self.has_room(conn)) {
            // What it asks for now could not be answered.
            return Step::Wait;
        }
        let (Some(conn), Some(turn)) = (self.conns.get_mut(id.0), &mut self.turn) else {
            return Step::Gone;
        };
        let Stage::Turn(TurnStream { stream, reader }) = &mut conn.stage else {
            return Step::Gone;
        };
        let client = Client::Stream {
            conn: id,
            peer: conn.peer,
            local: conn.local,
        };
        let reads = *reader == Reader::Reads;
        let unit = match stream.next(bytes) {
            Ok(Some(unit)) => unit,
            Ok(None) => return Step::Wait,
            Err(_) => return self.fault(now, id, "neither STUN nor ChannelData on a TURN stream", out),
        };
        let message = &bytes[unit.message];
        let verdict = turn.client(&mut Self::cx(now, &mut self.rng, &mut self.stats, out), client, message);
        if let To::Shard(to) = verdict.to {
            return self.send_to_shard(id, to, bytes);
        }
        // Before the asks, one of which may make a tunnel of it. Who does not read has to do so by the deadline that stands,
        // and so has whoever has no allocation yet.
        if reads && turn.has_allocation(id) {
            self.set_deadline(id, self.turn_stream_deadline(now));
        }
        let input = Input::Bytes {
            bytes: message,
            fields: IpFields::default(),
        };
        self.carry(verdict, input, out);
        self.turn_asks(now, out);
        Step::Used(unit.consumed)
    }

    pub(super) fn relay_bound(
        &mut self,
        now: Now,
        relay: RelayId,
        result: Result<SocketAddr, BindError>,
        out: &mut Egress,
    ) {
        let Some(turn) = &mut self.turn else { return };
        let verdict = turn.bound(&mut Self::cx(now, &mut self.rng, &mut self.stats, out), relay, result);
        self.carry_made(verdict, out);
        self.turn_asks(now, out);
    }

    pub(super) fn relay_error(
        &mut self,
        now: Now,
        relay: RelayId,
        peer: SocketAddr,
        icmp: Option<Icmp>,
        out: &mut Egress,
    ) {
        let (Some(turn), Some(icmp)) = (&mut self.turn, icmp) else {
            return;
        };
        let cx = &mut Self::cx(now, &mut self.rng, &mut self.stats, out);
        let verdict = turn.socket_error(cx, relay, peer, icmp);
        self.carry_made(verdict, out);
    }

    pub(super) fn turn_stream_gone(&mut self, now: Now, id: ConnId, out: &mut Egress) {
        let Some(turn) = &mut self.turn else { return };
        turn.closed(&mut Self::cx(now, &mut self.rng, &mut self.stats, out), id);
        self.turn_asks(now, out);
    }

    /// Nothing has come for a while: fine for who has an allocation and reads, the end for everybody else.
    pub(super) fn turn_stream_is_silent(&mut self, now: Now, id: ConnId, out: &mut Egress) {
        if !self.turn.as_ref().is_some_and(|turn| turn.has_allocation(id)) {
            return self.close(now, id, out);
        }
        let Some(Stage::Turn(TurnStream { reader, .. })) = self.conns.get_mut(id.0).map(|conn| &mut conn.stage) else {
            return;
        };
        match reader {
            Reader::Reads => {}
            Reader::IsFull => *reader = Reader::WasFull,
            Reader::WasFull => {
                self.fault(now, id, "a TURN client does not read", out);
                return;
            }
        }
        self.set_deadline(id, self.turn_stream_deadline(now));
    }

    /// A client has taken what it was sent.
    pub(super) fn turn_stream_reads(&mut self, id: ConnId) {
        if let Some(Stage::Turn(TurnStream { reader, .. })) = self.conns.get_mut(id.0).map(|conn| &mut conn.stage) {
            *reader = Reader::Reads;
        }
    }

    pub(super) fn turn_stream_deadline(&self, now: Now) -> Option<Instant> {
        self.config.turn.as_ref().map(|turn| now.mono + turn.limits.stream_idle)
    }

    pub(super) fn turn_timeout(&mut self, now: Now, out: &mut Egress) {
        let Some(turn) = &mut self.turn else { return };
        if turn.poll_timeout().is_some_and(|at| at <= now.mono) {
            turn.timeout(&mut Self::cx(now, &mut self.rng, &mut self.stats, out));
            self.turn_asks(now, out);
        }
    }

    pub(super) fn turn_asks(&mut self, now: Now, out: &mut Egress) {
        while let Some(ask) = self.turn.as_mut().and_then(turn::Server::poll_ask) {
            match ask {
                Ask::Bind { relay, transport, at } => {
                    self.actions.push_back(Action::BindRelay { relay, transport, at });
                }
                Ask::Close(relay) => self.actions.push_back(Action::CloseSocket(relay)),
                Ask::Dial { connection, from, to } => self.dial_peer(now, connection, from, to, out),
                Ask::Join { client, peer } => self.join(now, client, peer, out),
                Ask::Cut(conn) => self.close(now, conn, out),
            }
        }
    }

    /// Does what a verdict says that is not about bytes which came in.
    pub(super) fn carry_made(&mut self, verdict: Verdict, out: &mut Egress) {
        self.carry(verdict, Input::Nothing, out);
    }

    /// Does what a verdict says.
    fn carry(&mut self, verdict: Verdict, input: Input<'_>, out: &mut Egress) {
        match verdict.to {
            // What goes to another shard is seen to where its bytes are.
            To::Nobody | To::Shard(_) => {}
            To::Datagram { socket, peer, local } => {
                let payload = match (verdict.payload, input) {
                    (Payload::Made(range), _) => Source::Made(range),
                    (Payload::Input(range), Input::Run { index, start, .. }) => {
                        Source::Run(index, start + range.start..start + range.end)
                    }
                    (Payload::Input(range), Input::Bytes { bytes, .. }) => Source::Made(copy(&bytes[range], out)),
                    (Payload::Input(_), Input::Nothing) => return,
                };
                let came = match input {
                    Input::Run { fields, .. } | Input::Bytes { fields, .. } => fields,
                    Input::Nothing => IpFields::default(),
                };
                let fields = match verdict.header {
                    IpHeader::Own => IpFields::default(),
                    IpHeader::Relayed => came,
                    IpHeader::RelayedWhole => IpFields {
                        dont_fragment: true,
                        ..came
                    },
                };
                out.push_with(fields, socket, peer, local, verdict.prefix, payload);
            }
            To::Stream(conn) => {
                let payload = match (verdict.payload, input) {
                    (Payload::Made(range), _) => &out.made[range],
                    (Payload::Input(range), Input::Run { bytes, .. } | Input::Bytes { bytes, .. }) => &bytes[range],
                    (Payload::Input(_), Input::Nothing) => return,
                };
                self.write_turn_stream(conn, verdict.header, &verdict.prefix, payload);
            }
        }
    }

    /// Bytes that may wait for a TURN client beyond the data that may: RFC 8489 section 6.2.2, nobody asks again over TCP.
    pub(super) fn turn_answers_max(&self) -> Option<usize> {
        let turn = self.config.turn.as_ref()?;
        Some(turn.limits.buffer_bytes_max + ANSWERS_BYTES_MAX)
    }

    fn write_turn_stream(&mut self, id: ConnId, header: IpHeader, prefix: &Prefix, payload: &[u8]) {
        let limit = self.config.turn.as_ref().map_or(0, |turn| turn.limits.buffer_bytes_max);
        let Some(conn) = self.conns.get_mut(id.0) else { return };
        let backlog = conn.backlog();
        if backlog > limit {
            if let Stage::Turn(TurnStream { reader, .. }) = &mut conn.stage
                && *reader == Reader::Reads
            {
                *reader = Reader::IsFull;
            }
            // A client that reads too slowly loses datagrams, as by any other bottleneck; one that never reads is let go.
            let is_answer = header == IpHeader::Own;
            if !is_answer || backlog >= limit + ANSWERS_BYTES_MAX {
                self.stats.turn.dropped += 1;
                return;
            }
        }
        turn::write_to_stream(prefix, payload, conn.out());
        self.list(id);
    }

    /// Hands a datagram to the shard that has its client's allocation, whose answers leave by its own socket of that name.
    fn forward_datagram(&mut self, to: ShardId, on: SocketId, run: &Run<'_>, bytes: &[u8]) {
        let parcel = Parcel::Datagram(Box::new(Foreign {
            socket: on,
            peer: run.peer,
            local: run.local,
            fields: run.fields,
            by_stream: false,
            bytes: bytes.into(),
        }));
        self.actions.push_back(Action::Forward { to, parcel });
    }

    /// Takes a datagram that another shard hands over.
    pub(super) fn foreign_datagram(&mut self, now: Now, foreign: &Foreign, out: &mut Egress) {
        let (peer, local, bytes) = (foreign.peer, foreign.local, &*foreign.bytes);
        match (foreign.socket, &mut self.turn) {
            (SocketId::Sip, _) if foreign.by_stream => self.from_link(now, peer, bytes, out),
            (SocketId::Sip, _) => self.from_mediaserver(now, peer, bytes, out),
            (socket @ SocketId::Turn(_), Some(turn)) => {
                let client = Client::Datagram { socket, peer, local };
                let cx = &mut Self::cx(now, &mut self.rng, &mut self.stats, out);
                let verdict = turn.client_of_other_shard(cx, client, bytes);
                let fields = foreign.fields;
                self.carry(verdict, Input::Bytes { bytes, fields }, out);
                self.turn_asks(now, out);
            }
            _ => {}
        }
    }
}

/// Room for answers where the room for data is taken: more than the largest message that data may end with.
const ANSWERS_BYTES_MAX: usize = 128 * 1024;

fn copy(bytes: &[u8], out: &mut Egress) -> Range<usize> {
    let start = out.made.len();
    out.made.extend_from_slice(bytes);
    start..out.made.len()
}
