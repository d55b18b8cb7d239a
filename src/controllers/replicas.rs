//! ReplicationController and ReplicaSet: as many pods as asked for.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1 as metav1;
use serde_json::{Value, json};

use super::plan::{Controller, Plan, Source, Write, controller_key, controller_reference, tree};
use super::pods;
use crate::cache::{Cache, Query};
use crate::client::{DeleteOptions, Patch};
use crate::object::selector::LabelSelector;
use crate::object::{Object, ObjectKey, ResourceRef, resource};

/// Most pods created or deleted for one object at a time, so that one object does not starve the others.
const BURST: usize = 500;

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

/// What either kind says, read from its JSON: the template is passed on as its user wrote it.
struct Desired {
    replicas: usize,
    min_ready: Duration,
    selector: LabelSelector,
    template: Value,
    status: Value,
}

impl Desired {
    fn read(object: &Object) -> Option<Self> {
        let mut tree = tree(object);
        let spec = &mut tree["spec"];
        let mut selector = spec["selector"].take();
        if object.resource() == &resource::REPLICATION_CONTROLLER {
            selector = json!({ "matchLabels": selector });
        }
        let selector: metav1::LabelSelector = serde_json::from_value(selector).ok()?;
        Some(Self {
            replicas: usize::try_from(spec["replicas"].as_i64().unwrap_or(1)).unwrap_or_default(),
            min_ready: Duration::from_secs(spec["minReadySeconds"].as_u64().unwrap_or_default()),
            selector: LabelSelector::from_spec(&selector).ok()?,
            template: spec["template"].take(),
            status: tree["status"].take(),
        })
    }
}

impl Controller for Replicas {
    fn name(&self) -> &'static str {
        if self.resource == &resource::REPLICA_SET { "replicaset-controller" } else { "replication-controller" }
    }

    fn sources(&self) -> Vec<Source> {
        let of_pod: fn(&Cache, &Object) -> Vec<ObjectKey> = if self.resource == &resource::REPLICA_SET {
            |cache, pod| owners_of(cache, pod, &resource::REPLICA_SET)
        } else {
            |cache, pod| owners_of(cache, pod, &resource::REPLICATION_CONTROLLER)
        };
        vec![Source::own(self.resource), Source::leading_to(&resource::POD, of_pod)]
    }

    fn plan(&self, cache: &Cache, key: &ObjectKey, now: Timestamp) -> Plan {
        let mut plan = Plan::default();
        let Some(owner) = cache.get(key.resource, &key.name.namespace, &key.name.name) else { return plan };
        let Some(desired) = Desired::read(&owner) else { return plan };
        if desired.selector.requirements.is_empty() {
            return plan;
        }
        let mine = claim(cache, &owner, &desired.selector, &mut plan);
        let mut active: Vec<_> = mine.into_iter().filter(|pod| pods::is_active(pod)).collect();
        if !owner.meta().is_deleted() {
            if active.len() < desired.replicas {
                for _ in 0..(desired.replicas - active.len()).min(BURST) {
                    plan.writes.push(Write::Create {
                        resource: &resource::POD,
                        namespace: owner.namespace().to_owned(),
                        object: pods::from_template(&desired.template, &owner),
                        owner: Some(owner.clone()),
                    });
                }
            } else if active.len() > desired.replicas {
                active.sort_by_cached_key(|pod| pods::deletion_rank(pod));
                for pod in active.iter().take((active.len() - desired.replicas).min(BURST)) {
                    plan.writes.push(Write::Delete {
                        key: pod.key(),
                        options: DeleteOptions { uid: Some(pod.meta().uid.to_string()), ..DeleteOptions::default() },
                        owner: Some(owner.clone()),
                    });
                }
            }
        }
        let status = status(&owner, &desired, &active, now, &mut plan);
        plan.set_status(owner.key(), &desired.status, status);
        plan
    }
}

/// The pods that `owner` controls; matching ones without a controller are adopted, controlled ones that no longer match are let go.
fn claim(cache: &Cache, owner: &Arc<Object>, selector: &LabelSelector, plan: &mut Plan) -> Vec<Arc<Object>> {
    let uid = &owner.meta().uid;
    let owned = cache.owned_by(uid).into_iter().filter(|it| it.resource() == &resource::POD);
    let (mut mine, strayed): (Vec<_>, Vec<_>) =
        owned.filter(|it| it.meta().controller().is_some_and(|it| it.uid == *uid)).partition(|pod| selector.matches(pod));
    let set_owners = |pod: &Object, owners: Value| Write::Patch {
        key: pod.key(),
        subresource: "",
        patch: Patch::Merge(json!({"metadata": {"uid": &*pod.meta().uid, "ownerReferences": owners}})),
    };
    let others = |pod: &Object| -> Vec<Value> {
        let owners = tree(pod)["metadata"]["ownerReferences"].take();
        owners.as_array().into_iter().flatten().filter(|it| it["uid"] != **uid).cloned().collect()
    };
    for pod in strayed {
        if !pod.meta().is_deleted() {
            plan.writes.push(set_owners(&pod, Value::Array(others(&pod))));
        }
    }
    if owner.meta().is_deleted() {
        return mine;
    }
    let query = Query { namespace: Some(owner.namespace().to_owned()), labels: selector.clone(), ..Query::default() };
    for pod in cache.list(&resource::POD, &query).objects {
        if pod.meta().controller().is_none() && pods::is_active(&pod) {
            let mut owners = others(&pod);
            owners.push(controller_reference(owner));
            plan.writes.push(set_owners(&pod, Value::Array(owners)));
            mine.push(pod);
        }
    }
    mine
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

/// The objects of `resource` that a pod's change concerns: its controller, or all that would adopt it.
fn owners_of(cache: &Cache, pod: &Object, resource: ResourceRef) -> Vec<ObjectKey> {
    if pod.meta().controller().is_some() {
        return controller_key(pod, resource).into_iter().collect();
    }
    let query = Query::namespace(pod.namespace());
    let candidates = cache.list(resource, &query).objects;
    let matching =
        candidates.iter().filter(|it| Desired::read(it).is_some_and(|it| !it.selector.requirements.is_empty() && it.selector.matches(pod)));
    matching.map(|it| it.key()).collect()
}
