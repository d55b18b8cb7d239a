//! This server's pending writes. They come back with the store's changes as bytes, which need not be parsed again.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::object::{Draft, Object, Revision};

/// Objects on their way into the store, by their keys there.
#[derive(Debug, Default)]
pub(crate) struct PendingWrites(Mutex<HashMap<String, Arc<Draft>>>);

/// A place among them, given up when the write is over.
pub(crate) struct Writing<'a> {
    pending: &'a PendingWrites,
    key: &'a str,
    draft: Arc<Draft>,
}

impl PendingWrites {
    pub(crate) fn enter<'a>(&'a self, key: &'a str, draft: Arc<Draft>) -> Writing<'a> {
        // Of concurrent writes to one key, the later one is kept; the earlier object is parsed.
        self.0.lock().insert(key.to_owned(), draft.clone());
        Writing { pending: self, key, draft }
    }

    /// The object that the store has under a key since this revision, if it was written here.
    pub(crate) fn arrived(&self, key: &str, stored: &[u8], revision: Revision) -> Option<Arc<Object>> {
        let draft = self.0.lock().get(key).filter(|it| it.stored() == stored)?.clone();
        Some(draft.at_revision(revision))
    }
}

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        let mut pending = self.pending.0.lock();
        if pending.get(self.key).is_some_and(|it| Arc::ptr_eq(it, &self.draft)) {
            pending.remove(self.key);
        }
    }
}
