//! A master without I/O, with its agents inside: calls and time in, actions out. Its ids come from the caller or are counted, so a run can
//! be repeated step by step.

mod agents;
mod calls;
mod frameworks;
mod launch;
mod offers;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::Duration;

use super::agent::{Agent, Output};
use super::resources::Resources;
use crate::mesos::v1::scheduler::{Event, event};
use crate::mesos::v1::task_status::{Reason, Source};
use crate::mesos::v1::{FrameworkInfo, MasterInfo, TaskState, TaskStatus};

pub use frameworks::Framework;
pub(super) use frameworks::is_partition_aware;
use offers::Offered;

/// How the cluster behaves.
#[derive(Clone, Debug)]
pub struct Config {
    /// Shown in `/state`.
    pub cluster: String,
    /// How the master describes itself to subscribers.
    pub master: MasterInfo,
    /// Shortest interval between offers.
    pub allocation_interval: Duration,
    /// Interval of heartbeats to schedulers.
    pub heartbeat_interval: Duration,
}

/// An action of the cluster.
#[derive(Clone, Debug)]
pub enum Action {
    /// Send an event down a scheduler's stream.
    ToScheduler(String, Box<Event>),
    /// End a scheduler's stream.
    CloseScheduler(String),
    /// The agent of that id wants this.
    Agent(String, Output),
    /// A framework has to be stored again, or removed from the store.
    FrameworkChanged(String),
}

/// A call that is turned down with this HTTP status and text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal(pub u16, pub String);

/// A master with its agents.
#[derive(Debug)]
pub struct Master {
    config: Config,
    frameworks: BTreeMap<String, Framework>,
    removed: HashSet<String>,
    agents: BTreeMap<String, Agent>,
    /// Lost agents that may return.
    unreachable: BTreeSet<String>,
    offers: HashMap<String, Offered>,
    offers_of: HashMap<String, BTreeSet<String>>,
    next_id: u64,
    /// Agents whose free resources are considered in the next round of offers, and the earliest time of that round.
    unoffered: BTreeSet<String>,
    allocate_at: Duration,
    /// Agents with due work, and ends of filters.
    timers: BTreeSet<(Duration, String)>,
    timer_of: HashMap<String, Duration>,
    filter_ends: BTreeSet<(Duration, String)>,
}

fn new_event(r#type: event::Type) -> Event {
    Event { r#type: Some(r#type.into()), ..Event::default() }
}

impl Master {
    /// A master without frameworks and agents.
    pub fn new(config: Config) -> Self {
        Self {
            config,
            frameworks: BTreeMap::new(),
            removed: HashSet::new(),
            agents: BTreeMap::new(),
            unreachable: BTreeSet::new(),
            offers: HashMap::new(),
            offers_of: HashMap::new(),
            next_id: 0,
            unoffered: BTreeSet::new(),
            allocate_at: Duration::ZERO,
            timers: BTreeSet::new(),
            timer_of: HashMap::new(),
            filter_ends: BTreeSet::new(),
        }
    }

    pub fn config(&self) -> &Config {
        &self.config
    }

    pub fn frameworks(&self) -> impl Iterator<Item = (&String, &Framework)> {
        self.frameworks.iter()
    }

    pub fn framework(&self, id: &str) -> Option<&FrameworkInfo> {
        self.frameworks.get(id).map(|framework| &framework.info)
    }

    pub fn agents(&self) -> impl Iterator<Item = (&String, &Agent)> {
        self.agents.iter()
    }

    pub fn agent(&self, id: &str) -> Option<&Agent> {
        self.agents.get(id)
    }

    /// The resources of an agent that are currently offered.
    pub fn offered(&self, agent: &str) -> Resources {
        let mut sum = Resources::default();
        self.offers_of.get(agent).into_iter().flatten().filter_map(|id| self.offers.get(id)).for_each(|offer| sum.add(&offer.resources));
        sum
    }

    /// Does all due work: offers, repetitions, heartbeats, the removal of frameworks that did not come back.
    pub fn tick(&mut self, now: Duration) -> Vec<Action> {
        let mut out = Vec::new();
        while let Some((_, id)) = self.timers.first().filter(|(at, _)| *at <= now).cloned() {
            self.with_agent(&id, &mut out, |agent| agent.tick(now));
        }
        while let Some((_, agent)) = self.filter_ends.pop_first_if_due(now) {
            self.unoffered.insert(agent);
        }
        let mut gone = Vec::new();
        for (id, framework) in &mut self.frameworks {
            if framework.gone_at.is_some_and(|at| at <= now) {
                gone.push(id.clone());
            } else if framework.stream.is_some() && framework.heartbeat_at <= now {
                framework.heartbeat_at = now + self.config.heartbeat_interval;
                framework.send(new_event(event::Type::Heartbeat), &mut out);
            }
        }
        gone.iter().for_each(|id| self.remove_framework(now, id, &mut out));
        if !self.unoffered.is_empty() && self.allocate_at <= now {
            self.allocate_at = now + self.config.allocation_interval;
            self.allocate(now, &mut out);
        }
        out
    }

    /// When something is due next.
    pub fn deadline(&self) -> Option<Duration> {
        let framework = |framework: &Framework| framework.gone_at.or_else(|| framework.stream.as_ref().map(|_| framework.heartbeat_at));
        let first = |timers: &BTreeSet<(Duration, String)>| timers.first().map(|(at, _)| *at);
        let offers = (!self.unoffered.is_empty()).then_some(self.allocate_at);
        let others = [first(&self.timers), first(&self.filter_ends), offers];
        self.frameworks.values().filter_map(framework).chain(others.into_iter().flatten()).min()
    }
}

/// Takes the first of a set while it is due.
trait PopDue {
    fn pop_first_if_due(&mut self, now: Duration) -> Option<(Duration, String)>;
}

impl PopDue for BTreeSet<(Duration, String)> {
    fn pop_first_if_due(&mut self, now: Duration) -> Option<(Duration, String)> {
        self.first().is_some_and(|(at, _)| *at <= now).then(|| self.pop_first()).flatten()
    }
}

fn update(status: TaskStatus) -> Event {
    Event { update: Some(event::Update { status }), ..new_event(event::Type::Update) }
}

/// A status update by the master itself, which needs no acknowledgement.
pub(super) fn master_status(now: Duration, task: &str, state: TaskState, reason: Reason, message: &str) -> TaskStatus {
    TaskStatus {
        task_id: task.into(),
        state: state.into(),
        source: Some(Source::Master.into()),
        reason: Some(reason.into()),
        message: Some(message.to_owned()),
        timestamp: Some(now.as_secs_f64()),
        ..TaskStatus::default()
    }
}
