//! The log of a store: its files, the index of their records, and recovery of both when the store is opened.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use bytes::Bytes;
use parking_lot::RwLock;

use super::index::{FIRST_HEAD, Index, Keys, Place};
use super::segment::{self, Header, Segment, Unreadable};
use super::tail::Tail;
use crate::object::Revision;
use crate::store::{Batch, Change, Entry, Page, Result, StoreError};

/// Size of a log file in bytes.
pub(super) const SEGMENT: u64 = 16 << 20;
const SUFFIX: &str = "log";
/// Name of a file being written to replace others.
const UNFINISHED: &str = "unfinished";
/// Name of a file being prepared to become the next one of the log.
const SPARE: &str = "spare";

/// State shared between readers and the writer.
#[derive(Debug)]
pub(super) struct Log {
    dir: PathBuf,
    pub(super) state: RwLock<State>,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) index: Index,
    /// By file number, which places refer to. Numbers are assigned anew in each process.
    pub(super) segments: HashMap<u32, Arc<Segment>>,
    pub(super) closed: bool,
}

impl Log {
    /// Opens or creates the log in a directory, and returns its end for the writer.
    pub(super) fn open(dir: &Path) -> Result<(Arc<Self>, Tail)> {
        if dir.join("store.redb").exists() {
            let message = "it has a store.redb, which an earlier km wrote and this one cannot read: name another directory, or remove it";
            return Err(StoreError::Failed(anyhow::anyhow!("{}: {message}", dir.display())));
        }
        for leftover in [UNFINISHED, SPARE] {
            let _ = fs::remove_file(dir.join(leftover));
        }
        let mut paths: Vec<PathBuf> = Vec::new();
        for entry in fs::read_dir(dir).map_err(|error| failed(error, dir))? {
            let path = entry.map_err(|error| failed(error, dir))?.path();
            if path.extension().is_some_and(|it| it == SUFFIX) {
                paths.push(path);
            }
        }
        paths.sort_unstable();
        let mut opening = Opening::default();
        for (at, path) in paths.iter().enumerate() {
            opening.take(path, at + 1 == paths.len())?;
        }
        let Opening { index, files, end, forgotten, .. } = opening;
        let mut index = index.unwrap_or_else(|| Index::new(FIRST_HEAD));
        index.forget(forgotten);
        let segments = files.iter().cloned().collect();
        let log = Arc::new(Self { dir: dir.to_owned(), state: RwLock::new(State { index, segments, closed: false }) });
        let tail = Tail::new(log.clone(), files, end)?;
        Ok((log, tail))
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// The path of the file whose first revision is `first`.
    pub(super) fn path(&self, first: Revision) -> PathBuf {
        self.dir.join(format!("{first:020}.{SUFFIX}"))
    }

    /// The path of a replacement being written.
    pub(super) fn unfinished(&self) -> PathBuf {
        self.dir.join(UNFINISHED)
    }

    /// The path of the next file of the log until it is begun.
    pub(super) fn spare(&self) -> PathBuf {
        self.dir.join(SPARE)
    }

    /// Makes file names durable (fsync of the directory).
    pub(super) fn sync_names(&self) -> io::Result<()> {
        File::open(&self.dir)?.sync_all()
    }

    /// Makes every later read fail.
    pub(super) fn close(&self) {
        let mut state = self.state.write();
        state.closed = true;
        state.segments.clear();
    }

    pub(super) fn closed(&self) -> StoreError {
        StoreError::Unavailable(anyhow::anyhow!("{} is closed", self.dir.display()))
    }

    /// The current state of a key.
    pub(super) fn get(&self, key: &str) -> Result<Option<Entry>> {
        let (revision, value) = {
            let state = self.open_state()?;
            let Some((revision, place)) = state.index.get(key) else { return Ok(None) };
            (revision, state.value(place))
        };
        Ok(Some(Entry { key: key.to_owned(), value: value.read()?, revision }))
    }

    /// Part of a range as of revision `at` (0: the newest).
    pub(super) fn range(&self, prefix: &str, start: &str, limit: usize, at: Revision) -> Result<Page> {
        let (found, more, revision) = {
            let state = self.open_state()?;
            let (head, oldest) = (state.index.head(), state.index.forgotten());
            let at = match at {
                0 => head,
                at if at > head => {
                    return Err(StoreError::Failed(anyhow::anyhow!("revision {at} is in the future, the newest is {head}")));
                }
                at if at < oldest => return Err(StoreError::Compacted { asked: at, oldest }),
                at => at,
            };
            let Keys { found, more } = state.index.range(prefix, start, limit, at);
            (found.into_iter().map(|(key, revision, place)| (key, revision, state.value(place))).collect::<Vec<_>>(), more, at)
        };
        let entries = found.into_iter().map(|(key, revision, value)| Ok(Entry { key: (*key).to_owned(), value: value.read()?, revision }));
        Ok(Page { entries: entries.collect::<Result<_>>()?, revision, more })
    }

    /// The changes of keys with this prefix after a revision, among the next `limit` changes of all keys.
    pub(super) fn history(&self, prefix: &str, after: Revision, limit: usize) -> Result<Batch> {
        let (changes, revision) = {
            let state = self.open_state()?;
            let oldest = state.index.forgotten();
            if after < oldest {
                return Err(StoreError::Compacted { asked: after, oldest });
            }
            let mut last = after;
            let mut changes = Vec::new();
            for (revision, key, place) in state.index.changes(after).take(limit) {
                last = revision;
                if key.starts_with(prefix) {
                    changes.push((key.clone(), revision, place.map(|place| state.value(place))));
                }
            }
            (changes, last)
        };
        let changes = changes.into_iter().map(|(key, revision, value)| {
            let value = value.map(Value::read).transpose()?;
            Ok(Change { key: (*key).to_owned(), revision, value })
        });
        Ok(Batch { changes: changes.collect::<Result<_>>()?, revision })
    }

    fn open_state(&self) -> Result<parking_lot::RwLockReadGuard<'_, State>> {
        let state = self.state.read();
        if state.closed { Err(self.closed()) } else { Ok(state) }
    }
}

/// A value that stays readable even if its file is replaced, so that it can be read without holding the lock.
#[derive(Debug)]
struct Value {
    segment: Arc<Segment>,
    place: Place,
}

impl State {
    fn value(&self, place: Place) -> Value {
        Value { segment: self.segments[&place.segment].clone(), place }
    }
}

impl Value {
    fn read(self) -> Result<Bytes> {
        self.segment.read(self.place.offset, self.place.length).map_err(|error| failed(error, self.segment.path()))
    }
}

/// A log during recovery.
#[derive(Default)]
struct Opening {
    index: Option<Index>,
    files: Vec<(u32, Arc<Segment>)>,
    /// The end of the last file.
    end: Option<u64>,
    /// Files up to this revision have been replaced by one that was read before.
    covered: Revision,
    forgotten: Revision,
}

impl Opening {
    fn take(&mut self, path: &Path, last: bool) -> Result<()> {
        let Some(segment) = Segment::open(path, last).map_err(unreadable)? else {
            return fs::remove_file(path).map_err(|error| failed(error, path));
        };
        let Header { first, covers, forgotten, .. } = *segment.header();
        if first <= self.covered {
            // The process ended before it could remove the replaced file.
            return fs::remove_file(path).map_err(|error| failed(error, path));
        }
        self.forgotten = self.forgotten.max(forgotten);
        self.covered = covers;
        let index = self.index.get_or_insert_with(|| Index::new(covers));
        // Up to `covers`, the records are the live ones of a longer history, with gaps.
        if first > covers && first != index.head() + 1 {
            let what = format!("{} is missing the changes {} to {first} before it", path.display(), index.head() + 1);
            return Err(StoreError::Failed(anyhow::anyhow!(what)));
        }
        let id = self.files.len() as u32;
        let end = read(&segment, last, id, index)?;
        self.end = last.then_some(end);
        self.files.push((id, Arc::new(segment)));
        Ok(())
    }
}

fn read(segment: &Segment, last: bool, id: u32, index: &mut Index) -> Result<u64> {
    let taken = segment.scan(last, |record, offset| {
        index
            .apply(record, Place::of(record, id, offset))
            .map_err(|gap| format!("revision {} comes where {} should", gap.found, gap.expected))
    });
    taken.map_err(unreadable)
}

fn unreadable(error: Unreadable) -> StoreError {
    match error {
        Unreadable::Io(path, error) => failed(error, &path),
        Unreadable::Damaged(what) => StoreError::Failed(anyhow::anyhow!(what)),
    }
}

/// Maps an I/O failure to a store error.
pub(super) fn failed(error: io::Error, path: &Path) -> StoreError {
    let full = segment::is_full(&error);
    let cause = Err::<(), _>(error).context(path.display().to_string()).expect_err("it is an error");
    if full { StoreError::Full(cause) } else { StoreError::Failed(cause) }
}
