//! How are messages told apart on a WebSocket? The server's half of RFC 6455, for short texts.

use std::io;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::{Buf as _, BytesMut};
use sha1::{Digest as _, Sha1};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::http::{Request, Response};

/// Longest message taken.
const MESSAGE_BYTES_MAX: usize = 64 * 1024;
/// RFC 6455 section 7.4.1.
const NORMAL_CLOSURE: u16 = 1000;

/// An open WebSocket.
#[derive(Debug)]
pub(super) struct WebSocket {
    stream: TcpStream,
    buffer: BytesMut,
    /// Fragments of a message that has not ended.
    message: Vec<u8>,
}

/// What the other side sends.
#[derive(Debug)]
pub(super) enum Received {
    Text(String),
    /// To be answered by a pong.
    Ping(Vec<u8>),
    /// It sends no more.
    Close,
}

/// What a frame is (RFC 6455 section 5.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Opcode {
    Continuation = 0,
    Text = 1,
    Binary = 2,
    Close = 8,
    Ping = 9,
    Pong = 10,
}

/// The response that opens a WebSocket (RFC 6455 section 4.2.2); nothing when the request does not ask for one.
pub(super) fn accept(request: &Request) -> Option<Response> {
    let asks = request.lists("upgrade", "websocket") && request.lists("connection", "upgrade");
    let key = request.header("sec-websocket-key")?;
    if !asks || request.header("sec-websocket-version") != Some("13") {
        return None;
    }
    let accept = BASE64_STANDARD.encode(Sha1::digest(format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11")));
    let response = Response::new(101)
        .with("Upgrade", "websocket")
        .with("Connection", "Upgrade");
    Some(response.with("Sec-WebSocket-Accept", accept))
}

impl WebSocket {
    pub(super) fn new(stream: TcpStream, buffer: BytesMut) -> Self {
        Self {
            stream,
            buffer,
            message: Vec::new(),
        }
    }

    /// What comes next. It may be dropped while it waits, and called again.
    pub(super) async fn receive(&mut self) -> io::Result<Received> {
        loop {
            let Some((last, opcode, payload)) = frame(&mut self.buffer)? else {
                if self.stream.read_buf(&mut self.buffer).await? == 0 {
                    return Ok(Received::Close);
                }
                continue;
            };
            match opcode {
                Opcode::Ping => return Ok(Received::Ping(payload)),
                Opcode::Pong => {}
                Opcode::Close => return Ok(Received::Close),
                Opcode::Text | Opcode::Binary | Opcode::Continuation => {
                    if self.message.len() + payload.len() > MESSAGE_BYTES_MAX {
                        return Err(io::ErrorKind::InvalidData.into());
                    }
                    self.message.extend_from_slice(&payload);
                    if last {
                        let text = String::from_utf8(std::mem::take(&mut self.message));
                        return text.map(Received::Text).map_err(|_| io::ErrorKind::InvalidData.into());
                    }
                }
            }
        }
    }

    pub(super) async fn text(&mut self, text: &str) -> io::Result<()> {
        self.send(Opcode::Text, text.as_bytes()).await
    }

    pub(super) async fn ping(&mut self) -> io::Result<()> {
        self.send(Opcode::Ping, b"").await
    }

    pub(super) async fn pong(&mut self, payload: &[u8]) -> io::Result<()> {
        self.send(Opcode::Pong, payload).await
    }

    /// Answers a close by a close (RFC 6455 section 5.5.1).
    pub(super) async fn close(&mut self) -> io::Result<()> {
        self.send(Opcode::Close, &NORMAL_CLOSURE.to_be_bytes()).await
    }

    async fn send(&mut self, opcode: Opcode, payload: &[u8]) -> io::Result<()> {
        self.stream.write_all(&write(opcode, payload)).await
    }
}

/// Takes a frame off the buffer once it is there in full: whether it is the last of its message, its kind and payload.
fn frame(buffer: &mut BytesMut) -> io::Result<Option<(bool, Opcode, Vec<u8>)>> {
    let &[first, second, ..] = buffer.as_ref() else {
        return Ok(None);
    };
    let opcode = match first & 0x7f {
        0 => Opcode::Continuation,
        1 => Opcode::Text,
        2 => Opcode::Binary,
        8 => Opcode::Close,
        9 => Opcode::Ping,
        10 => Opcode::Pong,
        // Reserved bits, or a kind that does not exist.
        _ => return Err(io::ErrorKind::InvalidData.into()),
    };
    // RFC 6455 section 5.1: what a client sends is masked.
    if second & 0x80 == 0 {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let (length, start) = match (second & 0x7f, &buffer[2..]) {
        (126, [high, low, ..]) => (usize::from(u16::from_be_bytes([*high, *low])), 4),
        (126, _) => return Ok(None),
        (127, _) => return Err(io::ErrorKind::InvalidData.into()),
        (length, _) => (usize::from(length), 2),
    };
    let Some(bytes) = buffer.get(start..start + 4 + length) else {
        return Ok(None);
    };
    let (mask, masked) = bytes.split_at(4);
    let payload = masked
        .iter()
        .zip(mask.iter().cycle())
        .map(|(byte, mask)| byte ^ mask)
        .collect();
    buffer.advance(start + 4 + length);
    Ok(Some((first & 0x80 != 0, opcode, payload)))
}

fn write(opcode: Opcode, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x80 | opcode as u8];
    match u16::try_from(payload.len()) {
        Ok(length @ 0..126) => frame.push(length.to_be_bytes()[1]),
        Ok(length) => {
            frame.push(126);
            frame.extend_from_slice(&length.to_be_bytes());
        }
        Err(_) => {
            frame.push(127);
            frame.extend_from_slice(&(payload.len() as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(payload);
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_of_rfc_6455() {
        // RFC 6455 section 5.7: a masked "Hello", and the same in two fragments of a server.
        let mut buffer = BytesMut::from([0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58].as_slice());
        let whole = buffer.clone();
        for end in 0..whole.len() {
            assert_eq!(frame(&mut BytesMut::from(&whole[..end])).expect("incomplete"), None);
        }
        assert_eq!(
            frame(&mut buffer).expect("a frame"),
            Some((true, Opcode::Text, b"Hello".to_vec()))
        );
        assert!(buffer.is_empty());
        assert_eq!(
            write(Opcode::Text, b"Hello"),
            [0x81, 0x05, 0x48, 0x65, 0x6c, 0x6c, 0x6f]
        );
        assert_eq!(write(Opcode::Binary, &[0; 256])[..4], [0x82, 0x7e, 0x01, 0x00]);
        assert_eq!(
            write(Opcode::Binary, &[0; 65536])[..10],
            [0x82, 0x7f, 0, 0, 0, 0, 0, 1, 0, 0]
        );
    }

    #[test]
    fn what_is_no_frame_is_refused() {
        for bad in [[0x81, 0x05], [0xc1, 0x85], [0x83, 0x85], [0x81, 0xff]] {
            assert!(frame(&mut BytesMut::from(bad.as_slice())).is_err(), "{bad:x?}");
        }
    }
}
