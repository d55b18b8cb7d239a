//! Jobs on a simulated cluster.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{JobController, TRACKING};
use crate::controllers::conditions::Conditions;
use crate::controllers::gc::GarbageCollector;
use crate::controllers::plan::tree;
use crate::controllers::pods;
use crate::controllers::simulation::World;
use crate::controllers::ttl::TtlAfterFinished;
use crate::object::{Object, ObjectKey, resource};

fn world() -> World {
    World::new(vec![Box::new(JobController::default()), Box::new(TtlAfterFinished), Box::new(GarbageCollector)])
}

/// A job as the API server stores it.
fn job(spec: Value) -> Value {
    let labels = json!({"batch.kubernetes.io/job-name": "j", "batch.kubernetes.io/controller-uid": "u"});
    let mut it = json!({"metadata": {"name": "j", "uid": "u", "creationTimestamp": "2026-01-01T00:00:00Z"}, "spec": {
        "selector": {"matchLabels": {"batch.kubernetes.io/controller-uid": "u"}},
        "template": {"metadata": {"labels": labels}, "spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}}});
    for (key, value) in spec.as_object().unwrap() {
        it["spec"][key] = value.clone();
    }
    it
}

fn key() -> ObjectKey {
    ObjectKey::new(&resource::JOB, "default", "j")
}

fn status(world: &World) -> Value {
    tree(&world.cache.get(&resource::JOB, "default", "j").unwrap())["status"].take()
}

fn start(spec: Value) -> World {
    let mut world = world();
    world.put(&resource::JOB, "default", job(spec));
    world.settle(|_| ());
    world
}

/// The pods at work, by name.
fn active(world: &World) -> Vec<Arc<Object>> {
    world.list(&resource::POD).into_iter().filter(|it| pods::is_active(it)).collect()
}

fn index(pod: &Object) -> u32 {
    pods::facts(pod).completion_index.unwrap()
}

/// The pod at work at an index.
fn at(world: &World, wanted: u32) -> Arc<Object> {
    active(world).into_iter().find(|it| index(it) == wanted).unwrap_or_else(|| panic!("nobody works at {wanted}"))
}

fn end(world: &mut World, pod: &Arc<Object>, code: i64) {
    world.end(pod, if code == 0 { "Succeeded" } else { "Failed" }, code);
    world.settle(|_| ());
}

/// The conditions that are true, with their reasons.
fn conditions(world: &World) -> Vec<(String, String)> {
    let status = status(world);
    let list = status["conditions"].as_array().cloned().unwrap_or_default();
    let text = |it: &Value, key: &str| it[key].as_str().unwrap().to_owned();
    list.iter().filter(|it| it["status"] == "True").map(|it| (text(it, "type"), text(it, "reason"))).collect()
}

fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
    list.iter().map(|(kind, reason)| ((*kind).to_owned(), (*reason).to_owned())).collect()
}

#[test]
fn only_pods_of_indexes_need_no_labels_of_the_template() {
    let selector = json!({"matchExpressions": [{"key": "x", "operator": "DoesNotExist"}]});
    let template = json!({"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}});
    for (mode, made) in [("NonIndexed", 0), ("Indexed", 1)] {
        let world = start(json!({"completionMode": mode, "completions": 1, "selector": selector, "template": template}));
        assert_eq!((active(&world).len(), status(&world)["active"].as_u64()), (made, Some(made as u64).filter(|it| *it > 0)), "{mode}");
    }
}

#[test]
fn pods_run_until_enough_have_succeeded() {
    let mut world = start(json!({"completions": 3, "parallelism": 2}));
    assert_eq!(active(&world).len(), 2);
    assert!(active(&world).iter().all(|it| it.meta().finalizers.iter().any(|it| **it == *TRACKING)));
    assert_eq!((&status(&world)["active"], &status(&world)["startTime"]), (&json!(2), &json!("2026-01-01T00:00:00Z")));
    for left in [2, 1] {
        let pod = active(&world).remove(0);
        end(&mut world, &pod, 0);
        assert_eq!(active(&world).len(), left);
    }
    assert_eq!(conditions(&world), []);
    let pod = active(&world).remove(0);
    end(&mut world, &pod, 0);
    let seen = status(&world);
    assert_eq!((&seen["succeeded"], &seen["active"], &seen["uncountedTerminatedPods"]), (&json!(3), &Value::Null, &json!({})));
    assert_eq!(conditions(&world), pairs(&[("SuccessCriteriaMet", "CompletionsReached"), ("Complete", "CompletionsReached")]));
    assert_eq!(seen["completionTime"], "2026-01-01T00:00:00Z");
    assert!(world.list(&resource::POD).iter().all(|it| it.meta().finalizers.is_empty()), "nothing holds them");
}

#[test]
fn a_work_queue_is_empty_when_one_says_so_and_all_have_stopped() {
    let mut world = start(json!({"parallelism": 3}));
    let pods = active(&world);
    end(&mut world, &pods[0], 0);
    assert_eq!((active(&world).len(), conditions(&world).len()), (2, 0));
    end(&mut world, &pods[1], 0);
    end(&mut world, &pods[2], 0);
    assert_eq!(conditions(&world).last().map(|it| it.0.clone()).as_deref(), Some("Complete"));
}

#[test]
fn failures_are_tried_again_later_and_later_up_to_the_limit() {
    let mut world = start(json!({"backoffLimit": 2}));
    for pause in [10, 20] {
        let pod = active(&world).remove(0);
        end(&mut world, &pod, 1);
        world.pass(pause - 1);
        world.settle(|_| ());
        assert_eq!(active(&world).len(), 0, "{pause} s are not over");
        world.pass(1);
        world.settle(|_| ());
        assert_eq!(active(&world).len(), 1);
    }
    let pod = active(&world).remove(0);
    end(&mut world, &pod, 1);
    assert_eq!(conditions(&world), pairs(&[("FailureTarget", "BackoffLimitExceeded"), ("Failed", "BackoffLimitExceeded")]));
    assert_eq!(status(&world)["failed"], 3);
    world.pass(1000);
    world.settle(|_| ());
    assert_eq!(active(&world).len(), 0);
}

/// How many seconds after it ended, or was asked to end, a pod is followed by another.
fn pause_after(world: &mut World, change: &Value) -> i64 {
    let pod = active(world).remove(0);
    let mut change = change.clone();
    if change["metadata"]["deletionGracePeriodSeconds"].is_i64() {
        let grace = change["metadata"]["deletionGracePeriodSeconds"].as_i64().unwrap();
        change["metadata"]["deletionTimestamp"] = world.time_in(grace).into();
    }
    world.patch(&pod.key(), &change);
    let begun = world.now();
    for _ in 0..100 {
        world.settle(|_| ());
        if !active(world).is_empty() {
            break;
        }
        world.pass(1);
    }
    world.now().duration_since(begun).as_secs()
}

#[test]
fn what_counts_as_a_pods_end_is_the_nearest_that_is_known() {
    let mut world = start(json!({"backoffLimit": 9}));
    world.pass(1000);
    let deleted = json!({"metadata": {"deletionGracePeriodSeconds": 3600, "finalizers": [TRACKING, "example.com/its-kubelet"]}});
    assert_eq!(pause_after(&mut world, &deleted), 10, "from the request, not from when its grace is over");
    let mut world = start(json!({"backoffLimit": 9}));
    world.pass(1000);
    for pause in [10, 20] {
        let gone = json!({"metadata": {"deletionGracePeriodSeconds": 0}});
        assert_eq!(pause_after(&mut world, &gone), pause, "though nothing is left of the one before");
    }
    let mut world = start(json!({"backoffLimit": 9}));
    world.pass(1000);
    let at = world.time_in(0);
    let not_ready = json!([{"type": "Ready", "status": "False", "lastTransitionTime": at}]);
    let container = json!({"name": "c", "image": "i", "imageID": "", "ready": false, "restartCount": 0, "state": {"running": {}}});
    let lost = json!({"status": {"phase": "Failed", "conditions": not_ready, "containerStatuses": [container]}});
    assert_eq!(pause_after(&mut world, &lost), 10, "from when it was no longer ready");
    let mut world = start(json!({"backoffLimit": 9}));
    world.pass(1000);
    let ended = |name: &str, ago: i64, world: &World| {
        json!({"name": name, "image": "i", "imageID": "", "ready": false, "restartCount": 0,
        "state": {"terminated": {"exitCode": 1, "finishedAt": world.time_in(-ago)}}})
    };
    let sidecar = json!([{"name": "s", "image": "i", "restartPolicy": "Always"}]);
    let after = json!({"spec": {"initContainers": sidecar}, "status": {"phase": "Failed", "conditions": null,
        "containerStatuses": [ended("c", 500, &world)], "initContainerStatuses": [ended("s", 3, &world)]}});
    assert_eq!(pause_after(&mut world, &after), 7, "from the end of the last sidecar");
}

#[test]
fn a_job_that_ends_takes_its_pods_with_it() {
    let mut world = start(json!({"parallelism": 3, "completions": 3, "backoffLimit": 0}));
    // One of the others is slow to stop.
    let pods = active(&world);
    world.patch(&pods[1].key(), &json!({"metadata": {"finalizers": [TRACKING, "example.com/slow"]}}));
    end(&mut world, &pods[0], 1);
    assert_eq!(active(&world).len(), 0);
    world.patch(&pods[1].key(), &json!({"metadata": {"finalizers": null}}));
    world.settle(|_| ());
    assert_eq!((conditions(&world).len(), &status(&world)["failed"]), (2, &json!(3)), "what is taken away has failed, too");
}

#[test]
fn indexes_are_worked_at_once_each() {
    let mut world = start(json!({"completionMode": "Indexed", "completions": 4, "parallelism": 2}));
    assert_eq!(active(&world).iter().map(|it| index(it)).collect::<BTreeSet<_>>(), BTreeSet::from([0, 1]));
    let pod = tree(&at(&world, 1));
    assert_eq!(pod["spec"]["hostname"], "j-1");
    assert!(pod["metadata"]["name"].as_str().unwrap().starts_with("j-1-"));
    assert_eq!(pod["metadata"]["labels"]["batch.kubernetes.io/job-completion-index"], "1");
    assert_eq!(pod["spec"]["containers"][0]["env"][0]["name"], "JOB_COMPLETION_INDEX");
    for done in [1, 0, 3] {
        let pod = at(&world, done);
        end(&mut world, &pod, 0);
    }
    assert_eq!((&status(&world)["completedIndexes"], &status(&world)["succeeded"]), (&json!("0,1,3"), &json!(3)));
    // A failed index is tried again.
    let pod = at(&world, 2);
    end(&mut world, &pod, 1);
    world.wait();
    world.settle(|_| ());
    let pod = at(&world, 2);
    end(&mut world, &pod, 0);
    assert_eq!((&status(&world)["completedIndexes"], &status(&world)["failed"]), (&json!("0-3"), &json!(1)));
    assert_eq!(conditions(&world).len(), 2);
    // An elastic job may shrink: pods beyond the new size are deleted.
    let mut world = start(json!({"completionMode": "Indexed", "completions": 4, "parallelism": 4}));
    world.patch(&key(), &json!({"spec": {"completions": 2, "parallelism": 2}}));
    world.settle(|_| ());
    assert_eq!(active(&world).iter().map(|it| index(it)).collect::<BTreeSet<_>>(), BTreeSet::from([0, 1]));
    assert!(status(&world)["failed"].is_null(), "that is no failure");
}

#[test]
fn every_index_has_its_own_limit() {
    let spec = json!({"completionMode": "Indexed", "completions": 3, "parallelism": 3, "backoffLimitPerIndex": 1, "maxFailedIndexes": 1});
    let mut world = start(spec.clone());
    let pod = at(&world, 0);
    end(&mut world, &pod, 1);
    assert_eq!((active(&world).len(), &status(&world)["failedIndexes"]), (2, &json!("")));
    world.wait();
    world.settle(|_| ());
    let pod = at(&world, 0);
    assert_eq!(tree(&pod)["metadata"]["annotations"]["batch.kubernetes.io/job-index-failure-count"], "1");
    end(&mut world, &pod, 1);
    assert_eq!((active(&world).len(), &status(&world)["failedIndexes"]), (2, &json!("0")));
    let pod = at(&world, 1);
    end(&mut world, &pod, 0);
    let pod = at(&world, 2);
    end(&mut world, &pod, 0);
    assert_eq!(conditions(&world), pairs(&[("FailureTarget", "FailedIndexes"), ("Failed", "FailedIndexes")]));
    assert_eq!((&status(&world)["completedIndexes"], &status(&world)["failed"]), (&json!("1,2"), &json!(2)));

    let mut world = start(spec);
    for wanted in [0, 1] {
        for _ in 0..2 {
            world.pass(1000);
            world.settle(|_| ());
            let pod = at(&world, wanted);
            end(&mut world, &pod, 1);
        }
    }
    assert_eq!(conditions(&world), pairs(&[("FailureTarget", "MaxFailedIndexesExceeded"), ("Failed", "MaxFailedIndexesExceeded")]));
    assert!(world.list(&resource::POD).iter().all(|it| it.meta().finalizers.is_empty()));
}

#[test]
fn an_index_that_backs_off_keeps_its_turn() {
    let mut world = start(json!({"completionMode": "Indexed", "completions": 5, "parallelism": 2, "backoffLimitPerIndex": 1}));
    let pod = at(&world, 0);
    end(&mut world, &pod, 1);
    let at_work = |world: &World| active(world).iter().map(|it| index(it)).collect::<BTreeSet<_>>();
    assert_eq!(at_work(&world), BTreeSet::from([1]));
    world.wait();
    world.settle(|_| ());
    assert_eq!(at_work(&world), BTreeSet::from([0, 1]));
}

#[test]
fn a_status_may_name_billions_of_indexes() {
    let mut world = start(json!({"completionMode": "Indexed", "completions": 2_000_000_000, "parallelism": 2, "suspend": true}));
    world.patch(&key(), &json!({"status": {"completedIndexes": "0-1999999996", "succeeded": 1_999_999_997}}));
    world.patch(&key(), &json!({"spec": {"suspend": false}}));
    world.settle(|_| ());
    assert_eq!(active(&world).iter().map(|it| index(it)).collect::<Vec<_>>(), [1_999_999_997, 1_999_999_998]);
}

#[test]
fn policies_decide_about_failures_and_success() {
    let rule = |action: &str, code: i64| json!({"action": action, "onExitCodes": {"operator": "In", "values": [code]}});
    let policy = json!({"rules": [rule("Ignore", 3), rule("FailJob", 42)]});
    let mut world = start(json!({"parallelism": 2, "completions": 2, "backoffLimit": 0, "podFailurePolicy": policy}));
    let pod = active(&world).remove(0);
    end(&mut world, &pod, 3);
    assert_eq!((conditions(&world).len(), &status(&world)["failed"]), (0, &Value::Null));
    world.wait();
    world.settle(|_| ());
    assert_eq!(active(&world).len(), 2);
    let pod = active(&world).remove(0);
    end(&mut world, &pod, 42);
    assert_eq!(conditions(&world), pairs(&[("FailureTarget", "PodFailurePolicy"), ("Failed", "PodFailurePolicy")]));
    let seen = status(&world);
    let failed = Conditions::of(&seen, None).get("Failed").unwrap()["message"].as_str().unwrap().to_owned();
    assert!(failed.contains("failed with exit code 42 matching FailJob rule at index 1"), "{failed}");

    let mut world = start(
        json!({"completionMode": "Indexed", "completions": 3, "parallelism": 3, "successPolicy": {"rules": [{"succeededIndexes": "1"}]}}),
    );
    let pod = at(&world, 1);
    end(&mut world, &pod, 0);
    assert_eq!(conditions(&world), pairs(&[("SuccessCriteriaMet", "SuccessPolicy"), ("Complete", "SuccessPolicy")]));
    assert_eq!((active(&world).len(), &status(&world)["failed"]), (0, &Value::Null), "those that are not needed have not failed");
}

#[test]
fn suspended_jobs_hold_no_pods_and_their_deadline_does_not_run() {
    let mut world = start(json!({"parallelism": 2, "completions": 2, "suspend": true, "activeDeadlineSeconds": 60}));
    assert_eq!((active(&world).len(), conditions(&world)), (0, pairs(&[("Suspended", "JobSuspended")])));
    assert!(status(&world)["startTime"].is_null());
    world.pass(100);
    world.patch(&key(), &json!({"spec": {"suspend": false}}));
    world.settle(|_| ());
    assert_eq!((active(&world).len(), conditions(&world).len()), (2, 0));
    world.patch(&key(), &json!({"spec": {"suspend": true}}));
    world.settle(|_| ());
    assert_eq!((world.list(&resource::POD).len(), &status(&world)["failed"]), (0, &Value::Null));
    world.pass(100);
    world.patch(&key(), &json!({"spec": {"suspend": false}}));
    world.settle(|_| ());
    world.pass(59);
    world.settle(|_| ());
    assert_eq!(active(&world).len(), 2);
    world.wait();
    world.settle(|_| ());
    assert_eq!(conditions(&world), pairs(&[("FailureTarget", "DeadlineExceeded"), ("Failed", "DeadlineExceeded")]));
}

#[test]
fn pods_are_let_go_when_their_job_is_gone() {
    for propagation in ["Background", "Foreground", "Orphan"] {
        let mut world = start(json!({"parallelism": 2, "completions": 4}));
        let pod = active(&world).remove(0);
        end(&mut world, &pod, 0);
        world.delete(&key(), Some(propagation));
        world.settle(|_| ());
        assert!(world.list(&resource::JOB).is_empty(), "{propagation}");
        let left = world.list(&resource::POD);
        assert!(left.iter().all(|it| it.meta().finalizers.is_empty()), "{propagation}");
        assert_eq!(left.len(), if propagation == "Orphan" { 3 } else { 0 }, "{propagation}");
    }
}

#[test]
fn ended_jobs_are_deleted_after_their_time() {
    let mut world = start(json!({"ttlSecondsAfterFinished": 30}));
    world.pass(1000);
    world.settle(|_| ());
    let pod = active(&world).remove(0);
    end(&mut world, &pod, 0);
    world.pass(29);
    world.settle(|_| ());
    assert_eq!(world.list(&resource::JOB).len(), 1);
    world.wait();
    world.settle(|_| ());
    assert_eq!((world.list(&resource::JOB).len(), world.list(&resource::POD).len()), (0, 0));
}

#[test]
fn others_jobs_are_left_alone() {
    let world = start(json!({"managedBy": "example.com/queue"}));
    assert!(world.list(&resource::POD).is_empty() && status(&world) == json!({}));
}

#[derive(Clone, Debug)]
enum Step {
    Succeed(usize),
    Fail(usize),
    Kill(usize),
    Parallelism(i64),
    Suspend(bool),
    Pass(i64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => (0_usize..4).prop_map(Step::Succeed),
        1 => (0_usize..4).prop_map(Step::Fail),
        1 => (0_usize..4).prop_map(Step::Kill),
        1 => (0_i64..5).prop_map(Step::Parallelism),
        1 => any::<bool>().prop_map(Step::Suspend),
        1 => (1_i64..100).prop_map(Step::Pass),
    ];
    proptest::collection::vec(step, 0..16)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// Throughout, no more pods run than allowed, each ended pod counts once, each index succeeds once, and the job ends.
    #[test]
    fn every_end_counts_once(steps in steps(), indexed in any::<bool>(), completions in 1_i64..6) {
        let mode = if indexed { "Indexed" } else { "NonIndexed" };
        let mut world = start(json!({"completionMode": mode, "completions": completions, "parallelism": 3, "backoffLimit": 1000}));
        let (mut succeeded, mut failed) = (0, 0);
        for step in steps {
            let pods = active(&world);
            match step {
                Step::Succeed(at) => if let Some(pod) = pods.get(at) {
                    world.end(pod, "Succeeded", 0);
                    succeeded += 1;
                },
                Step::Fail(at) => if let Some(pod) = pods.get(at) {
                    world.end(pod, "Failed", 1);
                    failed += 1;
                },
                Step::Kill(at) => if let Some(pod) = pods.get(at) {
                    world.delete(&pod.key(), None);
                    failed += 1;
                },
                Step::Parallelism(to) => world.patch(&key(), &json!({"spec": {"parallelism": to}})),
                Step::Suspend(it) => world.patch(&key(), &json!({"spec": {"suspend": it}})),
                Step::Pass(seconds) => world.pass(seconds),
            }
            let spec = tree(&world.cache.get(&resource::JOB, "default", "j").unwrap())["spec"].take();
            let before = active(&world).len() as i64;
            world.settle(|world| {
                let limit = if spec["suspend"] == true { 0 } else { spec["parallelism"].as_i64().unwrap() };
                let now = active(world).len() as i64;
                assert!(now <= limit.max(before), "{now} pods work where {limit} may");
                if indexed {
                    let mut at: HashMap<u32, usize> = HashMap::new();
                    active(world).iter().for_each(|it| *at.entry(index(it)).or_default() += 1);
                    assert!(at.values().all(|it| *it == 1), "{at:?}");
                }
            });
        }
        world.patch(&key(), &json!({"spec": {"parallelism": 2, "suspend": false}}));
        for _ in 0..20 {
            world.pass(1000);
            world.settle(|_| ());
            for pod in active(&world) {
                world.end(&pod, "Succeeded", 0);
                succeeded += 1;
            }
        }
        let seen = status(&world);
        let conditions = conditions(&world);
        prop_assert_eq!(conditions.last().map(|it| it.0.as_str()), Some("Complete"));
        prop_assert_eq!((seen["succeeded"].as_i64(), seen["failed"].as_i64().unwrap_or_default()), (Some(succeeded), failed));
        prop_assert!(succeeded >= completions && (!indexed || succeeded == completions));
        prop_assert!(world.list(&resource::POD).iter().all(|it| it.meta().finalizers.is_empty()));
    }
}

#[test]
fn a_pod_that_has_succeeded_counts_for_the_job_that_adopts_it() {
    let mut world = world();
    let labels = json!({"batch.kubernetes.io/controller-uid": "u"});
    world.put(&resource::POD, "default", json!({"metadata": {"name": "p", "labels": labels}, "status": {"phase": "Succeeded"}}));
    world.put(&resource::JOB, "default", job(json!({"manualSelector": true, "completions": 1, "parallelism": 1})));
    world.settle(|_| ());
    let pods = world.list(&resource::POD);
    assert_eq!((pods.len(), status(&world)["succeeded"].as_i64()), (1, Some(1)), "{}", status(&world));
    assert!(pods[0].meta().controller().is_some_and(|it| *it.uid == *"u") && pods[0].meta().finalizers.is_empty());
}

#[test]
fn indexes_that_the_job_cannot_have_are_nothing() {
    let mut world = world();
    world.put(&resource::JOB, "default", job(json!({"completionMode": "Indexed", "completions": 2, "parallelism": 2})));
    world.patch(&key(), &json!({"status": {"completedIndexes": "1-4294967295", "failedIndexes": "7-4294967295"}}));
    world.settle(|_| ());
    assert_eq!((world.list(&resource::POD).len(), &status(&world)["completedIndexes"]), (1, &json!("1")));
}
