//! The v1 HTTP API of the cluster, and its state as JSON.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body::{Body, Frame};
use http_body_util::{BodyExt as _, Either, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use prost::Message;
use tokio::net::{TcpListener, TcpStream};

use super::events::{self, Waiting};
use super::{ExecutorStream, Shared};
use crate::local_mesos::agent::Key;
use crate::local_mesos::master::Refusal;
use crate::local_mesos::state;
use crate::mesos::http::PROTOBUF;
use crate::mesos::v1::{executor, scheduler};
use crate::supervise::{self, stall::Stall};

/// How long a peer may take for a call, and to take anything of its answer.
const CALL_TIMEOUT: Duration = Duration::from_secs(60);
const STALLED: Duration = Duration::from_secs(300);
/// Larger calls are refused. A call may launch many tasks, each of which brings its pod along.
const CALL_LIMIT: usize = 64 << 20;

type Answer = Response<Either<Full<Bytes>, EventBody>>;

/// Serves until the supervisor stops. Event streams never end by themselves, so connections are cut off then.
pub(super) async fn serve(shared: Arc<Shared>, listener: TcpListener) -> anyhow::Result<()> {
    let supervisor = shared.supervisor.clone();
    supervise::http::accept(listener, &supervisor, |stream, _| connection(shared.clone(), stream)).await
}

async fn connection(shared: Arc<Shared>, stream: TcpStream) {
    let shutdown = shared.supervisor.shutdown();
    let service = service_fn(move |request| {
        let shared = shared.clone();
        async move { Ok::<_, Infallible>(shared.answer(request).await.unwrap_or_else(refused)) }
    });
    // Schedulers send call after call without waiting; their connection may also be silent for long.
    let socket = TokioIo::new(Stall::new(stream, STALLED));
    let connection = hyper::server::conn::http1::Builder::new().pipeline_flush(true).serve_connection(socket, service);
    let _ = shutdown.run_until_cancelled(connection).await;
}

impl Shared {
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
        let actions = core.master.subscribe(self.clock.now(), subscribe, stream.clone());
        let (events, waiting) = events::channel();
        core.schedulers.insert(stream.clone(), events);
        self.act(core, actions);
        let mut answer = streaming(EventBody { waiting, closed: Some((self.clone(), Peer::Scheduler(stream.clone()))) });
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
        let (events, waiting) = events::channel();
        core.streams += 1;
        let number = core.streams;
        core.executors.insert((agent.clone(), key.clone()), ExecutorStream { number, events });
        self.act(core, actions);
        Ok(streaming(EventBody { waiting, closed: Some((self.clone(), Peer::Executor { agent, key, number })) }))
    }

    /// The peer of a stream has disconnected.
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
}

enum Peer {
    Scheduler(String),
    Executor { agent: String, key: Key, number: u64 },
}

/// A response that lasts as long as there are events; the cluster is notified of its end.
struct EventBody {
    waiting: Waiting,
    closed: Option<(Arc<Shared>, Peer)>,
}

impl Body for EventBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.waiting.poll_next(cx).map(|event| event.map(|bytes| Ok(Frame::data(bytes))))
    }
}

impl Drop for EventBody {
    fn drop(&mut self) {
        if let Some((shared, peer)) = self.closed.take() {
            shared.closed(peer);
        }
    }
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
    let body = tokio::time::timeout(CALL_TIMEOUT, Limited::new(request.into_body(), CALL_LIMIT).collect());
    let body = body.await.map_err(|_| Refusal(408, "The call did not arrive in time".into()))?;
    let refused = |error: Box<dyn std::error::Error + Send + Sync>| {
        Refusal(if error.is::<LengthLimitError>() { 413 } else { 400 }, error.to_string())
    };
    let body = body.map_err(refused)?.to_bytes();
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
