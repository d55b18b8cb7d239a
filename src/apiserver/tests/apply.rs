//! Managed fields, and server-side apply.

use serde_json::{Value, json};

use super::{CONFIG_MAPS, PODS, config_map, pod, start};

/// `Operation manager subresource apiVersion` of every entry.
fn managers(object: &Value) -> Vec<String> {
    let text = |entry: &Value, key: &str| entry[key].as_str().unwrap_or_default().to_owned();
    let entries = object["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
    entries.iter().map(|it| ["operation", "manager", "subresource", "apiVersion"].map(|key| text(it, key)).join(" ")).collect()
}

const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";

fn deployment(replicas: Value) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": {
        "replicas": replicas, "selector": {"matchLabels": {"a": "b"}},
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}})
}

#[tokio::test]
async fn every_write_is_its_authors() {
    let it = start().await;
    let created = it.create(&format!("{PODS}?fieldManager=me"), pod("web")).await.ok();
    assert_eq!(managers(&created), ["Update me  v1"]);
    let path = format!("{PODS}/web");
    let request = http::Request::builder().method("PATCH").uri(&path).header("content-type", "application/merge-patch+json");
    let request = request.header("user-agent", "kubectl/v1.33.0 (linux/amd64)").body(r#"{"metadata":{"labels":{"a":"b"}}}"#.into());
    let patched = it.send(request.unwrap()).await.ok();
    assert_eq!(managers(&patched), ["Update kubectl  v1", "Update me  v1"]);
    let status = it.patch(&format!("{path}/status?fieldManager=kubelet"), json!({"status": {"phase": "Running"}})).await.ok();
    assert_eq!(managers(&status), ["Update kubectl  v1", "Update kubelet status v1", "Update me  v1"]);
    assert_eq!(status["metadata"]["managedFields"][1]["fieldsV1"], json!({"f:status": {"f:phase": {}}}));
    // Without any name; and a subresource cannot set managers.
    let unnamed = it.patch(&format!("{path}/status"), json!({"metadata": {"managedFields": []}, "status": {"reason": "x"}})).await.ok();
    assert_eq!(managers(&unnamed)[3], "Update unknown status v1");
    // The binding's author becomes no manager.
    let binding = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "web"}, "target": {"kind": "Node", "name": "n"}});
    assert_eq!(it.create(&format!("{path}/binding?fieldManager=scheduler"), binding).await.code, 201);
    let bound = it.get(&path).await.ok();
    assert_eq!(bound["metadata"]["managedFields"], unnamed["metadata"]["managedFields"]);
    // No change, no write.
    assert_eq!(it.patch(&format!("{path}?fieldManager=other"), json!({"metadata": {"labels": {"a": "b"}}})).await.ok(), bound);
    let reset = it.patch(&path, json!({"metadata": {"managedFields": [{}]}})).await.ok();
    assert_eq!(reset["metadata"].get("managedFields"), None);
    it.stop().await;
}

#[tokio::test]
async fn kubectls_rewrite_of_managers() {
    let it = start().await;
    let created = it.create(&format!("{CONFIG_MAPS}?fieldManager=kubectl-client-side-apply"), config_map("a")).await.ok();
    let mut entry = created["metadata"]["managedFields"][0].clone();
    entry["manager"] = "kubectl".into();
    entry["operation"] = "Apply".into();
    let patch = json!([
        {"op": "replace", "path": "/metadata/managedFields", "value": [entry]},
        {"op": "replace", "path": "/metadata/resourceVersion", "value": created["metadata"]["resourceVersion"]},
    ]);
    let request = http::Request::builder().method("PATCH").uri(format!("{CONFIG_MAPS}/a?fieldManager=kubectl"));
    let request = request.header("content-type", "application/json-patch+json").body(patch.to_string().into()).unwrap();
    let rewritten = it.send(request).await.ok();
    assert_eq!(rewritten["metadata"]["managedFields"], json!([entry]));
    assert_ne!(rewritten["metadata"]["resourceVersion"], created["metadata"]["resourceVersion"]);
    it.stop().await;
}

#[tokio::test]
async fn apply_creates_changes_and_removes() {
    let it = start().await;
    let path = format!("{CONFIG_MAPS}/a");
    let applied =
        |data: Value| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "namespace": "default"}, "data": data});
    let first = it.apply(&path, "fieldManager=a", applied(json!({"x": "1", "y": "1"}))).await;
    assert_eq!(first.code, 201);
    let first = first.ok();
    assert_eq!(first["metadata"]["managedFields"][0]["fieldsV1"], json!({"f:data": {"f:x": {}, "f:y": {}}}));
    assert_eq!(it.apply(&path, "fieldManager=a", applied(json!({"x": "1", "y": "1"}))).await.ok(), first);
    let yaml = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata:\n  x: '1'\n";
    let less = it.apply(&path, "fieldManager=a", yaml).await;
    assert_eq!(less.code, 200);
    assert_eq!(less.ok()["data"], json!({"x": "1"}));
    let dry = it.apply(&path, "fieldManager=a&dryRun=All", applied(json!({"x": "5"}))).await.ok();
    assert_eq!(dry["data"]["x"], "5");
    let conflict = it.apply(&path, "fieldManager=b", applied(json!({"x": "2"}))).await;
    assert_eq!(
        conflict.json["details"]["causes"],
        json!([{"reason": "FieldManagerConflict", "message": "conflict with \"a\"", "field": ".data.x"}])
    );
    let conflict = conflict.failed();
    assert_eq!((conflict.0, conflict.1.as_str()), (409, "Conflict"));
    let forced = it.apply(&path, "fieldManager=b&force=true", applied(json!({"x": "2"}))).await.ok();
    assert_eq!(managers(&forced), ["Apply b  v1"]);
    it.stop().await;
}

#[tokio::test]
async fn what_an_apply_must_be() {
    let it = start().await;
    let path = format!("{CONFIG_MAPS}/a");
    let applied = |metadata: Value| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata});
    let named = applied(json!({"name": "a"}));
    let nobody = it.apply(&path, "force=true", &named).await.failed();
    assert_eq!(nobody.0, 422);
    assert_eq!(nobody.2, "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch");
    for (body, code, message) in [
        (applied(json!({"name": "b"})), 400, "the name of the object (b) does not match the name on the URL (a)"),
        (
            applied(json!({"name": "a", "namespace": "b"})),
            400,
            "the namespace of the provided object does not match the namespace sent on the request",
        ),
        (
            applied(json!({"name": "a", "uid": "x"})),
            409,
            "Operation cannot be fulfilled on configmaps \"a\": uid mismatch: the provided object specified uid x, and no existing object was found",
        ),
        (json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "a"}}), 400, "invalid object type: /v1, Kind=Secret"),
        (Value::Null, 400, "invalid object type: /, Kind="),
        (
            json!([]),
            400,
            "error decoding YAML: error unmarshaling JSON: while decoding JSON: json: cannot unmarshal array into Go value of type map[string]interface {}",
        ),
        (
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "date": {}}),
            500,
            "failed to create typed patch object (/a; /v1, Kind=ConfigMap): .date: field not declared in schema",
        ),
    ] {
        let refused = it.apply(&path, "fieldManager=a", &body).await.failed();
        assert_eq!((refused.0, refused.2.as_str()), (code, message), "{body}");
    }
    let twice =
        "{\"apiVersion\": \"v1\", \"kind\": \"ConfigMap\", \"metadata\": {\"name\": \"a\"}, \"data\": {\"x\": \"1\", \"x\": \"2\"}}";
    let strict = it.apply(&path, "fieldManager=a&fieldValidation=Strict", twice).await.failed();
    assert_eq!(
        (strict.0, strict.2.as_str()),
        (400, "error strict decoding YAML: error converting YAML to JSON: yaml: unmarshal errors:\n  line 1: key \"x\" already set in map")
    );
    let warned = it.apply(&path, "fieldManager=a", twice).await;
    assert_eq!(warned.headers["warning"], "299 - \"line 1: key \\\"x\\\" already set in map\"");
    let created = warned.ok();
    let stale = it.apply(&path, "fieldManager=a", applied(json!({"name": "a", "resourceVersion": "1"}))).await.failed();
    assert_eq!((stale.0, stale.1.as_str()), (409, "Conflict"));
    let stale = it.apply(&path, "fieldManager=a", twice.replace("\"a\"}", "\"a\", \"resourceVersion\": \"1\"}")).await;
    assert_eq!((stale.code, &stale.headers["warning"]), (409, &"299 - \"line 1: key \\\"x\\\" already set in map\"".parse().unwrap()));
    let newest =
        applied(json!({"name": "a", "resourceVersion": created["metadata"]["resourceVersion"], "uid": created["metadata"]["uid"]}));
    assert!(it.apply(&path, "fieldManager=a", newest).await.ok().get("data").is_none());
    let missing = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "none"}});
    assert_eq!(it.apply(&format!("{PODS}/none/status"), "fieldManager=a", missing).await.failed().0, 404);
    it.stop().await;
}

#[tokio::test]
async fn replicas_have_one_owner_in_both_forms() {
    let it = start().await;
    let (path, scale) = (format!("{DEPLOYMENTS}/web"), format!("{DEPLOYMENTS}/web/scale"));
    it.apply(&path, "fieldManager=a", deployment(json!(2))).await.ok();
    it.patch(&format!("{scale}?fieldManager=kubectl-scale"), json!({"spec": {"replicas": 3}})).await.ok();
    let scaled = it.get(&path).await.ok();
    assert_eq!(managers(&scaled), ["Apply a  apps/v1", "Update kubectl-scale scale apps/v1"]);
    assert_eq!(scaled["metadata"]["managedFields"][1]["fieldsV1"], json!({"f:spec": {"f:replicas": {}}}));
    let conflict = it.apply(&path, "fieldManager=a", deployment(json!(2))).await.failed();
    assert_eq!(
        conflict.2,
        "Apply failed with 1 conflict: conflict with \"kubectl-scale\" with subresource \"scale\" using apps/v1: .spec.replicas"
    );
    let applied = json!({"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": "web"}, "spec": {"replicas": 4}});
    assert_eq!(it.apply(&scale, "fieldManager=b", &applied).await.failed().0, 409);
    assert_eq!(it.apply(&scale, "fieldManager=b&force=true", &applied).await.ok()["spec"]["replicas"], 4);
    assert_eq!(managers(&it.get(&path).await.ok()), ["Apply a  apps/v1", "Apply b scale apps/v1"]);
    it.stop().await;
}

#[tokio::test]
async fn an_autoscaler_is_applied_in_both_versions() {
    let it = start().await;
    let path = |version: &str| format!("/apis/autoscaling/{version}/namespaces/default/horizontalpodautoscalers/web");
    let target = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"});
    let applied = |version: &str, more: Value| {
        let mut applied = json!({"apiVersion": format!("autoscaling/{version}"), "kind": "HorizontalPodAutoscaler", "metadata": {"name": "web"},
            "spec": {"maxReplicas": 5, "scaleTargetRef": target}});
        applied["spec"].as_object_mut().unwrap().extend(more.as_object().cloned().unwrap());
        applied
    };
    let cpu = json!({"targetCPUUtilizationPercentage": 60});
    let v1 = it.apply(&path("v1"), "fieldManager=a", applied("v1", cpu)).await.ok();
    assert_eq!(v1["spec"]["targetCPUUtilizationPercentage"], 60);
    assert_eq!(managers(&v1), ["Apply a  autoscaling/v1"]);
    let metrics = json!({"metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 70}}}]});
    let conflict = it.apply(&path("v2"), "fieldManager=b", applied("v2", metrics.clone())).await.failed();
    assert_eq!(conflict.2, "Apply failed with 1 conflict: conflict with \"a\": .spec.targetCPUUtilizationPercentage");
    // The same manager may switch to the other version.
    let v2 = it.apply(&path("v2"), "fieldManager=a", applied("v2", metrics)).await.ok();
    assert_eq!(v2["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"], 70);
    assert_eq!(managers(&v2), ["Apply a  autoscaling/v2"]);
    it.stop().await;
}

#[tokio::test]
async fn who_says_the_same_again_writes_nothing_whoever_wrote_between() {
    let it = start().await;
    let path = format!("{CONFIG_MAPS}/c");
    let applied = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"a": "1"}});
    it.apply(&path, "fieldManager=m", &applied).await.ok();
    it.patch(&path, json!({"data": {"b": "2"}})).await.ok();
    let revision = |object: &Value| object["metadata"]["resourceVersion"].clone();
    let before = it.get(&path).await.ok();
    for _ in 0..2 {
        assert_eq!(revision(&it.apply(&path, "fieldManager=m", &applied).await.ok()), revision(&before), "applied");
        assert_eq!(revision(&it.patch(&path, json!({"data": {"b": "2"}})).await.ok()), revision(&before), "patched");
        assert_eq!(revision(&it.put(&path, before.clone()).await.ok()), revision(&before), "put");
    }
    it.stop().await;
}

#[tokio::test]
async fn what_the_server_makes_is_its_own() {
    let it = start().await;
    for path in [
        "/api/v1/namespaces/kube-system",
        "/api/v1/namespaces/default/services/kubernetes",
        "/api/v1/namespaces/default/endpoints/kubernetes",
    ] {
        let object = loop {
            // The endpoints are made once the server serves.
            let answer = it.get(path).await;
            if answer.code == 200 {
                break answer.ok();
            }
            tokio::task::yield_now().await;
        };
        assert_eq!(managers(&object), ["Update kube-apiserver  v1"], "{path}");
    }
    it.stop().await;
}
