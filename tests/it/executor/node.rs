//! A node: an API server on an embedded store, an executor, and an engine on a bridge of its own.

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use k8s_openapi::api::core::v1::{ContainerStateTerminated, ContainerStatus, Event as EventObject, Pod, PodStatus};
use km::apiserver::{self, ApiServer};
use km::cache::{Cache, Event, Query};
use km::client::{Client, DeleteOptions};
use km::executor::{Config, Executor};
use km::object::resource::{EVENT, POD};
use km::runtime::docker::Docker as Engine;
use km::store::embedded::{Config as StoreConfig, Embedded};
use km::supervise::Supervisor;
use km::util::product::KUBERNETES;
use serde_json::Value;
use tempfile::TempDir;
use tokio::task::JoinHandle;

use crate::support::docker::Docker;
use crate::support::km;
use crate::support::process::run;

pub const NAME: &str = "node-1";
const DEADLINE: Duration = Duration::from_secs(90);
static COUNT: AtomicU32 = AtomicU32::new(0);

/// Fields are dropped in order: the engine before its bridge and its files.
pub struct Node {
    pub docker: Docker,
    bridge: Bridge,
    dir: TempDir,
    pub client: Client,
    cache: Arc<Cache>,
    supervisor: Supervisor,
    executor: Option<Supervisor>,
    kubelet: String,
}

struct Bridge(String);

impl Bridge {
    fn new() -> Self {
        // Other tests of this machine, and of this process, have theirs.
        let (process, count) = (std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let name = format!("km{}x{count}", process % 1_000_000);
        run(Command::new("ip").args(["link", "add", &name, "type", "bridge"]));
        let net = (process + count * 37) % 4096;
        let address = format!("172.{}.{}.1/24", 16 + net / 256, net % 256);
        run(Command::new("ip").args(["addr", "add", &address, "dev", &name]));
        run(Command::new("ip").args(["link", "set", &name, "up"]));
        Self(name)
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["link", "delete", &self.0]).status();
    }
}

impl Node {
    pub async fn start() -> Self {
        let (dir, bridge) = (TempDir::new().unwrap(), Bridge::new());
        let docker = Docker::start_here(dir.path(), &bridge.0);
        docker.add_busybox("test/busybox:1");
        Self::with(dir, bridge, docker).await
    }

    pub async fn without_engine() -> Self {
        let (dir, bridge) = (TempDir::new().unwrap(), Bridge::new());
        let docker = Docker::stopped(dir.path());
        Self::with(dir, bridge, docker).await
    }

    pub fn start_engine(&mut self) {
        self.docker = Docker::start_here(self.dir.path(), &self.bridge.0);
        self.docker.add_busybox("test/busybox:1");
    }

    async fn with(dir: TempDir, bridge: Bridge, docker: Docker) -> Self {
        let store = Embedded::open(StoreConfig::new(dir.path().join("store"))).unwrap();
        let mut config = apiserver::Config::new(KUBERNETES, "127.0.0.1:0".parse().unwrap(), "10.10.10.0/24".parse().unwrap());
        config.admission.clear();
        let supervisor = Supervisor::default();
        let server = ApiServer::build(config, store).unwrap();
        server.start(&supervisor).await.unwrap();
        let (client, cache) = (Client::new(server.transport()), server.cache());
        let mut node = Self { docker, bridge, dir, client, cache, supervisor, executor: None, kubelet: String::new() };
        node.start_executor().await;
        node
    }

    pub async fn start_executor(&mut self) {
        let mut config = Config::new(NAME, [127, 0, 0, 1].into(), self.path("executor"));
        (config.port, config.executable, config.sync_period) = (0, km(), Duration::from_secs(1));
        let engine = Arc::new(Engine::new(&self.docker.endpoint()));
        let executor = Executor::build(config, self.client.clone(), self.cache.clone(), engine, None).await.unwrap();
        self.kubelet = executor.address().unwrap().to_string();
        let supervisor = self.supervisor.child();
        supervisor.spawn("executor", executor.run(supervisor.shutdown()));
        self.executor = Some(supervisor);
    }

    pub async fn stop_executor(&mut self) {
        let supervisor = self.executor.take().unwrap();
        supervisor.shutdown().cancel();
        supervisor.wait(DEADLINE).await.unwrap();
    }

    pub async fn stop(mut self) {
        self.stop_executor().await;
        self.supervisor.shutdown().cancel();
        self.supervisor.wait(DEADLINE).await.unwrap();
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Creates a pod that is bound to the node.
    pub async fn create(&self, pod: &Value) {
        let mut pod = pod.clone();
        (pod["apiVersion"], pod["kind"]) = ("v1".into(), "Pod".into());
        pod["spec"]["nodeName"] = NAME.into();
        self.client.create(&POD, "default", &pod).await.unwrap();
    }

    /// Waits until a file of a pod's volume has this content, by polling.
    pub async fn until_file(&self, pod: &str, file: &str, content: &str) {
        let uid = self.client.get(&POD, "default", pod).await.unwrap().meta().uid.to_string();
        let path = self.path("executor").join("pods").join(uid).join("volumes").join(file);
        let read = || std::fs::read_to_string(&path).unwrap_or_default();
        let changed = async {
            while read() != content {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let waited = tokio::time::timeout(DEADLINE, changed).await;
        assert!(waited.is_ok(), "{} says {:?}", path.display(), read());
    }

    /// Waits until the pod's status is so.
    pub async fn until(&self, name: &str, what: &str, so: impl Fn(&PodStatus) -> bool) -> PodStatus {
        let mut last = None;
        let seen = async {
            let mut watch = self.cache.watch(&POD, Query::default(), 0).unwrap();
            loop {
                let (Event::Added(object) | Event::Modified(object)) = watch.next().await.unwrap() else { continue };
                if object.name() != name {
                    continue;
                }
                let status = object.typed::<Pod>().unwrap().status.clone().unwrap_or_default();
                if so(&status) {
                    return status;
                }
                last = Some(status);
            }
        };
        let waited = tokio::time::timeout(DEADLINE, seen).await;
        waited.unwrap_or_else(|_| panic!("{name}: not that {what}; last seen: {last:#?}"))
    }

    /// Waits until this many events with a reason were emitted about a pod; returns the reasons of all.
    pub async fn events_until(&self, name: &str, reason: &str, times: usize) -> Vec<String> {
        let mut reasons = Vec::new();
        let seen = async {
            let mut watch = self.cache.watch(&EVENT, Query::default(), 0).unwrap();
            while reasons.iter().filter(|it| *it == reason).count() < times {
                let (Event::Added(object) | Event::Modified(object)) = watch.next().await.unwrap() else { continue };
                let event = object.typed::<EventObject>().unwrap();
                if event.involved_object.name.as_deref() == Some(name) {
                    reasons.push(event.reason.clone().unwrap_or_default());
                }
            }
        };
        let waited = tokio::time::timeout(DEADLINE, seen).await;
        assert!(waited.is_ok(), "{name}: {times} times {reason} in {reasons:?}");
        reasons
    }

    /// Deletes a pod and waits until it is gone from the API.
    pub async fn delete(&self, name: &str, grace: Option<i64>) {
        let mut watch = self.cache.watch(&POD, Query::default(), 0).unwrap();
        let options = DeleteOptions { grace_period_seconds: grace, ..DeleteOptions::default() };
        self.client.delete(&POD, "default", name, &options).await.unwrap();
        let gone = async { while !matches!(watch.next().await.unwrap(), Event::Deleted(object) if object.name() == name) {} };
        tokio::time::timeout(DEADLINE, gone).await.unwrap_or_else(|_| panic!("{name} is not gone"));
    }

    /// Waits until no container with this label is running, by polling.
    pub async fn until_ended(&self, label: &str) {
        let ended = async {
            while !self.docker.running(label).is_empty() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(DEADLINE, ended).await.unwrap_or_else(|_| panic!("{label} still runs"));
    }

    pub async fn until_no_containers(&self) {
        let ended = async {
            while !run(self.docker.command().args(["ps", "--all", "--quiet"])).trim().is_empty() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let waited = tokio::time::timeout(DEADLINE, ended).await;
        assert!(waited.is_ok(), "{}", run(self.docker.command().args(["ps", "--all"])));
    }

    fn name_of(&self, prefix: &str) -> String {
        let names = run(self.docker.command().args(["ps", "--format", "{{.Names}}"]));
        names.lines().find(|name| name.starts_with(prefix)).unwrap_or_else(|| panic!("no {prefix} in {names}")).to_owned()
    }

    pub fn inspect(&self, prefix: &str) -> Value {
        let text = run(self.docker.command().args(["inspect", &self.name_of(prefix)]));
        serde_json::from_str::<Value>(&text).unwrap()[0].take()
    }

    pub fn kill(&self, prefix: &str) {
        run(self.docker.command().args(["kill", &self.name_of(prefix)]));
    }

    fn log_url(&self, pod: &str, container: &str, query: &str) -> String {
        format!("http://{}/containerLogs/default/{pod}/{container}?{query}", self.kubelet)
    }

    /// Code and text of a log, from the kubelet's API.
    pub async fn log(&self, pod: &str, container: &str, query: &str) -> (u16, String) {
        let out = Command::new("curl").args(["-s", "-w", "%{http_code}"]).arg(self.log_url(pod, container, query)).output().unwrap();
        let text = String::from_utf8(out.stdout).unwrap();
        let (text, code) = text.split_at(text.len() - 3);
        (code.parse().unwrap(), text.to_owned())
    }

    /// The log, once it has this many whole lines.
    pub async fn log_until(&self, pod: &str, container: &str, lines: usize) -> String {
        let mut text = String::new();
        for _ in 0..DEADLINE.as_secs() * 10 {
            text = self.log(pod, container, "").await.1;
            if text.matches('\n').count() >= lines {
                return text;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("{pod} {container} says only {text:?}");
    }

    /// The output of a container until it ends.
    pub fn follow(&self, pod: &str, container: &str) -> JoinHandle<String> {
        let url = self.log_url(pod, container, "follow=true");
        tokio::task::spawn_blocking(move || run(Command::new("curl").args(["-s", &url])))
    }
}

fn status_of<'a>(status: &'a PodStatus, container: &str) -> Option<&'a ContainerStatus> {
    status.container_statuses.iter().flatten().find(|it| it.name == container)
}

pub fn running(status: &PodStatus, container: &str) -> bool {
    status_of(status, container).and_then(|it| it.state.as_ref()?.running.as_ref()).is_some()
}

pub fn reason<'a>(status: &'a PodStatus, container: &str) -> Option<&'a str> {
    status_of(status, container)?.state.as_ref()?.waiting.as_ref()?.reason.as_deref()
}

pub fn terminated<'a>(status: &'a PodStatus, container: &str) -> Option<&'a ContainerStateTerminated> {
    status_of(status, container)?.state.as_ref()?.terminated.as_ref()
}
