//! Several API servers, one truth: records what clients did and saw while parts of the cluster died, and checks the record.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use km::cache::{Listing, Query};
use km::client::{Client, ClientError, Patch, WatchEvent};
use km::object::resource::{CONFIG_MAP, EVENT};
use km::object::{Object, Revision};
use nix::sys::signal::Signal;
use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::support;
use super::support::apiserver::ApiServer;
use super::support::etcd::Etcd;

const WRITERS: usize = 8;

fn client(server: &ApiServer) -> Client {
    support::client(&server.url())
}

fn name(writer: usize) -> String {
    format!("w{writer}")
}

/// The number in an object that a writer wrote.
fn number(object: &Object) -> usize {
    let value: serde_json::Value = serde_json::from_slice(object.body()).unwrap();
    value["data"]["n"].as_str().unwrap().parse().unwrap()
}

/// Whether a client would simply try again.
fn passes(error: &ClientError) -> bool {
    match error {
        ClientError::Unreachable(_) => true,
        ClientError::Api(status) => matches!(status.code, 429 | 503 | 504),
        ClientError::Malformed(_) => false,
    }
}

/// Tries until it works, a different server each time.
async fn retry<T, F>(clients: &[Client], first: usize, call: impl Fn(Client) -> F) -> T
where
    F: Future<Output = Result<T, ClientError>>,
{
    for attempt in 0..600 {
        match call(clients[(first + attempt) % clients.len()].clone()).await {
            Ok(done) => return done,
            Err(error) => assert!(passes(&error), "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("the cluster does not come back");
}

async fn get(client: Client, writer: usize) -> Result<Arc<Object>, ClientError> {
    client.get(&CONFIG_MAP, "default", &name(writer)).await
}

async fn list(client: Client) -> Result<Listing, ClientError> {
    client.list(&CONFIG_MAP, "default").await
}

/// Sets a writer's number, if its object is still at this revision; returns the new one.
async fn write(client: Client, writer: usize, n: usize, revision: Revision) -> Result<Revision, ClientError> {
    let change = Patch::Merge(json!({"metadata": {"resourceVersion": revision.to_string()}, "data": {"n": n.to_string()}}));
    match client.patch(&CONFIG_MAP, "default", &name(writer), "", &change).await {
        // An attempt whose response was lost succeeded.
        Err(error) if error.is("Conflict") => {
            let there = get(client, writer).await?;
            assert_eq!(number(&there), n, "somebody else wrote {}", there.name());
            Ok(there.revision())
        }
        outcome => outcome.map(|it| it.revision()),
    }
}

/// A writer counts in its own object, and reads each number back from another server. Returns the revision at which each number was
/// acknowledged.
async fn count(clients: Vec<Client>, writer: usize, until: usize, done: watch::Sender<usize>) -> Vec<Revision> {
    let object = json!({"metadata": {"name": name(writer)}, "data": {"n": "0"}});
    let mut revision = clients[writer % clients.len()].create(&CONFIG_MAP, "default", &object).await.unwrap().revision();
    let mut acknowledged = vec![revision];
    for n in 1..=until {
        revision = retry(&clients, writer, |client| write(client, writer, n, revision)).await;
        acknowledged.push(revision);
        if n % 10 == 0 {
            let read = retry(&clients, writer + n, |client| get(client, writer)).await;
            assert_eq!((number(&read), read.revision()), (n, revision), "a read after the acknowledgement");
        }
        done.send_modify(|done| *done += 1);
    }
    acknowledged
}

/// Lists from one server after another: revisions never go back.
async fn look(clients: Vec<Client>, stop: CancellationToken) -> usize {
    let (mut revision, mut seen) = (0, BTreeMap::<String, Revision>::new());
    for turn in 0.. {
        if stop.is_cancelled() {
            return turn;
        }
        let listed = retry(&clients, turn, list).await;
        assert!(listed.revision >= revision, "a list at {} after one at {revision}", listed.revision);
        revision = listed.revision;
        for object in listed.objects.iter().filter(|it| it.name().starts_with('w')) {
            let known = seen.insert(object.name().to_owned(), object.revision()).unwrap_or_default();
            assert!(object.revision() >= known && object.revision() <= revision, "{} at {}", object.name(), object.revision());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    unreachable!()
}

/// The events of a watch (revision, object, number), and how often it had to list again because history was gone.
type Seen = (Vec<(Revision, String, usize)>, usize);

/// Watches on one server from a revision, as informers do, until every writer's last number was seen.
async fn follow(client: Client, mut after: Revision, last: usize) -> Seen {
    let (mut seen, mut anew, mut newest) = (Vec::new(), 0, BTreeMap::<String, usize>::new());
    let clients = [client];
    'watches: while newest.len() < WRITERS || newest.values().any(|n| *n < last) {
        let open = |client: Client| async move { client.watch(&CONFIG_MAP, &Query::namespace("default"), after, 300).await };
        let mut stream = retry(&clients, 0, open).await;
        loop {
            let events = match stream.next().await {
                Ok(Some(events)) => events,
                Ok(None) => continue 'watches,
                Err(error) if error.is("Expired") => {
                    let listed = retry(&clients, 0, list).await;
                    assert!(listed.revision >= after);
                    (after, anew) = (listed.revision, anew + 1);
                    for object in listed.objects.iter().filter(|it| it.name().starts_with('w')) {
                        newest.insert(object.name().to_owned(), number(object));
                    }
                    continue 'watches;
                }
                Err(error) => {
                    assert!(passes(&error), "{error}");
                    continue 'watches;
                }
            };
            for event in events {
                let revision = match event {
                    WatchEvent::Added(object) | WatchEvent::Modified(object) if object.name().starts_with('w') => {
                        let n = number(&object);
                        newest.insert(object.name().to_owned(), n);
                        seen.push((object.revision(), object.name().to_owned(), n));
                        object.revision()
                    }
                    WatchEvent::Added(object) | WatchEvent::Modified(object) | WatchEvent::Deleted(object) => object.revision(),
                    WatchEvent::Bookmark(revision) => {
                        assert!(revision >= after, "a bookmark at {revision} after {after}");
                        after = revision;
                        continue;
                    }
                };
                assert!(revision > after, "an event at {revision} after {after}");
                after = revision;
            }
            if newest.len() == WRITERS && newest.values().all(|n| *n == last) {
                break 'watches;
            }
        }
    }
    (seen, anew)
}

/// Writers, readers and a watch on each server, with `trouble` after a third of the writes. `gaps` says whether watches may have to list
/// again.
async fn record(servers: &mut Vec<ApiServer>, writes: usize, gaps: bool, trouble: impl AsyncFnOnce(&mut Vec<ApiServer>)) {
    let clients: Vec<Client> = servers.iter().map(client).collect();
    let start = clients[0].list(&CONFIG_MAP, "default").await.unwrap().revision;
    let (each, done, stop) = (writes / WRITERS, watch::Sender::new(0), CancellationToken::new());
    let (mut writers, mut watchers) = (JoinSet::new(), JoinSet::new());
    for client in &clients {
        watchers.spawn(follow(client.clone(), start, each));
    }
    for writer in 0..WRITERS {
        let (clients, done) = (clients.clone(), done.clone());
        writers.spawn(async move { (writer, count(clients, writer, each, done).await) });
    }
    let mut reader = JoinSet::new();
    reader.spawn(look(clients.clone(), stop.clone()));
    done.subscribe().wait_for(|done| *done >= writes / 3).await.unwrap();
    trouble(servers).await;
    let mut acknowledged = BTreeMap::new();
    while let Some(finished) = writers.join_next().await {
        let (writer, revisions) = finished.unwrap();
        acknowledged.insert(name(writer), revisions);
    }
    stop.cancel();
    assert!(reader.join_next().await.unwrap().unwrap() > 0, "nothing was read");
    let seen: Vec<Seen> = tokio::time::timeout(Duration::from_secs(60), watchers.join_all()).await.expect("watches see everything");
    for (events, anew) in &seen {
        assert!(gaps || *anew == 0, "a watch lost its place");
        for (revision, name, n) in events {
            assert_eq!(acknowledged[name][*n], *revision, "{name} {n}: what is seen is what was acknowledged");
        }
        for name in acknowledged.keys() {
            let numbers: Vec<usize> = events.iter().filter(|it| it.1 == *name).map(|it| it.2).collect();
            if gaps {
                assert!(numbers.is_sorted_by(|a, b| a < b), "{name} went {numbers:?}");
            } else {
                assert!(numbers.iter().copied().eq(0..=each), "{name} went {numbers:?}");
            }
        }
    }
    for client in &clients {
        for (name, revisions) in &acknowledged {
            let object = client.get(&CONFIG_MAP, "default", name).await.unwrap();
            assert_eq!((number(&object), Some(&object.revision())), (each, revisions.last()));
        }
    }
}

/// etcd's leader dies and returns: no acknowledged write is lost, no watch misses or repeats an event, and clients at most retry.
#[tokio::test(flavor = "multi_thread")]
async fn the_leader_of_etcd_dies_among_ten_thousand_writes() {
    let dir = tempfile::tempdir().unwrap();
    let mut etcd = Etcd::start(dir.path(), 3);
    let mut servers: Vec<_> = (0..3).map(|_| ApiServer::start(dir.path(), &[etcd.flag()])).collect();
    record(&mut servers, 10_000, false, async |_| {
        let leader = etcd.leader().unwrap();
        etcd.kill(leader);
        while etcd.leader().is_none() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        etcd.run(leader);
    })
    .await;
}

/// A server of two is killed and started again, and etcd forgets its history meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_dies_and_history_is_compacted() {
    let dir = tempfile::tempdir().unwrap();
    let etcd = Etcd::start(dir.path(), 1);
    let mut servers: Vec<_> = (0..2).map(|_| ApiServer::start(dir.path(), &[etcd.flag()])).collect();
    record(&mut servers, 2_000, true, async |servers| {
        for signal in [Signal::SIGKILL, Signal::SIGTERM] {
            let read = etcd.ctl(&["get", "/", "-w", "json"]);
            let revision = serde_json::from_str::<serde_json::Value>(&read).unwrap()["header"]["revision"].to_string();
            etcd.ctl(&["compact", &revision]);
            servers[1].restart(signal);
        }
    })
    .await;
}

/// The one server on the embedded store is killed, twice.
#[tokio::test(flavor = "multi_thread")]
async fn the_embedded_store_is_killed() {
    let dir = tempfile::tempdir().unwrap();
    let mut servers = vec![ApiServer::start(dir.path(), &[])];
    record(&mut servers, 2_000, true, async |servers| {
        servers[0].restart(Signal::SIGKILL);
        servers[0].restart(Signal::SIGKILL);
    })
    .await;
}

/// Events expire, on either store, even if the server was down at that time; other objects stay.
#[tokio::test(flavor = "multi_thread")]
async fn events_go_after_their_time() {
    let (dir, ttl) = (tempfile::tempdir().unwrap(), "--event-ttl=2s".to_owned());
    let etcd = Etcd::start(dir.path(), 1);
    for flags in [vec![ttl.clone(), etcd.flag()], vec![ttl]] {
        let mut server = ApiServer::start(dir.path(), &flags);
        let client = client(&server);
        let event =
            |name: &str| json!({"metadata": {"name": name}, "involvedObject": {"kind": "Pod", "name": "p", "namespace": "default"}});
        let first = client.create(&EVENT, "default", &event("first")).await.unwrap();
        let kept = json!({"metadata": {"name": "kept"}});
        client.create(&CONFIG_MAP, "default", &kept).await.unwrap();
        let mut watch = client.watch(&EVENT, &Query::namespace("default"), first.revision(), 60).await.unwrap();
        let gone = tokio::time::timeout(Duration::from_secs(30), watch.next()).await.expect("events go").unwrap().unwrap();
        assert!(matches!(&gone[..], [WatchEvent::Deleted(event)] if event.name() == "first"), "{gone:?}");
        client.create(&EVENT, "default", &event("second")).await.unwrap();
        server.restart(Signal::SIGKILL);
        let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
        while !client.list(&EVENT, "default").await.unwrap().objects.is_empty() {
            assert!(tokio::time::Instant::now() < deadline, "the event stays");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        client.get(&CONFIG_MAP, "default", "kept").await.unwrap();
    }
}
