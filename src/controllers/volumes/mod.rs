//! Volumes and claims: each claim is bound to a volume that suits it, and what becomes of the volume afterwards is as its reclaim policy says.
//!
//! A binding takes several writes, each of which wakes the next: the volume is reserved for the claim, the claim names the volume, and both say
//! that they are bound.

mod ephemeral;
mod matching;
mod protection;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use k8s_openapi::api::storage::v1::StorageClass;
use serde_json::{Value, json};

use super::plan::{Controller, Plan, Source, Write, tree};
use super::pods;
use crate::cache::{Cache, Query};
use crate::client::Patch;
use crate::client::events::EventType;
use crate::object::{Object, ObjectKey, ResourceRef, resource};
pub use ephemeral::EphemeralController;
use matching::{Choice, Volume, best, class_of_claim, mismatch};
pub use protection::ProtectionController;

/// Binds claims, and keeps the phases of both kinds.
#[derive(Debug)]
pub struct VolumeController;

/// On a claim: its binding was finished once.
const BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";
/// On either: that it names the other is not its user's doing.
const BOUND_BY_CONTROLLER: &str = "pv.kubernetes.io/bound-by-controller";
/// On a volume: who made it, and deletes it.
const PROVISIONED_BY: &str = "pv.kubernetes.io/provisioned-by";
/// On a claim: who is to make a volume for it.
const PROVISIONER: [&str; 2] = ["volume.beta.kubernetes.io/storage-provisioner", "volume.kubernetes.io/storage-provisioner"];
/// On a claim: where it is going to be used.
const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
const NO_PROVISIONER: &str = "kubernetes.io/no-provisioner";

impl Controller for VolumeController {
    fn name(&self) -> &'static str {
        "persistentvolume-controller"
    }

    fn sources(&self) -> Vec<Source> {
        vec![
            Source::own(&resource::PERSISTENT_VOLUME),
            Source::own(&resource::PERSISTENT_VOLUME_CLAIM),
            // The other half of a pair, and those who wait for a volume.
            Source::leading_to(&resource::PERSISTENT_VOLUME, |cache, volume| match Volume::of(volume).map(claim_key) {
                Some(Some(key)) => vec![key],
                _ => waiting(cache, volume.name(), |_| true),
            })
            .remembered(),
            Source::leading_to(&resource::PERSISTENT_VOLUME_CLAIM, |_, claim| {
                let volume = claim.typed::<PersistentVolumeClaim>().ok().and_then(|it| it.spec.as_ref()?.volume_name.clone());
                volume.filter(|it| !it.is_empty()).map(|it| ObjectKey::new(&resource::PERSISTENT_VOLUME, "", &it)).into_iter().collect()
            })
            .remembered(),
            Source::leading_to(&resource::STORAGE_CLASS, |cache, class| waiting(cache, "", |it| class_of_claim(it) == class.name())),
            Source::leading_to(&resource::POD, |cache, pod| {
                let waits = |key: &ObjectKey| {
                    let claim = cache.get(key.resource, &key.name.namespace, &key.name.name);
                    claim.and_then(|it| it.typed::<PersistentVolumeClaim>().ok().map(is_waiting)) == Some(true)
                };
                claims_of_pod(pod).filter(waits).collect()
            }),
        ]
    }

    fn reads(&self) -> Vec<ResourceRef> {
        vec![&resource::NODE]
    }

    fn plan(&self, cache: &Cache, key: &ObjectKey, _now: Timestamp) -> Plan {
        let mut plan = Plan::default();
        let Some(object) = cache.get(key.resource, &key.name.namespace, &key.name.name) else { return plan };
        if key.resource == &resource::PERSISTENT_VOLUME {
            if let Some(volume) = Volume::of(&object) {
                plan_volume(cache, &object, volume, &mut plan);
            }
        } else if let Ok(typed) = object.typed::<PersistentVolumeClaim>() {
            plan_claim(cache, &object, typed, &mut plan);
        }
        plan
    }
}

/// The keys of claims without a volume, and of those that name this one.
fn waiting(cache: &Cache, volume: &str, wanted: impl Fn(&PersistentVolumeClaim) -> bool) -> Vec<ObjectKey> {
    let claims = cache.list(&resource::PERSISTENT_VOLUME_CLAIM, &Query::default()).objects;
    let waits = |it: &&Arc<Object>| it.typed::<PersistentVolumeClaim>().is_ok_and(|it| is_waiting(it) && wanted(it) || names(it, volume));
    claims.iter().filter(waits).map(|it| it.key()).collect()
}

fn names(claim: &PersistentVolumeClaim, volume: &str) -> bool {
    !volume.is_empty() && claim.spec.as_ref().and_then(|it| it.volume_name.as_deref()) == Some(volume)
}

fn is_waiting(claim: &PersistentVolumeClaim) -> bool {
    claim.spec.as_ref().and_then(|it| it.volume_name.as_deref()).is_none_or(str::is_empty)
}

fn claim_key(volume: Volume<'_>) -> Option<ObjectKey> {
    let reference = volume.claim_ref()?;
    Some(ObjectKey::new(&resource::PERSISTENT_VOLUME_CLAIM, reference.namespace.as_deref()?, reference.name.as_deref()?))
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

/// Those that are placed.
fn users(cache: &Cache, claim: &Object) -> impl Iterator<Item = Arc<Object>> {
    all_users(cache, claim).filter(|it| pods::node(it).is_some())
}

fn annotated(object: &Value, annotation: &str) -> bool {
    object["metadata"]["annotations"].get(annotation).is_some()
}

fn plan_claim(cache: &Cache, claim: &Arc<Object>, typed: &PersistentVolumeClaim, plan: &mut Plan) {
    let named = typed.spec.as_ref().and_then(|it| it.volume_name.as_deref()).unwrap_or_default();
    let completed = annotated(&tree(claim), BIND_COMPLETED);
    let volume = (!named.is_empty()).then(|| cache.get(&resource::PERSISTENT_VOLUME, "", named)).flatten();
    let volume = volume.as_deref().and_then(Volume::of);
    match volume {
        None if completed => {
            let what = if named.is_empty() { "reference to PersistentVolume" } else { "its PersistentVolume" };
            lose(claim, typed, "ClaimLost", format!("Bound claim has lost {what}. Data on the volume is lost!"), plan);
        }
        Some(volume) if volume.claim_ref().is_none() => match mismatch(volume, typed).filter(|_| !completed) {
            Some(why) => {
                let message = format!("Cannot bind to requested volume {named:?}: {why}");
                plan.note(claim, EventType::Warning, "VolumeMismatch", message);
                set_pending(claim, plan);
            }
            None => reserve(volume, claim, plan),
        },
        Some(volume) if volume.is_for(claim) => bind(volume, claim, typed, plan),
        Some(_) if completed => {
            let message = "Two claims are bound to the same volume, this one is bound incorrectly".to_owned();
            lose(claim, typed, "ClaimMisbound", message, plan);
        }
        Some(_) => {
            plan.note(claim, EventType::Warning, "FailedBinding", format!("volume {named:?} already bound to a different claim."));
            set_pending(claim, plan);
        }
        None if !named.is_empty() => set_pending(claim, plan),
        None if claim.meta().is_deleted() => {}
        None => find(cache, claim, typed, plan),
    }
}

/// Looks for a volume.
fn find(cache: &Cache, claim: &Arc<Object>, typed: &PersistentVolumeClaim, plan: &mut Plan) {
    let class = match class_of_claim(typed) {
        "" => None,
        name => cache.get(&resource::STORAGE_CLASS, "", name),
    };
    let class = class.as_ref().and_then(|it| it.typed::<StorageClass>().ok());
    let delayed = class.is_some_and(|it| it.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer"));
    let node = delayed.then(|| node_of(cache, claim, typed)).flatten();
    let choice = match &node {
        _ if !delayed => Choice::Any,
        Some(node) => Choice::On(node),
        None => Choice::Meant,
    };
    let volumes = cache.list(&resource::PERSISTENT_VOLUME, &Query::default()).objects;
    if let Some(volume) = best(volumes.iter().filter_map(|it| Volume::of(it)), claim, typed, choice) {
        if volume.claim_ref().is_some_and(|it| it.uid.as_deref().is_some_and(|it| !it.is_empty())) {
            bind(volume, claim, typed, plan);
        } else {
            reserve(volume, claim, plan);
        }
        return;
    }
    match class {
        _ if matches!(choice, Choice::Meant) => {
            let pods: Vec<_> = all_users(cache, claim).filter(|it| !pods::has_ended(it)).map(|it| it.name().to_owned()).collect();
            let (reason, message) = match pods.as_slice() {
                [] => ("WaitForFirstConsumer", "waiting for first consumer to be created before binding".to_owned()),
                [pod] => ("WaitForPodScheduled", format!("waiting for pod {pod} to be scheduled")),
                pods => ("WaitForPodScheduled", format!("waiting for pods {} to be scheduled", pods.join(","))),
            };
            plan.note(claim, EventType::Normal, reason, message);
        }
        Some(class) if class.provisioner != NO_PROVISIONER => ask_provisioner(claim, &class.provisioner, plan),
        None if !class_of_claim(typed).is_empty() => {
            let message = format!("storageclass.storage.k8s.io {:?} not found", class_of_claim(typed));
            plan.note(claim, EventType::Warning, "ProvisioningFailed", message);
        }
        _ => {
            let message = "no persistent volumes available for this claim and no storage class is set";
            plan.note(claim, EventType::Normal, "FailedBinding", message);
        }
    }
    set_pending(claim, plan);
}

/// Where a claim is going to be used: where the scheduler says, or where a pod that uses it was placed.
fn node_of(cache: &Cache, claim: &Object, typed: &PersistentVolumeClaim) -> Option<Arc<Object>> {
    let said = typed.metadata.annotations.as_ref().and_then(|it| it.get(SELECTED_NODE)).cloned();
    let name = said.or_else(|| users(cache, claim).find_map(|it| pods::node(&it).map(str::to_owned)))?;
    cache.get(&resource::NODE, "", &name)
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
fn reserve(volume: Volume<'_>, claim: &Object, plan: &mut Plan) {
    let mut metadata = json!({ "resourceVersion": volume.object.revision().to_string() });
    if volume.claim_ref().is_none() {
        metadata["annotations"] = json!({ BOUND_BY_CONTROLLER: "yes" });
    }
    let reference = json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "namespace": claim.namespace(), "name": claim.name(), "uid": &*claim.meta().uid,
        "resourceVersion": claim.revision().to_string(),
    });
    let patch = Patch::Merge(json!({ "metadata": metadata, "spec": { "claimRef": reference } }));
    plan.writes.push(Write::Patch { key: volume.object.key(), subresource: "", patch });
}

/// Makes the claim say that it is bound to a volume that is reserved for it.
fn bind(volume: Volume<'_>, claim: &Arc<Object>, typed: &PersistentVolumeClaim, plan: &mut Plan) {
    if volume.claim_ref().is_some_and(|it| it.uid.as_deref().is_none_or(str::is_empty)) {
        return reserve(volume, claim, plan);
    }
    let current = tree(claim);
    let mut annotations = json!({ BIND_COMPLETED: "yes" });
    if is_waiting(typed) {
        annotations[BOUND_BY_CONTROLLER] = "yes".into();
    }
    let patch = json!({ "metadata": { "annotations": annotations }, "spec": { "volumeName": volume.object.name() } });
    plan.merge(claim.key(), &current, patch);
    if plan.writes.is_empty() {
        let spec = &tree(volume.object)["spec"];
        let status = json!({ "phase": "Bound", "accessModes": spec["accessModes"], "capacity": spec["capacity"] });
        plan.set_status(claim.key(), &current["status"], status);
    }
}

fn set_pending(claim: &Arc<Object>, plan: &mut Plan) {
    plan.set_status(claim.key(), &tree(claim)["status"], json!({ "phase": "Pending" }));
}

fn lose(claim: &Arc<Object>, typed: &PersistentVolumeClaim, reason: &'static str, message: String, plan: &mut Plan) {
    if typed.status.as_ref().and_then(|it| it.phase.as_deref()) != Some("Lost") {
        plan.note(claim, EventType::Warning, reason, message);
        let status = json!({ "phase": "Lost", "accessModes": null, "capacity": null });
        plan.set_status(claim.key(), &tree(claim)["status"], status);
    }
}

fn plan_volume(cache: &Cache, object: &Arc<Object>, volume: Volume<'_>, plan: &mut Plan) {
    let Some(reference) = volume.claim_ref() else { return set_phase(volume, "Available", None, plan) };
    let Some(uid) = reference.uid.as_deref().filter(|it| !it.is_empty()) else { return set_phase(volume, "Available", None, plan) };
    let claim = claim_key(volume).and_then(|it| cache.get(it.resource, &it.name.namespace, &it.name.name));
    let Some(claim) = claim.filter(|it| *it.meta().uid == *uid) else { return reclaim(object, volume, plan) };
    let named = claim.typed::<PersistentVolumeClaim>().ok().and_then(|it| it.spec.as_ref()?.volume_name.clone()).unwrap_or_default();
    if named == volume.object.name() {
        set_phase(volume, "Bound", None, plan);
    } else if !named.is_empty() {
        // The claim has another one.
        release(volume, plan);
    }
}

fn set_phase(volume: Volume<'_>, phase: &str, message: Option<&str>, plan: &mut Plan) {
    let status = json!({ "phase": phase, "message": message, "reason": null });
    plan.set_status(volume.object.key(), &tree(volume.object)["status"], status);
}

/// Frees a volume that a claim does not want: of what the controller reserved nothing is left, a user's wish is kept without the uid.
fn release(volume: Volume<'_>, plan: &mut Plan) {
    let ours = annotated(&tree(volume.object), BOUND_BY_CONTROLLER);
    let mut patch = json!({ "metadata": { "resourceVersion": volume.object.revision().to_string() } });
    if ours {
        patch["metadata"]["annotations"] = json!({ BOUND_BY_CONTROLLER: null });
        patch["spec"] = json!({ "claimRef": null });
    } else {
        patch["spec"] = json!({ "claimRef": { "uid": null, "resourceVersion": null } });
    }
    plan.writes.push(Write::Patch { key: volume.object.key(), subresource: "", patch: Patch::Merge(patch) });
}

/// What becomes of a volume whose claim is gone. What is on it is deleted by those who made it only.
fn reclaim(object: &Arc<Object>, volume: Volume<'_>, plan: &mut Plan) {
    let policy = volume.typed.spec.as_ref().and_then(|it| it.persistent_volume_reclaim_policy.as_deref()).unwrap_or("Retain");
    let made = annotated(&tree(volume.object), PROVISIONED_BY);
    let (reason, message) = match policy {
        _ if volume.phase() == "Failed" => return,
        "Delete" if !made => ("VolumeFailedDelete", "no volume plugin matched: nobody here can delete what is on this volume"),
        "Recycle" => ("VolumeFailedRecycle", "No recycler plugin found for the volume!"),
        _ => return set_phase(volume, "Released", None, plan),
    };
    if volume.phase() != "Released" {
        return set_phase(volume, "Released", None, plan);
    }
    plan.note(object, EventType::Warning, reason, message);
    set_phase(volume, "Failed", Some(message), plan);
}
