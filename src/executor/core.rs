//! The executor as one state machine without I/O: pods from the API and tasks from Mesos in, actions out, time passed in. Each running pod
//! has its own [`super::life::Life`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Pod, PodSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::engine::Sign;
use super::life::{Notice, Report};
use super::names::{self, PodId};
use super::statuses::News;
use super::tasks::{BindFailure, Command, Tasks};
use crate::mesos::executor::ExecutorEvent;
use crate::mesos::v1::TaskStatus;
use crate::object::{Object, Revision};
use crate::util::duration::after;
use crate::util::product::Product;

/// Seconds that pods get to end when the agent ends the executor: it kills it soon after.
const SHUTDOWN_GRACE: i64 = 3;
/// How long the executor waits for them then.
const SHUTDOWN_TIMEOUT: SignedDuration = SignedDuration::from_secs(15);

/// Something that happened.
#[derive(Debug)]
pub enum Input {
    /// All pods of this node that the API has, at the start and whenever the watch begins anew. The first time, pods that an earlier
    /// executor of this node was given are taken over.
    Listed(Vec<Arc<Object>>),
    /// A pod of this node, new or changed.
    Pod(Arc<Object>),
    /// The pod with this uid no longer exists in the API.
    Gone(String),
    /// The API has the pod's final status, or will never accept it.
    Written(PodId),
    /// Something from the agent.
    Mesos(Box<ExecutorEvent>),
    /// The static pods, as reported by the agent; they are not running yet.
    Static(Vec<Arc<Pod>>),
    /// The outcome of [`Action::Bind`].
    Bound {
        task: String,
        result: Result<Arc<Pod>, BindFailure>,
    },
    /// A pod's status changed.
    Status(Box<Report>),
    /// Nothing of a pod is left, and its life is over.
    Ended(PodId),
    Engine(Sign),
    /// The outcome of [`Action::FindLeftovers`]: pods with containers or files.
    Leftovers(Vec<PodId>),
    /// The time of [`Core::wake_at`] has come.
    Tick,
}

impl From<News> for Input {
    fn from(news: News) -> Self {
        match news {
            News::Ended(pod) => Self::Written(pod),
            News::Gone(pod) => Self::Gone(pod.uid),
        }
    }
}

/// Something to be done.
#[derive(Debug)]
pub enum Action {
    /// Report the state of a task to Mesos.
    Update(Box<TaskStatus>),
    /// Bind the pod to this node. Answered by [`Input::Bound`].
    Bind { task: String, pod: Box<Pod> },
    /// Begin the life of a pod. A static pod does not depend on the API server.
    Start { pod: Arc<Pod>, is_static: bool },
    /// A mirror pod was seen in the API: delete it unless it mirrors a static pod of this node.
    CheckMirror(Arc<Object>),
    /// Notify the life of the pod with this uid.
    Tell(String, Notice),
    /// Find containers and files of this executor's pods. Answered by [`Input::Leftovers`].
    FindLeftovers,
}

/// Fixed parameters of the core.
#[derive(Clone, Debug)]
pub struct Settings {
    pub product: &'static Product,
    /// Whether there is an agent: without one every pod bound to the node is run.
    pub has_mesos: bool,
    /// Zero: never.
    pub suicide_timeout: Duration,
    /// Zero: for ever.
    pub launch_grace: Duration,
}

/// A pod with a life.
#[derive(Debug)]
struct Known {
    id: PodId,
    /// The newest revision that the pod's life has seen; zero before the first.
    revision: Revision,
}

/// The executor without its I/O.
#[derive(Debug)]
pub struct Core {
    has_mesos: bool,
    tasks: Tasks,
    /// By uid.
    pods: BTreeMap<String, Known>,
    listed: bool,
    /// Whether the static pods are known: before that, they would look like leftovers.
    knows_static: bool,
    /// Until when the pods have to have ended, once the executor is to.
    ending: Option<Timestamp>,
    out: Vec<Action>,
}

impl Core {
    pub fn new(settings: &Settings, now: Timestamp) -> Self {
        let suicide_timeout = if settings.has_mesos { settings.suicide_timeout } else { Duration::ZERO };
        let tasks = Tasks::new(settings.product, suicide_timeout, settings.launch_grace, now);
        Self {
            has_mesos: settings.has_mesos,
            tasks,
            pods: BTreeMap::new(),
            listed: false,
            knows_static: !settings.has_mesos,
            ending: None,
            out: Vec::new(),
        }
    }

    /// Processes one input and returns the resulting actions.
    pub fn handle(&mut self, input: Input, now: Timestamp) -> Vec<Action> {
        // While ending, the executor only waits for its pods.
        if self.ending.is_some() && !matches!(input, Input::Gone(_) | Input::Ended(_) | Input::Written(_)) {
            return Vec::new();
        }
        let commands = match input {
            Input::Listed(pods) => self.listed(&pods, now),
            Input::Pod(pod) => self.pod(&pod, false, now),
            Input::Gone(uid) => {
                self.tell(&uid, Notice::Gone);
                Vec::new()
            }
            Input::Mesos(event) => self.mesos(*event, now),
            Input::Static(pods) => {
                self.knows_static = true;
                pods.into_iter().for_each(|pod| self.start(pod, 0, true));
                self.out.push(Action::FindLeftovers);
                Vec::new()
            }
            Input::Bound { task, result } => self.tasks.bound(&task, result, now),
            Input::Status(report) => self.tasks.status(&report.pod, &report.status, report.ending, now),
            Input::Written(pod) => self.tasks.written(&pod, now),
            Input::Ended(pod) => {
                self.pods.remove(&pod.uid);
                // At the executor's own end pods that have ended stay in the API.
                let stays = self.ending.is_some() && self.tasks.is_ending(&pod);
                if stays { Vec::new() } else { self.tasks.gone(&pod, now) }
            }
            Input::Engine(Sign::Ended(uid)) => {
                self.tell(&uid, Notice::Changed);
                Vec::new()
            }
            Input::Engine(Sign::Up) => {
                let all: Vec<String> = self.pods.keys().cloned().collect();
                all.iter().for_each(|uid| self.tell(uid, Notice::Changed));
                self.out.extend(self.knows_static.then_some(Action::FindLeftovers));
                Vec::new()
            }
            Input::Leftovers(found) => {
                self.leftovers(found);
                Vec::new()
            }
            Input::Tick => self.tasks.tick(now),
        };
        for command in commands {
            self.follow(command, now);
        }
        std::mem::take(&mut self.out)
    }

    /// When to send the next [`Input::Tick`], if there is no input before.
    pub fn wake_at(&self) -> Option<Timestamp> {
        self.ending.or_else(|| self.tasks.wake_at())
    }

    /// Whether the executor is ending, and takes no new work.
    pub fn is_ending(&self) -> bool {
        self.ending.is_some()
    }

    /// Whether it has ended: no pod is left and all ends are reported, or the deadline has passed.
    pub fn has_ended(&self, now: Timestamp) -> bool {
        self.ending.is_some_and(|until| self.pods.is_empty() && self.tasks.all_told() || now >= until)
    }

    /// The pods that have a life.
    pub fn pods(&self) -> impl Iterator<Item = &PodId> {
        self.pods.values().map(|known| &known.id)
    }

    fn tell(&mut self, uid: &str, notice: Notice) {
        if self.pods.contains_key(uid) {
            self.out.push(Action::Tell(uid.to_owned(), notice));
        }
    }

    fn start(&mut self, pod: Arc<Pod>, revision: Revision, is_static: bool) {
        let id = PodId::of(&pod);
        if !self.pods.contains_key(&id.uid) {
            self.pods.insert(id.uid.clone(), Known { id, revision });
            self.out.push(Action::Start { pod, is_static });
        }
    }

    fn follow(&mut self, command: Command, now: Timestamp) {
        match command {
            Command::Update(status) => {
                tracing::info!(task = status.task_id.value, "{} {}", status.state().as_str_name(), status.message());
                self.out.push(Action::Update(status));
            }
            Command::Bind { task, pod } => self.out.push(Action::Bind { task, pod }),
            Command::Run(pod) => self.start(pod, 0, false),
            Command::Terminate { pod, grace } => self.tell(&pod.uid, Notice::Terminate { grace }),
            Command::Shutdown(why) => self.end(&why, now),
        }
    }

    /// Compares the existing pods with the running ones.
    fn listed(&mut self, pods: &[Arc<Object>], now: Timestamp) -> Vec<Command> {
        let there: BTreeSet<&str> = pods.iter().map(|object| &*object.meta().uid).collect();
        // A pod whose binding the list does not show yet is not gone.
        let gone = self.pods.iter().filter(|(uid, known)| !there.contains(uid.as_str()) && known.revision > 0);
        for uid in gone.map(|(uid, _)| uid.clone()).collect::<Vec<_>>() {
            self.tell(&uid, Notice::Gone);
        }
        let first = !std::mem::replace(&mut self.listed, true);
        pods.iter().flat_map(|object| self.pod(object, first, now)).collect()
    }

    /// A pod of this node is so in the API.
    fn pod(&mut self, object: &Arc<Object>, adopt: bool, now: Timestamp) -> Vec<Command> {
        let Ok(pod) = object.typed::<Pod>() else {
            tracing::error!("{} is not understood", object.key());
            return Vec::new();
        };
        let uid = &*object.meta().uid;
        if let Some(known) = self.pods.get_mut(uid) {
            if object.revision() > known.revision {
                known.revision = object.revision();
                self.tell(uid, Notice::Pod(Arc::new(pod.clone())));
            }
            return Vec::new();
        }
        // The static pod that it mirrors runs under its own uid.
        if names::mirrored(pod).is_some() {
            self.out.push(Action::CheckMirror(object.clone()));
            return Vec::new();
        }
        // With Mesos, a pod begins with its task, which carries it. A pod that is being deleted but not running here must still be
        // finished.
        let is_ours = !self.has_mesos || object.meta().is_deleted() || (adopt && self.tasks.id_of(pod).is_some());
        if !is_ours {
            return Vec::new();
        }
        let commands = if adopt { self.tasks.adopt(pod, now) } else { Vec::new() };
        self.start(Arc::new(pod.clone()), object.revision(), false);
        commands
    }

    fn mesos(&mut self, event: ExecutorEvent, now: Timestamp) -> Vec<Command> {
        match event {
            ExecutorEvent::Subscribed(_) => Vec::new(),
            ExecutorEvent::Launch(task) => self.tasks.launch(&task, now),
            ExecutorEvent::LaunchGroup(tasks) => tasks.iter().flat_map(|task| self.tasks.launch(task, now)).collect(),
            ExecutorEvent::Kill { task_id, kill_policy } => {
                let grace = kill_policy.and_then(|policy| policy.grace_period).map(|grace| grace.nanoseconds / 1_000_000_000);
                self.tasks.kill(&task_id.value, grace)
            }
            ExecutorEvent::Message(data) => self.tasks.message(&data),
            ExecutorEvent::Disconnected(why) => {
                tracing::warn!("lost the Mesos agent, pods keep running: {why}");
                Vec::new()
            }
            ExecutorEvent::Shutdown(why) => vec![Command::Shutdown(why)],
        }
    }

    /// Ends leftovers of pods that no longer exist in the API: containers and files.
    fn leftovers(&mut self, found: Vec<PodId>) {
        for id in found {
            if self.pods.contains_key(&id.uid) {
                continue;
            }
            tracing::info!(pod = %id, uid = id.uid, "no longer in the API: removing its containers");
            let uid = id.uid.clone();
            let metadata = ObjectMeta { name: Some(id.name), namespace: Some(id.namespace), uid: Some(id.uid), ..ObjectMeta::default() };
            self.start(Arc::new(Pod { metadata, spec: Some(PodSpec::default()), ..Pod::default() }), 0, false);
            self.tell(&uid, Notice::Gone);
        }
    }

    /// Ends every pod's containers: Mesos is ending the executor, so they would be orphaned.
    fn end(&mut self, why: &str, now: Timestamp) {
        tracing::info!("the executor ends: {why}");
        self.ending = Some(after(now, SHUTDOWN_TIMEOUT));
        for known in self.pods.values() {
            // A pod whose task has ended stays in the API with its final status; only its containers are removed.
            let is_task = self.tasks.has(&known.id);
            let notice = if is_task { Notice::Terminate { grace: Some(SHUTDOWN_GRACE) } } else { Notice::Gone };
            self.out.push(Action::Tell(known.id.uid.clone(), notice));
        }
    }
}

#[cfg(test)]
mod tests;
