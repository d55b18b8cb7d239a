//! How far a feeder has come, and who waits for it to come further.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::object::Revision;

/// A revision that is waited for. Advancing costs what those cost whose wait is over, however many still wait.
#[derive(Debug, Default)]
pub(super) struct Progress {
    revision: AtomicU64,
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    next_id: u64,
    by_revision: BTreeMap<(Revision, u64), oneshot::Sender<()>>,
}

impl Progress {
    pub(super) fn at(revision: Revision) -> Self {
        Self { revision: AtomicU64::new(revision), waiting: Mutex::default() }
    }

    pub(super) fn get(&self) -> Revision {
        self.revision.load(Ordering::Acquire)
    }

    pub(super) fn advance(&self, revision: Revision) {
        if self.revision.fetch_max(revision, Ordering::AcqRel) < revision {
            self.wake(revision);
        }
    }

    /// As [`Progress::advance`], but also backwards.
    pub(super) fn reset(&self, revision: Revision) {
        self.revision.store(revision, Ordering::Release);
        self.wake(revision);
    }

    fn wake(&self, revision: Revision) {
        let mut waiting = self.waiting.lock();
        while let Some(first) = waiting.by_revision.first_entry()
            && first.key().0 <= revision
        {
            // A receiver that is gone stopped waiting.
            let _ = first.remove().send(());
        }
    }

    pub(super) async fn wait(&self, revision: Revision) {
        let (sender, receiver) = oneshot::channel();
        let key = {
            let mut waiting = self.waiting.lock();
            // Under the lock, so that no advance slips in between.
            if self.get() >= revision {
                return;
            }
            let key = (revision, waiting.next_id);
            waiting.next_id += 1;
            waiting.by_revision.insert(key, sender);
            key
        };
        let _place = Place { progress: self, key };
        // The sender is dropped with `self` only, which this borrows.
        let _ = receiver.await;
    }
}

/// A place among those who wait, given up when the wait is over or abandoned.
struct Place<'a> {
    progress: &'a Progress,
    key: (Revision, u64),
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.progress.waiting.lock().by_revision.remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn waits_end_at_their_revision_and_leave_nothing_behind() {
        let progress = Progress::at(3);
        progress.wait(3).await;
        let (mut five, mut six, mut seven) = (Box::pin(progress.wait(5)), Box::pin(progress.wait(6)), Box::pin(progress.wait(7)));
        assert!((&mut five).now_or_never().is_none() && (&mut six).now_or_never().is_none() && (&mut seven).now_or_never().is_none());
        progress.advance(6);
        assert!(five.now_or_never().is_some() && six.now_or_never().is_some() && (&mut seven).now_or_never().is_none());
        progress.advance(4);
        assert_eq!(progress.get(), 6);
        drop(seven);
        assert!(progress.waiting.lock().by_revision.is_empty());
        progress.reset(2);
        assert_eq!(progress.get(), 2);
    }
}
