//! StatefulSets on a simulated cluster.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{REVISION, StatefulSetController};
use crate::controllers::gc::GarbageCollector;
use crate::controllers::plan::tree;
use crate::controllers::pods;
use crate::controllers::simulation::World;
use crate::object::{ObjectKey, resource};

fn world() -> World {
    World::new(vec![Box::new(StatefulSetController), Box::new(GarbageCollector)])
}

fn template(image: &str) -> Value {
    json!({"metadata": {"labels": {"app": "db"}}, "spec": {"containers": [{"name": "c", "image": image}]}})
}

fn set(replicas: i64) -> Value {
    json!({"metadata": {"name": "db"}, "spec": {
        "serviceName": "db",
        "replicas": replicas,
        "selector": {"matchLabels": {"app": "db"}},
        "template": template("i:1"),
        "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {
            "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}],
    }})
}

fn key() -> ObjectKey {
    ObjectKey::new(&resource::STATEFUL_SET, "default", "db")
}

fn names(world: &World) -> Vec<String> {
    world.list(&resource::POD).iter().map(|it| it.name().to_owned()).collect()
}

fn claims(world: &World) -> Vec<String> {
    world.list(&resource::PERSISTENT_VOLUME_CLAIM).iter().map(|it| it.name().to_owned()).collect()
}

fn status(world: &World) -> Value {
    tree(&world.cache.get(&resource::STATEFUL_SET, "default", "db").unwrap())["status"].take()
}

fn images(world: &World) -> Vec<String> {
    let image = |it: &std::sync::Arc<crate::object::Object>| tree(it)["spec"]["containers"][0]["image"].as_str().unwrap().to_owned();
    world.list(&resource::POD).iter().map(image).collect()
}

/// At most one pod at a time is not ready.
fn in_order(world: &World) {
    let waiting = world.list(&resource::POD).iter().filter(|it| !pods::is_ready(it)).count();
    assert!(waiting <= 1, "{waiting} pods are not ready");
}

#[test]
fn pods_come_and_go_in_order() {
    let mut world = world();
    world.put(&resource::STATEFUL_SET, "default", set(3));
    world.settle(|_| ());
    assert_eq!(names(&world), ["db-0"]);
    world.complete(in_order);
    assert_eq!(
        (names(&world), claims(&world)),
        (
            vec!["db-0".to_owned(), "db-1".to_owned(), "db-2".to_owned()],
            vec!["data-db-0".to_owned(), "data-db-1".to_owned(), "data-db-2".to_owned()]
        )
    );
    let pod = tree(&world.cache.get(&resource::POD, "default", "db-1").unwrap());
    assert_eq!((&pod["spec"]["hostname"], &pod["spec"]["subdomain"]), (&json!("db-1"), &json!("db")));
    assert_eq!(pod["spec"]["volumes"][0]["persistentVolumeClaim"]["claimName"], "data-db-1");
    assert_eq!(pod["metadata"]["labels"]["apps.kubernetes.io/pod-index"], "1");
    assert_eq!(pod["metadata"]["labels"]["statefulset.kubernetes.io/pod-name"], "db-1");
    let seen = status(&world);
    assert_eq!(seen["currentRevision"], seen["updateRevision"]);
    assert_eq!((&seen["replicas"], &seen["readyReplicas"], &seen["currentReplicas"]), (&json!(3), &json!(3), &json!(3)));

    // A slow pod delays those below it.
    world.patch(&ObjectKey::new(&resource::POD, "default", "db-2"), &json!({"metadata": {"finalizers": ["example.com/slow"]}}));
    world.patch(&key(), &json!({"spec": {"replicas": 0}}));
    world.settle(|_| ());
    assert_eq!(names(&world).len(), 3);
    world.patch(&ObjectKey::new(&resource::POD, "default", "db-2"), &json!({"metadata": {"finalizers": null}}));
    world.settle(|_| ());
    assert_eq!((names(&world).len(), claims(&world).len()), (0, 3), "claims are kept");
}

#[test]
fn parallel_sets_wait_for_nobody_and_may_begin_anywhere() {
    let mut world = world();
    let mut it = set(3);
    it["spec"]["podManagementPolicy"] = "Parallel".into();
    it["spec"]["ordinals"] = json!({"start": 5});
    world.put(&resource::STATEFUL_SET, "default", it);
    world.settle(|_| ());
    assert_eq!(names(&world), ["db-5", "db-6", "db-7"]);
    world.patch(&key(), &json!({"spec": {"ordinals": {"start": 6}}}));
    world.settle(|_| ());
    assert_eq!(names(&world), ["db-6", "db-7", "db-8"]);
    world.complete(|_| ());
}

#[test]
fn a_revision_may_hold_anything() {
    for data in [
        json!(5),
        json!({"spec": 5}),
        json!({"spec": {"template": "x"}}),
        json!({"spec": {"template": {"metadata": 5}}}),
        json!({
            "spec": {"template": {"metadata": {"labels": "x"}, "spec": {"containers": 1}}}
        }),
    ] {
        let mut world = world();
        let mut it = set(1);
        it["spec"]["updateStrategy"] = json!({"type": "RollingUpdate", "rollingUpdate": {"partition": 1}});
        world.put(&resource::STATEFUL_SET, "default", it);
        world.complete(in_order);
        let revision = json!({"metadata": {"name": "odd", "labels": {"app": "db"}}, "revision": 1, "data": data});
        world.put(&resource::CONTROLLER_REVISION, "default", revision);
        world.patch(&key(), &json!({"status": {"currentRevision": "odd"}}));
        world.remove(&ObjectKey::new(&resource::POD, "default", "db-0"));
        world.settle(in_order);
        assert_eq!(images(&world), ["i:1"], "{data}");
    }
}

#[test]
fn updates_go_from_the_last_to_the_partition() {
    let mut world = world();
    world.put(&resource::STATEFUL_SET, "default", set(3));
    world.complete(in_order);
    let first = status(&world)["currentRevision"].clone();
    let partition = |it: i64| json!({"type": "RollingUpdate", "rollingUpdate": {"partition": it}});
    world.patch(&key(), &json!({"spec": {"template": template("i:2"), "updateStrategy": partition(2)}}));
    world.complete(in_order);
    assert_eq!(images(&world), ["i:1", "i:1", "i:2"]);
    let seen = status(&world);
    assert_eq!((&seen["currentRevision"], &seen["updatedReplicas"], &seen["currentReplicas"]), (&first, &json!(1), &json!(2)));
    // Below the partition a pod is recreated from the old revision, even if only new ones are left.
    for gone in ["db-0", "db-1"] {
        world.remove(&ObjectKey::new(&resource::POD, "default", gone));
    }
    world.complete(in_order);
    assert_eq!(images(&world), ["i:1", "i:1", "i:2"]);
    assert_eq!(status(&world)["currentRevision"], first);
    world.patch(&key(), &json!({"spec": {"updateStrategy": partition(0)}}));
    world.complete(in_order);
    assert_eq!(images(&world), ["i:2", "i:2", "i:2"]);
    assert_eq!(status(&world)["currentRevision"], status(&world)["updateRevision"]);
    assert_eq!(world.list(&resource::CONTROLLER_REVISION).len(), 2);
    // Back to the first: its revision becomes the newest.
    world.patch(&key(), &json!({"spec": {"template": template("i:1")}}));
    world.complete(in_order);
    assert_eq!(status(&world)["updateRevision"], first);
    let mut numbers: Vec<_> = world.list(&resource::CONTROLLER_REVISION).iter().map(|it| tree(it)["revision"].as_i64().unwrap()).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, [2, 3]);
}

#[test]
fn pods_on_delete_are_replaced_by_hand_and_the_history_is_limited() {
    let mut world = world();
    let mut it = set(1);
    it["spec"]["updateStrategy"] = json!({"type": "OnDelete"});
    it["spec"]["revisionHistoryLimit"] = 2.into();
    world.put(&resource::STATEFUL_SET, "default", it);
    world.complete(in_order);
    for version in 2..8 {
        world.patch(&key(), &json!({"spec": {"template": template(&format!("i:{version}"))}}));
        world.complete(in_order);
    }
    assert_eq!(images(&world), ["i:1"]);
    assert_eq!(world.list(&resource::CONTROLLER_REVISION).len(), 4, "two spent ones, the one in use, the newest");
    world.remove(&ObjectKey::new(&resource::POD, "default", "db-0"));
    world.complete(in_order);
    assert_eq!(images(&world), ["i:7"]);
}

#[test]
fn claims_go_with_their_pods_or_the_set_as_the_policy_says() {
    for (deleted, scaled, left) in
        [("Retain", "Retain", [3, 3]), ("Delete", "Retain", [3, 0]), ("Retain", "Delete", [1, 1]), ("Delete", "Delete", [1, 0])]
    {
        let mut world = world();
        let mut it = set(3);
        it["spec"]["persistentVolumeClaimRetentionPolicy"] = json!({"whenDeleted": deleted, "whenScaled": scaled});
        world.put(&resource::STATEFUL_SET, "default", it);
        world.complete(in_order);
        world.patch(&key(), &json!({"spec": {"replicas": 1}}));
        world.complete(in_order);
        assert_eq!((names(&world).len(), claims(&world).len()), (1, left[0]), "{deleted} {scaled}");
        world.delete(&key(), Some("Background"));
        world.settle(|_| ());
        assert_eq!((names(&world).len(), claims(&world).len()), (0, left[1]), "{deleted} {scaled}");
    }
}

#[test]
fn what_has_ended_is_made_again() {
    let mut world = world();
    world.put(&resource::STATEFUL_SET, "default", set(2));
    world.complete(in_order);
    let before = world.cache.get(&resource::POD, "default", "db-0").unwrap().meta().uid.clone();
    world.patch(&ObjectKey::new(&resource::POD, "default", "db-0"), &json!({"status": {"phase": "Failed", "conditions": null}}));
    world.complete(in_order);
    assert_ne!(world.cache.get(&resource::POD, "default", "db-0").unwrap().meta().uid, before);
    // Removed labels are restored.
    world.patch(
        &ObjectKey::new(&resource::POD, "default", "db-1"),
        &json!({"metadata": {"labels": {"apps.kubernetes.io/pod-index": null}}}),
    );
    world.settle(|_| ());
    let pod = world.cache.get(&resource::POD, "default", "db-1").unwrap();
    assert_eq!(pod.meta().label("apps.kubernetes.io/pod-index"), Some("1"));
}

#[derive(Clone, Debug)]
enum Step {
    Scale(i64),
    Image(u8),
    Partition(i64),
    Ready,
    Kill(usize),
    Fail(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        (0_i64..5).prop_map(Step::Scale),
        (0_u8..3).prop_map(Step::Image),
        (0_i64..4).prop_map(Step::Partition),
        Just(Step::Ready),
        Just(Step::Ready),
        (0_usize..5).prop_map(Step::Kill),
        (0_usize..5).prop_map(Step::Fail),
    ];
    proptest::collection::vec(step, 1..12)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    /// Throughout, pods have the right names; finally each matches its specification.
    #[test]
    fn sets_come_to_what_is_asked_for(steps in steps(), parallel in any::<bool>()) {
        let mut world = world();
        let mut it = set(3);
        it["spec"]["podManagementPolicy"] = if parallel { "Parallel" } else { "OrderedReady" }.into();
        world.put(&resource::STATEFUL_SET, "default", it);
        let (mut replicas, mut most) = (3, 3);
        for step in steps {
            world.settle(|world| assert!(names(world).iter().all(|it| super::identity::ordinal("db", it).is_some_and(|it| it < most))));
            let all = world.list(&resource::POD);
            match step {
                Step::Scale(to) => {
                    replicas = to;
                    most = most.max(to);
                    world.patch(&key(), &json!({"spec": {"replicas": to}}));
                }
                Step::Image(version) => world.patch(&key(), &json!({"spec": {"template": template(&format!("i:{version}"))}})),
                Step::Partition(at) => {
                    let strategy = json!({"type": "RollingUpdate", "rollingUpdate": {"partition": at}});
                    world.patch(&key(), &json!({"spec": {"updateStrategy": strategy}}));
                }
                Step::Ready => world.make_ready(&all),
                Step::Kill(at) => all.get(at).into_iter().for_each(|it| world.remove(&it.key())),
                Step::Fail(at) => {
                    let failed = json!({"status": {"phase": "Failed", "conditions": null}});
                    all.get(at).into_iter().for_each(|it| world.patch(&it.key(), &failed));
                }
            }
        }
        world.patch(&key(), &json!({"spec": {"updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}}}}));
        world.complete(|_| ());
        let expected: Vec<String> = (0..replicas).map(|it| format!("db-{it}")).collect();
        prop_assert_eq!(names(&world), expected);
        let seen = status(&world);
        let latest = seen["updateRevision"].as_str();
        prop_assert!(world.list(&resource::POD).iter().all(|it| it.meta().label(REVISION) == latest));
        prop_assert_eq!((seen["currentRevision"].as_str(), seen["replicas"].as_i64()), (latest, Some(replicas)));
    }
}

#[test]
fn a_pod_that_is_adopted_gets_its_identity() {
    let mut world = world();
    world.put(&resource::POD, "default", json!({"metadata": {"name": "db-0", "labels": {"app": "db"}}, "spec": {"containers": []}}));
    world.put(&resource::STATEFUL_SET, "default", set(1));
    world.settle(|_| ());
    let pod = tree(&world.list(&resource::POD)[0]);
    assert_eq!((&pod["metadata"]["labels"]["apps.kubernetes.io/pod-index"], world.list(&resource::POD).len()), (&json!("0"), 1));
    assert_eq!(world.told, ["SuccessfulUpdate: update Pod db-0 in StatefulSet db successful"]);
}

#[test]
fn a_pod_that_has_ended_is_adopted_and_made_again() {
    let mut world = world();
    let metadata = json!({"name": "db-0", "labels": {"app": "db"}});
    let failed =
        world.put(&resource::POD, "default", json!({"metadata": metadata, "spec": {"containers": []}, "status": {"phase": "Failed"}}));
    let set = world.put(&resource::STATEFUL_SET, "default", set(1));
    world.complete(in_order);
    let pod = world.cache.get(&resource::POD, "default", "db-0").unwrap();
    assert!(pod.meta().uid != failed.meta().uid && pod.meta().controller().is_some_and(|it| it.uid == set.meta().uid));
}
