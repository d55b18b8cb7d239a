//! Eviction by taints, whoever set them: pods leave a node when their toleration of its taints ends.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod, Taint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use parking_lot::Mutex;

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
    /// `--pod-eviction-timeout`: how long pods stay on a node that is not ready if their tolerations do not say.
    eviction: Duration,
    /// When taints without a timestamp were first seen, by node.
    seen: Mutex<HashMap<ObjectKey, Seen>>,
}

/// By key and value.
type Seen = HashMap<(String, Option<String>), Timestamp>;

impl TaintEvictionController {
    pub fn new(eviction: Duration) -> Self {
        Self { eviction, seen: Mutex::default() }
    }

    /// The taints of a node that evict, all with a time.
    fn evicting(&self, node: &Object, now: Timestamp) -> Vec<Taint> {
        let mut taints: Vec<Taint> = evicting(node).cloned().collect();
        let mut all = self.seen.lock();
        let before = all.remove(&node.key()).unwrap_or_default();
        let mut seen = Seen::new();
        for taint in taints.iter_mut().filter(|it| it.time_added.is_none()) {
            let of = (taint.key.clone(), taint.value.clone());
            let at = before.get(&of).copied().unwrap_or(now);
            taint.time_added = Some(Time(at));
            seen.insert(of, at);
        }
        if !seen.is_empty() {
            all.insert(node.key(), seen);
        }
        taints
    }
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
        let Some(node) = cache.get(&resource::NODE, "", &key.name.name) else {
            self.seen.lock().remove(key);
            return plan;
        };
        let evicting = self.evicting(&node, now);
        if evicting.is_empty() {
            return plan;
        }
        for pod in pods_of(cache, node.name()) {
            if pod.meta().is_deleted() || pods::has_ended(&pod) {
                continue;
            }
            let typed = pod.typed::<Pod>().ok();
            let tolerations = typed.and_then(|it| it.spec.as_ref()?.tolerations.as_deref()).unwrap_or_default();
            let there = typed.and_then(placed).unwrap_or(Timestamp::MIN);
            // Daemons have nowhere else to go.
            let daemon = pod.meta().controller().is_some_and(|it| *it.kind == *"DaemonSet");
            match taints::stays(tolerations, there, &evicting, (!daemon).then_some(self.eviction), now) {
                None => {}
                Some(left) if left.is_zero() => {
                    let reason = ("DeletionByTaintManager", "Taint manager: deleting due to NoExecute taint");
                    // Its condition gives the reason before it is deleted.
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

/// Since when a pod has been on its node.
fn placed(pod: &Pod) -> Option<Timestamp> {
    let conditions = pod.status.as_ref().and_then(|it| it.conditions.as_deref()).unwrap_or_default();
    let scheduled = conditions.iter().find(|it| it.type_ == "PodScheduled" && it.status == "True");
    let at = scheduled.and_then(|it| it.last_transition_time.as_ref()).or(pod.metadata.creation_timestamp.as_ref());
    at.map(|it| it.0)
}

fn evicting(node: &Object) -> impl Iterator<Item = &Taint> {
    let taints = node.typed::<Node>().ok().and_then(|it| it.spec.as_ref()?.taints.as_deref()).unwrap_or_default();
    taints.iter().filter(|it| it.effect == "NoExecute")
}
