//! Frameworks: subscription, failover, removal, and their events.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use super::{Action, Master, master_status, new_event, update};
use crate::local_mesos::resources::Resources;
use crate::local_mesos::validation;
use crate::mesos::v1::framework_info::capability::Type as Capability;
use crate::mesos::v1::scheduler::{Event, call, event};
use crate::mesos::v1::task_status::Reason;
use crate::mesos::v1::{FrameworkId, FrameworkInfo, TaskInfo, TaskState, TaskStatus};

#[derive(Debug)]
pub struct Framework {
    pub info: FrameworkInfo,
    /// Its stream, while it is subscribed.
    pub stream: Option<String>,
    /// When it is removed for good, unless it returns.
    pub(super) gone_at: Option<Duration>,
    pub(super) heartbeat_at: Duration,
    pub(super) suppressed: BTreeSet<String>,
    /// Filters by agent: until when, and for which resources.
    pub(super) filters: HashMap<String, (Duration, Resources)>,
    /// The agents of its tasks.
    pub(super) tasks: BTreeMap<String, String>,
}

/// Whether the framework distinguishes the kinds of lost tasks.
pub(in crate::local_mesos) fn is_partition_aware(info: &FrameworkInfo) -> bool {
    has(info, Capability::PartitionAware)
}

pub(super) fn has(info: &FrameworkInfo, wanted: Capability) -> bool {
    info.capabilities.iter().any(|capability| capability.r#type() == wanted)
}

pub(super) fn roles(info: &FrameworkInfo) -> Vec<&str> {
    if has(info, Capability::MultiRole) { info.roles.iter().map(String::as_str).collect() } else { vec![info.role()] }
}

impl Master {
    /// Takes a framework over that was stored; it is expected back within its failover timeout.
    pub fn add_framework(&mut self, now: Duration, info: FrameworkInfo) {
        let id = info.id.clone().unwrap_or_default().value;
        if let Some(number) = id.rsplit('-').next().and_then(|number| number.parse::<u64>().ok()) {
            self.next_id = self.next_id.max(number + 1);
        }
        let gone_at = failover_end(now, &info);
        self.frameworks.insert(id, Framework::new(info, None, gone_at));
    }
    /// Subscribes a scheduler on a new stream, or sends an error on it.
    pub fn subscribe(&mut self, now: Duration, subscribe: call::Subscribe, stream: String) -> Vec<Action> {
        let mut info = subscribe.framework_info;
        let mut out = Vec::new();
        let error = |message: &str| Event { error: Some(event::Error { message: message.to_owned() }), ..new_event(event::Type::Error) };
        if let Err(message) = validation::framework(&info) {
            return vec![Action::ToScheduler(stream.clone(), Box::new(error(&message))), Action::CloseScheduler(stream)];
        }
        let id = match info.id.clone().filter(|id| !id.value.is_empty()) {
            Some(id) if self.removed.contains(&id.value) => {
                return vec![
                    Action::ToScheduler(stream.clone(), Box::new(error("Framework has been removed"))),
                    Action::CloseScheduler(stream),
                ];
            }
            Some(id) => id.value,
            None => {
                self.next_id += 1;
                format!("{}-{:04}", self.config.master.id, self.next_id - 1)
            }
        };
        info.id = Some(FrameworkId { value: id.clone() });
        let mut framework = Framework::new(info, Some(stream), None);
        framework.suppressed = subscribe.suppressed_roles.into_iter().collect();
        framework.heartbeat_at = now + self.config.heartbeat_interval;
        if let Some(before) = self.frameworks.remove(&id) {
            if let Some(old) = before.stream {
                out.push(Action::ToScheduler(old.clone(), Box::new(error("Framework failed over"))));
                out.push(Action::CloseScheduler(old));
            }
            framework.tasks = before.tasks;
            self.withdraw_offers(&id);
        }
        let subscribed = event::Subscribed {
            framework_id: FrameworkId { value: id.clone() },
            heartbeat_interval_seconds: Some(self.config.heartbeat_interval.as_secs_f64()),
            master_info: Some(self.config.master.clone()),
        };
        framework.send(Event { subscribed: Some(subscribed), ..new_event(event::Type::Subscribed) }, &mut out);
        self.frameworks.insert(id.clone(), framework);
        out.push(Action::FrameworkChanged(id.clone()));
        self.unoffered.extend(self.agents.keys().cloned());
        let agents: BTreeSet<_> = self.frameworks[&id].tasks.values().cloned().collect();
        for agent in agents {
            self.with_agent(&agent, &mut out, |agent| agent.resend(now, &id));
        }
        out
    }

    /// A scheduler's stream ended.
    pub fn disconnected(&mut self, now: Duration, stream: &str) {
        let mine = self.frameworks.iter_mut().find(|(_, framework)| framework.stream.as_deref() == Some(stream));
        if let Some((id, framework)) = mine {
            framework.stream = None;
            framework.gone_at = failover_end(now, &framework.info);
            let id = id.clone();
            self.withdraw_offers(&id);
        }
    }

    pub(super) fn remove_framework(&mut self, now: Duration, id: &str, out: &mut Vec<Action>) {
        self.withdraw_offers(id);
        let Some(framework) = self.frameworks.remove(id) else { return };
        self.removed.insert(id.to_owned());
        let agents: Vec<_> = self.agents.keys().cloned().collect();
        for agent in agents {
            self.with_agent(&agent, out, |agent| agent.remove_framework(now, id));
        }
        self.unoffered.extend(self.agents.keys().cloned());
        out.push(Action::FrameworkChanged(id.to_owned()));
        out.extend(framework.stream.map(Action::CloseScheduler));
    }
}

impl Framework {
    fn new(info: FrameworkInfo, stream: Option<String>, gone_at: Option<Duration>) -> Self {
        Self {
            info,
            stream,
            gone_at,
            heartbeat_at: Duration::ZERO,
            suppressed: BTreeSet::new(),
            filters: HashMap::new(),
            tasks: BTreeMap::new(),
        }
    }

    pub(super) fn send(&self, event: Event, out: &mut Vec<Action>) {
        out.extend(self.stream.clone().map(|stream| Action::ToScheduler(stream, Box::new(event))));
    }

    /// The kind of loss is reported only to frameworks that distinguish it.
    pub(super) fn lost_as(&self, state: TaskState) -> TaskState {
        if is_partition_aware(&self.info) { state } else { TaskState::TaskLost }
    }

    pub(super) fn refuse(&self, now: Duration, task: &TaskInfo, state: TaskState, reason: Reason, message: &str, out: &mut Vec<Action>) {
        let state = if state == TaskState::TaskError { state } else { self.lost_as(state) };
        let status = master_status(now, &task.task_id.value, state, reason, message);
        self.send(update(TaskStatus { agent_id: Some(task.agent_id.clone()), ..status }), out);
    }
}

fn failover_end(now: Duration, info: &FrameworkInfo) -> Option<Duration> {
    // a timeout too long to be added up is no timeout
    Duration::try_from_secs_f64(info.failover_timeout().max(0.0)).ok().and_then(|timeout| now.checked_add(timeout))
}
