//! `km scheduler`: its flags.

use std::net::IpAddr;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::signal::unix::{SignalKind, signal};

use super::flag::{Flag, Kind, Values};
use super::{Server, access, common, stores};
use crate::cache::Query;
use crate::client::leader::Lost;
use crate::scheduler::{Config, ExecutorFlags, InStore, InZooKeeper, READS, Scheduler, StateStore, StoreUri, Tuning};
use crate::store::etcd;
use crate::supervise::Supervisor;
use crate::util::product::KUBERNETES;

const V1_API: &str = "km speaks the v1 HTTP API, which needs no port of its own";

const FLAGS: &[Flag] = &[
    Flag::new("address", Kind::Ip, "127.0.0.1", "Address to serve on; agents fetch km from it"),
    Flag::new("port", Kind::Integer, "10251", "Port to serve artifacts, /healthz, /metrics and /debug on"),
    Flag::new("advertised-address", Kind::Text, "", "host:port at which agents reach this server"),
    Flag::new("hostname-override", Kind::Text, "", "Host name to register with; default: this machine's"),
    Flag::new("api-servers", Kind::List, "", "API servers, as host:port or URLs (required)"),
    Flag::new("kubeconfig", Kind::Text, "", "File with the credentials for the API server"),
    Flag::new("kube-api-qps", Kind::Number, "0", "Requests per second to the API server; 0 is no limit"),
    Flag::new("kube-api-burst", Kind::Integer, "0", "Size of a burst of requests"),
    Flag::new("etcd-servers", Kind::List, "", "etcd servers that keep the framework id (required unless ZooKeeper keeps it)"),
    Flag::new("allow-privileged", Kind::Bool, "false", "Allow privileged containers"),
    Flag::new("cluster-domain", Kind::Text, "", "First search domain of pods"),
    Flag::new("cluster-dns", Kind::Ip, "", "Address of the cluster's DNS server"),
    Flag::new("static-pods-config", Kind::Text, "", "Directory of static pods, which run on every agent"),
    Flag::new("mesos-master", Kind::Text, "localhost:5050", "host:port, zk://host:port,…/path, or file:///path"),
    Flag::new("mesos-user", Kind::Text, "root", "User that tasks run as; empty for the current one"),
    Flag::new("mesos-framework-roles", Kind::List, "*", "Roles to accept offers for").alias(&["mesos-role"]),
    Flag::new("mesos-default-pod-roles", Kind::List, "*", "Roles of pods that name none, by preference"),
    Flag::new("mesos-authentication-principal", Kind::Text, "", "Principal for authentication to Mesos"),
    Flag::new("mesos-authentication-secret-file", Kind::Text, "", "File with the principal's secret"),
    Flag::new("mesos-authentication-provider", Kind::Text, "SASL", "SASL, or basic: both mean HTTP basic authentication"),
    Flag::new("dockercfg-path", Kind::Text, "", "Docker credentials for the agents, served as .dockercfg"),
    Flag::new("mesos-cgroup-prefix", Kind::Text, "mesos", "Parent cgroup of Mesos' containers"),
    Flag::new("mesos-executor-cpus", Kind::Number, "0.25", "CPUs of an executor, without its pods"),
    Flag::new("mesos-executor-mem", Kind::Number, "128", "Memory of an executor, without its pods, in MB"),
    Flag::new("checkpoint", Kind::Bool, "true", "Let executors survive a restart of their agent"),
    Flag::new(
        "failover-timeout",
        Kind::Number,
        "4611686018.427388",
        "How long Mesos keeps the tasks of a disconnected scheduler, in seconds",
    ),
    Flag::new("mesos-generate-task-discovery", Kind::Bool, "false", "Attach discovery information to tasks"),
    Flag::new("reconcile-interval", Kind::Integer, "300", "Seconds between implicit reconciliations; 0 is never"),
    Flag::new("reconcile-cooldown", Kind::Duration, "15s", "Shortest pause between two reconciliations"),
    Flag::new("scheduler-config", Kind::Text, "", "Ini file with a section [scheduler]"),
    Flag::new(
        "ha",
        Kind::Bool,
        "false",
        "Elect a leader among schedulers with the same flags; agents fetch km from the --km-path or --advertised-address that these share",
    ),
    Flag::new("framework-name", Kind::Text, "Kubernetes", "Name to register with"),
    Flag::new("framework-store-uri", Kind::Text, "etcd://", "Where the framework id is kept: etcd:///path, or zk://hosts/path"),
    Flag::new("framework-weburi", Kind::Text, "", "Link in the Mesos UI"),
    Flag::new("service-address", Kind::Ip, "", "Service address for the scheduler's own service"),
    Flag::new("default-container-cpu-limit", Kind::Number, "0.25", "CPUs of a container without a limit"),
    Flag::new("default-container-mem-limit", Kind::Number, "64", "Memory of a container without a limit, in MB"),
    Flag::new("contain-pod-resources", Kind::Bool, "true", "Put pods below their executor's cgroup"),
    Flag::new("mesos-gpus", Kind::Bool, "false", "Accept offers of agents with GPUs, for pods that request nvidia.com/gpu"),
    Flag::new("host-port-endpoints", Kind::Bool, "true", "Assign host ports to container ports that have none"),
    Flag::new("executor-logv", Kind::Integer, "0", "--v of minion and executor"),
    Flag::new("executor-bindall", Kind::Bool, "false", "Let executors serve on all addresses"),
    Flag::new("executor-suicide-timeout", Kind::Duration, "20m0s", "How long an executor without pods lives; 0 is for ever"),
    Flag::new("mesos-launch-grace-period", Kind::Duration, "5m0s", "How long a pod may take to start; 0 is for ever"),
    Flag::new("mesos-sandbox-overlay", Kind::Text, "", "Archive to unpack in every sandbox"),
    Flag::new("proxy-bindall", Kind::Bool, "false", "No effect yet: km has no proxy"),
    Flag::new("run-proxy", Kind::Bool, "true", "No effect yet: km has no proxy"),
    Flag::new("proxy-kubeconfig", Kind::Text, "", "No effect yet: km has no proxy"),
    Flag::new("proxy-logv", Kind::Integer, "0", "No effect yet: km has no proxy"),
    Flag::new("proxy-mode", Kind::Text, "", "No effect yet: km has no proxy"),
    Flag::new("minion-path-override", Kind::Text, "", "PATH for the processes on agents"),
    Flag::new("minion-max-log-size", Kind::Text, "10Mi", "Size at which a log file is rotated"),
    Flag::new("minion-max-log-age", Kind::Integer, "7", "How many days rotated logs are kept"),
    Flag::new("minion-max-log-backups", Kind::Integer, "5", "How many rotated logs are kept"),
    Flag::new("kubelet-api-servers", Kind::List, "", "API servers for the executors; default: --api-servers"),
    Flag::new("kubelet-root-dir", Kind::Text, "", "Directory of the pods' volumes; default: the sandbox"),
    Flag::new("kubelet-docker-endpoint", Kind::Text, "", "Docker engine of the agents"),
    Flag::new("kubelet-pod-infra-container-image", Kind::Text, "", "Pause image; default: one made from km itself"),
    Flag::new("kubelet-sync-frequency", Kind::Duration, "10s", "Interval at which mounted ConfigMaps, Secrets and pod fields are updated"),
    Flag::new("kubelet-enable-debugging-handlers", Kind::Bool, "true", "Let executors serve logs, exec, attach and port-forward"),
    Flag::new("kubelet-kubeconfig", Kind::Text, "", "kubeconfig for the executors"),
    Flag::new("conntrack-max", Kind::Integer, "0", "No effect yet: km has no proxy"),
    Flag::new("conntrack-max-per-core", Kind::Integer, "0", "No effect yet: km has no proxy"),
    Flag::new("conntrack-tcp-timeout-established", Kind::Integer, "0", "No effect yet: km has no proxy"),
    Flag::new(
        "km-path",
        Kind::Text,
        "",
        "Executable for the agents: a path that this server serves, file:///path on the agent, or a URI to fetch",
    )
    .alias(&["executor-path"]),
    Flag::obsolete("driver-port", Kind::Integer, V1_API),
    Flag::obsolete("graceful", Kind::Bool, "every restart is graceful"),
    Flag::obsolete("node-monitor-period", Kind::Duration, "nodes are watched"),
    Flag::obsolete("kubelet-cadvisor-port", Kind::Integer, common::NO_CADVISOR),
    Flag::obsolete("kubelet-host-network-sources", Kind::Text, common::HOST_NETWORK),
    Flag::obsolete("kubelet-network-plugin", Kind::Text, common::DOCKER_NETWORK),
    Flag::obsolete("profiling", Kind::Bool, "use perf"),
    Flag::obsolete("auth-path", Kind::Text, "use --kubeconfig"),
    Flag::obsolete("proxy-path", Kind::Text, "km is a single executable"),
];

pub(super) const SERVER: Server = Server {
    name: "scheduler",
    installed_as: &["k8sm-scheduler", "kube-scheduler"],
    about: "Run pods as Mesos tasks; on SIGUSR1, restart in place with the current executable",
    flags: FLAGS,
    run,
    hidden: false,
};

fn run(values: Values) -> anyhow::Result<()> {
    let config = config(&values)?;
    // Read now: the file of this name may later be a newer version, which a restart is to run.
    let executable = std::env::current_exe().context("the running executable")?;
    let again = Arc::new(AtomicBool::new(false));
    let ran = common::run({
        let again = again.clone();
        async move |supervisor: Supervisor| {
            let client = access::limited(access::client(&values, "api-servers", "km-scheduler")?, &values)?;
            let state = state(&config.framework_store, values.list("etcd-servers")).await?;
            let cache = access::cache(&client, READS.map(|it| (it, Query::default())), &supervisor);
            let scheduler = Scheduler::build(config, client, cache, state).await?;
            tracing::info!("serving artifacts, /healthz, /metrics and /debug on http://{}", scheduler.address()?);
            let (shutdown, asked) = (supervisor.shutdown(), again.clone());
            supervisor.spawn("SIGUSR1", async move {
                let mut signal = signal(SignalKind::user_defined1())?;
                if shutdown.run_until_cancelled(signal.recv()).await.is_some() {
                    tracing::info!("SIGUSR1: starting over");
                    asked.store(true, Ordering::Relaxed);
                    shutdown.cancel();
                }
                Ok(())
            });
            let shutdown = supervisor.shutdown();
            supervisor.spawn("scheduler", async move {
                match scheduler.run(shutdown.clone()).await {
                    Err(error) if error.is::<Lost>() => {
                        tracing::warn!("{error}: starting over, as a standby");
                        again.store(true, Ordering::Relaxed);
                    }
                    ran => ran?,
                }
                // The scheduler ends by itself only if Mesos has removed the framework.
                shutdown.cancel();
                Ok(())
            });
            Ok(())
        }
    });
    if ran.is_ok() && again.load(Ordering::Relaxed) {
        return Err(start_over(&executable));
    }
    ran
}

/// Replaces this process by `executable`, with the same arguments and process id. Returns only on failure.
fn start_over(executable: &Path) -> anyhow::Error {
    let mut arguments = std::env::args_os();
    let name = arguments.next().unwrap_or_default();
    let error = std::process::Command::new(executable).arg0(name).args(arguments).exec();
    anyhow::Error::from(error).context(format!("{} cannot be started over", executable.display()))
}

/// The store of the framework id.
async fn state(at: &StoreUri, etcd_servers: Vec<String>) -> anyhow::Result<Arc<dyn StateStore>> {
    if let StoreUri::ZooKeeper(ensemble) = at {
        return Ok(Arc::new(InZooKeeper(ensemble.clone())));
    }
    if etcd_servers.is_empty() {
        bail!("--etcd-servers is missing: where the framework id is kept (unless --framework-store-uri names ZooKeeper)");
    }
    // The API servers compact etcd.
    let store = stores::etcd(etcd::Config { compaction_interval: None, ..etcd::Config::new(etcd_servers) }).await?;
    Ok(Arc::new(InStore(store)))
}

fn config(values: &Values) -> anyhow::Result<Config> {
    let provider = values.text("mesos-authentication-provider");
    if !matches!(provider.to_ascii_lowercase().as_str(), "sasl" | "basic") {
        bail!("--mesos-authentication-provider: {provider:?} is not known, expected SASL or basic");
    }
    let path = |name: &str| values.maybe(name).map(PathBuf::from);
    let user = values.maybe("mesos-user");
    let address = values.ip("address").unwrap_or(IpAddr::from([127, 0, 0, 1]));
    Ok(Config {
        product: KUBERNETES,
        address,
        port: values.integer("port")?,
        api_servers: values.list("api-servers"),
        static_pods_config: path("static-pods-config"),
        mesos_master: values.text("mesos-master"),
        mesos_user: user.or_else(current_user).unwrap_or_else(|| "root".to_owned()),
        mesos_framework_roles: values.list("mesos-framework-roles"),
        mesos_default_pod_roles: values.list("mesos-default-pod-roles"),
        mesos_authentication_principal: values.maybe("mesos-authentication-principal"),
        mesos_authentication_secret_file: path("mesos-authentication-secret-file"),
        dockercfg_path: path("dockercfg-path"),
        mesos_executor_cpus: values.number("mesos-executor-cpus"),
        mesos_executor_mem: values.number("mesos-executor-mem"),
        checkpoint: values.bool("checkpoint"),
        failover_timeout: values.number("failover-timeout"),
        mesos_generate_task_discovery: values.bool("mesos-generate-task-discovery"),
        hostname: values.maybe("hostname-override").unwrap_or_else(common::hostname),
        reconcile_interval: Duration::from_secs(values.integer("reconcile-interval")?),
        reconcile_cooldown: values.duration("reconcile-cooldown"),
        ha: values.bool("ha"),
        framework_name: values.text("framework-name"),
        framework_store: values.text("framework-store-uri").parse().context("--framework-store-uri")?,
        framework_weburi: values.maybe("framework-weburi"),
        advertised_address: values.maybe("advertised-address"),
        service_address: values.ip("service-address"),
        published_address: std::env::var("LIBPROCESS_IP").ok().and_then(|it| it.parse().ok()).or_else(|| Some(common::reachable(address))),
        default_container_cpu_limit: values.number("default-container-cpu-limit"),
        default_container_mem_limit: values.number("default-container-mem-limit"),
        host_port_endpoints: values.bool("host-port-endpoints"),
        mesos_gpus: values.bool("mesos-gpus"),
        km_path: values.maybe("km-path"),
        mesos_sandbox_overlay: path("mesos-sandbox-overlay"),
        executor: executor_flags(values)?,
        tuning: match path("scheduler-config") {
            Some(file) => tuning(&file).with_context(|| format!("--scheduler-config: {}", file.display()))?,
            None => Tuning::default(),
        },
    })
}

fn tuning(file: &Path) -> anyhow::Result<Tuning> {
    Ok(Tuning::parse(&std::fs::read_to_string(file)?)?)
}

fn executor_flags(values: &Values) -> anyhow::Result<ExecutorFlags> {
    let path = |name: &str| values.maybe(name).map(PathBuf::from);
    let defaults = ExecutorFlags::default();
    Ok(ExecutorFlags {
        allow_privileged: values.bool("allow-privileged"),
        cluster_domain: values.text("cluster-domain"),
        cluster_dns: values.ip("cluster-dns"),
        mesos_cgroup_prefix: values.text("mesos-cgroup-prefix"),
        contain_pod_resources: values.bool("contain-pod-resources"),
        logv: values.integer("executor-logv")?,
        bindall: values.bool("executor-bindall"),
        suicide_timeout: values.duration("executor-suicide-timeout"),
        mesos_launch_grace_period: values.duration("mesos-launch-grace-period"),
        proxy_bindall: values.bool("proxy-bindall"),
        run_proxy: values.bool("run-proxy"),
        proxy_kubeconfig: path("proxy-kubeconfig"),
        proxy_logv: values.integer("proxy-logv")?,
        proxy_mode: values.maybe("proxy-mode").unwrap_or(defaults.proxy_mode),
        path_override: values.text("minion-path-override"),
        max_log_size: values.text("minion-max-log-size"),
        max_log_age: values.integer("minion-max-log-age")?,
        max_log_backups: values.integer("minion-max-log-backups")?,
        kubelet_api_servers: values.list("kubelet-api-servers"),
        root_dir: values.text("kubelet-root-dir"),
        docker_endpoint: values.text("kubelet-docker-endpoint"),
        pod_infra_container_image: values.text("kubelet-pod-infra-container-image"),
        sync_frequency: values.duration("kubelet-sync-frequency"),
        enable_debugging_handlers: values.bool("kubelet-enable-debugging-handlers"),
        kubeconfig: path("kubelet-kubeconfig"),
        conntrack_max: values.integer("conntrack-max")?,
        conntrack_max_per_core: values.integer("conntrack-max-per-core")?,
        conntrack_tcp_timeout_established: values.integer("conntrack-tcp-timeout-established")?,
        ..defaults
    })
}

fn current_user() -> Option<String> {
    nix::unistd::User::from_uid(nix::unistd::geteuid()).ok()?.map(|it| it.name)
}
