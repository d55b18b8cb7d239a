//! The service account `default` of every namespace.

use jiff::Timestamp;
use serde_json::json;

use super::plan::{Controller, Plan, Source, Write};
use crate::cache::Cache;
use crate::object::{ObjectKey, resource};

/// Makes the account, and makes it again if it is deleted.
#[derive(Debug)]
pub struct ServiceAccountController;

const DEFAULT: &str = "default";

impl Controller for ServiceAccountController {
    fn name(&self) -> &'static str {
        "serviceaccount-controller"
    }

    fn sources(&self) -> Vec<Source> {
        vec![
            Source::own(&resource::NAMESPACE),
            Source::leading_to(&resource::SERVICE_ACCOUNT, |_, it| vec![ObjectKey::new(&resource::NAMESPACE, "", it.namespace())]),
        ]
    }

    fn plan(&self, cache: &Cache, key: &ObjectKey, _now: Timestamp) -> Plan {
        let mut plan = Plan::default();
        let name = &*key.name.name;
        let lives = cache.get(&resource::NAMESPACE, "", name).is_some_and(|it| !it.meta().is_deleted());
        if lives && cache.get(&resource::SERVICE_ACCOUNT, name, DEFAULT).is_none() {
            let object = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": DEFAULT}});
            plan.writes.push(Write::Create { resource: &resource::SERVICE_ACCOUNT, namespace: name.to_owned(), object, tell: None });
        }
        plan
    }
}
