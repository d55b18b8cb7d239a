//! DaemonSets: one pod on every node that suits it, replaced as the update strategy says.

mod daemon;
mod update;

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::plan::{Controller, Plan, Source, Tell, Write, since, tree};
use super::revisions::{History, Latest};
use super::{owners, pods};
use crate::cache::{Cache, Query};
use crate::client::events::EventType;
use crate::object::constraints::{Constraints, NodeFacts};
use crate::object::{Object, ObjectKey, resource};

/// Where pods and revisions show the hash of their template.
const HASH: &str = "controller-revision-hash";
/// Most pods made or deleted for one set at a time.
const BURST: usize = 250;
/// How long a pod that has ended stays, so that one that always fails does not come and go all the time.
const FAILED_STAYS: Duration = Duration::from_secs(10);

/// Keeps the pods of DaemonSets.
#[derive(Debug)]
pub struct DaemonSetController;

impl Controller for DaemonSetController {
    fn name(&self) -> &'static str {
        "daemonset-controller"
    }

    fn sources(&self) -> Vec<Source> {
        let of_node = |cache: &Cache, _: &Object| {
            cache.list(&resource::DAEMON_SET, &Query::default()).objects.iter().map(|it| it.key()).collect::<Vec<_>>()
        };
        vec![
            Source::own(&resource::DAEMON_SET),
            Source::leading_to(&resource::POD, |cache, pod| owners::concerned(cache, pod, &resource::DAEMON_SET)),
            Source::leading_to(&resource::CONTROLLER_REVISION, |cache, it| owners::concerned(cache, it, &resource::DAEMON_SET)),
            // Nodes give signs of life all the time; only what decides about pods matters.
            Source::leading_to(&resource::NODE, of_node).when(|node| {
                let mut hash = DefaultHasher::new();
                node.part::<NodeFacts>().hash(&mut hash);
                hash.finish()
            }),
        ]
    }

    fn plan(&self, cache: &Cache, key: &ObjectKey, now: Timestamp) -> Plan {
        let mut plan = Plan::default();
        let Some(object) = cache.get(key.resource, &key.name.namespace, &key.name.name) else { return plan };
        let Some(selector) = owners::selector(&object) else {
            let why = "This daemon set is selecting all pods. A non-empty selector is required.";
            plan.note(&object, EventType::Warning, "SelectingAll", why);
            return plan;
        };
        let pods = owners::claim(cache, &object, &resource::POD, &selector, &mut plan);
        let history = History::claim(cache, &object, &selector, &mut plan);
        let written = tree(&object);
        let latest = history.latest(cache, &written, HASH, &mut plan);
        let set = Set::of(cache, &object, &written, latest, &pods, now);
        if !object.meta().is_deleted() {
            let settled = !set.keep(&mut plan);
            if settled && written["spec"]["updateStrategy"]["type"] != "OnDelete" {
                set.update(&mut plan);
            }
            let limit = written["spec"]["revisionHistoryLimit"].as_i64().unwrap_or(10);
            let used = |it: &Object| pods.iter().any(|pod| pod.meta().label(HASH).is_some_and(|hash| it.meta().label(HASH) == Some(hash)));
            history.truncate(limit, |it| it.name() == set.latest.name || used(it), &mut plan);
        }
        let status = set.status(&mut plan);
        plan.set_status(object.key(), &written["status"], status);
        plan
    }
}

/// A node as a set sees it.
struct Place<'a> {
    node: Arc<Object>,
    /// A pod is to be there.
    wanted: bool,
    /// A pod that is there may stay: taints that came later drive away only those that must not even run.
    allowed: bool,
    /// Oldest first.
    pods: Vec<&'a Arc<Object>>,
}

/// A set with its pods, node by node.
struct Set<'a> {
    object: &'a Arc<Object>,
    written: &'a Value,
    latest: Latest,
    places: Vec<Place<'a>>,
    /// Pods for nodes that are not there.
    strays: Vec<&'a Arc<Object>>,
    now: Timestamp,
}

impl<'a> Set<'a> {
    fn of(cache: &Cache, object: &'a Arc<Object>, written: &'a Value, latest: Latest, pods: &'a [Arc<Object>], now: Timestamp) -> Self {
        let mut on_node: HashMap<&str, Vec<&Arc<Object>>> = HashMap::new();
        for pod in pods {
            on_node.entry(daemon::node(pod).unwrap_or_default()).or_default().push(pod);
        }
        let constraints = daemon::constraints(&written["spec"]["template"]["spec"]);
        let place = |node: Arc<Object>| {
            let (wanted, allowed) = judge(&constraints, node.part());
            let mut pods = on_node.remove(node.name()).unwrap_or_default();
            pods.sort_by(|a, b| (&a.meta().created, a.name()).cmp(&(&b.meta().created, b.name())));
            Place { node, wanted, allowed, pods }
        };
        let places = cache.list(&resource::NODE, &Query::default()).objects.into_iter().map(place).collect();
        let strays = on_node.into_values().flatten().filter(|pod| pods::node(pod).is_none()).collect();
        Self { object, written, latest, places, strays, now }
    }

    /// Makes missing pods and deletes superfluous ones; whether there was anything to do.
    fn keep(&self, plan: &mut Plan) -> bool {
        let (mut missing, mut surplus) = (Vec::new(), self.strays.clone());
        for place in &self.places {
            let living = || place.pods.iter().filter(|pod| !pod.meta().is_deleted());
            if !place.allowed {
                surplus.extend(living());
                continue;
            }
            for pod in living().filter(|pod| pods::has_ended(pod)) {
                self.bury(pod, place.node.name(), &mut surplus, plan);
            }
            let running: Vec<_> = living().copied().filter(|pod| !pods::has_ended(pod)).collect();
            if self.surges() {
                surplus.extend(self.superseded(&running, plan));
            } else {
                surplus.extend(running.iter().skip(1));
            }
            if place.wanted && place.pods.is_empty() {
                missing.push(place.node.name());
            }
        }
        let busy = !missing.is_empty() || !surplus.is_empty();
        surplus.into_iter().filter(|pod| !pod.meta().is_deleted()).take(BURST).for_each(|pod| self.delete(pod, plan));
        missing.into_iter().take(BURST).for_each(|node| self.create(node, plan));
        busy
    }

    /// Deletes a pod that has ended, after a while: it is made again when it is gone.
    fn bury(&self, pod: &'a Arc<Object>, node: &str, surplus: &mut Vec<&'a Arc<Object>>, plan: &mut Plan) {
        let age = pod.meta().created.parse().map_or(FAILED_STAYS, |created| since(created, self.now));
        if age < FAILED_STAYS {
            return plan.look_again(FAILED_STAYS - age);
        }
        let (namespace, name) = (pod.namespace(), pod.name());
        if pod.field("status.phase") == Some("Failed") {
            let message = format!("Found failed daemon pod {namespace}/{name} on node {node}, will try to kill it");
            plan.note(self.object, EventType::Warning, "FailedDaemonPod", message);
        } else {
            let message = format!("Found succeeded daemon pod {namespace}/{name} on node {node}, will try to delete it");
            plan.note(self.object, EventType::Normal, "SucceededDaemonPod", message);
        }
        surplus.push(pod);
    }

    fn create(&self, node: &str, plan: &mut Plan) {
        let object = daemon::pod(self.object, self.written, &self.latest.hash, node);
        let (namespace, tell) = (self.object.namespace().to_owned(), Some(Tell::created(self.object, "pod")));
        plan.writes.push(Write::Create { resource: &resource::POD, namespace, object, tell });
    }

    fn delete(&self, pod: &Object, plan: &mut Plan) {
        plan.delete(pod, Some(Tell::deleted(self.object, "pod")));
    }

    fn is_updated(&self, pod: &Object) -> bool {
        pod.meta().label(HASH) == Some(&self.latest.hash)
    }

    fn is_available(&self, pod: &Object, plan: &mut Plan) -> bool {
        let min_ready = Duration::from_secs(self.written["spec"]["minReadySeconds"].as_u64().unwrap_or_default());
        let (available, missing) = pods::is_available(pod, min_ready, self.now);
        missing.into_iter().for_each(|it| plan.look_again(it));
        available
    }

    /// How many nodes are to have a pod.
    fn desired(&self) -> i64 {
        self.places.iter().filter(|it| it.wanted).count() as i64
    }

    fn status(&self, plan: &mut Plan) -> Value {
        let desired = self.desired();
        let (mut current, mut misscheduled, mut ready, mut available, mut updated) = (0, 0, 0, 0, 0);
        for place in &self.places {
            let Some(pod) = place.pods.first() else { continue };
            if !place.wanted {
                misscheduled += 1;
                continue;
            }
            current += 1;
            ready += i64::from(pods::is_ready(pod));
            available += i64::from(self.is_available(pod, plan));
            updated += i64::from(self.is_updated(pod));
        }
        let shown = |number: i64| if number == 0 { Value::Null } else { number.into() };
        json!({
            "observedGeneration": self.object.meta().generation,
            "desiredNumberScheduled": desired,
            "currentNumberScheduled": current,
            "numberMisscheduled": misscheduled,
            "numberReady": ready,
            "numberAvailable": shown(available),
            "numberUnavailable": shown(desired - available),
            "updatedNumberScheduled": shown(updated),
            "collisionCount": shown(self.latest.collisions),
        })
    }
}

/// Whether a pod is to be on the node, and whether one that is there may stay.
fn judge(constraints: &Constraints, node: &NodeFacts) -> (bool, bool) {
    if constraints.suits(node).is_err() {
        return (false, false);
    }
    let stays = constraints.tolerates_all(node, "NoExecute");
    (stays && constraints.tolerates_all(node, "NoSchedule"), stays)
}

#[cfg(test)]
mod tests;
