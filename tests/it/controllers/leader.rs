//! Several controller managers: one works, and another takes over when it dies.

use std::time::Duration;

use crate::support::plane::Plane;
use crate::support::wait_for;

const FAST: [&str; 3] = ["--leader-elect-lease-duration=3s", "--leader-elect-renew-deadline=2s", "--leader-elect-retry-period=200ms"];

#[test]
fn another_takes_over_and_nothing_is_done_twice() {
    let mut plane = Plane::without_controllers();
    let both = [plane.manage(&FAST), plane.manage(&FAST)];
    let leads = |plane: &Plane, at: usize| plane.manager(at).said().contains(" leads kube-controller-manager");
    let first = wait_for("a leader", Duration::from_secs(30), || both.into_iter().find(|at| leads(&plane, *at)).ok_or_else(String::new));
    let other = 1 - first;
    plane.settled_namespace("default");
    plane.ok(&["create", "deployment", "web", "--image=i", "--replicas=600"]);
    let pods = ["get", "pods", "-l", "app=web", "-o", "name"];
    plane.wait_until("the first pods", &pods, |it| !it.is_empty());
    plane.kill_manager(first);
    plane.wait_until("all pods", &pods, |it| it.lines().count() >= 600);
    assert!(leads(&plane, other), "the other one leads");
    let lease = plane.ok(&["get", "lease", "kube-controller-manager", "-n", "kube-system", "-o", "jsonpath={.spec.leaseTransitions}"]);
    assert_eq!(lease, "1");
    // In the end the state is as specified, and no surplus pod was created.
    plane.wait("the deployment", &["get", "deployment", "web", "-o", "jsonpath={.status.replicas}"], "600");
    assert_eq!(plane.ok(&pods).lines().count(), 600);
    assert_eq!(plane.ok(&["get", "rs", "-o", "name"]).lines().count(), 1);
    let events = plane.ok(&["get", "events", "-o", "jsonpath={.items[*].reason}"]);
    assert!(!events.contains("SuccessfulDelete"), "{events}");
}
