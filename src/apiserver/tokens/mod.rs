//! Tokens of service accounts: issue, verification, and publication of the keys. The signing key comes from a file, or from the store,
//! where the API servers that share it create one.

mod account;
mod legacy;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::Server;
use super::error::{Answer, store_status};
use super::response::{self, Response};
use crate::object::Status;
use crate::store::{Expect, Outcome};
use crate::tokens::jwt::{self, Unverified};
use crate::tokens::legacy::ISSUER;
use crate::tokens::{KeyError, PublicKey, SigningKey};
use crate::util::product::Product;
pub(crate) use account::{Account, Named, Term};

/// The path of the public keys.
const KEYS_PATH: &str = "/openid/v1/jwks";
const CONFIGURATION_PATH: &str = "/.well-known/openid-configuration";

/// Configuration of tokens.
#[derive(Clone, Debug)]
pub struct Config {
    /// Accepted issuers; the first is in new tokens.
    pub issuers: Vec<String>,
    /// Audiences of tokens for the API server itself.
    pub audiences: Vec<String>,
    /// `None`: the key in the store.
    pub signing_key: Option<Arc<SigningKey>>,
    /// Further keys by which tokens are verified.
    pub keys: Vec<PublicKey>,
    /// The longest lifetime of a token; `None` for no limit.
    pub longest: Option<Duration>,
    /// The published URL of the public keys; `None` for this server's.
    pub keys_url: Option<String>,
}

impl Config {
    /// The defaults of the command line.
    pub fn new(product: &Product) -> Self {
        let issuer = format!("https://{}.default.svc", product.api_service);
        Self { audiences: vec![issuer.clone()], issuers: vec![issuer], signing_key: None, keys: Vec::new(), longest: None, keys_url: None }
    }
}

/// Issues and verifies tokens.
#[derive(Debug)]
pub(crate) struct Tokens {
    pub(crate) config: Config,
    signing: Arc<SigningKey>,
}

/// Why a token is invalid.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// Not a service account token of this cluster.
    NotOurs,
    /// A token of this cluster, or like one, but invalid.
    Invalid(String),
}

impl Tokens {
    /// Loads the configured key, or the one in the store, which is created if missing.
    ///
    /// # Errors
    /// If the store cannot be read or written, or its entry is not a key.
    pub(crate) async fn load(server: &Server) -> Answer<Self> {
        let config = server.config.tokens.clone();
        let signing = match &config.signing_key {
            Some(key) => key.clone(),
            None => Arc::new(shared_key(server).await?),
        };
        Ok(Self { config, signing })
    }

    /// A token for these audiences.
    ///
    /// # Errors
    /// 500 if it cannot be signed.
    pub(crate) fn issue(&self, account: &Account, audiences: &[String], term: Term, now: Timestamp) -> Answer<String> {
        let issuer = self.config.issuers.first().map(String::as_str).unwrap_or_default();
        let claims = account.claims(issuer, audiences, term, now);
        jwt::sign(&self.signing, &claims).map_err(|error| Box::new(Status::internal(format!("failed to generate token: {error}"))))
    }

    /// The account of a token, and those of the `wanted` audiences that it is for. Meant for the credentials of requests.
    pub(crate) async fn verify(&self, server: &Server, token: &str, wanted: &[String]) -> Result<(Account, Vec<String>), Refusal> {
        let parsed = Unverified::parse(token).ok_or(Refusal::NotOurs)?;
        let claims = &parsed.claims;
        let issuer = claims.get("iss").and_then(Value::as_str).unwrap_or_default();
        if issuer != ISSUER && !self.config.issuers.iter().any(|it| it == issuer) {
            return Err(Refusal::NotOurs);
        }
        parsed.verify(self.keys()).map_err(|error| Refusal::Invalid(error.to_string()))?;
        let is_for: Vec<String> = match claims.get("aud") {
            Some(Value::String(one)) => vec![one.clone()],
            Some(Value::Array(all)) => all.iter().filter_map(|it| it.as_str().map(str::to_owned)).collect(),
            _ => self.config.audiences.clone(),
        };
        let both: Vec<String> = is_for.iter().filter(|it| wanted.contains(it)).cloned().collect();
        if both.is_empty() {
            let [is_for, wanted] = [is_for.as_slice(), wanted].map(quoted);
            return Err(Refusal::Invalid(format!("token audiences {is_for} is invalid for the target audiences {wanted}")));
        }
        let now = Timestamp::now();
        account::check_time(claims, now).map_err(|why| Refusal::Invalid(why.to_owned()))?;
        if issuer == ISSUER {
            let account = legacy::check(server, claims, token).await.map_err(Refusal::Invalid)?;
            return Ok((account, both));
        }
        let account = Account::read(claims);
        account.check(server, now).await.map_err(Refusal::Invalid)?;
        Ok((account, both))
    }

    pub(crate) fn signing_key(&self) -> Arc<SigningKey> {
        self.signing.clone()
    }

    /// The keys by which a token may be verified, each once.
    fn keys(&self) -> impl Iterator<Item = &PublicKey> {
        let own = &self.signing.public;
        std::iter::once(own).chain(self.config.keys.iter().filter(|it| it.id != own.id))
    }

    fn key_set(&self) -> Value {
        json!({"keys": self.keys().map(PublicKey::jwk).collect::<Vec<_>>()})
    }

    fn configuration(&self, server: &Server) -> Value {
        let mut algorithms: Vec<&str> = self.keys().map(|it| it.algorithm.name()).collect();
        algorithms.sort_unstable();
        algorithms.dedup();
        let own = || format!("http://{}{KEYS_PATH}", server.own_address());
        json!({
            "issuer": self.config.issuers.first(),
            "jwks_uri": self.config.keys_url.clone().unwrap_or_else(own),
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": algorithms,
        })
    }

    /// The documents for verifiers (OpenID Connect Discovery 1.0); `None` at other paths, or if the issuer is not a suitable URL.
    pub(crate) fn serve(&self, server: &Server, path: &str) -> Option<Response> {
        let (content_type, document) = match path {
            KEYS_PATH => ("application/jwk-set+json", self.key_set()),
            CONFIGURATION_PATH => ("application/json", self.configuration(server)),
            _ => return None,
        };
        let issuer = self.config.issuers.first()?;
        if !issuer.starts_with("https://") || issuer.contains(['?', '#']) {
            return None;
        }
        let mut response = response::full(200, content_type, document.to_string().into());
        response::set(&mut response, http::header::CACHE_CONTROL, "public, max-age=3600");
        Some(response)
    }
}

/// A list of texts in Go's form.
fn quoted(list: &[String]) -> String {
    format!("[{}]", list.iter().map(|it| format!("{it:?}")).collect::<Vec<_>>().join(" "))
}

/// The key in the store; the first server creates it.
async fn shared_key(server: &Server) -> Answer<SigningKey> {
    let path = format!("{}/serviceaccountkeys/signing", server.config.prefix);
    let internal = |error: KeyError| Box::new(Status::internal(format!("the key of service accounts in the store: {error}")));
    let pem = match server.store.get(&path).await.map_err(store_status)? {
        Some(entry) => entry.value,
        None => {
            let made = Bytes::from(SigningKey::generate().map_err(internal)?);
            match server.store.put(&path, made.clone(), Expect::Absent, None).await.map_err(store_status)? {
                Outcome::Done(_) => made,
                Outcome::Conflict(entry) => entry.map(|it| it.value).unwrap_or_default(),
            }
        }
    };
    SigningKey::read(&pem).map_err(internal)
}
