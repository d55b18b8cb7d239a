//! Effects and errors of writes beyond the plain case.

use serde_json::{Value, json};

use super::{Answered, CONFIG_MAPS, Fixture, PODS, config_map, pod, start};

const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/default/leases";

fn lease(name: &str) -> Value {
    json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": name}, "spec": {}})
}

fn with(mut object: Value, pointer: &str, value: Value) -> Value {
    let (parent, field) = pointer.rsplit_once('/').unwrap();
    object.pointer_mut(parent).unwrap()[field] = value;
    object
}

#[tokio::test]
async fn what_is_tried_must_be_possible() {
    let it = start().await;
    it.create(CONFIG_MAPS, config_map("a")).await.ok();
    let tried = format!("{CONFIG_MAPS}?dryRun=All");
    let taken = (409, "AlreadyExists".to_owned(), "configmaps \"a\" already exists".to_owned());
    assert_eq!(it.create(&tried, config_map("a")).await.failed(), taken);
    assert!(it.create(&tried, config_map("b")).await.ok()["metadata"].get("resourceVersion").is_none());
    // Warnings are sent with errors too.
    it.create(PODS, pod("a.b")).await.ok();
    let refused = it.create(&format!("{PODS}?dryRun=All"), with(pod("a.b"), "/foo", 1.into())).await;
    assert_eq!((refused.code, refused.headers.get_all("warning").iter().count()), (409, 2));
    it.create(CONFIG_MAPS, with(config_map("held"), "/metadata/finalizers", json!(["example.com/hold"]))).await.ok();
    it.delete(&format!("{CONFIG_MAPS}/held"), Value::Null).await.ok();
    for path in [CONFIG_MAPS, &tried] {
        let refused = it.create(path, config_map("held")).await.failed();
        assert_eq!(refused.2, "object is being deleted: configmaps \"held\" already exists");
    }
    it.stop().await;
}

#[tokio::test]
async fn puts_create_objects_of_some_kinds() {
    let it = start().await;
    let path = format!("{LEASES}/l");
    assert_eq!(it.put(&format!("{path}?dryRun=All"), lease("l")).await.code, 201);
    assert_eq!(it.get(&path).await.code, 404);
    // A version has no meaning for a missing object.
    let created = it.put(&format!("{path}?fieldManager=m"), with(lease("l"), "/spec/holderIdentity", "x".into())).await;
    assert_eq!(created.code, 201);
    let created = created.ok();
    assert_eq!(created["metadata"]["managedFields"][0]["manager"], "m");
    assert_eq!(it.get(&path).await.ok(), created);
    assert_eq!(it.put(&path, created.clone()).await.code, 200);
    assert_eq!(it.put(&format!("{LEASES}/m"), with(lease("m"), "/metadata/resourceVersion", "5".into())).await.code, 201);

    // It is treated like any creation.
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}]}});
    let service = it.put("/api/v1/namespaces/default/services/s", service).await;
    assert_eq!(service.code, 201);
    assert!(service.ok()["spec"]["clusterIP"].as_str().is_some_and(|it| it.starts_with("10.10.10.")));
    let event = json!({"apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": "e"}, "type": "Normal"});
    assert_eq!(it.put("/apis/events.k8s.io/v1/namespaces/default/events/e", event).await.failed().0, 422);
    let missing = it.put("/apis/coordination.k8s.io/v1/namespaces/none/leases/l", lease("l")).await.failed();
    assert_eq!((missing.0, missing.2.as_str()), (404, "namespaces \"none\" not found"));
    let role = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "r"}, "rules": []});
    assert_eq!(it.put("/apis/rbac.authorization.k8s.io/v1/clusterroles/r", role).await.code, 201);

    // A deleted object is not created again.
    let words = |key: &str, is: &str| {
        format!(
            "StorageError: invalid object, Code: 4, Key: /registry/{key}, ResourceVersion: 0, AdditionalErrorMsg: \
             Precondition failed: UID in precondition: u, UID in object meta: {is}"
        )
    };
    let refused = it.put(&format!("{LEASES}/none"), with(lease("none"), "/metadata/uid", "u".into())).await.failed();
    assert_eq!((refused.0, refused.1.as_str()), (409, "Conflict"));
    assert_eq!(
        refused.2,
        format!(
            "Operation cannot be fulfilled on leases.coordination.k8s.io \"none\": {}",
            words("coordination.k8s.io/leases/default/none", "")
        )
    );
    let refused = it.put(&path, with(lease("l"), "/metadata/uid", "u".into())).await.failed();
    assert!(refused.2.ends_with(&words("coordination.k8s.io/leases/default/l", created["metadata"]["uid"].as_str().unwrap())));
    let (path, other) = (format!("{CONFIG_MAPS}/none"), with(config_map("none"), "/metadata/uid", "u".into()));
    assert_eq!(it.put(&path, other).await.failed().0, 409);
    assert_eq!(it.put(&path, config_map("none")).await.failed().0, 404);
    assert_eq!(it.patch(&format!("{LEASES}/none"), json!({"spec": {}})).await.failed().0, 404);
    it.stop().await;
}

#[tokio::test]
async fn a_uid_is_not_patched() {
    let it = start().await;
    it.create(CONFIG_MAPS, config_map("a")).await.ok();
    let path = format!("{CONFIG_MAPS}/a");
    let refused = it.patch(&path, json!({"metadata": {"uid": "u"}})).await.failed();
    assert_eq!(refused.2, "ConfigMap \"a\" is invalid: metadata.uid: Invalid value: \"u\": field is immutable");
    assert_eq!(it.patch(&path, json!({"metadata": {"uid": null}})).await.code, 200);
    let applied = with(config_map("a"), "/metadata/uid", "u".into());
    assert_eq!(it.apply(&path, "fieldManager=m&force=true", applied).await.failed().0, 422);
    it.stop().await;
}

#[tokio::test]
async fn what_is_applied_first_has_no_version_yet() {
    let it = start().await;
    let versioned = with(config_map("a"), "/metadata/resourceVersion", "5".into());
    assert_eq!(it.apply(&format!("{CONFIG_MAPS}/a"), "fieldManager=m", &versioned).await.code, 201);
    assert_eq!(it.apply(&format!("{CONFIG_MAPS}/a"), "fieldManager=m", versioned).await.failed().0, 409);
    it.stop().await;
}

#[tokio::test]
async fn what_is_applied_without_its_key_is_invalid() {
    let it = start().await;
    let applied = with(pod("a"), "/spec/containers", json!([{"image": "i"}]));
    let refused = it.apply(&format!("{PODS}/a"), "fieldManager=m", applied).await.failed();
    assert_eq!((refused.0, refused.2.as_str()), (422, "Pod \"a\" is invalid: spec.containers[0].name: Required value"));
    it.stop().await;
}

#[tokio::test]
async fn a_status_comes_with_some_metadata() {
    let it = start().await;
    let described = json!({"status": {}, "metadata": {
        "labels": {"a": "b"}, "annotations": {"a": "b"}, "finalizers": ["example.com/x"],
        "ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": "n", "uid": "u"}],
    }});
    let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let all = &["annotations", "finalizers", "labels", "ownerReferences"][..];
    for (collection, object, kept) in [
        ("/api/v1/nodes", json!({"apiVersion": "v1", "kind": "Node"}), all),
        (PODS, json!({"apiVersion": "v1", "kind": "Pod", "spec": template["spec"]}), &["annotations", "finalizers", "labels"]),
        (
            "/apis/apps/v1/namespaces/default/deployments",
            json!({"apiVersion": "apps/v1", "kind": "Deployment",
                "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": template}}),
            &["annotations", "finalizers", "ownerReferences"],
        ),
        (
            "/apis/storage.k8s.io/v1/volumeattachments",
            json!({"apiVersion": "storage.k8s.io/v1", "kind": "VolumeAttachment",
                "spec": {"attacher": "x", "nodeName": "n", "source": {"persistentVolumeName": "v"}}}),
            &[],
        ),
    ] {
        it.create(collection, with(object, "/metadata", json!({"name": "x"}))).await.ok();
        let written = it.patch(&format!("{collection}/x/status"), described.clone()).await.ok();
        let found: Vec<&str> = all.iter().copied().filter(|it| written["metadata"].get(it).is_some()).collect();
        assert_eq!(found, kept, "{collection}");
    }
    // Removing the last finalizer of an object that is being deleted removes the object.
    it.delete(&format!("{PODS}/x"), Value::Null).await.ok();
    it.patch(&format!("{PODS}/x/status"), json!({"metadata": {"finalizers": null}})).await.ok();
    assert_eq!(it.get(&format!("{PODS}/x")).await.code, 404);
    it.stop().await;
}

async fn evict(it: &Fixture, options: Value) -> Answered {
    let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "web"}, "deleteOptions": options});
    it.create(&format!("{PODS}/web/eviction"), eviction).await
}

#[tokio::test]
async fn an_eviction_may_be_of_one_pod_only() {
    let it = start().await;
    let path = format!("{PODS}/web");
    for node in [json!("n1"), Value::Null] {
        let created = it.create(PODS, with(pod("web"), "/spec/nodeName", node.clone())).await.ok();
        let (uid, version) = (&created["metadata"]["uid"], &created["metadata"]["resourceVersion"]);
        let refused = evict(&it, json!({"preconditions": {"uid": "other"}})).await.failed();
        assert_eq!((refused.0, refused.1.as_str()), (409, "Conflict"));
        let why = format!(
            "Operation cannot be fulfilled on Pod \"web\": the UID in the precondition (other) does not match the UID in record ({}). \
             The object might have been deleted and then recreated",
            uid.as_str().unwrap()
        );
        assert_eq!(refused.2, why);
        assert_eq!(evict(&it, json!({"preconditions": {"resourceVersion": "1"}})).await.failed().0, 409);
        assert_eq!(it.get(&path).await.ok(), created, "nothing came of it");
        assert_eq!(evict(&it, json!({"preconditions": {"uid": uid, "resourceVersion": version}})).await.code, 201);
        if !node.is_null() {
            assert_eq!(it.get(&path).await.ok()["status"]["conditions"][0]["type"], "DisruptionTarget");
            it.delete(&path, json!({"gracePeriodSeconds": 0})).await.ok();
        }
        assert_eq!(it.get(&path).await.code, 404);
    }
    it.stop().await;
}

#[tokio::test]
async fn an_eviction_is_tried_in_one_way() {
    let it = start().await;
    let created = it.create(PODS, pod("web")).await.ok();
    let refused = evict(&it, json!({"dryRun": ["x"]})).await.failed();
    assert_eq!(refused.0, 422);
    assert_eq!(
        refused.2,
        "DeleteOptions.meta.k8s.io \"\" is invalid: dryRun: Unsupported value: []string{\"x\"}: supported values: \"All\""
    );
    assert_eq!(evict(&it, json!({"dryRun": ["All"], "propagationPolicy": "x"})).await.failed().0, 422);
    assert_eq!(evict(&it, json!({"dryRun": ["All"]})).await.code, 201);
    assert_eq!(it.get(&format!("{PODS}/web")).await.ok(), created);
    it.stop().await;
}

#[tokio::test]
async fn a_binding_may_be_of_one_pod_only() {
    let it = start().await;
    let created = it.create(PODS, pod("web")).await.ok();
    let bind = async |path: &str, metadata: Value| {
        let binding = json!({"apiVersion": "v1", "kind": "Binding", "metadata": metadata, "target": {"kind": "Node", "name": "n1"}});
        it.create(&format!("/api/v1/namespaces/default/{path}"), binding).await
    };
    let refused = bind("pods/web/binding", json!({"name": "web", "resourceVersion": "1"})).await.failed();
    assert_eq!((refused.0, refused.1.as_str()), (409, "Conflict"));
    let why = format!(
        "ResourceVersion in precondition: 1, ResourceVersion in object meta: {}",
        created["metadata"]["resourceVersion"].as_str().unwrap()
    );
    assert!(refused.2.ends_with(&why), "{}", refused.2);
    assert_eq!(bind("bindings", json!({"name": "web", "resourceVersion": "1"})).await.failed().0, 409);
    assert_eq!(bind("pods/web/binding", json!({"name": "web", "uid": "other"})).await.failed().0, 409);
    let right = json!({"name": "web", "uid": created["metadata"]["uid"], "resourceVersion": created["metadata"]["resourceVersion"]});
    assert_eq!(bind("pods/web/binding", right).await.code, 201);
    it.stop().await;
}
