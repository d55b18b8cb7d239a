//! The Node object of this agent: capacity, readiness, heartbeat.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::shared::{Capacity, Shared};
use crate::client::{ClientError, Patch};
use crate::mesos::v1::{AgentInfo, ExecutorInfo, Resource};
use crate::object::resource;
use crate::runtime;
use crate::scheduler::executorinfo::encode_resources;
use crate::scheduler::nodes::attribute_labels;
use crate::supervise::Shutdown;
use crate::util::version;

const LEASES: &str = "kube-node-lease";
/// How long a node counts as alive after a heartbeat.
const LEASE_SECONDS: i32 = 40;
/// How often a status that does not change is written nevertheless.
const REFRESH: Duration = Duration::from_mins(5);

/// The agent's data from the executor's subscription.
#[derive(Clone, Debug, Default)]
pub struct Registration {
    pub executor: Option<ExecutorInfo>,
    pub agent: Option<AgentInfo>,
    /// The part of the executor's resources that is meant for static pods.
    pub static_pods: Capacity,
}

/// The engine's state: its version, or why it does not answer.
pub type EngineState = Result<runtime::Version, String>;

impl Registration {
    /// The agent's resources for pods, including static ones; without Mesos, those of the machine.
    pub fn capacity(&self) -> Capacity {
        let Some(agent) = &self.agent else { return machine() };
        let own = self.executor.as_ref().map(|executor| executor.resources.as_slice()).unwrap_or_default();
        let left = |name: &str| (scalar(&agent.resources, name) - scalar(own, name)).max(0.0);
        #[expect(clippy::cast_possible_truncation, reason = "a machine's resources fit")]
        let round = |value: f64| value.round() as i64;
        Capacity {
            cpu: round(left("cpus") * 1000.0) + self.static_pods.cpu,
            memory: round(left("mem") * f64::from(1 << 20)) + self.static_pods.memory,
        }
    }
}

fn scalar(resources: &[Resource], name: &str) -> f64 {
    resources.iter().filter(|resource| resource.name == name).filter_map(|resource| resource.scalar.as_ref()).map(|it| it.value).sum()
}

/// The machine's CPUs and memory.
fn machine() -> Capacity {
    let cpus = std::thread::available_parallelism().map_or(1, |it| i64::try_from(it.get()).unwrap_or(1));
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = text.lines().find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB")?.parse::<i64>().ok());
    Capacity { cpu: cpus * 1000, memory: total.unwrap_or_default() * 1024 }
}

/// Maintains the Node object and its lease until `shutdown`. Unless `registered`, waits for the agent's registration.
pub async fn run(
    shared: Arc<Shared>,
    port: u16,
    mut registrations: watch::Receiver<Registration>,
    mut engine: watch::Receiver<Option<EngineState>>,
    registered: bool,
    shutdown: Shutdown,
) {
    let mut reporter = Reporter { shared: shared.clone(), port, labelled: false, conditions: BTreeMap::new(), written: None };
    let mut beat = tokio::time::interval(shared.config.node_status_period.max(Duration::from_millis(100)));
    beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    // The first state of the engine, which arrives at once, determines the node's condition.
    let first = engine.wait_for(Option::is_some);
    if shutdown.run_until_cancelled(first).await.is_none() {
        return;
    }
    if !registered && shutdown.run_until_cancelled(registrations.wait_for(|it| it.agent.is_some())).await.is_none() {
        return;
    }
    loop {
        tokio::select! {
            _ = beat.tick() => {
                if let Err(error) = reporter.renew_lease().await {
                    tracing::warn!("the node's lease cannot be renewed: {error}");
                }
            }
            Ok(()) = registrations.changed() => reporter.labelled = false,
            Ok(()) = engine.changed() => {}
            () = shutdown.cancelled() => return,
        }
        let (registration, state) = (registrations.borrow_and_update().clone(), engine.borrow_and_update().clone());
        if let Err(error) = reporter.report(&registration, state.as_ref()).await {
            tracing::warn!("the node's status cannot be written: {error:#}");
        }
    }
}

struct Reporter {
    shared: Arc<Shared>,
    port: u16,
    /// Whether labels and annotations are written.
    labelled: bool,
    /// Since when each condition has had its status.
    conditions: BTreeMap<&'static str, (bool, Timestamp)>,
    written: Option<(Value, Timestamp)>,
}

impl Reporter {
    async fn report(&mut self, registration: &Registration, engine: Option<&EngineState>) -> anyhow::Result<()> {
        if !self.labelled {
            self.label(registration).await.context("labels")?;
            self.labelled = true;
        }
        let now = Timestamp::now();
        let status = self.status(registration, engine, now);
        let fresh = self.written.as_ref().is_some_and(|(old, at)| {
            let age = Duration::try_from(now.duration_since(*at)).unwrap_or_default();
            *old == status && age < REFRESH
        });
        if fresh {
            return Ok(());
        }
        let mut beating = status.clone();
        for condition in beating["conditions"].as_array_mut().into_iter().flatten() {
            condition["lastHeartbeatTime"] = json!(seconds(now));
        }
        let name = self.shared.config.node_name.clone();
        let patch = Patch::Strategic(json!({"status": beating}));
        match self.shared.client.patch(&resource::NODE, "", &name, "status", &patch).await {
            Ok(_) => self.written = Some((status, now)),
            Err(error) => {
                // The node was deleted: the next update creates it again.
                self.labelled &= !error.is("NotFound");
                return Err(error.into());
            }
        }
        Ok(())
    }

    /// Makes the Node object, or brings its labels and annotations up to date.
    async fn label(&self, registration: &Registration) -> Result<(), ClientError> {
        let config = &self.shared.config;
        let mut labels: BTreeMap<String, String> = [
            ("kubernetes.io/hostname".to_owned(), config.node_name.clone()),
            ("kubernetes.io/os".to_owned(), std::env::consts::OS.to_owned()),
            ("kubernetes.io/arch".to_owned(), version::architecture().to_owned()),
        ]
        .into();
        let attributes = registration.agent.as_ref().map(|agent| agent.attributes.as_slice()).unwrap_or_default();
        labels.extend(attribute_labels(attributes, config.product));
        let mut annotations = BTreeMap::new();
        if let Some(executor) = &registration.executor {
            annotations.insert(config.product.annotation("executorId"), executor.executor_id.value.clone());
            annotations.insert(config.product.annotation("executorResources"), encode_resources(&executor.resources));
        }
        let metadata = json!({"labels": labels, "annotations": annotations});
        let client = &self.shared.client;
        let patched = client.patch(&resource::NODE, "", &config.node_name, "", &Patch::Merge(json!({"metadata": metadata}))).await;
        match patched {
            Err(error) if error.is("NotFound") => {
                let mut node = json!({"apiVersion": "v1", "kind": "Node", "metadata": metadata, "spec": {}});
                node["metadata"]["name"] = json!(config.node_name);
                client.create(&resource::NODE, "", &node).await.map(drop)
            }
            other => other.map(drop),
        }
    }

    fn status(&mut self, registration: &Registration, engine: Option<&EngineState>, now: Timestamp) -> Value {
        let config = &self.shared.config;
        let capacity = registration.capacity();
        *self.shared.capacity.write() = capacity;
        let amounts = json!({
            "cpu": if capacity.cpu % 1000 == 0 { (capacity.cpu / 1000).to_string() } else { format!("{}m", capacity.cpu) },
            "memory": format!("{}Ki", capacity.memory / 1024),
            "pods": config.max_pods.to_string(),
        });
        let (version, ready) = match engine {
            Some(Ok(version)) => (version.clone(), (true, "KubeletReady", "kubelet is posting ready status".to_owned())),
            Some(Err(why)) => (runtime::Version::default(), (false, "KubeletNotReady", format!("container runtime is down: {why}"))),
            None => (runtime::Version::default(), (false, "KubeletNotReady", "container runtime status is not known yet".to_owned())),
        };
        let conditions = [
            ("MemoryPressure", (false, "KubeletHasSufficientMemory", "kubelet has sufficient memory available".to_owned())),
            ("DiskPressure", (false, "KubeletHasNoDiskPressure", "kubelet has no disk pressure".to_owned())),
            ("PIDPressure", (false, "KubeletHasSufficientPID", "kubelet has sufficient PID available".to_owned())),
            ("Ready", ready),
        ];
        let conditions: Vec<Value> = conditions
            .into_iter()
            .map(|(kind, (holds, reason, message))| {
                let since = self.conditions.entry(kind).or_insert((holds, now));
                if since.0 != holds {
                    *since = (holds, now);
                }
                let status = if holds { "True" } else { "False" };
                json!({"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": seconds(since.1)})
            })
            .collect();
        json!({
            "addresses": [
                {"type": "InternalIP", "address": config.node_ip.to_string()},
                {"type": "Hostname", "address": config.node_name},
            ],
            "capacity": amounts,
            "allocatable": amounts,
            "conditions": conditions,
            "daemonEndpoints": {"kubeletEndpoint": {"Port": self.port}},
            "nodeInfo": {
                "architecture": version::architecture(),
                "operatingSystem": std::env::consts::OS,
                "kernelVersion": line("/proc/sys/kernel/osrelease"),
                "osImage": version.os_image,
                "machineID": line("/etc/machine-id"),
                "systemUUID": line("/sys/class/dmi/id/product_uuid"),
                "bootID": line("/proc/sys/kernel/random/boot_id"),
                "containerRuntimeVersion": if version.name.is_empty() { "docker://unknown".to_owned() } else { format!("{}://{}", version.name, version.version) },
                "kubeletVersion": version::KUBERNETES,
                "kubeProxyVersion": version::KUBERNETES,
            },
        })
    }

    async fn renew_lease(&self) -> Result<(), ClientError> {
        let (client, name) = (&self.shared.client, &self.shared.config.node_name);
        let now = format!("{:.6}", Timestamp::now());
        let renewed = Patch::Merge(json!({"spec": {"renewTime": now}}));
        match client.patch(&resource::LEASE, LEASES, name, "", &renewed).await {
            Err(error) if error.is("NotFound") => {}
            other => return other.map(drop),
        }
        let lease = json!({
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": name},
            "spec": {"holderIdentity": name, "leaseDurationSeconds": LEASE_SECONDS, "renewTime": now},
        });
        match client.create(&resource::LEASE, LEASES, &lease).await {
            Err(error) if error.is("NotFound") => {
                let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": LEASES}});
                client.create(&resource::NAMESPACE, "", &namespace).await?;
                client.create(&resource::LEASE, LEASES, &lease).await.map(drop)
            }
            other => other.map(drop),
        }
    }
}

/// RFC 3339 with whole seconds.
fn seconds(at: Timestamp) -> String {
    format!("{at:.0}")
}

fn line(path: &str) -> String {
    std::fs::read_to_string(path).map(|text| text.trim().to_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mesos::v1::value;

    #[test]
    fn capacity_is_the_agents_without_the_executors() {
        let scalar = |name: &str, value: f64| Resource {
            name: name.to_owned(),
            r#type: value::Type::Scalar.into(),
            scalar: Some(value::Scalar { value }),
            ..Resource::default()
        };
        let registration = Registration {
            agent: Some(AgentInfo {
                resources: vec![scalar("cpus", 4.0), scalar("mem", 1024.0), scalar("mem", 1024.0), scalar("disk", 9.0)],
                ..AgentInfo::default()
            }),
            executor: Some(ExecutorInfo { resources: vec![scalar("cpus", 0.5), scalar("mem", 192.0)], ..ExecutorInfo::default() }),
            static_pods: Capacity { cpu: 250, memory: 64 << 20 },
        };
        assert_eq!(registration.capacity(), Capacity { cpu: 3750, memory: 1920 << 20 });
        assert!(Registration::default().capacity().memory > 0);
    }
}
