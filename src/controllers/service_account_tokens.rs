//! Secrets of the type `kubernetes.io/service-account-token`: each gets its account's token, and is deleted with the account. Accounts do not
//! list those that are gone.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::plan::{Controller, Plan, Source, Write, tree};
use crate::cache::{Cache, Query};
use crate::client::{DeleteOptions, Patch};
use crate::object::resource::{SECRET, SERVICE_ACCOUNT};
use crate::object::{Object, ObjectKey};
use crate::tokens::{SigningKey, legacy};

const TYPE: &str = "kubernetes.io/service-account-token";
const ACCOUNT_NAME: &str = "kubernetes.io/service-account.name";
const ACCOUNT_UID: &str = "kubernetes.io/service-account.uid";

#[derive(Debug)]
pub struct TokensController {
    /// `--service-account-private-key-file`.
    pub key: Arc<SigningKey>,
    /// `--root-ca-file`: certificates as PEM.
    pub root_ca: Option<String>,
}

fn of_type() -> Query {
    Query::field("type", TYPE)
}

impl Controller for TokensController {
    fn name(&self) -> &'static str {
        "tokens-controller"
    }

    fn sources(&self) -> Vec<Source> {
        vec![
            Source { query: of_type(), ..Source::own(&SECRET) },
            Source::leading_to(&SERVICE_ACCOUNT, |cache, account| {
                let query = Query { namespace: Some(account.namespace().to_owned()), ..of_type() };
                cache.list(&SECRET, &query).objects.iter().map(|it| it.key()).collect()
            }),
        ]
    }

    fn plan(&self, cache: &Cache, key: &ObjectKey, _now: Timestamp) -> Plan {
        let mut plan = Plan::default();
        let Some(secret) = cache.get(&SECRET, &key.name.namespace, &key.name.name) else {
            strike(cache, key, &mut plan);
            return plan;
        };
        if secret.meta().is_deleted() || secret.field("type") != Some(TYPE) {
            return plan;
        }
        let content = tree(&secret);
        let annotation = |name: &str| content["metadata"]["annotations"][name].as_str().unwrap_or_default();
        let account = cache.get(&SERVICE_ACCOUNT, secret.namespace(), annotation(ACCOUNT_NAME));
        match account.filter(|it| matches!(annotation(ACCOUNT_UID), uid if uid.is_empty() || *uid == *it.meta().uid)) {
            None => {
                // The account may be newer than what the cache knows of accounts.
                let account = ObjectKey::new(&SERVICE_ACCOUNT, secret.namespace(), annotation(ACCOUNT_NAME));
                let options = DeleteOptions { uid: Some(secret.meta().uid.to_string()), ..DeleteOptions::default() };
                let write = Box::new(Write::Delete { key: key.clone(), options, tell: None });
                plan.writes.push(Write::UnlessFound { objects: vec![(account, annotation(ACCOUNT_UID).to_owned())], write });
            }
            Some(account) => {
                if let Some(patch) = self.lacking(&content, &account, &secret) {
                    plan.writes.push(Write::Patch { key: key.clone(), subresource: "", patch: Patch::Merge(patch) });
                }
            }
        }
        plan
    }
}

/// Removes a secret that is gone from the lists of accounts.
fn strike(cache: &Cache, secret: &ObjectKey, plan: &mut Plan) {
    for account in cache.list(&SERVICE_ACCOUNT, &Query::namespace(&secret.name.namespace)).objects {
        let content = tree(&account);
        let listed = content["secrets"].as_array().map(Vec::as_slice).unwrap_or_default();
        let left: Vec<&Value> = listed.iter().filter(|it| it["name"] != *secret.name.name).collect();
        if left.len() < listed.len() {
            let revision = account.revision().to_string();
            let left = if left.is_empty() { Value::Null } else { json!(left) };
            let patch = json!({"metadata": {"resourceVersion": revision}, "secrets": left});
            plan.writes.push(Write::Patch { key: account.key(), subresource: "", patch: Patch::Merge(patch) });
        }
    }
}

impl TokensController {
    /// A patch with the data that the secret lacks.
    fn lacking(&self, content: &Value, account: &Object, secret: &Object) -> Option<Value> {
        let has = |key: &str| content["data"][key].as_str().filter(|it| !it.is_empty());
        let mut data = serde_json::Map::new();
        if let Some(certificates) = self.root_ca.as_ref().map(|it| STANDARD.encode(it)).filter(|it| has("ca.crt") != Some(it)) {
            data.insert("ca.crt".to_owned(), certificates.into());
        }
        if has("namespace").is_none() {
            data.insert("namespace".to_owned(), STANDARD.encode(secret.namespace()).into());
        }
        if has("token").is_none() {
            match legacy::issue(&self.key, account, secret) {
                Ok(token) => drop(data.insert("token".to_owned(), STANDARD.encode(token).into())),
                Err(error) => tracing::warn!("a token for the secret {}/{}: {error}", secret.namespace(), secret.name()),
            }
        }
        if data.is_empty() {
            return None;
        }
        // Only for this version of this secret, so that a later secret of the same name does not get it.
        let annotations = json!({ACCOUNT_UID: &*account.meta().uid});
        let metadata = json!({"uid": &*secret.meta().uid, "resourceVersion": secret.revision().to_string(), "annotations": annotations});
        Some(json!({"metadata": metadata, "data": data}))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controllers::simulation::World;

    const KEY: &str = include_str!("../tokens/testdata/rsa.pem");

    fn secret(world: &mut World, name: &str, account: &str, kind: &str) {
        let metadata = json!({"name": name, "annotations": {ACCOUNT_NAME: account}});
        world.put(&SECRET, "n", json!({"metadata": metadata, "type": kind}));
    }

    #[test]
    fn accounts_do_not_list_secrets_that_are_gone() {
        let key = Arc::new(SigningKey::read(KEY.as_bytes()).unwrap());
        let controller = TokensController { key, root_ca: None };
        let mut world = World::new(Vec::new());
        secret(&mut world, "there", "me", TYPE);
        for (listed, left) in [
            (json!([{"name": "gone"}, {"name": "there"}]), Some(json!([{"name": "there"}]))),
            (json!([{"name": "gone"}]), Some(Value::Null)),
            (json!([{"name": "there"}]), None),
        ] {
            let account = world.put(&SERVICE_ACCOUNT, "n", json!({"metadata": {"name": "me"}, "secrets": listed}));
            let plan = controller.plan(&world.cache, &ObjectKey::new(&SECRET, "n", "gone"), world.now());
            let patches = plan.writes.iter().map(|it| match it {
                Write::Patch { key, patch: Patch::Merge(patch), .. } if *key == account.key() => patch["secrets"].clone(),
                other => panic!("{other:?}"),
            });
            assert_eq!(patches.collect::<Vec<_>>(), Vec::from_iter(left), "{listed}");
        }
    }

    #[test]
    fn a_secret_lives_as_long_as_its_account() {
        let key = Arc::new(SigningKey::read(KEY.as_bytes()).unwrap());
        let mut world = World::new(vec![Box::new(TokensController { key, root_ca: Some("PEM".to_owned()) })]);
        let account = world.put(&SERVICE_ACCOUNT, "n", json!({"metadata": {"name": "me"}}));
        secret(&mut world, "mine", "me", TYPE);
        secret(&mut world, "nobodys", "nobody", TYPE);
        secret(&mut world, "other", "nobody", "Opaque");
        let names = |world: &World| world.list(&SECRET).iter().map(|it| it.name().to_owned()).collect::<Vec<_>>();
        // The watch of accounts may be behind that of secrets.
        let late = world.put(&SERVICE_ACCOUNT, "n", json!({"metadata": {"name": "nobody"}}));
        world.remove(&late.key());
        world.unseen = vec![late];
        world.step(&mut |_| ());
        assert_eq!(names(&world), ["mine", "nobodys", "other"]);
        world.unseen.clear();
        world.settle(|_| ());
        assert_eq!(names(&world), ["mine", "other"]);
        let mine = tree(&world.cache.get(&SECRET, "n", "mine").unwrap());
        assert_eq!((&mine["data"]["ca.crt"], &mine["data"]["namespace"]), (&json!("UEVN"), &json!("bg==")));
        assert_eq!(mine["metadata"]["annotations"][ACCOUNT_UID], &*account.meta().uid);
        assert_eq!(mine["data"]["token"].as_str().map(str::is_empty), Some(false));
        // An account of the same name is another one.
        world.remove(&account.key());
        world.put(&SERVICE_ACCOUNT, "n", json!({"metadata": {"name": "me"}}));
        world.settle(|_| ());
        assert_eq!(names(&world), ["other"]);
    }
}
