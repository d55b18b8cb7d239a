//! Resource quotas, limit ranges, and the initial objects of every namespace.

use serde_json::{Value, json};

use crate::support::plane::{Plane, text};

fn pod(name: &str, resources: Value) -> Value {
    let containers = json!([{"name": "c", "image": "i", "resources": resources}]);
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {"terminationGracePeriodSeconds": 0, "containers": containers}})
}

fn used(plane: &Plane, what: &str, amount: &str) {
    let path = format!("jsonpath={{.status.used.{}}}", what.replace('.', "\\."));
    plane.wait(&format!("{what}={amount}"), &["get", "quota", "q", "-o", &path], amount);
}

#[test]
fn quotas_count_what_there_is_and_refuse_what_is_too_much() {
    let plane = Plane::start();
    let small = json!({"requests": {"cpu": "200m"}, "limits": {"cpu": "1"}});
    plane.created(&pod("before", small.clone()));
    plane.ok(&[
        "create",
        "quota",
        "q",
        "--hard=pods=3,requests.cpu=500m,services.nodeports=1,count/deployments.apps=1,requests.storage=2Gi",
    ]);
    used(&plane, "requests.cpu", "200m");
    used(&plane, "count/deployments.apps", "0");

    let said = text(&plane.create(&pod("silent", json!({}))).stderr);
    assert!(said.contains(r#"pods "silent" is forbidden: failed quota: q: must specify requests.cpu for: c"#), "{said}");
    plane.created(&pod("second", small.clone()));
    let said = text(&plane.create(&pod("third", small.clone())).stderr);
    let why = "exceeded quota: q, requested: requests.cpu=200m, used: requests.cpu=400m, limited: requests.cpu=500m";
    assert!(said.contains(&format!(r#"pods "third" is forbidden: {why}"#)), "{said}");
    // Failed writes are not counted.
    assert!(text(&plane.create(&pod("second", json!({"requests": {"cpu": "1m"}}))).stderr).contains("already exists"));
    used(&plane, "requests.cpu", "400m");
    plane.ok(&["delete", "pod", "before"]);
    used(&plane, "requests.cpu", "200m");
    plane.created(&pod("third", small));

    plane.ok(&["create", "service", "nodeport", "a", "--tcp=80"]);
    assert!(
        plane.fails(&["create", "service", "nodeport", "b", "--tcp=80"]).contains("exceeded quota: q, requested: services.nodeports=1")
    );
    plane.ok(&["create", "deployment", "a", "--image=i", "--replicas=0"]);
    assert!(plane.fails(&["create", "deployment", "b", "--image=i"]).contains("count/deployments.apps=1"));
    let said = plane.ok(&["describe", "quota", "q"]);
    assert!(said.lines().any(|it| it.split_whitespace().eq(["requests.cpu", "400m", "500m"])), "{said}");
}

#[test]
fn quotas_of_a_scope_count_its_pods_only() {
    let plane = Plane::start();
    plane.ok(&["create", "quota", "q", "--hard=pods=1", "--scopes=BestEffort"]);
    plane.created(&pod("other", json!({"requests": {"cpu": "1"}})));
    plane.created(&pod("best-effort", json!({})));
    assert!(text(&plane.create(&pod("more", json!({}))).stderr).contains("exceeded quota: q"));
    used(&plane, "pods", "1");
}

#[test]
fn limit_ranges_default_and_bound() {
    let plane = Plane::start();
    let limits = json!([
        {"type": "Container", "default": {"cpu": "500m"}, "defaultRequest": {"cpu": "100m"}, "min": {"cpu": "50m"}, "maxLimitRequestRatio": {"cpu": "5"}},
        {"type": "Pod", "max": {"cpu": "1"}},
        {"type": "PersistentVolumeClaim", "min": {"storage": "1Gi"}, "max": {"storage": "5Gi"}},
    ]);
    plane.created(&json!({"apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "l"}, "spec": {"limits": limits}}));
    plane.created(&pod("defaulted", json!({})));
    assert_eq!(
        plane.get("pod/defaulted", "{.spec.containers[0].resources.requests.cpu}/{.spec.containers[0].resources.limits.cpu}"),
        "100m/500m"
    );
    for (resources, why) in [
        (json!({"requests": {"cpu": "10m"}, "limits": {"cpu": "40m"}}), "minimum cpu usage per Container is 50m, but request is 10m"),
        (
            json!({"requests": {"cpu": "100m"}, "limits": {"cpu": "600m"}}),
            "cpu max limit to request ratio per Container is 5, but provided ratio is 6.000000",
        ),
        (json!({"requests": {"cpu": "1"}, "limits": {"cpu": "2"}}), "maximum cpu usage per Pod is 1, but limit is 2"),
    ] {
        let said = text(&plane.create(&pod("refused", resources)).stderr);
        assert!(said.contains(why), "{said}");
    }
    let claim = |size: &str| json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "c"}, "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}}});
    let said = text(&plane.create(&claim("9Gi")).stderr);
    assert!(said.contains("maximum storage usage per PersistentVolumeClaim is 5Gi, but request is 9Gi"), "{said}");
    plane.created(&claim("2Gi"));
}

#[test]
fn every_namespace_gets_the_certificate_it_trusts() {
    let mut plane = Plane::without_controllers();
    let file = plane.dir.path().join("ca.crt");
    std::fs::write(&file, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
    plane.manage(&["--leader-elect=false", &format!("--root-ca-file={}", file.display())]);
    plane.ok(&["create", "namespace", "n"]);
    let certificate = ["get", "configmap", "kube-root-ca.crt", "-n", "n", "-o", r"jsonpath={.data.ca\.crt}"];
    plane.wait_until("the certificate", &certificate, |it| it.contains("AAAA"));
    plane.ok(&["delete", "configmap", "kube-root-ca.crt", "-n", "n"]);
    plane.wait_until("the certificate, again", &certificate, |it| it.contains("AAAA"));
}
