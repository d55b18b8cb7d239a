//! Eviction by taints, whoever set them: pods leave a node when their toleration of its taints ends.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
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
    /// The pods that are to leave their nodes later, by node.
    leaving: Mutex<HashMap<ObjectKey, Leaving>>,
}

type Leaving = HashMap<ObjectKey, Arc<Object>>;

/// By key and value.
type Seen = HashMap<(String, Option<String>), Timestamp>;

impl TaintEvictionController {
    pub fn new(eviction: Duration) -> Self {
        Self { eviction, seen: Mutex::default(), leaving: Mutex::default() }
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

    /// Whether a pod was to leave this node later.
    fn leaves(&self, node: &ObjectKey, pod: &Object) -> bool {
        self.leaving.lock().get(node).is_some_and(|it| it.contains_key(&pod.key()))
    }

    /// Remembers the pods that are to leave a node later, and tells of those that no longer are.
    fn stay(&self, node: &ObjectKey, leaving: Leaving, plan: &mut Plan) {
        let mut all = self.leaving.lock();
        let before = all.remove(node).unwrap_or_default();
        for (key, pod) in before.iter().filter(|(key, _)| !leaving.contains_key(key)) {
            let message = format!("Cancelling deletion of Pod {}/{}", key.name.namespace, key.name.name);
            plan.note(pod, EventType::Normal, "TaintManagerEviction", message);
        }
        if !leaving.is_empty() {
            all.insert(node.clone(), leaving);
        }
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
            self.stay(key, Leaving::new(), &mut plan);
            return plan;
        };
        let evicting = self.evicting(&node, now);
        if evicting.is_empty() {
            self.stay(key, Leaving::new(), &mut plan);
            return plan;
        }
        let mut leaving = Leaving::new();
        for pod in pods_of(cache, node.name()) {
            if pod.meta().is_deleted() || pods::has_ended(&pod) {
                if self.leaves(key, &pod) {
                    leaving.insert(pod.key(), pod);
                }
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
                    if let Some(it) = self.leaving.lock().get_mut(key) {
                        it.remove(&pod.key());
                    }
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
                Some(left) => {
                    plan.look_again(left);
                    leaving.insert(pod.key(), pod.clone());
                }
            }
        }
        self.stay(key, leaving, &mut plan);
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
