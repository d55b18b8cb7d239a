//! The effect of pod changes on queue and tasks.

use std::sync::Arc;
use std::time::Duration;

use super::{Action, Core, DELETE_AGAIN, Deletion};
use crate::mesos::v1::TaskStatus;
use crate::mesos::v1::scheduler::Call;
use crate::object::pod::has_ended;
use crate::object::{Name, Object};
use crate::scheduler::demand::{Binding, PodFacts};
use crate::scheduler::tasks::{State, Task};

/// How long to wait for the last status update of a bound pod that was deleted; its executor is expected to have stopped it.
const LAST_WORD: Duration = Duration::from_secs(2);

impl Core {
    pub(super) fn pod(&mut self, now: Duration, pod: Arc<Object>) {
        let name = &pod.meta().name;
        match self.tasks.of_pod(name).map(|task| (task.id.clone(), task.uid == pod.meta().uid)) {
            Some((id, true)) => return self.launched_pod(now, &id, pod),
            // The name was reused before the deletion of its former pod was seen.
            Some((id, false)) => self.abandon(now, &id, 0),
            None => {}
        }
        let mut facts = match PodFacts::read(&pod, &self.settings.rules) {
            Ok(facts) => facts,
            Err(error) => return tracing::warn!("pod {name}: {error}"),
        };
        let left_alone = facts.ended || facts.mirror;
        if let Some(binding) = facts.binding.take_if(|_| !left_alone) {
            self.queue.remove(name);
            self.storage.place(&facts);
            self.adopt_bound(now, facts, binding, pod);
        } else if left_alone || facts.foreign {
            self.queue.remove(name);
            if facts.node_name.is_some() && !facts.ended { self.storage.place(&facts) } else { self.storage.forget(name) }
        } else if facts.deleting.is_some() {
            self.queue.remove(name);
            self.storage.forget(name);
            if facts.node_name.is_some() {
                // The pod was never launched, so no executor will complete its deletion.
                self.delete_pod(&facts.name, &facts.uid, None);
            }
        } else {
            self.wait(now, facts, pod);
        }
    }

    /// A pod with a task changed: it has been bound, or is to be deleted.
    fn launched_pod(&mut self, now: Duration, id: &str, pod: Arc<Object>) {
        let mut bound = self.tasks.get(id).is_some_and(|task| task.bound);
        if !bound
            && let Ok(mut facts) = PodFacts::read(&pod, &self.settings.rules)
            && let Some(binding) = facts.binding.take()
        {
            bound = *binding.task == *id;
            if !bound {
                return self.bound_otherwise(now, id, facts, binding, pod);
            }
        }
        if has_ended(&pod) {
            self.storage.forget(&pod.meta().name);
        }
        let deleting = pod.meta().is_deleted().then(|| pod.meta().deletion_grace_seconds.unwrap_or_default());
        let Some(task) = self.tasks.get_mut(id) else { return };
        task.object = Some(pod);
        if bound && !task.bound {
            (task.bound, task.state) = (true, task.state.max(State::Starting));
        }
        if let Some(grace) = deleting {
            self.tasks.kill(now, id, grace);
        }
    }

    /// A pod was launched twice because the first launch was forgotten; the first launch got the pod.
    fn bound_otherwise(&mut self, now: Duration, id: &str, facts: PodFacts, binding: Binding, pod: Arc<Object>) {
        tracing::info!("pod {} was launched before as the task {}, which it keeps", facts.name, binding.task);
        if let Some(task) = self.tasks.remove(id) {
            self.leaves(&task);
        }
        if facts.ended {
            self.storage.forget(&facts.name);
        } else {
            self.adopt_bound(now, facts, binding, pod);
        }
    }

    /// A bound pod without a task: launched by an earlier run, or by another scheduler of this framework. Its task is assumed to run.
    fn adopt_bound(&mut self, now: Duration, facts: PodFacts, binding: Binding, pod: Arc<Object>) {
        let Binding { host, task: id, agent, offer } = binding;
        let task = Task {
            id: id.into(),
            pod: facts.name,
            uid: facts.uid,
            object: Some(pod),
            owner: facts.owner,
            agent: agent.into(),
            host: host.into(),
            offer,
            state: State::Starting,
            bound: true,
            attempts: 0,
            launched_at: now,
            unknown_since: None,
            kill: None,
        };
        self.agents.entry(task.agent.clone()).or_insert_with(|| task.host.clone());
        self.spread.add(task.owner.as_deref(), &task.host);
        let id = task.id.clone();
        self.tasks.insert(task);
        if let Some(grace) = facts.deleting {
            self.tasks.kill(now, &id, grace);
        }
        if self.started {
            self.reconciler.want_explicit();
        }
    }

    /// A task has ended or is another scheduler's: it no longer counts for its owner, nor for its agent.
    pub(super) fn leaves(&mut self, task: &Task) {
        self.spread.remove(task.owner.as_deref(), &task.host);
        if self.lost.contains(&task.agent) {
            self.forget_lost(&task.agent);
        }
    }

    /// Forgets an agent that is lost, once it has no tasks.
    pub(super) fn forget_lost(&mut self, agent: &str) {
        if !self.tasks.any_on(agent) {
            self.lost.remove(agent);
            self.agents.remove(agent);
        }
    }

    pub(super) fn pod_gone(&mut self, now: Duration, pod: &Object) {
        let name = &pod.meta().name;
        if self.queue.get(name).is_some_and(|waiting| waiting.uid == pod.meta().uid) {
            self.queue.remove(name);
        }
        if self.deletions.get(name).is_some_and(|it| it.uid == pod.meta().uid) {
            self.deletion(now, name, true);
        }
        let task = self.tasks.of_pod(name);
        if self.queue.get(name).is_none() && task.is_none_or(|task| task.uid == pod.meta().uid) {
            self.storage.forget(name);
        }
        let Some(task) = task.filter(|task| task.uid == pod.meta().uid) else { return };
        let (id, graceful) = (task.id.clone(), task.bound && pod.meta().is_deleted());
        let wait = if graceful { LAST_WORD } else { Duration::ZERO };
        self.abandon(now + wait, &id, if graceful { pod.meta().deletion_grace_seconds.unwrap_or_default() } else { 0 });
    }

    /// The pod of a task is gone, so the task must be killed.
    fn abandon(&mut self, at: Duration, id: &str, grace: i64) {
        let Some(task) = self.tasks.get_mut(id) else { return };
        task.object = None;
        if task.state == State::Finished {
            self.tasks.remove(id);
        } else {
            self.tasks.kill(at, id, grace);
        }
    }

    /// Deletes a pod without grace. The status update that caused this is acknowledged afterwards.
    pub(super) fn delete_pod(&mut self, pod: &Name, uid: &str, because: Option<TaskStatus>) {
        let fresh = self.deletions.get(pod).is_none_or(|it| *it.uid != *uid);
        let mut acknowledge = Vec::new();
        if fresh {
            let old = self.deletions.remove(pod);
            acknowledge = old.map(|it| it.acknowledge).unwrap_or_default();
            self.out.push(Action::DeletePod { pod: pod.clone(), uid: uid.into() });
        }
        let deletion = self.deletions.entry(pod.clone()).or_insert_with(|| Deletion {
            uid: uid.into(),
            acknowledge,
            again_at: None,
            pause: DELETE_AGAIN,
        });
        deletion.acknowledge.extend(because);
    }

    pub(super) fn deletion(&mut self, now: Duration, pod: &Name, done: bool) {
        if !done {
            if let Some(deletion) = self.deletions.get_mut(pod) {
                deletion.again_at = Some(now + deletion.pause);
                deletion.pause = (deletion.pause * 2).min(self.settings.max_pod_backoff);
            }
            return;
        }
        let Some(deletion) = self.deletions.remove(pod) else { return };
        for status in &deletion.acknowledge {
            self.acknowledge(status);
        }
    }

    pub(super) fn retry_deletions(&mut self, now: Duration) {
        for (pod, deletion) in &mut self.deletions {
            if deletion.again_at.is_some_and(|at| now >= at) {
                deletion.again_at = None;
                self.out.push(Action::DeletePod { pod: pod.clone(), uid: deletion.uid.clone() });
            }
        }
    }

    pub(super) fn acknowledge(&mut self, status: &TaskStatus) {
        if let Some(call) = Call::acknowledge(status) {
            self.call(call);
        }
    }
}
