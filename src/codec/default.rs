//! Defaults: the meaning of absent fields, written into the object for every reader. Defaults that depend on no other field are data
//! (`object::schema`); the others are here, one function per type.

mod off;
mod plan;

use serde_json::{Map, Value, json};

use self::plan::Below;
use crate::object::ResourceRef;
use crate::object::pod::means_latest;
use crate::object::schema::{Field, Shape};

/// The annotation of a daemon set that counts the versions of its template.
pub const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";

type Fields = Map<String, Value>;
/// Fills in the defaults that depend on other fields of an object.
type Computed = fn(&mut Fields);

/// Fills in the defaults of an object, including its status, and drops fields that are not kept. Idempotent.
pub fn default(resource: ResourceRef, value: &mut Value) {
    fill_in(resource, value, Fill::Everything);
}

/// Fills in defaults, but keeps fields of disabled features, and `[]` where null is stored: their author still owns them in managedFields.
/// Returns whether there are any, which [`default`] would drop.
pub fn default_stated(resource: ResourceRef, value: &mut Value) -> bool {
    fill_in(resource, value, Fill::Stated)
}

/// Writes only the zero values that Kubernetes writes for absent fields without a default, and that decoding drops.
pub(super) fn zeroes(resource: ResourceRef, value: &mut Value) {
    fill_in(resource, value, Fill::Zeroes);
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Fill {
    Stated,
    Everything,
    Zeroes,
}

/// True if something was left that is not kept.
fn fill_in(resource: ResourceRef, value: &mut Value, what: Fill) -> bool {
    if let Value::Object(map) = value { object(resource.schema, map, what) } else { false }
}

fn fill(below: &Below, value: &mut Value, what: Fill) -> bool {
    match (below, value) {
        (Below::Object(name), Value::Object(map)) => object(name, map, what),
        (Below::List(inner), Value::Array(items)) => items.iter_mut().fold(false, |left, item| fill(inner, item, what) | left),
        (Below::Map(inner), Value::Object(map)) => map.values_mut().fold(false, |left, item| fill(inner, item, what) | left),
        _ => false,
    }
}

/// The plain defaults and zero values of an object, then the computed defaults, which build on them, then its content.
fn object(name: &str, map: &mut Fields, what: Fill) -> bool {
    let Some(plan) = plan::of(name) else { return false };
    let mut left = false;
    match what {
        Fill::Stated => left = plan.off.iter().any(|it| map.contains_key(*it)),
        Fill::Everything => {
            off::drop(name, map);
            plan.off.iter().for_each(|it| drop(map.remove(*it)));
        }
        Fill::Zeroes => {}
    }
    for (field, default) in plan.plain.iter().filter(|_| what != Fill::Zeroes) {
        if is_absent(field, map.get(field.name)) {
            map.insert(field.name.to_owned(), default.clone());
        }
    }
    for (field, zero) in &plan.zeroes {
        match map.get(field.name) {
            Some(value) if !value.is_null() => {
                // Empty lists and maps are null, if written at all.
                let is_empty = matches!(field.shape, Shape::List(_) | Shape::Map(_)) && is_zero(value);
                match what {
                    _ if !is_empty => continue,
                    Fill::Stated => left = true,
                    Fill::Everything | Fill::Zeroes => drop(map.insert(field.name.to_owned(), (*zero).clone())),
                }
            }
            _ => drop(map.insert(field.name.to_owned(), (*zero).clone())),
        }
    }
    if let Some(computed) = plan.computed.filter(|_| what != Fill::Zeroes) {
        computed(map);
    }
    for (name, value) in map.iter_mut().filter(|(_, value)| value.is_object() || value.is_array()) {
        if let Some(below) = plan.below(name) {
            left |= fill(below, value, what);
        }
    }
    left
}

fn is_absent(field: &Field, value: Option<&Value>) -> bool {
    match value {
        None | Some(Value::Null) => true,
        Some(value) => !field.nullable && is_zero(value),
    }
}

fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(value) => !value,
        Value::Number(value) => value.as_i64() == Some(0),
        Value::String(value) => value.is_empty(),
        Value::Array(value) => value.is_empty(),
        Value::Object(value) => value.is_empty(),
    }
}

/// The computed defaults of a type, if any.
fn computed(name: &str) -> Option<Computed> {
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

fn text<'a>(map: &'a Fields, name: &str) -> &'a str {
    map.get(name).and_then(Value::as_str).unwrap_or_default()
}

/// Sets a field that has no value, or only a zero one.
fn set(map: &mut Fields, name: &str, value: impl Into<Value>) {
    if map.get(name).is_none_or(is_zero) {
        map.insert(name.to_owned(), value.into());
    }
}

/// Sets a field that has no value; a zero is one.
fn set_absent(map: &mut Fields, name: &str, value: impl Into<Value>) {
    if map.get(name).is_none_or(Value::is_null) {
        map.insert(name.to_owned(), value.into());
    }
}

fn fields<'a>(map: &'a mut Fields, name: &str) -> Option<&'a mut Fields> {
    map.get_mut(name).and_then(Value::as_object_mut)
}

fn fields_or_new<'a>(map: &'a mut Fields, name: &str) -> Option<&'a mut Fields> {
    set_absent(map, name, Fields::new());
    fields(map, name)
}

fn items<'a>(map: &'a mut Fields, name: &str) -> impl Iterator<Item = &'a mut Fields> {
    map.get_mut(name).and_then(Value::as_array_mut).into_iter().flatten().filter_map(Value::as_object_mut)
}

fn pod(pod: &mut Fields) {
    let Some(spec) = fields(pod, "spec") else { return };
    set_absent(spec, "enableServiceLinks", true);
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
            limits.into_iter().for_each(|(name, limit)| set_absent(requests, &name, limit));
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
                set_absent(client_ip, "timeoutSeconds", 10800);
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
        set_absent(spec, "internalTrafficPolicy", "Cluster");
    }
    if kind == "LoadBalancer" {
        set_absent(spec, "allocateLoadBalancerNodePorts", true);
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
            set_absent(it, "ipMode", "VIP");
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
        set_absent(annotations, TEMPLATE_GENERATION, "1");
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
        set_absent(status, "allocatable", capacity);
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
        amounts.into_iter().for_each(|(name, amount)| set_absent(map, &name, amount));
    }
}

fn update_strategy(strategy: &mut Fields) {
    if text(strategy, "type") == "RollingUpdate" {
        set_absent(strategy, "rollingUpdate", Fields::new());
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
        set_absent(spec, "completions", 1);
    }
    set_absent(spec, "parallelism", 1);
    let backoff_limit = if absent(spec, "backoffLimitPerIndex") { 6 } else { i32::MAX };
    set_absent(spec, "backoffLimit", backoff_limit);
    set_absent(spec, "completionMode", "NonIndexed");
    set_absent(spec, "suspend", false);
    set_absent(spec, "manualSelector", false);
    let replacement = if absent(spec, "podFailurePolicy") { "TerminatingOrFailed" } else { "Failed" };
    set_absent(spec, "podReplacementPolicy", replacement);
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
        set_absent(up, "selectPolicy", "Max");
        set_absent(up, "stabilizationWindowSeconds", 0);
        set_absent(up, "policies", json!([{"type": "Pods", "value": 4, "periodSeconds": 15}, fully]));
    }
    if let Some(down) = fields_or_new(behavior, "scaleDown") {
        set_absent(down, "selectPolicy", "Max");
        set_absent(down, "policies", json!([fully]));
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::fitting;
    use super::*;
    use crate::object::{resource, schema};

    fn defaulted(resource: ResourceRef, mut value: Value) -> Value {
        default(resource, &mut value);
        let once = value.clone();
        default(resource, &mut value);
        assert_eq!(value, once, "defaulting twice changes nothing");
        value
    }

    #[test]
    fn a_pod_is_completed() {
        let pod = json!({"metadata": {"name": "a"}, "spec": {"hostNetwork": true, "serviceAccount": "sa", "restartPolicy": "",
            "volumes": [{"name": "v"}, {"name": "s", "secret": {"secretName": "s"}}, {"name": "h", "hostPath": {"path": "/"}}],
            "containers": [{"name": "c", "image": "nginx:1", "ports": [{"containerPort": 80}],
                "readinessProbe": {"httpGet": {"port": 80}, "periodSeconds": 0},
                "env": [{"name": "X", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
                "resources": {"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "100m"}}}]}});
        assert_eq!(
            defaulted(&resource::POD, pod)["spec"],
            json!({
                "hostNetwork": true, "serviceAccount": "sa", "serviceAccountName": "sa", "restartPolicy": "Always",
                "volumes": [
                    {"name": "v", "emptyDir": {}},
                    {"name": "s", "secret": {"secretName": "s", "defaultMode": 420}},
                    {"name": "h", "hostPath": {"path": "/", "type": ""}}],
                "containers": [{
                    "name": "c", "image": "nginx:1",
                    "ports": [{"containerPort": 80, "hostPort": 80, "protocol": "TCP"}],
                    "readinessProbe": {"httpGet": {"port": 80, "path": "/", "scheme": "HTTP"},
                        "periodSeconds": 10, "timeoutSeconds": 1, "successThreshold": 1, "failureThreshold": 3},
                    "env": [{"name": "X", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP", "apiVersion": "v1"}}}],
                    "resources": {"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "100m", "memory": "1Gi"}},
                    "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File", "imagePullPolicy": "IfNotPresent"}],
                "dnsPolicy": "ClusterFirst", "schedulerName": "default-scheduler", "securityContext": {},
                "terminationGracePeriodSeconds": 30, "enableServiceLinks": true,
            })
        );
    }

    #[test]
    fn what_is_off_is_owned_but_not_kept() {
        let spec = json!({"resources": {"limits": {"cpu": "1"}}, "resourceClaims": [{"name": "x"}],
            "volumes": [{"name": "i", "image": {"reference": "x"}}, {"name": "p", "projected": {"sources": [{"clusterTrustBundle": {"path": "p"}}]}}],
            "containers": [
                {"name": "a", "lifecycle": {"stopSignal": "SIGTERM"}, "volumeMounts": [{"name": "i"}], "resources": {"claims": [{"name": "x"}]}},
                {"name": "b", "lifecycle": {"stopSignal": "SIGTERM", "preStop": {}}, "volumeMounts": [{"name": "i"}, {"name": "p"}]}]});
        let mut pod = json!({ "spec": spec });
        assert!(default_stated(&resource::POD, &mut pod));
        assert_eq!(pod["spec"]["volumes"][0], json!({"name": "i", "image": {"reference": "x"}}));
        default(&resource::POD, &mut pod);
        assert!(!default_stated(&resource::POD, &mut pod.clone()));
        let spec = &pod["spec"];
        assert_eq!((spec.get("resources"), spec.get("resourceClaims")), (None, None));
        assert_eq!(spec["volumes"], json!([{"name": "p", "projected": {"sources": [{}], "defaultMode": 420}}]));
        let (a, b) = (&spec["containers"][0], &spec["containers"][1]);
        assert_eq!((a.get("lifecycle"), a.get("volumeMounts"), &a["resources"]), (None, None, &json!({})));
        assert_eq!((&b["lifecycle"], &b["volumeMounts"]), (&json!({"preStop": {}}), &json!([{"name": "p", "mountPath": ""}])));
    }

    #[test]
    fn an_empty_list_is_stated_but_kept_as_null() {
        let mut role = json!({"rules": []});
        assert!(default_stated(&resource::ROLE, &mut role));
        assert_eq!(role["rules"], json!([]));
        default(&resource::ROLE, &mut role);
        assert_eq!(role["rules"], Value::Null);
        assert!(!default_stated(&resource::ROLE, &mut role) && role["rules"].is_null());
    }

    #[test]
    fn a_deployment_is_completed() {
        let deployment = json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "nginx"}]}}}});
        let deployment = defaulted(&resource::DEPLOYMENT, deployment);
        assert_eq!(
            deployment["spec"]["strategy"],
            json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}})
        );
        assert_eq!(deployment["spec"]["replicas"], 1);
        assert_eq!(deployment["spec"]["revisionHistoryLimit"], 10);
        assert_eq!(deployment["spec"]["progressDeadlineSeconds"], 600);
        let template = &deployment["spec"]["template"]["spec"];
        assert_eq!(template["containers"][0]["imagePullPolicy"], "Always");
        assert_eq!(template["restartPolicy"], "Always");
        assert_eq!(template.get("enableServiceLinks"), None, "a default of pods, not of templates");
        let recreate = defaulted(&resource::DEPLOYMENT, json!({"spec": {"replicas": 0, "strategy": {"type": "Recreate"}}}));
        assert_eq!((&recreate["spec"]["replicas"], &recreate["spec"]["strategy"]), (&json!(0), &json!({"type": "Recreate"})));
    }

    #[test]
    fn the_other_kinds_are_completed() {
        let template = json!({"metadata": {"labels": {"app": "a"}}});
        let pods = json!({"restartPolicy": "Always", "dnsPolicy": "ClusterFirst", "schedulerName": "default-scheduler",
            "terminationGracePeriodSeconds": 30});
        let completed = json!({"metadata": {"labels": {"app": "a"}}, "spec": pods});
        let plain = json!({"spec": pods});
        for (resource, from, to) in [
            (
                &resource::SERVICE,
                json!({"spec": {"ports": [{"port": 80}, {"port": 81, "targetPort": "http", "protocol": "UDP"}]}}),
                json!({"spec": {"ports": [{"port": 80, "protocol": "TCP", "targetPort": 80}, {"port": 81, "targetPort": "http", "protocol": "UDP"}],
                    "sessionAffinity": "None", "type": "ClusterIP", "internalTrafficPolicy": "Cluster"}}),
            ),
            (
                &resource::SERVICE,
                json!({"spec": {"type": "LoadBalancer", "sessionAffinity": "ClientIP"}}),
                json!({"spec": {"type": "LoadBalancer", "sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 10800}},
                    "externalTrafficPolicy": "Cluster", "internalTrafficPolicy": "Cluster", "allocateLoadBalancerNodePorts": true}}),
            ),
            (
                &resource::SERVICE,
                json!({"spec": {"type": "ExternalName", "externalName": "a.b"}}),
                json!({"spec": {"type": "ExternalName", "externalName": "a.b", "sessionAffinity": "None"}}),
            ),
            (
                &resource::REPLICATION_CONTROLLER,
                json!({"metadata": {"name": "a"}, "spec": {"template": template}}),
                json!({"metadata": {"name": "a", "labels": {"app": "a"}}, 
                    "spec": {"template": completed, "replicas": 1, "selector": {"app": "a"}}}),
            ),
            (
                &resource::NAMESPACE,
                json!({"metadata": {"name": "a"}}),
                json!({"metadata": {"name": "a", "labels": {"kubernetes.io/metadata.name": "a"}}, "status": {"phase": "Active"}}),
            ),
            (&resource::SECRET, json!({}), json!({"type": "Opaque"})),
            (
                &resource::JOB,
                json!({"spec": {"template": template}}),
                json!({"metadata": {"labels": {"app": "a"}}, "spec": {"template": completed, "completions": 1, "parallelism": 1, "backoffLimit": 6,
                    "completionMode": "NonIndexed", "suspend": false, "manualSelector": false,
                    "podReplacementPolicy": "TerminatingOrFailed"}}),
            ),
            (
                &resource::CRON_JOB,
                json!({"spec": {"successfulJobsHistoryLimit": 0}}),
                json!({"spec": {"concurrencyPolicy": "Allow", "failedJobsHistoryLimit": 1, "jobTemplate": {"spec": {"template": plain}}}}),
            ),
            (
                &resource::STATEFUL_SET,
                json!({"spec": {"volumeClaimTemplates": [{"spec": {}}]}}),
                json!({"spec": {"template": plain, "volumeClaimTemplates": [{"apiVersion": "v1", "kind": "PersistentVolumeClaim",
                    "metadata": {"creationTimestamp": null}, "spec": {"resources": {}, "volumeMode": "Filesystem"}, "status": {"phase": "Pending"}}], "replicas": 1,
                    "persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Retain", "whenScaled": "Retain"}, "revisionHistoryLimit": 10,
                    "podManagementPolicy": "OrderedReady", "updateStrategy": {"type": "RollingUpdate"}}}),
            ),
            (
                &resource::DAEMON_SET,
                json!({"spec": {}}),
                json!({"metadata": {"annotations": {TEMPLATE_GENERATION: "1"}},
                    "spec": {"template": plain, "revisionHistoryLimit": 10, "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}}}}),
            ),
            (
                &resource::LIMIT_RANGE,
                json!({"spec": {"limits": [{"type": "Container", "max": {"cpu": "2"}, "min": {"memory": "1Mi"}}, {"type": "Pod", "max": {"cpu": "2"}}]}}),
                json!({"spec": {"limits": [{"type": "Container", "max": {"cpu": "2"}, "min": {"memory": "1Mi"}, "default": {"cpu": "2"},
                    "defaultRequest": {"cpu": "2", "memory": "1Mi"}}, {"type": "Pod", "max": {"cpu": "2"}}]}}),
            ),
            (
                &resource::ENDPOINTS,
                json!({"subsets": [{"ports": [{"port": 1}]}]}),
                json!({"subsets": [{"ports": [{"port": 1, "protocol": "TCP"}]}]}),
            ),
            (
                &resource::NODE,
                json!({"spec": {"podCIDR": "10.0.0.0/24"}}),
                json!({"spec": {"podCIDR": "10.0.0.0/24", "podCIDRs": ["10.0.0.0/24"]}}),
            ),
            (
                &resource::NODE,
                json!({"spec": {"podCIDR": "10.0.0.0/24", "podCIDRs": ["10.0.1.0/24"]}}),
                json!({"spec": {"podCIDR": "10.0.0.0/24", "podCIDRs": ["10.0.0.0/24"]}}),
            ),
            (
                &resource::NODE,
                json!({"spec": {"podCIDRs": ["10.0.1.0/24", "fd00::/64"]}}),
                json!({"spec": {"podCIDR": "10.0.1.0/24", "podCIDRs": ["10.0.1.0/24", "fd00::/64"]}}),
            ),
            (
                &resource::NODE,
                json!({"status": {"capacity": {"cpu": "1"}}}),
                json!({"status": {"capacity": {"cpu": "1"}, "allocatable": {"cpu": "1"}}}),
            ),
        ] {
            assert_eq!(bare(defaulted(resource, from)), bare(to), "{resource:?}");
        }
    }

    /// Without zeroes, the outermost excepted.
    fn bare(value: Value) -> Value {
        let Value::Object(map) = value else { return value };
        map.into_iter().map(|(key, value)| (key, bare(value))).filter(|(_, value)| !is_zero(value)).collect()
    }

    #[test]
    fn what_go_writes_of_nothing_is_written() {
        let no_time = json!({"creationTimestamp": null});
        for (resource, from, pointer, to) in [
            (&resource::DEPLOYMENT, json!({}), "/status", json!({})),
            (&resource::DEPLOYMENT, json!({"spec": {"selector": {}}}), "/spec/template/metadata", no_time.clone()),
            (&resource::CRON_JOB, json!({}), "/spec/jobTemplate/metadata", no_time),
            (&resource::SERVICE, json!({}), "/status", json!({"loadBalancer": {}})),
            (&resource::DAEMON_SET, json!({}), "/status/numberMisscheduled", json!(0)),
            (&resource::STATEFUL_SET, json!({}), "/spec/serviceName", json!("")),
            (&resource::STATEFUL_SET, json!({}), "/spec/updateStrategy/rollingUpdate/partition", json!(0)),
            (&resource::DAEMON_SET, json!({"spec": {}}), "/spec/updateStrategy/rollingUpdate/maxSurge", json!(0)),
            (&resource::CRON_JOB, json!({"spec": {"successfulJobsHistoryLimit": 0}}), "/spec/successfulJobsHistoryLimit", json!(0)),
            (&resource::CRON_JOB, json!({"spec": {}}), "/spec/suspend", json!(false)),
            (&resource::JOB, json!({"spec": {}}), "/spec/suspend", json!(false)),
            (&resource::JOB, json!({"spec": {}}), "/spec/manualSelector", json!(false)),
            (&resource::VOLUME_ATTACHMENT, json!({"status": {}}), "/status/attached", json!(false)),
            // There is no list that is not null, but empty.
            (&resource::ROLE, json!({"rules": []}), "/rules", Value::Null),
            (&resource::ENDPOINT_SLICE, json!({"endpoints": [{}]}), "/endpoints/0/conditions", json!({})),
            (
                &resource::POD,
                json!({"status": {"conditions": [{"type": "Ready", "status": "True"}]}}),
                "/status/conditions/0",
                json!({"type": "Ready", "status": "True", "lastProbeTime": null, "lastTransitionTime": null}),
            ),
            (
                &resource::POD,
                json!({"spec": {"containers": [{"env": [{"name": "a", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}}]}]}}),
                "/spec/containers/0/env/0/valueFrom/resourceFieldRef/divisor",
                json!("0"),
            ),
            (
                &resource::PERSISTENT_VOLUME_CLAIM,
                json!({"spec": {"dataSource": {"kind": "PersistentVolumeClaim", "name": "a"}}}),
                "/spec/dataSource/apiGroup",
                Value::Null,
            ),
        ] {
            assert_eq!(defaulted(resource, from).pointer(pointer), Some(&to), "{resource:?} {pointer}");
        }
        for (resource, pointer) in
            [(&resource::CONFIG_MAP, "/data"), (&resource::POD, "/spec/nodeName"), (&resource::NODE, "/spec/podCIDR")]
        {
            assert_eq!(defaulted(resource, json!({})).pointer(pointer), None, "{resource:?} {pointer}");
        }
    }

    #[test]
    fn texts_of_secrets_become_data() {
        let secret = defaulted(&resource::SECRET, json!({"data": {"a": "YQ=="}, "stringData": {"a": "b", "c": "d"}}));
        assert_eq!((&secret["data"], secret.get("stringData")), (&json!({"a": "Yg==", "c": "ZA=="}), None));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn defaults_settle_at_once(
            (resource, value) in prop::sample::select(resource::ALL)
                .prop_flat_map(|resource| (Just(resource), fitting::object(schema::get(resource.schema).unwrap(), 6)))
        ) {
            let mut value = value;
            default(resource, &mut value);
            let once = value.clone();
            default(resource, &mut value);
            prop_assert_eq!(&value, &once);
            value["kind"] = resource.kind.into();
            value["apiVersion"] = resource.api_version().into();
            prop_assert!(super::super::conform(resource, value).unwrap().strict_errors.is_empty(), "defaults fit the schema");
        }
    }
}
