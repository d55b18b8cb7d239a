//! DaemonSets: one pod on every suitable node, replaced according to the update strategy.

mod daemon;
mod failures;
mod ledger;
mod place;
mod update;

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::owners;
use super::plan::{Controller, Plan, Source, Tell, Write, tree};
use super::revisions::{History, Latest};
use crate::cache::{Cache, Query};
use crate::client::events::EventType;
use crate::object::constraints::{Constraints, NodeFacts};
use crate::object::selector::LabelSelector;
use crate::object::{Object, ObjectKey, resource};
use failures::Failures;
use ledger::{Basis, Ledger};

/// Where pods and revisions show the hash of their template.
const HASH: &str = "controller-revision-hash";
/// Most pods made or deleted for one set at a time.
const BURST: usize = 250;

/// Keeps the pods of DaemonSets.
#[derive(Debug, Default)]
pub struct DaemonSetController {
    ledgers: Mutex<HashMap<ObjectKey, Ledger>>,
    failures: Arc<Mutex<HashMap<ObjectKey, Failures>>>,
}

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
            // Nodes send heartbeats all the time; only changes that matter for pods count.
            Source::leading_to(&resource::NODE, of_node).when(|node| {
                let mut hash = DefaultHasher::new();
                node.part::<NodeFacts>().hash(&mut hash);
                hash.finish()
            }),
        ]
    }

    fn plan(&self, cache: &Cache, key: &ObjectKey, now: Timestamp) -> Plan {
        let mut plan = Plan::default();
        let (ledger, failures) = (self.ledgers.lock().remove(key), self.failures.lock().remove(key));
        let Some(object) = cache.get(key.resource, &key.name.namespace, &key.name.name) else { return plan };
        let Some(selector) = owners::selector(&object) else {
            let why = "This daemon set is selecting all pods. A non-empty selector is required.";
            plan.note(&object, EventType::Warning, "SelectingAll", why);
            return plan;
        };
        let history = History::claim(cache, &object, &selector, &mut plan);
        let written = tree(&object);
        let latest = history.latest(cache, &written, HASH, &mut plan);
        let set = Set::of(&object, &written, latest, selector, now);
        let mut ledger = ledger.unwrap_or_else(|| Ledger::new(cache, &set));
        let mut failures = Failures::of(failures, &set.basis);
        ledger.refresh(cache, &set, &mut failures);
        set.claim(cache, &ledger, &mut plan);
        if !object.meta().is_deleted() {
            let settled = !set.keep(cache, &ledger, &mut plan);
            if settled && written["spec"]["updateStrategy"]["type"] != "OnDelete" {
                set.update(cache, &ledger, &mut plan);
            }
            let limit = written["spec"]["revisionHistoryLimit"].as_i64().unwrap_or(10);
            let used = |it: &Object| it.meta().label(HASH).is_some_and(|hash| ledger.has_pods_of(hash));
            history.truncate(limit, |it| it.name() == set.latest.name || used(it), &mut plan);
        }
        plan.set_status(object.key(), &written["status"], set.status(&ledger));
        if let Some(due) = ledger.next_due() {
            plan.look_again(Duration::try_from(due.duration_since(now)).unwrap_or_default());
        }
        self.ledgers.lock().insert(key.clone(), ledger);
        self.failures.lock().insert(key.clone(), failures);
        plan
    }
}

#[cfg(test)]
impl DaemonSetController {
    /// An empty memory with the same failures.
    fn forgetful(&self) -> Self {
        Self { failures: self.failures.clone(), ..Self::default() }
    }
}

/// A set, as its template and its strategy have it.
struct Set<'a> {
    object: &'a Arc<Object>,
    written: &'a Value,
    latest: Latest,
    basis: Basis,
    selector: LabelSelector,
    constraints: Constraints,
    min_ready: Duration,
    /// New pods come before old ones go.
    surges: bool,
    now: Timestamp,
}

impl<'a> Set<'a> {
    fn of(object: &'a Arc<Object>, written: &'a Value, latest: Latest, selector: LabelSelector, now: Timestamp) -> Self {
        let meta = object.meta();
        let strategy = &written["spec"]["updateStrategy"];
        let surge = &strategy["rollingUpdate"]["maxSurge"];
        Self {
            object,
            written,
            basis: Basis { uid: meta.uid.to_string(), generation: meta.generation, deleted: meta.is_deleted(), hash: latest.hash.clone() },
            latest,
            selector,
            constraints: daemon::constraints(&written["spec"]["template"]["spec"]),
            min_ready: Duration::from_secs(written["spec"]["minReadySeconds"].as_u64().unwrap_or_default()),
            surges: strategy["type"] == "RollingUpdate" && !surge.is_null() && *surge != 0 && *surge != "0%",
            now,
        }
    }

    /// Releases pods that the selector no longer matches, and adopts matching ones without a controller.
    fn claim(&self, cache: &Cache, ledger: &Ledger, plan: &mut Plan) {
        let pod = |name: &str| cache.get(&resource::POD, self.object.namespace(), name);
        plan.writes.extend(ledger.strayed.iter().filter_map(|it| pod(it)).map(|it| owners::release(&it, self.object)));
        plan.writes.extend(ledger.orphans.iter().filter_map(|it| pod(it)).map(|it| owners::adopt(&it, self.object, &[])));
    }

    /// Makes missing pods and deletes superfluous ones; whether there was anything to do.
    fn keep(&self, cache: &Cache, ledger: &Ledger, plan: &mut Plan) -> bool {
        let mut deleted = 0;
        for place in &ledger.surplus {
            let Some(verdict) = ledger.at(place).filter(|_| deleted < BURST) else { break };
            for pod in ledger.pods_at(cache, self, place).iter().filter(|it| !it.meta().is_deleted()) {
                if verdict.ended.iter().any(|it| **it == *pod.name()) {
                    self.tell_end(pod, place, plan);
                } else if !verdict.surplus.iter().any(|it| **it == *pod.name()) {
                    continue;
                }
                self.delete(pod, plan);
                deleted += 1;
            }
        }
        ledger.missing.iter().take(BURST).for_each(|node| self.create(node, plan));
        !ledger.missing.is_empty() || !ledger.surplus.is_empty()
    }

    /// A pod that has ended is deleted, and recreated once it is gone.
    fn tell_end(&self, pod: &Object, node: &str, plan: &mut Plan) {
        let (namespace, name) = (pod.namespace(), pod.name());
        if pod.field("status.phase") == Some("Failed") {
            let message = format!("Found failed daemon pod {namespace}/{name} on node {node}, will try to kill it");
            plan.note(self.object, EventType::Warning, "FailedDaemonPod", message);
        } else {
            let message = format!("Found succeeded daemon pod {namespace}/{name} on node {node}, will try to delete it");
            plan.note(self.object, EventType::Normal, "SucceededDaemonPod", message);
        }
    }

    fn create(&self, node: &str, plan: &mut Plan) {
        let object = daemon::pod(self.object, self.written, &self.latest.hash, node);
        let (namespace, tell) = (self.object.namespace().to_owned(), Some(Tell::created(self.object, "pod")));
        plan.slowly.push(Write::Create { resource: &resource::POD, namespace, object, tell });
    }

    fn delete(&self, pod: &Object, plan: &mut Plan) {
        plan.delete(pod, Some(Tell::deleted(self.object, "pod")));
    }

    fn is_updated(&self, pod: &Object) -> bool {
        pod.meta().label(HASH) == Some(&self.latest.hash)
    }

    fn status(&self, ledger: &Ledger) -> Value {
        let counts = ledger.counts;
        let shown = |number: i64| if number == 0 { Value::Null } else { number.into() };
        json!({
            "observedGeneration": self.object.meta().generation,
            "desiredNumberScheduled": counts.desired,
            "currentNumberScheduled": counts.current,
            "numberMisscheduled": counts.misscheduled,
            "numberReady": counts.ready,
            "numberAvailable": shown(counts.available),
            "numberUnavailable": shown(counts.desired - counts.available),
            "updatedNumberScheduled": shown(counts.updated),
            "collisionCount": shown(self.latest.collisions),
        })
    }
}

#[cfg(test)]
mod tests;
