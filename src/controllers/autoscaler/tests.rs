//! Autoscalers with their targets.

use serde_json::{Value, json};

use super::*;
use crate::controllers::simulation::World;

const PATH: &str = "/apis/metrics.k8s.io/v1beta1/namespaces/default/pods?labelSelector=app%3Da";

fn world(metrics: &Metrics, replicas: i64, spec: Value) -> World {
    let mut world = World::new(vec![Box::new(AutoscalerController::new(metrics.clone(), Config::default()))]);
    let selector = json!({"matchLabels": {"app": "a"}});
    let deployment =
        json!({"metadata": {"name": "web"}, "spec": {"replicas": replicas, "selector": selector}, "status": {"replicas": replicas}});
    world.put(&resource::DEPLOYMENT, "default", deployment);
    let mut full = json!({
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}, "minReplicas": 1, "maxReplicas": 10,
        "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}}],
    });
    full.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    world.put(&resource::HORIZONTAL_POD_AUTOSCALER, "default", json!({"metadata": {"name": "h"}, "spec": full}));
    for at in 0..replicas {
        let containers = json!([{"name": "c", "resources": {"requests": {"cpu": "100m"}}}]);
        let ready = json!([{"type": "Ready", "status": "True", "lastTransitionTime": "2025-12-31T00:00:00Z"}]);
        let status = json!({"phase": "Running", "startTime": "2025-12-31T00:00:00Z", "conditions": ready});
        world.put(
            &resource::POD,
            "default",
            json!({"metadata": {"name": format!("p{at}"), "labels": {"app": "a"}}, "spec": {"containers": containers}, "status": status}),
        );
    }
    world
}

/// Every pod uses this much.
fn usage(replicas: i64, cpu: &str) -> Value {
    let pod = |at: i64| {
        let containers = json!([{"name": "c", "usage": {"cpu": cpu}}]);
        json!({"metadata": {"name": format!("p{at}")}, "timestamp": "2026-01-01T00:00:00Z", "window": "30s", "containers": containers})
    };
    json!({"items": (0..replicas).map(pod).collect::<Vec<_>>()})
}

fn round(world: &mut World, metrics: &Metrics, answer: Result<Value, String>) {
    world.settle(|_| ());
    metrics.set(PATH, answer);
    world.pass(15);
    world.settle(|_| ());
}

fn seen(world: &World) -> (i64, Value) {
    let scale = tree(&world.cache.get(&resource::DEPLOYMENT, "default", "web").unwrap())["spec"]["replicas"].as_i64().unwrap();
    (scale, tree(&world.cache.get(&resource::HORIZONTAL_POD_AUTOSCALER, "default", "h").unwrap())["status"].take())
}

fn condition(status: &Value, kind: &str) -> (String, String, String) {
    let found = conditions::find(&status["conditions"], kind).unwrap_or_else(|| panic!("no {kind} in {status}"));
    let text = |field: &str| found[field].as_str().unwrap_or_default().to_owned();
    (text("status"), text("reason"), text("message"))
}

#[test]
fn the_scale_follows_what_pods_use() {
    let metrics = Metrics::default();
    let mut world = world(&metrics, 3, json!({}));
    round(&mut world, &metrics, Ok(usage(3, "90m")));
    let (scale, status) = seen(&world);
    assert_eq!((scale, &status["desiredReplicas"], &status["currentReplicas"]), (6, &json!(6), &json!(3)));
    assert_eq!(
        status["currentMetrics"],
        json!([{"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": 90, "averageValue": "90m"}}}])
    );
    assert_eq!(condition(&status, "AbleToScale").1, "SucceededRescale");
    assert_eq!(condition(&status, "ScalingActive").1, "ValidMetricFound");
    assert_eq!(condition(&status, "ScalingLimited").1, "DesiredWithinRange");
    assert!(status["lastScaleTime"].is_string());
    // It scales down only after five minutes of low usage.
    round(&mut world, &metrics, Ok(usage(3, "5m")));
    assert_eq!((seen(&world).0, condition(&seen(&world).1, "AbleToScale").1), (6, "ScaleDownStabilized".to_owned()));
    for _ in 0..21 {
        round(&mut world, &metrics, Ok(usage(3, "5m")));
    }
    assert_eq!(seen(&world).0, 1);
}

#[test]
fn without_metrics_conditions_say_so() {
    let metrics = Metrics::default();
    let mut world = world(&metrics, 3, json!({}));
    round(&mut world, &metrics, Err("the server could not find the requested resource".to_owned()));
    let (scale, status) = seen(&world);
    assert_eq!(scale, 3);
    let why = "the HPA was unable to compute the replica count: failed to get cpu utilization: unable to get metrics for resource cpu: unable to \
               fetch metrics from resource metrics API: the server could not find the requested resource (get pods.metrics.k8s.io)";
    assert_eq!(condition(&status, "ScalingActive"), ("False".to_owned(), "FailedGetResourceMetric".to_owned(), why.to_owned()));
    assert_eq!(condition(&status, "AbleToScale").1, "SucceededGetScale");
}

#[test]
fn limits_hold_without_metrics() {
    for (replicas, min, max, expected) in [(3, 5, 10, 5), (7, 1, 4, 4), (0, 1, 4, 0)] {
        let metrics = Metrics::default();
        let mut world = world(&metrics, replicas, json!({"minReplicas": min, "maxReplicas": max}));
        world.settle(|_| ());
        assert_eq!(seen(&world).0, expected, "{replicas} of {min} to {max}");
    }
    let metrics = Metrics::default();
    let mut world = world(&metrics, 3, json!({"scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "none"}}));
    world.settle(|_| ());
    let message = r#"the HPA controller was unable to get the target's current scale: deployments.apps "none" not found"#;
    assert_eq!(condition(&seen(&world).1, "AbleToScale"), ("False".to_owned(), "FailedGetScale".to_owned(), message.to_owned()));
}

#[test]
fn what_is_not_served_is_told_of_in_kubernetes_words() {
    let average = json!({"type": "AverageValue", "averageValue": "1"});
    let selector = json!({"matchLabels": {"a": "b"}, "matchExpressions": [{"key": "c", "operator": "In", "values": ["d", "e"]}]});
    let shown = "&LabelSelector{MatchLabels:map[string]string{a: b,},MatchExpressions:[]LabelSelectorRequirement{\
                 LabelSelectorRequirement{Key:c,Operator:In,Values:[d e],},},}";
    let no_custom = "unable to fetch metrics from custom metrics API: no custom metrics API (custom.metrics.k8s.io) registered";
    for (metric, path, expected) in [
        (
            json!({"type": "ContainerResource", "containerResource": {"name": "cpu", "container": "c", "target": average}}),
            PATH.to_owned(),
            "failed to get c container metric value: failed to get cpu usage: unable to get metrics for resource cpu: unable to fetch metrics \
             from resource metrics API: the server could not find the requested resource (get pods.metrics.k8s.io)"
                .to_owned(),
        ),
        (
            json!({"type": "Pods", "pods": {"metric": {"name": "m"}, "target": average}}),
            "/apis/custom.metrics.k8s.io/v1beta2/namespaces/default/pods/*/m?labelSelector=app%3Da".to_owned(),
            format!("failed to get pods metric value: unable to get metric m: {no_custom}"),
        ),
        (
            json!({"type": "External", "external": {"metric": {"name": "m", "selector": selector}, "target": average}}),
            "/apis/external.metrics.k8s.io/v1beta1/namespaces/default/m?labelSelector=a%3Db%2Cc%20in%20%28d%2Ce%29".to_owned(),
            format!(
                "failed to get external metric value: unable to get external metric default/m/{shown}: unable to fetch metrics from external \
                 metrics API: the server could not find the requested resource (get m.external.metrics.k8s.io)"
            ),
        ),
        (
            json!({"type": "External", "external": {"metric": {"name": "m"}, "target": average}}),
            "/apis/external.metrics.k8s.io/v1beta1/namespaces/default/m".to_owned(),
            "failed to get external metric value: unable to get external metric default/m/nil: unable to fetch metrics from external metrics \
             API: the server could not find the requested resource (get m.external.metrics.k8s.io)"
                .to_owned(),
        ),
    ] {
        let metrics = Metrics::default();
        let mut world = world(&metrics, 1, json!({"metrics": [metric]}));
        world.settle(|_| ());
        metrics.set(&path, Err(super::metrics::NOT_SERVED.to_owned()));
        world.pass(15);
        world.settle(|_| ());
        let event = format!("FailedComputeMetricsReplicas: invalid metrics (1 invalid out of 1), first error is: {expected}");
        assert!(world.told.contains(&event), "{:#?}", world.told);
    }
    let metrics = Metrics::default();
    let mut world = world(&metrics, 1, json!({"scaleTargetRef": {"apiVersion": "apps/v1", "kind": "DaemonSet", "name": "x"}}));
    world.settle(|_| ());
    assert_eq!(world.told, ["FailedGetScale: the server could not find the requested resource"]);
}

#[test]
fn some_metrics_suffice_to_grow_but_not_to_shrink() {
    let both = json!({"metrics": [
        {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}},
        {"type": "External", "external": {"metric": {"name": "queue"}, "target": {"type": "Value", "value": "10"}}},
    ]});
    for (cpu, expected) in [("90m", 6), ("5m", 3)] {
        let metrics = Metrics::default();
        let mut world = world(&metrics, 3, both.clone());
        world.settle(|_| ());
        metrics.set(PATH, Ok(usage(3, cpu)));
        world.settle(|_| ());
        metrics.set("/apis/external.metrics.k8s.io/v1beta1/namespaces/default/queue", Err("gone".to_owned()));
        world.settle(|_| ());
        assert_eq!(seen(&world).0, expected, "{cpu}");
    }
}

#[test]
fn pods_that_two_of_them_want_are_left_alone() {
    let metrics = Metrics::default();
    let mut world = world(&metrics, 3, json!({}));
    let target = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"});
    let another = world.put(
        &resource::HORIZONTAL_POD_AUTOSCALER,
        "default",
        json!({"metadata": {"name": "i"}, "spec": {"scaleTargetRef": target, "minReplicas": 1, "maxReplicas": 10}}),
    );
    round(&mut world, &metrics, Ok(usage(3, "90m")));
    let message = "pods by selector app=a are controlled by multiple HPAs: [{h default} {i default}]".to_owned();
    let (scale, status) = seen(&world);
    assert_eq!((scale, condition(&status, "ScalingActive")), (3, ("False".to_owned(), "AmbiguousSelector".to_owned(), message.clone())));
    assert!(
        world.told.contains(&format!("AmbiguousSelector: {message}"))
            && world.told.contains(&format!("FailedComputeMetricsReplicas: {message}"))
    );
    world.remove(&another.key());
    round(&mut world, &metrics, Ok(usage(3, "90m")));
    round(&mut world, &metrics, Ok(usage(3, "90m")));
    let (scale, status) = seen(&world);
    assert_eq!((scale, condition(&status, "ScalingActive").1), (6, "ValidMetricFound".to_owned()));
}

#[test]
fn a_scale_that_was_not_changed_is_not_told_of() {
    let metrics = Metrics::default();
    let world = world(&metrics, 3, json!({"minReplicas": 5}));
    let controller = AutoscalerController::new(metrics, Config::default());
    let key = ObjectKey::new(&resource::HORIZONTAL_POD_AUTOSCALER, "default", "h");
    let deployment = world.cache.get(&resource::DEPLOYMENT, "default", "web").unwrap();
    let expected = json!({"metadata": {"resourceVersion": deployment.revision().to_string()}, "spec": {"replicas": 5}});
    // The server refuses it each time.
    for _ in 0..3 {
        let plan = controller.plan(&world.cache, &key, world.now);
        let [Write::Patch { key, subresource: "scale", patch: Patch::Merge(patch) }] = &plan.writes[..] else { panic!("{plan:?}") };
        assert_eq!((key, patch, plan.notes.len()), (&deployment.key(), &expected, 0));
    }
}
