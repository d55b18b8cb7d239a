//! Addresses and node ports of services.

use std::collections::HashSet;

use serde_json::{Value, json};

use super::{serve, start};
use crate::store::Store;

const SERVICES: &str = "/api/v1/namespaces/default/services";

const ADDRESSES: &str = "/apis/networking.k8s.io/v1/ipaddresses";
const RANGES: &str = "/apis/networking.k8s.io/v1/servicecidrs";

fn address(ip: &str) -> String {
    format!("{ADDRESSES}/{ip}")
}

fn service(name: &str, spec: Value) -> Value {
    let mut service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec});
    service["spec"]["ports"] = json!([{"port": 80}]);
    service
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_address_is_given_out_twice() {
    let it = start().await;
    // A second server on the same store.
    let supervisor = crate::supervise::Supervisor::default();
    let second = serve(it.store.clone(), &supervisor, |_| ()).await;
    let other = super::Fixture { server: second, store: it.store.clone(), supervisor, _dir: tempfile::tempdir().unwrap() };
    let creating = (0..64).map(|n| {
        let server = if n % 2 == 0 { &it } else { &other };
        async move { server.create(SERVICES, service(&format!("s{n}"), json!({"type": "NodePort"}))).await.ok() }
    });
    let created = futures_util::future::join_all(creating).await;
    let addresses: HashSet<&str> = created.iter().map(|it| it["spec"]["clusterIP"].as_str().unwrap()).collect();
    let ports: HashSet<i64> = created.iter().map(|it| it["spec"]["ports"][0]["nodePort"].as_i64().unwrap()).collect();
    assert_eq!((addresses.len(), ports.len()), (64, 64));
    assert!(!addresses.contains("10.10.10.1") && !addresses.contains("10.10.10.0") && !addresses.contains("10.10.10.255"));
    assert!(ports.iter().all(|it| (30000..=32767).contains(it)));
    other.stop().await;
    it.stop().await;
}

#[tokio::test]
async fn families_that_the_cluster_has_not_are_refused() {
    let it = start().await;
    let refused = it.create(SERVICES, service("a", json!({"ipFamilies": ["IPv6"]}))).await.failed();
    assert_eq!(refused.0, 422);
    assert_eq!(refused.2, "Service \"a\" is invalid: spec.ipFamilies[0]: Invalid value: \"IPv6\": not configured on this cluster");
    it.create(SERVICES, service("a", json!({}))).await.ok();
    assert_eq!(it.patch(&format!("{SERVICES}/a"), json!({"spec": {"ipFamilies": ["IPv6"]}})).await.failed().0, 422);
    it.stop().await;
}

#[tokio::test]
async fn a_name_elsewhere_has_no_address() {
    let it = start().await;
    let elsewhere = json!({"type": "ExternalName", "externalName": "example.com"});
    let mut both = elsewhere.clone();
    both["clusterIP"] = "10.10.10.9".into();
    let refused = it.create(SERVICES, service("a", both)).await.failed();
    assert_eq!(refused.2, "Service \"a\" is invalid: spec.clusterIPs: Forbidden: may not be set for ExternalName services");
    it.create(SERVICES, service("a", json!({}))).await.ok();
    // A change of type need not remove allocated values, but may not request more.
    let path = format!("{SERVICES}/a");
    let mut families = elsewhere.clone();
    families["ipFamilies"] = json!(["IPv6"]);
    assert_eq!(it.patch(&path, json!({ "spec": families })).await.failed().0, 422);
    let changed = it.patch(&path, json!({ "spec": elsewhere })).await.ok();
    assert!(["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"].iter().all(|key| changed["spec"].get(key).is_none()));
    it.stop().await;
}

#[tokio::test]
async fn balancers_keep_their_ports_for_checks_and_say_how_they_forward() {
    let it = start().await;
    let balancer = json!({"type": "LoadBalancer", "externalTrafficPolicy": "Local"});
    let port = it.create(SERVICES, service("a", balancer)).await.ok()["spec"]["healthCheckNodePort"].clone();
    let path = format!("{SERVICES}/a");
    let another = if port == 30999 { 30998 } else { 30999 };
    let refused = it.patch(&path, json!({"spec": {"healthCheckNodePort": another}})).await.failed();
    assert_eq!(refused.2, "Service \"a\" is invalid: spec.healthCheckNodePort: Forbidden: field is immutable");
    for kept in [Value::Null, json!(0)] {
        assert_eq!(it.patch(&path, json!({"spec": {"healthCheckNodePort": kept}})).await.ok()["spec"]["healthCheckNodePort"], port);
    }
    let tell = async |ingress: Value| it.patch(&format!("{path}/status"), json!({"status": {"loadBalancer": {"ingress": ingress}}})).await;
    for (ingress, fault) in [
        (json!({"hostname": "a.b", "ipMode": "VIP"}), "ipMode: Forbidden: may not be specified when `ip` is not set"),
        (json!({"ip": "1.2.3.4", "ipMode": "x"}), "ipMode: Unsupported value: \"x\": supported values: \"Proxy\", \"VIP\""),
        (json!({"hostname": "1.2.3.4"}), "hostname: Invalid value: \"1.2.3.4\": must be a DNS name, not an IP address"),
    ] {
        let refused = tell(json!([ingress])).await.failed();
        assert_eq!(refused.2, format!("Service \"a\" is invalid: status.loadBalancer.ingress[0].{fault}"));
    }
    let ingress = json!([{"ip": "1.2.3.4"}, {"hostname": "example.com"}, {"ip": "1.2.3.5", "ipMode": "Proxy"}]);
    let told = tell(ingress).await.ok();
    let expected = json!([{"ip": "1.2.3.4", "ipMode": "VIP"}, {"hostname": "example.com"}, {"ip": "1.2.3.5", "ipMode": "Proxy"}]);
    assert_eq!(told["status"]["loadBalancer"]["ingress"], expected);
    it.stop().await;
}

#[tokio::test]
async fn a_full_range_is_full_and_freed_addresses_come_back() {
    let it = super::start_with(|config| config.service_range = "10.10.10.0/29".parse().unwrap()).await;
    for n in 0..5 {
        it.create(SERVICES, service(&format!("s{n}"), json!({}))).await.ok();
    }
    let full = it.create(SERVICES, service("more", json!({}))).await.failed();
    assert_eq!((full.0, full.2.as_str()), (500, "Internal error occurred: failed to allocate a serviceIP: range is full"));
    let freed = it.delete(&format!("{SERVICES}/s3"), Value::Null).await.ok();
    let again = it.create(SERVICES, service("more", json!({}))).await.ok();
    assert_eq!(again["spec"]["clusterIP"], freed["spec"]["clusterIP"]);
    it.stop().await;
}

#[tokio::test]
async fn addresses_that_are_asked_for() {
    let it = start().await;
    let dns = it.create(SERVICES, service("dns", json!({"clusterIP": "10.10.10.10"}))).await.ok();
    assert_eq!(dns["spec"]["clusterIPs"], json!(["10.10.10.10"]));
    assert_eq!((&dns["spec"]["ipFamilies"], &dns["spec"]["ipFamilyPolicy"]), (&json!(["IPv4"]), &json!("SingleStack")));
    let taken = it.create(SERVICES, service("dns2", json!({"clusterIP": "10.10.10.10"}))).await.failed();
    assert_eq!(
        taken.2,
        "Service \"dns2\" is invalid: spec.clusterIPs: Invalid value: []string{\"10.10.10.10\"}: failed to allocate IP 10.10.10.10: provided IP is already allocated"
    );
    let outside = it.create(SERVICES, service("out", json!({"clusterIP": "10.9.9.9"}))).await.failed();
    assert!(outside.2.ends_with("failed to allocate IP 10.9.9.9: the provided network does not match the current range"), "{}", outside.2);
    for network in ["10.10.10.0", "10.10.10.255"] {
        let refused = it.create(SERVICES, service("net", json!({"clusterIP": network}))).await.failed();
        assert!(refused.2.ends_with("the provided network does not match the current range"), "{}", refused.2);
    }
    let other = it.create(SERVICES, service("six", json!({"clusterIP": "2001:db8::1"}))).await.failed();
    assert_eq!(
        other.2,
        "Service \"six\" is invalid: spec.clusterIPs[0]: Invalid value: []string{\"2001:db8::1\"}: IPv6 is not configured on this cluster"
    );
    let headless = it.create(SERVICES, service("headless", json!({"clusterIP": "None", "selector": {"a": "b"}}))).await.ok();
    assert_eq!(headless["spec"]["clusterIPs"], json!(["None"]));
    let mut ported = service("ported", json!({"type": "NodePort"}));
    ported["spec"]["ports"][0]["nodePort"] = 30080.into();
    it.create(SERVICES, ported.clone()).await.ok();
    ported["metadata"]["name"] = "ported2".into();
    let taken = it.create(SERVICES, ported.clone()).await.failed();
    assert_eq!(taken.2, "Service \"ported2\" is invalid: spec.ports[0].nodePort: Invalid value: 30080: provided port is already allocated");
    ported["spec"]["ports"][0]["nodePort"] = 80.into();
    let outside = it.create(SERVICES, ported).await.failed();
    assert!(outside.2.ends_with("The range of valid ports is 30000-32767"), "{}", outside.2);
    it.stop().await;
}

#[tokio::test]
async fn changes_of_type_free_and_claim() {
    let it = start().await;
    let created = it.create(SERVICES, service("web", json!({"type": "NodePort"}))).await.ok();
    let (path, port) = (format!("{SERVICES}/web"), created["spec"]["ports"][0]["nodePort"].as_i64().unwrap());
    let key = format!("/registry/ranges/servicenodeports/{port}");
    assert!(it.store.get(&key).await.unwrap().is_some());
    let mut plain = created.clone();
    plain["spec"]["type"] = "ClusterIP".into();
    let plain = it.put(&path, plain).await.ok();
    assert!(plain["spec"]["ports"][0].get("nodePort").is_none());
    assert_eq!(plain["spec"]["clusterIP"], created["spec"]["clusterIP"]);
    assert!(it.store.get(&key).await.unwrap().is_none());
    let back = it.patch(&path, json!({"spec": {"type": "NodePort"}})).await.ok();
    assert!(back["spec"]["ports"][0]["nodePort"].as_i64().is_some());
    let external = it
        .patch(
            &path,
            json!({"spec": {"type": "ExternalName", "externalName": "example.com", "clusterIP": null, "clusterIPs": null, "ports": null}}),
        )
        .await
        .ok();
    assert!(external["spec"].get("clusterIP").is_none());
    it.get(&address(created["spec"]["clusterIP"].as_str().unwrap())).await.failed();
    it.stop().await;
}

#[tokio::test]
async fn an_address_is_an_object() {
    let it = start().await;
    let created = it.create(SERVICES, service("web", json!({}))).await.ok();
    let ip = created["spec"]["clusterIP"].as_str().unwrap();
    let object = it.get(&address(ip)).await.ok();
    assert_eq!(object["metadata"]["name"], ip);
    assert_eq!(
        object["metadata"]["labels"],
        json!({"ipaddress.kubernetes.io/ip-family": "IPv4", "ipaddress.kubernetes.io/managed-by": "ipallocator.k8s.io"})
    );
    assert_eq!(object["spec"], json!({"parentRef": {"resource": "services", "namespace": "default", "name": "web"}}));
    assert_eq!(object["metadata"]["managedFields"][0]["manager"], "kube-apiserver");
    it.delete(&format!("{SERVICES}/web"), Value::Null).await.ok();
    it.get(&address(ip)).await.failed();
    // An address of another owner is taken.
    let gateway = json!({"metadata": {"name": "10.10.10.60"}, "spec": {"parentRef": {"resource": "gateways", "name": "g"}}});
    it.create(ADDRESSES, gateway).await.ok();
    let taken = it.create(SERVICES, service("web", json!({"clusterIP": "10.10.10.60"}))).await.failed();
    assert!(taken.2.ends_with("provided IP is already allocated"), "{}", taken.2);
    it.stop().await;
}

#[tokio::test]
async fn a_service_that_waited_for_a_finalizer_frees_its_address() {
    let it = start().await;
    let mut web = service("web", json!({"type": "NodePort"}));
    web["metadata"]["finalizers"] = json!(["example.com/wait"]);
    let created = it.create(SERVICES, web).await.ok();
    let path = format!("{SERVICES}/web");
    it.delete(&path, Value::Null).await.ok();
    it.get(&address(created["spec"]["clusterIP"].as_str().unwrap())).await.ok();
    it.patch(&path, json!({"metadata": {"finalizers": null}})).await.ok();
    it.get(&path).await.failed();
    it.get(&address(created["spec"]["clusterIP"].as_str().unwrap())).await.failed();
    let port = format!("/registry/ranges/servicenodeports/{}", created["spec"]["ports"][0]["nodePort"]);
    assert!(it.store.get(&port).await.unwrap().is_none());
    it.stop().await;
}

#[tokio::test]
async fn more_ranges_more_addresses() {
    let it = super::start_with(|config| config.service_range = "10.10.10.0/29".parse().unwrap()).await;
    let default = it.get(&format!("{RANGES}/kubernetes")).await.ok();
    assert_eq!(default["spec"]["cidrs"], json!(["10.10.10.0/29"]));
    assert_eq!(default["status"]["conditions"][0]["message"], "Kubernetes default Service CIDR is ready");
    for n in 0..5 {
        it.create(SERVICES, service(&format!("s{n}"), json!({}))).await.ok();
    }
    it.create(SERVICES, service("more", json!({}))).await.failed();
    let range = |name: &str, cidr: &str| json!({"metadata": {"name": name, "finalizers": ["x.org/wait"]}, "spec": {"cidrs": [cidr]}});
    it.create(RANGES, range("more", "10.20.0.0/28")).await.ok();
    let more = it.create(SERVICES, service("more", json!({}))).await.ok();
    assert!(more["spec"]["clusterIP"].as_str().unwrap().starts_with("10.20.0."), "{more}");
    // A range that is deleted or not ready allocates nothing.
    it.delete(&format!("{RANGES}/more"), Value::Null).await.ok();
    let full = it.create(SERVICES, service("evenmore", json!({}))).await.failed();
    assert_eq!(full.2, "Internal error occurred: failed to allocate a serviceIP: range is full");
    let refused = it.create(SERVICES, service("evenmore", json!({"clusterIP": "10.20.0.9"}))).await.failed();
    assert!(refused.2.ends_with("the provided network does not match the current range"), "{}", refused.2);
    it.create(RANGES, range("other", "10.30.0.0/28")).await.ok();
    let condition = |status: &str| {
        let stamp = "2026-01-01T00:00:00Z";
        json!({"status": {"conditions": [{"type": "Ready", "status": status, "reason": "", "message": "", "lastTransitionTime": stamp}]}})
    };
    it.patch(&format!("{RANGES}/other/status"), condition("False")).await.ok();
    it.create(SERVICES, service("evenmore", json!({}))).await.failed();
    it.patch(&format!("{RANGES}/other/status"), condition("True")).await.ok();
    it.create(SERVICES, service("evenmore", json!({"clusterIP": "10.30.0.9"}))).await.ok();
    it.stop().await;
}

#[tokio::test]
async fn addresses_of_before_they_were_objects() {
    let it = start().await;
    let created = it.create(SERVICES, service("web", json!({"clusterIP": "10.10.10.50"}))).await.ok();
    // As older servers stored them: a key without an object.
    let key = "/registry/ranges/serviceips/10.10.10.50";
    it.store.put(key, bytes::Bytes::from_static(b"{}"), crate::store::Expect::Absent, None).await.unwrap();
    let path = "/registry/networking.k8s.io/ipaddresses/10.10.10.50";
    let entry = it.store.get(path).await.unwrap().unwrap();
    it.supervisor.shutdown().cancel();
    it.supervisor.wait(std::time::Duration::from_secs(10)).await.unwrap();
    it.store.delete(path, entry.revision).await.unwrap();
    let supervisor = crate::supervise::Supervisor::default();
    let server = serve(it.store.clone(), &supervisor, |_| ()).await;
    let it = super::Fixture { server, store: it.store, supervisor, _dir: it._dir };
    let object = it.get(&address("10.10.10.50")).await.ok();
    assert_eq!(object["spec"]["parentRef"]["name"], created["metadata"]["name"]);
    it.create(SERVICES, service("other", json!({"clusterIP": "10.10.10.50"}))).await.failed();
    assert!(it.store.get(key).await.unwrap().is_none());
    it.stop().await;
}

#[tokio::test]
async fn what_is_deleted_under_a_service_comes_back() {
    let it = start().await;
    let created = it.create(SERVICES, service("web", json!({}))).await.ok();
    let ip = created["spec"]["clusterIP"].as_str().unwrap();
    let mut events = it.watch(&format!("{ADDRESSES}?watch=true&fieldSelector=metadata.name={ip}&resourceVersion=0")).await;
    assert_eq!(events.next_name().await.0, "ADDED");
    it.delete(&address(ip), Value::Null).await.ok();
    assert_eq!(events.next_name().await.0, "DELETED");
    assert_eq!(events.next_name().await.0, "ADDED");
    it.stop().await;
}
