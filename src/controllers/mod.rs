//! The controllers: each a pure plan (`plan.rs`) over the cache, run by one driver (`driver.rs`).

mod aggregation;
pub mod autoscaler;
mod conditions;
mod cron_job;
mod daemon_set;
mod deployment;
mod disruption;
mod driver;
mod endpoints;
mod fingerprint;
mod gc;
mod job;
mod metrics;
mod namespace;
pub mod node;
mod owners;
mod plan;
mod pod_gc;
mod pods;
mod queue;
mod replicas;
mod resource_quota;
mod revisions;
mod root_ca;
mod service_account;
mod service_account_tokens;
mod service_cidr;
mod stale_disruption;
mod stateful_set;
mod ttl;
mod volumes;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::tz::TimeZone;

use crate::cache::Cache;
use crate::client::{Client, events};
use crate::object::{ResourceRef, resource};
use crate::supervise::Supervisor;
use crate::telemetry::metrics::Registry;
use crate::tokens::SigningKey;
use crate::util::product::Product;
use driver::Context;
use metrics::Workqueue;
use plan::Controller;

/// Concurrent keys of one controller, unless [`Config::workers`] overrides it.
const WORKERS: usize = 16;

/// The configuration of the controllers.
#[derive(Clone, Debug)]
pub struct Config {
    pub product: &'static Product,
    /// `--host-port-endpoints`: services lead to the hosts' ports.
    pub host_port_endpoints: bool,
    /// `--max-endpoints-per-slice`.
    pub max_endpoints_per_slice: usize,
    /// `--mirroring-max-endpoints-per-subset`.
    pub mirrored_endpoints_per_subset: usize,
    /// `--node-monitor-period`.
    pub node_monitor_period: Duration,
    /// `--node-monitor-grace-period`.
    pub node_monitor_grace_period: Duration,
    /// `--pod-eviction-timeout`.
    pub pod_eviction_timeout: Duration,
    pub node_eviction_rates: node::EvictionRates,
    /// `--terminated-pod-gc-threshold`; 0 keeps all.
    pub terminated_pod_gc_threshold: usize,
    /// `--resource-quota-sync-period`.
    pub resource_quota_sync_period: Duration,
    pub autoscaler: autoscaler::Config,
    /// `--concurrent-…-syncs`: how many keys each controller works on at a time, by its name.
    pub workers: BTreeMap<&'static str, usize>,
    /// The content of `--root-ca-file`; without it no certificates are published.
    pub root_ca: Option<String>,
    /// Signs the tokens in secrets; without it they stay empty.
    pub service_account_key: Option<Arc<SigningKey>>,
}

impl Config {
    /// The defaults of the command line.
    pub fn new(product: &'static Product) -> Self {
        Self {
            product,
            host_port_endpoints: true,
            max_endpoints_per_slice: 100,
            mirrored_endpoints_per_subset: 1000,
            node_monitor_period: Duration::from_secs(5),
            node_monitor_grace_period: Duration::from_secs(50),
            pod_eviction_timeout: Duration::from_secs(300),
            node_eviction_rates: node::EvictionRates::default(),
            terminated_pod_gc_threshold: 12500,
            resource_quota_sync_period: Duration::from_secs(300),
            autoscaler: autoscaler::Config::default(),
            workers: BTreeMap::new(),
            root_ca: None,
            service_account_key: None,
        }
    }
}

/// All resources that the controllers read: those that their cache must hold.
pub fn reads() -> impl Iterator<Item = ResourceRef> {
    resource::ALL.iter().copied().filter(|it| it.is_stored() && *it != &resource::EVENT)
}

/// Starts every controller as a task of `supervisor`. `agents` holds the known Mesos agents, kept up to date by the caller;
/// `registry` takes the metrics.
pub fn start(config: &Config, client: &Client, cache: &Arc<Cache>, agents: node::Agents, registry: &Registry, supervisor: &Supervisor) {
    let metrics = autoscaler::metrics::Metrics::default();
    let follow = metrics.clone().follow(client.clone(), config.autoscaler.period, supervisor.shutdown());
    supervisor.spawn("the metrics of pods", follow);
    let mut all: Vec<Arc<dyn Controller>> = vec![
        Arc::new(replicas::Replicas::replication_controllers()),
        Arc::new(replicas::Replicas::replica_sets()),
        Arc::new(deployment::DeploymentController),
        Arc::new(stateful_set::StatefulSetController),
        Arc::new(daemon_set::DaemonSetController::default()),
        Arc::<job::JobController>::default(),
        Arc::new(cron_job::CronJobController { zone: TimeZone::system() }),
        Arc::new(ttl::TtlAfterFinished),
        Arc::new(endpoints::EndpointsController::new(config.product, config.host_port_endpoints, config.max_endpoints_per_slice)),
        Arc::new(endpoints::MirroringController { most: config.mirrored_endpoints_per_subset }),
        Arc::new(node::NodeController::new(
            agents,
            config.node_monitor_period,
            config.node_monitor_grace_period,
            config.node_eviction_rates,
        )),
        Arc::<node::NodeTtlController>::default(),
        Arc::new(node::TaintEvictionController::new(config.pod_eviction_timeout)),
        Arc::new(namespace::NamespaceController),
        Arc::new(service_account::ServiceAccountController),
        Arc::new(service_cidr::ServiceCidrController),
        Arc::new(disruption::DisruptionController),
        Arc::new(stale_disruption::StaleDisruptions),
        Arc::new(pod_gc::PodGc::new(config.terminated_pod_gc_threshold)),
        Arc::new(gc::GarbageCollector),
        Arc::new(resource_quota::ResourceQuotaController { period: config.resource_quota_sync_period }),
        Arc::new(autoscaler::AutoscalerController::new(metrics, config.autoscaler)),
        Arc::new(volumes::VolumeController),
        Arc::new(volumes::ProtectionController),
        Arc::new(volumes::EphemeralController),
        Arc::new(aggregation::AggregationController),
    ];
    if let Some(key) = config.service_account_key.clone() {
        all.push(Arc::new(service_account_tokens::TokensController { key, root_ca: config.root_ca.clone() }));
    }
    if let Some(certificates) = config.root_ca.clone() {
        all.push(Arc::new(root_ca::RootCaPublisher { certificates }));
    }
    for controller in all {
        let name = controller.name();
        let (events, writer) = events::recorder(client.clone(), name, "");
        let context = Context { client: client.clone(), cache: cache.clone(), events, metrics: Workqueue::new(registry, name) };
        supervisor.spawn(format!("events of {name}"), writer.run(supervisor.shutdown()));
        let workers = config.workers.get(name).copied().unwrap_or(WORKERS);
        supervisor.spawn(name, driver::run(controller, workers, context, supervisor.shutdown()));
    }
}

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
