//! Deletion of namespaces: everything in one is deleted, then the finalizer that held it is taken off.

use jiff::Timestamp;
use serde_json::json;

use super::plan::{Controller, Plan, Source, Write, tree};
use crate::cache::{Cache, Query};
use crate::client::DeleteOptions;
use crate::object::{Object, ObjectKey, ResourceRef, resource};

/// Empties and finalizes namespaces that are being deleted.
#[derive(Debug)]
pub struct NamespaceController;

/// What is deleted one by one, as the cache has it. Events, which it does not have, are deleted as a whole.
fn contents() -> impl Iterator<Item = ResourceRef> {
    super::reads().filter(|it| it.namespaced)
}

impl Controller for NamespaceController {
    fn name(&self) -> &'static str {
        "namespace-controller"
    }

    fn sources(&self) -> Vec<Source> {
        // While a namespace is being emptied, the end of each thing in it is a reason to look again.
        let things = contents().map(|resource| Source::leading_to(resource, namespace_of));
        std::iter::once(Source::own(&resource::NAMESPACE)).chain(things).collect()
    }

    fn plan(&self, cache: &Cache, key: &ObjectKey, _now: Timestamp) -> Plan {
        let mut plan = Plan::default();
        let Some(namespace) = cache.get(&resource::NAMESPACE, "", &key.name.name).filter(|it| it.meta().is_deleted()) else { return plan };
        let query = Query::namespace(namespace.name());
        let mut empty = true;
        for resource in contents() {
            for object in cache.list(resource, &query).objects {
                empty = false;
                if !object.meta().is_deleted() {
                    let options = DeleteOptions { propagation: Some("Background"), ..DeleteOptions::default() };
                    plan.writes.push(Write::Delete { key: object.key(), options, tell: None });
                }
            }
        }
        if empty {
            let mut finalized = tree(&namespace);
            let finalizers = finalized["spec"]["finalizers"].as_array().cloned().unwrap_or_default();
            if finalizers.iter().any(|it| it == "kubernetes") {
                finalized["spec"]["finalizers"] = finalizers.into_iter().filter(|it| it != "kubernetes").collect();
                plan.writes.push(Write::DeleteAll { resource: &resource::EVENT, namespace: namespace.name().to_owned() });
                plan.writes.push(Write::Replace { key: namespace.key(), subresource: "finalize", object: finalized });
            }
        } else if namespace.field("status.phase") != Some("Terminating") {
            plan.set_status(namespace.key(), &tree(&namespace)["status"], json!({ "phase": "Terminating" }));
        }
        plan
    }
}

fn namespace_of(cache: &Cache, object: &Object) -> Vec<ObjectKey> {
    let namespace = cache.get(&resource::NAMESPACE, "", object.namespace());
    namespace.filter(|it| it.meta().is_deleted()).map(|it| it.key()).into_iter().collect()
}
