//! The pods of a DaemonSet: each names its node by its affinity, and tolerates the usual node taints.

use serde_json::{Value, json};

use super::HASH;
use crate::controllers::pods;
use crate::object::Object;
use crate::object::constraints::Constraints;

/// Taints that keep other pods off a node in trouble.
const TOLERATED: [(&str, &str); 6] = [
    ("node.kubernetes.io/not-ready", "NoExecute"),
    ("node.kubernetes.io/unreachable", "NoExecute"),
    ("node.kubernetes.io/disk-pressure", "NoSchedule"),
    ("node.kubernetes.io/memory-pressure", "NoSchedule"),
    ("node.kubernetes.io/pid-pressure", "NoSchedule"),
    ("node.kubernetes.io/unschedulable", "NoSchedule"),
];
/// Also by pods that need no network of their own.
const NO_NETWORK: (&str, &str) = ("node.kubernetes.io/network-unavailable", "NoSchedule");
const GENERATION: &str = "deprecated.daemonset.template.generation";

/// Which nodes a template suits.
pub(super) fn constraints(spec: &Value) -> Constraints {
    let mut spec = spec.clone();
    tolerate(&mut spec);
    serde_json::from_value(spec).unwrap_or_default()
}

/// The node of a pod: where it is, or where it is to be.
pub(super) fn node(pod: &Object) -> Option<&str> {
    pods::node(pod).or_else(|| pods::facts(pod).pinned_to.as_deref())
}

/// A pod of the set for a node.
pub(super) fn pod(set: &Object, written: &Value, hash: &str, node: &str) -> Value {
    let mut pod = pods::from_template(&written["spec"]["template"], set);
    let labels = &mut pod["metadata"]["labels"];
    labels[HASH] = hash.into();
    if let Some(generation) = written["metadata"]["annotations"][GENERATION].as_str() {
        labels["pod-template-generation"] = generation.into();
    }
    let spec = &mut pod["spec"];
    tolerate(spec);
    let here = json!([{ "matchFields": [{ "key": "metadata.name", "operator": "In", "values": [node] }] }]);
    spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"] = here;
    pod
}

fn tolerate(spec: &mut Value) {
    let mut all = spec["tolerations"].as_array().cloned().unwrap_or_default();
    let network = Some(NO_NETWORK).filter(|_| spec["hostNetwork"] == true);
    for (key, effect) in TOLERATED.into_iter().chain(network) {
        let toleration = json!({ "key": key, "operator": "Exists", "effect": effect });
        all.retain(|it| *it != toleration);
        all.push(toleration);
    }
    spec["tolerations"] = all.into();
}
