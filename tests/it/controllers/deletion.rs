//! Garbage collection as `kubectl delete --cascade` asks for it, and the deletion of namespaces.

use serde_json::{Value, json};

use crate::support::plane::Plane;

fn owned(name: &str, owner: (&str, &str, &str), more: Value) -> Value {
    let (kind, owner, uid) = owner;
    let owners = json!([{"apiVersion": "v1", "kind": kind, "name": owner, "uid": uid, "blockOwnerDeletion": true}]);
    let mut metadata = json!({"name": name, "ownerReferences": owners});
    metadata.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata})
}

#[test]
fn dependents_go_or_stay_as_asked() {
    let plane = Plane::start();
    plane.ok(&["create", "deployment", "web", "--image=i", "--replicas=2"]);
    let pods = ["get", "pods", "-l", "app=web", "-o", "name"];
    plane.wait_until("two pods", &pods, |it| it.lines().count() == 2);
    plane.ok(&["delete", "deployment", "web", "--cascade=orphan"]);
    plane.wait_until("an orphan", &["get", "rs", "-o", "jsonpath={.items[*].metadata.ownerReferences}"], str::is_empty);
    assert_eq!(plane.ok(&pods).lines().count(), 2);
    let set = plane.ok(&["get", "rs", "-o", "name"]);
    plane.ok(&["delete", set.trim(), "--cascade=foreground", "--timeout=30s"]);
    assert_eq!(plane.ok(&pods), "", "kubectl waits for the owner, which waits for them");

    plane.ok(&["create", "configmap", "owner"]);
    let uid = plane.get("configmap/owner", "{.metadata.uid}");
    plane.created(&owned("held", ("ConfigMap", "owner", &uid), json!({"finalizers": ["example.com/hold"]})));
    plane.created(&owned("absent", ("ConfigMap", "never", "0000"), json!({})));
    plane.wait_until("the end of one whose owner never was", &["get", "configmap", "absent", "--ignore-not-found"], str::is_empty);
    plane.ok(&["delete", "configmap", "owner", "--cascade=foreground", "--wait=false"]);
    plane.wait_until("the dependent's turn", &["get", "configmap", "held", "-o", "jsonpath={.metadata.deletionTimestamp}"], |it| {
        !it.is_empty()
    });
    assert_eq!(plane.get("configmap/owner", "{.metadata.finalizers}"), r#"["foregroundDeletion"]"#);
    plane.ok(&["patch", "configmap", "held", "--type=merge", "-p", r#"{"metadata": {"finalizers": null}}"#]);
    plane.wait_until("the owner's end", &["get", "configmap", "owner", "--ignore-not-found"], str::is_empty);
}

#[test]
fn a_namespace_says_what_it_waits_for() {
    let plane = Plane::start();
    plane.ok(&["create", "namespace", "n"]);
    plane.settled_namespace("n");
    plane.ok(&["create", "deployment", "web", "--image=i", "-n", "n"]);
    let held = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "held", "namespace": "n", "finalizers": ["example.com/hold"]}});
    plane.created(&held);
    plane.ok(&["delete", "namespace", "n", "--wait=false"]);
    let condition = |kind: &str| format!("jsonpath={{.status.conditions[?(@.type=='{kind}')].message}}");
    let remaining = "Some content in the namespace has finalizers remaining: example.com/hold in 1 resource instances";
    plane.wait("the condition", &["get", "namespace", "n", "-o", &condition("NamespaceFinalizersRemaining")], remaining);
    let remaining = "Some resources are remaining: configmaps. has 1 resource instances";
    plane.wait("only one left", &["get", "namespace", "n", "-o", &condition("NamespaceContentRemaining")], remaining);
    assert_eq!(plane.get("namespace/n", "{.status.phase}"), "Terminating");
    plane.ok(&["patch", "configmap", "held", "-n", "n", "--type=merge", "-p", r#"{"metadata": {"finalizers": null}}"#]);
    plane.ok(&["wait", "--for=delete", "namespace/n", "--timeout=30s"]);
}
