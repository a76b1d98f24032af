//! How does an input look, and what a shard did with it? In a line each, with the first line of what was said.

use std::net::SocketAddr;

use bytes::BytesMut;
use edgeward_core::action::{Action, ConnId, Egress, Parcel, Refused, Run, SocketId, Source};

use crate::record::{Event, Heard, key};

/// Characters of a text that are shown.
const TEXT_CHARS_MAX: usize = 100;

/// Whether an event is no news when nothing comes of it.
pub(super) const fn is_quiet(event: &Event) -> bool {
    matches!(
        event,
        Event::Timeout | Event::Written(_) | Event::Resume(_) | Event::TakeOutput(_)
    )
}

/// An input; `None` for what goes on with the one before.
pub(super) fn event(event: &Event, heard: &[Heard]) -> Option<String> {
    let conn = |conn: &(u32, u32)| name(ConnId(key(*conn)));
    Some(match event {
        Event::Start { .. } => "begins".into(),
        Event::Accept { on, local, peer } => format!("{peer} connects to {local}, listener {on}"),
        Event::AcceptPeer { local, peer, .. } => format!("peer {peer} connects to relay {local}"),
        Event::Adopt { local, peer } => format!("takes in the connection of {peer} to {local} from another shard"),
        Event::TakeOutput(_) => return None,
        Event::Resume(which) => format!("{} goes on", conn(which)),
        Event::Timeout => "its alarm rings".into(),
        Event::Written(to) => format!("what was said to {} is written", conn(to)),
        Event::Receive { conn: from, bytes } => {
            let from = conn(from);
            match heard {
                [] => format!("{from} says {}", what(bytes)),
                _ if bytes.is_empty() => format!("{from} {}", through_tls(heard)),
                _ => format!("{from} says {}, {}", what(bytes), through_tls(heard)),
            }
        }
        Event::Datagrams { on, runs } => {
            let runs = runs.iter().map(Run::from);
            let trains: Vec<String> = runs.map(|run| format!("from {} {}", run.peer, train(&run))).collect();
            format!("{} gets {}", socket((*on).into()), trains.join(", "))
        }
        Event::Eof(from) => format!("{} says no more", conn(from)),
        Event::Failed(from, kind) => format!("{} fails: {kind:?}", conn(from)),
        Event::Dialed(to, Ok((local, peer))) => format!("{} is connected from {local} to {peer}", conn(to)),
        Event::Dialed(to, Err(kind)) => format!("{} is not connected: {kind:?}", conn(to)),
        Event::Resolved(_, found) if found.is_empty() => "a name has no address".into(),
        Event::Resolved(_, found) => format!("a name has the addresses {found:?}"),
        Event::RelayBound(_, Ok(at)) => format!("relay {at} is bound"),
        Event::RelayBound(_, Err(why)) => format!("a relay is not bound: {why:?}"),
        Event::SocketError { on, peer, kind, .. } => {
            format!(
                "{} hears that a datagram to {peer} came to nothing: {kind:?}",
                socket((*on).into())
            )
        }
        Event::Parcel(_) => "gets something from another shard".into(),
        Event::Configure => "goes on with another configuration".into(),
        Event::Drain(_) => "is to end".into(),
        Event::End => "ends".into(),
    })
}

/// What a shard asks for; `None` where that only says how bytes are to be moved.
pub(super) fn action(action: &Action) -> Option<String> {
    Some(match action {
        Action::Flush(_) => return None,
        Action::Read(conn, true) => format!("read {} again", name(*conn)),
        Action::Read(conn, false) => format!("leave {} unread", name(*conn)),
        Action::Shut(conn) => format!("say no more to {}", name(*conn)),
        Action::Close(conn, bytes) if bytes.is_empty() => format!("close {}", name(*conn)),
        Action::Close(conn, bytes) => format!("close {} after {}", name(*conn), written(bytes)),
        Action::Reset(conn) => format!("break {}", name(*conn)),
        Action::CloseSocket(relay) => format!("close {}", socket(SocketId::Relay(*relay))),
        Action::Dial { conn, to, .. } => format!("connect {} to {to}", name(*conn)),
        Action::Resolve { host, .. } => format!("look up {host}"),
        Action::BindRelay { at, transport, .. } => format!("bind relay {at} for {transport:?}"),
        Action::Forward { to, parcel } => format!("give {} to shard {}", parcel_kind(parcel), to.0),
        Action::Log(access) => format!(
            "log {} {} {} {}",
            access.method,
            access.path,
            access.status,
            access.end.as_str()
        ),
        Action::Drained => "nothing is left to wait for".into(),
    })
}

/// Whether a connection was taken.
pub(super) fn accepted(result: Result<ConnId, Refused>) -> String {
    match result {
        Ok(conn) => format!("it is {}", name(conn)),
        Err(Refused) => "refused".into(),
    }
}

/// What a stream sends.
pub(super) fn output(conn: ConnId, bytes: &BytesMut) -> String {
    format!("say to {} {}", name(conn), written(bytes))
}

/// The datagrams that are sent.
pub(super) fn egress(egress: &Egress, runs: &[Run<'_>]) -> Vec<String> {
    let mut buffer = Vec::new();
    let transmits = egress.transmits.iter().map(|transmit| {
        let of_run = |run: u32| runs.get(run as usize).map_or(&[][..], |run| run.bytes);
        // A range of a run that is not there has been told of already.
        let is_there = egress.pieces[transmit.pieces.clone()]
            .iter()
            .all(|piece| match &piece.payload {
                Source::Run(run, range) => of_run(*run).len() >= range.end,
                Source::Made(_) => true,
            });
        if is_there {
            egress.gather(transmit, of_run, &mut buffer);
        }
        let run = Run {
            stride: transmit.segment,
            ..Run::one(transmit.peer, &buffer)
        };
        sent(transmit.socket, transmit.peer, &run)
    });
    transmits.collect()
}

fn sent(from: SocketId, to: SocketAddr, run: &Run<'_>) -> String {
    format!("send by {} to {to} {}", socket(from), train(run))
}

fn name(conn: ConnId) -> String {
    format!("conn {}.{}", conn.0.index(), conn.0.generation())
}

fn socket(socket: SocketId) -> String {
    match socket {
        SocketId::Turn(place) => format!("TURN socket {place}"),
        SocketId::Sip => "SIP socket".into(),
        SocketId::Relay(relay) => format!("relay {}.{}", relay.0.index(), relay.0.generation()),
    }
}

const fn parcel_kind(parcel: &Parcel) -> &'static str {
    match parcel {
        Parcel::Conn(..) => "a connection",
        Parcel::Datagram(_) => "a datagram",
        Parcel::RateAsked { .. } => "a question about a rate",
        Parcel::RateJudged { .. } => "an answer about a rate",
    }
}

fn train(run: &Run<'_>) -> String {
    let mut segments = run.segments().map(|range| &run.bytes[range]);
    let first = segments.next().unwrap_or_default();
    match segments.count() {
        0 => what(first),
        more => format!("{} and {more} more", what(first)),
    }
}

fn through_tls(heard: &[Heard]) -> String {
    let plain: Vec<u8> = heard.iter().flat_map(|heard| &heard.plain).copied().collect();
    let error = heard.iter().find_map(|heard| heard.error.as_ref());
    let said = match plain.is_empty() {
        true => "goes on with TLS".into(),
        false => format!("says by TLS {}", what(&plain)),
    };
    match error {
        Some((_, why)) => format!("{said}, and fails: {why}"),
        None => said,
    }
}

/// What the core wrote to a stream: where a connection speaks TLS, records that nobody has encrypted, and zeros for what
/// TLS says by itself.
fn written(bytes: &[u8]) -> String {
    let mut said = Vec::new();
    let mut rest = bytes;
    loop {
        match rest {
            [0, behind @ ..] => rest = behind,
            [21 | 23, 3, 3, high, low, behind @ ..] => {
                let (text, behind) = behind.split_at(behind.len().min(u16::from_be_bytes([*high, *low]).into()));
                said.extend_from_slice(text);
                rest = behind;
            }
            [] => break,
            _ => return what(bytes),
        }
    }
    match said.as_slice() {
        [] => format!("what TLS has to say ({} bytes)", bytes.len()),
        [0, 0] => "the goodbye of TLS".into(),
        said => what(said),
    }
}

/// Bytes in words.
fn what(bytes: &[u8]) -> String {
    let kind = stun(bytes)
        .or_else(|| frame(bytes))
        .or_else(|| text(bytes))
        .or_else(|| channel_data(bytes));
    match kind {
        Some(kind) => format!("{kind} ({} bytes)", bytes.len()),
        None => format!("{} bytes", bytes.len()),
    }
}

/// ChannelData (RFC 8656 section 12.4).
fn channel_data(bytes: &[u8]) -> Option<String> {
    let [first @ 0x40..=0x4f, second, _, _, ..] = bytes else {
        return None;
    };
    Some(format!("ChannelData {first:#04x}{second:02x}"))
}

/// A message of STUN or TURN (RFC 8489 section 5, RFC 8656 section 17).
fn stun(bytes: &[u8]) -> Option<String> {
    let kind = u16::from_be_bytes(*bytes.first_chunk()?);
    if kind >= 0x4000 || bytes.get(4..8)? != [0x21, 0x12, 0xa4, 0x42] {
        return None;
    }
    let method = match kind & 0x0f | (kind & 0xe0) >> 1 | (kind & 0x3e00) >> 2 {
        0x001 => "Binding",
        0x003 => "Allocate",
        0x004 => "Refresh",
        0x006 => "Send",
        0x007 => "Data",
        0x008 => "CreatePermission",
        0x009 => "ChannelBind",
        0x00a => "Connect",
        0x00b => "ConnectionBind",
        0x00c => "ConnectionAttempt",
        _ => "STUN",
    };
    let class = ["request", "indication", "success", "error"][usize::from((kind & 0x10) >> 4 | (kind & 0x100) >> 7)];
    Some(format!("{method} {class}"))
}

/// A frame of a WebSocket (RFC 6455 section 5.2).
fn frame(bytes: &[u8]) -> Option<String> {
    let [first, second, behind @ ..] = bytes else {
        return None;
    };
    let opcode = match first {
        0x81 | 0x01 => "text",
        0x82 | 0x02 => "binary",
        0x88 => "close",
        0x89 => "ping",
        0x8a => "pong",
        _ => return None,
    };
    let (len, behind) = match (second & 0x7f, behind) {
        (126, [high, low, behind @ ..]) => (u16::from_be_bytes([*high, *low]).into(), behind),
        (127, behind) => (usize::MAX, behind.get(8..)?),
        (len, behind) => (usize::from(len), behind),
    };
    let payload: Vec<u8> = match second & 0x80 {
        0 => behind.iter().take(len).copied().collect(),
        _ => {
            let (key, payload) = behind.split_first_chunk::<4>()?;
            payload
                .iter()
                .take(len)
                .zip(key.iter().cycle())
                .map(|(byte, key)| byte ^ key)
                .collect()
        }
    };
    let said = text(&payload).map_or(String::new(), |text| format!(": {text}"));
    Some(format!("WebSocket {opcode}{said}"))
}

/// The first line of a text, without what would disturb a terminal.
fn text(bytes: &[u8]) -> Option<String> {
    if let [22, 3, _, _, _, 1, ..] = bytes {
        return Some("ClientHello".into());
    }
    let line = bytes.split(|byte| matches!(byte, b'\r' | b'\n')).next()?;
    let line = str::from_utf8(line).ok()?;
    let is_readable = !line.is_empty() && !line.contains(char::is_control);
    is_readable.then(|| line.chars().take(TEXT_CHARS_MAX).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_in_words() {
        let check = |bytes: &[u8], expected: &str| assert_eq!(what(bytes), expected, "{bytes:02x?}");
        check(b"", "0 bytes");
        check(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "GET / HTTP/1.1 (27 bytes)");
        check(b"\x1b[2Jclear", "9 bytes");
        check(b"\x00\x03\x00\x00\x21\x12\xa4\x42", "Allocate request (8 bytes)");
        check(b"\x01\x13\x00\x00\x21\x12\xa4\x42", "Allocate error (8 bytes)");
        check(b"\x01\x09\x00\x00\x21\x12\xa4\x42", "ChannelBind success (8 bytes)");
        check(b"\x00\x16\x00\x00\x21\x12\xa4\x42", "Send indication (8 bytes)");
        check(b"\x40\x01\x00\x00", "ChannelData 0x4001 (4 bytes)");
        check(b"\x81\x02hi", "WebSocket text: hi (4 bytes)");
        check(b"\x81\x82\x01\x01\x01\x01ih", "WebSocket text: hi (8 bytes)");
        check(b"\x16\x03\x01\x02\x00\x01\x00", "ClientHello (7 bytes)");
    }

    #[test]
    fn what_tls_would_have_encrypted_is_shown() {
        let check = |bytes: &[u8], expected: &str| assert_eq!(written(bytes), expected, "{bytes:02x?}");
        check(b"HTTP/1.1 200 OK\r\n", "HTTP/1.1 200 OK (17 bytes)");
        check(&[0; 900], "what TLS has to say (900 bytes)");
        check(b"\x00\x00\x17\x03\x03\x00\x02OK\0\0\0", "OK (2 bytes)");
        check(b"\x17\x03\x03\x00\x01O\0\0\x17\x03\x03\x00\x01K\0\0", "OK (2 bytes)");
        check(b"\x15\x03\x03\x00\x02\0\0\0\0\0", "the goodbye of TLS");
    }
}
