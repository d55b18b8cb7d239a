//! The life of one pod as a state machine without I/O: inputs in (the pod, the runtime's containers, results of operations), actions out,
//! time passed in. It is level-triggered: regardless of history, it compares the pod with the observed state and requests the next steps,
//! so that a restarted executor continues where the last one stopped.
//!
//! Two rules keep it safe. Operations on the same container exclude each other. And no decision uses an observation older than the end of
//! the last operation: after each one the machine first requests a new look.

mod decide;
mod observed;
mod view;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, Volume};

use super::backoff::Backoff;
use super::names::PodId;
use super::probes::{Outcome, ProbeKind, Probes};
use crate::runtime;
use crate::util::duration::{after, of_user};

pub use observed::{Observed, Seen};
pub use view::{UnitView, View};

/// Grace period of a container whose pod no longer exists in the API.
const ORPHAN_GRACE: SignedDuration = SignedDuration::from_secs(2);
/// The default of `spec.terminationGracePeriodSeconds`.
const DEFAULT_GRACE: i64 = 30;
/// Pause before the engine is asked again after a refusal or a request without effect.
const COOLING: SignedDuration = SignedDuration::from_secs(5);

/// An input of the machine.
#[derive(Debug)]
pub enum Input {
    /// A newer state of the pod.
    Pod(Arc<Pod>),
    /// The pod no longer exists in the API.
    Gone,
    /// The pod is to end although it is not deleted. Seconds; `None`: the pod's own grace period.
    Terminate {
        grace: Option<i64>,
    },
    /// Something about the pod's containers changed, or may have.
    Changed,
    /// The observed containers. `epoch` is that of the [`Action::Look`].
    Seen {
        epoch: u64,
        containers: Vec<runtime::Container>,
    },
    /// The runtime did not answer, for this reason; it is looked at again on the next [`Input::Changed`].
    Blind(String),
    /// An operation ended.
    Done(Op, Result<(), Failure>),
    Probed {
        container: String,
        id: String,
        kind: ProbeKind,
        outcome: Outcome,
    },
    /// The time asked for by [`Machine::wake_at`] has come.
    Tick,
}

/// Something to do. Operations ([`Action::op`]) are answered with [`Input::Done`], looks with [`Input::Seen`] or [`Input::Blind`], probes
/// with [`Input::Probed`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    Look(u64),
    SetUpVolumes,
    TearDownVolumes,
    CreateSandbox {
        attempt: u32,
    },
    /// Get the image, create the container and start it.
    Start {
        container: String,
        attempt: u32,
        sandbox: String,
    },
    Stop {
        container: String,
        id: String,
        grace: SignedDuration,
    },
    /// Cuts a stop under way short.
    Kill {
        container: String,
        id: String,
    },
    /// Removes a container or sandbox, running or not.
    Remove {
        id: String,
    },
    Probe {
        container: String,
        id: String,
        kind: ProbeKind,
    },
    Event(Happening),
    /// Everything of the pod has ended, for good: report it, and if the pod is being deleted, complete that.
    Finish,
    /// Nothing of the pod is left.
    End,
}

/// The subject of an operation; operations on the same subject exclude each other.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Op {
    SetUpVolumes,
    TearDownVolumes,
    Sandbox,
    Container(String),
    Remove(String),
    Kill(String),
}

impl Action {
    /// The subject of the action, if it is an operation.
    pub fn op(&self) -> Option<Op> {
        match self {
            Self::SetUpVolumes => Some(Op::SetUpVolumes),
            Self::TearDownVolumes => Some(Op::TearDownVolumes),
            Self::CreateSandbox { .. } => Some(Op::Sandbox),
            Self::Start { container, .. } | Self::Stop { container, .. } => Some(Op::Container(container.clone())),
            Self::Remove { id } => Some(Op::Remove(id.clone())),
            Self::Kill { id, .. } => Some(Op::Kill(id.clone())),
            Self::Look(_) | Self::Probe { .. } | Self::Event(_) | Self::Finish | Self::End => None,
        }
    }
}

/// Why an operation failed: a reason users know (`ErrImagePull`), and a sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub reason: String,
    pub message: String,
}

impl Failure {
    pub fn new(reason: &str, message: impl Into<String>) -> Self {
        Self { reason: reason.to_owned(), message: message.into() }
    }

    fn is_of_image(&self) -> bool {
        matches!(self.reason.as_str(), "ErrImagePull" | "ErrImageNeverPull" | "InvalidImageName" | "ImageInspectError")
    }
}

/// The content of an Event for users.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Happening {
    pub warning: bool,
    pub reason: &'static str,
    pub message: String,
    /// The container it is about.
    pub container: Option<String>,
}

/// The role of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Runs to completion before later containers start.
    Init,
    /// An init container that keeps running.
    Sidecar,
    Main,
}

/// One container of the pod's specification.
#[derive(Clone, Copy, Debug)]
pub struct Unit<'a> {
    pub role: Role,
    pub spec: &'a Container,
}

/// The containers of a pod, in the order in which they start.
pub fn units(spec: &PodSpec) -> impl Iterator<Item = Unit<'_>> {
    let init = spec.init_containers.iter().flatten().map(|container| {
        let role = if container.restart_policy.as_deref() == Some("Always") { Role::Sidecar } else { Role::Init };
        Unit { role, spec: container }
    });
    init.chain(spec.containers.iter().map(|container| Unit { role: Role::Main, spec: container }))
}

/// State of a container that the runtime does not know.
#[derive(Debug, Default)]
struct Slot {
    /// The attempt being started.
    starting: Option<u32>,
    /// Why it could not be started, and for which attempt.
    failed: Option<(u32, Failure, Timestamp)>,
    /// Tries to start it that failed before there was a container.
    tries: Option<Backoff>,
    /// Restarts after it ended.
    restarts: Option<Backoff>,
    probes: Option<Probes>,
    /// Reason and message of waiting.
    waiting: Option<(String, String)>,
}

/// The end of a pod under way.
#[derive(Clone, Copy, Debug)]
struct Ending {
    deadline: Timestamp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Volumes {
    /// Not known to exist.
    Absent,
    Ready,
    TornDown,
}

/// The state of one pod.
#[derive(Debug)]
pub struct Machine {
    id: PodId,
    pod: Arc<Pod>,
    spec: Arc<PodSpec>,
    observed: Observed,
    /// Counts the operations that have ended.
    epoch: u64,
    /// The epoch in which the last look began; `None` before the first.
    seen: Option<u64>,
    looking: bool,
    /// Something happened since the look under way began.
    changed: bool,
    blind: bool,
    /// An Event has reported that the runtime is unreachable.
    told_blind: bool,
    busy: BTreeSet<Op>,
    /// Operations in back-off, with the earliest time of the next attempt.
    cooling: BTreeMap<Op, Timestamp>,
    sandbox_tries: Backoff,
    volumes: Volumes,
    slots: BTreeMap<String, Slot>,
    /// Why there is no sandbox, or no volumes, yet.
    setup_failed: Option<(Failure, Timestamp, Backoff)>,
    ending: Option<Ending>,
    gone: bool,
    /// The pod as a whole has failed: reason and message.
    failed: Option<(String, String)>,
    /// It has ended for good; whether successfully.
    outcome: Option<bool>,
    finished: bool,
    ended: bool,
    wake: Option<Timestamp>,
    /// How often the files of volumes are brought up to date, and when next.
    refresh: Option<(SignedDuration, Option<Timestamp>)>,
}

impl Machine {
    pub fn new(pod: Arc<Pod>) -> Self {
        let spec = Arc::new(pod.spec.clone().unwrap_or_default());
        let mut machine = Self {
            id: PodId::of(&pod),
            pod: pod.clone(),
            spec,
            observed: Observed::default(),
            epoch: 0,
            seen: None,
            looking: false,
            changed: false,
            blind: false,
            told_blind: false,
            busy: BTreeSet::new(),
            cooling: BTreeMap::new(),
            sandbox_tries: Backoff::brisk(),
            volumes: Volumes::Absent,
            slots: BTreeMap::new(),
            setup_failed: None,
            ending: None,
            gone: false,
            failed: None,
            outcome: None,
            finished: false,
            ended: false,
            wake: None,
            refresh: None,
        };
        // A pod that was deleted before it arrived here is only ended.
        machine.ending = pod.metadata.deletion_timestamp.as_ref().map(|at| Ending { deadline: at.0 });
        let status = pod.status.as_ref();
        match status.and_then(|status| status.phase.as_deref()) {
            Some("Succeeded") => machine.outcome = Some(true),
            Some("Failed") => {
                machine.outcome = Some(false);
                let text = |text: Option<&String>| text.cloned().unwrap_or_default();
                machine.failed = status
                    .filter(|status| status.reason.is_some())
                    .map(|status| (text(status.reason.as_ref()), text(status.message.as_ref())));
            }
            _ => {}
        }
        machine
    }

    /// The same, with the files of its volumes brought up to date this often; zero means never.
    #[must_use]
    pub fn refreshed_every(mut self, period: SignedDuration) -> Self {
        let changes = |volume: &Volume| {
            volume.config_map.is_some() || volume.secret.is_some() || volume.downward_api.is_some() || volume.projected.is_some()
        };
        let any = self.spec.volumes.iter().flatten().any(changes);
        self.refresh = (any && period.is_positive()).then_some((period, None));
        self
    }

    /// A machine for the same pod that knows only what was asked of this one. It looks at everything else again, as another executor's
    /// would, and is to be woken at once. No operation of this one may still be under way.
    #[must_use]
    pub fn afresh(&self) -> Self {
        let refresh = self.refresh.map(|(period, _)| (period, None));
        let ending = self.ending.or(self.pod.metadata.deletion_timestamp.as_ref().map(|at| Ending { deadline: at.0 }));
        Self { ending, gone: self.gone, refresh, wake: Some(Timestamp::MIN), ..Self::new(self.pod.clone()) }
    }

    pub fn id(&self) -> &PodId {
        &self.id
    }

    pub fn pod(&self) -> &Arc<Pod> {
        &self.pod
    }

    /// When to send the next [`Input::Tick`], if there is no input before.
    pub fn wake_at(&self) -> Option<Timestamp> {
        self.wake
    }

    /// Whether the pod is on its way out.
    pub fn is_ending(&self) -> bool {
        self.ending.is_some()
    }

    /// Whether the pod no longer exists in the API.
    pub fn is_gone(&self) -> bool {
        self.gone
    }

    /// Processes one input and returns the resulting actions.
    pub fn handle(&mut self, input: Input, now: Timestamp) -> Vec<Action> {
        let mut actions = Vec::new();
        match input {
            Input::Pod(pod) => self.take_pod(pod, now),
            Input::Gone => {
                self.gone = true;
                self.end(ORPHAN_GRACE.min(self.grace()), now);
            }
            Input::Terminate { grace } => self.end(grace.map_or_else(|| self.grace(), of_user), now),
            Input::Changed => {
                self.changed = true;
                self.blind = false;
            }
            Input::Seen { epoch, containers } => {
                (self.looking, self.seen, self.told_blind) = (false, Some(epoch), false);
                if epoch == self.epoch {
                    self.observed = Observed::new(containers);
                }
            }
            Input::Blind(why) => {
                if !self.told_blind {
                    let (reason, message) = ("ContainerRuntimeDown", format!("The pod waits for its node's container engine: {why}"));
                    actions.push(Action::Event(Happening { warning: true, reason, message, container: None }));
                }
                // A sign of life that arrives during a look outweighs the look's failure.
                (self.looking, self.seen, self.blind, self.told_blind) = (false, None, !self.changed, true);
            }
            Input::Done(op, result) => self.done(op, result, now, &mut actions),
            Input::Probed { container, id, kind, outcome } => self.probed(&container, &id, kind, &outcome, now, &mut actions),
            Input::Tick => {}
        }
        self.step(now, &mut actions);
        for op in actions.iter().filter_map(Action::op) {
            self.busy.insert(op);
        }
        actions
    }

    /// The time that the pod gets to end.
    fn grace(&self) -> SignedDuration {
        let seconds = self.pod.metadata.deletion_grace_period_seconds.or(self.spec.termination_grace_period_seconds);
        of_user(seconds.unwrap_or(DEFAULT_GRACE))
    }

    fn take_pod(&mut self, pod: Arc<Pod>, now: Timestamp) {
        // Only images of a running pod can change; everything else of the specification is fixed, so the first one stays.
        self.pod = pod;
        if self.pod.metadata.deletion_timestamp.is_some() {
            self.end(self.grace(), now);
        }
    }

    /// Begins to end the pod, or brings the end nearer.
    fn end(&mut self, grace: SignedDuration, now: Timestamp) {
        let deadline = after(now, grace);
        let deadline = self.ending.map_or(deadline, |ending| ending.deadline.min(deadline));
        self.ending = Some(Ending { deadline });
    }

    fn done(&mut self, op: Op, result: Result<(), Failure>, now: Timestamp, actions: &mut Vec<Action>) {
        self.busy.remove(&op);
        self.epoch += 1;
        if result.is_err() || matches!(op, Op::Kill(_)) {
            self.cooling.insert(op.clone(), after(now, COOLING));
        }
        match (&op, result) {
            (Op::SetUpVolumes, Ok(())) => (self.volumes, self.setup_failed) = (Volumes::Ready, None),
            (Op::TearDownVolumes, Ok(())) => self.volumes = Volumes::TornDown,
            (Op::Sandbox, Ok(())) => self.setup_failed = None,
            (Op::SetUpVolumes | Op::Sandbox, Err(failure)) => {
                // Running containers keep their existing files.
                let refreshed = op == Op::SetUpVolumes && self.volumes == Volumes::Ready;
                actions.push(Action::Event(Happening {
                    warning: true,
                    reason: if op == Op::Sandbox { "FailedCreatePodSandBox" } else { "FailedMount" },
                    message: failure.message.clone(),
                    container: None,
                }));
                if refreshed {
                    return;
                }
                let mut backoff = self.setup_failed.take().map_or_else(Backoff::brisk, |(_, _, backoff)| backoff);
                backoff.tried(now);
                self.setup_failed = Some((failure, now, backoff));
            }
            (Op::Container(name), Ok(())) => {
                let slot = self.slots.entry(name.clone()).or_default();
                (slot.starting, slot.failed) = (None, None);
            }
            (Op::Container(name), Err(failure)) => {
                let slot = self.slots.entry(name.clone()).or_default();
                // A stop that failed is tried again when it has cooled.
                let Some(attempt) = slot.starting.take() else {
                    return tracing::warn!(pod = %self.id, "{}: {}", failure.reason, failure.message);
                };
                let tries = slot.tries.get_or_insert_with(|| if failure.is_of_image() { Backoff::default() } else { Backoff::brisk() });
                tries.tried(now);
                slot.failed = Some((attempt, failure, now));
            }
            (Op::TearDownVolumes | Op::Remove(_) | Op::Kill(_), Err(failure)) => {
                tracing::warn!(pod = %self.id, "{}: {}", failure.reason, failure.message);
            }
            (Op::Remove(_) | Op::Kill(_), Ok(())) => {}
        }
    }

    fn probed(&mut self, container: &str, id: &str, kind: ProbeKind, outcome: &Outcome, now: Timestamp, actions: &mut Vec<Action>) {
        let probes = self.slots.get_mut(container).and_then(|slot| slot.probes.as_mut());
        let Some(probes) = probes.filter(|probes| probes.id == id) else { return };
        probes.report(kind, outcome, now);
        let (verb, why) = match outcome {
            Outcome::Success => return,
            Outcome::Failure(why) => ("failed", why),
            Outcome::Unknown(why) => ("errored", why),
        };
        actions.push(Action::Event(Happening {
            warning: true,
            reason: "Unhealthy",
            message: format!("{kind} probe {verb}: {why}"),
            container: Some(container.to_owned()),
        }));
    }
}
