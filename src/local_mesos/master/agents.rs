//! A master's agents: registration, loss, and messages between agents, executors and frameworks.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Action, Master, Refusal, master_status, new_event, update};
use crate::local_mesos::agent::{Agent, Change, Key, Output};
use crate::mesos::v1::scheduler::{Event, event};
use crate::mesos::v1::task_status::Reason;
use crate::mesos::v1::{FrameworkInfo, TaskState, TaskStatus, executor};

impl Master {
    /// Adds an agent, new or back after [`Master::lose_agent`], with its pending actions. Frameworks that were removed in its absence are
    /// ended on it; frameworks that this master does not know yet are expected to return.
    pub fn add_agent(&mut self, now: Duration, mut agent: Agent, mut outputs: Vec<Output>) -> Vec<Action> {
        let id = agent.id().to_owned();
        let frameworks: BTreeMap<String, FrameworkInfo> =
            agent.executors().map(|(key, executor)| (key.0.clone(), executor.framework.clone())).collect();
        for (framework, info) in frameworks {
            if self.removed.contains(&framework) {
                outputs.extend(agent.remove_framework(now, &framework));
            } else if !self.frameworks.contains_key(&framework) {
                self.add_framework(now, info);
            }
        }
        let mut out = Vec::new();
        for (key, task) in agent.tasks() {
            let Some(framework) = self.frameworks.get_mut(&key.0) else { continue };
            framework.tasks.insert(key.1.clone(), id.clone());
            if !task.state().is_terminal() {
                let status = task.as_known_to_master(now, &id, Reason::AgentReregistered, "Agent is back");
                framework.send(update(status), &mut out);
            }
        }
        for framework in self.subscribed() {
            outputs.extend(agent.resend(now, &framework));
        }
        self.unreachable.remove(&id);
        self.agents.insert(id.clone(), agent);
        self.unoffered.insert(id.clone());
        self.absorb(&id, outputs, &mut out);
        out
    }

    /// Loses an agent: its tasks are unreachable until it returns. It may continue without the master meanwhile.
    pub fn lose_agent(&mut self, now: Duration, id: &str) -> Option<(Agent, Vec<Action>)> {
        let agent = self.agents.remove(id)?;
        let mut out = Vec::new();
        for offer in self.offers_of.remove(id).unwrap_or_default() {
            self.rescind(&offer, &mut out);
        }
        self.timer_of.remove(id).map(|at| self.timers.remove(&(at, id.to_owned())));
        self.unreachable.insert(id.to_owned());
        for (key, task) in agent.tasks() {
            let Some(framework) = self.frameworks.get_mut(&key.0) else { continue };
            framework.tasks.remove(&key.1);
            if task.state().is_terminal() {
                continue;
            }
            let state = framework.lost_as(TaskState::TaskUnreachable);
            let status = master_status(now, &key.1, state, Reason::AgentRemoved, "Agent is unreachable");
            framework.send(update(TaskStatus { agent_id: agent.info.id.clone(), ..status }), &mut out);
        }
        for framework in self.frameworks.values() {
            let failure = Some(event::Failure { agent_id: agent.info.id.clone(), ..event::Failure::default() });
            framework.send(Event { failure, ..new_event(event::Type::Failure) }, &mut out);
        }
        Some((agent, out))
    }

    fn subscribed(&self) -> Vec<String> {
        self.frameworks.iter().filter(|(_, framework)| framework.stream.is_some()).map(|(id, _)| id.clone()).collect()
    }

    /// An executor subscribes with its agent.
    ///
    /// # Errors
    /// If there is no such executor.
    pub fn executor_subscribe(&mut self, now: Duration, agent: &str, call: executor::Call) -> Result<Vec<Action>, Refusal> {
        let key = (call.framework_id.value, call.executor_id.value);
        let subscribe = call.subscribe.unwrap_or_default();
        self.of_executor(agent, |agent| agent.subscribe(now, &key, subscribe))
    }

    /// Handles any other call of an executor.
    ///
    /// # Errors
    /// If it is not subscribed, or the call is invalid.
    pub fn executor_call(&mut self, now: Duration, agent: &str, call: executor::Call) -> Result<Vec<Action>, Refusal> {
        let key = (call.framework_id.value.clone(), call.executor_id.value.clone());
        self.of_executor(agent, |agent| agent.call(now, &key, call))
    }

    /// An executor's stream ended.
    pub fn executor_disconnected(&mut self, agent: &str, key: &Key) {
        if let Some(agent) = self.agents.get_mut(agent) {
            agent.disconnected(key);
        }
    }

    /// An executor ended with this status, or was killed.
    pub fn executor_exited(&mut self, now: Duration, agent: &str, key: &Key, status: i32) -> Vec<Action> {
        let mut out = Vec::new();
        self.with_agent(agent, &mut out, |agent| agent.exited(now, key, status));
        out
    }

    fn of_executor(&mut self, id: &str, act: impl FnOnce(&mut Agent) -> Result<Vec<Output>, &'static str>) -> Result<Vec<Action>, Refusal> {
        let agent = self.agents.get_mut(id).ok_or_else(|| Refusal(404, "There is no such agent".into()))?;
        let outputs = act(agent).map_err(|text| Refusal(400, text.to_owned()))?;
        let mut out = Vec::new();
        self.absorb(id, outputs, &mut out);
        Ok(out)
    }

    pub(super) fn with_agent(&mut self, id: &str, out: &mut Vec<Action>, act: impl FnOnce(&mut Agent) -> Vec<Output>) {
        if let Some(agent) = self.agents.get_mut(id) {
            let outputs = act(agent);
            self.absorb(id, outputs, out);
        }
    }

    /// Processes an agent's actions, and passes on the rest.
    pub(super) fn absorb(&mut self, id: &str, outputs: Vec<Output>, out: &mut Vec<Action>) {
        let Some(agent) = self.agents.get(id) else { return };
        for output in outputs {
            match output {
                Output::Status(framework, status) => {
                    if status.state().is_terminal() {
                        self.unoffered.insert(id.to_owned());
                    }
                    if let Some(framework) = self.frameworks.get(&framework) {
                        framework.send(update(*status), out);
                    }
                }
                Output::Message { key: (framework, executor), data } => {
                    let message =
                        event::Message { agent_id: agent.info.id.clone().unwrap_or_default(), executor_id: executor.into(), data };
                    if let Some(framework) = self.frameworks.get(&framework) {
                        framework.send(Event { message: Some(message), ..new_event(event::Type::Message) }, out);
                    }
                }
                Output::Exited(key, status) => {
                    self.unoffered.insert(id.to_owned());
                    let executor_id = Some(key.1.clone().into());
                    let failure = event::Failure { agent_id: agent.info.id.clone(), executor_id, status: Some(status) };
                    if let Some(framework) = self.frameworks.get(&key.0) {
                        framework.send(Event { failure: Some(failure), ..new_event(event::Type::Failure) }, out);
                    }
                    out.push(Action::Agent(id.to_owned(), Output::Exited(key, status)));
                }
                Output::Changed(Change::Task(key)) => {
                    if agent.task(&key).is_none() {
                        self.unoffered.insert(id.to_owned());
                        if let Some(framework) = self.frameworks.get_mut(&key.0) {
                            framework.tasks.remove(&key.1);
                        }
                    }
                    out.push(Action::Agent(id.to_owned(), Output::Changed(Change::Task(key))));
                }
                other => out.push(Action::Agent(id.to_owned(), other)),
            }
        }
        let deadline = agent.deadline();
        let before = match deadline {
            Some(at) => self.timer_of.insert(id.to_owned(), at),
            None => self.timer_of.remove(id),
        };
        if before != deadline {
            before.map(|at| self.timers.remove(&(at, id.to_owned())));
            deadline.map(|at| self.timers.insert((at, id.to_owned())));
        }
    }
}
