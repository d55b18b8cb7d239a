//! Tests of only the store on etcd: servers that die and return, leases, compaction by several servers, TLS.

use std::collections::HashSet;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use km::store::etcd::{Config, Etcd, Tls};
use km::store::{Expect, Outcome, StoreError};
use nix::sys::signal::Signal;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::contract::{Follower, Shared, create, done, read_all};
use crate::support::free_port;
use crate::support::process::Process;

/// An etcd server on free ports, with its data.
struct Server {
    dir: TempDir,
    client: String,
    peer: String,
    flags: Vec<String>,
    process: Option<Process>,
}

impl Server {
    fn start() -> Self {
        Self::with("http", &[])
    }

    fn with(scheme: &str, flags: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let client = format!("{scheme}://127.0.0.1:{}", free_port());
        let peer = format!("http://127.0.0.1:{}", free_port());
        let flags = flags.iter().map(ToString::to_string).collect();
        let mut server = Self { dir, client, peer, flags, process: None };
        server.run();
        server
    }

    fn run(&mut self) {
        let mut command = Command::new("etcd");
        command.args(["--data-dir", "data", "--listen-client-urls", &self.client, "--advertise-client-urls", &self.client]);
        command.args(["--listen-peer-urls", &self.peer, "--initial-advertise-peer-urls", &self.peer]);
        command.args(["--initial-cluster", &format!("default={}", self.peer)]).args(&self.flags).current_dir(&self.dir);
        self.process = Some(Process::start("etcd", &mut command, &self.dir.path().join("log")));
    }

    fn kill(&mut self) {
        self.process.take().expect("etcd runs").kill();
    }

    fn signal(&self, signal: Signal) {
        self.process.as_ref().expect("etcd runs").signal(signal);
    }

    async fn store(&self) -> Shared {
        Etcd::connect(self.config()).await.unwrap()
    }

    fn config(&self) -> Config {
        Config { connect_timeout: Duration::from_secs(60), ..Config::new([&self.client]) }
    }

    fn etcdctl(&self, args: &[&str]) -> String {
        let mut command = Command::new("etcdctl");
        crate::support::process::run(command.env("ETCDCTL_API", "3").args(["--endpoints", &self.client]).args(args))
    }
}

contract_tests!(open);

async fn open() -> (Shared, Server) {
    let server = Server::start();
    (server.store().await, server)
}

#[tokio::test(flavor = "multi_thread")]
async fn unreachable_servers_are_named() {
    let endpoints = [format!("http://127.0.0.1:{}", free_port()), format!("http://127.0.0.1:{}", free_port())];
    let config = Config { connect_timeout: Duration::from_millis(500), ..Config::new(&endpoints) };
    let error = Etcd::connect(config).await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable(_)), "{error:?}");
    let text = error.to_string();
    assert!(endpoints.iter().all(|endpoint| text.contains(endpoint)) && text.contains("refused"), "{text}");

    for bad in ["http://", "127.0.0.1:port"] {
        let error = Etcd::connect(Config::new([bad])).await.unwrap_err();
        assert!(matches!(error, StoreError::Failed(_)), "{error:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_server_beside_a_live_one_is_passed_over() {
    let server = Server::start();
    let dead = format!("http://127.0.0.1:{}", free_port());
    let store: Shared =
        Etcd::connect(Config { connect_timeout: Duration::from_secs(60), ..Config::new([&dead, &server.client]) }).await.unwrap();
    for n in 0..20 {
        create(&store, &format!("/t/{n}"), "x").await;
    }
    assert_eq!(read_all(&store, "/t/", 7, 0).await.unwrap().0.len(), 20);
}

/// How many writes of one writer were acknowledged, and how many failed.
#[derive(Clone, Copy, Default)]
struct Count {
    acknowledged: usize,
    failed: usize,
}

const WRITERS: usize = 8;

/// Waits until each writer has more of these than it has now.
async fn more_of_each(counts: &mut watch::Receiver<[Count; WRITERS]>, what: &str, number: impl Fn(&Count) -> usize) {
    let before = *counts.borrow();
    let all = counts.wait_for(|now| now.iter().zip(&before).all(|(now, before)| number(now) > number(before)));
    tokio::time::timeout(Duration::from_secs(60), all).await.unwrap_or_else(|_| panic!("not every writer: {what}")).unwrap();
}

/// Writers that never stop, and a watch that is restarted when it breaks: no acknowledged write is lost or seen twice.
async fn through_an_outage(server: &mut Server, begin: impl AsyncFnOnce(&mut Server), end: impl FnOnce(&mut Server)) {
    let store = server.store().await;
    let start = store.revision().await.unwrap();
    let stop = CancellationToken::new();
    let (counting, mut counts) = watch::channel([Count::default(); WRITERS]);
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let (store, stop, counting) = (store.clone(), stop.clone(), counting.clone());
        writers.spawn(async move {
            let mut acknowledged = Vec::new();
            for n in 0.. {
                if stop.is_cancelled() {
                    break;
                }
                let key = format!("/t/{writer}/{n}");
                match store.put(&key, "x".into(), Expect::Absent, None).await {
                    Ok(Outcome::Done(revision)) => {
                        acknowledged.push((key, revision));
                        counting.send_modify(|counts| counts[writer].acknowledged += 1);
                    }
                    Ok(conflict) => panic!("{conflict:?}"),
                    Err(StoreError::Unavailable(_)) => {
                        counting.send_modify(|counts| counts[writer].failed += 1);
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                    Err(error) => panic!("{error}"),
                }
            }
            acknowledged
        });
    }
    let watching = store.clone();
    let (seen, mut changes) = tokio::sync::mpsc::unbounded_channel();
    let mut watcher = JoinSet::new();
    watcher.spawn(async move {
        let mut position = start;
        loop {
            let Ok(mut stream) = watching.watch("/t/", position).await else {
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            };
            while let Some(Ok(batch)) = stream.next().await {
                for change in batch.changes {
                    seen.send((change.key, change.revision)).unwrap();
                }
                position = batch.revision;
            }
        }
    });
    // Traffic before, during and after.
    let acknowledged = |count: &Count| count.acknowledged;
    more_of_each(&mut counts, "writes", acknowledged).await;
    changes.recv().await.unwrap();
    begin(server).await;
    more_of_each(&mut counts, "notices the outage", |count| count.failed).await;
    end(server);
    more_of_each(&mut counts, "writes again", acknowledged).await;
    stop.cancel();
    let acknowledged = writers.join_all().await.concat();
    let last = create(&store, "/t/last", "x").await;
    let (entries, _) = read_all(&store, "/t/", 500, 0).await.unwrap();
    let stored: HashSet<_> = entries.into_iter().map(|entry| (entry.key, entry.revision)).collect();
    for write in &acknowledged {
        assert!(stored.contains(write), "{write:?} was acknowledged and is lost");
    }
    // The watch missed and repeated nothing, even across the outage. Its first change was taken above.
    for change in Follower::new(&store, "/t/", start).await.until(last).await.unwrap().into_iter().skip(1) {
        let seen = tokio::time::timeout(Duration::from_secs(30), changes.recv()).await.expect("the watch goes on").unwrap();
        assert_eq!(seen, (change.key, change.revision));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn etcd_killed_and_restarted() {
    let mut server = Server::start();
    through_an_outage(&mut server, async |server| server.kill(), Server::run).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn etcd_hung_and_woken() {
    let mut server = Server::start();
    let store = server.store().await;
    let hang = async |server: &mut Server| {
        server.signal(Signal::SIGSTOP);
        let error =
            tokio::time::timeout(Duration::from_secs(20), store.get("/t/a")).await.expect("no answer is an answer soon").unwrap_err();
        assert!(matches!(error, StoreError::Unavailable(_)) && error.to_string().contains("no answer"), "{error}");
    };
    through_an_outage(&mut server, hang, |server| server.signal(Signal::SIGCONT)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_share_leases() {
    let (store, server) = open().await;
    let mut tasks = JoinSet::new();
    for writer in 0..16 {
        let store = store.clone();
        tasks.spawn(async move {
            for n in 0..100 {
                done(store.put(&format!("/t/{writer}/{n}"), "x".into(), Expect::Absent, Some(Duration::from_secs(3600))).await);
            }
        });
    }
    tasks.join_all().await;
    let leases = server.etcdctl(&["lease", "list"]);
    assert!(leases.contains("found 2 leases"), "1600 keys, 1000 a lease: {leases}");
    // A lease that was revoked is replaced.
    for lease in leases.lines().skip(1) {
        server.etcdctl(&["lease", "revoke", lease.trim()]);
    }
    done(store.put("/t/more", "x".into(), Expect::Absent, Some(Duration::from_secs(3600))).await);
    assert_eq!(read_all(&store, "/t/", 100, 0).await.unwrap().0.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn several_servers_compact_one_etcd() {
    let server = Server::start();
    let interval = Duration::from_millis(500);
    let config = Config { compaction_interval: Some(interval), ..server.config() };
    let stores: [Shared; 2] = [Etcd::connect(config.clone()).await.unwrap(), Etcd::connect(config).await.unwrap()];
    let first = create(&stores[0], "/t/first", "x").await;
    let forgotten = async {
        let mut last = first;
        for n in 0.. {
            match stores[1].range("/t/", "", 1, first).await {
                Ok(_) => last = create(&stores[n % 2], &format!("/t/{n}"), "x").await,
                Err(StoreError::Compacted { asked, oldest }) => return (asked, oldest, last),
                Err(error) => panic!("{error}"),
            }
        }
        unreachable!()
    };
    let (asked, oldest, last) = tokio::time::timeout(Duration::from_secs(60), forgotten).await.expect("old history is forgotten");
    assert_eq!(asked, first);
    assert!(first < oldest && oldest <= last, "{first} {oldest} {last}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_etcd_says_so() {
    let server = Server::with("http", &["--quota-backend-bytes", "4000000"]);
    let store = server.store().await;
    let value = "x".repeat(500_000);
    let mut written = 0;
    let full = loop {
        match store.put(&format!("/t/{written}"), value.clone().into(), Expect::Absent, None).await {
            Ok(Outcome::Done(_)) => written += 1,
            other => break other,
        }
    };
    assert!(matches!(full, Err(StoreError::Full(_))), "{full:?}");
    let kept: HashSet<_> = read_all(&store, "/t/", 3, 0).await.unwrap().0.into_iter().map(|entry| entry.key).collect();
    // etcd itself may apply the write that crosses its quota, and refuse it all the same.
    for n in 0..written {
        assert!(kept.contains(&format!("/t/{n}")), "{n} of {written}");
    }
    let refused = usize::from(kept.contains(&format!("/t/{written}")));
    assert_eq!(kept.len(), written + refused);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_stores_own_keys_are_not_seen() {
    let (store, server) = open().await;
    let start = store.revision().await.unwrap();
    let _watches = [Follower::new(&store, "/t/a/", start).await, Follower::new(&store, "/t/b/", start).await];
    for key in ["/t/a/1", "/t/b/1", "/t/c/1"] {
        create(&store, key, "x").await;
    }
    store.request_progress().await.unwrap();
    assert_eq!(server.etcdctl(&["get", "--prefix", "--keys-only", ""]).matches("km-progress").count(), 2, "this etcd needs them");
    assert_eq!(read_all(&store, "/t/", 1, 0).await.unwrap().0.len(), 3);
    let page = store.range("/t/a", "/t/a/2", 1, 0).await.unwrap();
    assert_eq!((page.entries, page.more), (vec![], false));
    let seen = Follower::new(&store, "/t/", start).await.take(3).await;
    assert_eq!(seen.iter().map(|change| change.key.as_str()).collect::<Vec<_>>(), ["/t/a/1", "/t/b/1", "/t/c/1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn revisions_are_read_together() {
    let (store, _server) = open().await;
    let mut tasks = JoinSet::new();
    for n in 0..200 {
        let store = Arc::clone(&store);
        tasks.spawn(async move {
            let written = create(&store, &format!("/t/{n}"), "x").await;
            assert!(store.revision().await.unwrap() >= written);
        });
    }
    // Callers that disappear do not cancel a shared read.
    for _ in 0..50 {
        let store = Arc::clone(&store);
        tasks.spawn(async move {
            let _ = tokio::time::timeout(Duration::from_micros(300), store.revision()).await;
        });
    }
    while let Some(result) = tasks.join_next().await {
        result.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_with_client_certificates() {
    let files = tempfile::tempdir().unwrap();
    let write = |name: &str, text: String| -> PathBuf {
        let path = files.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let mut params = CertificateParams::new(vec![]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let ca = write("ca.pem", issuer.pem());
    let issue = |name: &str| {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec!["127.0.0.1".into(), "localhost".into()]).unwrap().signed_by(&key, &issuer).unwrap();
        (write(&format!("{name}.pem"), certificate.pem()), write(&format!("{name}.key"), key.serialize_pem()))
    };
    let (server_identity, identity) = (issue("server"), issue("client"));
    let server = Server::with(
        "https",
        &[
            &format!("--cert-file={}", server_identity.0.display()),
            &format!("--key-file={}", server_identity.1.display()),
            &format!("--trusted-ca-file={}", ca.display()),
            "--client-cert-auth",
        ],
    );
    let tls = Tls { ca: Some(ca.clone()), identity: Some(identity) };
    let store: Shared = Etcd::connect(Config { tls: tls.clone(), ..server.config() }).await.unwrap();
    create(&store, "/t/a", "x").await;
    assert!(store.get("/t/a").await.unwrap().is_some());

    let stranger = Config { tls: Tls { ca: Some(ca), identity: None }, connect_timeout: Duration::from_millis(500), ..server.config() };
    assert!(matches!(Etcd::connect(stranger).await, Err(StoreError::Unavailable(_))));
    let missing = Config { tls: Tls { ca: Some("/none/ca.pem".into()), identity: None }, ..server.config() };
    let error = Etcd::connect(missing).await.unwrap_err().to_string();
    assert!(error.contains("/none/ca.pem"), "{error}");
}
