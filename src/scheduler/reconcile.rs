//! Reconciliation with Mesos: of each of our tasks by id (explicit), or of all tasks that Mesos has (implicit).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// A request to the master.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// These tasks, each with its agent.
    Explicit(Vec<(Arc<str>, Arc<str>)>),
    Implicit,
}

/// The timing of reconciliations.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Shortest time between the starts of two reconciliations.
    pub cooldown: Duration,
    /// Interval of implicit reconciliations; zero: none.
    pub interval: Duration,
    /// Delay of the first implicit one.
    pub initial_delay: Duration,
    pub max_backoff: Duration,
}

const FIRST_BACKOFF: Duration = Duration::from_secs(1);

/// Decides when to reconcile, and repeats explicit requests for tasks without an answer.
#[derive(Debug)]
pub struct Reconciler {
    pace: Pace,
    /// Requested, but not started.
    explicit_wanted: bool,
    implicit_wanted: bool,
    last: Option<Duration>,
    next_implicit: Option<Duration>,
    running: Option<Running>,
    /// The numbers started and cancelled since they were last read.
    pub executed: [u64; 2],
    pub cancelled: u64,
    /// The durations of finished explicit reconciliations.
    pub latencies: Vec<Duration>,
}

#[derive(Debug)]
struct Running {
    unanswered: HashMap<Arc<str>, Arc<str>>,
    again_at: Duration,
    backoff: Duration,
    since: Duration,
}

impl Reconciler {
    pub fn new(pace: Pace) -> Self {
        Self {
            pace,
            explicit_wanted: false,
            implicit_wanted: false,
            last: None,
            next_implicit: None,
            running: None,
            executed: [0; 2],
            cancelled: 0,
            latencies: Vec::new(),
        }
    }

    /// After a subscription, the first or a later one: earlier requests and launches may be lost.
    pub fn connected(&mut self, now: Duration) {
        self.cancel();
        self.last = None;
        self.explicit_wanted = true;
        if !self.pace.interval.is_zero() {
            self.next_implicit = Some(now + self.pace.initial_delay);
        }
    }

    pub fn disconnected(&mut self) {
        self.cancel();
        (self.explicit_wanted, self.implicit_wanted, self.next_implicit) = (false, false, None);
    }

    fn cancel(&mut self) {
        if self.running.take().is_some() {
            self.cancelled += 1;
        }
    }

    /// Whether an explicit reconciliation is running or requested.
    pub fn is_running(&self) -> bool {
        self.running.is_some() || self.explicit_wanted
    }

    pub fn want_explicit(&mut self) {
        self.explicit_wanted = true;
    }

    pub fn want_implicit(&mut self) {
        self.implicit_wanted = true;
    }

    /// A status of a task arrived, or the task is gone.
    pub fn answered(&mut self, now: Duration, task: &str) {
        let Some(running) = &mut self.running else { return };
        running.unanswered.remove(task);
        if running.unanswered.is_empty() {
            self.latencies.push(now.saturating_sub(running.since));
            self.running = None;
        }
    }

    /// The request that is due now, if any. `tasks` lists the tasks that Mesos should know.
    pub fn due(&mut self, now: Duration, tasks: impl FnOnce() -> Vec<(Arc<str>, Arc<str>)>) -> Option<Ask> {
        let cool = self.last.is_none_or(|last| now >= last + self.pace.cooldown);
        if self.explicit_wanted && cool {
            self.cancel();
            (self.explicit_wanted, self.last) = (false, Some(now));
            self.executed[0] += 1;
            let tasks = tasks();
            if tasks.is_empty() {
                return None;
            }
            let unanswered = tasks.iter().cloned().collect();
            self.running = Some(Running { unanswered, again_at: now + FIRST_BACKOFF, backoff: FIRST_BACKOFF, since: now });
            return Some(Ask::Explicit(tasks));
        }
        if let Some(running) = &mut self.running
            && now >= running.again_at
        {
            running.backoff = (running.backoff * 2).min(self.pace.max_backoff);
            running.again_at = now + running.backoff;
            let mut tasks: Vec<_> = running.unanswered.iter().map(|(task, agent)| (task.clone(), agent.clone())).collect();
            tasks.sort_unstable();
            return Some(Ask::Explicit(tasks));
        }
        if self.next_implicit.is_some_and(|at| now >= at) {
            (self.implicit_wanted, self.next_implicit) = (true, Some(now + self.pace.interval));
        }
        if self.implicit_wanted && self.running.is_none() && !self.explicit_wanted && cool {
            (self.implicit_wanted, self.last) = (false, Some(now));
            self.executed[1] += 1;
            return Some(Ask::Implicit);
        }
        None
    }

    /// When to call [`Reconciler::due`] next, unless something happens before.
    pub fn next_due(&self) -> Option<Duration> {
        let cool_at = self.last.map_or(Duration::ZERO, |last| last + self.pace.cooldown);
        let wanted = (self.explicit_wanted || self.implicit_wanted && self.running.is_none()).then_some(cool_at);
        [wanted, self.running.as_ref().map(|it| it.again_at), self.next_implicit].into_iter().flatten().min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    fn reconciler() -> Reconciler {
        Reconciler::new(Pace { cooldown: S * 15, interval: S * 300, initial_delay: S * 15, max_backoff: S * 4 })
    }

    fn tasks() -> Vec<(Arc<str>, Arc<str>)> {
        vec![("t1".into(), "a".into()), ("t2".into(), "b".into())]
    }

    #[test]
    fn explicit_repeats_for_the_unanswered() {
        let mut it = reconciler();
        it.connected(S);
        assert_eq!(it.due(S, tasks), Some(Ask::Explicit(tasks())));
        it.answered(S, "t1");
        assert_eq!(it.due(S, tasks), None);
        let second = Some(Ask::Explicit(vec![("t2".into(), "b".into())]));
        assert_eq!((it.due(S * 2, tasks), it.due(S * 3, tasks), it.due(S * 4, tasks)), (second.clone(), None, second));
        it.answered(S * 5, "t2");
        assert_eq!((it.due(S * 9, tasks), it.latencies.as_slice()), (None, &[S * 4][..]));
    }

    #[test]
    fn implicit_waits_for_its_time_and_for_explicit() {
        let mut it = reconciler();
        it.connected(S);
        assert_eq!(it.due(S, Vec::new), None);
        assert_eq!(it.next_due(), Some(S * 16));
        assert_eq!(it.due(S * 16, tasks), Some(Ask::Implicit));
        it.want_explicit();
        it.want_implicit();
        assert_eq!((it.due(S * 30, tasks), it.next_due()), (None, Some(S * 31)));
        assert_eq!(it.due(S * 31, tasks), Some(Ask::Explicit(tasks())));
        it.answered(S * 31, "t1");
        it.answered(S * 31, "t2");
        assert_eq!((it.due(S * 45, tasks), it.due(S * 46, tasks)), (None, Some(Ask::Implicit)));
        assert_eq!(it.due(S * 316, tasks), Some(Ask::Implicit));
    }

    #[test]
    fn a_new_request_cancels_the_running_one() {
        let mut it = reconciler();
        it.connected(S);
        it.due(S, tasks);
        it.want_explicit();
        assert_eq!(it.due(S * 16, tasks), Some(Ask::Explicit(tasks())));
        assert_eq!((it.cancelled, it.executed), (1, [2, 0]));
        it.disconnected();
        assert_eq!(it.next_due(), None);
    }
}
