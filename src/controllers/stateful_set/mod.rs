//! StatefulSets: pods with names that stay, each with its own claims, made and replaced in order.

mod claims;
mod identity;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::owners::{self, Claim};
use super::plan::{Controller, Plan, Source, Tell, Write, tree};
use super::pods;
use super::revisions::{History, Latest};
use crate::cache::Cache;
use crate::client::Patch;
use crate::client::events::EventType;
use crate::object::{Object, ObjectKey, resource};
use claims::Claims;

/// Where a pod shows the name of its revision.
const REVISION: &str = "controller-revision-hash";
/// Where a revision shows its hash.
const HASH: &str = "controller.kubernetes.io/hash";
/// Most pods made or deleted for one set at a time.
const BURST: usize = 500;

/// Keeps the pods and claims of StatefulSets.
#[derive(Debug)]
pub struct StatefulSetController;

impl Controller for StatefulSetController {
    fn name(&self) -> &'static str {
        "statefulset-controller"
    }

    fn sources(&self) -> Vec<Source> {
        vec![
            Source::own(&resource::STATEFUL_SET),
            Source::leading_to(&resource::POD, |cache, pod| owners::concerned(cache, pod, &resource::STATEFUL_SET)),
            Source::leading_to(&resource::CONTROLLER_REVISION, |cache, it| owners::concerned(cache, it, &resource::STATEFUL_SET)),
            // A claim may have to go before the pod that needs it comes again, and a pod waits for one that was deleted.
            Source::leading_to(&resource::PERSISTENT_VOLUME_CLAIM, |cache, claim| {
                cache.selecting(&resource::STATEFUL_SET, claim).iter().map(|it| it.key()).collect()
            }),
        ]
    }

    fn plan(&self, cache: &Cache, key: &ObjectKey, now: Timestamp) -> Plan {
        let mut plan = Plan::default();
        let Some(object) = cache.get(key.resource, &key.name.namespace, &key.name.name) else { return plan };
        let Some(selector) = owners::selector(&object) else { return plan };
        let numbered = |pod: &Object| identity::ordinal(object.name(), pod.name()).is_some();
        let pods = Claim::new(&resource::POD, &selector).also(&numbered).take(cache, &object, &mut plan);
        let history = History::claim(cache, &object, &selector, &mut plan);
        let written = tree(&object);
        let latest = history.latest(cache, &written, HASH, &mut plan);
        let mut set = Set { object: &object, cache, written: &written, history, latest, pods: BTreeMap::new(), now };
        set.pods.extend(pods.into_iter().filter_map(|pod| Some((identity::ordinal(object.name(), pod.name())?, pod))));
        if !object.meta().is_deleted() {
            set.step(&mut plan);
            set.forget(&mut plan);
        }
        let status = set.status(&mut plan);
        plan.set_status(object.key(), &written["status"], status);
        plan
    }
}

/// A set with its pods, by their ordinals.
struct Set<'a> {
    object: &'a Arc<Object>,
    cache: &'a Cache,
    written: &'a Value,
    history: History<'a>,
    latest: Latest,
    pods: BTreeMap<i64, Arc<Object>>,
    now: Timestamp,
}

impl Set<'_> {
    fn spec(&self) -> &Value {
        &self.written["spec"]
    }

    fn first(&self) -> i64 {
        self.spec()["ordinals"]["start"].as_i64().unwrap_or_default()
    }

    /// Behind the last ordinal wanted.
    fn end(&self) -> i64 {
        self.first() + self.spec()["replicas"].as_i64().unwrap_or(1)
    }

    /// Whether pods are handled one after another rather than all at once.
    fn is_ordered(&self) -> bool {
        self.spec()["podManagementPolicy"] != "Parallel"
    }

    fn rolls(&self) -> bool {
        self.spec()["updateStrategy"]["type"] != "OnDelete"
    }

    /// This many ordinals above the first, pods stay at the current revision.
    fn partition(&self) -> i64 {
        self.spec()["updateStrategy"]["rollingUpdate"]["partition"].as_i64().unwrap_or_default()
    }

    fn current_revision(&self) -> &str {
        let current = self.written["status"]["currentRevision"].as_str().unwrap_or_default();
        if self.history.has(current) { current } else { &self.latest.name }
    }

    /// Runs, and has been ready for `minReadySeconds`.
    fn is_available(&self, pod: &Object, plan: &mut Plan) -> bool {
        let min_ready = Duration::from_secs(self.spec()["minReadySeconds"].as_u64().unwrap_or_default());
        let (available, missing) = pods::is_available(pod, min_ready, self.now);
        missing.into_iter().for_each(|it| plan.look_again(it));
        available && pod.field("status.phase") == Some("Running")
    }

    fn is_healthy(&self, pod: &Object, plan: &mut Plan) -> bool {
        !pod.meta().is_deleted() && self.is_available(pod, plan)
    }

    /// The next step: create missing pods, delete surplus ones, then replace outdated ones.
    fn step(&self, plan: &mut Plan) {
        if self.complete(plan) && self.condemn(plan) && self.rolls() {
            self.replace(plan);
        }
    }

    /// Makes the pods that are missing; whether it is time to go on.
    fn complete(&self, plan: &mut Plan) -> bool {
        let mut made = 0;
        for ordinal in self.first()..self.end() {
            let Some(pod) = self.pods.get(&ordinal) else {
                self.create(ordinal, plan);
                made += 1;
                if self.is_ordered() || made >= BURST {
                    return false;
                }
                continue;
            };
            if pods::has_ended(pod) {
                // It is recreated once it is gone.
                if !pod.meta().is_deleted() {
                    self.delete(pod, plan);
                }
                if self.is_ordered() {
                    return false;
                }
                continue;
            }
            self.repair(ordinal, pod, plan);
            if self.is_ordered() && !self.is_healthy(pod, plan) {
                return false;
            }
        }
        true
    }

    /// Deletes the pods that are too many, the highest first; whether it is time to go on.
    fn condemn(&self, plan: &mut Plan) -> bool {
        let condemned: Vec<(i64, &Arc<Object>)> =
            self.pods.iter().rev().filter(|(at, _)| **at < self.first() || **at >= self.end()).map(|(at, pod)| (*at, pod)).collect();
        let claims = Claims::of(self.object, self.written);
        let mut waits = false;
        for (ordinal, pod) in &condemned {
            waits |= claims.keep_owners(self.cache, *ordinal, Some(pod), plan);
        }
        if waits {
            return false;
        }
        let sick = condemned.iter().rev().find(|(_, pod)| !self.is_healthy(pod, plan)).map(|it| it.0);
        for (ordinal, pod) in condemned.into_iter().take(BURST) {
            if !pod.meta().is_deleted() {
                if self.is_ordered() && sick != Some(ordinal) && !self.is_healthy(pod, plan) {
                    return false;
                }
                self.delete(pod, plan);
            }
            if self.is_ordered() {
                return false;
            }
        }
        true
    }

    /// Deletes the highest outdated pod, once those above it are healthy; it is recreated from the newest template.
    fn replace(&self, plan: &mut Plan) {
        for ordinal in (self.first() + self.partition()..self.end()).rev() {
            let Some(pod) = self.pods.get(&ordinal) else { return };
            if pod.meta().label(REVISION) != Some(&self.latest.name) && !pod.meta().is_deleted() {
                return self.delete(pod, plan);
            }
            if !self.is_healthy(pod, plan) {
                return;
            }
        }
    }

    /// Makes a pod and the claims it needs; not while a claim still belongs to an earlier pod of its name.
    fn create(&self, ordinal: i64, plan: &mut Plan) {
        let claims = Claims::of(self.object, self.written);
        if claims.are_stale(self.cache, ordinal) {
            return;
        }
        claims.make(self.cache, ordinal, plan);
        let old = self.rolls() && ordinal < self.first() + self.partition();
        let revision = if old { self.current_revision() } else { &self.latest.name };
        let kept = self.history.template(revision);
        let template = kept.as_ref().unwrap_or(&self.spec()["template"]);
        let pod = identity::pod(self.object, self.spec(), template, ordinal, revision, &claims);
        let (set, name) = (self.object.name(), identity::name(self.object.name(), ordinal));
        let tell = Tell {
            about: self.object.clone(),
            success: Some(("SuccessfulCreate", format!("create Pod {name} in StatefulSet {set} successful"))),
            failure: ("FailedCreate", format!("create Pod {name} in StatefulSet {set} failed error: {{}}")),
        };
        let namespace = self.object.namespace().to_owned();
        plan.slowly.push(Write::Create { resource: &resource::POD, namespace, object: pod, tell: Some(tell) });
    }

    fn delete(&self, pod: &Arc<Object>, plan: &mut Plan) {
        let (set, name) = (self.object.name(), pod.name());
        let tell = Tell {
            about: self.object.clone(),
            success: Some(("SuccessfulDelete", format!("delete Pod {name} in StatefulSet {set} successful"))),
            failure: ("FailedDelete", format!("delete Pod {name} in StatefulSet {set} failed error: {{}}")),
        };
        plan.delete(pod, Some(tell));
    }

    /// Restores the labels of a pod, and the claims that it waits for.
    fn repair(&self, ordinal: i64, pod: &Arc<Object>, plan: &mut Plan) {
        let claims = Claims::of(self.object, self.written);
        if pod.field("status.phase") == Some("Pending") {
            claims.make(self.cache, ordinal, plan);
        }
        let mut repaired = claims.keep_owners(self.cache, ordinal, None, plan);
        let labels = identity::labels(pod.name(), ordinal);
        if !labels.iter().all(|(key, value)| pod.meta().label(key) == value.as_str()) {
            let patch = Patch::Merge(json!({"metadata": {"uid": &*pod.meta().uid, "labels": labels}}));
            plan.writes.push(Write::Patch { key: pod.key(), subresource: "", patch });
            repaired = true;
        }
        if repaired {
            let message = format!("update Pod {} in StatefulSet {} successful", pod.name(), self.object.name());
            plan.note(self.object, EventType::Normal, "SuccessfulUpdate", message);
        }
    }

    fn forget(&self, plan: &mut Plan) {
        let limit = self.spec()["revisionHistoryLimit"].as_i64().unwrap_or(10);
        let current = self.current_revision();
        let used = |name: &str| self.pods.values().any(|pod| pod.meta().label(REVISION) == Some(name));
        let alive = |it: &Object| it.name() == self.latest.name || it.name() == current || used(it.name());
        self.history.truncate(limit, alive, plan);
    }

    fn status(&self, plan: &mut Plan) -> Value {
        let all = || self.pods.values();
        let runs = |pod: &&Arc<Object>| pods::is_ready(pod) && pod.field("status.phase") == Some("Running");
        let (replicas, ready) = (all().count(), all().filter(runs).count());
        let available = all().filter(|pod| self.is_available(pod, plan)).count();
        let of = |revision: &str| all().filter(|pod| !pod.meta().is_deleted() && pod.meta().label(REVISION) == Some(revision)).count();
        let updated = of(&self.latest.name);
        // Of the wanted pods, not the existing ones: while a pod below the partition is missing, all others may be new.
        let wanted = self.end() - self.first();
        let complete = self.rolls() && [replicas, updated, ready].iter().all(|it| *it as i64 == wanted);
        let current = if complete { &self.latest.name } else { self.current_revision() };
        let shown = |number: usize| if number == 0 { Value::Null } else { number.into() };
        json!({
            "observedGeneration": self.object.meta().generation,
            "replicas": replicas,
            "readyReplicas": shown(ready),
            "availableReplicas": available,
            "currentReplicas": shown(of(current)),
            "updatedReplicas": shown(updated),
            "currentRevision": current,
            "updateRevision": self.latest.name,
            "collisionCount": self.latest.collisions,
        })
    }
}

#[cfg(test)]
mod tests;
