//! The parts around the scheduler: Mesos, an API server in this process, and the scheduler in one that can be killed.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use km::apiserver::{ApiServer, Config as ApiConfig};
use km::cache::Cache;
use km::client::kubeconfig::Access;
use km::client::{Client, DeleteOptions, Feeder, Http, Patch};
use km::mesos::http;
use km::object::{Object, ResourceRef, resource};
use km::scheduler::{Config, READS, Scheduler, StateStore};
use km::store::embedded::{self, Embedded};
use km::supervise::Supervisor;
use km::util::product::KUBERNETES;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::executor::API;
use crate::mesos::real::Mesos;

/// Environment variables of the scheduler's process.
pub(super) const MASTER: &str = "KM_TEST_MASTER";
const DIRECTORY: &str = "KM_TEST_DIRECTORY";

const PATIENCE: Duration = Duration::from_secs(90);
const NAMESPACE: &str = "default";

pub(super) struct World {
    mesos: Mesos,
    api: String,
    client: Client,
    directory: TempDir,
    supervisor: Supervisor,
    _server: ApiServer,
}

impl World {
    pub(super) async fn start(agents: usize) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mesos = Mesos::start(agents).await;
        let store = Embedded::open(embedded::Config::new(directory.path().join("store"))).unwrap();
        let mut config = ApiConfig::new(KUBERNETES, "127.0.0.1:0".parse().unwrap(), "10.10.10.0/24".parse().unwrap());
        // No controller manager runs here, so there are no service accounts.
        config.admission.clear();
        let server = ApiServer::build(config, store).unwrap();
        let supervisor = Supervisor::default();
        server.start(&supervisor).await.unwrap();
        let api = server.addresses()[0].to_string();
        let script = format!(
            "#!/bin/sh\n{API}={api} exec {} --exact scheduler::runs_as_executor --ignored --nocapture\n",
            std::env::current_exe().unwrap().display()
        );
        let path = directory.path().join("km");
        std::fs::write(&path, script).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        let client = Client::new(server.transport());
        Self { mesos, api, client, directory, supervisor, _server: server }
    }

    pub(super) async fn restart_mesos(&mut self) {
        self.mesos.restart().await;
    }

    pub(super) async fn start_scheduler(&self) -> Process {
        let address = self.directory.path().join("address");
        let _ = std::fs::remove_file(&address);
        let log = std::fs::File::options().create(true).append(true).open(self.directory.path().join("scheduler.log")).unwrap();
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "scheduler::runs_as_scheduler", "--ignored", "--nocapture"])
            .env(MASTER, self.mesos.address())
            .env(API, &self.api)
            .env(DIRECTORY, self.directory.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut process = Process { child, address: String::new() };
        process.address =
            self.eventually("the scheduler's address", || async { std::fs::read_to_string(&address).ok().ok_or_else(String::new) }).await;
        process
    }

    /// `km scheduler` itself, on a port of its own, with these flags beside the usual ones.
    pub(super) async fn start_km(&self, flags: &[&str]) -> Process {
        let log = std::fs::File::options().create(true).append(true).open(self.directory.path().join("scheduler.log")).unwrap();
        let address = format!("127.0.0.1:{}", crate::support::free_port());
        let child = Command::new(crate::support::km())
            .args(["scheduler", "--address=127.0.0.1", "--mesos-executor-cpus=0.1", "--mesos-executor-mem=32"])
            .arg(format!("--port={}", address.rsplit(':').next().unwrap()))
            .arg(format!("--mesos-master={}", self.mesos.address()))
            .arg(format!("--api-servers={}", self.api))
            .arg(format!("--km-path=file://{}", self.directory.path().join("km").display()))
            .args(flags)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let process = Process { child, address };
        self.eventually("answer of the scheduler", || async { process.status("/healthz").await.map(drop) }).await;
        process
    }

    /// Waits until this process leads.
    pub(super) async fn wait_leads(&self, process: &Process) {
        self.eventually("new leader", || async {
            match process.status("/debug/registry/tasks").await {
                Ok(200) => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
    }

    /// Waits for this many subscriptions.
    pub(super) async fn wait_subscribed(&self, times: usize) {
        self.eventually(&format!("subscription number {times}"), || async {
            let log = std::fs::read_to_string(self.directory.path().join("scheduler.log")).unwrap_or_default();
            let seen = log.matches("subscribed as framework").count();
            if seen == times { Ok(()) } else { Err(seen.to_string()) }
        })
        .await;
    }

    /// The ids of all frameworks that Mesos has not given up.
    pub(super) async fn frameworks(&self) -> Vec<String> {
        let state = self.state().await.unwrap();
        state["frameworks"].as_array().into_iter().flatten().filter_map(|it| it["id"].as_str()).map(str::to_owned).collect()
    }

    pub(super) async fn create_pod(&self, name: &str) {
        self.create_pod_with(name, json!({})).await;
    }

    pub(super) async fn create_pod_with(&self, name: &str, mut spec: Value) {
        if spec["containers"].is_null() {
            spec["containers"] = container("10m");
        }
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": NAMESPACE}, "spec": spec});
        self.client.create(&resource::POD, NAMESPACE, &pod).await.unwrap();
    }

    pub(super) async fn delete_pod(&self, name: &str) {
        let options = DeleteOptions { grace_period_seconds: Some(0), ..DeleteOptions::default() };
        self.client.delete(&resource::POD, NAMESPACE, name, &options).await.unwrap();
    }

    pub(super) async fn pod(&self, name: &str) -> Option<Value> {
        self.read(&resource::POD, NAMESPACE, name).await
    }

    pub(super) async fn node(&self, name: &str) -> Value {
        self.read(&resource::NODE, "", name).await.expect("the node is registered")
    }

    pub(super) async fn service(&self) -> Value {
        self.read(&resource::SERVICE, NAMESPACE, "k8sm-scheduler").await.expect("the service is published")
    }

    async fn read(&self, resource: ResourceRef, namespace: &str, name: &str) -> Option<Value> {
        let object: Arc<Object> = self.client.get(resource, namespace, name).await.ok()?;
        serde_json::from_slice(object.body()).ok()
    }

    pub(super) async fn label_node(&self, name: &str, key: &str, value: &str) {
        let patch = Patch::Merge(json!({"metadata": {"labels": {key: value}}}));
        self.client.patch(&resource::NODE, "", name, "", &patch).await.unwrap();
    }

    /// The message of the first event of a reason about a pod.
    pub(super) async fn event(&self, pod: &str, reason: &str) -> String {
        self.eventually(&format!("event {reason} of {pod}"), || async {
            let events = self.client.list(&resource::EVENT, NAMESPACE).await.map_err(|error| error.to_string())?;
            let all: Vec<Value> = events.objects.iter().filter_map(|it| serde_json::from_slice(it.body()).ok()).collect();
            let found = all.iter().find(|it| it["reason"] == reason && it["involvedObject"]["name"] == pod);
            found.and_then(|it| it["message"].as_str()).map(str::to_owned).ok_or_else(|| format!("{all:?}"))
        })
        .await
    }

    /// Waits until exactly this many tasks run in Mesos; returns them with their agents.
    pub(super) async fn wait_running(&self, count: usize) -> BTreeMap<String, String> {
        self.eventually(&format!("{count} running tasks"), || async {
            let tasks = self.tasks().await?;
            let running: BTreeMap<String, String> =
                tasks.iter().filter(|it| it.1 == "TASK_RUNNING").map(|(task, _, agent)| (task.clone(), agent.clone())).collect();
            if running.len() == count && tasks.len() == count {
                Ok(running)
            } else {
                Err(format!("{} of {} run", running.len(), tasks.len()))
            }
        })
        .await
    }

    /// Waits until this pod's task is running, and this many tasks in total.
    pub(super) async fn wait_running_pod(&self, pod: &str, count: usize) -> BTreeMap<String, String> {
        self.eventually(&format!("pod {pod} running"), || async {
            let running = self.wait_running(count).await;
            let object = self.pod(pod).await.unwrap_or_default();
            let task = object["metadata"]["annotations"]["k8s.mesosphere.io/taskId"].as_str().unwrap_or_default();
            if running.contains_key(task) { Ok(running) } else { Err(object.to_string()) }
        })
        .await
    }

    /// Id, state and agent of every task that has not ended.
    pub(super) async fn tasks(&self) -> Result<Vec<(String, String, String)>, String> {
        let state = self.state().await?;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let frameworks = state["frameworks"].as_array().into_iter().flatten();
        let tasks = frameworks.flat_map(|it| it["tasks"].as_array().into_iter().flatten());
        Ok(tasks.map(|it| (text(&it["id"]), text(&it["state"]), text(&it["slave_id"]))).collect())
    }

    async fn state(&self) -> Result<Value, String> {
        let (_, body) =
            http::get(&self.mesos.address(), "/state", None, Duration::from_secs(5)).await.map_err(|error| error.to_string())?;
        serde_json::from_slice(&body).map_err(|error| error.to_string())
    }

    /// Polls until there is a result.
    pub(super) async fn eventually<T, F: Future<Output = Result<T, String>>>(&self, what: &str, mut look: impl FnMut() -> F) -> T {
        let begun = tokio::time::Instant::now();
        loop {
            match look().await {
                Ok(found) => return found,
                Err(seen) if begun.elapsed() > PATIENCE => {
                    let log = std::fs::read_to_string(self.directory.path().join("scheduler.log")).unwrap_or_default();
                    let tail: Vec<&str> = log.lines().rev().take(40).collect();
                    panic!("no {what}; last seen: {seen}\nthe scheduler, latest first:\n{}", tail.join("\n"));
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }
}

/// The only container of a pod, with this CPU limit.
pub(super) fn container(cpu: &str) -> Value {
    json!([{"name": "c", "image": "none", "resources": {"limits": {"cpu": cpu, "memory": "32Mi"}}}])
}

impl Drop for World {
    fn drop(&mut self) {
        self.supervisor.shutdown().cancel();
    }
}

/// A scheduler in a process of its own.
pub(super) struct Process {
    child: Child,
    address: String,
}

impl Process {
    pub(super) fn kill(mut self) {
        self.end();
    }

    fn end(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    pub(super) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal).unwrap();
    }

    pub(super) async fn status(&self, path: &str) -> Result<u16, String> {
        let answer = http::get(&self.address, path, None, Duration::from_secs(5)).await;
        answer.map(|(head, _)| head.status).map_err(|error| error.to_string())
    }

    pub(super) async fn get(&self, path: &str) -> String {
        let (head, body) = http::get(&self.address, path, None, Duration::from_secs(5)).await.unwrap();
        assert_eq!(head.status, 200, "{path}");
        String::from_utf8_lossy(&body).into_owned()
    }

    /// The sum of a metric over its labels.
    pub(super) async fn metric(&self, name: &str) -> f64 {
        let text = self.get("/metrics").await;
        let lines = text.lines().filter(|line| line.starts_with(&format!("{name}{{")));
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}

/// The framework id in a file.
#[derive(Debug)]
struct InFile(PathBuf);

impl StateStore for InFile {
    fn get<'a>(&'a self, _key: &'a str) -> BoxFuture<'a, anyhow::Result<Option<String>>> {
        async { Ok(std::fs::read_to_string(&self.0).ok()) }.boxed()
    }

    fn set<'a>(&'a self, _key: &'a str, value: &'a str, _ttl: Option<Duration>) -> BoxFuture<'a, anyhow::Result<()>> {
        async move { Ok(std::fs::write(&self.0, value)?) }.boxed()
    }

    fn delete<'a>(&'a self, _key: &'a str) -> BoxFuture<'a, anyhow::Result<()>> {
        async { Ok(std::fs::remove_file(&self.0)?) }.boxed()
    }
}

/// The scheduler's process.
pub(super) async fn run_scheduler() {
    km::telemetry::logs::init(&km::telemetry::logs::Config::default());
    let set = |name: &str| std::env::var(name).unwrap();
    let directory = PathBuf::from(set(DIRECTORY));
    let access = Access::load(&[set(API)], None).unwrap();
    let client = Client::new(Arc::new(Http::new(&access).unwrap()));
    let cache = Cache::new(4096);
    let supervisor = Supervisor::default();
    for resource in READS {
        supervisor.spawn("feeder", Feeder::new(client.clone(), cache.clone(), resource).run(supervisor.shutdown()));
    }
    let config = Config {
        port: kept_port(&directory),
        api_servers: vec![set(API)],
        mesos_master: set(MASTER),
        km_path: Some(Path::display(&directory.join("km")).to_string()),
        mesos_executor_cpus: 0.1,
        mesos_executor_mem: 32.0,
        ..Config::default()
    };
    let scheduler = Scheduler::build(config, client, cache, Arc::new(InFile(directory.join("framework")))).await.unwrap();
    std::fs::write(directory.join("address.new"), scheduler.address().unwrap().to_string()).unwrap();
    std::fs::rename(directory.join("address.new"), directory.join("address")).unwrap();
    scheduler.run(supervisor.shutdown()).await.unwrap();
}

/// The same port at every start: it is part of the executor's identity, through its URL.
fn kept_port(directory: &Path) -> u16 {
    let file = directory.join("port");
    let kept = std::fs::read_to_string(&file).ok().and_then(|it| it.parse().ok());
    kept.unwrap_or_else(|| {
        let port = crate::support::free_port();
        std::fs::write(&file, port.to_string()).unwrap();
        port
    })
}
