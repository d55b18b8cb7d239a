//! Addresses and node ports of services.

use std::collections::HashSet;

use serde_json::{Value, json};

use super::{serve, start};
use crate::store::Store;

const SERVICES: &str = "/api/v1/namespaces/default/services";

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
    let second = serve(&it.store, &supervisor, |_| ()).await;
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
    assert!(
        outside.2.ends_with("the provided IP (10.9.9.9) is not in the valid range. The range of valid IPs is 10.10.10.0/24"),
        "{}",
        outside.2
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
    let address = format!("/registry/ranges/serviceips/{}", created["spec"]["clusterIP"].as_str().unwrap());
    assert!(it.store.get(&address).await.unwrap().is_none());
    it.stop().await;
}
