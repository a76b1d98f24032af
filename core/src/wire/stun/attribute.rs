//! Which attributes are there, and what do their values say? (RFC 8489 section 14, RFC 8656 section 18)

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{MAGIC_COOKIE, TransactionId};

/// The type of an attribute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kind(pub u16);

/// RFC 8489 sections 18.3.1 and 18.3.2.
impl Kind {
    /// Who asks.
    pub const USERNAME: Self = Self(0x0006);
    /// HMAC-SHA1 of what stands before it.
    pub const MESSAGE_INTEGRITY: Self = Self(0x0008);
    /// Why a request failed.
    pub const ERROR_CODE: Self = Self(0x0009);
    /// Attributes that were not understood.
    pub const UNKNOWN_ATTRIBUTES: Self = Self(0x000a);
    /// Whose passwords.
    pub const REALM: Self = Self(0x0014);
    /// What makes a challenge fresh.
    pub const NONCE: Self = Self(0x0015);
    /// HMAC-SHA256 of what stands before it.
    pub const MESSAGE_INTEGRITY_SHA256: Self = Self(0x001c);
    /// How the key is made of the password.
    pub const PASSWORD_ALGORITHM: Self = Self(0x001d);
    /// Who asks, hashed.
    pub const USERHASH: Self = Self(0x001e);
    /// The client's address as the server sees it.
    pub const XOR_MAPPED_ADDRESS: Self = Self(0x0020);
    /// How the key may be made of the password.
    pub const PASSWORD_ALGORITHMS: Self = Self(0x8002);
    /// The name of another server.
    pub const ALTERNATE_DOMAIN: Self = Self(0x8003);
    /// The address of another server.
    pub const ALTERNATE_SERVER: Self = Self(0x8023);
    /// CRC-32 of what stands before it.
    pub const FINGERPRINT: Self = Self(0x8028);
}

/// RFC 8656 section 18.
impl Kind {
    /// A channel number.
    pub const CHANNEL_NUMBER: Self = Self(0x000c);
    /// Seconds that an allocation lasts.
    pub const LIFETIME: Self = Self(0x000d);
    /// A peer.
    pub const XOR_PEER_ADDRESS: Self = Self(0x0012);
    /// Application data.
    pub const DATA: Self = Self(0x0013);
    /// A relayed transport address.
    pub const XOR_RELAYED_ADDRESS: Self = Self(0x0016);
    /// Which family to allocate or refresh.
    pub const REQUESTED_ADDRESS_FAMILY: Self = Self(0x0017);
    /// Allocate an even port, and perhaps hold the next one.
    pub const EVEN_PORT: Self = Self(0x0018);
    /// Transport between relay and peer.
    pub const REQUESTED_TRANSPORT: Self = Self(0x0019);
    /// Send with the DF bit.
    pub const DONT_FRAGMENT: Self = Self(0x001a);
    /// Names a port that is held.
    pub const RESERVATION_TOKEN: Self = Self(0x0022);
    /// Allocate the other family too.
    pub const ADDITIONAL_ADDRESS_FAMILY: Self = Self(0x8000);
    /// Why a family was not allocated.
    pub const ADDRESS_ERROR_CODE: Self = Self(0x8001);
    /// Names a connection of a peer (RFC 6062 section 6.2.1).
    pub const CONNECTION_ID: Self = Self(0x002a);
    /// Why a datagram was lost.
    pub const ICMP: Self = Self(0x8004);
}

/// RFC 8016 section 3.3.
impl Kind {
    /// By which an allocation follows its client; empty, it asks for one.
    pub const MOBILITY_TICKET: Self = Self(0x8030);
}

/// RFC 5780 section 7, and the address as it is (RFC 8489 section 14.1) that goes with it.
impl Kind {
    /// The client's address as the server sees it, for whoever wants to know whether something on the way changes it.
    pub const MAPPED_ADDRESS: Self = Self(0x0001);
    /// Answer from another address or port.
    pub const CHANGE_REQUEST: Self = Self(0x0003);
    /// Bytes that make a message long.
    pub const PADDING: Self = Self(0x0026);
    /// Answer to this port.
    pub const RESPONSE_PORT: Self = Self(0x0027);
    /// Where the answer comes from.
    pub const RESPONSE_ORIGIN: Self = Self(0x802b);
    /// Where it would come from with address and port changed.
    pub const OTHER_ADDRESS: Self = Self(0x802c);
}

impl Kind {
    /// Whether a message may not be processed by who does not know this attribute.
    // RFC 8489 section 14: "Attributes with type values between 0x0000 and 0x7FFF are comprehension-required".
    pub fn must_be_understood(self) -> bool {
        self.0 < 0x8000
    }
}

/// An address family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both, IPv4 first.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// The family of an address; one of IPv4 in IPv6 clothes counts as IPv6.
    pub fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    /// The byte that stands for it (RFC 8489 section 14.1).
    pub fn code(self) -> u8 {
        match self {
            Self::V4 => 0x01,
            Self::V6 => 0x02,
        }
    }
}

/// Reads the value of an XOR-…-ADDRESS.
// RFC 8489 section 14.2: the port is XORed with the first half of the magic cookie, an IPv4 address with the whole of
// it, an IPv6 address with cookie and transaction ID.
pub fn read_address(value: &[u8], transaction: TransactionId) -> Option<SocketAddr> {
    let (&[_, family, port_high, port_low], address) = value.split_first_chunk()?;
    let port = u16::from_be_bytes([port_high ^ MAGIC_COOKIE[0], port_low ^ MAGIC_COOKIE[1]]);
    let address = match family {
        0x01 => IpAddr::V4(Ipv4Addr::from(xor(address.try_into().ok()?, transaction))),
        0x02 => IpAddr::V6(Ipv6Addr::from(xor(address.try_into().ok()?, transaction))),
        _ => return None,
    };
    Some(SocketAddr::new(address, port))
}

/// XORs an address with the magic cookie and, where it is longer, the transaction ID.
pub(super) fn xor<const N: usize>(mut address: [u8; N], transaction: TransactionId) -> [u8; N] {
    let mask = MAGIC_COOKIE.iter().chain(&transaction.0);
    for (byte, mask) in address.iter_mut().zip(mask) {
        *byte ^= mask;
    }
    address
}

/// Reads a value of four bytes as a number: LIFETIME, CONNECTION-ID.
pub fn read_u32(value: &[u8]) -> Option<u32> {
    value.try_into().ok().map(u32::from_be_bytes)
}

/// Reads the first half of a value of four bytes: CHANNEL-NUMBER. What follows is ignored (RFC 8656 section 18.1).
pub fn read_u16(value: &[u8]) -> Option<u16> {
    let [high, low, _, _] = value.try_into().ok()?;
    Some(u16::from_be_bytes([high, low]))
}

/// Reads a value of four bytes whose first one is an address family: `None` when it has another length, `Some(Err)` when
/// there is no such family.
pub fn read_family(value: &[u8]) -> Option<Result<Family, u8>> {
    let [family, _, _, _] = value.try_into().ok()?;
    Some(
        Family::ALL
            .into_iter()
            .find(|known| known.code() == family)
            .ok_or(family),
    )
}
