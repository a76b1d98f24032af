//! What becomes of a message: which bytes go where?

use core::{
    net::{IpAddr, SocketAddr},
    ops::Range,
};

use crate::action::{ConnId, Prefix, ShardId, SocketId};

/// What to send in answer to one input. Nothing is copied: the payload is named by where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// To whom.
    pub to: To,
    /// What the IP header of a datagram is to say.
    pub header: IpHeader,
    /// What goes in front of the payload.
    pub prefix: Prefix,
    /// The payload.
    pub payload: Payload,
}

impl Verdict {
    /// Nothing is sent.
    pub const NOTHING: Self = Self {
        to: To::Nobody,
        header: IpHeader::Own,
        prefix: Prefix::NONE,
        payload: Payload::Made(0..0),
    };

    /// The message goes to the server of another shard.
    pub(super) const fn to_shard(shard: ShardId) -> Self {
        Self {
            to: To::Shard(shard),
            ..Self::NOTHING
        }
    }
}

/// What an IP header is to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IpHeader {
    /// What any packet of ours says.
    Own,
    /// The same DSCP and ECN as the packet that came in.
    // RFC 8656 section 14: "Set the outgoing value to the incoming value." What came by a stream has none, and then best
    // effort and Not-ECT are right (section 15).
    Relayed,
    /// The same, and that nobody may fragment it.
    RelayedWhole,
}

/// Where bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum To {
    /// Nowhere.
    Nobody,
    /// One datagram.
    Datagram {
        /// From this socket.
        socket: SocketId,
        /// To this address.
        peer: SocketAddr,
        /// From this address, where the socket has several.
        local: Option<IpAddr>,
    },
    /// A client's stream, by [`write_to_stream`](super::write_to_stream).
    Stream(ConnId),
    /// To the server of another shard: a datagram as it is; of a stream, the message and what follows it, with the
    /// connection that it came by.
    Shard(ShardId),
}

/// Where a payload is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Payload {
    /// In the bytes that came in.
    Input(Range<usize>),
    /// In [`Cx::made`](crate::cx::Cx::made).
    Made(Range<usize>),
}
