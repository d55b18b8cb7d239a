//! The queue of events to write: at most one entry per event, in its latest form, in order of arrival, and never two concurrent writes of
//! one event. Pure.

use std::collections::{HashMap, HashSet, VecDeque};

use super::correlate::Write;

#[derive(Debug, Default)]
pub(super) struct Waiting {
    order: VecDeque<String>,
    writes: HashMap<String, Write>,
    on_their_way: HashSet<String>,
}

impl Waiting {
    /// Adds a write, or merges it with a queued one of the same event. Returns it if the queue already has `most` entries.
    pub(super) fn add(&mut self, write: Write, most: usize) -> Option<Write> {
        if let Some(earlier) = self.writes.get_mut(write.name()) {
            let new = earlier.new;
            *earlier = Write { new, ..write };
            return None;
        }
        if self.writes.len() >= most {
            return Some(write);
        }
        let name = write.name().to_owned();
        if !self.on_their_way.contains(&name) {
            self.order.push_back(name.clone());
        }
        self.writes.insert(name, write);
        None
    }

    /// The next event to write; it stays in progress until [`Waiting::done`].
    pub(super) fn take(&mut self) -> Option<Write> {
        let name = self.order.pop_front()?;
        let write = self.writes.remove(&name)?;
        self.on_their_way.insert(name);
        Some(write)
    }

    /// Ends a write, successful or not.
    pub(super) fn done(&mut self, name: &str) {
        self.on_their_way.remove(name);
        if self.writes.contains_key(name) {
            self.order.push_back(name.to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Event;

    use super::*;

    fn write(name: &str, count: i32) -> Write {
        let mut event = Event { count: Some(count), ..Event::default() };
        event.metadata.name = Some(name.to_owned());
        Write { event, new: count == 1 }
    }

    fn next(waiting: &mut Waiting) -> Option<(String, Option<i32>, bool)> {
        waiting.take().map(|it| (it.name().to_owned(), it.event.count, it.new))
    }

    #[test]
    fn what_is_counted_while_it_waits_is_one_write() {
        let mut waiting = Waiting::default();
        for (name, count) in [("a", 1), ("b", 1), ("a", 2), ("a", 3)] {
            assert!(waiting.add(write(name, count), 2).is_none());
        }
        assert!(waiting.add(write("c", 1), 2).is_some(), "there is no room");
        assert_eq!(next(&mut waiting), Some(("a".to_owned(), Some(3), true)));
        assert!(waiting.add(write("a", 4), 2).is_none());
        assert_eq!(next(&mut waiting), Some(("b".to_owned(), Some(1), true)));
        assert_eq!(next(&mut waiting), None, "it is on its way");
        waiting.done("a");
        assert_eq!(next(&mut waiting), Some(("a".to_owned(), Some(4), false)));
        waiting.done("a");
        waiting.done("b");
        assert_eq!(next(&mut waiting), None);
    }
}
