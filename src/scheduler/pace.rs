//! Decides when to ask Mesos for offers (REVIVE), and when to ask for none (SUPPRESS).

use std::time::Duration;

/// The call to the master.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tell {
    /// Offer everything, including declined resources.
    Revive,
    /// Offer nothing until a REVIVE.
    Suppress,
}

/// The longest pause between two REVIVEs while pods cannot be placed.
const LONGEST: Duration = Duration::from_secs(60);
/// How long no pod must wait before offers are suppressed.
const IDLE: Duration = Duration::from_secs(60);
/// How long offers flow during a look for agents that have joined meanwhile.
const GLANCE: Duration = Duration::from_secs(10);

/// Decides on REVIVE and SUPPRESS. A REVIVE makes the master offer every agent, so the more agents, the rarer it is.
#[derive(Debug, Default)]
pub struct Appetite {
    suppressed: bool,
    /// The earliest time of the next REVIVE.
    next: Duration,
    pause: Duration,
    idle_since: Option<Duration>,
    look_around_at: Option<Duration>,
}

impl Appetite {
    /// After a subscription, when the master makes offers by itself.
    pub fn connected(&mut self, now: Duration, agents: usize) {
        *self = Self { next: now + shortest(agents) * 2, pause: shortest(agents), ..Self::default() };
    }

    /// `hungry`: pods are ready to launch that no held offer fits. `news`: this was not so at the last call, or there may be new offers.
    /// `empty`: no offers are held.
    pub fn decide(&mut self, now: Duration, hungry: bool, news: bool, empty: bool, agents: usize) -> Option<Tell> {
        if hungry {
            (self.idle_since, self.look_around_at) = (None, None);
            if news {
                self.pause = shortest(agents);
                self.next = self.next.min(now + self.pause);
            }
            if now < self.next && !self.suppressed {
                return None;
            }
            self.next = now + self.pause;
            self.pause = (self.pause * 2).min(LONGEST);
            self.suppressed = false;
            return Some(Tell::Revive);
        }
        if self.suppressed {
            if self.look_around_at.is_some_and(|at| now >= at) {
                (self.suppressed, self.look_around_at) = (false, None);
                self.idle_since = Some((now + GLANCE).saturating_sub(IDLE));
                return Some(Tell::Revive);
            }
            return None;
        }
        let since = *self.idle_since.get_or_insert(now);
        if now >= since + IDLE && empty {
            self.suppressed = true;
            self.look_around_at = Some(now + between_looks(agents));
            return Some(Tell::Suppress);
        }
        None
    }

    /// When to call [`Appetite::decide`] next, unless something happens before.
    pub fn next_due(&self, hungry: bool, empty: bool) -> Option<Duration> {
        if hungry {
            return Some(self.next);
        }
        // While offers are held, their expiry comes first.
        self.look_around_at.or(self.idle_since.filter(|_| empty && !self.suppressed).map(|since| since + IDLE))
    }
}

fn shortest(agents: usize) -> Duration {
    Duration::from_millis((agents as u64).clamp(100, 2000))
}

/// Looks for new agents cost at most a hundred offers per second on average.
fn between_looks(agents: usize) -> Duration {
    Duration::from_millis(agents as u64 * 10).max(Duration::from_secs(30))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const S: Duration = Duration::from_secs(1);

    #[test]
    fn hunger_is_told_less_and_less_often() {
        let mut it = Appetite::default();
        it.connected(S, 1);
        assert_eq!(it.decide(S, true, true, true, 1), None);
        let told: Vec<u128> = (0..2000)
            .map(|step| S + MS * 10 * step)
            .filter(|now| it.decide(*now, true, false, true, 1).is_some())
            .map(|it| it.as_millis())
            .collect();
        assert_eq!(told, [1100, 1200, 1400, 1800, 2600, 4200, 7400, 13_800]);
        assert_eq!(it.decide(S * 21, true, true, true, 1), None);
        assert_eq!(it.next_due(true, true), Some(S * 21 + MS * 100));
        assert_eq!(it.decide(S * 22, true, false, true, 1), Some(Tell::Revive));
    }

    #[test]
    fn idleness_suppresses_and_looks_around() {
        let mut it = Appetite::default();
        it.connected(S, 1);
        assert_eq!(it.decide(S, false, false, true, 1), None);
        assert_eq!((it.decide(S * 60, false, false, true, 1), it.next_due(false, true)), (None, Some(S * 61)));
        assert_eq!(it.decide(S * 61, false, false, true, 1), Some(Tell::Suppress));
        assert_eq!(it.decide(S * 90, false, false, true, 1), None);
        assert_eq!(it.decide(S * 91, false, false, true, 1), Some(Tell::Revive));
        assert_eq!((it.decide(S * 100, false, false, true, 1), it.decide(S * 101, false, false, false, 1)), (None, None));
        assert_eq!(it.decide(S * 102, false, false, true, 1), Some(Tell::Suppress));
        assert_eq!(it.decide(S * 103, true, true, true, 1), Some(Tell::Revive), "a pod ends it at once");
    }
}
