//! Several servers on one store, one of which lags behind the others: its responses must still be true of the store.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::{BoxFuture, FutureExt};
use futures_util::stream::BoxStream;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::super::Config;
use super::sockets::raw;
use super::{CONFIG_MAPS, Fixture, PODS, config_map, pod, serve, start, start_with};
use crate::object::Revision;
use crate::store::embedded::Embedded;
use crate::store::{Batch, Entry, Expect, Outcome, Page, Result, Store};

/// A store that can delay the changes it reports, and its writes.
#[derive(Debug)]
struct Lagging {
    store: Arc<Embedded>,
    held: watch::Sender<bool>,
    hanging: watch::Sender<bool>,
}

impl Store for Lagging {
    fn get<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Entry>>> {
        self.store.get(key)
    }

    fn range<'a>(&'a self, prefix: &'a str, start: &'a str, limit: usize, at: Revision) -> BoxFuture<'a, Result<Page>> {
        self.store.range(prefix, start, limit, at)
    }

    fn put<'a>(&'a self, key: &'a str, value: Bytes, expect: Expect, ttl: Option<Duration>) -> BoxFuture<'a, Result<Outcome>> {
        async move {
            // The sender lives as long as the store.
            let _ = self.hanging.subscribe().wait_for(|it| !it).await;
            self.store.put(key, value, expect, ttl).inspect(|_| _ = self.held.send_replace(false)).await
        }
        .boxed()
    }

    fn delete<'a>(&'a self, key: &'a str, revision: Revision) -> BoxFuture<'a, Result<Outcome>> {
        self.store.delete(key, revision).inspect(|_| _ = self.held.send_replace(false)).boxed()
    }

    fn watch<'a>(&'a self, prefix: &'a str, after: Revision) -> BoxFuture<'a, Result<BoxStream<'static, Result<Batch>>>> {
        async move {
            let (changes, held) = (self.store.watch(prefix, after).await?, self.held.subscribe());
            let late = changes.then(move |batch| {
                let mut held = held.clone();
                async move {
                    let _ = held.wait_for(|it| !it).await;
                    batch
                }
            });
            Ok(late.boxed())
        }
        .boxed()
    }

    fn revision(&self) -> BoxFuture<'_, Result<Revision>> {
        self.store.revision()
    }

    fn request_progress(&self) -> BoxFuture<'_, Result<()>> {
        self.store.request_progress()
    }

    fn compact(&self, revision: Revision) -> BoxFuture<'_, Result<()>> {
        self.store.compact(revision)
    }
}

/// Another server on the store of `first`, with its control of the delay.
async fn second(first: &Fixture) -> (Fixture, Arc<Lagging>) {
    second_with(first, |_| ()).await
}

async fn second_with(first: &Fixture, change: impl FnOnce(&mut Config)) -> (Fixture, Arc<Lagging>) {
    let lagging = Arc::new(Lagging { store: first.store.clone(), held: watch::Sender::new(false), hanging: watch::Sender::new(false) });
    let supervisor = crate::supervise::Supervisor::default();
    let server = serve(lagging.clone() as Arc<dyn Store>, &supervisor, |config| {
        config.admission.push("ServiceAccount".to_owned());
        change(config);
    });
    let server = server.await;
    (Fixture { server, store: first.store.clone(), supervisor, _dir: tempfile::tempdir().unwrap() }, lagging)
}

#[tokio::test]
async fn what_seems_to_change_nothing_may_change_something() {
    let first = start().await;
    let (second, lagging) = second(&first).await;
    let path = format!("{CONFIG_MAPS}/x");
    let with = |value: &str| {
        let mut object = config_map("x");
        object["data"]["a"] = value.into();
        object
    };
    first.create(CONFIG_MAPS, with("1")).await.ok();
    for (round, replaces) in [true, false].into_iter().enumerate() {
        let (old, new) = (second.get(&path).await.ok()["data"]["a"].clone(), format!("new in round {round}"));
        lagging.held.send_replace(true);
        first.put(&path, with(&new)).await.ok();
        let answer = match replaces {
            true => second.put(&path, with(old.as_str().unwrap())).await,
            false => second.patch(&path, json!({"data": {"a": old}})).await,
        };
        assert_eq!(answer.ok()["data"]["a"], old);
        assert_eq!(first.get(&path).await.ok()["data"]["a"], old, "the last write counts");
    }
    second.stop().await;
    first.stop().await;
}

#[tokio::test]
async fn what_seems_to_be_on_its_way_may_be_another() {
    let first = start().await;
    let (second, lagging) = second(&first).await;
    let path = format!("{CONFIG_MAPS}/x");
    let mut held = config_map("x");
    held["metadata"]["finalizers"] = json!(["example.com/f"]);
    first.create(CONFIG_MAPS, held).await.ok();
    first.delete(&path, Value::Null).await.ok();
    second.get(&path).await.ok();
    lagging.held.send_replace(true);
    first.patch(&path, json!({"metadata": {"finalizers": null}})).await.ok();
    first.create(CONFIG_MAPS, config_map("x")).await.ok();
    second.delete(&path, Value::Null).await.ok();
    assert_eq!(first.get(&path).await.code, 404);
    second.stop().await;
    first.stop().await;
}

#[tokio::test]
async fn an_account_made_elsewhere_is_found() {
    let first = start().await;
    let (second, lagging) = second(&first).await;
    lagging.held.send_replace(true);
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "robot"}});
    first.create("/api/v1/namespaces/default/serviceaccounts", account).await.ok();
    let mut pod = pod("p");
    pod["spec"]["serviceAccountName"] = "robot".into();
    second.create(PODS, pod).await.ok();
    second.stop().await;
    first.stop().await;
}

/// They agree on the API's endpoints, although each has its own port.
#[tokio::test]
async fn servers_with_different_ports_are_endpoints_together() {
    let first = start_with(|config| config.shared = true).await;
    let supervisor = crate::supervise::Supervisor::default();
    let server = serve(first.store.clone() as Arc<dyn Store>, &supervisor, |config| config.shared = true).await;
    let mut ports = [&first.server, &server].map(|it| it.addresses()[0].port());
    ports.sort_unstable();
    let wanted = ports.map(|port| json!([{"name": "https", "port": port, "protocol": "TCP"}]));
    let mut endpoints = first.watch("/api/v1/namespaces/default/endpoints?watch=true&fieldSelector=metadata.name%3Dkubernetes").await;
    loop {
        let (_, object) = endpoints.next().await.unwrap();
        if object["subsets"].as_array().is_some_and(|it| it.iter().map(|it| &it["ports"]).eq(&wanted)) {
            break;
        }
    }
    let slices = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";
    let mut changes = first.watch(&format!("{slices}?watch=true&labelSelector=kubernetes.io/service-name%3Dkubernetes")).await;
    let mut there = std::collections::BTreeMap::new();
    let names = ["kubernetes".to_owned(), format!("kubernetes-{}", ports[1])];
    while !there.iter().eq(names.iter().zip(&wanted)) {
        let (kind, object) = changes.next().await.unwrap();
        let name = object["metadata"]["name"].as_str().unwrap().to_owned();
        if kind == "DELETED" {
            there.remove(&name)
        } else {
            there.insert(name, object["ports"].clone())
        };
    }
    supervisor.shutdown().cancel();
    supervisor.wait(Duration::from_secs(10)).await.unwrap();
    first.stop().await;
}

#[tokio::test]
async fn a_write_that_hangs_keeps_its_seat() {
    let first = start().await;
    let (second, store) = second_with(&first, |config| {
        config.max_writes = 1;
        config.timeouts.request = Duration::from_millis(400);
    })
    .await;
    let create = async |name: &str| {
        let body = config_map(name).to_string();
        let head = "content-type: application/json\r\nhost: x\r\nconnection: close";
        raw(&second, format!("POST {CONFIG_MAPS} HTTP/1.1\r\n{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len()).as_bytes()).await
    };
    store.hanging.send_replace(true);
    let gave_up = create("a").await;
    assert!(gave_up.starts_with("HTTP/1.1 504 "), "{gave_up}");
    let refused = create("b").await;
    assert!(refused.starts_with("HTTP/1.1 429 "), "{refused}");
    let mut made = first.watch(&format!("{CONFIG_MAPS}?watch=true&fieldSelector=metadata.name%3Da")).await;
    store.hanging.send_replace(false);
    assert_eq!(made.next().await.unwrap().0, "ADDED");
    let created = create("c").await;
    assert!(created.starts_with("HTTP/1.1 201 "), "{created}");
    second.stop().await;
    first.stop().await;
}
