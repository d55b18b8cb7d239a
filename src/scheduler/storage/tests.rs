//! Which volumes there are for a claim on a node.

use serde_json::{Value, json};

use super::*;
use crate::object::resource::{PERSISTENT_VOLUME, PERSISTENT_VOLUME_CLAIM};

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
        shelves.find(&claim("c", size, json!({})), node, but).map_or_else(String::new, |it| it.name().to_owned())
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
    assert!(shelves.is_hopeless(&claim("c", "10Gi", json!({}))) && !shelves.is_hopeless(&claim("c", "9Gi", json!({}))));
    shelves.remove("anywhere");
    assert!(shelves.is_hopeless(&claim("c", "9Gi", json!({}))));
    assert_eq!(shelves.claims("zone").count(), 0);
}

#[test]
fn claims_of_one_pod_get_different_volumes() {
    let mut storage = Storage::new(Duration::from_secs(600));
    let class = json!({"metadata": {"name": "s"}, "provisioner": storage::NO_PROVISIONER, "volumeBindingMode": "WaitForFirstConsumer"});
    storage.class(Object::from_stored(&crate::object::resource::STORAGE_CLASS, class.to_string().as_bytes(), 1).unwrap());
    storage.volume(volume("small", "5Gi", "", None));
    storage.volume(volume("large", "9Gi", "", None));
    storage.claim(claim("c", "2Gi", json!({})));
    storage.claim(claim("d", "1Gi", json!({})));
    let wanted = |claims: &[&str]| Wanted { unbound: claims.iter().map(|it| Name::new("n", it)).collect(), exclusive: Vec::new() };
    let chosen = |claims: &[&str]| {
        let chosen = storage.choose(&wanted(claims), &node("a", "z"))?;
        Some(chosen.into_iter().map(|it| format!("{}={}", it.claim.name, it.volume.unwrap())).collect::<Vec<_>>().join(" "))
    };
    assert_eq!(chosen(&["c", "d"]).as_deref(), Some("d=small c=large"), "the one that asks for less chooses first");
    assert_eq!(chosen(&["c"]).as_deref(), Some("c=small"));
    assert_eq!(chosen(&["c", "d", "e"]), None);
}
