//! What does a browser ask, and what is it told? One HTTP/1.1 connection on the side that we serve.

use core::time::Duration;

use bytes::BytesMut;

use super::{
    answer::{Answer, reason},
    body::{BodyLength, Part, Reader, Writer},
    date::imf_fixdate,
    fields::{Connection, is_hop_by_hop},
    head_limits,
    request::{Method, Request},
    upgrade::Accept,
    write,
};
use crate::{
    config::HttpLimits,
    time::UnixTime,
    wire::http1::{self, HeadError, Name, ResponseHead, Version, find_lf},
};

/// The side of a connection that reads requests and writes responses.
///
/// Requests are taken strictly one after the other: [`Self::next`] gives nothing of the next request before the
/// response to the last one has ended. Once the connection is bound to close, whatever else the client sent is ignored.
#[derive(Debug)]
pub struct Server {
    limits: http1::Limits,
    input: Input,
    output: Output,
    /// Bytes of the body that may still come.
    body_bytes_left: u64,
    /// Of the request in progress.
    version: Version,
    is_head: bool,
    awaits_continue: bool,
    /// Whether the connection ends with this response.
    close: bool,
    /// Whether a response was given up of which the end of the connection would be the end.
    is_cut: bool,
    /// What Strict-Transport-Security says, in seconds (RFC 6797 section 6.1.1).
    hsts_secs: Option<u64>,
}

/// Where the bytes of the client stand.
#[derive(Debug)]
enum Input {
    /// Before or in a request head, of which so many bytes hold no line end.
    Head { searched: usize },
    /// In a body.
    Body(Reader),
    /// After a request.
    Ended,
    /// They are of no interest any more, or not HTTP.
    Ignored,
}

/// Where the bytes to the client stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Output {
    /// No request is open.
    Idle,
    /// A request waits for its response.
    Awaited,
    /// In the body of a response.
    Body(Writer),
    /// The response is complete, the request perhaps not.
    Ended,
    /// No longer HTTP.
    Tunnel,
}

/// What a client sends, in order: for each request its head, its body as it comes, its end.
#[derive(Debug)]
pub enum Item<'b> {
    /// The head of a request.
    Request(Request<'b>),
    /// Some of its body.
    Body(&'b [u8]),
    /// The request is complete.
    End,
}

/// Why a request is refused by the protocol itself. To be answered with [`Server::reject`]; the connection then closes,
/// since nobody knows where the next request would begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reject {
    /// The status code to answer.
    pub status: u16,
    /// What is wrong, for the log: a stable phrase.
    pub why: &'static str,
}

impl Reject {
    pub(super) const fn new(status: u16, why: &'static str) -> Self {
        Self { status, why }
    }
}

impl From<HeadError> for Reject {
    fn from(error: HeadError) -> Self {
        let status = match error {
            HeadError::LineTooLong => 414,
            // RFC 6585 section 5.
            HeadError::HeadTooLarge | HeadError::TooManyFields => 431,
            HeadError::Version => 505,
            HeadError::LineEnd
            | HeadError::RequestLine
            | HeadError::Target
            | HeadError::StatusLine
            | HeadError::Folding
            | HeadError::FieldName
            | HeadError::FieldValue => 400,
        };
        Self::new(status, error.as_str())
    }
}

impl Server {
    /// A connection on which nothing has come yet.
    pub fn new(limits: &HttpLimits) -> Self {
        Self {
            limits: head_limits(limits),
            input: Input::Head { searched: 0 },
            output: Output::Idle,
            body_bytes_left: u64::MAX,
            version: Version::Http11,
            is_head: false,
            awaits_continue: false,
            close: false,
            is_cut: false,
            hsts_secs: None,
        }
    }

    /// The same, whose responses say for how long this host is to be called by TLS only (RFC 6797); what an upstream says
    /// about it is dropped.
    #[must_use]
    pub fn with_hsts(mut self, max_age: Option<Duration>) -> Self {
        self.hsts_secs = max_age.map(|max_age| max_age.as_secs());
        self
    }

    /// The next item and how many bytes it took off the front of `bytes`, which begin where the last item ended. `None`
    /// when more bytes are needed, or the next request must wait for the response to the last one. Those left then are
    /// to be given again, with more behind them; they are never more than a head or the framing of a chunk may have.
    ///
    /// # Errors
    /// When the bytes are not a request that can be served; nothing follows then.
    pub fn next<'b>(&mut self, bytes: &'b [u8]) -> Result<Option<(Item<'b>, usize)>, Reject> {
        let item = match &mut self.input {
            Input::Head { searched } => {
                let new = bytes.get(*searched..).unwrap_or_default();
                *searched = bytes.len();
                // A head is looked at only when a line of it has ended, so that bytes that come one by one cost no more
                // than lines do.
                if find_lf(new).is_none() && bytes.len() < self.limits.head_bytes_max() {
                    return Ok(None);
                }
                self.next_request(bytes)
            }
            Input::Body(_) => self.next_part(bytes),
            Input::Ended | Input::Ignored => return Ok(None),
        };
        item.inspect_err(|_| {
            self.input = Input::Ignored;
            self.close = true;
        })
    }

    /// Takes the head back that [`Self::next`] has just given: it is to be given again, with all that came behind it.
    pub fn take_back(&mut self) {
        self.input = Input::Head { searched: 0 };
        self.output = Output::Idle;
        self.close = false;
    }

    /// Refuses a longer body with 413; to be called before the body is read.
    pub fn limit_body(&mut self, bytes_max: u64) {
        self.body_bytes_left = bytes_max;
    }

    /// Tells the client to go on with a body that it holds back (RFC 9110 section 15.2.1), when it does.
    pub fn continue_(&mut self, out: &mut BytesMut) {
        if self.awaits_continue && self.output == Output::Awaited {
            out.extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
        }
        self.awaits_continue = false;
    }

    /// Passes an interim response on (RFC 9110 section 15.2), but a 100: whether a body may come is ours to say, by
    /// [`Self::continue_`].
    pub fn inform(&mut self, head: &ResponseHead<'_>, out: &mut BytesMut) {
        // RFC 9110 section 15.2: a server must not send a 1xx response to an HTTP/1.0 client.
        if head.status != 100 && self.output == Output::Awaited && self.version == Version::Http11 {
            status_line(head.status, head.reason, out);
            forwarded_fields(head, |_| false, out);
            out.extend_from_slice(b"\r\n");
        }
    }

    /// Passes the head of a response on. `body` is how long its body is on the other side; here it is framed anew.
    pub fn respond(&mut self, head: &ResponseHead<'_>, body: BodyLength, now: UnixTime, out: &mut BytesMut) {
        if self.output != Output::Awaited {
            return self.abort();
        }
        // RFC 9110 sections 9.3.2, 15.3.5 and 15.4.5.
        let is_bodiless = self.is_head || matches!(head.status, 204 | 304);
        let writer = match body {
            _ if is_bodiless => Writer::Nothing,
            BodyLength::Empty => Writer::Length(0),
            BodyLength::Known(bytes) => Writer::Length(bytes),
            // RFC 9112 section 6.1: no Transfer-Encoding to a client that is not known to speak HTTP/1.1.
            BodyLength::Chunked | BodyLength::UntilClose if self.version == Version::Http11 => Writer::Chunked,
            BodyLength::Chunked | BodyLength::UntilClose => Writer::UntilClose,
        };
        self.settle_persistence(writer);
        out.reserve(write::HEAD_BYTES_USUAL);
        status_line(head.status, head.reason, out);
        let is_ours = |id| id == Name::ContentLength || self.hsts_secs.is_some() && id == Name::StrictTransportSecurity;
        forwarded_fields(head, is_ours, out);
        // RFC 9110 section 6.6.1: who forwards a response without Date adds one.
        if head.fields.first(Name::Date).is_none() {
            write::field(out, b"Date", &imf_fixdate(now));
        }
        match body {
            // RFC 9110 section 8.6: in a response to HEAD and in a 304 it is what a GET would have brought; never in a
            // 204.
            BodyLength::Known(bytes) if is_bodiless && head.status != 204 => Writer::Length(bytes).announce(out),
            _ => writer.announce(out),
        }
        self.end_head(out);
        self.output = Output::Body(writer);
    }

    /// Passes some of the response body on.
    pub fn body(&mut self, data: &[u8], out: &mut BytesMut) {
        if let Output::Body(writer) = &mut self.output {
            writer.data(data, out);
        }
    }

    /// Ends the response. One that is shorter than it promised to be closes the connection, which tells the client.
    pub fn end(&mut self, out: &mut BytesMut) {
        if let Output::Body(writer) = self.output {
            self.close |= !writer.end(out);
            self.output = Output::Ended;
            self.turn();
        }
    }

    /// Gives a response up in its middle: the connection closes without the end of the body.
    pub fn abort(&mut self) {
        self.is_cut |= self.output == Output::Body(Writer::UntilClose);
        self.close = true;
        self.output = Output::Ended;
        self.turn();
    }

    /// Answers in place of an upstream, or closes when an answer has begun already. Where the request is not complete,
    /// the connection closes after the answer: what is left of the body must never be read as a request.
    pub fn respond_local(&mut self, answer: &Answer, now: UnixTime, out: &mut BytesMut) {
        match self.output {
            Output::Awaited => {}
            // Nothing was asked: a timeout, or bytes that are no request.
            Output::Idle => self.close = true,
            Output::Body(_) | Output::Ended | Output::Tunnel => return self.abort(),
        }
        let content = answer.content();
        let writer = match content {
            Some(ref content) => Writer::Length(content.len() as u64),
            None => Writer::Nothing,
        };
        self.settle_persistence(writer);
        status_line(answer.status, reason(answer.status).as_bytes(), out);
        write::field(out, b"Date", &imf_fixdate(now));
        for (name, value) in &answer.fields {
            write::field(out, name.as_bytes(), value.as_bytes());
        }
        if content.is_some() {
            write::field(out, b"Content-Type", answer.content_type.as_bytes());
        }
        writer.announce(out);
        self.end_head(out);
        if !self.is_head {
            out.extend_from_slice(&content.unwrap_or_default());
        }
        self.output = Output::Ended;
        self.turn();
    }

    /// Answers a request that [`Self::next`] refused.
    pub fn reject(&mut self, reject: Reject, now: UnixTime, out: &mut BytesMut) {
        let answer = match reject.status {
            405 => Answer::method_not_allowed(),
            status => Answer::new(status),
        };
        self.respond_local(&answer, now, out);
    }

    /// Passes a 101 (Switching Protocols) on that a [`super::Client`] has checked. The connection is a tunnel from
    /// here.
    pub fn switch(&mut self, head: &ResponseHead<'_>, out: &mut BytesMut) {
        if self.output != Output::Awaited || !self.is_request_read() {
            return self.abort();
        }
        status_line(head.status, reason(101).as_bytes(), out);
        out.extend_from_slice(b"Connection: Upgrade\r\nUpgrade: websocket\r\n");
        forwarded_fields(head, |id| id == Name::ContentLength, out);
        out.extend_from_slice(b"\r\n");
        self.enter_tunnel();
    }

    /// Accepts a WebSocket ourselves (RFC 6455 section 4.2.2). The connection is no longer HTTP from here.
    pub fn accept_websocket(&mut self, accept: &Accept, protocol: Option<&str>, out: &mut BytesMut) {
        if self.output != Output::Awaited || !self.is_request_read() {
            return self.abort();
        }
        status_line(101, reason(101).as_bytes(), out);
        out.extend_from_slice(b"Connection: Upgrade\r\nUpgrade: websocket\r\n");
        write::field(out, b"Sec-WebSocket-Accept", accept.as_bytes());
        if let Some(protocol) = protocol {
            write::field(out, b"Sec-WebSocket-Protocol", protocol.as_bytes());
        }
        out.extend_from_slice(b"\r\n");
        self.enter_tunnel();
    }

    /// Lets the connection end with the response in progress, or at once when it is idle.
    pub fn close_after_response(&mut self) {
        self.close = true;
        self.turn();
    }

    /// Whether the connection must be broken, since its client would take an orderly end for that of the body.
    // RFC 9112 section 8: a body that ends with the connection is complete when that is closed, so that only an error can
    // tell that it is not.
    pub const fn is_cut(&self) -> bool {
        self.is_cut
    }

    /// Whether no request is open: the connection may be let go of at any time.
    pub fn is_idle(&self) -> bool {
        self.output == Output::Idle
    }

    /// Whether the response has begun, so that it is too late for another one.
    pub fn has_responded(&self) -> bool {
        matches!(self.output, Output::Body(_) | Output::Ended | Output::Tunnel)
    }

    /// Whether the connection is to be closed once all that was written is sent. A client that may still be sending must
    /// be let finish for a while, unread, or it never sees the answer (RFC 9112 section 9.6).
    pub fn closes(&self) -> bool {
        self.close && matches!(self.output, Output::Ended | Output::Idle)
    }

    fn next_request<'b>(&mut self, bytes: &'b [u8]) -> Result<Option<(Item<'b>, usize)>, Reject> {
        let Some((head, len)) = http1::request_head(bytes, &self.limits)? else {
            return Ok(None);
        };
        let request = Request::parse(head)?;
        self.version = request.version;
        self.is_head = request.method == Method::Head;
        self.awaits_continue = request.expects_continue;
        self.body_bytes_left = u64::MAX;
        // RFC 9112 section 9.3: a proxy must not keep a connection to an HTTP/1.0 client. And where the client wanted
        // another protocol, it may have sent bytes of that one already.
        self.close = request.version == Version::Http10 || request.connection.close || request.asks_upgrade();
        self.output = Output::Awaited;
        self.input = Input::Body(Reader::new(request.body));
        Ok(Some((Item::Request(request), len)))
    }

    fn next_part<'b>(&mut self, bytes: &'b [u8]) -> Result<Option<(Item<'b>, usize)>, Reject> {
        let Input::Body(reader) = &mut self.input else {
            return Ok(None);
        };
        let part = reader.next(bytes).map_err(|error| Reject::new(400, error.as_str()))?;
        let Some((part, len)) = part else {
            return Ok(None);
        };
        let item = match part {
            Part::Data(data) => {
                let left = self.body_bytes_left.checked_sub(data.len() as u64);
                self.body_bytes_left = left.ok_or(Reject::new(413, "body too large"))?;
                self.awaits_continue = false;
                Item::Body(data)
            }
            Part::End => {
                self.input = Input::Ended;
                self.turn();
                Item::End
            }
        };
        Ok(Some((item, len)))
    }

    /// Decides, before the head of a response ends, whether the connection outlives it.
    fn settle_persistence(&mut self, writer: Writer) {
        // RFC 9112 section 9.3: a server must read the whole request or close after the response.
        self.close |= writer == Writer::UntilClose || !self.is_request_read();
    }

    fn end_head(&self, out: &mut BytesMut) {
        if let Some(secs) = self.hsts_secs {
            out.extend_from_slice(b"Strict-Transport-Security: max-age=");
            write::decimal(out, secs);
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(if self.close {
            b"Connection: close\r\n\r\n"
        } else {
            b"\r\n"
        });
    }

    fn enter_tunnel(&mut self) {
        self.input = Input::Ignored;
        self.output = Output::Tunnel;
    }

    /// Whether nothing of the request is left to be read, be its end pulled or not.
    pub fn is_request_read(&self) -> bool {
        matches!(self.input, Input::Ended | Input::Body(Reader::Length(0)))
    }

    /// Goes on to the next request, or to the end of the connection, where both halves of the exchange allow.
    fn turn(&mut self) {
        match (&self.input, self.output) {
            (_, Output::Ended) if self.close => self.input = Input::Ignored,
            (Input::Head { .. }, Output::Idle) if self.close => self.input = Input::Ignored,
            (Input::Ended, Output::Ended) => {
                self.input = Input::Head { searched: 0 };
                self.output = Output::Idle;
                self.is_head = false;
            }
            _ => {}
        }
    }
}

fn status_line(status: u16, reason: &[u8], out: &mut BytesMut) {
    out.extend_from_slice(b"HTTP/1.1 ");
    write::decimal(out, u64::from(status));
    out.extend_from_slice(b" ");
    out.extend_from_slice(reason);
    out.extend_from_slice(b"\r\n");
}

/// Copies the fields of a response but those for the hop before us, the framing, and those in `skip`.
fn forwarded_fields(head: &ResponseHead<'_>, skip: impl Fn(Name) -> bool, out: &mut BytesMut) {
    // A client half has checked the options; where there are none to be had, none is named.
    let connection = Connection::of(&head.fields).unwrap_or_default();
    for field in head.fields.iter() {
        let is_dropped = is_hop_by_hop(field.id)
            || field.id == Name::TransferEncoding
            || skip(field.id)
            || connection.names(field.name, &head.fields);
        if !is_dropped {
            write::field(out, field.name, field.value);
        }
    }
}

#[cfg(test)]
mod tests;
