//! Volumes and claims, from their creation to the end.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::controllers::simulation::World;
use crate::object::ResourceRef;

fn world() -> World {
    World::new(vec![Box::new(VolumeController), Box::new(ProtectionController)])
}

fn volume(name: &str, size: &str, more: Value) -> Value {
    let mut spec = json!({"capacity": {"storage": size}, "accessModes": ["ReadWriteOnce"], "hostPath": {"path": "/tmp/x"}});
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    json!({"metadata": {"name": name}, "spec": spec, "status": {"phase": "Pending"}})
}

fn claim(name: &str, size: &str, more: Value) -> Value {
    let mut spec = json!({"resources": {"requests": {"storage": size}}, "accessModes": ["ReadWriteOnce"]});
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    json!({"metadata": {"name": name}, "spec": spec, "status": {"phase": "Pending"}})
}

fn seen(world: &World, resource: ResourceRef, name: &str) -> Value {
    world.cache.get(resource, if resource.namespaced { "default" } else { "" }, name).map(|it| tree(&it)).unwrap_or_default()
}

/// The phases of a volume and a claim; empty if deleted.
fn phases(world: &World, volume: &str, claim: &str) -> (String, String) {
    let phase = |resource, name| seen(world, resource, name)["status"]["phase"].as_str().unwrap_or_default().to_owned();
    (phase(&resource::PERSISTENT_VOLUME, volume), phase(&resource::PERSISTENT_VOLUME_CLAIM, claim))
}

fn pair(volume: &str, claim: &str) -> (String, String) {
    (volume.to_owned(), claim.to_owned())
}

#[test]
fn a_claim_is_bound_and_its_volume_released() {
    for (policy, after) in [("Retain", "Released"), ("Delete", "Failed"), ("Recycle", "Failed")] {
        let mut world = world();
        let claimed = world.put(&resource::PERSISTENT_VOLUME_CLAIM, "default", claim("c", "5Gi", json!({}))).key();
        world.settle(|_| ());
        assert_eq!(phases(&world, "v", "c"), pair("", "Pending"));
        let made = world.put(&resource::PERSISTENT_VOLUME, "", volume("v", "10Gi", json!({"persistentVolumeReclaimPolicy": policy}))).key();
        world.settle(|_| ());
        assert_eq!(phases(&world, "v", "c"), pair("Bound", "Bound"));
        let bound = seen(&world, &resource::PERSISTENT_VOLUME_CLAIM, "c");
        assert_eq!((&bound["spec"]["volumeName"], &bound["status"]["capacity"]["storage"]), (&json!("v"), &json!("10Gi")));
        assert_eq!(bound["metadata"]["annotations"], json!({BIND_COMPLETED: "yes", BOUND_BY_CONTROLLER: "yes"}));
        assert_eq!(seen(&world, &resource::PERSISTENT_VOLUME, "v")["spec"]["claimRef"]["uid"], bound["metadata"]["uid"]);

        // While it is bound, the volume only looks deleted.
        world.delete(&made, None);
        world.settle(|_| ());
        assert_eq!(phases(&world, "v", "c"), pair("Bound", "Bound"));
        world.patch(&made, &json!({"metadata": {"deletionTimestamp": null}}));
        world.delete(&claimed, None);
        world.settle(|_| ());
        assert_eq!(phases(&world, "v", "c"), pair(after, ""), "{policy}");
        world.delete(&made, None);
        world.settle(|_| ());
        assert_eq!(phases(&world, "v", "c"), pair("", ""));
    }
}

#[test]
fn nothing_is_given_up_because_a_cache_is_behind() {
    let mut world = world();
    let key = world.put(&resource::PERSISTENT_VOLUME_CLAIM, "default", claim("c", "5Gi", json!({}))).key();
    world.put(&resource::PERSISTENT_VOLUME, "", volume("v", "10Gi", json!({})));
    world.settle(|_| ());
    assert_eq!(phases(&world, "v", "c"), pair("Bound", "Bound"));
    // The watch of pods is behind that of claims.
    let volumes = json!([{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]);
    let pod = json!({"metadata": {"name": "p"}, "spec": {"nodeName": "n", "containers": [], "volumes": volumes}});
    let pod = world.put(&resource::POD, "default", pod);
    world.remove(&pod.key());
    world.unseen = vec![pod];
    world.delete(&key, None);
    world.step(&mut |_| ());
    let held = world.cache.get(&resource::PERSISTENT_VOLUME_CLAIM, "default", "c").expect("a pod uses it");
    // That of claims is behind that of volumes.
    world.remove(&key);
    world.unseen = vec![held];
    world.step(&mut |_| ());
    assert_eq!(phases(&world, "v", "c"), pair("Bound", ""));
    world.unseen.clear();
    world.settle(|_| ());
    assert_eq!(phases(&world, "v", "c"), pair("Released", ""));
}

#[test]
fn a_default_class_that_comes_later_is_given_to_claims_that_wait_without() {
    let mut world = world();
    for (name, more) in [("waits", json!({})), ("none", json!({"storageClassName": ""})), ("other", json!({"storageClassName": "x"}))] {
        world.put(&resource::PERSISTENT_VOLUME_CLAIM, "default", claim(name, "5Gi", more));
    }
    world.put(&resource::PERSISTENT_VOLUME_CLAIM, "default", claim("bound", "1Gi", json!({})));
    world.put(&resource::PERSISTENT_VOLUME, "", volume("v", "1Gi", json!({})));
    world.settle(|_| ());
    let annotations = json!({"storageclass.kubernetes.io/is-default-class": "true"});
    let class = json!({"metadata": {"name": "fast", "annotations": annotations}, "provisioner": "example.com/disk"});
    world.put(&resource::STORAGE_CLASS, "", class);
    world.settle(|_| ());
    let class = |name: &str| seen(&world, &resource::PERSISTENT_VOLUME_CLAIM, name)["spec"]["storageClassName"].take();
    assert_eq!((class("waits"), class("none"), class("other"), class("bound")), (json!("fast"), json!(""), json!("x"), Value::Null));
    let asked = seen(&world, &resource::PERSISTENT_VOLUME_CLAIM, "waits");
    assert_eq!(asked["metadata"]["annotations"]["volume.kubernetes.io/storage-provisioner"], "example.com/disk");
}

#[test]
fn a_claim_stays_while_a_pod_uses_it() {
    let mut world = world();
    let key = world.put(&resource::PERSISTENT_VOLUME_CLAIM, "default", claim("c", "5Gi", json!({}))).key();
    let volumes = json!([{"name": "data", "persistentVolumeClaim": {"claimName": "c"}}]);
    let pod = world.put(&resource::POD, "default", json!({"metadata": {"name": "p"}, "spec": {"nodeName": "n", "volumes": volumes}})).key();
    world.settle(|_| ());
    world.delete(&key, None);
    world.settle(|_| ());
    assert!(world.cache.get(&resource::PERSISTENT_VOLUME_CLAIM, "default", "c").is_some());
    world.remove(&pod);
    world.settle(|_| ());
    assert!(world.cache.get(&resource::PERSISTENT_VOLUME_CLAIM, "default", "c").is_none());
}

#[test]
fn volumes_and_claims_that_name_each_other() {
    let mut world = world();
    world.put(&resource::PERSISTENT_VOLUME, "", volume("small", "1Gi", json!({})));
    world.put(&resource::PERSISTENT_VOLUME, "", volume("meant", "20Gi", json!({"claimRef": {"namespace": "default", "name": "c"}})));
    world.settle(|_| ());
    assert_eq!(phases(&world, "meant", "").0, "Available");
    world.put(&resource::PERSISTENT_VOLUME_CLAIM, "default", claim("c", "1Gi", json!({})));
    world.put(&resource::PERSISTENT_VOLUME_CLAIM, "default", claim("too-large", "5Gi", json!({"volumeName": "small"})));
    world.settle(|_| ());
    assert_eq!(phases(&world, "meant", "c"), pair("Bound", "Bound"));
    assert_eq!(phases(&world, "small", "too-large"), pair("Available", "Pending"));
    world.put(&resource::PERSISTENT_VOLUME_CLAIM, "default", claim("by-name", "1Gi", json!({"volumeName": "small"})));
    world.settle(|_| ());
    assert_eq!(phases(&world, "small", "by-name"), pair("Bound", "Bound"));
    let annotations = seen(&world, &resource::PERSISTENT_VOLUME_CLAIM, "by-name")["metadata"]["annotations"].take();
    assert_eq!(annotations, json!({BIND_COMPLETED: "yes"}));
    // The volume is deleted in spite of its protection.
    world.remove(&ObjectKey::new(&resource::PERSISTENT_VOLUME, "", "small"));
    world.settle(|_| ());
    assert_eq!(phases(&world, "small", "by-name"), pair("", "Lost"));
}

#[test]
fn some_classes_wait_for_the_first_consumer() {
    let mut world = world();
    let class = json!({"metadata": {"name": "local"}, "provisioner": storage::NO_PROVISIONER, "volumeBindingMode": "WaitForFirstConsumer"});
    world.put(&resource::STORAGE_CLASS, "", class);
    for node in ["a", "b"] {
        let terms = json!([{"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]}]);
        let affinity = json!({"storageClassName": "local", "nodeAffinity": {"required": {"nodeSelectorTerms": terms}}});
        world.put(&resource::PERSISTENT_VOLUME, "", volume(&format!("on-{node}"), "5Gi", affinity));
        world.put(&resource::NODE, "", json!({"metadata": {"name": node}}));
    }
    world.put(&resource::PERSISTENT_VOLUME_CLAIM, "default", claim("c", "5Gi", json!({"storageClassName": "local"})));
    let volumes = json!([{"name": "data", "persistentVolumeClaim": {"claimName": "c"}}]);
    world.put(&resource::POD, "default", json!({"metadata": {"name": "p"}, "spec": {"nodeName": "b", "volumes": volumes}}));
    world.settle(|_| ());
    assert_eq!(phases(&world, "on-b", "c"), pair("Available", "Pending"), "the scheduler chooses");
    let [claim, volume] = [(&resource::PERSISTENT_VOLUME_CLAIM, "default", "c"), (&resource::PERSISTENT_VOLUME, "", "on-b")]
        .map(|(resource, namespace, name)| world.cache.get(resource, namespace, name).unwrap());
    world.patch(&volume.key(), &storage::reservation(&volume, &claim));
    world.settle(|_| ());
    assert_eq!(phases(&world, "on-b", "c"), pair("Bound", "Bound"));
}

#[test]
fn provisioners_that_wait_are_told_the_node() {
    let mut world = world();
    let class = json!({"metadata": {"name": "disk"}, "provisioner": "example.com/disk", "volumeBindingMode": "WaitForFirstConsumer"});
    world.put(&resource::STORAGE_CLASS, "", class);
    let claim = world.put(&resource::PERSISTENT_VOLUME_CLAIM, "default", claim("c", "5Gi", json!({"storageClassName": "disk"}))).key();
    world.settle(|_| ());
    let asked = |world: &World| seen(world, &resource::PERSISTENT_VOLUME_CLAIM, "c")["metadata"]["annotations"][PROVISIONER[1]].take();
    assert_eq!(asked(&world), Value::Null);
    world.patch(&claim, &json!({"metadata": {"annotations": {storage::SELECTED_NODE: "n"}}}));
    world.settle(|_| ());
    assert_eq!(asked(&world), "example.com/disk");
}

#[test]
fn provisioners_are_asked() {
    let mut world = world();
    world.put(
        &resource::STORAGE_CLASS,
        "",
        json!({"metadata": {"name": "nfs"}, "provisioner": "example.com/nfs", "volumeBindingMode": "Immediate"}),
    );
    world.put(&resource::PERSISTENT_VOLUME_CLAIM, "default", claim("c", "5Gi", json!({"storageClassName": "nfs"})));
    world.settle(|_| ());
    let annotations = seen(&world, &resource::PERSISTENT_VOLUME_CLAIM, "c")["metadata"]["annotations"].take();
    assert_eq!(annotations[PROVISIONER[1]], "example.com/nfs");
    let uid = seen(&world, &resource::PERSISTENT_VOLUME_CLAIM, "c")["metadata"]["uid"].clone();
    let mut made = volume("pvc-1", "5Gi", json!({"storageClassName": "nfs", "persistentVolumeReclaimPolicy": "Delete"}));
    made["spec"]["claimRef"] = json!({"namespace": "default", "name": "c", "uid": uid});
    made["metadata"]["annotations"] = json!({storage::PROVISIONED_BY: "example.com/nfs"});
    world.put(&resource::PERSISTENT_VOLUME, "", made);
    world.settle(|_| ());
    assert_eq!(phases(&world, "pvc-1", "c"), pair("Bound", "Bound"));
    world.delete(&ObjectKey::new(&resource::PERSISTENT_VOLUME_CLAIM, "default", "c"), None);
    world.settle(|_| ());
    assert_eq!(phases(&world, "pvc-1", "c"), pair("Released", ""), "its provisioner deletes it");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    /// With random changes: no volume belongs to two claims, and every claim that can be bound is.
    #[test]
    fn every_binding_is_of_one_pair(steps in prop::collection::vec((any::<bool>(), 0..4_u32, prop::option::of(1..4_u32)), 1..24)) {
        let mut world = world();
        let check = |world: &World| {
            let claims = world.list(&resource::PERSISTENT_VOLUME_CLAIM);
            let mut named: Vec<Value> = claims.iter().map(|it| tree(it)["spec"]["volumeName"].take()).filter(|it| !it.is_null()).collect();
            let all = named.len();
            named.sort_by_key(Value::to_string);
            named.dedup();
            assert_eq!(named.len(), all, "two claims name one volume");
            for bound in claims.iter().map(|it| tree(it)).filter(|it| it["status"]["phase"] == "Bound") {
                let volume = seen(world, &resource::PERSISTENT_VOLUME, bound["spec"]["volumeName"].as_str().unwrap());
                assert!(volume.is_null() || volume["spec"]["claimRef"]["uid"] == bound["metadata"]["uid"], "{bound} {volume}");
            }
        };
        for (is_volume, at, size) in steps {
            let resource: ResourceRef = if is_volume { &resource::PERSISTENT_VOLUME } else { &resource::PERSISTENT_VOLUME_CLAIM };
            let (namespace, name) = (if is_volume { "" } else { "default" }, format!("x{at}"));
            let there = world.cache.get(resource, namespace, &name).is_some();
            match size.map(|it| format!("{it}Gi")) {
                None => world.delete(&ObjectKey::new(resource, namespace, &name), None),
                Some(size) if !there && is_volume => drop(world.put(resource, namespace, volume(&name, &size, json!({})))),
                Some(size) if !there => drop(world.put(resource, namespace, claim(&name, &size, json!({})))),
                Some(_) => {}
            }
            world.settle(check);
        }
        // No claim waits for a volume that is free.
        let size = |it: &Value| it.as_str().unwrap().trim_end_matches("Gi").parse::<u32>().unwrap();
        let volumes: Vec<Value> = world.list(&resource::PERSISTENT_VOLUME).iter().map(|it| tree(it)).collect();
        let free = volumes.iter().filter(|it| it["status"]["phase"] == "Available").map(|it| size(&it["spec"]["capacity"]["storage"])).max();
        for waiting in world.list(&resource::PERSISTENT_VOLUME_CLAIM).iter().map(|it| tree(it)).filter(|it| it["status"]["phase"] == "Pending") {
            prop_assert!(free.is_none_or(|free| free < size(&waiting["spec"]["resources"]["requests"]["storage"])), "{waiting}");
        }
    }
}

#[test]
fn a_volume_wakes_claims_of_its_class_and_the_one_that_names_it() {
    let mut world = world();
    let [alike, another] = ["", "another"].map(|class| {
        let it = claim(&format!("of-{class}"), "5Gi", json!({"storageClassName": class}));
        world.put(&resource::PERSISTENT_VOLUME_CLAIM, "default", it).key()
    });
    let named = world.put(&resource::PERSISTENT_VOLUME_CLAIM, "default", claim("c", "5Gi", json!({"volumeName": "v"}))).key();
    let volume = world.put(&resource::PERSISTENT_VOLUME, "", volume("v", "10Gi", json!({})));
    let sources = VolumeController.sources();
    let woken: Vec<_> =
        sources.iter().filter(|it| it.resource == volume.resource()).flat_map(|it| (it.keys)(&world.cache, &volume)).collect();
    assert!(woken.contains(&named) && woken.contains(&alike) && !woken.contains(&another), "{woken:?}");
    world.remove(&alike);
    world.settle(|_| ());
    assert_eq!(phases(&world, "v", "c"), pair("Bound", "Bound"));
}

#[test]
fn a_claim_that_waits_says_for_whom() {
    let mut world = world();
    let class = json!({"metadata": {"name": "local"}, "provisioner": storage::NO_PROVISIONER, "volumeBindingMode": "WaitForFirstConsumer"});
    world.put(&resource::STORAGE_CLASS, "", class);
    world.put(&resource::PERSISTENT_VOLUME_CLAIM, "default", claim("c", "5Gi", json!({"storageClassName": "local"})));
    world.settle(|_| ());
    assert_eq!(world.told.last().unwrap(), "WaitForFirstConsumer: waiting for first consumer to be created before binding");
    let user = |name: &str| json!({"metadata": {"name": name}, "spec": {"containers": [], "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]}});
    world.put(&resource::POD, "default", user("a"));
    world.settle(|_| ());
    assert_eq!(world.told.last().unwrap(), "WaitForPodScheduled: waiting for pod a to be scheduled");
    world.put(&resource::POD, "default", user("b"));
    world.settle(|_| ());
    assert_eq!(world.told.last().unwrap(), "WaitForPodScheduled: waiting for pods a,b to be scheduled");
}

#[test]
fn a_pod_brings_its_claim() {
    let mut world = World::new(vec![Box::new(EphemeralController)]);
    let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": claim("x", "1Gi", json!({}))["spec"]});
    let pod = |name: &str| {
        let volumes = json!([{"name": "v", "ephemeral": {"volumeClaimTemplate": template}}, {"name": "w", "emptyDir": {}}]);
        json!({"metadata": {"name": name}, "spec": {"containers": [], "volumes": volumes}})
    };
    let made = world.put(&resource::POD, "default", pod("p"));
    assert_eq!((&*pods::facts(&made).claims, pods::facts(&made).brings_claims), (&["p-v".into()][..], true));
    world.put(&resource::PERSISTENT_VOLUME_CLAIM, "default", claim("q-v", "1Gi", json!({})));
    world.put(&resource::POD, "default", pod("q"));
    world.settle(|_| ());
    let brought = seen(&world, &resource::PERSISTENT_VOLUME_CLAIM, "p-v");
    assert_eq!((&brought["metadata"]["labels"]["a"], &brought["metadata"]["ownerReferences"][0]["name"]), (&json!("b"), &json!("p")));
    assert_eq!(world.list(&resource::PERSISTENT_VOLUME_CLAIM).len(), 2);
    let told = "FailedBinding: ephemeral volume v: PVC default/q-v was not created for pod default/q (pod is not owner)";
    assert_eq!(world.told.last().unwrap(), told);
}
