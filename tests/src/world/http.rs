//! What does an HTTP/1.1 message say, as its bytes come? For both sides, strict where the edge has to be exact.

/// One side's view of what comes by a connection.
#[derive(Debug, Default)]
pub struct Reader {
    bytes: Vec<u8>,
    head: Option<Head>,
    body: Vec<u8>,
    /// What is left of a chunk, the line break behind it included.
    chunk: Option<usize>,
}

/// What stands before the body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// The request line or the status line.
    pub start: String,
    /// Names in lower case, and values.
    pub fields: Vec<(String, String)>,
}

/// How the body ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Framing {
    Length(usize),
    Chunked,
    UntilEnd,
}

/// A whole message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Its head.
    pub head: Head,
    /// Its body, without framing.
    pub body: Vec<u8>,
}

/// Bytes that are no HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Broken;

impl Head {
    /// The value of the first field of this name.
    pub fn field(&self, name: &str) -> Option<&str> {
        let (_, value) = self.fields.iter().find(|(other, _)| other == name)?;
        Some(value)
    }

    /// The status of a response.
    pub fn status(&self) -> Option<u16> {
        self.start.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()
    }

    /// Method and target of a request.
    pub fn request(&self) -> Option<(&str, &str)> {
        let mut words = self.start.split(' ');
        Some((words.next()?, words.next()?))
    }

    fn framing(&self) -> Result<Framing, Broken> {
        if self.field("transfer-encoding").is_some_and(|value| value == "chunked") {
            return Ok(Framing::Chunked);
        }
        if let Some(length) = self.field("content-length") {
            return length.parse().map(Framing::Length).map_err(|_| Broken);
        }
        match self.status() {
            None | Some(100..=199 | 204 | 304) => Ok(Framing::Length(0)),
            Some(_) => Ok(Framing::UntilEnd),
        }
    }
}

impl Reader {
    /// More has come.
    pub fn add(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Whether a message has begun that is not whole.
    pub fn is_within(&self) -> bool {
        self.head.is_some() || !self.bytes.is_empty()
    }

    /// The head of the message that comes.
    pub fn head(&self) -> Option<&Head> {
        self.head.as_ref()
    }

    /// What came behind the last message, for another protocol.
    pub fn take_rest(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.bytes)
    }

    /// The next message, as soon as it is whole. Answers to HEAD are never asked for.
    ///
    /// # Errors
    /// When this cannot become a message.
    pub fn message(&mut self) -> Result<Option<Message>, Broken> {
        if self.head.is_none() {
            let Some(end) = find(&self.bytes, b"\r\n\r\n") else {
                return Ok(None);
            };
            let text = std::str::from_utf8(&self.bytes[..end]).map_err(|_| Broken)?;
            self.head = Some(head(text)?);
            self.bytes.drain(..end + 4);
        }
        let framing = self.head.as_ref().expect("read above").framing()?;
        let is_whole = match framing {
            Framing::Length(length) => {
                let wanted = (length - self.body.len()).min(self.bytes.len());
                self.body.extend(self.bytes.drain(..wanted));
                self.body.len() == length
            }
            Framing::Chunked => self.chunks()?,
            Framing::UntilEnd => {
                self.body.append(&mut self.bytes);
                false
            }
        };
        Ok(is_whole.then(|| self.take()))
    }

    /// The sender has ended: the message that only ends so.
    ///
    /// # Errors
    /// When a message was not whole.
    pub fn end(&mut self) -> Result<Option<Message>, Broken> {
        let Some(head) = &self.head else {
            return match self.bytes.is_empty() {
                true => Ok(None),
                false => Err(Broken),
            };
        };
        match head.framing()? {
            Framing::UntilEnd => Ok(Some(self.take())),
            _ => Err(Broken),
        }
    }

    fn take(&mut self) -> Message {
        self.chunk = None;
        Message {
            head: self.head.take().expect("a message with a head"),
            body: std::mem::take(&mut self.body),
        }
    }

    /// Takes chunks off the front; tells whether the last one was among them. Trailers are not expected.
    fn chunks(&mut self) -> Result<bool, Broken> {
        loop {
            if let Some(left) = self.chunk {
                let (data, end) = (left - 2, left);
                if self.bytes.len() < end {
                    return Ok(false);
                }
                if &self.bytes[data..end] != b"\r\n" {
                    return Err(Broken);
                }
                self.body.extend_from_slice(&self.bytes[..data]);
                self.bytes.drain(..end);
                self.chunk = None;
                if data == 0 {
                    return Ok(true);
                }
            }
            let Some(end) = find(&self.bytes, b"\r\n") else {
                return Ok(false);
            };
            let text = std::str::from_utf8(&self.bytes[..end]).map_err(|_| Broken)?;
            let size = usize::from_str_radix(text.split(';').next().unwrap_or_default().trim(), 16);
            self.chunk = Some(size.map_err(|_| Broken)? + 2);
            self.bytes.drain(..end + 2);
        }
    }
}

/// A body in chunks of this size.
pub fn chunked(body: &[u8], size: usize) -> Vec<u8> {
    let mut out = Vec::new();
    for chunk in body.chunks(size.max(1)) {
        out.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        out.extend_from_slice(chunk);
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"0\r\n\r\n");
    out
}

fn head(text: &str) -> Result<Head, Broken> {
    let mut lines = text.split("\r\n");
    let start = lines.next().ok_or(Broken)?.to_owned();
    let fields = lines.map(|line| {
        let (name, value) = line.split_once(':').ok_or(Broken)?;
        Ok((name.to_ascii_lowercase(), value.trim().to_owned()))
    });
    Ok(Head {
        start,
        fields: fields.collect::<Result<_, _>>()?,
    })
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_read_whatever_the_pieces() {
        let text = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n\
                     HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi";
        for piece in 1..text.len() {
            let (mut reader, mut bodies) = (Reader::default(), Vec::new());
            for bytes in text.chunks(piece) {
                reader.add(bytes);
                while let Some(message) = reader.message().expect("HTTP") {
                    bodies.push(message.body);
                }
            }
            assert_eq!(bodies, [b"hello".to_vec(), b"hi".to_vec()]);
            assert_eq!(reader.end(), Ok(None));
        }
    }

    #[test]
    fn a_message_that_is_not_whole_is_no_message() {
        let mut reader = Reader::default();
        reader.add(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel");
        assert_eq!((reader.message(), reader.end()), (Ok(None), Err(Broken)));
        let mut reader = Reader::default();
        reader.add(b"HTTP/1.1 200 OK\r\n\r\nhel");
        assert_eq!(reader.message(), Ok(None));
        let message = reader.end().expect("HTTP").expect("a message");
        assert_eq!(message.body, b"hel");
        assert_eq!(chunked(b"abc", 2), b"2\r\nab\r\n1\r\nc\r\n0\r\n\r\n");
    }
}
