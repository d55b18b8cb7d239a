//! Tokens that lie in secrets and have no end: good as long as the secret holds them.

use serde_json::Value;

use super::super::Server;
use super::account::{Account, Named};
use crate::object::resource::{SECRET, SERVICE_ACCOUNT};
use crate::object::{Object, ObjectKey};
use crate::tokens::legacy::Claims;
use crate::util::json;

/// The label of a secret whose token has been invalidated.
const INVALID_SINCE: &str = "kubernetes.io/legacy-token-invalid-since";

/// The account of the token, if it is still valid.
///
/// # Errors
/// Why it is not, in Kubernetes' words.
pub(super) async fn check(server: &Server, claims: &Value, token: &str) -> Result<Account, String> {
    let Claims { namespace, secret, account: name, account_uid: uid } = Claims::read(claims)?;
    let find = async |resource, name| server.current(&ObjectKey::new(resource, namespace, name)).await.ok().map(|it| it.object);
    let there = find(&SECRET, secret).await.filter(|it| !it.meta().is_deleted()).ok_or("Token has been invalidated")?;
    if !holds(&there, token) {
        return Err("Token does not match server's copy".to_owned());
    }
    let account = find(&SERVICE_ACCOUNT, name).await.ok_or_else(|| format!("serviceaccounts {name:?} not found"))?;
    if account.meta().is_deleted() {
        return Err(format!("ServiceAccount {namespace}/{name} has been deleted"));
    }
    if *account.meta().uid != *uid {
        return Err(format!("ServiceAccount UID ({}) does not match claim ({uid})", account.meta().uid));
    }
    if there.meta().label(INVALID_SINCE).is_some_and(|it| !it.is_empty()) {
        return Err(format!(
            "the token in secret {namespace}/{secret} for service account {namespace}/{name} has been marked invalid. Use tokens from the \
             TokenRequest API or manually created secret-based tokens, or remove the '{INVALID_SINCE}' label from the secret to temporarily \
             allow use of this token"
        ));
    }
    let account = Named::of(&account);
    Ok(Account { namespace: namespace.to_owned(), account, pod: None, secret: None, node: None, id: String::new() })
}

/// Whether a secret contains this token. (The comparison need not be constant-time: the token's signature has been verified.)
fn holds(secret: &Object, token: &str) -> bool {
    use base64::Engine as _;
    let Ok(secret) = serde_json::from_slice::<Value>(secret.body()) else { return false };
    base64::engine::general_purpose::STANDARD.decode(json::text(&secret, "/data/token")).is_ok_and(|it| it == token.as_bytes())
}
