//! Disruption budgets, evictions and `kubectl drain`.

use std::process::Stdio;

use serde_json::{Value, json};

use crate::support::plane::Plane;

fn deployment(replicas: u32) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
        "spec": {
            "replicas": replicas, "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"nodeName": "n1", "terminationGracePeriodSeconds": 0, "containers": [{"name": "c", "image": "i"}]},
            },
        },
    })
}

fn evict(plane: &Plane, pod: &str, query: &str) -> (u16, Value) {
    let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod, "namespace": "default"}});
    plane.request("POST", &format!("/api/v1/namespaces/default/pods/{pod}/eviction{query}"), "application/json", &eviction)
}

fn wait_for_budget(plane: &Plane, budget: &str, numbers: &str) {
    let path = "jsonpath={.status.expectedPods} {.status.desiredHealthy} {.status.currentHealthy} {.status.disruptionsAllowed}";
    plane.wait("the budget's status", &["get", "pdb", budget, "-o", path], numbers);
}

#[test]
fn evictions_hold_to_budgets_and_drain_waits_for_them() {
    let plane = Plane::start();
    plane.created(&json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}}));
    plane.created(&deployment(3));
    plane.ok(&["create", "poddisruptionbudget", "web", "--selector=app=web", "--max-unavailable=1"]);
    plane.wait_until("three pods", &["get", "pods", "-o", "name"], |it| it.lines().count() == 3);
    let pods = plane.pods("app=web");
    pods.iter().for_each(|it| plane.make_ready(it));
    wait_for_budget(&plane, "web", "3 2 3 1");
    assert_eq!(plane.get("pdb/web", "{.status.conditions[0].type}={.status.conditions[0].reason}"), "DisruptionAllowed=SufficientPods");

    assert_eq!(evict(&plane, &pods[0], "?dryRun=All").0, 201);
    wait_for_budget(&plane, "web", "3 2 3 1");
    assert_eq!(evict(&plane, &pods[0], "").0, 201);
    wait_for_budget(&plane, "web", "3 2 2 0");
    let (code, refusal) = evict(&plane, &pods[1], "");
    assert_eq!((code, &refusal["reason"]), (429, &json!("TooManyRequests")));
    assert_eq!(refusal["message"], "Cannot evict pod as it would violate the pod's disruption budget.");
    let cause = json!({"reason": "DisruptionBudget", "message": "The disruption budget web needs 2 healthy pods and has 2 currently"});
    assert_eq!(refusal["details"]["causes"], json!([cause]));

    // The existing pods are drained; each is evicted only when another is ready.
    let mut drain = plane.command(&["drain", "n1", "--ignore-daemonsets", "--timeout=120s"]);
    let mut drain = drain.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("kubectl is installed");
    let status = crate::support::wait_for("the end of kubectl drain", std::time::Duration::from_secs(120), || {
        let healthy: i64 = plane.get("pdb/web", "{.status.currentHealthy}").parse().unwrap();
        assert!(healthy >= 2, "{healthy} healthy");
        plane.pods("app=web").iter().for_each(|it| plane.make_ready(it));
        drain.try_wait().expect("a child").ok_or_else(|| plane.ok(&["get", "pods,pdb"]))
    });
    assert!(status.success(), "{status}");
    let left = plane.pods("app=web");
    assert!(left.iter().all(|it| !pods.contains(it)), "{left:?} of {pods:?}");
    assert_eq!(plane.get("node/n1", "{.spec.unschedulable}"), "true");
}

#[test]
fn a_pod_in_two_budgets_cannot_be_evicted() {
    let plane = Plane::start();
    plane.created(&deployment(1));
    for name in ["a", "b"] {
        plane.ok(&["create", "poddisruptionbudget", name, "--selector=app=web", "--min-available=0"]);
    }
    plane.wait_until("a pod", &["get", "pods", "-o", "name"], |it| it.lines().count() == 1);
    let pod = plane.pods("app=web").remove(0);
    plane.make_ready(&pod);
    let (code, refusal) = evict(&plane, &pod, "");
    let message = "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.";
    assert_eq!((code, &refusal["message"]), (500, &json!(message)));
}
