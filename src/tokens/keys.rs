//! The keys that sign and verify tokens: RSA (RS256) and ECDSA (ES256, ES384), read from PEM.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::rand::SystemRandom;
use ring::signature::{
    self, ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm, KeyPair as _, RsaKeyPair,
    UnparsedPublicKey, VerificationAlgorithm,
};
use rustls::pki_types::pem::{PemObject as _, SectionKind};
use serde_json::{Value, json};

use super::der::{self, Reader};

const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1];
const EC: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1];

/// How a key signs (RFC 7518, 3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Algorithm {
    Rs256,
    Es256,
    Es384,
}

impl Algorithm {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Rs256 => "RS256",
            Self::Es256 => "ES256",
            Self::Es384 => "ES384",
        }
    }

    fn verification(self) -> &'static dyn VerificationAlgorithm {
        match self {
            Self::Rs256 => &signature::RSA_PKCS1_2048_8192_SHA256,
            Self::Es256 => &signature::ECDSA_P256_SHA256_FIXED,
            Self::Es384 => &signature::ECDSA_P384_SHA384_FIXED,
        }
    }

    /// The curve, as an object identifier, as JWK calls it, and how one signs with it.
    fn curve(self) -> Option<(&'static [u8], &'static str, &'static EcdsaSigningAlgorithm)> {
        match self {
            Self::Rs256 => None,
            Self::Es256 => Some((&[0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7], "P-256", &ECDSA_P256_SHA256_FIXED_SIGNING)),
            Self::Es384 => Some((&[0x2b, 0x81, 4, 0, 0x22], "P-384", &ECDSA_P384_SHA384_FIXED_SIGNING)),
        }
    }

    /// The algorithm of a curve.
    fn of_curve(oid: &[u8]) -> Option<Self> {
        [Self::Es256, Self::Es384].into_iter().find(|it| it.curve().is_some_and(|(curve, ..)| curve == oid))
    }
}

/// A file that is no use as a key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("not PEM: {0}")]
    Pem(String),
    #[error("no {0} key, neither RSA of 2048 bits or more nor ECDSA on P-256 or P-384")]
    None(&'static str),
    #[error("a key that is refused: {0}")]
    Refused(String),
}

/// Verifies signatures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicKey {
    pub(crate) algorithm: Algorithm,
    /// `kid`: the key's hash.
    pub(crate) id: String,
    /// RSAPublicKey (RFC 8017, A.1.1), or a point of the curve, uncompressed.
    bytes: Vec<u8>,
}

impl PublicKey {
    fn new(algorithm: Algorithm, bytes: &[u8]) -> Self {
        let kind = match algorithm.curve() {
            None => der::write(der::SEQUENCE, &[&der::write(der::OBJECT_ID, &[RSA]), &der::write(der::NULL, &[])]),
            Some((curve, ..)) => der::write(der::SEQUENCE, &[&der::write(der::OBJECT_ID, &[EC]), &der::write(der::OBJECT_ID, &[curve])]),
        };
        let info = der::write(der::SEQUENCE, &[&kind, &der::write(der::BIT_STRING, &[&[0], bytes])]);
        let id = URL_SAFE_NO_PAD.encode(ring::digest::digest(&ring::digest::SHA256, &info));
        Self { algorithm, id, bytes: bytes.to_vec() }
    }

    /// All public keys in a PEM file: public keys, those of certificates, and those of private keys.
    ///
    /// # Errors
    /// If there is none, or one of an unknown kind.
    pub fn read(pem: &[u8]) -> Result<Vec<Self>, KeyError> {
        let mut keys = Vec::new();
        for (kind, content) in sections(pem)? {
            keys.push(match kind {
                SectionKind::PublicKey => Self::of_info(&content).ok_or(KeyError::None("public"))?,
                SectionKind::Certificate => Self::of_certificate(&content).ok_or(KeyError::None("public"))?,
                kind => SigningKey::of(kind, &content)?.public,
            });
        }
        if keys.is_empty() { Err(KeyError::None("public")) } else { Ok(keys) }
    }

    /// Out of a SubjectPublicKeyInfo (RFC 5280, 4.1).
    fn of_info(info: &[u8]) -> Option<Self> {
        let mut info = Reader(Reader(info).read(der::SEQUENCE)?);
        let mut kind = Reader(info.read(der::SEQUENCE)?);
        let algorithm = match kind.read(der::OBJECT_ID)? {
            RSA => Algorithm::Rs256,
            EC => Algorithm::of_curve(kind.read(der::OBJECT_ID)?)?,
            _ => return None,
        };
        let bytes = info.bits()?;
        let point = match algorithm {
            Algorithm::Rs256 => return numbers(bytes).map(|_| Self::new(algorithm, bytes)),
            Algorithm::Es256 => 65,
            Algorithm::Es384 => 97,
        };
        (bytes.len() == point && bytes[0] == 4).then(|| Self::new(algorithm, bytes))
    }

    fn of_certificate(certificate: &[u8]) -> Option<Self> {
        const VERSION: u8 = 0xa0;
        let mut signed = Reader(Reader(Reader(certificate).read(der::SEQUENCE)?).read(der::SEQUENCE)?);
        if signed.0.first() == Some(&VERSION) {
            signed.next()?;
        }
        // Serial number, signature, issuer, validity, subject.
        for _ in 0..5 {
            signed.next()?;
        }
        Self::of_info(signed.0)
    }

    /// Whether a signature of a message is this key's.
    pub(crate) fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(self.algorithm.verification(), &self.bytes).verify(message, signature).is_ok()
    }

    /// The public key for verifiers (RFC 7517).
    pub(crate) fn jwk(&self) -> Value {
        let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let (id, alg) = (&self.id, self.algorithm.name());
        if let Some((_, curve, _)) = self.algorithm.curve() {
            let (x, y) = self.bytes[1..].split_at(self.bytes.len() / 2);
            return json!({"use": "sig", "kty": "EC", "kid": id, "crv": curve, "alg": alg, "x": encode(x), "y": encode(y)});
        }
        let (n, e) = numbers(&self.bytes).unwrap_or_default();
        let (n, e) = (encode(n), encode(e));
        json!({"use": "sig", "kty": "RSA", "kid": id, "alg": alg, "n": n, "e": e})
    }
}

/// Modulus and exponent of an RSAPublicKey, without the zeros that lead them.
fn numbers(key: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut numbers = Reader(Reader(key).read(der::SEQUENCE)?);
    let mut number = || numbers.read(der::INTEGER).map(|it| &it[it.iter().take_while(|it| **it == 0).count()..]);
    Some((number()?, number()?))
}

/// Signs tokens.
pub struct SigningKey {
    pair: Pair,
    pub(crate) public: PublicKey,
}

enum Pair {
    Rsa(Box<RsaKeyPair>),
    Ec(Box<EcdsaKeyPair>),
}

impl SigningKey {
    /// The first private key in a PEM file.
    ///
    /// # Errors
    /// If there is none, or one of an unknown kind.
    pub fn read(pem: &[u8]) -> Result<Self, KeyError> {
        let private = sections(pem)?.into_iter().find(|(kind, _)| !matches!(kind, SectionKind::PublicKey | SectionKind::Certificate));
        let (kind, content) = private.ok_or(KeyError::None("private"))?;
        Self::of(kind, &content)
    }

    fn of(kind: SectionKind, content: &[u8]) -> Result<Self, KeyError> {
        let refused = |error: ring::error::KeyRejected| KeyError::Refused(error.to_string());
        match kind {
            SectionKind::RsaPrivateKey => RsaKeyPair::from_der(content).map(Self::rsa).map_err(refused),
            SectionKind::EcPrivateKey => Self::of_sec1(content),
            SectionKind::PrivateKey => {
                let mut info = Reader(Reader(content).read(der::SEQUENCE).unwrap_or_default());
                info.next();
                let mut kind = Reader(info.read(der::SEQUENCE).unwrap_or_default());
                match kind.read(der::OBJECT_ID) {
                    Some(RSA) => RsaKeyPair::from_pkcs8(content).map(Self::rsa).map_err(refused),
                    Some(EC) => {
                        let curve = kind.read(der::OBJECT_ID).and_then(Algorithm::of_curve).ok_or(KeyError::None("private"))?;
                        let (_, _, signing) = curve.curve().ok_or(KeyError::None("private"))?;
                        let pair = EcdsaKeyPair::from_pkcs8(signing, content, &SystemRandom::new()).map_err(refused)?;
                        Ok(Self::ec(curve, pair))
                    }
                    _ => Err(KeyError::None("private")),
                }
            }
            _ => Err(KeyError::None("private")),
        }
    }

    /// Out of an ECPrivateKey (RFC 5915) that names its curve and has its public key.
    fn of_sec1(content: &[u8]) -> Result<Self, KeyError> {
        const CURVE: u8 = 0xa0;
        const PUBLIC: u8 = 0xa1;
        let parse = || {
            let mut parts = Reader(Reader(content).read(der::SEQUENCE)?);
            parts.read(der::INTEGER)?;
            let private = parts.read(der::OCTET_STRING)?;
            let curve = Algorithm::of_curve(Reader(parts.read(CURVE)?).read(der::OBJECT_ID)?)?;
            Some((curve, private, Reader(parts.read(PUBLIC)?).bits()?))
        };
        let (curve, private, public) = parse().ok_or(KeyError::None("private"))?;
        let (_, _, signing) = curve.curve().ok_or(KeyError::None("private"))?;
        EcdsaKeyPair::from_private_key_and_public_key(signing, private, public, &SystemRandom::new())
            .map(|pair| Self::ec(curve, pair))
            .map_err(|error| KeyError::Refused(error.to_string()))
    }

    fn rsa(pair: RsaKeyPair) -> Self {
        let public = PublicKey::new(Algorithm::Rs256, pair.public_key().as_ref());
        Self { pair: Pair::Rsa(Box::new(pair)), public }
    }

    fn ec(algorithm: Algorithm, pair: EcdsaKeyPair) -> Self {
        let public = PublicKey::new(algorithm, pair.public_key().as_ref());
        Self { pair: Pair::Ec(Box::new(pair)), public }
    }

    /// A new key, as PEM.
    pub(crate) fn generate() -> Result<String, KeyError> {
        let key = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new());
        let key = key.map_err(|error| KeyError::Refused(error.to_string()))?;
        let text = STANDARD.encode(key.as_ref());
        let lines: Vec<&str> = (0..text.len()).step_by(64).map(|at| &text[at..text.len().min(at + 64)]).collect();
        Ok(format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", lines.join("\n")))
    }

    /// The signature of a message.
    pub(crate) fn sign(&self, message: &[u8]) -> Result<Vec<u8>, ring::error::Unspecified> {
        let random = SystemRandom::new();
        match &self.pair {
            Pair::Rsa(pair) => {
                let mut signature = vec![0; pair.public().modulus_len()];
                pair.sign(&signature::RSA_PKCS1_SHA256, &random, message, &mut signature)?;
                Ok(signature)
            }
            Pair::Ec(pair) => Ok(pair.sign(&random, message)?.as_ref().to_vec()),
        }
    }
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SigningKey").field("id", &self.public.id).finish_non_exhaustive()
    }
}

fn sections(pem: &[u8]) -> Result<Vec<(SectionKind, Vec<u8>)>, KeyError> {
    let all = <(SectionKind, Vec<u8>)>::pem_slice_iter(pem);
    all.collect::<Result<_, _>>().map_err(|error| KeyError::Pem(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_key_signs_and_is_read_back() {
        let pem = SigningKey::generate().unwrap();
        let key = SigningKey::read(pem.as_bytes()).unwrap();
        let signature = key.sign(b"message").unwrap();
        assert!(key.public.verify(b"message", &signature));
        assert!(!key.public.verify(b"another", &signature));
        assert_eq!(PublicKey::read(pem.as_bytes()).unwrap(), std::slice::from_ref(&key.public));
        let jwk = key.public.jwk();
        assert_eq!((&jwk["kty"], &jwk["crv"], &jwk["alg"]), (&json!("EC"), &json!("P-256"), &json!("ES256")));
        assert_eq!(URL_SAFE_NO_PAD.decode(jwk["x"].as_str().unwrap()).unwrap().len(), 32);
        assert_eq!(URL_SAFE_NO_PAD.decode(jwk["y"].as_str().unwrap()).unwrap().len(), 32);
    }

    #[test]
    fn keys_of_openssl() {
        // openssl genrsa, genpkey, ecparam -genkey; the public ones by openssl pkey -pubout.
        for (private, public, algorithm) in [
            (include_str!("testdata/rsa.pem"), include_str!("testdata/rsa.pub.pem"), Algorithm::Rs256),
            (include_str!("testdata/rsa.pkcs1.pem"), include_str!("testdata/rsa.pub.pem"), Algorithm::Rs256),
            (include_str!("testdata/p256.sec1.pem"), include_str!("testdata/p256.pub.pem"), Algorithm::Es256),
            (include_str!("testdata/p384.pem"), include_str!("testdata/p384.pub.pem"), Algorithm::Es384),
            (include_str!("testdata/rsa.pem"), include_str!("testdata/rsa.cert.pem"), Algorithm::Rs256),
        ] {
            let key = SigningKey::read(private.as_bytes()).unwrap();
            assert_eq!(key.public.algorithm, algorithm);
            let [public] = &PublicKey::read(public.as_bytes()).unwrap()[..] else { panic!() };
            assert_eq!(*public, key.public);
            assert!(public.verify(b"message", &key.sign(b"message").unwrap()));
        }
        let rsa = &PublicKey::read(include_bytes!("testdata/rsa.pub.pem")).unwrap()[0];
        assert_eq!(rsa.id, include_str!("testdata/rsa.kid").trim());
        let jwk = rsa.jwk();
        assert_eq!(jwk["e"], "AQAB");
        assert_eq!(URL_SAFE_NO_PAD.decode(jwk["n"].as_str().unwrap()).unwrap().len(), 256);
    }

    proptest::proptest! {
        #[test]
        fn nothing_panics(content in proptest::collection::vec(proptest::num::u8::ANY, 0..200), whole in proptest::bool::ANY) {
            let wrapped = der::write(der::SEQUENCE, &[&content]);
            let content = if whole { &wrapped } else { &content };
            for key in [PublicKey::of_info(content), PublicKey::of_certificate(content)].into_iter().flatten() {
                key.jwk();
            }
            for kind in [SectionKind::RsaPrivateKey, SectionKind::EcPrivateKey, SectionKind::PrivateKey] {
                let _ = SigningKey::of(kind, content);
            }
        }
    }

    #[test]
    fn what_is_no_key() {
        for bad in ["", "x", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "-----BEGIN PUBLIC KEY-----\n"] {
            assert!(SigningKey::read(bad.as_bytes()).is_err(), "{bad}");
            assert!(PublicKey::read(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
