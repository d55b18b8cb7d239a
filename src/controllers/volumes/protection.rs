//! Finalizers that keep claims while pods use them, and volumes while claims are bound to them.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::super::plan::{Controller, Plan, Source, Write};
use super::{claims_of_pod, users, uses};
use crate::cache::Cache;
use crate::client::Patch;
use crate::object::{Object, ObjectKey, resource, storage};

/// Adds the finalizers, and removes them from deleted objects that are not in use.
#[derive(Debug)]
pub struct ProtectionController;

impl Controller for ProtectionController {
    fn name(&self) -> &'static str {
        "volume-protection-controller"
    }

    fn sources(&self) -> Vec<Source> {
        vec![
            Source::own(&resource::PERSISTENT_VOLUME_CLAIM),
            Source::own(&resource::PERSISTENT_VOLUME),
            Source::leading_to(&resource::POD, |cache, pod| {
                let deleted =
                    |key: &ObjectKey| cache.get(key.resource, &key.name.namespace, &key.name.name).is_some_and(|it| it.meta().is_deleted());
                claims_of_pod(pod).filter(deleted).collect()
            }),
        ]
    }

    fn plan(&self, cache: &Cache, key: &ObjectKey, _now: Timestamp) -> Plan {
        let mut plan = Plan::default();
        let Some(object) = cache.get(key.resource, &key.name.namespace, &key.name.name) else { return plan };
        let claim = key.resource == &resource::PERSISTENT_VOLUME_CLAIM;
        let Some(finalizer) = key.resource.protection else { return plan };
        let held = object.meta().finalizers.iter().any(|it| **it == *finalizer);
        let used = || match claim {
            true => users(cache, &object).next().is_some(),
            false => &*storage::volume(&object).phase == "Bound",
        };
        let mut finalizers: Vec<&str> = object.meta().finalizers.iter().map(|it| &**it).collect();
        match (object.meta().is_deleted(), held) {
            (false, false) => {
                finalizers.push(finalizer);
                plan.writes.push(set(&object, &finalizers));
            }
            (true, true) if !used() => {
                finalizers.retain(|it| *it != finalizer);
                let write = set(&object, &finalizers);
                plan.writes.push(if claim { unless_used(key, write) } else { write });
            }
            _ => {}
        }
        plan
    }
}

/// The pod that uses the claim may be newer than what the cache knows of pods.
fn unless_used(claim: &ObjectKey, write: Write) -> Write {
    let (namespace, name) = (claim.name.namespace.to_string(), claim.name.name.to_string());
    Write::UnlessAny { resource: &resource::POD, namespace, is: uses, name, write: Box::new(write) }
}

fn set(object: &Object, finalizers: &[&str]) -> Write {
    let finalizers = if finalizers.is_empty() { Value::Null } else { json!(finalizers) };
    let meta = object.meta();
    let metadata = json!({ "uid": &*meta.uid, "resourceVersion": object.revision().to_string(), "finalizers": finalizers });
    Write::Patch { key: object.key(), subresource: "", patch: Patch::Merge(json!({ "metadata": metadata })) }
}
