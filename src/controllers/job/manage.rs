//! The pods of a job: how many run, and for which indexes; creation, deletion, and retries of failed ones.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::accounting::Tally;
use super::failures;
use super::policy::{self, Verdict};
use super::{Job, TRACKING, is_tracked, let_go};
use crate::controllers::plan::{Plan, Tell, Write};
use crate::controllers::pods;
use crate::object::{Object, resource};

const INDEX: &str = "batch.kubernetes.io/job-completion-index";
const FAILURES: &str = "batch.kubernetes.io/job-index-failure-count";
const IGNORED: &str = "batch.kubernetes.io/job-index-ignored-failure-count";
const INDEX_VARIABLE: &str = "JOB_COMPLETION_INDEX";
/// Most pods made or deleted for one job at a time.
const BURST: usize = 500;

impl Job<'_> {
    /// Plans missing pods or the deletion of surplus ones. Returns by how many the number of active pods decreases.
    pub(super) fn manage(&self, tally: &Tally<'_>, plan: &mut Plan) -> i64 {
        let active: Vec<&Arc<Object>> = self.active().collect();
        let now = active.len() as i64;
        let wanted = self.wanted(tally, now);
        let surplus = self.surplus(&active, tally, (now - wanted).max(0) as usize);
        if !surplus.is_empty() {
            for pod in surplus.iter().take(BURST) {
                // The finalizer is removed first, so that the pod does not count as a failure.
                if is_tracked(pod) {
                    plan.writes.push(let_go(pod));
                } else {
                    plan.delete(pod, Some(Tell::deleted(self.object, "pod")));
                }
            }
            return surplus.len().min(BURST) as i64;
        }
        let ending = if self.replaces_failed_only() { self.pods.iter().filter(|it| Self::is_terminating(it)).count() } else { 0 };
        let missing = usize::try_from(wanted - now - ending as i64).unwrap_or_default().min(BURST);
        if missing == 0 {
            return 0;
        }
        if self.number("backoffLimitPerIndex").is_none()
            && let Some(pause) = self.backoff
        {
            plan.look_again(pause);
            return 0;
        }
        if self.is_indexed() {
            for index in self.pending(tally, missing, plan) {
                self.create(Some((index, tally.last_failed.get(&index).copied())), plan);
            }
        } else {
            (0..missing).for_each(|_| self.create(None, plan));
        }
        0
    }

    fn wanted(&self, tally: &Tally<'_>, active: i64) -> i64 {
        let parallelism = self.number("parallelism").unwrap_or(1);
        if self.is_suspended() {
            return 0;
        }
        let succeeded = tally.succeeded(self);
        match self.number("completions") {
            Some(completions) => (completions - succeeded).clamp(0, parallelism),
            // Running pods may complete.
            None if succeeded > 0 => active,
            None => parallelism,
        }
    }

    /// Active pods to delete: those without work of their own, and at least `least`.
    fn surplus<'p>(&self, active: &[&'p Arc<Object>], tally: &Tally<'_>, least: usize) -> Vec<&'p Arc<Object>> {
        let mut candidates = active.to_vec();
        // Pods without a finalizer first.
        candidates.sort_by_cached_key(|pod| (is_tracked(pod), pods::deletion_rank(pod, 0)));
        let mut idle = Vec::new();
        if self.is_indexed() {
            let mut working: BTreeMap<u32, usize> = BTreeMap::new();
            for pod in active {
                self.index(pod).into_iter().for_each(|it| *working.entry(it).or_default() += 1);
            }
            candidates.retain(|pod| {
                let needed = self.index(pod).is_some_and(|index| {
                    let alike = working.entry(index).or_default();
                    let needed = *alike == 1 && !tally.completed.contains(index) && !tally.failed_indexes.contains(index);
                    *alike = alike.saturating_sub(usize::from(!needed));
                    needed
                });
                if !needed {
                    idle.push(*pod);
                }
                needed
            });
        }
        let more = least.saturating_sub(idle.len());
        idle.extend(candidates.into_iter().take(more));
        idle
    }

    /// The first `most` indexes that no pod works on, without those that back off: as in Kubernetes, an index that backs off keeps its turn,
    /// and none after it takes its place.
    fn pending(&self, tally: &Tally<'_>, most: usize, plan: &mut Plan) -> Vec<u32> {
        let mut taken = tally.completed.clone();
        taken.extend(&tally.failed_indexes);
        let waits = |pod: &Object| pods::is_active(pod) || self.replaces_failed_only() && Self::is_terminating(pod);
        for index in self.pods.iter().filter(|it| waits(it)).filter_map(|it| self.index(it)) {
            taken.insert(index);
        }
        let completions = u32::try_from(self.number("completions").unwrap_or_default()).unwrap_or_default();
        let mut open = Vec::new();
        for index in taken.gaps(completions).take(most) {
            match tally.last_failed.get(&index).and_then(|it| self.backoff_after(it)) {
                Some(pause) => plan.look_again(pause),
                None => open.push(index),
            }
        }
        open
    }

    /// How much longer to wait before the index of a failed pod is tried again.
    fn backoff_after(&self, pod: &Object) -> Option<Duration> {
        let facts = pods::facts(pod);
        failures::left(facts.index_failures + facts.index_ignored + 1, finished(pod), self.now)
    }

    /// Creates a pod; one for an index carries on the failure count of the failed one.
    fn create(&self, index: Option<(u32, Option<&Arc<Object>>)>, plan: &mut Plan) {
        let mut pod = pods::from_template(&self.spec()["template"], self.object);
        let mut finalizers = pod["metadata"]["finalizers"].as_array().cloned().unwrap_or_default();
        finalizers.push(TRACKING.into());
        pod["metadata"]["finalizers"] = finalizers.into();
        if let Some((index, last)) = index {
            number(&mut pod, self.object.name(), index);
            if self.number("backoffLimitPerIndex").is_some() {
                let (mut failures, mut ignored) = (0, 0);
                if let Some(last) = last {
                    (failures, ignored) = (pods::facts(last).index_failures, pods::facts(last).index_ignored);
                    match policy::judge(&self.spec()["podFailurePolicy"], last) {
                        Verdict::Ignore => ignored += 1,
                        _ => failures += 1,
                    }
                }
                pod["metadata"]["annotations"][FAILURES] = failures.to_string().into();
                if ignored > 0 {
                    pod["metadata"]["annotations"][IGNORED] = ignored.to_string().into();
                }
            }
        }
        if pods::hindrance(&pod).is_some() {
            return;
        }
        let (namespace, tell) = (self.object.namespace().to_owned(), Some(Tell::created(self.object, "pod")));
        plan.slowly.push(Write::Create { resource: &resource::POD, namespace, object: pod, tell });
    }
}

/// Tells a pod, and its containers, which index it works at.
fn number(pod: &mut Value, job: &str, index: u32) {
    let text = index.to_string();
    let metadata = &mut pod["metadata"];
    let prefix: String = job.chars().take(57 - text.len() - 1).collect();
    metadata["generateName"] = format!("{prefix}-{text}-").into();
    metadata["annotations"][INDEX] = text.as_str().into();
    metadata["labels"][INDEX] = text.as_str().into();
    pod["spec"]["hostname"] = format!("{job}-{text}").into();
    let variable = json!({
        "name": INDEX_VARIABLE,
        "valueFrom": { "fieldRef": { "fieldPath": format!("metadata.labels['{INDEX}']") } },
    });
    for kind in ["initContainers", "containers"] {
        for container in pod["spec"][kind].as_array_mut().into_iter().flatten() {
            let mut variables = container["env"].as_array().cloned().unwrap_or_default();
            if !variables.iter().any(|it| it["name"] == INDEX_VARIABLE) {
                variables.push(variable.clone());
                container["env"] = variables.into();
            }
        }
    }
}

/// When a pod ended: when its last container did, or as near to that as is known. One that is being deleted counts from the request: its
/// `deletionTimestamp` is when its grace period is over.
pub(super) fn finished(pod: &Object) -> Timestamp {
    let meta = pod.meta();
    let parse = |text: &str| text.parse::<Timestamp>().ok();
    let requested = || {
        let grace = SignedDuration::from_secs(meta.deletion_grace_seconds.unwrap_or_default());
        Some(parse(meta.deleted.as_deref()?)?.saturating_sub(grace).unwrap_or(Timestamp::UNIX_EPOCH))
    };
    pods::facts(pod).finished.or_else(requested).or_else(|| parse(&meta.created)).unwrap_or(Timestamp::UNIX_EPOCH)
}
