//! How is `[token]` read: who says whether a token holds?

use core::time::Duration;

use super::{
    reader::{Reader, Value},
    secret::secret,
    section::Section,
    urls, values, web,
};
use crate::{
    config::{Ask, TokenCheck, Web},
    tls::{SignatureAlgorithm, SignatureKey},
    token::{Key, Verifier},
};

pub(super) fn parse(cx: &mut Reader<'_>, value: &Value<'_>, web: Option<&Web>) -> Option<TokenCheck> {
    let mut section = Section::new(cx, "[token]", value)?;
    let subject = section.or(cx, "subject", String::new(), |cx, value| {
        values::text(cx, value).map(String::from)
    });
    let named = |default: &str| {
        if subject.is_empty() {
            default.into()
        } else {
            subject.clone()
        }
    };
    let check = match (section.has("algorithm"), section.has("ask")) {
        (true, false) => signature(cx, &mut section, named("sub")).map(TokenCheck::Signature),
        (false, true) => ask(cx, &mut section, web).map(|(upstream, path, cache)| {
            TokenCheck::Ask(Ask {
                upstream,
                path,
                cache,
                subject: named("login"),
            })
        }),
        _ => {
            for key in [
                "algorithm",
                "key",
                "leeway_secs",
                "audience",
                "issuer",
                "ask",
                "upstream",
                "cache_secs",
            ] {
                section.known(key);
            }
            cx.refuse(
                section.start(),
                "[token] says not, or says twice, how tokens are checked",
                "write algorithm = \"HS256\" and key = { file = \"jwt-secret\" }, or ask = \"/xuc/api/2.0/auth/check\"",
            )
        }
    };
    section.finish(cx);
    check
}

fn signature(cx: &mut Reader<'_>, section: &mut Section<'_, '_>, subject: String) -> Option<Verifier> {
    let algorithm = section.required(cx, "algorithm", "\"HS256\"", algorithm);
    let leeway = section.or(cx, "leeway_secs", LEEWAY, values::seconds);
    let mut name =
        |cx: &mut Reader<'_>, key| section.optional(cx, key, |cx, value| Some(values::text(cx, value)?.to_owned()));
    let (audience, issuer) = (name(cx, "audience"), name(cx, "issuer"));
    let key = match algorithm {
        None => {
            section.known("key");
            return None;
        }
        Some(None) => section.required(cx, "key", "{ file = \"jwt-secret\" }", |cx, value| {
            let secret = secret(cx, value)?;
            // RFC 7518 section 3.2: as long as the hash, or longer.
            if secret.expose().len() < HS256_KEY_BYTES_MIN {
                return cx.refuse(
                    value.span().start,
                    format!("this key can be guessed: HS256 wants {HS256_KEY_BYTES_MIN} bytes"),
                    "take what this prints: openssl rand -base64 32",
                );
            }
            Some(Key::Secret(secret))
        }),
        Some(Some(algorithm)) => section.required(cx, "key", "\"jwt.pem\"", |cx, value| {
            let pem = values::file(cx, value)?;
            match SignatureKey::new(cx.sources.provider(), algorithm, &pem) {
                Ok(key) => Some(Key::Public(key)),
                Err(error) => cx.refuse(
                    value.span().start,
                    format!("this key cannot be used: {error}"),
                    "name the PEM file of the public key: openssl pkey -in private.pem -pubout",
                ),
            }
        }),
    };
    Some(Verifier {
        key: key?,
        subject,
        leeway,
        audience,
        issuer,
    })
}

/// An algorithm; `None` for the one with a secret.
fn algorithm(cx: &mut Reader<'_>, value: &Value<'_>) -> Option<Option<SignatureAlgorithm>> {
    match values::text(cx, value)? {
        "HS256" => Some(None),
        "RS256" => Some(Some(SignatureAlgorithm::Rs256)),
        "ES256" => Some(Some(SignatureAlgorithm::Es256)),
        _ => cx.refuse_value(value, "an algorithm", "\"HS256\", \"RS256\" or \"ES256\""),
    }
}

fn ask(cx: &mut Reader<'_>, section: &mut Section<'_, '_>, web: Option<&Web>) -> Option<(usize, String, Duration)> {
    let path = section.required(cx, "ask", "\"/xuc/api/2.0/auth/check\"", urls::path);
    let cache = section.or(cx, "cache_secs", CACHE, values::seconds);
    let upstreams: Vec<(String, ())> = web
        .iter()
        .flat_map(|web| &web.upstreams)
        .map(|upstream| (upstream.name.clone(), ()))
        .collect();
    let upstream = section.required(cx, "upstream", "\"cc\"", |cx, value| {
        web::upstream_index(cx, value, &upstreams)
    });
    Some((upstream?, path?, cache))
}

const LEEWAY: Duration = Duration::from_secs(30);
const CACHE: Duration = Duration::from_secs(10);
const HS256_KEY_BYTES_MIN: usize = 32;
