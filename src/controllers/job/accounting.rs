//! The accounts of a job's pods. A pod that has ended is first recorded by its uid (`uncountedTerminatedPods`), then loses its finalizer,
//! and is counted only after that: whatever happens in between, each pod counts once. For an indexed job, a successful index is recorded at
//! once.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use serde_json::Value;

use super::indexes::Indexes;
use super::policy::{self, Verdict};
use super::{Job, is_tracked};
use crate::controllers::conditions::Conditions;
use crate::controllers::pods;
use crate::object::Object;

/// Most pods written down at a time.
const MOST: usize = 500;

/// The results so far.
#[derive(Debug, Default)]
pub(super) struct Tally<'a> {
    pub counted_succeeded: i64,
    pub counted_failed: i64,
    /// Uids of pods that are written down, or are to be, and have not been let go.
    pub uncounted_succeeded: Vec<String>,
    pub uncounted_failed: Vec<String>,
    pub completed: Indexes,
    /// Indexes that are not tried again.
    pub failed_indexes: Indexes,
    /// Why the job has failed, if a failed pod determines that.
    pub fail_job: Option<String>,
    /// Pods whose finalizer may be removed.
    pub settled: Vec<&'a Arc<Object>>,
    /// The last failed pod of each index that is still to be tried again: the next one counts on from it.
    pub last_failed: HashMap<u32, &'a Arc<Object>>,
    /// Pods that are to be written down, but not this time.
    left_over: bool,
}

impl<'a> Tally<'a> {
    pub fn take(job: &'a Job<'_>) -> Self {
        let status = job.status();
        let number = |key: &str| status[key].as_i64().unwrap_or_default();
        let completions = job.number("completions").unwrap_or_default();
        let indexes = |key: &str| Indexes::read(status[key].as_str().unwrap_or_default(), completions);
        let mut tally = Self {
            counted_succeeded: number("succeeded"),
            counted_failed: number("failed"),
            completed: indexes("completedIndexes"),
            failed_indexes: indexes("failedIndexes"),
            ..Self::default()
        };
        let held: HashSet<&str> = job.pods.iter().filter(|it| is_tracked(it)).map(|it| &*it.meta().uid).collect();
        let uncounted = |kind: &str| strings(&status["uncountedTerminatedPods"][kind]);
        let split = |uids: Vec<String>| uids.into_iter().partition::<Vec<_>, _>(|uid| held.contains(uid.as_str()));
        let (succeeded, gone) = split(uncounted("succeeded"));
        tally.counted_succeeded += gone.len() as i64;
        let (failed, gone) = split(uncounted("failed"));
        tally.counted_failed += gone.len() as i64;
        let before = (succeeded, failed, tally.completed.clone());
        (tally.uncounted_succeeded, tally.uncounted_failed) = (before.0.clone(), before.1.clone());
        tally.find_last_failed(job);
        let written: HashSet<&str> = before.0.iter().chain(&before.1).map(String::as_str).collect();
        let met = Conditions::of(status, None).is_true("SuccessCriteriaMet");
        for pod in job.pods.iter().filter(|it| is_tracked(it)) {
            if pod.field("status.phase") == Some("Succeeded") {
                tally.add_succeeded(job, pod, &written, &before.2);
            } else if met && pod.meta().is_deleted() && pod.field("status.phase") != Some("Failed") {
                // It is deleted because its work is no longer needed, which is not a failure.
                tally.settled.push(pod);
            } else if job.has_failed(pod) {
                tally.add_failed(job, pod, &written);
            }
        }
        tally
    }

    pub fn succeeded(&self, job: &Job<'_>) -> i64 {
        if job.is_indexed() { self.completed.count() } else { self.counted_succeeded + self.uncounted_succeeded.len() as i64 }
    }

    pub fn failed(&self) -> i64 {
        self.counted_failed + self.uncounted_failed.len() as i64
    }

    /// Whether every pod that has ended has been counted.
    pub fn is_settled(&self) -> bool {
        self.uncounted_succeeded.is_empty() && self.uncounted_failed.is_empty() && !self.left_over
    }

    fn has_room(&mut self) -> bool {
        let room = self.uncounted_succeeded.len() + self.uncounted_failed.len() < MOST;
        self.left_over |= !room;
        room
    }

    fn add_succeeded(&mut self, job: &Job<'_>, pod: &'a Arc<Object>, written: &HashSet<&str>, completed: &Indexes) {
        if job.is_indexed() {
            match job.index(pod) {
                Some(index) if !completed.contains(index) => self.completed.insert(index),
                _ => self.settled.push(pod),
            }
        } else if written.contains(&*pod.meta().uid) {
            self.settled.push(pod);
        } else if self.has_room() {
            self.uncounted_succeeded.push(pod.meta().uid.to_string());
        }
    }

    fn add_failed(&mut self, job: &Job<'_>, pod: &'a Arc<Object>, written: &HashSet<&str>) {
        let index = job.index(pod);
        let verdict = policy::judge(&job.spec()["podFailurePolicy"], pod);
        if let (Some(limit), Some(index)) = (job.number("backoffLimitPerIndex"), index) {
            let spent = verdict != Verdict::Ignore && i64::from(pods::facts(pod).index_failures) >= limit;
            if spent || verdict == Verdict::FailIndex {
                self.failed_indexes.insert(index);
            }
        }
        let awaited = index.is_some_and(|it| {
            let done = self.failed_indexes.contains(it) || self.completed.contains(it);
            !done && self.last_failed.get(&it).is_some_and(|last| last.meta().uid == pod.meta().uid)
        });
        let counts = verdict != Verdict::Ignore && (!job.is_indexed() || index.is_some());
        if written.contains(&*pod.meta().uid) || !counts {
            if !awaited {
                self.settled.push(pod);
            }
        } else if self.has_room() {
            self.uncounted_failed.push(pod.meta().uid.to_string());
        }
        if let Verdict::FailJob(why) = verdict {
            self.fail_job.get_or_insert(why);
        }
    }

    /// With a limit per index, the last failed pod of an index is kept until it is replaced.
    fn find_last_failed(&mut self, job: &'a Job<'_>) {
        let conditions = Conditions::of(job.status(), None);
        let ends = conditions.is_true("FailureTarget") || conditions.is_true("SuccessCriteriaMet");
        if ends || job.number("backoffLimitPerIndex").is_none() {
            return;
        }
        let tries = |pod: &Object| pods::facts(pod).index_failures + pods::facts(pod).index_ignored;
        for pod in job.pods.iter().filter(|it| is_tracked(it) && job.has_failed(it)) {
            let Some(index) = job.index(pod) else { continue };
            let last = self.last_failed.entry(index).or_insert(pod);
            if tries(pod) > tries(last) {
                *last = pod;
            }
        }
        for pod in job.active() {
            if let Some(index) = job.index(pod) {
                self.last_failed.remove(&index);
            }
        }
    }
}

fn strings(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().filter_map(|it| it.as_str().map(str::to_owned)).collect()
}
