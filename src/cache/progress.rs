//! The revision that a feeder has reached, and the tasks waiting for a later one.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::object::Revision;

/// A revision that tasks can wait for. The cost of advancing depends on the waits that it ends, not on those that remain.
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

    /// As [`Progress::advance`], but may also go back.
    pub(super) fn reset(&self, revision: Revision) {
        self.revision.store(revision, Ordering::Release);
        self.wake(revision);
    }

    fn wake(&self, revision: Revision) {
        let mut waiting = self.waiting.lock();
        while let Some(first) = waiting.by_revision.first_entry()
            && first.key().0 <= revision
        {
            // A dropped receiver no longer waits.
            let _ = first.remove().send(());
        }
    }

    pub(super) async fn wait(&self, revision: Revision) {
        let (sender, receiver) = oneshot::channel();
        let key = {
            let mut waiting = self.waiting.lock();
            // Checked under the lock, so that no advance is missed.
            if self.get() >= revision {
                return;
            }
            let key = (revision, waiting.next_id);
            waiting.next_id += 1;
            waiting.by_revision.insert(key, sender);
            key
        };
        let _place = Place { progress: self, key };
        // `self` owns the sender, and this future borrows `self`.
        let _ = receiver.await;
    }
}

/// An entry in the waiting list, removed when the wait ends or is abandoned.
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
