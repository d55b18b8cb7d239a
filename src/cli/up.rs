//! `km up`: everything on one machine, in one process: the API server on the embedded store, controllers and scheduler on the API server's
//! cache, a small Mesos, and one agent whose executor runs pods in the machine's Docker engine.

mod agent;
mod kubeconfig;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;

use super::flag::{Flag, Kind, Values};
use super::{Server, cloud_agents, common, executor, stores};
use crate::apiserver::{self, ApiServer};
use crate::client::Client;
use crate::controllers;
use crate::controllers::node::Agents;
use crate::local_mesos::{self, AgentOptions};
use crate::mesos::detect::{self, MasterLocation};
use crate::mesos::operator::Operator;
use crate::runtime::Runtime;
use crate::runtime::docker::Docker;
use crate::scheduler::{self, InStore, Scheduler};
use crate::store::Store;
use crate::supervise::Supervisor;
use crate::telemetry::metrics::Registry;
use crate::util::cidr::Cidr;
use crate::util::product::KUBERNETES;

const FLAGS: &[Flag] = &[
    Flag::new("data-dir", Kind::Text, "", "Directory of all data; default: km below XDG_DATA_HOME, or ~/.local/share/km"),
    Flag::new("address", Kind::Ip, "127.0.0.1", "Address to serve the API on"),
    Flag::new("port", Kind::Integer, "8888", "Port to serve the API on; 0 picks a free one"),
    Flag::new("service-cluster-ip-range", Kind::Text, "10.10.10.0/24", "CIDR of the services' addresses"),
    Flag::new("docker-endpoint", Kind::Text, "", "Docker engine; default: DOCKER_HOST, or unix:///var/run/docker.sock"),
    Flag::new("kubeconfig", Kind::Text, "", "File to write the kubeconfig to; default: one in the data directory"),
    Flag::new("node-ip", Kind::Ip, "", "Address of the node and of its pods' host ports; default: this machine's"),
    Flag::new(
        "resources",
        Kind::Text,
        "",
        "Resources that the agent offers, such as cpus:4;mem:4096;ports:[31000-32000]; default: this machine's",
    ),
];

pub(super) const SERVER: Server = Server {
    name: "up",
    installed_as: &[],
    about: "Run a whole cluster on this machine, in one process",
    flags: FLAGS,
    run,
    hidden: false,
};

/// Short, so that an offer follows almost at once when resources become free.
const ALLOCATION_INTERVAL: Duration = Duration::from_millis(50);

fn run(values: Values) -> anyhow::Result<()> {
    let dir = data_dir(&values)?;
    let range: Cidr = values.text("service-cluster-ip-range").parse().context("--service-cluster-ip-range")?;
    let listen = SocketAddr::new(values.ip("address").unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)), values.integer("port")?);
    let node_ip = values.ip("node-ip").unwrap_or_else(|| common::reachable(IpAddr::V4(Ipv4Addr::UNSPECIFIED)));
    let endpoint = executor::docker_endpoint(&values);
    common::run(async move |supervisor| {
        std::fs::create_dir_all(&dir).with_context(|| format!("--data-dir: {}", dir.display()))?;
        let store = stores::embedded_at(&dir.join("store"))?;
        let config = apiserver::Config { advertise: node_ip, ..apiserver::Config::new(KUBERNETES, listen, range) };
        let metrics = config.metrics.clone();
        let server = ApiServer::build(config, store.clone())?;
        server.start(&supervisor).await?;
        let address = server.addresses()[0];
        let file = values.maybe("kubeconfig").map_or_else(|| dir.join("kubeconfig"), PathBuf::from);
        kubeconfig::write(&file, address)?;

        let runtime = Arc::new(Docker::new(&endpoint));
        let host = common::hostname();
        let resources = values.maybe("resources").unwrap_or_else(|| agent::resources(&dir));
        let part = Part { server: &server, metrics, supervisor: &supervisor };
        let launcher = agent::InProcess {
            client: part.client("km-executor"),
            cache: server.cache(),
            runtime: runtime.clone(),
            node_name: host.clone(),
            node_ip,
            root_dir: dir.join("pods"),
            shutdown: supervisor.shutdown(),
        };
        let mesos = start_mesos(&dir, host, resources, launcher, &supervisor).await?;
        start_controllers(&part, mesos)?;
        start_scheduler(&part, store, mesos).await?;
        greet(&file, address);
        warn_without_engine(&*runtime, &endpoint).await;
        Ok(())
    })
}

/// The parts that the components share.
struct Part<'a> {
    server: &'a ApiServer,
    /// What the API server shows at `/metrics`.
    metrics: Registry,
    supervisor: &'a Supervisor,
}

impl Part<'_> {
    fn client(&self, component: &'static str) -> Client {
        Client::new(self.server.transport()).named(component)
    }
}

fn data_dir(values: &Values) -> anyhow::Result<PathBuf> {
    if let Some(dir) = values.maybe("data-dir") {
        return std::path::absolute(dir).context("--data-dir");
    }
    let set = |name: &str| std::env::var_os(name).filter(|it| !it.is_empty()).map(PathBuf::from);
    let base = set("XDG_DATA_HOME").or_else(|| Some(set("HOME")?.join(".local/share")));
    Ok(base.context("--data-dir is missing, and HOME is not set")?.join(KUBERNETES.binary))
}

async fn start_mesos(
    dir: &Path,
    hostname: String,
    resources: String,
    launcher: agent::InProcess,
    supervisor: &Supervisor,
) -> anyhow::Result<SocketAddr> {
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.context("a port for the embedded Mesos")?;
    let options = local_mesos::Options {
        cluster: KUBERNETES.binary.to_owned(),
        agents: vec![AgentOptions { hostname, resources, attributes: String::new() }],
        directory: Some(dir.join("mesos")),
        allocation_interval: ALLOCATION_INTERVAL,
    };
    let cluster = local_mesos::start(listener, options, launcher, supervisor).context("the embedded Mesos (--resources)")?;
    Ok(cluster.address())
}

fn start_controllers(part: &Part, mesos: SocketAddr) -> anyhow::Result<()> {
    let agents = Agents::default();
    let masters = detect::watch(MasterLocation::read(&mesos.to_string())?, part.supervisor);
    let operator = Operator::new(masters, None, Duration::from_secs(10), Duration::from_secs(5));
    part.supervisor
        .spawn("the state of the agents", cloud_agents::follow(operator, KUBERNETES, agents.clone(), part.supervisor.shutdown()));
    controllers::start(
        &controllers::Config { service_account_key: part.server.signing_key(), ..controllers::Config::new(KUBERNETES) },
        &part.client("km-controller-manager"),
        &part.server.cache(),
        agents,
        &part.metrics,
        part.supervisor,
    );
    Ok(())
}

async fn start_scheduler(part: &Part<'_>, store: Arc<dyn Store>, mesos: SocketAddr) -> anyhow::Result<()> {
    let config = scheduler::Config {
        product: KUBERNETES,
        port: 0,
        api_servers: vec![part.server.addresses()[0].to_string()],
        mesos_master: mesos.to_string(),
        // The executor is a task of this process; nothing fetches the executable.
        km_path: Some("file:///proc/self/exe".to_owned()),
        mesos_executor_cpus: 0.1,
        mesos_executor_mem: 32.0,
        ..scheduler::Config::default()
    };
    let scheduler = Scheduler::build(config, part.client("km-scheduler"), part.server.cache(), Arc::new(InStore(store))).await?;
    let shutdown = part.supervisor.shutdown();
    part.supervisor.spawn("scheduler", scheduler.run(shutdown));
    Ok(())
}

#[expect(clippy::print_stdout, reason = "what the user asked for")]
fn greet(kubeconfig: &Path, address: SocketAddr) {
    println!("{} serves a cluster at http://{address}; stop it with Ctrl-C. In another terminal:\n", KUBERNETES.binary);
    println!("    export KUBECONFIG={}\n    kubectl get nodes,services", kubeconfig.display());
}

/// Without a Docker engine, a cluster can do everything but run pods; warn at once.
async fn warn_without_engine(runtime: &dyn Runtime, endpoint: &str) {
    match runtime.version().await {
        Ok(version) => tracing::info!("pods run in {} {} at {endpoint}", version.name, version.version),
        Err(error) => tracing::warn!(
            "there is no Docker engine at {endpoint}: {error}. Pods stay Pending until there is one: install the package docker.io (Debian, \
             Ubuntu) or docker, start its service, or name another engine by --docker-endpoint"
        ),
    }
}
