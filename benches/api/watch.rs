//! How soon, and how fast, all watchers know what was written.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::BodyExt as _;
use tokio::sync::Barrier;
use tokio::task::JoinSet;

use super::load::{Caller as _, Measured};
use super::request::{Ask, Connection, PODS, Request};

const WATCHERS: usize = 100;
const WRITERS: usize = 8;
/// By all writers together.
const WRITES: usize = 2_000;
/// A second, for the latencies: well below what a server can do.
const PACE: u32 = 200;
/// For events that do not come.
const PATIENCE: Duration = Duration::from_secs(60);

pub(super) async fn measure(store: &str, server: SocketAddr) {
    let what = |text: &str| format!("{text}, {WATCHERS} watchers");
    let paced = run(server, "paced", Some(PACE)).await;
    println!("{store:<12} {:<28} {WRITERS:>6} {paced}", what(&format!("{PACE} pods/s")));
    let flat_out = run(server, "flat-out", None).await;
    println!("{store:<12} {:<28} {WRITERS:>6} {flat_out}", what("flat out"));
}

/// Creates pods while everybody watches. Every event that a watcher sees counts, its latency from when the pod's creation was sent.
async fn run(server: SocketAddr, label: &'static str, pace: Option<u32>) -> Measured {
    let sent: Arc<Vec<OnceLock<Instant>>> = Arc::new((0..WRITES).map(|_| OnceLock::new()).collect());
    // Every watch is open before the first write.
    let ready = Arc::new(Barrier::new(WATCHERS + 1));
    let mut watchers = JoinSet::new();
    for _ in 0..WATCHERS {
        let (sent, ready) = (sent.clone(), ready.clone());
        watchers.spawn(async move {
            let mut connection = Connection::open(server).await;
            // Without a version a watch begins with all there is; from the latest one it does not.
            let latest = latest(&mut connection).await;
            let path = format!("{PODS}?watch=true&resourceVersion={latest}");
            let mut body = connection.send(Request::read(path)).await.into_body();
            ready.wait().await;
            let (mut latencies, mut bytes, mut rest) = (Vec::with_capacity(WRITES), 0, Vec::new());
            while latencies.len() < WRITES {
                let frame = body.frame().await.expect("the watch goes on").unwrap();
                let Some(data) = frame.data_ref() else { continue };
                let now = Instant::now();
                bytes += data.len();
                rest.extend_from_slice(data);
                let mut begins = 0;
                while let Some(length) = rest[begins..].iter().position(|it| *it == b'\n') {
                    let n = number(&rest[begins..begins + length], label);
                    latencies.push(now - *sent[n].get().expect("it was sent"));
                    begins += length + 1;
                }
                rest.drain(..begins);
            }
            (latencies, bytes)
        });
    }
    ready.wait().await;
    let begun = Instant::now();
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let sent = sent.clone();
        let connection = Connection::open(server).await;
        writers.spawn(async move {
            let request: Arc<dyn Fn(usize) -> Request + Send + Sync> = Arc::new(move |n| Request::create(&format!("{label}-{n:06}")));
            let mut ask = Ask { connection, request };
            for n in (writer..WRITES).step_by(WRITERS) {
                if let Some(pace) = pace {
                    tokio::time::sleep_until((begun + Duration::from_secs(1) / pace * u32::try_from(n).unwrap()).into()).await;
                }
                sent[n].set(Instant::now()).unwrap();
                ask.call(n).await;
            }
        });
    }
    writers.join_all().await;
    let seen = tokio::time::timeout(PATIENCE, watchers.join_all()).await.expect("every watcher sees every pod");
    let took = begun.elapsed();
    let bytes = seen.iter().map(|(_, bytes)| bytes).sum();
    Measured::new(seen.into_iter().flat_map(|(latencies, _)| latencies).collect(), bytes, took)
}

/// The version of the whole store.
async fn latest(connection: &mut Connection) -> String {
    let body = connection.send(Request::read(format!("{PODS}?limit=1"))).await.into_body().collect().await.unwrap().to_bytes();
    let list: serde_json::Value = serde_json::from_slice(&body).unwrap();
    list["metadata"]["resourceVersion"].as_str().unwrap().to_owned()
}

/// Which pod an event is about. Found, not parsed: it is the server that is measured.
fn number(event: &[u8], label: &str) -> usize {
    let mark = format!("\"name\":\"{label}-");
    let at =
        event.windows(mark.len()).position(|it| it == mark.as_bytes()).unwrap_or_else(|| panic!("{:?}", Bytes::copy_from_slice(event)));
    let digits = &event[at + mark.len()..at + mark.len() + 6];
    std::str::from_utf8(digits).unwrap().parse().unwrap()
}
