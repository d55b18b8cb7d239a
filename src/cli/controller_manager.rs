//! `km controller-manager`: its flags.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ::http::{Request, Response, StatusCode};
use anyhow::{Context, bail};
use hyper::body::Incoming;

use super::flag::{Flag, Kind, Values};
use super::{Server, access, cloud, cloud_agents, common};
use crate::cache::{Cache, Query};
use crate::client::Client;
use crate::client::leader::Candidate;
use crate::controllers::node::{Agents, EvictionRates};
use crate::controllers::{self, Config, autoscaler};
use crate::mesos::detect::{self, MasterLocation};
use crate::mesos::operator::Operator;
use crate::supervise::{Shutdown, Supervisor, http};
use crate::telemetry::metrics::Registry;
use crate::tokens::SigningKey;
use crate::util::product::KUBERNETES;

const NO_LOAD_BALANCER: &str = "Mesos has no load balancers";

const FLAGS: &[Flag] = &[
    Flag::new("master", Kind::List, "", "API server, as host:port or a URL"),
    Flag::new("kubeconfig", Kind::Text, "", "File with the API server's address and credentials"),
    Flag::new("address", Kind::Ip, "0.0.0.0", "Address to serve /healthz and /metrics on"),
    Flag::new("port", Kind::Integer, "10252", "Port to serve /healthz and /metrics on"),
    Flag::new("cloud-provider", Kind::Text, "mesos", "Only mesos is supported"),
    Flag::new("cloud-config", Kind::Text, "", "Ini file with a section [mesos-cloud]"),
    Flag::new("host-port-endpoints", Kind::Bool, "true", "Endpoints of services are host ports instead of pod addresses"),
    Flag::new("max-endpoints-per-slice", Kind::Integer, "100", "Most endpoints in an EndpointSlice, up to 1000"),
    Flag::new(
        "mirroring-max-endpoints-per-subset",
        Kind::Integer,
        "1000",
        "Most endpoints of a user's Endpoints subset that are mirrored to an EndpointSlice, up to 1000",
    ),
    Flag::new("node-monitor-period", Kind::Duration, "5s", "Interval of node checks"),
    Flag::new("node-monitor-grace-period", Kind::Duration, "50s", "How long a node may be silent before it counts as not ready"),
    Flag::new("pod-eviction-timeout", Kind::Duration, "5m0s", "How long a node may be not ready before its pods are deleted"),
    Flag::new(
        "node-eviction-rate",
        Kind::Number,
        "0.1",
        "Rate at which pods are evicted from nodes that are not ready, in nodes per second per zone",
    ),
    Flag::new(
        "secondary-node-eviction-rate",
        Kind::Number,
        "0.01",
        "Eviction rate in a large unhealthy zone; a small unhealthy zone has none",
    ),
    Flag::new("large-cluster-size-threshold", Kind::Integer, "50", "A zone with more nodes than this is large"),
    Flag::new(
        "unhealthy-zone-threshold",
        Kind::Number,
        "0.55",
        "Fraction of not-ready nodes (at least 3) from which a zone counts as unhealthy",
    ),
    Flag::new("terminated-pod-gc-threshold", Kind::Integer, "12500", "How many ended pods are kept; 0 keeps all"),
    Flag::new("resource-quota-sync-period", Kind::Duration, "5m0s", "Interval of full recounts of quota usage"),
    Flag::new("horizontal-pod-autoscaler-sync-period", Kind::Duration, "15s", "Interval at which autoscalers read metrics"),
    Flag::new(
        "horizontal-pod-autoscaler-downscale-stabilization",
        Kind::Duration,
        "5m0s",
        "How long a lower recommendation must hold before scaling down",
    ),
    Flag::new(
        "horizontal-pod-autoscaler-tolerance",
        Kind::Number,
        "0.1",
        "Relative deviation of a metric from its target that causes no scaling",
    ),
    Flag::new(
        "horizontal-pod-autoscaler-cpu-initialization-period",
        Kind::Duration,
        "5m0s",
        "Period after a pod's start in which its CPU usage counts only if measured while ready",
    ),
    Flag::new(
        "horizontal-pod-autoscaler-initial-readiness-delay",
        Kind::Duration,
        "30s",
        "Grace period after start in which an unready pod counts as starting",
    ),
    Flag::new(
        "root-ca-file",
        Kind::Text,
        "",
        "Certificates (PEM) published to every namespace as ConfigMap kube-root-ca.crt, by which pods verify the API server; without it \
         there is no such ConfigMap",
    ),
    Flag::new(
        "service-account-private-key-file",
        Kind::Text,
        "",
        "Private key (PEM) that signs tokens in secrets of the type kubernetes.io/service-account-token, the same as the API servers'; \
         without it these secrets get no token",
    ),
    Flag::new("leader-elect", Kind::Bool, "true", "Run leader election: only one of several controller managers is active"),
    Flag::new("leader-elect-lease-duration", Kind::Duration, "15s", "How long the others wait for a leader that does not renew its lease"),
    Flag::new("leader-elect-renew-deadline", Kind::Duration, "10s", "How long a leader tries to renew its lease before it gives up"),
    Flag::new("leader-elect-retry-period", Kind::Duration, "2s", "Interval of attempts to take or renew the lease"),
    Flag::new("concurrent-rc-syncs", Kind::Integer, "16", "Concurrent workers for ReplicationControllers"),
    Flag::new("concurrent-replicaset-syncs", Kind::Integer, "16", "Concurrent workers for ReplicaSets"),
    Flag::new("concurrent-deployment-syncs", Kind::Integer, "16", "Concurrent workers for Deployments"),
    Flag::new("concurrent-statefulset-syncs", Kind::Integer, "16", "Concurrent workers for StatefulSets"),
    Flag::new("concurrent-daemonset-syncs", Kind::Integer, "16", "Concurrent workers for DaemonSets"),
    Flag::new("concurrent-job-syncs", Kind::Integer, "16", "Concurrent workers for Jobs"),
    Flag::new("concurrent-cron-job-syncs", Kind::Integer, "16", "Concurrent workers for CronJobs"),
    Flag::new("concurrent-ttl-after-finished-syncs", Kind::Integer, "16", "Concurrent workers that delete ended Jobs"),
    Flag::new("concurrent-endpoint-syncs", Kind::Integer, "16", "Concurrent workers for endpoints of Services"),
    Flag::new("concurrent-namespace-syncs", Kind::Integer, "16", "Concurrent workers for Namespaces"),
    Flag::new("concurrent-gc-syncs", Kind::Integer, "16", "Concurrent workers for garbage collection"),
    Flag::new("concurrent-resource-quota-syncs", Kind::Integer, "16", "Concurrent workers for ResourceQuotas"),
    Flag::new("concurrent-serviceaccount-token-syncs", Kind::Integer, "16", "Concurrent workers for service account token Secrets"),
    Flag::new("kube-api-qps", Kind::Number, "0", "Requests per second to the API server; 0 is no limit"),
    Flag::new("kube-api-burst", Kind::Integer, "0", "Size of a burst of requests"),
    Flag::obsolete("node-startup-grace-period", Kind::Duration, "a node is ready when its agent is"),
    Flag::obsolete("concurrent-service-syncs", Kind::Integer, NO_LOAD_BALANCER),
    Flag::obsolete("namespace-sync-period", Kind::Duration, "namespaces follow their objects"),
    Flag::obsolete("service-sync-period", Kind::Duration, NO_LOAD_BALANCER),
    Flag::obsolete("allocate-node-cidrs", Kind::Bool, "pods have no routed network"),
    Flag::obsolete("configure-cloud-routes", Kind::Bool, "Mesos has no routes"),
    Flag::obsolete("cluster-cidr", Kind::Text, "pods have no routed network"),
    Flag::obsolete("service-cluster-ip-range", Kind::Text, "the API server gives out service addresses"),
    Flag::obsolete("enable-garbage-collector", Kind::Bool, "it is always on"),
    Flag::obsolete("profiling", Kind::Bool, "use perf"),
    Flag::obsolete("api-version", Kind::Text, "there is only one"),
    Flag::obsolete("mesos-master", Kind::Text, "set mesos-master in the file of --cloud-config"),
];

/// The controller of each flag `--concurrent-…-syncs`.
const WORKERS: &[(&str, &str)] = &[
    ("concurrent-rc-syncs", "replication-controller"),
    ("concurrent-replicaset-syncs", "replicaset-controller"),
    ("concurrent-deployment-syncs", "deployment-controller"),
    ("concurrent-statefulset-syncs", "statefulset-controller"),
    ("concurrent-daemonset-syncs", "daemonset-controller"),
    ("concurrent-job-syncs", "job-controller"),
    ("concurrent-cron-job-syncs", "cronjob-controller"),
    ("concurrent-ttl-after-finished-syncs", "ttl-after-finished-controller"),
    ("concurrent-endpoint-syncs", "endpoint-controller"),
    ("concurrent-namespace-syncs", "namespace-controller"),
    ("concurrent-gc-syncs", "garbage-collector"),
    ("concurrent-resource-quota-syncs", "resourcequota-controller"),
    ("concurrent-serviceaccount-token-syncs", "tokens-controller"),
];

pub(super) const SERVER: Server = Server {
    name: "controller-manager",
    installed_as: &["kube-controller-manager", "k8sm-controller-manager"],
    about: "Run the controllers that keep the cluster as its objects say",
    flags: FLAGS,
    run,
    hidden: false,
};

fn run(values: Values) -> anyhow::Result<()> {
    if values.text("cloud-provider") != "mesos" {
        bail!("--cloud-provider: {:?} is not known, expected mesos", values.text("cloud-provider"));
    }
    let cloud = cloud::read(values.maybe("cloud-config").as_deref())?;
    let master = MasterLocation::read(&cloud.mesos_master).context("--cloud-config: mesos-master")?;
    let (config, candidate) = (config(&values)?, candidate(&values)?);
    let listen = SocketAddr::new(values.ip("address").unwrap_or(IpAddr::from([0, 0, 0, 0])), values.integer("port")?);
    common::run(async move |supervisor| {
        let client = access::limited(access::client(&values, "master", "km-controller-manager")?, &values)?;
        let (metrics, shutdown) = (Registry::default(), supervisor.shutdown());
        let listener = http::bind(listen)?;
        tracing::info!("serving /healthz and /metrics on http://{}", listener.local_addr()?);
        let shown = metrics.clone();
        supervisor.spawn("serving", http::serve(listener, supervisor.clone(), move |request| answer(shown.clone(), request)));

        let cache = access::cache(&client, controllers::reads().map(|it| (it, Query::default())), &supervisor);
        let agents = Agents::default();
        let masters = detect::watch(master, &supervisor);
        let operator = Operator::new(masters, None, cloud.http_client_timeout, cloud.state_cache_ttl);
        supervisor.spawn("the state of the agents", cloud_agents::follow(operator, config.product, agents.clone(), supervisor.shutdown()));

        let parts = Parts { config, client, cache, agents, metrics };
        supervisor.spawn("controllers", async move {
            match candidate {
                None => parts.run(shutdown).await,
                Some(candidate) => lead(candidate, &parts, shutdown).await,
            }
        });
        Ok(())
    })
}

/// This process's candidacy; `None` without leader election.
fn candidate(values: &Values) -> anyhow::Result<Option<Candidate>> {
    if !values.bool("leader-elect") {
        return Ok(None);
    }
    let [lease_duration, renew_deadline, retry_period] =
        ["leader-elect-lease-duration", "leader-elect-renew-deadline", "leader-elect-retry-period"].map(|flag| values.duration(flag));
    if lease_duration <= renew_deadline {
        bail!(
            "--leader-elect-lease-duration: {lease_duration:?} is not longer than --leader-elect-renew-deadline: there could be two leaders"
        );
    }
    // The retry period with the random part that is added to it, so that replicas do not always collide.
    if renew_deadline <= retry_period.mul_f64(1.2) {
        bail!("--leader-elect-renew-deadline: {renew_deadline:?} is too short for a --leader-elect-retry-period of {retry_period:?}");
    }
    let identity = format!("{}_{}", common::hostname(), uuid::Uuid::new_v4());
    let usual = Candidate::new(KUBERNETES.system_namespace, "kube-controller-manager", &identity);
    Ok(Some(Candidate { lease_duration, renew_deadline, retry_period, ..usual }))
}

/// Stands for election until the shutdown, or until the controllers fail.
async fn lead(candidate: Candidate, parts: &Parts, shutdown: Shutdown) -> anyhow::Result<()> {
    while !shutdown.is_cancelled() {
        let ended = AtomicBool::new(false);
        let work = async |elected: Shutdown| {
            let outcome = parts.run(elected.clone()).await;
            ended.store(!elected.is_cancelled(), Ordering::Relaxed);
            outcome
        };
        match candidate.clone().run(parts.client.clone(), shutdown.clone(), work).await {
            // Another process may lead by now, or the API server was unreachable for too long.
            Err(error) if !ended.load(Ordering::Relaxed) => tracing::warn!("{error}; standing for election again"),
            outcome => return outcome,
        }
    }
    Ok(())
}

/// What the controllers need to run.
struct Parts {
    config: Config,
    client: Client,
    cache: Arc<Cache>,
    agents: Agents,
    metrics: Registry,
}

impl Parts {
    /// Runs the controllers until `shutdown`; a failed one stops the others.
    async fn run(&self, shutdown: Shutdown) -> anyhow::Result<()> {
        let tasks = Supervisor::new(shutdown.child_token());
        controllers::start(&self.config, &self.client, &self.cache, self.agents.clone(), &self.metrics, &tasks);
        tasks.wait(common::GRACE).await
    }
}

fn workers(values: &Values, flag: &str) -> anyhow::Result<usize> {
    match values.integer(flag)? {
        0 => bail!("--{flag}: 0 is out of range, expected at least 1"),
        workers => Ok(workers),
    }
}

fn config(values: &Values) -> anyhow::Result<Config> {
    Ok(Config {
        product: KUBERNETES,
        host_port_endpoints: values.bool("host-port-endpoints"),
        max_endpoints_per_slice: slice_size(values, "max-endpoints-per-slice")?,
        mirrored_endpoints_per_subset: slice_size(values, "mirroring-max-endpoints-per-subset")?,
        node_monitor_period: values.duration("node-monitor-period"),
        node_monitor_grace_period: values.duration("node-monitor-grace-period"),
        pod_eviction_timeout: values.duration("pod-eviction-timeout"),
        node_eviction_rates: EvictionRates {
            normal: values.number("node-eviction-rate"),
            secondary: values.number("secondary-node-eviction-rate"),
            large: values.integer("large-cluster-size-threshold")?,
            unhealthy: values.number("unhealthy-zone-threshold"),
        },
        terminated_pod_gc_threshold: values.integer::<i64>("terminated-pod-gc-threshold")?.max(0).cast_unsigned() as usize,
        resource_quota_sync_period: values.duration("resource-quota-sync-period"),
        autoscaler: autoscaler(values)?,
        workers: WORKERS.iter().map(|(flag, controller)| Ok((*controller, workers(values, flag)?))).collect::<anyhow::Result<_>>()?,
        root_ca: values.maybe("root-ca-file").map(|it| root_ca(&it)).transpose()?,
        service_account_key: values.maybe("service-account-private-key-file").map(|it| signing_key(&it)).transpose()?,
    })
}

fn autoscaler(values: &Values) -> anyhow::Result<autoscaler::Config> {
    let (period, tolerance) =
        (values.duration("horizontal-pod-autoscaler-sync-period"), values.number("horizontal-pod-autoscaler-tolerance"));
    if period.is_zero() {
        bail!("--horizontal-pod-autoscaler-sync-period: 0 is not a period");
    }
    if !(0.0..1.0).contains(&tolerance) {
        bail!("--horizontal-pod-autoscaler-tolerance: {tolerance} is not between 0 and 1");
    }
    Ok(autoscaler::Config {
        period,
        stabilization: values.duration("horizontal-pod-autoscaler-downscale-stabilization"),
        settings: autoscaler::replicas::Settings {
            tolerance,
            cpu_initialization: values.duration("horizontal-pod-autoscaler-cpu-initialization-period"),
            initial_readiness: values.duration("horizontal-pod-autoscaler-initial-readiness-delay"),
        },
    })
}

fn slice_size(values: &Values, flag: &str) -> anyhow::Result<usize> {
    let number = values.integer::<i64>(flag)?;
    let size = usize::try_from(number).ok().filter(|it| (1..=1000).contains(it));
    size.with_context(|| format!("--{flag}: {number} is not between 1 and 1000"))
}

/// # Errors
/// If the file cannot be read or has no certificate.
fn root_ca(path: &str) -> anyhow::Result<String> {
    let text = std::fs::read_to_string(path).with_context(|| format!("--root-ca-file: {path}"))?;
    if !text.contains("-----BEGIN CERTIFICATE-----") {
        bail!("--root-ca-file: {path} holds no PEM certificate");
    }
    Ok(text)
}

/// # Errors
/// If the file cannot be read or has no private key.
fn signing_key(path: &str) -> anyhow::Result<Arc<SigningKey>> {
    let pem = std::fs::read(path).with_context(|| format!("--service-account-private-key-file: {path}"))?;
    Ok(Arc::new(SigningKey::read(&pem).with_context(|| format!("--service-account-private-key-file: {path}"))?))
}

async fn answer(metrics: Registry, request: Request<Incoming>) -> Response<http::Body> {
    match request.uri().path() {
        "/healthz" | "/livez" | "/readyz" => http::text(StatusCode::OK, "ok"),
        "/metrics" => http::text(StatusCode::OK, metrics.render()),
        _ => http::text(StatusCode::NOT_FOUND, "404 page not found\n"),
    }
}
