//! Whose token is this? JSON Web Tokens (RFC 7519) as an application makes them, and as others would like to.

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::{Value, json};
use sha2::Sha256;

use crate::{chance::Dice, world::site};

/// A token that names a user, for longer than any clock here is wrong.
pub fn good(user: &str) -> String {
    sign("HS256", user, site::BEGINNING + 100_000_000, site::TOKEN_SECRET)
}

/// A token of somebody who would like to be that user.
pub fn bad(user: &str, dice: &mut Dice) -> String {
    let (later, earlier) = (site::BEGINNING + 100_000_000, site::BEGINNING - 100_000_000);
    match dice.place(5) {
        0 => sign("HS256", user, earlier, site::TOKEN_SECRET),
        1 => sign("HS256", user, later, "another secret, as long as that one"),
        2 => sign("none", user, later, ""),
        3 => {
            // The claims of one and the signature of another.
            let (own, other) = (good("nobody"), good(user));
            let (claims, _) = other.rsplit_once('.').expect("three parts");
            let (_, signature) = own.rsplit_once('.').expect("three parts");
            format!("{claims}.{signature}")
        }
        _ => format!("{user}.of.world"),
    }
}

/// The user that a token names, if it holds.
pub fn user(token: &str) -> Option<String> {
    let (signed, _) = token.rsplit_once('.')?;
    let (_, claims) = signed.split_once('.')?;
    let claims: Value = serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(claims).ok()?).ok()?;
    let user = claims["login"].as_str()?.to_owned();
    (good(&user) == token).then_some(user)
}

fn sign(algorithm: &str, user: &str, expires: u64, secret: &str) -> String {
    let part = |value: Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
    let header = part(json!({ "alg": algorithm, "typ": "JWT" }));
    let claims = part(json!({ "login": user, "exp": expires }));
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("a key of any length");
    mac.update(format!("{header}.{claims}").as_bytes());
    let signature = BASE64_URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes());
    format!("{header}.{claims}.{signature}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_good_token_names_its_user() {
        assert_eq!(user(&good("user3")).as_deref(), Some("user3"));
        let dice = &mut Dice::new(1, 1);
        for _ in 0..50 {
            let token = bad("user3", dice);
            assert_eq!(user(&token), None, "{token}");
        }
    }
}
