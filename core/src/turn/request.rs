//! What does this request ask for? Its attributes by name, found in one pass.

use core::net::SocketAddr;

use super::connections::ConnectionId;
use crate::wire::stun::{Code, Family, Header, Kind, Message, read_address, read_family, read_u16, read_u32};

/// The attributes of a message, the first one of each kind. Values are checked where they are asked for.
// RFC 8489 section 14: "only the first occurrence needs to be processed by a receiver, and any duplicates MAY be
// ignored".
#[derive(Debug)]
pub(super) struct Request<'a> {
    pub(super) message: Message<'a>,
    pub(super) username: Option<&'a [u8]>,
    pub(super) userhash: Option<&'a [u8]>,
    pub(super) realm: Option<&'a [u8]>,
    pub(super) nonce: Option<&'a [u8]>,
    pub(super) password_algorithm: Option<&'a [u8]>,
    pub(super) password_algorithms: Option<&'a [u8]>,
    requested_transport: Option<&'a [u8]>,
    lifetime: Option<&'a [u8]>,
    requested_family: Option<&'a [u8]>,
    additional_family: Option<&'a [u8]>,
    even_port: Option<&'a [u8]>,
    token: Option<&'a [u8]>,
    channel: Option<&'a [u8]>,
    peer: Option<&'a [u8]>,
    connection: Option<&'a [u8]>,
    /// MOBILITY-TICKET; empty where one is asked for.
    pub(super) ticket: Option<&'a [u8]>,
    dont_fragment: Option<&'a [u8]>,
    change: Option<&'a [u8]>,
    response_port: Option<&'a [u8]>,
    padding: Option<&'a [u8]>,
    /// What is understood besides [`UNDERSTOOD`].
    also: &'static [Kind],
    /// Whether an attribute is there that had to be understood and is not.
    pub(super) has_unknown: bool,
}

impl<'a> Request<'a> {
    pub(super) fn read(message: Message<'a>) -> Self {
        Self::read_with(message, &[])
    }

    /// As [`Request::read`], where more attributes are understood than usual.
    pub(super) fn read_with(message: Message<'a>, also: &'static [Kind]) -> Self {
        let mut request = Self {
            message,
            username: None,
            userhash: None,
            realm: None,
            nonce: None,
            password_algorithm: None,
            password_algorithms: None,
            requested_transport: None,
            lifetime: None,
            requested_family: None,
            additional_family: None,
            even_port: None,
            token: None,
            channel: None,
            peer: None,
            connection: None,
            ticket: None,
            dont_fragment: None,
            change: None,
            response_port: None,
            padding: None,
            also,
            has_unknown: false,
        };
        for attribute in message.attributes() {
            let slot = match attribute.kind {
                Kind::USERNAME => &mut request.username,
                Kind::USERHASH => &mut request.userhash,
                Kind::REALM => &mut request.realm,
                Kind::NONCE => &mut request.nonce,
                Kind::PASSWORD_ALGORITHM => &mut request.password_algorithm,
                Kind::PASSWORD_ALGORITHMS => &mut request.password_algorithms,
                Kind::REQUESTED_TRANSPORT => &mut request.requested_transport,
                Kind::LIFETIME => &mut request.lifetime,
                Kind::REQUESTED_ADDRESS_FAMILY => &mut request.requested_family,
                Kind::ADDITIONAL_ADDRESS_FAMILY => &mut request.additional_family,
                Kind::EVEN_PORT => &mut request.even_port,
                Kind::RESERVATION_TOKEN => &mut request.token,
                Kind::CHANNEL_NUMBER => &mut request.channel,
                Kind::XOR_PEER_ADDRESS => &mut request.peer,
                Kind::CONNECTION_ID => &mut request.connection,
                Kind::MOBILITY_TICKET => &mut request.ticket,
                Kind::DONT_FRAGMENT => &mut request.dont_fragment,
                kind if !also.contains(&kind) => {
                    request.has_unknown |= is_unknown(kind);
                    continue;
                }
                Kind::CHANGE_REQUEST => &mut request.change,
                Kind::RESPONSE_PORT => &mut request.response_port,
                Kind::PADDING => &mut request.padding,
                _ => continue,
            };
            slot.get_or_insert(attribute.value);
        }
        request
    }

    pub(super) fn header(&self) -> Header {
        self.message.header()
    }

    /// The attributes that had to be understood and are not.
    pub(super) fn unknown(&self) -> impl Iterator<Item = Kind> + use<'a> {
        let (kinds, also) = (self.message.attributes().map(|attribute| attribute.kind), self.also);
        kinds.filter(|kind| is_unknown(*kind) && !also.contains(kind))
    }

    /// The protocol number in REQUESTED-TRANSPORT.
    // RFC 8656 section 7.2: "If the REQUESTED-TRANSPORT attribute is not included or is malformed, the server rejects
    // the request with a 400".
    pub(super) fn requested_transport(&self) -> Result<u8, Code> {
        match self.requested_transport {
            Some([protocol, _, _, _]) => Ok(*protocol),
            _ => Err(Code::BAD_REQUEST),
        }
    }

    /// Seconds in LIFETIME.
    pub(super) fn lifetime(&self) -> Result<Option<u32>, Code> {
        decode(self.lifetime, read_u32)
    }

    /// The family in REQUESTED-ADDRESS-FAMILY, or the number that is none.
    pub(super) fn requested_family(&self) -> Result<Option<Result<Family, u8>>, Code> {
        decode(self.requested_family, read_family)
    }

    /// The family in ADDITIONAL-ADDRESS-FAMILY, or the number that is none.
    pub(super) fn additional_family(&self) -> Result<Option<Result<Family, u8>>, Code> {
        decode(self.additional_family, read_family)
    }

    /// The R bit of EVEN-PORT.
    pub(super) fn even_port(&self) -> Result<Option<bool>, Code> {
        decode(self.even_port, |value| match value {
            [bits] => Some(bits & 0x80 != 0),
            _ => None,
        })
    }

    /// RESERVATION-TOKEN.
    pub(super) fn token(&self) -> Result<Option<[u8; 8]>, Code> {
        decode(self.token, |value| value.try_into().ok())
    }

    /// Whether there is DONT-FRAGMENT.
    pub(super) fn dont_fragment(&self) -> bool {
        self.dont_fragment.is_some()
    }

    /// CHANNEL-NUMBER, which has to be there.
    pub(super) fn channel(&self) -> Result<u16, Code> {
        decode(self.channel, read_u16)?.ok_or(Code::BAD_REQUEST)
    }

    /// CONNECTION-ID, which has to be there.
    pub(super) fn connection(&self) -> Result<ConnectionId, Code> {
        decode(self.connection, read_u32)?
            .map(ConnectionId)
            .ok_or(Code::BAD_REQUEST)
    }

    /// The flags of CHANGE-REQUEST, "change IP" and "change port" (RFC 5780 section 7.2).
    pub(super) fn change(&self) -> Result<(bool, bool), Code> {
        let flags = decode(self.change, read_u32)?.unwrap_or(0);
        Ok((flags & 0x4 != 0, flags & 0x2 != 0))
    }

    /// RESPONSE-PORT (RFC 5780 section 7.5): "a 16-bit unsigned integer in network byte order followed by 2 bytes of
    /// padding", which some count to the value.
    pub(super) fn response_port(&self) -> Result<Option<u16>, Code> {
        decode(self.response_port, |value| match value {
            [high, low] | [high, low, _, _] => Some(u16::from_be_bytes([*high, *low])).filter(|port| *port != 0),
            _ => None,
        })
    }

    /// How long PADDING is (RFC 5780 section 7.6).
    pub(super) fn padding_len(&self) -> Option<usize> {
        self.padding.map(<[u8]>::len)
    }

    /// XOR-PEER-ADDRESS, which has to be there.
    pub(super) fn peer(&self) -> Result<SocketAddr, Code> {
        let transaction = self.header().transaction;
        decode(self.peer, |value| read_address(value, transaction))?.ok_or(Code::BAD_REQUEST)
    }

    /// Every XOR-PEER-ADDRESS.
    pub(super) fn peers(&self) -> impl Iterator<Item = Result<SocketAddr, Code>> + use<'a> {
        let transaction = self.header().transaction;
        let attributes = self.message.attributes();
        attributes
            .filter(|attribute| attribute.kind == Kind::XOR_PEER_ADDRESS)
            .map(move |attribute| read_address(attribute.value, transaction).ok_or(Code::BAD_REQUEST))
    }
}

/// A malformed value makes the request malformed.
fn decode<'a, T>(value: Option<&'a [u8]>, read: impl Fn(&'a [u8]) -> Option<T>) -> Result<Option<T>, Code> {
    value.map(|value| read(value).ok_or(Code::BAD_REQUEST)).transpose()
}

/// Whether an attribute has to be understood but is not.
pub(super) fn is_unknown(kind: Kind) -> bool {
    kind.must_be_understood() && !UNDERSTOOD.contains(&kind)
}

/// What has to be understood and is.
const UNDERSTOOD: [Kind; 21] = [
    Kind::USERNAME,
    Kind::MESSAGE_INTEGRITY,
    Kind::ERROR_CODE,
    Kind::UNKNOWN_ATTRIBUTES,
    Kind::REALM,
    Kind::NONCE,
    Kind::MESSAGE_INTEGRITY_SHA256,
    Kind::PASSWORD_ALGORITHM,
    Kind::USERHASH,
    Kind::XOR_MAPPED_ADDRESS,
    Kind::CHANNEL_NUMBER,
    Kind::LIFETIME,
    Kind::XOR_PEER_ADDRESS,
    Kind::DATA,
    Kind::XOR_RELAYED_ADDRESS,
    Kind::REQUESTED_ADDRESS_FAMILY,
    Kind::EVEN_PORT,
    Kind::REQUESTED_TRANSPORT,
    Kind::DONT_FRAGMENT,
    Kind::RESERVATION_TOKEN,
    Kind::CONNECTION_ID,
];
