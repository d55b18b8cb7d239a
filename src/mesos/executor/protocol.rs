//! The executor's side of the protocol with its agent, without I/O: the calls in each session, and when to give the agent up.

use std::time::Duration;

use bytes::Bytes;

use super::{Environment, ExecutorEvent};
use crate::mesos::v1::executor::{Call, Event, event};
use crate::mesos::v1::{TaskStatus, task_status};

use super::pending::Pending;

/// The state of one executor's protocol across sessions.
#[derive(Debug, Default)]
pub struct Protocol {
    pending: Pending,
    connected: bool,
    subscribed_before: bool,
    /// The agent has asked for it.
    shutting_down: bool,
}

/// How a session, or the attempt at one, came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost<'a> {
    /// The agent does not answer, or closed the connection, for this reason.
    Away(&'a str),
    /// The agent answered that it does not want this executor.
    Refused(&'a str),
}

/// The next step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Subscribe again, after a pause.
    Retry,
    /// End, for this reason.
    GiveUp(String),
    /// The agent asked for the end, which the executor knows already.
    Over,
}

impl Protocol {
    /// The call that begins a session.
    pub fn subscribe(&mut self, environment: &Environment) -> Call {
        Call::subscribe(&environment.executor_id, &environment.framework_id, self.pending.subscribe())
    }

    /// The session has begun. The calls that belong at its start.
    pub fn subscribed(&mut self, environment: &Environment) -> Vec<Call> {
        (self.connected, self.subscribed_before) = (true, true);
        let update = |status: &TaskStatus| Call::update(&environment.executor_id, &environment.framework_id, status.clone());
        self.pending.unsent().map(update).collect()
    }

    /// Whether there is a session.
    pub fn is_connected(&self) -> bool {
        self.connected
    }

    /// The session, or the attempt at one, has ended; `away` is the time without a session so far.
    pub fn lost(&mut self, why: Lost<'_>, away: Duration, environment: &Environment) -> Next {
        self.connected = false;
        let recovery_timeout = environment.recovery_timeout;
        match why {
            _ if self.shutting_down => Next::Over,
            Lost::Refused(text) => Next::GiveUp(format!("the agent does not know this executor: {text}")),
            Lost::Away(why) if self.subscribed_before && !environment.checkpoint => {
                Next::GiveUp(format!("lost the agent, which does not checkpoint: {why}"))
            }
            Lost::Away(_) if away >= recovery_timeout => Next::GiveUp(format!("the agent has been away for {recovery_timeout:?}")),
            Lost::Away(_) => Next::Retry,
        }
    }

    /// Records the state of a task, with an id for this update; `now` counts since the epoch. Returns the call to send if there is a
    /// session: the update is repeated in every new one until it is acknowledged.
    pub fn update(&mut self, mut status: TaskStatus, uuid: uuid::Uuid, now: Duration, environment: &Environment) -> Option<Call> {
        status.uuid = Some(Bytes::copy_from_slice(uuid.as_bytes()));
        status.source = Some(task_status::Source::Executor.into());
        status.executor_id = Some(environment.executor_id.clone());
        status.timestamp = status.timestamp.or(Some(now.as_secs_f64()));
        self.pending.updated(status.clone(), self.connected);
        self.connected.then(|| Call::update(&environment.executor_id, &environment.framework_id, status))
    }

    /// Processes an event of the session; returns the one for the executor, if any.
    ///
    /// # Errors
    /// If the agent reports an error, which ends the session.
    pub fn heard(&mut self, event: Event) -> Result<Option<ExecutorEvent>, String> {
        let kind = event.r#type();
        Ok(Some(match event {
            Event { launch: Some(launch), .. } => {
                self.pending.launched(launch.task.clone());
                ExecutorEvent::Launch(Box::new(launch.task))
            }
            Event { launch_group: Some(group), .. } => {
                let tasks = group.task_group.tasks;
                tasks.iter().for_each(|task| self.pending.launched(task.clone()));
                ExecutorEvent::LaunchGroup(tasks)
            }
            Event { kill: Some(kill), .. } => ExecutorEvent::Kill { task_id: kill.task_id, kill_policy: kill.kill_policy },
            Event { acknowledged: Some(acknowledged), .. } => {
                self.pending.acknowledged(&acknowledged.task_id.value, &acknowledged.uuid);
                return Ok(None);
            }
            Event { message: Some(message), .. } => ExecutorEvent::Message(message.data),
            Event { error: Some(error), .. } => return Err(error.message),
            _ if kind == event::Type::Shutdown => {
                self.shutting_down = true;
                ExecutorEvent::Shutdown("the agent asks for it".into())
            }
            _ if kind == event::Type::Heartbeat => return Ok(None),
            other => {
                tracing::debug!("unknown event from the Mesos agent: {other:?}");
                return Ok(None);
            }
        }))
    }

    /// Whether every update is acknowledged.
    pub fn is_settled(&self) -> bool {
        self.pending.is_settled()
    }
}
