//! One object in two versions; and reviews, which are answered rather than stored.

use serde_json::{Value, json};

use super::start;

const V1: &str = "/apis/autoscaling/v1/namespaces/default/horizontalpodautoscalers";
const V2: &str = "/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers";
const TARGET: &str = "/resource/target/averageUtilization";

#[tokio::test]
async fn an_autoscaler_is_one_object_in_two_versions() {
    let it = start().await;
    let mut older = it.watch(&format!("{V1}?watch=true&resourceVersion=0&timeoutSeconds=5")).await;
    let spec = json!({"maxReplicas": 5, "targetCPUUtilizationPercentage": 70, "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}});
    let created = it.create(V1, json!({"metadata": {"name": "web"}, "spec": spec})).await.ok();
    assert_eq!((&created["apiVersion"], &created["spec"]["minReplicas"]), (&json!("autoscaling/v1"), &json!(1)));
    let path = |base: &str| format!("{base}/web");
    let newer = it.get(&path(V2)).await.ok();
    assert_eq!((&newer["apiVersion"], newer["spec"]["metrics"][0].pointer(TARGET)), (&json!("autoscaling/v2"), Some(&json!(70))));
    assert_eq!(newer["metadata"], created["metadata"]);
    // Fields of only the newer version survive a write in the older one.
    let memory = json!({"type": "Resource", "resource": {"name": "memory", "target": {"type": "AverageValue", "averageValue": "1Gi"}}});
    let metrics = json!([newer["spec"]["metrics"][0], memory]);
    it.patch(&path(V2), json!({"spec": {"metrics": metrics}})).await.ok();
    let patched = it.patch(&path(V1), json!({"spec": {"targetCPUUtilizationPercentage": 50}})).await.ok();
    assert_eq!((&patched["apiVersion"], &patched["spec"]["targetCPUUtilizationPercentage"]), (&json!("autoscaling/v1"), &json!(50)));
    let newer = it.get(&path(V2)).await.ok();
    // They come last then, as in Kubernetes.
    let metrics = &newer["spec"]["metrics"];
    assert_eq!((&metrics[0], metrics[1].pointer(TARGET)), (&memory, Some(&json!(50))));
    assert_eq!(newer["metadata"].get("annotations"), None);
    for (base, version) in [(V1, "autoscaling/v1"), (V2, "autoscaling/v2")] {
        let list = it.get(base).await.ok();
        assert_eq!((&list["apiVersion"], list["items"][0].get("apiVersion")), (&json!(version), None));
    }
    let replaced = it.put(&path(V1), it.get(&path(V1)).await.ok()).await.ok();
    assert_eq!(replaced["metadata"]["resourceVersion"], newer["metadata"]["resourceVersion"], "nothing has changed");
    let mut percent = Vec::new();
    while percent.last() != Some(&json!(50)) {
        let (_, object) = older.next().await.expect("the watch goes on");
        assert_eq!(object["apiVersion"], "autoscaling/v1");
        percent.push(object["spec"]["targetCPUUtilizationPercentage"].clone());
    }
    assert_eq!(percent[0], 70);
    it.delete(&path(V1), Value::Null).await.ok();
    assert_eq!(it.get(&path(V2)).await.code, 404);
    it.stop().await;
}

#[tokio::test]
async fn an_event_has_two_forms() {
    let it = start().await;
    let (core, newer) = ("/api/v1/namespaces/default/events", "/apis/events.k8s.io/v1/namespaces/default/events");
    let about = json!({"kind": "Pod", "namespace": "default", "name": "p"});
    it.create(core, json!({"metadata": {"name": "e"}, "involvedObject": about, "message": "m", "reason": "R", "type": "Normal"}))
        .await
        .ok();
    let event = it.get(&format!("{newer}/e")).await.ok();
    assert_eq!((&event["note"], &event["regarding"], &event["kind"]), (&json!("m"), &about, &json!("Event")));
    for (base, selector, count) in [(newer, "regarding.name=p", 1), (newer, "regarding.name=q", 0), (core, "involvedObject.name=p", 1)] {
        assert_eq!(it.get(&format!("{base}?fieldSelector={selector}")).await.ok()["items"].as_array().map(Vec::len), Some(count));
    }
    assert_eq!(it.get(&format!("{newer}?fieldSelector=involvedObject.name=p")).await.code, 400);
    it.stop().await;
}

#[tokio::test]
async fn questions_are_answered() {
    let it = start().await;
    let me = it.create("/apis/authentication.k8s.io/v1/selfsubjectreviews", json!({})).await;
    assert_eq!(me.code, 201);
    assert!(me.json["status"]["userInfo"]["groups"].as_array().is_some_and(|it| it.contains(&json!("system:authenticated"))));
    let base = "/apis/authorization.k8s.io/v1";
    let attributes = json!({"spec": {"resourceAttributes": {"verb": "get", "resource": "pods", "namespace": "default"}}});
    let may = it.create(&format!("{base}/selfsubjectaccessreviews"), attributes.clone()).await.ok();
    assert_eq!((&may["status"]["allowed"], &may["spec"]), (&json!(true), &attributes["spec"]));
    let rules = it.create(&format!("{base}/selfsubjectrulesreviews"), json!({"spec": {"namespace": "default"}})).await.ok();
    assert_eq!(rules["status"]["resourceRules"], json!([{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}]));
    let nobody = it.create(&format!("{base}/subjectaccessreviews"), attributes).await.failed();
    assert_eq!((nobody.0, nobody.1.as_str()), (422, "Invalid"));
    assert_eq!(it.get(&format!("{base}/subjectaccessreviews")).await.code, 405);
    it.stop().await;
}
