//! How long to wait before the next try: a delay that doubles with every try and is forgotten after a long quiet time.

use jiff::{SignedDuration, Timestamp};

use crate::util::duration::after;

/// The kubelet's delays between restarts of a container, and between pulls of an image.
const INITIAL: SignedDuration = SignedDuration::from_secs(10);
const MAX: SignedDuration = SignedDuration::from_mins(5);

/// The tries so far of one thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    initial: SignedDuration,
    max: SignedDuration,
    delay: SignedDuration,
    /// The last try; `None` before the first.
    last: Option<Timestamp>,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { initial: INITIAL, max: MAX, delay: INITIAL, last: None }
    }
}

impl Backoff {
    /// For failures that usually pass quickly: one second at first, at most a minute.
    pub fn brisk() -> Self {
        let initial = SignedDuration::from_secs(1);
        Self { initial, max: SignedDuration::from_mins(1), delay: initial, last: None }
    }

    /// The state after a container has been restarted this often, for an executor that was not there to see it.
    pub fn recovered(restarts: u32, last: Timestamp) -> Self {
        if restarts == 0 {
            return Self::default();
        }
        let delay = INITIAL.checked_mul(1 << (restarts - 1).min(16)).unwrap_or(MAX).min(MAX);
        Self { delay, last: Some(last), ..Self::default() }
    }

    /// When to try again after a failure at `failed`: at once the first time, and if the last try did well for long. Whatever the clock
    /// that `failed` comes from, the delay since the last try is kept.
    pub fn retry_at(&self, failed: Timestamp) -> Timestamp {
        match self.last {
            Some(last) if failed.duration_since(last) <= self.max * 2 => after(failed.max(last), self.delay),
            _ => failed,
        }
    }

    /// Notes a try.
    pub fn tried(&mut self, now: Timestamp) {
        self.delay = match self.last {
            Some(last) if now.duration_since(last) <= self.max * 2 => (self.delay * 2).min(self.max),
            _ => self.initial,
        };
        self.last = Some(now);
    }

    pub fn delay(&self) -> SignedDuration {
        self.delay
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_five_minutes_and_are_forgotten() {
        let mut backoff = Backoff::default();
        let mut now = Timestamp::UNIX_EPOCH;
        let mut waits = Vec::new();
        for _ in 0..8 {
            let at = backoff.retry_at(now);
            waits.push(at.duration_since(now).as_secs());
            now = at;
            backoff.tried(now);
        }
        assert_eq!(waits, [0, 10, 20, 40, 80, 160, 300, 300]);
        assert_eq!(Backoff::recovered(4, now).delay(), SignedDuration::from_secs(80));
        // It ran for longer than ten minutes.
        now += SignedDuration::from_mins(11);
        assert_eq!(backoff.retry_at(now), now);
        backoff.tried(now);
        assert_eq!(backoff.delay(), INITIAL);
    }

    #[test]
    fn a_failure_from_before_the_last_try_shortens_no_wait() {
        let mut backoff = Backoff::default();
        let now = Timestamp::UNIX_EPOCH + SignedDuration::from_hours(1);
        backoff.tried(now);
        for failed in [Timestamp::UNIX_EPOCH, now - SignedDuration::from_secs(1), now] {
            assert_eq!(backoff.retry_at(failed), now + INITIAL);
        }
    }
}
