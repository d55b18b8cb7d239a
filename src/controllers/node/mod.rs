//! Nodes on Mesos: an agent without a kubelet is ready as long as Mesos reports it; a node with a silent kubelet is not ready, and its pods
//! are moved; a node that Mesos no longer knows is deleted with all its pods.

mod eviction;
mod taints;
#[cfg(test)]
mod tests;
mod ttl;
mod zones;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, NodeCondition};
use parking_lot::{Mutex, RwLock};
use serde_json::{Value, json};

use super::conditions;
use super::plan::{Controller, Note, Plan, Source, Write, since, tree};
use super::pods;
use crate::cache::{Cache, Query};
use crate::client::events::EventType;
use crate::client::{DeleteOptions, Patch};
use crate::object::{Object, ObjectKey, ResourceRef, resource};

pub use eviction::TaintEvictionController;
pub use ttl::NodeTtlController;
pub use zones::EvictionRates;
use zones::{Eviction, Zones};

/// The state of the agents from the cloud provider, which the caller updates.
#[derive(Clone, Debug, Default)]
pub struct Agents(Arc<RwLock<Option<HashMap<String, Agent>>>>);

/// An agent, by its host name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Agent {
    /// Whether one of its executors is a kubelet.
    pub has_kubelet: bool,
}

impl Agents {
    /// Replaces the state; `None` if Mesos is unreachable.
    pub fn set(&self, agents: Option<HashMap<String, Agent>>) {
        *self.0.write() = agents;
    }

    /// `None` when Mesos cannot be asked, `Some(None)` when it does not know the host.
    fn get(&self, host: &str) -> Option<Option<Agent>> {
        self.0.read().as_ref().map(|it| it.get(host).copied())
    }
}

/// Maintains the conditions of nodes, and the consequences for their pods.
#[derive(Debug)]
pub struct NodeController {
    pub agents: Agents,
    /// `--node-monitor-period`.
    pub period: Duration,
    /// `--node-monitor-grace-period`.
    pub grace: Duration,
    pub rates: EvictionRates,
    seen: Mutex<HashMap<Box<str>, Seen>>,
    zones: Mutex<Zones>,
}

/// A node as it was last heard of.
#[derive(Debug)]
struct Seen {
    uid: Box<str>,
    /// Its heartbeat, and when that was seen to change, by this machine's clock: the agents' clocks may differ.
    sign: String,
    at: Timestamp,
}

/// How old a heartbeat may be that is renewed on behalf of an agent without a kubelet.
const RENEW: Duration = Duration::from_secs(20);
const LEASES: &str = "kube-node-lease";
/// The conditions that a kubelet reports.
const KUBELETS: [&str; 4] = ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"];

impl Controller for NodeController {
    fn name(&self) -> &'static str {
        "node-controller"
    }

    fn sources(&self) -> Vec<Source> {
        vec![Source::own(&resource::NODE)]
    }

    fn reads(&self) -> Vec<ResourceRef> {
        vec![&resource::LEASE, &resource::POD]
    }

    fn plan(&self, cache: &Cache, key: &ObjectKey, now: Timestamp) -> Plan {
        let mut plan = Plan::default();
        let Some(node) = cache.get(&resource::NODE, "", &key.name.name) else {
            let seen = self.seen.lock().remove(&*key.name.name);
            if let Some(Seen { uid, .. }) = seen {
                tell(&key.name.name, &uid, "RemovingNode", "Removing Node", "from Controller", &mut plan);
            }
            return plan;
        };
        let Ok(typed) = node.typed::<Node>() else { return plan };
        plan.look_again(self.period);
        let agent = self.agents.get(node.name());
        let silent = self.silence(cache, &node, typed, now, &mut plan);
        if let Some(Some(Agent { has_kubelet: false })) = agent {
            renew(&node, typed, now, &mut plan);
        } else if silent > self.grace && agent == Some(None) {
            remove(cache, &node, &mut plan);
            return plan;
        } else if silent > self.grace {
            set_unknown(&node, typed, now, &mut plan);
        }
        // Consequences follow from the condition only once it is stored.
        if plan.writes_nothing() {
            self.set_taints(cache, &node, typed, now, &mut plan);
            if was_heard_of(typed) && !is_ready(typed) {
                mark_pods(cache, &node, now, &mut plan);
            }
        }
        plan
    }
}

fn condition<'a>(node: &'a Node, kind: &str) -> Option<&'a NodeCondition> {
    node.status.as_ref()?.conditions.as_ref()?.iter().find(|it| it.type_ == kind)
}

fn ready(node: &Node) -> Option<&NodeCondition> {
    condition(node, "Ready")
}

/// Whether the node has ever had a Ready condition: a new node has no consequences yet for pods that are already on it.
fn was_heard_of(node: &Node) -> bool {
    ready(node).is_some()
}

fn is_ready(node: &Node) -> bool {
    ready(node).is_some_and(|it| it.status == "True")
}

impl NodeController {
    pub fn new(agents: Agents, period: Duration, grace: Duration, rates: EvictionRates) -> Self {
        Self { agents, period, grace, rates, seen: Mutex::default(), zones: Mutex::default() }
    }

    /// Keeps the taints that follow from the conditions.
    fn set_taints(&self, cache: &Cache, node: &Object, typed: &Node, now: Timestamp, plan: &mut Plan) {
        let tree = tree(node);
        let begun = taints::evicts(&tree);
        let evict = was_heard_of(typed)
            && (is_ready(typed)
                || match self.zones.lock().judge(cache, node, begun, &self.rates, self.period, now) {
                    Eviction::Begins => true,
                    Eviction::GoesOn => begun,
                    Eviction::Ends => false,
                });
        let wanted = taints::wanted(&tree, evict, now);
        if wanted.as_slice() == tree["spec"]["taints"].as_array().map(Vec::as_slice).unwrap_or_default() {
            return;
        }
        let taints = if wanted.is_empty() { Value::Null } else { wanted.into() };
        let patch = json!({ "metadata": { "resourceVersion": node.revision().to_string() }, "spec": { "taints": taints } });
        plan.writes.push(Write::Patch { key: node.key(), subresource: "", patch: Patch::Merge(patch) });
    }

    /// How long the node's kubelet has been silent.
    fn silence(&self, cache: &Cache, node: &Object, typed: &Node, now: Timestamp, plan: &mut Plan) -> Duration {
        let lease = cache.get(&resource::LEASE, LEASES, node.name());
        let renewed = lease.as_ref().and_then(|it| it.typed::<Lease>().ok()?.spec.as_ref()?.renew_time.as_ref()).map(|it| it.0);
        let heartbeat = ready(typed).and_then(|it| it.last_heartbeat_time.as_ref()).map(|it| it.0);
        let sign = format!("{renewed:?} {heartbeat:?}");
        let mut seen = self.seen.lock();
        let uid = &node.meta().uid;
        let seen = seen.entry(node.name().into()).or_insert_with(|| {
            tell(node.name(), uid, "RegisteredNode", "Registered Node", "in Controller", plan);
            Seen { uid: (**uid).into(), sign: sign.clone(), at: now }
        });
        if seen.sign != sign {
            *seen = Seen { uid: (**uid).into(), sign, at: now };
        }
        since(seen.at, now)
    }
}

/// Marks the pods of a node that is not ready as not ready.
fn mark_pods(cache: &Cache, node: &Object, now: Timestamp, plan: &mut Plan) {
    for pod in pods_of(cache, node.name()) {
        if !pods::is_ready(&pod) || pods::has_ended(&pod) || pod.meta().is_deleted() {
            continue;
        }
        let mut all = tree(&pod)["status"]["conditions"].take();
        if let Some(ready) = conditions::find(&all, "Ready").cloned() {
            let mut ready = ready;
            ready["status"] = "False".into();
            conditions::set(&mut all, ready, now);
        }
        let patch = Patch::Merge(json!({ "metadata": { "uid": &*pod.meta().uid }, "status": { "conditions": all } }));
        plan.writes.push(Write::Patch { key: pod.key(), subresource: "status", patch });
        let message = "Node is not ready".to_owned();
        plan.notes.push(Note { about: pod.clone(), kind: EventType::Warning, reason: "NodeNotReady", message });
    }
}

/// Emits the event for a new or deleted node.
fn tell(name: &str, uid: &str, reason: &'static str, what: &str, how: &str, plan: &mut Plan) {
    let node = json!({ "metadata": { "name": name, "uid": uid } });
    if let Ok(about) = Object::from_stored(&resource::NODE, node.to_string().as_bytes(), 0) {
        plan.note(&about, EventType::Normal, reason, format!("Node {name} event: {what} {name} {how}"));
    }
}

fn pods_of(cache: &Cache, node: &str) -> Vec<Arc<Object>> {
    cache.list(&resource::POD, &Query::field("spec.nodeName", node)).objects
}

/// Reference: agents without a kubelet get `SlaveReady` from here when their heartbeat is old.
fn renew(node: &Object, typed: &Node, now: Timestamp, plan: &mut Plan) {
    let heartbeat = ready(typed).and_then(|it| it.last_heartbeat_time.as_ref()).map(|it| it.0);
    if is_ready(typed) && heartbeat.is_some_and(|it| since(it, now) <= RENEW) {
        return;
    }
    let mut condition = json!({ "type": "Ready", "status": "True", "reason": "SlaveReady", "message": "mesos reports ready status" });
    condition["lastHeartbeatTime"] = conditions::time(now).into();
    set_conditions(node, typed, vec![condition], now, plan);
}

/// Sets the conditions of a node with a silent kubelet to Unknown.
fn set_unknown(node: &Arc<Object>, typed: &Node, now: Timestamp, plan: &mut Plan) {
    let is_unknown = |kind: &str| condition(typed, kind).is_some_and(|it| it.status == "Unknown");
    if KUBELETS.iter().all(|it| is_unknown(it)) {
        return;
    }
    let unknown = |kind: &&str| {
        let (reason, message) = match condition(typed, kind) {
            Some(_) => ("NodeStatusUnknown", "Kubelet stopped posting node status."),
            None => ("NodeStatusNeverUpdated", "Kubelet never posted node status."),
        };
        let mut unknown = json!({ "type": kind, "status": "Unknown", "reason": reason, "message": message });
        if condition(typed, kind).is_none() {
            unknown["lastHeartbeatTime"] = (*node.meta().created).into();
        }
        unknown
    };
    set_conditions(node, typed, KUBELETS.iter().filter(|it| !is_unknown(it)).map(unknown).collect(), now, plan);
    if is_ready(typed) {
        let message = format!("Node {} status is now: NodeNotReady", node.name());
        plan.notes.push(Note { about: node.clone(), kind: EventType::Normal, reason: "NodeNotReady", message });
    }
}

/// A strategic merge patch of conditions.
fn set_conditions(node: &Object, typed: &Node, mut conditions: Vec<Value>, now: Timestamp, plan: &mut Plan) {
    for it in &mut conditions {
        let was = condition(typed, it["type"].as_str().unwrap_or_default());
        if was.is_none_or(|was| it["status"] != was.status) {
            it["lastTransitionTime"] = conditions::time(now).into();
        }
    }
    let patch = Patch::Strategic(json!({ "status": { "conditions": conditions } }));
    plan.writes.push(Write::Patch { key: node.key(), subresource: "status", patch });
}

/// The agent has left the cluster: its pods will never be reported again.
fn remove(cache: &Cache, node: &Arc<Object>, plan: &mut Plan) {
    for pod in pods_of(cache, node.name()) {
        let options = DeleteOptions { uid: Some(pod.meta().uid.to_string()), grace_period_seconds: Some(0), ..DeleteOptions::default() };
        plan.writes.push(Write::Delete { key: pod.key(), options, tell: None });
    }
    let options = DeleteOptions { uid: Some(node.meta().uid.to_string()), ..DeleteOptions::default() };
    plan.writes.push(Write::Delete { key: node.key(), options, tell: None });
    let message = format!("Deleting node {} because it does not exist in the cloud provider", node.name());
    plan.notes.push(Note { about: node.clone(), kind: EventType::Normal, reason: "DeletingNode", message });
}
