//! `km executor` with its flags, most of them the kubelet's; and the hidden `km pause`, the only process in a pod's sandbox.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;

use super::flag::{Flag, Kind, Values};
use super::{Server, access, common};
use crate::cache::Query;
use crate::executor::{Config, Executor, Mesos, minion};
use crate::mesos::executor::{Driver, Environment};
use crate::object::resource::{POD, SERVICE};
use crate::runtime::docker::Docker;
use crate::supervise::Supervisor;

const DOCKER_DOES: &str = "Docker does it";
const STATIC_PODS: &str = "static pods come from the scheduler's --static-pods-config";

pub(super) const FLAGS: &[Flag] = &[
    Flag::new("api-servers", Kind::List, "", "API servers, as host:port or URLs (required)"),
    Flag::new("kubeconfig", Kind::Text, "", "File with the credentials for the API server"),
    Flag::new("address", Kind::Ip, "", "Address to serve the kubelet API on; default: LIBPROCESS_IP, or all"),
    Flag::new("port", Kind::Integer, "10250", "Port to serve the kubelet API on; 0 picks a free one"),
    Flag::new("hostname-override", Kind::Text, "", "Name of this node; default: the agent's host name"),
    Flag::new("root-dir", Kind::Text, "", "Directory of the pods' volumes; default: the current directory"),
    Flag::new("allow-privileged", Kind::Bool, "false", "Allow privileged containers"),
    Flag::new("cluster-domain", Kind::Text, "", "First search domain of pods"),
    Flag::new("cluster-dns", Kind::Ip, "", "Address of the cluster's DNS server"),
    Flag::new("docker-endpoint", Kind::Text, "", "Docker engine; default: DOCKER_HOST, or unix:///var/run/docker.sock"),
    Flag::new("pod-infra-container-image", Kind::Text, "", "Pause image; default: one made from km itself"),
    Flag::new("max-pods", Kind::Integer, "110", "Pod capacity that the node reports"),
    Flag::new("node-status-update-frequency", Kind::Duration, "10s", "Interval of node status updates"),
    Flag::new("suicide-timeout", Kind::Duration, "20m0s", "How long an executor without pods lives; 0 is for ever"),
    Flag::new("mesos-launch-grace-period", Kind::Duration, "5m0s", "How long a pod may take to start; 0 is for ever"),
    Flag::new("enable-debugging-handlers", Kind::Bool, "true", "Serve logs, exec, attach and port-forward"),
    Flag::new("cgroup-root", Kind::Text, "", "Parent cgroup of the pods"),
    Flag::new("event-qps", Kind::Number, "5", "Events per second; 0 is no limit"),
    Flag::new("event-burst", Kind::Integer, "10", "Size of a burst of events"),
    Flag::new("sync-frequency", Kind::Duration, "10s", "Interval at which mounted ConfigMaps, Secrets and pod fields are updated"),
    Flag::obsolete("cadvisor-port", Kind::Integer, common::NO_CADVISOR),
    Flag::obsolete("read-only-port", Kind::Integer, "the kubelet API is on --port"),
    Flag::obsolete("healthz-port", Kind::Integer, "/healthz is on --port"),
    Flag::obsolete("healthz-bind-address", Kind::Ip, "/healthz is on --port"),
    Flag::obsolete("register-node", Kind::Bool, "the scheduler registers nodes"),
    Flag::obsolete("container-runtime", Kind::Text, "it is Docker"),
    Flag::obsolete("host-network-sources", Kind::Text, common::HOST_NETWORK),
    Flag::obsolete("kubelet-cgroups", Kind::Text, DOCKER_DOES),
    Flag::obsolete("runtime-cgroups", Kind::Text, DOCKER_DOES),
    Flag::obsolete("system-cgroups", Kind::Text, DOCKER_DOES),
    Flag::obsolete("image-gc-high-threshold", Kind::Integer, "images are not removed"),
    Flag::obsolete("image-gc-low-threshold", Kind::Integer, "images are not removed"),
    Flag::obsolete("registry-qps", Kind::Number, DOCKER_DOES),
    Flag::obsolete("registry-burst", Kind::Integer, DOCKER_DOES),
    Flag::obsolete("network-plugin", Kind::Text, common::DOCKER_NETWORK),
    Flag::obsolete("cloud-provider", Kind::Text, "the node is a Mesos agent"),
    Flag::obsolete("config", Kind::Text, STATIC_PODS),
    Flag::obsolete("pod-manifest-path", Kind::Text, STATIC_PODS),
    Flag::obsolete("minimum-container-ttl-duration", Kind::Duration, "dead containers go with their pod"),
    Flag::obsolete("maximum-dead-containers-per-container", Kind::Integer, "one is kept, for its logs"),
    Flag::obsolete("network-container-image", Kind::Text, "use --pod-infra-container-image"),
    Flag::obsolete("auth-path", Kind::Text, "use --kubeconfig"),
    Flag::obsolete("etcd-servers", Kind::List, "executors use the API server"),
    Flag::obsolete("etcd-config", Kind::Text, "executors use the API server"),
];

pub(super) const SERVER: Server = Server {
    name: "executor",
    installed_as: &["k8sm-executor", "kubelet"],
    about: "Run pods on a Mesos agent; started by the agent",
    flags: FLAGS,
    run,
    hidden: false,
};

pub(super) const PAUSE: Server = Server {
    name: "pause",
    installed_as: &["pause"],
    about: "Hold a pod's sandbox: wait for a signal",
    flags: &[],
    run: pause,
    hidden: true,
};

/// How long to wait for the last task updates to be acknowledged.
const SETTLE: Duration = Duration::from_secs(5);

fn run(values: Values) -> anyhow::Result<()> {
    common::run(async move |supervisor: Supervisor| {
        let environment = Environment::of_process()?;
        let config = config(&values, &environment)?;
        let client = access::client(&values, "api-servers", "km-executor")?;
        let cache = access::cache(&client, [(&POD, config.pods()), (&SERVICE, Query::default())], &supervisor);
        let runtime = Arc::new(Docker::new(&docker_endpoint(&values)));
        let (driver, events) = Driver::start(environment, &supervisor);
        let mesos = Mesos { updates: Arc::new(driver.clone()), events };
        let executor = Executor::build(config, client, cache, runtime, Some(mesos)).await?;
        let shutdown = supervisor.shutdown();
        supervisor.spawn("executor", async move {
            executor.run(shutdown.clone()).await?;
            if !shutdown.is_cancelled() && tokio::time::timeout(SETTLE, driver.settled()).await.is_err() {
                tracing::warn!("the agent did not acknowledge the last task updates");
            }
            shutdown.cancel();
            Ok(())
        });
        Ok(())
    })
}

fn config(values: &Values, environment: &Environment) -> anyhow::Result<Config> {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let libprocess_ip: Option<IpAddr> = variable("LIBPROCESS_IP").and_then(|text| text.parse().ok());
    let address = values.ip("address").or(libprocess_ip).unwrap_or(IpAddr::from([0, 0, 0, 0]));
    let node_ip = if address.is_unspecified() { libprocess_ip.unwrap_or_else(|| common::reachable(address)) } else { address };
    let node_name = values.maybe("hostname-override").unwrap_or_else(|| common::hostname().to_lowercase());
    let root_dir = values.maybe("root-dir").map_or_else(|| PathBuf::from("."), PathBuf::from);
    let root_dir = std::path::absolute(&root_dir).with_context(|| format!("--root-dir {}", root_dir.display()))?;
    let container_uuid = variable("MESOS_EXECUTOR_CONTAINER_UUID");
    let docker_config = root_dir.join(".dockercfg");
    let mut config = Config::new(&node_name, node_ip, root_dir);
    config.address = address;
    config.port = values.integer("port")?;
    config.owner = format!("{}/{node_name}", environment.framework_id.value);
    config.container_uuid = container_uuid.unwrap_or_else(|| minion::container_uuid(environment.directory.to_str()));
    config.pause_image = values.maybe("pod-infra-container-image");
    config.cluster_dns = values.ip("cluster-dns").iter().map(IpAddr::to_string).collect();
    config.cluster_domain = values.text("cluster-domain").trim_end_matches('.').to_owned();
    config.cgroup_parent = values.text("cgroup-root");
    config.allow_privileged = values.bool("allow-privileged");
    config.suicide_timeout = values.duration("suicide-timeout");
    config.launch_grace_period = values.duration("mesos-launch-grace-period");
    config.node_status_period = values.duration("node-status-update-frequency");
    config.sync_period = values.duration("sync-frequency");
    let (qps, burst) = (values.number("event-qps"), values.integer("event-burst")?);
    anyhow::ensure!(qps >= 0.0, "--event-qps: {qps} is negative");
    config.event_rate = (qps > 0.0).then_some((qps, burst));
    config.max_pods = values.integer("max-pods")?;
    config.debugging_handlers = values.bool("enable-debugging-handlers");
    config.docker_config = Some(docker_config).filter(|path| path.exists());
    Ok(config)
}

/// The Docker engine: `--docker-endpoint`, or the environment's, or the usual socket.
pub(super) fn docker_endpoint(values: &Values) -> String {
    let given = values.maybe("docker-endpoint").or_else(|| std::env::var("DOCKER_HOST").ok().filter(|host| !host.is_empty()));
    given.unwrap_or_else(|| "unix:///var/run/docker.sock".to_owned())
}

fn pause(_: Values) -> anyhow::Result<()> {
    Ok(crate::runtime::pause::run()?)
}
