//! Taints: those that follow from a node's conditions, and how long a pod tolerates evicting ones. Pure.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Taint, Toleration};
use serde_json::{Value, json};

use crate::controllers::conditions;

pub(super) const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
pub(super) const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";
/// Taints that keep pods away while a condition holds.
const PRESSURE: [(&str, &str); 4] = [
    ("MemoryPressure", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "node.kubernetes.io/disk-pressure"),
    ("PIDPressure", "node.kubernetes.io/pid-pressure"),
    ("NetworkUnavailable", "node.kubernetes.io/network-unavailable"),
];

/// The taints that a node should have: those of its conditions, and all foreign ones. `evict`: whether pods should leave the node if it is
/// not ready. Our own taints get a timestamp, from which the pods' tolerations count.
pub(super) fn wanted(node: &Value, evict: bool, now: Timestamp) -> Vec<Value> {
    let condition = |kind: &str| conditions::find(&node["status"]["conditions"], kind).and_then(|it| it["status"].as_str());
    let mut ours: Vec<(&str, &str)> = Vec::new();
    let silent = match condition("Ready") {
        Some("True") => None,
        Some("Unknown") => Some(UNREACHABLE),
        _ => Some(NOT_READY),
    };
    if let Some(key) = silent {
        ours.push((key, "NoSchedule"));
        ours.extend(evict.then_some((key, "NoExecute")));
    }
    ours.extend(PRESSURE.iter().filter(|it| condition(it.0) == Some("True")).map(|it| (it.1, "NoSchedule")));
    ours.extend((node["spec"]["unschedulable"] == true).then_some((UNSCHEDULABLE, "NoSchedule")));

    let managed = |it: &Value| {
        let key = it["key"].as_str().unwrap_or_default();
        match it["effect"].as_str() {
            Some("NoSchedule") => [UNREACHABLE, NOT_READY, UNSCHEDULABLE].contains(&key) || PRESSURE.iter().any(|it| it.1 == key),
            Some("NoExecute") => [UNREACHABLE, NOT_READY].contains(&key),
            _ => false,
        }
    };
    let same = |it: &Value, ours: &(&str, &str)| it["key"] == ours.0 && it["effect"] == ours.1;
    let there = node["spec"]["taints"].as_array().into_iter().flatten();
    let mut taints: Vec<Value> = there.filter(|it| !managed(it) || ours.iter().any(|ours| same(it, ours))).cloned().collect();
    for (key, effect) in ours.iter().filter(|ours| !taints.iter().any(|it| same(it, ours))).collect::<Vec<_>>() {
        taints.push(json!({ "key": key, "effect": effect, "timeAdded": conditions::time(now) }));
    }
    taints
}

/// Whether a node's pods are to leave it because it was not ready.
pub(super) fn evicts(node: &Value) -> bool {
    let ours = |it: &Value| it["effect"] == "NoExecute" && [UNREACHABLE, NOT_READY].iter().any(|key| it["key"] == *key);
    node["spec"]["taints"].as_array().into_iter().flatten().any(ours)
}

/// How long a pod with these tolerations, on the node since `there`, stays on a node with these taints; `None` for ever. `patience` is for
/// pods without a toleration of a node that is not ready; other taints evict pods without a toleration at once.
pub(super) fn stays(
    tolerations: &[Toleration],
    there: Timestamp,
    taints: &[Taint],
    patience: Option<Duration>,
    now: Timestamp,
) -> Option<Duration> {
    let left = |taint: &Taint| {
        let tolerated = tolerations.iter().find(|it| tolerates(it, taint));
        let seconds = match tolerated {
            Some(it) => Duration::from_secs(it.toleration_seconds?.try_into().unwrap_or_default()),
            None if matches!(taint.key.as_str(), UNREACHABLE | NOT_READY) => patience?,
            None => Duration::ZERO,
        };
        let since = taint.time_added.as_ref().map_or(now, |it| it.0).max(there);
        Some(seconds.saturating_sub(Duration::try_from(now.duration_since(since)).unwrap_or_default()))
    };
    taints.iter().filter(|it| it.effect == "NoExecute").filter_map(left).min()
}

fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let is = |field: &Option<String>, value: &str| field.as_deref().unwrap_or_default() == value;
    let exists = is(&toleration.operator, "Exists");
    (is(&toleration.effect, "") || is(&toleration.effect, &taint.effect))
        && (is(&toleration.key, &taint.key) || is(&toleration.key, "") && exists)
        && (exists || is(&toleration.value, taint.value.as_deref().unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: &str = "2026-01-01T00:01:00Z";

    #[test]
    fn conditions_become_taints() {
        let node = |conditions: Value, taints: Value| json!({"spec": {"taints": taints}, "status": {"conditions": conditions}});
        let condition = |kind: &str, status: &str| json!({"type": kind, "status": status});
        let taint = |key: &str, effect: &str| json!({"key": format!("node.kubernetes.io/{key}"), "effect": effect, "timeAdded": NOW});
        let timed = |key: &str, at: &str| json!({"key": format!("node.kubernetes.io/{key}"), "effect": "NoExecute", "timeAdded": at});
        let own = json!({"key": "mine", "effect": "NoSchedule"});
        for (conditions, taints, evict, expected) in [
            (json!([condition("Ready", "True")]), json!([]), true, json!([])),
            (
                json!([condition("Ready", "Unknown")]),
                json!([own]),
                true,
                json!([own, taint("unreachable", "NoSchedule"), timed("unreachable", NOW)]),
            ),
            (json!([condition("Ready", "False")]), json!([]), false, json!([taint("not-ready", "NoSchedule")])),
            (
                json!([condition("Ready", "False")]),
                json!([taint("unreachable", "NoSchedule"), timed("not-ready", "2026-01-01T00:00:00Z")]),
                true,
                json!([timed("not-ready", "2026-01-01T00:00:00Z"), taint("not-ready", "NoSchedule")]),
            ),
            (json!([condition("Ready", "True")]), json!([timed("not-ready", NOW), own]), true, json!([own])),
            (
                json!([condition("Ready", "True"), condition("DiskPressure", "True"), condition("PIDPressure", "False")]),
                json!([taint("pid-pressure", "NoSchedule")]),
                true,
                json!([taint("disk-pressure", "NoSchedule")]),
            ),
            (
                json!([condition("Ready", "True")]),
                json!([{"key": "k", "effect": "NoExecute"}]),
                true,
                json!([{"key": "k", "effect": "NoExecute"}]),
            ),
        ] {
            assert_eq!(
                json!(wanted(&node(conditions.clone(), taints.clone()), evict, NOW.parse().unwrap())),
                expected,
                "{conditions} {taints}"
            );
        }
        let mut cordoned = node(json!([condition("Ready", "True")]), json!([]));
        cordoned["spec"]["unschedulable"] = true.into();
        assert_eq!(wanted(&cordoned, true, NOW.parse().unwrap()), [taint("unschedulable", "NoSchedule")]);
    }

    #[test]
    fn how_long_pods_stay() {
        let taint = |key: &str| json!({"key": key, "effect": "NoExecute", "value": "v", "timeAdded": "2026-01-01T00:00:00Z"});
        let patience = Some(Duration::from_secs(300));
        for (tolerations, taints, patience, expected) in [
            (json!([]), json!([taint("k")]), patience, Some(0)),
            (json!([{"key": "k", "operator": "Exists"}]), json!([taint("k")]), patience, None),
            (json!([{"operator": "Exists"}]), json!([taint("k"), taint("l")]), patience, None),
            (json!([{"key": "k", "value": "v", "effect": "NoExecute", "tolerationSeconds": 90}]), json!([taint("k")]), patience, Some(30)),
            (json!([{"key": "k", "value": "v", "effect": "NoExecute", "tolerationSeconds": 30}]), json!([taint("k")]), patience, Some(0)),
            (json!([{"key": "k", "value": "other"}]), json!([taint("k")]), patience, Some(0)),
            (json!([{"key": "k", "operator": "Exists", "effect": "NoSchedule"}]), json!([taint("k")]), patience, Some(0)),
            (
                json!([{"key": "k", "operator": "Exists", "tolerationSeconds": 100}, {"key": "k", "operator": "Exists"}]),
                json!([taint("k")]),
                patience,
                Some(40),
            ),
            (json!([{"key": "k", "operator": "Exists"}]), json!([taint("k"), taint("l")]), patience, Some(0)),
            (json!([]), json!([taint(NOT_READY)]), patience, Some(240)),
            (json!([]), json!([taint(UNREACHABLE)]), None, None),
            (
                json!([{"key": NOT_READY, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 70}]),
                json!([taint(NOT_READY)]),
                patience,
                Some(10),
            ),
            (json!([]), json!([{"key": "k", "effect": "NoSchedule"}]), patience, None),
        ] {
            let shown = format!("{tolerations} {taints}");
            let (tolerations, taints): (Vec<Toleration>, Vec<Taint>) =
                (serde_json::from_value(tolerations).unwrap(), serde_json::from_value(taints).unwrap());
            let stays =
                |there: &str| stays(&tolerations, there.parse().unwrap(), &taints, patience, NOW.parse().unwrap()).map(|it| it.as_secs());
            assert_eq!(stays("2025-12-31T00:00:00Z"), expected, "{shown}");
            // A pod that arrived after the taint counts from its arrival.
            let asked = tolerations.iter().filter_map(|it| it.toleration_seconds).min();
            if let (Some(asked), Some(_)) = (asked, expected.filter(|it| *it > 0)) {
                assert_eq!(stays("2026-01-01T00:00:50Z").map(|it| it + 10), Some(asked.cast_unsigned()), "{shown}");
            }
        }
    }
}
