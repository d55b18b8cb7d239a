//! How fast the controllers reach the desired state, and their cost when idle: `km apiserver` on its embedded store and `km
//! controller-manager`, each in its own process, without nodes.
//!
//! `scripts/bench controllers`, or `KM=path-of-km cargo bench --bench controllers`

#![allow(clippy::print_stdout, clippy::unwrap_used, dead_code, reason = "a measurement prints, and stops where something is wrong")]

#[path = "api/load.rs"]
mod load;
#[path = "api/request.rs"]
mod request;
#[path = "api/server.rs"]
mod server;

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use km::client::kubeconfig::Access;
use km::client::{Client, Http};
use km::object::{ResourceRef, resource};
use serde_json::{Value, json};

use server::{ApiServer, Process};

const DEPLOYMENTS: usize = 5_000;
/// Concurrent creations of Deployments.
const CONNECTIONS: usize = 16;
/// This long without progress is a failure.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long idle controllers are measured.
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
    // Once the service account exists, the controllers are running.
    while client.get(&resource::SERVICE_ACCOUNT, "default", "default").await.is_err() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let (first, before) = (revision(&client).await, (server.process.computed(), manager.process.computed()));
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
    manager.process.quiet().await;
    for (what, process, before) in [("API server", &server.process, before.0), ("controller manager", &manager.process, before.1)] {
        let spent = (process.computed() - before).as_secs_f64();
        let each = 1e3 * spent / objects as f64;
        println!("{what:<20} {spent:>8.2} s of CPU, {each:.3} ms for each object; {:.1} MB", process.resident());
    }
    let written = revision(&client).await - first;
    println!("{:.2} changes of the store for each deployment, its own creation and events included", written as f64 / created as f64);
    let before = (server.process.computed(), manager.process.computed());
    tokio::time::sleep(IDLE).await;
    for (what, spent) in
        [("API server", server.process.computed() - before.0), ("controller manager", manager.process.computed() - before.1)]
    {
        println!("idle {what:<20} {:.2} % of a core over {IDLE:?}", 100.0 * spent.as_secs_f64() / IDLE.as_secs_f64());
    }
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

/// The store's revision, which counts all writes.
async fn revision(client: &Client) -> u64 {
    client.list(&resource::NAMESPACE, "").await.unwrap().revision
}

/// The number of objects, without listing them all: clients and server share the machine.
async fn count(client: &Client, resource: ResourceRef) -> usize {
    let page = client.get_path(&format!("{}?limit=1", resource.url("default"))).await.unwrap();
    let page: Value = serde_json::from_slice(&page).unwrap();
    let rest = page["metadata"]["remainingItemCount"].as_u64().unwrap_or_default();
    page["items"].as_array().unwrap().len() + rest as usize
}

async fn wait_for(client: &Client, resource: ResourceRef, wanted: usize) {
    let (mut last, mut since) = (0, Instant::now());
    loop {
        let count = count(client, resource).await;
        if count >= wanted {
            return;
        }
        if count > last {
            (last, since) = (count, Instant::now());
        }
        assert!(since.elapsed() < PATIENCE, "{count} of {wanted} {}", resource.plural);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The controller manager, ended with its owner.
struct Manager {
    process: Process,
    _dir: tempfile::TempDir,
}

impl Manager {
    fn start(km: &Path, server: &ApiServer) -> Self {
        let dir = tempfile::tempdir().unwrap();
        // No Mesos, and so no nodes.
        let cloud = dir.path().join("cloud.conf");
        std::fs::write(&cloud, "[mesos-cloud]\n\tmesos-master = 127.0.0.1:1\n").unwrap();
        let mut command = Command::new(km);
        command.args(["controller-manager", "--address=127.0.0.1", "--port=0", "--leader-elect=false"]);
        command.arg(format!("--master={}", server.address)).arg(format!("--cloud-config={}", cloud.display()));
        let log = std::fs::File::create(dir.path().join("log")).unwrap();
        let process = Process::start(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log)).unwrap();
        Self { process, _dir: dir }
    }
}
