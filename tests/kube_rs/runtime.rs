//! `kube::runtime`: watchers, stores, waiting, finalizers, events, controllers.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret};
use k8s_openapi::api::events::v1::Event as EventObject;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::runtime::controller::{Action, Controller};
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::runtime::finalizer::{self, finalizer};
use kube::runtime::wait::{await_condition, conditions};
use kube::runtime::{WatchStreamExt, reflector, watcher};
use kube::{Api, Resource, ResourceExt};
use serde_json::json;
use tokio::task::JoinSet;

use super::{Cluster, config_map, pod};

/// Deadline of every wait.
const DEADLINE: Duration = Duration::from_secs(30);

async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, what).await.expect("in time")
}

#[tokio::test(flavor = "multi_thread")]
async fn watchers_see_what_is_there_and_what_changes() {
    let cluster = Cluster::start();
    let api: Api<ConfigMap> = cluster.api();
    for config in [watcher::Config::default(), watcher::Config::default().streaming_lists(), watcher::Config::default().page_size(1)] {
        for name in ["a", "b"] {
            api.create(&PostParams::default(), &config_map(name)).await.unwrap();
        }
        let mut events = pin!(watcher(api.clone(), config.labels("app=test")));
        let mut next = async || match soon(events.try_next()).await.unwrap().unwrap() {
            watcher::Event::Init => "init".to_owned(),
            watcher::Event::InitApply(it) => format!("init {}", it.name_any()),
            watcher::Event::InitDone => "done".to_owned(),
            watcher::Event::Apply(it) => format!("apply {}", it.name_any()),
            watcher::Event::Delete(it) => format!("delete {}", it.name_any()),
        };
        for expected in ["init", "init a", "init b", "done"] {
            assert_eq!(next().await, expected);
        }
        let change = Patch::Merge(json!({"data": {"x": "2"}}));
        api.patch("a", &PatchParams::default(), &change).await.unwrap();
        assert_eq!(next().await, "apply a");
        // The object no longer matches the selector.
        api.patch("a", &PatchParams::default(), &Patch::Merge(json!({"metadata": {"labels": {"app": "other"}}}))).await.unwrap();
        assert_eq!(next().await, "delete a");
        api.delete("b", &DeleteParams::default()).await.unwrap();
        assert_eq!(next().await, "delete b");
        api.delete("a", &DeleteParams::default()).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_follows() {
    let cluster = Cluster::start();
    let api: Api<ConfigMap> = cluster.api();
    api.create(&PostParams::default(), &config_map("a")).await.unwrap();
    let (store, writer) = reflector::store();
    let mut changes = pin!(reflector(writer, watcher(api.clone(), watcher::Config::default().labels("app=test"))).applied_objects());
    assert_eq!(soon(changes.try_next()).await.unwrap().unwrap().name_any(), "a");
    api.create(&PostParams::default(), &config_map("b")).await.unwrap();
    assert_eq!(soon(changes.try_next()).await.unwrap().unwrap().name_any(), "b");
    soon(store.wait_until_ready()).await.unwrap();
    let mut names: Vec<String> = store.state().iter().map(|it| it.name_any()).collect();
    names.sort();
    assert_eq!(names, ["a", "b"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn conditions_are_awaited() {
    let cluster = Cluster::start();
    let api: Api<Pod> = cluster.api();
    let made = api.create(&PostParams::default(), &pod("web")).await.unwrap();
    let mut running = JoinSet::new();
    running.spawn(await_condition(api.clone(), "web", conditions::is_pod_running()));
    api.patch_status("web", &PatchParams::default(), &Patch::Merge(json!({"status": {"phase": "Running"}}))).await.unwrap();
    assert!(soon(running.join_next()).await.unwrap().unwrap().unwrap().is_some());
    let uid = made.uid().unwrap();
    api.delete("web", &DeleteParams::default().grace_period(0)).await.unwrap();
    Box::pin(soon(await_condition(api, "web", conditions::is_deleted(&uid)))).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_finalizer_holds_until_the_work_is_done() {
    const NAME: &str = "example.com/clean-up";
    let cluster = Cluster::start();
    let api: Api<ConfigMap> = cluster.api();
    let work = async |it: ConfigMap| {
        let done = |event| async move {
            Ok::<_, std::io::Error>(match event {
                finalizer::Event::Apply(_) => Action::await_change(),
                finalizer::Event::Cleanup(_) => Action::requeue(DEADLINE),
            })
        };
        finalizer(&api, NAME, Arc::new(it), done).await.unwrap()
    };
    let made = api.create(&PostParams::default(), &config_map("a")).await.unwrap();
    work(made).await;
    assert_eq!(api.get("a").await.unwrap().finalizers(), [NAME]);
    api.delete("a", &DeleteParams::default()).await.unwrap();
    let held = api.get("a").await.unwrap();
    assert!(held.meta().deletion_timestamp.is_some());
    assert_eq!(work(held).await, Action::requeue(DEADLINE));
    assert!(api.get_opt("a").await.unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_recorded_and_counted() {
    let cluster = Cluster::start();
    let about = cluster.api::<ConfigMap>().create(&PostParams::default(), &config_map("a")).await.unwrap();
    let recorder = Recorder::new(cluster.client.clone(), Reporter::from("test-controller"));
    let event = Event {
        type_: EventType::Normal,
        reason: "Seen".to_owned(),
        note: Some("it was seen".to_owned()),
        action: "Looking".to_owned(),
        secondary: None,
    };
    let events: Api<EventObject> = cluster.api();
    for series in [None, Some(2)] {
        recorder.publish(&event, &about.object_ref(&())).await.unwrap();
        let all = events.list(&ListParams::default().fields("regarding.name=a")).await.unwrap().items;
        assert_eq!(all.len(), 1);
        assert_eq!((all[0].reason.as_deref(), all[0].note.as_deref()), (Some("Seen"), Some("it was seen")));
        assert_eq!(all[0].series.as_ref().map(|it| it.count), series);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_controller_keeps_what_it_owns() {
    let cluster = Cluster::start();
    let (maps, secrets): (Api<ConfigMap>, Api<Secret>) = (cluster.api(), cluster.api());
    let labelled = watcher::Config::default().labels("app=test");
    let reconcile = |map: Arc<ConfigMap>, secrets: Arc<Api<Secret>>| async move {
        let owner = map.controller_owner_ref(&()).unwrap();
        let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": map.name_any(), "ownerReferences": [owner]}});
        secrets.patch(&map.name_any(), &PatchParams::apply("test").force(), &Patch::Apply(secret)).await?;
        Ok::<_, kube::Error>(Action::await_change())
    };
    let controller = Controller::new(maps.clone(), labelled)
        .owns(secrets.clone(), watcher::Config::default())
        .run(reconcile, |_, _, _| Action::requeue(Duration::from_millis(100)), Arc::new(secrets.clone()))
        .for_each(|_| async {});
    let mut running = JoinSet::new();
    running.spawn(controller);
    maps.create(&PostParams::default(), &config_map("a")).await.unwrap();
    let made = |it: Option<&Secret>| it.is_some();
    let first = soon(await_condition(secrets.clone(), "a", made)).await.unwrap().unwrap();
    // A deleted object is created again.
    secrets.delete("a", &DeleteParams::default()).await.unwrap();
    let uid = first.uid();
    let again = move |it: Option<&Secret>| it.is_some_and(|it| it.uid() != uid);
    let second = soon(await_condition(secrets.clone(), "a", again)).await.unwrap().unwrap();
    // Deleting the owner deletes its dependents.
    running.shutdown().await;
    maps.delete("a", &DeleteParams::default()).await.unwrap();
    let uid = second.uid().unwrap();
    soon(await_condition(secrets, "a", conditions::is_deleted(&uid))).await.unwrap();
}
