//! The decisions: compares the desired pod with the observed one.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use super::super::backoff::Backoff;
use super::super::probes::{Probes, spec as probe_spec};
use super::{Action, Happening, Machine, Op, Role, Seen, Unit, Volumes, units};
use crate::runtime::{Exit, State};
use crate::util::duration::{after, of_user};

/// How long a failed pull is shown as `ErrImagePull` before it is a back-off.
const FRESH: SignedDuration = SignedDuration::from_secs(2);
/// How long a stop may outlast its deadline before the container is killed separately.
const KILL_SLACK: SignedDuration = SignedDuration::from_secs(2);

impl Machine {
    pub(super) fn step(&mut self, now: Timestamp, actions: &mut Vec<Action>) {
        self.wake = None;
        if self.ended || !self.is_settled(actions) {
            return;
        }
        self.follow_probes();
        if self.outcome.is_none() && !self.is_stopping() {
            self.outcome = self.find_outcome();
        }
        self.check_deadline(now, actions);
        if self.is_stopping() {
            self.stop(now, actions);
        } else {
            self.run(now, actions);
        }
        self.prune(now, actions);
    }

    /// Whether the observation is as new as the last operation's end. If not, asks for another.
    fn is_settled(&mut self, actions: &mut Vec<Action>) -> bool {
        let stale = self.changed || self.seen != Some(self.epoch);
        if stale && !self.looking && !self.blind {
            (self.looking, self.changed) = (true, false);
            actions.push(Action::Look(self.epoch));
        }
        !self.looking && !stale
    }

    /// Whether everything is to end, whatever the reason.
    pub(super) fn is_stopping(&self) -> bool {
        self.ending.is_some() || self.outcome.is_some() || self.failed.is_some()
    }

    fn wake_by(&mut self, at: Timestamp) {
        self.wake = Some(self.wake.map_or(at, |wake| wake.min(at)));
    }

    fn is_busy(&self, name: &str) -> bool {
        self.busy.contains(&Op::Container(name.to_owned()))
    }

    fn policy(&self) -> &str {
        self.spec.restart_policy.as_deref().unwrap_or("Always")
    }

    /// Whether a container that ended this way is started again.
    pub(super) fn restarts(&self, role: Role, exit: &Exit) -> bool {
        match (role, self.policy()) {
            (Role::Sidecar, _) => true,
            (Role::Init, "Always") | (_, "OnFailure") => exit.code != 0,
            (_, "Never") => false,
            _ => true,
        }
    }

    /// Once every main container has ended for good, or an init container failed for good: whether it was well.
    fn find_outcome(&self) -> Option<bool> {
        let exit = |unit: &Unit<'_>| self.observed.newest(&unit.spec.name).and_then(Seen::exit);
        let spec = self.spec.clone();
        let failed_init = |unit: &Unit<'_>| {
            let failed = exit(unit).is_some_and(|exit| exit.code != 0 && !self.restarts(unit.role, exit));
            unit.role == Role::Init && failed && !self.is_busy(&unit.spec.name)
        };
        if units(&spec).any(|unit| failed_init(&unit)) {
            return Some(false);
        }
        let mut well = true;
        for unit in units(&spec).filter(|unit| unit.role == Role::Main) {
            let exit = exit(&unit).filter(|exit| !self.is_busy(&unit.spec.name) && !self.restarts(unit.role, exit))?;
            well &= exit.code == 0;
        }
        Some(well)
    }

    fn check_deadline(&mut self, now: Timestamp, actions: &mut Vec<Action>) {
        let started = self.pod.status.as_ref().and_then(|status| status.start_time.as_ref()).map(|time| time.0);
        let (Some(seconds), Some(started)) = (self.spec.active_deadline_seconds, started) else { return };
        if self.is_stopping() {
            return;
        }
        let deadline = after(started, of_user(seconds));
        if now < deadline {
            self.wake_by(deadline);
        } else {
            let message = "Pod was active on the node longer than the specified deadline".to_owned();
            actions.push(Action::Event(Happening {
                warning: false,
                reason: "DeadlineExceeded",
                message: message.clone(),
                container: None,
            }));
            self.failed = Some(("DeadlineExceeded".to_owned(), message));
            self.outcome = Some(false);
        }
    }

    fn follow_probes(&mut self) {
        let spec = self.spec.clone();
        for unit in units(&spec) {
            let running = self.observed.newest(&unit.spec.name).and_then(|seen| match &seen.container.state {
                State::Running { started } => Some((seen.id().to_owned(), *started)),
                State::Created | State::Exited(_) => None,
            });
            let slot = self.slots.entry(unit.spec.name.clone()).or_default();
            match running {
                Some((id, started)) if slot.probes.as_ref().is_none_or(|probes| probes.id != id) => {
                    slot.probes = Some(Probes::new(unit.spec, &id, started));
                }
                Some(_) => {}
                None => slot.probes = None,
            }
        }
    }

    /// Brings the pod nearer to all of its containers running.
    fn run(&mut self, now: Timestamp, actions: &mut Vec<Action>) {
        if let Some((_, failed, backoff)) = &self.setup_failed {
            let retry = backoff.retry_at(*failed);
            if now < retry {
                return self.wake_by(retry);
            }
        }
        if self.volumes != Volumes::Ready {
            if !self.busy.contains(&Op::SetUpVolumes) {
                actions.push(Action::SetUpVolumes);
            }
            return;
        }
        let Some(sandbox) = self.observed.sandbox().map(|seen| seen.id().to_owned()) else {
            return self.renew_sandbox(now, actions);
        };
        let spec = self.spec.clone();
        let begun = units(&spec)
            .filter(|unit| unit.role == Role::Main)
            .any(|unit| self.observed.newest(&unit.spec.name).is_some_and(|seen| seen.sandbox == sandbox));
        let mut blocked = false;
        for unit in units(&spec) {
            let name = &unit.spec.name;
            if blocked {
                self.slots.entry(name.clone()).or_default().waiting = Some(("PodInitializing".to_owned(), String::new()));
                continue;
            }
            let done = match unit.role {
                Role::Init if begun || self.is_initialized_by(name, &sandbox) => continue,
                Role::Init | Role::Main => false,
                Role::Sidecar => self.is_up(name),
            };
            self.keep_running(&unit, &sandbox, now, actions);
            blocked = unit.role != Role::Main && !begun && !done;
        }
        self.refresh_volumes(now, actions);
    }

    /// Sets the volumes up again when due: their sources may have changed.
    fn refresh_volumes(&mut self, now: Timestamp, actions: &mut Vec<Action>) {
        let Some((period, at)) = &mut self.refresh else { return };
        let next = after(now, *period);
        let due = *at.get_or_insert(next);
        if now < due {
            return self.wake_by(due);
        }
        *at = Some(next);
        self.wake_by(next);
        if !self.busy.contains(&Op::SetUpVolumes) {
            actions.push(Action::SetUpVolumes);
        }
    }

    /// Whether this init container has done its work for the sandbox.
    pub(super) fn is_initialized_by(&self, name: &str, sandbox: &str) -> bool {
        self.observed
            .newest(name)
            .is_some_and(|seen| (sandbox.is_empty() || seen.sandbox == sandbox) && seen.exit().is_some_and(|exit| exit.code == 0))
    }

    /// Whether the container runs and has started.
    pub(super) fn is_up(&self, name: &str) -> bool {
        self.slots.get(name).and_then(|slot| slot.probes.as_ref()).is_some_and(Probes::has_started)
    }

    /// Creates a new sandbox, once all containers of the old one have stopped.
    fn renew_sandbox(&mut self, now: Timestamp, actions: &mut Vec<Action>) {
        if self.stop_all(|_| true, after(now, self.grace()), now, actions) || self.busy.contains(&Op::Sandbox) {
            return;
        }
        if let Some(exit) = self.observed.sandboxes.last().and_then(Seen::exit) {
            let retry = self.sandbox_tries.retry_at(exit.finished);
            if now < retry {
                return self.wake_by(retry);
            }
        }
        if !self.observed.sandboxes.is_empty() && self.observed.sandboxes.iter().all(|seen| seen.exit().is_some()) {
            actions.push(Action::Event(Happening {
                warning: false,
                reason: "SandboxChanged",
                message: "Pod sandbox changed, it will be killed and re-created.".to_owned(),
                container: None,
            }));
        }
        let attempt = self.observed.sandboxes.last().map_or(0, |newest| match newest.container.state {
            // Made but never started, by an executor that ended in between: the name is taken over.
            State::Created => newest.attempt,
            _ => newest.attempt + 1,
        });
        if attempt > 0 {
            self.sandbox_tries.tried(now);
        }
        actions.push(Action::CreateSandbox { attempt });
    }

    /// The number of the container to start next.
    fn next_attempt(&self, name: &str) -> u32 {
        self.observed.newest(name).map_or(0, |newest| match newest.container.state {
            State::Created => newest.attempt,
            State::Running { .. } | State::Exited(_) => newest.attempt + 1,
        })
    }

    /// One container: probes while it runs, and restarts when due.
    fn keep_running(&mut self, unit: &Unit<'_>, sandbox: &str, now: Timestamp, actions: &mut Vec<Action>) {
        let name = &unit.spec.name;
        if self.is_busy(name) {
            return;
        }
        let attempt = self.next_attempt(name);
        let newest = self.observed.newest(name).map(|seen| (seen.id().to_owned(), seen.sandbox == sandbox, seen.container.state.clone()));
        let mut not_before = now;
        match newest {
            Some((id, true, State::Running { .. })) => return self.probe(unit, &id, now, actions),
            // The container is in the network of a sandbox that no longer exists.
            Some((id, false, State::Running { .. })) => {
                let grace = self.grace();
                if self.may(&Op::Container(name.clone()), now) {
                    actions.push(Action::Stop { container: name.clone(), id, grace });
                }
                return;
            }
            Some((_, _, State::Exited(exit))) => {
                // An init container that did its work does it again for a new sandbox.
                let again = unit.role == Role::Init && exit.code == 0;
                if !again && !self.restarts(unit.role, &exit) {
                    return;
                }
                let slot = self.slots.entry(name.clone()).or_default();
                let restarts = slot.restarts.get_or_insert_with(|| Backoff::recovered(attempt - 1, exit.started));
                not_before = restarts.retry_at(exit.finished);
                if now < not_before {
                    self.wait_for_restart(name, now, not_before, actions);
                    return;
                }
            }
            Some((_, _, State::Created)) | None => {}
        }
        let slot = self.slots.entry(name.clone()).or_default();
        if let Some((failed_attempt, failure, at)) = &slot.failed
            && *failed_attempt >= attempt
        {
            let retry = slot.tries.as_ref().map_or(now, |tries| tries.retry_at(*at));
            if now < retry {
                let (at, failure) = (*at, failure.clone());
                return self.wait_after_failure(name, &failure, at, now, retry, actions);
            }
        }
        debug_assert!(not_before <= now);
        (slot.starting, slot.failed) = (Some(attempt), None);
        slot.waiting = Some(("ContainerCreating".to_owned(), String::new()));
        if attempt > 0 {
            slot.restarts.get_or_insert_with(Backoff::default).tried(now);
        }
        actions.push(Action::Start { container: name.clone(), attempt, sandbox: sandbox.to_owned() });
    }

    fn wait_for_restart(&mut self, name: &str, now: Timestamp, until: Timestamp, actions: &mut Vec<Action>) {
        let slot = self.slots.entry(name.to_owned()).or_default();
        let delay = slot.restarts.map_or(0, |restarts| restarts.delay().as_secs());
        let pod = &self.id;
        let message = format!(
            "back-off {} restarting failed container={name} pod={}_{}({})",
            crate::util::duration::format(std::time::Duration::from_secs(delay.unsigned_abs())),
            pod.name,
            pod.namespace,
            pod.uid
        );
        let waiting = Some(("CrashLoopBackOff".to_owned(), message));
        if slot.waiting != waiting {
            slot.waiting = waiting;
            actions.push(Action::Event(Happening {
                warning: true,
                reason: "BackOff",
                message: format!("Back-off restarting failed container {name} in pod {}_{}({})", pod.name, pod.namespace, pod.uid),
                container: Some(name.to_owned()),
            }));
        }
        debug_assert!(now < until);
        self.wake_by(until);
    }

    fn wait_after_failure(
        &mut self,
        name: &str,
        failure: &super::Failure,
        at: Timestamp,
        now: Timestamp,
        retry: Timestamp,
        actions: &mut Vec<Action>,
    ) {
        let image = units(&self.spec).find(|unit| unit.spec.name == name).and_then(|unit| unit.spec.image.clone()).unwrap_or_default();
        let slot = self.slots.entry(name.to_owned()).or_default();
        let pulls = failure.reason == "ErrImagePull";
        let backs_off = pulls && now >= after(at, FRESH);
        let waiting = if backs_off {
            ("ImagePullBackOff".to_owned(), format!("Back-off pulling image {image:?}: {}: {}", failure.reason, failure.message))
        } else {
            (failure.reason.clone(), failure.message.clone())
        };
        let entered = slot.waiting.as_ref().is_none_or(|(reason, _)| *reason != waiting.0);
        if backs_off && entered {
            for (warning, reason, message) in
                [(false, "BackOff", format!("Back-off pulling image {image:?}")), (true, "Failed", format!("Error: {}", waiting.0))]
            {
                actions.push(Action::Event(Happening { warning, reason, message, container: Some(name.to_owned()) }));
            }
        }
        slot.waiting = Some(waiting);
        if pulls && !backs_off {
            self.wake_by(after(at, FRESH));
        }
        self.wake_by(retry);
    }

    fn probe(&mut self, unit: &Unit<'_>, id: &str, now: Timestamp, actions: &mut Vec<Action>) {
        let name = &unit.spec.name;
        let (own_grace, may_stop) = (self.grace(), self.may(&Op::Container(name.clone()), now));
        let slot = self.slots.entry(name.clone()).or_default();
        (slot.waiting, slot.failed, slot.tries) = (None, None, None);
        let Some(probes) = &mut slot.probes else { return };
        if let Some(kind) = probes.fatal() {
            if !may_stop {
                return;
            }
            let grace = probe_spec(unit.spec, kind).and_then(|probe| probe.termination_grace_period_seconds).map_or(own_grace, of_user);
            actions.push(Action::Event(Happening {
                warning: false,
                reason: "Killing",
                message: format!("Container {name} failed {} probe, will be restarted", kind.to_string().to_lowercase()),
                container: Some(name.clone()),
            }));
            return actions.push(Action::Stop { container: name.clone(), id: id.to_owned(), grace });
        }
        let due = probes.take_due(now);
        let next = probes.next_due();
        actions.extend(due.into_iter().map(|kind| Action::Probe { container: name.clone(), id: id.to_owned(), kind }));
        if let Some(next) = next {
            self.wake_by(next);
        }
    }

    /// Ends everything: the main containers, then the sidecars, the sandbox, the volumes.
    fn stop(&mut self, now: Timestamp, actions: &mut Vec<Action>) {
        let deadline = self.ending.map_or_else(|| after(now, self.grace()), |ending| ending.deadline);
        let spec = self.spec.clone();
        let is_sidecar = |name: &str| units(&spec).any(|unit| unit.role == Role::Sidecar && unit.spec.name == name);
        if self.stop_all(|name| !is_sidecar(name), deadline, now, actions) || self.stop_all(|_| true, deadline, now, actions) {
            return;
        }
        if self.busy.iter().any(|op| !matches!(op, Op::Remove(_))) {
            return;
        }
        let running: Vec<String> =
            self.observed.sandboxes.iter().filter(|seen| seen.is_running()).map(|seen| seen.id().to_owned()).collect();
        if !running.is_empty() {
            return self.remove(running, now, actions);
        }
        if self.volumes != Volumes::TornDown {
            if self.may(&Op::TearDownVolumes, now) {
                actions.push(Action::TearDownVolumes);
            }
            return;
        }
        if self.ending.is_some() && !self.finished && !self.gone {
            self.finished = true;
            actions.push(Action::Finish);
        }
        if self.gone {
            let left: Vec<String> = self
                .observed
                .sandboxes
                .iter()
                .chain(self.observed.containers.values().flatten())
                .map(|seen| seen.id().to_owned())
                .collect();
            if left.is_empty() && self.busy.is_empty() {
                self.ended = true;
                actions.push(Action::End);
            }
            self.remove(left, now, actions);
        }
    }

    /// Asks the running containers of these names to end; answers whether any is still running or being worked on.
    fn stop_all(&mut self, which: impl Fn(&str) -> bool, deadline: Timestamp, now: Timestamp, actions: &mut Vec<Action>) -> bool {
        let mut any = self.busy.iter().any(|op| matches!(op, Op::Container(name) if which(name)));
        let running: Vec<(String, String)> = self
            .observed
            .all()
            .filter(|(name, seen)| seen.is_running() && which(name))
            .map(|(name, seen)| (name.to_owned(), seen.id().to_owned()))
            .collect();
        for (name, id) in running {
            any = true;
            if self.is_busy(&name) || actions.iter().any(|action| action.op() == Some(Op::Container(name.clone()))) {
                // Being stopped, perhaps with more time than is left by now.
                let overdue = after(deadline, KILL_SLACK);
                if now < overdue {
                    self.wake_by(overdue);
                } else if !self.busy.contains(&Op::Kill(id.clone())) && self.may(&Op::Kill(id.clone()), now) {
                    actions.push(Action::Kill { container: name, id });
                }
                continue;
            }
            if !self.may(&Op::Container(name.clone()), now) {
                continue;
            }
            actions.push(Action::Event(Happening {
                warning: false,
                reason: "Killing",
                message: format!("Stopping container {name}"),
                container: Some(name.clone()),
            }));
            let grace = deadline.duration_since(now).clamp(SignedDuration::ZERO, of_user(i64::MAX));
            actions.push(Action::Stop { container: name, id, grace });
            self.wake_by(after(deadline, KILL_SLACK));
        }
        any
    }

    fn remove(&mut self, ids: Vec<String>, now: Timestamp, actions: &mut Vec<Action>) {
        for id in ids {
            let op = Op::Remove(id.clone());
            if !self.busy.contains(&op) && self.may(&op, now) {
                actions.push(Action::Remove { id });
            }
        }
    }

    /// Whether an operation that failed a moment ago may be tried again. If not, the machine will be woken when it may.
    fn may(&mut self, op: &Op, now: Timestamp) -> bool {
        let Some(at) = self.cooling.get(op).copied() else { return true };
        if now < at {
            self.wake_by(at);
            return false;
        }
        self.cooling.remove(op);
        true
    }

    /// Removes old containers: all but the last two of each name, and all exited sandboxes but the newest.
    fn prune(&mut self, now: Timestamp, actions: &mut Vec<Action>) {
        if self.gone {
            return;
        }
        let mut old: Vec<String> = Vec::new();
        for attempts in self.observed.containers.values() {
            let keep = attempts.len().saturating_sub(2);
            old.extend(attempts[..keep].iter().filter(|seen| seen.exit().is_some()).map(|seen| seen.id().to_owned()));
        }
        let sandboxes = &self.observed.sandboxes;
        let keep = sandboxes.len().saturating_sub(1);
        old.extend(sandboxes[..keep].iter().filter(|seen| !seen.is_running()).map(|seen| seen.id().to_owned()));
        old.retain(|id| !actions.iter().any(|action| matches!(action, Action::Remove { id: other } if other == id)));
        self.remove(old, now, actions);
    }

    /// The pod's specification.
    pub fn spec(&self) -> &Arc<k8s_openapi::api::core::v1::PodSpec> {
        &self.spec
    }
}
