//! Jobs: pods that run to completion, each counted exactly once (by a finalizer on every pod), until enough have succeeded or too many
//! failed.

mod accounting;
mod failures;
mod finish;
mod indexes;
mod manage;
mod policy;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::conditions::{Conditions, time};
use super::owners::{self, Claim};
use super::plan::{Controller, Plan, Source, Tell, Write, covers, tree};
use super::pods;
use crate::cache::Cache;
use crate::client::Patch;
use crate::client::events::EventType;
use crate::object::{Object, ObjectKey, resource};
use accounting::Tally;
use failures::Failures;

/// Holds a pod until it has been counted.
const TRACKING: &str = "batch.kubernetes.io/job-tracking";
/// The default of `spec.managedBy`.
const MANAGER: &str = "kubernetes.io/job-controller";
/// Jobs' conditions also record when they were last written.
const PROBED: Option<&str> = Some("lastProbeTime");

/// The condition of a job that is to hold no pods for now.
const SUSPENDED: &str = "Suspended";

/// Manages the pods of Jobs, and releases pods whose jobs have ended.
#[derive(Debug, Default)]
pub struct JobController {
    failures: Mutex<HashMap<ObjectKey, Failures>>,
}

impl Controller for JobController {
    fn name(&self) -> &'static str {
        "job-controller"
    }

    /// The keys are those of jobs, and of pods that no job counts any more.
    fn sources(&self) -> Vec<Source> {
        vec![
            Source::leading_to(&resource::JOB, |cache, job| {
                let mut keys = vec![job.key()];
                if is_finished(job) || !is_there(cache, job) {
                    let pods = cache.owned(&resource::POD, &job.meta().uid);
                    keys.extend(pods.iter().filter(|it| is_tracked(it)).map(|it| it.key()));
                }
                keys
            }),
            Source::leading_to(&resource::POD, |cache, pod| {
                let mut keys = owners::concerned(cache, pod, &resource::JOB);
                if is_tracked(pod) && is_orphan(cache, pod) {
                    keys.push(pod.key());
                }
                keys
            }),
        ]
    }

    fn plan(&self, cache: &Cache, key: &ObjectKey, now: Timestamp) -> Plan {
        let mut plan = Plan::default();
        let Some(object) = cache.get(key.resource, &key.name.namespace, &key.name.name) else {
            self.failures.lock().remove(key);
            return plan;
        };
        if key.resource == &resource::POD {
            if is_tracked(&object) && is_orphan(cache, &object) {
                plan.writes.push(let_go(&object));
            }
            return plan;
        }
        if is_finished(&object) {
            self.failures.lock().remove(key);
            return plan;
        }
        let Some(selector) = owners::selector(&object) else { return plan };
        let written = tree(&object);
        if written["spec"]["managedBy"].as_str().is_some_and(|it| it != MANAGER) {
            return plan;
        }
        let pods = Claim::new(&resource::POD, &selector).with_finalizers(&[TRACKING]).take(cache, &object, &mut plan);
        if !plan.writes_nothing() {
            // Adopted pods count once they are known to be tracked.
            plan.look_again(Duration::ZERO);
            return plan;
        }
        let mut job = Job { object: &object, written: &written, pods, backoff: None, now };
        job.backoff = self.backoff(key, &job);
        job.advance(&mut plan);
        plan
    }
}

impl JobController {
    /// How much longer the next pod of a job waits; remembers how its pods have ended.
    fn backoff(&self, key: &ObjectKey, job: &Job<'_>) -> Option<Duration> {
        let mut all = self.failures.lock();
        let mut failures = Failures::of(all.remove(key), &job.object.meta().uid);
        for pod in &job.pods {
            if pod.field("status.phase") == Some("Succeeded") {
                failures.succeeded(manage::finished(pod));
            } else if job.has_failed(pod) {
                failures.failed(&pod.meta().uid, manage::finished(pod));
            }
        }
        let left = failures.left(job.now);
        if !failures.is_empty() {
            all.insert(key.clone(), failures);
        }
        left
    }
}

fn is_there(cache: &Cache, object: &Object) -> bool {
    let now = cache.get(object.resource(), object.namespace(), object.name());
    now.is_some_and(|it| it.meta().uid == object.meta().uid)
}

fn is_finished(job: &Object) -> bool {
    *job.part::<Finished>() != Finished::default()
}

/// When a job ended, if it did; read once for each of its versions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(from = "Value")]
pub(super) struct Finished(pub Option<Timestamp>);

impl From<Value> for Finished {
    fn from(job: Value) -> Self {
        let conditions = Conditions::of(&job["status"], None);
        let ended = ["Complete", "Failed"].into_iter().find(|it| conditions.is_true(it)).and_then(|it| conditions.get(it));
        Self(ended.map(|it| it["lastTransitionTime"].as_str().and_then(|it| it.parse().ok()).unwrap_or(Timestamp::UNIX_EPOCH)))
    }
}

fn is_tracked(pod: &Object) -> bool {
    pod.meta().finalizers.iter().any(|it| **it == *TRACKING)
}

/// Whether no job counts this pod any more.
fn is_orphan(cache: &Cache, pod: &Object) -> bool {
    let Some(owner) = pod.meta().controller() else { return true };
    let job = owners::controller_key(pod, &resource::JOB).and_then(|key| cache.get(key.resource, &key.name.namespace, &key.name.name));
    !job.is_some_and(|job| job.meta().uid == owner.uid && !is_finished(&job))
}

fn let_go(pod: &Object) -> Write {
    let patch = json!({"metadata": {"uid": &*pod.meta().uid, "$deleteFromPrimitiveList/finalizers": [TRACKING]}});
    Write::Patch { key: pod.key(), subresource: "", patch: Patch::Strategic(patch) }
}

/// A job that has not ended, with its pods.
struct Job<'a> {
    object: &'a Arc<Object>,
    written: &'a Value,
    pods: Vec<Arc<Object>>,
    /// The remaining back-off of the next pod, due to failures.
    backoff: Option<Duration>,
    now: Timestamp,
}

impl Job<'_> {
    fn spec(&self) -> &Value {
        &self.written["spec"]
    }

    fn status(&self) -> &Value {
        &self.written["status"]
    }

    fn number(&self, key: &str) -> Option<i64> {
        self.spec()[key].as_i64()
    }

    fn is_indexed(&self) -> bool {
        self.spec()["completionMode"] == "Indexed"
    }

    fn is_suspended(&self) -> bool {
        self.spec()["suspend"] == true
    }

    /// Whether terminating pods are replaced only once they are gone.
    fn replaces_failed_only(&self) -> bool {
        self.spec()["podReplacementPolicy"] == "Failed"
    }

    /// The index that a pod works at, if it is one of the job's.
    fn index(&self, pod: &Object) -> Option<u32> {
        pods::facts(pod).completion_index.filter(|it| i64::from(*it) < self.number("completions").unwrap_or_default())
    }

    fn active(&self) -> impl Iterator<Item = &Arc<Object>> {
        self.pods.iter().filter(|pod| pods::is_active(pod))
    }

    fn is_terminating(pod: &Object) -> bool {
        pod.meta().is_deleted() && !pods::has_ended(pod) && !is_dead(pod)
    }

    fn has_failed(&self, pod: &Object) -> bool {
        let (phase, deleted) = (pod.field("status.phase"), pod.meta().is_deleted());
        phase == Some("Failed") || phase != Some("Succeeded") && deleted && (!self.replaces_failed_only() || is_dead(pod))
    }

    fn advance(&self, plan: &mut Plan) {
        let tally = Tally::take(self);
        for pod in &tally.settled {
            plan.writes.push(let_go(pod));
        }
        let mut conditions = Conditions::of(self.status(), PROBED);
        let mut started = self.status()["startTime"].clone();
        // The deadline does not run while the job is suspended.
        if !self.is_suspended() && (started.is_null() || conditions.is_true(SUSPENDED)) {
            started = time(self.now).into();
        }
        let mut finish = finish::verdict(self, &tally, &conditions, &started, plan);
        let mut active = self.active().count() as i64;
        if finish.is_some() {
            self.active().for_each(|pod| plan.delete(pod, Some(Tell::deleted(self.object, "pod"))));
            active = 0;
        } else if !self.object.meta().is_deleted() {
            active -= self.manage(&tally, plan);
            finish = finish::completion(self, &tally, active);
            if finish.is_none() {
                self.tell_suspension(&mut conditions, plan);
            }
        }
        let terminating = self.pods.iter().filter(|it| Self::is_terminating(it)).count();
        let mut completed = Value::Null;
        if let Some(finish) = &finish {
            finish.announce(&mut conditions, self.now);
            if active == 0 && self.active().next().is_none() && terminating == 0 && tally.is_settled() {
                finish.conclude(&mut conditions, self.now);
                completed = if finish.fails { Value::Null } else { time(self.now).into() };
                let (kind, reason, message) = finish.event();
                plan.note(self.object, kind, reason, message);
            }
        }
        let shown = |number: i64| if number == 0 { Value::Null } else { number.into() };
        let list = |uids: &[String]| if uids.is_empty() { Value::Null } else { uids.into() };
        let indexes = |has: bool, it: &indexes::Indexes| if has { it.to_string().into() } else { Value::Null };
        let status = json!({
            "active": shown(active),
            "ready": self.active().filter(|pod| pods::is_ready(pod)).count(),
            "terminating": terminating,
            "succeeded": shown(if self.is_indexed() { tally.completed.count() } else { tally.counted_succeeded }),
            "failed": shown(tally.counted_failed),
            "completedIndexes": indexes(tally.completed.count() > 0, &tally.completed),
            "failedIndexes": indexes(self.number("backoffLimitPerIndex").is_some(), &tally.failed_indexes),
            "uncountedTerminatedPods": { "succeeded": list(&tally.uncounted_succeeded), "failed": list(&tally.uncounted_failed) },
            "startTime": started,
            "completionTime": completed,
            "conditions": conditions.into_json(),
        });
        if !covers(self.status(), &status) {
            // A writer with an older state must not overwrite the counts.
            let metadata = json!({ "resourceVersion": self.object.revision().to_string() });
            let patch = Patch::Merge(json!({ "metadata": metadata, "status": status }));
            plan.writes.push(Write::Patch { key: self.object.key(), subresource: "status", patch });
        }
    }

    fn tell_suspension(&self, conditions: &mut Conditions, plan: &mut Plan) {
        match (self.is_suspended(), conditions.is_true(SUSPENDED)) {
            (true, false) => {
                conditions.set(SUSPENDED, "True", "JobSuspended", "Job suspended", self.now);
                plan.note(self.object, EventType::Normal, "Suspended", "Job suspended");
            }
            (false, true) => {
                conditions.set(SUSPENDED, "False", "JobResumed", "Job resumed", self.now);
                plan.note(self.object, EventType::Normal, "Resumed", "Job resumed");
            }
            _ => {}
        }
    }
}

/// Whether a deleted pod has stopped, and only finalizers keep it.
fn is_dead(pod: &Object) -> bool {
    pod.meta().is_deleted() && pod.meta().deletion_grace_seconds.unwrap_or_default() == 0
}

#[cfg(test)]
mod tests;
