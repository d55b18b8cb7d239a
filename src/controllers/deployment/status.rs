//! The status of a deployment: counts, whether it is available, and whether its rollout progresses.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::Rollout;
use super::version::Version;
use crate::controllers::conditions::Conditions;
use crate::controllers::plan::{Failure, Plan, since};

const AVAILABLE: &str = "Available";
const PROGRESSING: &str = "Progressing";
const FAILURE: &str = "ReplicaFailure";
const COMPLETE: &str = "NewReplicaSetAvailable";
const TIMED_OUT: &str = "ProgressDeadlineExceeded";
const PAUSED: &str = "DeploymentPaused";
const WRITTEN: Option<&str> = Some("lastUpdateTime");

/// A status in the making.
pub(super) struct Report {
    conditions: Conditions,
    collisions: i64,
    /// The size of a version that is being created.
    coming: i64,
    /// How long a rollout may stand still before the status says so; `None`: for ever.
    deadline: Option<Duration>,
    now: Timestamp,
}

/// The counts in the status.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Counts {
    pods: i64,
    updated: i64,
    ready: i64,
    available: i64,
}

impl Counts {
    fn written(status: &Value) -> Self {
        let count = |key: &str| status[key].as_i64().unwrap_or_default();
        Self {
            pods: count("replicas"),
            updated: count("updatedReplicas"),
            ready: count("readyReplicas"),
            available: count("availableReplicas"),
        }
    }

    /// Whether it has come nearer to its end since `before`.
    fn progressed(self, before: Self) -> bool {
        self.updated > before.updated
            || self.pods - self.updated < before.pods - before.updated
            || self.ready > before.ready
            || self.available > before.available
    }
}

impl Report {
    pub fn begin(rollout: &Rollout<'_>, now: Timestamp) -> Self {
        let (spec, status) = (rollout.spec(), &rollout.written["status"]);
        let deadline = spec["progressDeadlineSeconds"].as_u64().filter(|it| *it != i32::MAX as u64).map(Duration::from_secs);
        let mut conditions = Conditions::of(status, WRITTEN).newest_last();
        if deadline.is_some() && conditions.reason(PROGRESSING) != TIMED_OUT {
            let was_paused = conditions.reason(PROGRESSING) == PAUSED;
            if rollout.is_paused() && !was_paused {
                conditions.set(PROGRESSING, "Unknown", PAUSED, "Deployment is paused", now);
            } else if !rollout.is_paused() && was_paused {
                conditions.set(PROGRESSING, "Unknown", "DeploymentResumed", "Deployment is resumed", now);
            }
        }
        if let (Some(_), Some(new), None) = (deadline, &rollout.new, conditions.get(PROGRESSING)) {
            let message = format!("Found new replica set \"{}\"", new.object.name());
            conditions.set(PROGRESSING, "True", "FoundNewReplicaSet", &message, now);
        }
        Self { conditions, collisions: status["collisionCount"].as_i64().unwrap_or_default(), coming: 0, deadline, now }
    }

    /// How often the name for a new version was taken already.
    pub fn collisions(&self) -> i64 {
        self.collisions
    }

    pub fn set_collisions(&mut self, collisions: i64) {
        self.collisions = collisions;
    }

    /// Records that a version with this many pods is being created.
    pub fn created(&mut self, name: &str, replicas: i64) {
        self.coming = replicas;
        if self.deadline.is_some() {
            let message = format!("Created new replica set \"{name}\"");
            self.conditions.set(PROGRESSING, "True", "NewReplicaSetCreated", &message, self.now);
        }
    }

    /// Plans the status that results from `rollout`.
    pub fn end(mut self, rollout: &Rollout<'_>, plan: &mut Plan) {
        let versions = || rollout.new.iter().chain(&rollout.old);
        let sum = |of: fn(&Version) -> i64| versions().map(of).sum::<i64>();
        let counts = Counts {
            pods: sum(|it| it.pods),
            updated: rollout.new.as_ref().map_or(0, |it| it.pods),
            ready: sum(|it| it.ready),
            available: sum(|it| it.available),
        };
        let before = &rollout.written["status"];
        if counts.available >= rollout.limits.minimum() {
            self.conditions.set(AVAILABLE, "True", "MinimumReplicasAvailable", "Deployment has minimum availability.", self.now);
        } else {
            let message = "Deployment does not have minimum availability.";
            self.conditions.set(AVAILABLE, "False", "MinimumReplicasUnavailable", message, self.now);
        }
        match self.deadline {
            None => self.conditions.remove(PROGRESSING),
            Some(_) if rollout.is_paused() => {}
            Some(deadline) => self.progress(rollout, counts, Counts::written(before), deadline, plan),
        }
        self.copy_failure(rollout);
        let shown = |number: i64| if number == 0 { Value::Null } else { number.into() };
        let status = json!({
            "observedGeneration": rollout.object.meta().generation,
            "replicas": shown(counts.pods),
            "updatedReplicas": shown(counts.updated),
            "readyReplicas": shown(counts.ready),
            "availableReplicas": shown(counts.available),
            "unavailableReplicas": shown((sum(|it| it.replicas) + self.coming - counts.available).max(0)),
            "collisionCount": shown(self.collisions),
            "conditions": self.conditions.into_json(),
        });
        plan.set_status(rollout.object.key(), before, status);
    }

    fn progress(&mut self, rollout: &Rollout<'_>, counts: Counts, before: Counts, deadline: Duration, plan: &mut Plan) {
        let reason = self.conditions.reason(PROGRESSING).to_owned();
        if counts.pods == counts.updated && reason == COMPLETE {
            return;
        }
        let desired = rollout.limits.desired;
        let whose = rollout
            .new
            .as_ref()
            .map_or_else(|| format!("Deployment \"{}\"", rollout.object.name()), |new| format!("ReplicaSet \"{}\"", new.object.name()));
        let since_when = self.conditions.get(PROGRESSING).and_then(|it| it["lastUpdateTime"].as_str()?.parse().ok());
        let silent = since_when.map(|it: Timestamp| since(it, self.now));
        let overdue = reason == TIMED_OUT || reason != COMPLETE && silent.is_some_and(|it| it > deadline);
        // A version that is only planned is not complete, even if no pods are wanted.
        if rollout.new.is_some() && (counts.updated, counts.pods, counts.available) == (desired, desired, desired) {
            self.conditions.set(PROGRESSING, "True", COMPLETE, &format!("{whose} has successfully progressed."), self.now);
        } else if counts.progressed(before) {
            self.conditions.renew(PROGRESSING, "True", "ReplicaSetUpdated", &format!("{whose} is progressing."), self.now);
            plan.look_again(deadline + Duration::from_secs(1));
        } else if overdue {
            self.conditions.set(PROGRESSING, "False", TIMED_OUT, &format!("{whose} has timed out progressing."), self.now);
        } else if let Some(silent) = silent.filter(|_| reason != COMPLETE) {
            plan.look_again(deadline.saturating_sub(silent) + Duration::from_secs(1));
        }
    }

    /// Copies ReplicaFailure from the ReplicaSets, the newest first.
    fn copy_failure(&mut self, rollout: &Rollout<'_>) {
        let failure = |it: &Version| Conditions::of(&it.status(), None).get(FAILURE).cloned();
        match rollout.new.iter().chain(&rollout.old).find_map(failure) {
            Some(it) => {
                let text = |key: &str| it[key].as_str().unwrap_or_default().to_owned();
                self.conditions.set(FAILURE, &text("status"), &text("reason"), &text("message"), self.now);
            }
            None => self.conditions.remove(FAILURE),
        }
    }
}

/// The status after the server refused a new version.
pub(super) fn creation_refused(status: &Value, failure: &Failure, now: Timestamp) -> Value {
    let mut conditions = Conditions::of(status, WRITTEN).newest_last();
    conditions.set(PROGRESSING, "False", failure.reason, &failure.message, now);
    json!({ "conditions": conditions.into_json() })
}
