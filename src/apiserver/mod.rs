//! The API server: HTTP → authentication → authorisation → admission → registry → store, and out of the cache to readers.
//!
//! [`ApiServer::build`] binds, [`ApiServer::start`] loads the cache and serves. Components of the same process call it through
//! [`ApiServer::transport`] and read [`ApiServer::cache`].

mod admission;
mod allocate;
mod auth;
mod bootstrap;
mod container;
mod discovery;
mod encode;
mod error;
mod fairness;
mod feed;
mod freshness;
mod gzip;
mod handler;
mod health;
mod heavy;
mod kubelet;
mod list;
mod list_options;
mod local_transport;
mod logs;
mod metrics;
mod negotiate;
mod pages;
mod path;
mod pending_writes;
mod query;
mod registry;
mod response;
mod serve;
mod stored_list;
mod streams;
pub mod tokens;
mod verb;
mod warnings;
mod watch;
mod websocket;
mod write_options;

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

pub use admission::DEFAULT_PLUGINS;
use anyhow::Context;
use parking_lot::Mutex;

use self::health::Step;
use crate::cache::Cache;
use crate::client::Transport;
use crate::object::Status;
use crate::store::Store;
use crate::supervise::Supervisor;
use crate::telemetry::metrics::Registry;
use crate::tokens::SigningKey;
use crate::util::cidr::Cidr;
use crate::util::product::Product;

/// Configuration of an API server.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where plain HTTP is served; port 0 takes a free one.
    pub listen: Vec<SocketAddr>,
    /// The address by which the cluster reaches this server: the endpoint of the service `kubernetes`.
    pub advertise: IpAddr,
    /// Services get their addresses from here; the first is the API server's own service.
    pub service_range: Cidr,
    pub node_ports: RangeInclusive<u16>,
    /// How long events are kept.
    pub event_ttl: Duration,
    /// The key of the store below which everything lies, without a slash at its end.
    pub prefix: String,
    pub product: &'static Product,
    /// How long a kubelet may take to begin its answer.
    pub kubelet_timeout: Duration,
    /// Admission plug-ins, in order.
    pub admission: Vec<String>,
    /// How many changes of each resource are kept for watches to resume from.
    pub history: usize,
    /// A watch without a timeout of its own ends after this long, or up to twice as long.
    pub min_watch: Duration,
    /// Requests served at a time; 0 is no limit. Watches that have begun and calls from within the process do not count.
    pub max_reads: usize,
    pub max_writes: usize,
    /// HTTP/2 requests at a time on one connection.
    pub max_streams: u32,
    pub timeouts: Timeouts,
    pub tokens: tokens::Config,
    /// Other API servers use the same store: share the service `kubernetes` with them.
    pub shared: bool,
    pub metrics: Registry,
}

/// How long clients may take, and be kept waiting.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// From a request's head to its answer's, for all but watches. A client may ask for less.
    pub request: Duration,
    /// Until a request's head has arrived, and between two requests of a connection.
    pub head: Duration,
    /// For a client that reads nothing of its response.
    pub stalled: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self { request: Duration::from_secs(60), head: Duration::from_secs(90), stalled: Duration::from_secs(300) }
    }
}

impl Config {
    /// The defaults of the command line, serving on this address.
    pub fn new(product: &'static Product, listen: SocketAddr, service_range: Cidr) -> Self {
        Self {
            listen: vec![listen],
            advertise: listen.ip(),
            service_range,
            node_ports: 30000..=32767,
            event_ttl: Duration::from_secs(3600),
            prefix: "/registry".to_owned(),
            product,
            kubelet_timeout: Duration::from_secs(5),
            admission: DEFAULT_PLUGINS.split(',').map(str::to_owned).collect(),
            history: 4096,
            min_watch: Duration::from_secs(1800),
            max_reads: 400,
            max_writes: 200,
            max_streams: 100,
            timeouts: Timeouts::default(),
            tokens: tokens::Config::new(product),
            shared: false,
            metrics: Registry::default(),
        }
    }
}

/// A server that is bound, and serves once started.
#[derive(Debug)]
pub struct ApiServer {
    server: Arc<Server>,
    /// Taken by the start.
    listeners: Mutex<Vec<std::net::TcpListener>>,
}

/// The state that all parts of the server share.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) config: Config,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) cache: Arc<Cache>,
    /// Owns the tasks of the server: the cache's feeder, connections, writes.
    pub(crate) tasks: Supervisor,
    pub(crate) admission: admission::Chain,
    pub(crate) health: health::Health,
    pub(crate) kubelets: kubelet::Kubelets,
    pub(crate) addresses: Vec<SocketAddr>,
    fairness: fairness::Fairness,
    pending_writes: pending_writes::PendingWrites,
    bodies: Arc<serve::Bodies>,
    requests: metrics::Metrics,
    /// Set at the start: the key may be in the store.
    tokens: OnceLock<tokens::Tokens>,
}

impl Server {
    /// # Errors
    /// 503 as long as the server starts.
    fn tokens(&self) -> error::Answer<&tokens::Tokens> {
        self.tokens.get().ok_or_else(|| Box::new(Status::unavailable("the server is starting")))
    }

    /// The address of this server for other machines.
    fn own_address(&self) -> SocketAddr {
        SocketAddr::new(self.config.advertise, self.addresses.first().map_or(443, SocketAddr::port))
    }
}

impl ApiServer {
    /// Binds the addresses without serving yet.
    ///
    /// # Errors
    /// For an address that cannot be bound, and for an admission plug-in that does not exist.
    pub fn build(config: Config, store: Arc<dyn Store>) -> anyhow::Result<Self> {
        let listeners = config.listen.iter().map(|address| serve::bind(*address)).collect::<anyhow::Result<Vec<_>>>()?;
        let addresses =
            listeners.iter().map(std::net::TcpListener::local_addr).collect::<Result<Vec<_>, _>>().context("bound addresses")?;
        let server = Server {
            cache: Cache::new(config.history),
            tasks: Supervisor::default(),
            admission: admission::Chain::new(&config.admission)?,
            health: health::Health::default(),
            kubelets: kubelet::Kubelets::new(config.kubelet_timeout),
            fairness: fairness::Fairness::new(config.max_reads, config.max_writes, config.timeouts.request / 4, &config.metrics),
            pending_writes: pending_writes::PendingWrites::default(),
            bodies: Arc::default(),
            requests: metrics::Metrics::new(&config.metrics),
            tokens: OnceLock::new(),
            addresses,
            store,
            config,
        };
        Ok(Self { server: Arc::new(server), listeners: Mutex::new(listeners) })
    }

    /// Loads the cache, creates the missing objects of a new cluster, and serves until the supervisor stops.
    ///
    /// # Errors
    /// If the store cannot be read or written.
    pub async fn start(&self, supervisor: &Supervisor) -> anyhow::Result<()> {
        let server = &self.server;
        let (outer, inner) = (supervisor.shutdown(), server.tasks.clone());
        supervisor.spawn("API server", async move {
            tokio::select! {
                () = outer.cancelled() => inner.shutdown().cancel(),
                () = async { inner.shutdown().cancelled().await } => {}
            }
            inner.wait(serve::DRAIN).await
        });
        let revision = feed::load(server).await.context("loading the cache from the store")?;
        server.tasks.spawn("feeding the cache", feed::follow(server.clone(), revision));
        server.health.set_done(Step::Cache);
        let tokens = tokens::Tokens::load(server).await.context("the key of service accounts")?;
        let _ = server.tokens.set(tokens);
        allocate::adopt(server).await.context("claiming the addresses of services")?;
        server.health.set_done(Step::Addresses);
        bootstrap::run(server).await.context("making the objects that every cluster has")?;
        server.health.set_done(Step::Objects);
        server.tasks.spawn("the endpoints of the API server", bootstrap::maintain(server.clone()));
        server.tasks.spawn("repairing service addresses", allocate::repair(server.clone()));
        for listener in std::mem::take(&mut *self.listeners.lock()) {
            let listener = tokio::net::TcpListener::from_std(listener).context("serving a bound address")?;
            server.tasks.spawn("serving", serve::serve(server.clone(), listener));
        }
        Ok(())
    }

    /// The objects, for readers of this process.
    pub fn cache(&self) -> Arc<Cache> {
        self.server.cache.clone()
    }

    /// Calls of this process: no sockets, no HTTP.
    pub fn transport(&self) -> Arc<dyn Transport> {
        Arc::new(local_transport::LocalTransport::new(self.server.clone()))
    }

    /// The key that signs the tokens of service accounts, once the server has started.
    pub fn signing_key(&self) -> Option<Arc<SigningKey>> {
        self.server.tokens.get().map(tokens::Tokens::signing_key)
    }

    /// The bound addresses, in the order of the configuration.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.server.addresses
    }
}

#[cfg(test)]
mod tests;
