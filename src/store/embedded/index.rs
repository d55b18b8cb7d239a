//! The embedded store's state in memory: the keys, their changes, and where their values are in the log. Pure: no files, no clock.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::record::{Record, What, put_size};
use crate::object::Revision;

/// An empty store has this revision, as in etcd: 0 means "the newest" to readers.
pub(super) const FIRST_HEAD: Revision = 1;

/// The location of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Number of the file, unique within the process: see [`super::log::Log`].
    pub(super) segment: u32,
    pub(super) length: u32,
    pub(super) offset: u64,
}

impl Place {
    /// The location of a record's value.
    pub(super) fn of(record: &Record<'_>, segment: u32, offset: u64) -> Self {
        let length = if let What::Put { value, .. } = record.what { value.len() as u32 } else { 0 };
        Self { segment, length, offset }
    }
}

/// The state of a key since a revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Version {
    pub(super) revision: Revision,
    /// `None`: deleted.
    pub(super) place: Option<Place>,
    /// Milliseconds of Unix time, 0 for never.
    pub(super) expires: u64,
}

#[derive(Debug)]
struct Versions {
    newest: Version,
    /// Ascending; only those that a reader may still request.
    older: Vec<Version>,
}

impl Versions {
    fn at(&self, revision: Revision) -> Option<Version> {
        if self.newest.revision <= revision {
            return Some(self.newest);
        }
        let upto = self.older.partition_point(|version| version.revision <= revision);
        self.older[..upto].last().copied()
    }
}

/// The whole store, except the values.
#[derive(Debug)]
pub(super) struct Index {
    keys: BTreeMap<Arc<str>, Versions>,
    /// The keys of the changes after `forgotten`: one per revision, without gaps.
    changes: VecDeque<Arc<str>>,
    /// Expiry times: at the time, the key is deleted if the revision is still its newest.
    expiry: BTreeMap<(u64, Revision), Arc<str>>,
    head: Revision,
    forgotten: Revision,
    /// The size in bytes of the log without superfluous records.
    live: u64,
}

/// Part of a range of keys.
#[derive(Debug)]
pub(super) struct Keys {
    pub(super) found: Vec<(Arc<str>, Revision, Place)>,
    pub(super) more: bool,
}

impl Index {
    /// An index without any history up to `forgotten`.
    pub(super) fn new(forgotten: Revision) -> Self {
        let (keys, changes, expiry) = Default::default();
        Self { keys, changes, expiry, head: forgotten, forgotten, live: 0 }
    }

    /// The newest revision.
    pub(super) fn head(&self) -> Revision {
        self.head
    }

    /// The oldest revision whose state can still be read.
    pub(super) fn forgotten(&self) -> Revision {
        self.forgotten
    }

    pub(super) fn live(&self) -> u64 {
        self.live
    }

    /// Applies a record whose value is at `place`. Up to the revision that the index began with, records may be missing; after it, each
    /// change has the next revision.
    ///
    /// # Errors
    /// If the record is not the next one.
    pub(super) fn apply(&mut self, record: &Record<'_>, place: Place) -> Result<(), Gap> {
        let revision = record.revision;
        let (key, version) = match record.what {
            What::Forget => {
                self.forget(revision);
                return Ok(());
            }
            What::Put { key, expires, .. } => (key, Version { revision, place: Some(place), expires }),
            What::Delete { key } => (key, Version { revision, place: None, expires: 0 }),
        };
        let history = revision > self.forgotten;
        if history && revision != self.head + 1 {
            return Err(Gap { expected: self.head + 1, found: revision });
        }
        let key: Arc<str> = match self.keys.get_key_value(key) {
            Some((key, _)) => key.clone(),
            None => key.into(),
        };
        self.live += live_bytes(&key, &version);
        if version.expires != 0 {
            self.expiry.insert((version.expires, revision), key.clone());
        }
        match self.keys.get_mut(&key) {
            Some(versions) => versions.older.push(std::mem::replace(&mut versions.newest, version)),
            None => {
                self.keys.insert(key.clone(), Versions { newest: version, older: Vec::new() });
            }
        }
        if history {
            self.head = revision;
            self.changes.push_back(key);
        }
        Ok(())
    }

    /// Forgets the history before `revision`, at most up to the newest revision.
    pub(super) fn forget(&mut self, revision: Revision) {
        let revision = revision.min(self.head);
        while self.forgotten < revision {
            self.forgotten += 1;
            if let Some(key) = self.changes.pop_front() {
                self.prune(&key);
            }
        }
    }

    /// Drops the versions of a key that no revision from `forgotten` on shows.
    fn prune(&mut self, key: &Arc<str>) {
        let Some(versions) = self.keys.get_mut(key) else { return };
        let all = versions.older.iter().chain([&versions.newest]);
        // The last of these is the oldest readable state, unless it is a deletion.
        let passed = all.clone().take_while(|version| version.revision <= self.forgotten).count();
        let shown = all.clone().nth(passed.saturating_sub(1)).is_some_and(|version| version.place.is_some());
        let dead = passed - usize::from(passed > 0 && shown);
        self.live -= all.take(dead).map(|version| live_bytes(key, version)).sum::<u64>();
        if dead > versions.older.len() {
            self.keys.remove(key);
        } else {
            versions.older.drain(..dead);
            if versions.older.is_empty() {
                // Free the vector: most keys have one version most of the time.
                versions.older = Vec::new();
            }
        }
    }

    /// The current state of an existing key.
    pub(super) fn get(&self, key: &str) -> Option<(Revision, Place)> {
        let newest = self.keys.get(key)?.newest;
        Some((newest.revision, newest.place?))
    }

    /// The state of a key at a revision; revisions before `forgotten` are not known.
    pub(super) fn version(&self, key: &str, revision: Revision) -> Option<Version> {
        self.keys.get(key)?.at(revision)
    }

    /// Up to `limit` keys with this prefix, from `start` on, that exist at a revision.
    pub(super) fn range(&self, prefix: &str, start: &str, limit: usize, at: Revision) -> Keys {
        let mut keys = Keys { found: Vec::new(), more: false };
        let from = start.max(prefix);
        for (key, versions) in self.keys.range::<str, _>((std::ops::Bound::Included(from), std::ops::Bound::Unbounded)) {
            if !key.starts_with(prefix) {
                break;
            }
            let Some(Version { revision, place: Some(place), .. }) = versions.at(at) else { continue };
            if keys.found.len() == limit {
                keys.more = true;
                break;
            }
            keys.found.push((key.clone(), revision, place));
        }
        keys
    }

    /// The changes after a revision, which must not be before `forgotten`.
    pub(super) fn changes(&self, after: Revision) -> impl Iterator<Item = (Revision, &Arc<str>, Option<Place>)> {
        let skip = usize::try_from(after - self.forgotten).unwrap_or(usize::MAX).min(self.changes.len());
        self.changes.range(skip..).zip(after + 1..).map(|(key, revision)| {
            let version = self.version(key, revision).filter(|version| version.revision == revision);
            (revision, key, version.and_then(|version| version.place))
        })
    }

    /// When the next key expires.
    pub(super) fn next_expiry(&self) -> Option<u64> {
        self.expiry.first_key_value().map(|((expires, _), _)| *expires)
    }

    /// Up to `limit` keys that had expired at `now`, each with the revision to delete. They are returned only once.
    pub(super) fn take_expired(&mut self, now: u64, limit: usize) -> Vec<(Arc<str>, Revision)> {
        let mut due = Vec::new();
        while due.len() < limit
            && let Some(entry) = self.expiry.first_entry()
            && entry.key().0 <= now
        {
            let ((_, revision), key) = entry.remove_entry();
            if self.get(&key).is_some_and(|(newest, _)| newest == revision) {
                due.push((key, revision));
            }
        }
        due
    }

    /// Restores expiries whose deletion failed.
    pub(super) fn expires_again(&mut self, at: u64, due: Vec<(Arc<str>, Revision)>) {
        self.expiry.extend(due.into_iter().map(|(key, revision)| ((at, revision), key)));
    }

    /// Records the new location of a value; false if the value is no longer needed.
    pub(super) fn moved(&mut self, key: &str, revision: Revision, place: Place) -> bool {
        let Some(versions) = self.keys.get_mut(key) else { return false };
        let version = versions.older.iter_mut().chain([&mut versions.newest]).find(|version| version.revision == revision);
        version.is_some_and(|version| {
            let exists = version.place.is_some();
            version.place = exists.then_some(place);
            exists
        })
    }
}

fn live_bytes(key: &str, version: &Version) -> u64 {
    version.place.map_or(0, |place| put_size(key, place.length as usize))
}

/// A change that is not the next one: some before it are missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Gap {
    pub(super) expected: Revision,
    pub(super) found: Revision,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn place(revision: Revision) -> Place {
        Place { segment: 0, length: 1, offset: revision }
    }

    #[derive(Clone, Debug)]
    enum Op {
        Put(u8),
        Delete(u8),
        Forget(u8),
    }

    fn ops() -> impl Strategy<Value = Vec<Op>> {
        let op = prop_oneof![4 => (0..5u8).prop_map(Op::Put), 2 => (0..5u8).prop_map(Op::Delete), 1 => any::<u8>().prop_map(Op::Forget)];
        prop::collection::vec(op, 0..60)
    }

    proptest! {
        /// Compared with the list of all changes.
        #[test]
        fn as_the_whole_history_says(ops in ops()) {
            let mut index = Index::new(FIRST_HEAD);
            let mut history: Vec<(Revision, String, bool)> = Vec::new();
            let mut forgotten = FIRST_HEAD;
            for op in ops {
                let revision = index.head() + 1;
                let state_of = |key: &str| history.iter().rev().find(|(_, it, _)| it == key).is_some_and(|(_, _, live)| *live);
                match op {
                    Op::Put(n) => {
                        let key = format!("/{n}");
                        let what = What::Put { key: &key, value: b"x", expires: 0 };
                        index.apply(&Record { revision, what }, place(revision)).unwrap();
                        history.push((revision, key, true));
                    }
                    Op::Delete(n) if state_of(&format!("/{n}")) => {
                        let key = format!("/{n}");
                        index.apply(&Record { revision, what: What::Delete { key: &key } }, place(revision)).unwrap();
                        history.push((revision, key, false));
                    }
                    Op::Delete(_) => {}
                    Op::Forget(back) => {
                        index.forget(index.head().saturating_sub(back.into()));
                        forgotten = forgotten.max(index.head().saturating_sub(back.into()));
                    }
                }
            }
            prop_assert_eq!(index.forgotten(), forgotten);
            let mut needed = std::collections::BTreeSet::new();
            for at in forgotten..=index.head() {
                let mut expected = BTreeMap::new();
                for (revision, key, live) in history.iter().filter(|(revision, ..)| *revision <= at) {
                    expected.insert(key.as_str(), (*revision, *live));
                }
                expected.retain(|_, (_, live)| *live);
                needed.extend(expected.values().map(|(revision, _)| *revision));
                let found = index.range("/", "", usize::MAX, at).found;
                let found: BTreeMap<&str, _> = found.iter().map(|(key, revision, place)| {
                    assert_eq!(place.offset, *revision);
                    (&**key, (*revision, true))
                }).collect();
                prop_assert_eq!(found, expected);
            }
            let told: Vec<_> = index.changes(forgotten).map(|(revision, key, place)| (revision, key.to_string(), place.is_some())).collect();
            prop_assert_eq!(told, history.into_iter().filter(|(revision, ..)| *revision > forgotten).collect::<Vec<_>>());
            prop_assert_eq!(index.live(), needed.len() as u64 * put_size("/0", 1));
        }
    }

    #[test]
    fn what_is_missing_is_noticed() {
        let mut index = Index::new(FIRST_HEAD);
        let put = |revision| Record { revision, what: What::Put { key: "/a", value: b"", expires: 0 } };
        assert_eq!(index.apply(&put(3), place(3)), Err(Gap { expected: 2, found: 3 }));
        index.apply(&put(2), place(2)).unwrap();
        // Revisions up to the index's beginning may have gaps.
        let mut index = Index::new(10);
        index.apply(&put(4), place(4)).unwrap();
        index.apply(&put(11), place(11)).unwrap();
        assert_eq!((index.head(), index.forgotten(), index.get("/a").unwrap().0), (11, 10, 11));
    }

    #[test]
    fn time_to_live() {
        let mut index = Index::new(FIRST_HEAD);
        for (revision, key, expires) in [(2, "/a", 50), (3, "/b", 40), (4, "/c", 60), (5, "/b", 0)] {
            index.apply(&Record { revision, what: What::Put { key, value: b"", expires } }, place(revision)).unwrap();
        }
        assert_eq!(index.next_expiry(), Some(40));
        // The second key has a newer revision.
        assert_eq!(index.take_expired(50, 10), [("/a".into(), 2)]);
        assert_eq!(index.next_expiry(), Some(60));
        assert!(index.take_expired(59, 10).is_empty());
        assert_eq!(index.take_expired(60, 10), [("/c".into(), 4)]);
        assert_eq!(index.next_expiry(), None);
    }
}
