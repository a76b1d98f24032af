//! What do the bytes of a TLS connection mean? The only file that names rustls: ciphertext in, plaintext out, and back.

use alloc::sync::Arc;
use core::{
    fmt,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use bytes::{Buf as _, BytesMut};
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    client::UnbufferedClientConnection,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _},
    server::{
        ClientHello, ResolvesServerCert, ServerSessionMemoryCache, UnbufferedServerConnection, WebPkiClientVerifier,
    },
    sign::CertifiedKey,
    time_provider::TimeProvider,
    unbuffered::{ConnectionState, EncodeError, EncryptError, UnbufferedStatus},
};

use crate::time::UnixTime;

/// Bytes of an unfinished record or handshake message that a connection may hold: rustls itself refuses handshake
/// messages of 64 KiB and records of 18 KiB.
const INCOMING_BYTES_MAX: usize = 96 * 1024;

/// What one record adds to its plaintext at the most: header, explicit nonce, tag, content type.
const RECORD_OVERHEAD_BYTES: usize = 64;

/// Plaintext of one record at the most (RFC 8446 section 5.1).
const RECORD_PLAIN_BYTES: usize = 16 * 1024;

/// TLS sessions that can be resumed, all shards together.
const SESSIONS_MAX: usize = 16 * 1024;

/// Protocols that a client may name (RFC 7301): what web browsers say, and TURN clients (RFC 7443).
pub const ALPN_HTTP: &[u8] = b"http/1.1";
/// See [`ALPN_HTTP`].
pub const ALPN_TURN: &[u8] = b"stun.turn";

/// The cryptography that the runtime chose, and the clock by which certificates are judged.
#[derive(Debug, Clone)]
pub struct Provider {
    crypto: Arc<CryptoProvider>,
    clock: Arc<Clock>,
}

impl Provider {
    /// Wraps a provider of rustls.
    pub fn new(crypto: CryptoProvider) -> Self {
        Self {
            crypto: Arc::new(crypto),
            clock: Arc::default(),
        }
    }

    #[cfg(test)]
    pub(crate) fn for_tests() -> Self {
        Self::new(rustls::crypto::aws_lc_rs::default_provider())
    }

    /// Tells everything made with this provider what time it is.
    pub fn set_time(&self, now: UnixTime) {
        self.clock.set(now);
    }
}

/// The wall clock of rustls: what was last set.
#[derive(Debug, Default)]
struct Clock(AtomicU64);

impl Clock {
    fn set(&self, now: UnixTime) {
        // Written once a second, so that shards do not fight for the cache line.
        if self.0.load(Ordering::Relaxed) != now.0 {
            self.0.store(now.0, Ordering::Relaxed);
        }
    }
}

impl TimeProvider for Clock {
    fn current_time(&self) -> Option<rustls::pki_types::UnixTime> {
        let secs = self.0.load(Ordering::Relaxed);
        Some(rustls::pki_types::UnixTime::since_unix_epoch(Duration::from_secs(secs)))
    }
}

/// Certificates and keys of a server.
#[derive(Debug, Clone)]
pub struct ServerTls {
    config: Arc<ServerConfig>,
    certificates: Arc<Certificates>,
    clock: Arc<Clock>,
}

/// How to check a server that we call.
#[derive(Debug, Clone)]
pub struct ClientTls {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
}

/// A certificate, key or authority that cannot be used, in words for the administrator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsConfigError(pub String);

impl fmt::Display for TlsConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl core::error::Error for TlsConfigError {}

impl ServerTls {
    /// Serves each `(certificate chain, private key)`, both PEM; the first is for clients that name no server.
    ///
    /// # Errors
    /// When a PEM text holds no certificate or key, or the two do not belong together.
    pub fn new(provider: &Provider, pairs: &[(Vec<u8>, Vec<u8>)]) -> Result<Self, TlsConfigError> {
        let certificates = Arc::new(Certificates::new(provider, pairs)?);
        let mut config = ServerConfig::builder_with_details(provider.crypto.clone(), provider.clock.clone())
            .with_safe_default_protocol_versions()
            .map_err(|error| TlsConfigError(error.to_string()))?
            .with_client_cert_verifier(WebPkiClientVerifier::no_client_auth())
            .with_cert_resolver(certificates.clone());
        config.alpn_protocols = [ALPN_HTTP, ALPN_TURN].map(<[u8]>::to_vec).into();
        config.session_storage = ServerSessionMemoryCache::new(SESSIONS_MAX);
        Ok(Self {
            config: Arc::new(config),
            certificates,
            clock: provider.clock.clone(),
        })
    }

    /// Tells everything made with the same provider what time it is.
    pub fn set_time(&self, now: UnixTime) {
        self.clock.set(now);
    }

    /// The DNS names in all certificates, for the start-up summary and checks.
    pub fn names(&self) -> Vec<String> {
        self.certificates
            .0
            .iter()
            .flat_map(|certificate| certificate.names.iter().cloned())
            .collect()
    }
}

impl ClientTls {
    /// Trusts what `authorities` (PEM) signed for `name`, a DNS name or an address.
    ///
    /// # Errors
    /// When the PEM text holds no certificate or the name is neither.
    pub fn new(provider: &Provider, authorities: &[u8], name: &str) -> Result<Self, TlsConfigError> {
        let mut roots = RootCertStore::empty();
        for certificate in chain(authorities)? {
            roots
                .add(certificate)
                .map_err(|error| TlsConfigError(format!("cannot be a certificate authority: {error}")))?;
        }
        let config = ClientConfig::builder_with_details(provider.crypto.clone(), provider.clock.clone())
            .with_safe_default_protocol_versions()
            .map_err(|error| TlsConfigError(error.to_string()))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from(name.to_owned())
            .map_err(|_| TlsConfigError(format!("\"{name}\" is neither a DNS name nor an address")))?;
        Ok(Self {
            config: Arc::new(config),
            name,
        })
    }
}

/// Certificates by the name that a client asks for (RFC 6066 section 3).
#[derive(Debug)]
struct Certificates(Vec<Certificate>);

#[derive(Debug)]
struct Certificate {
    names: Vec<String>,
    key: Arc<CertifiedKey>,
}

impl Certificates {
    fn new(provider: &Provider, pairs: &[(Vec<u8>, Vec<u8>)]) -> Result<Self, TlsConfigError> {
        if pairs.is_empty() {
            return Err(TlsConfigError("there is no certificate".into()));
        }
        pairs
            .iter()
            .map(|(chain, key)| Certificate::new(provider, chain, key))
            .collect::<Result<_, _>>()
            .map(Self)
    }

    fn find(&self, server_name: Option<&str>) -> Option<&Certificate> {
        let named = server_name.and_then(|name| self.0.iter().find(|certificate| certificate.serves(name)));
        named.or(self.0.first())
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.find(hello.server_name())
            .map(|certificate| certificate.key.clone())
    }
}

impl Certificate {
    fn new(provider: &Provider, chain_pem: &[u8], key_pem: &[u8]) -> Result<Self, TlsConfigError> {
        let chain = chain(chain_pem)?;
        let key = PrivateKeyDer::from_pem_slice(key_pem)
            .map_err(|_| TlsConfigError("the key file holds no private key in PEM form".into()))?;
        let names = webpki::EndEntityCert::try_from(&chain[0])
            .map_err(|error| TlsConfigError(format!("the certificate cannot be read: {error:?}")))?
            .valid_dns_names()
            .map(str::to_ascii_lowercase)
            .collect();
        let key = CertifiedKey::from_der(chain, key, &provider.crypto).map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => {
                TlsConfigError("the private key is not that of the certificate".into())
            }
            error => TlsConfigError(format!("the private key cannot be used: {error}")),
        })?;
        Ok(Self {
            names,
            key: Arc::new(key),
        })
    }

    fn serves(&self, name: &str) -> bool {
        self.names.iter().any(|pattern| match pattern.strip_prefix('*') {
            // RFC 9525 section 6.3: a wildcard stands for exactly one label.
            Some(suffix) => name
                .find('.')
                .is_some_and(|dot| name[dot..].eq_ignore_ascii_case(suffix)),
            None => pattern.eq_ignore_ascii_case(name),
        })
    }
}

fn chain(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsConfigError> {
    let chain: Vec<_> = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|error| TlsConfigError(format!("the certificate file is not PEM: {error}")))?;
    if chain.is_empty() {
        return Err(TlsConfigError(
            "the certificate file holds no certificate in PEM form".into(),
        ));
    }
    Ok(chain)
}

/// One TLS connection, either side. It holds no more than the unfinished record at the front of what arrives.
pub struct Tls {
    side: Side,
    incoming: BytesMut,
    ready: bool,
    peer_closed: bool,
    failed: bool,
}

enum Side {
    Server(Box<UnbufferedServerConnection>),
    Client(Box<UnbufferedClientConnection>),
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
    /// The side that is called.
    ///
    /// # Errors
    /// When the configuration cannot serve anybody.
    pub fn server(tls: &ServerTls) -> Result<Self, TlsError> {
        let connection = UnbufferedServerConnection::new(tls.config.clone())?;
        Ok(Self::new(Side::Server(Box::new(connection))))
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
        plain
            .chunks(RECORD_PLAIN_BYTES)
            .try_for_each(|record| self.send(Send::Data(record), out))
    }

    /// Appends the notice that nothing more will be sent (RFC 8446 section 6.1).
    pub fn close(&mut self, out: &mut BytesMut) {
        if self.ready && !self.failed {
            // A connection that cannot even say goodbye is closed without it.
            let _ = self.send(Send::Close, out);
        }
    }

    /// Whether the handshake is over, so that data can be sent.
    pub const fn is_ready(&self) -> bool {
        self.ready
    }

    /// Whether the other side has said that it sends no more.
    pub const fn peer_closed(&self) -> bool {
        self.peer_closed
    }

    /// The protocol agreed on (ALPN).
    pub fn alpn(&self) -> Option<&[u8]> {
        match &self.side {
            Side::Server(connection) => connection.alpn_protocol(),
            Side::Client(connection) => connection.alpn_protocol(),
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

    /// Appends the alert that rustls has queued with its error. It comes out on the very next turn; one turn more would
    /// read on in what was refused.
    fn alert(&mut self, incoming: &mut [u8], out: &mut BytesMut) {
        let plain = &mut Vec::new();
        let _ = match &mut self.side {
            Side::Server(connection) => step(connection.process_tls_records(incoming), Send::Nothing, plain, out).1,
            Side::Client(connection) => step(connection.process_tls_records(incoming), Send::Nothing, plain, out).1,
        };
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn provider() -> Provider {
        let provider = Provider::for_tests();
        provider.set_time(UnixTime(1_790_000_000));
        provider
    }

    fn pair(names: &[&str]) -> (Vec<u8>, Vec<u8>) {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let made = rcgen::generate_simple_self_signed(names).expect("a certificate");
        (made.cert.pem().into(), made.signing_key.serialize_pem().into())
    }

    fn both(names: &[&str], ask: &str) -> (Tls, Tls) {
        let (cert, key) = pair(names);
        let server = ServerTls::new(&provider(), &[(cert.clone(), key)]).expect("a server");
        let client = ClientTls::new(&provider(), &cert, ask).expect("a client");
        (
            Tls::client(&client).expect("a client"),
            Tls::server(&server).expect("a server"),
        )
    }

    /// Carries bytes between both in pieces of `piece` until nobody has more to say.
    fn shake(client: &mut Tls, server: &mut Tls, piece: usize) -> Result<(), TlsError> {
        let (mut up, mut down, mut plain) = (BytesMut::new(), BytesMut::new(), Vec::new());
        client.receive(&mut [], &mut plain, &mut up)?;
        while !up.is_empty() || !down.is_empty() {
            let (mut to_server, mut to_client) = (up.split(), down.split());
            for bytes in to_server.chunks_mut(piece) {
                server.receive(bytes, &mut plain, &mut down)?;
            }
            for bytes in to_client.chunks_mut(piece) {
                client.receive(bytes, &mut plain, &mut up)?;
            }
        }
        assert_eq!(plain, b"");
        Ok(())
    }

    #[test]
    fn data_passes_whatever_the_pieces() {
        let data: Vec<u8> = (0..100_000_u32).map(|n| n as u8).collect();
        for piece in [1, 7, 1000, 100_000] {
            let (mut client, mut server) = both(&["edge.example.org"], "edge.example.org");
            shake(&mut client, &mut server, piece).expect("a handshake");
            assert!(client.is_ready() && server.is_ready());
            let (mut wire, mut plain) = (BytesMut::new(), Vec::new());
            client.seal(&data, &mut wire).expect("sealed");
            client.close(&mut wire);
            for bytes in wire.chunks_mut(piece) {
                server.receive(bytes, &mut plain, &mut BytesMut::new()).expect("opened");
            }
            assert!(plain == data, "the plaintext differs with pieces of {piece}");
            assert!(server.peer_closed());
            let (mut wire, mut plain) = (BytesMut::new(), Vec::new());
            server.seal(b"half closed", &mut wire).expect("sealed");
            client
                .receive(&mut wire, &mut plain, &mut BytesMut::new())
                .expect("opened");
            assert_eq!(plain, b"half closed");
        }
    }

    #[test]
    fn the_other_direction_works_in_the_middle_of_a_record() {
        let (mut client, mut server) = both(&["a.example"], "a.example");
        shake(&mut client, &mut server, 4096).expect("a handshake");
        let (mut up, mut down, mut plain) = (BytesMut::new(), BytesMut::new(), Vec::new());
        client.seal(b"question", &mut up).expect("sealed");
        let (first, second) = up.split_at_mut(9);
        server.receive(first, &mut plain, &mut down).expect("half a record");
        server.seal(b"unasked", &mut down).expect("sealed");
        server.receive(second, &mut plain, &mut down).expect("the other half");
        assert_eq!(plain, b"question");
        plain.clear();
        client
            .receive(&mut down, &mut plain, &mut BytesMut::new())
            .expect("opened");
        assert_eq!(plain, b"unasked");
    }

    #[test]
    fn a_stranger_is_refused_with_an_alert() {
        let (_, mut server) = both(&["a.example"], "a.example");
        let (mut client, _) = both(&["a.example"], "a.example");
        let refused = shake(&mut client, &mut server, 4096);
        assert!(refused.is_err(), "another authority signed that certificate");
        let (mut alert, mut plain) = (BytesMut::new(), Vec::new());
        let garbage = server.receive(&mut b"\x16\x03\x01\x00\x04abcd".to_owned(), &mut plain, &mut alert);
        assert!(garbage.is_err());
    }

    #[test]
    fn garbage_is_answered_by_an_alert_and_nothing_more() {
        let (_, mut server) = both(&["a.example"], "a.example");
        let (mut alert, mut plain) = (BytesMut::new(), Vec::new());
        server
            .receive(&mut b"GET / HTTP/1.1\r\n\r\n".to_owned(), &mut plain, &mut alert)
            .expect_err("not TLS");
        assert_eq!((alert.first(), plain.len()), (Some(&21), 0));
    }

    #[test]
    fn certificates_are_found_by_name() {
        let pairs = [pair(&["edge.example.org"]), pair(&["*.turn.example.org"])];
        let tls = ServerTls::new(&provider(), &pairs).expect("a server");
        let find = |name| {
            tls.certificates
                .find(name)
                .map(|found| found.names[0].clone())
                .expect("one")
        };
        assert_eq!(find(None), "edge.example.org");
        assert_eq!(find(Some("A.TURN.example.org")), "*.turn.example.org");
        assert_eq!(find(Some("a.b.turn.example.org")), "edge.example.org");
        assert_eq!(tls.names(), ["edge.example.org", "*.turn.example.org"]);
    }

    #[test]
    fn what_cannot_serve_is_named() {
        let (cert, key) = pair(&["a.example"]);
        let (_, other) = pair(&["b.example"]);
        let check = |cert: &[u8], key: &[u8], expected: &str| {
            let error = ServerTls::new(&provider(), &[(cert.to_vec(), key.to_vec())]).expect_err("unusable");
            assert!(error.0.contains(expected), "{error}");
        };
        check(&cert, &other, "not that of the certificate");
        check(&cert, b"", "no private key");
        check(b"", &key, "no certificate");
        assert!(ClientTls::new(&provider(), &cert, "not a name").is_err());
    }
}
