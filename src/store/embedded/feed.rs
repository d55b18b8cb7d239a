//! The changes for watchers: the newest from memory, older ones from disk. Watchers pull, so a slow one costs only its own position and
//! never holds up a write.

use std::collections::VecDeque;
use std::sync::Arc;

use futures_util::stream::{self, BoxStream, StreamExt};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::log::Log;
use crate::object::Revision;
use crate::store::{Batch, Change, Result, StoreError};

/// Bound in bytes of the newest changes in memory. Caches share most of their values.
const RECENT_BYTES: usize = 4 << 20;
/// How many changes a watcher reads at a time.
const CHUNK: usize = 1024;

/// The state that watchers wait on.
#[derive(Clone, Copy, Debug)]
struct State {
    head: Revision,
    compacted: Revision,
    /// Count of progress requests.
    progress: u64,
    closed: bool,
}

pub(super) struct Feed {
    state: watch::Sender<State>,
    recent: Mutex<Recent>,
}

/// The newest changes: one per revision, without gaps.
#[derive(Default)]
struct Recent {
    changes: VecDeque<Change>,
    bytes: usize,
}

impl Feed {
    pub(super) fn new(head: Revision, compacted: Revision) -> Self {
        let state = State { head, compacted, progress: 0, closed: false };
        Self { state: watch::Sender::new(state), recent: Mutex::default() }
    }

    /// Publishes durable changes to all watchers.
    pub(super) fn publish(&self, changes: impl Iterator<Item = Change>, head: Revision, compacted: Revision) {
        self.recent.lock().push(changes);
        self.state.send_if_modified(|state| {
            let news = state.head != head;
            (state.head, state.compacted) = (head, compacted);
            news
        });
    }

    pub(super) fn head(&self) -> Revision {
        self.state.borrow().head
    }

    pub(super) fn request_progress(&self) {
        self.state.send_modify(|state| state.progress += 1);
    }

    /// Ends every watch.
    pub(super) fn close(&self) {
        self.state.send_modify(|state| state.closed = true);
    }

    pub(super) fn watch(self: Arc<Self>, log: Arc<Log>, prefix: &str, after: Revision) -> Result<BoxStream<'static, Result<Batch>>> {
        let mut state = self.state.subscribe();
        let State { compacted, progress, closed, .. } = *state.borrow_and_update();
        if closed {
            return Err(log.closed());
        }
        if after < compacted {
            return Err(StoreError::Compacted { asked: after, oldest: compacted });
        }
        let watcher = Watcher { feed: self, log, state, prefix: prefix.into(), position: after, progress };
        Ok(stream::try_unfold(watcher, |mut watcher| async { Ok(Some((watcher.next().await?, watcher))) }).boxed())
    }
}

impl Recent {
    fn push(&mut self, changes: impl Iterator<Item = Change>) {
        for change in changes {
            self.bytes += size(&change);
            self.changes.push_back(change);
        }
        while self.bytes > RECENT_BYTES
            && let Some(oldest) = self.changes.pop_front()
        {
            self.bytes -= size(&oldest);
        }
    }

    /// The changes after `position`; `None` if they are no longer in memory.
    fn after(&self, prefix: &str, position: Revision) -> Option<Batch> {
        let skip = (position + 1).checked_sub(self.changes.front()?.revision)?;
        let next = self.changes.iter().skip(usize::try_from(skip).ok()?).take(CHUNK);
        let mut batch = Batch { changes: Vec::new(), revision: position };
        for change in next {
            batch.revision = change.revision;
            if change.key.starts_with(prefix) {
                batch.changes.push(change.clone());
            }
        }
        Some(batch)
    }
}

/// Approximate memory of a change.
fn size(change: &Change) -> usize {
    size_of::<Change>() + change.key.len() + change.value.as_ref().map_or(0, bytes::Bytes::len)
}

/// One watch.
struct Watcher {
    feed: Arc<Feed>,
    log: Arc<Log>,
    state: watch::Receiver<State>,
    prefix: Arc<str>,
    /// Everything up to this revision has been delivered.
    position: Revision,
    progress: u64,
}

impl Watcher {
    async fn next(&mut self) -> Result<Batch> {
        loop {
            let State { head, progress, closed, .. } = *self.state.borrow_and_update();
            if closed {
                return Err(self.log.closed());
            }
            if self.position < head {
                let recent = self.feed.recent.lock().after(&self.prefix, self.position);
                let batch = match recent {
                    Some(batch) => batch,
                    None => self.history().await?,
                };
                self.position = batch.revision;
                if !batch.changes.is_empty() {
                    return Ok(batch);
                }
            } else if self.progress != progress {
                self.progress = progress;
                return Ok(Batch { changes: Vec::new(), revision: self.position });
            } else if self.state.changed().await.is_err() {
                return Err(self.log.closed());
            }
        }
    }

    async fn history(&self) -> Result<Batch> {
        let (log, prefix, position) = (self.log.clone(), self.prefix.clone(), self.position);
        super::blocking(move || log.history(&prefix, position, CHUNK)).await
    }
}
