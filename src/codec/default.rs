//! Defaults: the meaning of absent fields, written into the object for every reader. Defaults that depend on no other field are data
//! (`object::schema`); the others are in `computed`.
//!
//! Three operations, each a walk over the object: [`fill`] sets absent fields; [`prune`] removes what is not kept; [`zeroes`] writes what
//! Go writes for nothing.

mod computed;
mod off;
mod plan;

use serde_json::{Map, Value};

use self::plan::{Below, Plan};
use crate::object::ResourceRef;
use crate::object::schema::Field;

/// The annotation of a daemon set that counts the versions of its template.
pub const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";

type Fields = Map<String, Value>;
/// A change of an object of one type.
type Change = fn(&mut Fields);

/// Fills in the defaults of an object, including its status. Idempotent. Returns whether the object states something that [`prune`] would
/// remove: the walk sees that anyway.
pub fn fill(resource: ResourceRef, value: &mut Value) -> bool {
    let mut is_unkept = false;
    walk(resource, value, &mut |plan, map| {
        is_unkept |= plan.is_unkept(map);
        plan.fill(map);
    });
    is_unkept
}

/// Removes what an author may state, and owns in managedFields, but what is not kept: fields of disabled features, and `[]` where null is
/// stored. Does nothing if the object that is replaced has such already.
pub fn prune(resource: ResourceRef, value: &mut Value, old: Option<&Value>) {
    if !old.is_some_and(|it| is_unkept(&Below::Object(resource.schema), it)) {
        walk(resource, value, &mut Plan::prune);
    }
}

/// Prunes and fills an object that is not tracked.
pub fn default(resource: ResourceRef, value: &mut Value) {
    prune(resource, value, None);
    fill(resource, value);
}

/// Writes only the zero values that Kubernetes writes for absent fields without a default, and that decoding drops.
pub(super) fn zeroes(resource: ResourceRef, value: &mut Value) {
    walk(resource, value, &mut |plan, map| {
        plan.zeroes(map);
        plan.nullify(map);
    });
}

/// Works on an object, and then on everything in it, as far as there are plans.
fn walk(resource: ResourceRef, value: &mut Value, work: &mut impl FnMut(&Plan, &mut Fields)) {
    descend(&Below::Object(resource.schema), value, work);
}

fn descend(below: &Below, value: &mut Value, work: &mut impl FnMut(&Plan, &mut Fields)) {
    match (below, value) {
        (Below::Object(name), Value::Object(map)) => {
            let Some(plan) = plan::of(name) else { return };
            work(plan, map);
            for (name, value) in map.iter_mut().filter(|(_, value)| value.is_object() || value.is_array()) {
                if let Some(below) = plan.below(name) {
                    descend(below, value, work);
                }
            }
        }
        (Below::List(inner), Value::Array(items)) => items.iter_mut().for_each(|it| descend(inner, it, work)),
        (Below::Map(inner), Value::Object(map)) => map.values_mut().for_each(|it| descend(inner, it, work)),
        _ => {}
    }
}

/// Whether there is something in an object that [`prune`] would remove.
fn is_unkept(below: &Below, value: &Value) -> bool {
    match (below, value) {
        (Below::Object(name), Value::Object(map)) => plan::of(name).is_some_and(|plan| {
            plan.is_unkept(map) || map.iter().any(|(name, value)| plan.below(name).is_some_and(|it| is_unkept(it, value)))
        }),
        (Below::List(inner), Value::Array(items)) => items.iter().any(|it| is_unkept(inner, it)),
        (Below::Map(inner), Value::Object(map)) => map.values().any(|it| is_unkept(inner, it)),
        _ => false,
    }
}

impl Plan {
    /// The plain defaults and zero values, then the computed defaults, which build on them.
    fn fill(&self, map: &mut Fields) {
        for (field, default) in &self.plain {
            if is_absent(field, map.get(field.name)) {
                map.insert(field.name.to_owned(), default.clone());
            }
        }
        self.zeroes(map);
        if let Some(computed) = self.computed {
            computed(map);
        }
    }

    fn zeroes(&self, map: &mut Fields) {
        for (field, zero) in &self.zeroes {
            if map.get(*field).is_none_or(Value::is_null) {
                map.insert((*field).to_owned(), (*zero).clone());
            }
        }
    }

    fn is_unkept(&self, map: &Fields) -> bool {
        self.off.iter().any(|it| map.contains_key(*it)) || self.nulls.iter().any(|it| map.get(*it).is_some_and(is_empty))
    }

    fn prune(&self, map: &mut Fields) {
        if let Some(useless) = self.useless {
            useless(map);
        }
        self.off.iter().for_each(|it| drop(map.remove(*it)));
        self.nullify(map);
    }

    fn nullify(&self, map: &mut Fields) {
        for field in &self.nulls {
            if let Some(value) = map.get_mut(*field).filter(|it| is_empty(it)) {
                *value = Value::Null;
            }
        }
    }
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

/// Whether it is something, and nothing in it.
fn is_empty(value: &Value) -> bool {
    !value.is_null() && is_zero(value)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

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
        assert!(fill(&resource::POD, &mut pod));
        assert_eq!(pod["spec"]["volumes"][0], json!({"name": "i", "image": {"reference": "x"}}));
        default(&resource::POD, &mut pod);
        assert!(!fill(&resource::POD, &mut pod.clone()));
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
        assert!(fill(&resource::ROLE, &mut role));
        assert_eq!(role["rules"], json!([]));
        default(&resource::ROLE, &mut role);
        assert_eq!(role["rules"], Value::Null);
        assert!(!fill(&resource::ROLE, &mut role) && role["rules"].is_null());
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
