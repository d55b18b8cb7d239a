//! The executor between Mesos and the API server, with a runtime that only plays.

use std::collections::BTreeMap;
use std::time::Duration;

use km::mesos::executor::ExecutorEvent;
use km::object::resource::POD;
use km::runtime::fake::{Behaviour, Fake};
use serde_json::{Value, json};

use super::agent::{Agent, NAME, id, sleeper};

#[tokio::test(flavor = "multi_thread")]
async fn a_task_is_bound_runs_and_is_killed() {
    let runtime = Fake::new();
    let mut agent = Agent::start(runtime.clone()).await;
    agent.launch("web", sleeper()).await;
    assert_eq!(agent.update().await, "pod.web TASK_STARTING create-binding-success");
    assert_eq!(agent.update().await, "pod.web TASK_RUNNING pod-running:web_default");
    let pod = agent.client.get(&POD, "default", "web").await.unwrap();
    assert_eq!(pod.field("spec.nodeName"), Some(NAME));
    let body: Value = serde_json::from_slice(pod.body()).unwrap();
    assert_eq!(body["metadata"]["annotations"]["k8s.mesosphere.io/taskId"], "pod.web");

    let node = agent.node().await;
    assert_eq!(node["metadata"]["annotations"]["k8s.mesosphere.io/executorId"], "e1");
    assert_eq!((&node["status"]["capacity"]["cpu"], &node["status"]["capacity"]["memory"]), (&json!("3750m"), &json!("896Mi")));

    agent.events.send(ExecutorEvent::Kill { task_id: id("web"), kill_policy: None }).await.unwrap();
    assert_eq!(agent.update().await, "pod.web TASK_KILLED pod-deleted");
    assert!(agent.client.get(&POD, "default", "web").await.unwrap_err().is("NotFound"));
    assert!(runtime.running().is_empty());
    agent.events.send(ExecutorEvent::Kill { task_id: id("web"), kill_policy: None }).await.unwrap();
    assert_eq!(agent.update().await, "pod.web TASK_LOST kill-pod-task");
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_ends_is_finished_or_failed() {
    let runtime = Fake::scripted(|spec, _| {
        let code = if spec.name.contains("_bad_") { 1 } else { 0 };
        let ends = !spec.name.contains("_POD_");
        Behaviour { exit: ends.then_some((Duration::from_millis(50), code)), ..Behaviour::default() }
    });
    let mut agent = Agent::start(runtime).await;
    for (name, ended) in [("good", "TASK_FINISHED pod-succeeded:good_default"), ("bad", "TASK_FAILED pod-failed:bad_default")] {
        agent.launch(name, json!({"containers": [{"name": name, "image": "i:1"}], "restartPolicy": "Never"})).await;
        assert_eq!(agent.update().await, format!("pod.{name} TASK_STARTING create-binding-success"));
        assert_eq!(agent.update().await, format!("pod.{name} TASK_RUNNING pod-running:{name}_default"));
        assert_eq!(agent.update().await, format!("pod.{name} {ended}"));
    }
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_pods_come_and_go_with_their_executor() {
    let runtime = Fake::new();
    let mut agent = Agent::start(runtime.clone()).await;
    let names: Vec<String> = (0..100).map(|number| format!("p{number}")).collect();
    for name in &names {
        agent.launch(name, sleeper()).await;
    }
    let mut counts = BTreeMap::new();
    for _ in 0..2 * names.len() {
        let update = agent.update().await;
        *counts.entry(update.split(' ').nth(1).unwrap().to_owned()).or_insert(0) += 1;
    }
    assert_eq!(counts, BTreeMap::from([("TASK_RUNNING".to_owned(), 100), ("TASK_STARTING".to_owned(), 100)]));
    assert_eq!(runtime.running().len(), 200);
    agent.events.send(ExecutorEvent::Shutdown("the agent asks for it".to_owned())).await.unwrap();
    for _ in &names {
        assert!(agent.update().await.ends_with("TASK_KILLED pod-deleted"));
    }
    assert!(runtime.running().is_empty());
    agent.stop().await;
}
