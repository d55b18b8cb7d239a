//! Services, and where their pods serve them.

use serde_json::json;

use crate::support::plane::Plane;

#[test]
fn slices_follow_pods_and_mirror_what_is_written() {
    let mut plane = Plane::without_controllers();
    plane.manage(&["--leader-elect=false", "--host-port-endpoints=false", "--max-endpoints-per-slice=2"]);
    plane.settled_namespace("default");
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "labels": {"tier": "front"}},
        "spec": {"selector": {"app": "web"}, "ports": [{"name": "http", "port": 80, "targetPort": "http"}]},
    });
    plane.created(&service);
    for at in 1..=3 {
        let name = format!("p{at}");
        let containers = json!([{"name": "c", "image": "i", "ports": [{"name": "http", "containerPort": 8080}]}]);
        plane.created(&json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": "web"}}, "spec": {"containers": containers},
        }));
        let ip = format!("10.1.0.{at}");
        plane.set_status(&format!("/api/v1/namespaces/default/pods/{name}"), &json!({"podIP": ip, "podIPs": [{"ip": ip}]}));
        plane.make_ready(&name);
    }
    plane.wait(
        "the endpoints",
        &["get", "endpoints", "web", "-o", "jsonpath={.subsets[*].addresses[*].ip} {.subsets[*].ports[*].port}"],
        "10.1.0.1 10.1.0.2 10.1.0.3 8080",
    );
    let slices = [
        "get",
        "endpointslices",
        "-l",
        "kubernetes.io/service-name=web",
        "-o",
        "jsonpath={range .items[*]}{.endpoints[*].conditions.ready}{\"\\n\"}{end}",
    ];
    plane.wait_until("two slices", &slices, |it| {
        let mut lines: Vec<&str> = it.lines().collect();
        lines.sort_unstable();
        lines == ["true", "true true"]
    });
    plane.ok(&["delete", "service", "web"]);
    plane.wait("the slices' end", &slices, "");

    plane.created(&json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "outside"}, "spec": {"ports": [{"port": 80}]}}));
    plane.created(&json!({
        "apiVersion": "v1", "kind": "Endpoints", "metadata": {"name": "outside"},
        "subsets": [{"addresses": [{"ip": "192.0.2.1"}], "ports": [{"port": 80}]}],
    }));
    let mirror = [
        "get",
        "endpointslices",
        "-l",
        "endpointslice.kubernetes.io/managed-by=endpointslicemirroring-controller.k8s.io",
        "-o",
        "jsonpath={.items[*].endpoints[*].addresses[0]}",
    ];
    plane.wait("the mirror", &mirror, "192.0.2.1");
}
