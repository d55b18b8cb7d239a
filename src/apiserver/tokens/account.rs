//! The claims of a service account token, and whether they still hold.

use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value, json};

use super::super::Server;
use crate::object::resource::{NODE, POD, SECRET, SERVICE_ACCOUNT};
use crate::object::{Object, ObjectKey, ResourceRef};
use crate::util::json;

/// Tolerance for clock differences, and for deleted objects.
const LEEWAY: SignedDuration = SignedDuration::from_secs(60);
const PRIVATE: &str = "kubernetes.io";
const INVALIDATED: &str = "service account token has been invalidated";

/// An object that a token names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Named {
    pub(crate) name: String,
    pub(crate) uid: String,
}

impl Named {
    pub(crate) fn of(object: &Object) -> Self {
        Self { name: object.name().to_owned(), uid: object.meta().uid.to_string() }
    }

    fn claim(&self) -> Value {
        let mut claim = json!({ "name": self.name });
        if !self.uid.is_empty() {
            claim["uid"] = self.uid.as_str().into();
        }
        claim
    }

    fn read(claim: Option<&Value>) -> Option<Self> {
        let text = |key| claim?.get(key)?.as_str().map(str::to_owned);
        claim.map(|_| Self { name: text("name").unwrap_or_default(), uid: text("uid").unwrap_or_default() })
    }
}

/// A service account as named in a token, with the object to which the token is bound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Account {
    pub(crate) namespace: String,
    pub(crate) account: Named,
    pub(crate) pod: Option<Named>,
    pub(crate) secret: Option<Named>,
    /// The pod's node, if there is a pod: then the token is not bound to the node.
    pub(crate) node: Option<Named>,
    /// The token's own id.
    pub(crate) id: String,
}

/// How long a token is good for, in seconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Term {
    pub(crate) seconds: i64,
    /// Use after this time is beyond the requested lifetime.
    pub(crate) warn_after: Option<i64>,
}

impl Account {
    /// The claims of a new token.
    pub(super) fn claims(&self, issuer: &str, audiences: &[String], term: Term, now: Timestamp) -> Value {
        let now = now.as_second();
        let mut private = Map::new();
        private.insert("namespace".to_owned(), self.namespace.as_str().into());
        for (key, named) in [("node", &self.node), ("pod", &self.pod), ("secret", &self.secret)] {
            if let Some(named) = named {
                private.insert(key.to_owned(), named.claim());
            }
        }
        private.insert("serviceaccount".to_owned(), self.account.claim());
        if let Some(seconds) = term.warn_after {
            private.insert("warnafter".to_owned(), (now + seconds).into());
        }
        json!({
            "aud": audiences,
            "exp": now + term.seconds,
            "iat": now,
            "iss": issuer,
            "jti": self.id,
            PRIVATE: private,
            "nbf": now,
            "sub": format!("system:serviceaccount:{}:{}", self.namespace, self.account.name),
        })
    }

    pub(super) fn read(claims: &Value) -> Self {
        let private = claims.get(PRIVATE).unwrap_or(&Value::Null);
        let named = |key: &str| Named::read(private.get(key).filter(|it| !it.is_null()));
        Self {
            namespace: json::text(private, "/namespace").to_owned(),
            account: named("serviceaccount").unwrap_or(Named { name: String::new(), uid: String::new() }),
            pod: named("pod"),
            secret: named("secret"),
            node: named("node"),
            id: json::text(claims, "/jti").to_owned(),
        }
    }

    /// `authentication.k8s.io/v1` UserInfo.
    pub(crate) fn user_info(&self) -> Value {
        let mut extra = Map::new();
        let mut add = |key: &str, value: String| drop(extra.insert(format!("authentication.kubernetes.io/{key}"), json!([value])));
        if !self.id.is_empty() {
            add("credential-id", format!("JTI={}", self.id));
        }
        for (kind, named) in [("node", &self.node), ("pod", &self.pod)] {
            if let Some(named) = named {
                add(&format!("{kind}-name"), named.name.clone());
                if !named.uid.is_empty() {
                    add(&format!("{kind}-uid"), named.uid.clone());
                }
            }
        }
        let mut info = json!({
            "username": format!("system:serviceaccount:{}:{}", self.namespace, self.account.name),
            "uid": self.account.uid,
            "groups": ["system:serviceaccounts", format!("system:serviceaccounts:{}", self.namespace), "system:authenticated"],
        });
        if !extra.is_empty() {
            info["extra"] = extra.into();
        }
        info
    }

    /// Whether the account and the bound object still exist.
    ///
    /// # Errors
    /// Which one does not, in Kubernetes' words.
    pub(super) async fn check(&self, server: &Server, now: Timestamp) -> Result<(), String> {
        let (namespace, name) = (&self.namespace, &self.account.name);
        let account = find(server, &SERVICE_ACCOUNT, namespace, &self.account).await;
        let account = account.ok_or_else(|| format!("serviceaccounts {name:?} not found"))?;
        if *account.meta().uid != *self.account.uid {
            return Err(format!("service account UID ({}) does not match claim ({})", account.meta().uid, self.account.uid));
        }
        if is_long_deleted(&account, now) {
            return Err(format!("service account {namespace}/{name} has been deleted"));
        }
        let node = self.node.as_ref().filter(|_| self.pod.is_none());
        for (resource, namespace, word, bound) in [
            (&SECRET, namespace.as_str(), "secret", self.secret.as_ref()),
            (&POD, namespace.as_str(), "pod", self.pod.as_ref()),
            (&NODE, "", "node", node),
        ] {
            let Some(bound) = bound else { continue };
            let object = find(server, resource, namespace, bound).await.ok_or(INVALIDATED)?;
            if *object.meta().uid != *bound.uid {
                let (is, claimed, kind) = (&object.meta().uid, &bound.uid, resource.singular);
                return Err(format!("{kind} UID ({is}) does not match service account {word} ref claim ({claimed})"));
            }
            if is_long_deleted(&object, now) {
                return Err(INVALIDATED.to_owned());
            }
        }
        Ok(())
    }
}

/// The object of this name: the cached one if it has the uid, otherwise the stored one.
async fn find(server: &Server, resource: ResourceRef, namespace: &str, named: &Named) -> Option<std::sync::Arc<Object>> {
    let key = ObjectKey::new(resource, namespace, &named.name);
    match server.cached(&key) {
        Some(object) if *object.meta().uid == *named.uid => Some(object),
        _ => server.live(&key).await.ok().map(|it| it.object),
    }
}

fn is_long_deleted(object: &Object, now: Timestamp) -> bool {
    let deleted = object.meta().deleted.as_deref().and_then(|it| it.parse::<Timestamp>().ok());
    deleted.is_some_and(|it| it < now - LEEWAY)
}

/// Whether a token is good at this time.
///
/// # Errors
/// Says that it is not, in Kubernetes' words.
pub(super) fn check_time(claims: &Value, now: Timestamp) -> Result<(), &'static str> {
    let at = |key: &str| claims.get(key).and_then(Value::as_f64).filter(|it| *it != 0.0);
    let (now, leeway) = (now.as_second() as f64, LEEWAY.as_secs() as f64);
    if at("nbf").is_some_and(|it| now + leeway < it) {
        return Err("service account token is not valid yet");
    }
    if at("exp").is_some_and(|it| now - leeway > it) {
        return Err("service account token has expired");
    }
    if at("iat").is_some_and(|it| now + leeway < it) {
        return Err("service account token is issued in the future");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str) -> Named {
        Named { name: name.to_owned(), uid: format!("uid-{name}") }
    }

    #[test]
    fn claims_come_back() {
        let account = Account {
            namespace: "n".to_owned(),
            account: named("a"),
            pod: Some(named("p")),
            secret: None,
            node: Some(Named { name: "node".to_owned(), uid: String::new() }),
            id: "j".to_owned(),
        };
        let now = Timestamp::from_second(1000).unwrap();
        let claims = account.claims("https://me", &["x".to_owned()], Term { seconds: 600, warn_after: Some(60) }, now);
        assert_eq!(
            claims,
            json!({"aud": ["x"], "exp": 1600, "iat": 1000, "iss": "https://me", "jti": "j", "nbf": 1000, "sub": "system:serviceaccount:n:a",
                   "kubernetes.io": {"namespace": "n", "serviceaccount": {"name": "a", "uid": "uid-a"}, "pod": {"name": "p", "uid": "uid-p"},
                                     "node": {"name": "node"}, "warnafter": 1060}})
        );
        assert_eq!(Account::read(&claims), account);
        let info = account.user_info();
        assert_eq!(info["username"], "system:serviceaccount:n:a");
        assert_eq!(info["groups"], json!(["system:serviceaccounts", "system:serviceaccounts:n", "system:authenticated"]));
        assert_eq!(info["extra"]["authentication.kubernetes.io/credential-id"], json!(["JTI=j"]));
        assert_eq!(info["extra"]["authentication.kubernetes.io/pod-uid"], json!(["uid-p"]));
        assert!(info["extra"].get("authentication.kubernetes.io/node-uid").is_none());
    }

    #[test]
    fn a_token_has_its_time() {
        let claims = json!({"nbf": 1000, "iat": 1000, "exp": 1600});
        for (now, ok) in [(939, false), (940, true), (1000, true), (1660, true), (1661, false)] {
            assert_eq!(check_time(&claims, Timestamp::from_second(now).unwrap()).is_ok(), ok, "{now}");
        }
        assert!(check_time(&json!({}), Timestamp::from_second(1).unwrap()).is_ok());
    }
}
