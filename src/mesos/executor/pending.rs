//! Tasks and updates that the agent has not acknowledged. No I/O.

use bytes::Bytes;
use indexmap::IndexMap;

use crate::mesos::v1::executor::{Call, call};
use crate::mesos::v1::{ExecutorId, FrameworkId, TaskInfo, TaskStatus};

/// Tasks and updates, in the order in which they came, until they are acknowledged.
#[derive(Debug, Default)]
pub(super) struct Pending {
    tasks: IndexMap<String, TaskInfo>,
    updates: IndexMap<Bytes, Update>,
}

#[derive(Debug)]
struct Update {
    status: TaskStatus,
    /// Sent in the current session.
    sent: bool,
}

impl Pending {
    pub(super) fn launched(&mut self, task: TaskInfo) {
        self.tasks.insert(task.task_id.value.clone(), task);
    }

    /// Keeps an update, which has its uuid, until it is acknowledged.
    pub(super) fn updated(&mut self, status: TaskStatus, sent: bool) {
        let uuid = status.uuid.clone().unwrap_or_default();
        self.updates.insert(uuid, Update { status, sent });
    }

    pub(super) fn acknowledged(&mut self, task_id: &str, uuid: &Bytes) {
        self.tasks.shift_remove(task_id);
        self.updates.shift_remove(uuid);
    }

    /// Whether every update is acknowledged.
    pub(super) fn is_settled(&self) -> bool {
        self.updates.is_empty()
    }

    /// The content of a SUBSCRIBE call. Everything in it counts as sent.
    pub(super) fn subscribe(&mut self) -> call::Subscribe {
        let updates = self.updates.values_mut().map(|update| {
            update.sent = true;
            call::Update { status: update.status.clone() }
        });
        call::Subscribe { unacknowledged_updates: updates.collect(), unacknowledged_tasks: self.tasks.values().cloned().collect() }
    }

    /// The updates that came between the SUBSCRIBE call and its success; they count as sent now.
    pub(super) fn unsent(&mut self) -> impl Iterator<Item = &TaskStatus> {
        self.updates.values_mut().filter(|update| !update.sent).map(|update| {
            update.sent = true;
            &update.status
        })
    }
}

impl Call {
    fn of(executor_id: &ExecutorId, framework_id: &FrameworkId, r#type: call::Type) -> Self {
        Self { executor_id: executor_id.clone(), framework_id: framework_id.clone(), r#type: Some(r#type.into()), ..Self::default() }
    }

    /// A SUBSCRIBE call with unacknowledged tasks and updates.
    pub fn subscribe(executor_id: &ExecutorId, framework_id: &FrameworkId, subscribe: call::Subscribe) -> Self {
        Self { subscribe: Some(subscribe), ..Self::of(executor_id, framework_id, call::Type::Subscribe) }
    }

    /// Reports the state of a task.
    pub fn update(executor_id: &ExecutorId, framework_id: &FrameworkId, status: TaskStatus) -> Self {
        Self { update: Some(call::Update { status }), ..Self::of(executor_id, framework_id, call::Type::Update) }
    }

    /// Sends bytes to the scheduler, without a delivery report.
    pub fn message(executor_id: &ExecutorId, framework_id: &FrameworkId, data: Bytes) -> Self {
        Self { message: Some(call::Message { data }), ..Self::of(executor_id, framework_id, call::Type::Message) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(task: &str, uuid: &'static str) -> TaskStatus {
        TaskStatus { task_id: task.into(), uuid: Some(Bytes::from_static(uuid.as_bytes())), ..TaskStatus::default() }
    }

    fn told(subscribe: &call::Subscribe) -> (Vec<&str>, Vec<&[u8]>) {
        (
            subscribe.unacknowledged_tasks.iter().map(|task| task.task_id.value.as_str()).collect(),
            subscribe.unacknowledged_updates.iter().map(|update| update.status.uuid()).collect(),
        )
    }

    #[test]
    fn what_is_acknowledged_is_not_told_again() {
        let mut pending = Pending::default();
        for task in ["a", "b"] {
            pending.launched(TaskInfo { task_id: task.into(), ..TaskInfo::default() });
        }
        for (task, uuid) in [("a", "1"), ("a", "2"), ("b", "3")] {
            pending.updated(status(task, uuid), true);
        }
        pending.acknowledged("a", &Bytes::from_static(b"1"));
        assert_eq!(told(&pending.subscribe()), (vec!["b"], vec![&b"2"[..], b"3"]));
        assert!(!pending.is_settled());
        pending.acknowledged("a", &Bytes::from_static(b"2"));
        pending.acknowledged("b", &Bytes::from_static(b"3"));
        assert_eq!(told(&pending.subscribe()), (vec![], vec![]));
        assert!(pending.is_settled());
    }

    #[test]
    fn an_update_goes_out_once_a_session() {
        let mut pending = Pending::default();
        pending.updated(status("a", "1"), false);
        pending.subscribe();
        pending.updated(status("a", "2"), false);
        let sent: Vec<_> = pending.unsent().map(|status| status.uuid().to_vec()).collect();
        assert_eq!(sent, [b"2"]);
        assert_eq!(pending.unsent().count(), 0);
    }
}
