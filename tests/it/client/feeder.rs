//! The feeder against a server that knows the truth and serves it badly.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::BoxStream;
use futures_util::{StreamExt, stream};
use http::{Request, Uri};
use km::cache::{Cache, Change, Event, Frame, Query, Watch};
use km::client::Feeder;
use km::object::{Name, Object, ObjectKey, Revision, Status, resource};
use km::supervise::Supervisor;
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::sync::watch;

use super::server::{Reply, client, serve, then_silence};

fn pod(name: &str, node: &str, revision: Revision) -> Arc<Object> {
    let json =
        format!(r#"{{"kind":"Pod","apiVersion":"v1","metadata":{{"name":"{name}","namespace":"a"}},"spec":{{"nodeName":"{node}"}}}}"#);
    Object::from_stored(&resource::POD, json.as_bytes(), revision).unwrap()
}

fn parameters(uri: &Uri) -> HashMap<String, String> {
    let pairs = uri.query().unwrap_or_default().split('&').filter_map(|pair| pair.split_once('='));
    pairs.map(|(key, value)| (key.to_owned(), value.replace("%3D", "=").replace("%2F", "/"))).collect()
}

fn query(parameters: &HashMap<String, String>) -> Query {
    match parameters.get("fieldSelector") {
        Some(selector) => Query::field("spec.nodeName", selector.strip_prefix("spec.nodeName=").unwrap()),
        None => Query::default(),
    }
}

fn expired() -> String {
    serde_json::to_string(&Status::expired("too old resource version")).unwrap()
}

/// An API server for pods out of a cache, that fails in every way it can.
struct Server {
    truth: Arc<Cache>,
    random: Mutex<StdRng>,
    /// Percentage of requests with a fault.
    trouble: Mutex<u32>,
    /// How many requests were received and parts of watches sent.
    served: watch::Sender<usize>,
}

impl Server {
    fn answer(&self, request: &Request<Bytes>) -> Reply {
        self.served.send_modify(|served| *served += 1);
        let parameters = parameters(request.uri());
        let (trouble, cut) = {
            let mut random = self.random.lock();
            (random.random_range(0..100) < *self.trouble.lock(), random.random_range(0..2_000usize))
        };
        if trouble {
            match cut % 4 {
                0 => return Reply::Drop,
                1 => return Reply::Body(500, "oops".to_owned()),
                2 => return Reply::Body(410, expired()),
                _ => {}
            }
        }
        let body = if parameters.contains_key("watch") { self.watch(&parameters) } else { self.list(&parameters) };
        // Cut off, or not.
        if trouble { Reply::Stream(cut_off(body, cut)) } else { Reply::Stream(body) }
    }

    fn list(&self, parameters: &HashMap<String, String>) -> BoxStream<'static, std::io::Result<Bytes>> {
        let limit = parameters.get("limit").map_or(usize::MAX, |_| 3);
        let (at, start) = match parameters.get("continue").map(|token| token.split_once('/').unwrap()) {
            Some((at, name)) => (Some(at.parse().unwrap()), Some(Name::new("a", name))),
            None => (None, None),
        };
        let body = match self.truth.page(&resource::POD, &query(parameters), start.as_ref(), limit, at) {
            Err(_) => expired(),
            Ok(page) => {
                let token = match page.objects.last() {
                    Some(last) if page.more => format!("{}/{}0", page.revision, last.name()),
                    _ => String::new(),
                };
                let items: Vec<_> = page.objects.iter().map(|it| std::str::from_utf8(it.body()).unwrap()).collect();
                format!(r#"{{"metadata":{{"resourceVersion":"{}","continue":"{token}"}},"items":[{}]}}"#, page.revision, items.join(","))
            }
        };
        stream::iter([Ok(Bytes::from(body))]).boxed()
    }

    fn watch(&self, parameters: &HashMap<String, String>) -> BoxStream<'static, std::io::Result<Bytes>> {
        let after = parameters["resourceVersion"].parse().unwrap();
        let error = || Bytes::from(format!("{{\"type\":\"ERROR\",\"object\":{}}}\n", expired()));
        let Ok(watch) = self.truth.watch(&resource::POD, query(parameters), after) else { return then_silence(vec![error()]) };
        let served = self.served.clone();
        let frames = stream::unfold(Some((watch, served)), move |state: Option<(Watch, watch::Sender<usize>)>| async move {
            let (mut watch, served) = state?;
            served.send_modify(|served| *served += 1);
            match tokio::time::timeout(Duration::from_millis(20), watch.next_frames()).await {
                Ok(Ok(frames)) => {
                    let bytes = frames.iter().filter_map(|frame| match frame {
                        Frame::Events(bytes, _) => Some(bytes.clone()),
                        Frame::Bookmark(_) => None,
                    });
                    Some((Ok(Bytes::from(bytes.collect::<Vec<_>>().concat())), Some((watch, served))))
                }
                Ok(Err(_)) => Some((Ok(error()), None)),
                Err(_) => {
                    let bookmark =
                        format!("{{\"type\":\"BOOKMARK\",\"object\":{{\"metadata\":{{\"resourceVersion\":\"{}\"}}}}}}\n", watch.revision());
                    Some((Ok(Bytes::from(bookmark)), Some((watch, served))))
                }
            }
        });
        frames.boxed()
    }
}

/// The first `at` bytes, then a broken connection.
fn cut_off(body: BoxStream<'static, std::io::Result<Bytes>>, at: usize) -> BoxStream<'static, std::io::Result<Bytes>> {
    let cut = stream::unfold((body, Some(at)), |(mut body, left)| async move {
        let left = left?;
        match body.next().await {
            Some(Ok(chunk)) if chunk.len() <= left => {
                let left = left - chunk.len();
                Some((Ok(chunk), (body, Some(left))))
            }
            Some(Ok(chunk)) if left > 0 => Some((Ok(chunk.slice(..left)), (body, Some(0)))),
            _ => Some((Err(std::io::Error::other("cut off")), (body, None))),
        }
    });
    cut.boxed()
}

/// Follows a cache, and checks that each event is consistent with earlier ones.
async fn follow(cache: Arc<Cache>, until: Revision) -> BTreeMap<String, Revision> {
    let mut state = BTreeMap::new();
    let mut watch = cache.watch(&resource::POD, Query::default(), 0).unwrap();
    loop {
        match watch.next().await.unwrap() {
            Event::Added(it) => assert!(state.insert(it.name().to_owned(), it.revision()).is_none(), "{it:?} was there"),
            Event::Modified(it) => assert!(state.insert(it.name().to_owned(), it.revision()).is_some_and(|old| old < it.revision())),
            Event::Deleted(it) => assert!(state.remove(it.name()).is_some(), "{it:?} was not there"),
            Event::Bookmark(_) => {}
        }
        if watch.revision() >= until {
            return state;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cache_fed_through_failures_ends_with_the_truth() {
    const CHANGES: Revision = 400;
    for seed in 0..3 {
        let tasks = Supervisor::default();
        let truth = Cache::new(40);
        truth.replace_all(vec![], 1);
        let random = Mutex::new(StdRng::seed_from_u64(seed));
        let server = Arc::new(Server { truth: truth.clone(), random, trouble: Mutex::new(40), served: watch::Sender::new(0) });
        let mut served = server.served.subscribe();
        let answer = server.clone();
        let address = serve(&tasks, Arc::new(move |request| answer.answer(&request))).await;

        let (everything, narrow) = (Cache::new(100_000), Cache::new(100_000));
        let feeder = Feeder::new(client(&[address.to_string()]), everything.clone(), &resource::POD);
        tasks.spawn("everything", feeder.run(tasks.shutdown()));
        let query = Query::field("spec.nodeName", "n1");
        let feeder = Feeder { query: query.clone(), ..Feeder::new(client(&[address.to_string()]), narrow.clone(), &resource::POD) };
        tasks.spawn("narrow", feeder.run(tasks.shutdown()));
        let followers = [everything.clone(), narrow.clone()].map(|cache| tokio::task::JoinSet::from_iter([follow(cache, CHANGES)]));

        let mut random = StdRng::seed_from_u64(seed + 100);
        for revision in 2..CHANGES {
            let (name, node) = (format!("x{}", random.random_range(0..12)), ["n1", "n2"][random.random_range(0..2)]);
            let key = ObjectKey::new(&resource::POD, "a", &name);
            let gone = random.random_range(0..4) == 0;
            truth.apply(vec![Change { key, revision, object: (!gone).then(|| pod(&name, node, revision)) }], revision);
            // So that the feeders meet the faults at many revisions.
            if revision % 5 == 0 {
                tokio::time::timeout(Duration::from_secs(60), served.changed()).await.expect("the feeders go on").unwrap();
            }
        }
        *server.trouble.lock() = 0;
        let end = pod("end", "n1", CHANGES);
        truth.apply(vec![Change { key: end.key(), revision: CHANGES, object: Some(end) }], CHANGES);
        for (mut follower, query) in followers.into_iter().zip([Query::default(), query]) {
            let seen = tokio::time::timeout(Duration::from_secs(60), follower.join_next()).await.expect("the cache catches up");
            let there: BTreeMap<_, _> =
                truth.list(&resource::POD, &query).objects.iter().map(|it| (it.name().to_owned(), it.revision())).collect();
            assert_eq!(seen.unwrap().unwrap(), there, "seed {seed}");
        }
        tokio::time::timeout(Duration::from_secs(10), everything.wait_for(&resource::POD, CHANGES)).await.unwrap();
        tasks.shutdown().cancel();
        tasks.wait(Duration::from_secs(5)).await.unwrap();
    }
}
