//! A running watch: it reads the shared history at its own pace.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::Notify;
use tokio::time::{Duration, Instant, sleep_until};

use super::history::{Entry, Kind};
use super::interest::Interest;
use super::progress::Progress;
use super::table::{State, Table};
use super::{Event, Expired, Frame, Query};
use crate::codec::EventFormat;
use crate::object::{Object, Revision};

/// Bound of the entries taken from the history at a time, and of the frames in a batch.
const BATCH: usize = 256;
/// A batch of frames ends at this many bytes.
const BATCH_BYTES: usize = 512 * 1024;
/// The same bound for formats that are converted, which takes time.
const CONVERTED_BYTES: usize = 64 * 1024;
/// Approximate cost of serving a watcher once. Many watchers of everything each rest until all could have been served, and then get all
/// changes since then in one batch.
const SERVICE: Duration = Duration::from_micros(20);

/// A running watch: events in revision order, none missed, none twice. Dropping it ends it.
#[derive(Debug)]
pub struct Watch {
    table: Arc<Table>,
    /// The progress of the whole cache.
    progress: Arc<Progress>,
    query: Query,
    interest: Interest,
    wake: Arc<Notify>,
    /// The first history entry not yet taken.
    next: u64,
    /// Changes up to this revision are skipped.
    after: Revision,
    /// Everything up to this revision has been delivered.
    delivered: Revision,
    /// Whether the watch still waits for the resource to be filled, to begin with the existing objects.
    unfilled: bool,
    /// The objects at the beginning, then their revision.
    initial: std::vec::IntoIter<Arc<Object>>,
    initial_end: Option<Revision>,
    taken: VecDeque<Arc<Entry>>,
    /// Whether the query selects everything.
    plain: bool,
    /// The format of the frames.
    format: EventFormat,
    /// The watch is not served before this time.
    rests_until: Option<Instant>,
}

enum Step {
    Initial(Arc<Object>),
    InitialEnd(Revision),
    Change(Kind, Arc<Entry>),
}

impl Watch {
    pub(super) fn new(table: Arc<Table>, progress: Arc<Progress>, query: Query, after: Revision) -> Result<Self, Expired> {
        let interest = Interest::of(table.resource, &query);
        let plain = interest == Interest::All && query.is_unselective();
        let now = progress.get();
        let (mut taken, mut seen) = (VecDeque::new(), 0);
        let concerns = |entry: &&Arc<Entry>| entry.seen_by(&query).is_some();
        if after > 0 {
            // Most of the missed entries are filtered without blocking the writer.
            let state = table.state.read();
            let position = if state.synced { state.history.position(after)? } else { return Err(state.history.expired(after)) };
            taken.extend(state.history.since(position).filter(concerns).cloned());
            seen = state.history.next();
        }
        let mut state = table.state.write();
        if after > 0 {
            if seen < state.history.first() {
                return Err(state.history.expired(after));
            }
            taken.extend(state.history.since(seen).filter(concerns).cloned());
        }
        let next = state.history.next();
        let wake = state.interests.enter(&interest, next);
        // `after` is in the future: skip earlier changes.
        let wanted_after = if after > state.revision.max(now) { after } else { 0 };
        drop(state);
        let mut watch = Self {
            table,
            progress,
            query,
            interest,
            wake,
            next,
            after: wanted_after,
            delivered: after,
            unfilled: after == 0,
            initial: Vec::new().into_iter(),
            initial_end: None,
            taken,
            plain: plain && wanted_after == 0,
            format: EventFormat::default(),
            rests_until: None,
        };
        watch.take();
        Ok(watch)
    }

    /// The same watch with its frames in this format.
    #[must_use]
    pub fn in_format(mut self, format: EventFormat) -> Self {
        // Blocks are encoded while writers wait, so they are only for JSON, which is copied.
        self.plain &= format == EventFormat::default();
        self.format = format;
        self
    }

    /// The next event, if one is available.
    ///
    /// # Errors
    /// If this reader is so slow that history it still needs was dropped. All later calls fail likewise.
    pub fn try_next(&mut self) -> Result<Option<Event>, Expired> {
        Ok(self.step()?.map(|step| match step {
            Step::Initial(object) => Event::Added(object),
            Step::InitialEnd(revision) => Event::Bookmark(revision),
            Step::Change(kind, entry) => {
                let object = entry.object(kind).clone();
                match kind {
                    Kind::Added => Event::Added(object),
                    Kind::Modified => Event::Modified(object),
                    Kind::Deleted => Event::Deleted(object),
                }
            }
        }))
    }

    /// Waits for the next event. Cancel-safe.
    ///
    /// # Errors
    /// As [`Watch::try_next`].
    pub async fn next(&mut self) -> Result<Event, Expired> {
        loop {
            if let Some(event) = self.try_next()? {
                return Ok(event);
            }
            self.news().await;
        }
    }

    /// Waits for the next events, encoded; all watchers share the bytes of a change. The batch is not empty. Cancel-safe.
    ///
    /// # Errors
    /// As [`Watch::try_next`].
    pub async fn next_frames(&mut self) -> Result<Vec<Frame>, Expired> {
        loop {
            if let Some(until) = self.rests_until {
                sleep_until(until).await;
                self.rests_until = None;
            }
            let frames = self.try_frames()?;
            if !frames.is_empty() {
                if self.plain {
                    let rest = SERVICE * self.table.state.read().interests.crowd();
                    self.rests_until = (rest >= Duration::from_millis(1)).then(|| Instant::now() + rest);
                }
                return Ok(frames);
            }
            self.news().await;
        }
    }

    /// The available frames, up to the bounds of a batch.
    ///
    /// # Errors
    /// As [`Watch::try_next`].
    pub fn try_frames(&mut self) -> Result<Vec<Frame>, Expired> {
        if self.plain && !self.unfilled && self.taken.is_empty() && self.initial.len() == 0 && self.initial_end.is_none() {
            return self.try_blocks();
        }
        let most = if self.format == EventFormat::default() { BATCH_BYTES } else { CONVERTED_BYTES };
        let (mut frames, mut bytes) = (Vec::new(), 0);
        while frames.len() < BATCH && bytes < most {
            let step = match self.step() {
                Ok(Some(step)) => step,
                Ok(None) => break,
                // Events taken earlier are returned first.
                Err(expired) if frames.is_empty() => return Err(expired),
                Err(_) => break,
            };
            let (event, revision): (Bytes, Revision) = match step {
                Step::InitialEnd(revision) => {
                    frames.push(Frame::Bookmark(revision));
                    continue;
                }
                Step::Initial(object) => (self.format.event(Kind::Added.name(), &object), object.revision()),
                Step::Change(kind, entry) => (entry.frame(kind, self.format), entry.revision),
            };
            bytes += event.len();
            frames.push(Frame::Events(event, revision));
        }
        Ok(frames)
    }

    /// The shared blocks from this watcher's position, up to the end of the history (or of a batch): a watcher that read only up to
    /// another's position would never catch up.
    fn try_blocks(&mut self) -> Result<Vec<Frame>, Expired> {
        let (mut frames, mut bytes) = (Vec::new(), 0);
        let state = self.table.state.read();
        if self.next < state.history.first() {
            return Err(state.history.expired(self.delivered));
        }
        while bytes < BATCH_BYTES
            && let Some(block) = self.table.blocks.get(&state.history, self.next)
        {
            (self.next, self.delivered) = (block.to, block.revision);
            bytes += block.bytes.len();
            frames.push(Frame::Events(block.bytes, block.revision));
        }
        Ok(frames)
    }

    /// Everything that concerns this watch up to this revision has been returned: the revision for a bookmark.
    pub fn revision(&self) -> Revision {
        if self.unfilled || self.initial_end.is_some() {
            return self.delivered;
        }
        let progress = self.progress.get();
        let state = self.table.state.read();
        // Several changes may share a revision, which is complete only after the last of them.
        let before = |revision: Option<Revision>| self.delivered.min(revision.map_or(self.delivered, |it| it.saturating_sub(1)));
        if let Some(entry) = self.taken.front() {
            return before(Some(entry.revision));
        }
        if self.has_news(&state) {
            return before(self.first_untaken(&state));
        }
        state.revision.max(progress).max(self.delivered)
    }

    fn first_untaken(&self, state: &State) -> Option<Revision> {
        let seq = match state.interests.topic(&self.interest) {
            None => self.next,
            Some(topic) => topic.since(self.next)?.next()?,
        };
        state.history.at(seq).map(|entry| entry.revision)
    }

    fn step(&mut self) -> Result<Option<Step>, Expired> {
        loop {
            if let Some(object) = self.initial.next() {
                return Ok(Some(Step::Initial(object)));
            }
            if let Some(revision) = self.initial_end.take() {
                self.delivered = revision;
                return Ok(Some(Step::InitialEnd(revision)));
            }
            while let Some(entry) = self.taken.pop_front() {
                if entry.revision <= self.after {
                    continue;
                }
                if let Some(kind) = entry.seen_by(&self.query) {
                    self.delivered = entry.revision;
                    return Ok(Some(Step::Change(kind, entry)));
                }
            }
            if !self.take_more()? {
                return Ok(None);
            }
        }
    }

    /// Takes the existing objects once the resource is filled, if the watch is still waiting for that.
    fn take(&mut self) {
        if !self.unfilled {
            return;
        }
        let progress = self.progress.get();
        let state = self.table.state.read();
        if state.synced {
            let page = state.matching(&self.query);
            (self.initial, self.initial_end) = (page.into_iter(), Some(state.revision.max(progress)));
            self.next = state.history.next();
            self.unfilled = false;
        }
    }

    /// Takes the next entries from the history; false if there are none.
    fn take_more(&mut self) -> Result<bool, Expired> {
        if self.unfilled {
            self.take();
            return Ok(!self.unfilled);
        }
        let state = self.table.state.read();
        let expired = state.history.expired(self.delivered);
        match state.interests.topic(&self.interest) {
            None => {
                if self.next < state.history.first() {
                    return Err(expired);
                }
                self.taken.extend(state.history.since(self.next).take(BATCH).cloned());
            }
            Some(topic) => {
                for seq in topic.since(self.next).ok_or(expired)?.take(BATCH) {
                    self.taken.push_back(state.history.at(seq).ok_or(expired)?.clone());
                }
            }
        }
        match self.taken.back() {
            Some(last) => self.next = last.seq + 1,
            None => self.next = state.history.next(),
        }
        Ok(!self.taken.is_empty())
    }

    fn has_news(&self, state: &State) -> bool {
        if self.unfilled {
            return state.synced;
        }
        match state.interests.topic(&self.interest) {
            None => state.history.next() > self.next,
            Some(topic) => topic.has_since(self.next),
        }
    }

    async fn news(&self) {
        let woken = self.wake.notified();
        tokio::pin!(woken);
        woken.as_mut().enable();
        if self.has_news(&self.table.state.read()) {
            return;
        }
        woken.await;
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.table.state.write().interests.leave(&self.interest);
    }
}
