//! CronJobs: a job at every time of a schedule.

use std::sync::Arc;
use std::time::Duration;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::conditions::{Conditions, time};
use super::owners::{self, controller_reference};
use super::plan::{Controller, Plan, Source, Tell, Write, tree};
use crate::cache::Cache;
use crate::client::DeleteOptions;
use crate::client::events::EventType;
use crate::object::{Object, ObjectKey, resource};
use crate::util::cron::Schedule;

/// The time of the schedule for which a job was made.
const SCHEDULED: &str = "batch.kubernetes.io/cronjob-scheduled-timestamp";
/// This many missed times cause a warning.
const MANY: i64 = 100;
/// Slightly after the scheduled time, so that it has surely passed.
const LATER: Duration = Duration::from_millis(100);

/// Keeps the jobs of CronJobs.
#[derive(Debug)]
pub struct CronJobController {
    /// The time zone of schedules without their own.
    pub zone: TimeZone,
}

impl Controller for CronJobController {
    fn name(&self) -> &'static str {
        "cronjob-controller"
    }

    fn sources(&self) -> Vec<Source> {
        vec![
            Source::own(&resource::CRON_JOB),
            Source::leading_to(&resource::JOB, |_, job| owners::controller_key(job, &resource::CRON_JOB).into_iter().collect()),
        ]
    }

    fn plan(&self, cache: &Cache, key: &ObjectKey, now: Timestamp) -> Plan {
        let mut plan = Plan::default();
        let Some(object) = cache.get(key.resource, &key.name.namespace, &key.name.name) else { return plan };
        let written = tree(&object);
        let owned = cache.owned(&resource::JOB, &object.meta().uid);
        let jobs: Vec<Job> = owned.into_iter().filter(|it| is_controlled(it, &object)).map(Job::read).collect();
        let cron = CronJob { object: &object, written: &written, jobs, now };
        let mut status = cron.status(&mut plan);
        if !object.meta().is_deleted() {
            cron.forget(&mut plan);
            if written["spec"]["suspend"] != true {
                cron.start_due(&self.zone, &mut plan);
            }
        }
        strike(&mut status["active"], &plan);
        plan.set_status(object.key(), &written["status"], status);
        plan
    }
}

/// A job that is deleted to make room for the next is no longer active.
fn strike(active: &mut Value, plan: &Plan) {
    let goes =
        |uid: &Value| plan.writes.iter().any(|it| matches!(it, Write::Delete { options, .. } if uid.as_str() == options.uid.as_deref()));
    if let Some(list) = active.as_array_mut() {
        list.retain(|it| !goes(&it["uid"]));
        if list.is_empty() {
            *active = Value::Null;
        }
    }
}

fn is_controlled(job: &Object, cron: &Object) -> bool {
    job.meta().controller().is_some_and(|it| it.uid == cron.meta().uid)
}

/// A job that was started by a cron job, or by hand from one.
struct Job {
    object: Arc<Object>,
    started: Option<Timestamp>,
    /// When it ended well.
    completed: Option<Timestamp>,
    /// `Complete` or `Failed`, when it has ended.
    ended: Option<&'static str>,
    /// The time of the schedule that it is for.
    scheduled: Option<Timestamp>,
}

impl Job {
    fn read(object: Arc<Object>) -> Self {
        let written = tree(&object);
        let conditions = Conditions::of(&written["status"], None);
        let parse = |it: &Value| it.as_str().and_then(|it| it.parse().ok());
        Self {
            started: parse(&written["status"]["startTime"]),
            completed: parse(&written["status"]["completionTime"]),
            ended: ["Complete", "Failed"].into_iter().find(|it| conditions.is_true(it)),
            scheduled: parse(&written["metadata"]["annotations"][SCHEDULED]),
            object,
        }
    }
}

struct CronJob<'a> {
    object: &'a Arc<Object>,
    written: &'a Value,
    jobs: Vec<Job>,
    now: Timestamp,
}

/// The due times of a schedule.
#[derive(Debug, PartialEq, Eq)]
struct Due {
    /// The latest one.
    at: Timestamp,
    /// About how many there were.
    missed: i64,
}

/// The latest time of the schedule in between `since` and `now`.
fn due(schedule: &Schedule, zone: &TimeZone, since: Timestamp, now: Timestamp) -> Option<Due> {
    let first = schedule.next(since, zone).filter(|it| *it <= now)?;
    let Some(second) = schedule.next(first, zone).filter(|it| *it <= now) else { return Some(Due { at: first, missed: 1 }) };
    // There may be very many: begin near the end. They need not be as far apart as the first two, so go back until there is one.
    let pause = second.duration_since(first);
    let missed = now.duration_since(first).as_secs() / pause.as_secs().max(1) + 1;
    let mut back = pause;
    let mut at = loop {
        let begin = now.checked_sub(back).ok().filter(|it| *it > first).unwrap_or(first);
        match schedule.next(begin, zone).filter(|it| *it <= now) {
            Some(at) => break at,
            None if begin == first => break second,
            None => back = back.checked_mul(2).unwrap_or(SignedDuration::MAX),
        }
    };
    while let Some(next) = schedule.next(at, zone).filter(|it| *it <= now) {
        at = next;
    }
    // With `@every`, times follow from the first.
    if let Schedule::Every(_) = schedule {
        at = i32::try_from(missed - 1).ok().and_then(|it| first.checked_add(pause.checked_mul(it)?).ok()).unwrap_or(at);
    }
    Some(Due { at, missed })
}

impl CronJob<'_> {
    fn spec(&self) -> &Value {
        &self.written["spec"]
    }

    fn status_time(&self, key: &str) -> Option<Timestamp> {
        self.written["status"][key].as_str()?.parse().ok()
    }

    /// Jobs that were started for the schedule and have not ended.
    fn active(&self) -> impl Iterator<Item = &Job> {
        self.jobs.iter().filter(|it| it.ended.is_none() && (self.is_listed(it) || it.scheduled.is_some() && !it.object.meta().is_deleted()))
    }

    fn is_listed(&self, job: &Job) -> bool {
        self.listed().any(|it| it["uid"] == *job.object.meta().uid)
    }

    /// The references of `status.active`.
    fn listed(&self) -> impl Iterator<Item = &Value> {
        self.written["status"]["active"].as_array().into_iter().flatten()
    }

    /// The status from the existing jobs, and events about them.
    fn status(&self, plan: &mut Plan) -> Value {
        let mut active: Vec<Value> = Vec::new();
        for job in self.active() {
            let known = self.listed().find(|it| it["uid"] == *job.object.meta().uid);
            active.push(known.cloned().unwrap_or_else(|| reference(&job.object)));
        }
        for stranger in self.jobs.iter().filter(|it| it.ended.is_none() && it.scheduled.is_none() && !self.is_listed(it)) {
            let message = format!("Saw a job that the controller did not create or forgot: {}", stranger.object.name());
            plan.note(self.object, EventType::Warning, "UnexpectedJob", message);
        }
        for listed in self.listed() {
            let job = self.jobs.iter().find(|it| listed["uid"] == *it.object.meta().uid);
            let name = listed["name"].as_str().unwrap_or_default();
            match job.map(|it| it.ended) {
                None => plan.note(self.object, EventType::Normal, "MissingJob", format!("Active job went missing: {name}")),
                Some(None) => {}
                Some(Some(how)) => {
                    let message = format!("Saw completed job: {name}, condition: {how}");
                    plan.note(self.object, EventType::Normal, "SawCompletedJob", message);
                }
            }
        }
        let scheduled = self.jobs.iter().filter_map(|it| it.scheduled).chain(self.status_time("lastScheduleTime")).max();
        let succeeded = self.jobs.iter().filter_map(|it| it.completed).chain(self.status_time("lastSuccessfulTime")).max();
        let shown = |at: Option<Timestamp>| at.map_or(Value::Null, |at| time(at).into());
        json!({
            "active": if active.is_empty() { Value::Null } else { active.into() },
            "lastScheduleTime": shown(scheduled),
            "lastSuccessfulTime": shown(succeeded),
        })
    }

    /// Deletes the oldest ended jobs beyond the limits of the history.
    fn forget(&self, plan: &mut Plan) {
        for (how, key) in [("Complete", "successfulJobsHistoryLimit"), ("Failed", "failedJobsHistoryLimit")] {
            let Some(limit) = self.spec()[key].as_u64() else { continue };
            let mut ended: Vec<&Job> = self.jobs.iter().filter(|it| it.ended == Some(how) && !it.object.meta().is_deleted()).collect();
            ended.sort_by_key(|it| (it.started, it.object.name().to_owned()));
            for job in ended.iter().take(ended.len().saturating_sub(limit as usize)) {
                self.delete(job, plan);
            }
        }
    }

    fn delete(&self, job: &Job, plan: &mut Plan) {
        let tell = Tell {
            about: self.object.clone(),
            success: Some(("SuccessfulDelete", "Deleted job {}".to_owned())),
            failure: ("FailedDelete", "Deleted job: {}".to_owned()),
        };
        let uid = Some(job.object.meta().uid.to_string());
        let options = DeleteOptions { uid, propagation: Some("Background"), ..DeleteOptions::default() };
        plan.writes.push(Write::Delete { key: job.object.key(), options, tell: Some(tell) });
    }

    /// Starts the job for the latest time of the schedule, if it was not started yet, and looks again at the next.
    fn start_due(&self, local: &TimeZone, plan: &mut Plan) {
        let text = self.spec()["schedule"].as_str().unwrap_or_default();
        let schedule = match text.parse::<Schedule>() {
            Ok(schedule) => schedule,
            Err(why) => {
                let message = format!("unparseable schedule: {text:?} : {why}");
                return plan.note(self.object, EventType::Warning, "UnparseableSchedule", message);
            }
        };
        let zone = match self.spec()["timeZone"].as_str() {
            None => local.clone(),
            Some(name) => match TimeZone::get(name) {
                Ok(zone) => zone,
                Err(why) => {
                    let message = format!("invalid timeZone: {name:?}: {why}");
                    return plan.note(self.object, EventType::Warning, "UnknownTimeZone", message);
                }
            },
        };
        let Some(next) = schedule.next(self.now, &zone) else {
            // Such as the 31st of February.
            let message = format!("invalid schedule: {text} : time difference between two schedules is less than 1 second");
            return plan.note(self.object, EventType::Warning, "InvalidSchedule", message);
        };
        plan.look_again(Duration::try_from(next.duration_since(self.now)).unwrap_or_default() + LATER);
        let deadline = self.spec()["startingDeadlineSeconds"].as_i64().map(SignedDuration::from_secs);
        let made = self.object.meta().created.parse().unwrap_or(self.now);
        let last = self.jobs.iter().filter_map(|it| it.scheduled).chain(self.status_time("lastScheduleTime")).max();
        let earliest = deadline.and_then(|it| self.now.checked_sub(it).ok());
        let since = [last.or(Some(made)), earliest].into_iter().flatten().max().unwrap_or(made);
        let Some(due) = due(&schedule, &zone, since, self.now) else { return };
        if due.missed > MANY {
            let message = "too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew";
            plan.note(self.object, EventType::Warning, "TooManyMissedTimes", message);
        }
        self.start(due.at, &zone, plan);
    }

    fn start(&self, at: Timestamp, zone: &TimeZone, plan: &mut Plan) {
        match self.spec()["concurrencyPolicy"].as_str() {
            Some("Forbid") if self.active().next().is_some() => {
                let why = "Not starting job because prior execution is running and concurrency policy is Forbid";
                return plan.note(self.object, EventType::Normal, "JobAlreadyActive", why);
            }
            Some("Replace") => self.active().for_each(|it| self.delete(it, plan)),
            _ => {}
        }
        let template = &self.spec()["jobTemplate"];
        let mut annotations = template["metadata"]["annotations"].as_object().cloned().unwrap_or_default();
        let shown = at.to_zoned(zone.clone()).strftime("%Y-%m-%dT%H:%M:%S%:z").to_string();
        annotations.insert(SCHEDULED.to_owned(), shown.replace("+00:00", "Z").into());
        let mut object = json!({
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {
                "name": format!("{}-{}", self.object.name(), at.as_second() / 60),
                "annotations": annotations,
                "ownerReferences": [controller_reference(self.object)],
            },
            "spec": template["spec"],
        });
        if template["metadata"]["labels"].is_object() {
            object["metadata"]["labels"] = template["metadata"]["labels"].clone();
        }
        let tell = Tell {
            about: self.object.clone(),
            success: Some(("SuccessfulCreate", "Created job {}".to_owned())),
            failure: ("FailedCreate", "Error creating job: {}".to_owned()),
        };
        let namespace = self.object.namespace().to_owned();
        plan.slowly.push(Write::Create { resource: &resource::JOB, namespace, object, tell: Some(tell) });
    }
}

fn reference(job: &Object) -> Value {
    json!({
        "apiVersion": "batch/v1",
        "kind": "Job",
        "namespace": job.namespace(),
        "name": job.name(),
        "uid": &*job.meta().uid,
        "resourceVersion": job.revision().to_string(),
    })
}

#[cfg(test)]
mod tests;
