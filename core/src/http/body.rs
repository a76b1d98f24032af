//! Where does a message body end? Its length as the head gives it, a reader that takes it off the bytes of a
//! connection, and a writer that frames it anew.

use bytes::BytesMut;

use super::write;
use crate::wire::{
    chunked::{self, ChunkError},
    http1,
};

/// Bytes of chunk extensions in one body.
const EXTENSIONS_BYTES_MAX: usize = 4096;

/// Limits of a trailer section, which is read and dropped.
const TRAILER_BYTES_MAX: usize = 4096;
const TRAILER_FIELDS_MAX: usize = 32;

/// How long a message body is (RFC 9112 section 6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyLength {
    /// There is no body.
    Empty,
    /// As many bytes as Content-Length says, perhaps 0.
    Known(u64),
    /// The chunked transfer coding says when it ends.
    Chunked,
    /// The connection's end is the body's end; only in responses.
    UntilClose,
}

impl BodyLength {
    /// Whether it is known that no byte will come.
    pub const fn is_empty(self) -> bool {
        matches!(self, Self::Empty | Self::Known(0))
    }
}

/// A part of a body as it comes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Part<'b> {
    /// Some bytes of it, at least one.
    Data(&'b [u8]),
    /// Nothing follows.
    End,
}

/// Takes a body off the bytes of a connection.
#[derive(Debug)]
pub(super) enum Reader {
    /// So many bytes are left.
    Length(u64),
    /// A chunked body.
    Chunked(Chunks),
    /// All bytes that come.
    UntilClose,
}

/// The state of the chunked transfer coding.
#[derive(Debug, Clone, Copy)]
pub(super) struct Chunks {
    expected: Expected,
    /// Bytes of extensions so far.
    extension_bytes: usize,
}

/// What comes next in a chunked body.
#[derive(Debug, Clone, Copy)]
enum Expected {
    Size,
    Data(u64),
    DataEnd,
    Trailer,
}

impl Reader {
    pub(super) const fn new(length: BodyLength) -> Self {
        match length {
            BodyLength::Empty => Self::Length(0),
            BodyLength::Known(bytes) => Self::Length(bytes),
            BodyLength::Chunked => Self::Chunked(Chunks {
                expected: Expected::Size,
                extension_bytes: 0,
            }),
            BodyLength::UntilClose => Self::UntilClose,
        }
    }

    /// The next part and how many bytes it took, those before it that only frame it included; `None` when more bytes
    /// are needed.
    pub(super) fn next<'b>(&mut self, bytes: &'b [u8]) -> Result<Option<(Part<'b>, usize)>, ChunkError> {
        match self {
            Self::Length(0) => Ok(Some((Part::End, 0))),
            Self::Length(left) => Ok(take(bytes, left).map(|data| (Part::Data(data), data.len()))),
            Self::Chunked(chunks) => chunks.next(bytes),
            Self::UntilClose if bytes.is_empty() => Ok(None),
            Self::UntilClose => Ok(Some((Part::Data(bytes), bytes.len()))),
        }
    }
}

impl Chunks {
    fn next<'b>(&mut self, bytes: &'b [u8]) -> Result<Option<(Part<'b>, usize)>, ChunkError> {
        // Framing is read again until a part follows it, so that every step taken has something to show.
        let mut next = *self;
        let mut at = 0;
        loop {
            let rest = &bytes[at..];
            match &mut next.expected {
                Expected::Size => {
                    let Some(line) = chunked::size_line(rest)? else {
                        return Ok(None);
                    };
                    at += line.len;
                    next.extension_bytes += line.extension_bytes;
                    if next.extension_bytes > EXTENSIONS_BYTES_MAX {
                        return Err(ChunkError::Extension);
                    }
                    next.expected = if line.size == 0 {
                        Expected::Trailer
                    } else {
                        Expected::Data(line.size)
                    };
                }
                Expected::Data(left) => {
                    let Some(data) = take(rest, left) else {
                        return Ok(None);
                    };
                    if *left == 0 {
                        next.expected = Expected::DataEnd;
                    }
                    *self = next;
                    return Ok(Some((Part::Data(data), at + data.len())));
                }
                Expected::DataEnd => match rest {
                    [b'\r', b'\n', ..] => {
                        at += 2;
                        next.expected = Expected::Size;
                    }
                    [] | [b'\r'] => return Ok(None),
                    _ => return Err(ChunkError::DataEnd),
                },
                Expected::Trailer => {
                    let limits = http1::Limits::new(0, TRAILER_BYTES_MAX, TRAILER_FIELDS_MAX);
                    // RFC 9110 section 6.5.1: trailer fields must not be merged into the head unless their definition
                    // allows it, and may be dropped.
                    let section = http1::trailer_section(rest, &limits).map_err(|_| ChunkError::Trailer)?;
                    return Ok(section.map(|(_, len)| (Part::End, at + len)));
                }
            }
        }
    }
}

/// As much of `left` bytes as there is; `None` when there is nothing.
fn take<'b>(bytes: &'b [u8], left: &mut u64) -> Option<&'b [u8]> {
    let len = usize::try_from(*left).map_or(bytes.len(), |left| left.min(bytes.len()));
    *left -= len as u64;
    (len > 0).then_some(&bytes[..len])
}

/// Frames a body for the other side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Writer {
    /// No body may follow, whatever is given.
    Nothing,
    /// So many bytes are promised and not yet written.
    Length(u64),
    /// In chunks.
    Chunked,
    /// Until the connection is closed.
    UntilClose,
}

impl Writer {
    /// Adds the field that announces the framing, if any.
    pub(super) fn announce(self, out: &mut BytesMut) {
        match self {
            Self::Length(bytes) => {
                out.extend_from_slice(b"Content-Length: ");
                write::decimal(out, bytes);
                out.extend_from_slice(b"\r\n");
            }
            Self::Chunked => out.extend_from_slice(b"Transfer-Encoding: chunked\r\n"),
            Self::Nothing | Self::UntilClose => {}
        }
    }

    /// Adds some of the body. What goes beyond the promised length is dropped: it would be read as another message.
    pub(super) fn data(&mut self, data: &[u8], out: &mut BytesMut) {
        match self {
            Self::Nothing => {}
            Self::Length(left) => {
                let len = usize::try_from(*left).map_or(data.len(), |left| left.min(data.len()));
                *left -= len as u64;
                out.extend_from_slice(&data[..len]);
            }
            // An empty chunk would be the last.
            Self::Chunked if data.is_empty() => {}
            Self::Chunked => {
                write::hexadecimal(out, data.len() as u64);
                out.extend_from_slice(b"\r\n");
                out.extend_from_slice(data);
                out.extend_from_slice(b"\r\n");
            }
            Self::UntilClose => out.extend_from_slice(data),
        }
    }

    /// Ends the body. Returns whether another message may follow on the connection.
    pub(super) fn end(self, out: &mut BytesMut) -> bool {
        match self {
            Self::Nothing => true,
            Self::Length(left) => left == 0,
            Self::Chunked => {
                out.extend_from_slice(b"0\r\n\r\n");
                true
            }
            Self::UntilClose => false,
        }
    }
}
