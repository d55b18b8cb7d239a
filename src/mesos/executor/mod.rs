//! The executor's side of the v1 executor API: a driver that subscribes with the agent, delivers events, keeps status updates until they
//! are acknowledged, and reconnects when the agent returns.

mod environment;
mod pending;
pub mod protocol;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

pub use environment::{Environment, Error as EnvironmentError, parse_duration};
use protocol::{Lost, Next, Protocol};

use super::http::RequestHead;
use super::session::{self, Queue, Reply, SessionError, Subscription};
use super::v1::executor::{Call, Event, event};
use super::v1::{KillPolicy, TaskId, TaskInfo, TaskStatus};
use crate::supervise::Supervisor;
use crate::util::backoff::Backoff;

/// Events that may wait for the executor before the driver stops reading from the agent.
const BACKLOG: usize = 256;
/// First and longest pause between attempts to subscribe. An agent that has restarted waits 2 s for its executors by default.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_millis(500));

/// An event for an executor.
#[derive(Clone, Debug)]
pub enum ExecutorEvent {
    /// Subscribed, for the first time or again.
    Subscribed(Box<event::Subscribed>),
    Launch(Box<TaskInfo>),
    /// Tasks that start and end together.
    LaunchGroup(Vec<TaskInfo>),
    Kill {
        task_id: TaskId,
        kill_policy: Option<KillPolicy>,
    },
    /// Bytes from the scheduler.
    Message(Bytes),
    /// The agent is away; the executor and its tasks go on.
    Disconnected(String),
    /// End all tasks, report them, and exit: the agent requests it, or is gone for good. If it was a request, the agent kills the executor
    /// after [`Environment::shutdown_grace_period`].
    Shutdown(String),
}

/// Talks to the agent. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Driver(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    environment: Environment,
    state: Mutex<State>,
    settled: Notify,
}

#[derive(Debug, Default)]
struct State {
    protocol: Protocol,
    /// Takes calls while there is a subscription.
    queue: Option<Queue<Call>>,
}

impl Driver {
    /// Starts to subscribe, as a task of `supervisor`. It ends after [`ExecutorEvent::Shutdown`] once the agent closes the connection, or
    /// when the receiver is dropped or the supervisor stops.
    pub fn start(environment: Environment, supervisor: &Supervisor) -> (Self, mpsc::Receiver<ExecutorEvent>) {
        let driver = Self(Arc::new(Inner { environment, state: Mutex::default(), settled: Notify::new() }));
        let (events, receiver) = mpsc::channel(BACKLOG);
        let (shutdown, run) = (supervisor.shutdown(), Run { driver: driver.0.clone(), events });
        supervisor.spawn("Mesos executor driver", async move {
            shutdown.run_until_cancelled_owned(Box::pin(run.run())).await;
            Ok(())
        });
        (driver, receiver)
    }

    /// The environment that the agent set.
    pub fn environment(&self) -> &Environment {
        &self.0.environment
    }

    /// Reports the state of a task. The update is kept, and sent again in every new session, until it is acknowledged. Fills in uuid,
    /// source, executor and, if absent, the time.
    pub fn update(&self, status: TaskStatus) {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let state = &mut *self.0.state.lock();
        let call = state.protocol.update(status, uuid::Uuid::new_v4(), now, &self.0.environment);
        if let (Some(queue), Some(call)) = (&state.queue, call) {
            queue.send(call);
        }
    }

    /// Sends bytes to the scheduler. The reply says whether the agent accepted them, not whether they arrive.
    pub fn message(&self, data: Bytes) -> Reply {
        let Environment { executor_id, framework_id, .. } = &self.0.environment;
        match &self.0.state.lock().queue {
            Some(queue) => queue.send(Call::message(executor_id, framework_id, data)),
            None => Reply::disconnected(),
        }
    }

    /// Whether there is a subscription at the moment.
    pub fn connected(&self) -> bool {
        self.0.state.lock().queue.is_some()
    }

    /// Waits until every update so far is acknowledged, such as before the executor exits.
    pub async fn settled(&self) {
        loop {
            let changed = self.0.settled.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if self.0.state.lock().protocol.is_settled() {
                return;
            }
            changed.await;
        }
    }
}

/// How a session, or the attempt at one, came to its end.
enum End {
    Lost(SessionError),
    /// The receiver of events was dropped.
    Unheard,
}

impl From<SessionError> for End {
    fn from(error: SessionError) -> Self {
        Self::Lost(error)
    }
}

struct Run {
    driver: Arc<Inner>,
    events: mpsc::Sender<ExecutorEvent>,
}

impl Run {
    async fn run(mut self) {
        let environment = self.driver.environment.clone();
        let mut backoff = Backoff::new(BACKOFF.0, BACKOFF.1.min(environment.subscription_backoff_max));
        let mut away_since = Instant::now();
        loop {
            let Err(end) = self.session().await;
            let End::Lost(error) = end else { return };
            let text = error.to_string();
            let (was_connected, next) = {
                let state = &mut *self.driver.state.lock();
                state.queue = None;
                let was_connected = state.protocol.is_connected();
                if was_connected {
                    away_since = Instant::now();
                    backoff.reset();
                }
                let lost = match &error {
                    SessionError::Refused { text, .. } => Lost::Refused(text),
                    _ => Lost::Away(&text),
                };
                (was_connected, state.protocol.lost(lost, away_since.elapsed(), &environment))
            };
            if was_connected {
                tracing::warn!("Mesos agent: {text}");
                if self.report(ExecutorEvent::Disconnected(text)).await.is_err() {
                    return;
                }
            } else {
                tracing::debug!("Mesos agent: {text}");
            }
            match next {
                Next::Retry => {}
                Next::Over => return,
                Next::GiveUp(reason) => {
                    let _ = self.report(ExecutorEvent::Shutdown(reason)).await;
                    return;
                }
            }
            tokio::select! {
                () = tokio::time::sleep(backoff.pause()) => {}
                () = self.events.closed() => return,
            }
        }
    }

    async fn report(&self, event: ExecutorEvent) -> Result<(), End> {
        self.events.send(event).await.map_err(|_| End::Unheard)
    }

    async fn session(&mut self) -> Result<Infallible, End> {
        let environment = self.driver.environment.clone();
        let Environment { endpoint, path, token, .. } = &environment;
        let mut head = RequestHead::call(endpoint, path);
        if let Some(token) = token {
            head = head.with("Authorization", &format!("Bearer {token}"));
        }
        let subscribe = self.driver.state.lock().protocol.subscribe(&environment);
        let mut stream = Subscription::<Event>::open(endpoint, &head, &subscribe).await?;
        let Some(start) = stream.next().await?.subscribed else {
            return Err(SessionError::Ended.into());
        };
        let (queue, mut calls) = Queue::new();
        {
            let state = &mut *self.driver.state.lock();
            for call in state.protocol.subscribed(&environment) {
                queue.send(call);
            }
            state.queue = Some(queue);
        }
        self.report(ExecutorEvent::Subscribed(Box::new(start))).await?;
        tokio::select! {
            biased;
            end = self.hand_out(&mut stream) => end,
            end = session::deliver(endpoint, &head, &mut calls) => Err(end.err().unwrap_or(SessionError::Ended).into()),
        }
    }

    async fn hand_out(&mut self, stream: &mut Subscription<Event>) -> Result<Infallible, End> {
        loop {
            let event = tokio::select! {
                event = stream.next() => event?,
                () = self.events.closed() => return Err(End::Unheard),
            };
            let acknowledged = event.acknowledged.is_some();
            let heard = self.driver.state.lock().protocol.heard(event);
            if acknowledged {
                self.driver.settled.notify_waiters();
            }
            match heard {
                Ok(Some(event)) => self.report(event).await?,
                Ok(None) => {}
                Err(message) => {
                    tracing::error!("Mesos agent: {message}");
                    return Err(SessionError::Ended.into());
                }
            }
        }
    }
}
