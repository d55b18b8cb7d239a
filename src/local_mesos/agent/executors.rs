//! Executors' calls to their agent, and their end.

use std::time::Duration;

use super::{Agent, Change, Key, Output};
use crate::local_mesos::master::is_partition_aware;
use crate::mesos::v1::executor::{Call, Event, call, event};
use crate::mesos::v1::task_status::{Reason, Source};
use crate::mesos::v1::{ContainerId, TaskId, TaskState, TaskStatus};

impl Agent {
    /// An executor subscribes.
    ///
    /// # Errors
    /// If there is no such executor here.
    pub fn subscribe(&mut self, now: Duration, key: &Key, subscribe: call::Subscribe) -> Result<Vec<Output>, &'static str> {
        let running = self.executors.get_mut(key).filter(|running| !running.shutting_down).ok_or("Executor cannot be found")?;
        running.connected = true;
        running.deadline = None;
        let subscribed = event::Subscribed {
            executor_info: running.executor.info.clone(),
            framework_info: running.executor.framework.clone(),
            agent_info: self.info.clone(),
            container_id: Some(ContainerId { value: running.executor.container.clone(), parent: None }),
        };
        let event = Event { r#type: Some(event::Type::Subscribed.into()), subscribed: Some(subscribed), ..Event::default() };
        let is_known = |id: &TaskId| subscribe.unacknowledged_tasks.iter().any(|task| task.task_id == *id);
        let queued: Vec<_> = running.queued.drain(..).filter(|event| !launched(event).any(is_known)).collect();
        let mut out = vec![Output::ToExecutor(key.clone(), Box::new(event))];
        for update in &subscribe.unacknowledged_updates {
            out.extend(self.executor_update(now, key, update.status.clone()));
        }
        // A task sent over an earlier connection, and unknown to the executor, never arrived.
        let is_lost = |id: &TaskId| !is_known(id) && !queued.iter().flat_map(launched).any(|queued| queued == id);
        let staging = self.tasks.iter().filter(|(id, it)| id.0 == key.0 && it.task.executor_id == key.1 && it.task.latest.is_none());
        let lost: Vec<Key> = staging.filter(|(_, it)| is_lost(&it.task.info.task_id)).map(|(id, _)| id.clone()).collect();
        let partition_aware = self.executors.get(key).is_some_and(|it| is_partition_aware(&it.executor.framework));
        let state = if partition_aware { TaskState::TaskDropped } else { TaskState::TaskLost };
        for task in lost {
            let status = self.new_status(now, &task, state, Reason::AgentRestarted, "The task never reached its executor");
            self.update(now, &task, status, &mut out);
        }
        out.extend(queued.into_iter().map(|event| Output::ToExecutor(key.clone(), Box::new(event))));
        Ok(out)
    }

    /// Handles any other call of a subscribed executor.
    ///
    /// # Errors
    /// If the call is invalid.
    pub fn call(&mut self, now: Duration, key: &Key, call: Call) -> Result<Vec<Output>, &'static str> {
        if !self.executors.get(key).ok_or("Executor cannot be found")?.connected {
            return Err("Executor is not subscribed");
        }
        match (call.r#type(), call.update, call.message) {
            (call::Type::Update, Some(update), _) => {
                if update.status.uuid().is_empty() || update.status.source() != Source::Executor {
                    return Err("Expecting 'uuid' and the source SOURCE_EXECUTOR in 'status'");
                }
                Ok(self.executor_update(now, key, update.status))
            }
            (call::Type::Message, _, Some(message)) => Ok(vec![Output::Message { key: key.clone(), data: message.data }]),
            (call::Type::Heartbeat, ..) => Ok(Vec::new()),
            _ => Err("Unknown 'type' of call, or its content is missing"),
        }
    }

    /// The executor's connection ended; it may reconnect as long as it lives.
    pub fn disconnected(&mut self, key: &Key) {
        if let Some(running) = self.executors.get_mut(key) {
            running.connected = false;
        }
    }

    /// The executor has exited: its tasks end with it.
    pub fn exited(&mut self, now: Duration, key: &Key, status: i32) -> Vec<Output> {
        let mut out = Vec::new();
        let Some(running) = self.executors.remove(key) else { return out };
        self.free.add(&running.resources);
        out.push(Output::Changed(Change::Executor(key.clone())));
        let partition_aware = is_partition_aware(&running.executor.framework);
        let tasks: Vec<_> =
            self.tasks.iter().filter(|(id, t)| id.0 == key.0 && t.task.executor_id == key.1).map(|(id, _)| id.clone()).collect();
        for task in tasks {
            if self.tasks.get(&task).is_some_and(|tracked| !tracked.task.state().is_terminal()) {
                // a task that never left staging did not run: it may be started elsewhere without doubt
                let state = if running.shutting_down && partition_aware { TaskState::TaskGone } else { TaskState::TaskFailed };
                let status = self.new_status(now, &task, state, Reason::ExecutorTerminated, "Executor terminated");
                self.update(now, &task, status, &mut out);
            }
        }
        out.push(Output::Exited(key.clone(), status));
        out
    }
    fn executor_update(&mut self, now: Duration, executor: &Key, mut status: TaskStatus) -> Vec<Output> {
        let (task_id, uuid) = (status.task_id.clone(), status.uuid.clone().unwrap_or_default());
        status.executor_id = Some(executor.1.clone().into());
        status.agent_id = self.info.id.clone();
        let mut out = Vec::new();
        self.update(now, &(executor.0.clone(), task_id.value.clone()), status, &mut out);
        let acknowledged = Some(event::Acknowledged { task_id, uuid });
        self.tell(executor, Event { r#type: Some(event::Type::Acknowledged.into()), acknowledged, ..Event::default() }, &mut out);
        out
    }
}

/// The tasks that an event launches.
fn launched(event: &Event) -> impl Iterator<Item = &TaskId> {
    let group = event.launch_group.iter().flat_map(|group| &group.task_group.tasks);
    event.launch.iter().map(|launch| &launch.task).chain(group).map(|task| &task.task_id)
}
