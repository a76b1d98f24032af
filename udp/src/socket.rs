//! What is a UDP socket of ours? Its options, and what the poller must remember of it.

use std::{
    io::{self, IoSliceMut},
    net::{SocketAddr, UdpSocket},
    os::fd::AsFd,
};

use edgeward_core::action::{Icmp, IoKind, SocketId};
use libc::c_int;
use socket2::SockRef;

use crate::sys::{self, Meta, Report};

/// A socket of the poller.
#[derive(Debug)]
pub(crate) struct Socket {
    pub(crate) io: UdpSocket,
    /// Datagrams may wait here: it is on the ready list.
    pub(crate) ready: bool,
    /// Reports may wait in the error queue.
    pub(crate) failed: bool,
    /// Trains may be sent in one piece.
    pub(crate) trains: bool,
    is_ipv4: bool,
    /// What it sends may not be fragmented on the way.
    dont_fragment: bool,
    /// How many runs to ask for.
    pub(crate) batch: u8,
    /// Datagrams that the kernel had dropped when last told.
    dropped: u32,
}

/// Sizes of the kernel's buffers of one socket, in bytes. They are limits: an idle socket takes nothing of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Buffers {
    /// What may wait to be received; the kernel drops what is beyond.
    pub receive_bytes: usize,
    /// What may wait to be sent; the poller drops what is beyond.
    pub send_bytes: usize,
}

impl Socket {
    /// Takes a socket in that is bound to `local`. It need not be non-blocking: no call of ours waits.
    pub(crate) fn new(id: SocketId, io: UdpSocket, local: SocketAddr, buffers: Buffers) -> io::Result<Self> {
        let set = |level, option, value| sys::set_option(io.as_fd(), level, option, value);

        // RFC 8656 section 14: the DF bit is 0 unless a client asks for it. SIP messages larger than a packet must be
        // fragmented as well.
        match (local.is_ipv4(), id) {
            // This is the only way without DF by which a router's "fragmentation needed" is told, which may come later
            // than the next datagram.
            (true, SocketId::Relay(_)) => set(libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_OMIT)?,
            (true, _) => set(libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_DONT)?,
            (false, _) => set(libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_DONT)?,
        }

        // What goes through TURN keeps its DSCP and ECN (RFC 8656 section 14).
        if !matches!(id, SocketId::Sip) {
            match local.is_ipv4() {
                true => set(libc::IPPROTO_IP, libc::IP_RECVTOS, 1)?,
                false => set(libc::IPPROTO_IPV6, libc::IPV6_RECVTCLASS, 1)?,
            }
        }

        // A socket that has all addresses must know to which one it was spoken, and answer from it.
        if local.ip().is_unspecified() {
            match local.is_ipv4() {
                true => set(libc::IPPROTO_IP, libc::IP_PKTINFO, 1)?,
                false => set(libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, 1)?,
            }
        }

        // Nobody asks what became of a client, and clients that went away are many.
        if !matches!(id, SocketId::Turn(_)) {
            match local.is_ipv4() {
                true => set(libc::IPPROTO_IP, libc::IP_RECVERR, 1)?,
                false => set(libc::IPPROTO_IPV6, libc::IPV6_RECVERR, 1)?,
            }
        }

        // Beyond the limit of the system where we may, up to it where we may not.
        for (force, plain, bytes) in [
            (libc::SO_RCVBUFFORCE, libc::SO_RCVBUF, buffers.receive_bytes),
            (libc::SO_SNDBUFFORCE, libc::SO_SNDBUF, buffers.send_bytes),
        ] {
            let bytes = i32::try_from(bytes).unwrap_or(i32::MAX);
            if set(libc::SOL_SOCKET, force, bytes).is_err() {
                set(libc::SOL_SOCKET, plain, bytes)?;
            }
        }
        if !matches!(id, SocketId::Relay(_)) {
            // socket(7): the kernel doubles what is asked for, to have room for its own notes, and tells the double.
            let (asked, granted) = (buffers.receive_bytes, SockRef::from(&io).recv_buffer_size()? / 2);
            if granted < asked {
                tracing::warn!(%local, asked, granted, "small receive buffer: raise net.core.rmem_max");
            }
        }

        // Old kernels lack these; all goes on without.
        let _ = set(libc::SOL_SOCKET, libc::SO_RXQ_OVFL, 1);
        let _ = set(libc::SOL_UDP, libc::UDP_GRO, 1);
        Ok(Self {
            io,
            ready: false,
            failed: false,
            trains: true,
            is_ipv4: local.is_ipv4(),
            dont_fragment: false,
            batch: 2,
            dropped: 0,
        })
    }

    /// Receives one run into each buffer, until there is none; returns how many.
    pub(crate) fn receive(&self, buffers: &mut [IoSliceMut<'_>], metas: &mut Vec<Meta>) -> io::Result<usize> {
        match sys::receive(self.io.as_fd(), buffers, metas) {
            // Of a datagram sent before; it is in the error queue as well, and is gone once told.
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => sys::receive(self.io.as_fd(), buffers, metas),
            result => result,
        }
    }

    /// Whether what is sent from now on may not be fragmented on the way. The kernel takes this for all of a socket
    /// only, so it costs a system call where it changes from one datagram to the next.
    pub(crate) fn set_dont_fragment(&mut self, dont_fragment: bool) -> io::Result<()> {
        if dont_fragment {
            // Of a datagram sent before; it is in the error queue as well. See `is_too_large`.
            self.io.take_error()?;
        }
        if self.dont_fragment == dont_fragment {
            return Ok(());
        }
        let (level, option, value) = match (self.is_ipv4, dont_fragment) {
            (true, true) => (libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_DO),
            (true, false) => (libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_OMIT),
            (false, _) => (libc::IPPROTO_IPV6, libc::IPV6_DONTFRAG, c_int::from(dont_fragment)),
        };
        sys::set_option(self.io.as_fd(), level, option, value)?;
        self.dont_fragment = dont_fragment;
        Ok(())
    }

    /// Whether this is the error of a datagram that may not be fragmented and has to be. The kernel has put a report of
    /// it into the error queue, and would put another one if it was sent again.
    pub(crate) fn is_too_large(&self, error: &io::Error) -> bool {
        self.dont_fragment && error.raw_os_error() == Some(libc::EMSGSIZE)
    }

    /// Takes a report from the error queue.
    pub(crate) fn receive_report(&self) -> Option<Report> {
        sys::receive_report(self.io.as_fd()).ok().flatten()
    }

    /// Tells how many datagrams the kernel dropped since it was told last.
    pub(crate) fn newly_dropped(&mut self, metas: &[Meta]) -> u64 {
        let Some(dropped) = metas.iter().rev().find_map(|meta| meta.dropped) else {
            return 0;
        };
        u64::from(dropped.wrapping_sub(std::mem::replace(&mut self.dropped, dropped)))
    }
}

impl Report {
    /// The reason, as far as the core cares.
    pub(crate) const fn kind(&self) -> IoKind {
        match self.error.ee_errno as c_int {
            libc::ECONNREFUSED => IoKind::Refused,
            libc::EHOSTUNREACH | libc::ENETUNREACH | libc::EHOSTDOWN | libc::ENONET | libc::EACCES => {
                IoKind::Unreachable
            }
            libc::EMSGSIZE => IoKind::MessageSize,
            libc::ETIMEDOUT => IoKind::TimedOut,
            _ => IoKind::Other,
        }
    }

    /// The ICMP message, or what it would have been had the first link not been ours.
    // RFC 792 and RFC 1191: "fragmentation needed and DF set" is type 3, code 4. RFC 4443: "packet too big" is type 2.
    pub(crate) fn icmp(&self) -> Option<Icmp> {
        let mtu = self.error.ee_info;
        match self.error.ee_origin {
            libc::SO_EE_ORIGIN_ICMP | libc::SO_EE_ORIGIN_ICMP6 => Some(Icmp {
                kind: self.error.ee_type,
                code: self.error.ee_code,
                mtu,
            }),
            libc::SO_EE_ORIGIN_LOCAL if self.kind() == IoKind::MessageSize => {
                let (kind, code) = if self.peer.is_ipv4() { (3, 4) } else { (2, 0) };
                Some(Icmp { kind, code, mtu })
            }
            _ => None,
        }
    }
}
