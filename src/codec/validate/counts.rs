//! The pod counts in a status: not negative, and no part larger than the whole.

use super::at::At;
use crate::object::status::Cause;

/// Checks the status of an object of this kind, if it is another one than before.
pub(super) fn update(kind: &str, new: &At<'_>, old: &At<'_>, out: &mut Vec<Cause>) {
    if new.get("status") == old.get("status") {
        return;
    }
    let status = new.at("status");
    let (counts, parts, of_ready): (&[&str], &[&str], &str) = match kind {
        "ReplicaSet" | "ReplicationController" => (
            &["replicas", "fullyLabeledReplicas", "readyReplicas", "availableReplicas", "observedGeneration"],
            &["fullyLabeledReplicas", "readyReplicas", "availableReplicas"],
            "readyReplicas",
        ),
        "Deployment" => (
            &[
                "observedGeneration",
                "replicas",
                "updatedReplicas",
                "readyReplicas",
                "availableReplicas",
                "unavailableReplicas",
                "collisionCount",
            ],
            &["updatedReplicas", "readyReplicas", "availableReplicas"],
            "readyReplicas",
        ),
        "StatefulSet" => (
            &[
                "replicas",
                "readyReplicas",
                "currentReplicas",
                "updatedReplicas",
                "availableReplicas",
                "observedGeneration",
                "collisionCount",
            ],
            &["readyReplicas", "currentReplicas", "updatedReplicas", "availableReplicas"],
            "status.readyReplicas",
        ),
        "DaemonSet" => (
            &[
                "currentNumberScheduled",
                "numberMisscheduled",
                "desiredNumberScheduled",
                "numberReady",
                "observedGeneration",
                "updatedNumberScheduled",
                "numberAvailable",
                "numberUnavailable",
                "collisionCount",
            ],
            &[],
            "",
        ),
        _ => (&["disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods"], &[], ""),
    };
    status.not_negative(counts, out);
    let count = |key| status.number(key).unwrap_or_default();
    for part in parts.iter().filter(|it| count(it) > count("replicas")) {
        status.invalid(part, "cannot be greater than status.replicas", out);
    }
    if !parts.is_empty() && count("availableReplicas") > count("readyReplicas") {
        status.invalid("availableReplicas", &format!("cannot be greater than {of_ready}"), out);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn parts_are_no_more_than_the_whole() {
        let told = |kind: &str, status: Value| {
            let (new, mut out) = (json!({ "status": status }), Vec::new());
            update(kind, &At::root(&new), &At::root(&json!({})), &mut out);
            out.iter().map(|it| format!("{}: {}", it.field, it.message)).collect::<Vec<_>>()
        };
        for (kind, status, expected) in [
            ("Deployment", json!({"replicas": 3, "readyReplicas": 2, "availableReplicas": 2, "updatedReplicas": 3}), vec![]),
            (
                "ReplicaSet",
                json!({"replicas": 1, "readyReplicas": 1, "availableReplicas": 2}),
                vec![
                    "status.availableReplicas: Invalid value: 2: cannot be greater than status.replicas",
                    "status.availableReplicas: Invalid value: 2: cannot be greater than readyReplicas",
                ],
            ),
            (
                "StatefulSet",
                json!({"replicas": 2, "availableReplicas": 1, "collisionCount": -1}),
                vec![
                    "status.collisionCount: Invalid value: -1: must be greater than or equal to 0",
                    "status.availableReplicas: Invalid value: 1: cannot be greater than status.readyReplicas",
                ],
            ),
            (
                "DaemonSet",
                json!({"numberReady": 5, "numberMisscheduled": -1}),
                vec!["status.numberMisscheduled: Invalid value: -1: must be greater than or equal to 0"],
            ),
            (
                "PodDisruptionBudget",
                json!({"expectedPods": -1}),
                vec!["status.expectedPods: Invalid value: -1: must be greater than or equal to 0"],
            ),
        ] {
            assert_eq!(told(kind, status.clone()), expected, "{kind} {status}");
        }
    }
}
