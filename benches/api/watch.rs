//! How soon, and how fast, all watchers know what was written.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use http_body_util::BodyExt as _;
use tokio::sync::Barrier;
use tokio::task::JoinSet;

use super::load::{Caller as _, Measured};
use super::request::{Ask, CONFIG_MAPS, Connection, PODS, Request};

const WRITERS: usize = 8;
/// For events that do not come.
const PATIENCE: Duration = Duration::from_secs(60);

/// What is written and how many watch it.
struct Load {
    /// Begins the names of what is written.
    label: &'static str,
    watched: &'static str,
    create: fn(&str) -> Request,
    watchers: usize,
    /// By all writers together.
    writes: usize,
    /// A second.
    pace: Option<u32>,
}

/// Writes well below what a server can do, for the latencies; as many as it can; and to a crowd.
const LOADS: [Load; 3] = [
    Load { label: "paced", watched: PODS, create: Request::create, watchers: 100, writes: 2_000, pace: Some(200) },
    Load { label: "flat-out", watched: PODS, create: Request::create, watchers: 100, writes: 2_000, pace: None },
    Load { label: "crowd", watched: CONFIG_MAPS, create: Request::create_config_map, watchers: 1_000, writes: 5_000, pace: Some(1_000) },
];

pub(super) async fn measure(store: &str, server: SocketAddr) {
    for load in LOADS {
        let rate = load.pace.map_or("flat out".to_owned(), |pace| format!("{pace} writes/s"));
        let what = format!("{rate}, {} watchers", load.watchers);
        println!("{store:<12} {what:<28} {WRITERS:>6} {}", run(server, load).await);
    }
}

/// Creates objects while everybody watches. Every event that a watcher sees counts, its latency from when the creation was sent.
async fn run(server: SocketAddr, load: Load) -> Measured {
    let Load { label, watched, create, watchers: count, writes, pace } = load;
    let sent: Arc<Vec<OnceLock<Instant>>> = Arc::new((0..writes).map(|_| OnceLock::new()).collect());
    // Every watch is open before the first write.
    let ready = Arc::new(Barrier::new(count + 1));
    let mut watchers = JoinSet::new();
    for _ in 0..count {
        let (sent, ready) = (sent.clone(), ready.clone());
        watchers.spawn(async move {
            let mut connection = Connection::open(server).await;
            // Without a version a watch begins with all there is; from the latest one it does not.
            let latest = latest(&mut connection, watched).await;
            let path = format!("{watched}?watch=true&resourceVersion={latest}");
            let mut body = connection.send(Request::read(path)).await.into_body();
            ready.wait().await;
            let (mut latencies, mut bytes, mut rest) = (Vec::with_capacity(writes), 0, Vec::new());
            while latencies.len() < writes {
                let frame = body.frame().await.expect("the watch goes on").unwrap();
                let Some(data) = frame.data_ref() else { continue };
                let now = Instant::now();
                bytes += data.len();
                rest.extend_from_slice(data);
                let mut begins = 0;
                while let Some(length) = rest[begins..].iter().position(|it| *it == b'\n') {
                    if let Some(n) = number(&rest[begins..begins + length], label) {
                        latencies.push(now - *sent[n].get().expect("it was sent"));
                    }
                    begins += length + 1;
                }
                rest.drain(..begins);
            }
            (latencies, bytes)
        });
    }
    let requests = Arc::new((0..writes).map(|n| create(&format!("{label}-{n:06}")).bytes()).collect());
    ready.wait().await;
    let begun = Instant::now();
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let sent = sent.clone();
        let mut ask = Ask::open(server, Arc::clone(&requests)).await;
        writers.spawn(async move {
            for n in (writer..writes).step_by(WRITERS) {
                if let Some(pace) = pace {
                    tokio::time::sleep_until((begun + Duration::from_secs(1) / pace * u32::try_from(n).unwrap()).into()).await;
                }
                sent[n].set(Instant::now()).unwrap();
                ask.call(n).await;
            }
        });
    }
    writers.join_all().await;
    let seen = tokio::time::timeout(PATIENCE, watchers.join_all()).await.expect("every watcher sees every object");
    let took = begun.elapsed();
    let bytes = seen.iter().map(|(_, bytes)| bytes).sum();
    Measured::new(seen.into_iter().flat_map(|(latencies, _)| latencies).collect(), bytes, took)
}

/// The version of the whole store.
async fn latest(connection: &mut Connection, watched: &str) -> String {
    let body = connection.send(Request::read(format!("{watched}?limit=1"))).await.into_body().collect().await.unwrap().to_bytes();
    let list: serde_json::Value = serde_json::from_slice(&body).unwrap();
    list["metadata"]["resourceVersion"].as_str().unwrap().to_owned()
}

/// Which of our objects an event is about, if of any. Found, not parsed: it is the server that is measured.
fn number(event: &[u8], label: &str) -> Option<usize> {
    let mark = format!("\"name\":\"{label}-");
    let at = event.windows(mark.len()).position(|it| it == mark.as_bytes())?;
    let digits = &event[at + mark.len()..at + mark.len() + 6];
    std::str::from_utf8(digits).unwrap().parse().ok()
}
