//! Serves a local cluster over HTTP, keeps its time, starts its executors and stores what has to last.

use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant, SystemTime};

use anyhow::Context as _;
use bytes::{Bytes, BytesMut};
use http::{Method, Request, Response, StatusCode, header};
use http_body::{Body, Frame};
use http_body_util::{BodyExt as _, Either, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use prost::Message;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

use super::agent::{Change, Executor, Key, Output, SHUTDOWN_GRACE};
use super::master::{Action, Config, Master, Refusal};
use super::resources::{Resources, parse_attributes};
use super::store::Store;
use super::{Launcher, Options, state};
use crate::mesos::http::PROTOBUF;
use crate::mesos::recordio;
use crate::mesos::v1::{Address, AgentInfo, MasterInfo, executor, scheduler};
use crate::supervise::Supervisor;

/// What the master says its version is: that of the Mesos whose behaviour it follows.
const VERSION: &str = "1.11.0";
const HEARTBEAT: Duration = Duration::from_secs(15);

type Answer = Response<Either<Full<Bytes>, EventBody>>;

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
    schedulers: HashMap<String, mpsc::UnboundedSender<Bytes>>,
    executors: HashMap<(String, Key), ExecutorStream>,
    running: HashMap<(String, Key), CancellationToken>,
    streams: u64,
}

struct ExecutorStream {
    number: u64,
    events: mpsc::UnboundedSender<Bytes>,
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

/// Starts a cluster behind `listener`. Everything it runs, executors included, belongs to `supervisor`; when that stops, executors and
/// tasks are not reported as ended, so that the next start on the same directory goes on with them.
///
/// # Errors
/// If an agent's resources make no sense, or the directory cannot be used.
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
        let actions = core.master.add_agent(clock.now(), info, executors, tasks).map_err(anyhow::Error::msg)?;
        shared.act(core, actions);
    }
    let (timer, shutdown) = (shared.clone(), supervisor.shutdown());
    supervisor.spawn_quiet(async move {
        shutdown.run_until_cancelled_owned(timer.keep_time()).await;
    });
    let (server, shutdown) = (shared.clone(), supervisor.shutdown());
    supervisor.spawn("local Mesos", async move { shutdown.run_until_cancelled_owned(server.serve(listener)).await.unwrap_or(Ok(())) });
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
        let actions = core.master.remove_agent(self.0.clock.now(), &id);
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

    /// Carries out what the core wants done, in order.
    fn act(self: &Arc<Self>, core: &mut Core, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::ToScheduler(stream, event) => {
                    core.schedulers.get(&stream).map(|events| events.send(record(&*event)));
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
                    core.executors.get(&(agent, key)).map(|stream| stream.events.send(record(&*event)));
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

    fn launch(self: &Arc<Self>, core: &mut Core, agent: String, Executor { info, framework, container }: Executor) {
        let key = (framework.id.clone().unwrap_or_default().value, info.executor_id.value.clone());
        let sandbox = match core.store.as_ref().map(|store| store.sandbox(&agent, &key, &container)) {
            Some(Ok(path)) => path.display().to_string(),
            Some(Err(error)) => {
                tracing::error!("no sandbox for executor {}: {error}", key.1);
                String::new()
            }
            None => String::new(),
        };
        let number = core.agents.iter().position(|id| *id == agent).unwrap_or_default() + 1;
        let grace =
            info.shutdown_grace_period.as_ref().map_or(SHUTDOWN_GRACE, |grace| Duration::from_nanos(grace.nanoseconds.max(0) as u64));
        let mut environment: BTreeMap<String, String> = [
            ("MESOS_FRAMEWORK_ID", key.0.clone()),
            ("MESOS_EXECUTOR_ID", key.1.clone()),
            ("MESOS_SLAVE_ID", agent.clone()),
            ("MESOS_SLAVE_PID", format!("slave({number})@{}", self.address)),
            ("MESOS_AGENT_ENDPOINT", self.address.to_string()),
            ("MESOS_DIRECTORY", sandbox.clone()),
            ("MESOS_SANDBOX", sandbox),
            ("MESOS_CHECKPOINT", u8::from(framework.checkpoint()).to_string()),
            ("MESOS_RECOVERY_TIMEOUT", "15mins".to_owned()),
            ("MESOS_EXECUTOR_SHUTDOWN_GRACE_PERIOD", format!("{}ms", grace.as_millis())),
            ("MESOS_SUBSCRIPTION_BACKOFF_MAX", "2secs".to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into();
        let command = info.command.as_ref().and_then(|command| command.environment.as_ref());
        let own = command.into_iter().flat_map(|environment| &environment.variables);
        environment.extend(own.map(|variable| (variable.name.clone(), variable.value().to_owned())));

        let killed = CancellationToken::new();
        core.running.insert((agent.clone(), key.clone()), killed.clone());
        let (shared, executor) = (self.clone(), self.launcher.launch(&info, environment));
        self.supervisor.spawn_quiet(async move {
            let shutdown = shared.supervisor.shutdown();
            let status = tokio::select! {
                status = executor => status,
                () = killed.cancelled() => 128 + 9,
                () = shutdown.cancelled() => return,
            };
            if shutdown.is_cancelled() {
                return;
            }
            let core = &mut *shared.core.lock();
            core.running.remove(&(agent.clone(), key.clone()));
            let actions = core.master.executor_exited(shared.clock.now(), &agent, &key, status);
            shared.act(core, actions);
        });
    }

    async fn serve(self: Arc<Self>, listener: TcpListener) -> anyhow::Result<()> {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => self.connection(stream),
                Err(error) => {
                    tracing::warn!("local Mesos: {error}");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }

    fn connection(self: &Arc<Self>, stream: TcpStream) {
        let (shared, shutdown) = (self.clone(), self.supervisor.shutdown());
        self.supervisor.spawn_quiet(async move {
            // without it, answers only wait longer
            let _ = stream.set_nodelay(true);
            let service = service_fn(move |request| {
                let shared = shared.clone();
                async move { Ok::<_, Infallible>(shared.answer(request).await.unwrap_or_else(refused)) }
            });
            let connection =
                hyper::server::conn::http1::Builder::new().pipeline_flush(true).serve_connection(TokioIo::new(stream), service);
            let _ = shutdown.run_until_cancelled(connection).await;
        });
    }

    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Result<Answer, Refusal> {
        let path = request.uri().path().trim_end_matches('/').to_owned();
        match (request.method(), path.as_str()) {
            (&Method::GET, "/state" | "/state.json" | "/master/state" | "/master/state.json") => {
                let core = self.core.lock();
                Ok(json(&state::state(&core.master, self.clock.epoch, |id| self.agent_pid(&core, id))))
            }
            (&Method::GET, "/slaves" | "/master/slaves") => {
                let core = self.core.lock();
                Ok(json(&serde_json::json!({"slaves": state::agents(&core.master, |id| self.agent_pid(&core, id))})))
            }
            (&Method::GET, "/health" | "/master/health") => Ok(accepted(StatusCode::OK)),
            (&Method::POST, "/api/v1/scheduler" | "/master/api/v1/scheduler") => self.scheduler(request).await,
            (&Method::POST, path) => match executor_path(path) {
                Some(number) => self.executor(number, request).await,
                None => Err(Refusal(404, String::new())),
            },
            _ => Err(Refusal(404, String::new())),
        }
    }

    async fn scheduler(self: Arc<Self>, request: Request<Incoming>) -> Result<Answer, Refusal> {
        let stream = request.headers().get("mesos-stream-id").and_then(|id| id.to_str().ok()).unwrap_or_default().to_owned();
        let call: scheduler::Call = read(request).await?;
        let core = &mut *self.core.lock();
        if call.r#type() != scheduler::call::Type::Subscribe || call.r#type.is_none() {
            let actions = core.master.call(self.clock.now(), call, &stream)?;
            self.act(core, actions);
            return Ok(accepted(StatusCode::ACCEPTED));
        }
        let subscribe = call.subscribe.ok_or_else(|| Refusal(400, "Expecting 'subscribe' to be present".into()))?;
        let stream = uuid::Uuid::new_v4().to_string();
        let (events, receiver) = mpsc::unbounded_channel();
        core.schedulers.insert(stream.clone(), events);
        let actions = core.master.subscribe(self.clock.now(), subscribe, stream.clone());
        self.act(core, actions?);
        let mut answer = streaming(EventBody { receiver, closed: Some((self.clone(), Peer::Scheduler(stream.clone()))) });
        if let Ok(id) = stream.parse() {
            answer.headers_mut().insert("mesos-stream-id", id);
        }
        Ok(answer)
    }

    async fn executor(self: Arc<Self>, number: usize, request: Request<Incoming>) -> Result<Answer, Refusal> {
        let call: executor::Call = read(request).await?;
        let core = &mut *self.core.lock();
        let missing = || Refusal(404, "There is no such agent".into());
        let agent = number.checked_sub(1).and_then(|number| core.agents.get(number)).cloned().ok_or_else(missing)?;
        if call.r#type() != executor::call::Type::Subscribe {
            let actions = core.master.executor_call(self.clock.now(), &agent, call)?;
            self.act(core, actions);
            return Ok(accepted(StatusCode::ACCEPTED));
        }
        let key = (call.framework_id.value.clone(), call.executor_id.value.clone());
        let actions = core.master.executor_subscribe(self.clock.now(), &agent, call)?;
        let (events, receiver) = mpsc::unbounded_channel();
        core.streams += 1;
        let number = core.streams;
        core.executors.insert((agent.clone(), key.clone()), ExecutorStream { number, events });
        self.act(core, actions);
        Ok(streaming(EventBody { receiver, closed: Some((self.clone(), Peer::Executor { agent, key, number })) }))
    }

    /// A stream's other end went away.
    fn closed(self: &Arc<Self>, peer: Peer) {
        let core = &mut *self.core.lock();
        match peer {
            Peer::Scheduler(stream) => {
                core.schedulers.remove(&stream);
                core.master.disconnected(self.clock.now(), &stream);
            }
            Peer::Executor { agent, key, number } => {
                let at = (agent, key);
                if core.executors.get(&at).is_some_and(|stream| stream.number == number) {
                    core.executors.remove(&at);
                    core.master.executor_disconnected(&at.0, &at.1);
                }
            }
        }
        self.wake.notify_one();
    }

    fn agent_pid(&self, core: &Core, id: &str) -> String {
        let number = core.agents.iter().position(|agent| agent == id).unwrap_or_default() + 1;
        format!("slave({number})@{}", self.address)
    }
}

enum Peer {
    Scheduler(String),
    Executor { agent: String, key: Key, number: u64 },
}

/// A response that goes on as long as there are events; the cluster hears of its end.
struct EventBody {
    receiver: mpsc::UnboundedReceiver<Bytes>,
    closed: Option<(Arc<Shared>, Peer)>,
}

impl Body for EventBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.receiver.poll_recv(cx).map(|event| event.map(|bytes| Ok(Frame::data(bytes))))
    }
}

impl Drop for EventBody {
    fn drop(&mut self) {
        if let Some((shared, peer)) = self.closed.take() {
            shared.closed(peer);
        }
    }
}

fn record(event: &impl Message) -> Bytes {
    let mut bytes = BytesMut::new();
    recordio::encode(event, &mut bytes);
    bytes.freeze()
}

/// The number of the agent in `/slave(N)/api/v1/executor`; the first one also answers without it.
fn executor_path(path: &str) -> Option<usize> {
    match path.strip_suffix("/api/v1/executor")? {
        "" => Some(1),
        process => process.strip_prefix("/slave(")?.strip_suffix(')')?.parse().ok(),
    }
}

async fn read<C: Message + Default>(request: Request<Incoming>) -> Result<C, Refusal> {
    if request.headers().get(header::CONTENT_TYPE).is_none_or(|kind| kind != PROTOBUF) {
        return Err(Refusal(415, format!("Expecting 'Content-Type' of {PROTOBUF}")));
    }
    let body = request.into_body().collect().await.map_err(|error| Refusal(400, error.to_string()))?.to_bytes();
    C::decode(body).map_err(|error| Refusal(400, format!("Failed to parse body into Call protobuf: {error}")))
}

fn accepted(status: StatusCode) -> Answer {
    let mut answer = Response::new(Either::Left(Full::default()));
    *answer.status_mut() = status;
    answer
}

fn refused(Refusal(status, text): Refusal) -> Answer {
    let mut answer = Response::new(Either::Left(Full::from(text)));
    *answer.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST);
    answer
}

fn json(value: &serde_json::Value) -> Answer {
    let mut answer = Response::new(Either::Left(Full::from(value.to_string())));
    answer.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    answer
}

fn streaming(body: EventBody) -> Answer {
    let mut answer = Response::new(Either::Right(body));
    answer.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(PROTOBUF));
    answer
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
