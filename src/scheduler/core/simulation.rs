//! The core in a small world: a master with agents and executors, and an API server, whose messages are delayed, lost with their
//! connection, and repeated, while schedulers, executors and agents die. After every step: no pod has two living tasks, no agent gives
//! more than it has, and executors of one agent are the same. In the end: every pod runs, and nothing else does.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use serde_json::{Value, json};

use super::*;
use crate::mesos::v1::scheduler::call;
use crate::mesos::v1::task_status::{Reason, Source};
use crate::mesos::v1::{Offer, TaskInfo, TaskState};
use crate::object::resource;
use crate::scheduler::demand::tests::rules;
use crate::scheduler::resources::{ExecutorCost, scalar, tests::ports};
use crate::telemetry::metrics::Registry;
use crate::util::product::KUBERNETES;

pub(super) fn settings(seed: u64, resumed: bool) -> Settings {
    let cost = ExecutorCost { cpu: 250, mem: 128_000 };
    Settings {
        rules: rules(),
        prototype: Prototype::new(KUBERNETES, "./km", vec!["./km".into()], &[], None, cost),
        discovery: false,
        offer_ttl: Duration::from_secs(5),
        initial_pod_backoff: Duration::from_secs(1),
        max_pod_backoff: Duration::from_secs(60),
        reconcile: Pace {
            cooldown: Duration::from_secs(15),
            interval: Duration::from_secs(300),
            initial_delay: Duration::from_secs(15),
            max_backoff: Duration::from_secs(120),
        },
        resumed,
        // Time leaps here, and a pod may run twice if nobody answers in time.
        gate: Duration::MAX / 2,
        seed,
    }
}

const CPU: u64 = 4000;
const MEM: u64 = 4_000_000;
const PORTS: (u64, u64) = (31_000, 31_009);

#[derive(Default)]
struct Agent {
    executor: Option<ExecutorInfo>,
    executor_registered: bool,
    /// The executor ran when the present offer was made.
    offered_with_executor: bool,
    tasks: BTreeMap<String, RunningTask>,
    /// Offers made of it, with what they hold.
    offered: Option<(String, u64, u64, BTreeSet<u64>)>,
    refused_until: Duration,
}

struct RunningTask {
    info: TaskInfo,
    state: TaskState,
    kill: bool,
}

/// What the master or an agent keeps sending until it is acknowledged.
struct Unacknowledged {
    status: TaskStatus,
    sent_at: Option<Duration>,
}

struct Sim {
    rng: StdRng,
    now: Duration,
    core: Core,
    /// Pods as JSON.
    api: BTreeMap<String, Value>,
    revision: u64,
    agents: BTreeMap<String, Agent>,
    next: u64,
    connected: bool,
    suppressed: bool,
    updates: VecDeque<Unacknowledged>,
    to_core: VecDeque<Input>,
    /// The watch of the API server is a connection of its own.
    watch: VecDeque<Input>,
    to_master: VecDeque<Call>,
    writes: VecDeque<Action>,
    killed_runs: usize,
    launches: usize,
}

fn amount(resources: &[crate::mesos::v1::Resource], name: &str) -> u64 {
    let of_name = resources.iter().filter(|it| it.name == name);
    of_name.filter_map(|it| it.scalar.as_ref()).map(|it| (it.value * 1000.0).round() as u64).sum()
}

fn port_set(resources: &[crate::mesos::v1::Resource]) -> BTreeSet<u64> {
    let ranges = resources.iter().filter(|it| it.name == "ports").filter_map(|it| it.ranges.as_ref()).flat_map(|it| &it.range);
    ranges.flat_map(|range| range.begin..=range.end).collect()
}

impl Sim {
    fn new(seed: u64) -> Self {
        let agents = (0..4).map(|at| (format!("a{at}"), Agent::default())).collect();
        Self {
            rng: StdRng::seed_from_u64(seed),
            now: Duration::from_secs(1),
            core: Core::new(settings(seed, false), Metrics::new(Registry::default())),
            api: BTreeMap::new(),
            revision: 0,
            agents,
            next: 0,
            connected: false,
            suppressed: false,
            updates: VecDeque::new(),
            to_core: VecDeque::new(),
            watch: VecDeque::new(),
            to_master: VecDeque::new(),
            writes: VecDeque::new(),
            killed_runs: 0,
            launches: 0,
        }
    }

    fn id(&mut self, prefix: &str) -> String {
        self.next += 1;
        format!("{prefix}{}", self.next)
    }

    fn chance(&mut self, percent: u32) -> bool {
        self.rng.random_range(0..100) < percent
    }

    fn pick(&mut self, from: Vec<String>) -> Option<String> {
        if from.is_empty() { None } else { Some(from[self.rng.random_range(0..from.len())].clone()) }
    }

    fn object(&mut self, pod: &Value) -> Arc<Object> {
        Object::from_stored(&resource::POD, pod.to_string().as_bytes(), self.revision).unwrap()
    }

    // The API server.

    fn create_pod(&mut self) {
        let (name, uid) = (format!("p{}", self.rng.random_range(0..12)), self.id("uid-"));
        if self.api.contains_key(&name) {
            return;
        }
        let port = if self.rng.random_range(0..3) == 0 { json!([{"containerPort": 80}]) } else { json!([]) };
        let cpu = ["100m", "500m", "1"][self.rng.random_range(0..3)];
        self.api.insert(
            name.clone(),
            json!({"metadata": {"name": name, "namespace": "n", "uid": uid},
            "spec": {"containers": [{"name": "c", "ports": port, "resources": {"limits": {"cpu": cpu}}}]}, "status": {"phase": "Pending"}}),
        );
        self.changed(&name);
    }

    fn changed(&mut self, name: &str) {
        self.revision += 1;
        let pod = self.api[name].clone();
        let object = self.object(&pod);
        self.watch.push_back(Input::Pod(object));
    }

    fn user_deletes(&mut self, name: &str) {
        if self.api[name]["spec"]["nodeName"].is_string() {
            if self.api[name]["metadata"]["deletionTimestamp"].is_null() {
                let metadata = &mut self.api.get_mut(name).unwrap()["metadata"];
                metadata["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
                metadata["deletionGracePeriodSeconds"] = 30.into();
                self.changed(name);
            }
        } else {
            self.remove_pod(name);
        }
    }

    fn remove_pod(&mut self, name: &str) {
        self.revision += 1;
        let pod = self.api.remove(name).unwrap();
        let object = self.object(&pod);
        self.watch.push_back(Input::PodGone(object));
    }

    fn write(&mut self, action: Action) {
        match action {
            Action::DeletePod { pod, uid } => {
                let done = !self.chance(20);
                if done && self.api.get(&*pod.name).is_some_and(|it| it["metadata"]["uid"] == *uid) {
                    self.remove_pod(&pod.name);
                }
                self.to_core.push_back(Input::PodDeletion { pod, done });
            }
            Action::WriteNode { host, labels } => {
                let metadata = json!({"metadata": {"name": host, "labels": labels}});
                let node = Object::from_stored(&resource::NODE, metadata.to_string().as_bytes(), 1).unwrap();
                self.watch.push_back(Input::Node(node));
                self.to_core.push_back(Input::NodeWritten { host, done: true });
            }
            _ => {}
        }
    }

    // The scheduler.

    fn act(&mut self) {
        for action in self.core.act(self.now) {
            match action {
                Action::Call(call) if self.connected => self.to_master.push_back(*call),
                Action::Call(_) | Action::Tell { .. } | Action::KeepFrameworkId(_) => {}
                other => self.writes.push_back(other),
            }
        }
    }

    fn hear(&mut self) {
        if let Some(input) = self.to_core.pop_front() {
            self.core.input(self.now, input);
            self.act();
        }
    }

    fn hear_watch(&mut self) {
        if let Some(input) = self.watch.pop_front() {
            self.core.input(self.now, input);
            self.act();
        }
    }

    fn disconnect(&mut self) {
        self.connected = false;
        self.to_master.clear();
        self.agents.values_mut().for_each(|agent| agent.offered = None);
        self.to_core.retain(|input| !matches!(input, Input::Event(_) | Input::Subscribed(_)));
        self.to_core.push_back(Input::Disconnected);
    }

    fn connect(&mut self) {
        self.connected = true;
        self.suppressed = false;
        for agent in self.agents.values_mut() {
            (agent.offered, agent.refused_until) = (None, Duration::ZERO);
        }
        self.updates.iter_mut().for_each(|update| update.sent_at = None);
        self.to_core.push_back(Input::Subscribed("f1".to_owned()));
    }

    /// The scheduler dies. Calls it sent before may have arrived. A new one reads the pods there are.
    fn crash(&mut self) {
        while !self.to_master.is_empty() && self.chance(50) {
            self.master();
        }
        self.disconnect();
        self.to_core.clear();
        self.watch.clear();
        self.writes.clear();
        let seed = self.rng.random();
        self.core = Core::new(settings(seed, true), Metrics::new(Registry::default()));
        let executors: Vec<(String, Option<ExecutorInfo>)> =
            self.agents.iter().map(|(id, agent)| (id.clone(), agent.executor.clone().filter(|_| agent.executor_registered))).collect();
        for (id, executor) in executors {
            // What executors note on their nodes when they register.
            let Some(executor) = executor else { continue };
            let notes = json!({"k8s.mesosphere.io/executorId": executor.executor_id.value,
                "k8s.mesosphere.io/executorResources": crate::scheduler::executorinfo::encode_resources(&executor.resources)});
            let node = json!({"metadata": {"name": format!("host-{id}"), "annotations": notes}});
            self.core.input(self.now, Input::Node(Object::from_stored(&resource::NODE, node.to_string().as_bytes(), 1).unwrap()));
        }
        for pod in self.api.clone().values() {
            let object = self.object(pod);
            self.core.input(self.now, Input::Pod(object));
        }
        self.act();
    }

    // Mesos.

    fn event(&mut self, event: Event) {
        if self.connected {
            self.to_core.push_back(Input::Event(Box::new(event)));
        }
    }

    fn free(&self, id: &str) -> (u64, u64, BTreeSet<u64>) {
        let agent = &self.agents[id];
        let tasks =
            || agent.tasks.values().map(|it| it.info.resources.as_slice()).chain(agent.executor.iter().map(|it| it.resources.as_slice()));
        let (cpu, mem) = (tasks().map(|it| amount(it, "cpus")).sum(), tasks().map(|it| amount(it, "mem")).sum());
        let used: BTreeSet<u64> = tasks().flat_map(port_set).collect();
        let checked = |total: u64, used: u64| total.checked_sub(used).expect("an agent gave more than it has");
        (checked(CPU, cpu), checked(MEM, mem), (PORTS.0..=PORTS.1).filter(|port| !used.contains(port)).collect())
    }

    fn allocate(&mut self) {
        if !self.connected || self.suppressed {
            return;
        }
        for id in self.agents.keys().cloned().collect::<Vec<_>>() {
            if self.agents[&id].offered.is_some() || self.agents[&id].refused_until > self.now {
                continue;
            }
            let (cpu, mem, free_ports) = self.free(&id);
            if cpu == 0 && mem == 0 {
                continue;
            }
            let offer_id = self.id("o");
            let ranges: Vec<(u64, u64)> = free_ports.iter().map(|port| (*port, *port)).collect();
            let agent = self.agents.get_mut(&id).unwrap();
            let offer = Offer {
                id: offer_id.as_str().into(),
                agent_id: id.as_str().into(),
                hostname: format!("host-{id}"),
                resources: vec![scalar("cpus", cpu), scalar("mem", mem), ports(&ranges)],
                executor_ids: agent.executor.iter().map(|it| it.executor_id.clone()).collect(),
                ..Offer::default()
            };
            agent.offered = Some((offer_id, cpu, mem, free_ports));
            agent.offered_with_executor = agent.executor.is_some();
            let offers = Some(event::Offers { offers: vec![offer] });
            self.event(Event { r#type: Some(event::Type::Offers.into()), offers, ..Event::default() });
        }
    }

    fn rescind(&mut self, id: &str) {
        if let Some((offer, ..)) = self.agents.get_mut(id).unwrap().offered.take() {
            let rescind = Some(event::Rescind { offer_id: offer.into() });
            self.event(Event { r#type: Some(event::Type::Rescind.into()), rescind, ..Event::default() });
        }
    }

    fn report(&mut self, task: &str, agent: Option<&str>, state: TaskState, source: Source, reason: Option<Reason>, message: &str) {
        let uuid = self.id("u");
        let status = TaskStatus {
            task_id: task.into(),
            agent_id: agent.map(Into::into),
            state: state.into(),
            source: Some(source.into()),
            reason: reason.map(Into::into),
            message: Some(message.to_owned()),
            uuid: (source != Source::Master).then(|| uuid.into_bytes().into()),
            ..TaskStatus::default()
        };
        if source == Source::Master {
            self.update(status);
        } else {
            self.updates.push_back(Unacknowledged { status, sent_at: None });
        }
    }

    fn update(&mut self, status: TaskStatus) {
        let update = Some(event::Update { status });
        self.event(Event { r#type: Some(event::Type::Update.into()), update, ..Event::default() });
    }

    /// Agents send the first unacknowledged update of each task, again and again.
    fn send_updates(&mut self) {
        let (mut seen, mut due) = (BTreeSet::new(), Vec::new());
        for update in &mut self.updates {
            let first = seen.insert(update.status.task_id.value.clone());
            if first && self.connected && update.sent_at.is_none_or(|at| self.now >= at + Duration::from_secs(10)) {
                update.sent_at = Some(self.now);
                due.push(update.status.clone());
            }
        }
        due.into_iter().for_each(|status| self.update(status));
    }

    fn master(&mut self) {
        let Some(call) = self.to_master.pop_front() else { return };
        match call.r#type() {
            call::Type::Accept => self.accept(call.accept.unwrap()),
            call::Type::Decline => {
                let decline = call.decline.unwrap();
                let seconds = decline.filters.unwrap().refuse_seconds();
                for agent in self.agents.values_mut() {
                    if agent.offered.as_ref().is_some_and(|it| decline.offer_ids.iter().any(|id| id.value == it.0)) {
                        agent.offered = None;
                        agent.refused_until = self.now + Duration::from_secs_f64(seconds);
                    }
                }
            }
            call::Type::Revive => {
                self.suppressed = false;
                self.agents.values_mut().for_each(|agent| agent.refused_until = Duration::ZERO);
            }
            call::Type::Suppress => self.suppressed = true,
            call::Type::Acknowledge => {
                let uuid = call.acknowledge.unwrap().uuid;
                self.updates.retain(|it| it.status.uuid.as_ref() != Some(&uuid));
            }
            call::Type::Kill => {
                let kill = call.kill.unwrap();
                let task = self.agents.values_mut().find_map(|agent| agent.tasks.get_mut(&kill.task_id.value));
                match task {
                    Some(task) => task.kill = true,
                    None => self.answer(&kill.task_id.value, kill.agent_id.map(|it| it.value).as_deref()),
                }
            }
            call::Type::Reconcile => {
                let mut asked: Vec<(String, Option<String>)> =
                    call.reconcile.unwrap().tasks.into_iter().map(|it| (it.task_id.value, it.agent_id.map(|it| it.value))).collect();
                if asked.is_empty() {
                    let known = |(id, agent): (&String, &Agent)| {
                        agent.tasks.keys().map(|task| (task.clone(), Some(id.clone()))).collect::<Vec<_>>()
                    };
                    asked = self.agents.iter().flat_map(known).collect();
                }
                asked.iter().for_each(|(task, agent)| self.answer(task, agent.as_deref()));
            }
            other => panic!("unexpected {other:?}"),
        }
    }

    fn answer(&mut self, task: &str, agent: Option<&str>) {
        let state = self.agents.values().find_map(|agent| agent.tasks.get(task)).map(|it| it.state);
        let ended = self.updates.iter().rev().find(|it| it.status.task_id.value == task).map(|it| it.status.state());
        let state = state.or(ended).unwrap_or(match agent {
            Some(agent) if self.agents.contains_key(agent) => TaskState::TaskGone,
            _ => TaskState::TaskUnknown,
        });
        self.report(task, agent, state, Source::Master, Some(Reason::Reconciliation), "");
    }

    fn accept(&mut self, accept: call::Accept) {
        let mut tasks: Vec<TaskInfo> = accept.operations.into_iter().flat_map(|it| it.launch.unwrap().task_infos).collect();
        assert!(!tasks.is_empty(), "an empty launch");
        let id = tasks[0].agent_id.value.clone();
        let valid = self
            .agents
            .get(&id)
            .and_then(|agent| agent.offered.as_ref())
            .is_some_and(|it| accept.offer_ids.iter().all(|id| id.value == it.0));
        if !valid {
            for task in tasks {
                self.report(&task.task_id.value, Some(&id), TaskState::TaskDropped, Source::Master, Some(Reason::InvalidOffers), "");
            }
            return;
        }
        let agent = self.agents.get_mut(&id).unwrap();
        let (_, cpu, mem, mut free_ports) = agent.offered.take().unwrap();
        let executor = tasks[0].executor.clone().unwrap();
        let died = agent.offered_with_executor && agent.executor.is_none();
        let mut used = Vec::new();
        match &agent.executor {
            Some(running) => assert_eq!(*running, executor, "another executor of the same id"),
            None => {
                used.extend(executor.resources.clone());
                assert_eq!(amount(&executor.resources, "cpus"), 250);
            }
        }
        let mut refused = Vec::new();
        tasks.retain(|task| {
            let total: Vec<_> = used.iter().chain(&task.resources).cloned().collect();
            let fits = amount(&total, "cpus") <= cpu && amount(&total, "mem") <= mem;
            assert!(fits || died, "more taken than offered");
            if fits {
                used = total
            } else {
                refused.push(task.task_id.value.clone())
            }
            fits
        });
        if !tasks.is_empty() && agent.executor.is_none() {
            (agent.executor, agent.executor_registered) = (Some(executor.clone()), false);
        }
        for task in &tasks {
            assert_eq!(task.executor.as_ref(), Some(&executor));
            assert!(port_set(&task.resources).iter().all(|port| free_ports.remove(port)), "a port given twice");
        }
        for info in tasks {
            self.launches += 1;
            let task = RunningTask { info, state: TaskState::TaskStaging, kill: false };
            let id = task.info.task_id.value.clone();
            assert!(agent.tasks.insert(id, task).is_none(), "a task id used twice");
        }
        agent.refused_until = self.now;
        for task in refused {
            self.report(&task, Some(&id), TaskState::TaskError, Source::Master, Some(Reason::TaskInvalid), "too much");
        }
    }

    // Executors.

    /// The executor of an agent goes a step on with one of its tasks.
    fn execute(&mut self, id: &str) {
        let names: Vec<String> = self.agents[id].tasks.keys().cloned().collect();
        let Some(task) = self.pick(names) else { return };
        self.agents.get_mut(id).unwrap().executor_registered = true;
        let (info, state, kill) = {
            let it = &self.agents[id].tasks[&task];
            (it.info.clone(), it.state, it.kill)
        };
        let data: Value = serde_json::from_slice(info.data.as_ref().unwrap()).unwrap();
        let (name, uid) = (data["metadata"]["name"].as_str().unwrap().to_owned(), data["metadata"]["uid"].clone());
        let current = self.api.get(&name).filter(|it| it["metadata"]["uid"] == uid).cloned();
        if kill {
            if current.is_some_and(|it| it["metadata"]["annotations"]["k8s.mesosphere.io/taskId"] == *task) {
                self.remove_pod(&name);
            }
            return self.end(id, &task, TaskState::TaskKilled, "pod-deleted");
        }
        match state {
            TaskState::TaskStaging => {
                let unbound = |it: &Value| it["spec"]["nodeName"].is_null();
                if !current.as_ref().is_some_and(unbound) {
                    return self.end(id, &task, TaskState::TaskFailed, "create-binding-failure");
                }
                let pod = self.api.get_mut(&name).unwrap();
                pod["metadata"]["annotations"] = data["metadata"]["annotations"].clone();
                pod["spec"]["nodeName"] = format!("host-{id}").into();
                self.changed(&name);
                self.set(id, &task, TaskState::TaskStarting, "create-binding-success");
            }
            TaskState::TaskStarting => self.set(id, &task, TaskState::TaskRunning, "pod-running"),
            _ => {}
        }
    }

    fn set(&mut self, agent: &str, task: &str, state: TaskState, message: &str) {
        self.agents.get_mut(agent).unwrap().tasks.get_mut(task).unwrap().state = state;
        self.report(task, Some(agent), state, Source::Executor, None, message);
    }

    fn end(&mut self, agent: &str, task: &str, state: TaskState, message: &str) {
        self.agents.get_mut(agent).unwrap().tasks.remove(task);
        self.report(task, Some(agent), state, Source::Executor, None, message);
    }

    fn executor_dies(&mut self, id: &str) {
        let agent = self.agents.get_mut(id).unwrap();
        let Some(executor) = agent.executor.take() else { return };
        self.killed_runs += agent.tasks.len();
        for task in std::mem::take(&mut agent.tasks).into_keys() {
            self.report(&task, Some(id), TaskState::TaskFailed, Source::Agent, Some(Reason::ExecutorTerminated), "");
        }
        let failure = event::Failure { agent_id: Some(id.into()), executor_id: Some(executor.executor_id), status: Some(9) };
        self.event(Event { r#type: Some(event::Type::Failure.into()), failure: Some(failure), ..Event::default() });
    }

    fn agent_is_gone(&mut self, id: &str) {
        self.rescind(id);
        let agent = self.agents.remove(id).unwrap();
        self.updates.retain(|it| it.status.agent_id.as_ref().is_none_or(|of| of.value != id));
        for task in agent.tasks.into_keys() {
            self.report(&task, Some(id), TaskState::TaskGoneByOperator, Source::Master, Some(Reason::AgentRemovedByOperator), "");
        }
        let failure = event::Failure { agent_id: Some(id.into()), ..event::Failure::default() };
        self.event(Event { r#type: Some(event::Type::Failure.into()), failure: Some(failure), ..Event::default() });
        let fresh = self.id("b");
        self.agents.insert(fresh, Agent::default());
    }

    // Running it.

    fn step(&mut self, faults: bool) {
        let mut ids: Vec<String> = self.agents.keys().cloned().collect();
        let agent = ids.swap_remove(self.rng.random_range(0..ids.len()));
        match self.rng.random_range(0..100) {
            0..20 => self.hear(),
            20..35 => self.hear_watch(),
            35..50 => self.master(),
            50..58 => {
                if let Some(action) = self.writes.pop_front() {
                    self.write(action);
                }
            }
            58..68 => self.execute(&agent),
            68..74 => self.allocate(),
            74..80 => self.send_updates(),
            80..88 => {
                let most = if self.chance(20) { 4000 } else { 200 };
                self.now += Duration::from_millis(self.rng.random_range(0..most));
                self.act();
            }
            88..90 if !self.connected => self.connect(),
            90..94 if faults => self.create_pod(),
            94..96 if faults => {
                let names = self.api.keys().cloned().collect();
                if let Some(name) = self.pick(names) {
                    self.user_deletes(&name);
                }
            }
            96 if faults => self.rescind(&agent),
            97 if faults && self.chance(30) => self.disconnect(),
            98 if faults && self.chance(20) => self.crash(),
            99 if faults && self.chance(30) => {
                if self.chance(70) {
                    self.executor_dies(&agent)
                } else {
                    self.agent_is_gone(&agent)
                }
            }
            _ => {}
        }
        self.check();
    }

    fn check(&self) {
        let mut owners: HashMap<String, &str> = HashMap::new();
        for (id, agent) in &self.agents {
            self.free(id);
            for (task, running) in &agent.tasks {
                let data: Value = serde_json::from_slice(running.info.data.as_ref().unwrap()).unwrap();
                let uid = data["metadata"]["uid"].as_str().unwrap().to_owned();
                if let Some(other) = owners.insert(uid.clone(), task) {
                    panic!("pod {uid} runs twice, as {other} and {task}");
                }
            }
        }
    }

    /// What is wrong with the present state, were it the last.
    fn unfinished(&self) -> Option<String> {
        let live: BTreeMap<String, TaskState> = self
            .agents
            .values()
            .flat_map(|agent| agent.tasks.values())
            .map(|it| {
                (
                    serde_json::from_slice::<Value>(it.info.data.as_ref().unwrap()).unwrap()["metadata"]["uid"]
                        .as_str()
                        .unwrap()
                        .to_owned(),
                    it.state,
                )
            })
            .collect();
        for (name, pod) in &self.api {
            match live.get(pod["metadata"]["uid"].as_str().unwrap()) {
                Some(TaskState::TaskRunning) if pod["metadata"]["deletionTimestamp"].is_null() => {}
                state => return Some(format!("pod {name} has task {state:?}, deleted: {}", pod["metadata"]["deletionTimestamp"])),
            }
        }
        if live.len() != self.api.len() {
            return Some(format!("{} tasks for {} pods", live.len(), self.api.len()));
        }
        (!self.updates.is_empty()).then(|| "updates are not acknowledged".to_owned())
    }
}

fn run(seed: u64, steps: usize) -> Sim {
    let mut sim = Sim::new(seed);
    sim.connect();
    for _ in 0..steps {
        sim.step(true);
    }
    for _ in 0..60_000 {
        sim.step(false);
        if sim.unfinished().is_none() {
            return sim;
        }
    }
    panic!("seed {seed}: at {:?}: {}\n{}{}", sim.now, sim.unfinished().unwrap(), sim.core.debug_tasks(), sim.core.debug_queue());
}

/// Each seed runs in a thread of its name, so that a panic tells it. `KM_SIM_SEED` replays one, `KM_SIM_RUNS` runs more.
#[test]
fn pods_run_once_whatever_fails() {
    let read = |name: &str| std::env::var(name).ok().and_then(|it| it.parse::<u64>().ok());
    let seeds = match read("KM_SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..read("KM_SIM_RUNS").unwrap_or(24),
    };
    let mut launches = 0;
    for seed in seeds.clone() {
        let run = std::thread::Builder::new().name(format!("seed {seed}")).spawn(move || run(seed, 3000).launches).unwrap();
        launches += run.join().unwrap();
    }
    assert!(launches as u64 > seeds.end - seeds.start, "only {launches} launches: the simulation tests nothing");
}
