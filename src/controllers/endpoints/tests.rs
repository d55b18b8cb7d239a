//! Services, pods, and the resulting endpoints.

use serde_json::{Value, json};

use super::*;
use crate::controllers::plan::tree;
use crate::controllers::simulation::World;
use crate::util::product::KUBERNETES;

fn world(host_ports: bool, slice_size: usize) -> World {
    let endpoints = EndpointsController::new(KUBERNETES, host_ports, slice_size);
    let mut world = World::new(vec![Box::new(endpoints), Box::new(MirroringController { most: 1000 })]);
    world.put(&resource::NODE, "", json!({"metadata": {"name": "n1"}}));
    world
}

fn service(spec: Value) -> Value {
    json!({"metadata": {"name": "web", "labels": {"tier": "front"}}, "spec": spec})
}

fn pod(name: &str, ip: &str, ports: Value, ready: bool) -> Value {
    json!({
        "metadata": {"name": name, "labels": {"app": "a"}},
        "spec": {"nodeName": "n1", "containers": [{"name": "c", "image": "i", "ports": ports}]},
        "status": {
            "phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}], "hostIP": "10.0.0.1",
            "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}],
        },
    })
}

fn endpoints(world: &World) -> Value {
    tree(&world.cache.get(&resource::ENDPOINTS, "default", "web").unwrap())
}

fn slices(world: &World) -> Vec<Value> {
    world.list(&resource::ENDPOINT_SLICE).iter().map(|it| tree(it)).collect()
}

#[test]
fn endpoints_by_the_pods_addresses() {
    let mut world = world(false, 100);
    world.put(&resource::NODE, "", json!({"metadata": {"name": "n1", "labels": {"topology.kubernetes.io/zone": "z"}}}));
    let ports = json!([{"name": "http", "port": 80, "targetPort": "http", "protocol": "TCP", "appProtocol": "h2"}, {"name": "x", "port": 9, "protocol": "UDP"}]);
    let spec = json!({"clusterIP": "10.10.10.5", "selector": {"app": "a"}, "ports": ports, "trafficDistribution": "PreferClose"});
    let key = world.put(&resource::SERVICE, "default", service(spec)).key();
    let http = |port: u16| json!([{"name": "http", "containerPort": port, "protocol": "TCP"}]);
    // The named port differs from pod to pod.
    let one = world.put(&resource::POD, "default", pod("one", "10.1.0.1", http(8080), true));
    world.put(&resource::POD, "default", pod("two", "10.1.0.2", http(9090), true));
    world.put(&resource::POD, "default", pod("unready", "10.1.0.3", http(8080), false));
    world.put(&resource::POD, "default", pod("unaddressed", "", http(8080), false));
    world.settle(|_| ());
    let port = |name: &str, port: u16, protocol: &str| json!({"port": port, "protocol": protocol, "name": name});
    let web = |number: u16| json!([{"port": number, "protocol": "TCP", "name": "http", "appProtocol": "h2"}]);
    let address = |pod: &str, ip: &str| {
        let uid = world.cache.get(&resource::POD, "default", pod).unwrap().meta().uid.to_string();
        json!({"ip": ip, "nodeName": "n1", "targetRef": {"kind": "Pod", "namespace": "default", "name": pod, "uid": uid}})
    };
    let expected = json!([
        {"addresses": [address("one", "10.1.0.1")], "notReadyAddresses": [address("unready", "10.1.0.3")], "ports": web(8080)},
        {"addresses": [address("two", "10.1.0.2")], "ports": web(9090)},
        {
            "addresses": [address("one", "10.1.0.1"), address("two", "10.1.0.2")],
            "notReadyAddresses": [address("unready", "10.1.0.3")],
            "ports": [port("x", 9, "UDP")],
        },
    ]);
    assert_eq!(endpoints(&world)["subsets"], expected);
    assert_eq!(endpoints(&world)["metadata"]["labels"], json!({"tier": "front", ENDPOINTS_MANAGER: "endpoint-controller"}));
    let all = slices(&world);
    assert_eq!(all.len(), 2);
    let first = all.iter().find(|it| it["ports"][0]["port"] == 8080).unwrap();
    assert_eq!(first["metadata"]["labels"], json!({"tier": "front", SLICE_SERVICE: "web", SLICE_MANAGER: OURS}));
    assert_eq!(
        first["endpoints"][0],
        json!({
            "addresses": ["10.1.0.1"], "conditions": {"ready": true, "serving": true, "terminating": false}, "nodeName": "n1", "zone": "z",
            "hints": {"forZones": [{"name": "z"}]},
            "targetRef": {"kind": "Pod", "namespace": "default", "name": "one", "uid": &*one.meta().uid},
        })
    );
    // A pod that is being deleted still serves, but takes no new connections.
    world.patch(&one.key(), &json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": ["x"]}}));
    world.settle(|_| ());
    let first = slices(&world).into_iter().find(|it| it["ports"][0]["port"] == 8080).unwrap();
    assert_eq!(first["endpoints"][0]["conditions"], json!({"ready": false, "serving": true, "terminating": true}));
    assert_eq!(endpoints(&world)["subsets"][0].get("addresses"), None);
    // Labels that the service loses are taken off.
    world.patch(&key, &json!({"metadata": {"labels": null}}));
    world.settle(|_| ());
    assert!(slices(&world).iter().all(|it| it["metadata"]["labels"] == json!({SLICE_SERVICE: "web", SLICE_MANAGER: OURS})));
    world.remove(&key);
    world.settle(|_| ());
    assert!(slices(&world).is_empty() && world.list(&resource::ENDPOINTS).is_empty());
}

#[test]
fn a_pod_whose_node_is_gone_is_in_no_slice_until_it_is_back() {
    let mut world = world(false, 100);
    let spec = json!({"clusterIP": "10.10.10.5", "selector": {"app": "a"}, "ports": [{"port": 80, "protocol": "TCP"}]});
    let key = world.put(&resource::SERVICE, "default", service(spec)).key();
    world.put(&resource::POD, "default", pod("one", "10.1.0.1", json!([]), true));
    let node = ObjectKey::new(&resource::NODE, "", "n1");
    world.remove(&node);
    world.settle(|_| ());
    let served = |world: &World| slices(world)[0]["endpoints"].as_array().map_or(0, Vec::len);
    assert_eq!((served(&world), endpoints(&world)["subsets"][0]["addresses"][0]["ip"].as_str()), (0, Some("10.1.0.1")));
    // The check is repeated.
    world.wait();
    world.put(&resource::NODE, "", json!({"metadata": {"name": "n1"}}));
    world.settle(|_| ());
    assert_eq!(served(&world), 1);
    world.remove(&node);
    world.patch(&key, &json!({"spec": {"publishNotReadyAddresses": true}}));
    world.settle(|_| ());
    assert_eq!(served(&world), 1, "one that publishes all");
}

#[test]
fn endpoints_by_the_hosts_ports() {
    let mut world = world(true, 100);
    let spec = json!({"clusterIP": "10.10.10.5", "selector": {"app": "a"}, "ports": [{"port": 80, "targetPort": 8080, "protocol": "TCP"}]});
    world.put(&resource::SERVICE, "default", service(spec));
    let ports = json!([{"containerPort": 8080, "protocol": "TCP"}]);
    let mut mapped = pod("mapped", "172.17.0.2", ports.clone(), true);
    mapped["metadata"]["annotations"] = json!({KUBERNETES.annotation("port_TCP_8080"): "31005"});
    world.put(&resource::POD, "default", mapped);
    world.put(&resource::POD, "default", pod("not-mapped", "172.17.0.3", ports, true));
    world.settle(|_| ());
    let subsets = &endpoints(&world)["subsets"];
    assert_eq!((&subsets[0]["addresses"][0]["ip"], &subsets[0]["ports"][0]["port"]), (&json!("10.0.0.1"), &json!(31005)));
    assert_eq!(subsets.as_array().unwrap().len(), 1);
    let mapping = KUBERNETES.annotation("containerPort_TCP_10.0.0.1_31005");
    assert_eq!(endpoints(&world)["metadata"]["annotations"][mapping], "8080");
}

#[test]
fn headless_services_and_those_that_publish_all() {
    let mut world = world(false, 100);
    let key = world.put(&resource::SERVICE, "default", service(json!({"clusterIP": "None", "selector": {"app": "a"}}))).key();
    let mut named = pod("named", "10.1.0.1", json!([]), false);
    named["spec"]["hostname"] = "named".into();
    named["spec"]["subdomain"] = "web".into();
    world.put(&resource::POD, "default", named);
    world.settle(|_| ());
    assert_eq!(endpoints(&world)["metadata"]["labels"][HEADLESS], "");
    let subset = &endpoints(&world)["subsets"][0];
    assert_eq!((&subset["notReadyAddresses"][0]["hostname"], subset.get("ports")), (&json!("named"), None));
    world.patch(&key, &json!({"spec": {"publishNotReadyAddresses": true}}));
    world.settle(|_| ());
    assert_eq!(endpoints(&world)["subsets"][0]["addresses"][0]["ip"], "10.1.0.1");
    assert_eq!(slices(&world)[0]["endpoints"][0]["conditions"], json!({"ready": true, "serving": false, "terminating": false}));
    assert_eq!(slices(&world)[0]["endpoints"][0]["hostname"], "named");
}

#[test]
fn families_have_slices_of_their_own() {
    let mut world = world(false, 100);
    let spec = json!({"clusterIP": "10.10.10.5", "ipFamilies": ["IPv4", "IPv6"], "selector": {"app": "a"}, "ports": [{"port": 80}]});
    world.put(&resource::SERVICE, "default", service(spec));
    let mut both = pod("both", "10.1.0.1", json!([]), true);
    both["status"]["podIPs"] = json!([{"ip": "10.1.0.1"}, {"ip": "fd00::1"}]);
    world.put(&resource::POD, "default", both);
    world.settle(|_| ());
    let mut seen: Vec<_> = slices(&world).iter().map(|it| (it["addressType"].clone(), it["endpoints"][0]["addresses"].clone())).collect();
    seen.sort_by_key(|it| it.0.to_string());
    assert_eq!(seen, [(json!("IPv4"), json!(["10.1.0.1"])), (json!("IPv6"), json!(["fd00::1"]))]);
    // One without endpoints has a slice that says so.
    let empty = |world: &World| {
        let mut seen: Vec<_> =
            slices(world).iter().map(|it| (it["addressType"].clone(), it["endpoints"].as_array().map_or(0, Vec::len))).collect();
        seen.sort_by_key(|it| it.0.to_string());
        seen
    };
    let both = ObjectKey::new(&resource::POD, "default", "both");
    world.patch(&both, &json!({"status": {"podIPs": [{"ip": "10.1.0.1"}]}}));
    world.settle(|_| ());
    assert_eq!(empty(&world), [(json!("IPv4"), 1), (json!("IPv6"), 0)]);
    world.remove(&both);
    world.settle(|_| ());
    assert_eq!(empty(&world), [(json!("IPv4"), 0), (json!("IPv6"), 0)]);
}

#[test]
fn many_endpoints_are_spread_over_slices() {
    let mut world = world(false, 10);
    world.put(
        &resource::SERVICE,
        "default",
        service(json!({"clusterIP": "10.10.10.5", "selector": {"app": "a"}, "ports": [{"port": 80}]})),
    );
    world.settle(|_| ());
    assert_eq!(slices(&world).len(), 1, "an empty one says that there are none");
    let pods: Vec<_> = (0..35)
        .map(|at| world.put(&resource::POD, "default", pod(&format!("p{at:02}"), &format!("10.1.0.{at}"), json!([]), true)))
        .collect();
    world.settle(|_| ());
    let sizes = |world: &World| {
        let mut sizes: Vec<_> = slices(world).iter().map(|it| it["endpoints"].as_array().unwrap().len()).collect();
        sizes.sort_unstable();
        sizes
    };
    assert_eq!(sizes(&world), [5, 10, 10, 10]);
    let before: Vec<_> = world.list(&resource::ENDPOINT_SLICE).iter().map(|it| it.revision()).collect();
    world.remove(&pods[17].key());
    world.settle(|_| ());
    let changed = world.list(&resource::ENDPOINT_SLICE).iter().filter(|it| !before.contains(&it.revision())).count();
    assert_eq!((changed, sizes(&world)), (1, vec![5, 9, 10, 10]));
}

#[test]
fn a_subset_is_mirrored_by_one_slice() {
    let mut world = world(false, 10);
    let addresses: Vec<Value> = (0..249).map(|at| json!({"ip": format!("192.0.2.{at}")})).collect();
    let subsets = json!([{"addresses": addresses, "ports": [{"port": 80, "protocol": "TCP"}]}]);
    world.put(&resource::SERVICE, "default", service(json!({"ports": [{"port": 80}]})));
    world.put(&resource::ENDPOINTS, "default", json!({"metadata": {"name": "web"}, "subsets": subsets}));
    world.settle(|_| ());
    let sizes: Vec<_> = slices(&world).iter().map(|it| it["endpoints"].as_array().unwrap().len()).collect();
    assert_eq!(sizes, [249]);
}

#[test]
fn written_endpoints_are_mirrored() {
    let mut world = world(false, 100);
    let key = world.put(&resource::SERVICE, "default", service(json!({"clusterIP": "10.10.10.5", "ports": [{"port": 80}]}))).key();
    let written = json!({
        "metadata": {"name": "web", "labels": {"by": "hand"}, "annotations": {"note": "n", "kubectl.kubernetes.io/last-applied-configuration": "{}"}},
        "subsets": [{"addresses": [{"ip": "192.0.2.1"}, {"ip": "fd00::1"}], "notReadyAddresses": [{"ip": "192.0.2.2", "nodeName": "n"}], "ports": [{"port": 80, "protocol": "TCP"}]}],
    });
    let written = world.put(&resource::ENDPOINTS, "default", written);
    world.settle(|_| ());
    let all = slices(&world);
    assert_eq!(all.len(), 2);
    let four = all.iter().find(|it| it["addressType"] == "IPv4").unwrap();
    assert_eq!(
        four["endpoints"],
        json!([{"addresses": ["192.0.2.1"], "conditions": {"ready": true}}, {"addresses": ["192.0.2.2"], "conditions": {"ready": false}, "nodeName": "n"}])
    );
    assert_eq!(
        four["metadata"]["labels"],
        json!({"by": "hand", SLICE_SERVICE: "web", SLICE_MANAGER: "endpointslicemirroring-controller.k8s.io"})
    );
    assert_eq!(four["metadata"]["annotations"], json!({"note": "n"}));
    assert_eq!(four["metadata"]["ownerReferences"][0]["uid"], &*written.meta().uid);
    world.remove(&key);
    world.settle(|_| ());
    assert!(slices(&world).is_empty());
}

#[test]
fn endpoints_that_come_before_their_service_stay() {
    let mut world = world(false, 100);
    let by_hand = json!({"metadata": {"name": "web"}, "subsets": [{"addresses": [{"ip": "1.2.3.4"}]}]});
    world.put(&resource::ENDPOINTS, "default", by_hand);
    let ours = json!({"metadata": {"name": "left", "labels": {ENDPOINTS_MANAGER: "endpoint-controller"}}});
    world.put(&resource::ENDPOINTS, "default", ours);
    world.settle(|_| ());
    assert_eq!(world.list(&resource::ENDPOINTS).iter().map(|it| it.name()).collect::<Vec<_>>(), ["web"]);
}

#[test]
fn pods_without_a_named_port_are_in_a_slice_without_ports() {
    let mut world = world(false, 100);
    let spec =
        json!({"clusterIP": "10.10.10.5", "selector": {"app": "a"}, "ports": [{"port": 80, "targetPort": "http", "protocol": "TCP"}]});
    world.put(&resource::SERVICE, "default", service(spec));
    let http = json!([{"name": "http", "containerPort": 8080, "protocol": "TCP"}]);
    world.put(&resource::POD, "default", pod("with", "10.1.0.1", http, true));
    world.put(&resource::POD, "default", pod("without", "10.1.0.2", json!([]), true));
    world.settle(|_| ());
    let mut seen: Vec<_> = slices(&world).iter().map(|it| (it["endpoints"][0]["addresses"][0].clone(), it["ports"].clone())).collect();
    seen.sort_by_key(|it| it.0.to_string());
    assert_eq!(seen, [(json!("10.1.0.1"), json!([{"name": "", "protocol": "TCP", "port": 8080}])), (json!("10.1.0.2"), Value::Null)]);
    assert_eq!(endpoints(&world)["subsets"].as_array().unwrap().len(), 1, "Endpoints have those with ports only");
}

#[test]
fn a_slice_that_is_of_no_use_becomes_what_is_missing() {
    let mut world = world(false, 100);
    let spec = json!({"clusterIP": "10.10.10.5", "selector": {"app": "a"}, "ports": [{"port": 80, "protocol": "TCP"}]});
    let key = world.put(&resource::SERVICE, "default", service(spec)).key();
    let names = |world: &World| world.list(&resource::ENDPOINT_SLICE).iter().map(|it| it.name().to_owned()).collect::<Vec<_>>();
    world.settle(|_| ());
    let empty = names(&world);
    world.put(&resource::POD, "default", pod("p", "10.1.0.1", json!([]), true));
    world.settle(|_| ());
    assert_eq!((slices(&world)[0]["ports"][0]["port"].clone(), names(&world)), (json!(80), empty.clone()));
    world.patch(&key, &json!({"spec": {"ports": [{"port": 81, "protocol": "TCP"}]}}));
    world.settle(|_| ());
    assert_eq!((slices(&world)[0]["ports"][0]["port"].clone(), names(&world)), (json!(81), empty));
}

#[test]
fn endpoints_say_what_change_they_follow() {
    let mut world = world(false, 100);
    let turned = |name: &str, ip: &str, ready: bool, at: &str| {
        let mut pod = pod(name, ip, json!([]), ready);
        pod["status"]["conditions"][0]["lastTransitionTime"] = at.into();
        pod
    };
    let (early, late) = ("2026-01-01T00:00:10Z", "2026-01-01T00:00:20Z");
    let spec = json!({"clusterIP": "10.10.10.5", "selector": {"app": "a"}, "ports": [{"port": 80, "protocol": "TCP"}]});
    let mut served = service(spec);
    served["metadata"]["creationTimestamp"] = "2026-01-01T00:00:00Z".into();
    let key = world.put(&resource::SERVICE, "default", served).key();
    let seen = |world: &World| {
        let of = |it: &Value| it["metadata"]["annotations"][triggers::ANNOTATION].as_str().map(str::to_owned);
        assert_eq!(of(&endpoints(world)), of(&slices(world)[0]));
        of(&endpoints(world))
    };
    world.settle(|_| ());
    assert_eq!(seen(&world).as_deref(), Some("2026-01-01T00:00:00Z"));
    // The earlier of two changes that are seen together.
    let one = world.put(&resource::POD, "default", turned("one", "10.1.0.1", true, late));
    world.put(&resource::POD, "default", turned("two", "10.1.0.2", true, early));
    world.settle(|_| ());
    assert_eq!(seen(&world).as_deref(), Some(early));
    world.put(&resource::POD, "default", turned("two", "10.1.0.2", false, late));
    world.settle(|_| ());
    assert_eq!(seen(&world).as_deref(), Some(late));
    // Nobody says when a pod was deleted.
    world.remove(&one.key());
    world.settle(|_| ());
    assert_eq!(seen(&world), None);
    // What changes nothing is not written.
    let before = (endpoints(&world), slices(&world));
    world.patch(&key, &json!({"metadata": {"annotations": {"note": "n"}}}));
    world.settle(|_| ());
    assert_eq!((endpoints(&world), slices(&world)), before);
}
