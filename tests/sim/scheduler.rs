//! The scheduler's process: its core, its session with the master, its watch, and its writes in progress.

use std::collections::VecDeque;
use std::time::Duration;

use km::mesos::v1::scheduler::{Call, Event, call};
use km::object::Revision;
use km::scheduler::core::{Action, Core, Input};
use km::scheduler::metrics::Metrics;
use km::scheduler::storage::Write;
use km::telemetry::metrics::Registry;
use serde_json::json;

use crate::api::Change;
use crate::setup::{framework, settings};
use crate::storage::classes;
use crate::world::{Ready, World};

/// A message from the master's side of the connection.
#[derive(Debug)]
pub enum Heard {
    Event(Box<Event>),
    Closed,
}

pub struct Session {
    pub stream: String,
    pub to_master: VecDeque<Call>,
    pub to_scheduler: VecDeque<Heard>,
}

pub struct Process {
    pub core: Core,
    framework: Option<String>,
    pub session: Option<Session>,
    connects_at: Duration,
    watch: VecDeque<Change>,
    inputs: VecDeque<Input>,
    writes: Vec<Action>,
    /// The API server is unreachable until then.
    pub cut_off: Duration,
}

/// The scheduler, which restarts when it dies.
#[derive(Default)]
pub struct Scheduler {
    /// The framework id in the store.
    pub kept: Option<String>,
    pub process: Option<Process>,
    pub starts_at: Duration,
}

impl Process {
    fn act(&mut self, now: Duration) {
        for action in self.core.act(now) {
            match action {
                Action::Call(mut call) => {
                    call.framework_id = self.framework.clone().map(Into::into);
                    if let Some(session) = &mut self.session {
                        session.to_master.push_back(*call);
                    }
                }
                Action::Tell { .. } => {}
                other => self.writes.push(other),
            }
        }
    }

    pub fn see(&mut self, change: &Change) {
        self.watch.push_back(change.clone());
    }
}

impl World {
    pub fn scheduler_ready(&self, ready: &mut Vec<Ready>) {
        let Some(process) = &self.scheduler.process else {
            ready.extend((self.now >= self.scheduler.starts_at).then_some(Ready::SchedulerStarts));
            return;
        };
        match &process.session {
            Some(session) => {
                ready.extend((!session.to_scheduler.is_empty()).then_some(Ready::SchedulerHears));
                ready.extend((!session.to_master.is_empty() && self.mesos.master.is_some()).then_some(Ready::MasterHears));
            }
            None => {
                // One session after another.
                let told = !process.inputs.iter().any(|input| matches!(input, Input::Disconnected));
                let can = told && self.now >= process.connects_at && self.mesos.master.is_some();
                ready.extend(can.then_some(Ready::SchedulerConnects));
            }
        }
        ready.extend((!process.watch.is_empty() && self.now >= process.cut_off).then_some(Ready::SchedulerSees));
        ready.extend((!process.inputs.is_empty()).then_some(Ready::SchedulerLearns));
        ready.extend((0..process.writes.len()).map(Ready::SchedulerWrites));
        ready.extend(process.core.wake_at().filter(|at| *at <= self.now).map(|_| Ready::SchedulerWakes));
    }

    pub fn scheduler_due(&self, due: &mut Vec<Duration>) {
        match &self.scheduler.process {
            None => due.push(self.scheduler.starts_at),
            Some(process) => {
                due.extend(process.core.wake_at());
                due.push(process.cut_off);
                due.extend(process.session.is_none().then_some(process.connects_at));
            }
        }
    }

    /// A new process reads the existing nodes and pods before it hears from Mesos.
    pub fn scheduler_starts(&mut self) {
        let resumed = self.scheduler.kept.is_some();
        let mut process = Process {
            core: Core::new(settings(self.random(), resumed), Metrics::new(Registry::default())),
            framework: self.scheduler.kept.clone(),
            session: None,
            connects_at: self.now,
            watch: VecDeque::new(),
            inputs: VecDeque::new(),
            writes: Vec::new(),
            cut_off: Duration::ZERO,
        };
        classes().into_iter().for_each(|class| process.core.input(self.now, Input::Class(class)));
        self.api.list_volumes().into_iter().for_each(|volume| process.core.input(self.now, Input::Volume(volume)));
        self.api.list_claims().into_iter().for_each(|claim| process.core.input(self.now, Input::Claim(claim)));
        self.api.list_nodes().into_iter().for_each(|node| process.core.input(self.now, Input::Node(node)));
        self.api.list_pods(None).into_iter().for_each(|pod| process.core.input(self.now, Input::Pod(pod)));
        process.act(self.now);
        self.scheduler.process = Some(process);
    }

    /// Sent messages may still arrive; the master notices sooner or later.
    pub fn scheduler_loses_master(&mut self) {
        while self.scheduler_session().is_some_and(|it| !it.to_master.is_empty()) && self.chance(50) {
            self.master_hears();
        }
        while self.scheduler_session().is_some_and(|it| !it.to_scheduler.is_empty()) && self.chance(50) {
            self.scheduler_hears();
        }
        let (pause, notices) = (self.up_to(3.0), self.up_to(20.0));
        let Some(process) = &mut self.scheduler.process else { return };
        let Some(session) = process.session.take() else { return };
        process.connects_at = self.now + pause;
        process.inputs.push_back(Input::Disconnected);
        self.mesos.broken.push((self.now + notices, session.stream));
    }

    pub fn scheduler_dies(&mut self) {
        self.scheduler_loses_master();
        // Writes in progress may still arrive.
        for write in self.scheduler.process.take().map(|it| it.writes).unwrap_or_default() {
            if self.chance(50) {
                self.scheduler_write(&write);
            }
        }
        self.scheduler.starts_at = self.now + self.up_to(20.0);
    }

    pub fn scheduler_session(&mut self) -> Option<&mut Session> {
        self.scheduler.process.as_mut()?.session.as_mut()
    }

    pub fn scheduler_connects(&mut self) {
        let stream = self.mesos.stream();
        let Some(process) = &mut self.scheduler.process else { return };
        let subscribe = call::Subscribe { framework_info: framework(process.framework.as_deref()), suppressed_roles: Vec::new() };
        process.session = Some(Session { stream: stream.clone(), to_master: VecDeque::new(), to_scheduler: VecDeque::new() });
        let Some(master) = &mut self.mesos.master else { return };
        let actions = master.subscribe(self.now, subscribe, stream);
        self.carry_out(actions);
    }

    pub fn scheduler_hears(&mut self) {
        let Some(heard) = self.scheduler_session().and_then(|it| it.to_scheduler.pop_front()) else { return };
        let Heard::Event(event) = heard else { return self.scheduler_loses_master() };
        if let Some(error) = &event.error {
            // The driver gives up, and the process with it: the framework is gone for good, or another scheduler took over.
            self.note(|| format!("the scheduler is told {}", error.message));
            if error.message.contains("removed") {
                self.scheduler.kept = None;
            }
            return self.scheduler_dies();
        }
        if let Some(update) = &event.update {
            let status = &update.status;
            self.note(|| format!("{} {} {:?} {}", status.task_id, status.state().as_str_name(), status.source(), status.message()));
        }
        let Some(process) = &mut self.scheduler.process else { return };
        let input = match &event.subscribed {
            Some(subscribed) => {
                process.framework = Some(subscribed.framework_id.value.clone());
                Input::Subscribed(subscribed.framework_id.value.clone())
            }
            None => Input::Event(event),
        };
        process.core.input(self.now, input);
        process.act(self.now);
    }

    pub fn scheduler_sees(&mut self) {
        let Some(process) = &mut self.scheduler.process else { return };
        let Some(change) = process.watch.pop_front() else { return };
        process.core.input(
            self.now,
            match change {
                Change::Pod(pod) => Input::Pod(pod),
                Change::PodGone(pod) => Input::PodGone(pod),
                Change::Node(node) => Input::Node(node),
                Change::Claim(claim) => Input::Claim(claim),
                Change::ClaimGone(claim) => Input::ClaimGone(claim),
                Change::Volume(volume) => Input::Volume(volume),
                Change::VolumeGone(volume) => Input::VolumeGone(volume.into()),
            },
        );
        process.act(self.now);
    }

    pub fn scheduler_learns(&mut self) {
        let Some(process) = &mut self.scheduler.process else { return };
        let Some(input) = process.inputs.pop_front() else { return };
        process.core.input(self.now, input);
        process.act(self.now);
    }

    pub fn scheduler_wakes(&mut self) {
        if let Some(process) = &mut self.scheduler.process {
            process.act(self.now);
        }
    }

    pub fn scheduler_writes(&mut self, at: usize) {
        let Some(process) = &mut self.scheduler.process else { return };
        let write = process.writes.swap_remove(at);
        let cut = self.now < process.cut_off;
        let fails = cut || self.fails(8);
        let mut at = None;
        if !fails || !cut && self.chance(50) {
            at = self.scheduler_write(&write);
        }
        let answer = match write {
            Action::DeletePod { pod, .. } => Input::PodDeletion { pod, done: !fails },
            Action::WriteNode { host, .. } => Input::NodeWritten { host, done: !fails },
            Action::Bind(write) => {
                Input::Bound { claim: write.claim().meta().name.clone(), serial: write.serial(), at: at.filter(|_| !fails) }
            }
            // Tried once.
            Action::MarkUnschedulable { .. } => return,
            other if fails => {
                // Retried until it succeeds.
                return self.scheduler.process.iter_mut().for_each(|it| it.writes.push(other.clone()));
            }
            _ => return,
        };
        if let Some(process) = &mut self.scheduler.process {
            process.inputs.push_back(answer);
        }
    }

    /// The revision of the write, where it matters.
    fn scheduler_write(&mut self, write: &Action) -> Option<Revision> {
        self.note(|| format!("{write:?}"));
        match write {
            Action::DeletePod { pod, uid } => {
                self.check_system_deletes(uid);
                // Deleted, or replaced by another pod of that name: done either way.
                let _ = self.api.delete(&pod.name, uid);
            }
            Action::WriteNode { host, labels } => self.api.write_node(host, &json!(labels), &json!({})),
            Action::KeepFrameworkId(id) => self.scheduler.kept = Some(id.clone()),
            Action::Bind(write) => {
                self.stats.given_up += usize::from(matches!(write, Write::Unselect { .. }));
                return self.api.bind_claim(write);
            }
            Action::MarkUnschedulable { pod, message } => self.api.mark_unschedulable(pod, message),
            other => unreachable!("{other:?} is no write"),
        }
        None
    }
}
