//! The scheduler's side of the v1 scheduler API: a driver that finds the leading master, subscribes, hands out events, sends calls,
//! and starts over whenever the connection is lost.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};

use super::detect::MasterAddress;
use super::http::RequestHead;
use super::session::{self, Queue, Reply, SessionError, Subscription};
use super::v1::scheduler::{Call, Event, event};
use super::v1::{Credential, FrameworkId, FrameworkInfo, MasterInfo};
use crate::supervise::Supervisor;
use crate::util::backoff::Backoff;

const PATH: &str = "/api/v1/scheduler";
/// Events that may wait for the scheduler before the driver stops reading from the master.
const BACKLOG: usize = 1024;
/// Heartbeats that may be missed in a row.
const MISSED_HEARTBEATS: u32 = 4;
/// Heartbeat interval of masters that do not report one: Mesos' default.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// Time for the first event after the response to SUBSCRIBE.
const SUBSCRIBED_TIMEOUT: Duration = Duration::from_secs(30);
/// How long the answers to calls may take once the event stream has ended.
const LAST_ANSWERS: Duration = Duration::from_millis(500);
/// First and longest pause between attempts to subscribe.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(15));

/// Events of a framework, in order: for each session Connected, Subscribed, any number of Event, Disconnected.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant, reason = "nearly all of them are Event")]
pub enum DriverEvent {
    /// Connected to this master, not yet subscribed.
    Connected(MasterAddress),
    /// Subscribed; keep the id. Offers of an earlier session are invalid.
    Subscribed(Subscribed),
    /// Any event but SUBSCRIBED, ERROR and HEARTBEAT.
    Event(Event),
    /// The session ended, for this reason; another one will follow.
    Disconnected(String),
    /// The framework may not subscribe again: it was removed, replaced by another instance, or is not let in. The last event.
    Error(String),
}

/// The start of a session.
#[derive(Clone, Debug, PartialEq)]
pub struct Subscribed {
    pub framework_id: FrameworkId,
    /// The master's own description, since Mesos 1.2.
    pub master: Option<MasterInfo>,
}

/// The configuration of a driver.
#[derive(Clone, Debug)]
pub struct Config {
    /// With the id of an earlier subscription, if any.
    pub framework: FrameworkInfo,
    /// Sent as basic authentication. Never logged.
    pub credential: Option<Credential>,
    /// Roles that get no offers at first.
    pub suppressed_roles: Vec<String>,
}

/// Sends calls in whatever session there is. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Calls(Arc<Mutex<Option<Session>>>);

#[derive(Debug)]
struct Session {
    framework_id: FrameworkId,
    queue: Queue<Call>,
}

impl Calls {
    /// Sends a call behind all that were sent before, without waiting. The framework id is filled in.
    pub fn send(&self, mut call: Call) -> Reply {
        match &*self.0.lock() {
            None => Reply::disconnected(),
            Some(session) => {
                call.framework_id = Some(session.framework_id.clone());
                session.queue.send(call)
            }
        }
    }

    /// Whether there is a subscription at the moment.
    pub fn connected(&self) -> bool {
        self.0.lock().is_some()
    }
}

/// Starts a driver as a task of `supervisor`. It runs until the framework may no longer subscribe, the receiver of the events is dropped,
/// or the supervisor stops it. It never unregisters the framework: see [`Call::teardown`].
pub fn start(
    config: Config,
    masters: watch::Receiver<Option<MasterAddress>>,
    supervisor: &Supervisor,
) -> (Calls, mpsc::Receiver<DriverEvent>) {
    let calls = Calls::default();
    let (events, receiver) = mpsc::channel(BACKLOG);
    let driver = Driver { config, masters, calls: calls.clone(), events };
    let shutdown = supervisor.shutdown();
    supervisor.spawn("Mesos scheduler driver", async move {
        shutdown.run_until_cancelled_owned(Box::pin(driver.run())).await;
        Ok(())
    });
    (calls, receiver)
}

/// How a session, or the attempt at one, came to its end.
#[derive(Debug)]
enum End {
    /// Try again.
    Lost(SessionError),
    /// The detector reports another master, or none.
    MasterChanged,
    /// Do not retry.
    Fatal(String),
    /// The receiver of events was dropped.
    Unheard,
}

impl From<SessionError> for End {
    fn from(error: SessionError) -> Self {
        match error {
            SessionError::Refused { status: 401 | 403, text } => Self::Fatal(format!("not authorized to subscribe: {text}")),
            SessionError::Refused { .. } => Self::Fatal(format!("SUBSCRIBE {error}")),
            other => Self::Lost(other),
        }
    }
}

struct Driver {
    config: Config,
    masters: watch::Receiver<Option<MasterAddress>>,
    calls: Calls,
    events: mpsc::Sender<DriverEvent>,
}

impl Driver {
    async fn run(mut self) {
        let mut backoff = Backoff::new(BACKOFF.0, longest_pause(self.config.framework.failover_timeout()));
        let mut redirected = None;
        loop {
            let address = match redirected.take() {
                Some(leader) => leader,
                None => match self.master().await {
                    Some(address) => address,
                    None => return,
                },
            };
            let mut subscribed = false;
            let end = self.attempt(&address, &mut subscribed).await;
            *self.calls.0.lock() = None;
            if subscribed {
                backoff.reset();
            }
            let (reason, mut pause) = match end {
                End::Unheard => return,
                End::Fatal(message) => {
                    tracing::error!("Mesos master {address}: {message}");
                    let _ = self.events.send(DriverEvent::Error(message)).await;
                    return;
                }
                End::MasterChanged => ("another master leads".to_owned(), Duration::ZERO),
                End::Lost(error) => {
                    // Right after an election, the old and the new leader may point to each other, so pause even here.
                    if let SessionError::NotLeading(Some(leader)) = &error {
                        redirected = leader.parse().ok();
                    }
                    (error.to_string(), backoff.pause())
                }
            };
            tracing::debug!("Mesos master {address}: {reason}");
            if self.report(DriverEvent::Disconnected(reason)).await.is_err() {
                return;
            }
            if redirected.is_some() {
                pause = pause.min(BACKOFF.0);
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                Ok(()) = self.masters.changed() => (redirected, _) = (None, self.masters.mark_changed()),
                () = self.events.closed() => return,
            }
        }
    }

    /// Waits for a leading master; `None` if the receiver of events was dropped.
    async fn master(&mut self) -> Option<MasterAddress> {
        tokio::select! {
            () = self.events.closed() => None,
            found = self.masters.wait_for(Option::is_some) => found.ok()?.clone(),
        }
    }

    async fn report(&self, event: DriverEvent) -> Result<(), End> {
        self.events.send(event).await.map_err(|_| End::Unheard)
    }

    /// One session, from connection to end; `subscribed` is set once subscribed.
    async fn attempt(&mut self, address: &MasterAddress, subscribed: &mut bool) -> End {
        let mut masters = self.masters.clone();
        let another = async {
            if masters.changed().await.is_err() {
                // a detector that has ended leaves us with the master it found
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            end = self.session(address.to_string(), subscribed) => end,
            () = another => End::MasterChanged,
        }
    }

    async fn session(&mut self, address: String, subscribed: &mut bool) -> End {
        match self.subscribe(&address, subscribed).await {
            Ok(never) => match never {},
            Err(end) => end,
        }
    }

    async fn subscribe(&mut self, address: &str, subscribed: &mut bool) -> Result<Infallible, End> {
        let head = RequestHead::call(address, PATH).with_credential(self.config.credential.as_ref());
        let call = Call::subscribe(self.config.framework.clone(), self.config.suppressed_roles.clone());
        let mut stream = Subscription::<Event>::open(address, &head, &call).await?;
        self.report(DriverEvent::Connected(address.parse().map_err(|_| SessionError::Ended)?)).await?;

        let start = heard_within(SUBSCRIBED_TIMEOUT, &mut stream).await?;
        let event::Subscribed { framework_id, heartbeat_interval_seconds, master_info } = match start {
            Event { error: Some(error), .. } => return Err(End::Fatal(error.message)),
            Event { subscribed: Some(subscribed), .. } => subscribed,
            other => return Err(End::Fatal(format!("expected SUBSCRIBED as the first event, got {:?}", other.r#type()))),
        };
        self.config.framework.id = Some(framework_id.clone());
        let head = head.with("Mesos-Stream-Id", stream.stream_id().unwrap_or_default());
        let (queue, mut calls) = Queue::new();
        *self.calls.0.lock() = Some(Session { framework_id: framework_id.clone(), queue });
        *subscribed = true;
        self.report(DriverEvent::Subscribed(Subscribed { framework_id, master: master_info })).await?;

        let silence = heartbeat_interval_seconds.map_or(HEARTBEAT, Duration::from_secs_f64) * MISSED_HEARTBEATS;
        let mut delivery = std::pin::pin!(session::deliver(address, &head, &mut calls));
        tokio::select! {
            // The events come first: the reason for a closed connection may be among them.
            biased;
            end = self.hand_out(&mut stream, silence) => {
                // The response to the last call may be on its way; that to TEARDOWN always is.
                *self.calls.0.lock() = None;
                let _ = tokio::time::timeout(LAST_ANSWERS, delivery).await;
                end
            }
            end = &mut delivery => Err(end.err().unwrap_or(SessionError::Ended).into()),
        }
    }

    async fn hand_out(&self, stream: &mut Subscription<Event>, silence: Duration) -> Result<Infallible, End> {
        loop {
            let event = heard_within(silence, stream).await?;
            match event.r#type() {
                event::Type::Heartbeat => {}
                event::Type::Error => return Err(End::Fatal(event.error.map(|error| error.message).unwrap_or_default())),
                event::Type::Unknown => tracing::debug!("unknown event from the Mesos master: {event:?}"),
                _ => self.report(DriverEvent::Event(event)).await?,
            }
        }
    }
}

async fn heard_within(silence: Duration, stream: &mut Subscription<Event>) -> Result<Event, SessionError> {
    tokio::time::timeout(silence, stream.next()).await.unwrap_or(Err(SessionError::Silent(silence)))
}

/// A framework that the master removes after a failover timeout has to be back well before.
fn longest_pause(failover_timeout: f64) -> Duration {
    if failover_timeout > 0.0 { BACKOFF.1.min(Duration::from_secs_f64((failover_timeout / 10.0).clamp(0.5, 60.0))) } else { BACKOFF.1 }
}
