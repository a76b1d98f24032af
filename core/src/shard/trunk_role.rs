//! How do TCP connections with mediaservers come about, and what comes by them?

use core::{net::SocketAddr, ops::Range, time::Duration};

use crate::{
    action::{Action, ConnId, Egress, Endpoints, Foreign, IoKind, IpFields, Parcel, SocketId},
    conn::{Conn, Stage},
    shard::{Shard, Step},
    sip::LinkId,
    time::Now,
    wire::sip::stream::message_end,
};

/// A mediaserver is in the LAN: who has not answered by then does not.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

impl Shard {
    /// Connects to a mediaserver.
    pub(super) fn dial_trunk(&mut self, now: Now, link: LinkId, out: &mut Egress) {
        let conn = ConnId(self.conns.insert(Conn::dialing(Stage::Trunk(link), None)));
        if self.draining.is_some() || self.conns.len() > self.config.server.connections_max {
            return self.close(now, conn, out);
        }
        self.set_deadline(conn, Some(now.mono + CONNECT_TIMEOUT));
        // A mediaserver knows us by the address that its datagrams come from.
        let listen = self.config.sip.as_ref().map(|sip| sip.listen.ip());
        let from = listen
            .filter(|ip| !ip.is_unspecified())
            .map(|ip| SocketAddr::new(ip, 0));
        let to = link.address;
        self.actions.push_back(Action::Dial { conn, from, to });
    }

    /// A mediaserver has answered, or not.
    pub(super) fn trunk_dialed(&mut self, now: Now, id: ConnId, result: Result<Endpoints, IoKind>, out: &mut Egress) {
        let (Some(conn), Some(bridge)) = (self.conns.get_mut(id.0), &mut self.sip) else {
            return;
        };
        let Stage::Trunk(link) = conn.stage else { return };
        conn.peer = link.address;
        let connected = result
            .ok()
            .and_then(|ends| conn.connected(ends.local, &mut self.transcript).ok());
        if connected.is_none() {
            return self.close(now, id, out);
        }
        bridge.linked(&mut Self::cx(now, &mut self.rng, &mut self.stats, out), link, id);
        self.set_deadline(id, None);
        self.list(id);
        self.sip_out(now, out);
    }

    /// Takes one message of a mediaserver.
    pub(super) fn from_trunk(&mut self, now: Now, id: ConnId, bytes: &[u8], out: &mut Egress) -> Step {
        let (Some(conn), Some(sip), Some(bridge)) = (self.conns.get(id.0), &self.config.sip, &mut self.sip) else {
            return Step::Gone;
        };
        let Stage::Trunk(link) = conn.stage else {
            return Step::Gone;
        };
        let end = match message_end(bytes, sip.limits.message_bytes_max) {
            Ok(Some(end)) => end,
            Ok(None) => return Step::Wait,
            Err(_) => return self.fault(now, id, "no SIP on a connection with a mediaserver", out),
        };
        let message = &bytes[..end];
        match bridge.home(now.mono, link.address, message) {
            // RFC 3261 section 18.2.2: its answer goes by TCP as well, by the connection that the other shard has with the
            // same address, where it has one.
            Some(to) => self.actions.push_back(Action::Forward {
                to,
                parcel: Parcel::Datagram(Box::new(Foreign {
                    socket: SocketId::Sip,
                    by_stream: true,
                    peer: link.address,
                    local: None,
                    fields: IpFields::default(),
                    bytes: message.into(),
                })),
            }),
            None => {
                self.from_link(now, link.address, message, out);
            }
        }
        Step::Used(end)
    }

    /// One message that came by a TCP connection with a mediaserver, of whichever shard.
    pub(super) fn from_link(&mut self, now: Now, from: SocketAddr, message: &[u8], out: &mut Egress) {
        let Some(bridge) = &mut self.sip else { return };
        bridge.from_link(&mut Self::cx(now, &mut self.rng, &mut self.stats, out), from, message);
        self.sip_out(now, out);
    }

    /// Writes to a mediaserver. One that does not read is as good as gone.
    pub(super) fn write_trunk(&mut self, now: Now, id: ConnId, bytes: Range<usize>, out: &mut Egress) {
        let limit = self.config.sip.as_ref().map_or(0, |sip| sip.limits.buffer_bytes_max);
        let Some(conn) = self.conns.get_mut(id.0) else { return };
        conn.out().extend_from_slice(&out.made[bytes]);
        if conn.backlog() > limit {
            return self.close(now, id, out);
        }
        self.list(id);
    }

    pub(super) fn trunk_gone(&mut self, now: Now, id: ConnId, link: LinkId, out: &mut Egress) {
        let Some(bridge) = &mut self.sip else { return };
        bridge.unlinked(&mut Self::cx(now, &mut self.rng, &mut self.stats, out), link, id);
        self.sip_out(now, out);
    }
}
