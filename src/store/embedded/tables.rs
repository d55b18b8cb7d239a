//! What the embedded store keeps on disk, and every step that reads or changes it within one transaction. No threads, no clock.
//!
//! Each change has its own revision and is stored once, in `CHANGES`. `VERSIONS` finds the changes of a key: the newest one at or
//! before a revision is the key's state then, so that the present and the past are read the same way.

use std::ops::RangeInclusive;

use bytes::Bytes;
use redb::{Database, ReadTransaction, ReadableTable, Table, TableDefinition, WriteTransaction};

use crate::object::Revision;
use crate::store::{Batch, Change, Entry, Expect, Outcome, Page};

type Result<T> = std::result::Result<T, redb::Error>;

/// Revision to the key's previous revision (0: none), the key, and its value (`None`: deleted).
type ChangeRow = (Revision, &'static str, Option<&'static [u8]>);

const META: TableDefinition<&str, u64> = TableDefinition::new("meta");
const CHANGES: TableDefinition<Revision, ChangeRow> = TableDefinition::new("changes");
/// Key and revision to whether the key exists since.
const VERSIONS: TableDefinition<(&str, Revision), bool> = TableDefinition::new("versions");
/// When (milliseconds of Unix time) which revision's key is to be deleted, if that is still its newest.
const EXPIRY: TableDefinition<(u64, Revision), ()> = TableDefinition::new("expiry");

/// The newest revision.
const HEAD: &str = "head";
/// The oldest revision whose state can still be read.
const COMPACTED: &str = "compacted";
/// The revision up to which what compaction forgot has also been removed.
const SWEPT: &str = "swept";
const FORMAT: &str = "format";
const FORMAT_VERSION: u64 = 1;
/// An empty store has this revision, as in etcd: 0 means "the newest" to readers.
const FIRST_HEAD: Revision = 1;

/// How far the store has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Positions {
    pub(super) head: Revision,
    pub(super) compacted: Revision,
    pub(super) swept: Revision,
}

/// Why a read within one transaction has no result.
#[derive(Debug)]
pub(super) enum ReadError {
    Compacted { asked: Revision, oldest: Revision },
    Future { asked: Revision, head: Revision },
    Database(redb::Error),
}

impl<E: Into<redb::Error>> From<E> for ReadError {
    fn from(error: E) -> Self {
        Self::Database(error.into())
    }
}

/// Creates the tables of a new store, or finds how far an old one has come.
pub(super) fn prepare(db: &Database) -> Result<Positions> {
    let tx = begin(db)?;
    let (fresh, positions) = {
        let mut meta = tx.open_table(META)?;
        tx.open_table(CHANGES)?;
        tx.open_table(VERSIONS)?;
        tx.open_table(EXPIRY)?;
        let format = number(&meta, FORMAT)?;
        if format == 0 {
            meta.insert(FORMAT, FORMAT_VERSION)?;
            meta.insert(HEAD, FIRST_HEAD)?;
        } else if format != FORMAT_VERSION {
            return Err(redb::Error::Corrupted(format!("written in format {format}, this program reads format {FORMAT_VERSION}")));
        }
        (format == 0, positions(&meta)?)
    };
    if fresh {
        tx.commit()?
    } else {
        tx.abort()?
    }
    Ok(positions)
}

/// Begins a transaction after whose commit the file needs no repair, however the process ends.
pub(super) fn begin(db: &Database) -> Result<WriteTransaction> {
    let mut tx = db.begin_write()?;
    tx.set_quick_repair(true);
    Ok(tx)
}

fn number(meta: &impl ReadableTable<&'static str, u64>, name: &str) -> Result<u64> {
    Ok(meta.get(name)?.map_or(0, |guard| guard.value()))
}

fn positions(meta: &impl ReadableTable<&'static str, u64>) -> Result<Positions> {
    Ok(Positions { head: number(meta, HEAD)?, compacted: number(meta, COMPACTED)?, swept: number(meta, SWEPT)? })
}

fn versions_of(key: &str) -> RangeInclusive<(&str, Revision)> {
    (key, 0)..=(key, Revision::MAX)
}

/// The newest version of a key, and whether the key exists.
fn newest(versions: &impl ReadableTable<(&'static str, Revision), bool>, key: &str) -> Result<Option<(Revision, bool)>> {
    let Some(last) = versions.range::<(&str, Revision)>(versions_of(key))?.next_back() else { return Ok(None) };
    let (version, live) = last?;
    Ok(Some((version.value().1, live.value())))
}

fn entry(changes: &impl ReadableTable<Revision, ChangeRow>, revision: Revision) -> Result<Entry> {
    let row = changes.get(revision)?.ok_or_else(|| missing(revision))?;
    let (_, key, value) = row.value();
    let value = Bytes::copy_from_slice(value.ok_or_else(|| missing(revision))?);
    Ok(Entry { key: key.to_owned(), value, revision })
}

fn missing(revision: Revision) -> redb::Error {
    redb::Error::Corrupted(format!("the change of revision {revision} is missing"))
}

/// The present state of a key.
pub(super) fn get(tx: &ReadTransaction, key: &str) -> Result<Option<Entry>> {
    match newest(&tx.open_table(VERSIONS)?, key)? {
        Some((revision, true)) => entry(&tx.open_table(CHANGES)?, revision).map(Some),
        _ => Ok(None),
    }
}

/// Part of a range as of revision `at` (0: the newest).
pub(super) fn range(tx: &ReadTransaction, prefix: &str, start: &str, limit: usize, at: Revision) -> std::result::Result<Page, ReadError> {
    let Positions { head, compacted, .. } = positions(&tx.open_table(META)?)?;
    let at = match at {
        0 => head,
        at if at > head => return Err(ReadError::Future { asked: at, head }),
        at if at < compacted => return Err(ReadError::Compacted { asked: at, oldest: compacted }),
        at => at,
    };
    let (versions, changes) = (tx.open_table(VERSIONS)?, tx.open_table(CHANGES)?);
    let mut page = Page { entries: Vec::new(), revision: at, more: false };
    // The newest version, so far, of the key being walked over.
    let mut state: Option<(String, Revision, bool)> = None;
    let mut rows = versions.range::<(&str, Revision)>((prefix.max(start), 0)..)?;
    loop {
        let row = rows.next().transpose()?;
        let row = row.as_ref().map(|(version, live)| (version.value(), live.value()));
        let row = row.filter(|((key, _), _)| key.starts_with(prefix));
        if let (Some(((key, revision), live)), Some(known)) = (&row, &mut state)
            && *key == known.0
        {
            if *revision <= at {
                (known.1, known.2) = (*revision, *live);
            }
            continue;
        }
        if let Some((_, revision, true)) = state.take() {
            if page.entries.len() == limit {
                page.more = true;
                return Ok(page);
            }
            page.entries.push(entry(&changes, revision)?);
        }
        let Some(((key, revision), live)) = row else { return Ok(page) };
        if revision <= at {
            state = Some((key.to_owned(), revision, live));
        }
    }
}

/// The changes of keys with this prefix after a revision, out of the next `limit` changes of any key.
pub(super) fn history(tx: &ReadTransaction, prefix: &str, after: Revision, limit: usize) -> std::result::Result<Batch, ReadError> {
    let Positions { head, compacted, .. } = positions(&tx.open_table(META)?)?;
    if after < compacted {
        return Err(ReadError::Compacted { asked: after, oldest: compacted });
    }
    let mut batch = Batch { changes: Vec::new(), revision: after.max(head) };
    for row in tx.open_table(CHANGES)?.range(after + 1..)?.take(limit) {
        let (revision, row) = row?;
        batch.revision = revision.value();
        let (_, key, value) = row.value();
        if key.starts_with(prefix) {
            batch.changes.push(Change { key: key.to_owned(), revision: batch.revision, value: value.map(Bytes::copy_from_slice) });
        }
    }
    Ok(batch)
}

/// The changes that one write transaction makes.
pub(super) struct Step<'tx> {
    meta: Table<'tx, &'static str, u64>,
    changes: Table<'tx, Revision, ChangeRow>,
    versions: Table<'tx, (&'static str, Revision), bool>,
    expiry: Table<'tx, (u64, Revision), ()>,
    before: Positions,
    positions: Positions,
    made: Vec<Change>,
    expiries_dropped: bool,
}

/// What a [`Step`] did.
pub(super) struct Done {
    pub(super) positions: Positions,
    pub(super) changes: Vec<Change>,
    /// When the next key with a time to live is to be deleted.
    pub(super) next_expiry: Option<u64>,
    /// Whether there is anything to commit.
    pub(super) dirty: bool,
}

impl<'tx> Step<'tx> {
    pub(super) fn new(tx: &'tx WriteTransaction) -> Result<Self> {
        let meta = tx.open_table(META)?;
        let positions = positions(&meta)?;
        Ok(Self {
            meta,
            changes: tx.open_table(CHANGES)?,
            versions: tx.open_table(VERSIONS)?,
            expiry: tx.open_table(EXPIRY)?,
            before: positions,
            positions,
            made: Vec::new(),
            expiries_dropped: false,
        })
    }

    /// Writes a key if `expect` holds; it is to be deleted at `expires`, milliseconds of Unix time.
    pub(super) fn put(&mut self, key: &str, value: &Bytes, expect: Expect, expires: Option<u64>) -> Result<Outcome> {
        let newest = newest(&self.versions, key)?;
        let expected = match (expect, newest) {
            (Expect::Absent, newest) => newest.is_none_or(|(_, live)| !live),
            (Expect::At(revision), newest) => newest == Some((revision, true)),
        };
        if !expected {
            return self.conflict(newest);
        }
        let revision = self.change(key, newest, Some(value))?;
        if let Some(expires) = expires {
            self.expiry.insert((expires, revision), ())?;
        }
        Ok(Outcome::Done(revision))
    }

    pub(super) fn delete(&mut self, key: &str, revision: Revision) -> Result<Outcome> {
        let newest = newest(&self.versions, key)?;
        if newest != Some((revision, true)) {
            return self.conflict(newest);
        }
        self.change(key, newest, None).map(Outcome::Done)
    }

    fn conflict(&self, newest: Option<(Revision, bool)>) -> Result<Outcome> {
        Ok(Outcome::Conflict(match newest {
            Some((revision, true)) => Some(entry(&self.changes, revision)?),
            _ => None,
        }))
    }

    fn change(&mut self, key: &str, previous: Option<(Revision, bool)>, value: Option<&Bytes>) -> Result<Revision> {
        let revision = self.positions.head + 1;
        self.changes.insert(revision, (previous.map_or(0, |(revision, _)| revision), key, value.map(Bytes::as_ref)))?;
        self.versions.insert((key, revision), value.is_some())?;
        self.positions.head = revision;
        self.made.push(Change { key: key.to_owned(), revision, value: value.cloned() });
        Ok(revision)
    }

    /// Deletes up to `limit` keys whose time is over.
    pub(super) fn expire(&mut self, now: u64, limit: usize) -> Result<()> {
        let mut due = Vec::new();
        for row in self.expiry.range(..=(now, Revision::MAX))?.take(limit) {
            due.push(row?.0.value());
        }
        for (time, revision) in due {
            self.expiries_dropped = true;
            self.expiry.remove((time, revision))?;
            let key = self.changes.get(revision)?.map(|row| row.value().1.to_owned());
            if let Some(key) = key {
                // A conflict says that somebody wrote the key since.
                self.delete(&key, revision)?;
            }
        }
        Ok(())
    }

    /// Forgets the history before `revision`, or before the newest revision if that is older.
    pub(super) fn compact(&mut self, revision: Revision) {
        self.positions.compacted = self.positions.compacted.max(revision.min(self.positions.head));
    }

    /// Removes what compaction forgot, as far as that is superseded by the next `limit` changes.
    pub(super) fn sweep(&mut self, limit: usize) -> Result<()> {
        if self.positions.swept >= self.positions.compacted {
            return Ok(());
        }
        let mut dead = Vec::new();
        let mut swept = self.positions.compacted;
        for (count, row) in self.changes.range(self.positions.swept + 1..=self.positions.compacted)?.enumerate() {
            let (revision, row) = row?;
            if count == limit {
                swept = revision.value() - 1;
                break;
            }
            let (previous, key, value) = row.value();
            if previous != 0 {
                dead.push((key.to_owned(), previous));
            }
            if value.is_none() {
                dead.push((key.to_owned(), revision.value()));
            }
        }
        for (key, revision) in dead {
            self.changes.remove(revision)?;
            self.versions.remove((key.as_str(), revision))?;
        }
        self.positions.swept = swept;
        Ok(())
    }

    pub(super) fn finish(mut self) -> Result<Done> {
        for (name, before, now) in [
            (HEAD, self.before.head, self.positions.head),
            (COMPACTED, self.before.compacted, self.positions.compacted),
            (SWEPT, self.before.swept, self.positions.swept),
        ] {
            if before != now {
                self.meta.insert(name, now)?;
            }
        }
        Ok(Done {
            positions: self.positions,
            changes: self.made,
            next_expiry: self.expiry.first()?.map(|row| row.0.value().0),
            dirty: self.positions != self.before || self.expiries_dropped,
        })
    }
}
