//! JSON Web Tokens in their compact form (RFC 7515, 7.1). Pure.

use base64::Engine as _;
use base64::alphabet::URL_SAFE;
use base64::engine::general_purpose::{GeneralPurpose, NO_PAD};
use serde::Deserialize;
use serde_json::{Value, json};

use super::keys::{PublicKey, SigningKey};

/// Like Kubernetes' library, ignores excess bits at the end.
const BASE64: GeneralPurpose = GeneralPurpose::new(&URL_SAFE, NO_PAD.with_decode_allow_trailing_bits(true));

/// A signed token with these claims.
pub(crate) fn sign(key: &SigningKey, claims: &Value) -> Result<String, ring::error::Unspecified> {
    let header = json!({"alg": key.public.algorithm.name(), "kid": key.public.id});
    let [header, claims] = [header, claims.clone()].map(|it| BASE64.encode(it.to_string()));
    let message = format!("{header}.{claims}");
    let signature = BASE64.encode(key.sign(message.as_bytes())?);
    Ok(format!("{message}.{signature}"))
}

/// A token that has not been verified.
#[derive(Debug)]
pub(crate) struct Unverified<'a> {
    header: Header,
    pub(crate) claims: Value,
    message: &'a str,
    signature: Vec<u8>,
}

#[derive(Debug, Deserialize)]
struct Header {
    alg: String,
    #[serde(default)]
    kid: String,
}

/// Why a signature does not count.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Forged {
    #[error("invalid signature, no keys found")]
    NoKey,
    // Clients know the words of the library that Kubernetes uses.
    #[error("go-jose/go-jose: error in cryptographic primitive")]
    Signature,
}

impl<'a> Unverified<'a> {
    /// Parses a token; `None` if it is not one.
    pub(crate) fn parse(token: &'a str) -> Option<Self> {
        let (message, signature) = token.rsplit_once('.')?;
        let (header, claims) = message.split_once('.')?;
        let decode = |part: &str| BASE64.decode(part).ok();
        Some(Self {
            header: serde_json::from_slice(&decode(header)?).ok()?,
            claims: serde_json::from_slice(&decode(claims)?).ok()?,
            message,
            signature: decode(signature)?,
        })
    }

    /// Whether one of these keys has signed it: the one that it names, if any.
    pub(crate) fn verify<'k>(&self, keys: impl Iterator<Item = &'k PublicKey>) -> Result<(), Forged> {
        let mut outcome = Err(Forged::NoKey);
        for key in keys.filter(|it| self.header.kid.is_empty() || self.header.kid == it.id) {
            // The key determines the algorithm, not the token.
            if self.header.alg == key.algorithm.name() && key.verify(self.message.as_bytes(), &self.signature) {
                return Ok(());
            }
            outcome = Err(Forged::Signature);
        }
        outcome
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> SigningKey {
        SigningKey::read(SigningKey::generate().unwrap().as_bytes()).unwrap()
    }

    proptest::proptest! {
        #[test]
        fn nothing_panics(token in ".*\\..*\\..*") {
            let _ = Unverified::parse(&token);
        }
    }

    #[test]
    fn only_what_was_signed_is_verified() {
        let (key, other) = (key(), key());
        let token = sign(&key, &json!({"sub": "me"})).unwrap();
        let parsed = Unverified::parse(&token).unwrap();
        assert_eq!(parsed.claims["sub"], "me");
        assert_eq!(parsed.verify([&other.public, &key.public].into_iter()), Ok(()));
        assert_eq!(parsed.verify([&other.public].into_iter()), Err(Forged::NoKey));
        let [header, _, signature] = token.split('.').collect::<Vec<_>>().try_into().unwrap();
        let changed = format!("{header}.{}.{signature}", BASE64.encode(r#"{"sub":"you"}"#));
        assert_eq!(Unverified::parse(&changed).unwrap().verify([&key.public].into_iter()), Err(Forged::Signature));
        // A token that chooses its own algorithm.
        for header in [json!({"alg": "none"}), json!({"alg": "HS256", "kid": key.public.id}), json!({"alg": "RS256"})] {
            let token = token.replacen(token.split('.').next().unwrap(), &BASE64.encode(header.to_string()), 1);
            assert_eq!(Unverified::parse(&token).unwrap().verify([&key.public].into_iter()), Err(Forged::Signature), "{header}");
        }
        for bad in ["", "a", "a.b", "a.b.c", "..", &format!("{token}.x"), "{}"] {
            assert!(Unverified::parse(bad).is_none(), "{bad}");
        }
    }
}
