//! The work queue: each key at most once in the queue and never concurrently, failures after a growing pause, and expensive keys only after
//! a rest. Pure: time is passed in.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::hash::Hash;
use std::time::Duration;

use tokio::time::Instant;

/// The pause after the first failure; doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// A queue of keys. Fresh keys come out in order of arrival, delayed ones when due.
#[derive(Debug)]
pub struct Queue<K> {
    ready: VecDeque<K>,
    queued: HashSet<K>,
    /// Keys handed out and not yet given back; `true` if they were added again meanwhile.
    working: HashMap<K, bool>,
    delayed: BTreeSet<(Instant, u64)>,
    delayed_keys: HashMap<u64, K>,
    /// The earliest delay of each delayed key.
    due: HashMap<K, (Instant, u64)>,
    /// Keys whose work is done, but that rest: until then they count as in progress.
    resting: BTreeSet<(Instant, u64)>,
    resting_keys: HashMap<u64, K>,
    next_ticket: u64,
    failures: HashMap<K, u32>,
}

impl<K> Default for Queue<K> {
    fn default() -> Self {
        Self {
            ready: VecDeque::new(),
            queued: HashSet::new(),
            working: HashMap::new(),
            delayed: BTreeSet::new(),
            delayed_keys: HashMap::new(),
            due: HashMap::new(),
            resting: BTreeSet::new(),
            resting_keys: HashMap::new(),
            next_ticket: 0,
            failures: HashMap::new(),
        }
    }
}

impl<K: Clone + Eq + Hash> Queue<K> {
    /// Asks for work on a key as soon as may be. False if it was asked for before.
    pub fn add(&mut self, key: K) -> bool {
        if let Some(again) = self.working.get_mut(&key) {
            return !std::mem::replace(again, true);
        }
        let is_new = self.queued.insert(key.clone());
        if is_new {
            self.ready.push_back(key);
        }
        is_new
    }

    /// How many keys are ready to be worked on.
    pub fn ready(&self) -> usize {
        self.ready.len()
    }

    /// Asks for work on a key at `at`, unless it is due earlier anyway.
    pub fn add_at(&mut self, key: K, at: Instant) {
        if let Some(earlier) = self.due.get(&key).copied() {
            if earlier.0 <= at {
                return;
            }
            self.delayed.remove(&earlier);
            self.delayed_keys.remove(&earlier.1);
        }
        let ticket = (at, self.next_ticket);
        self.next_ticket += 1;
        self.delayed.insert(ticket);
        self.delayed_keys.insert(ticket.1, key.clone());
        self.due.insert(key, ticket);
    }

    /// The next key to work on; it is out until [`Queue::done`] or [`Queue::failed`].
    pub fn take(&mut self, now: Instant) -> Option<K> {
        while let Some(ticket) = self.delayed.first().copied().filter(|it| it.0 <= now) {
            self.delayed.remove(&ticket);
            if let Some(key) = self.delayed_keys.remove(&ticket.1) {
                self.due.remove(&key);
                self.add(key);
            }
        }
        while let Some(ticket) = self.resting.first().copied().filter(|it| it.0 <= now) {
            self.resting.remove(&ticket);
            if let Some(key) = self.resting_keys.remove(&ticket.1) {
                self.give_back(&key);
            }
        }
        let key = self.ready.pop_front()?;
        self.queued.remove(&key);
        self.working.insert(key.clone(), false);
        Some(key)
    }

    /// When the next delayed key is due or the next rest ends, if no key is ready.
    pub fn next_due(&self) -> Option<Instant> {
        [&self.delayed, &self.resting].into_iter().filter_map(|it| it.first()).map(|it| it.0).min()
    }

    /// Ends successful work on a key.
    pub fn done(&mut self, key: &K) {
        self.failures.remove(key);
        self.give_back(key);
    }

    /// Ends successful work on a key, which then rests until `until`.
    pub fn done_resting(&mut self, key: &K, until: Instant) {
        self.failures.remove(key);
        let ticket = (until, self.next_ticket);
        self.next_ticket += 1;
        self.resting.insert(ticket);
        self.resting_keys.insert(ticket.1, key.clone());
    }

    /// Ends failed work on a key, to be retried after a pause, which is returned.
    pub fn failed(&mut self, key: &K, now: Instant) -> Duration {
        let failures = self.failures.entry(key.clone()).or_default();
        let pause = FIRST_PAUSE.saturating_mul(1 << (*failures).min(16)).min(LONGEST_PAUSE);
        *failures += 1;
        self.give_back(key);
        self.add_at(key.clone(), now + pause);
        pause
    }

    fn give_back(&mut self, key: &K) {
        if self.working.remove(key) == Some(true) {
            self.add(key.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_never_at_work_twice() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        queue.add("a");
        queue.add("a");
        assert_eq!(queue.take(now), Some("a"));
        queue.add("a");
        assert_eq!(queue.take(now), None);
        queue.done(&"a");
        assert_eq!(queue.take(now), Some("a"));
        queue.done(&"a");
        assert_eq!(queue.take(now), None);
    }

    #[test]
    fn the_earliest_of_several_delays_counts() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        let after = |seconds| now + Duration::from_secs(seconds);
        queue.add_at("a", after(5));
        queue.add_at("a", after(2));
        queue.add_at("a", after(9));
        assert_eq!(queue.next_due(), Some(after(2)));
        assert_eq!(queue.take(after(1)), None);
        assert_eq!(queue.take(after(2)), Some("a"));
        queue.done(&"a");
        assert_eq!(queue.take(after(20)), None);
    }

    #[test]
    fn what_was_much_work_rests() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        let after = |seconds| now + Duration::from_secs(seconds);
        queue.add("a");
        queue.add("b");
        assert_eq!((queue.take(now), queue.take(now)), (Some("a"), Some("b")));
        queue.add("b");
        queue.done_resting(&"a", after(2));
        queue.done_resting(&"b", after(3));
        queue.add("a");
        assert_eq!((queue.take(after(1)), queue.next_due()), (None, Some(after(2))));
        assert_eq!((queue.take(after(2)), queue.take(after(2))), (Some("a"), None));
        assert_eq!(queue.next_due(), Some(after(3)));
        assert_eq!((queue.take(after(3)), queue.next_due()), (Some("b"), None));
        // A key without another request is forgotten.
        queue.done_resting(&"a", after(4));
        assert_eq!((queue.take(after(4)), queue.next_due()), (None, None));
    }

    #[test]
    fn failures_come_back_later_and_later() {
        let (mut queue, mut now) = (Queue::default(), Instant::now());
        queue.add("a");
        let mut last = Duration::ZERO;
        for _ in 0..20 {
            assert_eq!(queue.take(now), Some("a"));
            let pause = queue.failed(&"a", now);
            assert!(pause >= last && pause <= LONGEST_PAUSE);
            assert_eq!(queue.take(now), None);
            last = pause;
            now += pause;
        }
        assert_eq!(last, LONGEST_PAUSE);
        queue.take(now);
        queue.done(&"a");
        queue.add("a");
        queue.take(now);
        assert_eq!(queue.failed(&"a", now), FIRST_PAUSE);
    }
}
