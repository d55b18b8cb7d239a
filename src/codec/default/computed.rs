//! The defaults that depend on other fields: one function per type.

use serde_json::{Value, json};

use super::{Change, Fields, TEMPLATE_GENERATION, is_zero};
use crate::object::pod::means_latest;
use crate::util::json::set_default;

/// The computed defaults of a type, if any.
pub(super) fn of(name: &str) -> Option<Change> {
    Some(match name.strip_prefix("io.k8s.api.").unwrap_or(name) {
        "core.v1.Pod" => pod,
        "core.v1.PodSpec" => pod_spec,
        "core.v1.Container" | "core.v1.EphemeralContainer" => pull_policy,
        "core.v1.Volume" => volume,
        "core.v1.Service" => load_balancer,
        "core.v1.ServiceSpec" => service,
        "core.v1.ServicePort" => service_port,
        "core.v1.ReplicationController" => replication_controller,
        "core.v1.Namespace" => namespace,
        "core.v1.Secret" => secret,
        "core.v1.NodeSpec" => node_spec,
        "core.v1.NodeStatus" => node_status,
        "core.v1.LimitRangeItem" => limit_range_item,
        "apps.v1.DeploymentStrategy" | "apps.v1.DaemonSetUpdateStrategy" | "apps.v1.StatefulSetUpdateStrategy" => update_strategy,
        "apps.v1.StatefulSetSpec" => stateful_set_spec,
        "apps.v1.DaemonSet" => daemon_set,
        "batch.v1.Job" => job,
        "autoscaling.v2.HorizontalPodAutoscaler" => autoscaler,
        "networking.v1.NetworkPolicySpec" => network_policy,
        "rbac.v1.Subject" => subject,
        _ => return None,
    })
}

pub(super) fn text<'a>(map: &'a Fields, name: &str) -> &'a str {
    map.get(name).and_then(Value::as_str).unwrap_or_default()
}

/// Sets a field that has no value, or only a zero one.
fn set(map: &mut Fields, name: &str, value: impl Into<Value>) {
    if map.get(name).is_none_or(is_zero) {
        map.insert(name.to_owned(), value.into());
    }
}

fn fields<'a>(map: &'a mut Fields, name: &str) -> Option<&'a mut Fields> {
    map.get_mut(name).and_then(Value::as_object_mut)
}

fn fields_or_new<'a>(map: &'a mut Fields, name: &str) -> Option<&'a mut Fields> {
    set_default(map, name, Fields::new());
    fields(map, name)
}

fn items<'a>(map: &'a mut Fields, name: &str) -> impl Iterator<Item = &'a mut Fields> {
    map.get_mut(name).and_then(Value::as_array_mut).into_iter().flatten().filter_map(Value::as_object_mut)
}

fn pod(pod: &mut Fields) {
    let Some(spec) = fields(pod, "spec") else { return };
    set_default(spec, "enableServiceLinks", true);
    let host_network = spec.get("hostNetwork") == Some(&Value::Bool(true));
    for list in ["containers", "initContainers"] {
        for container in items(spec, list) {
            if host_network {
                for port in items(container, "ports") {
                    if let Some(number) = port.get("containerPort").cloned() {
                        set(port, "hostPort", number);
                    }
                }
            }
            // A request defaults to the limit.
            let Some(resources) = fields(container, "resources") else { continue };
            let Some(Value::Object(limits)) = resources.get("limits").cloned() else { continue };
            let Some(requests) = fields_or_new(resources, "requests") else { continue };
            limits.into_iter().for_each(|(name, limit)| set_default(requests, &name, limit));
        }
    }
}

/// The service account has two names, of which the newer one counts.
fn pod_spec(spec: &mut Fields) {
    let older = text(spec, "serviceAccount").to_owned();
    if !older.is_empty() {
        set(spec, "serviceAccountName", older);
    }
    let name = text(spec, "serviceAccountName").to_owned();
    if !name.is_empty() {
        spec.insert("serviceAccount".to_owned(), name.into());
    }
}

fn pull_policy(container: &mut Fields) {
    let policy = if means_latest(text(container, "image")) { "Always" } else { "IfNotPresent" };
    set(container, "imagePullPolicy", policy);
}

fn volume(volume: &mut Fields) {
    if volume.iter().all(|(name, value)| name == "name" || value.is_null()) {
        volume.insert("emptyDir".to_owned(), json!({}));
    }
}

fn service(spec: &mut Fields) {
    match text(spec, "sessionAffinity") {
        "ClientIP" => {
            if let Some(client_ip) = fields_or_new(spec, "sessionAffinityConfig").and_then(|it| fields_or_new(it, "clientIP")) {
                set_default(client_ip, "timeoutSeconds", 10800);
            }
        }
        "None" => drop(spec.remove("sessionAffinityConfig")),
        _ => {}
    }
    let kind = text(spec, "type").to_owned();
    let external_ips = spec.get("externalIPs").is_some_and(|it| !is_zero(it));
    if matches!(&*kind, "NodePort" | "LoadBalancer") || kind == "ClusterIP" && external_ips {
        set(spec, "externalTrafficPolicy", "Cluster");
    }
    if matches!(&*kind, "ClusterIP" | "NodePort" | "LoadBalancer") {
        set_default(spec, "internalTrafficPolicy", "Cluster");
    }
    if kind == "LoadBalancer" {
        set_default(spec, "allocateLoadBalancerNodePorts", true);
    }
}

/// Connections through a balancer that has an address keep it.
fn load_balancer(service: &mut Fields) {
    if service.get("spec").and_then(|it| it.get("type")).is_none_or(|it| it != "LoadBalancer") {
        return;
    }
    let ingress = service.get_mut("status").and_then(|it| it.get_mut("loadBalancer")?.get_mut("ingress")?.as_array_mut());
    for it in ingress.into_iter().flatten().filter_map(Value::as_object_mut) {
        if !text(it, "ip").is_empty() {
            set_default(it, "ipMode", "VIP");
        }
    }
}

fn service_port(port: &mut Fields) {
    if let Some(number) = port.get("port").cloned() {
        set(port, "targetPort", number);
    }
}

fn template_labels(spec: &mut Fields) -> Option<Value> {
    let labels = fields(spec, "template").and_then(|it| fields(it, "metadata")).and_then(|it| it.get("labels"));
    labels.filter(|it| !is_zero(it)).cloned()
}

fn replication_controller(controller: &mut Fields) {
    let Some(spec) = fields(controller, "spec") else { return };
    let Some(labels) = template_labels(spec) else { return };
    set(spec, "selector", labels.clone());
    if let Some(metadata) = fields_or_new(controller, "metadata") {
        set(metadata, "labels", labels);
    }
}

fn namespace(namespace: &mut Fields) {
    let Some(metadata) = fields(namespace, "metadata") else { return };
    let name = text(metadata, "name").to_owned();
    if !name.is_empty()
        && let Some(labels) = fields_or_new(metadata, "labels")
    {
        labels.insert("kubernetes.io/metadata.name".to_owned(), name.into());
    }
}

/// `stringData` is write-only: it is merged into `data`.
fn secret(secret: &mut Fields) {
    use base64::Engine;
    let Some(Value::Object(texts)) = secret.remove("stringData") else { return };
    let Some(data) = fields_or_new(secret, "data") else { return };
    for (key, text) in texts {
        let text = text.as_str().unwrap_or_default();
        data.insert(key, base64::engine::general_purpose::STANDARD.encode(text).into());
    }
}

/// How often the template has changed, which older versions of the kind had a field for.
fn daemon_set(set: &mut Fields) {
    if let Some(annotations) = fields_or_new(set, "metadata").and_then(|it| fields_or_new(it, "annotations")) {
        set_default(annotations, TEMPLATE_GENERATION, "1");
    }
}

/// A node's ranges begin with the one in the older field; if they do not, that is the only one.
fn node_spec(spec: &mut Fields) {
    let first = spec.get("podCIDRs").and_then(|it| it.get(0)?.as_str()).unwrap_or_default();
    let single = text(spec, "podCIDR");
    if single == first {
        return;
    }
    let (first, single) = (Value::from(first), Value::from(single));
    if single == "" {
        spec.insert("podCIDR".to_owned(), first);
    } else {
        spec.insert("podCIDRs".to_owned(), vec![single].into());
    }
}

fn node_status(status: &mut Fields) {
    if let Some(capacity) = status.get("capacity").cloned() {
        set_default(status, "allocatable", capacity);
    }
}

fn limit_range_item(item: &mut Fields) {
    if text(item, "type") != "Container" {
        return;
    }
    // A limit defaults to the maximum; a request to the limit, or else to the minimum.
    for (to, from) in [("default", "max"), ("defaultRequest", "default"), ("defaultRequest", "min")] {
        let Some(Value::Object(amounts)) = item.get(from).cloned() else { continue };
        let Some(map) = fields_or_new(item, to) else { continue };
        amounts.into_iter().for_each(|(name, amount)| set_default(map, &name, amount));
    }
}

fn update_strategy(strategy: &mut Fields) {
    if text(strategy, "type") == "RollingUpdate" {
        set_default(strategy, "rollingUpdate", Fields::new());
    }
}

/// Claim templates carry kind and version, like objects.
fn stateful_set_spec(spec: &mut Fields) {
    for claim in items(spec, "volumeClaimTemplates") {
        set(claim, "apiVersion", "v1");
        set(claim, "kind", "PersistentVolumeClaim");
    }
}

fn job(job: &mut Fields) {
    let Some(spec) = fields(job, "spec") else { return };
    let absent = |spec: &Fields, name| spec.get(name).is_none_or(Value::is_null);
    if absent(spec, "completions") && absent(spec, "parallelism") {
        set_default(spec, "completions", 1);
    }
    set_default(spec, "parallelism", 1);
    let backoff_limit = if absent(spec, "backoffLimitPerIndex") { 6 } else { i32::MAX };
    set_default(spec, "backoffLimit", backoff_limit);
    set_default(spec, "completionMode", "NonIndexed");
    set_default(spec, "suspend", false);
    set_default(spec, "manualSelector", false);
    let replacement = if absent(spec, "podFailurePolicy") { "TerminatingOrFailed" } else { "Failed" };
    set_default(spec, "podReplacementPolicy", replacement);
    if let Some(labels) = template_labels(spec)
        && let Some(metadata) = fields_or_new(job, "metadata")
    {
        set(metadata, "labels", labels);
    }
}

fn autoscaler(autoscaler: &mut Fields) {
    let Some(spec) = fields(autoscaler, "spec") else { return };
    let cpu = json!([{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}}]);
    set(spec, "metrics", cpu);
    let Some(behavior) = fields(spec, "behavior") else { return };
    let fully = json!({"type": "Percent", "value": 100, "periodSeconds": 15});
    if let Some(up) = fields_or_new(behavior, "scaleUp") {
        set_default(up, "selectPolicy", "Max");
        set_default(up, "stabilizationWindowSeconds", 0);
        set_default(up, "policies", json!([{"type": "Pods", "value": 4, "periodSeconds": 15}, fully]));
    }
    if let Some(down) = fields_or_new(behavior, "scaleDown") {
        set_default(down, "selectPolicy", "Max");
        set_default(down, "policies", json!([fully]));
    }
}

fn network_policy(spec: &mut Fields) {
    let egress = spec.get("egress").is_some_and(|it| !is_zero(it));
    set(spec, "policyTypes", if egress { json!(["Ingress", "Egress"]) } else { json!(["Ingress"]) });
}

fn subject(subject: &mut Fields) {
    if matches!(text(subject, "kind"), "User" | "Group") {
        set(subject, "apiGroup", "rbac.authorization.k8s.io");
    }
}
