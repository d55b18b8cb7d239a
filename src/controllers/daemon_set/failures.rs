//! How long a failed pod stays on its node, so that a pod that always fails is not recreated all the time: longer with each failure.

use std::collections::HashMap;
use std::time::Duration;

use jiff::Timestamp;

use super::ledger::Basis;
use crate::controllers::plan::since;

const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_mins(15);

/// The failures of one version of a set, by node.
#[derive(Clone, Debug, Default)]
pub(super) struct Failures {
    version: (String, i64),
    nodes: HashMap<Box<str>, Failure>,
}

/// The last failed pod that had to go.
#[derive(Clone, Debug)]
struct Failure {
    pod: Box<str>,
    at: Timestamp,
    /// How long the next one stays, counted from then.
    pause: Duration,
}

impl Failures {
    /// A set that was changed begins anew.
    pub fn of(before: Option<Self>, basis: &Basis) -> Self {
        let version = (basis.uid.clone(), basis.generation);
        before.filter(|it| it.version == version).unwrap_or_else(|| Self { version, nodes: HashMap::new() })
    }

    /// How long the failed pods of a node (by their uids) still stay; zero if they are due, also in repeated calls for the same pod.
    pub fn left(&mut self, node: &str, pods: &[&str], now: Timestamp) -> Duration {
        let Some(first) = pods.first() else { return Duration::ZERO };
        let last = self.nodes.get(node).filter(|it| since(it.at, now) <= 2 * LONGEST);
        let pause = match last {
            Some(last) if pods.contains(&&*last.pod) => return Duration::ZERO,
            Some(last) if since(last.at, now) < last.pause => return last.pause - since(last.at, now),
            Some(last) => (2 * last.pause).min(LONGEST),
            None => SHORTEST,
        };
        self.nodes.insert(node.into(), Failure { pod: (*first).into(), at: now, pause });
        Duration::ZERO
    }
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use super::*;

    #[test]
    fn every_failure_doubles_the_pause_until_a_long_time_passes_without() {
        let basis = |generation| Basis { uid: "u".to_owned(), generation, deleted: false, hash: String::new() };
        let mut failures = Failures::of(None, &basis(1));
        let mut now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let mut fail = |failures: &mut Failures, pod: &str, passed: u64| {
            now += SignedDuration::from_secs(passed.cast_signed());
            failures.left("n", &[pod], now).as_secs()
        };
        for (pod, passed, left) in [
            ("a", 0, 0),
            ("a", 0, 0),
            ("b", 0, 1),
            ("b", 1, 0),
            ("c", 1, 1),
            ("c", 1, 0),
            ("d", 4, 0),
            ("e", 8, 0),
            ("f", 16, 0),
            ("g", 32, 0),
            ("h", 64, 0),
            ("i", 128, 0),
            ("j", 256, 0),
            ("k", 512, 0),
            ("l", 899, 1),
            ("l", 1, 0),
            ("m", 900, 0),
            ("n", 1801, 0),
            ("o", 0, 1),
        ] {
            assert_eq!(fail(&mut failures, pod, passed), left, "{pod} after {passed}");
        }
        assert_eq!(failures.left("another", &["o"], now), Duration::ZERO);
        let mut changed = Failures::of(Some(failures), &basis(2));
        assert_eq!(changed.left("n", &["p"], now), Duration::ZERO);
    }
}
