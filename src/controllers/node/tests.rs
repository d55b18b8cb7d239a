//! Nodes that become silent, return or are tainted, and their pods.

use k8s_openapi::api::core::v1::Toleration;

use super::*;
use crate::controllers::simulation::World;

fn world(agents: Agents) -> World {
    let (period, grace, eviction) = (Duration::from_secs(5), Duration::from_secs(40), Duration::from_secs(300));
    World::new(vec![
        Box::new(NodeController::new(agents, period, grace, EvictionRates::default())),
        Box::new(TaintEvictionController::new(eviction)),
    ])
}

fn node(name: &str, heartbeat: &str) -> Value {
    let conditions: Vec<Value> = KUBELETS
        .iter()
        .map(|it| json!({"type": it, "status": if *it == "Ready" { "True" } else { "False" }, "lastHeartbeatTime": heartbeat}))
        .collect();
    json!({"metadata": {"name": name}, "status": {"conditions": conditions}})
}

fn pod(name: &str, tolerations: Value) -> Value {
    let ready = json!([{"type": "Ready", "status": "True"}]);
    json!({"metadata": {"name": name}, "spec": {"nodeName": "a", "tolerations": tolerations}, "status": {"phase": "Running", "conditions": ready}})
}

fn pods(world: &World) -> Vec<String> {
    world.list(&resource::POD).iter().map(|it| it.name().to_owned()).collect()
}

fn seen(world: &World, name: &str) -> Value {
    tree(&world.cache.get(&resource::NODE, "", name).unwrap())
}

/// Time passes in which only the nodes `alive` are heard of.
fn pass(world: &mut World, seconds: i64, alive: &[&str]) {
    for _ in 0..seconds / 10 {
        world.pass(10);
        for name in alive {
            let lease =
                json!({"metadata": {"name": name}, "spec": {"renewTime": world.now.strftime("%Y-%m-%dT%H:%M:%S.000000Z").to_string()}});
            world.put(&resource::LEASE, LEASES, lease);
        }
        world.settle(|_| ());
    }
}

#[test]
fn pods_leave_a_silent_node_when_their_patience_ends() {
    let mut world = world(Agents::default());
    world.put(&resource::NODE, "", node("a", "2026-01-01T00:00:00Z"));
    world.put(&resource::NODE, "", node("b", "2026-01-01T00:00:00Z"));
    let tolerates =
        |seconds: Value| json!([{"key": taints::UNREACHABLE, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": seconds}]);
    world.put(&resource::POD, "default", pod("hasty", tolerates(json!(30))));
    world.put(&resource::POD, "default", pod("patient", tolerates(json!(null))));
    world.put(&resource::POD, "default", pod("silent", json!([])));
    pass(&mut world, 40, &["a", "b"]);
    assert_eq!((pods(&world).len(), seen(&world, "a")["spec"].get("taints")), (3, None));

    pass(&mut world, 50, &["b"]);
    let conditions = seen(&world, "a")["status"]["conditions"].clone();
    assert!(
        conditions.as_array().unwrap().iter().all(|it| it["status"] == "Unknown" && it["reason"] == "NodeStatusUnknown"),
        "{conditions}"
    );
    assert!(world.list(&resource::POD).iter().all(|it| !super::super::pods::is_ready(it)));
    let effects: Vec<_> =
        seen(&world, "a")["spec"]["taints"].as_array().unwrap().iter().map(|it| (it["key"].clone(), it["effect"].clone())).collect();
    assert_eq!(effects, ["NoSchedule", "NoExecute"].map(|it| (json!(taints::UNREACHABLE), json!(it))));
    assert_eq!(pods(&world).len(), 3);
    pass(&mut world, 40, &["b"]);
    assert_eq!(pods(&world), ["patient", "silent"]);
    pass(&mut world, 300, &["b"]);
    assert_eq!(pods(&world), ["patient"]);

    // It returns.
    world.put(&resource::NODE, "", node("a", "2026-01-01T02:00:00Z"));
    pass(&mut world, 10, &["a", "b"]);
    assert_eq!(seen(&world, "a")["spec"].get("taints"), None);
}

#[test]
fn of_a_new_node_nothing_follows_for_its_pods() {
    let mut world = world(Agents::default());
    world.put(&resource::NODE, "", node("b", "2026-01-01T00:00:00Z"));
    world.put(&resource::NODE, "", json!({"metadata": {"name": "a"}}));
    world.put(&resource::POD, "default", pod("p", json!([])));
    world.settle(|_| ());
    assert!(super::super::pods::is_ready(&world.list(&resource::POD)[0]));
    assert_eq!(
        seen(&world, "a")["spec"]["taints"],
        json!([{"key": taints::NOT_READY, "effect": "NoSchedule", "timeAdded": "2026-01-01T00:00:00Z"}])
    );
}

#[test]
fn nothing_is_emptied_when_all_nodes_fall_silent() {
    let mut world = world(Agents::default());
    for name in ["a", "b"] {
        world.put(&resource::NODE, "", node(name, "2026-01-01T00:00:00Z"));
    }
    world.put(&resource::POD, "default", pod("hasty", json!([])));
    pass(&mut world, 1000, &[]);
    assert_eq!(pods(&world), ["hasty"]);
    let effects = |world: &World| -> Vec<Value> {
        seen(world, "a")["spec"]["taints"].as_array().unwrap().iter().map(|it| it["effect"].clone()).collect()
    };
    assert_eq!(effects(&world), ["NoSchedule"]);
    // With one node back, the other one is to blame.
    world.put(&resource::NODE, "", node("b", "2026-01-01T02:00:00Z"));
    pass(&mut world, 10, &["b"]);
    assert_eq!(effects(&world), ["NoSchedule", "NoExecute"]);
}

#[test]
fn what_mesos_says_of_silent_agents() {
    let agents = Agents::default();
    agents.set(Some(HashMap::from([("a".to_owned(), Agent { has_kubelet: false })])));
    let mut world = world(agents.clone());
    for name in ["a", "b"] {
        world.put(&resource::NODE, "", node(name, "2026-01-01T00:00:00Z"));
    }
    world.put(&resource::POD, "default", pod("p", json!([])));
    pass(&mut world, 60, &[]);
    assert_eq!(seen(&world, "a")["status"]["conditions"][0]["reason"], "SlaveReady");
    assert!(world.cache.get(&resource::NODE, "", "b").is_none(), "Mesos does not know it");
    agents.set(Some(HashMap::new()));
    pass(&mut world, 60, &[]);
    assert!(world.list(&resource::NODE).is_empty() && pods(&world).is_empty());
}

#[test]
fn taints_of_others_evict_at_once() {
    let mut world = world(Agents::default());
    let mut tainted = node("a", "2026-01-01T00:00:00Z");
    tainted["spec"] = json!({"taints": [{"key": "maintenance", "effect": "NoExecute"}]});
    world.put(&resource::NODE, "", tainted);
    let tolerates: Vec<Toleration> = serde_json::from_value(json!([{"key": "maintenance", "operator": "Exists"}])).unwrap();
    world.put(&resource::POD, "default", pod("stays", json!(tolerates)));
    world.put(&resource::POD, "default", pod("goes", json!([])));
    let mut told = false;
    world.settle(|world| {
        let pod = world.cache.get(&resource::POD, "default", "goes").map(|it| tree(&it));
        told |= pod.is_some_and(|it| {
            conditions::find(&it["status"]["conditions"], "DisruptionTarget").is_some_and(|it| it["reason"] == "DeletionByTaintManager")
        });
    });
    assert!(told);
    assert_eq!(pods(&world), ["stays"]);
    world.remove(&ObjectKey::new(&resource::NODE, "", "a"));
    let told =
        ["RegisteredNode: Node a event: Registered Node a in Controller", "TaintManagerEviction: Marking for deletion Pod default/goes"];
    assert_eq!(world.told, told);
}

fn effects(world: &World, name: &str) -> Vec<Value> {
    seen(world, name)["spec"]["taints"].as_array().into_iter().flatten().map(|it| it["effect"].clone()).collect()
}

#[test]
fn a_pod_that_comes_to_a_tainted_node_has_its_time_there() {
    for timed in [true, false] {
        let mut world = world(Agents::default());
        let mut tainted = node("a", "2026-01-01T00:00:00Z");
        let mut taint = json!({"key": "maintenance", "effect": "NoExecute"});
        if timed {
            taint["timeAdded"] = "2025-01-01T00:00:00Z".into();
        }
        tainted["spec"] = json!({"taints": [taint]});
        world.put(&resource::NODE, "", tainted);
        let tolerations = json!([{"key": "maintenance", "operator": "Exists", "tolerationSeconds": 30}]);
        for name in ["first", "second"] {
            pass(&mut world, 1000, &["a"]);
            world.put(&resource::POD, "default", pod(name, tolerations.clone()));
            pass(&mut world, 20, &["a"]);
            assert_eq!(pods(&world), [name]);
            pass(&mut world, 10, &["a"]);
            assert!(pods(&world).is_empty());
        }
        assert_eq!(seen(&world, "a")["spec"]["taints"], json!([taint]), "what others wrote stays as it is");
    }
}

#[test]
fn a_small_zone_is_not_emptied_when_most_of_it_falls_silent() {
    let mut world = world(Agents::default());
    for name in ["a", "b", "c", "d"] {
        world.put(&resource::NODE, "", node(name, "2026-01-01T00:00:00Z"));
    }
    world.put(&resource::POD, "default", pod("hasty", json!([])));
    pass(&mut world, 1000, &["d"]);
    for silent in ["a", "b", "c"] {
        assert_eq!(effects(&world, silent), ["NoSchedule"], "{silent}");
    }
    assert_eq!(pods(&world), ["hasty"]);
    world.put(&resource::NODE, "", node("c", "2026-01-01T02:00:00Z"));
    pass(&mut world, 10, &["c", "d"]);
    assert_eq!((effects(&world, "a").len() + effects(&world, "b").len(), effects(&world, "c").len()), (3, 0), "one at a time");
    pass(&mut world, 10, &["c", "d"]);
    assert_eq!(
        (effects(&world, "a"), effects(&world, "b")),
        (vec![json!("NoSchedule"), json!("NoExecute")], vec![json!("NoSchedule"), json!("NoExecute")])
    );
    // An eviction that has begun continues.
    world.put(&resource::NODE, "", node("e", "2026-01-01T02:00:00Z"));
    pass(&mut world, 100, &["d"]);
    assert_eq!((effects(&world, "a").len(), effects(&world, "c").len()), (2, 1));
}

#[test]
fn zones_are_judged_by_themselves() {
    let mut world = world(Agents::default());
    for (name, zone) in [("a", "x"), ("b", "x"), ("c", "x"), ("d", "x"), ("e", "y")] {
        let mut it = node(name, "2026-01-01T00:00:00Z");
        it["metadata"]["labels"] = json!({"topology.kubernetes.io/zone": zone});
        world.put(&resource::NODE, "", it);
    }
    // The first node is empty; other pods are elsewhere.
    pass(&mut world, 90, &["e"]);
    let emptied = ["a", "b", "c", "d"].iter().filter(|it| effects(&world, it).len() == 2).count();
    assert_eq!(emptied, 4, "one every ten seconds");
    assert!(effects(&world, "e").is_empty());
}

#[test]
fn who_stays_after_all_is_told_of() {
    let mut world = World::new(vec![Box::new(TaintEvictionController::new(Duration::from_secs(300)))]);
    let taint = |at: &World| json!({"spec": {"taints": [{"key": "t", "effect": "NoExecute", "timeAdded": at.time_in(0)}]}});
    world.put(&resource::NODE, "", json!({"metadata": {"name": "a"}}));
    let node = ObjectKey::new(&resource::NODE, "", "a");
    let tolerating = |seconds: i64| json!([{"key": "t", "operator": "Exists", "tolerationSeconds": seconds}]);
    for (name, seconds) in [("brief", 10), ("long", 600), ("longer", 700)] {
        world.put(&resource::POD, "default", pod(name, tolerating(seconds)));
    }
    let tainted = taint(&world);
    world.patch(&node, &tainted);
    world.settle(|_| ());
    assert!(world.told.is_empty(), "{:?}", world.told);
    world.pass(20);
    world.settle(|_| ());
    assert_eq!(world.told, ["TaintManagerEviction: Marking for deletion Pod default/brief"]);
    // A pod that goes by itself, and the others once there is no taint.
    world.remove(&ObjectKey::new(&resource::POD, "default", "long"));
    world.settle(|_| ());
    assert_eq!(world.told[1..], ["TaintManagerEviction: Cancelling deletion of Pod default/long"]);
    world.patch(&node, &json!({"spec": {"taints": null}}));
    world.settle(|_| ());
    assert_eq!(world.told[2..], ["TaintManagerEviction: Cancelling deletion of Pod default/longer"]);
}
