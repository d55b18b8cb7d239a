//! The scheduler as one state machine: [`Input`]s in, [`Action`]s out, time passed in. It does no I/O, and its randomness comes from a
//! seed, so that a run can be repeated step by step.

mod launching;
mod pods;
mod statuses;
mod waiting;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::demand::Rules;
use super::executorinfo::Prototype;
use super::metrics::Metrics;
use super::nodes::{Node, Nodes};
use super::offers::Book;
use super::pace::{Appetite, Tell};
use super::placement::Spread;
use super::queue::{GroupId, Queue};
use super::reconcile::{Ask, Pace, Reconciler};
use super::storage::{Storage, Write};
use super::tasks::{State, Task, Tasks};
use crate::mesos::v1::scheduler::{Call, Event, event};
use crate::mesos::v1::{AgentId, DurationInfo, ExecutorInfo, KillPolicy, TaskId, TaskStatus};
use crate::object::{Name, Object, Revision};

/// Something that happened.
#[derive(Clone, Debug)]
pub enum Input {
    /// A pod, new or changed. Pods that are bound before the first `Subscribed` are assumed to run.
    Pod(Arc<Object>),
    /// A deleted pod; its last state.
    PodGone(Arc<Object>),
    Node(Arc<Object>),
    /// The node of this name was deleted.
    NodeGone(Box<str>),
    /// A claim; best reported before the pods that use it.
    Claim(Arc<Object>),
    ClaimGone(Name),
    Volume(Arc<Object>),
    VolumeGone(Box<str>),
    Class(Arc<Object>),
    ClassGone(Box<str>),
    /// The outcome of [`Action::Bind`]: the revision of the write, if it succeeded.
    Bound {
        claim: Name,
        serial: u64,
        at: Option<Revision>,
    },
    /// Subscribed under this framework id, for the first time or again.
    Subscribed(String),
    Disconnected,
    Event(Box<Event>),
    /// The outcome of [`Action::DeletePod`]: whether the pod is gone or going.
    PodDeletion {
        pod: Name,
        done: bool,
    },
    /// The outcome of [`Action::WriteNode`].
    NodeWritten {
        host: Box<str>,
        done: bool,
    },
    /// A request for a reconciliation.
    WantExplicit,
    WantImplicit,
    /// No event; due work is done.
    Tick,
}

/// Work for the shell.
#[derive(Clone, Debug)]
pub enum Action {
    /// Send a call to the Mesos master. Calls keep their order.
    Call(Box<Call>),
    /// Store the framework id for the next start.
    KeepFrameworkId(String),
    /// Create the node, or set exactly these attribute labels on it. Answered by [`Input::NodeWritten`].
    WriteNode { host: Box<str>, labels: BTreeMap<String, String> },
    /// Delete a pod without grace, if it still has this uid. Answered by [`Input::PodDeletion`].
    DeletePod { pod: Name, uid: Box<str> },
    /// Make the first write of a claim's binding. Answered by [`Input::Bound`].
    Bind(Write),
    /// Write the reason why a pod cannot be scheduled into its conditions, unless the pod has changed.
    MarkUnschedulable { pod: Arc<Object>, message: String },
    /// Record an event about a pod.
    Tell { pod: Arc<Object>, warning: bool, reason: &'static str, message: String },
}

/// Fixed parameters of the core.
#[derive(Clone, Debug)]
pub struct Settings {
    pub rules: Rules,
    pub prototype: Prototype,
    pub discovery: bool,
    pub offer_ttl: Duration,
    pub initial_pod_backoff: Duration,
    pub max_pod_backoff: Duration,
    pub reconcile: Pace,
    /// A framework id was kept from an earlier run, so there may be tasks of that run that the API server does not know yet.
    pub resumed: bool,
    /// How long to wait for Mesos to report those tasks before launching pods anyway: [`GATE`].
    pub gate: Duration,
    /// How long binding the claims of a placed pod may take: [`BIND_TIMEOUT`].
    pub bind_timeout: Duration,
    pub seed: u64,
}

/// How long declined resources are refused. Mesos offers an agent again sooner when more of it becomes free.
const REFUSE_SECONDS: f64 = 120.0;
/// How long offers are refused that will be usable once a node or executor has reported.
const REFUSE_BRIEFLY_SECONDS: f64 = 5.0;
/// At most this many events about waiting pods per [`TELL_PAUSE`].
const TELL_AT_ONCE: usize = 20;
const TELL_PAUSE: Duration = Duration::from_secs(1);
/// How long to wait for the tasks of an earlier run before launching pods. A master answers at once, unless it has only just been elected
/// and is itself waiting for its agents.
pub const GATE: Duration = Duration::from_secs(30);
/// Kubernetes' timeout for binding the claims of a pod.
pub const BIND_TIMEOUT: Duration = Duration::from_secs(600);
/// A launch of this session may still be on its way for this long, so Mesos need not know its task yet.
const SETTLED: Duration = Duration::from_secs(5);
const DELETE_AGAIN: Duration = Duration::from_secs(2);
/// Prefix of a task id that no pod has: Mesos answers for this task after all others.
const FENCE: &str = "fence.";

/// The scheduler without its I/O.
#[derive(Debug)]
pub struct Core {
    settings: Settings,
    framework: Option<String>,
    connected: bool,
    /// When the current session began.
    subscribed_at: Duration,
    started: bool,
    gate: Option<Gate>,
    nodes: Nodes,
    /// Hosts whose node is being written.
    writing: HashSet<Box<str>>,
    /// Every agent that was offered or has tasks, with its host name, until it is lost.
    agents: HashMap<Arc<str>, Arc<str>>,
    /// Those that Mesos has reported lost, but that still have tasks: they may come back with them.
    lost: HashSet<Arc<str>>,
    /// The executor that runs, or was last started, on each agent.
    executors: HashMap<Arc<str>, Arc<ExecutorInfo>>,
    book: Book,
    queue: Queue,
    storage: Storage,
    tasks: Tasks,
    spread: Spread,
    reconciler: Reconciler,
    appetite: Appetite,
    /// Resources were declined that may be usable now.
    leftovers: bool,
    deletions: HashMap<Name, Deletion>,
    tell_not_before: Duration,
    rng: StdRng,
    metrics: Metrics,
    out: Vec<Action>,
}

/// Delays launches until Mesos has answered for the fence.
#[derive(Debug)]
struct Gate {
    fence: String,
    /// The deadline; `None` while disconnected.
    until: Option<Duration>,
}

/// A pod that the scheduler is deleting, with the status updates to acknowledge afterwards.
#[derive(Debug)]
struct Deletion {
    uid: Box<str>,
    acknowledge: Vec<TaskStatus>,
    again_at: Option<Duration>,
    pause: Duration,
}

impl Core {
    pub fn new(settings: Settings, metrics: Metrics) -> Self {
        let mut rng = StdRng::seed_from_u64(settings.seed);
        let fence = format!("{FENCE}{:016x}", rng.random::<u64>());
        Self {
            queue: Queue::new(settings.initial_pod_backoff, settings.max_pod_backoff),
            storage: Storage::new(settings.bind_timeout),
            reconciler: Reconciler::new(settings.reconcile),
            rng,
            gate: settings.resumed.then_some(Gate { fence, until: None }),
            framework: None,
            connected: false,
            subscribed_at: Duration::ZERO,
            started: false,
            nodes: Nodes::default(),
            writing: HashSet::new(),
            agents: HashMap::new(),
            lost: HashSet::new(),
            executors: HashMap::new(),
            book: Book::default(),
            tasks: Tasks::default(),
            spread: Spread::default(),
            appetite: Appetite::default(),
            leftovers: false,
            deletions: HashMap::new(),
            tell_not_before: Duration::ZERO,
            metrics,
            out: Vec::new(),
            settings,
        }
    }

    /// Records an input. The next [`Core::act`] does the resulting work, so that several inputs can be batched.
    pub fn input(&mut self, now: Duration, input: Input) {
        match input {
            Input::Pod(pod) => self.pod(now, pod),
            Input::PodGone(pod) => self.pod_gone(now, &pod),
            Input::Node(node) => self.node(&node),
            Input::NodeGone(host) => self.node_gone(now, &host),
            Input::Claim(claim) => self.storage.claim(claim),
            Input::ClaimGone(claim) => self.storage.claim_gone(&claim),
            Input::Volume(volume) => self.storage.volume(volume),
            Input::VolumeGone(volume) => self.storage.volume_gone(&volume),
            Input::Class(class) => self.storage.class(class),
            Input::ClassGone(class) => self.storage.class_gone(&class),
            Input::Bound { claim, serial, at } => self.storage.written(now, &claim, serial, at),
            Input::Subscribed(framework) => self.subscribed(now, framework),
            Input::Disconnected => self.disconnected(),
            Input::Event(event) => self.event(now, *event),
            Input::PodDeletion { pod, done } => self.deletion(now, &pod, done),
            Input::NodeWritten { host, done } => self.node_written(&host, done),
            Input::Tick => {}
            Input::WantExplicit => {
                self.metrics.reconciliation_requested("explicit");
                self.reconciler.want_explicit();
            }
            Input::WantImplicit => {
                self.metrics.reconciliation_requested("implicit");
                self.reconciler.want_implicit();
            }
        }
    }

    /// Does all due work and returns the actions.
    pub fn act(&mut self, now: Duration) -> Vec<Action> {
        if self.gate.as_ref().and_then(|gate| gate.until).is_some_and(|until| now >= until) {
            tracing::warn!("Mesos has not reported its tasks in time; launching pods anyway");
            self.gate = None;
        }
        self.give_up_claims(now);
        self.stir(now);
        self.queue.release(now);
        self.retry_deletions(now);
        if self.connected {
            self.reconcile(now);
            self.launch_round(now);
            self.give_back_expired(now);
            if !self.queue.is_behind() {
                self.ask_for_offers(now);
            }
            for id in self.tasks.due_kills(now) {
                if let Some(call) = self.tasks.get(&id).map(kill_call) {
                    self.call(call);
                }
            }
        }
        self.out.extend(self.storage.take_writes().into_iter().map(Action::Bind));
        self.tell_waiting(now);
        self.metrics.sizes(self.queue.len(), self.tasks.len(), self.book.len());
        std::mem::take(&mut self.out)
    }

    fn ask_for_offers(&mut self, now: Duration) {
        let (hungry, news) = (self.hungry(), self.queue.take_new_groups() || std::mem::take(&mut self.leftovers));
        match self.appetite.decide(now, hungry, news, self.book.is_empty(), self.agents.len()) {
            Some(Tell::Revive) => self.call(Call::revive(Vec::new())),
            Some(Tell::Suppress) => self.call(Call::suppress(Vec::new())),
            None => {}
        }
    }

    /// When to call [`Core::act`] next, if there is no input before.
    pub fn wake_at(&self) -> Option<Duration> {
        if self.connected && self.queue.is_behind() {
            return Some(Duration::ZERO);
        }
        let mut due = vec![
            self.queue.next_release(),
            self.queue.next_tell().map(|at| at.max(self.tell_not_before)),
            self.gate.as_ref().and_then(|gate| gate.until),
            self.deletions.values().filter_map(|it| it.again_at).min(),
            self.storage.next_due(),
        ];
        if self.connected {
            let appetite = self.appetite.next_due(self.hungry(), self.book.is_empty());
            due.extend([self.book.next_expiry(), self.tasks.next_kill(), self.reconciler.next_due(), appetite]);
        }
        due.into_iter().flatten().min()
    }

    /// After a launch round: whether ready pods remain, which no held offer fits.
    fn hungry(&self) -> bool {
        self.gate.is_none() && self.queue.ready() > 0
    }

    fn call(&mut self, call: Call) {
        if self.connected {
            self.out.push(Action::Call(Box::new(call)));
        }
    }

    fn subscribed(&mut self, now: Duration, framework: String) {
        if self.framework.as_ref() != Some(&framework) {
            self.out.push(Action::KeepFrameworkId(framework.clone()));
        }
        self.framework = Some(framework);
        self.connected = true;
        self.subscribed_at = now;
        self.book.clear();
        self.queue.forget_tried();
        self.appetite.connected(now, self.agents.len());
        // Mesos offers those that are still there, and does not say which were lost meanwhile.
        self.agents.retain(|agent, _| self.tasks.any_on(agent));
        self.reconciler.connected(now);
        self.tasks.repeat_kills(now);
        self.started = true;
        if self.queue.is_empty() {
            self.gate = None;
        }
        if let Some(gate) = &mut self.gate {
            gate.until = Some(now + self.settings.gate);
            let fence = TaskId::from(gate.fence.as_str());
            self.call(Call::reconcile([]));
            self.call(Call::reconcile([(fence, None)]));
        }
    }

    fn disconnected(&mut self) {
        self.connected = false;
        self.book.clear();
        self.reconciler.disconnected();
        if let Some(gate) = &mut self.gate {
            gate.until = None;
        }
    }

    fn event(&mut self, now: Duration, event: Event) {
        match event.r#type() {
            event::Type::Offers => {
                for offer in event.offers.into_iter().flat_map(|it| it.offers) {
                    self.offer(now, offer);
                }
            }
            event::Type::Rescind => {
                let Some(id) = event.rescind.map(|it| it.offer_id.value) else { return };
                let (_, useless) = self.book.rescind(&id);
                self.decline(useless, REFUSE_BRIEFLY_SECONDS);
            }
            event::Type::Update => {
                if let Some(update) = event.update {
                    self.status(now, update.status);
                }
            }
            event::Type::Failure => {
                let Some(failure) = event.failure else { return };
                let Some(agent) = failure.agent_id else { return };
                match failure.executor_id {
                    None => {
                        tracing::warn!("agent {agent} is gone");
                        self.book.lose_agent(&agent.value);
                        self.executors.remove(&*agent.value);
                        self.lost.extend(self.agents.get_key_value(&*agent.value).map(|(agent, _)| agent.clone()));
                        self.forget_lost(&agent.value);
                    }
                    Some(executor) => {
                        tracing::warn!("executor {executor} on agent {agent} ended, status {}", failure.status.unwrap_or_default());
                        self.executors.remove(&*agent.value);
                        // Offers made while it ran do not include its resources.
                        let stale = self.book.forget_agent(&agent.value).unwrap_or_default();
                        self.decline(stale, 0.0);
                    }
                }
            }
            other => tracing::debug!("ignoring {other:?} from the Mesos master"),
        }
    }

    fn node(&mut self, object: &Object) {
        match Node::read(object, self.settings.rules.product) {
            Ok(node) => {
                let host = node.facts.name.clone();
                if self.nodes.put(node) {
                    self.book.renew_host(&host);
                    // Offers of the agent may have been declined for pods that now fit.
                    self.leftovers = true;
                }
            }
            Err(error) => tracing::warn!("node {}: {error}", object.name()),
        }
    }

    fn node_gone(&mut self, now: Duration, host: &str) {
        self.nodes.remove(host);
        self.storage.host_gone(now, host);
        let gone: Vec<_> = self.agents.iter().filter(|(_, of)| &***of == host).map(|(agent, _)| agent.clone()).collect();
        for agent in gone {
            if !self.tasks.any_on(&agent) {
                self.executors.remove(&agent);
            }
            if let Some(ids) = self.book.forget_agent(&agent) {
                // When offered again, the agent gets a new node.
                self.decline(ids, 0.0);
            }
        }
    }

    fn node_written(&mut self, host: &str, done: bool) {
        self.writing.remove(host);
        // If the node could not be created, the next offer tries again.
        if !done && self.nodes.get(host).is_some_and(|it| it.provisional) {
            self.nodes.remove(host);
        }
    }

    fn reconcile(&mut self, now: Duration) {
        let (tasks, session) = (&self.tasks, self.subscribed_at);
        let known = || {
            // A bound pod has reached its executor, whenever this scheduler learnt of it.
            let arrived = |it: &&Task| it.bound || it.launched_at <= session || now >= it.launched_at + SETTLED;
            let settled = |it: &&Task| it.state != State::Finished && arrived(it);
            let mut known: Vec<_> = tasks.iter().filter(settled).map(|it| (it.id.clone(), it.agent.clone())).collect();
            known.sort_unstable();
            known
        };
        match self.reconciler.due(now, known) {
            Some(Ask::Implicit) => self.call(Call::reconcile([])),
            Some(Ask::Explicit(tasks)) => {
                let tasks = tasks.iter().map(|(task, agent)| (TaskId::from(&**task), Some(AgentId::from(&**agent))));
                self.call(Call::reconcile(tasks.collect::<Vec<_>>()));
            }
            None => {}
        }
        self.metrics.reconciliations(&mut self.reconciler);
    }

    /// Emits events for waiting pods.
    fn tell_waiting(&mut self, now: Duration) {
        if now < self.tell_not_before {
            return;
        }
        let due = self.queue.untold(now, TELL_AT_ONCE);
        let mut reasons: HashMap<GroupId, String> = HashMap::new();
        if due.len() == TELL_AT_ONCE {
            self.tell_not_before = now + TELL_PAUSE;
        }
        for name in due {
            let Some(waiting) = self.queue.get(&name) else { continue };
            let pod = waiting.pod.clone();
            let why = match &waiting.hold {
                Some(hold) => hold.message(self.nodes.count()),
                None if self.connected => {
                    let why = |group| self.queue.group(group).map(|it| self.explain(it)).unwrap_or_default();
                    Some(format!("Error scheduling: {}", reasons.entry(waiting.group).or_insert_with_key(|group| why(*group))))
                }
                None => {
                    let message = "Error scheduling: not connected to a Mesos master".to_owned();
                    self.tell(pod, true, "FailedScheduling", message);
                    continue;
                }
            };
            let Some(message) = why else { continue };
            if self.queue.mark(&name, &message) {
                self.out.push(Action::MarkUnschedulable { pod: pod.clone(), message: message.clone() });
            }
            self.tell(pod, true, "FailedScheduling", message);
        }
    }

    /// The last known state of every pod that waits or has a task.
    pub fn known_pods(&self) -> Vec<Arc<Object>> {
        let waiting = self.queue.iter().map(|(it, _)| it.pod.clone());
        waiting.chain(self.tasks.iter().filter_map(|it| it.object.clone())).collect()
    }

    /// The names of the nodes known to be in the API server.
    pub fn known_nodes(&self) -> Vec<Name> {
        self.nodes.iter().filter(|it| !it.provisional).map(|it| Name::new("", &it.facts.name)).collect()
    }

    /// The known claims, volumes and classes.
    pub fn storage(&self) -> &Storage {
        &self.storage
    }

    /// One line per waiting pod.
    pub fn debug_queue(&self) -> String {
        let line = |name: &Name, at: Option<Duration>| {
            let deadline = at.map_or("<none>".to_owned(), |at| format!("{at:?}"));
            format!("{{pod:{name}, deadline:{deadline}}}\n")
        };
        let mut lines: Vec<String> = self.queue.iter().map(|(waiting, at)| line(&waiting.name, at)).collect();
        lines.sort_unstable();
        lines.concat()
    }

    /// A count, then one line per task: id, pod, state as a number, offer.
    pub fn debug_tasks(&self) -> String {
        let line = |task: &Task| {
            let state = match task.state {
                State::Launched | State::Starting => 0,
                State::Running => 1,
                State::Finished => 2,
            };
            format!("{}\t{}\t{state}\t{}\n", task.id, task.pod, task.offer)
        };
        let mut lines: Vec<String> = self.tasks.iter().map(line).collect();
        lines.sort_unstable();
        format!("task_count={}\n{}", lines.len(), lines.concat())
    }

    /// Asks every known executor to exit if it has no pods. One line per executor.
    pub fn kamikaze(&mut self) -> String {
        let mut agents: Vec<_> = self.agents.iter().map(|(agent, host)| (agent.clone(), host.clone())).collect();
        agents.sort_unstable();
        let mut report = String::new();
        for (agent, host) in agents {
            let Some(executor) = self.nodes.get(&host).and_then(|it| it.executor_id.clone()) else { continue };
            report.push_str(&format!("kamikaze message sent to executor {executor:?} on slave {agent:?}\n"));
            self.call(Call::message((&*executor).into(), (&*agent).into(), bytes::Bytes::from_static(b"kamikaze")));
        }
        report + "OK\n"
    }

    /// Whether there is a subscription now.
    pub fn is_connected(&self) -> bool {
        self.connected
    }

    /// Whether there ever was a subscription.
    pub fn is_started(&self) -> bool {
        self.started
    }
}

fn kill_call(task: &Task) -> Call {
    let policy = task.kill.as_ref().map(|kill| {
        let nanoseconds = kill.grace.max(0).saturating_mul(1_000_000_000);
        KillPolicy { grace_period: Some(DurationInfo { nanoseconds }) }
    });
    Call::kill((&*task.id).into(), Some((&*task.agent).into()), policy)
}

#[cfg(test)]
mod tests;
