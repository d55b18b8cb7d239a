//! Accepted offers, and the tasks launched on them.

use std::collections::BTreeSet;
use std::time::Duration;

use super::offers::Offered;
use super::{Action, Master};
use crate::local_mesos::resources::Resources;
use crate::local_mesos::validation;
use crate::mesos::v1::scheduler::call;
use crate::mesos::v1::task_status::Reason;
use crate::mesos::v1::{ExecutorInfo, FrameworkInfo, TaskInfo, TaskState, offer};

impl Master {
    pub(super) fn accept(&mut self, now: Duration, id: &str, accept: call::Accept, out: &mut Vec<Action>) {
        let mine = |offer: &&Offered| offer.framework == id;
        let offers: Vec<_> = accept.offer_ids.iter().map(|offer| self.offers.get(&offer.value).filter(mine)).collect();
        let agents: BTreeSet<_> = offers.iter().flatten().map(|offer| offer.agent.clone()).collect();
        let valid = offers.iter().all(Option::is_some) && agents.len() == 1 && !offers.is_empty();
        let mut left = Resources::default();
        offers.iter().flatten().for_each(|offer| left.add(&offer.resources));
        let agent = if valid { agents.into_iter().next() } else { None };
        for operation in accept.operations {
            match operation.r#type() {
                offer::operation::Type::Launch => {
                    for task in operation.launch.map(|launch| launch.task_infos).unwrap_or_default() {
                        self.launch(now, id, agent.as_deref(), task, &mut left, out);
                    }
                }
                offer::operation::Type::LaunchGroup => {
                    if let Some(offer::operation::LaunchGroup { executor, task_group }) = operation.launch_group {
                        self.launch_group(now, id, agent.as_deref(), executor, task_group.tasks, &mut left, out);
                    }
                }
                other => tracing::warn!("the local cluster does not know the operation {other:?}"),
            }
        }
        for (at, offer) in accept.offer_ids.iter().enumerate() {
            // the rest of all offers of this agent counts as unused only once
            let unused = if at == 0 { left.clone() } else { Resources::default() };
            self.take_back(now, id, &offer.value, Some(&unused), accept.filters.as_ref());
        }
    }

    fn launch(&mut self, now: Duration, id: &str, agent: Option<&str>, task: TaskInfo, left: &mut Resources, out: &mut Vec<Action>) {
        let Some(framework) = self.frameworks.get_mut(id) else { return };
        let Some(agent_id) = agent else {
            framework.refuse(now, &task, TaskState::TaskDropped, Reason::InvalidOffers, "Task launched with invalid offers", out);
            return;
        };
        let Some(agent) = self.agents.get_mut(agent_id) else { return };
        let known = framework.tasks.contains_key(&task.task_id.value);
        let checked = validation::executor_of(&task).and_then(|executor| {
            validation::task(&task, executor, &framework.info, agent, known, left).map(|wanted| (executor.clone(), wanted))
        });
        match checked {
            Err(message) => framework.refuse(now, &task, TaskState::TaskError, Reason::TaskInvalid, &message, out),
            Ok((executor, wanted)) => {
                left.subtract(&wanted);
                framework.tasks.insert(task.task_id.value.clone(), agent_id.to_owned());
                let outputs = agent.run(now, &framework.info, filled(executor, &framework.info), vec![task], false);
                self.absorb(agent_id, outputs, out);
            }
        }
    }

    /// Starts all tasks of a group, or none.
    #[allow(clippy::too_many_arguments, reason = "they are the fields of the call")]
    fn launch_group(
        &mut self,
        now: Duration,
        id: &str,
        agent: Option<&str>,
        executor: ExecutorInfo,
        tasks: Vec<TaskInfo>,
        left: &mut Resources,
        out: &mut Vec<Action>,
    ) {
        let Some(framework) = self.frameworks.get_mut(id) else { return };
        let Some(agent_id) = agent else {
            for task in &tasks {
                framework.refuse(now, task, TaskState::TaskDropped, Reason::InvalidOffers, "Task launched with invalid offers", out);
            }
            return;
        };
        let Some(agent) = self.agents.get_mut(agent_id) else { return };
        let mut rest = left.clone();
        let mut seen = BTreeSet::new();
        let mut new_executor = executor.clone();
        let checked = tasks.iter().try_for_each(|task| {
            let known = framework.tasks.contains_key(&task.task_id.value) || !seen.insert(task.task_id.value.clone());
            let wanted = validation::task(task, &new_executor, &framework.info, agent, known, &rest)?;
            rest.subtract(&wanted);
            // the executor is paid for with the first of its tasks
            new_executor.resources.clear();
            Ok::<_, String>(())
        });
        match checked {
            Err(message) => {
                for task in &tasks {
                    framework.refuse(now, task, TaskState::TaskError, Reason::TaskGroupInvalid, &message, out);
                }
            }
            Ok(()) => {
                *left = rest;
                framework.tasks.extend(tasks.iter().map(|task| (task.task_id.value.clone(), agent_id.to_owned())));
                let outputs = agent.run(now, &framework.info, filled(executor, &framework.info), tasks, true);
                self.absorb(agent_id, outputs, out);
            }
        }
    }
}

fn filled(executor: ExecutorInfo, framework: &FrameworkInfo) -> ExecutorInfo {
    ExecutorInfo { framework_id: framework.id.clone(), ..executor }
}
