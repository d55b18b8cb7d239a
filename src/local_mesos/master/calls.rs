//! The calls of subscribed schedulers.

use std::time::Duration;

use super::frameworks::roles;
use super::{Action, Master, Refusal, master_status, update};
use crate::local_mesos::validation;
use crate::mesos::v1::scheduler::{Call, call};
use crate::mesos::v1::task_status::Reason;
use crate::mesos::v1::{FrameworkInfo, TaskId, TaskState, TaskStatus};

impl Master {
    /// Any call but SUBSCRIBE, on the stream that the framework subscribed with.
    ///
    /// # Errors
    /// If it is not from the subscribed scheduler, or makes no sense.
    pub fn call(&mut self, now: Duration, call: Call, stream: &str) -> Result<Vec<Action>, Refusal> {
        let bad = |text: &str| Refusal(400, format!("Failed to validate scheduler::Call: {text}"));
        if call.r#type.is_none() {
            return Err(bad("Expecting 'type' to be present"));
        }
        let id = call.framework_id.clone().ok_or_else(|| bad("Expecting 'framework_id' to be present"))?.value;
        let framework = self.frameworks.get_mut(&id).ok_or_else(|| Refusal(400, "Framework cannot be found".into()))?;
        match &framework.stream {
            None => return Err(Refusal(403, "Framework is not subscribed".into())),
            Some(current) if current != stream => {
                return Err(Refusal(400, format!("The stream ID {stream:?} is not that of the subscription of framework {id}")));
            }
            Some(_) => {}
        }
        let missing = || bad("Expecting the content of the call's type to be present");
        let mut out = Vec::new();
        match call.r#type() {
            call::Type::Subscribe => return Err(bad("SUBSCRIBE on a stream that is subscribed")),
            call::Type::Teardown => self.remove_framework(now, &id, &mut out),
            call::Type::Accept => self.accept(now, &id, call.accept.ok_or_else(missing)?, &mut out),
            call::Type::Decline => {
                let decline = call.decline.ok_or_else(missing)?;
                for offer in decline.offer_ids {
                    self.take_back(now, &id, &offer.value, None, decline.filters.as_ref());
                }
            }
            call::Type::Revive => {
                let roles = call.revive.map(|revive| revive.roles).unwrap_or_default();
                framework.suppressed.retain(|role| !roles.is_empty() && !roles.contains(role));
                framework.filters.clear();
                self.unoffered.extend(self.agents.keys().cloned());
            }
            call::Type::Suppress => {
                let wanted = call.suppress.map(|suppress| suppress.roles).unwrap_or_default();
                let all = roles(&framework.info).into_iter().map(str::to_owned).collect();
                framework.suppressed.extend(if wanted.is_empty() { all } else { wanted });
            }
            call::Type::Kill => {
                let kill = call.kill.ok_or_else(missing)?;
                match framework.tasks.get(&kill.task_id.value).cloned() {
                    Some(agent) => self.with_agent(&agent, &mut out, |agent| agent.kill(now, &(id, kill.task_id.value), kill.kill_policy)),
                    None => self.reconcile(now, &id, &kill.task_id, kill.agent_id.map(|id| id.value), &mut out),
                }
            }
            call::Type::Shutdown => {
                let call::Shutdown { executor_id, agent_id } = call.shutdown.ok_or_else(missing)?;
                self.with_agent(&agent_id.value, &mut out, |agent| agent.shutdown(now, &(id, executor_id.value)));
            }
            call::Type::Acknowledge => {
                let call::Acknowledge { agent_id, task_id, uuid } = call.acknowledge.ok_or_else(missing)?;
                self.with_agent(&agent_id.value, &mut out, |agent| agent.acknowledge(now, &(id, task_id.value), &uuid));
            }
            call::Type::Reconcile => {
                let asked = call.reconcile.ok_or_else(missing)?.tasks;
                let all = || framework.tasks.keys().map(|task| (TaskId { value: task.clone() }, None)).collect::<Vec<_>>();
                let tasks = if asked.is_empty() { all() } else { asked.into_iter().map(|task| (task.task_id, task.agent_id)).collect() };
                for (task, agent) in tasks {
                    self.reconcile(now, &id, &task, agent.map(|agent| agent.value), &mut out);
                }
            }
            call::Type::Message => {
                let call::Message { agent_id, executor_id, data } = call.message.ok_or_else(missing)?;
                self.with_agent(&agent_id.value, &mut out, |agent| agent.message(&(id, executor_id.value), data));
            }
            call::Type::UpdateFramework => {
                let update = call.update_framework.ok_or_else(missing)?;
                validation::framework(&update.framework_info).map_err(|error| bad(&error))?;
                framework.info = FrameworkInfo { id: framework.info.id.clone(), ..update.framework_info };
                framework.suppressed = update.suppressed_roles.into_iter().collect();
                self.unoffered.extend(self.agents.keys().cloned());
                out.push(Action::FrameworkChanged(id));
            }
            // there is no maintenance here, requests are only hints, and operations have no feedback
            call::Type::AcceptInverseOffers
            | call::Type::DeclineInverseOffers
            | call::Type::Request
            | call::Type::AcknowledgeOperationStatus
            | call::Type::ReconcileOperations => {}
            call::Type::Unknown => return Err(bad("Unknown 'type'")),
        }
        Ok(out)
    }
    fn reconcile(&self, now: Duration, id: &str, task: &TaskId, agent: Option<String>, out: &mut Vec<Action>) {
        let Some(framework) = self.frameworks.get(id) else { return };
        let key = (id.to_owned(), task.value.clone());
        let known = framework.tasks.get(&task.value).and_then(|agent| Some((self.agents.get(agent)?, agent)));
        let status = match known.and_then(|(found, id)| Some((found.task(&key)?, id))) {
            Some((task, agent)) => task.as_known_to_master(now, agent, Reason::Reconciliation, "Reconciliation: Latest task state"),
            None => {
                let state = framework.lost_as(match &agent {
                    Some(agent) if self.agents.contains_key(agent) => TaskState::TaskGone,
                    Some(agent) if self.unreachable.contains(agent) => TaskState::TaskUnreachable,
                    _ => TaskState::TaskUnknown,
                });
                let status = master_status(now, &task.value, state, Reason::Reconciliation, "Reconciliation: Task is unknown");
                TaskStatus { agent_id: agent.map(Into::into), ..status }
            }
        };
        framework.send(update(status), out);
    }
}
