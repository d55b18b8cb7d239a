//! The workload controllers, on a simulated cluster.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::deployment::DeploymentController;
use super::gc::GarbageCollector;
use super::namespace::NamespaceController;
use super::plan::Controller;
use super::replicas::Replicas;
use super::service_account::ServiceAccountController;
use super::simulation::World;
use crate::object::{ObjectKey, resource};

fn template(image: &str) -> Value {
    json!({"metadata": {"labels": {"app": "a"}}, "spec": {"containers": [{"name": "c", "image": image}]}})
}

fn replication_controller(replicas: u32) -> Value {
    json!({"metadata": {"name": "rc"}, "spec": {"replicas": replicas, "selector": {"app": "a"}, "template": template("i")}})
}

fn deployment(replicas: u32, surge: Value, unavailable: Value) -> Value {
    json!({
        "metadata": {"name": "web"},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": "a"}},
            "template": template("i:1"),
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}},
        },
    })
}

fn workloads() -> Vec<Box<dyn super::plan::Controller>> {
    vec![
        Box::new(Replicas::replication_controllers()),
        Box::new(Replicas::replica_sets()),
        Box::new(DeploymentController),
        Box::new(GarbageCollector),
    ]
}

fn status(world: &World, resource: crate::object::ResourceRef, name: &str) -> Value {
    super::plan::tree(&world.cache.get(resource, "default", name).unwrap())["status"].take()
}

#[test]
fn a_replication_controller_keeps_its_number() {
    let mut world = World::new(workloads());
    let rc = world.put(&resource::REPLICATION_CONTROLLER, "default", replication_controller(3));
    world.settle(|_| ());
    let pods = world.list(&resource::POD);
    assert_eq!(pods.len(), 3);
    assert!(pods.iter().all(|it| it.meta().controller().is_some_and(|it| it.uid == rc.meta().uid) && it.meta().label("app") == Some("a")));

    world.make_ready(&pods[..2]);
    world.settle(|_| ());
    let seen = status(&world, &resource::REPLICATION_CONTROLLER, "rc");
    assert_eq!((&seen["replicas"], &seen["readyReplicas"], &seen["availableReplicas"]), (&json!(3), &json!(2), &json!(2)));

    world.remove(&pods[0].key());
    world.settle(|_| ());
    assert_eq!(world.list(&resource::POD).len(), 3);

    // Pods that are not ready are deleted first.
    world.patch(&rc.key(), &json!({"spec": {"replicas": 1}}));
    world.settle(|_| ());
    let left = world.list(&resource::POD);
    assert_eq!(left.iter().map(|it| it.name()).collect::<Vec<_>>(), [pods[1].name()]);
}

#[test]
fn pods_without_labels_are_not_made() {
    let mut world = World::new(workloads());
    let bare = json!({"spec": {"containers": [{"name": "c", "image": "i"}]}});
    let selector = json!({"matchExpressions": [{"key": "x", "operator": "DoesNotExist"}]});
    let set = json!({"metadata": {"name": "rs"}, "spec": {"replicas": 2, "selector": selector, "template": bare}});
    let set = world.put(&resource::REPLICA_SET, "default", set);
    world.settle(|_| ());
    assert!(world.list(&resource::POD).is_empty());
    let seen = status(&world, &resource::REPLICA_SET, "rs");
    assert_eq!(seen["replicas"], 0);
    let condition = &seen["conditions"][0];
    assert_eq!(condition["type"], "ReplicaFailure");
    assert_eq!((&condition["reason"], &condition["message"]), (&json!("FailedCreate"), &json!("unable to create pods, no labels")));

    world.patch(&set.key(), &json!({"spec": {"template": {"metadata": {"labels": {"app": "a"}}}}}));
    world.settle(|_| ());
    assert_eq!(world.list(&resource::POD).len(), 2);
    assert_eq!(status(&world, &resource::REPLICA_SET, "rs")["conditions"], Value::Null);
}

#[test]
fn matching_orphans_are_adopted_and_strays_let_go() {
    let mut world = World::new(workloads());
    let orphan = world.put(&resource::POD, "default", json!({"metadata": {"name": "orphan", "labels": {"app": "a"}}}));
    world.put(&resource::POD, "other", json!({"metadata": {"name": "elsewhere", "labels": {"app": "a"}}}));
    world.put(&resource::REPLICATION_CONTROLLER, "default", replication_controller(1));
    world.settle(|_| ());
    assert_eq!(world.list(&resource::POD).len(), 2);
    world.patch(&orphan.key(), &json!({"metadata": {"labels": {"app": "b"}}}));
    world.settle(|_| ());
    let orphan = world.cache.get(&resource::POD, "default", "orphan").unwrap();
    assert!(orphan.meta().owners.is_empty());
    assert_eq!(world.list(&resource::POD).len(), 3);
}

#[test]
fn deletion_takes_or_leaves_the_dependents_as_asked() {
    for (propagation, left) in [(Some("Background"), 0), (Some("Foreground"), 0), (Some("Orphan"), 2)] {
        let mut world = World::new(workloads());
        let deployment = world.put(&resource::DEPLOYMENT, "default", deployment(2, json!(1), json!(0)));
        world.settle(|_| ());
        assert_eq!(world.list(&resource::POD).len(), 2);
        world.delete(&deployment.key(), propagation);
        world.settle(|_| ());
        assert!(world.list(&resource::DEPLOYMENT).is_empty(), "{propagation:?}");
        assert_eq!(world.list(&resource::POD).len(), left, "{propagation:?}");
    }
}

#[test]
fn owners_that_are_not_where_they_should_be() {
    let mut world = World::new(workloads());
    let owner = |kind: &str, name: &str, uid: &str| json!([{"apiVersion": "v1", "kind": kind, "name": name, "uid": uid}]);
    let map = |name: &str, owners: Value| json!({"metadata": {"name": name, "ownerReferences": owners}});
    let elsewhere = world.put(&resource::CONFIG_MAP, "other", json!({"metadata": {"name": "owner"}})).meta().uid.to_string();
    let node = world.put(&resource::NODE, "", json!({"metadata": {"name": "n"}}));
    world.put(&resource::CONFIG_MAP, "default", map("by-a-node", owner("Node", "n", &node.meta().uid)));
    world.put(&resource::CONFIG_MAP, "default", map("by-another-namespaces", owner("ConfigMap", "owner", &elsewhere)));
    world.put(&resource::CONFIG_MAP, "default", map("by-a-stranger", owner("Stranger", "x", "x")));
    world.put(&resource::NODE, "", map("by-a-namespaced", owner("ConfigMap", "owner", &elsewhere)));
    world.settle(|_| ());
    let names = |world: &World| world.list(&resource::CONFIG_MAP).iter().map(|it| it.name().to_owned()).collect::<Vec<_>>();
    assert_eq!(names(&world), ["by-a-node", "by-a-stranger", "owner"]);
    assert_eq!(world.list(&resource::NODE).len(), 2);
    world.remove(&node.key());
    world.settle(|_| ());
    assert_eq!(names(&world), ["by-a-stranger", "owner"]);
}

#[test]
fn foreground_deletion_waits_for_those_that_block_it() {
    let mut world = World::new(workloads());
    let owner = world.put(&resource::CONFIG_MAP, "default", json!({"metadata": {"name": "owner"}}));
    let dependent = |name: &str, blocks: bool, uid: &str| {
        let owners = json!([{"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": uid, "blockOwnerDeletion": blocks}]);
        json!({"metadata": {"name": name, "ownerReferences": owners, "finalizers": ["example.com/hold"]}})
    };
    let blocking = world.put(&resource::SECRET, "default", dependent("blocking", true, &owner.meta().uid)).key();
    let other = world.put(&resource::SECRET, "default", dependent("other", false, &owner.meta().uid)).key();
    world.delete(&owner.key(), Some("Foreground"));
    world.settle(|_| ());
    assert_eq!(world.list(&resource::CONFIG_MAP).len(), 1);
    assert!(world.list(&resource::SECRET).iter().all(|it| it.meta().is_deleted()));
    world.patch(&blocking, &json!({"metadata": {"finalizers": null}}));
    world.settle(|_| ());
    assert_eq!((world.list(&resource::CONFIG_MAP).len(), world.list(&resource::SECRET).len()), (0, 1));
    world.patch(&other, &json!({"metadata": {"finalizers": null}}));
    assert!(world.list(&resource::SECRET).is_empty());
}

/// Owner references to ConfigMaps, all of which block.
fn blocking(owners: &[&crate::object::Object]) -> Value {
    let reference = |it: &&crate::object::Object| json!({"apiVersion": "v1", "kind": "ConfigMap", "name": it.name(), "uid": &*it.meta().uid, "blockOwnerDeletion": true});
    owners.iter().map(reference).collect()
}

fn names(world: &World, resource: crate::object::ResourceRef) -> Vec<String> {
    world.list(resource).iter().map(|it| it.name().to_owned()).collect()
}

fn uids(world: &World, name: &str) -> Vec<String> {
    let secret = world.cache.get(&resource::SECRET, "default", name).unwrap();
    secret.meta().owners.iter().map(|it| it.uid.to_string()).collect()
}

#[test]
fn what_another_owner_keeps_does_not_hold_up_a_foreground_deletion() {
    let mut world = World::new(workloads());
    let map = |name: &str| json!({"metadata": {"name": name}});
    let goes = world.put(&resource::CONFIG_MAP, "default", map("goes"));
    let stays = world.put(&resource::CONFIG_MAP, "default", map("stays"));
    world.put(&resource::SECRET, "default", json!({"metadata": {"name": "both", "ownerReferences": blocking(&[&goes, &stays])}}));
    world.put(&resource::SECRET, "default", json!({"metadata": {"name": "one", "ownerReferences": blocking(&[&goes])}}));
    world.delete(&goes.key(), Some("Foreground"));
    world.settle(|_| ());
    assert_eq!(
        (names(&world, &resource::CONFIG_MAP), names(&world, &resource::SECRET)),
        (vec!["stays".to_owned()], vec!["both".to_owned()])
    );
    assert_eq!(uids(&world, "both"), [stays.meta().uid.to_string()]);
}

#[test]
fn what_is_let_go_wakes_the_owner_that_waits_for_it() {
    // The driver knows a change only by the keys that it leads to.
    let mut world = World::new(Vec::new());
    let map = |name: &str| json!({"metadata": {"name": name}});
    let [goes, stays] = ["goes", "stays"].map(|it| world.put(&resource::CONFIG_MAP, "default", map(it)));
    world.delete(&goes.key(), Some("Foreground"));
    let both =
        world.put(&resource::SECRET, "default", json!({"metadata": {"name": "both", "ownerReferences": blocking(&[&goes, &stays])}}));
    let source = GarbageCollector.sources().into_iter().find(|it| it.resource == &resource::SECRET).unwrap();
    assert!((source.keys)(&world.cache, &both).contains(&goes.key()));
    let plan = GarbageCollector.plan(&world.cache, &goes.key(), world.now);
    assert_eq!((plan.writes.len(), plan.again), (1, Some(std::time::Duration::ZERO)));
}

#[test]
fn owners_of_each_other_do_not_wait_for_ever() {
    for deleted in [&[0][..], &[0, 1], &[2, 1, 0]] {
        let mut world = World::new(workloads());
        let uid = |at: usize| format!("uid-of-{at}");
        // Each owns the next, and the last the first; the second also owns one that is no part of it.
        for at in 0..3 {
            let before = (at + 2) % 3;
            let owner = json!([{"apiVersion": "v1", "kind": "ConfigMap", "name": before.to_string(), "uid": uid(before), "blockOwnerDeletion": true}]);
            world.put(
                &resource::CONFIG_MAP,
                "default",
                json!({"metadata": {"name": at.to_string(), "uid": uid(at), "ownerReferences": owner}}),
            );
        }
        let second = world.cache.get(&resource::CONFIG_MAP, "default", "1").unwrap();
        world.put(&resource::SECRET, "default", json!({"metadata": {"name": "s", "ownerReferences": blocking(&[&second])}}));
        for at in deleted {
            world.delete(&ObjectKey::new(&resource::CONFIG_MAP, "default", &at.to_string()), Some("Foreground"));
        }
        world.settle(|world| {
            let waits = world.cache.get(&resource::CONFIG_MAP, "default", "1").is_some();
            assert!(waits || world.list(&resource::SECRET).is_empty(), "it went before what blocks it");
        });
        assert_eq!((names(&world, &resource::CONFIG_MAP).len(), names(&world, &resource::SECRET).len()), (0, 0), "{deleted:?}");
    }
}

#[test]
fn owners_that_the_cache_does_not_know_yet_are_kept() {
    let mut world = World::new(workloads());
    let map = |name: &str| json!({"metadata": {"name": name}});
    let [lives, unseen, gone] = ["lives", "unseen", "gone"].map(|it| world.put(&resource::CONFIG_MAP, "default", map(it)));
    world.put(&resource::SECRET, "default", json!({"metadata": {"name": "some", "ownerReferences": blocking(&[&lives, &unseen, &gone])}}));
    world.put(&resource::SECRET, "default", json!({"metadata": {"name": "only", "ownerReferences": blocking(&[&unseen])}}));
    world.remove(&unseen.key());
    world.remove(&gone.key());
    world.unseen = vec![unseen.clone()];
    for _ in 0..3 {
        world.step(&mut |_| ());
    }
    assert_eq!(names(&world, &resource::SECRET), ["only", "some"]);
    assert_eq!(uids(&world, "some"), [lives.meta().uid.to_string(), unseen.meta().uid.to_string()]);
    world.unseen.clear();
    world.settle(|_| ());
    assert_eq!(names(&world, &resource::SECRET), ["some"]);
    assert_eq!(uids(&world, "some"), [lives.meta().uid.to_string()]);
}

#[test]
fn a_dependent_is_deleted_as_its_finalizers_ask() {
    for (finalizers, left) in [(json!([]), 0), (json!(["foregroundDeletion"]), 0), (json!(["orphan"]), 1)] {
        let mut world = World::new(workloads());
        let owner = world.put(&resource::CONFIG_MAP, "default", json!({"metadata": {"name": "owner"}}));
        let middle = json!({"metadata": {"name": "middle", "finalizers": finalizers, "ownerReferences": blocking(&[&owner])}});
        let middle = world.put(&resource::CONFIG_MAP, "default", middle);
        world.put(&resource::SECRET, "default", json!({"metadata": {"name": "last", "ownerReferences": blocking(&[&middle])}}));
        world.delete(&owner.key(), Some("Background"));
        world.settle(|_| ());
        assert_eq!((world.list(&resource::CONFIG_MAP).len(), world.list(&resource::SECRET).len()), (0, left), "{finalizers}");
    }
}

#[test]
fn only_active_orphans_become_replicas() {
    let mut world = World::new(workloads());
    let pod = |name: &str, phase: &str| json!({"metadata": {"name": name, "labels": {"app": "a"}}, "status": {"phase": phase}});
    world.put(&resource::POD, "default", pod("running", "Running"));
    world.put(&resource::POD, "default", pod("failed", "Failed"));
    let rc = world.put(&resource::REPLICATION_CONTROLLER, "default", replication_controller(1));
    world.settle(|_| ());
    let owned = |name: &str| {
        world.cache.get(&resource::POD, "default", name).unwrap().meta().controller().is_some_and(|it| it.uid == rc.meta().uid)
    };
    assert_eq!((world.list(&resource::POD).len(), owned("running"), owned("failed")), (2, true, false));
}

#[test]
fn pods_leave_the_nodes_that_have_most_of_their_deployment() {
    let mut world = World::new(workloads());
    let owner = json!([{"apiVersion": "apps/v1", "kind": "Deployment", "name": "web", "uid": "d", "controller": true}]);
    let pod = |name: &str, set: &str, node: &str| {
        let owner = json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": set, "uid": set, "controller": true}]);
        let metadata = json!({"name": name, "labels": {"app": set}, "ownerReferences": owner});
        let ready = json!([{"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}]);
        json!({"metadata": metadata, "spec": {"nodeName": node}, "status": {"phase": "Running", "conditions": ready}})
    };
    let set = |name: &str, replicas: u32| {
        let metadata = json!({"name": name, "uid": name, "ownerReferences": owner});
        json!({"metadata": metadata, "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": name}}, "template": template("i")}})
    };
    // The old version has one pod on each node, the new one two on the first.
    for (name, set, node) in [("old-x", "old", "x"), ("old-y", "old", "y"), ("new-1", "new", "x"), ("new-2", "new", "x")] {
        world.put(&resource::POD, "default", pod(name, set, node));
    }
    world.put(&resource::REPLICA_SET, "default", set("old", 1));
    world.put(&resource::REPLICA_SET, "default", set("new", 2));
    let plan = Replicas::replica_sets().plan(&world.cache, &ObjectKey::new(&resource::REPLICA_SET, "default", "old"), world.now);
    let deleted = plan.writes.iter().filter_map(|it| match it {
        super::plan::Write::Delete { key, .. } => Some(key.name.name.to_string()),
        _ => None,
    });
    assert_eq!(deleted.collect::<Vec<_>>(), ["old-x"]);
}

#[test]
fn the_highest_revision_there_can_be_is_the_last() {
    let mut world = World::new(workloads());
    let key = world.put(&resource::DEPLOYMENT, "default", deployment(1, json!(1), json!(0))).key();
    world.complete(|_| ());
    let set = world.list(&resource::REPLICA_SET).remove(0);
    let highest = i64::MAX.to_string();
    world.patch(&set.key(), &json!({"metadata": {"annotations": {"deployment.kubernetes.io/revision": highest}}}));
    world.patch(&key, &json!({"spec": {"template": template("i:2")}}));
    world.complete(|_| ());
    let revisions: Vec<_> =
        world.list(&resource::REPLICA_SET).iter().map(|it| annotation(&world, it, "deployment.kubernetes.io/revision")).collect();
    assert_eq!(revisions, [highest.clone(), highest]);
}

#[test]
fn whatever_its_templates_metadata_a_deployment_makes_one_version() {
    for metadata in [
        json!(null),
        json!({}),
        json!({"labels": null}),
        json!({"labels": {}, "annotations": {}}),
        json!({"creationTimestamp": null}),
        json!({"labels": {"pod-template-hash": "abc"}}),
        json!({"labels": {"app": "a", "pod-template-hash": "abc"}}),
        json!({"annotations": {"a": "b"}}),
    ] {
        let mut world = World::new(workloads());
        let mut it = deployment(2, json!(1), json!(0));
        it["spec"]["template"]["metadata"] = metadata.clone();
        it["spec"]["selector"] = json!({"matchExpressions": [{"key": "other", "operator": "DoesNotExist"}]});
        let key = world.put(&resource::DEPLOYMENT, "default", it).key();
        world.complete(|world| assert!(world.list(&resource::REPLICA_SET).len() <= 1, "{metadata}"));
        assert_eq!((world.list(&resource::REPLICA_SET).len(), world.list(&resource::POD).len()), (1, 2), "{metadata}");
        world.patch(&key, &json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "i:2"}]}}}}));
        world.complete(|world| assert!(world.list(&resource::REPLICA_SET).len() <= 2, "{metadata}"));
        assert_eq!(world.list(&resource::POD).len(), 2, "{metadata}");
    }
}

#[test]
fn a_namespace_is_emptied_before_it_goes() {
    let mut world = World::new(vec![Box::new(NamespaceController), Box::new(ServiceAccountController)]);
    let namespace = world.put(&resource::NAMESPACE, "", json!({"metadata": {"name": "n"}, "spec": {"finalizers": ["kubernetes"]}}));
    world.settle(|_| ());
    assert_eq!(world.list(&resource::SERVICE_ACCOUNT).len(), 1);
    world.put(&resource::CONFIG_MAP, "n", json!({"metadata": {"name": "held", "finalizers": ["example.com/hold"]}}));
    let pod = world.put(&resource::POD, "n", json!({"metadata": {"name": "p", "finalizers": ["example.com/hold"]}}));
    world.put(&resource::SECRET, "n", json!({"metadata": {"name": "s"}}));
    world.patch(&namespace.key(), &json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": ["example.com/hold"]}}));
    world.settle(|_| ());
    assert!(world.cache.get(&resource::POD, "n", "p").unwrap().meta().is_deleted());
    assert_eq!((world.list(&resource::SECRET).len(), world.list(&resource::SERVICE_ACCOUNT).len()), (1, 1), "while its pod ends");
    world.patch(&pod.key(), &json!({"metadata": {"finalizers": null}}));
    world.settle(|_| ());
    assert_eq!(world.list(&resource::SECRET).len(), 0);
    assert_eq!(
        (world.list(&resource::POD).len(), world.list(&resource::CONFIG_MAP).len(), world.list(&resource::NAMESPACE).len()),
        (0, 1, 1)
    );
    let condition = |world: &World, kind: &str| {
        let seen = super::plan::tree(&world.cache.get(&resource::NAMESPACE, "", "n").unwrap())["status"].take();
        let condition = super::conditions::find(&seen["conditions"], kind).unwrap();
        (condition["status"] == "True", condition["message"].as_str().unwrap().to_owned())
    };
    let told = |it: bool, message: &str| (it, message.to_owned());
    let remaining = "Some resources are remaining: configmaps. has 1 resource instances";
    assert_eq!(condition(&world, "NamespaceContentRemaining"), told(true, remaining));
    let held = "Some content in the namespace has finalizers remaining: example.com/hold in 1 resource instances";
    assert_eq!(condition(&world, "NamespaceFinalizersRemaining"), told(true, held));
    world.patch(&ObjectKey::new(&resource::CONFIG_MAP, "n", "held"), &json!({"metadata": {"finalizers": null}}));
    world.settle(|_| ());
    // It is empty, but a finalizer still holds it.
    assert_eq!(condition(&world, "NamespaceContentRemaining"), told(false, "All content successfully removed"));
    assert_eq!(condition(&world, "NamespaceFinalizersRemaining"), told(false, "All content-preserving finalizers finished"));
    assert!(super::plan::tree(&world.list(&resource::NAMESPACE)[0])["spec"]["finalizers"].as_array().is_none_or(Vec::is_empty));
    world.patch(&namespace.key(), &json!({"metadata": {"finalizers": null}}));
    assert!(world.list(&resource::NAMESPACE).is_empty() && world.list(&resource::SERVICE_ACCOUNT).is_empty());
}

#[test]
fn a_deployment_takes_no_more_writes_than_it_must() {
    let mut world = World::new(workloads());
    world.put(&resource::DEPLOYMENT, "default", deployment(3, json!(1), json!(0)));
    let mut writes = 0;
    world.settle(|_| writes += 1);
    // The deployment's status twice, the set, its pods, its status.
    assert_eq!((writes, world.list(&resource::POD).len()), (7, 3));
    let seen = status(&world, &resource::DEPLOYMENT, "web");
    assert_eq!((&seen["unavailableReplicas"], &seen["updatedReplicas"]), (&json!(3), &json!(3)));
    assert_eq!(progressing(&world), "ReplicaSetUpdated");
    // A replaced pod is reported once, when the new one exists.
    let pods = world.list(&resource::POD);
    world.complete(|_| ());
    world.remove(&pods[0].key());
    writes = 0;
    world.settle(|_| writes += 1);
    assert_eq!(writes, 3, "the pod, the set's status, the deployment's status");
}

/// The reason of the condition `Progressing` of the deployment `web`.
fn progressing(world: &World) -> String {
    let status = status(world, &resource::DEPLOYMENT, "web");
    let condition = status["conditions"].as_array().unwrap().iter().find(|it| it["type"] == "Progressing").unwrap();
    condition["reason"].as_str().unwrap().to_owned()
}

fn annotation(world: &World, object: &crate::object::Object, name: &str) -> Value {
    let now = world.cache.get(object.resource(), object.namespace(), object.name()).unwrap();
    super::plan::tree(&now)["metadata"]["annotations"][name].take()
}

#[test]
fn a_rollout_that_stands_still_is_told_of() {
    let mut world = World::new(workloads());
    let mut it = deployment(2, json!(1), json!(0));
    it["spec"]["progressDeadlineSeconds"] = 60.into();
    let key = world.put(&resource::DEPLOYMENT, "default", it).key();
    world.settle(|_| ());
    assert_eq!(progressing(&world), "ReplicaSetUpdated");
    world.pass(61);
    world.settle(|_| ());
    assert_eq!(progressing(&world), "ProgressDeadlineExceeded");
    // Progress after the deadline still counts.
    world.complete(|_| ());
    assert_eq!(progressing(&world), "NewReplicaSetAvailable");
    // A paused deployment has no deadline.
    world.patch(&key, &json!({"spec": {"paused": true, "template": template("i:2")}}));
    world.settle(|_| ());
    world.pass(1000);
    world.settle(|_| ());
    assert_eq!((progressing(&world).as_str(), world.list(&resource::REPLICA_SET).len()), ("DeploymentPaused", 1));
    world.patch(&key, &json!({"spec": {"replicas": 3}}));
    world.settle(|_| ());
    assert_eq!(world.list(&resource::POD).len(), 3, "what is paused is still scaled");
    world.patch(&key, &json!({"spec": {"paused": false}}));
    world.complete(|_| ());
    assert_eq!((progressing(&world).as_str(), world.list(&resource::REPLICA_SET).len()), ("NewReplicaSetAvailable", 2));
}

#[test]
fn an_annotation_leads_back_to_a_revision() {
    let mut world = World::new(workloads());
    let mut it = deployment(1, json!(1), json!(0));
    it["metadata"]["annotations"] = json!({"kubernetes.io/change-cause": "first"});
    let deployment = world.put(&resource::DEPLOYMENT, "default", it);
    let seen = |world: &World| super::plan::tree(&world.cache.get(&resource::DEPLOYMENT, "default", "web").unwrap());
    let back = |world: &mut World, to: &str| {
        world.complete(|_| ());
        world.told.clear();
        world.patch(&deployment.key(), &json!({"metadata": {"annotations": {"deprecated.deployment.rollback.to": to}}}));
        world.settle(|_| ());
        assert!(annotation(world, &deployment, "deprecated.deployment.rollback.to").is_null(), "{to}");
        world.told[0].clone()
    };
    assert_eq!(back(&mut world, "0"), "DeploymentRollbackRevisionNotFound: Unable to find last revision.");
    let cause = json!({"annotations": {"kubernetes.io/change-cause": "second"}});
    world.patch(&deployment.key(), &json!({"metadata": cause, "spec": {"template": template("i:2")}}));
    assert_eq!(back(&mut world, "7"), "DeploymentRollbackRevisionNotFound: Unable to find the revision to rollback to.");
    assert_eq!(
        back(&mut world, "2"),
        "DeploymentRollbackTemplateUnchanged: The rollback revision contains the same template as current deployment \"web\""
    );
    assert_eq!(back(&mut world, "0"), "DeploymentRollback: Rolled back deployment \"web\" to revision 1");
    let now = seen(&world);
    assert_eq!(now["spec"]["template"]["spec"]["containers"][0]["image"], "i:1");
    assert_eq!(now["spec"]["template"]["metadata"]["labels"], json!({"app": "a"}));
    assert_eq!(now["metadata"]["annotations"]["kubernetes.io/change-cause"], "first");
    assert_eq!(world.list(&resource::REPLICA_SET).len(), 2);
}

#[test]
fn the_numbers_of_a_scaling_are_noted_with_it() {
    let mut world = World::new(workloads());
    let deployment = world.put(&resource::DEPLOYMENT, "default", deployment(2, json!(1), json!(0)));
    world.complete(|_| ());
    let noted = |world: &World| -> Vec<Value> {
        let names = ["desired-replicas", "max-replicas"].map(|it| format!("deployment.kubernetes.io/{it}"));
        let sets = world.list(&resource::REPLICA_SET);
        sets.iter().map(|set| names.iter().map(|it| annotation(world, set, it)).collect()).collect()
    };
    assert_eq!(noted(&world), [json!(["2", "3"])]);
    // Another strategy alone is no scaling.
    world.patch(&deployment.key(), &json!({"spec": {"strategy": {"rollingUpdate": {"maxSurge": 2}}}}));
    world.complete(|_| ());
    assert_eq!(noted(&world), [json!(["2", "3"])]);
    world.patch(&deployment.key(), &json!({"spec": {"replicas": 0}}));
    world.complete(|_| ());
    assert_eq!(noted(&world), [json!(["0", "2"])]);
}

#[test]
fn going_back_is_a_new_revision_and_the_history_is_limited() {
    let mut world = World::new(workloads());
    let mut it = deployment(1, json!(1), json!(0));
    it["spec"]["revisionHistoryLimit"] = 2.into();
    it["metadata"]["annotations"] = json!({"kubernetes.io/change-cause": "first"});
    let deployment = world.put(&resource::DEPLOYMENT, "default", it);
    world.complete(|_| ());
    let first = world.list(&resource::REPLICA_SET).remove(0);
    for version in ["i:2", "i:1"] {
        let cause = json!({"annotations": {"kubernetes.io/change-cause": version}});
        world.patch(&deployment.key(), &json!({"metadata": cause, "spec": {"template": template(version)}}));
        world.complete(|_| ());
    }
    assert_eq!(annotation(&world, &first, "deployment.kubernetes.io/revision"), "3");
    assert_eq!(annotation(&world, &first, "deployment.kubernetes.io/revision-history"), "1");
    assert_eq!(annotation(&world, &first, "kubernetes.io/change-cause"), "i:1");
    assert_eq!(annotation(&world, &deployment, "deployment.kubernetes.io/revision"), "3");
    for version in 3..8 {
        world.patch(&deployment.key(), &json!({"spec": {"template": template(&format!("i:{version}"))}}));
        world.complete(|_| ());
    }
    let mut revisions: Vec<_> =
        world.list(&resource::REPLICA_SET).iter().map(|it| annotation(&world, it, "deployment.kubernetes.io/revision")).collect();
    revisions.sort_by_key(ToString::to_string);
    assert_eq!(revisions, ["6", "7", "8"]);
}

#[test]
fn the_recorded_numbers_follow_a_scale_to_zero() {
    let mut world = World::new(workloads());
    let key = world.put(&resource::DEPLOYMENT, "default", deployment(4, json!(1), json!(0))).key();
    world.complete(|_| ());
    let noted = |world: &World| {
        let version = world.list(&resource::REPLICA_SET).remove(0);
        ["desired-replicas", "max-replicas"].map(|it| annotation(world, &version, &format!("deployment.kubernetes.io/{it}")))
    };
    assert_eq!(noted(&world), ["4", "5"]);
    world.patch(&key, &json!({"spec": {"replicas": 0}}));
    world.complete(|_| ());
    assert_eq!(noted(&world), ["0", "1"]);
}

#[test]
fn recreation_waits_for_the_end_of_all_older_pods() {
    let mut world = World::new(workloads());
    let mut it = deployment(2, json!(1), json!(0));
    it["spec"]["strategy"] = json!({"type": "Recreate"});
    let key = world.put(&resource::DEPLOYMENT, "default", it).key();
    world.complete(|_| ());
    // One of them is slow.
    let slow = world.list(&resource::POD).remove(0);
    world.patch(&slow.key(), &json!({"metadata": {"finalizers": ["example.com/slow"]}}));
    world.patch(&key, &json!({"spec": {"template": template("i:2")}}));
    let is_new = |it: &crate::object::Object| super::plan::tree(it)["spec"]["containers"][0]["image"] == "i:2";
    world.settle(|world| assert!(!world.list(&resource::POD).iter().any(|it| is_new(it)), "an old pod is still there"));
    assert_eq!(world.list(&resource::POD).len(), 1);
    world.patch(&slow.key(), &json!({"metadata": {"finalizers": null}}));
    world.complete(|_| ());
    assert!(world.list(&resource::POD).len() == 2 && world.list(&resource::POD).iter().all(|it| is_new(it)));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// A rollout never has more pods than the surge allows nor fewer available than the strategy promises, and ends.
    #[test]
    fn rollouts_stay_within_their_limits(
        replicas in 1_u32..8,
        surge in 0_u32..3,
        unavailable in 0_u32..3,
        order in proptest::collection::vec(0_usize..100, 1..40),
    ) {
        let mut world = World::new(workloads());
        let key = world.put(&resource::DEPLOYMENT, "default", deployment(replicas, json!(surge), json!(unavailable))).key();
        world.settle(|_| ());
        let pods = world.list(&resource::POD);
        prop_assert_eq!(pods.len(), replicas as usize);
        world.make_ready(&pods);
        world.settle(|_| ());
        let unavailable = if surge == 0 && unavailable == 0 { 1 } else { unavailable };
        world.patch(&key, &json!({"metadata": {"generation": 2}, "spec": {"template": template("i:2")}}));
        let check = |world: &World| {
            let pods = world.list(&resource::POD);
            let available = pods.iter().filter(|it| super::pods::is_ready(it)).count();
            assert!(pods.len() <= (replicas + surge) as usize, "{} pods, {replicas} + {surge} allowed", pods.len());
            assert!(available >= replicas.saturating_sub(unavailable) as usize, "{available} available of {replicas} - {unavailable}");
        };
        world.settle(check);
        for at in order.iter().cycle().take(200) {
            let waiting: Vec<_> = world.list(&resource::POD).into_iter().filter(|it| !super::pods::is_ready(it)).collect();
            if waiting.is_empty() {
                break;
            }
            world.make_ready(&waiting[at % waiting.len()..][..1]);
            world.pass(1);
            world.settle(check);
        }
        let pods = world.list(&resource::POD);
        prop_assert_eq!(pods.len(), replicas as usize);
        let new = |it: &std::sync::Arc<crate::object::Object>| super::plan::tree(it)["spec"]["containers"][0]["image"] == "i:2";
        prop_assert!(pods.iter().all(new));
        let seen = status(&world, &resource::DEPLOYMENT, "web");
        prop_assert_eq!(&seen["updatedReplicas"], &json!(replicas));
        let progressing = seen["conditions"].as_array().unwrap().iter().find(|it| it["type"] == "Progressing").unwrap();
        prop_assert_eq!(&progressing["reason"], &json!("NewReplicaSetAvailable"));
    }
}
