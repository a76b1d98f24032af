//! Which bytes go into the SIP bridge, and where does what it says go?

use core::{net::SocketAddr, ops::Range, time::Duration};

use crate::{
    access::End,
    action::{Action, Addresses, ConnId, Egress, Foreign, IoKind, Parcel, Prefix, ResolveError, Run, SocketId, Source},
    conn::{SipSocket, Stage},
    http::Answer,
    shard::{Question, Shard, Step},
    sip::{self, Bridge, Opening as FlowOpening, Out},
    time::{Instant, Now},
    ws::{self, Item, Kind, close_code},
};

impl Shard {
    /// Sends a connection whose stage is `Opening` to its home, with the bytes that came early, or opens it here.
    pub(super) fn send_home(&mut self, now: Now, id: ConnId, early: &[u8], out: &mut Egress) -> Step {
        let Some(conn) = self.conns.get(id.0) else {
            return Step::Gone;
        };
        let Stage::Opening(opening) = &conn.stage else {
            return Step::Gone;
        };
        let home = opening.home(&self.config.keys, self.shards);
        if home == self.id {
            return self.open_sip(now, id, out);
        }
        self.send_to_shard(id, home, early)
    }

    /// Answers the handshake, or refuses it while the mediaserver does not answer or there is no room.
    fn open_sip(&mut self, now: Now, id: ConnId, out: &mut Egress) -> Step {
        // It may have come from another shard while this one was full or about to end.
        let has_room = self.draining.is_none() && self.conns.len() <= self.config.server.connections_max;
        let (Some(conn), Some(bridge), Some(sip)) = (self.conns.get_mut(id.0), &mut self.sip, &self.config.sip) else {
            return Step::Gone;
        };
        let (Stage::Opening(opening), write) = conn.stage_and_out() else {
            return Step::Gone;
        };
        let mut names = sip.mediaservers.iter().map(|mediaserver| mediaserver.name.as_str());
        let available = names
            .position(|name| *name == *opening.mediaserver)
            .filter(|mediaserver| has_room && bridge.is_available(*mediaserver));
        let opened = available.and_then(|mediaserver| {
            let flow = FlowOpening {
                conn: id,
                mediaserver,
                peer: opening.client,
                secure: true,
                subject: opening.subject.as_deref().map(Into::into),
            };
            bridge.open(flow).ok()
        });
        let Some(flow) = opened else {
            let answer = Answer::unavailable(RETRY_AFTER_SECS);
            opening.server.respond_local(&answer, now.unix, write);
            if let Some(exchange) = &mut opening.exchange {
                exchange.access.status = answer.status;
                exchange.end = Some(End::Complete);
            }
            self.close(now, id, out);
            return Step::Gone;
        };
        opening
            .server
            .accept_websocket(&opening.accept, Some(SUBPROTOCOL), write);
        let mut exchange = opening.exchange.take();
        if let Some(exchange) = &mut exchange {
            exchange.access.status = 101;
        }
        conn.stage = Stage::Sip(Box::new(SipSocket {
            ws: ws::Conn::new(sip.limits.message_bytes_max),
            flow,
            kind: Kind::Text,
            pinged: false,
            is_closed: false,
            exchange,
        }));
        let ping_at = now.mono + sip.limits.ping;
        self.set_deadline(id, Some(ping_at));
        self.list(id);
        Step::Used(0)
    }

    pub(super) fn from_websocket(&mut self, now: Now, id: ConnId, bytes: &mut [u8], out: &mut Egress) -> Step {
        let (Some(conn), Some(sip), Some(bridge)) = (self.conns.get_mut(id.0), &self.config.sip, &mut self.sip) else {
            return Step::Gone;
        };
        let (Stage::Sip(socket), write) = conn.stage_and_out() else {
            return Step::Gone;
        };
        let ping_at = now.mono + sip.limits.ping;
        let used = match socket.ws.next(bytes) {
            Ok(None) => return Step::Wait,
            Ok(Some((item, used))) => {
                socket.pinged = false;
                match item {
                    Item::Message { kind, payload } => {
                        socket.kind = kind;
                        let flow = socket.flow;
                        let cx = &mut Self::cx(now, &mut self.rng, &mut self.stats, out);
                        bridge.from_flow(cx, flow, &payload);
                    }
                    Item::Ping(payload) => ws::Conn::pong(payload, write),
                    Item::Pong(_) | Item::Fragment => {}
                    Item::Close(code) => {
                        socket.ws.close(code.unwrap_or(close_code::NO_STATUS), "", write);
                        socket.is_closed = true;
                        let flow = socket.flow;
                        bridge.leave(&mut Self::cx(now, &mut self.rng, &mut self.stats, out), flow);
                        self.close(now, id, out);
                        return Step::Gone;
                    }
                }
                used
            }
            Err(violation) => {
                socket.ws.close(violation.code, violation.reason, write);
                socket.is_closed = true;
                return self.fault(now, id, violation.reason, out);
            }
        };
        if let Some(exchange) = &mut socket.exchange {
            exchange.access.received_bytes += used as u64;
        }
        self.set_deadline(id, Some(ping_at));
        self.list(id);
        self.sip_out(now, out);
        Step::Used(used)
    }

    pub(super) fn from_mediaservers(&mut self, now: Now, runs: &[Run<'_>], out: &mut Egress) {
        for run in runs {
            for segment in run.segments() {
                let datagram = &run.bytes[segment];
                let home = |bridge: &mut Bridge| bridge.home(now.mono, run.peer, datagram);
                match self.sip.as_mut().and_then(home) {
                    Some(home) => {
                        self.actions.push_back(Action::Forward {
                            to: home,
                            parcel: Parcel::Datagram(Box::new(Foreign {
                                socket: SocketId::Sip,
                                by_stream: false,
                                peer: run.peer,
                                local: run.local,
                                fields: run.fields,
                                bytes: datagram.into(),
                            })),
                        });
                    }
                    None => self.from_mediaserver(now, run.peer, datagram, out),
                }
            }
        }
    }

    pub(super) fn from_mediaserver(&mut self, now: Now, from: SocketAddr, datagram: &[u8], out: &mut Egress) {
        let Some(bridge) = &mut self.sip else { return };
        bridge.from_trunk(&mut Self::cx(now, &mut self.rng, &mut self.stats, out), from, datagram);
        self.sip_out(now, out);
    }

    pub(super) fn trunk_error(&mut self, now: Now, to: SocketAddr, kind: IoKind, out: &mut Egress) {
        let Some(bridge) = &mut self.sip else { return };
        bridge.trunk_error(&mut Self::cx(now, &mut self.rng, &mut self.stats, out), to, kind);
        self.sip_out(now, out);
    }

    pub(super) fn mediaserver_resolved(
        &mut self,
        now: Now,
        question: &sip::Question,
        result: Result<Addresses, ResolveError>,
        out: &mut Egress,
    ) {
        let Some(bridge) = &mut self.sip else { return };
        let found = result.map(|found| found.addresses).unwrap_or_default();
        bridge.resolved(
            &mut Self::cx(now, &mut self.rng, &mut self.stats, out),
            question,
            &found,
        );
        self.sip_out(now, out);
    }

    /// Clients of TURN may reach the media of the mediaservers, wherever they are by now.
    fn mediaservers_moved(&mut self) {
        if let (Some(bridge), Some(turn)) = (&self.sip, &mut self.turn) {
            turn.follow(&bridge.media());
        }
    }

    pub(super) fn sip_timeout(&mut self, now: Now, out: &mut Egress) {
        let Some(bridge) = &mut self.sip else { return };
        if bridge.poll_timeout().is_some_and(|at| at <= now.mono) {
            bridge.timeout(&mut Self::cx(now, &mut self.rng, &mut self.stats, out));
            self.sip_out(now, out);
        }
    }

    pub(super) fn websocket_gone(&mut self, now: Now, socket: &SipSocket, out: &mut Egress) {
        let Some(bridge) = &mut self.sip else { return };
        let cx = &mut Self::cx(now, &mut self.rng, &mut self.stats, out);
        match socket.is_closed {
            true => bridge.close(cx, socket.flow),
            false => bridge.lost(cx, socket.flow),
        }
        self.sip_out(now, out);
    }

    /// Nothing has come for a while: ask once whether the browser is there, then give it up (RFC 6455 section 5.5.2).
    pub(super) fn websocket_is_silent(&mut self, now: Now, id: ConnId, out: &mut Egress) {
        let Some(Stage::Sip(socket)) = self.conns.get(id.0).map(|conn| &conn.stage) else {
            return;
        };
        if socket.pinged {
            self.close(now, id, out);
        } else if let Some(sip) = &self.config.sip {
            self.ping_websocket(id, now.mono + sip.limits.ping);
        }
    }

    /// Asks a browser whether it is there; without any word from it until `answer_by` it is lost.
    fn ping_websocket(&mut self, id: ConnId, answer_by: Instant) {
        let Some(conn) = self.conns.get_mut(id.0) else { return };
        let (Stage::Sip(socket), write) = conn.stage_and_out() else {
            return;
        };
        socket.pinged = true;
        ws::Conn::ping(b"", write);
        self.set_deadline(id, Some(answer_by));
        self.list(id);
    }

    /// Says goodbye to a WebSocket of ours.
    pub(super) fn close_websocket(&mut self, now: Now, id: ConnId, code: u16, reason: &str, out: &mut Egress) {
        let Some(conn) = self.conns.get_mut(id.0) else { return };
        if let (Stage::Sip(socket), write) = conn.stage_and_out() {
            socket.ws.close(code, reason, write);
            socket.is_closed = true;
        }
        self.close(now, id, out);
    }

    /// Carries out what the bridge has to say.
    pub(super) fn sip_out(&mut self, now: Now, out: &mut Egress) {
        while let Some(said) = self.sip.as_mut().and_then(Bridge::poll_out) {
            match said {
                Out::Trunk { to, bytes } => out.push(SocketId::Sip, to, None, Prefix::NONE, Source::Made(bytes)),
                Out::Link { conn, bytes } => self.write_trunk(now, conn, bytes, out),
                Out::Dial(link) => self.dial_trunk(now, link, out),
                Out::Unlink { conn } => self.close(now, conn, out),
                Out::Resolve(question) => {
                    self.resolve(question.host().to_owned(), Question::Mediaserver(question));
                }
                Out::Moved => self.mediaservers_moved(),
                Out::Flow { conn, bytes } => self.write_websocket(now, conn, bytes, out),
                Out::Probe { conn } => self.ping_websocket(conn, now.mono + PROBE_WAIT),
                Out::Close { conn, code, reason } => self.close_websocket(now, conn, code, reason, out),
            }
        }
    }

    fn write_websocket(&mut self, now: Now, id: ConnId, bytes: Range<usize>, out: &mut Egress) {
        let (Some(conn), Some(sip)) = (self.conns.get_mut(id.0), &self.config.sip) else {
            return;
        };
        if conn.backlog() > sip.limits.buffer_bytes_max {
            self.close_websocket(now, id, close_code::TRY_AGAIN_LATER, "reads too slowly", out);
            return;
        }
        if let (Stage::Sip(socket), write) = conn.stage_and_out() {
            if let Some(exchange) = &mut socket.exchange {
                exchange.access.sent_bytes += bytes.len() as u64;
            }
            let message = &out.made[bytes];
            // RFC 7118 section 4.2: a message with anything in it that is not UTF-8 MUST be binary, whatever the browser
            // uses; as text, it would have to break the WebSocket (RFC 6455 section 8.1).
            let kind = match str::from_utf8(message) {
                Ok(_) => socket.kind,
                Err(_) => Kind::Binary,
            };
            ws::Conn::write(kind, message, write);
        }
        self.list(id);
    }
}

/// How long a browser that seems to have come back elsewhere may take to show that its old WebSocket lives.
const PROBE_WAIT: Duration = Duration::from_secs(3);

/// RFC 7118 section 4.1.
const SUBPROTOCOL: &str = "sip";

/// When a client that found the bridge full may try again.
const RETRY_AFTER_SECS: u64 = 10;
