//! The records that an agent keeps across restarts: its executors, and their tasks until the last update is acknowledged.

use std::time::Duration;

use super::updates::RETRY;
use super::{Agent, Change, Key, Output, Tracked, launch_event};
use crate::local_mesos::master::master_status;
use crate::local_mesos::resources::Resources;
use crate::mesos::v1::task_status::Reason;
use crate::mesos::v1::{ExecutorInfo, FrameworkInfo, TaskInfo, TaskState, TaskStatus};

/// A task, from its launch until the last of its updates is acknowledged.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Task {
    #[prost(message, required, tag = "1")]
    pub info: TaskInfo,
    #[prost(string, tag = "2")]
    pub framework_id: String,
    #[prost(string, tag = "3")]
    pub executor_id: String,
    /// Unacknowledged updates, oldest first.
    #[prost(message, repeated, tag = "4")]
    pub updates: Vec<TaskStatus>,
    /// The latest update of all.
    #[prost(message, optional, tag = "5")]
    pub latest: Option<TaskStatus>,
}

impl Task {
    /// The state the executor last reported.
    pub fn state(&self) -> TaskState {
        self.latest.as_ref().map_or(TaskState::TaskStaging, TaskStatus::state)
    }

    /// A status from the master itself, for this reason. A framework gets one state after another, so this is the state that it has to
    /// acknowledge next.
    pub(in crate::local_mesos) fn as_known_to_master(&self, now: Duration, agent: &str, reason: Reason, message: &str) -> TaskStatus {
        let known = self.updates.first().or(self.latest.as_ref()).cloned().unwrap_or_default();
        let state = if self.latest.is_some() { known.state() } else { TaskState::TaskStaging };
        TaskStatus {
            agent_id: Some(agent.into()),
            executor_id: Some(self.executor_id.clone().into()),
            healthy: known.healthy,
            labels: known.labels,
            container_status: known.container_status,
            ..master_status(now, &self.info.task_id.value, state, reason, message)
        }
    }
}

/// An executor, as long as it is there.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Executor {
    #[prost(message, required, tag = "1")]
    pub info: ExecutorInfo,
    #[prost(message, required, tag = "2")]
    pub framework: FrameworkInfo,
    #[prost(string, tag = "3")]
    pub container: String,
}

impl Agent {
    /// Recovers the stored records: executors are launched again and get their tasks again.
    pub fn recover(&mut self, now: Duration, executors: Vec<Executor>, tasks: Vec<Task>) -> Vec<Output> {
        let mut out = Vec::new();
        for executor in executors {
            let group = tasks.iter().filter(|task| task.executor_id == executor.info.executor_id.value && !task.state().is_terminal());
            let mine: Vec<_> =
                group.filter(|task| Some(&task.framework_id) == executor.framework.id.as_ref().map(|id| &id.value)).collect();
            if mine.is_empty() {
                let key = (executor.framework.id.clone().unwrap_or_default().value, executor.info.executor_id.value);
                out.push(Output::Changed(Change::Executor(key)));
                continue;
            }
            let events = mine.iter().map(|task| launch_event(task.info.clone())).collect();
            self.start(now, executor, events, &mut out);
        }
        for task in tasks {
            let resources = Resources::of(&task.info.resources).unwrap_or_default();
            if !task.state().is_terminal() {
                self.free.subtract(&resources);
            }
            let retry = (!task.updates.is_empty()).then_some((now, RETRY.0));
            self.tasks.insert((task.framework_id.clone(), task.info.task_id.value.clone()), Tracked { task, resources, retry });
        }
        // The process ended after storing the task and before storing its executor: no executor runs it or will ever report its end.
        let is_orphan = |(key, it): &(&Key, &Tracked)| {
            !it.task.state().is_terminal() && !self.executors.contains_key(&(key.0.clone(), it.task.executor_id.clone()))
        };
        let orphans: Vec<Key> = self.tasks.iter().filter(is_orphan).map(|(key, _)| key.clone()).collect();
        for task in orphans {
            let status = self.new_status(now, &task, TaskState::TaskLost, Reason::AgentRestarted, "The task has no executor any more");
            self.update(now, &task, status, &mut out);
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mesos::v1::AgentInfo;

    #[test]
    fn a_task_whose_executor_was_not_stored_is_lost() {
        let info = AgentInfo { id: Some("a".to_owned().into()), ..AgentInfo::default() };
        let mut agent = Agent::new(info, 0).unwrap();
        let info = TaskInfo { task_id: "t".to_owned().into(), ..TaskInfo::default() };
        let task = Task { info, framework_id: "f".to_owned(), executor_id: "e".to_owned(), ..Task::default() };
        let out = agent.recover(Duration::ZERO, Vec::new(), vec![task]);
        let told =
            |it: &Output| matches!(it, Output::Status(framework, status) if framework == "f" && status.state() == TaskState::TaskLost);
        assert!(out.iter().any(told), "{out:?}");
        assert!(agent.tasks().all(|(_, task)| task.state().is_terminal()));
    }
}
