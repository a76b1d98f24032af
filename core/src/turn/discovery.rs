//! From which address is a Binding request answered, and which other ones are there? NAT behaviour discovery. (RFC 5780)

use core::net::SocketAddr;

use super::table::Client;
use crate::{
    action::SocketId,
    config::{Square, Turn},
    wire::stun::Kind,
};

/// What a Binding request may ask for where there is a square.
pub(super) const ATTRIBUTES: [Kind; 3] = [Kind::CHANGE_REQUEST, Kind::RESPONSE_PORT, Kind::PADDING];

/// The listening sockets that clients test their NAT with; none where that is off.
#[derive(Debug)]
pub(super) struct Discovery {
    squares: Vec<Square>,
    listen_udp: Vec<SocketAddr>,
}

/// The socket that a request came by, in its square.
#[derive(Debug, Clone, Copy)]
pub(super) struct Corner<'a> {
    discovery: &'a Discovery,
    square: Square,
    number: usize,
}

impl Discovery {
    pub(super) fn new(turn: &Turn) -> Self {
        Self {
            squares: turn.discovery.clone(),
            listen_udp: turn.listen_udp.clone(),
        }
    }

    /// Where a client's requests arrive, if that socket belongs to a square.
    // RFC 5780 section 6: without another address, the server "MUST NOT include an OTHER-ADDRESS attribute in any Response
    // and MUST respond with a 420"; so it is with TCP, whose connections cannot be answered from elsewhere.
    pub(super) fn corner(&self, client: &Client) -> Option<Corner<'_>> {
        let Client::Datagram {
            socket: SocketId::Turn(socket),
            ..
        } = client
        else {
            return None;
        };
        self.squares.iter().find_map(|square| {
            let number = square.0.iter().position(|corner| corner == socket)?;
            Some(Corner {
                discovery: self,
                square: *square,
                number,
            })
        })
    }
}

impl Corner<'_> {
    /// The corner to answer from, and its address.
    // RFC 5780 section 6.1, table 1.
    pub(super) fn changed(self, ip: bool, port: bool) -> (SocketId, SocketAddr) {
        let socket = self.square.0[self.number ^ (usize::from(ip) << 1 | usize::from(port))];
        let address = self.discovery.listen_udp[usize::from(socket)];
        (SocketId::Turn(socket), address)
    }
}
