//! Requests per second of an API server over HTTP keep-alive connections, and latency of its watches: on the embedded store, and on etcd in
//! comparison with the bare etcd client. Also its memory, and time from its start until it is ready.
//!
//! `scripts/bench api [PART]`, or `KM=path-of-km cargo bench --bench api -- [PART]`; the parts are `requests`, `creates` (a subset of
//! `requests`), `watch` and `footprint`. If KUBE_APISERVER names a kube-apiserver, it serves the same requests on the same etcd. Next to
//! the rates is the server's CPU time per request, which is more meaningful on a shared machine.

#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a measurement prints, and stops where something is wrong")]

mod footprint;
mod load;
mod request;
mod server;
mod watch;

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use etcd_client::Client;

use load::{Caller, Measured, drive};
use request::{Ask, Request};
use server::{ApiServer, Etcd};

/// How many pods are created in total, and over how many connections.
const CREATED: [(usize, usize); 2] = [(8, 4_000), (64, 16_000)];
const READ: usize = 30_000;
const LISTS: usize = 40;
/// Every list contains all pods, so few concurrent ones are enough.
const LISTERS: [usize; 2] = [1, 8];

/// The parts to measure: all, or the one on the command line.
struct Parts(Option<String>);

impl Parts {
    fn has(&self, part: &str) -> bool {
        self.0.as_deref().is_none_or(|it| it == part)
    }
}

#[tokio::main]
async fn main() {
    let Some(km) = std::env::var_os("KM") else {
        println!("KM, the path of the executable to measure, is not set: not measured");
        return;
    };
    // Cargo adds flags of its own.
    let parts = Parts(std::env::args().skip(1).find(|it| !it.starts_with('-')));
    if parts.has("footprint") {
        footprint::measure(Path::new(&km)).await;
    }
    if !parts.has("requests") && !parts.has("creates") && !parts.has("watch") {
        return;
    }
    println!("{:<12} {:<28} {:>6} {:>10} {:>10} {:>10} {:>10} {:>10}", "", "", "conns", "/s", "p50", "p99", "MB/s", "CPU us");
    let server = ApiServer::on_embedded_store(Path::new(&km)).await;
    measure("embedded", &server, &parts).await;
    drop(server);
    let Some(etcd) = Etcd::start().await else {
        println!("no etcd in the path: not compared");
        return;
    };
    let server = ApiServer::on_etcd(Path::new(&km), &etcd.url).await;
    let ours = measure("etcd", &server, &parts).await;
    drop(server);
    if ours.is_empty() {
        return;
    }
    if let Some(kubernetes) = std::env::var_os("KUBE_APISERVER") {
        let server = ApiServer::kubernetes(Path::new(&kubernetes), &etcd.url).await;
        let theirs = requests("kubernetes", &server, &parts).await;
        for ((what, connections, ours), (.., theirs)) in ours.iter().zip(&theirs) {
            println!("{:<12} {:<28} {connections:>6} {:>10.2}", "", format!("{what}, km to kubernetes"), ours / theirs);
        }
    }
    compare(&etcd, &ours).await;
}

/// Operation, number of connections, rate per second.
type Rates = Vec<(&'static str, usize, f64)>;

async fn measure(store: &'static str, server: &ApiServer, parts: &Parts) -> Rates {
    let rates = if parts.has("requests") || parts.has("creates") { requests(store, server, parts).await } else { Rates::new() };
    if parts.has("watch") {
        watch::measure(store, server).await;
    }
    rates
}

async fn requests(store: &'static str, server: &ApiServer, parts: &Parts) -> Rates {
    let report = |what: &str, connections: usize, it: &Measured| println!("{store:<12} {what:<28} {connections:>6} {it}");
    let mut rates = Rates::new();
    let mut pods = 0;
    for (connections, count) in CREATED {
        let first = pods;
        let made = ask(server, connections, count, move |n| Request::create(&name(first + n))).await;
        report("create pods", connections, &made);
        rates.push(("create", connections, made.rate()));
        // The next round's names start from here, however many pods there was time for.
        pods += made.latencies.len();
    }
    if !parts.has("requests") {
        return rates;
    }
    for (connections, _) in CREATED {
        let got = ask(server, connections, READ, move |n| Request::get(&name(n * 7_919 % pods))).await;
        report("get a pod", connections, &got);
        rates.push(("get", connections, got.rate()));
    }
    for connections in LISTERS {
        let listed = ask(server, connections, LISTS, |_| Request::list()).await;
        report(&format!("list {pods} pods"), connections, &listed);
        println!("{:<12} {:<28} {connections:>6} {:>10.0}", "", "  that is pods", listed.rate() * pods as f64);
        rates.push(("list", connections, listed.rate() * pods as f64));
    }
    println!("{store:<12} {:<28} {:>6} {:>10.0}", "resident memory after it, MB", "", server.process.resident());
    rates
}

async fn ask(server: &ApiServer, connections: usize, count: usize, request: impl Fn(usize) -> Request) -> Measured {
    let requests = Arc::new((0..count).map(|n| request(n).bytes()).collect());
    let mut callers = Vec::new();
    for _ in 0..connections {
        callers.push(Ask::open(server.address, server.tls.as_ref(), Arc::clone(&requests)).await.unwrap());
    }
    let before = server.process.computed();
    let measured = drive(callers, count).await;
    Measured { computed: Some(server.process.computed() - before), ..measured }
}

fn name(n: usize) -> String {
    format!("web-{n:06}")
}

/// As many writes and reads by the bare etcd client, over as many connections. It writes the request body, not km's encoding of it.
async fn compare(etcd: &Etcd, ours: &Rates) {
    for (what, connections, ours) in ours.iter().filter(|(what, ..)| *what != "list") {
        let put = *what == "create";
        let count = if put { CREATED.into_iter().find(|it| it.0 == *connections).map_or(0, |it| it.1) } else { READ };
        let mut callers = Vec::new();
        let bodies = Arc::new((0..if put { count } else { 0 }).map(|n| request::pod(&name(n), 16)).collect());
        for _ in 0..*connections {
            callers.push(Bare { client: Client::connect([&etcd.url], None).await.unwrap(), puts: put.then(|| Arc::clone(&bodies)) });
        }
        let bare = drive(callers, count).await;
        println!("{:<12} {:<28} {connections:>6} {bare}", "etcd, bare", if put { "put" } else { "get" });
        println!("{:<12} {:<28} {connections:>6} {:>10.2}", "", "  ratio of km on etcd to it", ours / bare.rate());
    }
}

/// The bare etcd client.
struct Bare {
    client: Client,
    /// The values to put; `None` to get.
    puts: Option<Arc<Vec<Bytes>>>,
}

impl Caller for Bare {
    async fn call(&mut self, n: usize) -> usize {
        match &self.puts {
            Some(bodies) => {
                self.client.put(format!("/bare/{n:06}"), bodies[n].clone(), None).await.unwrap();
                0
            }
            None => {
                // The keys of the first round.
                let answer = self.client.get(format!("/bare/{:06}", n % CREATED[0].1), None).await.unwrap();
                answer.kvs().iter().map(|it| it.value().len()).sum()
            }
        }
    }
}
