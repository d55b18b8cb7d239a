//! Durable writes per second of each store, by number of concurrent writers. The store on etcd is compared with the bare etcd client making
//! the same transactions.
//!
//! `cargo bench --bench store [-- SECONDS]`; each number takes SECONDS (default 2).

#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a benchmark talks to a terminal and may stop at any failure")]

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use etcd_client::{Client, Compare, CompareOp, Txn, TxnOp};
use km::store::embedded::{self, Embedded};
use km::store::etcd::{self, Etcd};
use km::store::{Expect, Outcome, Store};
use tempfile::TempDir;
use tokio::task::JoinSet;

/// The typical size of a pod in a real cluster.
const VALUE: usize = 3000;
const WRITERS: [usize; 4] = [1, 8, 64, 256];
/// For the time to open a store.
const OBJECTS: usize = 100_000;

#[tokio::main]
async fn main() {
    // `cargo bench` adds `--bench`.
    let seconds = std::env::args().skip(1).find_map(|arg| arg.parse().ok()).unwrap_or(2.0);
    let time = Duration::from_secs_f64(seconds);
    println!("creating objects of {VALUE} bytes, every write durable before it is acknowledged\n");
    println!("{:<12} {:>8} {:>10} {:>10} {:>10}", "", "writers", "put/s", "p50", "p99");

    let dir = tempfile::tempdir().unwrap();
    let store: Arc<dyn Store> = Embedded::open(embedded::Config::new(dir.path())).unwrap();
    for writers in WRITERS {
        measure("embedded", writers, time, &|key, value| create(store.clone(), key, value)).await.print();
    }
    drop(store);
    match Server::start().await {
        Some(server) => compare_with_etcd(&server, time).await,
        None => println!("\nno etcd in the path: not compared"),
    }
    reopen().await;
}

async fn compare_with_etcd(server: &Server, time: Duration) {
    let store: Arc<dyn Store> = Etcd::connect(etcd::Config::new([&server.url])).await.unwrap();
    let client = Client::connect([&server.url], None).await.unwrap();
    for writers in WRITERS {
        let bare = measure("etcd, bare", writers, time, &|key, value| create_bare(client.clone(), key, value)).await;
        let ours = measure("etcd", writers, time, &|key, value| create(store.clone(), key, value)).await;
        bare.print();
        ours.print();
        println!("{:<12} {writers:>8} {:>10.2}", "  ratio", ours.rate / bare.rate);
    }
}

async fn create(store: Arc<dyn Store>, key: String, value: Bytes) {
    let outcome = store.put(&key, value, Expect::Absent, None).await.unwrap();
    assert!(matches!(outcome, Outcome::Done(_)));
}

async fn create_bare(client: Client, key: String, value: Bytes) {
    let absent = Compare::create_revision(key.as_str(), CompareOp::Equal, 0);
    let txn = Txn::new().when([absent]).and_then([TxnOp::put(key.as_str(), value, None)]).or_else([TxnOp::get(key, None)]);
    assert!(client.kv_client().txn(txn).await.unwrap().succeeded());
}

struct Measured {
    name: &'static str,
    writers: usize,
    rate: f64,
    p50: Duration,
    p99: Duration,
}

impl Measured {
    fn print(&self) {
        println!("{:<12} {:>8} {:>10.0} {:>10.2?} {:>10.2?}", self.name, self.writers, self.rate, self.p50, self.p99);
    }
}

/// Runs `writers` tasks, each of which creates one key after another.
async fn measure<F>(name: &'static str, writers: usize, time: Duration, create: &dyn Fn(String, Bytes) -> F) -> Measured
where
    F: Future<Output = ()> + Send + 'static,
{
    let value = Bytes::from(vec![b'x'; VALUE]);
    let start = Instant::now();
    let mut tasks = JoinSet::new();

    let mut latencies = Vec::new();
    let mut n = 0;
    let key = |n: usize| format!("/registry/pods/{}/{writers}-{n:012}", name.replace([',', ' '], ""));
    loop {
        while tasks.len() < writers && start.elapsed() < time {
            let write = create(key(n), value.clone());
            tasks.spawn(async move {
                let began = Instant::now();
                write.await;
                began.elapsed()
            });
            n += 1;
        }
        let Some(latency) = tasks.join_next().await else { break };
        latencies.push(latency.unwrap());
    }
    let rate = latencies.len() as f64 / start.elapsed().as_secs_f64();
    latencies.sort_unstable();
    let at = |part: f64| latencies[((latencies.len() - 1) as f64 * part) as usize];
    Measured { name, writers, rate, p50: at(0.5), p99: at(0.99) }
}

/// Time to open a store that was not closed.
async fn reopen() {
    let dir = tempfile::tempdir().unwrap();
    let store: Arc<dyn Store> = Embedded::open(embedded::Config::new(dir.path())).unwrap();
    let value = Bytes::from(vec![b'x'; VALUE]);
    let mut tasks = JoinSet::new();
    for n in 0..OBJECTS {
        if tasks.len() >= 512 {
            tasks.join_next().await;
        }
        tasks.spawn(create(store.clone(), format!("/registry/pods/default/{n:08}"), value.clone()));
    }
    tasks.join_all().await;
    // The state after a crash.
    let copy = tempfile::tempdir().unwrap();
    for file in std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap()) {
        std::fs::copy(file.path(), copy.path().join(file.file_name())).unwrap();
    }
    let start = Instant::now();
    let store = Embedded::open(embedded::Config::new(copy.path())).unwrap();
    let opened = start.elapsed();
    let start = Instant::now();
    let page = store.range("/registry/", "", usize::MAX, 0).await.unwrap();
    let read = start.elapsed();
    assert_eq!(page.entries.len(), OBJECTS);
    println!("\n{OBJECTS} objects: opened after a crash in {opened:.2?}, all read in {read:.2?}");
}

/// The benchmark's own etcd.
struct Server {
    child: Child,
    url: String,
    _dir: TempDir,
}

impl Server {
    async fn start() -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let free = || format!("http://127.0.0.1:{}", TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port());
        let (url, peer) = (free(), free());
        let mut command = Command::new("etcd");
        command.args(["--listen-client-urls", &url, "--advertise-client-urls", &url, "--listen-peer-urls", &peer]);
        command.args(["--initial-advertise-peer-urls", &peer, "--initial-cluster", &format!("default={peer}")]);
        command.arg("--data-dir").arg(dir.path()).stdout(Stdio::null()).stderr(Stdio::null());
        let server = Self { child: command.spawn().ok()?, url, _dir: dir };
        Etcd::connect(etcd::Config::new([&server.url])).await.unwrap();
        Some(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
