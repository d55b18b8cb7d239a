//! The executor between Mesos and the API server, with a runtime that only plays.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use km::apiserver::{self, ApiServer};
use km::cache::{Cache, Event, Query};
use km::client::Client;
use km::executor::{Config, Executor, Mesos, TaskUpdates};
use km::mesos::executor::ExecutorEvent;
use km::mesos::v1::executor::event::Subscribed;
use km::mesos::v1::{AgentInfo, ExecutorId, ExecutorInfo, Resource, TaskId, TaskInfo, TaskStatus, value};
use km::object::resource::{NODE, POD};
use km::runtime::fake::{Behaviour, Fake};
use km::store::embedded::{Config as StoreConfig, Embedded};
use km::supervise::Supervisor;
use km::util::product::KUBERNETES;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::mpsc;

const NAME: &str = "agent-1";
const DEADLINE: Duration = Duration::from_secs(60);

#[derive(Debug)]
struct Updates(mpsc::UnboundedSender<TaskStatus>);

impl TaskUpdates for Updates {
    fn update(&self, status: TaskStatus) {
        let _ = self.0.send(status);
    }
}

/// An agent with an executor.
struct Agent {
    client: Client,
    cache: Arc<Cache>,
    events: mpsc::Sender<ExecutorEvent>,
    updates: mpsc::UnboundedReceiver<TaskStatus>,
    supervisor: Supervisor,
    executor: Supervisor,
    _dir: TempDir,
}

impl Agent {
    async fn start(runtime: Arc<Fake>) -> Self {
        let dir = TempDir::new().unwrap();
        let supervisor = Supervisor::default();
        let server = server(dir.path(), &supervisor).await;
        let client = Client::new(server.transport());
        let (events, receiver) = mpsc::channel(1024);
        let (sender, updates) = mpsc::unbounded_channel();
        let mut config = Config::new(NAME, [127, 0, 0, 1].into(), dir.path().join("executor"));
        (config.port, config.suicide_timeout) = (0, Duration::ZERO);
        config.pause_image = Some("pause".to_owned());
        let mesos = Mesos { updates: Arc::new(Updates(sender)), events: receiver };
        let executor = Executor::build(config, client.clone(), server.cache(), runtime, Some(mesos)).await.unwrap();
        let own = supervisor.child();
        own.spawn("executor", {
            let shutdown = own.shutdown();
            async move {
                let ran = executor.run(shutdown.clone()).await;
                shutdown.cancel();
                ran
            }
        });
        let agent = Self { client, cache: server.cache(), events, updates, supervisor, executor: own, _dir: dir };
        agent.events.send(ExecutorEvent::Subscribed(Box::new(subscribed()))).await.unwrap();
        agent
    }

    /// Creates a pod, and launches it as the scheduler would.
    async fn launch(&self, name: &str, mut spec: Value) {
        if spec.get("terminationGracePeriodSeconds").is_none() {
            spec["terminationGracePeriodSeconds"] = 1.into();
        }
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec});
        let created = self.client.create(&POD, "default", &pod).await.unwrap();
        let mut pod: Value = serde_json::from_slice(created.body()).unwrap();
        pod["metadata"]["annotations"] = json!({
            "k8s.mesosphere.io/bindingHost": NAME,
            "k8s.mesosphere.io/taskId": format!("pod.{name}"),
            "k8s.mesosphere.io/slaveId": "s",
            "k8s.mesosphere.io/offerId": "o",
        });
        let task = TaskInfo { task_id: id(name), data: Some(serde_json::to_vec(&pod).unwrap().into()), ..TaskInfo::default() };
        self.events.send(ExecutorEvent::Launch(Box::new(task))).await.unwrap();
    }

    /// The next update: task, state and message.
    async fn update(&mut self) -> String {
        let status = tokio::time::timeout(DEADLINE, self.updates.recv()).await.expect("an update").expect("the executor runs");
        format!("{} {} {}", status.task_id.value, status.state().as_str_name(), status.message())
    }

    /// The Node object, once it has a status.
    async fn node(&self) -> Value {
        let mut watch = self.cache.watch(&NODE, Query::default(), 0).unwrap();
        let seen = async {
            loop {
                let (Event::Added(object) | Event::Modified(object)) = watch.next().await.unwrap() else { continue };
                let node: Value = serde_json::from_slice(object.body()).unwrap();
                if node["status"]["capacity"].is_object() {
                    return node;
                }
            }
        };
        tokio::time::timeout(DEADLINE, seen).await.expect("a node with a status")
    }

    async fn stop(self) {
        self.executor.shutdown().cancel();
        self.executor.wait(DEADLINE).await.unwrap();
        self.supervisor.shutdown().cancel();
        self.supervisor.wait(DEADLINE).await.unwrap();
    }
}

async fn server(dir: &Path, supervisor: &Supervisor) -> ApiServer {
    let store = Embedded::open(StoreConfig::new(dir.join("store"))).unwrap();
    let mut config = apiserver::Config::new(KUBERNETES, "127.0.0.1:0".parse().unwrap(), "10.10.10.0/24".parse().unwrap());
    config.admission.clear();
    let server = ApiServer::build(config, store).unwrap();
    server.start(supervisor).await.unwrap();
    server
}

fn id(name: &str) -> TaskId {
    TaskId { value: format!("pod.{name}") }
}

fn subscribed() -> Subscribed {
    let scalar = |name: &str, value: f64| Resource {
        name: name.to_owned(),
        r#type: value::Type::Scalar.into(),
        scalar: Some(value::Scalar { value }),
        ..Resource::default()
    };
    Subscribed {
        executor_info: ExecutorInfo {
            executor_id: ExecutorId { value: "e1".to_owned() },
            resources: vec![scalar("cpus", 0.25), scalar("mem", 128.0)],
            ..ExecutorInfo::default()
        },
        agent_info: AgentInfo { resources: vec![scalar("cpus", 4.0), scalar("mem", 1024.0)], ..AgentInfo::default() },
        ..Subscribed::default()
    }
}

fn sleeper() -> Value {
    json!({"containers": [{"name": "c", "image": "i:1"}]})
}

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
    assert_eq!((&node["status"]["capacity"]["cpu"], &node["status"]["capacity"]["memory"]), (&json!("3750m"), &json!("917504Ki")));

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
