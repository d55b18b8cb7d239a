//! What controllers ask of pods.

use std::cmp::Reverse;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use super::plan::controller_reference;
use crate::object::Object;

/// A pod that still counts: neither ended nor being deleted.
pub(super) fn is_active(pod: &Object) -> bool {
    !pod.meta().is_deleted() && !has_ended(pod)
}

/// A pod whose containers have ended for good.
pub(super) fn has_ended(pod: &Object) -> bool {
    matches!(pod.field("status.phase"), Some("Succeeded" | "Failed"))
}

fn ready_since(pod: &Object) -> Option<Timestamp> {
    let conditions = pod.typed::<Pod>().ok()?.status.as_ref()?.conditions.as_ref()?;
    let ready = conditions.iter().find(|it| it.type_ == "Ready" && it.status == "True")?;
    Some(ready.last_transition_time.as_ref().map_or(Timestamp::UNIX_EPOCH, |it| it.0))
}

pub(super) fn is_ready(pod: &Object) -> bool {
    ready_since(pod).is_some()
}

/// Whether a pod has been ready for `min_ready`; if it is ready but not for so long, also the time that is missing.
pub(super) fn is_available(pod: &Object, min_ready: Duration, now: Timestamp) -> (bool, Option<Duration>) {
    let Some(since) = ready_since(pod) else { return (false, None) };
    let ready_for = Duration::try_from(now.duration_since(since)).unwrap_or_default();
    if ready_for >= min_ready { (true, None) } else { (false, Some(min_ready - ready_for)) }
}

/// Orders pods so that those to delete first come first: not placed before placed, pending before running, not ready before ready, cheap before
/// dear (annotation `controller.kubernetes.io/pod-deletion-cost`), young before old, often restarted before seldom.
pub(super) fn deletion_rank(pod: &Object) -> impl Ord + use<> {
    let typed = pod.typed::<Pod>().ok();
    let phase = match pod.field("status.phase") {
        Some("Running") => 2,
        Some("Unknown") => 1,
        _ => 0,
    };
    let cost = typed
        .and_then(|it| it.metadata.annotations.as_ref()?.get("controller.kubernetes.io/pod-deletion-cost")?.parse::<i32>().ok())
        .unwrap_or_default();
    let restarts = typed
        .and_then(|it| it.status.as_ref()?.container_statuses.as_ref())
        .map(|it| it.iter().map(|it| it.restart_count).max().unwrap_or_default())
        .unwrap_or_default();
    let placed = pod.field("spec.nodeName").is_some_and(|it| !it.is_empty());
    let since = ready_since(pod);
    (placed, phase, since.is_some(), cost, Reverse(since), Reverse(restarts), Reverse(pod.meta().created.clone()))
}

/// A pod from a template (`{metadata, spec}`), owned by `owner`.
pub(super) fn from_template(template: &Value, owner: &Object) -> Value {
    let metadata = &template["metadata"];
    // The name leaves room for the dash and the five characters that the server appends to it.
    let prefix: String = owner.name().chars().take(57).collect();
    let mut pod = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "generateName": format!("{prefix}-"), "ownerReferences": [controller_reference(owner)] },
        "spec": template["spec"],
    });
    for part in ["labels", "annotations", "finalizers"] {
        if !metadata[part].is_null() {
            pod["metadata"][part] = metadata[part].clone();
        }
    }
    pod
}
