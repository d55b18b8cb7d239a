//! The Mesos side of pods: the task of each pod, status updates to the agent, and the end of an executor without tasks. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use serde_json::json;

use super::names::PodId;
use crate::mesos::v1::{TaskId, TaskInfo, TaskState, TaskStatus};
use crate::object::pod::is_final;
use crate::scheduler::taskid;
use crate::util::duration;
use crate::util::product::Product;

/// A command to carry out.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    Update(Box<TaskStatus>),
    /// Bind the pod to this node, and answer with [`Tasks::bound`].
    Bind {
        task: String,
        pod: Box<Pod>,
    },
    Run(Arc<Pod>),
    /// End the pod and delete it. Seconds; `None`: the pod's own grace period.
    Terminate {
        pod: PodId,
        grace: Option<i64>,
    },
    /// End the executor.
    Shutdown(String),
}

/// Why a pod could not be bound: the message of the task's last update.
pub type BindFailure = &'static str;
pub const CREATE_BINDING_FAILURE: BindFailure = "create-binding-failure";
pub const ANNOTATION_UPDATE_FAILURE: BindFailure = "annotation-update-failure";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Binding {
        killed: bool,
    },
    /// Until when it has to be past its start.
    Starting {
        until: Option<Timestamp>,
    },
    Running,
}

#[derive(Debug)]
struct Task {
    pod: PodId,
    stage: Stage,
    /// The last update, once the pod has Succeeded or Failed. It is sent only once the API shows the pod's end as well: Mesos forgets a
    /// task after its last update, and a scheduler that starts in between would consider the pod lost.
    end: Option<Command>,
    /// The API shows the pod's end.
    written: bool,
}

impl Task {
    fn new(pod: PodId, stage: Stage) -> Self {
        Self { pod, stage, end: None, written: false }
    }
}

/// The tasks of this executor whose end has not been reported.
#[derive(Debug)]
pub struct Tasks {
    product: &'static Product,
    suicide_timeout: Duration,
    launch_grace: Duration,
    tasks: BTreeMap<String, Task>,
    /// Ended tasks whose pods still have leftovers: an agent that has not heard of the end launches them again.
    ended: BTreeMap<PodId, String>,
    /// When to end for lack of tasks.
    idle_until: Option<Timestamp>,
}

impl Tasks {
    pub fn new(product: &'static Product, suicide_timeout: Duration, launch_grace: Duration, now: Timestamp) -> Self {
        let mut tasks = Self { product, suicide_timeout, launch_grace, tasks: BTreeMap::new(), ended: BTreeMap::new(), idle_until: None };
        tasks.check_idle(now);
        tasks
    }

    /// The id of the task that a pod's annotations name.
    fn named(&self, pod: &Pod) -> Option<String> {
        pod.metadata.annotations.as_ref()?.get(&self.product.annotation("taskId")).cloned()
    }

    /// The id of a pod's task. Users can write annotations, too, such as those of another pod.
    pub fn id_of(&self, pod: &Pod) -> Option<String> {
        let uid = pod.metadata.uid.as_deref()?;
        self.named(pod).filter(|it| taskid::is_of(it, uid))
    }

    fn check_idle(&mut self, now: Timestamp) {
        if !self.tasks.is_empty() || self.suicide_timeout.is_zero() {
            self.idle_until = None;
        } else if self.idle_until.is_none() {
            self.idle_until = Some(after(now, self.suicide_timeout));
        }
    }

    /// The agent launches a task.
    pub fn launch(&mut self, info: &TaskInfo, now: Timestamp) -> Vec<Command> {
        let task = info.task_id.value.clone();
        if self.tasks.contains_key(&task) || self.ended.values().any(|ended| *ended == task) {
            return Vec::new();
        }
        let pod = info.data.as_ref().and_then(|data| serde_json::from_slice::<Pod>(data).ok());
        let Some(pod) = pod.filter(|pod| pod.metadata.name.is_some() && pod.metadata.uid.is_some() && pod.spec.is_some()) else {
            return vec![update(&task, TaskState::TaskFailed, "unmarshal-task-data-failure", None)];
        };
        if self.named(&pod).as_ref() != Some(&task) {
            return vec![update(&task, TaskState::TaskFailed, CREATE_BINDING_FAILURE, None)];
        }
        self.tasks.insert(task.clone(), Task::new(PodId::of(&pod), Stage::Binding { killed: false }));
        self.check_idle(now);
        vec![Command::Bind { task, pod: Box::new(pod) }]
    }

    /// A pod was bound, or not.
    pub fn bound(&mut self, task: &str, result: Result<Arc<Pod>, BindFailure>, now: Timestamp) -> Vec<Command> {
        let Some(entry) = self.tasks.get_mut(task) else { return Vec::new() };
        let killed = entry.stage == Stage::Binding { killed: true };
        match result {
            Err(message) => {
                self.tasks.remove(task);
                self.check_idle(now);
                vec![update(task, TaskState::TaskFailed, message, None)]
            }
            Ok(pod) => {
                entry.stage = Stage::Starting { until: (!self.launch_grace.is_zero()).then(|| after(now, self.launch_grace)) };
                let data = status_data(&entry.pod, &PodStatus::default());
                let terminate = killed.then(|| Command::Terminate { pod: entry.pod.clone(), grace: Some(0) });
                let started = update(task, TaskState::TaskStarting, "create-binding-success", Some(data));
                [started, Command::Run(pod)].into_iter().chain(terminate).collect()
            }
        }
    }

    /// A pod that this executor ran before a restart. Its last update may have been lost, so it is sent again.
    pub fn adopt(&mut self, pod: &Pod, now: Timestamp) -> Vec<Command> {
        let Some(id) = self.id_of(pod) else { return Vec::new() };
        let (pod, status) = (PodId::of(pod), pod.status.clone().unwrap_or_default());
        let stage = match status.phase.as_deref() {
            Some(phase) if is_final(phase) => {
                let told = end(&id, &pod, &status);
                self.ended.insert(pod, id);
                return vec![told];
            }
            Some("Running") => Stage::Running,
            _ => Stage::Starting { until: None },
        };
        let told = match stage {
            Stage::Running => running(&id, &pod, &status),
            _ => update(&id, TaskState::TaskStarting, "create-binding-success", Some(status_data(&pod, &status))),
        };
        self.tasks.entry(id).or_insert(Task::new(pod, stage));
        self.check_idle(now);
        vec![told]
    }

    fn find(&self, pod: &PodId) -> Option<String> {
        self.tasks.iter().find(|(_, task)| task.pod == *pod).map(|(id, _)| id.clone())
    }

    /// Whether a pod is the pod of a task that has not ended.
    pub fn has(&self, pod: &PodId) -> bool {
        self.tasks.values().any(|task| task.pod == *pod && task.end.is_none())
    }

    /// Whether the pod has ended, but Mesos has not been told yet.
    pub fn is_ending(&self, pod: &PodId) -> bool {
        self.tasks.values().any(|task| task.pod == *pod && task.end.is_some())
    }

    /// Whether Mesos has been told the end of every pod.
    pub fn all_told(&self) -> bool {
        self.tasks.values().all(|task| task.end.is_none())
    }

    /// A pod's status has changed. `ending`: it is being deleted, so its exit codes mean nothing.
    pub fn status(&mut self, pod: &PodId, status: &PodStatus, ending: bool, now: Timestamp) -> Vec<Command> {
        let Some(id) = self.find(pod) else { return Vec::new() };
        let Some(task) = self.tasks.get_mut(&id) else { return Vec::new() };
        let phase = status.phase.as_deref().unwrap_or_default();
        let mut commands = Vec::new();
        let ended = is_final(phase) && !ending;
        if (phase == "Running" || ended) && matches!(task.stage, Stage::Starting { .. }) {
            task.stage = Stage::Running;
            commands.push(running(&id, pod, status));
        }
        if let Stage::Starting { until } = &mut task.stage
            && is_under_way(status)
        {
            *until = None;
        }
        if ended {
            task.end = Some(end(&id, pod, status));
            commands.extend(self.tell_end(id, now));
        }
        commands
    }

    /// The API has the status with which a pod ended, or will never take it.
    pub fn written(&mut self, pod: &PodId, now: Timestamp) -> Vec<Command> {
        let Some(id) = self.find(pod) else { return Vec::new() };
        if let Some(task) = self.tasks.get_mut(&id) {
            task.written = true;
        }
        self.tell_end(id, now).into_iter().collect()
    }

    /// The last update of a task, if its pod has ended and the API shows it.
    fn tell_end(&mut self, id: String, now: Timestamp) -> Option<Command> {
        let task = self.tasks.get_mut(&id).filter(|task| task.written)?;
        let end = task.end.take()?;
        let pod = task.pod.clone();
        self.tasks.remove(&id);
        self.ended.insert(pod, id);
        self.check_idle(now);
        Some(end)
    }

    /// Nothing of a pod is left.
    pub fn gone(&mut self, pod: &PodId, now: Timestamp) -> Vec<Command> {
        self.ended.remove(pod);
        let Some(id) = self.find(pod) else { return Vec::new() };
        let end = self.tasks.remove(&id).and_then(|task| task.end);
        self.check_idle(now);
        vec![end.unwrap_or_else(|| update(&id, TaskState::TaskKilled, "pod-deleted", None))]
    }

    /// The agent kills a task.
    pub fn kill(&mut self, id: &str, grace: Option<i64>) -> Vec<Command> {
        match self.tasks.get_mut(id) {
            None => vec![update(id, TaskState::TaskLost, "kill-pod-task", None)],
            // The task has ended; its last update waits until the API shows the pod's end.
            Some(Task { end: Some(_), .. }) => Vec::new(),
            Some(Task { stage: stage @ Stage::Binding { .. }, .. }) => {
                *stage = Stage::Binding { killed: true };
                Vec::new()
            }
            Some(task) => vec![Command::Terminate { pod: task.pod.clone(), grace }],
        }
    }

    /// The scheduler sends a message.
    pub fn message(&mut self, data: &[u8]) -> Vec<Command> {
        let text = String::from_utf8_lossy(data);
        if let Some(id) = text.strip_prefix("task-lost:") {
            let lost = update(id, TaskState::TaskLost, "task-lost-ack", None);
            let known = self.tasks.remove(id);
            return std::iter::once(lost).chain(known.map(|task| Command::Terminate { pod: task.pod, grace: None })).collect();
        }
        match &*text {
            "kamikaze" if self.tasks.is_empty() => vec![Command::Shutdown("the scheduler asks for it".to_owned())],
            "kamikaze" => {
                tracing::info!("asked to end, but {} tasks remain: an executor ends only without tasks", self.tasks.len());
                Vec::new()
            }
            other => {
                tracing::debug!("message from the scheduler ignored: {other}");
                Vec::new()
            }
        }
    }

    /// When [`Tasks::tick`] has something to do.
    pub fn wake_at(&self) -> Option<Timestamp> {
        let launches = self.tasks.values().filter_map(|task| match task.stage {
            Stage::Starting { until } => until,
            Stage::Binding { .. } | Stage::Running => None,
        });
        launches.chain(self.idle_until).min()
    }

    pub fn tick(&mut self, now: Timestamp) -> Vec<Command> {
        if self.idle_until.is_some_and(|until| until <= now) {
            self.idle_until = None;
            return vec![Command::Shutdown("there was no task for the suicide timeout".to_owned())];
        }
        let mut commands = Vec::new();
        for task in self.tasks.values_mut() {
            if let Stage::Starting { until } = &mut task.stage
                && until.is_some_and(|until| until <= now)
            {
                *until = None;
                tracing::warn!(pod = %task.pod, "not started within the launch grace period");
                commands.push(Command::Terminate { pod: task.pod.clone(), grace: None });
            }
        }
        commands
    }
}

fn after(now: Timestamp, wait: Duration) -> Timestamp {
    duration::after(now, SignedDuration::try_from(wait).unwrap_or(SignedDuration::MAX))
}

/// Whether something of the pod has started, or waits for a reason that its user can see and mend.
fn is_under_way(status: &PodStatus) -> bool {
    let statuses = status.init_container_statuses.iter().flatten().chain(status.container_statuses.iter().flatten());
    statuses.filter_map(|status| status.state.as_ref()).any(|state| {
        let waiting = state.waiting.as_ref().and_then(|waiting| waiting.reason.as_deref());
        state.running.is_some()
            || state.terminated.is_some()
            || waiting.is_some_and(|it| !matches!(it, "ContainerCreating" | "PodInitializing"))
    })
}

fn running(task: &str, pod: &PodId, status: &PodStatus) -> Command {
    let message = format!("pod-running:{}_{}", pod.name, pod.namespace);
    update(task, TaskState::TaskRunning, &message, Some(status_data(pod, status)))
}

/// The pod has Succeeded or Failed.
fn end(task: &str, pod: &PodId, status: &PodStatus) -> Command {
    let phase = status.phase.as_deref().unwrap_or_default();
    let state = if phase == "Succeeded" { TaskState::TaskFinished } else { TaskState::TaskFailed };
    let what = format!("pod-{}:{}_{}", phase.to_lowercase(), pod.name, pod.namespace);
    let message = status.message.as_ref().map_or(what.clone(), |message| format!("{what}: {message}"));
    update(task, state, &message, Some(status_data(pod, status)))
}

fn update(task: &str, state: TaskState, message: &str, data: Option<Bytes>) -> Command {
    Command::Update(Box::new(TaskStatus {
        task_id: TaskId { value: task.to_owned() },
        state: state.into(),
        message: Some(message.to_owned()),
        data,
        ..TaskStatus::default()
    }))
}

/// A `PodStatusResult`, by which a scheduler that does not know the task finds the pod.
fn status_data(pod: &PodId, status: &PodStatus) -> Bytes {
    let result = json!({
        "kind": "PodStatusResult",
        "apiVersion": "v1",
        "metadata": {"name": format!("{}_{}", pod.name, pod.namespace), "selfLink": "/podstatusresult"},
        "status": status,
    });
    Bytes::from(result.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::util::product::KUBERNETES;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    fn tasks() -> Tasks {
        Tasks::new(KUBERNETES, Duration::from_secs(100), Duration::from_secs(50), at(0))
    }

    fn pod() -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": "web", "namespace": "a", "uid": "u", "annotations": {"k8s.mesosphere.io/taskId": "t"}},
            "spec": {"containers": [{"name": "c"}]},
        }))
        .unwrap()
    }

    fn info(id: &str, pod: &Pod) -> TaskInfo {
        TaskInfo { task_id: TaskId { value: id.to_owned() }, data: Some(serde_json::to_vec(pod).unwrap().into()), ..TaskInfo::default() }
    }

    fn shown(commands: &[Command]) -> Vec<String> {
        commands
            .iter()
            .map(|command| match command {
                Command::Update(status) => format!("{} {}", status.state().as_str_name(), status.message()),
                Command::Bind { task, .. } => format!("bind {task}"),
                Command::Run(_) => "run".to_owned(),
                Command::Terminate { grace, .. } => format!("terminate {grace:?}"),
                Command::Shutdown(_) => "shutdown".to_owned(),
            })
            .collect()
    }

    fn phase(phase: &str) -> PodStatus {
        PodStatus { phase: Some(phase.to_owned()), ..PodStatus::default() }
    }

    #[test]
    fn a_task_lives_and_is_killed() {
        let (mut tasks, pod) = (tasks(), pod());
        let id = PodId::of(&pod);
        assert_eq!(shown(&tasks.launch(&info("t", &pod), at(1))), ["bind t"]);
        assert_eq!(tasks.launch(&info("t", &pod), at(1)), []);
        let commands = tasks.bound("t", Ok(Arc::new(pod)), at(2));
        assert_eq!(shown(&commands), ["TASK_STARTING create-binding-success", "run"]);
        assert_eq!(tasks.status(&id, &phase("Pending"), false, at(3)), []);
        assert_eq!(shown(&tasks.status(&id, &phase("Running"), false, at(4))), ["TASK_RUNNING pod-running:web_a"]);
        assert_eq!(tasks.status(&id, &phase("Running"), false, at(5)), []);
        assert_eq!(shown(&tasks.kill("t", None)), ["terminate None"]);
        assert_eq!(tasks.status(&id, &phase("Failed"), true, at(6)), []);
        assert_eq!(shown(&tasks.gone(&id, at(7))), ["TASK_KILLED pod-deleted"]);
        assert_eq!(shown(&tasks.kill("t", None)), ["TASK_LOST kill-pod-task"]);
        assert_eq!(tasks.wake_at(), Some(at(107)));
        assert_eq!(tasks.tick(at(106)), []);
        assert_eq!(shown(&tasks.tick(at(107))), ["shutdown"]);
    }

    #[test]
    fn what_cannot_be_launched_fails() {
        let (mut tasks, pod) = (tasks(), pod());
        let bad = TaskInfo { data: Some(Bytes::from_static(b"{}")), ..info("t", &pod) };
        assert_eq!(shown(&tasks.launch(&bad, at(0))), ["TASK_FAILED unmarshal-task-data-failure"]);
        assert_eq!(shown(&tasks.launch(&info("other", &pod), at(0))), ["TASK_FAILED create-binding-failure"]);
        tasks.launch(&info("t", &pod), at(0));
        assert_eq!(shown(&tasks.bound("t", Err(CREATE_BINDING_FAILURE), at(0))), ["TASK_FAILED create-binding-failure"]);
    }

    #[test]
    fn a_short_task_runs_before_it_finishes() {
        let (mut tasks, pod) = (tasks(), pod());
        let id = PodId::of(&pod);
        tasks.launch(&info("t", &pod), at(0));
        tasks.bound("t", Ok(Arc::new(pod)), at(0));
        assert_eq!(shown(&tasks.status(&id, &phase("Succeeded"), false, at(1))), ["TASK_RUNNING pod-running:web_a"]);
        assert_eq!(shown(&tasks.written(&id, at(2))), ["TASK_FINISHED pod-succeeded:web_a"]);
        assert_eq!(tasks.gone(&id, at(3)), []);
    }

    /// A task that runs.
    fn running_task() -> (Tasks, PodId) {
        let (mut tasks, pod) = (tasks(), pod());
        let id = PodId::of(&pod);
        tasks.launch(&info("t", &pod), at(0));
        tasks.bound("t", Ok(Arc::new(pod)), at(0));
        tasks.status(&id, &phase("Running"), false, at(0));
        (tasks, id)
    }

    #[test]
    fn an_end_is_told_when_the_api_shows_it() {
        let (mut tasks, id) = running_task();
        assert_eq!(tasks.status(&id, &phase("Failed"), false, at(1)), []);
        assert!(!tasks.has(&id) && tasks.is_ending(&id) && !tasks.all_told());
        assert_eq!(tasks.launch(&info("t", &pod()), at(1)), [], "it is not run again");
        assert_eq!(tasks.kill("t", None), [], "it is not lost either");
        assert_eq!(tasks.message(b"kamikaze"), [], "there is still something to tell");
        assert_eq!(tasks.wake_at(), None);
        assert_eq!(shown(&tasks.written(&id, at(2))), ["TASK_FAILED pod-failed:web_a"]);
        assert!(tasks.all_told());
        assert_eq!((tasks.written(&id, at(3)), tasks.wake_at()), (Vec::new(), Some(at(102))));
        // The write may be heard of first.
        let (mut tasks, id) = running_task();
        assert_eq!(tasks.written(&id, at(1)), []);
        assert_eq!(shown(&tasks.status(&id, &phase("Succeeded"), false, at(2))), ["TASK_FINISHED pod-succeeded:web_a"]);
    }

    #[test]
    fn an_end_is_told_when_there_is_no_pod_to_show_it() {
        let (mut tasks, id) = running_task();
        assert_eq!(tasks.status(&id, &phase("Failed"), false, at(1)), []);
        assert_eq!(shown(&tasks.gone(&id, at(2))), ["TASK_FAILED pod-failed:web_a"]);
        assert!(tasks.all_told());
    }

    #[test]
    fn what_the_last_executor_said_may_be_lost() {
        for (phase, told, kills) in [
            ("Pending", "TASK_STARTING create-binding-success", "terminate None"),
            ("Running", "TASK_RUNNING pod-running:web_a", "terminate None"),
            ("Succeeded", "TASK_FINISHED pod-succeeded:web_a", "TASK_LOST kill-pod-task"),
            ("Failed", "TASK_FAILED pod-failed:web_a", "TASK_LOST kill-pod-task"),
        ] {
            let (mut tasks, id) = (tasks(), taskid::task_id("u", 1));
            let mut pod = Pod { status: Some(self::phase(phase)), ..pod() };
            pod.metadata.annotations.get_or_insert_default().insert(KUBERNETES.annotation("taskId"), id.clone());
            assert_eq!(shown(&tasks.adopt(&pod, at(0))), [told]);
            assert_eq!(tasks.launch(&info(&id, &pod), at(0)), [], "{phase}: the agent has not heard of it yet");
            assert_eq!(shown(&tasks.kill(&id, None)), [kills], "{phase}");
            pod.metadata.uid = Some("of-a-copy".to_owned());
            assert_eq!(self::tasks().adopt(&pod, at(0)), [], "{phase}");
        }
    }

    #[test]
    fn a_pod_that_does_not_start_is_given_up() {
        let (mut tasks, pod) = (tasks(), pod());
        let id = PodId::of(&pod);
        tasks.launch(&info("t", &pod), at(0));
        tasks.bound("t", Ok(Arc::new(pod.clone())), at(10));
        assert_eq!(tasks.wake_at(), Some(at(60)));
        assert_eq!(shown(&tasks.tick(at(60))), ["terminate None"]);
        assert_eq!(tasks.tick(at(61)), []);
        // But not a pod whose image is missing: its user sees why.
        let mut tasks = self::tasks();
        tasks.launch(&info("t", &pod), at(0));
        tasks.bound("t", Ok(Arc::new(pod)), at(10));
        let waiting = json!({"phase": "Pending", "containerStatuses": [{"name": "c", "image": "", "imageID": "", "ready": false, "restartCount": 0,
            "state": {"waiting": {"reason": "ImagePullBackOff"}}}]});
        tasks.status(&id, &serde_json::from_value(waiting).unwrap(), false, at(20));
        assert_eq!(tasks.wake_at(), None);
    }

    #[test]
    fn messages_of_the_scheduler() {
        let (mut tasks, pod) = (tasks(), pod());
        assert_eq!(shown(&tasks.message(b"kamikaze")), ["shutdown"]);
        assert_eq!(shown(&tasks.message(b"task-lost:x")), ["TASK_LOST task-lost-ack"]);
        tasks.launch(&info("t", &pod), at(0));
        tasks.bound("t", Ok(Arc::new(pod)), at(0));
        assert_eq!(tasks.message(b"kamikaze"), []);
        assert_eq!(tasks.message(b"what?"), []);
        assert_eq!(shown(&tasks.message(b"task-lost:t")), ["TASK_LOST task-lost-ack", "terminate None"]);
    }
}
