//! What do a shard and its runtime say to each other? Everything that crosses the edge of the core, in one vocabulary.

use core::{
    net::{IpAddr, SocketAddr},
    ops::Range,
};

use bytes::BytesMut;

pub use crate::{
    access::{Access, End},
    conn::Conn,
    slab::Key,
};
use crate::{
    config::SharedConfig,
    limit::{Account, Tolerance, Verdict},
    time::Instant,
};

/// Which shard, counted from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardId(pub u16);

/// Which TCP listener, by its place in [`Config::tcp_listeners`](crate::config::Config::tcp_listeners).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ListenerId(pub u16);

/// One TCP connection of a shard, accepted or dialled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId(pub Key);

/// One relayed transport address of a TURN allocation (RFC 8656 section 2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RelayId(pub Key);

/// One name look-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QueryId(pub Key);

/// What stands in a datagram for [`SocketId::Sip`] before the number of the shard that it belongs to, in five decimal
/// digits: a word that the first of our branches and flow tokens in it begins with.
pub const HOME_MARK: [u8; 4] = *b"-ew-";

/// One UDP socket of a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SocketId {
    /// A socket for TURN clients, by its place in [`Config::turn_sockets`](crate::config::Config::turn_sockets).
    Turn(u16),
    /// The socket that speaks SIP with the mediaservers.
    Sip,
    /// The relayed transport address of an allocation.
    Relay(RelayId),
}

/// Fields of the IP header that a relayed datagram takes along. All others are those of a packet of our own.
// RFC 8656 section 14 asks for DSCP, ECN and DF alone from IPv4 to IPv4. Section 13 wants the hop limit of IPv6 lowered
// by one as well, but by somebody who also sends the ICMPv6 error when it comes to nothing, which takes a privilege
// that we do without; else it "sets the Hop Limit to the default value for outgoing packets", as we do for both
// families. A hop limit that differs in every packet would cost a control message for each in both directions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct IpFields {
    /// DSCP and ECN: the TOS octet of IPv4, the traffic class of IPv6. 0 is best effort and Not-ECT.
    pub traffic_class: u8,
    /// Whether nobody on the way may fragment it: the DF bit of IPv4. Of what came in, no kernel tells.
    pub dont_fragment: bool,
}

/// Datagrams of one sender, one behind the other in one buffer, as `UDP_GRO` delivers them.
#[derive(Debug, Clone, Copy)]
pub struct Run<'a> {
    /// Who sent them.
    pub peer: SocketAddr,
    /// To which of our addresses, where the kernel tells; an answer leaves from it.
    pub local: Option<IpAddr>,
    /// What their IP headers said, all the same.
    pub fields: IpFields,
    /// Length of each datagram in bytes, but that the last one may be shorter. Never 0 unless `bytes` is empty.
    pub stride: usize,
    /// All datagrams.
    pub bytes: &'a [u8],
}

impl<'a> Run<'a> {
    /// A run of one datagram with nothing special in its IP header.
    pub const fn one(peer: SocketAddr, bytes: &'a [u8]) -> Self {
        Self {
            peer,
            local: None,
            fields: IpFields {
                traffic_class: 0,
                dont_fragment: false,
            },
            stride: bytes.len(),
            bytes,
        }
    }

    /// The ranges of the datagrams in `bytes`. An empty run is one empty datagram.
    pub fn segments(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        let (stride, len) = (self.stride.max(1), self.bytes.len());
        let count = len.div_ceil(stride).max(1);
        (0..count).map(move |n| n * stride..len.min((n + 1) * stride))
    }
}

/// Up to four bytes in front of a payload: the ChannelData header (RFC 8656 section 12.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Prefix {
    bytes: [u8; 4],
    len: u8,
}

impl Prefix {
    /// Nothing in front.
    pub const NONE: Self = Self { bytes: [0; 4], len: 0 };

    /// Four bytes in front.
    pub const fn four(bytes: [u8; 4]) -> Self {
        Self { bytes, len: 4 }
    }

    /// The bytes to send before the payload.
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    /// How many bytes it adds.
    pub const fn len(&self) -> usize {
        self.len as usize
    }

    /// Whether it adds nothing.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }
}

/// Where the bytes of a payload are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// In a run of the call that filled this egress, by its index.
    Run(u32, Range<usize>),
    /// In [`Egress::made`].
    Made(Range<usize>),
}

/// A datagram, or one segment of a train of them: prefix and payload, not yet gathered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// What goes first.
    pub prefix: Prefix,
    /// What follows.
    pub payload: Source,
}

impl Piece {
    /// Length of the datagram in bytes.
    pub fn len(&self) -> usize {
        let (Source::Run(_, range) | Source::Made(range)) = &self.payload;
        self.prefix.len() + range.len()
    }

    /// Whether the datagram is empty, which UDP allows.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Datagrams from one socket to one peer that the kernel can take in one call: all of one length, but that the last
/// may be shorter (`UDP_SEGMENT`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transmit {
    /// The socket to send from.
    pub socket: SocketId,
    /// Where to.
    pub peer: SocketAddr,
    /// The address to send from, where the socket has several.
    pub local: Option<IpAddr>,
    /// What their IP headers are to say.
    pub fields: IpFields,
    /// Length of each datagram in bytes, but perhaps of the last.
    pub segment: usize,
    /// The datagrams, in [`Egress::pieces`].
    pub pieces: Range<usize>,
}

/// What a shard wants sent by UDP. The runtime sends it and clears it before it reuses the buffers of the runs, which
/// are named here by index. Nothing is allocated once its vectors are warm.
#[derive(Debug, Default)]
pub struct Egress {
    /// In the order to send.
    pub transmits: Vec<Transmit>,
    /// What the transmits name.
    pub pieces: Vec<Piece>,
    /// Bytes that the core wrote itself.
    pub made: Vec<u8>,
}

impl Egress {
    /// Datagrams in one transmit at most: what `UDP_SEGMENT` takes on every kernel that has it.
    pub const SEGMENTS_MAX: usize = 64;
    /// Bytes in one transmit at most: a UDP payload.
    pub const TRANSMIT_BYTES_MAX: usize = 65_507;

    /// Adds one datagram of our own, to the last transmit where that may be.
    pub fn push(&mut self, socket: SocketId, peer: SocketAddr, local: Option<IpAddr>, prefix: Prefix, payload: Source) {
        self.push_with(IpFields::default(), socket, peer, local, prefix, payload);
    }

    /// Adds one datagram whose IP header is to say something, to the last transmit where that may be.
    pub fn push_with(
        &mut self,
        fields: IpFields,
        socket: SocketId,
        peer: SocketAddr,
        local: Option<IpAddr>,
        prefix: Prefix,
        payload: Source,
    ) {
        let piece = Piece { prefix, payload };
        let len = piece.len();
        let index = self.pieces.len();
        let last_len = self.pieces.last().map(Piece::len);
        self.pieces.push(piece);
        if let Some(last) = self.transmits.last_mut()
            && last.socket == socket
            && last.peer == peer
            && last.local == local
            && last.fields == fields
            && last.pieces.end == index
            // All but the last datagram of a train have the same length, so a shorter one ends it.
            && last_len == Some(last.segment)
            && len <= last.segment
            && len > 0
            && last.pieces.len() < Self::SEGMENTS_MAX
            && (last.pieces.len() + 1) * last.segment <= Self::TRANSMIT_BYTES_MAX
        {
            last.pieces.end += 1;
            return;
        }
        self.transmits.push(Transmit {
            socket,
            peer,
            local,
            fields,
            segment: len,
            pieces: index..index + 1,
        });
    }

    /// Writes the bytes of a transmit behind each other into `buffer`, which is cleared before.
    /// `run` gives the bytes of a run by its index.
    pub fn gather<'a>(&'a self, transmit: &Transmit, run: impl Fn(u32) -> &'a [u8], buffer: &mut Vec<u8>) {
        buffer.clear();
        for piece in &self.pieces[transmit.pieces.clone()] {
            buffer.extend_from_slice(piece.prefix.as_slice());
            buffer.extend_from_slice(match &piece.payload {
                Source::Run(index, range) => &run(*index)[range.clone()],
                Source::Made(range) => &self.made[range.clone()],
            });
        }
    }

    /// Whether there is nothing to send.
    pub fn is_empty(&self) -> bool {
        self.transmits.is_empty()
    }

    /// Forgets all, keeps the memory.
    pub fn clear(&mut self) {
        self.transmits.clear();
        self.pieces.clear();
        self.made.clear();
    }
}

/// Why a stream or a socket failed, as far as the core cares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum IoKind {
    /// Nobody listens there.
    Refused,
    /// No way to get there.
    Unreachable,
    /// No answer in time.
    TimedOut,
    /// The other side broke the connection.
    Reset,
    /// The datagram is larger than the path takes, and may not be fragmented.
    MessageSize,
    /// Anything else.
    Other,
}

impl IoKind {
    /// In words for the log.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Refused => "nothing listens there",
            Self::Unreachable => "no way leads there",
            Self::TimedOut => "no answer in time",
            Self::Reset => "the connection was broken",
            Self::MessageSize => "too large for the way",
            Self::Other => "the system refused it",
        }
    }
}

/// What an ICMP message says about a datagram that came to nothing; of the family of its destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Icmp {
    /// Its type (RFC 792, RFC 4443).
    pub kind: u8,
    /// Its code.
    pub code: u8,
    /// The MTU of the next hop in bytes, where it is about that; 0 is "not told".
    pub mtu: u32,
}

/// What a relayed transport address speaks with peers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// Datagrams (RFC 8656).
    Udp,
    /// Connections, taken and made (RFC 6062).
    Tcp,
}

/// Why a relay socket could not be bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum BindError {
    /// Somebody has the port: another one may do.
    InUse,
    /// Anything that another port would not heal: no descriptors, no such address.
    Failed,
}

/// Both ends of a dialled connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Endpoints {
    /// Our end.
    pub local: SocketAddr,
    /// The other end.
    pub peer: SocketAddr,
}

/// What a name stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Addresses {
    /// In the order of the resolver; never empty.
    pub addresses: Vec<IpAddr>,
}

/// A name that has no address, now or ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResolveError;

/// Everything that happens to a shard but datagrams and stream bytes. Each [`Action`] that asks is answered by one of these
/// at the most: by none when its id is dead by then, or a parcel was lost on its way.
#[derive(Debug)]
pub enum Input {
    /// The peer of a stream sends no more.
    Eof(ConnId),
    /// A stream is dead in both directions; the runtime has closed it.
    Failed(ConnId, IoKind),
    /// The output taken before is written.
    Written(ConnId),
    /// Answers [`Action::Dial`].
    Dialed(ConnId, Result<Endpoints, IoKind>),
    /// Answers [`Action::Resolve`].
    Resolved(QueryId, Result<Addresses, ResolveError>),
    /// Answers [`Action::BindRelay`]: the address that the socket has.
    RelayBound(RelayId, Result<SocketAddr, BindError>),
    /// The kernel reports that a datagram to this peer came to nothing, and which ICMP message told it. Of a datagram
    /// that the first link does not take, it is the one that a router there would have sent.
    SocketError(SocketId, SocketAddr, IoKind, Option<Icmp>),
    /// From another shard.
    Parcel(Parcel),
    /// From now on this is the configuration. What goes on, goes on; one that
    /// [only a restart can follow](crate::config::Config::fixed_differences) changes nothing.
    Configure(SharedConfig),
    /// Take nothing new, let exchanges, transactions and calls end, close the rest at the given time.
    Drain(Instant),
}

/// What a shard asks of its runtime.
#[derive(Debug)]
pub enum Action {
    /// Bytes wait in [`crate::Shard::take_output`]. Raised once until they are taken, and not before those that were
    /// taken last are [`Input::Written`].
    Flush(ConnId),
    /// Read from this stream, or leave its bytes in the kernel.
    Read(ConnId, bool),
    /// End our direction; all that was taken before is written.
    Shut(ConnId),
    /// Send what waits, then close; the id is dead already.
    Close(ConnId, BytesMut),
    /// Break the connection, whatever waits to be sent, so that nobody takes what came for the whole; the id is dead
    /// already.
    Reset(ConnId),
    /// Close a relay socket.
    CloseSocket(RelayId),
    /// Connect; answered by [`Input::Dialed`].
    Dial {
        /// The name the core gave it.
        conn: ConnId,
        /// The address to connect from: a relayed transport address, whose listener goes on, or one with port 0, which
        /// leaves the port to the system; `None` leaves both.
        from: Option<SocketAddr>,
        /// Where to.
        to: SocketAddr,
    },
    /// Look a name up; answered by [`Input::Resolved`].
    Resolve {
        /// The name the core gave the question.
        query: QueryId,
        /// The host name.
        host: String,
    },
    /// Bind a socket that nobody else shares; answered by [`Input::RelayBound`]. For TCP it listens, and who connects is
    /// brought to [`crate::Shard::accept_peer`].
    BindRelay {
        /// The name the core gave it.
        relay: RelayId,
        /// What it speaks.
        transport: Transport,
        /// The address to bind.
        at: SocketAddr,
    },
    /// Hand this to another shard. A [`Parcel::Conn`] takes the stream of `ConnId` with it.
    Forward {
        /// To whom.
        to: ShardId,
        /// What.
        parcel: Parcel,
    },
    /// A request is over, where the configuration has an access log.
    Log(Box<Access>),
    /// All that a drain waited for is gone.
    Drained,
}

/// A value that goes from shard to shard.
#[derive(Debug)]
pub enum Parcel {
    /// A connection that belongs on the other shard; the runtime moves the descriptor of this (now dead) id along and
    /// hands both to [`crate::Shard::adopt`].
    Conn(ConnId, Box<Conn>),
    /// A datagram for another shard's flow.
    Datagram(Box<Foreign>),
    /// May a client be served? The shard that keeps its account answers with [`Parcel::RateJudged`].
    RateAsked {
        /// Who asks.
        from: ShardId,
        /// The connection that waits there.
        conn: ConnId,
        /// Of whom.
        question: RateQuestion,
    },
    /// The answer to [`Parcel::RateAsked`].
    RateJudged {
        /// The connection that waits.
        conn: ConnId,
        /// What is to be done with its request. The monotonic clock of all shards is one.
        verdict: Verdict,
    },
}

/// Whose request it is, and what counts it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateQuestion {
    /// The zone: a hash of its name and rate, which is the same on every shard. The home may have another configuration
    /// for a moment.
    pub zone: u64,
    /// How far the client may be ahead there.
    pub tolerance: Tolerance,
    /// Whose.
    pub account: Account,
    /// Whether it is counted, or only foreseen what would be said.
    pub counts: bool,
}

/// A datagram, or one SIP message of a stream, that landed on the wrong shard.
#[derive(Debug)]
pub struct Foreign {
    /// The socket it came by; every shard has one of the same name.
    pub socket: SocketId,
    /// Whether it came by a TCP connection with the same peer instead.
    pub by_stream: bool,
    /// Who sent it.
    pub peer: SocketAddr,
    /// To which of our addresses, where the kernel tells.
    pub local: Option<IpAddr>,
    /// What its IP header said.
    pub fields: IpFields,
    /// The whole datagram.
    pub bytes: Box<[u8]>,
}

/// A connection that was not accepted; the runtime closes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused;

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(port: u16) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 1], port))
    }

    fn push(egress: &mut Egress, port: u16, len: usize) {
        let start = egress.made.len();
        egress.made.resize(start + len, 0);
        egress.push(
            SocketId::Sip,
            peer(port),
            None,
            Prefix::NONE,
            Source::Made(start..start + len),
        );
    }

    #[test]
    fn equal_datagrams_to_one_peer_make_one_transmit() {
        let mut egress = Egress::default();
        for (port, len) in [(1, 100), (1, 100), (1, 60), (1, 60), (2, 60), (1, 60), (1, 61)] {
            push(&mut egress, port, len);
        }
        let shape: Vec<_> = egress
            .transmits
            .iter()
            .map(|t| (t.peer.port(), t.segment, t.pieces.len()))
            .collect();
        assert_eq!(shape, [(1, 100, 3), (1, 60, 1), (2, 60, 1), (1, 60, 1), (1, 61, 1)]);
    }

    #[test]
    fn a_train_has_one_ip_header() {
        let mut egress = Egress::default();
        let class = |traffic_class, dont_fragment| IpFields {
            traffic_class,
            dont_fragment,
        };
        let fields = [
            class(0, false),
            class(0xb8, false),
            class(0xb8, false),
            class(0xb8, true),
        ];
        for fields in fields {
            egress.push_with(fields, SocketId::Sip, peer(1), None, Prefix::NONE, Source::Run(0, 0..1));
        }
        let shape: Vec<_> = egress.transmits.iter().map(|t| (t.fields, t.pieces.len())).collect();
        assert_eq!(shape, [(fields[0], 1), (fields[1], 2), (fields[3], 1)]);
    }

    #[test]
    fn a_transmit_stays_within_what_the_kernel_takes() {
        let mut egress = Egress::default();
        for _ in 0..200 {
            push(&mut egress, 1, 100);
        }
        for _ in 0..100 {
            push(&mut egress, 1, 1200);
        }
        for transmit in &egress.transmits {
            assert!(transmit.pieces.len() <= Egress::SEGMENTS_MAX);
            assert!(transmit.pieces.len() * transmit.segment <= Egress::TRANSMIT_BYTES_MAX);
        }
        assert_eq!(egress.transmits.iter().map(|t| t.pieces.len()).sum::<usize>(), 300);
    }

    #[test]
    fn gathered_bytes_are_prefix_and_payload() {
        let mut egress = Egress::default();
        egress.made.extend_from_slice(b"made");
        let prefix = Prefix::four(*b"head");
        egress.push(SocketId::Sip, peer(1), None, prefix, Source::Run(0, 1..5));
        egress.push(SocketId::Sip, peer(1), None, prefix, Source::Made(0..4));
        let mut buffer = vec![1, 2, 3];
        egress.gather(&egress.transmits[0], |_| b"-run--", &mut buffer);
        assert_eq!(buffer, b"headrun-headmade");
    }

    #[test]
    fn a_run_splits_at_its_stride() {
        let run = Run {
            stride: 4,
            ..Run::one(peer(1), b"aaaabbbbcc")
        };
        let segments: Vec<_> = run.segments().map(|range| &run.bytes[range]).collect();
        assert_eq!(segments, [b"aaaa".as_slice(), b"bbbb", b"cc"]);
        let mut empty = Run::one(peer(1), b"").segments();
        assert_eq!((empty.next(), empty.next()), (Some(0..0), None));
    }
}
