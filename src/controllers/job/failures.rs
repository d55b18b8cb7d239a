//! The back-off before a job's next pod: longer with each failure since the last success. Failures are remembered, because a deleted pod
//! leaves no trace.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;

use crate::controllers::plan::since;

/// How long after a failure the next pod comes; doubles with every failure in a row.
const SHORTEST: Duration = Duration::from_secs(10);
const LONGEST: Duration = Duration::from_mins(10);
/// Further failures do not lengthen the pause.
const MOST: usize = 7;

/// The failures of one job, by the uids of its pods.
#[derive(Clone, Debug, Default)]
pub(super) struct Failures {
    job: Box<str>,
    success: Option<Timestamp>,
    failed: BTreeMap<Box<str>, Timestamp>,
}

impl Failures {
    /// A job of the same name begins anew.
    pub fn of(before: Option<Self>, job: &str) -> Self {
        before.filter(|it| *it.job == *job).unwrap_or_else(|| Self { job: job.into(), ..Self::default() })
    }

    /// Whether there are no failures.
    pub fn is_empty(&self) -> bool {
        self.failed.is_empty()
    }

    pub fn succeeded(&mut self, at: Timestamp) {
        self.success = self.success.max(Some(at));
        self.failed.retain(|_, failed| *failed >= at);
    }

    pub fn failed(&mut self, pod: &str, at: Timestamp) {
        if self.success.is_some_and(|success| at < success) {
            return;
        }
        self.failed.insert(pod.into(), at);
        if self.failed.len() > MOST
            && let Some(first) = self.failed.iter().min_by_key(|(_, at)| **at).map(|(pod, _)| pod.clone())
        {
            self.failed.remove(&first);
        }
    }

    /// How much longer the next pod waits.
    pub fn left(&self, now: Timestamp) -> Option<Duration> {
        left(self.failed.len() as u32, *self.failed.values().max()?, now)
    }
}

/// The remaining pause after this many failures in a row, the last of which was at `last`.
pub(super) fn left(failures: u32, last: Timestamp, now: Timestamp) -> Option<Duration> {
    let pause = SHORTEST.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(LONGEST);
    Some(pause.saturating_sub(since(last, now))).filter(|it| !it.is_zero())
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use super::*;

    #[test]
    fn failures_count_until_a_success() {
        let begun: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let at = |seconds: i64| begun + SignedDuration::from_secs(seconds);
        let left = |failures: &Failures, now: i64| failures.left(at(now)).map(|it| it.as_secs());
        let mut failures = Failures::of(None, "j");
        assert_eq!(left(&failures, 0), None);
        failures.failed("a", at(0));
        failures.failed("a", at(0));
        assert_eq!((left(&failures, 3), left(&failures, 10)), (Some(7), None));
        failures.failed("b", at(20));
        assert_eq!(left(&failures, 20), Some(20));
        for pod in 0..30 {
            failures.failed(&format!("p{pod}"), at(100 + pod));
        }
        assert_eq!(left(&failures, 129), Some(600), "the longest");
        failures.succeeded(at(110));
        failures.failed("late", at(109));
        assert_eq!(left(&failures, 129), Some(600), "those after it are left");
        failures.succeeded(at(140));
        assert_eq!(left(&failures, 140), None);
        failures.failed("c", at(150));
        let again = Failures::of(Some(failures.clone()), "j");
        assert_eq!((left(&again, 150), left(&Failures::of(Some(failures), "k"), 150)), (Some(10), None));
    }
}
