//! The I/O around the core: watches, the Mesos driver, writes to the API server, time.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::{Context, bail};
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::Instant;

use super::artifacts::{self, Files};
use super::bind::{bind, mark_unschedulable};
use super::config::Config;
use super::core::{Action, BIND_TIMEOUT, Core, GATE, Input, Settings};
use super::demand::Rules;
use super::executorinfo::Prototype;
use super::frameworkid::{Keeper, StateStore};
use super::http::{self, Site, Work};
use super::metrics::Metrics;
use super::publish::Publisher;
use super::reconcile::Pace;
use super::register::write_node;
use crate::cache::{Cache, Event, Expired, Query, Watch};
use crate::client::events::{self, EventRecorder, EventType};
use crate::client::leader::Candidate;
use crate::client::{Client, DeleteOptions};
use crate::mesos::detect::{self, MasterLocation};
use crate::mesos::scheduler::{self, Calls, DriverEvent};
use crate::mesos::v1::framework_info::{Capability, capability};
use crate::mesos::v1::{Credential, FrameworkInfo};
use crate::object::{Name, Object, ResourceRef, resource};
use crate::supervise::{Shutdown, Supervisor};
use crate::telemetry::metrics::Registry;

/// The resources that the cache of a scheduler must hold.
pub const READS: [ResourceRef; 5] =
    [&resource::POD, &resource::NODE, &resource::PERSISTENT_VOLUME_CLAIM, &resource::PERSISTENT_VOLUME, &resource::STORAGE_CLASS];
/// Concurrent writes to the API server.
const WRITES: usize = 64;
/// Outcomes of writes that may wait for the core; further writes wait for room.
const WAITING: usize = 1024;
/// How many inputs of one kind are batched.
const BATCH: usize = 1024;
/// How long the parts may take to stop.
const GRACE: Duration = Duration::from_secs(5);

/// A scheduler that listens, and otherwise is idle until [`Scheduler::run`].
#[derive(Debug)]
pub struct Scheduler {
    listener: TcpListener,
    files: Files,
    leader: Leader,
}

/// The parts of a scheduler that start when it leads.
#[derive(Debug)]
struct Leader {
    config: Config,
    client: Client,
    cache: Arc<Cache>,
    keeper: Keeper,
    masters: MasterLocation,
    prototype: Prototype,
    /// The address of this scheduler for others.
    endpoint: SocketAddr,
}

impl Scheduler {
    /// Checks the configuration, reads the files that it names, and binds the HTTP port. `cache` must hold, or soon hold, the
    /// [resources](READS) of the cluster that `client` writes to; `state` stores the framework id.
    ///
    /// # Errors
    /// A fault of the configuration, with its flag.
    pub async fn build(config: Config, client: Client, cache: Arc<Cache>, state: Arc<dyn StateStore>) -> anyhow::Result<Self> {
        let config = config.check()?;
        let masters = MasterLocation::read(&config.mesos_master).context("--mesos-master")?;
        let key = config.framework_store.key(config.product, &config.framework_name);
        let keeper = Keeper { store: state, key, failover: config.failover(), refresh: config.tuning.framework_id_refresh_interval };
        let at = SocketAddr::new(config.address, config.port);
        let listener = TcpListener::bind(at).await.with_context(|| format!("--address and --port: cannot listen on {at}"))?;
        let endpoint = SocketAddr::new(config.published_address.unwrap_or(config.address), listener.local_addr()?.port());
        let base = format!("http://{}", config.advertised_address.clone().unwrap_or_else(|| endpoint.to_string()));
        let (files, prototype) = artifacts::prepare(&config, &base).context("misconfigured executor")?;
        let leader = Leader { config, client: client.named("km-scheduler"), cache, keeper, masters, prototype, endpoint };
        Ok(Self { listener, files, leader })
    }

    /// The listening address of the HTTP server.
    ///
    /// # Errors
    /// If the operating system cannot report it.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Schedules until the shutdown; with `--ha`, once elected. Tasks in Mesos keep running.
    ///
    /// # Errors
    /// If Mesos rejects the framework for good; [`Lost`](crate::client::leader::Lost) if another scheduler leads now.
    pub async fn run(self, shutdown: Shutdown) -> anyhow::Result<()> {
        let Self { listener, files, leader } = self;
        let supervisor = Supervisor::new(shutdown.child_token());
        let site = Arc::new(Site { files, metrics: Registry::default(), work: OnceLock::new() });
        supervisor.spawn("scheduler HTTP", http::serve(listener, site.clone(), supervisor.clone()));
        let led = if leader.config.ha {
            leader.stand(site, supervisor.shutdown()).await
        } else {
            leader.lead(&site, supervisor.shutdown()).await
        };
        supervisor.shutdown().cancel();
        let drained = supervisor.wait(GRACE).await;
        led.and(drained)
    }
}

impl Leader {
    /// Waits to be elected.
    async fn stand(self, site: Arc<Site>, shutdown: Shutdown) -> anyhow::Result<()> {
        let product = self.config.product;
        let identity = format!("{}:{}", self.prototype.id(), uuid::Uuid::new_v4());
        let candidate = Candidate::new(
            product.system_namespace,
            &format!("{}-{}", product.scheduler_service, lease_part(&self.config.framework_name)),
            &identity,
        );
        let client = self.client.clone();
        candidate.run(client, shutdown, async |stop| self.lead(&site, stop).await).await
    }

    async fn lead(self, site: &Site, shutdown: Shutdown) -> anyhow::Result<()> {
        let supervisor = Supervisor::new(shutdown.child_token());
        let Some(resumed) = shutdown.run_until_cancelled(self.keeper.load()).await else { return Ok(()) };
        let settings = self.settings(resumed.is_some());
        let core = Arc::new(Mutex::new(Core::new(settings, Metrics::new(site.metrics.clone()))));
        let (inputs, results) = mpsc::channel(WAITING);
        let _ = site.work.set(Work { core: core.clone(), inputs: inputs.clone() });
        let (recorder, writer) = events::recorder(self.client.clone(), "default-scheduler", "");
        supervisor.spawn("scheduler events", writer.run(supervisor.shutdown()));
        if shutdown.run_until_cancelled(self.cache.wait_synced(&READS)).await.is_none() {
            return Ok(());
        }
        let publisher = Publisher {
            client: self.client.clone(),
            product: self.config.product,
            cluster_ip: self.config.service_address,
            endpoint: self.endpoint,
        };
        let running = Running {
            pods: Followed::new(&self.cache, &resource::POD),
            nodes: Followed::new(&self.cache, &resource::NODE),
            claims: Followed::new(&self.cache, &resource::PERSISTENT_VOLUME_CLAIM),
            volumes: Followed::new(&self.cache, &resource::PERSISTENT_VOLUME),
            classes: Followed::new(&self.cache, &resource::STORAGE_CLASS),
            product: self.config.product,
            client: self.client,
            recorder,
            supervisor: supervisor.clone(),
            writes: Arc::new(Semaphore::new(WRITES)),
            core,
            inputs,
            results,
            keeper: self.keeper,
            publisher: Some(publisher),
            begun: Instant::now(),
            apart: None,
        };
        let driver = scheduler::Config {
            framework: framework(&self.config, resumed),
            credential: credential(&self.config)?,
            suppressed_roles: Vec::new(),
        };
        let masters = self.masters;
        let outcome = running.run(driver, masters, shutdown).await;
        supervisor.shutdown().cancel();
        let drained = supervisor.wait(GRACE).await;
        outcome.and(drained)
    }

    fn settings(&self, resumed: bool) -> Settings {
        let config = &self.config;
        let boxed = |roles: &[String]| roles.iter().map(|it| it.as_str().into()).collect();
        Settings {
            rules: Rules {
                product: config.product,
                limits: artifacts::limits(config),
                framework_roles: boxed(&config.mesos_framework_roles),
                default_pod_roles: boxed(&config.mesos_default_pod_roles),
                any_port_by_default: config.host_port_endpoints,
            },
            prototype: self.prototype.clone(),
            discovery: config.mesos_generate_task_discovery,
            offer_ttl: config.tuning.offer_ttl,
            initial_pod_backoff: config.tuning.initial_pod_backoff,
            max_pod_backoff: config.tuning.max_pod_backoff,
            reconcile: Pace {
                cooldown: config.reconcile_cooldown,
                interval: config.reconcile_interval,
                initial_delay: config.tuning.initial_implicit_reconciliation_delay,
                max_backoff: config.tuning.explicit_reconciliation_max_backoff,
            },
            resumed,
            gate: GATE,
            bind_timeout: BIND_TIMEOUT,
            seed: rand::random(),
        }
    }
}

/// A framework's name in a form that fits object names.
fn lease_part(framework: &str) -> String {
    framework
        .chars()
        .map(|it| if it.is_ascii_alphanumeric() { it.to_ascii_lowercase() } else { '-' })
        .collect::<String>()
        .trim_matches('-')
        .to_owned()
}

fn framework(config: &Config, id: Option<String>) -> FrameworkInfo {
    use capability::Type;
    let gpus = config.mesos_gpus.then_some(Type::GpuResources);
    let capabilities = [Type::MultiRole, Type::ReservationRefinement, Type::PartitionAware].into_iter().chain(gpus);
    FrameworkInfo {
        user: config.mesos_user.clone(),
        name: config.framework_name.clone(),
        id: id.map(Into::into),
        failover_timeout: config.failover().map(|_| config.failover_timeout),
        checkpoint: Some(config.checkpoint),
        roles: vec![config.subscribed_role().to_owned()],
        capabilities: capabilities.map(|it| Capability { r#type: Some(it.into()) }).collect(),
        hostname: Some(config.hostname.clone()),
        webui_url: config.framework_weburi.clone().filter(|it| !it.is_empty()),
        principal: config.mesos_authentication_principal.clone(),
        ..FrameworkInfo::default()
    }
}

fn credential(config: &Config) -> anyhow::Result<Option<Credential>> {
    let Some(principal) = config.mesos_authentication_principal.clone() else { return Ok(None) };
    let secret = match &config.mesos_authentication_secret_file {
        Some(path) => {
            let text = std::fs::read_to_string(path).with_context(|| format!("--mesos-authentication-secret-file {}", path.display()))?;
            Some(text.trim_end_matches(['\r', '\n']).to_owned())
        }
        None => None,
    };
    Ok(Some(Credential { principal, secret }))
}

/// A watch that starts over when it has fallen behind, and then reports the objects deleted meanwhile.
struct Followed {
    cache: Arc<Cache>,
    resource: ResourceRef,
    watch: Watch,
    /// During a new listing: the objects seen so far.
    listing: Option<HashSet<Box<str>>>,
}

impl Followed {
    fn new(cache: &Arc<Cache>, resource: ResourceRef) -> Self {
        Self { cache: cache.clone(), resource, watch: cache.follow(resource, Query::default()), listing: None }
    }

    /// The next change, if one is available.
    fn try_next(&mut self) -> Option<Event> {
        loop {
            match self.watch.try_next() {
                Ok(event) => return event.inspect(|event| self.note(event)),
                Err(expired) => self.restart(expired),
            }
        }
    }

    async fn next(&mut self) -> Event {
        loop {
            match self.watch.next().await {
                Ok(event) => {
                    self.note(&event);
                    return event;
                }
                Err(expired) => self.restart(expired),
            }
        }
    }

    fn note(&mut self, event: &Event) {
        if let (Some(seen), Event::Added(object)) = (&mut self.listing, event) {
            seen.insert(object.meta().uid.clone());
        }
    }

    /// After a new listing: the known objects that it did not contain; empty without one.
    fn lost(&mut self, known: impl FnOnce() -> Vec<Name>) -> Vec<Name> {
        if self.listing.take().is_none() {
            return Vec::new();
        }
        let mut lost = known();
        lost.retain(|it| self.cache.get(self.resource, &it.namespace, &it.name).is_none());
        lost
    }

    fn restart(&mut self, expired: Expired) {
        tracing::warn!("the watch of {} fell behind, beginning anew: {expired}", self.resource.plural);
        *self = Self { listing: Some(HashSet::new()), ..Self::new(&self.cache, self.resource) };
    }
}

/// A running scheduler.
struct Running {
    core: Arc<Mutex<Core>>,
    pods: Followed,
    nodes: Followed,
    claims: Followed,
    volumes: Followed,
    classes: Followed,
    product: &'static crate::util::product::Product,
    client: Client,
    recorder: EventRecorder,
    supervisor: Supervisor,
    writes: Arc<Semaphore>,
    inputs: mpsc::Sender<Input>,
    results: mpsc::Receiver<Input>,
    keeper: Keeper,
    /// Published at the first subscription.
    publisher: Option<Publisher>,
    begun: Instant,
    /// The last logged reason for a missing subscription.
    apart: Option<String>,
}

impl Running {
    async fn run(mut self, driver: scheduler::Config, masters: MasterLocation, shutdown: Shutdown) -> anyhow::Result<()> {
        // Read all existing pods before Mesos reports anything: bound ones are assumed to run.
        self.take_in_watches();
        let masters = detect::watch(masters, &self.supervisor);
        let (calls, mut mesos) = scheduler::start(driver, masters, &self.supervisor);
        loop {
            self.act(&calls);
            let wake = self.core.lock().wake_at().map(|at| self.begun + at);
            let sleep = async {
                match wake {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                event = mesos.recv() => match event {
                    Some(event) => self.heard(event).await?,
                    // The driver stops with us.
                    None if shutdown.is_cancelled() => return Ok(()),
                    None => bail!("the Mesos driver ended"),
                },
                event = self.pods.next() => self.pod(event),
                event = self.nodes.next() => self.node(event),
                event = self.claims.next() => self.claim(event),
                event = self.volumes.next() => self.volume(event),
                event = self.classes.next() => self.class(event),
                Some(input) = self.results.recv() => self.input(input),
                () = sleep => {}
            }
            // Read all available inputs before acting: the more pods a round has, the fewer calls it makes.
            self.take_in_watches();
            for _ in 0..BATCH {
                let Ok(event) = mesos.try_recv() else { break };
                self.heard(event).await?;
            }
            for _ in 0..BATCH {
                let Ok(input) = self.results.try_recv() else { break };
                self.input(input);
            }
        }
    }

    fn now(&self) -> Duration {
        self.begun.elapsed()
    }

    fn input(&self, input: Input) {
        let now = self.now();
        self.core.lock().input(now, input);
    }

    fn take_in_watches(&mut self) {
        for _ in 0..BATCH {
            let Some(event) = self.nodes.try_next() else { break };
            self.node(event);
        }
        let first = !self.core.lock().is_started();
        // At first, read all of them. Classes, volumes and claims come before the pods that need them.
        let batch = if first { usize::MAX } else { BATCH };
        for _ in 0..batch {
            let Some(event) = self.classes.try_next() else { break };
            self.class(event);
        }
        for _ in 0..batch {
            let Some(event) = self.volumes.try_next() else { break };
            self.volume(event);
        }
        for _ in 0..batch {
            let Some(event) = self.claims.try_next() else { break };
            self.claim(event);
        }
        for _ in 0..batch {
            let Some(event) = self.pods.try_next() else { break };
            self.pod(event);
        }
    }

    fn pod(&mut self, event: Event) {
        match event {
            Event::Added(pod) | Event::Modified(pod) => self.input(Input::Pod(pod)),
            Event::Deleted(pod) => self.input(Input::PodGone(pod)),
            Event::Bookmark(_) => {
                if let Some(seen) = self.pods.listing.take() {
                    let known = self.core.lock().known_pods();
                    known.into_iter().filter(|pod| !seen.contains(&pod.meta().uid)).for_each(|pod| self.input(Input::PodGone(pod)));
                }
            }
        }
    }

    fn node(&mut self, event: Event) {
        match event {
            Event::Added(node) | Event::Modified(node) => self.input(Input::Node(node)),
            Event::Deleted(node) => self.input(Input::NodeGone(node.name().into())),
            Event::Bookmark(_) => {
                let lost = self.nodes.lost(|| self.core.lock().known_nodes());
                lost.into_iter().for_each(|it| self.input(Input::NodeGone(it.name)));
            }
        }
    }

    fn claim(&mut self, event: Event) {
        match event {
            Event::Added(claim) | Event::Modified(claim) => self.input(Input::Claim(claim)),
            Event::Deleted(claim) => self.input(Input::ClaimGone(claim.meta().name.clone())),
            Event::Bookmark(_) => {
                let lost = self.claims.lost(|| self.core.lock().storage().claims());
                lost.into_iter().for_each(|it| self.input(Input::ClaimGone(it)));
            }
        }
    }

    fn volume(&mut self, event: Event) {
        match event {
            Event::Added(volume) | Event::Modified(volume) => self.input(Input::Volume(volume)),
            Event::Deleted(volume) => self.input(Input::VolumeGone(volume.name().into())),
            Event::Bookmark(_) => {
                let lost = self.volumes.lost(|| self.core.lock().storage().volumes());
                lost.into_iter().for_each(|it| self.input(Input::VolumeGone(it.name)));
            }
        }
    }

    fn class(&mut self, event: Event) {
        match event {
            Event::Added(class) | Event::Modified(class) => self.input(Input::Class(class)),
            Event::Deleted(class) => self.input(Input::ClassGone(class.name().into())),
            Event::Bookmark(_) => {
                let lost = self.classes.lost(|| self.core.lock().storage().classes());
                lost.into_iter().for_each(|it| self.input(Input::ClassGone(it.name)));
            }
        }
    }

    async fn heard(&mut self, event: DriverEvent) -> anyhow::Result<()> {
        match event {
            DriverEvent::Connected(master) => tracing::info!("connected to the Mesos master {master}"),
            DriverEvent::Subscribed(subscribed) => {
                tracing::info!("subscribed as framework {}", subscribed.framework_id);
                self.apart = None;
                self.input(Input::Subscribed(subscribed.framework_id.value));
                if let Some(publisher) = self.publisher.take() {
                    self.supervisor.spawn("scheduler service", publisher.run(self.supervisor.shutdown()));
                }
            }
            DriverEvent::Event(event) => self.input(Input::Event(Box::new(event))),
            DriverEvent::Disconnected(reason) => {
                // Log each reason once in a row.
                if self.apart.as_ref() != Some(&reason) {
                    tracing::warn!("no Mesos master: {reason}");
                }
                self.apart = Some(reason);
                self.input(Input::Disconnected);
            }
            DriverEvent::Error(message) => {
                // A removed framework can never return: the next start must register a new one.
                if message.contains("removed") || message.contains("Completed framework") {
                    self.keeper.forget().await?;
                }
                bail!("Mesos refuses this framework: {message}");
            }
        }
        Ok(())
    }

    fn act(&self, calls: &Calls) {
        let actions = {
            let now = self.now();
            self.core.lock().act(now)
        };
        for action in actions {
            match action {
                Action::Call(call) => drop(calls.send(*call)),
                Action::KeepFrameworkId(id) => {
                    self.supervisor.spawn("framework id", self.keeper.clone().keep(id, self.supervisor.shutdown()));
                }
                Action::WriteNode { host, labels } => {
                    let (client, product) = (self.client.clone(), self.product);
                    self.write(async move {
                        let done = write_node(&client, product, &host, &labels).await;
                        Input::NodeWritten { host, done }
                    });
                }
                Action::DeletePod { pod, uid } => {
                    let client = self.client.clone();
                    self.write(async move {
                        let options = DeleteOptions { grace_period_seconds: Some(0), uid: Some(uid.into()), ..DeleteOptions::default() };
                        let done = match client.delete(&resource::POD, &pod.namespace, &pod.name, &options).await {
                            Ok(_) => true,
                            // Deleted, or replaced by another pod of that name.
                            Err(error) if error.is("NotFound") || error.is("Conflict") => true,
                            Err(error) => {
                                tracing::warn!("pod {pod} cannot be deleted: {error}");
                                false
                            }
                        };
                        Input::PodDeletion { pod, done }
                    });
                }
                Action::Bind(write) => {
                    let client = self.client.clone();
                    self.write(async move {
                        let at = bind(&client, &write).await;
                        Input::Bound { claim: write.claim().meta().name.clone(), serial: write.serial(), at }
                    });
                }
                Action::MarkUnschedulable { pod, message } => {
                    let client = self.client.clone();
                    self.write(async move {
                        mark_unschedulable(&client, &pod, &message).await;
                        Input::Tick
                    });
                }
                Action::Tell { pod, warning, reason, message } => self.tell(&pod, warning, reason, message),
            }
        }
    }

    fn tell(&self, pod: &Object, warning: bool, reason: &str, message: String) {
        let kind = if warning { EventType::Warning } else { EventType::Normal };
        self.recorder.event(pod, kind, reason, message);
    }

    /// Runs a write in the background; its outcome comes back as an input.
    fn write(&self, write: impl Future<Output = Input> + Send + 'static) {
        let (permits, inputs, shutdown) = (self.writes.clone(), self.inputs.clone(), self.supervisor.shutdown());
        self.supervisor.spawn_quiet(async move {
            let work = async {
                let _permit = permits.acquire().await;
                let _ = inputs.send(write.await).await;
            };
            shutdown.run_until_cancelled(work).await;
        });
    }
}
