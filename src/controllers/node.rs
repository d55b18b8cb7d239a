//! Nodes on Mesos: an agent without a kubelet is ready because Mesos says so; one whose kubelet has fallen silent is not, and its pods are
//! moved; one that Mesos no longer knows is removed with all its pods.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, NodeCondition};
use parking_lot::{Mutex, RwLock};
use serde_json::{Value, json};

use super::conditions::time;
use super::plan::{Controller, Note, Plan, Source, Write, since, tree};
use crate::cache::{Cache, Query};
use crate::client::events::EventType;
use crate::client::{DeleteOptions, Patch};
use crate::object::{Object, ObjectKey, ResourceRef, resource};

/// What the cloud provider knows of the agents, kept up to date by whoever asks Mesos.
#[derive(Clone, Debug, Default)]
pub struct Agents(Arc<RwLock<Option<HashMap<String, Agent>>>>);

/// An agent, by its host name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Agent {
    /// Whether one of its executors is a kubelet.
    pub has_kubelet: bool,
}

impl Agents {
    /// Replaces what is known; `None` when Mesos cannot be asked.
    pub fn set(&self, agents: Option<HashMap<String, Agent>>) {
        *self.0.write() = agents;
    }

    /// `None` when Mesos cannot be asked, `Some(None)` when it does not know the host.
    fn get(&self, host: &str) -> Option<Option<Agent>> {
        self.0.read().as_ref().map(|it| it.get(host).copied())
    }
}

/// Keeps the condition of nodes, and what follows from it for their pods.
#[derive(Debug)]
pub struct NodeController {
    pub agents: Agents,
    /// `--node-monitor-period`.
    pub period: Duration,
    /// `--node-monitor-grace-period`.
    pub grace: Duration,
    /// `--pod-eviction-timeout`.
    pub eviction: Duration,
    /// When each node's heartbeat was seen to change, by this machine's clock: the agents' clocks may differ.
    pub seen: Mutex<HashMap<Box<str>, (String, Timestamp)>>,
}

/// How old a heartbeat may be that is renewed on behalf of an agent without a kubelet.
const RENEW: Duration = Duration::from_secs(20);
const LEASES: &str = "kube-node-lease";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const NOT_READY: &str = "node.kubernetes.io/not-ready";

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
            self.seen.lock().remove(&*key.name.name);
            return plan;
        };
        let Ok(typed) = node.typed::<Node>() else { return plan };
        plan.look_again(self.period);
        let agent = self.agents.get(node.name());
        let silent = self.silence(cache, &node, typed, now);
        if let Some(Some(Agent { has_kubelet: false })) = agent {
            renew(&node, typed, now, &mut plan);
        } else if silent > self.grace && agent == Some(None) {
            remove(cache, &node, &mut plan);
            return plan;
        } else if silent > self.grace {
            set_unknown(&node, typed, now, &mut plan);
        }
        taint(&node, typed, &mut plan);
        if !is_ready(typed) {
            self.evict(cache, &node, typed, now, &mut plan);
        }
        plan
    }
}

fn ready(node: &Node) -> Option<&NodeCondition> {
    node.status.as_ref()?.conditions.as_ref()?.iter().find(|it| it.type_ == "Ready")
}

fn is_ready(node: &Node) -> bool {
    ready(node).is_some_and(|it| it.status == "True")
}

impl NodeController {
    /// For how long nothing was heard of the node's kubelet.
    fn silence(&self, cache: &Cache, node: &Object, typed: &Node, now: Timestamp) -> Duration {
        let lease = cache.get(&resource::LEASE, LEASES, node.name());
        let renewed = lease.as_ref().and_then(|it| it.typed::<Lease>().ok()?.spec.as_ref()?.renew_time.as_ref()).map(|it| it.0);
        let heartbeat = ready(typed).and_then(|it| it.last_heartbeat_time.as_ref()).map(|it| it.0);
        let sign = format!("{renewed:?} {heartbeat:?}");
        let mut seen = self.seen.lock();
        let (last, at) = seen.entry(node.name().into()).or_insert_with(|| (sign.clone(), now));
        if *last != sign {
            (*last, *at) = (sign, now);
        }
        since(*at, now)
    }

    /// Deletes the pods of a node that has not been ready for too long, and says of the others that they are not ready.
    fn evict(&self, cache: &Cache, node: &Arc<Object>, typed: &Node, now: Timestamp, plan: &mut Plan) {
        let since_when = ready(typed).and_then(|it| it.last_transition_time.as_ref()).map_or(now, |it| it.0);
        let overdue = since(since_when, now) >= self.eviction;
        for pod in pods_of(cache, node.name()) {
            if pod.meta().is_deleted() || super::pods::has_ended(&pod) {
                continue;
            }
            let stays = pod.meta().controller().is_some_and(|it| *it.kind == *"DaemonSet");
            if overdue && !stays {
                let options = DeleteOptions { uid: Some(pod.meta().uid.to_string()), ..DeleteOptions::default() };
                plan.writes.push(Write::Delete { key: pod.key(), options, tell: None });
                let message = format!("Marking for deletion Pod {}/{}", pod.namespace(), pod.name());
                plan.notes.push(Note { about: pod.clone(), kind: EventType::Normal, reason: "TaintManagerEviction", message });
            } else if super::pods::is_ready(&pod) {
                let mut conditions = tree(&pod)["status"]["conditions"].take();
                for condition in conditions.as_array_mut().into_iter().flatten().filter(|it| it["type"] == "Ready") {
                    condition["status"] = "False".into();
                    condition["reason"] = "NodeNotReady".into();
                    condition["lastTransitionTime"] = time(now).into();
                }
                let patch = Patch::Merge(json!({ "metadata": { "uid": &*pod.meta().uid }, "status": { "conditions": conditions } }));
                plan.writes.push(Write::Patch { key: pod.key(), subresource: "status", patch });
            }
        }
    }
}

fn pods_of(cache: &Cache, node: &str) -> Vec<Arc<Object>> {
    cache.list(&resource::POD, &Query::field("spec.nodeName", node)).objects
}

/// A strategic merge patch of the condition `Ready`.
fn set_ready(
    node: &Object,
    typed: &Node,
    status: &str,
    reason: &str,
    message: &str,
    heartbeat: Option<Timestamp>,
    now: Timestamp,
    plan: &mut Plan,
) {
    let was = ready(typed);
    let mut condition = json!({ "type": "Ready", "status": status, "reason": reason, "message": message });
    if let Some(at) = heartbeat {
        condition["lastHeartbeatTime"] = time(at).into();
    }
    if was.is_none_or(|it| it.status != status) {
        condition["lastTransitionTime"] = time(now).into();
    }
    let patch = Patch::Strategic(json!({ "status": { "conditions": [condition] } }));
    plan.writes.push(Write::Patch { key: node.key(), subresource: "status", patch });
}

/// Reference: agents without a kubelet get `SlaveReady` from here when their heartbeat is old.
fn renew(node: &Object, typed: &Node, now: Timestamp, plan: &mut Plan) {
    let heartbeat = ready(typed).and_then(|it| it.last_heartbeat_time.as_ref()).map(|it| it.0);
    if is_ready(typed) && heartbeat.is_some_and(|it| since(it, now) <= RENEW) {
        return;
    }
    set_ready(node, typed, "True", "SlaveReady", "mesos reports ready status", Some(now), now, plan);
}

fn set_unknown(node: &Arc<Object>, typed: &Node, now: Timestamp, plan: &mut Plan) {
    if ready(typed).is_some_and(|it| it.status == "Unknown") {
        return;
    }
    set_ready(node, typed, "Unknown", "NodeStatusUnknown", "Kubelet stopped posting node status.", None, now, plan);
    let message = format!("Node {} status is now: NodeNotReady", node.name());
    plan.notes.push(Note { about: node.clone(), kind: EventType::Normal, reason: "NodeNotReady", message });
}

/// Keeps the two taints that tell of a node's readiness.
fn taint(node: &Object, typed: &Node, plan: &mut Plan) {
    let wanted = match ready(typed).map(|it| it.status.as_str()) {
        Some("True") => None,
        Some("Unknown") => Some(UNREACHABLE),
        _ => Some(NOT_READY),
    };
    let current: Vec<Value> = tree(node)["spec"]["taints"].as_array().cloned().unwrap_or_default();
    let ours = |it: &&Value| matches!(it["key"].as_str(), Some(UNREACHABLE | NOT_READY));
    let right = match wanted {
        None => !current.iter().any(|it| ours(&it)),
        Some(key) => current.iter().filter(ours).count() == 1 && current.iter().any(|it| it["key"] == key),
    };
    if right {
        return;
    }
    let mut taints: Vec<Value> = current.iter().filter(|it| !ours(it)).cloned().collect();
    taints.extend(wanted.map(|key| json!({ "key": key, "effect": "NoSchedule" })));
    let taints = if taints.is_empty() { Value::Null } else { taints.into() };
    let patch = json!({ "metadata": { "resourceVersion": node.revision().to_string() }, "spec": { "taints": taints } });
    plan.writes.push(Write::Patch { key: node.key(), subresource: "", patch: Patch::Merge(patch) });
}

/// The agent has left the cluster: nothing will ever report of its pods again.
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
