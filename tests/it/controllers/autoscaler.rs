//! Horizontal pod autoscalers without a metrics API.

use serde_json::json;

use crate::support::plane::Plane;

#[test]
fn limits_hold_and_conditions_tell_of_missing_metrics() {
    let plane = Plane::start();
    plane.ok(&["create", "deployment", "web", "--image=i", "--replicas=1"]);
    plane.created(&json!({
        "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "web"},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}, "minReplicas": 1, "maxReplicas": 5,
            "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}}],
        },
    }));
    let condition = |kind: &str, field: &str| format!("jsonpath={{.status.conditions[?(@.type=='{kind}')].{field}}}");
    plane.wait("the condition", &["get", "hpa", "web", "-o", &condition("ScalingActive", "reason")], "FailedGetResourceMetric");
    let why = "the HPA was unable to compute the replica count: failed to get cpu utilization: unable to get metrics for resource cpu: unable to \
               fetch metrics from resource metrics API: the server could not find the requested resource (get pods.metrics.k8s.io)";
    assert_eq!(plane.ok(&["get", "hpa", "web", "-o", &condition("ScalingActive", "message")]), why);
    assert_eq!(plane.ok(&["get", "hpa", "web", "-o", &condition("AbleToScale", "reason")]), "SucceededGetScale");
    plane.ok(&["patch", "hpa", "web", "--type=merge", "-p", r#"{"spec": {"minReplicas": 3}}"#]);
    plane.wait("the least there may be", &["get", "deployment", "web", "-o", "jsonpath={.spec.replicas}"], "3");
    let event = "New size: 3; reason: Current number of replicas below Spec.MinReplicas";
    plane.wait_until("the event", &["describe", "hpa", "web"], |it| it.contains(event));
}
