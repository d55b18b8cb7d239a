//! Taints that evict do so, whoever put them on: pods leave a node when their patience with its taints ends.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod, Taint};

use super::super::plan::{Controller, Plan, Source, Write};
use super::super::pods;
use super::{pods_of, taints};
use crate::cache::Cache;
use crate::client::DeleteOptions;
use crate::client::events::EventType;
use crate::object::constraints::NodeFacts;
use crate::object::{Object, ObjectKey, resource};

/// Deletes the pods that do not (or no longer) tolerate their node's taints.
#[derive(Debug)]
pub struct TaintEvictionController {
    /// `--pod-eviction-timeout`: how long pods stay on a node that is not ready if their tolerations say nothing of it.
    pub eviction: Duration,
}

impl Controller for TaintEvictionController {
    fn name(&self) -> &'static str {
        "taint-eviction-controller"
    }

    fn sources(&self) -> Vec<Source> {
        vec![
            Source::own(&resource::NODE).when(|node| {
                let mut hash = DefaultHasher::new();
                node.part::<NodeFacts>().taints.hash(&mut hash);
                hash.finish()
            }),
            Source::leading_to(&resource::POD, |cache, pod| {
                let node = pods::node(pod).and_then(|it| cache.get(&resource::NODE, "", it));
                node.filter(|it| evicting(it).next().is_some()).map(|it| it.key()).into_iter().collect()
            }),
        ]
    }

    fn plan(&self, cache: &Cache, key: &ObjectKey, now: Timestamp) -> Plan {
        let mut plan = Plan::default();
        let Some(node) = cache.get(&resource::NODE, "", &key.name.name) else { return plan };
        let evicting: Vec<Taint> = evicting(&node).cloned().collect();
        if evicting.is_empty() {
            return plan;
        }
        for pod in pods_of(cache, node.name()) {
            if pod.meta().is_deleted() || pods::has_ended(&pod) {
                continue;
            }
            let tolerations = pod.typed::<Pod>().ok().and_then(|it| it.spec.as_ref()?.tolerations.as_deref()).unwrap_or_default();
            // Daemons have nowhere else to go.
            let daemon = pod.meta().controller().is_some_and(|it| *it.kind == *"DaemonSet");
            match taints::stays(tolerations, &evicting, (!daemon).then_some(self.eviction), now) {
                None => {}
                Some(left) if left.is_zero() => {
                    let reason = ("DeletionByTaintManager", "Taint manager: deleting due to NoExecute taint");
                    // It is told why before it goes.
                    let told = pods::disruption(&pod, reason, false, now);
                    if told.is_some() {
                        let message = format!("Marking for deletion Pod {}/{}", pod.namespace(), pod.name());
                        plan.note(&pod, EventType::Normal, "TaintManagerEviction", message);
                    }
                    plan.writes.push(told.unwrap_or_else(|| {
                        let options = DeleteOptions { uid: Some(pod.meta().uid.to_string()), ..DeleteOptions::default() };
                        Write::Delete { key: pod.key(), options, tell: None }
                    }));
                    plan.look_again(Duration::ZERO);
                }
                Some(left) => plan.look_again(left),
            }
        }
        plan
    }
}

fn evicting(node: &Object) -> impl Iterator<Item = &Taint> {
    let taints = node.typed::<Node>().ok().and_then(|it| it.spec.as_ref()?.taints.as_deref()).unwrap_or_default();
    taints.iter().filter(|it| it.effect == "NoExecute")
}
