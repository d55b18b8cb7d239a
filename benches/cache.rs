//! Speed of lists and watches of the object cache, and memory per pod.
//!
//! `cargo bench --bench cache`

#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a measurement prints, and stops where something is wrong")]

use std::hint::black_box;
use std::sync::Arc;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use km::cache::{Cache, Change, Frame, Query};
use km::object::selector::LabelSelector;
use km::object::{Object, Revision, resource};
use tokio::task::JoinSet;

const PODS: usize = 100_000;
const LISTED: usize = 10_000;
const NODES: usize = 10_000;

/// A pod of about 3 kB, as clients make them.
fn pod(at: usize, node: usize, revision: Revision) -> Arc<Object> {
    let env: Vec<_> =
        (0..40).map(|it| serde_json::json!({"name": format!("VARIABLE_{it}"), "value": format!("some value {it}")})).collect();
    let json = serde_json::json!({
        "kind": "Pod", "apiVersion": "v1",
        "metadata": {
            "name": format!("web-{at:06}"), "namespace": format!("team-{}", at % 100), "uid": format!("6f9c1a52-0000-4000-8000-{at:012}"),
            "creationTimestamp": "2026-01-01T00:00:00Z", "labels": {"app": format!("app-{}", at % 500), "tier": "front"},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": format!("app-{}", at % 500),
                "uid": format!("0d3b1f6e-0000-4000-8000-{:012}", at % 500), "controller": true}],
        },
        "spec": {"nodeName": format!("node-{node}"), "containers": [{"name": "web", "image": "registry.example.com/web:1.2.3", "env": env}]},
        "status": {"phase": "Running", "podIP": "10.1.2.3"},
    });
    Object::from_stored(&resource::POD, json.to_string().as_bytes(), revision).unwrap()
}

fn put(object: Arc<Object>) -> Vec<Change> {
    vec![Change { key: object.key(), revision: object.revision(), object: Some(object) }]
}

fn main() {
    list();
    memory();
    let one_core = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let everything: Vec<_> = (0..1_000).map(|_| Query::default()).collect();
    one_core.block_on(fan_out("1,000 watchers of all pods, 1,000 changes/s", everything, 1_000));
    let narrow: Vec<_> = (0..NODES).map(|node| Query::field("spec.nodeName", &format!("node-{node}"))).collect();
    one_core.block_on(fan_out("10,000 watchers of a node's pods each, 1,000 changes/s", narrow, 1_000));
}

fn list() {
    let cache = Cache::new(1_000);
    cache.replace_all((0..LISTED).map(|at| pod(at, at % 100, 1)).collect(), 1);
    let labels = |text| Query { labels: LabelSelector::parse(text).unwrap(), ..Query::default() };
    for (what, query) in [
        ("all of 10,000 pods", Query::default()),
        ("a namespace's 100 of 10,000", Query::namespace("team-7")),
        ("a node's 100 of 10,000", Query::field("spec.nodeName", "node-7")),
        ("a label's 20 of 10,000", labels("app=app-7")),
        ("10,000 by a selector that no index helps", labels("tier in (front,back)")),
    ] {
        let mut times: Vec<Duration> = (0..200)
            .map(|_| {
                let begun = Instant::now();
                black_box(cache.list(&resource::POD, &query));
                begun.elapsed()
            })
            .collect();
        times.sort_unstable();
        println!("list {what}: p50 {:?}, p99 {:?}", times[100], times[198]);
    }
}

fn memory() {
    let before = resident();
    let cache = Cache::new(10_000);
    let mut bytes = 0;
    for at in 0..PODS {
        let object = pod(at, at % NODES, at as Revision + 1);
        bytes += object.body().len();
        cache.apply(put(object), at as Revision + 1);
    }
    for _ in 0..4 {
        black_box(cache.list(&resource::POD, &Query::field("spec.nodeName", "node-7")));
        black_box(cache.owned_by("0d3b1f6e-0000-4000-8000-000000000007"));
    }
    let grown = resident() - before;
    let each = grown / PODS;
    println!("{PODS} pods of {} bytes, indexed by node and owner: {} MB, {each} bytes each", bytes / PODS, grown >> 20);
}

fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() << 10
}

async fn fan_out(what: &str, queries: Vec<Query>, per_second: u32) {
    const SECONDS: u32 = 5;
    let changes = (per_second * SECONDS) as usize;
    let cache = Cache::new(20_000);
    cache.replace_all(vec![], 1);
    let written: Arc<Vec<OnceLock<Instant>>> = Arc::new((0..changes + 2).map(|_| OnceLock::new()).collect());
    let (watchers, wide) = (queries.len(), queries[0] == Query::default());
    let (done, _) = tokio::sync::watch::channel(false);
    let mut tasks = JoinSet::new();
    for query in queries {
        let mut watch = cache.watch(&resource::POD, query, 1).unwrap();
        let (written, mut done) = (written.clone(), done.subscribe());
        tasks.spawn(async move {
            let (mut latencies, mut bytes, mut seen) = (Vec::new(), 0, 1);
            while let Ok(frames) = tokio::select! { it = watch.next_frames() => it.map_err(drop), _ = done.changed() => Err(()) } {
                let now = Instant::now();
                for frame in frames {
                    if let Frame::Events(frame, revision) = frame {
                        bytes += frame.len();
                        // A watcher of everything may get several changes in one frame.
                        let first = if wide { seen + 1 } else { revision };
                        latencies.extend((first..=revision).map(|it| now - *written[it as usize].get().unwrap()));
                        seen = revision;
                    }
                }
            }
            (latencies, bytes)
        });
    }
    let objects: Vec<_> = (0..changes).map(|at| pod(at % 5_000, at.wrapping_mul(7_919) % NODES, at as Revision + 2)).collect();
    let begun = Instant::now();
    for (at, object) in objects.into_iter().enumerate() {
        tokio::time::sleep_until((begun + Duration::from_secs(1) / per_second * u32::try_from(at).unwrap()).into()).await;
        let revision = object.revision();
        written[revision as usize].set(Instant::now()).unwrap();
        cache.apply(put(object), revision);
    }
    let took = begun.elapsed();
    // The last changes are still on their way.
    tokio::time::sleep(Duration::from_millis(500)).await;
    done.send(true).unwrap();
    let (mut latencies, mut bytes) = (Vec::new(), 0);
    while let Some(task) = tasks.join_next().await {
        let (seen, size) = task.unwrap();
        latencies.extend(seen);
        bytes += size;
    }
    latencies.sort_unstable();
    assert!(if wide { latencies.len() == changes * watchers } else { latencies.len() >= changes });
    let at = |part: f64| latencies[((latencies.len() - 1) as f64 * part) as usize];
    println!(
        "{what}: {} events, {} MB in {took:.1?}; p50 {:?}, p99 {:?}, longest {:?}",
        latencies.len(),
        bytes >> 20,
        at(0.5),
        at(0.99),
        at(1.0)
    );
}
