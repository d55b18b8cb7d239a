//! The invariants after every step, and the final state once faults have stopped.

use std::collections::BTreeMap;

use km::executor::names::{CONTAINER_NAME, POD_UID, PodId};
use km::local_mesos::agent::Agent;
use km::local_mesos::resources::Resources;
use km::mesos::v1::TaskState;
use km::mesos::v1::scheduler::Call;

use crate::api::{has_ended, is_deleted, text};
use crate::executor::{uid_in, uid_of};
use crate::life::running;
use crate::mesos::agent_id;
use crate::world::World;

impl World {
    /// Checked after every step.
    pub fn check(&mut self) {
        self.api.check_claims();
        let mut runs_on: BTreeMap<&str, &str> = BTreeMap::new();
        let mut bound: BTreeMap<String, String> = BTreeMap::new();
        for (host, machine) in &self.machines {
            for (uid, mut containers) in running(&machine.engine) {
                let other = runs_on.insert(uid, host);
                assert!(other.is_none(), "pod {uid} runs on {host} and on {other:?}");
                containers.sort_unstable();
                let count = containers.len();
                containers.dedup();
                assert_eq!(containers.len(), count, "containers of pod {uid} run twice on {host}");
            }
            let Some(agent) = self.agent(host) else { continue };
            self.check_disk(host, agent);
            let mut used = Resources::default();
            for (key, task) in agent.tasks().filter(|(_, task)| !task.state().is_terminal()) {
                used.add(&Resources::of(&task.info.resources).unwrap());
                if matches!(task.state(), TaskState::TaskStarting | TaskState::TaskRunning) {
                    let uid = uid_of(task);
                    let other = bound.insert(uid.clone(), key.1.clone());
                    assert!(other.is_none(), "pod {uid} has the tasks {} and {other:?}", key.1);
                }
            }
            agent.executors().for_each(|(_, executor)| used.add(&Resources::of(&executor.info.resources).unwrap()));
            assert!(agent.total.contains(&used), "agent of {host} has given {used} of {}", agent.total);
            let mut free = agent.total.clone();
            free.subtract(&used);
            assert_eq!(agent.free(), &free, "what the agent of {host} says is free");
            if let Some(master) = self.mesos.master.as_ref().filter(|it| it.agent(&agent_id(host)).is_some()) {
                let offered = master.offered(&agent_id(host));
                assert!(agent.free().contains(&offered), "of {host} {offered} is offered, and {} free", agent.free());
            }
        }
    }

    /// An agent that dies now must restart in the same state.
    fn check_disk(&self, host: &str, agent: &Agent) {
        let (id, disk) = (agent_id(host), &self.mesos.disk);
        for (key, task) in agent.tasks() {
            let stored = disk.tasks.get(&(id.clone(), key.clone()));
            assert!(stored == Some(task), "of task {} {stored:?} is stored, and it is {task:?}", key.1);
        }
        for (key, executor) in agent.executors() {
            assert!(disk.executors.get(&(id.clone(), key.clone())) == Some(executor), "executor {} of {host} is stored otherwise", key.1);
        }
        let stored = (disk.tasks.keys().filter(|key| key.0 == id).count(), disk.executors.keys().filter(|key| key.0 == id).count());
        assert_eq!(stored, (agent.tasks().count(), agent.executors().count()), "tasks and executors stored of {host}");
    }

    /// No pod is launched while it has a live task that the scheduler can know of.
    pub fn check_launched(&self, call: &Call) {
        let framework = call.framework_id.clone().unwrap_or_default().value;
        let launches = call.accept.iter().flat_map(|it| &it.operations).filter_map(|it| it.launch.as_ref());
        let launched: BTreeMap<String, &str> =
            launches.flat_map(|it| &it.task_infos).map(|task| (uid_in(task.data()), task.task_id.value.as_str())).collect();
        if launched.is_empty() {
            return;
        }
        let Some(master) = &self.mesos.master else { return };
        for agent in self.machines.keys().filter_map(|host| master.agent(&agent_id(host))) {
            for (key, task) in agent.tasks() {
                let lives = key.0 == framework && !task.state().is_terminal() && !self.mesos.lost.contains(&key.1);
                let again = launched.get(&uid_of(task)).filter(|_| lives);
                assert!(again.is_none(), "pod {} is launched as {again:?}, and its task {} lives", uid_of(task), key.1);
            }
        }
    }

    /// Mesos has ended this task, so its pod may be deleted.
    pub fn excuse_task(&mut self, id: &str) {
        let tasks = self.machines.keys().filter_map(|host| self.agent(host)).flat_map(|agent| agent.tasks());
        let uid = tasks.filter(|(key, _)| key.1 == id).map(|(_, task)| uid_of(task)).next();
        self.excused.extend(uid);
    }

    /// The scheduler deletes pods only for a reason.
    pub fn check_system_deletes(&mut self, uid: &str) {
        let Some(pod) = self.api.of_uid(uid) else { return };
        let given_up = self.machines.get(text(pod, "/spec/nodeName")).is_some_and(|it| it.agent.is_overdue(self.now));
        let allowed = is_deleted(pod) || self.excused.contains(uid) || given_up;
        assert!(allowed, "the scheduler deletes pod {uid}, which nobody wants deleted, at {}", text(pod, "/spec/nodeName"));
    }

    /// Executors delete only pods that have ended.
    pub fn check_executor_deletes(&mut self, id: &PodId) {
        let Some(pod) = self.api.of_uid(&id.uid) else { return };
        let allowed = is_deleted(pod) || self.excused.contains(&id.uid);
        assert!(allowed, "an executor deletes pod {}, which nobody wants deleted", id.uid);
        for (host, machine) in &self.machines {
            let left = running(&machine.engine);
            assert!(!left.contains_key(&*id.uid), "pod {} is deleted while {:?} run on {host}", id.uid, left[&*id.uid]);
        }
    }

    /// An acknowledged end must not be forgotten: it will not be reported again.
    pub fn check_acknowledged(&mut self, call: &Call) {
        let Some(acknowledge) = &call.acknowledge else { return };
        let id = &acknowledge.task_id.value;
        let Some(process) = &self.scheduler.process else { return };
        let known = self.machines.keys().filter_map(|host| self.agent(host)).find_map(|agent| {
            let framework = call.framework_id.clone().unwrap_or_default().value;
            let task = agent.task(&(framework, id.clone()))?;
            let update = task.updates.first().filter(|update| update.uuid() == acknowledge.uuid)?;
            Some((uid_of(task), update.state()))
        });
        let Some((uid, state)) = known else { return };
        let Some(pod) = self.api.of_uid(&uid).filter(|pod| !is_deleted(pod) && !has_ended(pod)) else { return };
        let is_its_task = text(pod, "/metadata/annotations/k8s.mesosphere.io~1taskId") == id;
        let tasks = process.core.debug_tasks();
        if state == TaskState::TaskRunning && is_its_task {
            let shown = tasks.lines().find_map(|line| line.strip_prefix(&format!("{id}\t")));
            // A task whose end is known by other means is forgotten.
            assert!(shown.is_none_or(|shown| !shown.contains("\t0\t")), "task {id} is acknowledged to run, and shown as {shown:?}");
        }
    }

    /// Why the current state is not an acceptable final one.
    pub fn unfinished(&self) -> Option<String> {
        let Some(process) = &self.scheduler.process else { return Some("no scheduler runs".to_owned()) };
        let known = process.core.debug_tasks();
        let mut living: BTreeMap<String, (TaskState, String)> = BTreeMap::new();
        for host in self.machines.keys() {
            let Some(agent) = self.agent(host) else { return Some(format!("no agent on {host}")) };
            for (key, task) in agent.tasks() {
                if !task.updates.is_empty() {
                    return Some(format!("updates of task {} are not acknowledged", key.1));
                }
                living.insert(uid_of(task), (task.state(), key.1.clone()));
            }
        }
        let mut expected = 0;
        for (name, pod) in &self.api.pods {
            let uid = text(pod, "/metadata/uid");
            if is_deleted(pod) {
                return Some(format!("pod {name} ({uid}) is being deleted"));
            }
            let task = living.get(uid);
            if has_ended(pod) {
                match task {
                    Some(task) => return Some(format!("pod {name} ({uid}) has ended, and its task is {task:?}")),
                    None => continue,
                }
            }
            expected += 1;
            let Some((TaskState::TaskRunning, id)) = task else { return Some(format!("pod {name} ({uid}) has task {task:?}: {pod}")) };
            if !known.contains(&format!("{id}\t{}\t1\t", format_args!("default/{name}"))) {
                return Some(format!("the scheduler does not know that task {id} of {name} ({uid}) runs: {known}"));
            }
            let host = text(pod, "/spec/nodeName");
            let sandboxes = self
                .machines
                .get(host)
                .map(|it| running(&it.engine).get(uid).map_or(0, |all| all.iter().filter(|it| **it == "POD").count()));
            if sandboxes != Some(1) {
                return Some(format!("pod {name} ({uid}) has {sandboxes:?} sandboxes on {host}"));
            }
            if text(pod, "/status/phase") != "Running" {
                return Some(format!("pod {name} ({uid}) is {}", text(pod, "/status/phase")));
            }
        }
        if living.len() != expected {
            return Some(format!("{expected} pods are to run, and there are {living:?}"));
        }
        for (host, machine) in &self.machines {
            for container in machine.engine.containers() {
                let uid = &container.labels[POD_UID];
                let pod = self.api.of_uid(uid);
                let ended = pod.is_none_or(has_ended);
                if pod.is_none() || ended && container.state.is_running() {
                    return Some(format!(
                        "container {} of pod {uid} is left on {host}: {:?}",
                        container.labels[CONTAINER_NAME], container.state
                    ));
                }
            }
        }
        None
    }
}
