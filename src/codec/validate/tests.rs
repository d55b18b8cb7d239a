//! Validation errors, and robustness against unexpected input.

mod changes;
mod core;
mod finer;
mod groups;
mod large;
mod pods;
mod services;
mod workloads;

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::object::resource;

/// The faults of an object after defaulting, one line per cause.
fn complaints(resource: ResourceRef, new: &Value, old: Option<&Value>) -> Vec<String> {
    let complete = |value: &Value| {
        let mut value = value.clone();
        if value.get("metadata").is_none() {
            value["metadata"] = json!({"name": "x"});
        }
        super::super::default(resource, &mut value);
        value
    };
    let causes = validate(resource, &complete(new), old.map(complete).as_ref());
    causes.iter().map(|it| format!("{}: {}", it.field, it.message)).collect()
}

/// New objects, and all of their faults.
fn check(resource: ResourceRef, cases: &[(Value, &[&str])]) {
    let wrong = cases.iter().filter_map(|(value, expected)| {
        let found = complaints(resource, value, None);
        (found != *expected).then(|| format!("{value}\nis {found:#?},\nnot {expected:#?}"))
    });
    let wrong: Vec<String> = wrong.collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// `base` with the value at a JSON pointer replaced; a null removes.
fn with(base: &Value, pointer: &str, value: Value) -> Value {
    let mut changed = base.clone();
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    let parent = changed.pointer_mut(parent).unwrap_or_else(|| panic!("no parent of {pointer}"));
    match parent {
        Value::Array(items) => items[key.parse::<usize>().unwrap()] = value,
        Value::Object(fields) if value.is_null() => {
            fields.remove(key);
        }
        other => other[key] = value,
    }
    changed
}

fn pod() -> Value {
    json!({"metadata": {"name": "x"}, "spec": {
        "volumes": [{"name": "v", "emptyDir": {}}],
        "containers": [{"name": "c", "image": "i", "ports": [{"containerPort": 80}], "volumeMounts": [{"name": "v", "mountPath": "/v"}]}]}})
}

#[test]
fn metadata() {
    let map = |metadata: Value| json!({"metadata": metadata});
    let label_rule = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end \
                      with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is \
                      '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";
    let name_rule = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end \
                     with an alphanumeric character (e.g. 'example.com', regex used for validation is \
                     '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
    let owner = |name: &str| json!({"apiVersion": "v1", "kind": "Pod", "name": name, "uid": "u", "controller": true});
    check(
        &resource::CONFIG_MAP,
        &[
            (map(json!({"name": "a.b-c", "namespace": "n", "labels": {"a/b": "c"}, "finalizers": ["a/b", "orphan"]})), &[]),
            (map(json!({"name": "a", "generateName": "a-"})), &[]),
            (map(json!({"name": "A_b"})), &[&format!("metadata.name: Invalid value: \"A_b\": {name_rule}")]),
            (map(json!({"name": "a", "labels": {"k": "a b"}})), &[&format!("metadata.labels: Invalid value: \"a b\": {label_rule}")]),
            (
                map(json!({"name": "a", "annotations": {"/k": ""}})),
                &["metadata.annotations: Invalid value: \"/k\": prefix part must be non-empty"],
            ),
            (
                map(json!({"name": "a", "annotations": {"k": "x".repeat(262144)}})),
                &["metadata.annotations: Too long: may not be more than 262144 bytes"],
            ),
            (
                map(json!({"name": "a", "finalizers": ["b"]})),
                &["metadata.finalizers[0]: Invalid value: \"b\": name is neither a standard finalizer name nor is it fully qualified"],
            ),
            (
                map(json!({"name": "a", "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "p"}]})),
                &["metadata.ownerReferences.uid: Invalid value: \"\": uid must not be empty"],
            ),
        ],
    );
    let two = complaints(&resource::POD, &with(&pod(), "/metadata/ownerReferences", json!([owner("a"), owner("b")])), None);
    assert_eq!(two.len(), 1);
    assert!(two[0].ends_with("Only one reference can have Controller set to true. Found \"true\" in references for a and b"), "{two:?}");
    assert_eq!(
        complaints(&resource::NODE, &map(json!({"name": "a", "namespace": "b"})), None),
        ["metadata.namespace: Forbidden: not allowed on this type"]
    );
    assert!(
        complaints(&resource::SERVICE, &json!({"metadata": {"name": "1a"}, "spec": {"ports": [{"port": 1}]}}), None)[0]
            .contains("a DNS-1035 label must consist")
    );
    let old =
        map(json!({"name": "a", "uid": "1", "creationTimestamp": "2026-01-01T00:00:00Z", "deletionTimestamp": "2026-01-01T00:00:00Z"}));
    for (new, expected) in [
        (json!({"name": "a"}), None),
        (json!({"name": "b"}), Some("metadata.name: Invalid value: \"b\": field is immutable")),
        (json!({"name": "a", "uid": "2"}), Some("metadata.uid: Invalid value: \"2\": field is immutable")),
        (
            json!({"name": "a", "finalizers": ["a/b"]}),
            Some(
                "metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted, found new finalizers \
                 []string{\"a/b\"}",
            ),
        ),
    ] {
        // Kubernetes looks twice.
        assert_eq!(
            complaints(&resource::CONFIG_MAP, &map(new), Some(&old)),
            [expected, expected].into_iter().flatten().collect::<Vec<_>>()
        );
    }
}

/// JSON of any shape below names that specs have.
fn anything() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "\\PC{0,8}".prop_map(Value::from),
        Just(json!("1Gi"))
    ];
    let key = prop::sample::select(vec![
        "metadata",
        "spec",
        "template",
        "containers",
        "name",
        "selector",
        "matchLabels",
        "ports",
        "port",
        "env",
        "valueFrom",
        "volumes",
        "resources",
        "limits",
        "requests",
        "labels",
        "data",
        "type",
        "items",
        "tolerations",
        "livenessProbe",
        "affinity",
        "strategy",
    ]);
    leaf.prop_recursive(6, 64, 5, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((key.clone(), inner), 0..5)
                .prop_map(|pairs| pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()),
        ]
    })
}

proptest! {
    #[test]
    fn nothing_panics(new in anything(), old in prop::option::of(anything()), at in 0..resource::ALL.len()) {
        validate(resource::ALL[at], &new, old.as_ref());
    }
}
