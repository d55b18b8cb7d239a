//! The recent changes of one resource, from which watches are served.

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use parking_lot::Mutex;

use super::{Expired, Query};
use crate::codec::EventFormat;
use crate::object::{Object, Revision};

/// One change of one object, with its watch frames: encoded on first use, then shared.
#[derive(Debug)]
pub(super) struct Entry {
    /// Sequence number within this history.
    pub(super) seq: u64,
    pub(super) revision: Revision,
    pub(super) old: Option<Arc<Object>>,
    pub(super) new: Option<Arc<Object>>,
    /// `old` at the revision of the change.
    gone: OnceLock<Arc<Object>>,
    frames: [OnceLock<Bytes>; 3],
    /// Frames in less usual formats.
    other_frames: Mutex<Vec<(Kind, EventFormat, Bytes)>>,
}

/// The type of event that a watcher sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Added,
    Modified,
    Deleted,
}

impl Kind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Added => "ADDED",
            Self::Modified => "MODIFIED",
            Self::Deleted => "DELETED",
        }
    }
}

impl Entry {
    /// The event for a watcher of everything.
    pub(super) fn kind(&self) -> Option<Kind> {
        match (&self.old, &self.new) {
            (None, Some(_)) => Some(Kind::Added),
            (Some(_), Some(_)) => Some(Kind::Modified),
            (Some(_), None) => Some(Kind::Deleted),
            (None, None) => None,
        }
    }

    /// The event for a watcher of `query`; `None` if the change does not concern it.
    pub(super) fn seen_by(&self, query: &Query) -> Option<Kind> {
        let matches = |object: &Option<Arc<Object>>| object.as_deref().is_some_and(|object| query.matches(object));
        match (matches(&self.old), matches(&self.new)) {
            (false, true) => Some(Kind::Added),
            (true, true) => Some(Kind::Modified),
            (true, false) => Some(Kind::Deleted),
            (false, false) => None,
        }
    }

    /// The object in the event.
    pub(super) fn object(&self, kind: Kind) -> &Arc<Object> {
        match (kind, &self.old, &self.new) {
            (Kind::Deleted, Some(old), _) => self.gone.get_or_init(|| old.at_revision(self.revision)),
            (Kind::Added | Kind::Modified, _, Some(new)) => new,
            _ => unreachable!("the kind is one that seen_by gave"),
        }
    }

    /// The event, encoded.
    pub(super) fn frame(&self, kind: Kind, format: EventFormat) -> Bytes {
        let make = || format.event(kind.name(), self.object(kind));
        if format == EventFormat::default() {
            return self.frames[kind as usize].get_or_init(make).clone();
        }
        let mut others = self.other_frames.lock();
        if let Some((.., frame)) = others.iter().find(|(known, of, _)| *known == kind && *of == format) {
            return frame.clone();
        }
        let frame = make();
        others.push((kind, format, frame.clone()));
        frame
    }
}

/// A bounded, ordered log.
#[derive(Debug)]
pub(super) struct History {
    entries: VecDeque<Arc<Entry>>,
    /// The seq of the next entry.
    next: u64,
    limit: usize,
    /// The history is complete after this revision, from the entry `base_seq` on. Older entries only serve watches that are already
    /// running.
    base: Revision,
    base_seq: u64,
}

impl History {
    pub(super) fn new(limit: usize, base: Revision) -> Self {
        Self { entries: VecDeque::new(), next: 0, limit, base, base_seq: 0 }
    }

    /// The seq of the next entry.
    pub(super) fn next(&self) -> u64 {
        self.next
    }

    /// The seq of the oldest entry.
    pub(super) fn first(&self) -> u64 {
        self.next - self.entries.len() as u64
    }

    /// The error for a watch that needs changes older than the history.
    pub(super) fn expired(&self, asked: Revision) -> Expired {
        Expired { asked, oldest: self.base }
    }

    /// Adds an entry. [`History::trim`] drops old ones.
    pub(super) fn push(&mut self, revision: Revision, old: Option<Arc<Object>>, new: Option<Arc<Object>>) -> &Entry {
        let entry =
            Entry { seq: self.next, revision, old, new, gone: OnceLock::new(), frames: Default::default(), other_frames: Mutex::default() };
        self.next += 1;
        self.entries.push_back(Arc::new(entry));
        self.entries.back().expect("it was just pushed")
    }

    /// Drops up to two entries beyond the limit, one more than each change adds. After a large relist, the history shrinks slowly enough
    /// for watchers to read it.
    pub(super) fn trim(&mut self) {
        for _ in 0..2 {
            if self.entries.len() <= self.limit {
                return;
            }
            if let Some(oldest) = self.entries.pop_front()
                && oldest.seq >= self.base_seq
            {
                self.base = oldest.revision;
                self.base_seq = oldest.seq + 1;
            }
        }
    }

    /// Marks the history before `revision` as incomplete.
    pub(super) fn rebase(&mut self, revision: Revision) {
        self.base = revision;
        self.base_seq = self.next;
    }

    /// The seq of the first entry after a revision.
    pub(super) fn position(&self, after: Revision) -> Result<u64, Expired> {
        if after < self.base {
            return Err(self.expired(after));
        }
        // Entries from `base_seq` on are in revision order; older ones need not be.
        let at = self.entries.partition_point(|entry| entry.seq < self.base_seq || entry.revision <= after);
        Ok(self.first() + at as u64)
    }

    /// The entries from a seq on, which must not be before the first.
    pub(super) fn since(&self, seq: u64) -> impl DoubleEndedIterator<Item = &Arc<Entry>> {
        self.entries.range((seq - self.first()).min(self.entries.len() as u64) as usize..)
    }

    pub(super) fn at(&self, seq: u64) -> Option<&Arc<Entry>> {
        self.entries.get(usize::try_from(seq.checked_sub(self.first())?).ok()?)
    }
}
