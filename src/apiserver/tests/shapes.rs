//! The form of responses beyond the object: Kubernetes' zero values, warnings, and deletions that return the last state.

use serde_json::{Value, json};

use super::{Answered, CONFIG_MAPS, PODS, config_map, pod, start};

fn warnings(answer: &Answered) -> Vec<&str> {
    answer.headers.get_all("warning").iter().map(|it| it.to_str().unwrap()).collect()
}

#[tokio::test]
async fn nothing_is_written_as_go_writes_it() {
    let it = start().await;
    let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let deployment = json!({"metadata": {"name": "d"}, "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": template}});
    let path = "/apis/apps/v1/namespaces/default/deployments";
    let created = it.create(path, deployment).await.ok();
    assert_eq!(created["spec"]["template"]["metadata"], json!({"creationTimestamp": null, "labels": {"a": "b"}}));
    assert_eq!(created["status"], json!({}));
    let patched = it.patch(&format!("{path}/d"), json!({"metadata": {"labels": {"x": "y"}}})).await.ok();
    assert_eq!((&patched["spec"], &patched["metadata"]["generation"]), (&created["spec"], &json!(1)), "nothing else has changed");
    let role = json!({"metadata": {"name": "r"}, "rules": []});
    let role = it.create("/apis/rbac.authorization.k8s.io/v1/namespaces/default/roles", role).await.ok();
    assert_eq!(role.get("rules"), Some(&Value::Null));
    // Such zero values are not a change by a manager.
    let applied = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "spec": {"paused": true}});
    it.apply(&format!("{path}/d"), "fieldManager=f", applied).await.ok();
    it.stop().await;
}

#[tokio::test]
async fn the_author_is_warned() {
    let it = start().await;
    let mut odd = pod("a.b");
    odd["spec"]["containers"][0]["nothing"] = 1.into();
    let answer = it.create(PODS, odd).await;
    let start = r#"299 - "metadata.name: this is used in the Pod's hostname"#;
    assert!(warnings(&answer)[1].starts_with(start), "{:?}", warnings(&answer));
    assert_eq!(warnings(&answer)[0], r#"299 - "unknown field \"spec.containers[0].nothing\"""#);
    let endpoints = "/api/v1/namespaces/default/endpoints";
    let deprecated = r#"299 - "v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice""#;
    for path in [endpoints.to_owned(), format!("{endpoints}/none")] {
        assert_eq!(warnings(&it.get(&path).await), [deprecated], "{path}");
    }
    assert!(warnings(&it.create(CONFIG_MAPS, config_map("a")).await).is_empty());
    it.stop().await;
}

#[tokio::test]
async fn components_have_a_status() {
    let it = start().await;
    let list = it.get("/api/v1/componentstatuses").await;
    assert_eq!(warnings(&list), [r#"299 - "v1 ComponentStatus is deprecated in v1.19+""#]);
    let healthy = json!([{"type": "Healthy", "status": "True", "message": "ok"}]);
    assert_eq!((&list.json["kind"], &list.json["items"][0]["conditions"]), (&json!("ComponentStatusList"), &healthy));
    assert_eq!(it.get("/api/v1/componentstatuses/etcd-0").await.ok()["conditions"], healthy);
    let none = (404, "NotFound".to_owned(), "componentstatus \"x\" not found".to_owned());
    assert_eq!(it.get("/api/v1/componentstatuses/x").await.failed(), none);
    assert_eq!(it.create("/api/v1/componentstatuses", json!({})).await.failed().0, 405);
    it.stop().await;
}

#[tokio::test]
async fn who_deletes_is_shown_the_last_of_some_objects() {
    let it = start().await;
    it.create(PODS, pod("a")).await.ok();
    let last = it.delete(&format!("{PODS}/a"), Value::Null).await.ok();
    let metadata = &last["metadata"];
    assert_eq!((&metadata["deletionGracePeriodSeconds"], &metadata["generation"]), (&json!(0), &json!(2)));
    assert!(metadata["deletionTimestamp"].is_string());
    it.create(CONFIG_MAPS, config_map("a")).await.ok();
    let gone = it.delete(&format!("{CONFIG_MAPS}/a"), Value::Null).await.ok();
    assert_eq!((&gone["status"], gone.get("code")), (&json!("Success"), None));
    for (options, code) in
        [(json!({"propagationPolicy": "Odd"}), 422), (json!({"propagationPolicy": "Orphan", "orphanDependents": true}), 422)]
    {
        assert_eq!(it.delete(&format!("{CONFIG_MAPS}/a"), options).await.failed().0, code);
    }
    // Without a propagation policy, the pods are orphaned.
    let jobs = "/apis/batch/v1/namespaces/default/jobs";
    let template = json!({"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}});
    it.create(jobs, json!({"metadata": {"name": "j"}, "spec": {"template": template}})).await.ok();
    assert_eq!(it.delete(&format!("{jobs}/j"), Value::Null).await.ok()["metadata"]["finalizers"], json!(["orphan"]));
    it.stop().await;
}

#[tokio::test]
async fn pods_are_resized() {
    let it = start().await;
    let mut one = pod("a");
    one["spec"]["containers"][0]["resources"] = json!({"requests": {"cpu": "1"}});
    it.create(PODS, one).await.ok();
    let path = format!("{PODS}/a/resize");
    let container = |cpu: &str| json!({"name": "c", "image": "other", "resources": {"requests": {"cpu": cpu}}});
    let resized = it.patch(&path, json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [container("2")]}})).await.ok();
    let container = &resized["spec"]["containers"][0];
    assert_eq!((&container["resources"]["requests"]["cpu"], &container["image"]), (&json!("2"), &json!("i")));
    assert_eq!((&resized["metadata"]["generation"], resized["metadata"].get("labels")), (&json!(2), None));
    let (code, _, message) = it.patch(&path, json!({"spec": {"containers": [{"name": "c", "image": "i"}]}})).await.failed();
    assert!(code == 422 && message.contains("Pod QOS Class may not change"), "{message}");
    assert_eq!(
        it.patch(
            &format!("{PODS}/a"),
            json!({"spec": {"containers": [{"name": "c", "image": "i", "resources": {"requests": {"cpu": "3"}}}]}})
        )
        .await
        .failed()
        .0,
        422
    );
    it.stop().await;
}
