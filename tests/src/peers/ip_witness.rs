//! What do the IP headers of a datagram say? A raw socket that sees all that arrives at an address.

use std::{
    io::{self, Read as _},
    net::{IpAddr, SocketAddr},
};

use socket2::{Domain, Protocol, Socket, Type};

use crate::{deadline, remaining, skipped};

/// Sees the datagrams that arrive at an IPv4 address, beside whoever receives them.
#[derive(Debug)]
pub struct IpWitness {
    socket: Socket,
}

/// A datagram with what its IPv4 header says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// DSCP and ECN.
    pub tos: u8,
    /// The DF bit.
    pub dont_fragment: bool,
    /// TTL.
    pub ttl: u8,
    /// What it carries.
    pub payload: Vec<u8>,
}

impl IpWitness {
    /// Looks at an address; `None`, and a word about it, where that is not allowed.
    ///
    /// # Panics
    /// When there is another reason not to.
    pub fn at(host: IpAddr) -> Option<Self> {
        match Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::UDP)) {
            Ok(socket) => {
                socket.bind(&SocketAddr::new(host, 0).into()).expect("an address");
                Some(Self { socket })
            }
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                skipped("IP headers: a raw socket takes CAP_NET_RAW");
                None
            }
            Err(error) => panic!("{error}"),
        }
    }

    /// The next datagram to this port.
    ///
    /// # Panics
    /// When none comes.
    pub fn see(&mut self, port: u16) -> Seen {
        let deadline = deadline();
        let mut packet = [0; 65_536];
        loop {
            let patience = remaining(deadline).expect("a datagram in time");
            self.socket
                .set_read_timeout(Some(patience))
                .expect("a timeout above zero");
            let length = self.socket.read(&mut packet).expect("a datagram in time");
            // RFC 791: 20 bytes of header, without options; then the ports of UDP, its length and its checksum.
            let (header, datagram) = packet[..length].split_at(20);
            if datagram[2..4] == port.to_be_bytes() {
                return Seen {
                    tos: header[1],
                    dont_fragment: header[6] & 0x40 != 0,
                    ttl: header[8],
                    payload: datagram[8..].to_vec(),
                };
            }
        }
    }
}
