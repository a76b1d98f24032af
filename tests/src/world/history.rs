//! What has happened in a world? Told to the checkers as it happens.

use std::net::{IpAddr, SocketAddr};

use crate::{peers::sip, world::agenda::Time};

/// Something that crosses the network, or that somebody at its edge knows.
#[derive(Debug)]
pub enum Seen<'a> {
    /// The edge has sent a datagram.
    FromEdge {
        /// From which of its addresses.
        from: SocketAddr,
        /// To whom.
        to: SocketAddr,
        /// What it says.
        bytes: &'a [u8],
    },
    /// The edge has received a datagram.
    ToEdge {
        /// From whom.
        from: SocketAddr,
        /// At which of its addresses.
        to: SocketAddr,
        /// What it says.
        bytes: &'a [u8],
    },
    /// The edge has bound or released a relayed address.
    Relay {
        /// The address.
        at: SocketAddr,
        /// Whether it is there now.
        is_there: bool,
    },
    /// A TURN client has written a message to its connection.
    TurnUp {
        /// The address that it has.
        client: SocketAddr,
        /// The message.
        bytes: &'a [u8],
    },
    /// A TURN client has read a message from its connection.
    TurnDown {
        /// The address that it has.
        client: SocketAddr,
        /// The message.
        bytes: &'a [u8],
    },
    /// A browser asks for something.
    HttpAsked {
        /// The number of the exchange.
        id: u64,
        /// Its body.
        body: &'a [u8],
    },
    /// An upstream has seen the whole request.
    HttpServed {
        /// The number of the exchange.
        id: u64,
        /// Who asks, as it is told.
        client: Option<IpAddr>,
        /// The body of the request.
        asked: &'a [u8],
        /// The body that it answers with, where it answers well.
        answer: Option<&'a [u8]>,
    },
    /// A browser takes an exchange for complete.
    HttpGot {
        /// The number of the exchange.
        id: u64,
        /// The status.
        status: u16,
        /// The body of the answer.
        body: &'a [u8],
    },
    /// A browser sees that an exchange has failed.
    HttpFailed {
        /// The number of the exchange.
        id: u64,
        /// The connection, where nothing has come by it for longer than the edge may be silent.
        silent: Option<u32>,
    },
    /// A browser has opened a WebSocket for SIP.
    FlowOpened {
        /// Its number.
        flow: u64,
        /// Whose it is.
        user: usize,
        /// The connection that it goes by.
        tcp: u32,
    },
    /// A browser that wanted a WebSocket for SIP got an answer.
    TokenShown {
        /// The status.
        status: u16,
        /// Whether its token holds.
        holds: bool,
    },
    /// A WebSocket is gone, or the browser has no more use for it.
    FlowClosed {
        /// Its number.
        flow: u64,
    },
    /// A browser says something by SIP.
    SipUp {
        /// By which WebSocket.
        flow: u64,
        /// What.
        message: &'a sip::Message,
    },
    /// A browser hears something by SIP.
    SipDown {
        /// By which WebSocket.
        flow: u64,
        /// What.
        message: &'a sip::Message,
    },
    /// A mediaserver says something by SIP.
    TrunkUp {
        /// What.
        message: &'a sip::Message,
    },
    /// A mediaserver hears something by SIP.
    TrunkDown {
        /// What.
        message: &'a sip::Message,
    },
    /// A shard asks its runtime for something.
    Asked {
        /// Which shard.
        shard: usize,
        /// For what, by the name that it gave it.
        ask: &'a str,
    },
    /// The runtime answers, or the shard does not want to know any more.
    Answered {
        /// Which shard.
        shard: usize,
        /// The name of the question.
        ask: &'a str,
    },
    /// A shard has output for one stream.
    Output {
        /// Bytes, with those that wait in the runtime already.
        waiting: usize,
    },
    /// What a shard holds.
    Held {
        /// Which shard.
        shard: usize,
        /// Names and numbers.
        gauges: &'a [(&'static str, u64)],
    },
    /// A mediaserver does not answer for a while.
    Deaf {
        /// Until then.
        until: Time,
    },
    /// The network has broken a connection, or lets nothing pass by it any more.
    Cut {
        /// Which one.
        tcp: u32,
    },
    /// A shard is told to end.
    Draining,
    /// Everybody has left, and all lifetimes have passed.
    AllLeft,
}
