//! An executor that binds pods like the real one, and reports them as running.

use std::time::Duration;

use km::client::kubeconfig::Access;
use km::client::{Client, DeleteOptions, Http, Patch};
use km::mesos::executor::{Driver, Environment, ExecutorEvent};
use km::mesos::v1::{TaskId, TaskState, TaskStatus};
use km::object::resource;
use km::scheduler::executorinfo::encode_resources;
use km::supervise::Supervisor;
use serde_json::{Value, json};

/// Set by the script that starts this: where the API server is.
pub(super) const API: &str = "KM_TEST_API";

pub(super) async fn run(environment: Environment) {
    let api = std::env::var(API).expect("the script sets it");
    let client = Client::new(std::sync::Arc::new(Http::new(&Access::load(&[api], None).unwrap()).unwrap()));
    let supervisor = Supervisor::default();
    let (driver, mut events) = Driver::start(environment, &supervisor);
    let mut pods: Vec<(TaskId, Value)> = Vec::new();
    let report = |task_id: TaskId, state: TaskState, message: &str| {
        driver.update(TaskStatus { task_id, state: state.into(), message: Some(message.to_owned()), ..TaskStatus::default() });
    };
    while let Some(event) = events.recv().await {
        match event {
            ExecutorEvent::Subscribed(subscribed) => {
                let executor = &subscribed.executor_info;
                let notes = json!({"k8s.mesosphere.io/executorId": executor.executor_id.value,
                    "k8s.mesosphere.io/executorResources": encode_resources(&executor.resources)});
                let patch = Patch::Merge(json!({"metadata": {"annotations": notes}}));
                client.patch(&resource::NODE, "", &subscribed.agent_info.hostname, "", &patch).await.expect("the node is registered");
            }
            ExecutorEvent::Launch(task) => {
                let pod: Value = serde_json::from_slice(task.data()).expect("a pod");
                let (namespace, name) = (pod["metadata"]["namespace"].as_str().unwrap(), pod["metadata"]["name"].as_str().unwrap());
                let host = &pod["metadata"]["annotations"]["k8s.mesosphere.io/bindingHost"];
                let binding = json!({"apiVersion": "v1", "kind": "Binding",
                    "metadata": {"name": name, "namespace": namespace, "annotations": pod["metadata"]["annotations"]},
                    "target": {"apiVersion": "v1", "kind": "Node", "name": host}});
                match client.post(&resource::POD, namespace, name, "binding", &binding).await {
                    Ok(_) => {
                        report(task.task_id.clone(), TaskState::TaskStarting, "create-binding-success");
                        report(task.task_id.clone(), TaskState::TaskRunning, "pod-running");
                        pods.push((task.task_id.clone(), pod));
                    }
                    Err(error) => report(task.task_id.clone(), TaskState::TaskFailed, &format!("create-binding-failure: {error}")),
                }
            }
            ExecutorEvent::Kill { task_id, .. } => {
                if let Some(at) = pods.iter().position(|(task, _)| *task == task_id) {
                    let (_, pod) = pods.swap_remove(at);
                    let text = |field: &str| pod["metadata"][field].as_str().unwrap_or_default();
                    let options =
                        DeleteOptions { grace_period_seconds: Some(0), uid: Some(text("uid").to_owned()), ..DeleteOptions::default() };
                    let _ = client.delete(&resource::POD, text("namespace"), text("name"), &options).await;
                    report(task_id, TaskState::TaskKilled, "pod-deleted");
                }
            }
            ExecutorEvent::Shutdown(_) => {
                pods.drain(..).for_each(|(task, _)| report(task, TaskState::TaskKilled, "executor-shutdown"));
                let _ = tokio::time::timeout(Duration::from_secs(2), driver.settled()).await;
                break;
            }
            ExecutorEvent::Message(_) | ExecutorEvent::LaunchGroup(_) | ExecutorEvent::Disconnected(_) => {}
        }
    }
    supervisor.shutdown().cancel();
}
