//! Priority and fairness: how many requests are served concurrently, and whose. A noisy client delays only itself.
//!
//! Reads and writes have separate seats (`--max-requests-inflight`, `--max-mutating-requests-inflight`). A tenth of either is reserved for
//! the cluster itself: the leases of leader elections and nodes, and the status of nodes. Calls within the process, health checks and
//! long-running requests (established watches, logs, proxied connections) need no seat.

mod queues;

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::header::USER_AGENT;
use http::{HeaderMap, Method};
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::auth::User;
use super::error::Answer;
use super::path::{Route, Target};
use crate::object::Status;
use crate::object::resource::{LEASE, NODE};
use crate::telemetry::metrics::{self, Counter, Gauge, Histogram};
use queues::{Arrival, Flow, Queues, Ticket};

/// Where a request comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// A component of this process.
    Process,
    Remote(IpAddr),
}

/// How many requests may wait per seat; beyond that, the client with the most waiting requests gets 429.
const ROOM: usize = 4;
/// One in this many seats is reserved for the cluster itself.
const SYSTEM_SHARE: usize = 10;

/// All seats.
#[derive(Debug)]
pub(crate) struct Fairness {
    /// Randomly seeded, so that no client can provoke a hash collision.
    hasher: RandomState,
    reads: Levels,
    writes: Levels,
    patience: Duration,
}

/// The seats of reads, or of writes.
#[derive(Debug)]
struct Levels {
    system: Option<Arc<Level>>,
    workload: Option<Arc<Level>>,
}

/// Seats that are shared fairly among clients.
#[derive(Debug)]
struct Level {
    queues: Mutex<Queues<oneshot::Sender<Seat>>>,
    seated: Gauge,
    waiting: Gauge,
    full: Counter,
    timed_out: Counter,
    waited: Histogram,
}

/// The right to be served. Dropping it lets the next one in.
#[derive(Debug)]
pub(crate) struct Seat {
    level: Arc<Level>,
    flow: Flow,
}

impl Fairness {
    /// Seats for this many concurrent reads and writes (0: unlimited); requests that wait longer than `patience` are refused.
    pub(crate) fn new(reads: usize, writes: usize, patience: Duration, metrics: &metrics::Registry) -> Self {
        let levels = |kind, seats| Levels::new(metrics, kind, seats);
        Self { hasher: RandomState::new(), reads: levels("readOnly", reads), writes: levels("mutating", writes), patience }
    }

    /// A seat for a request, or `None` if it needs none.
    ///
    /// # Errors
    /// 429 if too many requests are waiting, or the wait is too long.
    pub(crate) async fn admit(
        &self,
        origin: Origin,
        user: &User,
        method: &Method,
        headers: &HeaderMap,
        route: &Route,
    ) -> Answer<Option<Seat>> {
        let Origin::Remote(address) = origin else { return Ok(None) };
        if is_exempt(route) {
            return Ok(None);
        }
        let levels = if matches!(*method, Method::GET | Method::HEAD) { &self.reads } else { &self.writes };
        let Some(level) = (if is_system(route) { &levels.system } else { &levels.workload }) else { return Ok(None) };
        level.admit(self.flow(user, address, headers), self.patience).await.map(Some)
    }

    /// The client of a request: a user at an address, with a User-Agent, as the user and the address alone would merge all components on a
    /// master. Clients choose their User-Agent: this protects from accidents, not from somebody who makes one up for every request.
    fn flow(&self, user: &User, address: IpAddr, headers: &HeaderMap) -> Flow {
        Flow(self.hasher.hash_one((&user.name, address, headers.get(USER_AGENT).map(http::HeaderValue::as_bytes))))
    }
}

/// Probes must be answered even by a busy server, and long-running requests would hold their seat for ever.
fn is_exempt(route: &Route) -> bool {
    match route {
        Route::Target(target) => matches!(target.subresource.as_str(), "log" | "exec" | "attach" | "portforward" | "proxy"),
        Route::Probe => true,
        _ => false,
    }
}

fn is_system(route: &Route) -> bool {
    let Route::Target(Target { resource, subresource, .. }) = route else { return false };
    *resource == &LEASE || *resource == &NODE && subresource == "status"
}

impl Levels {
    fn new(metrics: &metrics::Registry, kind: &str, seats: usize) -> Self {
        if seats == 0 {
            return Self { system: None, workload: None };
        }
        let system = (seats / SYSTEM_SHARE).max(1);
        let level = |name, seats| Some(Arc::new(Level::new(metrics, kind, name, seats)));
        Self { system: level("system", system), workload: level("workload", (seats - system).max(1)) }
    }
}

impl Level {
    fn new(metrics: &metrics::Registry, kind: &str, name: &str, seats: usize) -> Self {
        const BOUNDS: &[f64] = &[0.0, 0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0];
        const LABELS: &[&str] = &["request_kind", "priority_level"];
        let values = [kind, name];
        let rejected = |reason: &str| {
            let (labels, help) = (&["request_kind", "priority_level", "reason"], "Requests sent away for want of seats.");
            metrics.counter("apiserver_flowcontrol_rejected_requests_total", help, labels, &[kind, name, reason])
        };
        Self {
            queues: Mutex::new(Queues::new(seats, seats * ROOM)),
            seated: metrics.gauge("apiserver_flowcontrol_current_executing_requests", "Requests that have a seat.", LABELS, &values),
            waiting: metrics.gauge("apiserver_flowcontrol_current_inqueue_requests", "Requests that wait for one.", LABELS, &values),
            full: rejected("queue-full"),
            timed_out: rejected("time-out"),
            waited: metrics.histogram(
                "apiserver_flowcontrol_request_wait_duration_seconds",
                "How long requests waited for a seat.",
                BOUNDS,
                LABELS,
                &values,
            ),
        }
    }

    async fn admit(self: &Arc<Self>, flow: Flow, patience: Duration) -> Answer<Seat> {
        let (sender, receiver) = oneshot::channel();
        let arrival = {
            let mut queues = self.queues.lock();
            let arrival = queues.arrive(flow, || sender);
            self.show(&queues);
            arrival
        };
        let ticket = match arrival {
            Arrival::Seated => return Ok(Seat { level: self.clone(), flow }),
            Arrival::Refused => {
                self.full.inc();
                return Err(too_many());
            }
            // Dropping the displaced request wakes its waiter.
            Arrival::Queued(ticket, displaced) => {
                drop(displaced);
                ticket
            }
        };
        let started = Instant::now();
        let place = Place { level: self, flow, ticket };
        let outcome = tokio::time::timeout(patience, receiver).await;
        self.waited.observe(started.elapsed().as_secs_f64());
        drop(place);
        match outcome {
            Ok(Ok(seat)) => return Ok(seat),
            Ok(Err(_)) => self.full.inc(),
            Err(_) => self.timed_out.inc(),
        }
        Err(too_many())
    }

    fn show(&self, queues: &Queues<oneshot::Sender<Seat>>) {
        let (seated, waiting) = queues.counts();
        self.seated.set(i64::try_from(seated).unwrap_or(i64::MAX));
        self.waiting.set(i64::try_from(waiting).unwrap_or(i64::MAX));
    }
}

/// A place in a queue; leaving it, for whatever reason, frees it.
struct Place<'a> {
    level: &'a Level,
    flow: Flow,
    ticket: Ticket,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut queues = self.level.queues.lock();
        if queues.give_up(self.flow, self.ticket) {
            self.level.show(&queues);
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let next = {
            let mut queues = self.level.queues.lock();
            let next = queues.leave(self.flow);
            self.level.show(&queues);
            next
        };
        if let Some((flow, waiter)) = next {
            // A waiter that has just given up frees the seat at once.
            let _ = waiter.send(Self { level: self.level.clone(), flow });
        }
    }
}

fn too_many() -> Box<Status> {
    Box::new(Status::too_many_requests("too many requests, please try again later", 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fairness(seats: usize) -> Fairness {
        Fairness::new(seats, seats, Duration::from_secs(15), &metrics::Registry::default())
    }

    fn user() -> User {
        User { name: "u".to_owned(), ..User::default() }
    }

    async fn ask(it: &Fairness, agent: &str, path: &str) -> Answer<Option<Seat>> {
        let mut headers = HeaderMap::new();
        headers.insert(USER_AGENT, agent.parse().unwrap());
        let origin = Origin::Remote([127, 0, 0, 1].into());
        it.admit(origin, &user(), &Method::GET, &headers, &super::super::path::parse(path)).await
    }

    const PODS: &str = "/api/v1/pods";

    #[tokio::test(start_paused = true)]
    async fn a_quiet_client_passes_a_noisy_one() {
        let it = fairness(11);
        let mut held = Vec::new();
        for _ in 0..10 {
            held.push(ask(&it, "noisy", PODS).await.unwrap().unwrap());
        }
        let noise: Vec<_> = (0..40).map(|_| ask(&it, "noisy", PODS)).collect();
        let mut noise = futures_util::future::join_all(noise);
        assert!(futures_util::poll!(&mut noise).is_pending());
        let mut quiet = std::pin::pin!(ask(&it, "quiet", PODS));
        assert!(futures_util::poll!(quiet.as_mut()).is_pending(), "all seats are taken, and the queue is full");
        held.pop();
        quiet.await.unwrap().expect("the first free seat is its");
        // One of the noisy client's requests lost its place; the others time out.
        let waited = noise.await;
        assert_eq!(waited.iter().filter(|it| it.is_err()).count(), 40 - 1, "the quiet one's seat was free again");
        assert_eq!(waited.into_iter().find_map(Result::err).unwrap().code, 429);
    }

    #[tokio::test]
    async fn the_clusters_own_and_probes_are_let_through() {
        let it = fairness(1);
        let _held = ask(&it, "a", PODS).await.unwrap().unwrap();
        for free in ["/healthz", "/readyz/etcd", "/api/v1/namespaces/a/pods/b/log"] {
            assert!(ask(&it, "a", free).await.unwrap().is_none(), "{free}");
        }
        assert!(ask(&it, "a", "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/x").await.unwrap().is_some());
        assert!(
            it.admit(Origin::Process, &user(), &Method::GET, &HeaderMap::new(), &super::super::path::parse(PODS)).await.unwrap().is_none()
        );
        assert!(ask(&fairness(0), "a", PODS).await.unwrap().is_none(), "without a limit nothing is counted");
    }

    #[tokio::test]
    async fn who_gives_up_leaves_no_trace() {
        let it = fairness(1);
        let held = ask(&it, "a", PODS).await.unwrap().unwrap();
        {
            let mut waiting = std::pin::pin!(ask(&it, "b", PODS));
            assert!(futures_util::poll!(waiting.as_mut()).is_pending());
        }
        drop(held);
        ask(&it, "c", PODS).await.unwrap().unwrap();
    }
}
