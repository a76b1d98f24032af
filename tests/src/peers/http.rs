//! Where does an HTTP/1.1 message end? For peers that must see exactly what came (RFC 9112 section 6).

use std::{
    io::{self, ErrorKind},
    time::Instant,
};

use crate::peers::stream::Stream;

/// A request or a response.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Message {
    /// The request or status line.
    pub start: String,
    /// Names in lower case, and values, in the order they came.
    pub fields: Vec<(String, String)>,
    /// The body, without chunks.
    pub body: Vec<u8>,
}

/// What delimits a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// Content-Length, or no body at all.
    Length(usize),
    /// Chunks.
    Chunked,
    /// The end of the connection.
    ToEnd,
}

/// Reads messages from a stream, and keeps what came too early.
#[derive(Debug, Default)]
pub struct Reader {
    rest: Vec<u8>,
}

impl Message {
    /// The value of the first field of this name, which is given in lower case.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.all(name).next()
    }

    /// The values of all fields of this name, which is given in lower case.
    pub fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.fields
            .iter()
            .filter(move |(other, _)| other == name)
            .map(|(_, value)| value.as_str())
    }

    /// The method of a request.
    pub fn method(&self) -> &str {
        self.start.split(' ').next().unwrap_or_default()
    }

    /// The target of a request.
    pub fn target(&self) -> &str {
        self.start.split(' ').nth(1).unwrap_or_default()
    }

    /// The status of a response.
    pub fn status(&self) -> Option<u16> {
        self.start.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    fn framing(&self) -> Option<Framing> {
        if let Some(coding) = self.field("transfer-encoding") {
            return (coding == "chunked").then_some(Framing::Chunked);
        }
        let length = self.field("content-length").map(str::parse);
        length.map(|length| length.ok().map(Framing::Length))?
    }
}

impl Reader {
    /// Reads a request; nothing when the connection ends before its first byte.
    ///
    /// # Errors
    /// When the connection ends within, or time is over.
    pub fn request(&mut self, stream: &mut Stream, deadline: Instant) -> io::Result<Option<Message>> {
        let Some(mut message) = self.head(stream, deadline)? else {
            return Ok(None);
        };
        self.body(&mut message, stream, deadline)?;
        Ok(Some(message))
    }

    /// Reads the body of a request whose head was read.
    ///
    /// # Errors
    /// When the connection ends within, or time is over.
    pub fn body(&mut self, request: &mut Message, stream: &mut Stream, deadline: Instant) -> io::Result<()> {
        let framing = request.framing().unwrap_or(Framing::Length(0));
        request.body = self.framed(framing, stream, deadline)?;
        Ok(())
    }

    /// Reads the final response to a request with this method; interim ones are passed over, but for 101.
    ///
    /// # Errors
    /// When the connection ends within, or time is over.
    pub fn response(&mut self, method: &str, stream: &mut Stream, deadline: Instant) -> io::Result<Message> {
        loop {
            let head = self.head(stream, deadline)?;
            let mut message = head.ok_or(ErrorKind::UnexpectedEof)?;
            let status = message.status().ok_or(ErrorKind::InvalidData)?;
            if (100..200).contains(&status) && status != 101 {
                continue;
            }
            // RFC 9112 section 6.3.
            let framing = match status {
                101 | 204 | 304 => Framing::Length(0),
                _ if method == "HEAD" => Framing::Length(0),
                _ => message.framing().unwrap_or(Framing::ToEnd),
            };
            message.body = self.framed(framing, stream, deadline)?;
            return Ok(message);
        }
    }

    /// Reads a head; nothing when the connection ends before its first byte.
    ///
    /// # Errors
    /// When the connection ends within, or time is over.
    pub fn head(&mut self, stream: &mut Stream, deadline: Instant) -> io::Result<Option<Message>> {
        let mut message = Message::default();
        let Some(start) = self.line(stream, deadline)? else {
            return Ok(None);
        };
        message.start = start;
        loop {
            let line = self.line(stream, deadline)?.ok_or(ErrorKind::UnexpectedEof)?;
            if line.is_empty() {
                return Ok(Some(message));
            }
            let (name, value) = line.split_once(':').ok_or(ErrorKind::InvalidData)?;
            message
                .fields
                .push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
    }

    /// What came behind the last message.
    pub fn rest(&self) -> &[u8] {
        &self.rest
    }

    fn framed(&mut self, framing: Framing, stream: &mut Stream, deadline: Instant) -> io::Result<Vec<u8>> {
        match framing {
            Framing::Length(length) => self.exactly(length, stream, deadline),
            Framing::Chunked => {
                let mut body = Vec::new();
                loop {
                    let line = self.line(stream, deadline)?.ok_or(ErrorKind::UnexpectedEof)?;
                    let size = line.split(';').next().unwrap_or_default().trim();
                    let size = usize::from_str_radix(size, 16).map_err(|_| ErrorKind::InvalidData)?;
                    if size == 0 {
                        while !self.line(stream, deadline)?.ok_or(ErrorKind::UnexpectedEof)?.is_empty() {}
                        return Ok(body);
                    }
                    body.extend(self.exactly(size, stream, deadline)?);
                    if self.line(stream, deadline)?.as_deref() != Some("") {
                        return Err(ErrorKind::InvalidData.into());
                    }
                }
            }
            Framing::ToEnd => {
                while self.fill(stream, deadline)? {}
                Ok(std::mem::take(&mut self.rest))
            }
        }
    }

    fn exactly(&mut self, length: usize, stream: &mut Stream, deadline: Instant) -> io::Result<Vec<u8>> {
        while self.rest.len() < length {
            if !self.fill(stream, deadline)? {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(self.rest.drain(..length).collect())
    }

    /// A line without its CRLF; nothing when the connection ends before its first byte.
    fn line(&mut self, stream: &mut Stream, deadline: Instant) -> io::Result<Option<String>> {
        loop {
            if let Some(end) = self.rest.windows(2).position(|pair| pair == b"\r\n") {
                let line: Vec<u8> = self.rest.drain(..end + 2).collect();
                return Ok(Some(String::from_utf8_lossy(&line[..end]).into_owned()));
            }
            if !self.fill(stream, deadline)? {
                return match self.rest.is_empty() {
                    true => Ok(None),
                    false => Err(ErrorKind::UnexpectedEof.into()),
                };
            }
        }
    }

    /// Reads more; `false` is the end.
    fn fill(&mut self, stream: &mut Stream, deadline: Instant) -> io::Result<bool> {
        let mut buffer = [0; 65_536];
        let read = stream.read_until(deadline, &mut buffer)?;
        self.rest.extend_from_slice(&buffer[..read]);
        Ok(read > 0)
    }
}

/// Bytes that a mistake in their order or number would show in: a counter in each group of four.
pub fn pattern(length: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(length + 3);
    // By groups, since bodies of many millions are made while somebody waits, perhaps by a build without optimization.
    for group in (0u32..).take(length.div_ceil(4)) {
        bytes.extend_from_slice(&group.to_be_bytes());
    }
    bytes.truncate(length);
    bytes
}
