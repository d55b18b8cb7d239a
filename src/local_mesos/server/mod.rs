//! The environment of the master and its agents: time, store, executors, and the HTTP API.

mod events;
mod http;
mod launch;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use anyhow::Context as _;
use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use prost::Message;
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::agent::{Agent, Change, Key, Output};
use super::master::{Action, Config, Master};
use super::resources::{Resources, parse_attributes};
use super::store::Store;
use super::{Launcher, Options};
use crate::mesos::recordio;
use crate::mesos::v1::{Address, AgentInfo, MasterInfo};
use crate::supervise::Supervisor;
use events::Events;

/// The version that the master reports: that of the Mesos whose behaviour it follows.
const VERSION: &str = "1.11.0";
const HEARTBEAT: Duration = Duration::from_secs(15);

/// A local cluster that runs. It ends with the supervisor it was started with.
#[derive(Clone, Debug)]
pub struct Cluster(Arc<Shared>);

struct Shared {
    core: Mutex<Core>,
    /// Something may be due earlier than before.
    wake: Notify,
    launcher: Box<dyn Launcher>,
    supervisor: Supervisor,
    address: SocketAddr,
    clock: Clock,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(to, "local cluster at {}", self.address)
    }
}

struct Core {
    master: Master,
    store: Option<Store>,
    /// Agents' ids in the order of their numbers: the N-th is at `/slave(N)`.
    agents: Vec<String>,
    schedulers: HashMap<String, Events>,
    executors: HashMap<(String, Key), ExecutorStream>,
    running: HashMap<(String, Key), CancellationToken>,
    streams: u64,
}

struct ExecutorStream {
    number: u64,
    events: Events,
}

/// Time since the epoch that never runs backwards.
#[derive(Clone, Copy)]
struct Clock {
    start: Instant,
    epoch: Duration,
}

impl Clock {
    fn now(&self) -> Duration {
        self.epoch + self.start.elapsed()
    }

    fn instant(&self, at: Duration) -> tokio::time::Instant {
        (self.start + at.saturating_sub(self.epoch)).into()
    }
}

/// Starts a cluster behind `listener`. All of its tasks, including executors, belong to `supervisor`; when that stops, executors and tasks
/// are not reported as ended, so that the next start on the same directory resumes them.
///
/// # Errors
/// If an agent's resources are invalid, or the directory cannot be used.
pub fn start(listener: TcpListener, options: Options, launcher: impl Launcher, supervisor: &Supervisor) -> anyhow::Result<Cluster> {
    let address = listener.local_addr().context("the local cluster's address")?;
    let epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let clock = Clock { start: Instant::now(), epoch };
    let store = options.directory.as_deref().map(Store::open).transpose().context("the local cluster's directory")?;
    let fresh = uuid::Uuid::new_v4().to_string();
    let id = store.as_ref().map_or(Ok(fresh.clone()), |store| store.id(&fresh)).context("the local cluster's id")?;
    let mut master = Master::new(Config {
        cluster: options.cluster.clone(),
        master: master_info(&id, address),
        allocation_interval: options.allocation_interval,
        heartbeat_interval: HEARTBEAT,
    });
    for framework in store.iter().map(Store::frameworks).collect::<Result<Vec<_>, _>>().context("stored frameworks")?.into_iter().flatten()
    {
        master.add_framework(clock.now(), framework);
    }
    let agents = (0..options.agents.len()).map(|number| format!("{id}-S{number}")).collect();
    let (schedulers, executors, running) = (HashMap::new(), HashMap::new(), HashMap::new());
    let core = Core { master, store, agents, schedulers, executors, running, streams: 0 };
    let core = Mutex::new(core);
    let launcher = Box::new(launcher);
    let shared = Arc::new(Shared { core, wake: Notify::new(), launcher, supervisor: supervisor.clone(), address, clock });
    for (number, agent) in options.agents.into_iter().enumerate() {
        let resources = Resources::parse(&agent.resources).map_err(|part| anyhow::anyhow!("agent resources: {part:?} is not valid"))?;
        let attributes = parse_attributes(&agent.attributes).map_err(|part| anyhow::anyhow!("agent attributes: {part:?} is not valid"))?;
        let core = &mut *shared.core.lock();
        let id = core.agents[number].clone();
        let info = AgentInfo {
            hostname: agent.hostname,
            port: Some(address.port().into()),
            resources: resources.to_messages(true, None),
            attributes,
            id: Some(id.clone().into()),
            ..AgentInfo::default()
        };
        let (executors, tasks) = match &core.store {
            Some(store) => (store.executors(&id).context("stored executors")?, store.tasks(&id).context("stored tasks")?),
            None => Default::default(),
        };
        let mut agent = Agent::new(info, rand::random()).map_err(anyhow::Error::msg)?;
        let outputs = agent.recover(clock.now(), executors, tasks);
        let actions = core.master.add_agent(clock.now(), agent, outputs);
        shared.act(core, actions);
    }
    if let Some(store) = shared.core.lock().store.clone() {
        supervisor.spawn_quiet(store.keep(supervisor.shutdown()));
    }
    let (timer, shutdown) = (shared.clone(), supervisor.shutdown());
    supervisor.spawn_quiet(async move {
        shutdown.run_until_cancelled_owned(timer.keep_time()).await;
    });
    supervisor.spawn("local Mesos", http::serve(shared.clone(), listener));
    Ok(Cluster(shared))
}

impl Cluster {
    /// Where master and agents answer.
    pub fn address(&self) -> SocketAddr {
        self.0.address
    }

    /// Takes an agent away for good, as if its machine had burnt down.
    pub fn remove_agent(&self, number: usize) {
        let core = &mut *self.0.core.lock();
        let Some(id) = core.agents.get(number).cloned() else { return };
        let Some((_, actions)) = core.master.lose_agent(self.0.clock.now(), &id) else { return };
        core.running.retain(|(agent, _), running| {
            let stays = *agent != id;
            if !stays {
                running.cancel();
            }
            stays
        });
        core.executors.retain(|(agent, _), _| *agent != id);
        self.0.act(core, actions);
    }
}

impl Shared {
    async fn keep_time(self: Arc<Self>) {
        loop {
            let deadline = self.core.lock().master.deadline();
            let due = async {
                match deadline {
                    Some(at) => tokio::time::sleep_until(self.clock.instant(at)).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = due => {}
                () = self.wake.notified() => continue,
            }
            let core = &mut *self.core.lock();
            let actions = core.master.tick(self.clock.now());
            self.act(core, actions);
        }
    }

    /// Carries out the core's actions, in order.
    fn act(self: &Arc<Self>, core: &mut Core, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::ToScheduler(stream, event) => {
                    if core.schedulers.get(&stream).is_some_and(|events| !events.send(record(&*event))) {
                        tracing::warn!("scheduler {stream} does not read its events, and is cut off");
                        core.schedulers.remove(&stream);
                    }
                }
                Action::CloseScheduler(stream) => drop(core.schedulers.remove(&stream)),
                Action::FrameworkChanged(id) => {
                    core.store.as_ref().inspect(|store| store.put_framework(&id, core.master.framework(&id)));
                }
                Action::Agent(agent, Output::Launch(executor)) => self.launch(core, agent, *executor),
                Action::Agent(agent, Output::Destroy(key)) => {
                    core.running.get(&(agent, key)).inspect(|running| running.cancel());
                }
                Action::Agent(agent, Output::ToExecutor(key, event)) => {
                    let at = (agent, key);
                    if core.executors.get(&at).is_some_and(|stream| !stream.events.send(record(&*event))) {
                        tracing::warn!("executor {} does not read its events, and is cut off", at.1.1);
                        core.executors.remove(&at);
                        core.master.executor_disconnected(&at.0, &at.1);
                    }
                }
                Action::Agent(agent, Output::Exited(key, _)) => drop(core.executors.remove(&(agent, key))),
                Action::Agent(agent, Output::Changed(change)) => {
                    let (Some(store), found) = (&core.store, core.master.agent(&agent)) else { continue };
                    match change {
                        Change::Executor(key) => store.put_executor(&agent, &key, found.and_then(|agent| agent.executor(&key))),
                        Change::Task(key) => store.put_task(&agent, &key, found.and_then(|agent| agent.task(&key))),
                    }
                }
                // the master has passed these on
                Action::Agent(_, Output::Status(..) | Output::Message { .. }) => {}
            }
        }
        self.wake.notify_one();
    }

    fn agent_pid(&self, core: &Core, id: &str) -> String {
        let number = core.agents.iter().position(|agent| agent == id).unwrap_or_default() + 1;
        format!("slave({number})@{}", self.address)
    }
}

fn record(event: &impl Message) -> Bytes {
    let mut bytes = BytesMut::new();
    recordio::encode(event, &mut bytes);
    bytes.freeze()
}

fn master_info(id: &str, address: SocketAddr) -> MasterInfo {
    let ip = match address.ip() {
        std::net::IpAddr::V4(ip) => u32::from_ne_bytes(ip.octets()),
        std::net::IpAddr::V6(_) => 0,
    };
    let host = address.ip().to_string();
    MasterInfo {
        id: id.to_owned(),
        ip,
        port: address.port().into(),
        pid: Some(format!("master@{address}")),
        hostname: Some(host.clone()),
        version: Some(VERSION.to_owned()),
        address: Some(Address { hostname: Some(host.clone()), ip: Some(host), port: address.port().into() }),
        ..MasterInfo::default()
    }
}
