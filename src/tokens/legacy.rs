//! The claims of tokens that lie in secrets and have no end.

use serde_json::{Value, json};

use super::jwt;
use super::keys::SigningKey;
use crate::object::Object;

pub(crate) const ISSUER: &str = "kubernetes/serviceaccount";
const NAMESPACE: &str = "kubernetes.io/serviceaccount/namespace";
const SECRET_NAME: &str = "kubernetes.io/serviceaccount/secret.name";
const ACCOUNT_NAME: &str = "kubernetes.io/serviceaccount/service-account.name";
const ACCOUNT_UID: &str = "kubernetes.io/serviceaccount/service-account.uid";

/// The token for a secret of a service account.
///
/// # Errors
/// If the key cannot sign.
pub(crate) fn issue(key: &SigningKey, account: &Object, secret: &Object) -> Result<String, ring::error::Unspecified> {
    let (namespace, name) = (account.namespace(), account.name());
    let claims = json!({
        "iss": ISSUER,
        NAMESPACE: namespace,
        SECRET_NAME: secret.name(),
        ACCOUNT_NAME: name,
        ACCOUNT_UID: &*account.meta().uid,
        "sub": format!("system:serviceaccount:{namespace}:{name}"),
    });
    jwt::sign(key, &claims)
}

/// What a token says.
#[derive(Debug)]
pub(crate) struct Claims<'a> {
    pub(crate) namespace: &'a str,
    pub(crate) secret: &'a str,
    pub(crate) account: &'a str,
    pub(crate) account_uid: &'a str,
}

impl<'a> Claims<'a> {
    /// # Errors
    /// What is missing or wrong, in Kubernetes' words.
    pub(crate) fn read(claims: &'a Value) -> Result<Self, String> {
        let text = |key: &str| claims.get(key).and_then(Value::as_str).unwrap_or_default();
        let (namespace, secret, name, uid) = (text(NAMESPACE), text(SECRET_NAME), text(ACCOUNT_NAME), text(ACCOUNT_UID));
        for (claim, word) in [
            (text("sub"), "sub"),
            (namespace, "namespace"),
            (secret, "secretName"),
            (name, "serviceAccountName"),
            (uid, "serviceAccountUID"),
        ] {
            if claim.is_empty() {
                return Err(format!("{word} claim is missing"));
            }
        }
        if text("sub") != format!("system:serviceaccount:{namespace}:{name}") {
            return Err("sub claim is invalid".to_owned());
        }
        Ok(Self { namespace, secret, account: name, account_uid: uid })
    }
}
