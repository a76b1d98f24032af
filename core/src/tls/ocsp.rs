//! Is an OCSP response worth showing, and until when? (RFC 6960 section 4.2.1)

use x509_cert::der::{
    Decode as _, Reader as _, SliceReader, Tag, TagNumber, Tagged as _,
    asn1::{AnyRef, GeneralizedTime},
};

use crate::time::UnixTime;

/// `OCSPResponseStatus` successful.
const SUCCESSFUL: [u8; 1] = [0];

/// `CertStatus` good.
const GOOD: TagNumber = TagNumber(0);

/// Until when the response says that the certificate of this serial number is good. Its signature is the client's
/// business.
///
/// # Errors
/// With what is wrong with it, for the administrator.
pub(super) fn good_until(der: &[u8], serial: &[u8]) -> Result<UnixTime, &'static str> {
    let (status, responses) = responses(der).ok_or("is no OCSP response in DER form")?;
    if status != SUCCESSFUL {
        return Err("is an error of the responder");
    }
    let response = responses
        .iter()
        .find(|response| response.serial == serial)
        .ok_or("is for another certificate")?;
    if !response.is_good {
        return Err("does not say that the certificate is good");
    }
    // RFC 6960 section 4.2.2.1: without nextUpdate, newer information is always there.
    response.next_update.ok_or("does not say until when it is good")
}

/// `SingleResponse`.
struct Response<'d> {
    serial: &'d [u8],
    is_good: bool,
    next_update: Option<UnixTime>,
}

/// The status and the answers of an `OCSPResponse`.
fn responses(der: &[u8]) -> Option<(&[u8], Vec<Response<'_>>)> {
    let fields = items(only(der)?.value())?;
    let (status, body) = fields.split_first()?;
    let Some(body) = body.first() else {
        return Some((status.value(), Vec::new()));
    };
    let bytes = items(only(body.value())?.value())?;
    let [_kind, basic] = bytes.as_slice() else { return None };
    let basic = items(only(basic.value())?.value())?;
    let data = items(basic.first()?.value())?;
    // What may be absent before and behind the answers, and who answers, is no SEQUENCE of its own.
    let answers = data.iter().find(|item| item.tag() == Tag::Sequence)?;
    let answers: Option<Vec<_>> = items(answers.value())?.iter().map(answer).collect();
    Some((status.value(), answers?))
}

fn answer<'d>(item: &AnyRef<'d>) -> Option<Response<'d>> {
    let fields = items(item.value())?;
    let [id, status, _this_update, optional @ ..] = fields.as_slice() else {
        return None;
    };
    let id = items(id.value())?;
    let [_hash, _name, _key, serial] = id.as_slice() else {
        return None;
    };
    let next_update = optional.iter().find(|item| item.tag().number() == TagNumber(0));
    let next_update = next_update.and_then(|item| only(item.value())?.decode_as::<GeneralizedTime>().ok());
    Some(Response {
        serial: serial.value(),
        is_good: status.tag().number() == GOOD,
        next_update: next_update.map(|time| UnixTime(time.to_unix_duration().as_secs())),
    })
}

/// The one item in there.
fn only(der: &[u8]) -> Option<AnyRef<'_>> {
    match items(der)?.as_slice() {
        [item] => Some(*item),
        _ => None,
    }
}

/// The items that stand there one behind the other.
fn items(der: &[u8]) -> Option<Vec<AnyRef<'_>>> {
    let mut reader = SliceReader::new(der).ok()?;
    let mut items = Vec::new();
    while !reader.is_finished() {
        items.push(AnyRef::decode(&mut reader).ok()?);
    }
    Some(items)
}
