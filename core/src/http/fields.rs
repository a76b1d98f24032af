//! What do the fields of a head say about framing and about the connection? Shared by both sides.

use super::body::BodyLength;
use crate::wire::http1::{Fields, Name, Version, is_token, trim};

/// Options in the Connection fields of a message. Browsers send two at most.
const CONNECTION_OPTIONS_MAX: usize = 32;

/// Digits of a Content-Length: any more cannot be meant.
const LENGTH_DIGITS_MAX: usize = 18;

/// Why the fields of a head cannot be relied on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FieldsError {
    ContentLength,
    TransferEncoding,
    /// A transfer coding other than chunked, which we do not speak.
    TransferCoding,
    /// Both Content-Length and Transfer-Encoding.
    TwoLengths,
    Connection,
}

impl FieldsError {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::ContentLength => "malformed Content-Length",
            Self::TransferEncoding => "malformed Transfer-Encoding",
            Self::TransferCoding => "unsupported transfer coding",
            Self::TwoLengths => "both Content-Length and Transfer-Encoding",
            Self::Connection => "malformed Connection",
        }
    }
}

/// The length that the framing fields declare; `None` when there are none.
// RFC 9112 section 6.3: two of them ought to be handled as an error, even if they agree.
pub(super) fn declared_length(fields: &Fields<'_>, version: Version) -> Result<Option<BodyLength>, FieldsError> {
    match (fields.first(Name::ContentLength), fields.first(Name::TransferEncoding)) {
        (None, None) => Ok(None),
        (Some(_), Some(_)) => Err(FieldsError::TwoLengths),
        (Some(_), None) => {
            let value = fields.only(Name::ContentLength).ok_or(FieldsError::ContentLength)?;
            Ok(Some(BodyLength::Known(content_length(value)?)))
        }
        // RFC 9112 section 6.1: Transfer-Encoding in HTTP/1.0 is faulty framing.
        (None, Some(_)) if version == Version::Http10 => Err(FieldsError::TransferEncoding),
        (None, Some(_)) => {
            let value = fields
                .only(Name::TransferEncoding)
                .ok_or(FieldsError::TransferEncoding)?;
            transfer_encoding(value)?;
            Ok(Some(BodyLength::Chunked))
        }
    }
}

// RFC 9110 section 8.6: Content-Length = 1*DIGIT. Zeros in front are an octal number to some, so they are refused.
fn content_length(value: &[u8]) -> Result<u64, FieldsError> {
    let leading_zero = value.len() > 1 && value[0] == b'0';
    if value.is_empty() || value.len() > LENGTH_DIGITS_MAX || leading_zero || !value.iter().all(u8::is_ascii_digit) {
        return Err(FieldsError::ContentLength);
    }
    Ok(value.iter().fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0')))
}

// RFC 9112 section 6.1: Transfer-Encoding = #transfer-coding. We speak chunked alone.
fn transfer_encoding(value: &[u8]) -> Result<(), FieldsError> {
    let is_chunked = |coding: &[u8]| coding.eq_ignore_ascii_case(b"chunked");
    if is_chunked(value) {
        return Ok(());
    }
    // A list of codings without chunked deserves the status that says so; anything else only looks like one.
    let codings = || value.split(|byte| *byte == b',').map(trim);
    let is_list = codings().all(|coding| !coding.is_empty() && is_token(coding));
    let is_foreign = is_list && !codings().any(is_chunked);
    Err(if is_foreign {
        FieldsError::TransferCoding
    } else {
        FieldsError::TransferEncoding
    })
}

/// What the Connection fields ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Connection {
    pub(super) close: bool,
    pub(super) upgrade: bool,
    /// Whether a field is named that no rule of ours removes anyway.
    pub(super) names_fields: bool,
}

impl Connection {
    // RFC 9110 section 7.6.1: Connection = #connection-option, each a token.
    pub(super) fn of(fields: &Fields<'_>) -> Result<Self, FieldsError> {
        let mut connection = Self::default();
        let mut count = 0;
        for option in options(fields) {
            count += 1;
            if count > CONNECTION_OPTIONS_MAX || !is_token(option) {
                return Err(FieldsError::Connection);
            }
            if option.eq_ignore_ascii_case(b"close") {
                connection.close = true;
                continue;
            }
            match Name::of(option) {
                Name::Upgrade => connection.upgrade = true,
                id if is_hop_by_hop(id) => {}
                Name::Other => connection.names_fields = true,
                // RFC 9110 section 7.6.1: a sender must not name a field that is meant for all recipients. To remove
                // the length, the host or the credentials of a message on the word of a stranger makes another one
                // of it.
                _ => return Err(FieldsError::Connection),
            }
        }
        Ok(connection)
    }

    /// Whether an option names this field.
    pub(super) fn names(self, name: &[u8], fields: &Fields<'_>) -> bool {
        self.names_fields && options(fields).any(|option| option.eq_ignore_ascii_case(name))
    }
}

fn options<'a>(fields: &'a Fields<'_>) -> impl Iterator<Item = &'a [u8]> {
    fields.all(Name::Connection).flat_map(list)
}

/// The members of a comma-separated list without white space around and without empty ones (RFC 9110 section 5.6.1.2).
pub(super) fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value
        .split(|byte| *byte == b',')
        .map(trim)
        .filter(|member| !member.is_empty())
}

/// Whether a field is for the next hop alone, or says something that the next hop is told anew.
// RFC 9110 section 7.6.1 and, for Proxy-Authenticate and Proxy-Authorization, section 11.7: we are the hop they would
// be for. Trailer sections are dropped, so Trailer (section 6.6.2) would be a lie.
pub(super) const fn is_hop_by_hop(id: Name) -> bool {
    matches!(
        id,
        Name::Connection
            | Name::Http2Settings
            | Name::KeepAlive
            | Name::ProxyAuthenticate
            | Name::ProxyAuthorization
            | Name::ProxyConnection
            | Name::Te
            | Name::Trailer
            | Name::Upgrade
    )
}
