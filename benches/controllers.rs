//! How fast the controllers bring a cluster to what its objects say, and what they cost when there is nothing to do: `km apiserver` on its
//! embedded store and `km controller-manager`, each a process of its own, without nodes.
//!
//! `scripts/bench controllers`, or `KM=path-of-km cargo bench --bench controllers`

#![allow(clippy::print_stdout, clippy::unwrap_used, dead_code, reason = "a measurement prints, and stops where something is wrong")]

#[path = "api/server.rs"]
mod server;

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use km::client::kubeconfig::Access;
use km::client::{Client, Http};
use km::object::{ResourceRef, resource};
use serde_json::{Value, json};

use server::ApiServer;

const DEPLOYMENTS: usize = 5_000;
/// Deployments created at a time.
const CONNECTIONS: usize = 16;
/// No progress for so long is a failure.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long idle controllers are watched.
const IDLE: Duration = Duration::from_secs(20);

#[tokio::main]
async fn main() {
    let Some(km) = std::env::var_os("KM") else {
        println!("KM, the path of the executable to measure, is not set: not measured");
        return;
    };
    let server = ApiServer::on_embedded_store(Path::new(&km)).await;
    let manager = Manager::start(Path::new(&km), &server);
    let access = Access::load(&[server.address.to_string()], None).unwrap();
    let client = Client::new(Arc::new(Http::new(&access).unwrap()));
    // Controllers are at work when the service account is there.
    while client.get(&resource::SERVICE_ACCOUNT, "default", "default").await.is_err() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let begun = Instant::now();
    let creating = futures_util::stream::iter(0..DEPLOYMENTS).map(|n| {
        let client = client.clone();
        async move { client.create(&resource::DEPLOYMENT, "default", &deployment(n)).await.unwrap() }
    });
    let created = creating.buffer_unordered(CONNECTIONS).count().await;
    let accepted = begun.elapsed();
    for (resource, what) in [(&resource::REPLICA_SET, "ReplicaSets"), (&resource::POD, "pods")] {
        wait_for(&client, resource, created).await;
        println!("{created} {what:<12} after {:>8.2} s", begun.elapsed().as_secs_f64());
    }
    let settled = begun.elapsed();
    let objects = 3 * created;
    println!(
        "{objects} objects: {:.0} a second (aim: 500); the deployments alone took {:.2} s",
        objects as f64 / settled.as_secs_f64(),
        accepted.as_secs_f64()
    );
    println!("controller manager: {:.2} s of CPU, {} MB", manager.cpu(), manager.resident() / 1024);
    manager.quiet().await;
    let before = manager.cpu();
    tokio::time::sleep(IDLE).await;
    println!("idle: {:.2} % of a core over {IDLE:?}", 100.0 * (manager.cpu() - before) / IDLE.as_secs_f64());
}

fn deployment(n: usize) -> Value {
    let (name, labels) = (format!("web-{n:05}"), json!({"app": format!("web-{n:05}")}));
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": "nginx"}]}},
        },
    })
}

async fn wait_for(client: &Client, resource: ResourceRef, wanted: usize) {
    let (mut last, mut since) = (0, Instant::now());
    loop {
        let count = client.list(resource, "default").await.unwrap().objects.len();
        if count >= wanted {
            return;
        }
        if count > last {
            (last, since) = (count, Instant::now());
        }
        assert!(since.elapsed() < PATIENCE, "{count} of {wanted} {}", resource.plural);
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
}

/// The controller manager, ended with its owner.
struct Manager(Child, tempfile::TempDir);

impl Manager {
    fn start(km: &Path, server: &ApiServer) -> Self {
        let dir = tempfile::tempdir().unwrap();
        // No Mesos: there are no nodes either.
        let cloud = dir.path().join("cloud.conf");
        std::fs::write(&cloud, "[mesos-cloud]\n\tmesos-master = 127.0.0.1:1\n").unwrap();
        let mut command = Command::new(km);
        command.args(["controller-manager", "--address=127.0.0.1", "--port=0", "--leader-elect=false"]);
        command.arg(format!("--master={}", server.address)).arg(format!("--cloud-config={}", cloud.display()));
        let log = std::fs::File::create(dir.path().join("log")).unwrap();
        Self(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap(), dir)
    }

    fn stat(&self) -> Vec<u64> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.0.id())).unwrap();
        // The name, in parentheses, may hold anything.
        stat.rsplit_once(')').unwrap().1.split_whitespace().skip(1).map(|it| it.parse().unwrap_or_default()).collect()
    }

    /// Seconds of CPU so far.
    fn cpu(&self) -> f64 {
        let stat = self.stat();
        // In hundredths of a second on every Linux.
        (stat[10] + stat[11]) as f64 / 100.0
    }

    /// In kB.
    fn resident(&self) -> u64 {
        self.stat()[20] * 4
    }

    /// Waits until it has had nothing to do for two seconds.
    async fn quiet(&self) {
        let begun = Instant::now();
        loop {
            let before = self.cpu();
            tokio::time::sleep(Duration::from_secs(2)).await;
            if self.cpu() - before < 0.03 || begun.elapsed() > PATIENCE {
                return;
            }
        }
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
