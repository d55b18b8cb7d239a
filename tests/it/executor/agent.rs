//! An agent with a Mesos played by the test: an executor between it and a real API server, with a fake runtime.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use km::apiserver::{self, ApiServer};
use km::cache::{Cache, Event, Query};
use km::client::{Client, DeleteOptions};
use km::executor::{Config, Executor, Mesos, TaskUpdates};
use km::mesos::executor::ExecutorEvent;
use km::mesos::v1::executor::event::Subscribed;
use km::mesos::v1::{AgentInfo, ExecutorId, ExecutorInfo, Resource, TaskId, TaskInfo, TaskStatus, value};
use km::object::Object;
use km::object::resource::{NODE, POD};
use km::runtime::fake::Fake;
use km::store::embedded::{Config as StoreConfig, Embedded};
use km::supervise::Supervisor;
use km::util::product::KUBERNETES;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::mpsc;

pub const NAME: &str = "agent-1";
const DEADLINE: Duration = Duration::from_secs(60);

#[derive(Debug)]
struct Updates(mpsc::UnboundedSender<TaskStatus>);

impl TaskUpdates for Updates {
    fn update(&self, status: TaskStatus) {
        let _ = self.0.send(status);
    }
}

/// An agent with an executor.
pub struct Agent {
    pub client: Client,
    pub cache: Arc<Cache>,
    pub runtime: Arc<Fake>,
    pub events: mpsc::Sender<ExecutorEvent>,
    updates: mpsc::UnboundedReceiver<TaskStatus>,
    supervisor: Supervisor,
    executor: Supervisor,
    dir: TempDir,
}

impl Agent {
    pub async fn start(runtime: Arc<Fake>) -> Self {
        Self::start_with(runtime, ExecutorInfo::default()).await
    }

    /// The executor is described to itself by `info`, beyond its id and resources.
    pub async fn start_with(runtime: Arc<Fake>, info: ExecutorInfo) -> Self {
        let dir = TempDir::new().unwrap();
        let supervisor = Supervisor::default();
        let server = server(dir.path(), &supervisor).await;
        let (events, updates) = (mpsc::channel(1).0, mpsc::unbounded_channel().1);
        let client = Client::new(server.transport());
        let executor = supervisor.child();
        let mut agent = Self { client, cache: server.cache(), runtime, events, updates, supervisor, executor, dir };
        agent.start_executor(info).await;
        agent
    }

    async fn start_executor(&mut self, info: ExecutorInfo) {
        let (events, receiver) = mpsc::channel(1024);
        let (sender, updates) = mpsc::unbounded_channel();
        let mut config = Config::new(NAME, [127, 0, 0, 1].into(), self.dir.path().join("executor"));
        (config.port, config.suicide_timeout) = (0, Duration::ZERO);
        config.pause_image = Some("pause".to_owned());
        let mesos = Mesos { updates: Arc::new(Updates(sender)), events: receiver };
        let (client, cache) = (self.client.clone(), self.cache.clone());
        let executor = Executor::build(config, client, cache, self.runtime.clone(), Some(mesos)).await.unwrap();
        let own = self.supervisor.child();
        own.spawn("executor", {
            let shutdown = own.shutdown();
            async move {
                let ran = executor.run(shutdown.clone()).await;
                shutdown.cancel();
                ran
            }
        });
        (self.events, self.updates, self.executor) = (events, updates, own);
        self.events.send(ExecutorEvent::Subscribed(Box::new(subscribed(info)))).await.unwrap();
    }

    /// Ends the executor, as its own restart would, and starts another in its place; meanwhile the pod of this name is deleted.
    pub async fn restart(&mut self, info: ExecutorInfo, deleted: &str) {
        self.executor.shutdown().cancel();
        self.executor.clone().wait(DEADLINE).await.unwrap();
        let now = DeleteOptions { grace_period_seconds: Some(0), ..DeleteOptions::default() };
        self.client.delete(&POD, "default", deleted, &now).await.unwrap();
        self.start_executor(info).await;
    }

    /// Creates a pod, and launches it as the scheduler would.
    pub async fn launch(&self, name: &str, mut spec: Value) {
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
    pub async fn update(&mut self) -> String {
        let status = tokio::time::timeout(DEADLINE, self.updates.recv()).await.expect("an update").expect("the executor runs");
        format!("{} {} {}", status.task_id.value, status.state().as_str_name(), status.message())
    }

    /// The pod of this name, once `so` holds; `None` for no pod.
    pub async fn until(&self, name: &str, what: &str, so: impl Fn(Option<&Value>) -> bool) -> Option<Value> {
        let mut last = None;
        let seen = async {
            let query = Query::field("metadata.name", name);
            let listing = self.cache.list(&POD, &query);
            let mut watch = self.cache.watch(&POD, query, listing.revision).unwrap();
            let read = |object: &Arc<Object>| serde_json::from_slice::<Value>(object.body()).unwrap();
            last = listing.objects.first().map(read);
            while !so(last.as_ref()) {
                last = match watch.next().await.unwrap() {
                    Event::Added(object) | Event::Modified(object) => Some(read(&object)),
                    Event::Deleted(_) => None,
                    Event::Bookmark(_) => continue,
                };
            }
        };
        let waited = tokio::time::timeout(DEADLINE, seen).await;
        assert!(waited.is_ok(), "{name}: not that {what}; last seen: {last:#?}");
        last
    }

    /// The Node object, once it has a status.
    pub async fn node(&self) -> Value {
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

    pub async fn stop(self) {
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

pub fn id(name: &str) -> TaskId {
    TaskId { value: format!("pod.{name}") }
}

fn subscribed(info: ExecutorInfo) -> Subscribed {
    Subscribed {
        executor_info: ExecutorInfo {
            executor_id: ExecutorId { value: "e1".to_owned() },
            resources: if info.resources.is_empty() { vec![scalar("cpus", 0.25), scalar("mem", 128.0)] } else { info.resources },
            ..info
        },
        agent_info: AgentInfo { resources: vec![scalar("cpus", 4.0), scalar("mem", 1024.0)], ..AgentInfo::default() },
        ..Subscribed::default()
    }
}

pub fn sleeper() -> Value {
    json!({"containers": [{"name": "c", "image": "i:1"}]})
}

pub fn scalar(name: &str, value: f64) -> Resource {
    Resource { name: name.to_owned(), r#type: value::Type::Scalar.into(), scalar: Some(value::Scalar { value }), ..Resource::default() }
}
