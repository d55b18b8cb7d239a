//! Scheduler calls and executor updates, put together in one line.

use bytes::Bytes;

use super::v1::scheduler::{Call, call};
use super::v1::{
    AgentId, ExecutorId, Filters, FrameworkInfo, KillPolicy, Label, Labels, OfferId, TaskId, TaskInfo, TaskState, TaskStatus, offer,
};

fn filters(refuse_seconds: Option<f64>) -> Option<Filters> {
    refuse_seconds.map(|refuse_seconds| Filters { refuse_seconds: Some(refuse_seconds) })
}

/// Makes a call of a type; the framework id is filled in when it is sent.
fn of(r#type: call::Type) -> Call {
    Call { r#type: Some(r#type.into()), ..Call::default() }
}

impl Call {
    /// Subscribes, for the first time or (with an id in `framework_info`) again. Roles in `suppressed_roles` get no offers.
    pub fn subscribe(framework_info: FrameworkInfo, suppressed_roles: Vec<String>) -> Self {
        let framework_id = framework_info.id.clone();
        Self { framework_id, subscribe: Some(call::Subscribe { framework_info, suppressed_roles }), ..of(call::Type::Subscribe) }
    }

    /// Removes the framework, its executors and its tasks.
    pub fn teardown() -> Self {
        of(call::Type::Teardown)
    }

    /// Applies operations to the resources of offers, which must be of the same agent. Unused resources are offered again after
    /// `refuse_seconds` (5 if not given).
    pub fn accept(offer_ids: Vec<OfferId>, operations: Vec<offer::Operation>, refuse_seconds: Option<f64>) -> Self {
        let accept = call::Accept { offer_ids, operations, filters: filters(refuse_seconds) };
        Self { accept: Some(accept), ..of(call::Type::Accept) }
    }

    /// Launches tasks on the resources of offers.
    pub fn launch(offer_ids: Vec<OfferId>, tasks: Vec<TaskInfo>, refuse_seconds: Option<f64>) -> Self {
        Self::accept(offer_ids, vec![offer::Operation::launch(tasks)], refuse_seconds)
    }

    /// Declines offers; the same resources are not offered again for `refuse_seconds` (5 if not given).
    pub fn decline(offer_ids: Vec<OfferId>, refuse_seconds: Option<f64>) -> Self {
        Self { decline: Some(call::Decline { offer_ids, filters: filters(refuse_seconds) }), ..of(call::Type::Decline) }
    }

    /// Asks for offers again: drops filters and ends a SUPPRESS, for these roles or, if none are given, for all.
    pub fn revive(roles: Vec<String>) -> Self {
        Self { revive: Some(call::Revive { roles }), ..of(call::Type::Revive) }
    }

    /// Asks for no more offers, for these roles or, if none are given, for all.
    pub fn suppress(roles: Vec<String>) -> Self {
        Self { suppress: Some(call::Suppress { roles }), ..of(call::Type::Suppress) }
    }

    /// Kills a task. With the agent's id the master can answer even for a task that it does not know.
    pub fn kill(task_id: TaskId, agent_id: Option<AgentId>, kill_policy: Option<KillPolicy>) -> Self {
        Self { kill: Some(call::Kill { task_id, agent_id, kill_policy }), ..of(call::Type::Kill) }
    }

    /// Shuts an executor down, and with it its tasks.
    pub fn shutdown(executor_id: ExecutorId, agent_id: AgentId) -> Self {
        Self { shutdown: Some(call::Shutdown { executor_id, agent_id }), ..of(call::Type::Shutdown) }
    }

    /// Acknowledges a status update; `None` if it is not one that wants to be acknowledged.
    pub fn acknowledge(status: &TaskStatus) -> Option<Self> {
        let uuid = status.uuid.clone().filter(|uuid| !uuid.is_empty())?;
        let acknowledge = call::Acknowledge { agent_id: status.agent_id.clone()?, task_id: status.task_id.clone(), uuid };
        Some(Self { acknowledge: Some(acknowledge), ..of(call::Type::Acknowledge) })
    }

    /// Asks for the state of these tasks (explicit) or, if none are given, of all tasks that the master knows (implicit).
    pub fn reconcile(tasks: impl IntoIterator<Item = (TaskId, Option<AgentId>)>) -> Self {
        let tasks = tasks.into_iter().map(|(task_id, agent_id)| call::reconcile::Task { task_id, agent_id }).collect();
        Self { reconcile: Some(call::Reconcile { tasks }), ..of(call::Type::Reconcile) }
    }

    /// Sends bytes to an executor, without a delivery report.
    pub fn message(executor_id: ExecutorId, agent_id: AgentId, data: Bytes) -> Self {
        Self { message: Some(call::Message { agent_id, executor_id, data }), ..of(call::Type::Message) }
    }

    /// Changes roles, capabilities or labels of the subscribed framework (Mesos 1.9 and later).
    pub fn update_framework(framework_info: FrameworkInfo, suppressed_roles: Vec<String>) -> Self {
        let update = call::UpdateFramework { framework_info, suppressed_roles };
        Self { update_framework: Some(update), ..of(call::Type::UpdateFramework) }
    }
}

impl offer::Operation {
    /// Launches tasks.
    pub fn launch(task_infos: Vec<TaskInfo>) -> Self {
        use offer::operation::{Launch, Type};
        Self { r#type: Some(Type::Launch.into()), launch: Some(Launch { task_infos }), ..Self::default() }
    }
}

impl TaskState {
    /// Whether a task in this state can never run again under its id. LOST and UNREACHABLE do not count for partition-aware frameworks:
    /// their tasks may come back from UNREACHABLE, and they get LOST only for tasks that cannot.
    pub fn is_terminal(self) -> bool {
        match self {
            Self::TaskStaging | Self::TaskStarting | Self::TaskRunning | Self::TaskKilling | Self::TaskUnreachable | Self::TaskUnknown => {
                false
            }
            Self::TaskFinished
            | Self::TaskFailed
            | Self::TaskKilled
            | Self::TaskError
            | Self::TaskLost
            | Self::TaskDropped
            | Self::TaskGone
            | Self::TaskGoneByOperator => true,
        }
    }
}

impl Labels {
    /// The value of a label.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.labels.iter().find(|label| label.key == key)?.value.as_deref()
    }

    /// Labels out of pairs.
    pub fn of<K: Into<String>, V: Into<String>>(pairs: impl IntoIterator<Item = (K, V)>) -> Self {
        Self { labels: pairs.into_iter().map(|(key, value)| Label { key: key.into(), value: Some(value.into()) }).collect() }
    }
}

/// Ids are wrapped strings: `TaskId::from("x")`, printed as their content.
macro_rules! ids {
    ($($id:ident)*) => {$(
        impl<T: Into<String>> From<T> for super::v1::$id {
            fn from(value: T) -> Self {
                Self { value: value.into() }
            }
        }

        impl std::fmt::Display for super::v1::$id {
            fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                to.write_str(&self.value)
            }
        }
    )*};
}

ids!(FrameworkId OfferId AgentId TaskId ExecutorId);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_updates_with_a_uuid_are_acknowledged() {
        let status =
            TaskStatus { task_id: "t".into(), agent_id: Some("a".into()), uuid: Some(Bytes::from_static(b"u")), ..TaskStatus::default() };
        let call = Call::acknowledge(&status).unwrap();
        assert_eq!(call.r#type(), call::Type::Acknowledge);
        assert_eq!(call.acknowledge.unwrap().uuid, "u");
        for status in [
            TaskStatus { uuid: None, ..status.clone() },
            TaskStatus { uuid: Some(Bytes::new()), ..status.clone() },
            TaskStatus { agent_id: None, ..status.clone() },
        ] {
            assert_eq!(Call::acknowledge(&status), None);
        }
    }

    #[test]
    fn resubscribing_names_the_framework_twice() {
        let info = FrameworkInfo { id: Some("f".into()), ..FrameworkInfo::default() };
        assert_eq!(Call::subscribe(info, Vec::new()).framework_id, Some("f".into()));
        assert_eq!(Call::subscribe(FrameworkInfo::default(), Vec::new()).framework_id, None);
    }
}
