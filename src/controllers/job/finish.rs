//! When and how a job ends. The end is announced first (`SuccessCriteriaMet`, `FailureTarget`), and concluded (`Complete`, `Failed`) once
//! all pods are gone and counted.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;

use super::accounting::Tally;
use super::{Job, policy};
use crate::client::events::EventType;
use crate::controllers::conditions::Conditions;
use crate::controllers::plan::{Plan, since};
use crate::controllers::pods;

/// How a job ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Finish {
    pub fails: bool,
    reason: String,
    message: String,
}

impl Finish {
    fn failure(reason: &str, message: impl Into<String>) -> Self {
        Self { fails: true, reason: reason.to_owned(), message: message.into() }
    }

    fn success(reason: &str, message: impl Into<String>) -> Self {
        Self { fails: false, reason: reason.to_owned(), message: message.into() }
    }

    pub fn announce(&self, conditions: &mut Conditions, now: Timestamp) {
        self.set(if self.fails { "FailureTarget" } else { "SuccessCriteriaMet" }, conditions, now);
    }

    pub fn conclude(&self, conditions: &mut Conditions, now: Timestamp) {
        self.set(if self.fails { "Failed" } else { "Complete" }, conditions, now);
    }

    fn set(&self, kind: &str, conditions: &mut Conditions, now: Timestamp) {
        conditions.set(kind, "True", &self.reason, &self.message, now);
    }

    /// The type, reason and message of the event.
    pub fn event(&self) -> (EventType, &'static str, String) {
        const REASONS: [&str; 5] =
            ["PodFailurePolicy", "BackoffLimitExceeded", "DeadlineExceeded", "MaxFailedIndexesExceeded", "FailedIndexes"];
        if !self.fails {
            return (EventType::Normal, "Completed", "Job completed".to_owned());
        }
        let reason = REASONS.into_iter().find(|it| *it == self.reason).unwrap_or("Failed");
        (EventType::Warning, reason, self.message.clone())
    }
}

/// Whether the job is to end although pods are still at work; plans to look again when its deadline has come.
pub(super) fn verdict(job: &Job<'_>, tally: &Tally<'_>, conditions: &Conditions, started: &Value, plan: &mut Plan) -> Option<Finish> {
    for (kind, fails) in [("FailureTarget", true), ("SuccessCriteriaMet", false)] {
        if let Some(announced) = conditions.get(kind).filter(|_| conditions.is_true(kind)) {
            let text = |key: &str| announced[key].as_str().unwrap_or_default().to_owned();
            return Some(Finish { fails, reason: text("reason"), message: text("message") });
        }
    }
    if let Some(why) = &tally.fail_job {
        return Some(Finish::failure("PodFailurePolicy", why));
    }
    if tally.failed() > job.number("backoffLimit").unwrap_or(6) || restarts_too_often(job) {
        return Some(Finish::failure("BackoffLimitExceeded", "Job has reached the specified backoff limit"));
    }
    if is_late(job, started, plan) {
        return Some(Finish::failure("DeadlineExceeded", "Job was active longer than specified deadline"));
    }
    let completions = job.number("completions").unwrap_or_default();
    let failed = tally.failed_indexes.count();
    if job.number("maxFailedIndexes").is_some_and(|it| failed > it) {
        let why = "Job has exceeded the specified maximal number of failed indexes";
        return Some(Finish::failure("MaxFailedIndexesExceeded", why));
    }
    if failed > 0 && failed + tally.completed.count() >= completions {
        return Some(Finish::failure("FailedIndexes", "Job has failed indexes"));
    }
    let rule = policy::success(&job.spec()["successPolicy"], &tally.completed, completions).filter(|_| job.is_indexed());
    rule.map(|at| Finish::success("SuccessPolicy", format!("Matched rules at index {at}")))
}

/// The end of the job once all work is done; `active` pods are still running.
pub(super) fn completion(job: &Job<'_>, tally: &Tally<'_>, active: i64) -> Option<Finish> {
    let succeeded = tally.succeeded(job);
    let done = match job.number("completions") {
        Some(completions) => succeeded >= completions,
        // A work queue is empty when one has found it so and all have stopped.
        None => succeeded > 0,
    };
    (done && active == 0).then(|| Finish::success("CompletionsReached", "Reached expected number of succeeded pods"))
}

/// Whether containers that are restarted where they are have failed too often.
fn restarts_too_often(job: &Job<'_>) -> bool {
    if job.spec()["template"]["spec"]["restartPolicy"] != "OnFailure" {
        return false;
    }
    let restarts: i64 = job.active().map(|pod| i64::from(pods::facts(pod).all_restarts)).sum();
    restarts > 0 && restarts >= job.number("backoffLimit").unwrap_or(6)
}

fn is_late(job: &Job<'_>, started: &Value, plan: &mut Plan) -> bool {
    let deadline = job.spec()["activeDeadlineSeconds"].as_u64().map(Duration::from_secs).filter(|_| !job.is_suspended());
    let Some((deadline, started)) = deadline.zip(started.as_str().and_then(|it| it.parse().ok())) else { return false };
    let left = deadline.saturating_sub(since(started, job.now));
    if !left.is_zero() {
        plan.look_again(left);
    }
    left.is_zero()
}
