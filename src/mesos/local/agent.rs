//! An agent without I/O: executors, their tasks, and the status updates that were not acknowledged yet.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;

use super::resources::Resources;
use crate::mesos::v1::executor::{Call, Event, call, event};
use crate::mesos::v1::task_status::{Reason, Source};
use crate::mesos::v1::{AgentInfo, ContainerId, ExecutorInfo, FrameworkInfo, KillPolicy, TaskGroupInfo, TaskInfo, TaskState, TaskStatus};

/// First and longest time after which an unacknowledged update is repeated.
const RETRY: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(600));
/// How long an executor may take to subscribe after its launch.
const REGISTRATION: Duration = Duration::from_secs(60);
/// How long an executor may take to end after it was asked to.
pub const SHUTDOWN_GRACE: Duration = Duration::from_secs(5);

/// Framework and executor, or framework and task.
pub type Key = (String, String);

/// What an agent wants done.
#[derive(Clone, Debug)]
pub enum Output {
    /// Start the executor.
    Launch(Box<Executor>),
    /// Kill the executor.
    Destroy(Key),
    ToExecutor(Key, Box<Event>),
    /// Tell the framework, if it is there; it is repeated until acknowledged.
    Status(String, Box<TaskStatus>),
    Message {
        key: Key,
        data: Bytes,
    },
    /// The executor is gone, with this status.
    Exited(Key, i32),
    /// Something of this agent that lasts has changed.
    Changed(Change),
}

/// What has to be stored again, or removed from the store if it is not there any more.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Change {
    Executor(Key),
    Task(Key),
}

/// A task, from its launch until the last of its updates is acknowledged.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Task {
    #[prost(message, required, tag = "1")]
    pub info: TaskInfo,
    #[prost(string, tag = "2")]
    pub framework_id: String,
    #[prost(string, tag = "3")]
    pub executor_id: String,
    /// Not acknowledged yet, oldest first.
    #[prost(message, repeated, tag = "4")]
    pub updates: Vec<TaskStatus>,
    /// The latest of all.
    #[prost(message, optional, tag = "5")]
    pub latest: Option<TaskStatus>,
}

impl Task {
    /// The state the executor last reported.
    pub fn state(&self) -> TaskState {
        self.latest.as_ref().map_or(TaskState::TaskStaging, TaskStatus::state)
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

#[derive(Debug)]
struct Running {
    executor: Executor,
    resources: Resources,
    connected: bool,
    shutting_down: bool,
    /// When patience with it ends: it has to subscribe, or to be gone, by then.
    deadline: Option<Duration>,
    /// What it has to be told once it subscribes.
    queued: VecDeque<Event>,
}

#[derive(Debug)]
struct Tracked {
    task: Task,
    resources: Resources,
    retry: Option<(Duration, Duration)>,
}

/// An agent.
#[derive(Debug)]
pub struct Agent {
    pub info: AgentInfo,
    pub total: Resources,
    free: Resources,
    executors: BTreeMap<Key, Running>,
    tasks: BTreeMap<Key, Tracked>,
}

impl Agent {
    /// An agent without tasks.
    ///
    /// # Errors
    /// If its resources make no sense.
    pub fn new(info: AgentInfo) -> Result<Self, String> {
        let total = Resources::of(&info.resources)?;
        Ok(Self { info, free: total.clone(), total, executors: BTreeMap::new(), tasks: BTreeMap::new() })
    }

    /// What no task and no executor uses.
    pub fn free(&self) -> &Resources {
        &self.free
    }

    pub fn tasks(&self) -> impl Iterator<Item = (&Key, &Task)> {
        self.tasks.iter().map(|(key, tracked)| (key, &tracked.task))
    }

    pub fn task(&self, key: &Key) -> Option<&Task> {
        self.tasks.get(key).map(|tracked| &tracked.task)
    }

    pub fn executors(&self) -> impl Iterator<Item = (&Key, &Executor)> {
        self.executors.iter().map(|(key, running)| (key, &running.executor))
    }

    pub fn executor(&self, key: &Key) -> Option<&Executor> {
        self.executors.get(key).map(|running| &running.executor)
    }

    /// Takes over what was stored: executors are launched again and told their tasks again.
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
        out
    }

    /// Runs tasks that the master found valid, all for one executor. As a group they reach it in one event.
    pub fn run(&mut self, now: Duration, framework: &FrameworkInfo, info: ExecutorInfo, tasks: Vec<TaskInfo>, group: bool) -> Vec<Output> {
        let mut out = Vec::new();
        let framework_id = framework.id.clone().unwrap_or_default().value;
        let key = (framework_id.clone(), info.executor_id.value.clone());
        for task in &tasks {
            let resources = Resources::of(&task.resources).unwrap_or_default();
            self.free.subtract(&resources);
            let (task_key, executor_id) = ((framework_id.clone(), task.task_id.value.clone()), key.1.clone());
            let task = Task { info: task.clone(), framework_id: framework_id.clone(), executor_id, ..Task::default() };
            self.tasks.insert(task_key.clone(), Tracked { task, resources, retry: None });
            out.push(Output::Changed(Change::Task(task_key)));
        }
        let events: VecDeque<_> = if group {
            let task_group = TaskGroupInfo { tasks };
            [Event {
                r#type: Some(event::Type::LaunchGroup.into()),
                launch_group: Some(event::LaunchGroup { task_group }),
                ..Event::default()
            }]
            .into()
        } else {
            tasks.into_iter().map(launch_event).collect()
        };
        if self.executors.contains_key(&key) {
            events.into_iter().for_each(|event| self.tell(&key, event, &mut out));
        } else {
            let executor = Executor { info, framework: framework.clone(), container: uuid::Uuid::new_v4().to_string() };
            self.start(now, executor, events, &mut out);
        }
        out
    }

    fn start(&mut self, now: Duration, executor: Executor, queued: VecDeque<Event>, out: &mut Vec<Output>) {
        let key = (executor.framework.id.clone().unwrap_or_default().value, executor.info.executor_id.value.clone());
        let resources = Resources::of(&executor.info.resources).unwrap_or_default();
        self.free.subtract(&resources);
        out.push(Output::Launch(Box::new(executor.clone())));
        out.push(Output::Changed(Change::Executor(key.clone())));
        let deadline = Some(now + REGISTRATION);
        self.executors.insert(key, Running { executor, resources, connected: false, shutting_down: false, deadline, queued });
    }

    /// Kills a task that is known here.
    pub fn kill(&mut self, now: Duration, key: &Key, kill_policy: Option<KillPolicy>) -> Vec<Output> {
        let mut out = Vec::new();
        let Some(tracked) = self.tasks.get(key) else { return out };
        let executor = (key.0.clone(), tracked.task.executor_id.clone());
        let Some(running) = self.executors.get_mut(&executor) else { return out };
        // a task that the executor has not heard of yet ends here
        let queued = running.queued.len();
        running.queued.retain(|event| event.launch.as_ref().is_none_or(|launch| launch.task.task_id.value != key.1));
        if running.queued.len() < queued {
            let empty = running.queued.is_empty() && !self.has_tasks(&executor, Some(&key.1));
            let status =
                self.status(now, key, TaskState::TaskKilled, Reason::TaskKilledDuringLaunch, "Killed before it reached its executor");
            self.update(now, key, status, &mut out);
            if empty {
                out.push(Output::Destroy(executor));
            }
            return out;
        }
        let kill = event::Kill { task_id: key.1.clone().into(), kill_policy };
        self.tell(&executor, Event { r#type: Some(event::Type::Kill.into()), kill: Some(kill), ..Event::default() }, &mut out);
        out
    }

    /// Passes bytes of the scheduler on. Without such an executor they are lost.
    pub fn message(&mut self, key: &Key, data: Bytes) -> Vec<Output> {
        let mut out = Vec::new();
        if self.executors.get(key).is_some_and(|running| running.connected) {
            let message = Some(event::Message { data });
            self.tell(key, Event { r#type: Some(event::Type::Message.into()), message, ..Event::default() }, &mut out);
        }
        out
    }

    /// Asks an executor to end itself and its tasks.
    pub fn shutdown(&mut self, now: Duration, key: &Key) -> Vec<Output> {
        let mut out = Vec::new();
        if let Some(running) = self.executors.get_mut(key) {
            running.shutting_down = true;
            running.queued.clear();
            if running.connected {
                let grace = running.executor.info.shutdown_grace_period.as_ref();
                running.deadline = Some(now + grace.map_or(SHUTDOWN_GRACE, |grace| Duration::from_nanos(grace.nanoseconds.max(0) as u64)));
                out.push(Output::ToExecutor(
                    key.clone(),
                    Box::new(Event { r#type: Some(event::Type::Shutdown.into()), ..Event::default() }),
                ));
            } else {
                out.push(Output::Destroy(key.clone()));
            }
        }
        out
    }

    /// Forgets a framework: its executors are asked to end, its tasks and updates are dropped.
    pub fn remove_framework(&mut self, now: Duration, framework: &str) -> Vec<Output> {
        let executors: Vec<_> = self.executors.keys().filter(|key| key.0 == framework).cloned().collect();
        let mut out: Vec<_> = executors.iter().flat_map(|key| self.shutdown(now, key)).collect();
        let tasks: Vec<_> = self.tasks.keys().filter(|key| key.0 == framework).cloned().collect();
        for key in tasks {
            if let Some(tracked) = self.tasks.remove(&key).filter(|tracked| !tracked.task.state().is_terminal()) {
                self.free.add(&tracked.resources);
            }
            out.push(Output::Changed(Change::Task(key)));
        }
        out
    }

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

    /// Sends a framework everything again that it has not acknowledged: it has just come back.
    pub fn resend(&mut self, now: Duration, framework: &str) -> Vec<Output> {
        let mine = self.tasks.iter_mut().filter(|(key, _)| key.0 == framework);
        mine.filter_map(|(key, tracked)| {
            let status = tracked.task.updates.first()?.clone();
            tracked.retry = Some((now + RETRY.0, RETRY.0));
            Some(Output::Status(key.0.clone(), Box::new(status)))
        })
        .collect()
    }

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
        let known = |event: &Event| {
            let launched = event.launch.as_ref().map(|launch| &launch.task.task_id);
            launched.is_some_and(|id| subscribe.unacknowledged_tasks.iter().any(|task| task.task_id == *id))
        };
        let queued: Vec<_> = running.queued.drain(..).filter(|event| !known(event)).collect();
        let mut out = vec![Output::ToExecutor(key.clone(), Box::new(event))];
        for update in subscribe.unacknowledged_updates {
            out.extend(self.executor_update(now, key, update.status));
        }
        out.extend(queued.into_iter().map(|event| Output::ToExecutor(key.clone(), Box::new(event))));
        Ok(out)
    }

    /// Any other call of a subscribed executor.
    ///
    /// # Errors
    /// If it makes no sense.
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

    /// The executor's connection ended; it may come back as long as it lives.
    pub fn disconnected(&mut self, key: &Key) {
        if let Some(running) = self.executors.get_mut(key) {
            running.connected = false;
        }
    }

    /// The executor is gone: its tasks end with it.
    pub fn exited(&mut self, now: Duration, key: &Key, status: i32) -> Vec<Output> {
        let mut out = Vec::new();
        let Some(running) = self.executors.remove(key) else { return out };
        self.free.add(&running.resources);
        out.push(Output::Changed(Change::Executor(key.clone())));
        let partition_aware = super::master::is_partition_aware(&running.executor.framework);
        let tasks: Vec<_> =
            self.tasks.iter().filter(|(id, t)| id.0 == key.0 && t.task.executor_id == key.1).map(|(id, _)| id.clone()).collect();
        for task in tasks {
            if self.tasks.get(&task).is_some_and(|tracked| !tracked.task.state().is_terminal()) {
                // a task that never left staging did not run: it may be started elsewhere without doubt
                let state = if running.shutting_down && partition_aware { TaskState::TaskGone } else { TaskState::TaskFailed };
                let status = self.status(now, &task, state, Reason::ExecutorTerminated, "Executor terminated");
                self.update(now, &task, status, &mut out);
            }
        }
        out.push(Output::Exited(key.clone(), status));
        out
    }

    /// Does what is due.
    pub fn tick(&mut self, now: Duration) -> Vec<Output> {
        let mut out = Vec::new();
        for (key, running) in &mut self.executors {
            if running.deadline.take_if(|deadline| *deadline <= now).is_some() {
                out.push(Output::Destroy(key.clone()));
            }
        }
        for (key, tracked) in &mut self.tasks {
            if let (Some((at, pause)), Some(status)) = (&mut tracked.retry, tracked.task.updates.first())
                && *at <= now
            {
                *pause = (*pause * 2).min(RETRY.1);
                *at = now + *pause;
                out.push(Output::Status(key.0.clone(), Box::new(status.clone())));
            }
        }
        out
    }

    /// When something is due next.
    pub fn deadline(&self) -> Option<Duration> {
        let executors = self.executors.values().filter_map(|running| running.deadline);
        executors.chain(self.tasks.values().filter_map(|tracked| Some(tracked.retry?.0))).min()
    }

    fn has_tasks(&self, executor: &Key, but: Option<&String>) -> bool {
        let mine = |(id, tracked): (&Key, &Tracked)| id.0 == executor.0 && tracked.task.executor_id == executor.1 && Some(&id.1) != but;
        self.tasks.iter().any(|(id, tracked)| mine((id, tracked)) && !tracked.task.state().is_terminal())
    }

    fn tell(&mut self, key: &Key, event: Event, out: &mut Vec<Output>) {
        match self.executors.get_mut(key) {
            Some(running) if running.connected => out.push(Output::ToExecutor(key.clone(), Box::new(event))),
            Some(running) => running.queued.push_back(event),
            None => {}
        }
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

    /// Takes an update in: the task's state changes now, the framework hears of one update after the other.
    fn update(&mut self, now: Duration, key: &Key, status: TaskStatus, out: &mut Vec<Output>) {
        let Some(tracked) = self.tasks.get_mut(key) else {
            tracing::warn!("update {:?} of the unknown task {}", status.state(), key.1);
            return;
        };
        let known = |other: &TaskStatus| other.uuid == status.uuid;
        // what the executor repeats after a reconnection, and what comes after the end, is of no interest
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

    fn status(&self, now: Duration, key: &Key, state: TaskState, reason: Reason, message: &str) -> TaskStatus {
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
            uuid: Some(Bytes::copy_from_slice(uuid::Uuid::new_v4().as_bytes())),
            ..TaskStatus::default()
        }
    }
}

fn launch_event(task: TaskInfo) -> Event {
    Event { r#type: Some(event::Type::Launch.into()), launch: Some(event::Launch { task }), ..Event::default() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mesos::v1::executor;

    /// A timer that nothing clears keeps the master's clock spinning.
    #[test]
    fn a_framework_that_comes_back_leaves_no_timer_behind() {
        let info = AgentInfo { id: Some("a".to_owned().into()), ..AgentInfo::default() };
        let mut agent = Agent::new(info).unwrap();
        let framework = FrameworkInfo { id: Some("f".to_owned().into()), ..FrameworkInfo::default() };
        let executor = ExecutorInfo { executor_id: "e".to_owned().into(), ..ExecutorInfo::default() };
        let task = TaskInfo { task_id: "t".to_owned().into(), ..TaskInfo::default() };
        agent.run(Duration::ZERO, &framework, executor, vec![task], false);
        let key = ("f".to_owned(), "e".to_owned());
        agent.subscribe(Duration::ZERO, &key, executor::call::Subscribe::default()).unwrap();
        assert_eq!(agent.deadline(), None);
        agent.resend(Duration::ZERO, "f");
        assert_eq!(agent.deadline(), None);
    }
}
