//! What is an upstream asked, and what does it answer? One HTTP/1.1 connection on the side that we call.

use core::net::IpAddr;

use bytes::BytesMut;
use ipnet::IpNet;

use super::{
    body::{BodyLength, Part, Reader, Writer},
    fields::{Connection, FieldsError, declared_length, is_hop_by_hop, list},
    forwarded, head_limits,
    request::{Method, PORT_DEFAULT, Request},
    target::Authority,
    upgrade::Accept,
    write,
};
use crate::{
    config::HttpLimits,
    wire::{
        chunked::ChunkError,
        http1::{self, HeadError, Name, ResponseHead, Version, find_lf},
    },
};

/// Our name in Via (RFC 9110 section 7.6.3).
pub(super) const PSEUDONYM: &[u8] = b"edgeward";

/// Interim responses before a response. Real upstreams send one at most.
const INTERIM_RESPONSES_MAX: u8 = 8;

/// The side of a connection that writes requests and reads responses, one exchange after the other.
#[derive(Debug)]
pub struct Client {
    limits: http1::Limits,
    output: Output,
    input: Input,
    is_head: bool,
    /// What a 101 must bring, when one was asked for.
    accept: Option<Accept>,
    interim_responses: u8,
    /// Whether the connection can carry another exchange after this one.
    persists: bool,
}

/// Where the request stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Output {
    Idle,
    Body(Writer),
    Ended,
}

/// Where the response stands.
#[derive(Debug)]
enum Input {
    /// Nothing was asked: nothing may come.
    Idle,
    /// Before or in a response head, of which so many bytes hold no line end.
    Head {
        searched: usize,
    },
    Body(Reader),
    Ended,
    /// No longer HTTP, or not HTTP at all.
    Ignored,
}

/// What an upstream sends, in order: perhaps interim responses, the head of the response, its body, its end.
#[derive(Debug)]
pub enum ClientItem<'b> {
    /// An interim response (RFC 9110 section 15.2), for [`super::Server::inform`]; never 101.
    Informational(ResponseHead<'b>),
    /// The head of the response, and how long its body is.
    Response(ResponseHead<'b>, BodyLength),
    /// Some of its body.
    Body(&'b [u8]),
    /// The response is complete.
    End,
    /// The protocol has changed to WebSocket, as was asked; what follows is no longer HTTP.
    Switched(ResponseHead<'b>),
}

/// Why an upstream's answer cannot be used. The connection to it is to be closed; the client is told 502, or its
/// connection cut when the response has begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpstreamError {
    /// The head is malformed.
    Head(HeadError),
    /// The fields of the head contradict themselves or the rules; a stable phrase.
    Fields(&'static str),
    /// The body is malformed.
    Body(ChunkError),
    /// Bytes that nobody asked for.
    Unsolicited,
    /// A 101 that was not asked for, or is not the answer to what was asked.
    Switch,
    /// Interim responses without end.
    InterimResponses,
    /// The connection ended before the response.
    Incomplete,
}

impl UpstreamError {
    /// A stable phrase for logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Head(error) => error.as_str(),
            Self::Fields(why) => why,
            Self::Body(error) => error.as_str(),
            Self::Unsolicited => "unsolicited bytes",
            Self::Switch => "wrong protocol switch",
            Self::InterimResponses => "too many interim responses",
            Self::Incomplete => "connection closed within the response",
        }
    }
}

impl From<HeadError> for UpstreamError {
    fn from(error: HeadError) -> Self {
        Self::Head(error)
    }
}

impl From<FieldsError> for UpstreamError {
    fn from(error: FieldsError) -> Self {
        Self::Fields(error.as_str())
    }
}

/// What the edge adds to a request that it forwards.
#[derive(Debug, Clone, Copy)]
pub struct Forward<'a> {
    /// The peer of the client's connection.
    pub peer: IpAddr,
    /// Whose `X-Forwarded-For` is believed.
    pub trusted_proxies: &'a [IpNet],
    /// The Host field, when it is not the client's own.
    pub host: Option<&'a str>,
    /// A random number that names the request in the logs of both sides.
    pub request_id: u128,
    /// The opening of a WebSocket, when the route allows it: what the upstream must answer.
    pub upgrade: Option<Accept>,
}

impl Client {
    /// A connection on which nothing was asked yet.
    pub fn new(limits: &HttpLimits) -> Self {
        Self {
            limits: head_limits(limits),
            output: Output::Idle,
            input: Input::Idle,
            is_head: false,
            accept: None,
            interim_responses: 0,
            persists: true,
        }
    }

    /// Writes the head of a request, anew from what was understood of it.
    ///
    /// # Panics
    /// When the last exchange is not over: the connection was not [`Self::reusable`].
    pub fn request(&mut self, request: &Request<'_>, forward: &Forward<'_>, out: &mut BytesMut) {
        assert!(self.reusable(), "one exchange after the other");
        let writer = match request.body {
            // RFC 9110 section 8.6: a method that expects content says that there is none.
            BodyLength::Empty if matches!(request.method, Method::Post | Method::Put | Method::Patch) => {
                Writer::Length(0)
            }
            BodyLength::Empty | BodyLength::UntilClose => Writer::Nothing,
            BodyLength::Known(bytes) => Writer::Length(bytes),
            BodyLength::Chunked => Writer::Chunked,
        };
        out.reserve(write::HEAD_BYTES_USUAL);
        request_line(request, out);
        host(request, forward, out);
        let copied = |id| match id {
            Name::SecWebSocketExtensions
            | Name::SecWebSocketKey
            | Name::SecWebSocketProtocol
            | Name::SecWebSocketVersion => forward.upgrade.is_some(),
            id => !is_rewritten(id) && !is_hop_by_hop(id),
        };
        for field in request.fields.iter() {
            if copied(field.id) && !request.connection.names(field.name, &request.fields) {
                write::field(out, field.name, field.value);
            }
        }
        edge_fields(request, forward, out);
        writer.announce(out);
        if forward.upgrade.is_some() {
            out.extend_from_slice(b"Connection: Upgrade\r\nUpgrade: websocket\r\n");
        }
        out.extend_from_slice(b"\r\n");
        self.output = Output::Body(writer);
        self.input = Input::Head { searched: 0 };
        self.is_head = request.method == Method::Head;
        self.accept = forward.upgrade;
        self.interim_responses = 0;
        // An upstream that did not take the upgrade may still read what follows as the other protocol.
        self.persists = forward.upgrade.is_none();
    }

    /// Writes a GET of our own, with a token where there is one.
    ///
    /// # Panics
    /// When the last exchange is not over: the connection was not [`Self::reusable`].
    pub fn get(&mut self, host: &str, path: &str, token: Option<&str>, out: &mut BytesMut) {
        assert!(self.reusable(), "one exchange after the other");
        out.extend_from_slice(b"GET ");
        out.extend_from_slice(path.as_bytes());
        out.extend_from_slice(b" HTTP/1.1\r\n");
        write::field(out, b"Host", host.as_bytes());
        write::field(out, b"User-Agent", PSEUDONYM);
        if let Some(token) = token {
            // RFC 6750 section 2.1.
            out.extend_from_slice(b"Authorization: Bearer ");
            out.extend_from_slice(token.as_bytes());
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(b"\r\n");
        self.output = Output::Ended;
        self.input = Input::Head { searched: 0 };
        self.is_head = false;
        self.accept = None;
        self.interim_responses = 0;
        self.persists = true;
    }

    /// A new connection on which the last request, which had no body and asked for no upgrade, is written once more:
    /// on this one it met the end.
    #[must_use]
    pub fn again(&self) -> Self {
        Self {
            limits: self.limits,
            output: Output::Ended,
            input: Input::Head { searched: 0 },
            is_head: self.is_head,
            accept: None,
            interim_responses: 0,
            persists: true,
        }
    }

    /// Passes some of the request body on.
    pub fn body(&mut self, data: &[u8], out: &mut BytesMut) {
        if let Output::Body(writer) = &mut self.output {
            writer.data(data, out);
        }
    }

    /// Ends the request.
    pub fn end(&mut self, out: &mut BytesMut) {
        if let Output::Body(writer) = self.output {
            self.persists &= writer.end(out);
            self.output = Output::Ended;
        }
    }

    /// The next item and how many bytes it took off the front of `bytes`, which begin where the last item ended; `None`
    /// when more bytes are needed.
    ///
    /// # Errors
    /// When the bytes are not the response that was asked for; nothing follows then.
    pub fn next<'b>(&mut self, bytes: &'b [u8]) -> Result<Option<(ClientItem<'b>, usize)>, UpstreamError> {
        let item = match &mut self.input {
            Input::Idle | Input::Ended if bytes.is_empty() => Ok(None),
            // RFC 9112 section 9.2: data without an outstanding request is not a response.
            Input::Idle | Input::Ended => Err(UpstreamError::Unsolicited),
            Input::Head { searched } => {
                let new = bytes.get(*searched..).unwrap_or_default();
                *searched = bytes.len();
                if find_lf(new).is_none() && bytes.len() < self.limits.head_bytes_max() {
                    return Ok(None);
                }
                self.next_response(bytes)
            }
            Input::Body(reader) => match reader.next(bytes) {
                Ok(Some((Part::Data(data), len))) => Ok(Some((ClientItem::Body(data), len))),
                Ok(Some((Part::End, len))) => {
                    // RFC 9112 section 9.2: what follows answers nothing, so that no other request may meet it.
                    self.persists &= len == bytes.len();
                    self.input = Input::Ended;
                    Ok(Some((ClientItem::End, len)))
                }
                Ok(None) => Ok(None),
                Err(error) => Err(UpstreamError::Body(error)),
            },
            Input::Ignored => Ok(None),
        };
        item.inspect_err(|_| self.give_up())
    }

    /// The upstream sends no more. Returns the end of a response that lasts until then. To be called only where the
    /// connection was closed properly: RFC 9112 section 9.8 takes a TLS connection cut off for an incomplete response.
    ///
    /// # Errors
    /// When the response is not complete.
    pub fn eof(&mut self) -> Result<Option<ClientItem<'static>>, UpstreamError> {
        self.persists = false;
        match self.input {
            Input::Body(Reader::UntilClose) => {
                self.input = Input::Ended;
                Ok(Some(ClientItem::End))
            }
            Input::Idle | Input::Ended | Input::Ignored => Ok(None),
            Input::Head { .. } | Input::Body(_) => {
                self.give_up();
                Err(UpstreamError::Incomplete)
            }
        }
    }

    /// Whether another request may be written: both halves of the last exchange are over, and nothing about them leaves
    /// a doubt where the next response would begin.
    pub fn reusable(&self) -> bool {
        let is_over = match self.input {
            Input::Idle => true,
            Input::Ended => self.output == Output::Ended,
            Input::Head { .. } | Input::Body(_) | Input::Ignored => false,
        };
        self.persists && is_over
    }

    fn next_response<'b>(&mut self, bytes: &'b [u8]) -> Result<Option<(ClientItem<'b>, usize)>, UpstreamError> {
        let Some((head, len)) = http1::response_head(bytes, &self.limits)? else {
            return Ok(None);
        };
        let connection = Connection::of(&head.fields)?;
        let declared = declared_length(&head.fields, head.version)?;
        let item = match head.status {
            101 => {
                self.switch(&head, connection, declared)?;
                ClientItem::Switched(head)
            }
            100..=199 => {
                self.interim_responses += 1;
                // RFC 9110 section 8.6 and RFC 9112 section 6.1: no framing fields in a 1xx response.
                if declared.is_some() {
                    return Err(UpstreamError::Fields("length of an interim response"));
                }
                if self.interim_responses > INTERIM_RESPONSES_MAX {
                    return Err(UpstreamError::InterimResponses);
                }
                self.input = Input::Head { searched: 0 };
                ClientItem::Informational(head)
            }
            status => {
                // RFC 9112 section 6.3: these end with their head, whatever the fields say.
                let is_bodiless = self.is_head || matches!(status, 204 | 304);
                let length = match declared {
                    Some(length) => length,
                    None if is_bodiless => BodyLength::Empty,
                    None => BodyLength::UntilClose,
                };
                // An upstream that declares a body where there can be none might send it all the same.
                let is_doubtful = status == 204 && !length.is_empty();
                let is_last = connection.close || head.version == Version::Http10 || length == BodyLength::UntilClose;
                self.persists &= !is_doubtful && !is_last;
                self.input = Input::Body(Reader::new(if is_bodiless { BodyLength::Empty } else { length }));
                ClientItem::Response(head, length)
            }
        };
        Ok(Some((item, len)))
    }

    /// Takes a 101, when it is the answer to the handshake that was sent.
    // RFC 6455 section 4.1: what a client checks before it believes that the protocol has changed.
    fn switch(
        &mut self,
        head: &ResponseHead<'_>,
        connection: Connection,
        declared: Option<BodyLength>,
    ) -> Result<(), UpstreamError> {
        let accept = self.accept.ok_or(UpstreamError::Switch)?;
        let upgrade = head.fields.only(Name::Upgrade);
        let is_answer = head.version == Version::Http11
            && declared.is_none()
            && connection.upgrade
            && upgrade.is_some_and(|value| value.eq_ignore_ascii_case(b"websocket"))
            && head.fields.only(Name::SecWebSocketAccept) == Some(accept.as_bytes());
        if !is_answer {
            return Err(UpstreamError::Switch);
        }
        self.give_up();
        Ok(())
    }

    /// Takes no more for HTTP.
    fn give_up(&mut self) {
        self.input = Input::Ignored;
        self.persists = false;
    }
}

// RFC 9112 section 3.2: the target in origin-form, or `*`.
fn request_line(request: &Request<'_>, out: &mut BytesMut) {
    out.extend_from_slice(request.method.as_str().as_bytes());
    out.extend_from_slice(b" ");
    out.extend_from_slice(request.target.path().as_bytes());
    if let Some(query) = request.target.query() {
        out.extend_from_slice(b"?");
        out.extend_from_slice(query.as_bytes());
    }
    out.extend_from_slice(b" HTTP/1.1\r\n");
}

// RFC 9112 section 3.2: always there, and first as RFC 9110 section 7.2 wishes.
fn host(request: &Request<'_>, forward: &Forward<'_>, out: &mut BytesMut) {
    match forward.host {
        Some(host) => write::field(out, b"Host", host.as_bytes()),
        None => authority(b"Host: ", request, out),
    }
}

/// Whom the client asked, behind `name`.
fn authority(name: &[u8], request: &Request<'_>, out: &mut BytesMut) {
    out.extend_from_slice(name);
    if let Some(Authority { host, port }) = request.host {
        out.extend_from_slice(host.as_bytes());
        if let Some(port) = port {
            out.extend_from_slice(b":");
            write::decimal(out, u64::from(port));
        }
    }
    out.extend_from_slice(b"\r\n");
}

/// Whether we write this field of a request ourselves, or never.
const fn is_rewritten(id: Name) -> bool {
    matches!(
        id,
        Name::ContentLength
            | Name::Disguise
            | Name::Expect
            | Name::Forwarded
            | Name::Host
            | Name::MaxForwards
            | Name::SecWebSocketAccept
            | Name::TransferEncoding
            | Name::XForwarded
            | Name::XForwardedFor
            | Name::XRealIp
            | Name::XRequestId
    )
}

/// What the edge says about the client and about itself.
fn edge_fields(request: &Request<'_>, forward: &Forward<'_>, out: &mut BytesMut) {
    // RFC 9110 section 7.6.2: one less for each hop; the last one has been answered by us.
    if let Some(hops) = request.max_forwards() {
        out.extend_from_slice(b"Max-Forwards: ");
        write::decimal(out, u64::from(hops.saturating_sub(1)));
        out.extend_from_slice(b"\r\n");
    }
    forwarded::write_fields(forward.peer, forward.trusted_proxies, &request.fields, out);
    authority(b"X-Forwarded-Host: ", request, out);
    out.extend_from_slice(b"X-Forwarded-Port: ");
    let port = request.host.and_then(|host| host.port);
    write::decimal(out, u64::from(port.unwrap_or(PORT_DEFAULT)));
    out.extend_from_slice(b"\r\nX-Forwarded-Proto: https\r\nX-Request-ID: ");
    write::hexadecimal_id(out, forward.request_id);
    // RFC 9110 section 7.6.3: the version is that of the message as it was received.
    out.extend_from_slice(match request.version {
        Version::Http10 => b"\r\nVia: 1.0 ",
        Version::Http11 => b"\r\nVia: 1.1 ",
    });
    out.extend_from_slice(PSEUDONYM);
    out.extend_from_slice(b"\r\n");
}

/// How often we have forwarded this request already.
pub(super) fn times_forwarded(request: &Request<'_>) -> usize {
    let hops = request.fields.all(Name::Via).flat_map(list);
    let is_ours = |hop: &&[u8]| hop.split(|byte| *byte == b' ').any(|part| part == PSEUDONYM);
    hops.filter(is_ours).count()
}

#[cfg(test)]
mod tests;
