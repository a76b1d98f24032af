//! What does one UDP socket do? Options, a batch in, a train out.

use std::{
    io::{self, IoSliceMut},
    net::{IpAddr, UdpSocket},
};

use edgeward_core::action::Transmit;
use quinn_udp::{RecvMeta, UdpSocketState};
use rustix::net::sockopt::{self, Ipv4PathMtuDiscovery, Ipv6PathMtuDiscovery};

/// A non-blocking UDP socket with offloads.
#[derive(Debug)]
pub(crate) struct Socket {
    pub(crate) io: UdpSocket,
    state: UdpSocketState,
    /// The address it is bound to; `None` when that is every address.
    address: Option<IpAddr>,
    /// Datagrams may wait here: it is on the ready list.
    pub(crate) ready: bool,
}

/// Sizes of the kernel's buffers of one socket, in bytes. They are limits: an idle socket takes nothing of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Buffers {
    /// What may wait to be received; the kernel drops what is beyond.
    pub receive_bytes: usize,
    /// What may wait to be sent.
    pub send_bytes: usize,
}

impl Socket {
    pub(crate) fn new(io: UdpSocket, buffers: Buffers) -> io::Result<Self> {
        let local = io.local_addr()?;
        let state = UdpSocketState::new((&io).into())?;
        // RFC 8656 section 14: the DF bit is clear unless a client asks for it. SIP messages larger than a packet
        // are fragmented.
        if local.is_ipv4() {
            sockopt::set_ip_mtu_discover(&io, Ipv4PathMtuDiscovery::DONT)?;
        } else {
            sockopt::set_ipv6_mtu_discover(&io, Ipv6PathMtuDiscovery::DONT)?;
        }
        // Beyond the limit of the system where we may, up to it where we may not.
        if sockopt::set_socket_recv_buffer_size_force(&io, buffers.receive_bytes).is_err() {
            sockopt::set_socket_recv_buffer_size(&io, buffers.receive_bytes)?;
        }
        if sockopt::set_socket_send_buffer_size_force(&io, buffers.send_bytes).is_err() {
            sockopt::set_socket_send_buffer_size(&io, buffers.send_bytes)?;
        }
        Ok(Self {
            io,
            state,
            address: Some(local.ip()).filter(|ip| !ip.is_unspecified()),
            ready: false,
        })
    }

    pub(crate) fn receive(&self, buffers: &mut [IoSliceMut<'_>], metas: &mut [RecvMeta]) -> io::Result<usize> {
        self.state.recv((&self.io).into(), buffers, metas)
    }

    /// Sends the datagrams of a transmit, gathered in `bytes`.
    pub(crate) fn send(&self, transmit: &Transmit, bytes: &[u8]) -> io::Result<()> {
        let segments_max = self.state.max_gso_segments();
        let step = match transmit.pieces.len() {
            count if count <= segments_max => bytes.len(),
            _ => transmit.segment,
        };
        let send = |contents| {
            let transmit = quinn_udp::Transmit {
                destination: transmit.peer,
                ecn: None,
                contents,
                segment_size: Some(transmit.segment),
                src_ip: transmit.local.filter(|_| self.address.is_none()),
            };
            self.state.try_send((&self.io).into(), &transmit)
        };
        if bytes.is_empty() {
            return send(bytes);
        }
        bytes.chunks(step).try_for_each(send)
    }
}
