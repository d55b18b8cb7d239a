//! Lists: chunks, versions, selectors, forms.

use http::Method;
use serde_json::{Value, json};

use super::{CONFIG_MAPS, config_map, start, start_with};
use crate::store::Store;

#[tokio::test]
async fn chunks_show_one_state() {
    let it = start().await;
    for n in 0..10 {
        it.create(CONFIG_MAPS, config_map(&format!("c{n}"))).await.ok();
    }
    let first = it.get(&format!("{CONFIG_MAPS}?limit=4")).await.ok();
    assert_eq!(first["kind"], "ConfigMapList");
    assert_eq!(first["metadata"]["remainingItemCount"], 6);
    let mut names: Vec<String> = Vec::new();
    let add = |names: &mut Vec<String>, page: &Value| {
        names.extend(page["items"].as_array().unwrap().iter().map(|it| it["metadata"]["name"].as_str().unwrap().to_owned()));
    };
    add(&mut names, &first);
    // Changes in between are not seen.
    it.delete(&format!("{CONFIG_MAPS}/c7"), Value::Null).await.ok();
    it.create(CONFIG_MAPS, config_map("c71")).await.ok();
    let mut token = first["metadata"]["continue"].as_str().unwrap().to_owned();
    loop {
        let page = it.get(&format!("{CONFIG_MAPS}?limit=4&continue={token}")).await.ok();
        assert_eq!(page["metadata"]["resourceVersion"], first["metadata"]["resourceVersion"]);
        add(&mut names, &page);
        match page["metadata"]["continue"].as_str() {
            Some(next) => token = next.to_owned(),
            None => break,
        }
    }
    assert_eq!(names, (0..10).map(|n| format!("c{n}")).collect::<Vec<_>>());
    assert_eq!(it.get(&format!("{CONFIG_MAPS}?continue=x")).await.failed().0, 400);
    it.stop().await;
}

#[tokio::test]
async fn a_chunk_of_a_forgotten_state_can_be_gone_on_with() {
    let it = start_with(|config| config.history = 4).await;
    for n in 0..6 {
        it.create(CONFIG_MAPS, config_map(&format!("c{n}"))).await.ok();
    }
    let first = it.get(&format!("{CONFIG_MAPS}?limit=2")).await.ok();
    for n in 0..40 {
        it.patch(&format!("{CONFIG_MAPS}/c5"), json!({"data": {"n": n.to_string()}})).await.ok();
    }
    let token = first["metadata"]["continue"].as_str().unwrap();
    // The store still knows it.
    let next = it.get(&format!("{CONFIG_MAPS}?limit=2&continue={token}")).await.ok();
    assert_eq!((&next["items"][1]["metadata"]["name"], &next["metadata"]["remainingItemCount"]), (&json!("c3"), &json!(2)));
    let revision = first["metadata"]["resourceVersion"].as_str().unwrap();
    let exact = it.get(&format!("{CONFIG_MAPS}?resourceVersion={revision}&resourceVersionMatch=Exact")).await.ok();
    assert_eq!((exact["items"].as_array().unwrap().len(), &exact["items"][5]["data"]), (6, &json!({"a": "1"})));
    it.store.compact(it.store.revision().await.unwrap()).await.unwrap();
    let expired = it.get(&format!("{CONFIG_MAPS}?limit=2&continue={token}")).await;
    assert_eq!((expired.code, &expired.json["reason"]), (410, &json!("Expired")));
    let token = expired.json["metadata"]["continue"].as_str().unwrap();
    let rest = it.get(&format!("{CONFIG_MAPS}?continue={token}")).await.ok();
    assert_eq!(rest["items"].as_array().unwrap().len(), 4);
    it.stop().await;
}

#[tokio::test]
async fn versions_mean_what_they_mean() {
    let it = start().await;
    let created = it.create(CONFIG_MAPS, config_map("a")).await.ok();
    let revision: u64 = created["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap();
    let count = |value: &Value| value["items"].as_array().unwrap().len();
    let changed = it.patch(&format!("{CONFIG_MAPS}/a"), json!({"data": {"a": "2"}})).await.ok();
    assert_ne!(changed, created);
    let exact = it.get(&format!("{CONFIG_MAPS}?resourceVersion={revision}&resourceVersionMatch=Exact")).await.ok();
    assert_eq!(exact["items"][0]["data"]["a"], "1");
    assert_eq!(exact["metadata"]["resourceVersion"], revision.to_string());
    for any in [
        "",
        "?resourceVersion=0",
        &format!("?resourceVersion={revision}"),
        &format!("?resourceVersion={revision}&resourceVersionMatch=NotOlderThan"),
    ] {
        let listed = it.get(&format!("{CONFIG_MAPS}{any}")).await.ok();
        assert_eq!((count(&listed), &listed["items"][0]["data"]["a"]), (1, &json!("2")), "{any}");
    }
    let future = it.get(&format!("{CONFIG_MAPS}?resourceVersion=99999")).await;
    assert_eq!((future.code, &future.json["details"]["causes"][0]["reason"]), (504, &json!("ResourceVersionTooLarge")));
    assert_eq!(future.headers["retry-after"], "1");
    for wrong in
        ["resourceVersionMatch=Exact", "resourceVersion=0&resourceVersionMatch=Exact", "resourceVersion=5&resourceVersionMatch=Other"]
    {
        assert_eq!(it.get(&format!("{CONFIG_MAPS}?{wrong}")).await.failed().0, 422, "{wrong}");
    }
    assert_eq!(it.get(&format!("{CONFIG_MAPS}?resourceVersion=x")).await.failed().0, 400);
    it.stop().await;
}

#[tokio::test]
async fn selectors() {
    let it = start().await;
    for (name, label) in [("a", "1"), ("b", "2"), ("c", "2")] {
        let mut labelled = config_map(name);
        labelled["metadata"]["labels"] = json!({"x": label});
        it.create(CONFIG_MAPS, labelled).await.ok();
    }
    let names = async |query: &str| -> Vec<String> {
        let listed = it.get(&format!("{CONFIG_MAPS}?{query}")).await.ok();
        listed["items"].as_array().unwrap().iter().map(|it| it["metadata"]["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names("labelSelector=x%3D2").await, ["b", "c"]);
    assert_eq!(names("labelSelector=x%20in%20(1,2),x!%3D1").await, ["b", "c"]);
    assert_eq!(names("fieldSelector=metadata.name%3Da").await, ["a"]);
    assert_eq!(names("labelSelector=x%3D2&fieldSelector=metadata.name!%3Db").await, ["c"]);
    let unknown = it.get(&format!("{CONFIG_MAPS}?fieldSelector=data.a%3D1")).await.failed();
    assert_eq!(unknown.0, 400);
    assert!(unknown.2.contains("\"data.a\" is not a known field selector"), "{}", unknown.2);
    assert_eq!(it.get(&format!("{CONFIG_MAPS}?labelSelector=x%20y")).await.failed().0, 400);
    let deleted = it.delete(&format!("{CONFIG_MAPS}?labelSelector=x%3D2"), Value::Null).await.ok();
    assert_eq!(deleted["items"].as_array().unwrap().len(), 2);
    assert_eq!(names("").await, ["a"]);
    it.stop().await;
}

/// Every selectable field of Kubernetes, on objects with and without it.
#[tokio::test]
async fn selectable_fields() {
    let it = start().await;
    let all = [
        (
            "pods",
            "spec.nodeName spec.restartPolicy spec.schedulerName spec.serviceAccountName spec.hostNetwork status.phase status.podIP \
          status.podIPs status.nominatedNodeName",
        ),
        (
            "events",
            "involvedObject.kind involvedObject.namespace involvedObject.name involvedObject.uid involvedObject.apiVersion \
          involvedObject.resourceVersion involvedObject.fieldPath reason reportingComponent source type",
        ),
        ("nodes", "spec.unschedulable"),
        ("namespaces", "status.phase"),
        ("secrets", "type"),
        ("replicationcontrollers", "status.replicas"),
    ];
    for (plural, fields) in all {
        for field in fields.split(' ').filter(|it| !it.is_empty()).chain(["metadata.name", "metadata.namespace"]) {
            assert_eq!(
                it.get(&format!("/api/v1/{plural}?fieldSelector={field}%3Dnone")).await.ok()["items"],
                json!([]),
                "{plural} {field}"
            );
        }
        assert_eq!(it.get(&format!("/api/v1/{plural}?fieldSelector=spec.none%3D1")).await.failed().0, 400);
    }
    it.create(super::PODS, super::pod("a")).await.ok();
    let event = json!({"metadata": {"name": "e"}, "involvedObject": {"kind": "Pod", "name": "a", "namespace": "default"}, "reason": "Seen",
        "type": "Normal", "source": {"component": "kubelet"}});
    it.create("/api/v1/namespaces/default/events", event).await.ok();
    for (plural, selector, found) in [
        ("pods", "spec.restartPolicy=Always,spec.hostNetwork=false,spec.nodeName=,status.phase=Pending", 1),
        ("pods", "spec.schedulerName!=default-scheduler", 0),
        ("events", "source=kubelet,involvedObject.kind=Pod,reason=Seen,type!=Warning", 1),
        ("events", "source!=kubelet", 0),
        ("namespaces", "status.phase=Active,metadata.name=default", 1),
    ] {
        let listed = it.get(&format!("/api/v1/{plural}?fieldSelector={}", crate::util::url::escape(selector))).await.ok();
        assert_eq!(listed["items"].as_array().map(Vec::len), Some(found), "{plural} {selector}");
    }
    it.stop().await;
}

#[tokio::test]
async fn forms() {
    let it = start().await;
    it.create(CONFIG_MAPS, config_map("a")).await.ok();
    let get = async |path: &str, accept: &str| {
        it.send(http::Request::builder().method(Method::GET).uri(path).header("accept", accept).body("".into()).unwrap()).await
    };
    let table = get(CONFIG_MAPS, "application/json;as=Table;v=v1;g=meta.k8s.io,application/json").await.ok();
    assert_eq!(table["kind"], "Table");
    assert_eq!(table["rows"][0]["cells"][0], "a");
    assert_eq!(table["rows"][0]["object"]["kind"], "PartialObjectMetadata");
    let one = get(&format!("{CONFIG_MAPS}/a"), "application/json;as=Table;v=v1;g=meta.k8s.io").await.ok();
    assert_eq!(one["rows"].as_array().unwrap().len(), 1);
    let partial = get(CONFIG_MAPS, "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io").await.ok();
    assert_eq!(partial["kind"], "PartialObjectMetadataList");
    assert!(partial["items"][0].get("data").is_none());
    assert_eq!(partial["items"][0]["metadata"]["name"], "a");
    let yaml = get(&format!("{CONFIG_MAPS}/a"), "application/yaml").await;
    assert_eq!(yaml.headers["content-type"], "application/yaml");
    assert!(yaml.text.contains("kind: ConfigMap\n"), "{}", yaml.text);
    assert_eq!(
        get(CONFIG_MAPS, "text/html").await.failed(),
        (
            406,
            "NotAcceptable".to_owned(),
            "406: Not Acceptable\n\nAvailable representations: application/json, application/yaml, application/vnd.kubernetes.protobuf, \
             application/json;stream=watch, application/vnd.kubernetes.protobuf;stream=watch"
                .to_owned()
        )
    );
    it.stop().await;
}
