//! The choice of volumes for claims on a node.

use serde_json::{Value, json};

use super::super::demand::tests::{object, rules};
use super::*;
use crate::object::resource::{PERSISTENT_VOLUME, PERSISTENT_VOLUME_CLAIM, STORAGE_CLASS};

fn volume(name: &str, size: &str, key: &str, value: Option<&str>) -> Arc<Object> {
    let expression = value.map(|it| json!([{"key": key, "operator": "In", "values": [it]}]));
    let list = if key == "metadata.name" { "matchFields" } else { "matchExpressions" };
    let affinity = expression.map(|it| json!({"required": {"nodeSelectorTerms": [{list: it}]}}));
    let volume = json!({"metadata": {"name": name}, "spec": {"storageClassName": "s", "capacity": {"storage": size}, "nodeAffinity": affinity},
        "status": {"phase": "Available"}});
    Object::from_stored(&PERSISTENT_VOLUME, volume.to_string().as_bytes(), 1).unwrap()
}

fn claim(name: &str, size: &str, more: Value) -> Arc<Object> {
    let mut claim = json!({"metadata": {"name": name, "namespace": "n", "uid": name},
        "spec": {"storageClassName": "s", "resources": {"requests": {"storage": size}}}});
    claim["spec"].as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    Object::from_stored(&PERSISTENT_VOLUME_CLAIM, claim.to_string().as_bytes(), 1).unwrap()
}

fn node(name: &str, zone: &str) -> NodeFacts {
    NodeFacts { name: name.into(), labels: vec![("zone".into(), zone.into())], ..NodeFacts::default() }
}

fn request(size: &str) -> Arc<Request> {
    storage::claim(&claim("c", size, json!({}))).asks.clone()
}

/// Only a class, without volumes.
fn storage() -> Storage {
    let mut storage = Storage::new(Duration::from_secs(600));
    let class = json!({"metadata": {"name": "s"}, "provisioner": storage::NO_PROVISIONER, "volumeBindingMode": "WaitForFirstConsumer"});
    storage.class(Object::from_stored(&STORAGE_CLASS, class.to_string().as_bytes(), 1).unwrap());
    storage
}

/// A waiting pod with these claims.
fn waiting(storage: &mut Storage, name: &str, claims: &[&str]) -> PodFacts {
    let volumes: Vec<Value> = claims.iter().map(|it| json!({"name": it, "persistentVolumeClaim": {"claimName": it}})).collect();
    let pod =
        json!({"metadata": {"name": name, "namespace": "n", "uid": name}, "spec": {"containers": [{"name": "c"}], "volumes": volumes}});
    let mut facts = PodFacts::read(&object(&pod), &rules()).unwrap();
    storage.wait(Duration::ZERO, &mut facts);
    facts
}

#[test]
fn the_smallest_volume_that_a_node_has() {
    let mut shelves = Shelves::default();
    for volume in [
        volume("anywhere", "9Gi", "", None),
        volume("zone", "5Gi", "zone", Some("z")),
        volume("node", "3Gi", "metadata.name", Some("a")),
        volume("other", "1Gi", "metadata.name", Some("b")),
    ] {
        shelves.put(volume);
    }
    let found = |shelves: &Shelves, size: &str, node: &NodeFacts, but: &[&str]| {
        shelves.find(&request(size), node, but).map_or_else(String::new, |it| it.name().to_owned())
    };
    let (a, far) = (node("a", "z"), node("c", "y"));
    assert_eq!(found(&shelves, "1Gi", &a, &[]), "node");
    assert_eq!(found(&shelves, "1Gi", &a, &["node"]), "zone");
    assert_eq!(found(&shelves, "4Gi", &a, &[]), "zone");
    assert_eq!(found(&shelves, "6Gi", &a, &[]), "anywhere");
    assert_eq!(found(&shelves, "10Gi", &a, &[]), "");
    assert_eq!(found(&shelves, "1Gi", &far, &[]), "anywhere");
    let d = Name::new("n", "d");
    shelves.speak_for("node", &d, Why::Chosen);
    shelves.speak_for("node", &d, Why::Named);
    assert_eq!(found(&shelves, "1Gi", &a, &[]), "zone");
    shelves.withdraw("node", &d, Why::Chosen);
    assert_eq!(found(&shelves, "1Gi", &a, &[]), "zone");
    shelves.withdraw("node", &d, Why::Named);
    assert_eq!(found(&shelves, "1Gi", &a, &[]), "node");
    assert!(shelves.is_hopeless(&request("10Gi")) && !shelves.is_hopeless(&request("9Gi")));
    shelves.remove("anywhere");
    assert!(shelves.is_hopeless(&request("9Gi")));
    assert_eq!((shelves.claims("zone").len(), shelves.is_free("zone"), shelves.is_free("anywhere")), (0, true, false));
}

#[test]
fn claims_of_one_pod_get_different_volumes() {
    let mut storage = storage();
    storage.volume(volume("small", "5Gi", "", None));
    storage.volume(volume("large", "9Gi", "", None));
    storage.claim(claim("c", "2Gi", json!({})));
    storage.claim(claim("d", "1Gi", json!({})));
    let mut chosen = |claims: &[&str]| {
        let pod = waiting(&mut storage, "p", claims);
        let chosen = storage.choose(&pod.demand.needs, &node("a", "z"))?;
        let pairs = pod.wanted.unbound.iter().zip(chosen);
        Some(pairs.map(|(claim, volume)| format!("{}={}", claim.name, volume.unwrap())).collect::<Vec<_>>().join(" "))
    };
    assert_eq!(chosen(&["c", "d"]).as_deref(), Some("d=small c=large"), "the one that asks for less chooses first");
    assert_eq!(chosen(&["c"]).as_deref(), Some("c=small"));
    storage.claim(claim("e", "1Gi", json!({})));
    let mut chosen = |claims: &[&str]| {
        let pod = waiting(&mut storage, "p", claims);
        storage.choose(&pod.demand.needs, &node("a", "z"))
    };
    assert_eq!(chosen(&["c", "d", "e"]), None);
}

#[test]
fn pods_whose_claims_ask_for_the_same_are_alike_unless_a_volume_is_meant_for_one() {
    let mut storage = storage();
    for (name, size) in [("a", "1Gi"), ("b", "1024Mi"), ("c", "2Gi"), ("mine", "1Gi")] {
        storage.claim(claim(name, size, json!({})));
    }
    storage.volume(volume("v", "5Gi", "", None));
    let mut demand = |name: &str| waiting(&mut storage, &format!("p-{name}"), &[name]).demand;
    assert_eq!(demand("a"), demand("b"));
    assert_ne!(demand("a"), demand("c"));
    assert_eq!(demand("a"), demand("mine"));
    storage.take_stirred();
    let mut meant = json!({"metadata": {"name": "w"}, "spec": {"storageClassName": "s", "capacity": {"storage": "1Gi"},
        "claimRef": {"namespace": "n", "name": "mine"}}, "status": {"phase": "Available"}});
    storage.volume(Object::from_stored(&PERSISTENT_VOLUME, meant.to_string().as_bytes(), 2).unwrap());
    assert_eq!(storage.take_stirred().again.into_iter().map(|it| it.to_string()).collect::<Vec<_>>(), ["n/p-mine"], "to look again");
    let pod = waiting(&mut storage, "p-mine", &["mine"]);
    assert_ne!(pod.demand, waiting(&mut storage, "p-a", &["a"]).demand);
    assert_eq!(storage.choose(&pod.demand.needs, &node("a", "z")), Some(vec![Some("w".into())]));
    meant["spec"]["claimRef"]["name"] = "another".into();
    storage.volume(Object::from_stored(&PERSISTENT_VOLUME, meant.to_string().as_bytes(), 3).unwrap());
    assert!(storage.take_stirred().again.contains(&pod.name));
    assert_eq!(waiting(&mut storage, "p-mine", &["mine"]).demand, waiting(&mut storage, "p-a", &["a"]).demand);
}
