//! Lists that fill a request: each check takes time in proportion to its length.

use serde_json::{Value, json};

use super::{complaints, pod, with};
use crate::codec::{validate, validate_ephemeral, warnings};
use crate::object::resource;

/// So many elements that a loop in a loop over them would take minutes.
const MANY: usize = 20_000;

fn many(element: impl Fn(usize) -> Value) -> Value {
    (0..MANY).map(element).collect()
}

#[test]
fn containers_have_many_parts() {
    let container = |key: &str, value: Value| with(&pod(), &format!("/spec/containers/0/{key}"), value);
    let policies = many(|_| json!({"resourceName": "cpu", "restartPolicy": "NotRequired"}));
    assert_eq!(complaints(&resource::POD, &container("resizePolicy", policies), None).len(), MANY - 1);
    let mut both = container("volumeMounts", many(|it| json!({"name": "v", "mountPath": format!("/m{it}")})));
    both["spec"]["containers"][0]["volumeDevices"] = many(|it| json!({"name": format!("d{it}"), "devicePath": format!("/d{it}")}));
    assert_eq!(complaints(&resource::POD, &both, None).len(), MANY);
    let amounts: serde_json::Map<String, Value> = (0..MANY).map(|it| (format!("example.com/r{it}"), json!("1"))).collect();
    let resources = json!({"requests": amounts, "limits": amounts});
    assert_eq!(complaints(&resource::POD, &container("resources", resources), None), [""; 0]);
    let ports = many(|_| json!({"containerPort": 80, "protocol": "TCP"}));
    assert!(warnings(&resource::POD, &container("ports", ports), None).len() < MANY);
}

#[test]
fn pods_have_many_containers_and_constraints() {
    let container = |it: usize| json!({"name": format!("c{it}"), "image": "i"});
    let debugger = |it: usize| json!({"name": format!("e{it}"), "image": "i", "targetContainerName": format!("c{}", MANY - 1)});
    let many_containers = with(&pod(), "/spec/containers", many(container));
    assert_eq!(complaints(&resource::POD, &many_containers, None), [""; 0]);
    let debugged = with(&many_containers, "/spec/ephemeralContainers", many(debugger));
    let undone = validate_ephemeral(&with(&pod(), "/spec/ephemeralContainers", json!([])), &debugged);
    assert!(undone.len() >= MANY);
    let spread = many(|it| json!({"maxSkew": 1, "topologyKey": format!("k{it}"), "whenUnsatisfiable": "ScheduleAnyway"}));
    assert_eq!(complaints(&resource::POD, &with(&pod(), "/spec/topologySpreadConstraints", spread), None), [""; 0]);
    let keys = many(|it| json!(format!("k{it}")));
    let expressions = many(|it| json!({"key": format!("x{it}"), "operator": "Exists"}));
    let selector = json!({"matchExpressions": expressions});
    let constraint =
        json!({"maxSkew": 1, "topologyKey": "k", "whenUnsatisfiable": "ScheduleAnyway", "labelSelector": selector, "matchLabelKeys": keys});
    assert_eq!(complaints(&resource::POD, &with(&pod(), "/spec/topologySpreadConstraints", json!([constraint])), None), [""; 0]);
    let others = many(|it| json!(format!("o{it}")));
    let term = json!({"topologyKey": "k", "labelSelector": selector, "matchLabelKeys": keys, "mismatchLabelKeys": others});
    let affinity = json!({"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}});
    assert_eq!(complaints(&resource::POD, &with(&pod(), "/spec/affinity", affinity), None), [""; 0]);
    let gates = |prefix: &str| with(&pod(), "/spec/schedulingGates", many(|it| json!({"name": format!("{prefix}{it}")})));
    assert!(complaints(&resource::POD, &gates("a"), Some(&gates("b"))).len() >= MANY);
}

#[test]
fn other_kinds_have_long_lists_too() {
    let values = many(|it| json!(it + 1));
    let rule = json!({"action": "FailJob", "onExitCodes": {"operator": "In", "values": values}});
    let template = json!({"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}});
    let job = json!({"metadata": {"name": "j"}, "spec": {"template": template, "podFailurePolicy": {"rules": [rule]}}});
    let found = complaints(&resource::JOB, &job, None);
    let many_values = "spec.podFailurePolicy.rules[0].onExitCodes.values: Too many: 20000: must have at most 255 items";
    assert!(found.contains(&many_values.to_owned()), "{found:?}");

    let tolerations = many(|it| json!({"key": format!("k{it}"), "operator": "Exists"}));
    let class = json!({"metadata": {"name": "x"}, "handler": "h", "scheduling": {"tolerations": tolerations}});
    assert_eq!(complaints(&resource::RUNTIME_CLASS, &class, None), [""; 0]);

    let terms = many(|it| json!({"matchLabelExpressions": [{"key": "zone", "values": [format!("z{it}")]}]}));
    let class = json!({"metadata": {"name": "x"}, "provisioner": "p", "reclaimPolicy": "Delete", "allowedTopologies": terms});
    assert_eq!(complaints(&resource::STORAGE_CLASS, &class, None), [""; 0]);

    let keys = many(|it| json!(format!("k{it}")));
    let node = json!({"metadata": {"name": "x"}, "spec": {"drivers": [{"name": "d", "nodeID": "n", "topologyKeys": keys}]}});
    assert_eq!(complaints(&resource::CSI_NODE, &node, None), [""; 0]);
    let drivers = many(|it| json!({"name": format!("d{it}"), "nodeID": "n"}));
    let node = json!({"metadata": {"name": "x"}, "spec": {"drivers": drivers}});
    assert_eq!(complaints(&resource::CSI_NODE, &node, Some(&node)), [""; 0]);

    let going = |prefix: &str| {
        let finalizers = many(|it| json!(format!("example.com/{prefix}{it}")));
        json!({"metadata": {"name": "x", "finalizers": finalizers, "deletionTimestamp": "2026-01-01T00:00:00Z"}})
    };
    assert!(!validate(&resource::CONFIG_MAP, &going("a"), Some(&going("b"))).is_empty());

    let hard: serde_json::Map<String, Value> = (0..1000).map(|it| (format!("count/x{it}.example.com"), json!("1"))).collect();
    let quota = json!({"metadata": {"name": "x"}, "spec": {"hard": hard, "scopes": many(|_| json!("NoScope"))}});
    assert!(!complaints(&resource::RESOURCE_QUOTA, &quota, None).is_empty());
}
