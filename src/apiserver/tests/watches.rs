//! Watches: their beginning, their events, their end.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{CONFIG_MAPS, config_map, start, start_with};

#[tokio::test]
async fn a_watch_resumes_where_a_list_ended() {
    let it = start().await;
    it.create(CONFIG_MAPS, config_map("a")).await.ok();
    let listed = it.get(CONFIG_MAPS).await.ok();
    let revision = listed["metadata"]["resourceVersion"].as_str().unwrap();
    let mut watch = it.watch(&format!("{CONFIG_MAPS}?watch=true&resourceVersion={revision}")).await;
    it.patch(&format!("{CONFIG_MAPS}/a"), json!({"data": {"a": "2"}})).await.ok();
    it.create(CONFIG_MAPS, config_map("b")).await.ok();
    it.delete(&format!("{CONFIG_MAPS}/a"), Value::Null).await.ok();
    let mut seen = Vec::new();
    for _ in 0..3 {
        seen.push(watch.next_name().await);
    }
    let expected = [("MODIFIED", "a"), ("ADDED", "b"), ("DELETED", "a")].map(|(a, b)| (a.to_owned(), b.to_owned()));
    assert_eq!(seen, expected);
    // The same from the beginning: existing objects, then changes.
    let mut watch = it.watch(&format!("{CONFIG_MAPS}?watch=true&resourceVersion=0")).await;
    assert_eq!(watch.next_name().await, ("ADDED".to_owned(), "b".to_owned()));
    it.stop().await;
    assert!(watch.next().await.is_none(), "watches end when the server does");
}

#[tokio::test]
async fn selectors_make_objects_come_and_go() {
    let it = start().await;
    let mut watch = it.watch(&format!("{CONFIG_MAPS}?watch=true&labelSelector=x%3D1")).await;
    it.create(CONFIG_MAPS, config_map("a")).await.ok();
    it.patch(&format!("{CONFIG_MAPS}/a"), json!({"metadata": {"labels": {"x": "1"}}})).await.ok();
    it.patch(&format!("{CONFIG_MAPS}/a"), json!({"metadata": {"labels": {"x": "2"}}})).await.ok();
    assert_eq!(watch.next_name().await.0, "ADDED");
    assert_eq!(watch.next_name().await.0, "DELETED");
    it.stop().await;
}

#[tokio::test]
async fn initial_events_end_with_a_bookmark() {
    let it = start().await;
    it.create(CONFIG_MAPS, config_map("a")).await.ok();
    let query = "watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true&timeoutSeconds=1";
    let mut watch = it.watch(&format!("{CONFIG_MAPS}?{query}")).await;
    assert_eq!(watch.next_name().await.0, "ADDED");
    let (kind, bookmark) = watch.next().await.unwrap();
    assert_eq!((kind.as_str(), &bookmark["metadata"]["annotations"]["k8s.io/initial-events-end"]), ("BOOKMARK", &json!("true")));
    assert_eq!(bookmark["kind"], "ConfigMap");
    // Another one just before the time is over.
    let (kind, last) = watch.next().await.unwrap();
    assert_eq!(kind, "BOOKMARK");
    assert!(last["metadata"].get("annotations").is_none());
    assert!(watch.next().await.is_none());
    assert_eq!(it.get(&format!("{CONFIG_MAPS}?watch=true&sendInitialEvents=true")).await.failed().0, 422);
    assert_eq!(it.get(&format!("{CONFIG_MAPS}?watch=true&resourceVersionMatch=NotOlderThan")).await.failed().0, 422);
    it.stop().await;
}

#[tokio::test]
async fn what_history_does_not_have_is_gone() {
    let it = start_with(|config| config.history = 4).await;
    let created = it.create(CONFIG_MAPS, config_map("a")).await.ok();
    for n in 0..40 {
        it.patch(&format!("{CONFIG_MAPS}/a"), json!({"data": {"n": n.to_string()}})).await.ok();
    }
    let revision = created["metadata"]["resourceVersion"].as_str().unwrap();
    let mut watch = it.watch(&format!("{CONFIG_MAPS}?watch=true&resourceVersion={revision}")).await;
    let (kind, status) = watch.next().await.unwrap();
    assert_eq!((kind.as_str(), &status["code"], &status["reason"]), ("ERROR", &json!(410), &json!("Expired")));
    assert!(watch.next().await.is_none());
    it.stop().await;
}

#[tokio::test]
async fn tables_have_columns_once() {
    let it = start().await;
    it.create(CONFIG_MAPS, config_map("a")).await.ok();
    it.create(CONFIG_MAPS, config_map("b")).await.ok();
    let request =
        http::Request::builder().uri(format!("{CONFIG_MAPS}?watch=true")).header("accept", "application/json;as=Table;v=v1;g=meta.k8s.io");
    let response = it.server.transport().send(request.body("".into()).unwrap()).await.unwrap();
    let mut watch = super::Events { body: response.into_body(), rest: Vec::new() };
    let (_, first) = watch.next().await.unwrap();
    assert!(first["columnDefinitions"].is_array());
    assert_eq!(first["rows"][0]["cells"][0], "a");
    let (_, second) = watch.next().await.unwrap();
    assert!(second["columnDefinitions"].is_null());
    it.stop().await;
}

/// Writers change, create and delete while readers list, watch on, break off and resume: each must see every change once, in order.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_event_is_lost_or_repeated() {
    let it = start_with(|config| config.history = 100_000).await;
    let writers = async {
        let each = (0..4).map(|writer| {
            let it = &it;
            async move {
                for n in 0..60 {
                    let name = format!("w{writer}-{}", n % 5);
                    let path = format!("{CONFIG_MAPS}/{name}");
                    match n % 3 {
                        0 => drop(it.create(CONFIG_MAPS, config_map(&name)).await),
                        1 => drop(it.patch(&path, json!({"data": {"n": n.to_string()}})).await),
                        _ => drop(it.delete(&path, Value::Null).await),
                    }
                }
            }
        });
        futures_util::future::join_all(each).await;
        it.create(CONFIG_MAPS, config_map("last")).await.ok();
    };
    let reader = async |breaks: usize| {
        let listed = it.get(CONFIG_MAPS).await.ok();
        let mut revision: u64 = listed["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap();
        let version = |object: &Value| object["metadata"]["resourceVersion"].as_str().unwrap().parse::<u64>().unwrap();
        let name = |object: &Value| object["metadata"]["name"].as_str().unwrap().to_owned();
        let mut objects: BTreeMap<String, u64> = listed["items"].as_array().unwrap().iter().map(|it| (name(it), version(it))).collect();
        'outer: loop {
            let mut watch = it.watch(&format!("{CONFIG_MAPS}?watch=true&resourceVersion={revision}")).await;
            for _ in 0..breaks {
                let (kind, object) = watch.next().await.unwrap();
                assert!(version(&object) > revision, "{kind} at {} after {revision}", version(&object));
                revision = version(&object);
                let known = match kind.as_str() {
                    "DELETED" => objects.remove(&name(&object)).is_some(),
                    "ADDED" => objects.insert(name(&object), revision).is_none(),
                    _ => objects.insert(name(&object), revision).is_some(),
                };
                assert!(known, "{kind} {}", name(&object));
                if name(&object) == "last" {
                    break 'outer objects;
                }
            }
        }
    };
    let ((), a, b, c) = tokio::join!(writers, reader(usize::MAX), reader(7), reader(1));
    let finally = it.get(CONFIG_MAPS).await.ok();
    let there: Vec<&str> = finally["items"].as_array().unwrap().iter().map(|it| it["metadata"]["name"].as_str().unwrap()).collect();
    for objects in [a, b, c] {
        assert_eq!(objects.keys().collect::<Vec<_>>(), there);
    }
    it.stop().await;
}
