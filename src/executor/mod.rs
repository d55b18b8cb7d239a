//! The executor: the kubelet of its Mesos agent. It runs the pods bound to its node as containers, and reports their status to the API
//! server and to Mesos.
//!
//! [`core`] decides what runs, with [`tasks`] for the Mesos side; [`life`] is that of one pod, with [`pod`] as its state machine. All of
//! these do no I/O. Around them are the loop in [`run`], a [`worker`] per pod, [`statuses`] and [`node`] for the API, and [`engine`] for
//! the container engine.

mod backoff;
pub mod bind;
mod calls;
mod config;
pub mod core;
pub mod engine;
mod env;
mod events;
mod expand;
mod fields;
mod images;
pub mod life;
mod mailbox;
pub mod minion;
pub mod names;
mod node;
mod observe;
pub mod pod;
mod probes;
mod run;
mod server;
mod shared;
mod spec;
mod static_pods;
pub mod status;
pub mod statuses;
pub mod tasks;
mod volumes;
mod worker;

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context;
use parking_lot::RwLock;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};

use crate::cache::Cache;
use crate::client::Client;
use crate::client::events::{EventWriter, recorder as events_of};
use crate::mesos::executor::{Driver, ExecutorEvent};
use crate::mesos::v1::TaskStatus;
use crate::runtime::Runtime;
use crate::supervise::{Shutdown, Supervisor};

pub use config::Config;
use shared::{Engine, Shared};

/// Capacity of each queue to the main loop; senders wait while it is full.
const WAITING: usize = 1024;

/// Where task updates go: the Mesos driver, or a test.
pub trait TaskUpdates: std::fmt::Debug + Send + Sync {
    fn update(&self, status: TaskStatus);
}

impl TaskUpdates for Driver {
    fn update(&self, status: TaskStatus) {
        Self::update(self, status);
    }
}

/// The connection to the agent.
#[derive(Debug)]
pub struct Mesos {
    pub updates: Arc<dyn TaskUpdates>,
    pub events: mpsc::Receiver<ExecutorEvent>,
}

/// An executor that is ready to run.
#[derive(Debug)]
pub struct Executor {
    shared: Arc<Shared>,
    listener: TcpListener,
    writer: statuses::Writer,
    news: mpsc::Receiver<statuses::News>,
    events: EventWriter,
    mesos: Option<Mesos>,
}

impl Executor {
    /// Binds the kubelet API's port without running anything yet. `cache` must be fed with services and at least the pods of this node.
    /// Without Mesos, every pod bound to the node is run.
    ///
    /// # Errors
    /// If the port is taken.
    pub async fn build(
        config: Config,
        client: Client,
        cache: Arc<Cache>,
        runtime: Arc<dyn Runtime>,
        mesos: Option<Mesos>,
    ) -> anyhow::Result<Self> {
        let at = SocketAddr::new(config.address, config.port);
        let listener = TcpListener::bind(at).await.with_context(|| format!("the kubelet API cannot be served on {at}"))?;
        let (news_sender, news) = mpsc::channel(WAITING);
        let (statuses, writer) = statuses::statuses(client.clone(), news_sender);
        let telling = config.event_rate.map_or_else(|| client.clone(), |(qps, burst)| client.clone().limited(qps, burst));
        let (recorder, events) = events_of(telling, "kubelet", &config.node_name);
        let capacity = node::Registration::default().capacity();
        let shared = Arc::new(Shared {
            config,
            runtime,
            client,
            cache,
            statuses,
            events: recorder,
            engine: RwLock::new(Engine::default()),
            capacity: RwLock::new(capacity),
            may_protect: shared::may_protect(),
            pausing: shared::Together::default(),
        });
        Ok(Self { shared, listener, writer, news, events, mesos })
    }

    /// The address of the kubelet API.
    ///
    /// # Errors
    /// If the socket no longer has an address.
    pub fn address(&self) -> anyhow::Result<SocketAddr> {
        Ok(self.listener.local_addr()?)
    }

    /// Runs until `shutdown`, which leaves all containers as they are, or until Mesos ends the executor, which ends its pods.
    ///
    /// # Errors
    /// If a part of it fails.
    pub async fn run(self, shutdown: Shutdown) -> anyhow::Result<()> {
        let Self { shared, listener, writer, news, events, mesos } = self;
        let supervisor = Supervisor::new(shutdown.child_token());
        let port = listener.local_addr()?.port();
        let (registration, registrations) = watch::channel(node::Registration::default());
        let (engine_state, engine_states) = watch::channel(None);
        let (signs_sender, signs) = mpsc::channel(WAITING);
        let (reports_sender, reports) = mpsc::channel(WAITING);
        let stop = supervisor.shutdown();
        supervisor.spawn("kubelet API", server::serve(shared.clone(), listener, engine_states.clone(), supervisor.clone()));
        supervisor.spawn_quiet(engine::watch(shared.clone(), engine_state, signs_sender, stop.clone()));
        supervisor.spawn("events", events.run(stop.clone()));
        // The writer stops after the last writes for ending pods.
        let written = Shutdown::new();
        supervisor.spawn_quiet(writer.run(written.clone()));
        let main = run::Run::new(shared.clone(), mesos, reports_sender);
        let inputs = run::Inputs { reports, signs, news };
        supervisor.spawn("executor", {
            let stop = stop.clone();
            async move {
                let (has_mesos, node_stop) = (main.has_mesos(), stop.clone());
                let node = node::run(shared, port, registrations, engine_states, !has_mesos, node_stop);
                let ran = tokio::select! {
                    ran = main.run(inputs, registration, stop.clone()) => ran,
                    () = async { node.await; std::future::pending::<()>().await } => Ok(()),
                };
                written.cancel();
                stop.cancel();
                ran
            }
        });
        supervisor.wait(run::STOP_TIMEOUT).await
    }
}
