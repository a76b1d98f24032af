//! How does one TLS connection go on? Ciphertext in, plaintext out, and back, either side.

use core::fmt;

use bytes::{Buf as _, BytesMut};
use rustls::{
    CipherSuite, ProtocolVersion, SupportedCipherSuite,
    client::UnbufferedClientConnection,
    server::UnbufferedServerConnection,
    unbuffered::{ConnectionState, EncodeError, EncryptError, UnbufferedStatus},
};

use super::{ClientTls, Heard, Protocols, ServerTls};

/// Bytes of an unfinished record or handshake message that a connection may hold: rustls itself refuses handshake
/// messages of 64 KiB and records of 18 KiB.
const INCOMING_BYTES_MAX: usize = 96 * 1024;

/// What one record adds to its plaintext at the most: header, explicit nonce, tag, content type.
const RECORD_OVERHEAD_BYTES: usize = 64;

/// Content types of records (RFC 8446 section 5.1).
const ALERT: u8 = 21;
const APPLICATION_DATA: u8 = 23;

/// Plaintext of one record at the most (RFC 8446 section 5.1).
const RECORD_PLAIN_BYTES: usize = 16 * 1024;

/// One TLS connection, either side. It holds no more than the unfinished record at the front of what arrives.
pub struct Tls {
    side: Side,
    /// The name by which the client called us, lower case.
    server_name: Option<Box<str>>,
    incoming: BytesMut,
    ready: bool,
    peer_closed: bool,
    failed: bool,
}

enum Side {
    Server(Box<UnbufferedServerConnection>),
    Client(Box<UnbufferedClientConnection>),
    /// Nobody encrypts: what the other side said was written down before.
    Heard(Session),
}

/// What two sides have agreed on, as far as it shows outside of TLS.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Session {
    /// The protocol within (ALPN).
    pub alpn: Option<Vec<u8>>,
    /// Bytes that a record has more than what it says.
    pub record_overhead: usize,
    /// Whether we have sent tickets that need no write of their own.
    pub has_given_tickets: bool,
}

impl Session {
    /// As long as the record would be: its header with the length of the text, the text as it is, and zeros.
    fn write(&self, content_type: u8, text: &[u8], out: &mut BytesMut) {
        let len = u16::try_from(text.len()).unwrap_or(u16::MAX);
        let end = out.len() + text.len() + self.record_overhead;
        out.extend_from_slice(&[content_type, 3, 3]);
        out.extend_from_slice(&len.to_be_bytes());
        out.extend_from_slice(text);
        out.resize(end.max(out.len()), 0);
    }
}

/// Why a TLS connection is of no use any more.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum TlsError {
    /// The other side says what it does not like about us.
    Alert(String),
    /// The other side broke TLS, or we cannot agree with it.
    Refused(String),
}

impl From<rustls::Error> for TlsError {
    fn from(error: rustls::Error) -> Self {
        match error {
            rustls::Error::AlertReceived(_) => Self::Alert(error.to_string()),
            _ => Self::Refused(error.to_string()),
        }
    }
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Alert(what) | Self::Refused(what)) = self;
        f.write_str(what)
    }
}

impl core::error::Error for TlsError {}

impl Tls {
    /// The side that is called, by `server_name` if the client named one, for any of `protocols`.
    ///
    /// # Errors
    /// When the configuration cannot serve anybody.
    pub fn server(tls: &ServerTls, protocols: Protocols, server_name: Option<&str>) -> Result<Self, TlsError> {
        let connection = UnbufferedServerConnection::new(tls.config(protocols))?;
        Ok(Self {
            server_name: server_name.map(|name| name.to_ascii_lowercase().into()),
            ..Self::new(Side::Server(Box::new(connection)))
        })
    }

    /// The side that calls; [`Tls::receive`] with no bytes gives its first flight.
    ///
    /// # Errors
    /// When the configuration cannot call anybody.
    pub fn client(tls: &ClientTls) -> Result<Self, TlsError> {
        let connection = UnbufferedClientConnection::new(tls.config.clone(), tls.name.clone())?;
        Ok(Self::new(Side::Client(Box::new(connection))))
    }

    fn new(side: Side) -> Self {
        Self {
            side,
            server_name: None,
            incoming: BytesMut::new(),
            ready: false,
            peer_closed: false,
            failed: false,
        }
    }

    /// Takes `bytes` from the wire, appends what they say to `plain` and what TLS itself has to answer to `out`.
    ///
    /// # Errors
    /// The connection is then of no use; `out` holds the alert for the other side.
    pub fn receive(&mut self, bytes: &mut [u8], plain: &mut Vec<u8>, out: &mut BytesMut) -> Result<(), TlsError> {
        if self.incoming.is_empty() {
            let used = self.drive(bytes, Send::Nothing, plain, out)?;
            self.incoming.extend_from_slice(&bytes[used..]);
        } else {
            self.incoming.extend_from_slice(bytes);
            let mut incoming = core::mem::take(&mut self.incoming);
            let used = self.drive(&mut incoming, Send::Nothing, plain, out)?;
            incoming.advance(used);
            if !incoming.is_empty() {
                self.incoming = incoming;
            }
        }
        if self.incoming.len() > INCOMING_BYTES_MAX {
            return Err(TlsError::Refused("a TLS message that does not end".into()));
        }
        Ok(())
    }

    /// Encrypts `plain` to the end of `out`; only after the handshake.
    ///
    /// # Errors
    /// When the connection can no longer send.
    pub fn seal(&mut self, plain: &[u8], out: &mut BytesMut) -> Result<(), TlsError> {
        if let Side::Heard(session) = &self.side {
            let records = plain.chunks(RECORD_PLAIN_BYTES);
            records.for_each(|record| session.write(APPLICATION_DATA, record, out));
            return Ok(());
        }
        plain
            .chunks(RECORD_PLAIN_BYTES)
            .try_for_each(|record| self.send(Send::Data(record), out))
    }

    /// Appends the notice that nothing more will be sent (RFC 8446 section 6.1).
    pub fn close(&mut self, out: &mut BytesMut) {
        if let (Side::Heard(session), true, false) = (&self.side, self.ready, self.failed) {
            session.write(ALERT, &[0; 2], out);
        } else if self.ready && !self.failed {
            // A connection that cannot even say goodbye is closed without it.
            let _ = self.send(Send::Close, out);
        }
    }

    /// Whether the handshake is over, so that data can be sent.
    pub const fn is_ready(&self) -> bool {
        self.ready
    }

    /// Whether all that we have said since the other side was through with its handshake are tickets (RFC 8446 section
    /// 4.6.1). Before TLS 1.3 the handshake ends with words of ours.
    pub fn has_given_tickets(&self) -> bool {
        let version = match &self.side {
            Side::Server(connection) => connection.protocol_version(),
            Side::Client(_) => None,
            Side::Heard(session) => return self.ready && session.has_given_tickets,
        };
        self.ready && version == Some(ProtocolVersion::TLSv1_3)
    }

    /// Whether the other side has said that it sends no more.
    pub const fn peer_closed(&self) -> bool {
        self.peer_closed
    }

    /// The name by which the client called us, lower case.
    pub fn server_name(&self) -> Option<&str> {
        self.server_name.as_deref()
    }

    /// The protocol agreed on (ALPN).
    pub fn alpn(&self) -> Option<&[u8]> {
        match &self.side {
            Side::Server(connection) => connection.alpn_protocol(),
            Side::Client(connection) => connection.alpn_protocol(),
            Side::Heard(session) => session.alpn.as_deref(),
        }
    }

    /// How things stand, as somebody else could be told.
    pub(super) fn state(&self) -> Heard {
        Heard {
            plain: Vec::new(),
            answer_len: 0,
            is_ready: self.ready,
            is_peer_closed: self.peer_closed,
            is_failed: self.failed,
            session: Session {
                alpn: self.alpn().map(Vec::from),
                record_overhead: self.record_overhead(),
                has_given_tickets: self.has_given_tickets(),
            },
            error: None,
        }
    }

    /// Takes what was written down for what the other side says; from here on nothing is encrypted.
    pub(super) fn hear(&mut self, heard: Heard, plain: &mut Vec<u8>, out: &mut BytesMut) -> Result<(), TlsError> {
        plain.extend_from_slice(&heard.plain);
        out.resize(out.len() + heard.answer_len, 0);
        self.ready = heard.is_ready;
        self.peer_closed = heard.is_peer_closed;
        self.failed = heard.is_failed;
        self.side = Side::Heard(heard.session);
        heard.error.map_or(Ok(()), Err)
    }

    /// Bytes that a record has more than what it says; 0 as long as that is not agreed on.
    fn record_overhead(&self) -> usize {
        let suite = match &self.side {
            Side::Server(connection) => connection.negotiated_cipher_suite(),
            Side::Client(connection) => connection.negotiated_cipher_suite(),
            Side::Heard(session) => return session.record_overhead,
        };
        const HEADER_AND_TAG: usize = 5 + 16;
        match suite {
            None => 0,
            // RFC 8446 section 5.2: the content type moves inside.
            Some(SupportedCipherSuite::Tls13(_)) => HEADER_AND_TAG + 1,
            // RFC 7905 section 2: no nonce in the record.
            Some(SupportedCipherSuite::Tls12(suite)) => match suite.common.suite {
                CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256
                | CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256 => HEADER_AND_TAG,
                // RFC 5288 section 3: eight bytes of it.
                _ => HEADER_AND_TAG + 8,
            },
        }
    }

    fn send(&mut self, send: Send<'_>, out: &mut BytesMut) -> Result<(), TlsError> {
        // The unfinished record comes along, since rustls keeps offsets into it; it cannot become finished here.
        let mut incoming = core::mem::take(&mut self.incoming);
        let used = self.drive(&mut incoming, send, &mut Vec::new(), out)?;
        incoming.advance(used);
        self.incoming = incoming;
        Ok(())
    }

    /// Lets rustls go through `incoming` until it needs more and `send` is sent; returns how many bytes are done with.
    fn drive(
        &mut self,
        incoming: &mut [u8],
        send: Send<'_>,
        plain: &mut Vec<u8>,
        out: &mut BytesMut,
    ) -> Result<usize, TlsError> {
        let mut used = 0;
        loop {
            let rest = &mut incoming[used..];
            let (discard, step) = match &mut self.side {
                Side::Server(connection) => step(connection.process_tls_records(rest), send, plain, out),
                Side::Client(connection) => step(connection.process_tls_records(rest), send, plain, out),
                Side::Heard(_) => return Ok(incoming.len()),
            };
            used += discard;
            match step {
                Ok(Step::Again) => {}
                Ok(Step::PeerClosed) => self.peer_closed = true,
                Ok(Step::Ready) => {
                    self.ready = true;
                    return Ok(used);
                }
                Ok(Step::Wait) => return Ok(used),
                Err(error) => {
                    if !core::mem::replace(&mut self.failed, true) && !matches!(error, TlsError::Alert(_)) {
                        self.alert(&mut incoming[used..], out);
                    }
                    return Err(error);
                }
            }
        }
    }

    /// Appends what rustls has queued before its error, a record a turn, up to the alert that ends it. One turn more would
    /// read on in what was refused.
    fn alert(&mut self, incoming: &mut [u8], out: &mut BytesMut) {
        let plain = &mut Vec::new();
        loop {
            let before = out.len();
            let (_, step) = match &mut self.side {
                Side::Server(connection) => step(connection.process_tls_records(incoming), Send::Nothing, plain, out),
                Side::Client(connection) => step(connection.process_tls_records(incoming), Send::Nothing, plain, out),
                Side::Heard(_) => return,
            };
            let record = &out[before..];
            if step.is_err() || record.is_empty() || is_alert(record) {
                return;
            }
        }
    }
}

/// Whether a record of our own is an alert; TLS 1.3 does not say so outside (RFC 8446 section 5.2), but nothing else that
/// is encrypted is as short: level and description, content type, tag.
const fn is_alert(record: &[u8]) -> bool {
    const ENCRYPTED_BYTES: usize = 5 + 2 + 1 + 16;
    matches!(record, [21, ..]) || matches!(record, [23, ..]) && record.len() == ENCRYPTED_BYTES
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls")
            .field("ready", &self.ready)
            .field("peer_closed", &self.peer_closed)
            .finish_non_exhaustive()
    }
}

/// What to encrypt once rustls lets us.
#[derive(Clone, Copy)]
enum Send<'a> {
    Nothing,
    Data(&'a [u8]),
    Close,
}

enum Step {
    Again,
    PeerClosed,
    Ready,
    Wait,
}

/// Does the one thing that rustls asks for; returns how many bytes are done with.
fn step<Data>(
    status: UnbufferedStatus<'_, '_, Data>,
    send: Send<'_>,
    plain: &mut Vec<u8>,
    out: &mut BytesMut,
) -> (usize, Result<Step, TlsError>) {
    let UnbufferedStatus { mut discard, state, .. } = status;
    let step = match state {
        Ok(ConnectionState::ReadTraffic(mut traffic)) => loop {
            match traffic.next_record() {
                Some(Ok(record)) => {
                    discard += record.discard;
                    plain.extend_from_slice(record.payload);
                }
                Some(Err(error)) => break Err(error.into()),
                None => break Ok(Step::Again),
            }
        },
        Ok(ConnectionState::EncodeTlsData(mut data)) => append(out, 0, |buffer| {
            data.encode(buffer).map_err(|error| match error {
                EncodeError::InsufficientSize(size) => EncryptError::InsufficientSize(size),
                EncodeError::AlreadyEncoded => EncryptError::EncryptExhausted,
            })
        })
        .map(|()| Step::Again),
        Ok(ConnectionState::TransmitTlsData(data)) => {
            data.done();
            Ok(Step::Again)
        }
        Ok(ConnectionState::PeerClosed) => Ok(Step::PeerClosed),
        Ok(ConnectionState::WriteTraffic(mut traffic)) => match send {
            Send::Nothing => Ok(()),
            Send::Data(data) => append(out, data.len() + RECORD_OVERHEAD_BYTES, |buffer| {
                traffic.encrypt(data, buffer)
            }),
            Send::Close => append(out, RECORD_OVERHEAD_BYTES, |buffer| traffic.queue_close_notify(buffer)),
        }
        .map(|()| Step::Ready),
        // Early data is never offered, so never read; nothing else asks for anything but more bytes.
        Ok(_) => Ok(Step::Wait),
        Err(error) => Err(error.into()),
    };
    (discard, step)
}

/// Lets `write` fill `room` bytes behind `out`, or as many as it then says it needs.
fn append(
    out: &mut BytesMut,
    mut room: usize,
    mut write: impl FnMut(&mut [u8]) -> Result<usize, EncryptError>,
) -> Result<(), TlsError> {
    let start = out.len();
    loop {
        out.resize(start + room, 0);
        match write(&mut out[start..]) {
            Ok(written) => {
                out.truncate(start + written);
                return Ok(());
            }
            Err(EncryptError::InsufficientSize(size)) if size.required_size > room => room = size.required_size,
            Err(error) => {
                out.truncate(start);
                return Err(TlsError::Refused(error.to_string()));
            }
        }
    }
}
