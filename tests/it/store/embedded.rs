//! Tests of only the embedded store: its directory, its files, and their failures.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use km::store::embedded::{Config, Embedded};
use km::store::{Expect, Outcome, StoreError};
use tempfile::TempDir;

use super::contract::{Follower, Shared, create, done, read_all, remove, update};

contract_tests!(open);

async fn open() -> (Shared, TempDir) {
    let dir = tempfile::tempdir().unwrap();
    (Embedded::open(Config::new(dir.path())).unwrap(), dir)
}

fn reopen(dir: &Path) -> Shared {
    Embedded::open(Config::new(dir)).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_survives_a_restart() {
    let (store, dir) = open().await;
    let start = store.revision().await.unwrap();
    let a = create(&store, "/t/a", "a").await;
    let a = update(&store, "/t/a", "b", a).await;
    let gone = create(&store, "/t/gone", "x").await;
    let last = remove(&store, "/t/gone", gone).await;
    let (before, history) =
        (read_all(&store, "/", 10, 0).await.unwrap(), Follower::new(&store, "/", start).await.until(last).await.unwrap());
    drop(store);

    let store = reopen(dir.path());
    assert_eq!(store.revision().await.unwrap(), last);
    assert_eq!(read_all(&store, "/", 10, 0).await.unwrap(), before);
    assert_eq!(Follower::new(&store, "/", start).await.until(last).await.unwrap(), history);
    assert_eq!(store.put("/t/a", "c".into(), Expect::At(a), None).await.unwrap(), Outcome::Done(last + 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn time_to_live_goes_on_while_closed() {
    let (store, dir) = open().await;
    let key = done(store.put("/t/a", "x".into(), Expect::Absent, Some(Duration::from_millis(300))).await);
    drop(store);
    let store = reopen(dir.path());
    let changes = Follower::new(&store, "/t/", key).await.take(1).await;
    assert_eq!((changes[0].key.as_str(), &changes[0].value), ("/t/a", &None));
}

#[tokio::test(flavor = "multi_thread")]
async fn closing_ends_watches_and_frees_the_directory() {
    let dir = tempfile::tempdir().unwrap();
    let store = Embedded::open(Config::new(dir.path())).unwrap();
    let shared: Shared = store.clone();
    create(&shared, "/t/a", "x").await;
    let mut follower = Follower::new(&shared, "/none/", 1).await;
    store.close().await;
    store.close().await;
    assert!(matches!(follower.next().await, Err(StoreError::Unavailable(_))));
    assert!(matches!(shared.get("/t/a").await, Err(StoreError::Unavailable(_))));
    assert!(matches!(shared.delete("/t/a", 1).await, Err(StoreError::Unavailable(_))));
    assert!(matches!(shared.watch("/t/a", 1).await, Err(StoreError::Unavailable(_))));
    assert!(reopen(dir.path()).get("/t/a").await.unwrap().is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn one_process_at_a_time() {
    let (_store, dir) = open().await;
    let error = Embedded::open(Config::new(dir.path())).unwrap_err().to_string();
    let expected = format!("{} is in use by another process: {}", dir.path().display(), std::process::id());
    assert!(error.contains(&expected), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn history_is_kept_in_bounds() {
    let dir = tempfile::tempdir().unwrap();
    let store: Shared = Embedded::open(Config { history_revisions: 10, ..Config::new(dir.path()) }).unwrap();
    let mut revision = create(&store, "/t/a", "x").await;
    let first = revision;
    for n in 0..30 {
        revision = update(&store, "/t/a", &n.to_string(), revision).await;
    }
    // Compaction takes effect with the next write at the latest.
    let oldest = match store.watch("/t/", first).await {
        Err(StoreError::Compacted { oldest, .. }) => oldest,
        other => panic!("{:?}", other.err()),
    };
    assert!((revision - 11..=revision - 9).contains(&oldest), "{oldest} of {revision}");
    assert_eq!(Follower::new(&store, "/t/", oldest).await.until(revision).await.unwrap().len() as u64, revision - oldest);

    let dir = tempfile::tempdir().unwrap();
    let store: Shared = Embedded::open(Config { history_age: Duration::from_millis(50), ..Config::new(dir.path()) }).unwrap();
    let first = create(&store, "/t/a", "x").await;
    let second = update(&store, "/t/a", "y", first).await;
    let forgotten = async {
        while store.range("/t/", "", 1, first).await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), forgotten).await.expect("old history is forgotten although nobody writes");
    assert_eq!(store.get("/t/a").await.unwrap().map(|entry| entry.revision), Some(second));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_watcher_reads_from_disk() {
    let (store, _dir) = open().await;
    let start = store.revision().await.unwrap();
    let mut slow = Follower::new(&store, "/t/", start).await;
    let value = "x".repeat(300_000);
    let mut last = 0;
    // More than is kept in memory.
    for n in 0..40 {
        last = create(&store, &format!("/t/{n}"), &value).await;
    }
    assert_eq!(slow.until(last).await.unwrap().len(), 40);
    let mut slower = Follower::new(&store, "/t/", start).await;
    store.compact(last).await.unwrap();
    assert!(matches!(slower.next().await, Err(StoreError::Compacted { .. })));
}

/// The files of the log, in order.
fn files(dir: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|it| it == "log"));
    files.sort();
    files
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_file_is_named() {
    let (store, dir) = open().await;
    for n in 0..100 {
        create(&store, &format!("/t/{n}"), &"x".repeat(3000)).await;
    }
    drop(store);
    let path = files(dir.path()).remove(0);
    let whole = std::fs::read(&path).unwrap();
    let flipped = |at: usize| {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        bytes
    };
    let damages: [(&str, Vec<u8>); 6] = [
        ("cut off", whole[..whole.len() / 2].to_vec()),
        ("nearly empty", whole[..100].to_vec()),
        ("another file", b"hello, I am not a database\n".repeat(1000)),
        ("zeroed header", [vec![0; 512], whole[512..].to_vec()].concat()),
        ("a bit of the header", flipped(30)),
        ("a bit of a value", flipped(100_000)),
    ];
    for (what, bytes) in damages {
        std::fs::write(&path, bytes).unwrap();
        let error = Embedded::open(Config::new(dir.path())).map(drop).expect_err(what).to_string();
        assert!(error.contains(&path.display().to_string()), "{what}: {error}");
    }
    std::fs::write(&path, whole).unwrap();
    assert_eq!(read_all(&reopen(dir.path()), "/t/", 1000, 0).await.unwrap().0.len(), 100);
}

/// The next file of the log is made while the present one fills, and nothing is left of it when the store is closed.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_file_is_followed_by_the_prepared_one() {
    let (store, dir) = open().await;
    let spare = dir.path().join("spare");
    let value = "x".repeat(500_000);
    let mut written = 0..;
    let mut write = async || create(&store, &format!("/t/{:03}", written.next().unwrap()), &value).await;
    while !spare.exists() {
        assert_eq!(files(dir.path()).len(), 1, "it comes before the file is full");
        write().await;
    }
    let prepared = std::fs::metadata(&spare).unwrap().ino();
    while files(dir.path()).len() == 1 {
        write().await;
    }
    assert_eq!(std::fs::metadata(&files(dir.path())[1]).unwrap().ino(), prepared);
    while !spare.exists() {
        write().await;
    }
    let count = written.next().unwrap();
    drop(store);
    assert!(!spare.exists());
    // As a process leaves it that is killed.
    std::fs::write(&spare, "half").unwrap();
    let store = reopen(dir.path());
    assert!(!spare.exists());
    assert_eq!(read_all(&store, "/t/", 1000, 0).await.unwrap().0.len(), count);
}

/// Overwrites a few keys until several files are full, and waits until they are replaced by one.
#[tokio::test(flavor = "multi_thread")]
async fn room_is_given_back() {
    let dir = tempfile::tempdir().unwrap();
    let config = Config { history_revisions: 5, ..Config::new(dir.path()) };
    let store: Shared = Embedded::open(config.clone()).unwrap();
    let value = "x".repeat(500_000);
    let kept = create(&store, "/t/kept", "since the beginning").await;
    let gone = create(&store, "/t/gone", &value).await;
    remove(&store, "/t/gone", gone).await;
    let mut churned = create(&store, "/t/churned", &value).await;
    let few = async {
        let mut most = 0;
        loop {
            churned = update(&store, "/t/churned", &value, churned).await;
            let count = files(dir.path()).len();
            if count < most {
                break;
            }
            most = most.max(count);
        }
    };
    tokio::time::timeout(Duration::from_secs(60), few).await.expect("files are replaced");
    let expected = [("/t/churned", churned), ("/t/kept", kept)].map(|(key, revision)| (key.to_owned(), revision));
    let check = async |store: &Shared| {
        let (entries, _) = read_all(store, "/", 10, 0).await.unwrap();
        assert_eq!(entries.iter().map(|entry| (entry.key.clone(), entry.revision)).collect::<Vec<_>>(), expected);
        assert_eq!(entries[0].value.len(), value.len());
        assert_eq!(entries[1].value, "since the beginning");
    };
    check(&store).await;
    let head = store.revision().await.unwrap();
    drop(store);
    // Also the leftovers of a process that ended in the middle of this: its unfinished file, and a replaced one.
    let first = files(dir.path()).remove(0);
    std::fs::write(dir.path().join("unfinished"), "half").unwrap();
    std::fs::copy(&first, dir.path().join(format!("{:020}.log", gone + 1))).unwrap();
    let store: Shared = Embedded::open(config).unwrap();
    check(&store).await;
    assert_eq!(store.revision().await.unwrap(), head);
    assert!(!dir.path().join("unfinished").exists());
    assert!(matches!(store.range("/t/", "", 1, kept).await, Err(StoreError::Compacted { .. })));
}

/// A directory with little room, which needs root to make.
struct SmallDisk(TempDir);

impl SmallDisk {
    fn new(bytes: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let status = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={bytes}"), "tmpfs"])
            .arg(dir.path())
            .status()
            .expect("mount runs");
        assert!(status.success(), "mounting a tmpfs (are these tests run as root?)");
        Self(dir)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_loses_nothing() {
    let disk = SmallDisk::new(8 << 20);
    let dir = disk.0.path().join("store");
    let store = reopen(&dir);
    let ballast = disk.0.path().join("ballast");
    std::fs::write(&ballast, vec![0; 2 << 20]).unwrap();
    let start = store.revision().await.unwrap();
    let value = "x".repeat(100_000);
    let mut acknowledged = Vec::new();
    let full = loop {
        let key = format!("/t/{:04}", acknowledged.len());
        match store.put(&key, value.clone().into(), Expect::Absent, None).await {
            Ok(Outcome::Done(revision)) => acknowledged.push((key, revision)),
            other => break other,
        }
    };
    assert!(matches!(full, Err(StoreError::Full(_))), "{full:?}");
    let check = async |store: &Shared, acknowledged: &[(String, u64)]| {
        let (entries, _) = read_all(store, "/t/", 1000, 0).await.unwrap();
        assert_eq!(entries.into_iter().map(|entry| (entry.key, entry.revision)).collect::<Vec<_>>(), acknowledged);
    };
    check(&store, &acknowledged).await;
    for _ in 0..5 {
        let again = store.put("/t/more", value.clone().into(), Expect::Absent, None).await;
        assert!(matches!(again, Err(StoreError::Full(_))), "{again:?}");
    }
    check(&store, &acknowledged).await;

    std::fs::remove_file(ballast).unwrap();
    let more = create(&store, "/t/more", &value).await;
    acknowledged.push(("/t/more".into(), more));
    check(&store, &acknowledged).await;
    let changes = Follower::new(&store, "/t/", start).await.until(more).await.unwrap();
    assert_eq!(changes.into_iter().map(|change| (change.key, change.revision)).collect::<Vec<_>>(), acknowledged);
    drop(store);
    check(&reopen(&dir), &acknowledged).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_writers_share_commits() {
    let (store, _dir) = open().await;
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..500 {
        let store = Arc::clone(&store);
        tasks.spawn(async move { create(&store, &format!("/t/{n}"), "x").await });
    }
    let mut revisions = tasks.join_all().await;
    revisions.sort_unstable();
    let first = revisions[0];
    assert_eq!(revisions, (first..first + 500).collect::<Vec<_>>());
}
