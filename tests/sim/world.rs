//! The world: one clock and one source of randomness for everything, and the choice of the next step.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use km::local_mesos::agent::Key;
use km::runtime::ContainerSpec;
use km::runtime::fake::{Behaviour, Engine};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use crate::api::{Api, Change, text};
use crate::executor::Machine;
use crate::mesos::{Mesos, Place};
use crate::scheduler::Scheduler;

/// The start of the clock.
const EPOCH: Duration = Duration::from_secs(1_780_000_000);
const MACHINES: usize = 4;
/// How many log lines a failure prints, unless `KM_SIM_LINES` overrides it.
const LINES: usize = 120;

/// A possible next step.
#[derive(Clone, Debug, Hash)]
pub enum Ready {
    StorageActs(String),
    SchedulerStarts,
    SchedulerConnects,
    SchedulerHears,
    SchedulerSees,
    SchedulerLearns,
    SchedulerWrites(usize),
    SchedulerWakes,
    MasterStarts,
    MasterHears,
    MasterWakes,
    MasterNotices,
    AgentWakes(String),
    AgentReturns(String),
    EngineReturns(String),
    Executor(String, Key, ExecutorReady),
}

/// A possible next step in an executor.
#[derive(Clone, Debug, Hash)]
pub enum ExecutorReady {
    Missed,
    Starts,
    Connects,
    Says,
    Hears,
    Lists,
    Sees,
    Event,
    Report,
    Ended,
    Sign,
    News,
    Answer,
    FindsLeftovers,
    Wakes,
    Writes(usize),
    Binds(usize),
    Annotates,
    Operates(String, usize),
    PodWakes(String),
    Leaves,
}

#[derive(Default)]
pub struct Stats {
    pub steps: usize,
    pub launches: usize,
    pub created: usize,
    pub faults: usize,
    /// Claims bound, and bindings given up.
    pub bound: usize,
    pub given_up: usize,
}

pub struct World {
    pub rng: StdRng,
    pub now: Duration,
    /// Whether faults occur.
    pub faulty: bool,
    pub api: Api,
    pub mesos: Mesos,
    pub scheduler: Scheduler,
    pub machines: BTreeMap<String, Machine>,
    pub next_pod: u64,
    /// Pods whose tasks Mesos has ended: these may be deleted without their user.
    pub excused: BTreeSet<String>,
    pub stats: Stats,
    log: VecDeque<String>,
    lines: usize,
    /// Hash of all events so far.
    pub hash: u64,
}

pub fn timestamp(now: Duration) -> Timestamp {
    Timestamp::UNIX_EPOCH + SignedDuration::try_from(now).expect("the run is short")
}

/// The image determines a container's behaviour.
fn behaviour(spec: &ContainerSpec, made: usize) -> Behaviour {
    let after = |seconds, code| Behaviour { exit: Some((Duration::from_secs(seconds), code)), ..Behaviour::default() };
    match spec.image.as_str() {
        "done" => after(20, 0),
        "fails" => after(20, 1),
        "broken" => Behaviour { refuse: (made < 2).then(|| "no such file".to_owned()), ..Behaviour::default() },
        "stubborn" => Behaviour { stopping: Duration::from_secs(600), ..Behaviour::default() },
        "slow" => Behaviour { stopping: Duration::from_secs(8), ..Behaviour::default() },
        _ => Behaviour::default(),
    }
}

impl World {
    pub fn new(seed: u64) -> Self {
        let machine = |number: usize| {
            let machine =
                Machine { engine: Engine::new(behaviour), engine_returns: None, agent: Place::Dead(EPOCH), executors: BTreeMap::new() };
            (format!("m{number}"), machine)
        };
        let mut world = Self {
            rng: StdRng::seed_from_u64(seed),
            now: EPOCH,
            faulty: true,
            api: Api::default(),
            mesos: Mesos::default(),
            scheduler: Scheduler::default(),
            machines: (0..MACHINES).map(machine).collect(),
            next_pod: 0,
            excused: BTreeSet::new(),
            stats: Stats::default(),
            log: VecDeque::new(),
            lines: crate::number("KM_SIM_LINES").map_or(LINES, |it| it as usize),
            hash: 0,
        };
        world.make_volumes();
        world
    }

    pub fn random(&mut self) -> u64 {
        self.rng.random()
    }

    pub fn chance(&mut self, percent: u32) -> bool {
        self.rng.random_range(0..100) < percent
    }

    /// Whether a fault occurs this time.
    pub fn fails(&mut self, percent: u32) -> bool {
        self.faulty && self.chance(percent)
    }

    /// A duration of at most this many seconds, mostly much shorter.
    pub fn up_to(&mut self, seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds * self.rng.random::<f64>().powi(3))
    }

    /// Logs an event for failure analysis.
    pub fn note(&mut self, line: impl FnOnce() -> String) {
        let at = self.now.saturating_sub(EPOCH);
        let line = format!("{:>9.3} {}", at.as_secs_f64(), line());
        let mut hasher = DefaultHasher::new();
        (self.hash, &line).hash(&mut hasher);
        self.hash = hasher.finish();
        self.log.push_back(line);
        if self.log.len() > self.lines {
            self.log.pop_front();
        }
    }

    /// The last lines of the log.
    pub fn story(&self) -> String {
        self.log.iter().map(|line| format!("{line}\n")).collect()
    }

    fn ready(&self) -> Vec<Ready> {
        let mut ready: Vec<Ready> = self.storage_ready().into_iter().map(Ready::StorageActs).collect();
        self.scheduler_ready(&mut ready);
        self.mesos_ready(&mut ready);
        self.executors_ready(&mut ready);
        ready
    }

    /// Takes one step.
    pub fn step(&mut self) {
        self.stats.steps += 1;
        let mut ready = self.ready();
        if self.faulty && self.chance(3) {
            self.fault();
        } else if ready.is_empty() || self.chance(10) {
            self.pass_time(ready.is_empty());
        } else {
            let at = self.rng.random_range(0..ready.len());
            self.happen(ready.swap_remove(at));
        }
        self.spread_changes();
        self.check();
    }

    fn pass_time(&mut self, idle: bool) {
        let mut due = Vec::new();
        if idle {
            self.scheduler_due(&mut due);
            self.mesos_due(&mut due);
            self.executors_due(&mut due);
        }
        self.now = match due.into_iter().filter(|at| *at > self.now && *at < EPOCH * 2).min() {
            Some(next) => next,
            None => self.now + if self.faulty && self.chance(3) { self.up_to(400.0) } else { self.up_to(2.0) },
        };
        let now = timestamp(self.now);
        for host in self.hosts() {
            self.machine(&host).engine.settle(now);
            self.engine_tells(&host);
        }
    }

    pub fn hosts(&self) -> Vec<String> {
        self.machines.keys().cloned().collect()
    }

    fn happen(&mut self, what: Ready) {
        self.note(|| format!("{what:?}"));
        match what {
            Ready::StorageActs(name) => self.storage_acts(&name),
            Ready::SchedulerStarts => self.scheduler_starts(),
            Ready::SchedulerConnects => self.scheduler_connects(),
            Ready::SchedulerHears => self.scheduler_hears(),
            Ready::SchedulerSees => self.scheduler_sees(),
            Ready::SchedulerLearns => self.scheduler_learns(),
            Ready::SchedulerWrites(at) => self.scheduler_writes(at),
            Ready::SchedulerWakes => self.scheduler_wakes(),
            Ready::MasterStarts => self.master_starts(),
            Ready::MasterHears => self.master_hears(),
            Ready::MasterWakes => self.master_wakes(),
            Ready::MasterNotices => self.master_notices(),
            Ready::AgentWakes(host) => self.agent_wakes(&host),
            Ready::AgentReturns(host) => self.agent_returns(&host),
            Ready::EngineReturns(host) => self.engine_returns(&host),
            Ready::Executor(host, key, what) => self.executor_goes_on(&host, &key, what),
        }
    }

    /// Passes API changes on to the watchers.
    pub fn spread_changes(&mut self) {
        for change in self.api.take_changes() {
            if let Some(process) = &mut self.scheduler.process {
                process.see(&change);
            }
            let node = match &change {
                Change::Pod(pod) | Change::PodGone(pod) => pod.field("spec.nodeName").unwrap_or_default().to_owned(),
                _ => continue,
            };
            let Some(machine) = self.machines.get_mut(&node) else { continue };
            for process in machine.executors.values_mut().filter_map(|it| it.process.as_mut()) {
                process.watch.push_back(change.clone());
            }
        }
    }

    /// The names of all pods.
    pub fn pod_names(&self) -> Vec<String> {
        self.api.pods.values().map(|pod| text(pod, "/metadata/name").to_owned()).collect()
    }
}
