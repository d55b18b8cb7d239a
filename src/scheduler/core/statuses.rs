//! Handles Mesos' status updates.

use std::time::Duration;

use bytes::Bytes;

use super::Core;
use crate::mesos::v1::scheduler::Call;
use crate::mesos::v1::task_status::{Reason, Source};
use crate::mesos::v1::{TaskState, TaskStatus};
use crate::object::pod::has_ended;
use crate::scheduler::demand::PodFacts;
use crate::scheduler::tasks::{State, Task, Unknown};

/// Messages of executors that report the loss of the pod's containers.
const CONTAINERS_GONE: [&str; 2] = ["containers-disappeared", "kubelet-pod-launch-failed"];
/// How long an agent that the master does not know is expected back; as long as masters wait for agents in their registry.
const AGENT_RETURNS: Duration = Duration::from_secs(600);
/// The same for tasks that are not bound yet. Their pods can be launched elsewhere sooner, because the API server binds a pod only once.
const AGENT_RETURNS_UNBOUND: Duration = Duration::from_secs(120);
const TASK_KILLED: &str = "task-killed";

impl Core {
    /// Acts on a status update, then acknowledges it: at once, or after the pod deletion that it causes.
    pub(super) fn status(&mut self, now: Duration, status: TaskStatus) {
        let id = status.task_id.value.clone();
        if self.gate.as_ref().is_some_and(|gate| gate.fence == id) {
            self.gate = None;
            return;
        }
        self.metrics.status_update(&status);
        if self.may_come_back(now, &id, &status) {
            return self.acknowledge(&status);
        }
        self.reconciler.answered(now, &id);
        if is_ahead(&status) {
            return;
        }
        if self.tasks.get(&id).is_none() && !self.adopt(now, &status) {
            self.unknown(&status);
            self.acknowledge(&status);
            return;
        }
        match status.state() {
            TaskState::TaskStaging | TaskState::TaskKilling => self.tasks.get_mut(&id).into_iter().for_each(|it| it.unknown_since = None),
            TaskState::TaskStarting => self.bound(now, &id, State::Starting),
            TaskState::TaskRunning => self.bound(now, &id, State::Running),
            TaskState::TaskUnreachable if self.tasks.get(&id).is_some_and(|it| it.bound) => {
                tracing::warn!("task {id}: its agent is unreachable");
            }
            TaskState::TaskFinished => self.finished(&id),
            TaskState::TaskFailed
            | TaskState::TaskError
            | TaskState::TaskLost
            | TaskState::TaskKilled
            | TaskState::TaskDropped
            | TaskState::TaskGone
            | TaskState::TaskGoneByOperator
            | TaskState::TaskUnreachable
            | TaskState::TaskUnknown => return self.ended(now, &id, status),
        }
        self.acknowledge(&status);
    }

    /// Whether a task that the master does not know may still run. A master that has lost its registry knows an agent's tasks only after
    /// the agent has registered again, so the scheduler keeps asking for the task until then. The same holds for a task that was not bound
    /// before its agent became unreachable: the launch may never have arrived there, which is not reported when the agent returns.
    fn may_come_back(&mut self, now: Duration, id: &str, status: &TaskStatus) -> bool {
        let state = status.state();
        let Some(task) = self.tasks.get_mut(id).filter(|it| it.object.is_some() && it.state != State::Finished) else { return false };
        let is_away = state == TaskState::TaskUnreachable && !task.bound;
        if !is_away && state != TaskState::TaskUnknown {
            return false;
        }
        let first = task.unknown_since.get_or_insert(Unknown { read: now, given: status.timestamp });
        let waits = first.age(now, status.timestamp) < if task.bound { AGENT_RETURNS } else { AGENT_RETURNS_UNBOUND };
        if is_away && waits && !self.reconciler.is_running() {
            self.reconciler.want_explicit();
        }
        waits
    }

    /// The executor has the task: it has bound the pod, or is about to.
    fn bound(&mut self, now: Duration, id: &str, state: State) {
        let Some(task) = self.tasks.get_mut(id).filter(|it| it.state != State::Finished) else { return };
        if task.state == State::Launched {
            self.metrics.bind_latency(now.saturating_sub(task.launched_at));
        }
        (task.bound, task.state, task.unknown_since) = (true, task.state.max(state), None);
    }

    fn finished(&mut self, id: &str) {
        let Some(task) = self.tasks.get(id).filter(|it| it.state != State::Finished) else { return };
        let task = task.clone();
        if task.object.is_some() {
            self.tasks.finish(id);
        } else {
            self.tasks.remove(id);
        }
        self.leaves(&task);
    }

    /// A task ended abnormally. Its pod is launched again if it was never bound. A bound pod is deleted if no one else will do that, so
    /// that its controller makes another.
    fn ended(&mut self, now: Duration, id: &str, status: TaskStatus) {
        if let Some(task) = self.tasks.get(id).filter(|it| it.state == State::Finished) {
            // A new master may report the end of a task before the agent's update with the details arrives.
            let left = task.object.as_ref().is_some_and(|pod| !has_ended(pod));
            if left && containers_are_gone(task, &status) {
                let (pod, uid) = (task.pod.clone(), task.uid.clone());
                return self.delete_pod(&pod, &uid, Some(status));
            }
            return self.acknowledge(&status);
        }
        let Some(task) = self.tasks.remove(id) else { return };
        self.leaves(&task);
        let (state, why) = (status.state().as_str_name(), status.message());
        tracing::info!("task {id} of pod {} ended: {state} {why}", task.pod);
        let Some(pod) = task.object.clone() else { return self.acknowledge(&status) };
        let deleting = pod.meta().is_deleted();
        let by_executor = status.source == Some(Source::Executor.into());
        if !task.bound {
            if !deleting {
                self.launch_again(now, &task, &status);
            } else if pod.field("spec.nodeName").is_some_and(|it| !it.is_empty()) {
                return self.delete_pod(&task.pod, &task.uid, Some(status));
            }
        } else if has_ended(&pod) && !deleting {
            // The pod keeps its final status, however its task ended.
        } else if containers_are_gone(&task, &status) || deleting && !by_executor {
            return self.delete_pod(&task.pod, &task.uid, Some(status));
        } else if matches!(status.reason(), Reason::ExecutorTerminated | Reason::ExecutorUnregistered) && status.reason.is_some() {
            self.reconciler.want_explicit();
        } else if status.state() == TaskState::TaskLost
            && task.state == State::Running
            && let (Some(executor), Some(agent)) = (status.executor_id.clone(), status.agent_id.clone())
        {
            self.call(Call::message(executor, agent, Bytes::from(format!("task-lost:{id}"))));
        }
        // The pod remains, with the status that its executor wrote. Keep its task, so that the pod is not mistaken for a running one.
        if task.bound {
            self.tasks.insert(task);
            self.tasks.finish(id);
        }
        self.acknowledge(&status);
    }

    /// Requeues a pod whose task ended before its executor had bound it.
    fn launch_again(&mut self, now: Duration, task: &Task, status: &TaskStatus) {
        let Some(pod) = &task.object else { return };
        let Ok(facts) = PodFacts::read(pod, &self.settings.rules) else { return };
        let message = format!("Binding rejected: {} {}", status.state().as_str_name(), status.message());
        self.tell(pod.clone(), true, "FailedScheduling", message.trim_end().to_owned());
        self.wait_longer(now, facts, pod.clone(), task.attempts + 1);
    }

    /// Adopts a live task of an earlier run whose pod still waits here, because that run ended before the pod was bound.
    fn adopt(&mut self, now: Duration, status: &TaskStatus) -> bool {
        if status.state().is_terminal() || matches!(status.state(), TaskState::TaskUnknown | TaskState::TaskUnreachable) {
            return false;
        }
        let id = &status.task_id.value;
        let (Some(name), Some(agent)) = (self.queue.of_task(id).map(|it| it.name.clone()), &status.agent_id) else { return false };
        let Some(waiting) = self.queue.remove(&name) else { return false };
        let host = self.agents.get(&*agent.value).cloned().unwrap_or_else(|| "".into());
        tracing::info!("task {id} is that of pod {name}, launched earlier");
        self.spread.add(waiting.owner.as_deref(), &host);
        self.storage.launched(&name);
        self.tasks.insert(Task::launched(id, waiting, agent.value.as_str().into(), host, "", now));
        true
    }

    /// A task without a pod, or whose pod has another task, must not live.
    fn unknown(&mut self, status: &TaskStatus) {
        let alive = matches!(status.state(), TaskState::TaskStaging | TaskState::TaskStarting | TaskState::TaskRunning);
        if !alive || self.has_unbound_twin(&status.task_id.value) {
            return;
        }
        tracing::warn!("task {} belongs to no pod; killing it", status.task_id);
        self.call(Call::kill(status.task_id.clone(), status.agent_id.clone(), None));
    }

    /// Whether another launch of the same pod is not bound yet. The API server gives the pod to one of the two, and the other ends by
    /// itself. Killing the one that got the pod would kill the pod.
    fn has_unbound_twin(&self, id: &str) -> bool {
        self.tasks.twin(id).is_some_and(|it| !it.bound && it.object.is_some() && it.kill.is_none())
    }
}

/// Whether the master reports that a task has ended before the agent's own update, which has the details, arrives.
fn is_ahead(status: &TaskStatus) -> bool {
    let answers = status.source == Some(Source::Master.into()) && status.reason == Some(Reason::Reconciliation.into());
    answers && matches!(status.state(), TaskState::TaskFinished | TaskState::TaskFailed | TaskState::TaskKilled | TaskState::TaskDropped)
}

/// Whether the end of a task means that the pod has lost its containers and that no executor writes its status.
fn containers_are_gone(task: &Task, status: &TaskStatus) -> bool {
    // A dropped task never reached its executor, although the pod may have been bound.
    if matches!(status.state(), TaskState::TaskGone | TaskState::TaskGoneByOperator | TaskState::TaskDropped) {
        return true;
    }
    let (Some(source), message) = (status.source.map(|_| status.source()), status.message()) else { return false };
    let reason = status.reason.map(|_| status.reason());
    match source {
        Source::Master => reason == Some(Reason::Reconciliation),
        // The agent reports the end of a task only if the executor cannot: it ended, was killed at its limits, or never came back.
        Source::Agent => true,
        Source::Executor => CONTAINERS_GONE.contains(&message) || message == TASK_KILLED && task.kill.is_none(),
    }
}
