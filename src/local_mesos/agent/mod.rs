//! An agent without I/O: executors, their tasks, and the status updates that were not acknowledged yet.

mod executors;
mod records;
mod updates;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;

use rand::SeedableRng as _;
use rand::rngs::StdRng;

use super::resources::Resources;
use crate::mesos::v1::executor::{Event, event};
use crate::mesos::v1::task_status::Reason;
use crate::mesos::v1::{AgentInfo, ExecutorInfo, FrameworkInfo, KillPolicy, TaskGroupInfo, TaskInfo, TaskState, TaskStatus};

pub use records::{Executor, Task};

/// How long an executor may take to subscribe after its launch.
const REGISTRATION: Duration = Duration::from_secs(60);
/// How long an executor may take to end after it was asked to.
pub const SHUTDOWN_GRACE: Duration = Duration::from_secs(5);

/// Framework and executor, or framework and task.
pub type Key = (String, String);

/// An action of an agent.
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
    /// The executor has exited, with this status.
    Exited(Key, i32),
    /// Persistent state of this agent has changed.
    Changed(Change),
}

/// A record to be stored again, or removed from the store if it no longer exists.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Change {
    Executor(Key),
    Task(Key),
}

#[derive(Debug)]
struct Running {
    executor: Executor,
    resources: Resources,
    connected: bool,
    shutting_down: bool,
    /// Deadline to subscribe, or to exit.
    deadline: Option<Duration>,
    /// Events to be sent once it subscribes.
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
    /// Makes the ids of containers and updates.
    rng: StdRng,
}

impl Agent {
    /// An agent without tasks; `seed` generates its ids.
    ///
    /// # Errors
    /// If its resources are invalid.
    pub fn new(info: AgentInfo, seed: u64) -> Result<Self, String> {
        let total = Resources::of(&info.resources)?;
        Ok(Self { info, free: total.clone(), total, executors: BTreeMap::new(), tasks: BTreeMap::new(), rng: StdRng::seed_from_u64(seed) })
    }

    pub fn id(&self) -> &str {
        self.info.id.as_ref().map_or("", |id| &id.value)
    }

    /// The resources that no task and no executor uses.
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
            let executor = Executor { info, framework: framework.clone(), container: random_uuid(&mut self.rng).to_string() };
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
                self.new_status(now, key, TaskState::TaskKilled, Reason::TaskKilledDuringLaunch, "Killed before it reached its executor");
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
    /// Does all due work.
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
                *pause = (*pause * 2).min(updates::RETRY.1);
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
}

/// A version 4 UUID.
fn random_uuid(rng: &mut StdRng) -> uuid::Uuid {
    use rand::RngExt as _;
    uuid::Builder::from_random_bytes(rng.random()).into_uuid()
}

fn launch_event(task: TaskInfo) -> Event {
    Event { r#type: Some(event::Type::Launch.into()), launch: Some(event::Launch { task }), ..Event::default() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mesos::v1::executor;

    /// A timer that is never cleared would keep the master busy.
    #[test]
    fn a_framework_that_comes_back_leaves_no_timer_behind() {
        let info = AgentInfo { id: Some("a".to_owned().into()), ..AgentInfo::default() };
        let mut agent = Agent::new(info, 0).unwrap();
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
