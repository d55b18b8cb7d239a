//! Status updates: a framework gets one after another, each repeated until acknowledged.

use std::time::Duration;

use bytes::Bytes;

use super::{Agent, Change, Key, Output, random_uuid};
use crate::mesos::v1::task_status::{Reason, Source};
use crate::mesos::v1::{TaskState, TaskStatus};

/// First and longest time after which an unacknowledged update is repeated.
pub(super) const RETRY: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(600));

impl Agent {
    /// The framework acknowledges an update; the next one of that task follows.
    pub fn acknowledge(&mut self, now: Duration, key: &Key, uuid: &[u8]) -> Vec<Output> {
        let mut out = Vec::new();
        let Some(tracked) = self.tasks.get_mut(key) else { return out };
        if tracked.task.updates.first().is_none_or(|status| status.uuid() != uuid) {
            return out;
        }
        let done = tracked.task.updates.remove(0);
        tracked.retry = None;
        if done.state().is_terminal() {
            self.tasks.remove(key);
        } else if let Some(next) = tracked.task.updates.first() {
            tracked.retry = Some((now + RETRY.0, RETRY.0));
            out.push(Output::Status(key.0.clone(), Box::new(next.clone())));
        }
        out.push(Output::Changed(Change::Task(key.clone())));
        out
    }

    /// Resends all unacknowledged updates to a framework that has just returned.
    pub fn resend(&mut self, now: Duration, framework: &str) -> Vec<Output> {
        let mine = self.tasks.iter_mut().filter(|(key, _)| key.0 == framework);
        mine.filter_map(|(key, tracked)| {
            let status = tracked.task.updates.first()?.clone();
            tracked.retry = Some((now + RETRY.0, RETRY.0));
            Some(Output::Status(key.0.clone(), Box::new(status)))
        })
        .collect()
    }
    /// Records an update: the task's state changes now, the framework gets one update after another.
    pub(super) fn update(&mut self, now: Duration, key: &Key, status: TaskStatus, out: &mut Vec<Output>) {
        let Some(tracked) = self.tasks.get_mut(key) else {
            tracing::warn!("update {:?} of the unknown task {}", status.state(), key.1);
            return;
        };
        let known = |other: &TaskStatus| other.uuid == status.uuid;
        // Repetitions by the executor after a reconnection, and updates after the end, are ignored
        if tracked.task.updates.iter().any(known) || tracked.task.latest.as_ref().is_some_and(known) || tracked.task.state().is_terminal() {
            return;
        }
        if status.state().is_terminal() {
            self.free.add(&tracked.resources);
        }
        if tracked.task.updates.is_empty() {
            tracked.retry = Some((now + RETRY.0, RETRY.0));
            out.push(Output::Status(key.0.clone(), Box::new(status.clone())));
        }
        tracked.task.latest = Some(status.clone());
        tracked.task.updates.push(status);
        out.push(Output::Changed(Change::Task(key.clone())));
    }

    pub(super) fn new_status(&mut self, now: Duration, key: &Key, state: TaskState, reason: Reason, message: &str) -> TaskStatus {
        let executor = self.tasks.get(key).map(|tracked| tracked.task.executor_id.clone().into());
        TaskStatus {
            task_id: key.1.clone().into(),
            state: state.into(),
            message: Some(message.into()),
            source: Some(Source::Agent.into()),
            reason: Some(reason.into()),
            agent_id: self.info.id.clone(),
            executor_id: executor,
            timestamp: Some(now.as_secs_f64()),
            uuid: Some(Bytes::copy_from_slice(random_uuid(&mut self.rng).as_bytes())),
            ..TaskStatus::default()
        }
    }
}
