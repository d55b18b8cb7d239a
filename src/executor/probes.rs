//! The state of a container's probes: when each is due, and the verdict from its results. Pure; the worker runs the probes.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Container, Probe};

use crate::util::duration::{after, of_user};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ProbeKind {
    Startup,
    Liveness,
    Readiness,
}

impl std::fmt::Display for ProbeKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Startup => "Startup",
            Self::Liveness => "Liveness",
            Self::Readiness => "Readiness",
        })
    }
}

/// The result of one run of a probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Success,
    /// With the message for the user.
    Failure(String),
    /// The probe itself did not work, which says nothing about the container.
    Unknown(String),
}

/// The probe of this kind that a container has.
pub fn spec(container: &Container, kind: ProbeKind) -> Option<&Probe> {
    match kind {
        ProbeKind::Startup => container.startup_probe.as_ref(),
        ProbeKind::Liveness => container.liveness_probe.as_ref(),
        ProbeKind::Readiness => container.readiness_probe.as_ref(),
    }
}

/// The probes of one running container.
#[derive(Clone, Debug)]
pub struct Probes {
    /// The container's id: another one starts afresh.
    pub id: String,
    states: Vec<State>,
}

#[derive(Clone, Debug)]
struct State {
    kind: ProbeKind,
    /// The probe's current verdict.
    passed: bool,
    failed: bool,
    streak: (bool, i32),
    due: Timestamp,
    running: bool,
    period: SignedDuration,
    success: i32,
    failure: i32,
}

impl Probes {
    pub fn new(container: &Container, id: &str, started: Timestamp) -> Self {
        let states = [ProbeKind::Startup, ProbeKind::Liveness, ProbeKind::Readiness]
            .into_iter()
            .filter_map(|kind| spec(container, kind).map(|probe| State::new(kind, probe, started)))
            .collect();
        Self { id: id.to_owned(), states }
    }

    /// A container without a startup probe has started once it runs.
    pub fn has_started(&self) -> bool {
        self.states.iter().all(|state| state.kind != ProbeKind::Startup || state.passed)
    }

    pub fn is_ready(&self) -> bool {
        self.has_started() && self.states.iter().all(|state| state.kind != ProbeKind::Readiness || state.passed)
    }

    /// The probe for which the container is to be killed, if there is one.
    pub fn fatal(&self) -> Option<ProbeKind> {
        self.states.iter().find(|state| state.kind != ProbeKind::Readiness && state.failed).map(|state| state.kind)
    }

    fn is_active(&self, kind: ProbeKind) -> bool {
        let started = self.has_started();
        if kind == ProbeKind::Startup { !started } else { started }
    }

    /// Marks the probes that are due as running, and names them.
    pub fn take_due(&mut self, now: Timestamp) -> Vec<ProbeKind> {
        let active: Vec<bool> = self.states.iter().map(|state| self.is_active(state.kind)).collect();
        let mut due = Vec::new();
        for (state, active) in self.states.iter_mut().zip(active) {
            if active && !state.running && state.due <= now {
                state.running = true;
                due.push(state.kind);
            }
        }
        due
    }

    /// When the next probe is due.
    pub fn next_due(&self) -> Option<Timestamp> {
        self.states.iter().filter(|state| self.is_active(state.kind) && !state.running).map(|state| state.due).min()
    }

    /// Takes a result in.
    pub fn report(&mut self, kind: ProbeKind, outcome: &Outcome, now: Timestamp) {
        let Some(state) = self.states.iter_mut().find(|state| state.kind == kind) else { return };
        state.running = false;
        state.due = after(now, state.period);
        let success = match outcome {
            Outcome::Success => true,
            Outcome::Failure(_) => false,
            Outcome::Unknown(_) => return,
        };
        state.streak = if state.streak.0 == success { (success, state.streak.1 + 1) } else { (success, 1) };
        if success && state.streak.1 >= state.success {
            (state.passed, state.failed) = (true, false);
        } else if !success && state.streak.1 >= state.failure {
            (state.passed, state.failed) = (false, true);
        }
        if kind == ProbeKind::Startup && state.passed {
            // The initial delays of the others count from the container's start, which may be long ago.
            for other in &mut self.states {
                other.due = other.due.max(now);
            }
        }
    }
}

impl State {
    fn new(kind: ProbeKind, probe: &Probe, started: Timestamp) -> Self {
        let seconds = |value: Option<i32>| of_user(value.unwrap_or_default().into());
        Self {
            kind,
            passed: kind == ProbeKind::Liveness,
            failed: false,
            streak: (false, 0),
            due: after(started, seconds(probe.initial_delay_seconds)),
            running: false,
            period: seconds(probe.period_seconds.filter(|period| *period > 0).or(Some(10))),
            success: probe.success_threshold.unwrap_or(1).max(1),
            failure: probe.failure_threshold.filter(|failures| *failures > 0).unwrap_or(3),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    fn probe(initial: i32, period: i32, failures: i32) -> Option<Probe> {
        Some(Probe {
            initial_delay_seconds: Some(initial),
            period_seconds: Some(period),
            failure_threshold: Some(failures),
            ..Default::default()
        })
    }

    #[test]
    fn nothing_else_is_probed_before_the_startup_probe_passed() {
        let container = Container {
            startup_probe: probe(0, 1, 30),
            liveness_probe: probe(5, 10, 2),
            readiness_probe: probe(0, 2, 1),
            ..Default::default()
        };
        let mut probes = Probes::new(&container, "a", at(0));
        assert_eq!(probes.take_due(at(0)), [ProbeKind::Startup]);
        assert_eq!(probes.next_due(), None);
        probes.report(ProbeKind::Startup, &Outcome::Failure("no".into()), at(0));
        assert!(!probes.has_started() && !probes.is_ready());
        assert_eq!(probes.take_due(at(1)), [ProbeKind::Startup]);
        probes.report(ProbeKind::Startup, &Outcome::Success, at(1));
        assert!(probes.has_started() && !probes.is_ready());
        assert_eq!(probes.take_due(at(1)), [ProbeKind::Readiness]);
        probes.report(ProbeKind::Readiness, &Outcome::Success, at(2));
        assert!(probes.is_ready());
        assert_eq!(probes.take_due(at(5)), [ProbeKind::Liveness, ProbeKind::Readiness]);
        probes.report(ProbeKind::Liveness, &Outcome::Failure("no".into()), at(5));
        probes.report(ProbeKind::Readiness, &Outcome::Failure("no".into()), at(5));
        assert!(!probes.is_ready());
        assert_eq!(probes.fatal(), None);
        assert_eq!(probes.take_due(at(15)), [ProbeKind::Liveness, ProbeKind::Readiness]);
        probes.report(ProbeKind::Liveness, &Outcome::Unknown("engine away".into()), at(15));
        assert_eq!(probes.fatal(), None);
        assert_eq!(probes.take_due(at(25)), [ProbeKind::Liveness]);
        probes.report(ProbeKind::Liveness, &Outcome::Failure("no".into()), at(25));
        assert_eq!(probes.fatal(), Some(ProbeKind::Liveness));
    }

    #[test]
    fn a_container_without_probes_is_ready() {
        let probes = Probes::new(&Container::default(), "a", at(0));
        assert!(probes.has_started() && probes.is_ready() && probes.next_due().is_none());
    }
}
