//! A master without I/O, with its agents inside: calls and time in, actions out.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::Duration;

use super::agent::{Agent, Change, Executor, Key, Output, Task};
use super::resources::{Resources, UNRESERVED};
use super::validation;
use crate::mesos::v1::framework_info::capability::Type as Capability;
use crate::mesos::v1::scheduler::{Call, Event, call, event};
use crate::mesos::v1::task_status::{Reason, Source};
use crate::mesos::v1::{
    AgentInfo, ExecutorInfo, Filters, FrameworkId, FrameworkInfo, MasterInfo, Offer, TaskId, TaskInfo, TaskState, TaskStatus, executor,
    offer,
};

/// How the cluster behaves.
#[derive(Clone, Debug)]
pub struct Config {
    /// Shown in `/state`.
    pub cluster: String,
    /// How the master describes itself to subscribers.
    pub master: MasterInfo,
    /// At most so often are resources offered.
    pub allocation_interval: Duration,
    /// How often subscribed schedulers hear a heartbeat.
    pub heartbeat_interval: Duration,
}

/// What the cluster wants done.
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

/// A framework.
#[derive(Debug)]
pub struct Framework {
    pub info: FrameworkInfo,
    /// Its stream, while it is subscribed.
    pub stream: Option<String>,
    /// When it is removed for good, unless it comes back.
    gone_at: Option<Duration>,
    heartbeat_at: Duration,
    suppressed: BTreeSet<String>,
    /// By agent: until when, and which resources, it does not want.
    filters: HashMap<String, (Duration, Resources)>,
    /// Agents of its tasks.
    tasks: BTreeMap<String, String>,
}

#[derive(Debug)]
struct Offered {
    framework: String,
    agent: String,
    role: String,
    resources: Resources,
}

/// A master with its agents.
#[derive(Debug)]
pub struct Master {
    config: Config,
    frameworks: BTreeMap<String, Framework>,
    removed: HashSet<String>,
    agents: BTreeMap<String, Agent>,
    offers: HashMap<String, Offered>,
    offers_of: HashMap<String, BTreeSet<String>>,
    next_id: u64,
    /// Agents whose free resources are to be looked at in the next round of offers, and the earliest time of that round.
    unoffered: BTreeSet<String>,
    allocate_at: Duration,
    /// Agents with something due, and filters that end.
    timers: BTreeSet<(Duration, String)>,
    timer_of: HashMap<String, Duration>,
    filter_ends: BTreeSet<(Duration, String)>,
}

/// Whether the framework tells the ways in which a task is lost apart.
pub(super) fn is_partition_aware(info: &FrameworkInfo) -> bool {
    has(info, Capability::PartitionAware)
}

fn has(info: &FrameworkInfo, wanted: Capability) -> bool {
    info.capabilities.iter().any(|capability| capability.r#type() == wanted)
}

fn roles(info: &FrameworkInfo) -> Vec<&str> {
    if has(info, Capability::MultiRole) { info.roles.iter().map(String::as_str).collect() } else { vec![info.role()] }
}

fn event(r#type: event::Type) -> Event {
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

    /// What of an agent is in offers at the moment.
    pub fn offered(&self, agent: &str) -> Resources {
        let mut sum = Resources::default();
        self.offers_of.get(agent).into_iter().flatten().filter_map(|id| self.offers.get(id)).for_each(|offer| sum.add(&offer.resources));
        sum
    }

    /// Adds an agent, which has its id in `info`, with the executors and tasks it had before.
    ///
    /// # Errors
    /// If its resources make no sense.
    pub fn add_agent(&mut self, now: Duration, info: AgentInfo, executors: Vec<Executor>, tasks: Vec<Task>) -> Result<Vec<Action>, String> {
        let id = info.id.clone().unwrap_or_default().value;
        let mut agent = Agent::new(info)?;
        for task in &tasks {
            if let Some(framework) = self.frameworks.get_mut(&task.framework_id) {
                framework.tasks.insert(task.info.task_id.value.clone(), id.clone());
            }
        }
        let outputs = agent.recover(now, executors, tasks);
        self.agents.insert(id.clone(), agent);
        self.unoffered.insert(id.clone());
        let mut out = Vec::new();
        self.absorb(&id, outputs, &mut out);
        Ok(out)
    }

    /// Takes a framework over that was stored; it is expected back within its failover timeout.
    pub fn add_framework(&mut self, now: Duration, info: FrameworkInfo) {
        let id = info.id.clone().unwrap_or_default().value;
        if let Some(number) = id.rsplit('-').next().and_then(|number| number.parse::<u64>().ok()) {
            self.next_id = self.next_id.max(number + 1);
        }
        let gone_at = failover_end(now, &info);
        self.frameworks.insert(id, Framework::new(info, None, gone_at));
    }

    /// Loses an agent: its tasks are unreachable, and stay so.
    pub fn remove_agent(&mut self, now: Duration, id: &str) -> Vec<Action> {
        let mut out = Vec::new();
        let Some(agent) = self.agents.remove(id) else { return out };
        for offer in self.offers_of.remove(id).unwrap_or_default() {
            self.rescind(&offer, &mut out);
        }
        self.timer_of.remove(id).map(|at| self.timers.remove(&(at, id.to_owned())));
        for (key, task) in agent.tasks() {
            let Some(framework) = self.frameworks.get_mut(&key.0) else { continue };
            framework.tasks.remove(&key.1);
            if task.state().is_terminal() {
                continue;
            }
            let state = framework.lost_as(TaskState::TaskUnreachable);
            let status = master_status(now, &key.1, state, Reason::AgentRemoved, "Agent is unreachable");
            framework.send(update(TaskStatus { agent_id: agent.info.id.clone(), ..status }), &mut out);
        }
        for framework in self.frameworks.values() {
            let failure = Some(event::Failure { agent_id: agent.info.id.clone(), ..event::Failure::default() });
            framework.send(Event { failure, ..event(event::Type::Failure) }, &mut out);
        }
        out
    }

    /// A scheduler subscribes on a new stream.
    ///
    /// # Errors
    /// If it may not.
    pub fn subscribe(&mut self, now: Duration, subscribe: call::Subscribe, stream: String) -> Result<Vec<Action>, Refusal> {
        let mut info = subscribe.framework_info;
        let mut out = Vec::new();
        let error = |message: &str| Event { error: Some(event::Error { message: message.to_owned() }), ..event(event::Type::Error) };
        if let Err(message) = validation::framework(&info) {
            return Ok(vec![Action::ToScheduler(stream.clone(), Box::new(error(&message))), Action::CloseScheduler(stream)]);
        }
        let id = match info.id.clone().filter(|id| !id.value.is_empty()) {
            Some(id) if self.removed.contains(&id.value) => {
                return Ok(vec![
                    Action::ToScheduler(stream.clone(), Box::new(error("Framework has been removed"))),
                    Action::CloseScheduler(stream),
                ]);
            }
            Some(id) => id.value,
            None => {
                self.next_id += 1;
                format!("{}-{:04}", self.config.master.id, self.next_id - 1)
            }
        };
        info.id = Some(FrameworkId { value: id.clone() });
        let mut framework = Framework::new(info, Some(stream), None);
        framework.suppressed = subscribe.suppressed_roles.into_iter().collect();
        framework.heartbeat_at = now + self.config.heartbeat_interval;
        if let Some(before) = self.frameworks.remove(&id) {
            if let Some(old) = before.stream {
                out.push(Action::ToScheduler(old.clone(), Box::new(error("Framework failed over"))));
                out.push(Action::CloseScheduler(old));
            }
            framework.tasks = before.tasks;
            self.withdraw_offers(&id);
        }
        let subscribed = event::Subscribed {
            framework_id: FrameworkId { value: id.clone() },
            heartbeat_interval_seconds: Some(self.config.heartbeat_interval.as_secs_f64()),
            master_info: Some(self.config.master.clone()),
        };
        framework.send(Event { subscribed: Some(subscribed), ..event(event::Type::Subscribed) }, &mut out);
        self.frameworks.insert(id.clone(), framework);
        out.push(Action::FrameworkChanged(id.clone()));
        self.unoffered.extend(self.agents.keys().cloned());
        let agents: BTreeSet<_> = self.frameworks[&id].tasks.values().cloned().collect();
        for agent in agents {
            self.with_agent(&agent, &mut out, |agent| agent.resend(now, &id));
        }
        Ok(out)
    }

    /// A scheduler's stream ended.
    pub fn disconnected(&mut self, now: Duration, stream: &str) {
        let mine = self.frameworks.iter_mut().find(|(_, framework)| framework.stream.as_deref() == Some(stream));
        if let Some((id, framework)) = mine {
            framework.stream = None;
            framework.gone_at = failover_end(now, &framework.info);
            let id = id.clone();
            self.withdraw_offers(&id);
        }
    }

    /// Any call but SUBSCRIBE, on the stream that the framework subscribed with.
    ///
    /// # Errors
    /// If it is not from the subscribed scheduler, or makes no sense.
    pub fn call(&mut self, now: Duration, call: Call, stream: &str) -> Result<Vec<Action>, Refusal> {
        let bad = |text: &str| Refusal(400, format!("Failed to validate scheduler::Call: {text}"));
        if call.r#type.is_none() {
            return Err(bad("Expecting 'type' to be present"));
        }
        let id = call.framework_id.clone().ok_or_else(|| bad("Expecting 'framework_id' to be present"))?.value;
        let framework = self.frameworks.get_mut(&id).ok_or_else(|| Refusal(400, "Framework cannot be found".into()))?;
        match &framework.stream {
            None => return Err(Refusal(403, "Framework is not subscribed".into())),
            Some(current) if current != stream => {
                return Err(Refusal(400, format!("The stream ID {stream:?} is not that of the subscription of framework {id}")));
            }
            Some(_) => {}
        }
        let missing = || bad("Expecting the content of the call's type to be present");
        let mut out = Vec::new();
        match call.r#type() {
            call::Type::Subscribe => return Err(bad("SUBSCRIBE on a stream that is subscribed")),
            call::Type::Teardown => self.remove_framework(now, &id, &mut out),
            call::Type::Accept => self.accept(now, &id, call.accept.ok_or_else(missing)?, &mut out),
            call::Type::Decline => {
                let decline = call.decline.ok_or_else(missing)?;
                for offer in decline.offer_ids {
                    self.take_back(now, &id, &offer.value, None, decline.filters.as_ref());
                }
            }
            call::Type::Revive => {
                let roles = call.revive.map(|revive| revive.roles).unwrap_or_default();
                framework.suppressed.retain(|role| !roles.is_empty() && !roles.contains(role));
                framework.filters.clear();
                self.unoffered.extend(self.agents.keys().cloned());
            }
            call::Type::Suppress => {
                let wanted = call.suppress.map(|suppress| suppress.roles).unwrap_or_default();
                let all = roles(&framework.info).into_iter().map(str::to_owned).collect();
                framework.suppressed.extend(if wanted.is_empty() { all } else { wanted });
            }
            call::Type::Kill => {
                let kill = call.kill.ok_or_else(missing)?;
                match framework.tasks.get(&kill.task_id.value).cloned() {
                    Some(agent) => self.with_agent(&agent, &mut out, |agent| agent.kill(now, &(id, kill.task_id.value), kill.kill_policy)),
                    None => self.reconcile(now, &id, &kill.task_id, kill.agent_id.map(|id| id.value), &mut out),
                }
            }
            call::Type::Shutdown => {
                let call::Shutdown { executor_id, agent_id } = call.shutdown.ok_or_else(missing)?;
                self.with_agent(&agent_id.value, &mut out, |agent| agent.shutdown(now, &(id, executor_id.value)));
            }
            call::Type::Acknowledge => {
                let call::Acknowledge { agent_id, task_id, uuid } = call.acknowledge.ok_or_else(missing)?;
                self.with_agent(&agent_id.value, &mut out, |agent| agent.acknowledge(now, &(id, task_id.value), &uuid));
            }
            call::Type::Reconcile => {
                let asked = call.reconcile.ok_or_else(missing)?.tasks;
                let all = || framework.tasks.keys().map(|task| (TaskId { value: task.clone() }, None)).collect::<Vec<_>>();
                let tasks = if asked.is_empty() { all() } else { asked.into_iter().map(|task| (task.task_id, task.agent_id)).collect() };
                for (task, agent) in tasks {
                    self.reconcile(now, &id, &task, agent.map(|agent| agent.value), &mut out);
                }
            }
            call::Type::Message => {
                let call::Message { agent_id, executor_id, data } = call.message.ok_or_else(missing)?;
                self.with_agent(&agent_id.value, &mut out, |agent| agent.message(&(id, executor_id.value), data));
            }
            call::Type::UpdateFramework => {
                let update = call.update_framework.ok_or_else(missing)?;
                validation::framework(&update.framework_info).map_err(|error| bad(&error))?;
                framework.info = FrameworkInfo { id: framework.info.id.clone(), ..update.framework_info };
                framework.suppressed = update.suppressed_roles.into_iter().collect();
                self.unoffered.extend(self.agents.keys().cloned());
                out.push(Action::FrameworkChanged(id));
            }
            // there is no maintenance here, requests are hints, and operations give no feedback
            call::Type::AcceptInverseOffers
            | call::Type::DeclineInverseOffers
            | call::Type::Request
            | call::Type::AcknowledgeOperationStatus
            | call::Type::ReconcileOperations => {}
            call::Type::Unknown => return Err(bad("Unknown 'type'")),
        }
        Ok(out)
    }

    /// An executor subscribes with its agent.
    ///
    /// # Errors
    /// If there is no such executor.
    pub fn executor_subscribe(&mut self, now: Duration, agent: &str, call: executor::Call) -> Result<Vec<Action>, Refusal> {
        let key = (call.framework_id.value, call.executor_id.value);
        let subscribe = call.subscribe.unwrap_or_default();
        self.of_executor(agent, |agent| agent.subscribe(now, &key, subscribe))
    }

    /// Any other call of an executor.
    ///
    /// # Errors
    /// If it is not subscribed, or the call makes no sense.
    pub fn executor_call(&mut self, now: Duration, agent: &str, call: executor::Call) -> Result<Vec<Action>, Refusal> {
        let key = (call.framework_id.value.clone(), call.executor_id.value.clone());
        self.of_executor(agent, |agent| agent.call(now, &key, call))
    }

    /// An executor's stream ended.
    pub fn executor_disconnected(&mut self, agent: &str, key: &Key) {
        if let Some(agent) = self.agents.get_mut(agent) {
            agent.disconnected(key);
        }
    }

    /// An executor ended with this status, or was killed.
    pub fn executor_exited(&mut self, now: Duration, agent: &str, key: &Key, status: i32) -> Vec<Action> {
        let mut out = Vec::new();
        self.with_agent(agent, &mut out, |agent| agent.exited(now, key, status));
        out
    }

    /// Does what is due: offers, repetitions, heartbeats, the end of frameworks that did not come back.
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
                framework.send(event(event::Type::Heartbeat), &mut out);
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

    fn of_executor(&mut self, id: &str, act: impl FnOnce(&mut Agent) -> Result<Vec<Output>, &'static str>) -> Result<Vec<Action>, Refusal> {
        let agent = self.agents.get_mut(id).ok_or_else(|| Refusal(404, "There is no such agent".into()))?;
        let outputs = act(agent).map_err(|text| Refusal(400, text.to_owned()))?;
        let mut out = Vec::new();
        self.absorb(id, outputs, &mut out);
        Ok(out)
    }

    fn with_agent(&mut self, id: &str, out: &mut Vec<Action>, act: impl FnOnce(&mut Agent) -> Vec<Output>) {
        if let Some(agent) = self.agents.get_mut(id) {
            let outputs = act(agent);
            self.absorb(id, outputs, out);
        }
    }

    /// Takes in what an agent has to say, and passes on the rest.
    fn absorb(&mut self, id: &str, outputs: Vec<Output>, out: &mut Vec<Action>) {
        let Some(agent) = self.agents.get(id) else { return };
        for output in outputs {
            match output {
                Output::Status(framework, status) => {
                    if status.state().is_terminal() {
                        self.unoffered.insert(id.to_owned());
                    }
                    if let Some(framework) = self.frameworks.get(&framework) {
                        framework.send(update(*status), out);
                    }
                }
                Output::Message { key: (framework, executor), data } => {
                    let message =
                        event::Message { agent_id: agent.info.id.clone().unwrap_or_default(), executor_id: executor.into(), data };
                    if let Some(framework) = self.frameworks.get(&framework) {
                        framework.send(Event { message: Some(message), ..event(event::Type::Message) }, out);
                    }
                }
                Output::Exited(key, status) => {
                    self.unoffered.insert(id.to_owned());
                    let executor_id = Some(key.1.clone().into());
                    let failure = event::Failure { agent_id: agent.info.id.clone(), executor_id, status: Some(status) };
                    if let Some(framework) = self.frameworks.get(&key.0) {
                        framework.send(Event { failure: Some(failure), ..event(event::Type::Failure) }, out);
                    }
                    out.push(Action::Agent(id.to_owned(), Output::Exited(key, status)));
                }
                Output::Changed(Change::Task(key)) => {
                    if agent.task(&key).is_none() {
                        self.unoffered.insert(id.to_owned());
                        if let Some(framework) = self.frameworks.get_mut(&key.0) {
                            framework.tasks.remove(&key.1);
                        }
                    }
                    out.push(Action::Agent(id.to_owned(), Output::Changed(Change::Task(key))));
                }
                other => out.push(Action::Agent(id.to_owned(), other)),
            }
        }
        let deadline = agent.deadline();
        let before = match deadline {
            Some(at) => self.timer_of.insert(id.to_owned(), at),
            None => self.timer_of.remove(id),
        };
        if before != deadline {
            before.map(|at| self.timers.remove(&(at, id.to_owned())));
            deadline.map(|at| self.timers.insert((at, id.to_owned())));
        }
    }

    fn remove_framework(&mut self, now: Duration, id: &str, out: &mut Vec<Action>) {
        self.withdraw_offers(id);
        let Some(framework) = self.frameworks.remove(id) else { return };
        self.removed.insert(id.to_owned());
        let agents: Vec<_> = self.agents.keys().cloned().collect();
        for agent in agents {
            self.with_agent(&agent, out, |agent| agent.remove_framework(now, id));
        }
        self.unoffered.extend(self.agents.keys().cloned());
        out.push(Action::FrameworkChanged(id.to_owned()));
        out.extend(framework.stream.map(Action::CloseScheduler));
    }

    /// Ends an offer of a framework and gives its resources back; `unused` is what was not taken of them, if not all.
    fn take_back(&mut self, now: Duration, framework: &str, id: &str, unused: Option<&Resources>, filters: Option<&Filters>) {
        if self.offers.get(id).is_none_or(|offer| offer.framework != framework) {
            return;
        }
        let Some(offer) = self.drop_offer(id) else { return };
        let unused = unused.unwrap_or(&offer.resources);
        let refuse = filters.map_or_else(|| Filters::default().refuse_seconds(), Filters::refuse_seconds);
        if let Ok(refuse) = Duration::try_from_secs_f64(refuse)
            && !refuse.is_zero()
            && !unused.is_empty()
            && let Some(framework) = self.frameworks.get_mut(framework)
        {
            // Mesos takes at most a year
            let until = now + refuse.min(Duration::from_secs(365 * 86_400));
            framework.filters.insert(offer.agent.clone(), (until, unused.clone()));
            self.filter_ends.insert((until, offer.agent));
        }
    }

    fn drop_offer(&mut self, id: &str) -> Option<Offered> {
        let offer = self.offers.remove(id)?;
        if let Some(of_agent) = self.offers_of.get_mut(&offer.agent) {
            of_agent.remove(id);
        }
        self.unoffered.insert(offer.agent.clone());
        Some(offer)
    }

    fn rescind(&mut self, id: &str, out: &mut Vec<Action>) {
        let Some(offer) = self.drop_offer(id) else { return };
        if let Some(framework) = self.frameworks.get(&offer.framework) {
            framework.send(Event { rescind: Some(event::Rescind { offer_id: id.into() }), ..event(event::Type::Rescind) }, out);
        }
    }

    fn withdraw_offers(&mut self, framework: &str) {
        let mine: Vec<_> = self.offers.iter().filter(|(_, offer)| offer.framework == framework).map(|(id, _)| id.clone()).collect();
        mine.iter().for_each(|id| drop(self.drop_offer(id)));
    }

    fn accept(&mut self, now: Duration, id: &str, accept: call::Accept, out: &mut Vec<Action>) {
        let mine = |offer: &&Offered| offer.framework == id;
        let offers: Vec<_> = accept.offer_ids.iter().map(|offer| self.offers.get(&offer.value).filter(mine)).collect();
        let agents: BTreeSet<_> = offers.iter().flatten().map(|offer| offer.agent.clone()).collect();
        let valid = offers.iter().all(Option::is_some) && agents.len() == 1 && !offers.is_empty();
        let mut left = Resources::default();
        offers.iter().flatten().for_each(|offer| left.add(&offer.resources));
        let agent = if valid { agents.into_iter().next() } else { None };
        for operation in accept.operations {
            match operation.r#type() {
                offer::operation::Type::Launch => {
                    for task in operation.launch.map(|launch| launch.task_infos).unwrap_or_default() {
                        self.launch(now, id, agent.as_deref(), task, &mut left, out);
                    }
                }
                offer::operation::Type::LaunchGroup => {
                    if let Some(offer::operation::LaunchGroup { executor, task_group }) = operation.launch_group {
                        self.launch_group(now, id, agent.as_deref(), executor, task_group.tasks, &mut left, out);
                    }
                }
                other => tracing::warn!("the local cluster does not know the operation {other:?}"),
            }
        }
        for (at, offer) in accept.offer_ids.iter().enumerate() {
            // what is left of all offers of this agent counts as unused once
            let unused = if at == 0 { left.clone() } else { Resources::default() };
            self.take_back(now, id, &offer.value, Some(&unused), accept.filters.as_ref());
        }
    }

    fn launch(&mut self, now: Duration, id: &str, agent: Option<&str>, task: TaskInfo, left: &mut Resources, out: &mut Vec<Action>) {
        let Some(framework) = self.frameworks.get_mut(id) else { return };
        let Some(agent_id) = agent else {
            framework.refuse(now, &task, TaskState::TaskDropped, Reason::InvalidOffers, "Task launched with invalid offers", out);
            return;
        };
        let Some(agent) = self.agents.get_mut(agent_id) else { return };
        let known = framework.tasks.contains_key(&task.task_id.value);
        let checked = validation::executor_of(&task).and_then(|executor| {
            validation::task(&task, executor, &framework.info, agent, known, left).map(|wanted| (executor.clone(), wanted))
        });
        match checked {
            Err(message) => framework.refuse(now, &task, TaskState::TaskError, Reason::TaskInvalid, &message, out),
            Ok((executor, wanted)) => {
                left.subtract(&wanted);
                framework.tasks.insert(task.task_id.value.clone(), agent_id.to_owned());
                let outputs = agent.run(now, &framework.info, filled(executor, &framework.info), vec![task], false);
                self.absorb(agent_id, outputs, out);
            }
        }
    }

    /// All tasks of a group start, or none.
    #[allow(clippy::too_many_arguments, reason = "they are the fields of the call")]
    fn launch_group(
        &mut self,
        now: Duration,
        id: &str,
        agent: Option<&str>,
        executor: ExecutorInfo,
        tasks: Vec<TaskInfo>,
        left: &mut Resources,
        out: &mut Vec<Action>,
    ) {
        let Some(framework) = self.frameworks.get_mut(id) else { return };
        let Some(agent_id) = agent else {
            for task in &tasks {
                framework.refuse(now, task, TaskState::TaskDropped, Reason::InvalidOffers, "Task launched with invalid offers", out);
            }
            return;
        };
        let Some(agent) = self.agents.get_mut(agent_id) else { return };
        let mut rest = left.clone();
        let mut seen = BTreeSet::new();
        let mut new_executor = executor.clone();
        let checked = tasks.iter().try_for_each(|task| {
            let known = framework.tasks.contains_key(&task.task_id.value) || !seen.insert(task.task_id.value.clone());
            let wanted = validation::task(task, &new_executor, &framework.info, agent, known, &rest)?;
            rest.subtract(&wanted);
            // the executor is paid for with the first of its tasks
            new_executor.resources.clear();
            Ok::<_, String>(())
        });
        match checked {
            Err(message) => {
                for task in &tasks {
                    framework.refuse(now, task, TaskState::TaskError, Reason::TaskGroupInvalid, &message, out);
                }
            }
            Ok(()) => {
                *left = rest;
                framework.tasks.extend(tasks.iter().map(|task| (task.task_id.value.clone(), agent_id.to_owned())));
                let outputs = agent.run(now, &framework.info, filled(executor, &framework.info), tasks, true);
                self.absorb(agent_id, outputs, out);
            }
        }
    }

    fn reconcile(&self, now: Duration, id: &str, task: &TaskId, agent: Option<String>, out: &mut Vec<Action>) {
        let Some(framework) = self.frameworks.get(id) else { return };
        let key = (id.to_owned(), task.value.clone());
        let known = framework.tasks.get(&task.value).and_then(|agent| Some((self.agents.get(agent)?, agent)));
        let status = match known.and_then(|(found, _)| Some((found, found.task(&key)?))) {
            Some((found, task_here)) => {
                // the framework hears of one state after the other: the one it is to acknowledge now comes first
                let latest = task_here.updates.first().or(task_here.latest.as_ref()).cloned().unwrap_or_default();
                let state = if task_here.latest.is_some() { latest.state() } else { TaskState::TaskStaging };
                TaskStatus {
                    agent_id: found.info.id.clone(),
                    executor_id: Some(task_here.executor_id.clone().into()),
                    healthy: latest.healthy,
                    labels: latest.labels,
                    container_status: latest.container_status,
                    ..master_status(now, &task.value, state, Reason::Reconciliation, "Reconciliation: Latest task state")
                }
            }
            None => {
                let here = agent.as_ref().is_some_and(|agent| self.agents.contains_key(agent));
                let state = framework.lost_as(if here { TaskState::TaskGone } else { TaskState::TaskUnknown });
                let status = master_status(now, &task.value, state, Reason::Reconciliation, "Reconciliation: Task is unknown");
                TaskStatus { agent_id: agent.map(Into::into), ..status }
            }
        };
        framework.send(update(status), out);
    }

    /// Offers what is free: each agent's resources go to the subscribed framework with the fewest tasks that wants them.
    fn allocate(&mut self, now: Duration, out: &mut Vec<Action>) {
        let mut batches: BTreeMap<String, Vec<Offer>> = BTreeMap::new();
        for agent_id in std::mem::take(&mut self.unoffered) {
            let Some(agent) = self.agents.get(&agent_id) else { continue };
            let mut free = agent.free().clone();
            free.subtract(&self.offered(&agent_id));
            let mut candidates: Vec<_> = self.frameworks.iter().filter(|(_, framework)| framework.stream.is_some()).collect();
            candidates.sort_by_key(|(_, framework)| framework.tasks.len());
            for (id, framework) in candidates {
                for role in roles(&framework.info) {
                    if framework.suppressed.contains(role) {
                        continue;
                    }
                    let mut part = free.for_role(UNRESERVED);
                    if role != UNRESERVED {
                        part.add(&free.for_role(role));
                    }
                    let filtered =
                        framework.filters.get(&agent_id).is_some_and(|(until, unwanted)| *until > now && unwanted.contains(&part));
                    if filtered || !part.is_allocatable() {
                        continue;
                    }
                    free.subtract(&part);
                    self.next_id += 1;
                    let offer_id = format!("{}-O{}", self.config.master.id, self.next_id - 1);
                    batches.entry(id.clone()).or_default().push(framework.offer(&offer_id, agent, id, role, &part));
                    self.offers_of.entry(agent_id.clone()).or_default().insert(offer_id.clone());
                    let offered = Offered { framework: id.clone(), agent: agent_id.clone(), role: role.to_owned(), resources: part };
                    self.offers.insert(offer_id, offered);
                }
            }
        }
        for (id, offers) in batches {
            if let Some(framework) = self.frameworks.get(&id) {
                framework.send(Event { offers: Some(event::Offers { offers }), ..event(event::Type::Offers) }, out);
            }
        }
    }

    /// Offers that are out, as id, framework, agent, role.
    pub fn outstanding(&self) -> impl Iterator<Item = (&str, &str, &str, &str)> {
        self.offers.iter().map(|(id, offer)| (id.as_str(), offer.framework.as_str(), offer.agent.as_str(), offer.role.as_str()))
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

impl Framework {
    fn new(info: FrameworkInfo, stream: Option<String>, gone_at: Option<Duration>) -> Self {
        Self {
            info,
            stream,
            gone_at,
            heartbeat_at: Duration::ZERO,
            suppressed: BTreeSet::new(),
            filters: HashMap::new(),
            tasks: BTreeMap::new(),
        }
    }

    fn send(&self, event: Event, out: &mut Vec<Action>) {
        out.extend(self.stream.clone().map(|stream| Action::ToScheduler(stream, Box::new(event))));
    }

    /// How a task is lost is told only to frameworks that can tell it apart.
    fn lost_as(&self, state: TaskState) -> TaskState {
        if is_partition_aware(&self.info) { state } else { TaskState::TaskLost }
    }

    fn refuse(&self, now: Duration, task: &TaskInfo, state: TaskState, reason: Reason, message: &str, out: &mut Vec<Action>) {
        let state = if state == TaskState::TaskError { state } else { self.lost_as(state) };
        let status = master_status(now, &task.task_id.value, state, reason, message);
        self.send(update(TaskStatus { agent_id: Some(task.agent_id.clone()), ..status }), out);
    }

    fn offer(&self, offer_id: &str, agent: &Agent, id: &str, role: &str, resources: &Resources) -> Offer {
        let multi_role = has(&self.info, Capability::MultiRole);
        let refined = has(&self.info, Capability::ReservationRefinement);
        let allocation_info = crate::mesos::v1::resource::AllocationInfo { role: Some(role.to_owned()) };
        Offer {
            id: offer_id.into(),
            framework_id: id.into(),
            agent_id: agent.info.id.clone().unwrap_or_default(),
            hostname: agent.info.hostname.clone(),
            resources: resources.to_messages(refined, multi_role.then_some(role)),
            attributes: agent.info.attributes.clone(),
            executor_ids: agent.executors().filter(|(key, _)| key.0 == id).map(|(key, _)| key.1.clone().into()).collect(),
            allocation_info: multi_role.then_some(allocation_info),
            ..Offer::default()
        }
    }
}

fn failover_end(now: Duration, info: &FrameworkInfo) -> Option<Duration> {
    // a timeout too long to be added up is no timeout
    Duration::try_from_secs_f64(info.failover_timeout().max(0.0)).ok().and_then(|timeout| now.checked_add(timeout))
}

fn filled(executor: ExecutorInfo, framework: &FrameworkInfo) -> ExecutorInfo {
    ExecutorInfo { framework_id: framework.id.clone(), ..executor }
}

fn update(status: TaskStatus) -> Event {
    Event { update: Some(event::Update { status }), ..event(event::Type::Update) }
}

/// What the master itself says of a task; it need not be acknowledged.
fn master_status(now: Duration, task: &str, state: TaskState, reason: Reason, message: &str) -> TaskStatus {
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
