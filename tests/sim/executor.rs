//! Executors: their process on a machine, its session with the agent, its watch and its writes to the API.

mod api;
mod engine;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use km::executor::bind::{Binding, Step};
use km::executor::core::{Action, Core, Input, Settings};
use km::executor::engine::Sign;
use km::executor::life::Report;
use km::executor::names::{OWNER, PodId};
use km::executor::statuses::{Backlog, Begin, News};
use km::local_mesos::agent::{self, Key};
use km::mesos::executor::protocol::{Lost, Next, Protocol};
use km::mesos::executor::{Environment, ExecutorEvent};
use km::mesos::v1::executor::{Call, Event};
use km::runtime::fake::Engine;
use km::util::product::KUBERNETES;

use crate::api::Change;
use crate::life::Body;
use crate::mesos::Place;
use crate::world::{ExecutorReady, Ready, World, timestamp};

/// A machine of the cluster.
pub struct Machine {
    pub engine: Engine,
    /// When the container engine is up again, if it is down.
    pub engine_returns: Option<Duration>,
    pub agent: Place,
    pub executors: BTreeMap<Key, Executor>,
}

/// An executor that an agent has launched; it restarts the process when that dies, as the minion does.
pub struct Executor {
    launched: agent::Executor,
    pub environment: Environment,
    pub process: Option<Process>,
    starts_at: Duration,
    /// When the agent notices that the connection is gone.
    notices_at: Option<Duration>,
}

/// The connection to the agent.
#[derive(Default)]
struct Link {
    to_agent: VecDeque<Call>,
    to_executor: VecDeque<Event>,
}

pub struct Process {
    protocol: Protocol,
    link: Option<Link>,
    connects_at: Duration,
    away_since: Duration,
    pub core: Core,
    pub bodies: BTreeMap<String, Body>,
    backlog: Backlog,
    writes: Vec<(Duration, Begin)>,
    bindings: Vec<Bound>,
    /// Whether the executor follows the watch; otherwise it lists first.
    listed: bool,
    pub watch: VecDeque<Change>,
    /// Inputs of the core from its parts, each in order.
    from_agent: VecDeque<ExecutorEvent>,
    pub reports: VecDeque<Report>,
    pub ended: VecDeque<PodId>,
    pub signs: VecDeque<Sign>,
    news: VecDeque<News>,
    answers: VecDeque<Input>,
    /// The node needs its executor's annotations.
    annotates: bool,
    looks_for_leftovers: bool,
    /// The API server is unreachable until then.
    pub cut_off: Duration,
    /// Only the last updates must still be acknowledged, until then.
    leaves_at: Option<Duration>,
}

/// A binding in progress.
struct Bound {
    task: String,
    pod: Box<Pod>,
    binding: Binding,
    step: Step,
    at: Duration,
}

fn owner(host: &str, key: &Key) -> String {
    format!("{}/{host}", key.0)
}

impl World {
    pub fn machine(&mut self, host: &str) -> &mut Machine {
        self.machines.get_mut(host).expect("machines stay")
    }

    fn executor(&mut self, host: &str, key: &Key) -> Option<&mut Executor> {
        self.machine(host).executors.get_mut(key)
    }

    pub fn process(&mut self, host: &str, key: &Key) -> Option<&mut Process> {
        self.executor(host, key)?.process.as_mut()
    }

    pub fn owner(host: &str, key: &Key) -> String {
        owner(host, key)
    }

    pub fn launch_executor(&mut self, host: &str, launched: agent::Executor) {
        let key = (launched.framework.id.clone().unwrap_or_default().value, launched.info.executor_id.value.clone());
        let environment = Environment {
            framework_id: key.0.as_str().into(),
            executor_id: key.1.as_str().into(),
            agent_id: None,
            endpoint: String::new(),
            path: String::new(),
            directory: "/".into(),
            checkpoint: true,
            recovery_timeout: Duration::from_mins(15),
            shutdown_grace_period: Duration::from_secs(5),
            subscription_backoff_max: Duration::from_secs(2),
            token: None,
        };
        let starts_at = self.now + self.up_to(20.0);
        let executor = Executor { launched, environment, process: None, starts_at, notices_at: None };
        self.machine(host).executors.insert(key, executor);
    }

    /// The agent destroys the executor's container.
    pub fn executor_is_killed(&mut self, host: &str, key: &Key) {
        if self.machine(host).executors.remove(key).is_some() {
            self.executor_exited(host, key, 137);
        }
    }

    fn executor_exited(&mut self, host: &str, key: &Key, status: i32) {
        // Its pods have lost their tasks.
        let tasks = self.agent(host).into_iter().flat_map(|agent| agent.tasks());
        let excused: Vec<String> =
            tasks.filter(|(_, task)| (&task.framework_id, &task.executor_id) == (&key.0, &key.1)).map(|(_, task)| uid_of(task)).collect();
        self.excused.extend(excused);
        self.of_agent(
            host,
            |master, agent, now| master.executor_exited(now, agent, key, status),
            |agent, now| agent.exited(now, key, status),
        );
    }

    /// The process dies and restarts.
    pub fn executor_dies(&mut self, host: &str, key: &Key) {
        let (notices, starts) = (self.now + self.up_to(20.0), self.now + Duration::from_secs(1) + self.up_to(10.0));
        let Some(executor) = self.executor(host, key) else { return };
        if executor.process.take().is_some() {
            (executor.notices_at, executor.starts_at) = (Some(notices), starts);
        }
    }

    pub fn executor_loses_agent(&mut self, host: &str, key: &Key) {
        while self.process(host, key).and_then(|it| it.link.as_ref()).is_some_and(|it| !it.to_agent.is_empty()) && self.chance(50) {
            self.executor_says(host, key);
        }
        let (now, notices, pause) = (self.now, self.now + self.up_to(20.0), self.up_to(2.0));
        let Some(executor) = self.executor(host, key) else { return };
        let Some(process) = executor.process.as_mut() else { return };
        let Some(link) = process.link.take() else { return };
        // Arrived data is read before the end of the connection is noticed.
        drop(link.to_executor);
        process.from_agent.push_back(ExecutorEvent::Disconnected("cut".to_owned()));
        (process.away_since, process.connects_at) = (now, now + pause);
        let next = process.protocol.lost(Lost::Away("cut"), Duration::ZERO, &executor.environment);
        follow(next, process);
        executor.notices_at = Some(notices);
    }

    pub fn tell_executor(&mut self, host: &str, key: &Key, event: Event) {
        if let Some(link) = self.process(host, key).and_then(|it| it.link.as_mut()) {
            link.to_executor.push_back(event);
        }
    }

    pub fn executors_ready(&self, ready: &mut Vec<Ready>) {
        for (host, machine) in &self.machines {
            ready.extend(machine.engine_returns.filter(|at| *at <= self.now).map(|_| Ready::EngineReturns(host.clone())));
            for (key, executor) in &machine.executors {
                let mut found = Vec::new();
                self.executor_ready(machine, executor, &mut found);
                ready.extend(found.into_iter().map(|it| Ready::Executor(host.clone(), key.clone(), it)));
            }
        }
    }

    fn executor_ready(&self, machine: &Machine, executor: &Executor, ready: &mut Vec<ExecutorReady>) {
        use ExecutorReady as Is;
        ready.extend(executor.notices_at.filter(|at| *at <= self.now).map(|_| Is::Missed));
        let Some(process) = &executor.process else {
            ready.extend((self.now >= executor.starts_at).then_some(Is::Starts));
            return;
        };
        let agent_listens = match &machine.agent {
            Place::WithMaster => self.mesos.master.is_some(),
            Place::Alone(..) => true,
            Place::Dead(_) => false,
        };
        match &process.link {
            Some(link) => {
                ready.extend((!link.to_agent.is_empty()).then_some(Is::Says));
                ready.extend((!link.to_executor.is_empty()).then_some(Is::Hears));
            }
            None => ready.extend((agent_listens && self.now >= process.connects_at).then_some(Is::Connects)),
        }
        if let Some(at) = process.leaves_at {
            ready.extend((process.protocol.is_settled() || at <= self.now).then_some(Is::Leaves));
            return;
        }
        let api = self.now >= process.cut_off;
        ready.extend(process.writes.iter().enumerate().filter(|(_, (at, _))| *at <= self.now).map(|(at, _)| Is::Writes(at)));
        ready.extend(process.bindings.iter().enumerate().filter(|(_, it)| it.at <= self.now).map(|(at, _)| Is::Binds(at)));
        ready.extend((process.annotates && api).then_some(Is::Annotates));
        if !process.listed {
            ready.extend(api.then_some(Is::Lists));
            return;
        }
        ready.extend((!process.watch.is_empty() && api).then_some(Is::Sees));
        ready.extend((!process.from_agent.is_empty() && !process.core.is_ending()).then_some(Is::Event));
        ready.extend((!process.reports.is_empty()).then_some(Is::Report));
        ready.extend((!process.ended.is_empty()).then_some(Is::Ended));
        ready.extend((!process.signs.is_empty()).then_some(Is::Sign));
        ready.extend((!process.news.is_empty()).then_some(Is::News));
        ready.extend((!process.answers.is_empty()).then_some(Is::Answer));
        ready.extend(process.looks_for_leftovers.then_some(Is::FindsLeftovers));
        let now = timestamp(self.now);
        ready.extend(process.core.wake_at().filter(|at| *at <= now).map(|_| Is::Wakes));
        for (uid, body) in &process.bodies {
            ready.extend(body.ready(self.now).into_iter().map(|at| Is::Operates(uid.clone(), at)));
            ready.extend(body.life.machine().wake_at().filter(|at| *at <= now).map(|_| Is::PodWakes(uid.clone())));
        }
    }

    pub fn executors_due(&self, due: &mut Vec<Duration>) {
        let since_epoch = |at: jiff::Timestamp| Duration::try_from(at.duration_since(jiff::Timestamp::UNIX_EPOCH)).unwrap_or_default();
        for machine in self.machines.values() {
            due.extend(machine.engine_returns);
            due.extend(machine.engine.next_end().map(since_epoch));
            for executor in machine.executors.values() {
                due.extend(executor.notices_at);
                let Some(process) = &executor.process else {
                    due.push(executor.starts_at);
                    continue;
                };
                due.push(process.cut_off);
                due.push(process.connects_at);
                due.extend(process.leaves_at);
                due.extend(process.writes.iter().map(|(at, _)| *at));
                due.extend(process.bindings.iter().map(|it| it.at));
                due.extend(process.core.wake_at().map(since_epoch));
                for body in process.bodies.values() {
                    due.extend(body.due());
                    due.extend(body.life.machine().wake_at().map(since_epoch));
                }
            }
        }
    }

    pub fn executor_goes_on(&mut self, host: &str, key: &Key, what: ExecutorReady) {
        use ExecutorReady as Is;
        macro_rules! input {
            ($queue:ident, $input:expr) => {
                if let Some(it) = self.process(host, key).and_then(|process| process.$queue.pop_front()) {
                    self.executor_input(host, key, $input(it));
                }
            };
        }
        match what {
            Is::Missed => {
                if let Some(executor) = self.executor(host, key) {
                    executor.notices_at = None;
                }
                let gone = |agent: &mut agent::Agent| {
                    agent.disconnected(key);
                    Vec::new()
                };
                let in_master = |master: &mut km::local_mesos::master::Master, agent: &str, _| {
                    master.executor_disconnected(agent, key);
                    Vec::new()
                };
                self.of_agent(host, in_master, |agent, _| gone(agent));
            }
            Is::Starts => self.executor_starts(host, key),
            Is::Connects => self.executor_connects(host, key),
            Is::Says => self.executor_says(host, key),
            Is::Hears => self.executor_hears(host, key),
            Is::Lists => self.executor_lists(host, key),
            Is::Sees => {
                let change = self.process(host, key).and_then(|process| process.watch.pop_front());
                let input = match change {
                    Some(Change::Pod(pod)) => Input::Pod(pod),
                    Some(Change::PodGone(pod)) => Input::Gone(pod.meta().uid.to_string()),
                    _ => return,
                };
                self.executor_input(host, key, input);
            }
            Is::Event => input!(from_agent, |event| match event {
                ExecutorEvent::Subscribed(_) => Input::Static(Vec::new()),
                event => Input::Mesos(Box::new(event)),
            }),
            Is::Report => input!(reports, |report| Input::Status(Box::new(report))),
            Is::Ended => input!(ended, Input::Ended),
            Is::Sign => input!(signs, Input::Engine),
            Is::News => input!(news, Input::from),
            Is::Answer => input!(answers, |input| input),
            Is::FindsLeftovers => {
                let mine = owner(host, key);
                let listed = self.machine(host).engine.list(OWNER, Some(&mine)).unwrap_or_default();
                let mut found: Vec<PodId> = listed.iter().filter_map(|it| PodId::of_labels(&it.labels)).collect();
                found.sort();
                found.dedup();
                if let Some(process) = self.process(host, key) {
                    process.looks_for_leftovers = false;
                    process.answers.push_back(Input::Leftovers(found));
                }
            }
            Is::Wakes => self.executor_input(host, key, Input::Tick),
            Is::Writes(at) => self.executor_writes(host, key, at),
            Is::Binds(at) => self.executor_binds(host, key, at),
            Is::Annotates => self.executor_annotates(host, key),
            Is::Operates(uid, at) => self.pod_operates(host, key, &uid, at),
            Is::PodWakes(uid) => self.pod_input(host, key, &uid, km::executor::pod::Input::Tick),
            Is::Leaves => {
                self.machine(host).executors.remove(key);
                self.executor_exited(host, key, 0);
            }
        }
    }

    fn executor_starts(&mut self, host: &str, key: &Key) {
        let settings = Settings {
            product: KUBERNETES,
            has_mesos: true,
            suicide_timeout: Duration::from_mins(20),
            // Engines are down for longer than pods may take to start.
            launch_grace: Duration::from_hours(10),
        };
        let now = self.now;
        let up = !self.machine(host).engine.is_down();
        let Some(executor) = self.executor(host, key) else { return };
        executor.process = Some(Process {
            protocol: Protocol::default(),
            link: None,
            connects_at: now,
            away_since: now,
            core: Core::new(&settings, timestamp(now)),
            bodies: BTreeMap::new(),
            backlog: Backlog::default(),
            writes: Vec::new(),
            bindings: Vec::new(),
            listed: false,
            watch: VecDeque::new(),
            from_agent: VecDeque::new(),
            reports: VecDeque::new(),
            ended: VecDeque::new(),
            signs: up.then_some(Sign::Up).into_iter().collect(),
            news: VecDeque::new(),
            answers: VecDeque::new(),
            annotates: false,
            looks_for_leftovers: false,
            cut_off: Duration::ZERO,
            leaves_at: None,
        });
    }

    fn executor_connects(&mut self, host: &str, key: &Key) {
        let Some(executor) = self.executor(host, key) else { return };
        let Some(process) = executor.process.as_mut() else { return };
        let call = process.protocol.subscribe(&executor.environment);
        process.link = Some(Link::default());
        (executor.notices_at, process.annotates) = (None, false);
        let mut refused = None;
        let subscribe = call.subscribe.clone().unwrap_or_default();
        let cell = &mut refused;
        let now = self.now;
        match &mut self.machine(host).agent {
            Place::Alone(agent, _) => match agent.subscribe(now, key, subscribe) {
                Ok(outputs) => outputs.into_iter().for_each(|output| self.agent_says(host, output)),
                Err(why) => *cell = Some(why.to_owned()),
            },
            Place::WithMaster => {
                let Some(master) = &mut self.mesos.master else { return };
                match master.executor_subscribe(now, &crate::mesos::agent_id(host), call) {
                    Ok(actions) => self.carry_out(actions),
                    Err(refusal) => *cell = Some(refusal.1),
                }
            }
            Place::Dead(_) => {}
        }
        if let Some(why) = refused {
            let Some(executor) = self.executor(host, key) else { return };
            let Some(process) = executor.process.as_mut() else { return };
            process.link = None;
            let next = process.protocol.lost(Lost::Refused(&why), now.saturating_sub(process.away_since), &executor.environment);
            process.connects_at = now + Duration::from_secs(1);
            follow(next, process);
        }
    }

    pub fn executor_says(&mut self, host: &str, key: &Key) {
        let Some(call) = self.process(host, key).and_then(|it| it.link.as_mut()?.to_agent.pop_front()) else { return };
        let again = call.clone();
        self.of_agent(
            host,
            |master, agent, now| master.executor_call(now, agent, call).unwrap_or_default(),
            |agent, now| agent.call(now, key, again).unwrap_or_default(),
        );
    }

    fn executor_hears(&mut self, host: &str, key: &Key) {
        let Some(executor) = self.executor(host, key) else { return };
        let Some(process) = executor.process.as_mut() else { return };
        let Some(link) = process.link.as_mut() else { return };
        let Some(event) = link.to_executor.pop_front() else { return };
        if let Some(subscribed) = &event.subscribed {
            link.to_agent.extend(process.protocol.subscribed(&executor.environment));
            process.from_agent.push_back(ExecutorEvent::Subscribed(Box::new(subscribed.clone())));
            process.annotates = true;
            return;
        }
        match process.protocol.heard(event) {
            Ok(heard) => process.from_agent.extend(heard),
            Err(_) => self.executor_loses_agent(host, key),
        }
    }

    fn executor_input(&mut self, host: &str, key: &Key, input: Input) {
        let (now, instant) = (self.now, timestamp(self.now));
        let Some(process) = self.process(host, key) else { return };
        let actions = process.core.handle(input, instant);
        for action in actions {
            self.note(|| match &action {
                Action::Update(status) => format!("{} is {} {}", status.task_id, status.state().as_str_name(), status.message()),
                Action::Start { pod, .. } => format!("start {:?}", pod.metadata.uid),
                Action::Bind { task, .. } => format!("bind {task}"),
                other => format!("{other:?}").chars().take(100).collect(),
            });
            match action {
                Action::Update(status) => {
                    let uuid = uuid::Builder::from_random_bytes(rand::RngExt::random(&mut self.rng)).into_uuid();
                    let Some(executor) = self.executor(host, key) else { return };
                    let Some(process) = executor.process.as_mut() else { return };
                    let call = process.protocol.update(*status, uuid, now, &executor.environment);
                    if let (Some(link), Some(call)) = (&mut process.link, call) {
                        link.to_agent.push_back(call);
                    }
                }
                Action::Bind { task, pod } => {
                    let Some(process) = self.process(host, key) else { return };
                    let binding = Binding::of(&pod);
                    process.bindings.push(Bound { task, pod, binding, step: Step::Try, at: now });
                }
                Action::Start { pod, .. } => self.pod_starts(host, key, pod),
                Action::CheckMirror(_) => unreachable!("there are no static pods"),
                Action::Tell(uid, notice) => self.pod_input(host, key, &uid, notice.into()),
                Action::FindLeftovers => self.process(host, key).into_iter().for_each(|it| it.looks_for_leftovers = true),
            }
        }
        if let Some(process) = self.process(host, key)
            && process.core.has_ended(instant)
        {
            process.leaves_at = Some(now + Duration::from_secs(5));
        }
    }

    fn agent_says(&mut self, host: &str, output: agent::Output) {
        self.carry_out(vec![km::local_mesos::master::Action::Agent(crate::mesos::agent_id(host), output)]);
    }
}

fn follow(next: Next, process: &mut Process) {
    if let Next::GiveUp(why) = next {
        process.from_agent.push_back(ExecutorEvent::Shutdown(why));
        process.connects_at = Duration::MAX;
    } else if next == Next::Over {
        process.connects_at = Duration::MAX;
    }
}

/// The uid of the pod in a task.
pub fn uid_of(task: &agent::Task) -> String {
    uid_in(task.info.data())
}

/// The uid of the pod in a task's data.
pub fn uid_in(data: &[u8]) -> String {
    const UID: &str = "\"uid\":\"";
    let pod = std::str::from_utf8(data).unwrap();
    let from = pod.find(UID).expect("a task has its pod") + UID.len();
    pod[from..].chars().take_while(|it| *it != '"').collect()
}
