//! What would a careful administrator see in a certificate chain? Dates, gaps, weak keys and signatures.

use core::net::IpAddr;

use rustls::pki_types::CertificateDer;
use x509_cert::{
    Certificate,
    der::{
        Decode as _, Reader as _, SliceReader,
        asn1::{ObjectIdentifier, UintRef},
    },
    ext::pkix::{SubjectAltName, name::GeneralName},
};

use super::Finding;
use crate::time::UnixTime;

/// Time enough to find out why a renewal failed, and to mend it.
const EXPIRY_NOTICE_SECS: u64 = 14 * DAY_SECS;
const DAY_SECS: u64 = 24 * 60 * 60;

/// What the rules of browsers ask of an RSA key.
const RSA_BITS_MIN: usize = 2048;

const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");

/// Signatures that clients no longer believe.
const WEAK_SIGNATURES: [(ObjectIdentifier, &str); 3] = [
    (ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.4"), "MD5"),
    (ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.5"), "SHA-1"),
    (ObjectIdentifier::new_unwrap("1.2.840.10045.4.1"), "SHA-1"),
];

/// What is to be said of a chain.
#[derive(Debug, Clone, Default)]
pub(super) struct Facts {
    serial: Vec<u8>,
    addresses: Vec<IpAddr>,
    /// From when to when each certificate of the chain is good, the server's own first.
    validity: Vec<(UnixTime, UnixTime)>,
    /// What is wrong whatever the time: behind the name of the certificate, and the remedy.
    flaws: Vec<(String, &'static str)>,
}

/// Looks at a chain, the server's own certificate first. What cannot be read is a flaw like others, since the handshake
/// does not need it.
pub(super) fn examine(chain: &[CertificateDer<'_>]) -> Facts {
    let mut facts = Facts::default();
    let Ok(chain) = chain
        .iter()
        .map(|der| Certificate::from_der(der))
        .collect::<Result<Vec<_>, _>>()
    else {
        let flaw = "cannot be examined: nothing is known about its dates and its chain".into();
        facts
            .flaws
            .push((flaw, "ask the authority whether the certificate follows RFC 5280"));
        return facts;
    };
    if let Some(own) = chain.first() {
        facts.serial = own.tbs_certificate().serial_number().as_bytes().to_vec();
        facts.addresses = addresses(own);
    }
    facts.validity = chain.iter().map(validity).collect();
    facts.flaws = gaps(&chain);
    for (place, certificate) in chain.iter().enumerate() {
        let which = match place {
            0 => "",
            _ => "holds an authority whose certificate ",
        };
        facts
            .flaws
            .extend(weaknesses(certificate).map(|(what, fix)| (format!("{which}{what}"), fix)));
    }
    facts
}

impl Facts {
    /// The serial number of the server's certificate.
    pub(super) fn serial(&self) -> &[u8] {
        &self.serial
    }

    pub(super) fn has_address(&self, address: IpAddr) -> bool {
        self.addresses.contains(&address.to_canonical())
    }

    /// From when to when the whole chain is good.
    pub(super) fn validity(&self) -> Option<(UnixTime, UnixTime)> {
        let begin = self.validity.iter().map(|(begin, _)| *begin).max()?;
        let end = self.validity.iter().map(|(_, end)| *end).min()?;
        Some((begin, end))
    }

    /// Whether the chain has not begun or has ended, in words.
    pub(super) fn out_of_date(&self, now: UnixTime) -> Option<String> {
        let (begin, end) = self.validity()?;
        if end <= now {
            return Some(format!("has expired {}", days(now.0 - end.0, "ago")));
        }
        (now < begin).then(|| format!("is not valid yet: it begins {}", days(begin.0 - now.0, "from now")))
    }

    pub(super) fn findings(&self, label: &str, now: UnixTime) -> Vec<Finding> {
        let mut warnings: Vec<Finding> = self
            .flaws
            .iter()
            .map(|(what, fix)| Finding {
                what: format!("{label} {what}"),
                fix: (*fix).into(),
            })
            .collect();
        if let Some(what) = self.out_of_date(now) {
            warnings.push(Finding {
                what: format!("{label} {what}"),
                fix: "install a certificate that is good today, and look at the clock of this host".into(),
            });
        } else if let Some((_, end)) = self.validity()
            && end.0 - now.0 < EXPIRY_NOTICE_SECS
        {
            warnings.push(Finding {
                what: format!("{label} expires {}", days(end.0 - now.0, "from now")),
                fix: "renew it".into(),
            });
        }
        warnings
    }
}

fn days(secs: u64, relative: &str) -> String {
    match secs / DAY_SECS {
        0 => format!("{} hours {relative}", secs.div_ceil(60 * 60)),
        1 => format!("1 day {relative}"),
        days => format!("{days} days {relative}"),
    }
}

fn validity(certificate: &Certificate) -> (UnixTime, UnixTime) {
    let validity = certificate.tbs_certificate().validity();
    let [begin, end] =
        [validity.not_before, validity.not_after].map(|time| UnixTime(time.to_unix_duration().as_secs()));
    (begin, end)
}

fn addresses(certificate: &Certificate) -> Vec<IpAddr> {
    let Ok(Some((_, SubjectAltName(names)))) = certificate.tbs_certificate().get_extension() else {
        return Vec::new();
    };
    let address = |name: &GeneralName| match name {
        GeneralName::IpAddress(octets) => match octets.as_bytes() {
            v4 if v4.len() == 4 => <[u8; 4]>::try_from(v4).ok().map(IpAddr::from),
            v6 => <[u8; 16]>::try_from(v6).ok().map(IpAddr::from),
        },
        _ => None,
    };
    names.iter().filter_map(address).collect()
}

/// Whether each certificate is followed by that of its issuer, as far as clients need it (RFC 8446 section 4.4.2).
fn gaps(chain: &[Certificate]) -> Vec<(String, &'static str)> {
    let issuer = |certificate: &Certificate| certificate.tbs_certificate().issuer().to_string();
    let is_by_itself =
        |certificate: &Certificate| certificate.tbs_certificate().issuer() == certificate.tbs_certificate().subject();
    let mut flaws = Vec::new();
    if let [own] = chain
        && !is_by_itself(own)
    {
        flaws.push((
            format!(
                "comes without an intermediate certificate: clients that do not know its issuer, {}, will refuse it",
                issuer(own)
            ),
            "append the intermediate certificates to the file (the \"fullchain\" of the authority); nothing is missing \
             where that issuer is a root that all clients trust",
        ));
    }
    for pair in chain.windows(2) {
        if pair[0].tbs_certificate().issuer() != pair[1].tbs_certificate().subject() {
            flaws.push((
                format!(
                    "has a gap in its chain: the certificate of {} does not follow",
                    issuer(&pair[0])
                ),
                "put the server's certificate first, and behind each certificate that of its issuer",
            ));
        }
    }
    flaws
}

fn weaknesses(certificate: &Certificate) -> impl Iterator<Item = (String, &'static str)> {
    let body = certificate.tbs_certificate();
    let key = rsa_bits(certificate).filter(|bits| *bits < RSA_BITS_MIN).map(|bits| {
        (
            format!("has a weak key: RSA of {bits} bits"),
            "make a new key: ECDSA P-256, or RSA of 2048 bits or more",
        )
    });
    // Nobody looks at the signature of a root, which is trusted for itself.
    let is_root = body.issuer() == body.subject();
    let signature = WEAK_SIGNATURES
        .iter()
        .find(|(oid, _)| *oid == certificate.signature_algorithm().oid && !is_root)
        .map(|(_, hash)| {
            (
                format!("has a weak signature: {hash}"),
                "have it signed anew, by SHA-256 or better",
            )
        });
    key.into_iter().chain(signature)
}

/// The size of the modulus of an RSA key (RFC 8017 appendix A.1.1).
fn rsa_bits(certificate: &Certificate) -> Option<usize> {
    let key = certificate.tbs_certificate().subject_public_key_info();
    if key.algorithm.oid != RSA {
        return None;
    }
    let mut reader = SliceReader::new(key.subject_public_key.raw_bytes()).ok()?;
    let modulus = reader
        .sequence(|reader| {
            let modulus = UintRef::decode(reader)?;
            UintRef::decode(reader)?;
            x509_cert::der::Result::Ok(modulus)
        })
        .ok()?;
    let bytes = modulus.as_bytes();
    let leading = bytes.first()?.leading_zeros() as usize;
    Some(bytes.len() * 8 - leading)
}
