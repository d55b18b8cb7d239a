//! The contract of every store, from its callers' view.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use km::object::Revision;
use km::store::{Batch, Change, Entry, Expect, Outcome, Result, Store, StoreError};
use tokio::task::JoinSet;
use tokio::time::timeout;

pub(super) type Shared = Arc<dyn Store>;

/// Longer than anything here may take, even on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

pub(super) fn done(outcome: Result<Outcome>) -> Revision {
    match outcome {
        Ok(Outcome::Done(revision)) => revision,
        other => panic!("not written: {other:?}"),
    }
}

pub(super) async fn create(store: &Shared, key: &str, value: &str) -> Revision {
    done(store.put(key, Bytes::copy_from_slice(value.as_bytes()), Expect::Absent, None).await)
}

pub(super) async fn update(store: &Shared, key: &str, value: &str, at: Revision) -> Revision {
    done(store.put(key, Bytes::copy_from_slice(value.as_bytes()), Expect::At(at), None).await)
}

pub(super) async fn remove(store: &Shared, key: &str, at: Revision) -> Revision {
    done(store.delete(key, at).await)
}

fn entry(key: &str, value: &str, revision: Revision) -> Entry {
    Entry { key: key.into(), value: Bytes::copy_from_slice(value.as_bytes()), revision }
}

fn change(key: &str, value: Option<&str>, revision: Revision) -> Change {
    Change { key: key.into(), value: value.map(|value| Bytes::copy_from_slice(value.as_bytes())), revision }
}

/// Everything below a prefix as of a revision, read in pages of `limit`.
pub(super) async fn read_all(store: &Shared, prefix: &str, limit: usize, at: Revision) -> Result<(Vec<Entry>, Revision)> {
    let mut page = store.range(prefix, "", limit, at).await?;
    let (mut entries, revision) = (Vec::new(), page.revision);
    loop {
        assert!(page.entries.len() <= limit);
        assert_eq!(page.revision, revision);
        entries.append(&mut page.entries);
        if !page.more {
            return Ok((entries, revision));
        }
        let next = format!("{}\0", entries.last().expect("a page with more has entries").key);
        page = store.range(prefix, &next, limit, revision).await?;
        assert!(!page.entries.is_empty());
    }
}

/// A watch that checks the invariants of every watch.
pub(super) struct Follower {
    stream: BoxStream<'static, Result<Batch>>,
    pub(super) revision: Revision,
}

impl Follower {
    pub(super) async fn new(store: &Shared, prefix: &str, after: Revision) -> Self {
        let stream = store.watch(prefix, after).await.expect("the watch begins");
        Self { stream, revision: after }
    }

    /// The next batch, empty or not.
    pub(super) async fn next(&mut self) -> Result<Batch> {
        let batch = timeout(PATIENCE, self.stream.next()).await.expect("a batch in time").expect("a watch ends with an error")?;
        let mut last = self.revision;
        for change in &batch.changes {
            assert!(change.revision > self.revision, "{change:?} again, or a revision in two batches, after {}", self.revision);
            assert!(change.revision >= last, "{change:?} comes after {last}");
            last = change.revision;
        }
        assert!(batch.revision >= last, "{batch:?}");
        self.revision = batch.revision;
        Ok(batch)
    }

    /// All changes up to one of this revision.
    pub(super) async fn until(&mut self, revision: Revision) -> Result<Vec<Change>> {
        let mut changes = Vec::new();
        while self.revision < revision {
            changes.extend(self.next().await?.changes);
        }
        Ok(changes)
    }

    /// Exactly this many changes.
    pub(super) async fn take(&mut self, count: usize) -> Vec<Change> {
        let mut changes = Vec::new();
        while changes.len() < count {
            changes.extend(self.next().await.expect("the watch goes on").changes);
        }
        assert_eq!(changes.len(), count, "{changes:?}");
        changes
    }
}

pub(super) async fn an_empty_store(store: Shared) {
    let revision = store.revision().await.unwrap();
    assert!(revision >= 1, "0 means the newest to a reader");
    assert_eq!(store.get("/t/a").await.unwrap(), None);
    let page = store.range("/t/", "", 10, 0).await.unwrap();
    assert_eq!((page.entries, page.revision, page.more), (vec![], revision, false));
    assert_eq!(store.delete("/t/a", 1).await.unwrap(), Outcome::Conflict(None));
    assert_eq!(store.put("/t/a", Bytes::new(), Expect::At(1), None).await.unwrap(), Outcome::Conflict(None));
    assert_eq!(store.revision().await.unwrap(), revision, "what was not written has no revision");
}

pub(super) async fn compare_and_swap(store: Shared) {
    let first = create(&store, "/t/a", "one").await;
    let current = Some(entry("/t/a", "one", first));
    assert_eq!(store.get("/t/a").await.unwrap(), current);
    let conflicts = [
        store.put("/t/a", "two".into(), Expect::Absent, None).await,
        store.put("/t/a", "two".into(), Expect::At(first - 1), None).await,
        store.put("/t/a", "two".into(), Expect::At(first + 1), None).await,
        store.delete("/t/a", first - 1).await,
        store.delete("/t/a", first + 1).await,
    ];
    for conflict in conflicts {
        assert_eq!(conflict.unwrap(), Outcome::Conflict(current.clone()));
    }
    assert_eq!(store.revision().await.unwrap(), first);

    let second = update(&store, "/t/a", "two", first).await;
    assert_eq!(store.get("/t/a").await.unwrap(), Some(entry("/t/a", "two", second)));
    assert_eq!(store.delete("/t/a", first).await.unwrap(), Outcome::Conflict(Some(entry("/t/a", "two", second))));

    let third = remove(&store, "/t/a", second).await;
    assert!(first < second && second < third);
    assert_eq!(store.get("/t/a").await.unwrap(), None);
    assert_eq!(store.delete("/t/a", second).await.unwrap(), Outcome::Conflict(None));
    assert_eq!(store.delete("/t/a", third).await.unwrap(), Outcome::Conflict(None));
    assert_eq!(store.put("/t/a", "x".into(), Expect::At(third), None).await.unwrap(), Outcome::Conflict(None));

    let fourth = create(&store, "/t/a", "").await;
    assert_eq!(store.get("/t/a").await.unwrap(), Some(entry("/t/a", "", fourth)));
}

pub(super) async fn revisions_increase(store: Shared) {
    let mut tasks = JoinSet::new();
    for writer in 0..8 {
        let store = store.clone();
        tasks.spawn(async move {
            let mut revisions = Vec::new();
            for n in 0..20 {
                let revision = create(&store, &format!("/t/{writer}/{n}"), "x").await;
                assert!(store.revision().await.unwrap() >= revision);
                assert!(revisions.last() < Some(&revision));
                revisions.push(revision);
            }
            revisions
        });
    }
    let mut all = tasks.join_all().await.concat();
    all.sort_unstable();
    assert!(all.windows(2).all(|pair| pair[0] < pair[1]), "a revision twice");
    assert_eq!(store.revision().await.unwrap(), all[all.len() - 1]);
}

pub(super) async fn ranges(store: Shared) {
    let mut written = Vec::new();
    for key in ["/t/a", "/t/a/1", "/t/a/2", "/t/a/20", "/t/a/ä", "/t/ab", "/t/b/1"] {
        written.push(entry(key, "v", create(&store, key, "v").await));
    }
    let head = store.revision().await.unwrap();
    for (prefix, start, limit, expected, more) in [
        ("/t/a/", "", 10, 1..5, false),
        ("/t/a/", "", 4, 1..5, false),
        ("/t/a/", "", 3, 1..4, true),
        ("/t/a/", "/t/a/2", 10, 2..5, false),
        ("/t/a/", "/t/a/2\0", 1, 3..4, true),
        ("/t/a/", "/t/a", 1, 1..2, true),
        ("/t/a/", "/t/b", 10, 0..0, false),
        ("/t/a", "", 10, 0..6, false),
        ("/t/c", "", 10, 0..0, false),
        ("/", "", 10, 0..7, false),
        ("", "", 10, 0..7, false),
        ("", "/t/ab", 10, 5..7, false),
        ("/t/b/1", "", 10, 6..7, false),
    ] {
        let page = store.range(prefix, start, limit, 0).await.unwrap();
        assert_eq!((&page.entries[..], page.more), (&written[expected], more), "{prefix:?} from {start:?}, {limit}");
        assert_eq!(page.revision, head);
    }
}

pub(super) async fn paging_is_consistent(store: Shared) {
    let mut expected = Vec::new();
    for n in 0..25 {
        let key = format!("/t/{n:02}");
        let revision = create(&store, &key, "old").await;
        expected.push(entry(&key, "old", revision));
    }
    let first = store.range("/t/", "", 7, 0).await.unwrap();
    assert!(first.more);
    for (n, old) in expected.iter().enumerate() {
        match n % 3 {
            0 => update(&store, &old.key, "new", old.revision).await,
            1 => remove(&store, &old.key, old.revision).await,
            _ => create(&store, &format!("{}-more", old.key), "new").await,
        };
    }
    let (entries, revision) = read_all(&store, "/t/", 7, first.revision).await.unwrap();
    assert_eq!((entries, revision), (expected, first.revision));
    assert_eq!(store.range("/t/", "", 100, 0).await.unwrap().entries.len(), 25);
}

pub(super) async fn the_past_can_be_read(store: Shared) {
    let (a1, b1) = (create(&store, "/t/a", "a1").await, create(&store, "/t/b", "b1").await);
    let a2 = update(&store, "/t/a", "a2", a1).await;
    let b2 = remove(&store, "/t/b", b1).await;
    let b3 = create(&store, "/t/b", "b3").await;
    let a3 = remove(&store, "/t/a", a2).await;
    for (at, expected) in [
        (a1, vec![entry("/t/a", "a1", a1)]),
        (b1, vec![entry("/t/a", "a1", a1), entry("/t/b", "b1", b1)]),
        (a2, vec![entry("/t/a", "a2", a2), entry("/t/b", "b1", b1)]),
        (b2, vec![entry("/t/a", "a2", a2)]),
        (b3, vec![entry("/t/a", "a2", a2), entry("/t/b", "b3", b3)]),
        (a3, vec![entry("/t/b", "b3", b3)]),
    ] {
        let page = store.range("/t/", "", 10, at).await.unwrap();
        assert_eq!((page.entries, page.revision, page.more), (expected, at, false), "at {at}");
    }
    let future = store.range("/t/", "", 10, a3 + 100).await;
    assert!(matches!(future, Err(StoreError::Failed(_))), "{future:?}");
}

pub(super) async fn large_values(store: Shared) {
    let value = "x".repeat(1 << 20);
    let mut follower = Follower::new(&store, "/t/", store.revision().await.unwrap()).await;
    for n in 0..8 {
        create(&store, &format!("/t/{n}"), &value).await;
    }
    assert_eq!(store.range("/t/", "", 100, 0).await.unwrap().entries.len(), 8);
    assert!(follower.take(8).await.iter().all(|change| change.value.as_deref() == Some(value.as_bytes())));
    let mut late = Follower::new(&store, "/t/", 1).await;
    assert_eq!(late.take(8).await.len(), 8);
}

pub(super) async fn compaction(store: Shared) {
    let a1 = create(&store, "/t/a", "a1").await;
    let b1 = create(&store, "/t/b", "b1").await;
    let a2 = update(&store, "/t/a", "a2", a1).await;
    let b2 = remove(&store, "/t/b", b1).await;
    let c1 = create(&store, "/t/c", "c1").await;
    let b3 = create(&store, "/t/b", "b3").await;
    store.compact(a2).await.unwrap();

    for old in [a1, b1] {
        let range = store.range("/t/", "", 10, old).await;
        assert!(matches!(range, Err(StoreError::Compacted { asked, oldest }) if asked == old && oldest == a2), "{range:?}");
        let error = match store.watch("/t/", old).await {
            Err(error) => error,
            Ok(mut stream) => timeout(PATIENCE, stream.next()).await.unwrap().unwrap().unwrap_err(),
        };
        assert!(matches!(error, StoreError::Compacted { asked, oldest } if asked == old && oldest == a2), "{error:?}");
    }
    let kept = store.range("/t/", "", 10, a2).await.unwrap();
    assert_eq!(kept.entries, [entry("/t/a", "a2", a2), entry("/t/b", "b1", b1)]);
    let changes = Follower::new(&store, "/t/", a2).await.take(3).await;
    assert_eq!(changes, [change("/t/b", None, b2), change("/t/c", Some("c1"), c1), change("/t/b", Some("b3"), b3)]);

    // Compacting compacted history is not an error.
    store.compact(a1).await.unwrap();
    store.compact(a2).await.unwrap();
    store.compact(b3).await.unwrap();
    let (entries, _) = read_all(&store, "/t/", 10, 0).await.unwrap();
    assert_eq!(entries, [entry("/t/a", "a2", a2), entry("/t/b", "b3", b3), entry("/t/c", "c1", c1)]);
    let a3 = update(&store, "/t/a", "a3", a2).await;
    assert_eq!(Follower::new(&store, "/t/", b3).await.take(1).await, [change("/t/a", Some("a3"), a3)]);
}

pub(super) async fn watching(store: Shared) {
    let before = create(&store, "/t/before", "x").await;
    let mut follower = Follower::new(&store, "/t/", before).await;
    let a1 = create(&store, "/t/a", "a1").await;
    assert_eq!(follower.take(1).await, [change("/t/a", Some("a1"), a1)]);
    let a2 = update(&store, "/t/a", "a2", a1).await;
    let a3 = remove(&store, "/t/a", a2).await;
    let a4 = create(&store, "/t/a", "").await;
    let expected = [change("/t/a", Some("a2"), a2), change("/t/a", None, a3), change("/t/a", Some(""), a4)];
    assert_eq!(follower.take(3).await, expected);
}

pub(super) async fn watch_resumes_anywhere(store: Shared) {
    let start = store.revision().await.unwrap();
    let mut history = Vec::new();
    let mut at = BTreeMap::new();
    for n in 0..30 {
        let key = format!("/t/{}", n % 4);
        let (value, revision) = match at.remove(&key) {
            Some(revision) if n % 3 == 0 => (None, remove(&store, &key, revision).await),
            Some(revision) => (Some("y"), update(&store, &key, "y", revision).await),
            None => (Some("x"), create(&store, &key, "x").await),
        };
        if value.is_some() {
            at.insert(key.clone(), revision);
        }
        history.push(change(&key, value, revision));
    }
    for after in start..=history[history.len() - 1].revision {
        let expected: Vec<_> = history.iter().filter(|change| change.revision > after).cloned().collect();
        assert_eq!(Follower::new(&store, "/t/", after).await.take(expected.len()).await, expected, "after {after}");
    }
}

pub(super) async fn watch_under_concurrent_writers(store: Shared) {
    const WRITERS: usize = 8;
    const WRITES: usize = 60;
    let start = store.revision().await.unwrap();
    let mut early = Follower::new(&store, "/t/", start).await;
    let mut tasks = JoinSet::new();
    for writer in 0..WRITERS {
        let store = store.clone();
        tasks.spawn(async move {
            let mut acknowledged = Vec::new();
            let mut n = 0;
            while acknowledged.len() < WRITES {
                n += 1;
                // Keys that the writers fight for.
                let key = format!("/t/{}", (writer + n) % 5);
                let value = format!("{writer}-{n}");
                let outcome = match store.get(&key).await.unwrap() {
                    None => store.put(&key, value.clone().into(), Expect::Absent, None).await,
                    Some(entry) if n % 4 == 0 => {
                        let outcome = store.delete(&key, entry.revision).await.unwrap();
                        if let Outcome::Done(revision) = outcome {
                            acknowledged.push(change(&key, None, revision));
                        }
                        continue;
                    }
                    Some(entry) => store.put(&key, value.clone().into(), Expect::At(entry.revision), None).await,
                };
                if let Outcome::Done(revision) = outcome.unwrap() {
                    acknowledged.push(change(&key, Some(&value), revision));
                }
            }
            acknowledged
        });
    }
    // Some watches begin while the writers are at it, from the start and from the middle.
    let live = early.take_some(100).await;
    let mut late = Follower::new(&store, "/t/", start).await;
    let mut middle = Follower::new(&store, "/t/", live[live.len() / 2].revision).await;

    let mut expected: Vec<Change> = tasks.join_all().await.concat();
    expected.sort_by_key(|change| change.revision);
    let head = expected[expected.len() - 1].revision;
    let mut seen = live.clone();
    seen.extend(early.until(head).await.unwrap());
    assert_eq!(seen, expected);
    assert_eq!(late.until(head).await.unwrap(), expected);
    let from = live[live.len() / 2].revision;
    let rest: Vec<_> = expected.into_iter().filter(|change| change.revision > from).collect();
    assert_eq!(middle.until(head).await.unwrap(), rest);
}

impl Follower {
    /// At least this many changes.
    async fn take_some(&mut self, count: usize) -> Vec<Change> {
        let mut changes = Vec::new();
        while changes.len() < count {
            changes.extend(self.next().await.expect("the watch goes on").changes);
        }
        changes
    }
}

pub(super) async fn watch_of_one_prefix(store: Shared) {
    let start = store.revision().await.unwrap();
    let mut follower = Follower::new(&store, "/t/a/", start).await;
    let mut expected = Vec::new();
    for n in 0..10 {
        for key in ["/t/a", "/t/a/", "/t/aa/", "/t/b/", "/s/a/", "/t/A/"] {
            let key = format!("{key}{n}");
            let revision = create(&store, &key, "x").await;
            if key.starts_with("/t/a/") {
                expected.push(change(&key, Some("x"), revision));
            }
        }
    }
    assert_eq!(follower.take(10).await, expected);
    assert_eq!(Follower::new(&store, "/t/a/", start).await.take(10).await, expected);
}

pub(super) async fn progress(store: Shared) {
    let start = store.revision().await.unwrap();
    let mut idle = Follower::new(&store, "/idle/", start).await;
    let mut busy = Follower::new(&store, "/t/", start).await;
    let head = create(&store, "/t/a", "x").await;
    for follower in [&mut idle, &mut busy] {
        while follower.revision < head {
            store.request_progress().await.unwrap();
            follower.next().await.unwrap();
        }
    }
    // A watch that is up to date reports that again.
    store.request_progress().await.unwrap();
    let batch = idle.next().await.unwrap();
    assert!(batch.changes.is_empty() && batch.revision >= head, "{batch:?}");
    // Later changes do not count as delivered.
    let next = create(&store, "/idle/a", "x").await;
    assert_eq!(idle.until(next).await.unwrap(), [change("/idle/a", Some("x"), next)]);
}

pub(super) async fn progress_never_overtakes(store: Shared) {
    let start = store.revision().await.unwrap();
    let mut follower = Follower::new(&store, "/t/", start).await;
    let mut writers = JoinSet::new();
    for writer in 0..4 {
        let store = store.clone();
        writers.spawn(async move {
            for n in 0..100 {
                create(&store, &format!("/{}/{writer}-{n}", if n % 2 == 0 { "t" } else { "other" }), "x").await;
            }
        });
    }
    let asking = store.clone();
    let mut asker = JoinSet::new();
    asker.spawn(async move {
        loop {
            asking.request_progress().await.unwrap();
            // Some stores complete at once here.
            tokio::task::yield_now().await;
        }
    });
    let mut seen = 0;
    while seen < 200 {
        seen += follower.next().await.unwrap().changes.len();
    }
    writers.join_all().await;
    asker.shutdown().await;
}

pub(super) async fn time_to_live(store: Shared) {
    let ttl = Some(Duration::from_secs(2));
    let put = async |key: &str, expect, ttl| done(store.put(key, "x".into(), expect, ttl).await);
    let mut follower = Follower::new(&store, "/t/", store.revision().await.unwrap()).await;
    let short = put("/t/short", Expect::Absent, ttl).await;
    let kept = put("/t/kept", Expect::Absent, ttl).await;
    let kept = put("/t/kept", Expect::At(kept), None).await;
    let gone = put("/t/gone", Expect::Absent, ttl).await;
    let gone = remove(&store, "/t/gone", gone).await;
    let long = put("/t/long", Expect::Absent, Some(Duration::from_secs(3600))).await;
    let changes = follower.until(long).await.unwrap();
    assert_eq!(changes.len(), 6, "{changes:?}");
    assert_eq!(store.get("/t/short").await.unwrap().map(|entry| entry.revision), Some(short));

    let expired = follower.take(1).await;
    assert_eq!(expired, [change("/t/short", None, expired[0].revision)]);
    assert!(expired[0].revision > gone);
    let last = create(&store, "/t/last", "x").await;
    assert_eq!(follower.until(last).await.unwrap(), [change("/t/last", Some("x"), last)]);
    let (entries, _) = read_all(&store, "/t/", 10, 0).await.unwrap();
    assert_eq!(entries, [entry("/t/kept", "x", kept), entry("/t/last", "x", last), entry("/t/long", "x", long)]);
    // Updating with a new time to live puts the end off.
    let again = put("/t/short", Expect::Absent, ttl).await;
    let put_off = put("/t/short", Expect::At(again), Some(Duration::from_secs(3600))).await;
    let other = put("/t/other", Expect::Absent, ttl).await;
    assert_eq!(follower.until(other).await.unwrap().len(), 3);
    assert_eq!(follower.take(1).await[0].key, "/t/other");
    assert_eq!(store.get("/t/short").await.unwrap().map(|entry| entry.revision), Some(put_off));
}

pub(super) async fn cancelled_calls(store: Shared) {
    // If a caller disappears, its write is done or not done, and the store stays consistent.
    for n in 0..50 {
        let key = format!("/t/{n}");
        let put = store.put(&key, "x".into(), Expect::Absent, None);
        let _ = timeout(Duration::from_micros(n * 20), put).await;
    }
    let last = create(&store, "/t/last", "x").await;
    let (entries, revision) = read_all(&store, "/t/", 100, 0).await.unwrap();
    assert!(revision >= last);
    let changes = Follower::new(&store, "/t/", 1).await.until(revision).await.unwrap();
    let mut written: Vec<_> = changes.into_iter().map(|change| (change.key, change.revision)).collect();
    written.sort();
    assert_eq!(written, entries.into_iter().map(|entry| (entry.key, entry.revision)).collect::<Vec<_>>());
}
