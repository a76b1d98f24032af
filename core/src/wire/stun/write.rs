//! What does a STUN message look like on the wire? Written front to back, with zeros for padding.

use core::{
    net::{IpAddr, SocketAddr},
    ops::Range,
};

use super::{Family, HEADER_BYTES, Header, Integrity, Key, Kind, MAGIC_COOKIE, attribute::xor, fingerprint};

/// An error code (RFC 8489 section 14.8, RFC 8656 section 19).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Code(pub u16);

impl Code {
    /// Another server will do it.
    pub const TRY_ALTERNATE: Self = Self(300);
    /// The request was malformed.
    pub const BAD_REQUEST: Self = Self(400);
    /// Credentials are missing or wrong.
    pub const UNAUTHENTICATED: Self = Self(401);
    /// The administrator does not want it.
    pub const FORBIDDEN: Self = Self(403);
    /// Allocations do not follow their clients here (RFC 8016 section 3.4).
    pub const MOBILITY_FORBIDDEN: Self = Self(405);
    /// An attribute that had to be understood was not.
    pub const UNKNOWN_ATTRIBUTE: Self = Self(420);
    /// There is no allocation where one is needed, or one where none may be.
    pub const ALLOCATION_MISMATCH: Self = Self(437);
    /// The nonce is no longer good.
    pub const STALE_NONCE: Self = Self(438);
    /// No relayed addresses of this family here.
    pub const ADDRESS_FAMILY_NOT_SUPPORTED: Self = Self(440);
    /// Not the user who made the allocation.
    pub const WRONG_CREDENTIALS: Self = Self(441);
    /// No such transport to peers.
    pub const UNSUPPORTED_TRANSPORT_PROTOCOL: Self = Self(442);
    /// The peer is of a family that the allocation has not.
    pub const PEER_ADDRESS_FAMILY_MISMATCH: Self = Self(443);
    /// There is a connection to this peer already, or one in the making (RFC 6062 section 6.3).
    pub const CONNECTION_ALREADY_EXISTS: Self = Self(446);
    /// The peer could not be reached (RFC 6062 section 6.3).
    pub const CONNECTION_TIMEOUT_OR_FAILURE: Self = Self(447);
    /// The user has enough allocations.
    pub const ALLOCATION_QUOTA_REACHED: Self = Self(486);
    /// The server is full.
    pub const INSUFFICIENT_CAPACITY: Self = Self(508);

    /// Class and number, as both error attributes carry them: the hundreds, and the rest.
    fn split(self) -> [u8; 2] {
        [(self.0 / 100) as u8, (self.0 % 100) as u8]
    }
}

/// Appends one message to a buffer; [`Writer::finish`] completes it.
#[derive(Debug)]
pub struct Writer<'a> {
    out: &'a mut Vec<u8>,
    start: usize,
    header: Header,
}

impl<'a> Writer<'a> {
    /// Begins a message.
    pub fn new(out: &'a mut Vec<u8>, header: Header) -> Self {
        let start = out.len();
        out.extend_from_slice(&header.kind().to_be_bytes());
        out.extend_from_slice(&[0; 2]);
        out.extend_from_slice(&MAGIC_COOKIE);
        out.extend_from_slice(&header.transaction.0);
        Self { out, start, header }
    }

    /// Appends an attribute.
    ///
    /// # Panics
    /// When the value is longer than the 65,535 bytes that an attribute holds.
    pub fn attribute(&mut self, kind: Kind, value: &[u8]) {
        let len = u16::try_from(value.len()).expect("a value fits its length field");
        self.out.extend_from_slice(&kind.0.to_be_bytes());
        self.out.extend_from_slice(&len.to_be_bytes());
        self.out.extend_from_slice(value);
        // RFC 8489 section 14: "The padding bits MUST be set to zero on sending".
        let padding = value.len().next_multiple_of(4) - value.len();
        self.out.extend_from_slice(&[0; 3][..padding]);
    }

    /// Appends a number of 32 bits.
    pub fn u32(&mut self, kind: Kind, value: u32) {
        self.attribute(kind, &value.to_be_bytes());
    }

    /// Appends an XOR-…-ADDRESS.
    pub fn address(&mut self, kind: Kind, address: SocketAddr) {
        let transaction = self.header.transaction;
        let [port_high, port_low] = address.port().to_be_bytes();
        let mut value = [0; 20];
        value[1] = Family::of(address.ip()).code();
        value[2..4].copy_from_slice(&[port_high ^ MAGIC_COOKIE[0], port_low ^ MAGIC_COOKIE[1]]);
        match address.ip() {
            IpAddr::V4(ip) => {
                value[4..8].copy_from_slice(&xor(ip.octets(), transaction));
                self.attribute(kind, &value[..8]);
            }
            IpAddr::V6(ip) => {
                value[4..20].copy_from_slice(&xor(ip.octets(), transaction));
                self.attribute(kind, &value);
            }
        }
    }

    /// Appends an address as it is: ALTERNATE-SERVER (RFC 8489 sections 14.1 and 14.15).
    pub fn plain_address(&mut self, kind: Kind, address: SocketAddr) {
        let mut value = [0; 20];
        value[1] = Family::of(address.ip()).code();
        value[2..4].copy_from_slice(&address.port().to_be_bytes());
        match address.ip() {
            IpAddr::V4(ip) => {
                value[4..8].copy_from_slice(&ip.octets());
                self.attribute(kind, &value[..8]);
            }
            IpAddr::V6(ip) => {
                value[4..20].copy_from_slice(&ip.octets());
                self.attribute(kind, &value);
            }
        }
    }

    /// Appends ERROR-CODE without a reason phrase, which only humans read and which would make answers longer.
    pub fn error(&mut self, code: Code) {
        let [class, number] = code.split();
        self.attribute(Kind::ERROR_CODE, &[0, 0, class, number]);
    }

    /// Appends ADDRESS-ERROR-CODE (RFC 8656 section 18.12) without a reason phrase.
    pub fn address_error(&mut self, family: Family, code: Code) {
        let [class, number] = code.split();
        self.attribute(Kind::ADDRESS_ERROR_CODE, &[family.code(), 0, class, number]);
    }

    /// Appends the integrity attribute for all that stands before it.
    pub fn sign(&mut self, integrity: Integrity, key: &Key) {
        let (kind, len) = integrity.attribute();
        // RFC 8489 sections 14.5 and 14.6: the header's length points to the end of the integrity attribute.
        self.write_len(4 + len);
        let value = integrity.compute(key, &self.out[self.start..]);
        self.attribute(kind, &value[..len]);
    }

    /// Appends FINGERPRINT, which has to be the last attribute.
    pub fn fingerprint(&mut self) {
        self.write_len(8);
        let value = fingerprint(&self.out[self.start..]);
        self.u32(Kind::FINGERPRINT, value);
    }

    /// Completes the message and says where it is in the buffer.
    pub fn finish(mut self) -> Range<usize> {
        self.write_len(0);
        self.start..self.out.len()
    }

    /// Puts into the header the length of what is there and of `more` bytes that follow.
    fn write_len(&mut self, more: usize) {
        let len =
            u16::try_from(self.out.len() - self.start - HEADER_BYTES + more).expect("a message fits its length field");
        self.out[self.start + 2..self.start + 4].copy_from_slice(&len.to_be_bytes());
    }
}
