//! ReplicationController and ReplicaSet: as many pods as asked for.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::conditions::Conditions;
use super::owners::{self, Claim};
use super::plan::{Controller, Failure, Plan, Source, Tell, Write, tree};
use super::pods;
use crate::cache::Cache;
use crate::object::selector::LabelSelector;
use crate::object::{Object, ObjectKey, ResourceRef, resource};

/// Most pods created or deleted for one object at a time, so that it does not starve others.
const BURST: usize = 500;

/// The condition that pods cannot be created or deleted.
const FAILURE: &str = "ReplicaFailure";

/// Keeps the pods of ReplicationControllers or of ReplicaSets.
#[derive(Debug)]
pub struct Replicas {
    resource: ResourceRef,
}

impl Replicas {
    pub fn replication_controllers() -> Self {
        Self { resource: &resource::REPLICATION_CONTROLLER }
    }

    pub fn replica_sets() -> Self {
        Self { resource: &resource::REPLICA_SET }
    }
}

/// The fields of either kind, read from its JSON.
struct Desired {
    replicas: usize,
    min_ready: Duration,
    selector: LabelSelector,
    /// As the user wrote it.
    template: Value,
    status: Value,
}

impl Desired {
    fn read(object: &Object) -> Option<Self> {
        let selector = owners::selector(object)?;
        let mut tree = tree(object);
        let spec = &mut tree["spec"];
        Some(Self {
            replicas: usize::try_from(spec["replicas"].as_i64().unwrap_or(1)).unwrap_or_default(),
            min_ready: Duration::from_secs(spec["minReadySeconds"].as_u64().unwrap_or_default()),
            selector,
            template: spec["template"].take(),
            status: tree["status"].take(),
        })
    }

    /// The owner's active pods; ended ones are ignored.
    fn claim(&self, cache: &Cache, owner: &Arc<Object>, plan: &mut Plan) -> Vec<Arc<Object>> {
        Claim::new(&resource::POD, &self.selector).among(pods::is_active).take(cache, owner, plan)
    }

    /// Tells why there are not as many pods as there should be.
    fn fail(&self, owner: &Object, active: &[Arc<Object>], failure: &Failure, now: Timestamp, plan: &mut Plan) {
        let mut conditions = Conditions::of(&self.status, None);
        conditions.set(FAILURE, "True", failure.reason, &failure.message, now);
        let mut status = status(owner, self, active, now, plan);
        status["conditions"] = conditions.into_json();
        plan.set_status(owner.key(), &self.status, status);
    }
}

impl Controller for Replicas {
    fn name(&self) -> &'static str {
        if self.resource == &resource::REPLICA_SET { "replicaset-controller" } else { "replication-controller" }
    }

    fn sources(&self) -> Vec<Source> {
        let of_pod: fn(&Cache, &Object) -> Vec<ObjectKey> = if self.resource == &resource::REPLICA_SET {
            |cache, pod| owners::concerned(cache, pod, &resource::REPLICA_SET)
        } else {
            |cache, pod| owners::concerned(cache, pod, &resource::REPLICATION_CONTROLLER)
        };
        vec![Source::own(self.resource), Source::leading_to(&resource::POD, of_pod)]
    }

    fn plan(&self, cache: &Cache, key: &ObjectKey, now: Timestamp) -> Plan {
        let mut plan = Plan::default();
        let Some(owner) = cache.get(key.resource, &key.name.namespace, &key.name.name) else { return plan };
        let Some(desired) = Desired::read(&owner) else { return plan };
        let active = desired.claim(cache, &owner, &mut plan);
        let missing = desired.replicas.saturating_sub(active.len());
        if !owner.meta().is_deleted() {
            if missing > 0 {
                let pod = pods::from_template(&desired.template, &owner);
                if let Some(failure) = pods::hindrance(&pod) {
                    desired.fail(&owner, &active, &failure, now, &mut plan);
                    return plan;
                }
                for _ in 0..missing.min(BURST) {
                    plan.slowly.push(Write::Create {
                        resource: &resource::POD,
                        namespace: owner.namespace().to_owned(),
                        object: pod.clone(),
                        tell: Some(Tell::created(&owner, "pod")),
                    });
                }
            } else {
                for pod in surplus(cache, &owner, &active, desired.replicas).into_iter().take(BURST) {
                    plan.delete(pod, Some(Tell::deleted(&owner, "pod")));
                }
            }
        }
        if (1..=BURST).contains(&missing) && !owner.meta().is_deleted() {
            // The created pods trigger another plan, which then reports the status; if none can be created, `refused` does.
            return plan;
        }
        let mut failures = Conditions::of(&desired.status, None);
        if missing == 0 {
            failures.remove(FAILURE);
        }
        let mut status = status(&owner, &desired, &active, now, &mut plan);
        status["conditions"] = failures.into_json();
        plan.set_status(owner.key(), &desired.status, status);
        plan
    }

    fn refused(&self, cache: &Cache, key: &ObjectKey, failure: &Failure, now: Timestamp) -> Plan {
        let mut plan = Plan::default();
        let Some(owner) = cache.get(key.resource, &key.name.namespace, &key.name.name) else { return plan };
        let Some(desired) = Desired::read(&owner) else { return plan };
        let active = desired.claim(cache, &owner, &mut Plan::default());
        desired.fail(&owner, &active, failure, now, &mut plan);
        plan
    }
}

/// Active pods beyond the wanted number, in order of deletion: among others, those on a node with more pods of the owner, or of its sibling
/// versions.
fn surplus<'a>(cache: &Cache, owner: &Object, active: &'a [Arc<Object>], wanted: usize) -> Vec<&'a Arc<Object>> {
    let mut candidates: Vec<_> = active.iter().collect();
    if active.len() <= wanted {
        return Vec::new();
    }
    let siblings = siblings(cache, owner);
    let mut on_node: HashMap<&str, usize> = HashMap::new();
    for node in active.iter().chain(&siblings).filter_map(|pod| pods::node(pod)) {
        *on_node.entry(node).or_default() += 1;
    }
    candidates.sort_by_cached_key(|pod| {
        let together = pods::node(pod).and_then(|node| on_node.get(node)).copied().unwrap_or_default();
        pods::deletion_rank(pod, together)
    });
    candidates.truncate(active.len() - wanted);
    candidates
}

/// The active pods of the owner's siblings, which have the same controller.
fn siblings(cache: &Cache, owner: &Object) -> Vec<Arc<Object>> {
    let Some(controller) = owner.meta().controller() else { return Vec::new() };
    let others = cache.owned(owner.resource(), &controller.uid).into_iter().filter(|it| it.meta().uid != owner.meta().uid);
    let pods = others.flat_map(|it| cache.owned(&resource::POD, &it.meta().uid));
    pods.filter(|pod| pods::is_active(pod)).collect()
}

fn status(owner: &Object, desired: &Desired, active: &[Arc<Object>], now: Timestamp, plan: &mut Plan) -> Value {
    let labels = desired.template["metadata"]["labels"].as_object();
    let fully_labeled = |pod: &Object| labels.into_iter().flatten().all(|(key, value)| pod.meta().label(key) == value.as_str());
    let (mut ready, mut available) = (0, 0);
    for pod in active {
        ready += usize::from(pods::is_ready(pod));
        let (is_available, missing) = pods::is_available(pod, desired.min_ready, now);
        available += usize::from(is_available);
        if let Some(missing) = missing {
            plan.look_again(missing);
        }
    }
    // Zero counts are left out, as Kubernetes leaves them out; `replicas` always stays.
    let count = |number: usize| if number == 0 { Value::Null } else { json!(number) };
    json!({
        "replicas": active.len(),
        "fullyLabeledReplicas": count(active.iter().filter(|pod| fully_labeled(pod)).count()),
        "readyReplicas": count(ready),
        "availableReplicas": count(available),
        "observedGeneration": owner.meta().generation,
    })
}
