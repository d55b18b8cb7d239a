//! What clients are warned of.

use std::sync::Arc;

use indexmap::IndexSet;
use parking_lot::Mutex;

/// What a client is to be told of its request beside the answer, be that a refusal; each thing once.
#[derive(Clone, Debug, Default)]
pub(crate) struct Warnings(Arc<Mutex<IndexSet<String>>>);

impl Warnings {
    pub(crate) fn add(&self, warnings: impl IntoIterator<Item = String>) {
        for warning in warnings {
            self.0.lock().insert(warning);
        }
    }

    pub(crate) fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock()).into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_thing_is_told_once_however_many_there_are() {
        let warnings = Warnings::default();
        let all: Vec<String> = (0..150_000).map(|it| format!("line {it}: key already set")).collect();
        warnings.add(all.iter().chain(&all).cloned());
        assert_eq!(warnings.take(), all);
        assert_eq!(warnings.take(), Vec::<String>::new());
    }
}
