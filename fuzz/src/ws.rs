//! Do the frames of a WebSocket mean the same to us, in whatever pieces they come, as to others?

use std::io::{self, Read, Write};

use edgeward_core::ws;
use tungstenite::protocol::{Role, WebSocket, WebSocketConfig};

use crate::split;

const MESSAGE_BYTES_MAX: usize = 4096;
const MASK_BYTES: usize = 4;

/// What is understood of a stream of frames.
#[derive(Debug, PartialEq, Eq)]
enum Event {
    Text(Vec<u8>),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<u16>),
    /// The other side broke the protocol.
    Violation,
}

/// Frames from a client, whole and in pieces, and as tungstenite understands them.
///
/// Known differences are three, where it comes to a violation: what counts as a Close, when it is told, and that we refuse
/// a length in more bytes than it needs (RFC 6455 section 5.2: "the minimal number of bytes MUST be used"). A fourth is
/// none: 1014 is a code that the registry of section 11.7 has got since, and tungstenite does not know.
pub fn frames(bytes: &[u8]) {
    let (pattern, stream) = split::pattern(bytes);
    let whole = ours(std::iter::once(stream));
    assert_eq!(
        whole,
        ours(split::pieces(stream, pattern)),
        "the pieces changed the meaning"
    );
    let mut theirs = theirs(stream);
    if has_padded_length(stream)
        && let Some((Event::Violation, before)) = whole.split_last()
    {
        // What came before is understood alike; from there on they go on.
        assert!(theirs.starts_with(before), "{theirs:?} {before:?}");
        return;
    }
    if let (Some(Event::Close(Some(1014))), Some(last @ Event::Close(Some(1002)))) = (whole.last(), theirs.last_mut()) {
        *last = Event::Close(Some(1014));
    }
    if whole.last() == Some(&Event::Violation) {
        if let Some(last @ Event::Close(Some(1002))) = theirs.last_mut() {
            // A Close frame with a code that nobody may send: tungstenite reads it as a Close with this one.
            *last = Event::Violation;
        } else if theirs.len() + 1 == whole.len() {
            // We refuse as soon as it is sure, tungstenite when the frame is whole: it has nothing to say yet.
            theirs.push(Event::Violation);
        }
    }
    assert_eq!(whole, theirs);
}

/// Whether a header says a length in more bytes than it needs.
fn has_padded_length(mut stream: &[u8]) -> bool {
    while let [_, len, rest @ ..] = stream {
        let (len, least, rest) = match (len & 0x7f, rest) {
            (126, [a, b, rest @ ..]) => (u64::from(u16::from_be_bytes([*a, *b])), 126, rest),
            (127, rest) => match rest.split_first_chunk() {
                Some((len, rest)) => (u64::from_be_bytes(*len), 0x1_0000, rest),
                None => return false,
            },
            (126, _) => return false,
            (len, rest) => (u64::from(len), 0, rest),
        };
        if len < least {
            return true;
        }
        let payload = rest.split_at_checked(MASK_BYTES).map(|(_, payload)| payload);
        match (payload, usize::try_from(len)) {
            (Some(payload), Ok(len)) if len <= payload.len() => stream = &payload[len..],
            _ => return false,
        }
    }
    false
}

fn ours<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Vec<Event> {
    let mut conn = ws::Conn::new(MESSAGE_BYTES_MAX);
    let (mut input, mut events) = (Vec::new(), Vec::new());
    for piece in pieces {
        input.extend_from_slice(piece);
        loop {
            let (event, len) = match conn.next(&mut input) {
                Ok(Some((item, len))) => (event(item), len),
                Ok(None) => break,
                Err(_) => {
                    events.push(Event::Violation);
                    return events;
                }
            };
            events.extend(event);
            input.drain(..len);
        }
    }
    events
}

fn event(item: ws::Item<'_>) -> Option<Event> {
    Some(match item {
        ws::Item::Message {
            kind: ws::Kind::Text,
            payload,
        } => {
            assert!(std::str::from_utf8(&payload).is_ok(), "text is UTF-8");
            Event::Text(payload.to_vec())
        }
        ws::Item::Message {
            kind: ws::Kind::Binary,
            payload,
        } => Event::Binary(payload.to_vec()),
        ws::Item::Fragment => return None,
        ws::Item::Ping(payload) => Event::Ping(payload.to_vec()),
        ws::Item::Pong(payload) => Event::Pong(payload.to_vec()),
        ws::Item::Close(code) => Event::Close(code),
    })
}

/// The same by tungstenite.
fn theirs(bytes: &[u8]) -> Vec<Event> {
    let config = WebSocketConfig::default()
        .max_message_size(Some(MESSAGE_BYTES_MAX))
        .max_frame_size(Some(MESSAGE_BYTES_MAX));
    let mut socket = WebSocket::from_raw_socket(Wire { input: bytes }, Role::Server, Some(config));
    let mut events = Vec::new();
    loop {
        match socket.read() {
            Ok(tungstenite::Message::Text(text)) => events.push(Event::Text(text.as_bytes().to_vec())),
            Ok(tungstenite::Message::Binary(data)) => events.push(Event::Binary(data.to_vec())),
            Ok(tungstenite::Message::Ping(data)) => events.push(Event::Ping(data.to_vec())),
            Ok(tungstenite::Message::Pong(data)) => events.push(Event::Pong(data.to_vec())),
            Ok(tungstenite::Message::Close(frame)) => {
                events.push(Event::Close(frame.map(|frame| frame.code.into())));
                return events;
            }
            Ok(tungstenite::Message::Frame(_)) => unreachable!("only written, never read"),
            Err(tungstenite::Error::Io(_)) => return events,
            Err(_) => {
                events.push(Event::Violation);
                return events;
            }
        }
    }
}

/// Bytes to read and a place for answers that nobody wants.
struct Wire<'a> {
    input: &'a [u8],
}

impl Read for Wire<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.input.read(buffer)? {
            0 => Err(io::ErrorKind::WouldBlock.into()),
            len => Ok(len),
        }
    }
}

impl Write for Wire<'_> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        Ok(buffer.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
