//! What does a STUN message look like, byte by byte? For requests that no library would send.

use std::{
    net::{IpAddr, SocketAddr, UdpSocket},
    time::Instant,
};

use hmac::{Hmac, KeyInit, Mac};
use md5::{Digest, Md5};
use sha1::Sha1;

use crate::{deadline, random, remaining};

/// RFC 8489 section 5.
const MAGIC: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];

/// RFC 8489 section 18.2 and RFC 8656 section 17.
pub mod method {
    /// Binding.
    pub const BINDING: u16 = 0x001;
    /// Allocate.
    pub const ALLOCATE: u16 = 0x003;
    /// Refresh.
    pub const REFRESH: u16 = 0x004;
    /// Send, an indication.
    pub const SEND: u16 = 0x006;
    /// Data, an indication.
    pub const DATA: u16 = 0x007;
    /// CreatePermission.
    pub const CREATE_PERMISSION: u16 = 0x008;
    /// ChannelBind.
    pub const CHANNEL_BIND: u16 = 0x009;
    /// Connect (RFC 6062 section 6.1).
    pub const CONNECT: u16 = 0x00a;
    /// ConnectionBind.
    pub const CONNECTION_BIND: u16 = 0x00b;
    /// ConnectionAttempt, an indication.
    pub const CONNECTION_ATTEMPT: u16 = 0x00c;
}

/// RFC 8489 section 18.3 and RFC 8656 section 18.
pub mod attribute {
    /// USERNAME.
    pub const USERNAME: u16 = 0x0006;
    /// MESSAGE-INTEGRITY.
    pub const MESSAGE_INTEGRITY: u16 = 0x0008;
    /// ERROR-CODE.
    pub const ERROR_CODE: u16 = 0x0009;
    /// UNKNOWN-ATTRIBUTES.
    pub const UNKNOWN_ATTRIBUTES: u16 = 0x000a;
    /// CHANNEL-NUMBER.
    pub const CHANNEL_NUMBER: u16 = 0x000c;
    /// LIFETIME.
    pub const LIFETIME: u16 = 0x000d;
    /// XOR-PEER-ADDRESS.
    pub const XOR_PEER_ADDRESS: u16 = 0x0012;
    /// DATA.
    pub const DATA: u16 = 0x0013;
    /// REALM.
    pub const REALM: u16 = 0x0014;
    /// NONCE.
    pub const NONCE: u16 = 0x0015;
    /// XOR-RELAYED-ADDRESS.
    pub const XOR_RELAYED_ADDRESS: u16 = 0x0016;
    /// REQUESTED-ADDRESS-FAMILY.
    pub const REQUESTED_ADDRESS_FAMILY: u16 = 0x0017;
    /// EVEN-PORT.
    pub const EVEN_PORT: u16 = 0x0018;
    /// REQUESTED-TRANSPORT.
    pub const REQUESTED_TRANSPORT: u16 = 0x0019;
    /// DONT-FRAGMENT.
    pub const DONT_FRAGMENT: u16 = 0x001a;
    /// XOR-MAPPED-ADDRESS.
    pub const XOR_MAPPED_ADDRESS: u16 = 0x0020;
    /// CONNECTION-ID (RFC 6062 section 6.2).
    pub const CONNECTION_ID: u16 = 0x002a;
    /// ADDITIONAL-ADDRESS-FAMILY.
    pub const ADDITIONAL_ADDRESS_FAMILY: u16 = 0x8000;
    /// ICMP.
    pub const ICMP: u16 = 0x8004;
    /// MOBILITY-TICKET (RFC 8016 section 3.1).
    pub const MOBILITY_TICKET: u16 = 0x8030;
}

/// REQUESTED-TRANSPORT for UDP (RFC 8656 section 18.7).
pub const UDP: [u8; 4] = [17, 0, 0, 0];

/// REQUESTED-TRANSPORT for TCP (RFC 6062 section 4.1).
pub const TCP: [u8; 4] = [6, 0, 0, 0];

/// A value of REQUESTED-ADDRESS-FAMILY and ADDITIONAL-ADDRESS-FAMILY (RFC 8656 section 18.6).
pub const IPV4: [u8; 4] = [1, 0, 0, 0];

/// The other one.
pub const IPV6: [u8; 4] = [2, 0, 0, 0];

/// RFC 8489 section 5.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Wants an answer.
    Request,
    /// Wants none.
    Indication,
    /// An answer.
    Success,
    /// An answer.
    Error,
}

/// A STUN message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// What it is.
    pub class: Class,
    /// What it is about.
    pub method: u16,
    /// Joins request and answer.
    pub transaction: [u8; 12],
    /// Types and values, without padding.
    pub attributes: Vec<(u16, Vec<u8>)>,
}

impl Message {
    /// A request with a fresh transaction id.
    pub fn request(method: u16) -> Self {
        Self {
            class: Class::Request,
            method,
            transaction: random(),
            attributes: Vec::new(),
        }
    }

    /// An indication with a fresh transaction id.
    pub fn indication(method: u16) -> Self {
        Self {
            class: Class::Indication,
            ..Self::request(method)
        }
    }

    /// Adds an attribute.
    #[must_use]
    pub fn with(mut self, kind: u16, value: impl Into<Vec<u8>>) -> Self {
        self.attributes.push((kind, value.into()));
        self
    }

    /// Adds a XOR-PEER-ADDRESS.
    #[must_use]
    pub fn with_peer(self, peer: SocketAddr) -> Self {
        let value = xor_address(peer, &self.transaction);
        self.with(attribute::XOR_PEER_ADDRESS, value)
    }

    /// Its bytes.
    pub fn encode(&self) -> Vec<u8> {
        let class = match self.class {
            Class::Request => 0x000,
            Class::Indication => 0x010,
            Class::Success => 0x100,
            Class::Error => 0x110,
        };
        // RFC 8489 section 5: the bits of the class stand between those of the method.
        let method = (self.method & 0xf) | (self.method & 0x70) << 1 | (self.method & 0xf80) << 2;
        let mut bytes = Vec::new();
        bytes.extend_from_slice(&(class | method).to_be_bytes());
        bytes.extend_from_slice(&[0; 2]);
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&self.transaction);
        for (kind, value) in &self.attributes {
            push_attribute(&mut bytes, *kind, value);
        }
        set_length(&mut bytes, 0);
        bytes
    }

    /// Its bytes with MESSAGE-INTEGRITY behind (RFC 8489 section 14.5).
    pub fn encode_signed(&self, key: &[u8]) -> Vec<u8> {
        let mut bytes = self.encode();
        set_length(&mut bytes, 24);
        let signature = hmac_sha1(key, &bytes);
        push_attribute(&mut bytes, attribute::MESSAGE_INTEGRITY, &signature);
        bytes
    }

    /// Reads a whole message, or `None` when it is none.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (header, mut rest) = bytes.split_at_checked(20)?;
        let kind = u16::from_be_bytes([header[0], header[1]]);
        let length = usize::from(u16::from_be_bytes([header[2], header[3]]));
        if kind & 0xc000 != 0 || header[4..8] != MAGIC || length != rest.len() {
            return None;
        }
        let class = match kind & 0x110 {
            0x000 => Class::Request,
            0x010 => Class::Indication,
            0x100 => Class::Success,
            _ => Class::Error,
        };
        let mut attributes = Vec::new();
        while !rest.is_empty() {
            let (head, behind) = rest.split_at_checked(4)?;
            let length = usize::from(u16::from_be_bytes([head[2], head[3]]));
            attributes.push((u16::from_be_bytes([head[0], head[1]]), behind.get(..length)?.to_vec()));
            rest = behind.get(length.next_multiple_of(4)..)?;
        }
        Some(Self {
            class,
            method: kind & 0xf | (kind >> 1) & 0x70 | (kind >> 2) & 0xf80,
            transaction: header[8..].try_into().expect("twelve bytes"),
            attributes,
        })
    }

    /// The value of the first attribute of this type.
    pub fn attribute(&self, kind: u16) -> Option<&[u8]> {
        let (_, value) = self.attributes.iter().find(|(other, _)| *other == kind)?;
        Some(value)
    }

    /// The number of its ERROR-CODE, such as 401.
    pub fn error_code(&self) -> Option<u16> {
        match self.attribute(attribute::ERROR_CODE)? {
            [_, _, hundreds, rest, ..] => Some(u16::from(*hundreds) * 100 + u16::from(*rest)),
            _ => None,
        }
    }

    /// The address in the first attribute of this type, which is one of the XOR kind.
    pub fn address(&self, kind: u16) -> Option<SocketAddr> {
        self.read_address(self.attribute(kind)?)
    }

    /// The addresses in all attributes of this type.
    pub fn addresses(&self, kind: u16) -> Vec<SocketAddr> {
        let values = self.attributes.iter().filter(|(other, _)| *other == kind);
        values.filter_map(|(_, value)| self.read_address(value)).collect()
    }

    fn read_address(&self, value: &[u8]) -> Option<SocketAddr> {
        let (family, bytes) = match value {
            [0, family @ 1..=2, rest @ ..] => (*family, rest),
            _ => return None,
        };
        let (port, address) = bytes.split_first_chunk()?;
        let port = u16::from_be_bytes(*port) ^ 0x2112;
        let mask = MAGIC.iter().chain(&self.transaction);
        let address: Vec<u8> = address.iter().zip(mask).map(|(a, b)| a ^ b).collect();
        let address = match family {
            1 => IpAddr::from(<[u8; 4]>::try_from(address).ok()?),
            _ => IpAddr::from(<[u8; 16]>::try_from(address).ok()?),
        };
        Some(SocketAddr::new(address, port))
    }
}

/// ChannelData (RFC 8656 section 12.4), without padding.
pub fn channel_data(channel: u16, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).expect("a payload that fits");
    let mut bytes = channel.to_be_bytes().to_vec();
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// HMAC-SHA1.
pub(crate) fn hmac_sha1(key: &[u8], bytes: &[u8]) -> [u8; 20] {
    let mut mac = Hmac::<Sha1>::new_from_slice(key).expect("a key of any length");
    mac.update(bytes);
    mac.finalize().into_bytes().into()
}

/// A TURN client that sends one request after the other, by hand, over UDP.
#[derive(Debug)]
pub struct RawClient {
    socket: UdpSocket,
    user: String,
    password: String,
    /// REALM and NONCE of the last challenge.
    challenge: Option<(Vec<u8>, Vec<u8>)>,
}

impl RawClient {
    /// Binds a socket on an address of its own, so that no limit for one address is shared with another test.
    ///
    /// # Panics
    /// When there is no such address.
    pub fn new(from: IpAddr, to: SocketAddr, user: &str, password: &str) -> Self {
        let socket = UdpSocket::bind((from, 0)).expect("a socket");
        socket.connect(to).expect("an address");
        Self {
            socket,
            user: user.to_owned(),
            password: password.to_owned(),
            challenge: None,
        }
    }

    /// The socket, for bytes that are no STUN at all.
    pub fn socket(&self) -> &UdpSocket {
        &self.socket
    }

    /// Signs as another user from now on.
    pub fn sign_as(&mut self, user: &str, password: &str) {
        user.clone_into(&mut self.user);
        password.clone_into(&mut self.password);
    }

    /// Sends a request without credentials and waits for its answer.
    ///
    /// # Panics
    /// When none comes.
    pub fn ask(&self, request: &Message) -> Message {
        self.exchange(request.transaction, &request.encode())
    }

    /// Sends a request with credentials, after a challenge where there was none yet, and waits for its answer.
    ///
    /// # Panics
    /// When none comes.
    pub fn ask_signed(&mut self, request: Message) -> Message {
        if self.challenge.is_none() {
            let refusal = self.ask(&Message::request(method::REFRESH));
            assert_eq!(refusal.error_code(), Some(401), "a request without credentials");
            self.take_challenge(&refusal);
        }
        let (realm, nonce) = self.challenge.clone().expect("taken above");
        let key = self.key(&realm);
        let signed = request
            .with(attribute::USERNAME, self.user.as_bytes())
            .with(attribute::REALM, realm)
            .with(attribute::NONCE, nonce);
        self.exchange(signed.transaction, &signed.encode_signed(&key))
    }

    /// Keeps REALM and NONCE of a refusal.
    ///
    /// # Panics
    /// When they are missing.
    pub fn take_challenge(&mut self, refusal: &Message) {
        let take = |kind| refusal.attribute(kind).expect("REALM and NONCE in a refusal").to_vec();
        self.challenge = Some((take(attribute::REALM), take(attribute::NONCE)));
    }

    /// Allocates by UDP and returns the relayed address.
    ///
    /// # Panics
    /// When it is refused.
    pub fn allocate(&mut self) -> SocketAddr {
        let request = Message::request(method::ALLOCATE).with(attribute::REQUESTED_TRANSPORT, UDP);
        let answer = self.ask_signed(request);
        assert_eq!(answer.class, Class::Success, "{:?}", answer.error_code());
        answer
            .address(attribute::XOR_RELAYED_ADDRESS)
            .expect("a relayed address")
    }

    /// The next datagram, whatever it is.
    pub fn receive(&self, deadline: Instant) -> Option<Vec<u8>> {
        let mut buffer = vec![0; 65_536];
        self.socket
            .set_read_timeout(Some(remaining(deadline)?))
            .expect("a timeout above zero");
        let length = self.socket.recv(&mut buffer).ok()?;
        buffer.truncate(length);
        Some(buffer)
    }

    fn exchange(&self, transaction: [u8; 12], bytes: &[u8]) -> Message {
        self.socket.send(bytes).expect("sent");
        let deadline = deadline();
        loop {
            let datagram = self.receive(deadline).expect("an answer");
            match Message::decode(&datagram) {
                Some(answer) if answer.transaction == transaction => return answer,
                _ => {}
            }
        }
    }

    fn key(&self, realm: &[u8]) -> [u8; 16] {
        long_term_key(&self.user, realm, &self.password)
    }
}

/// The key of a user (RFC 8489 section 9.2.2).
pub(crate) fn long_term_key(user: &str, realm: &[u8], password: &str) -> [u8; 16] {
    let mut md5 = Md5::new();
    md5.update(user);
    md5.update(":");
    md5.update(realm);
    md5.update(":");
    md5.update(password);
    md5.finalize().into()
}

fn push_attribute(bytes: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = u16::try_from(value.len()).expect("a value that fits");
    bytes.extend_from_slice(&kind.to_be_bytes());
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

/// Writes the length of what follows the header, and of what will follow yet.
fn set_length(bytes: &mut [u8], more: usize) {
    let length = u16::try_from(bytes.len() - 20 + more).expect("a message that fits");
    bytes[2..4].copy_from_slice(&length.to_be_bytes());
}

/// RFC 8489 section 14.2.
fn xor_address(address: SocketAddr, transaction: &[u8; 12]) -> Vec<u8> {
    let mask = || MAGIC.iter().chain(transaction);
    let (family, ip): (u8, Vec<u8>) = match address.ip() {
        IpAddr::V4(ip) => (1, ip.octets().to_vec()),
        IpAddr::V6(ip) => (2, ip.octets().to_vec()),
    };
    let port = address.port() ^ 0x2112;
    let mut value = vec![0, family];
    value.extend_from_slice(&port.to_be_bytes());
    value.extend(ip.iter().zip(mask()).map(|(byte, mask)| byte ^ mask));
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let peer = "192.0.2.1:49153".parse().expect("an address");
        let message = Message::request(method::CHANNEL_BIND)
            .with(attribute::USERNAME, *b"alice")
            .with_peer(peer);
        let read = Message::decode(&message.encode()).expect("a message");
        assert_eq!(read, message);
        assert_eq!(read.address(attribute::XOR_PEER_ADDRESS), Some(peer));
    }

    #[test]
    fn the_signature_is_that_of_rfc_5769() {
        // RFC 5769 section 2.4: the long-term key of the request there, and its MESSAGE-INTEGRITY.
        let bytes = [
            0x00, 0x01, 0x00, 0x60, 0x21, 0x12, 0xa4, 0x42, 0x78, 0xad, 0x34, 0x33, 0xc6, 0xad, 0x72, 0xc0, 0x29, 0xda,
            0x41, 0x2e,
        ];
        let user = "\u{30de}\u{30c8}\u{30ea}\u{30c3}\u{30af}\u{30b9}";
        let message = Message {
            class: Class::Request,
            method: method::BINDING,
            transaction: bytes[8..].try_into().expect("twelve bytes"),
            attributes: vec![
                (attribute::USERNAME, user.into()),
                (attribute::NONCE, b"f//499k954d6OL34oL9FSTvy64sA".to_vec()),
                (attribute::REALM, b"example.org".to_vec()),
            ],
        };
        let nobody = RawClient {
            socket: UdpSocket::bind("127.0.0.1:0").expect("a socket"),
            user: user.to_owned(),
            password: "TheMatrIX".to_owned(),
            challenge: None,
        };
        let signed = message.encode_signed(&nobody.key(b"example.org"));
        let signature = Message::decode(&signed).expect("a message");
        assert_eq!(
            signature.attribute(attribute::MESSAGE_INTEGRITY).expect("a signature"),
            [
                0xf6, 0x70, 0x24, 0x65, 0x6d, 0xd6, 0x4a, 0x3e, 0x02, 0xb8, 0xe0, 0x71, 0x2e, 0x85, 0xc9, 0xa2, 0x8c,
                0xa8, 0x96, 0x66
            ]
        );
    }
}
