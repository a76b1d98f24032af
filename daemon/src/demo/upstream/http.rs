//! What does a request of HTTP/1.1 ask, and how is it answered? As much as a server of small things needs.

use std::{io, time::Duration};

use bytes::{Buf as _, BytesMut};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

/// Largest head of a request.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Largest body: nothing here is more than a few names.
const BODY_BYTES_MAX: usize = 64 * 1024;
/// Between two requests, and for each to arrive.
const IDLE: Duration = Duration::from_secs(75);

/// A request, complete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) method: String,
    pub(super) path: String,
    query: String,
    headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
    keep_alive: bool,
}

/// An answer, complete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Response {
    pub(super) status: u16,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
}

/// One connection, its requests one after the other.
#[derive(Debug)]
pub(super) struct Connection {
    stream: TcpStream,
    buffer: BytesMut,
}

impl Connection {
    pub(super) fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            buffer: BytesMut::new(),
        }
    }

    /// The next request; nothing when the client has no more. What cannot be read is an answer to give before closing.
    pub(super) async fn request(&mut self) -> io::Result<Option<Result<Request, Response>>> {
        let request = timeout(IDLE, async {
            loop {
                match Request::parse(&mut self.buffer) {
                    Ok(Some(request)) => return Ok(Some(Ok(request))),
                    Ok(None) => {}
                    Err(status) => return Ok(Some(Err(Response::new(status)))),
                }
                if self.stream.read_buf(&mut self.buffer).await? == 0 {
                    return Ok(None);
                }
            }
        });
        request.await.unwrap_or(Ok(None))
    }

    /// Answers; whether the connection goes on.
    pub(super) async fn respond(&mut self, request: &Request, response: &Response) -> io::Result<bool> {
        let bytes = response.write(request.keep_alive, request.method == "HEAD");
        self.stream.write_all(&bytes).await?;
        Ok(request.keep_alive)
    }

    /// Answers what was no request, for the last time.
    pub(super) async fn refuse(&mut self, response: &Response) -> io::Result<()> {
        self.stream.write_all(&response.write(false, false)).await
    }

    /// Gives the stream to another protocol, with what was read of it already.
    pub(super) async fn upgrade(mut self, response: &Response) -> io::Result<(TcpStream, BytesMut)> {
        self.stream.write_all(&response.write(true, false)).await?;
        Ok((self.stream, self.buffer))
    }
}

impl Request {
    /// Takes a request off the buffer once it is there in full; otherwise the status to refuse with.
    fn parse(buffer: &mut BytesMut) -> Result<Option<Self>, u16> {
        let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") else {
            return if buffer.len() > HEAD_BYTES_MAX {
                Err(431)
            } else {
                Ok(None)
            };
        };
        let head = str::from_utf8(&buffer[..end]).map_err(|_| 400_u16)?;
        let mut request = Self::head(head).ok_or(400_u16)?;
        // RFC 9112 section 6.3: without a length nobody knows where the next request begins.
        if request.header("transfer-encoding").is_some() {
            return Err(411);
        }
        let length = match request.header("content-length") {
            Some(length) => length.parse().map_err(|_| 400_u16)?,
            None => 0,
        };
        if length > BODY_BYTES_MAX {
            return Err(413);
        }
        let Some(body) = buffer.get(end + 4..end + 4 + length) else {
            return Ok(None);
        };
        request.body = body.to_vec();
        buffer.advance(end + 4 + length);
        Ok(Some(request))
    }

    fn head(head: &str) -> Option<Self> {
        let (line, fields) = head.split_once("\r\n").unwrap_or((head, ""));
        let mut words = line.split(' ');
        let (method, target, version) = (words.next()?, words.next()?, words.next()?);
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        if !path.starts_with('/') || words.next().is_some() {
            return None;
        }
        let fields = fields.split("\r\n").filter(|line| !line.is_empty());
        let headers = fields.map(|line| {
            let (name, value) = line.split_once(':')?;
            Some((name.to_ascii_lowercase(), value.trim().to_owned()))
        });
        let mut request = Self {
            method: method.into(),
            path: path.into(),
            query: query.into(),
            headers: headers.collect::<Option<_>>()?,
            body: Vec::new(),
            keep_alive: false,
        };
        // RFC 9112 section 9.3.
        request.keep_alive = match version {
            "HTTP/1.1" => !request.lists("connection", "close"),
            "HTTP/1.0" => request.lists("connection", "keep-alive"),
            _ => return None,
        };
        Some(request)
    }

    /// The first field of this name, given in lower case.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        let (_, value) = self.headers.iter().find(|(n, _)| n == name)?;
        Some(value)
    }

    /// Whether one of the fields of this name has this item in its list.
    pub(super) fn lists(&self, name: &str, item: &str) -> bool {
        let fields = self.headers.iter().filter(|(n, _)| n == name);
        let mut items = fields.flat_map(|(_, value)| value.split(','));
        items.any(|other| other.trim().eq_ignore_ascii_case(item))
    }

    /// A parameter of the query. Values here need no escapes.
    pub(super) fn parameter(&self, name: &str) -> Option<&str> {
        let mut parameters = self.query.split('&').filter_map(|parameter| parameter.split_once('='));
        parameters.find_map(|(key, value)| (key == name).then_some(value))
    }
}

impl Response {
    pub(super) fn new(status: u16) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: Vec::new(),
        }
    }

    pub(super) fn json(value: &Value) -> Self {
        Self::new(200).with_body("application/json", value.to_string())
    }

    pub(super) fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub(super) fn with_body(mut self, kind: &str, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self.with("Content-Type", kind)
    }

    fn write(&self, keep_alive: bool, head_only: bool) -> Vec<u8> {
        let Self { status, headers, body } = self;
        let mut text = format!("HTTP/1.1 {status} {}\r\n", reason(*status));
        for (name, value) in headers {
            text += &format!("{name}: {value}\r\n");
        }
        // RFC 9110 section 8.6: no length in a response that has no content by its nature.
        if *status >= 200 {
            text += &format!("Content-Length: {}\r\n", body.len());
        }
        if !keep_alive {
            text += "Connection: close\r\n";
        }
        text += "\r\n";
        let mut bytes = text.into_bytes();
        if !head_only {
            bytes.extend_from_slice(body);
        }
        bytes
    }
}

fn reason(status: u16) -> &'static str {
    match status {
        101 => "Switching Protocols",
        200 => "OK",
        302 => "Found",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        411 => "Length Required",
        413 => "Content Too Large",
        431 => "Request Header Fields Too Large",
        _ => "Answer",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> (Result<Option<Request>, u16>, String) {
        let mut buffer = BytesMut::from(text);
        let result = Request::parse(&mut buffer);
        (result, String::from_utf8(buffer.to_vec()).expect("what was put in"))
    }

    #[test]
    fn requests_are_taken_off_one_by_one() {
        let text =
            "POST /login?a=1&token=x.y.z HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}GET / HTTP/1.1\r\n\r\n";
        let (result, rest) = parse(text);
        let request = result.expect("well formed").expect("complete");
        assert_eq!((request.method.as_str(), request.path.as_str()), ("POST", "/login"));
        assert_eq!(
            (request.header("host"), request.parameter("token")),
            (Some("a"), Some("x.y.z"))
        );
        assert_eq!((request.body.as_slice(), request.keep_alive), (b"{}".as_slice(), true));
        assert_eq!(rest, "GET / HTTP/1.1\r\n\r\n");
        for end in 0..text.find("GET").expect("there") {
            assert_eq!(parse(&text[..end]).0, Ok(None), "{end}");
        }
    }

    #[test]
    fn what_is_no_request_is_refused() {
        let check = |text: &str, status: u16| assert_eq!(parse(text).0, Err(status), "{text}");
        check("GET /\r\n\r\n", 400);
        check("GET / HTTP/2.0\r\n\r\n", 400);
        check("GET / / HTTP/1.1\r\n\r\n", 400);
        check("GET http://x/ HTTP/1.1\r\n\r\n", 400);
        check("GET / HTTP/1.1\r\nnothing\r\n\r\n", 400);
        check("POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400);
        check("POST / HTTP/1.1\r\nContent-Length: 65537\r\n\r\n", 413);
        check("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", 411);
        check(&format!("GET /{} HTTP/1.1", "x".repeat(HEAD_BYTES_MAX)), 431);
    }

    #[test]
    fn connections_go_on_as_the_version_says() {
        let check = |text: &str, expected: bool| {
            let request = parse(&format!("{text}\r\n\r\n"))
                .0
                .expect("well formed")
                .expect("complete");
            assert_eq!(request.keep_alive, expected, "{text}");
        };
        check("GET / HTTP/1.1", true);
        check("GET / HTTP/1.1\r\nConnection: foo, Close", false);
        check("GET / HTTP/1.0", false);
        check("GET / HTTP/1.0\r\nConnection: keep-alive", true);
    }

    #[test]
    fn responses_have_a_length_unless_they_cannot() {
        let text = |response: &Response, keep_alive, head_only| {
            String::from_utf8(response.write(keep_alive, head_only)).expect("text")
        };
        let page = Response::new(200).with_body("text/plain", "hi");
        let head = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n";
        assert_eq!(text(&page, true, false), format!("{head}\r\nhi"));
        assert_eq!(text(&page, false, true), format!("{head}Connection: close\r\n\r\n"));
        let upgrade = Response::new(101).with("Upgrade", "websocket");
        let expected = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n";
        assert_eq!(text(&upgrade, true, false), expected);
    }
}
