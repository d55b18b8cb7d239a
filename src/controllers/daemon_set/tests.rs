//! DaemonSets on a simulated cluster.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{DaemonSetController, daemon};
use crate::controllers::gc::GarbageCollector;
use crate::controllers::plan::{Controller, tree};
use crate::controllers::pods;
use crate::controllers::simulation::World;
use crate::object::{ObjectKey, resource};

fn template(image: &str) -> Value {
    json!({"metadata": {"labels": {"app": "log"}}, "spec": {"containers": [{"name": "c", "image": image}]}})
}

fn set(strategy: Value) -> Value {
    json!({"metadata": {"name": "log"}, "spec": {
        "selector": {"matchLabels": {"app": "log"}}, "template": template("i:1"), "updateStrategy": strategy}})
}

fn rolling(key: &str, value: impl Into<Value>) -> Value {
    let mut rolling = json!({"maxUnavailable": 0, "maxSurge": 0});
    rolling[key] = value.into();
    json!({"type": "RollingUpdate", "rollingUpdate": rolling})
}

fn node(name: &str) -> Value {
    json!({"metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}}})
}

fn world(nodes: usize) -> World {
    let mut world = World::new(vec![Box::new(DaemonSetController::default()), Box::new(GarbageCollector)]);
    for at in 0..nodes {
        world.put(&resource::NODE, "", node(&format!("n{at}")));
    }
    world
}

fn key() -> ObjectKey {
    ObjectKey::new(&resource::DAEMON_SET, "default", "log")
}

fn status(world: &World) -> Value {
    tree(&world.cache.get(&resource::DAEMON_SET, "default", "log").unwrap())["status"].take()
}

fn image(pod: &crate::object::Object) -> String {
    tree(pod)["spec"]["containers"][0]["image"].as_str().unwrap().to_owned()
}

/// The nodes that have a pod.
fn places(world: &World) -> Vec<String> {
    let mut places: Vec<_> = world.list(&resource::POD).iter().map(|it| daemon::node(it).unwrap().to_owned()).collect();
    places.sort();
    places
}

/// Fewest available pods there are at any time.
fn available(world: &World) -> usize {
    world.list(&resource::POD).iter().filter(|it| pods::is_ready(it)).count()
}

#[test]
fn every_node_that_suits_has_one() {
    let mut world = world(2);
    world.put(&resource::DAEMON_SET, "default", set(rolling("maxUnavailable", 1)));
    world.complete(|_| ());
    assert_eq!(places(&world), ["n0", "n1"]);
    let seen = status(&world);
    for count in ["desiredNumberScheduled", "currentNumberScheduled", "numberReady", "numberAvailable", "updatedNumberScheduled"] {
        assert_eq!(seen[count], 2, "{count}");
    }
    world.put(&resource::NODE, "", node("n2"));
    world.complete(|_| ());
    assert_eq!(places(&world), ["n0", "n1", "n2"]);

    let taint = |world: &mut World, node: &str, key: &str, effect: &str| {
        world.patch(&ObjectKey::new(&resource::NODE, "", node), &json!({"spec": {"taints": [{"key": key, "effect": effect}]}}));
        world.complete(|_| ());
    };
    // A cordon or a silent kubelet does not affect daemons.
    taint(&mut world, "n0", "node.kubernetes.io/unschedulable", "NoSchedule");
    taint(&mut world, "n1", "node.kubernetes.io/unreachable", "NoExecute");
    assert_eq!(places(&world), ["n0", "n1", "n2"]);
    // A taint keeps new pods away, or evicts existing ones.
    taint(&mut world, "n0", "mine", "NoSchedule");
    taint(&mut world, "n1", "mine", "NoExecute");
    assert_eq!(places(&world), ["n0", "n2"]);
    let seen = status(&world);
    assert_eq!((&seen["desiredNumberScheduled"], &seen["numberMisscheduled"]), (&json!(1), &json!(1)));
    world.patch(&key(), &json!({"spec": {"template": {"spec": {"nodeSelector": {"kubernetes.io/hostname": "n2"}}}}}));
    world.complete(|_| ());
    assert_eq!(places(&world), ["n2"]);
    // A pod for a node that was deleted before the pod was placed.
    world.remove(&ObjectKey::new(&resource::NODE, "", "n2"));
    world.settle(|_| ());
    assert_eq!(places(&world), Vec::<String>::new());
}

#[test]
fn what_fails_again_stays_longer_each_time() {
    let mut world = world(1);
    world.put(&resource::DAEMON_SET, "default", set(rolling("maxUnavailable", 1)));
    world.complete(|_| ());
    let end = |world: &mut World, phase: &str| {
        let pod = world.list(&resource::POD).remove(0);
        world.end(&pod, phase, 1);
        world.settle(|_| ());
        world.list(&resource::POD)[0].name() != pod.name()
    };
    assert!(end(&mut world, "Failed"), "the first goes at once");
    for pause in [1, 2, 4, 8, 16] {
        assert!(!end(&mut world, "Failed"));
        let (failed, at) = (world.list(&resource::POD).remove(0), world.now);
        world.wait();
        assert_eq!(world.now.duration_since(at).as_secs(), pause);
        world.settle(|_| ());
        let pods = world.list(&resource::POD);
        assert!(pods.len() == 1 && pods[0].name() != failed.name());
    }
    assert!(end(&mut world, "Succeeded"), "only failures are waited for");
    world.patch(&key(), &json!({"spec": {"template": template("i:2")}}));
    world.settle(|_| ());
    assert!(end(&mut world, "Failed"), "another version begins anew");
}

#[test]
fn history_is_kept_and_limited() {
    let mut world = world(1);
    let mut it = set(json!({"type": "OnDelete"}));
    it["spec"]["revisionHistoryLimit"] = 1.into();
    world.put(&resource::DAEMON_SET, "default", it);
    world.complete(|_| ());
    for version in 2..6 {
        world.patch(&key(), &json!({"spec": {"template": template(&format!("i:{version}"))}}));
        world.complete(|_| ());
    }
    let pod = world.list(&resource::POD).remove(0);
    assert_eq!(image(&pod), "i:1", "it is replaced by hand");
    assert_eq!(world.list(&resource::CONTROLLER_REVISION).len(), 3, "one spent, the one in use, the newest");
    assert!(status(&world)["updatedNumberScheduled"].is_null());
    world.remove(&pod.key());
    world.complete(|_| ());
    assert_eq!(image(&world.list(&resource::POD)[0]), "i:5");
    let newest = world.list(&resource::CONTROLLER_REVISION).into_iter().max_by_key(|it| tree(it)["revision"].as_i64()).unwrap();
    assert_eq!(newest.meta().label("controller-revision-hash"), world.list(&resource::POD)[0].meta().label("controller-revision-hash"));
    assert_eq!(tree(&newest)["data"]["spec"]["template"]["$patch"], "replace");
}

#[test]
fn of_pods_without_a_node_those_go_whose_node_is_gone() {
    let mut world = world(1);
    let affinity = |node: &str| {
        json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
        {"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]}]}}})
    };
    for (name, spec) in [("nowhere", json!({})), ("gone", json!({"affinity": affinity("n7")}))] {
        let pod = json!({"metadata": {"name": name, "labels": {"app": "log"}}, "spec": spec});
        world.put(&resource::POD, "default", pod);
    }
    world.put(&resource::DAEMON_SET, "default", set(rolling("maxUnavailable", 1)));
    world.complete(|_| ());
    let left: Vec<_> = world.list(&resource::POD).iter().map(|it| it.name() == "nowhere" && it.meta().controller().is_some()).collect();
    assert_eq!(left.iter().filter(|it| **it).count(), 1, "it was adopted, and is left alone");
    assert_eq!(left.len(), 2, "beside the one of the node");
}

/// The plan of `controller` for the set, as text.
fn planned(controller: &DaemonSetController, world: &World) -> String {
    format!("{:?}", controller.plan(&world.cache, &key(), world.now))
}

/// How often `controller` has looked at a node since it knows the set.
fn looks(controller: &DaemonSetController) -> usize {
    controller.ledgers.lock().get(&key()).map_or(0, |it| it.looks)
}

#[test]
fn a_change_costs_by_what_changed() {
    let mut world = world(300);
    world.put(&resource::DAEMON_SET, "default", set(rolling("maxUnavailable", 1)));
    world.complete(|_| ());
    let controller = DaemonSetController::default();
    planned(&controller, &world);
    assert_eq!(looks(&controller), 300, "at first all are looked at");
    let pods = world.list(&resource::POD);
    world.make_ready(&pods[..1]);
    world.put(&resource::NODE, "", node("n300"));
    world.remove(&pods[7].key());
    planned(&controller, &world);
    assert_eq!(looks(&controller), 303);
    planned(&controller, &world);
    assert_eq!(looks(&controller), 303);
    // The set's status changes nothing for its nodes.
    world.settle(|_| ());
    planned(&controller, &world);
    assert_eq!(looks(&controller), 305, "two pods were made");
    world.remove(&key());
    planned(&controller, &world);
    assert!(controller.ledgers.lock().is_empty());
}

#[test]
fn who_fell_behind_looks_at_all_again() {
    let mut world = world(3);
    world.put(&resource::DAEMON_SET, "default", set(rolling("maxUnavailable", 1)));
    world.complete(|_| ());
    let controller = DaemonSetController::default();
    planned(&controller, &world);
    // More changes than the cache remembers.
    for _ in 0..10_001 {
        world.put(&resource::NODE, "", node("other"));
    }
    world.remove(&ObjectKey::new(&resource::NODE, "", "other"));
    world.remove(&world.list(&resource::POD)[0].key());
    assert_eq!(planned(&controller, &world), planned(&controller.forgetful(), &world));
}

/// Something that happens.
#[derive(Clone, Debug)]
enum Turn {
    Node(usize, bool),
    Taint(usize, bool),
    Ready(usize),
    End(usize),
    Delete(usize),
    Relabel(usize, bool),
    Template(u8),
    MinReady(u8),
    Pass(u8),
    Carry,
}

fn turn() -> impl Strategy<Value = Turn> {
    prop_oneof![
        (0_usize..5, any::<bool>()).prop_map(|(at, there)| Turn::Node(at, there)),
        (0_usize..5, any::<bool>()).prop_map(|(at, tainted)| Turn::Taint(at, tainted)),
        (0_usize..8).prop_map(Turn::Ready),
        (0_usize..8).prop_map(Turn::End),
        (0_usize..8).prop_map(Turn::Delete),
        (0_usize..8, any::<bool>()).prop_map(|(at, mine)| Turn::Relabel(at, mine)),
        (1_u8..4).prop_map(Turn::Template),
        (0_u8..9).prop_map(Turn::MinReady),
        (1_u8..20).prop_map(Turn::Pass),
        Just(Turn::Carry),
        Just(Turn::Carry),
    ]
}

fn take(world: &mut World, turn: Turn) {
    let pod = |world: &World, at: usize| world.list(&resource::POD).get(at).cloned();
    let at_node = |at: usize| ObjectKey::new(&resource::NODE, "", &format!("n{at}"));
    match turn {
        Turn::Node(at, true) => drop(world.put(&resource::NODE, "", node(&format!("n{at}")))),
        Turn::Node(at, false) => world.remove(&at_node(at)),
        Turn::Taint(at, tainted) => {
            let taints = if tainted { json!([{"key": "mine", "effect": "NoExecute"}]) } else { Value::Null };
            world.patch(&at_node(at), &json!({ "spec": { "taints": taints } }));
        }
        Turn::Ready(at) => world.make_ready(pod(world, at).as_slice()),
        Turn::End(at) => pod(world, at).iter().for_each(|it| world.end(it, "Failed", 1)),
        Turn::Delete(at) => pod(world, at).iter().for_each(|it| world.remove(&it.key())),
        Turn::Relabel(at, mine) => {
            let label = if mine { "log" } else { "other" };
            pod(world, at).iter().for_each(|it| world.patch(&it.key(), &json!({"metadata": {"labels": {"app": label}}})));
        }
        Turn::Template(version) => {
            let image = format!("i:{version}");
            world.patch(&key(), &json!({ "spec": { "template": template(&image) } }));
        }
        Turn::MinReady(seconds) => world.patch(&key(), &json!({ "spec": { "minReadySeconds": seconds } })),
        Turn::Pass(seconds) => world.pass(seconds.into()),
        Turn::Carry => drop(world.step(&mut |_| ())),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// A plan from memory equals a plan without, given the same failures.
    #[test]
    fn memory_changes_no_plan(surge in any::<bool>(), turns in proptest::collection::vec(turn(), 1..60)) {
        let mut world = world(3);
        world.put(&resource::DAEMON_SET, "default", set(rolling(if surge { "maxSurge" } else { "maxUnavailable" }, 1)));
        let controller = DaemonSetController::default();
        for turn in turns {
            take(&mut world, turn);
            prop_assert_eq!(planned(&controller, &world), planned(&controller.forgetful(), &world));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// An update never leaves more nodes without an available pod, nor more with two, than it may, and ends.
    #[test]
    fn updates_stay_within_their_limits(nodes in 1_usize..8, limit in 1_usize..4, percent in any::<bool>(), surge in any::<bool>()) {
        let value = if percent { json!(format!("{}%", limit * 25)) } else { json!(limit) };
        let limit = if percent { (nodes * limit).div_ceil(4) } else { limit };
        let mut world = world(nodes);
        world.put(&resource::DAEMON_SET, "default", set(rolling(if surge { "maxSurge" } else { "maxUnavailable" }, value)));
        world.complete(|_| ());
        world.patch(&key(), &json!({"spec": {"template": template("i:2")}}));
        world.complete(|world| {
            let mut on_node: BTreeMap<String, usize> = BTreeMap::new();
            places(world).into_iter().for_each(|it| *on_node.entry(it).or_default() += 1);
            let doubled = on_node.values().filter(|it| **it > 1).count();
            if surge {
                assert!(doubled <= limit && on_node.values().all(|it| *it <= 2), "{on_node:?}, {limit} may have two");
                assert!(available(world) >= nodes, "{} of {nodes} available", available(world));
            } else {
                assert!(doubled == 0, "{on_node:?}");
                assert!(available(world) + limit >= nodes, "{} of {nodes} available, {limit} need not be", available(world));
            }
        });
        prop_assert_eq!(world.list(&resource::POD).len(), nodes);
        prop_assert!(world.list(&resource::POD).iter().all(|it| image(it) == "i:2"));
        let seen = status(&world);
        prop_assert_eq!((seen["updatedNumberScheduled"].as_u64(), seen["numberAvailable"].as_u64()), (Some(nodes as u64), Some(nodes as u64)));
    }
}
