//! What clients are warned of.

use std::sync::Arc;

use parking_lot::Mutex;

/// What a client is to be told of its request beside the answer, be that a refusal; each thing once.
#[derive(Clone, Debug, Default)]
pub(crate) struct Warnings(Arc<Mutex<Vec<String>>>);

impl Warnings {
    pub(crate) fn add(&self, warnings: impl IntoIterator<Item = String>) {
        for warning in warnings {
            let mut all = self.0.lock();
            if !all.contains(&warning) {
                all.push(warning);
            }
        }
    }

    pub(crate) fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock())
    }
}
