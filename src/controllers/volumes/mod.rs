//! Volumes and claims: each claim is bound to a suitable volume, which is later handled by its reclaim policy.
//!
//! A binding takes several writes, each of which triggers the next: the volume is reserved for the claim, the claim names the volume, and
//! both are marked as bound.

mod ephemeral;
mod protection;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::plan::{Controller, Plan, Source, Write, tree};
use super::pods;
use crate::cache::{Cache, Query};
use crate::client::Patch;
use crate::client::events::EventType;
use crate::object::default_class::{self, STORAGE_MARKS};
use crate::object::storage::{self, BIND_COMPLETED, BOUND_BY_CONTROLLER, Choice};
use crate::object::{Object, ObjectKey, resource};
pub use ephemeral::EphemeralController;
pub use protection::ProtectionController;

/// Binds claims, and keeps the phases of both kinds.
#[derive(Debug)]
pub struct VolumeController;

/// On a claim: the provisioner that should make its volume.
const PROVISIONER: [&str; 2] = ["volume.beta.kubernetes.io/storage-provisioner", "volume.kubernetes.io/storage-provisioner"];

impl Controller for VolumeController {
    fn name(&self) -> &'static str {
        "persistentvolume-controller"
    }

    fn sources(&self) -> Vec<Source> {
        vec![
            Source::own(&resource::PERSISTENT_VOLUME),
            Source::own(&resource::PERSISTENT_VOLUME_CLAIM),
            // The other half of a pair, and claims that wait for a volume.
            Source::leading_to(&resource::PERSISTENT_VOLUME, |cache, volume| match claim_key(volume) {
                Some(key) => vec![key],
                None => waiting(cache, volume.name(), |it| it.asks.class == storage::volume(volume).class),
            })
            .remembered(),
            Source::leading_to(&resource::PERSISTENT_VOLUME_CLAIM, |_, claim| {
                storage::claim(claim).volume.iter().map(|it| ObjectKey::new(&resource::PERSISTENT_VOLUME, "", it)).collect()
            })
            .remembered(),
            Source::leading_to(&resource::STORAGE_CLASS, |cache, class| {
                waiting(cache, "", |it| *it.asks.class == *class.name() || !it.names_class)
            }),
            Source::leading_to(&resource::POD, |cache, pod| {
                let waits = |key: &ObjectKey| {
                    let claim = cache.get(key.resource, &key.name.namespace, &key.name.name);
                    claim.is_some_and(|it| storage::claim(&it).volume.is_none())
                };
                claims_of_pod(pod).filter(waits).collect()
            }),
        ]
    }

    fn plan(&self, cache: &Cache, key: &ObjectKey, _now: Timestamp) -> Plan {
        let mut plan = Plan::default();
        let Some(object) = cache.get(key.resource, &key.name.namespace, &key.name.name) else { return plan };
        if key.resource == &resource::PERSISTENT_VOLUME {
            plan_volume(cache, &object, &mut plan);
        } else {
            plan_claim(cache, &object, &mut plan);
        }
        plan
    }
}

/// The keys of wanted claims without a volume, and of claims that name this one.
fn waiting(cache: &Cache, volume: &str, wanted: impl Fn(&storage::Claim) -> bool) -> Vec<ObjectKey> {
    let claims = cache.list(&resource::PERSISTENT_VOLUME_CLAIM, &Query::default()).objects;
    let waits = |it: &&Arc<Object>| {
        let claim = storage::claim(it);
        claim.volume.as_deref().map_or_else(|| wanted(claim), |named| named == volume)
    };
    claims.iter().filter(waits).map(|it| it.key()).collect()
}

fn claim_key(volume: &Object) -> Option<ObjectKey> {
    let reference = storage::volume(volume).claim.as_ref()?;
    Some(ObjectKey::new(&resource::PERSISTENT_VOLUME_CLAIM, &reference.namespace, &reference.name))
}

/// The claims that a pod's volumes name.
fn claims_of_pod(pod: &Object) -> impl Iterator<Item = ObjectKey> {
    pods::facts(pod).claims.iter().map(|claim| ObjectKey::new(&resource::PERSISTENT_VOLUME_CLAIM, pod.namespace(), claim))
}

/// The pods that use a claim.
fn all_users(cache: &Cache, claim: &Object) -> impl Iterator<Item = Arc<Object>> {
    let (pods, name) = (cache.list(&resource::POD, &Query::namespace(claim.namespace())).objects, claim.name().to_owned());
    pods.into_iter().filter(move |it| pods::facts(it).claims.iter().any(|claim| **claim == *name))
}

/// Only placed pods.
fn users(cache: &Cache, claim: &Object) -> impl Iterator<Item = Arc<Object>> {
    all_users(cache, claim).filter(|it| pods::node(it).is_some())
}

/// Whether a placed pod uses the claim of this name.
fn uses(pod: &Object, claim: &str) -> bool {
    pods::node(pod).is_some() && pods::facts(pod).claims.iter().any(|it| **it == *claim)
}

fn plan_claim(cache: &Cache, claim: &Arc<Object>, plan: &mut Plan) {
    let seen = storage::claim(claim);
    let (named, completed) = (seen.volume.as_deref().unwrap_or_default(), seen.is_completed);
    let object = seen.volume.as_ref().and_then(|it| cache.get(&resource::PERSISTENT_VOLUME, "", it));
    match object.as_ref().map(|it| (it, storage::volume(it))) {
        None if completed => {
            let what = if named.is_empty() { "reference to PersistentVolume" } else { "its PersistentVolume" };
            lose(claim, "ClaimLost", format!("Bound claim has lost {what}. Data on the volume is lost!"), plan);
        }
        Some((object, volume)) if volume.claim.is_none() => match volume.mismatch(&seen.asks).filter(|_| !completed) {
            Some(why) => {
                let message = format!("Cannot bind to requested volume {named:?}: {why}");
                plan.note(claim, EventType::Warning, "VolumeMismatch", message);
                set_pending(claim, plan);
            }
            None => reserve(object, claim, plan),
        },
        Some((object, volume)) if volume.is_for(claim) => bind(object, claim, plan),
        Some(_) if completed => {
            let message = "Two claims are bound to the same volume, this one is bound incorrectly".to_owned();
            lose(claim, "ClaimMisbound", message, plan);
        }
        Some(_) => {
            plan.note(claim, EventType::Warning, "FailedBinding", format!("volume {named:?} already bound to a different claim."));
            set_pending(claim, plan);
        }
        None if !named.is_empty() => set_pending(claim, plan),
        None if claim.meta().is_deleted() => {}
        None => find(cache, claim, plan),
    }
}

/// Looks for a volume. If the class waits for the first consumer, the scheduler decides: it reserves a volume for the claim, or selects the
/// node for a new one.
fn find(cache: &Cache, claim: &Arc<Object>, plan: &mut Plan) {
    let seen = storage::claim(claim);
    let named = &*seen.asks.class;
    let class = if named.is_empty() { None } else { cache.get(&resource::STORAGE_CLASS, "", named) };
    let class = class.as_deref().map(storage::class);
    let delayed = class.is_some_and(|it| it.is_delayed);
    let volumes = cache.list(&resource::PERSISTENT_VOLUME, &Query::default()).objects;
    if let Some(volume) = storage::best(&volumes, claim, if delayed { Choice::Meant } else { Choice::Any }) {
        return bind(volume, claim, plan);
    }
    if !seen.names_class
        && let Some(default) = default_class::newest(&cache.list(&resource::STORAGE_CLASS, &Query::default()).objects, STORAGE_MARKS)
    {
        // There was no default class when it was created.
        return plan.merge(claim.key(), &tree(claim), json!({ "spec": { "storageClassName": default.name() } }));
    }
    match class {
        _ if delayed && seen.selected_node.is_none() => {
            let pods: Vec<_> = all_users(cache, claim).filter(|it| !pods::has_ended(it)).map(|it| it.name().to_owned()).collect();
            let (reason, message) = match pods.as_slice() {
                [] => ("WaitForFirstConsumer", "waiting for first consumer to be created before binding".to_owned()),
                [pod] => ("WaitForPodScheduled", format!("waiting for pod {pod} to be scheduled")),
                pods => ("WaitForPodScheduled", format!("waiting for pods {} to be scheduled", pods.join(","))),
            };
            plan.note(claim, EventType::Normal, reason, message);
        }
        Some(class) if class.has_provisioner() => ask_provisioner(claim, &class.provisioner, plan),
        None if !named.is_empty() => {
            let message = format!("storageclass.storage.k8s.io {named:?} not found");
            plan.note(claim, EventType::Warning, "ProvisioningFailed", message);
        }
        _ => {
            let message = "no persistent volumes available for this claim and no storage class is set";
            plan.note(claim, EventType::Normal, "FailedBinding", message);
        }
    }
    set_pending(claim, plan);
}

/// Names the provisioner on the claim: it watches for that.
fn ask_provisioner(claim: &Arc<Object>, provisioner: &str, plan: &mut Plan) {
    let message = format!(
        "Waiting for a volume to be created either by the external provisioner '{provisioner}' or manually by the system administrator. If \
         volume creation is delayed, please verify that the provisioner is running and correctly registered."
    );
    plan.note(claim, EventType::Normal, "ExternalProvisioning", message);
    let annotations: serde_json::Map<String, Value> = PROVISIONER.iter().map(|it| ((*it).to_owned(), provisioner.into())).collect();
    plan.merge(claim.key(), &tree(claim), json!({ "metadata": { "annotations": annotations } }));
}

/// Reserves a volume for a claim, if it is still as it was seen.
fn reserve(volume: &Object, claim: &Object, plan: &mut Plan) {
    let patch = Patch::Merge(storage::reservation(volume, claim));
    plan.writes.push(Write::Patch { key: volume.key(), subresource: "", patch });
}

/// Marks the claim as bound to a volume, once that is reserved for it.
fn bind(object: &Object, claim: &Arc<Object>, plan: &mut Plan) {
    if storage::volume(object).claim.as_ref().is_none_or(|it| it.uid.is_empty()) {
        return reserve(object, claim, plan);
    }
    let current = tree(claim);
    let mut annotations = json!({ BIND_COMPLETED: "yes" });
    if storage::claim(claim).volume.is_none() {
        annotations[BOUND_BY_CONTROLLER] = "yes".into();
    }
    let patch = json!({ "metadata": { "annotations": annotations }, "spec": { "volumeName": object.name() } });
    plan.merge(claim.key(), &current, patch);
    if plan.writes_nothing() {
        let spec = &tree(object)["spec"];
        let status = json!({ "phase": "Bound", "accessModes": spec["accessModes"], "capacity": spec["capacity"] });
        plan.set_status(claim.key(), &current["status"], status);
    }
}

fn set_pending(claim: &Arc<Object>, plan: &mut Plan) {
    plan.set_status(claim.key(), &tree(claim)["status"], json!({ "phase": "Pending" }));
}

fn lose(claim: &Arc<Object>, reason: &'static str, message: String, plan: &mut Plan) {
    if &*storage::claim(claim).phase != "Lost" {
        plan.note(claim, EventType::Warning, reason, message);
        let status = json!({ "phase": "Lost", "accessModes": null, "capacity": null });
        plan.set_status(claim.key(), &tree(claim)["status"], status);
    }
}

fn plan_volume(cache: &Cache, volume: &Arc<Object>, plan: &mut Plan) {
    let reference = storage::volume(volume).claim.as_ref().filter(|it| !it.uid.is_empty());
    let Some(reference) = reference else { return set_phase(volume, "Available", None, plan) };
    let claim = cache.get(&resource::PERSISTENT_VOLUME_CLAIM, &reference.namespace, &reference.name);
    let Some(claim) = claim.filter(|it| it.meta().uid == reference.uid) else {
        let mut gone = Plan::default();
        reclaim(volume, &mut gone);
        plan.notes.append(&mut gone.notes);
        // The claim may be newer than what the cache knows of claims.
        let key = ObjectKey::new(&resource::PERSISTENT_VOLUME_CLAIM, &reference.namespace, &reference.name);
        let objects = vec![(key, reference.uid.to_string())];
        let unless_found = |write| Write::UnlessFound { objects: objects.clone(), write: Box::new(write) };
        return plan.writes.extend(gone.writes.into_iter().map(unless_found));
    };
    match storage::claim(&claim).volume.as_deref() {
        Some(named) if named == volume.name() => set_phase(volume, "Bound", None, plan),
        // The claim has another one.
        Some(_) => release(volume, plan),
        None => {}
    }
}

fn set_phase(volume: &Object, phase: &str, message: Option<&str>, plan: &mut Plan) {
    let status = json!({ "phase": phase, "message": message, "reason": null });
    plan.set_status(volume.key(), &tree(volume)["status"], status);
}

/// Frees a volume that a claim does not want: removes a reservation by the controller, and keeps that of a user without the uid.
fn release(volume: &Object, plan: &mut Plan) {
    let mut patch = json!({ "metadata": { "resourceVersion": volume.revision().to_string() } });
    if storage::volume(volume).is_bound_by_controller {
        patch["metadata"]["annotations"] = json!({ BOUND_BY_CONTROLLER: null });
        patch["spec"] = json!({ "claimRef": null });
    } else {
        patch["spec"] = json!({ "claimRef": { "uid": null, "resourceVersion": null } });
    }
    plan.writes.push(Write::Patch { key: volume.key(), subresource: "", patch: Patch::Merge(patch) });
}

/// Handles a volume whose claim is gone. Only its provisioner deletes its content.
fn reclaim(object: &Arc<Object>, plan: &mut Plan) {
    let volume = storage::volume(object);
    let (reason, message) = match &*volume.policy {
        _ if &*volume.phase == "Failed" => return,
        "Delete" if !volume.is_provisioned => {
            ("VolumeFailedDelete", "no volume plugin matched: nobody here can delete what is on this volume")
        }
        "Recycle" => ("VolumeFailedRecycle", "No recycler plugin found for the volume!"),
        _ => return set_phase(object, "Released", None, plan),
    };
    if &*volume.phase != "Released" {
        return set_phase(object, "Released", None, plan);
    }
    plan.note(object, EventType::Warning, reason, message);
    set_phase(object, "Failed", Some(message), plan);
}
