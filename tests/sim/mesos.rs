//! Mesos: km's own master and agents, their disk, and delivery of their actions.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use km::local_mesos::agent::{Agent, Change, Executor, Key, Output, Task};
use km::local_mesos::master::{Action, Config, Master};
use km::local_mesos::resources::Resources;
use km::mesos::v1::scheduler::{Call, call};
use km::mesos::v1::{AgentInfo, FrameworkInfo, MasterInfo, TaskState};

use crate::executor::uid_of;
use crate::scheduler::Heard;
use crate::setup::RESOURCES;
use crate::world::{Ready, World};

/// The state that outlives the process of a master and its agents.
#[derive(Default)]
pub struct Disk {
    frameworks: BTreeMap<String, FrameworkInfo>,
    pub executors: BTreeMap<(String, Key), Executor>,
    pub tasks: BTreeMap<(String, Key), Task>,
}

#[derive(Default)]
pub struct Mesos {
    pub master: Option<Master>,
    pub starts_at: Duration,
    /// Whether the next master reads the disk.
    pub remembers: bool,
    pub disk: Disk,
    /// Tasks whose agent was away since their launch: a scheduler may have given them up.
    pub lost: BTreeSet<String>,
    number: u64,
    /// Streams whose scheduler is gone, and when the master notices.
    pub broken: Vec<(Duration, String)>,
}

/// The state of an agent.
#[derive(Debug)]
pub enum Place {
    WithMaster,
    /// Running, but cut off from the master until then.
    Alone(Box<Agent>, Duration),
    /// Restarts then, from its disk.
    Dead(Duration),
}

/// How long after its expected return an agent may be given up for good, with everything on it.
const OVERDUE: Duration = Duration::from_secs(500);

impl Place {
    pub fn is_overdue(&self, now: Duration) -> bool {
        matches!(self, Self::Alone(_, returns) | Self::Dead(returns) if *returns + OVERDUE <= now)
    }
}

pub fn agent_id(host: &str) -> String {
    format!("{host}-agent")
}

fn host_of(agent: &str) -> &str {
    agent.strip_suffix("-agent").expect("every agent is called so")
}

impl Mesos {
    pub fn stream(&mut self) -> String {
        self.number += 1;
        format!("stream-{}", self.number)
    }

    fn loses(&mut self, agent: &Agent) {
        self.lost.extend(agent.tasks().map(|(key, _)| key.1.clone()));
    }
}

impl World {
    pub fn mesos_ready(&self, ready: &mut Vec<Ready>) {
        match &self.mesos.master {
            None => ready.extend((self.now >= self.mesos.starts_at).then_some(Ready::MasterStarts)),
            Some(master) => {
                ready.extend(master.deadline().filter(|at| *at <= self.now).map(|_| Ready::MasterWakes));
                ready.extend(self.mesos.broken.iter().any(|(at, _)| *at <= self.now).then_some(Ready::MasterNotices));
            }
        }
        for (host, machine) in &self.machines {
            let is_due = match &machine.agent {
                Place::WithMaster => false,
                Place::Alone(agent, returns) => {
                    ready.extend(agent.deadline().filter(|at| *at <= self.now).map(|_| Ready::AgentWakes(host.clone())));
                    *returns <= self.now
                }
                Place::Dead(returns) => *returns <= self.now,
            };
            ready.extend((is_due && self.mesos.master.is_some()).then(|| Ready::AgentReturns(host.clone())));
        }
    }

    pub fn mesos_due(&self, due: &mut Vec<Duration>) {
        match &self.mesos.master {
            None => due.push(self.mesos.starts_at),
            Some(master) => due.extend(master.deadline()),
        }
        due.extend(self.mesos.broken.iter().map(|(at, _)| *at));
        for machine in self.machines.values() {
            match &machine.agent {
                Place::WithMaster => {}
                Place::Alone(agent, returns) => due.extend([*returns].into_iter().chain(agent.deadline())),
                Place::Dead(returns) => due.push(*returns),
            }
        }
    }

    pub fn master_starts(&mut self) {
        self.mesos.number += 1;
        let mut master = Master::new(Config {
            cluster: String::new(),
            master: MasterInfo { id: format!("master-{}", self.mesos.number), ..MasterInfo::default() },
            allocation_interval: Duration::from_secs(1),
            heartbeat_interval: Duration::from_secs(15),
        });
        if self.mesos.remembers {
            self.mesos.disk.frameworks.values().for_each(|info| master.add_framework(self.now, info.clone()));
        }
        self.mesos.master = Some(master);
    }

    /// The master dies, and its agents continue alone until another one leads.
    pub fn master_dies(&mut self) {
        let Some(mut master) = self.mesos.master.take() else { return };
        let hosts: Vec<String> = self.machines.keys().cloned().collect();
        for host in hosts {
            let returns = self.now + self.up_to(60.0);
            if let Some((agent, _)) = master.lose_agent(self.now, &agent_id(&host)) {
                self.mesos.loses(&agent);
                self.machine(&host).agent = Place::Alone(Box::new(agent), returns);
            }
        }
        self.mesos.broken.clear();
        self.mesos.remembers = false;
        self.mesos.starts_at = self.now + self.up_to(10.0);
        self.scheduler_loses_master();
        self.mesos.broken.clear();
    }

    pub fn agent(&self, host: &str) -> Option<&Agent> {
        match &self.machines[host].agent {
            Place::WithMaster => self.mesos.master.as_ref()?.agent(&agent_id(host)),
            Place::Alone(agent, _) => Some(agent),
            Place::Dead(_) => None,
        }
    }

    /// The master loses an agent that continues to run.
    pub fn agent_is_cut_off(&mut self, host: &str, away: Duration) {
        let Some((agent, actions)) = self.mesos.master.as_mut().and_then(|it| it.lose_agent(self.now, &agent_id(host))) else { return };
        self.mesos.loses(&agent);
        self.machine(host).agent = Place::Alone(Box::new(agent), self.now + away);
        self.carry_out(actions);
    }

    /// The agent's process dies and, as they are its children, its executors. Containers keep running.
    pub fn agent_dies(&mut self, host: &str, away: Duration) {
        if let Some((agent, actions)) = self.mesos.master.as_mut().and_then(|it| it.lose_agent(self.now, &agent_id(host))) {
            self.mesos.loses(&agent);
            self.carry_out(actions);
        }
        let returns = self.now + away;
        let machine = self.machine(host);
        machine.executors.clear();
        machine.agent = Place::Dead(returns);
    }

    pub fn agent_returns(&mut self, host: &str) {
        let (id, seed) = (agent_id(host), self.random());
        let given_up = self.machines[host].agent.is_overdue(self.now);
        let (agent, outputs) = match std::mem::replace(&mut self.machine(host).agent, Place::WithMaster) {
            Place::WithMaster => unreachable!("it is there"),
            Place::Alone(agent, _) => (*agent, Vec::new()),
            Place::Dead(_) => {
                let mine = |of: &str| of == id;
                let info = AgentInfo {
                    hostname: host.to_owned(),
                    resources: Resources::parse(RESOURCES).unwrap().to_messages(true, None),
                    id: Some(id.clone().into()),
                    ..AgentInfo::default()
                };
                let mut agent = Agent::new(info, seed).unwrap();
                let disk = &self.mesos.disk;
                let executors = disk.executors.iter().filter(|(key, _)| mine(&key.0)).map(|(_, it)| it.clone()).collect();
                let tasks = disk.tasks.iter().filter(|(key, _)| mine(&key.0)).map(|(_, it)| it.clone()).collect();
                let outputs = agent.recover(self.now, executors, tasks);
                (agent, outputs)
            }
        };
        if given_up {
            self.excused.extend(agent.tasks().map(|(_, task)| uid_of(task)));
        }
        let Some(master) = &mut self.mesos.master else { return };
        let actions = master.add_agent(self.now, agent, outputs);
        self.carry_out(actions);
    }

    pub fn agent_wakes(&mut self, host: &str) {
        self.of_agent(host, |_, _, _| Vec::new(), |agent, now| agent.tick(now));
    }

    /// Runs an agent's operation, wherever the agent is.
    pub fn of_agent(
        &mut self,
        host: &str,
        with_master: impl FnOnce(&mut Master, &str, Duration) -> Vec<Action>,
        alone: impl FnOnce(&mut Agent, Duration) -> Vec<Output>,
    ) {
        let now = self.now;
        match &mut self.machine(host).agent {
            Place::Dead(_) => {}
            Place::Alone(agent, _) => {
                let outputs = alone(agent, now);
                outputs.into_iter().for_each(|output| self.agent_wants(host, output));
            }
            Place::WithMaster => {
                let Some(master) = &mut self.mesos.master else { return };
                let actions = with_master(master, &agent_id(host), now);
                self.carry_out(actions);
            }
        }
    }

    pub fn master_wakes(&mut self) {
        let Some(master) = &mut self.mesos.master else { return };
        let actions = master.tick(self.now);
        self.carry_out(actions);
    }

    pub fn master_notices(&mut self) {
        let Some(at) = self.mesos.broken.iter().position(|(at, _)| *at <= self.now) else { return };
        let (_, stream) = self.mesos.broken.remove(at);
        if let Some(master) = &mut self.mesos.master {
            master.disconnected(self.now, &stream);
        }
    }

    pub fn master_hears(&mut self) {
        let Some(session) = self.scheduler_session() else { return };
        let stream = session.stream.clone();
        let Some(call) = session.to_master.pop_front() else { return };
        // Between master and agent, which are one here, calls without a reply may be lost.
        let loses = matches!(call.r#type(), call::Type::Kill | call::Type::Acknowledge | call::Type::Message) && self.fails(4);
        if loses {
            return self.note(|| format!("lost: {:?}", call.r#type()));
        }
        self.note(|| match &call {
            Call { kill: Some(kill), .. } => format!("kill {}", kill.task_id),
            Call { acknowledge: Some(acknowledge), .. } => format!("acknowledge {}", acknowledge.task_id),
            Call { accept: Some(accept), .. } => {
                let tasks = accept.operations.iter().flat_map(|it| &it.launch).flat_map(|it| &it.task_infos);
                tasks.map(|task| format!("launch {} of {} on {}; ", task.task_id, task.name, task.agent_id)).collect()
            }
            other => format!("{:?}", other.r#type()),
        });
        if let Some(accept) = &call.accept {
            self.stats.launches += accept.operations.iter().flat_map(|it| &it.launch).map(|it| it.task_infos.len()).sum::<usize>();
        }
        self.check_acknowledged(&call);
        self.check_launched(&call);
        let Some(master) = &mut self.mesos.master else { return };
        match master.call(self.now, call, &stream) {
            Ok(actions) => self.carry_out(actions),
            Err(refusal) => self.note(|| format!("the master refuses: {refusal:?}")),
        }
    }

    /// Carries out the master's actions.
    pub fn carry_out(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::ToScheduler(stream, event) => {
                    if let Some(status) = event.update.as_ref().map(|it| &it.status).filter(|it| it.state() == TaskState::TaskDropped) {
                        self.excuse_task(&status.task_id.value);
                    }
                    // An update that needs an acknowledgement may be lost or doubled between agent and master, and is then repeated.
                    let doubted = event.update.as_ref().is_some_and(|it| it.status.uuid.is_some());
                    let copies = if doubted && self.fails(6) { if self.chance(50) { 0 } else { 2 } } else { 1 };
                    if let Some(session) = self.scheduler_session().filter(|it| it.stream == stream) {
                        (0..copies).for_each(|_| session.to_scheduler.push_back(Heard::Event(event.clone())));
                    }
                }
                Action::CloseScheduler(stream) => {
                    if let Some(session) = self.scheduler_session().filter(|it| it.stream == stream) {
                        session.to_scheduler.push_back(Heard::Closed);
                    }
                }
                Action::FrameworkChanged(id) => {
                    match self.mesos.master.as_ref().and_then(|it| it.framework(&id)).cloned() {
                        Some(info) => self.mesos.disk.frameworks.insert(id, info),
                        None => self.mesos.disk.frameworks.remove(&id),
                    };
                }
                Action::Agent(agent, output) => self.agent_wants(host_of(&agent), output),
            }
        }
    }

    fn agent_wants(&mut self, host: &str, output: Output) {
        match output {
            Output::Launch(executor) => self.launch_executor(host, *executor),
            Output::Destroy(key) => self.executor_is_killed(host, &key),
            Output::ToExecutor(key, event) => self.tell_executor(host, &key, *event),
            Output::Exited(..) => {}
            Output::Changed(Change::Executor(key)) => {
                let found = self.agent(host).and_then(|agent| agent.executor(&key)).cloned();
                put(&mut self.mesos.disk.executors, (host, key), found);
            }
            Output::Changed(Change::Task(key)) => {
                let found = self.agent(host).and_then(|agent| agent.task(&key)).cloned();
                put(&mut self.mesos.disk.tasks, (host, key), found);
            }
            // The master, if there is one, passes these on.
            Output::Status(..) | Output::Message { .. } => {}
        }
    }
}

fn put<T>(on: &mut BTreeMap<(String, Key), T>, (host, key): (&str, Key), found: Option<T>) {
    match found {
        Some(record) => on.insert((agent_id(host), key), record),
        None => on.remove(&(agent_id(host), key)),
    };
}
