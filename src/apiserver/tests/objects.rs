//! Single objects: the effects and errors of every verb.

use serde_json::{Value, json};

use super::{CONFIG_MAPS, PODS, config_map, pod, start, start_with};

#[tokio::test]
async fn a_cluster_has_its_namespaces_and_the_service_of_its_server() {
    let it = start().await;
    for name in ["default", "kube-system", "kube-public", "kube-node-lease"] {
        let namespace = it.get(&format!("/api/v1/namespaces/{name}")).await.ok();
        assert_eq!(namespace["status"]["phase"], "Active");
        assert_eq!(namespace["spec"]["finalizers"], json!(["kubernetes"]));
        assert_eq!(namespace["metadata"]["labels"]["kubernetes.io/metadata.name"], name);
    }
    let service = it.get("/api/v1/namespaces/default/services/kubernetes").await.ok();
    assert_eq!(service["spec"]["clusterIP"], "10.10.10.1");
    assert_eq!(service["metadata"]["labels"], json!({"component": "apiserver", "provider": "kubernetes"}));
    let port = it.server.addresses()[0].port();
    assert_eq!(service["spec"]["ports"][0]["targetPort"], port);
    let mut endpoints = it.watch("/api/v1/namespaces/default/endpoints?watch=1").await;
    let (_, object) = endpoints.next().await.unwrap();
    assert_eq!(object["subsets"][0]["ports"][0]["port"], port);
    // Deleted endpoints are restored.
    it.delete("/api/v1/namespaces/default/endpoints/kubernetes", Value::Null).await.ok();
    assert_eq!(endpoints.next_name().await.0, "DELETED");
    assert_eq!(endpoints.next_name().await, ("ADDED".to_owned(), "kubernetes".to_owned()));
    it.stop().await;
}

#[tokio::test]
async fn create_get_update_delete() {
    let it = start().await;
    let created = it.create(CONFIG_MAPS, config_map("a")).await;
    assert_eq!(created.code, 201);
    let created = created.ok();
    assert_eq!(created["metadata"]["namespace"], "default");
    assert!(created["metadata"]["uid"].as_str().is_some_and(|it| it.len() == 36));
    let path = format!("{CONFIG_MAPS}/a");
    assert_eq!(it.get(&path).await.ok(), created);
    assert_eq!(
        it.create(CONFIG_MAPS, config_map("a")).await.failed(),
        (409, "AlreadyExists".to_owned(), "configmaps \"a\" already exists".to_owned())
    );
    let mut changed = created.clone();
    changed["data"]["b"] = "2".into();
    let updated = it.put(&path, changed.clone()).await.ok();
    assert_ne!(updated["metadata"]["resourceVersion"], created["metadata"]["resourceVersion"]);
    // An identical write changes nothing, not even the version.
    assert_eq!(it.put(&path, updated.clone()).await.ok(), updated);
    let stale = it.put(&path, created.clone()).await.failed();
    assert_eq!(
        stale.2,
        "Operation cannot be fulfilled on configmaps \"a\": the object has been modified; please apply your changes to the latest version and try again"
    );
    // Without a version the last one wins.
    changed["metadata"].as_object_mut().unwrap().remove("resourceVersion");
    changed["data"]["b"] = "3".into();
    assert_eq!(it.put(&path, changed).await.ok()["data"]["b"], "3");
    let deleted = it.delete(&path, Value::Null).await.ok();
    assert_eq!((&deleted["status"], &deleted["details"]["uid"]), (&json!("Success"), &created["metadata"]["uid"]));
    assert_eq!(it.get(&path).await.failed(), (404, "NotFound".to_owned(), "configmaps \"a\" not found".to_owned()));
    assert_eq!(it.delete(&path, Value::Null).await.failed().0, 404);
    assert_eq!(it.put(&path, config_map("a")).await.failed().0, 404);
    it.stop().await;
}

#[tokio::test]
async fn what_does_not_fit_its_url_is_refused() {
    let it = start().await;
    let mut elsewhere = config_map("a");
    elsewhere["metadata"]["namespace"] = "other".into();
    assert_eq!(
        it.create(CONFIG_MAPS, elsewhere).await.failed().2,
        "the namespace of the provided object does not match the namespace sent on the request"
    );
    it.create(CONFIG_MAPS, config_map("a")).await.ok();
    let path = format!("{CONFIG_MAPS}/a");
    assert_eq!(it.put(&path, config_map("b")).await.failed().2, "the name of the object (b) does not match the name on the URL (a)");
    let mut versioned = config_map("c");
    versioned["metadata"]["resourceVersion"] = "1".into();
    assert_eq!(it.create(CONFIG_MAPS, versioned).await.failed().2, "resourceVersion should not be set on objects to be created");
    let missing = it.create("/api/v1/namespaces/none/configmaps", config_map("a")).await.failed();
    assert_eq!(missing, (404, "NotFound".to_owned(), "namespaces \"none\" not found".to_owned()));
    assert_eq!(it.create("/api/v1/configmaps", config_map("a")).await.failed().0, 405);
    for path in ["/api/v1/nothing", "/api/v2", "/apis/apps/v9/x", &format!("{CONFIG_MAPS}/a/scale"), "/api/v1/namespaces/default/nodes/x"] {
        let not_served = (404, "NotFound".to_owned(), "the server could not find the requested resource".to_owned());
        assert_eq!(it.get(path).await.failed(), not_served, "{path}");
    }
    for path in ["/nothing", "/apis/nothing.io", "/apis/nothing.io/v1/x"] {
        assert_eq!(it.get(path).await.text, "404 page not found\n", "{path}");
    }
    assert_eq!(it.create(CONFIG_MAPS, json!({"kind": "ConfigMap", "apiVersion": "v1"})).await.failed().0, 422);
    it.stop().await;
}

#[tokio::test]
async fn generated_names_and_dry_runs() {
    let it = start().await;
    let mut nameless = config_map("");
    nameless["metadata"] = json!({"generateName": "web-"});
    let created = it.create(CONFIG_MAPS, nameless.clone()).await.ok();
    assert!(created["metadata"]["name"].as_str().is_some_and(|it| it.starts_with("web-") && it.len() == 9));
    let dry = it.create(&format!("{CONFIG_MAPS}?dryRun=All"), config_map("dry")).await.ok();
    assert!(dry["metadata"]["uid"].is_string());
    assert_eq!(it.get(&format!("{CONFIG_MAPS}/dry")).await.code, 404);
    let name = created["metadata"]["name"].as_str().unwrap();
    let patched = it.patch(&format!("{CONFIG_MAPS}/{name}?dryRun=All"), json!({"data": {"x": "y"}})).await.ok();
    assert_eq!(patched["data"]["x"], "y");
    assert_eq!(it.get(&format!("{CONFIG_MAPS}/{name}")).await.ok(), created);
    it.delete(&format!("{CONFIG_MAPS}/{name}?dryRun=All"), Value::Null).await.ok();
    assert_eq!(it.get(&format!("{CONFIG_MAPS}/{name}")).await.code, 200);
    it.stop().await;
}

#[tokio::test]
async fn field_validation() {
    let it = start().await;
    let mut odd = config_map("a");
    odd["dataa"] = json!({});
    let strict = it.create(&format!("{CONFIG_MAPS}?fieldValidation=Strict"), odd.clone()).await.failed();
    assert_eq!(strict.0, 400);
    assert!(strict.2.ends_with("strict decoding error: unknown field \"dataa\""), "{}", strict.2);
    let warned = it.create(CONFIG_MAPS, odd.clone()).await;
    assert_eq!(warned.headers["warning"], "299 - \"unknown field \\\"dataa\\\"\"");
    assert!(warned.ok().get("dataa").is_none());
    odd["metadata"]["name"] = "b".into();
    assert!(it.create(&format!("{CONFIG_MAPS}?fieldValidation=Ignore"), odd).await.headers.get("warning").is_none());
    it.stop().await;
}

#[tokio::test]
async fn patches_of_three_kinds() {
    let it = start().await;
    it.create(CONFIG_MAPS, config_map("a")).await.ok();
    let path = format!("{CONFIG_MAPS}/a");
    let send = async |content_type: &str, patch: Value| {
        let request = http::Request::builder().method("PATCH").uri(&path).header("content-type", content_type);
        it.send(request.body(patch.to_string().into()).unwrap()).await
    };
    let merged = send("application/merge-patch+json", json!({"metadata": {"labels": {"x": "y"}}, "data": {"a": null}})).await.ok();
    assert_eq!(merged["metadata"]["labels"]["x"], "y");
    assert!(merged["data"].get("a").is_none());
    let replaced = send("application/json-patch+json", json!([{"op": "add", "path": "/data", "value": {"b": "2"}}])).await.ok();
    assert_eq!(replaced["data"], json!({"b": "2"}));
    let strategic = send("application/strategic-merge-patch+json", json!({"data": {"c": "3"}})).await.ok();
    assert_eq!(strategic["data"], json!({"b": "2", "c": "3"}));
    assert_eq!(send("application/apply-patch+cbor", json!({})).await.failed().0, 415);
    assert_eq!(send("text/plain", json!({})).await.failed().0, 415);
    assert_eq!(send("application/merge-patch+json", json!({"metadata": {"name": "b"}})).await.failed().0, 400);
    let stale = send("application/merge-patch+json", json!({"metadata": {"resourceVersion": "1"}})).await.failed();
    assert_eq!((stale.0, stale.1.as_str()), (409, "Conflict"));
    let request = http::Request::builder().method("PATCH").uri(&path).header("content-type", "application/merge-patch+json");
    assert_eq!(it.send(request.body("{".into()).unwrap()).await.failed().0, 400);
    it.stop().await;
}

#[tokio::test]
async fn status_is_apart() {
    let it = start().await;
    let mut with_status = pod("web");
    with_status["status"] = json!({"phase": "Running"});
    let created = it.create(PODS, with_status).await.ok();
    assert_eq!(created["status"]["phase"], "Pending");
    assert_eq!(created["metadata"]["generation"], 1);
    let path = format!("{PODS}/web");
    let mut changed = created.clone();
    changed["status"]["phase"] = "Failed".into();
    assert_eq!(it.put(&path, changed.clone()).await.ok()["status"]["phase"], "Pending");
    changed["spec"]["nodeName"] = "elsewhere".into();
    changed["metadata"]["labels"] = json!({"a": "b"});
    let updated = it.put(&format!("{path}/status"), changed).await.ok();
    assert_eq!(updated["status"]["phase"], "Failed");
    assert!(updated["spec"].get("nodeName").is_none());
    assert_eq!(updated["metadata"]["generation"], 1);
    it.stop().await;
}

#[tokio::test]
async fn bindings_place_pods_and_carry_annotations() {
    let it = start().await;
    let mut annotated = pod("web");
    annotated["metadata"]["annotations"] = json!({"mine": "1"});
    it.create(PODS, annotated).await.ok();
    it.create(PODS, pod("web2")).await.ok();
    let binding = |name: &str| {
        json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": name, "annotations": {"k8s.mesosphere.io/taskId": "t1"}},
               "target": {"apiVersion": "v1", "kind": "Node", "name": "n1"}})
    };
    let bound = it.create(&format!("{PODS}/web/binding"), binding("web")).await;
    assert_eq!(bound.code, 201);
    assert_eq!(bound.ok()["status"], "Success");
    it.create("/api/v1/namespaces/default/bindings", binding("web2")).await.ok();
    for name in ["web", "web2"] {
        let placed = it.get(&format!("{PODS}/{name}")).await.ok();
        assert_eq!(placed["spec"]["nodeName"], "n1");
        assert_eq!(placed["metadata"]["annotations"]["k8s.mesosphere.io/taskId"], "t1");
        assert_eq!(placed["status"]["conditions"][0]["type"], "PodScheduled");
    }
    assert_eq!(it.get(&format!("{PODS}/web")).await.ok()["metadata"]["annotations"]["mine"], "1");
    assert_eq!(it.create(&format!("{PODS}/web/binding"), binding("web")).await.failed().0, 409);
    assert_eq!(it.create(&format!("{PODS}/none/binding"), binding("none")).await.failed().0, 404);
    let listed = it.get(&format!("{PODS}?fieldSelector=spec.nodeName%3Dn1")).await.ok();
    assert_eq!(listed["items"].as_array().unwrap().len(), 2);
    it.stop().await;
}

#[tokio::test]
async fn deletes_wait_for_grace_and_finalizers() {
    let it = start().await;
    it.create(PODS, pod("web")).await.ok();
    // An unplaced pod is removed at once.
    it.delete(&format!("{PODS}/web"), Value::Null).await.ok();
    assert_eq!(it.get(&format!("{PODS}/web")).await.code, 404);
    let mut placed = pod("web");
    placed["spec"]["nodeName"] = "n1".into();
    let created = it.create(PODS, placed).await.ok();
    let marked = it.delete(&format!("{PODS}/web?gracePeriodSeconds=7"), Value::Null).await.ok();
    assert_eq!(marked["metadata"]["deletionGracePeriodSeconds"], 7);
    assert!(marked["metadata"]["deletionTimestamp"].is_string());
    assert_eq!(it.get(&format!("{PODS}/web")).await.ok(), marked);
    let wrong = json!({"gracePeriodSeconds": 0, "preconditions": {"uid": "other"}});
    assert_eq!(it.delete(&format!("{PODS}/web"), wrong).await.failed().0, 409);
    let right =
        json!({"kind": "DeleteOptions", "apiVersion": "v1", "gracePeriodSeconds": 0, "preconditions": {"uid": created["metadata"]["uid"]}});
    it.delete(&format!("{PODS}/web"), right).await.ok();
    assert_eq!(it.get(&format!("{PODS}/web")).await.code, 404);

    let mut held = config_map("held");
    held["metadata"]["finalizers"] = json!(["example.com/hold"]);
    it.create(CONFIG_MAPS, held).await.ok();
    let path = format!("{CONFIG_MAPS}/held");
    assert!(it.delete(&path, Value::Null).await.ok()["metadata"]["deletionTimestamp"].is_string());
    it.patch(&path, json!({"metadata": {"finalizers": null}})).await.ok();
    assert_eq!(it.get(&path).await.code, 404);

    it.create(CONFIG_MAPS, config_map("owner")).await.ok();
    let path = format!("{CONFIG_MAPS}/owner");
    let foreground = it.delete(&path, json!({"propagationPolicy": "Foreground"})).await.ok();
    assert_eq!(foreground["metadata"]["finalizers"], json!(["foregroundDeletion"]));
    it.stop().await;
}

#[tokio::test]
async fn namespaces_end_through_finalize() {
    let it = start().await;
    assert_eq!(
        it.delete("/api/v1/namespaces/default", Value::Null).await.failed().2,
        "namespaces \"default\" is forbidden: this namespace may not be deleted"
    );
    it.create("/api/v1/namespaces", json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "a"}})).await.ok();
    it.create("/api/v1/namespaces/a/configmaps", config_map("x")).await.ok();
    let mut going = it.delete("/api/v1/namespaces/a", Value::Null).await.ok();
    assert_eq!(going["status"]["phase"], "Terminating");
    let refused = it.create("/api/v1/namespaces/a/configmaps", config_map("y")).await.failed();
    assert_eq!(refused.2, "configmaps \"y\" is forbidden: unable to create new content in namespace a because it is being terminated");
    let emptied = it.delete("/api/v1/namespaces/a/configmaps", Value::Null).await.ok();
    assert_eq!(emptied["items"].as_array().unwrap().len(), 1);
    going["spec"]["finalizers"] = json!([]);
    it.put("/api/v1/namespaces/a/finalize", going).await.ok();
    assert_eq!(it.get("/api/v1/namespaces/a").await.code, 404);
    it.stop().await;
}

#[tokio::test]
async fn scales() {
    let it = start().await;
    let deployments = "/apis/apps/v1/namespaces/default/deployments";
    let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let deployment = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
        "spec": {"replicas": 2, "selector": {"matchLabels": {"a": "b"}}, "template": template}});
    it.create(deployments, deployment).await.ok();
    let path = format!("{deployments}/web/scale");
    let mut scale = it.get(&path).await.ok();
    assert_eq!((&scale["kind"], &scale["spec"]["replicas"], &scale["status"]["selector"]), (&json!("Scale"), &json!(2), &json!("a=b")));
    assert_eq!(it.patch(&path, json!({"spec": {"replicas": 5}})).await.ok()["spec"]["replicas"], 5);
    let deployment = it.get(&format!("{deployments}/web")).await.ok();
    assert_eq!((&deployment["spec"]["replicas"], &deployment["metadata"]["generation"]), (&json!(5), &json!(2)));
    assert_eq!(it.put(&path, scale.clone()).await.failed().0, 409);
    scale["metadata"].as_object_mut().unwrap().remove("resourceVersion");
    scale["spec"]["replicas"] = 0.into();
    assert_eq!(it.put(&path, scale).await.ok()["spec"], json!({}));
    it.stop().await;
}

#[tokio::test]
async fn evictions_respect_budgets() {
    let it = start().await;
    let running = async |name: &str| {
        let mut labelled = pod(name);
        labelled["metadata"]["labels"] = json!({"app": "x"});
        labelled["spec"]["nodeName"] = "n1".into();
        it.create(PODS, labelled).await.ok();
        let ready = json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}});
        it.patch(&format!("{PODS}/{name}/status"), ready).await.ok();
    };
    running("a").await;
    running("b").await;
    let budgets = "/apis/policy/v1/namespaces/default/poddisruptionbudgets";
    let budget = json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "x"},
        "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "x"}}}});
    it.create(budgets, budget).await.ok();
    let status =
        json!({"status": {"observedGeneration": 1, "disruptionsAllowed": 1, "currentHealthy": 2, "desiredHealthy": 1, "expectedPods": 2}});
    it.patch(&format!("{budgets}/x/status"), status).await.ok();
    let evict = async |name: &str| {
        let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}});
        it.create(&format!("{PODS}/{name}/eviction"), eviction).await
    };
    assert_eq!(evict("a").await.code, 201);
    assert!(it.get(&format!("{PODS}/a")).await.ok()["metadata"]["deletionTimestamp"].is_string());
    let refused = evict("b").await;
    assert_eq!(refused.code, 429);
    assert_eq!(refused.failed().2, "Cannot evict pod as it would violate the pod's disruption budget.");
    it.stop().await;
}

#[tokio::test]
async fn accounts_limits_and_quotas() {
    let it = start_with(|config| config.admission.push("ServiceAccount".to_owned())).await;
    let mut other = pod("web");
    other["spec"]["serviceAccountName"] = "other".into();
    let refused = it.create(PODS, other).await.failed();
    assert_eq!(refused.2, "pods \"web\" is forbidden: error looking up service account default/other: serviceaccount \"other\" not found");
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}});
    // The pod waits for the account that is about to be made.
    let (created, _) = tokio::join!(it.create(PODS, pod("web")), it.create("/api/v1/namespaces/default/serviceaccounts", account));
    assert_eq!(created.ok()["spec"]["serviceAccountName"], "default");
    let range = json!({"apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "r"},
        "spec": {"limits": [{"type": "Container", "default": {"cpu": "200m"}, "max": {"cpu": "1"}}]}});
    it.create("/api/v1/namespaces/default/limitranges", range).await.ok();
    let limited = it.create(PODS, pod("limited")).await.ok();
    assert_eq!(limited["spec"]["containers"][0]["resources"]["limits"]["cpu"], "200m");
    let mut large = pod("large");
    large["spec"]["containers"][0]["resources"] = json!({"limits": {"cpu": "2"}});
    assert_eq!(
        it.create(PODS, large).await.failed().2,
        "pods \"large\" is forbidden: maximum cpu usage per Container is 1, but limit is 2"
    );
    let quota = json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "q"}, "spec": {"hard": {"pods": "5"}}});
    it.create("/api/v1/namespaces/default/resourcequotas", quota).await.ok();
    let creating = (0..8).map(|n| {
        let it = &it;
        async move { it.create(PODS, pod(&format!("p{n}"))).await.code }
    });
    let codes = futures_util::future::join_all(creating).await;
    assert_eq!(codes.iter().filter(|it| **it == 201).count(), 3, "{codes:?}");
    let refused = it.create(PODS, pod("more")).await.failed();
    assert_eq!(refused.2, "pods \"more\" is forbidden: exceeded quota: q, requested: pods=1, used: pods=5, limited: pods=5");
    assert_eq!(it.get("/api/v1/namespaces/default/resourcequotas/q").await.ok()["status"]["used"]["pods"], "5");
    let scoped = json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "t"},
        "spec": {"hard": {"limits.cpu": "100m"}, "scopes": ["Terminating"]}});
    it.create("/api/v1/namespaces/default/resourcequotas", scoped).await.ok();
    let ended = it.patch(&format!("{PODS}/limited"), json!({"spec": {"activeDeadlineSeconds": 10}})).await.failed();
    assert_eq!(
        ended.2,
        "pods \"limited\" is forbidden: exceeded quota: t, requested: limits.cpu=200m, used: limits.cpu=0, limited: limits.cpu=100m"
    );
    it.stop().await;
}
