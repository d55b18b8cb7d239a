//! Deletes pods that nothing else would delete: ended ones beyond a threshold, those on nodes that are deleted or out of service, and those
//! deleted before they were placed.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use parking_lot::Mutex;
use serde_json::json;

use super::plan::{Controller, Plan, Source, Write};
use super::pods;
use crate::cache::{Cache, Query};
use crate::client::{DeleteOptions, Patch};
use crate::object::{Object, ObjectKey, ResourceRef, resource};

/// Removes them.
#[derive(Debug, Default)]
pub struct PodGc {
    /// `--terminated-pod-gc-threshold`: how many ended pods are kept; 0 keeps all.
    pub threshold: usize,
    /// Since when nodes are missing that pods are placed on: they may come (back) with their pods.
    missing: Mutex<HashMap<Box<str>, Timestamp>>,
}

/// How often ended pods are counted.
const PERIOD: Duration = Duration::from_secs(20);
/// How long a node must be missing.
const QUARANTINE: Duration = Duration::from_secs(40);
/// Set by an administrator on a node that is known to be off.
const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";

impl PodGc {
    pub fn new(threshold: usize) -> Self {
        Self { threshold, missing: Mutex::default() }
    }
}

impl Controller for PodGc {
    fn name(&self) -> &'static str {
        "pod-garbage-collector"
    }

    fn sources(&self) -> Vec<Source> {
        vec![
            // One key stands for all ended pods: the namespace `default`, which always exists.
            Source::leading_to(&resource::NAMESPACE, |_, it| if it.name() == "default" { vec![it.key()] } else { Vec::new() }),
            Source::own(&resource::NODE),
            Source::leading_to(&resource::POD, |cache, pod| {
                let node = pod.field("spec.nodeName").unwrap_or_default();
                match node {
                    "" if pod.meta().is_deleted() => vec![pod.key()],
                    "" => Vec::new(),
                    node if cache.get(&resource::NODE, "", node).is_none() => vec![ObjectKey::new(&resource::NODE, "", node)],
                    _ => Vec::new(),
                }
            }),
        ]
    }

    fn reads(&self) -> Vec<ResourceRef> {
        vec![&resource::POD]
    }

    fn plan(&self, cache: &Cache, key: &ObjectKey, now: Timestamp) -> Plan {
        match key.resource.kind {
            "Namespace" => self.ended(cache),
            "Node" => self.of_node(cache, &key.name.name, now),
            _ => unplaced(cache, key),
        }
    }
}

impl PodGc {
    fn ended(&self, cache: &Cache) -> Plan {
        let mut plan = Plan::default();
        if self.threshold == 0 {
            return plan;
        }
        plan.look_again(PERIOD);
        let phases = ["Succeeded", "Failed"].map(|it| cache.list(&resource::POD, &Query::field("status.phase", it)).objects);
        let mut ended: Vec<Arc<Object>> = phases.into_iter().flatten().filter(|it| !it.meta().is_deleted()).collect();
        if ended.len() > self.threshold {
            ended.sort_by(|a, b| a.meta().created.cmp(&b.meta().created));
            let surplus = ended.len() - self.threshold;
            plan.writes.extend(ended.iter().take(surplus).map(|pod| remove(pod)));
        }
        plan
    }

    fn of_node(&self, cache: &Cache, name: &str, now: Timestamp) -> Plan {
        let mut plan = Plan::default();
        let pods = || cache.list(&resource::POD, &Query::field("spec.nodeName", name)).objects;
        if let Some(node) = cache.get(&resource::NODE, "", name) {
            self.missing.lock().remove(name);
            if node.typed::<Node>().is_ok_and(is_out_of_service) {
                plan.writes.extend(pods().iter().filter(|it| it.meta().is_deleted()).map(|it| remove(it)));
            }
            return plan;
        }
        let pods = pods();
        if pods.is_empty() {
            self.missing.lock().remove(name);
            return plan;
        }
        let since = *self.missing.lock().entry(name.into()).or_insert(now);
        let missing_for = Duration::try_from(now.duration_since(since)).unwrap_or_default();
        if missing_for < QUARANTINE {
            plan.look_again(QUARANTINE - missing_for);
            return plan;
        }
        for pod in pods {
            // Its condition gives the reason before it is deleted.
            let reason = ("DeletionByPodGC", "PodGC: node no longer exists");
            plan.writes.push(pods::disruption(&pod, reason, true, now).unwrap_or_else(|| remove(&pod)));
        }
        plan
    }
}

fn is_out_of_service(node: &Node) -> bool {
    let tainted = node.spec.iter().flat_map(|it| it.taints.iter().flatten()).any(|it| it.key == OUT_OF_SERVICE);
    let conditions = node.status.iter().flat_map(|it| it.conditions.iter().flatten());
    tainted && !conditions.into_iter().any(|it| it.type_ == "Ready" && it.status == "True")
}

/// A pod that was deleted before it ran: no kubelet will report its end.
fn unplaced(cache: &Cache, key: &ObjectKey) -> Plan {
    let mut plan = Plan::default();
    let pod = cache.get(key.resource, &key.name.namespace, &key.name.name);
    let pod = pod.filter(|it| it.meta().is_deleted() && it.field("spec.nodeName").is_some_and(str::is_empty));
    // A pod that only waits for finalizers is past this.
    let Some(pod) = pod.filter(|it| it.meta().deletion_grace_seconds != Some(0)) else { return plan };
    if pods::has_ended(&pod) || pod.meta().finalizers.is_empty() {
        plan.writes.push(remove(&pod));
    } else {
        // The holders of its finalizers must first learn that it has failed.
        let patch = json!({ "metadata": { "uid": &*pod.meta().uid }, "status": { "phase": "Failed" } });
        plan.writes.push(Write::Patch { key: pod.key(), subresource: "status", patch: Patch::Merge(patch) });
    }
    plan
}

fn remove(pod: &Object) -> Write {
    let options = DeleteOptions { uid: Some(pod.meta().uid.to_string()), grace_period_seconds: Some(0), ..DeleteOptions::default() };
    Write::Delete { key: pod.key(), options, tell: None }
}

#[cfg(test)]
mod tests {

    use super::*;
    use crate::controllers::simulation::World;

    fn pod(name: &str, node: &str, phase: &str) -> serde_json::Value {
        json!({"metadata": {"name": name}, "spec": {"nodeName": node}, "status": {"phase": phase}})
    }

    fn names(world: &World) -> Vec<String> {
        world.list(&resource::POD).iter().map(|it| it.name().to_owned()).collect()
    }

    #[test]
    fn the_oldest_ended_pods_go() {
        let mut world = World::new(vec![Box::new(PodGc::new(2))]);
        world.put(&resource::NAMESPACE, "", json!({"metadata": {"name": "default"}}));
        world.put(&resource::NODE, "", json!({"metadata": {"name": "n"}}));
        for (name, phase) in [("d", "Succeeded"), ("c", "Failed"), ("b", "Running"), ("a", "Succeeded")] {
            world.put(&resource::POD, "default", pod(name, "n", phase));
            world.pass(10);
        }
        world.settle(|_| ());
        assert_eq!(names(&world), ["a", "b", "c"]);
    }

    #[test]
    fn pods_of_a_missing_node_go_when_it_stays_away() {
        let mut world = World::new(vec![Box::new(PodGc::new(0))]);
        let node = world.put(&resource::NODE, "", json!({"metadata": {"name": "n"}})).key();
        world.put(&resource::POD, "default", pod("a", "n", "Running"));
        world.put(&resource::POD, "default", pod("b", "", "Pending"));
        world.remove(&node);
        world.settle(|_| ());
        world.pass(39);
        world.settle(|_| ());
        assert_eq!(names(&world), ["a", "b"]);
        // The node was back for a moment.
        world.put(&resource::NODE, "", json!({"metadata": {"name": "n"}}));
        world.settle(|_| ());
        world.remove(&node);
        world.settle(|_| ());
        world.pass(39);
        world.settle(|_| ());
        assert_eq!(names(&world), ["a", "b"]);
        world.pass(1);
        let mut told = false;
        world.settle(|world| {
            let pod = world.cache.get(&resource::POD, "default", "a");
            told |= pod.is_some_and(|it| super::super::plan::tree(&it)["status"]["phase"] == "Failed");
        });
        assert!(told);
        assert_eq!(names(&world), ["b"]);
    }

    #[test]
    fn a_node_out_of_service_holds_no_pods_up() {
        let mut world = World::new(vec![Box::new(PodGc::new(0))]);
        let taints = json!([{"key": OUT_OF_SERVICE, "effect": "NoExecute"}]);
        world.put(&resource::NODE, "", json!({"metadata": {"name": "n"}, "spec": {"taints": taints}}));
        let mut going = pod("going", "n", "Running");
        going["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
        world.put(&resource::POD, "default", going);
        world.put(&resource::POD, "default", pod("staying", "n", "Running"));
        world.settle(|_| ());
        assert_eq!(names(&world), ["staying"]);
    }
}
