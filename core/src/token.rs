//! Whose token is this, and does it hold? A JSON Web Token (RFC 7519) that somebody with the right key has signed.

use core::{fmt, time::Duration};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::Value;
use sha2::Sha256;

use crate::{config::Secret, time::UnixTime, tls::SignatureKey};

/// Bytes of a token: with them the rest of a request still fits into a line.
const TOKEN_BYTES_MAX: usize = 6 * 1024;

/// Bytes of a user's name.
pub(crate) const SUBJECT_BYTES_MAX: usize = 256;

/// Who signs tokens, and how they are read.
#[derive(Debug, Clone)]
pub struct Verifier {
    /// What verifies signatures.
    pub key: Key,
    /// The claim that names the user.
    pub subject: String,
    /// How far the clock of the signer may differ from ours.
    pub leeway: Duration,
    /// What the signer calls us. A token that is for somebody else does not hold, nor one that is for nobody in particular
    /// when this is set.
    pub audience: Option<String>,
    /// Who the signer says to be, where that is looked at.
    pub issuer: Option<String>,
}

/// What verifies signatures. The algorithm is that of the key, whatever a token says (RFC 8725 section 3.1).
#[derive(Debug, Clone)]
pub enum Key {
    /// HMAC with SHA-256 under a secret (HS256).
    Secret(Secret),
    /// A public key (RS256 or ES256).
    Public(SignatureKey),
}

/// Why a token does not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenError {
    /// It is no token in compact form (RFC 7515 section 7.1), or its claims are of the wrong kind.
    Malformed,
    /// It asks for another algorithm, or for an extension (RFC 7515 section 4.1.11).
    Algorithm,
    /// Somebody else signed it.
    Signature,
    /// It has ended, or would never end.
    Expired,
    /// It does not hold yet.
    NotYet,
    /// It is for somebody else.
    Audience,
    /// Somebody else has issued it.
    Issuer,
}

impl fmt::Display for TokenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed => "malformed token",
            Self::Algorithm => "token of another algorithm",
            Self::Signature => "token with a wrong signature",
            Self::Expired => "expired token",
            Self::NotYet => "token that does not hold yet",
            Self::Audience => "token for another audience",
            Self::Issuer => "token of another issuer",
        })
    }
}

impl core::error::Error for TokenError {}

impl Verifier {
    /// The user that a token names, if it names one.
    ///
    /// # Errors
    /// When it does not hold.
    pub fn verify(&self, token: &str, now: UnixTime) -> Result<Option<String>, TokenError> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(TokenError::Malformed);
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(TokenError::Malformed)?;
        let (header, claims) = signed.split_once('.').ok_or(TokenError::Malformed)?;
        let header = object(header)?;
        if header["alg"] != *self.algorithm() || header.get("crit").is_some() {
            return Err(TokenError::Algorithm);
        }
        let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| TokenError::Malformed)?;
        if !self.verifies(signed.as_bytes(), &signature) {
            return Err(TokenError::Signature);
        }
        self.judge(&object(claims)?, now)
    }

    const fn algorithm(&self) -> &'static str {
        match &self.key {
            Key::Secret(_) => "HS256",
            Key::Public(key) => key.algorithm().name(),
        }
    }

    fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        match &self.key {
            Key::Secret(secret) => {
                let mac = Hmac::<Sha256>::new_from_slice(secret.expose());
                mac.is_ok_and(|mac| mac.chain_update(message).verify_slice(signature).is_ok())
            }
            Key::Public(key) => key.verifies(message, signature),
        }
    }

    fn judge(&self, claims: &Value, now: UnixTime) -> Result<Option<String>, TokenError> {
        let (now, leeway) = (now.0 as f64, self.leeway.as_secs_f64());
        // RFC 7519 section 4.1.4; a token without an end would be good for ever.
        if date(claims, "exp")?.is_none_or(|end| now >= end + leeway) {
            return Err(TokenError::Expired);
        }
        // RFC 7519 section 4.1.5.
        if date(claims, "nbf")?.is_some_and(|begin| now + leeway < begin) {
            return Err(TokenError::NotYet);
        }
        if !self.is_for_us(claims.get("aud")) {
            return Err(TokenError::Audience);
        }
        if self.issuer.as_deref().is_some_and(|issuer| claims["iss"] != *issuer) {
            return Err(TokenError::Issuer);
        }
        match claims.get(&self.subject) {
            None => Ok(None),
            Some(Value::String(name)) if name.len() <= SUBJECT_BYTES_MAX => Ok(Some(name.clone())),
            Some(_) => Err(TokenError::Malformed),
        }
    }

    // RFC 7519 section 4.1.3: who "does not identify itself with a value in the "aud" claim when this claim is present" MUST
    // reject the token. Its value is an array of names, or the only one.
    fn is_for_us(&self, claim: Option<&Value>) -> bool {
        match (claim, &self.audience) {
            (None, audience) => audience.is_none(),
            (Some(Value::Array(names)), Some(audience)) => names.iter().any(|name| name == audience),
            (Some(name), Some(audience)) => name == audience,
            (Some(_), None) => false,
        }
    }
}

/// A segment that is a JSON object.
fn object(segment: &str) -> Result<Value, TokenError> {
    let text = URL_SAFE_NO_PAD.decode(segment).map_err(|_| TokenError::Malformed)?;
    let value: Value = serde_json::from_slice(&text).map_err(|_| TokenError::Malformed)?;
    value.is_object().then_some(value).ok_or(TokenError::Malformed)
}

/// A NumericDate (RFC 7519 section 2).
fn date(claims: &Value, name: &str) -> Result<Option<f64>, TokenError> {
    match claims.get(name) {
        None => Ok(None),
        Some(date) => date.as_f64().map(Some).ok_or(TokenError::Malformed),
    }
}

#[cfg(test)]
mod tests;
