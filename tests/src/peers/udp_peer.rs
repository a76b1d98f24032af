//! Who is at the other end of a relayed address? A UDP socket with a deadline for each wait.

use std::{
    net::{SocketAddr, UdpSocket},
    time::Instant,
};

use socket2::SockRef;

use crate::{deadline, remaining};

/// A UDP socket.
#[derive(Debug)]
pub struct UdpPeer {
    socket: UdpSocket,
}

impl UdpPeer {
    /// Binds an address; port 0 is any.
    ///
    /// # Panics
    /// When it is taken.
    pub fn bind(address: SocketAddr) -> Self {
        Self {
            socket: UdpSocket::bind(address).expect("a free address"),
        }
    }

    /// Its address.
    ///
    /// # Panics
    /// Never: it is bound.
    pub fn address(&self) -> SocketAddr {
        self.socket.local_addr().expect("a bound socket")
    }

    /// Sends a datagram.
    ///
    /// # Panics
    /// When it is too large.
    pub fn send(&self, to: SocketAddr, payload: &[u8]) {
        self.socket.send_to(payload, to).expect("sent");
    }

    /// Sends with this DSCP and ECN from now on.
    ///
    /// # Panics
    /// Never: the system takes any.
    pub fn mark(&self, tos: u8) {
        SockRef::from(&self.socket).set_tos_v4(tos.into()).expect("an option");
    }

    /// The next datagram and who sent it.
    ///
    /// # Panics
    /// When none comes.
    pub fn receive(&self) -> (Vec<u8>, SocketAddr) {
        self.receive_until(deadline()).expect("a datagram in time")
    }

    /// The next datagram and who sent it, where one comes in time.
    pub fn receive_until(&self, deadline: Instant) -> Option<(Vec<u8>, SocketAddr)> {
        let mut buffer = vec![0; 65_536];
        self.socket
            .set_read_timeout(Some(remaining(deadline)?))
            .expect("a timeout above zero");
        let (length, from) = self.socket.recv_from(&mut buffer).ok()?;
        buffer.truncate(length);
        Some((buffer, from))
    }
}
