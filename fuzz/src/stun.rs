//! Is a STUN message that we accept one to others too, and a stream of them cut at the same places?

use edgeward_core::{
    turn::Stream,
    wire::stun::{Kind, Message},
};

use stun_types::attribute::Attribute as _;

use crate::split;

/// One message: what we take, stun-types takes and reads the same out of it.
///
/// Known differences: it allows a class of message types that we ignore (the two first bits aside, both are the same), and
/// refuses attributes behind an integrity that RFC 8489 section 9 tells to ignore; so it is only asked about messages
/// without integrity.
pub fn message(bytes: &[u8]) {
    let Ok(ours) = Message::parse(bytes) else { return };
    let attributes: Vec<_> = ours
        .attributes()
        .map(|attribute| (attribute.kind.0, attribute.value))
        .collect();
    for (_, value) in &attributes {
        assert!(bytes.as_ptr_range().contains(&value.as_ptr()) || value.is_empty());
    }
    if ours.integrity().is_some() {
        return;
    }
    let theirs = stun_types::message::Message::from_bytes(bytes).expect("others take it too");
    assert_eq!(theirs.method().value(), ours.header().method.0);
    assert_eq!(
        u128::from(theirs.transaction_id()).to_be_bytes()[4..],
        ours.header().transaction.0
    );
    let read: Vec<_> = theirs
        .iter_attributes()
        .filter(|(_, attribute)| attribute.get_type().value() != Kind::FINGERPRINT.0)
        .map(|(_, attribute)| (attribute.get_type().value(), attribute.value.to_vec()))
        .collect();
    let attributes: Vec<_> = attributes
        .into_iter()
        .map(|(kind, value)| (kind, value.to_vec()))
        .collect();
    assert_eq!(attributes, read);
}

/// A stream of STUN and ChannelData: in whatever pieces it comes, the units are the same.
pub fn stream(bytes: &[u8]) {
    let (pattern, bytes) = split::pattern(bytes);
    assert_eq!(units(std::iter::once(bytes)), units(split::pieces(bytes, pattern)));
}

fn units<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> (Vec<Vec<u8>>, bool) {
    let (mut stream, mut input, mut units) = (Stream::new(), Vec::new(), Vec::new());
    for piece in pieces {
        input.extend_from_slice(piece);
        loop {
            match stream.next(&input) {
                Ok(Some(unit)) => {
                    assert!(unit.message.end <= unit.consumed && unit.consumed <= input.len());
                    units.push(input[unit.message].to_vec());
                    input.drain(..unit.consumed);
                }
                Ok(None) => break,
                Err(_) => return (units, true),
            }
        }
        assert!(input.len() < 65_556, "more is kept than the longest message has");
    }
    (units, false)
}
