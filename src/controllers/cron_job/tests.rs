//! CronJobs on a simulated cluster.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::{Value, json};

use super::{CronJobController, Due, due};
use crate::controllers::gc::GarbageCollector;
use crate::controllers::job::JobController;
use crate::controllers::plan::{Controller, tree};
use crate::controllers::simulation::World;
use crate::object::{Object, ObjectKey, resource};

/// It is midnight.
fn world() -> World {
    World::new(vec![Box::new(CronJobController { zone: TimeZone::UTC }), Box::new(JobController::default()), Box::new(GarbageCollector)])
}

fn cron_job(spec: Value) -> Value {
    let template =
        json!({"metadata": {"labels": {"app": "c"}}, "spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}});
    // The API server gives each job its own selector; here they share one.
    let job = json!({"spec": {"manualSelector": true, "selector": {"matchLabels": {"app": "c"}}, "template": template}});
    let mut it = json!({"metadata": {"name": "tick"}, "spec": {"schedule": "*/10 * * * *", "jobTemplate": job}});
    for (key, value) in spec.as_object().unwrap() {
        it["spec"][key] = value.clone();
    }
    it
}

fn key() -> ObjectKey {
    ObjectKey::new(&resource::CRON_JOB, "default", "tick")
}

fn jobs(world: &World) -> Vec<String> {
    world.list(&resource::JOB).iter().map(|it| it.name().to_owned()).collect()
}

/// The name of the job this many minutes after midnight.
fn at(minutes: i64) -> String {
    let midnight: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
    format!("tick-{}", midnight.as_second() / 60 + minutes)
}

fn status(world: &World) -> Value {
    tree(&world.cache.get(&resource::CRON_JOB, "default", "tick").unwrap())["status"].take()
}

/// Ends the pods there are, and so their jobs.
fn finish(world: &mut World, phase: &str) {
    for pod in world.list(&resource::POD) {
        world.end(&pod, phase, 0);
    }
    world.settle(|_| ());
}

#[test]
fn a_job_at_every_time() {
    let mut world = world();
    world.put(&resource::CRON_JOB, "default", cron_job(json!({})));
    world.settle(|_| ());
    assert_eq!(jobs(&world), Vec::<String>::new());
    world.wait();
    world.settle(|_| ());
    assert_eq!(jobs(&world), [at(10)]);
    let seen = status(&world);
    assert_eq!((&seen["active"][0]["name"], &seen["lastScheduleTime"]), (&json!(at(10)), &json!("2026-01-01T00:10:00Z")));
    let job = tree(&world.list(&resource::JOB)[0]);
    assert_eq!(job["metadata"]["annotations"]["batch.kubernetes.io/cronjob-scheduled-timestamp"], "2026-01-01T00:10:00Z");
    finish(&mut world, "Succeeded");
    let seen = status(&world);
    assert!(seen["active"].is_null() && seen["lastSuccessfulTime"].is_string(), "{seen}");
    for _ in 0..6 {
        world.pass(600);
        world.settle(|_| ());
        finish(&mut world, "Succeeded");
    }
    assert_eq!(jobs(&world), [at(50), at(60), at(70)], "three are kept");
    // Of the missed times, only the last is caught up.
    world.patch(&key(), &json!({"spec": {"suspend": true}}));
    world.pass(6000);
    world.settle(|_| ());
    assert_eq!(jobs(&world).len(), 3);
    world.patch(&key(), &json!({"spec": {"suspend": false, "startingDeadlineSeconds": 1000}}));
    world.settle(|_| ());
    assert_eq!(jobs(&world).len(), 4);
    assert_eq!(jobs(&world)[3], at(170));
}

#[test]
fn concurrency_is_as_the_policy_says() {
    for (policy, expected) in [("Allow", vec![at(10), at(20), at(30)]), ("Forbid", vec![at(10)]), ("Replace", vec![at(30)])] {
        let mut world = world();
        world.put(&resource::CRON_JOB, "default", cron_job(json!({"concurrencyPolicy": policy})));
        for _ in 0..3 {
            world.pass(600);
            world.settle(|_| ());
        }
        assert_eq!(jobs(&world), expected, "{policy}");
        assert!(!world.told.iter().any(|it| it.starts_with("MissingJob")), "what was replaced is not missed: {:?}", world.told);
        if policy == "Forbid" {
            // Once the active job has ended, the last missed time has its turn.
            finish(&mut world, "Failed");
            world.pass(3600);
            world.settle(|_| ());
        }
    }
}

#[test]
fn times_are_those_of_the_zone_and_not_too_late() {
    let mut world = world();
    world.put(
        &resource::CRON_JOB,
        "default",
        cron_job(json!({"schedule": "30 9 * * *", "timeZone": "Asia/Tokyo", "startingDeadlineSeconds": 60})),
    );
    world.settle(|_| ());
    world.wait();
    world.settle(|_| ());
    assert_eq!(jobs(&world), [at(30)]);
    let job = tree(&world.list(&resource::JOB)[0]);
    assert_eq!(job["metadata"]["annotations"]["batch.kubernetes.io/cronjob-scheduled-timestamp"], "2026-01-01T09:30:00+09:00");
    // The controller slept over the next one.
    world.pass(24 * 3600 + 120);
    world.settle(|_| ());
    assert_eq!(jobs(&world).len(), 1);
}

#[test]
fn the_latest_of_many_times_missed() {
    let time = |it: &str| it.parse::<Timestamp>().unwrap();
    for (schedule, since, now, expected) in [
        ("*/10 * * * *", "2026-01-01T00:00:00Z", "2026-01-01T00:09:59Z", None),
        ("*/10 * * * *", "2026-01-01T00:00:00Z", "2026-01-01T00:10:00Z", Some(("2026-01-01T00:10:00Z", 1))),
        ("*/10 * * * *", "2026-01-01T00:00:00Z", "2026-01-11T00:05:00Z", Some(("2026-01-11T00:00:00Z", 1440))),
        // Irregular: the working days' times are missed over a weekend (2 January is a Friday).
        ("30 6-16/4 * * 1-5", "2026-01-02T07:00:00Z", "2026-01-04T12:00:00Z", Some(("2026-01-02T14:30:00Z", 13))),
        ("@every 1h", "2026-01-01T00:20:00Z", "2026-01-01T05:00:00Z", Some(("2026-01-01T04:20:00Z", 4))),
    ] {
        let found = due(&schedule.parse().unwrap(), &TimeZone::UTC, time(since), time(now));
        assert_eq!(found, expected.map(|(at, missed)| Due { at: time(at), missed }), "{schedule}");
    }
}

#[test]
fn a_job_started_by_hand_is_not_the_schedules() {
    let mut world = world();
    let cron = world.put(&resource::CRON_JOB, "default", cron_job(json!({"schedule": "@yearly"})));
    let spec = tree(&cron)["spec"]["jobTemplate"]["spec"].take();
    let owner = crate::controllers::owners::controller_reference(&cron);
    world.put(&resource::JOB, "default", json!({"metadata": {"name": "by-hand", "ownerReferences": [owner]}, "spec": spec}));
    world.settle(|_| ());
    assert!(status(&world)["active"].is_null());
    assert!(world.told.contains(&"UnexpectedJob: Saw a job that the controller did not create or forgot: by-hand".to_owned()));
    finish(&mut world, "Succeeded");
    let is_there = |it: &Object| it.name() == "by-hand";
    assert!(world.list(&resource::JOB).iter().any(|it| is_there(it)) && status(&world)["lastScheduleTime"].is_null());
}

#[test]
fn a_schedule_without_a_time_is_told_of() {
    let mut world = world();
    world.put(&resource::CRON_JOB, "default", cron_job(json!({"schedule": "59 23 31 2 *"})));
    let controller = CronJobController { zone: TimeZone::UTC };
    let plan = controller.plan(&world.cache, &key(), world.now);
    let told: Vec<_> = plan.notes.iter().map(|it| (it.reason, it.message.as_str())).collect();
    let message = "invalid schedule: 59 23 31 2 * : time difference between two schedules is less than 1 second";
    assert_eq!(told, [("InvalidSchedule", message)]);
}
