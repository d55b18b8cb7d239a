//! Usage of objects under the names of resource quotas: one calculation for admission and for the controller that maintains the quotas'
//! status.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value};

use super::pod::{is_final, qos_class_of};
use super::{Object, ResourceRef, resource, service};
use crate::util::json;
use crate::util::quantity::{Format, Quantity};

/// Amounts by the quota's name for them, such as `requests.cpu`.
pub(crate) type Amounts = BTreeMap<String, Quantity>;

/// The amounts that a quota limits.
pub(crate) fn limits(quota: &Value) -> Amounts {
    amounts(quota.pointer("/spec/hard"))
}

/// The usage in a quota's status; `None` if it does not cover all limits of the quota.
pub(crate) fn recorded(quota: &Value) -> Option<Amounts> {
    let used = amounts(quota.pointer("/status/used"));
    let told = quota.pointer("/spec/hard") == quota.pointer("/status/hard");
    (told && limits(quota).keys().all(|it| used.contains_key(it))).then_some(used)
}

fn amounts(map: Option<&Value>) -> Amounts {
    let pairs = map.and_then(Value::as_object).into_iter().flatten();
    pairs.filter_map(|(name, amount)| Some((name.clone(), Quantity::from_json(amount).ok()?))).collect()
}

/// The usage for all limits of a quota, counted from the existing objects: `list` has those of a kind in a namespace.
pub(crate) fn recount(quota: &Value, now: Timestamp, list: impl Fn(ResourceRef, &str) -> Vec<Arc<Object>>) -> Amounts {
    let mut used: Amounts = limits(quota).into_keys().map(|it| (it, Quantity::ZERO)).collect();
    for kind in resource::ALL.iter().copied().filter(|it| may_count(it, quota)) {
        for object in list(kind, json::text(quota, "/metadata/namespace")) {
            let Ok(value) = serde_json::from_slice::<Value>(object.body()) else { continue };
            if in_scope(quota, kind, &value) {
                for (what, amount) in usage(kind, &value, now) {
                    used.entry(what).and_modify(|it| *it += amount);
                }
            }
        }
    }
    used
}

/// Whether a quota limits anything that objects of a kind can use.
pub(crate) fn may_count(kind: ResourceRef, quota: &Value) -> bool {
    // Events come and go too fast to be counted.
    if !kind.namespaced || !kind.is_stored() || kind.plural == "events" {
        return false;
    }
    let (counted, name) = (format!("count/{}", kind.qualified()), kind.plural);
    let hard = quota.pointer("/spec/hard").and_then(Value::as_object);
    hard.into_iter().flatten().any(|(what, _)| {
        *what == counted
            || match (kind.group, name) {
                ("", "pods") => {
                    matches!(what.as_str(), "pods" | "cpu" | "memory" | "ephemeral-storage")
                        || what.starts_with("limits.")
                        || what.starts_with("hugepages-")
                        || what.starts_with("requests.") && what != STORAGE
                }
                ("", "services") => what == "services" || what.starts_with("services."),
                ("", "persistentvolumeclaims") => what == name || what == STORAGE || what.contains(OF_CLASS),
                ("", _) => what == name,
                _ => false,
            }
    })
}

const STORAGE: &str = "requests.storage";
/// Between the name of a storage class and a resource of its claims.
const OF_CLASS: &str = ".storageclass.storage.k8s.io/";

/// The usage of an object.
pub(crate) fn usage(kind: ResourceRef, object: &Value, now: Timestamp) -> Amounts {
    let one = count(1);
    let mut used = Amounts::from([(format!("count/{}", kind.qualified()), one)]);
    if !kind.group.is_empty() {
        return used;
    }
    match kind.plural {
        "pods" if is_over(object, now) => {}
        "pods" => {
            used.insert("pods".to_owned(), one);
            for (name, amount) in pod_amounts(object, "requests") {
                if matches!(name.as_str(), "cpu" | "memory" | "ephemeral-storage") || name.starts_with("hugepages-") {
                    used.insert(name.clone(), amount);
                }
                used.insert(format!("requests.{name}"), amount);
            }
            for (name, amount) in pod_amounts(object, "limits") {
                used.insert(format!("limits.{name}"), amount);
            }
        }
        "services" => {
            used.insert("services".to_owned(), one);
            let ports = json::items(object, "/spec/ports");
            match service::kind(object) {
                "NodePort" => drop(used.insert("services.nodeports".to_owned(), count(ports.len()))),
                "LoadBalancer" => {
                    used.insert("services.loadbalancers".to_owned(), one);
                    let allocated = if service::has_node_ports(object) {
                        ports.len()
                    } else {
                        ports.iter().filter(|it| json::integer(it, "/nodePort").is_some_and(|it| it != 0)).count()
                    };
                    used.insert("services.nodeports".to_owned(), count(allocated));
                }
                _ => {}
            }
        }
        "persistentvolumeclaims" => {
            used.insert("persistentvolumeclaims".to_owned(), one);
            let read = |pointer| object.pointer(pointer).and_then(|it| Quantity::from_json(it).ok());
            // A change of its size that failed may still hold more than it asks for by now.
            let (asked, held) = (read("/spec/resources/requests/storage"), read("/status/allocatedResources/storage"));
            let storage = asked.map(|it| held.map_or(it, |held| it.max(held)));
            if let Some(amount) = storage {
                used.insert(STORAGE.to_owned(), amount);
            }
            let class = json::text(object, "/spec/storageClassName");
            if !class.is_empty() {
                used.insert(format!("{class}{OF_CLASS}persistentvolumeclaims"), one);
                used.extend(storage.map(|amount| (format!("{class}{OF_CLASS}{STORAGE}"), amount)));
            }
        }
        "configmaps" | "secrets" | "replicationcontrollers" | "resourcequotas" => {
            used.insert(kind.plural.to_owned(), one);
        }
        _ => {}
    }
    used
}

fn count(number: usize) -> Quantity {
    Quantity::new(i64::try_from(number).unwrap_or(i64::MAX), Format::Decimal)
}

/// Whether a pod has ended, or should have: its grace period is over without a report (its node may be gone).
fn is_over(pod: &Value, now: Timestamp) -> bool {
    if is_final(json::text(pod, "/status/phase")) {
        return true;
    }
    let deleted: Option<Timestamp> = json::text(pod, "/metadata/deletionTimestamp").parse().ok();
    let grace = json::integer(pod, "/metadata/deletionGracePeriodSeconds").unwrap_or_default();
    deleted.is_some_and(|it| now > it.saturating_add(SignedDuration::from_secs(grace)).unwrap_or(it))
}

/// The total of a pod's containers (`what` is `requests` or `limits`): the sum over containers that run concurrently, or an init container
/// with the sidecars before it if that is more; plus the pod's overhead.
pub(crate) fn pod_amounts(pod: &Value, what: &str) -> Amounts {
    let stated = |container: &Value| amounts(container.get("resources").and_then(|it| it.get(what)));
    let add = |total: &mut Amounts, more: Amounts| more.into_iter().for_each(|(name, amount)| *total.entry(name).or_default() += amount);
    let (mut sidecars, mut most) = (Amounts::new(), Amounts::new());
    for container in json::items(pod, "/spec/initContainers") {
        let mut beside = sidecars.clone();
        add(&mut beside, stated(container));
        if json::text(container, "/restartPolicy") == "Always" {
            sidecars.clone_from(&beside);
        }
        for (name, amount) in beside {
            let so_far = most.entry(name).or_default();
            *so_far = (*so_far).max(amount);
        }
    }
    let mut total = sidecars;
    json::items(pod, "/spec/containers").iter().for_each(|it| add(&mut total, stated(it)));
    for (name, amount) in most {
        let so_far = total.entry(name).or_default();
        *so_far = (*so_far).max(amount);
    }
    let overhead = amounts(pod.pointer("/spec/overhead"));
    // The overhead does not create a limit that is not set.
    let overhead = overhead.into_iter().filter(|(name, _)| what == "requests" || total.contains_key(name)).collect();
    add(&mut total, overhead);
    total
}

/// The compute resources that a quota limits but a container does not state, in Kubernetes' form; empty if there are none.
pub(crate) fn unspecified(hard: &Amounts, pod: &Value) -> String {
    let mut missing = Vec::new();
    for key in hard.keys() {
        let (what, name) = match key.split_once('.') {
            Some((what @ ("requests" | "limits"), name @ ("cpu" | "memory"))) => (what, name),
            None if matches!(key.as_str(), "cpu" | "memory") => ("requests", key.as_str()),
            _ => continue,
        };
        let containers = json::items(pod, "/spec/containers").iter().chain(json::items(pod, "/spec/initContainers"));
        let silent: Vec<&str> = containers
            .filter(|it| it.get("resources").and_then(|it| it.get(what)?.get(name)).is_none())
            .map(|it| json::text(it, "/name"))
            .collect();
        if !silent.is_empty() {
            missing.push(format!("{key} for: {}", silent.join(",")));
        }
    }
    missing.join("; ")
}

/// Whether a quota is about an object. A quota with scopes is about pods.
pub(crate) fn in_scope(quota: &Value, kind: ResourceRef, object: &Value) -> bool {
    let scopes = json::items(quota, "/spec/scopes").iter().filter_map(Value::as_str).map(|it| (it, "Exists", &[] as &[Value]));
    let terms = json::items(quota, "/spec/scopeSelector/matchExpressions");
    let terms = terms.iter().map(|it| (json::text(it, "/scopeName"), json::text(it, "/operator"), json::items(it, "/values")));
    scopes.chain(terms).all(|(scope, operator, values)| *kind == resource::POD && matches(scope, operator, values, object))
}

fn matches(scope: &str, operator: &str, values: &[Value], pod: &Value) -> bool {
    let deadline = json::integer(pod, "/spec/activeDeadlineSeconds").is_some_and(|it| it >= 0);
    match scope {
        "Terminating" => deadline,
        "NotTerminating" => !deadline,
        "BestEffort" => qos_class_of(pod) == "BestEffort",
        "NotBestEffort" => qos_class_of(pod) != "BestEffort",
        "PriorityClass" => {
            let class = json::text(pod, "/spec/priorityClassName");
            match operator {
                "In" => values.iter().any(|it| it == class),
                "NotIn" => !values.iter().any(|it| it == class),
                "DoesNotExist" => class.is_empty(),
                _ => !class.is_empty(),
            }
        }
        "CrossNamespacePodAffinity" => crosses_namespaces(pod),
        _ => false,
    }
}

/// Whether the pod's affinity selects pods of other namespaces.
fn crosses_namespaces(pod: &Value) -> bool {
    let names_others = |term: &Value| !json::items(term, "/namespaces").is_empty() || term.get("namespaceSelector").is_some();
    ["podAffinity", "podAntiAffinity"].iter().any(|kind| {
        let affinity = pod.pointer(&format!("/spec/affinity/{kind}")).unwrap_or(&Value::Null);
        let required = json::items(affinity, "/requiredDuringSchedulingIgnoredDuringExecution").iter();
        let preferred = json::items(affinity, "/preferredDuringSchedulingIgnoredDuringExecution").iter();
        required.chain(preferred.filter_map(|it| it.get("podAffinityTerm"))).any(names_others)
    })
}

/// Amounts as JSON.
pub(crate) fn shown(amounts: &Amounts) -> Map<String, Value> {
    amounts.iter().map(|(what, amount)| (what.clone(), amount.to_string().into())).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::object::resource::{DEPLOYMENT, PERSISTENT_VOLUME_CLAIM, POD, SERVICE};

    fn used(kind: ResourceRef, object: &Value) -> Value {
        shown(&usage(kind, object, Timestamp::UNIX_EPOCH)).into()
    }

    #[test]
    fn what_objects_use() {
        for (kind, object, expected) in [
            (
                &POD,
                json!({"spec": {"containers": [
                    {"resources": {"requests": {"cpu": "100m", "memory": "1Gi", "example.com/gpu": "2"}, "limits": {"cpu": "1"}}},
                    {"resources": {"requests": {"cpu": "1"}}},
                ]}}),
                json!({
                    "count/pods": "1", "pods": "1", "cpu": "1100m", "requests.cpu": "1100m", "memory": "1Gi", "requests.memory": "1Gi",
                    "requests.example.com/gpu": "2", "limits.cpu": "1",
                }),
            ),
            (&POD, json!({"status": {"phase": "Failed"}}), json!({"count/pods": "1"})),
            (&SERVICE, json!({"spec": {"type": "ClusterIP", "ports": [{}]}}), json!({"count/services": "1", "services": "1"})),
            (
                &SERVICE,
                json!({"spec": {"type": "NodePort", "ports": [{}, {}]}}),
                json!({"count/services": "1", "services": "1", "services.nodeports": "2"}),
            ),
            (
                &SERVICE,
                json!({"spec": {"type": "LoadBalancer", "allocateLoadBalancerNodePorts": false, "ports": [{"nodePort": 30000}, {}]}}),
                json!({"count/services": "1", "services": "1", "services.loadbalancers": "1", "services.nodeports": "1"}),
            ),
            (
                &PERSISTENT_VOLUME_CLAIM,
                json!({"spec": {"storageClassName": "fast", "resources": {"requests": {"storage": "5Gi"}}}}),
                json!({
                    "count/persistentvolumeclaims": "1", "persistentvolumeclaims": "1", "requests.storage": "5Gi",
                    "fast.storageclass.storage.k8s.io/persistentvolumeclaims": "1", "fast.storageclass.storage.k8s.io/requests.storage": "5Gi",
                }),
            ),
            (
                &PERSISTENT_VOLUME_CLAIM,
                json!({"spec": {"resources": {"requests": {"storage": "1Gi"}}}, "status": {"allocatedResources": {"storage": "3Gi"}}}),
                json!({"count/persistentvolumeclaims": "1", "persistentvolumeclaims": "1", "requests.storage": "3Gi"}),
            ),
            (&DEPLOYMENT, json!({}), json!({"count/deployments.apps": "1"})),
        ] {
            assert_eq!(used(kind, &object), expected, "{object}");
        }
    }

    #[test]
    fn containers_of_a_pod_together() {
        let with = |cpu: &str| json!({"resources": {"requests": {"cpu": cpu}}});
        let sidecar = |cpu: &str| json!({"restartPolicy": "Always", "resources": {"requests": {"cpu": cpu}}});
        for (init, containers, expected) in [
            (json!([with("3")]), json!([with("1"), with("1")]), "3"),
            (json!([with("1")]), json!([with("1"), with("1")]), "2"),
            (json!([sidecar("1"), with("3")]), json!([with("1")]), "4"),
            (json!([sidecar("1"), sidecar("1")]), json!([with("1")]), "3"),
            (json!([with("2"), sidecar("1")]), json!([with("1")]), "2"),
        ] {
            let pod = json!({"spec": {"initContainers": init, "containers": containers}});
            assert_eq!(pod_amounts(&pod, "requests")["cpu"].to_string(), expected, "{pod}");
        }
        let pod = json!({"spec": {"containers": [with("1")], "overhead": {"cpu": "250m"}}});
        assert_eq!(pod_amounts(&pod, "requests")["cpu"].to_string(), "1250m");
        assert!(pod_amounts(&pod, "limits").is_empty());
    }

    #[test]
    fn pods_whose_time_is_over_use_nothing() {
        let pod = json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:30Z", "deletionGracePeriodSeconds": 30}});
        for (now, over) in [("2026-01-01T00:00:59Z", false), ("2026-01-01T00:01:01Z", true)] {
            assert_eq!(is_over(&pod, now.parse().unwrap()), over, "{now}");
        }
    }

    #[test]
    fn what_must_be_stated() {
        let pod = json!({"spec": {
            "containers": [{"name": "a", "resources": {"requests": {"cpu": "1", "memory": "1"}}}, {"name": "b", "resources": {"requests": {"cpu": "1"}}}],
            "initContainers": [{"name": "i", "resources": {"requests": {"memory": "1"}}}],
        }});
        let hard = limits(&json!({"spec": {"hard": {"limits.cpu": "1", "memory": "1Gi", "pods": "3", "requests.example.com/gpu": "1"}}}));
        assert_eq!(unspecified(&hard, &pod), "limits.cpu for: a,b,i; memory for: b");
    }

    #[test]
    fn scopes_choose_pods() {
        let quota = |scope: &str| json!({"spec": {"scopes": [scope]}});
        let pod = json!({"spec": {"containers": [{"name": "a"}], "activeDeadlineSeconds": 5}});
        for (scope, matches) in [("Terminating", true), ("NotTerminating", false), ("BestEffort", true), ("NotBestEffort", false)] {
            assert_eq!(in_scope(&quota(scope), &POD, &pod), matches, "{scope}");
        }
        let class = |operator: &str, values: Value| json!({"spec": {"scopeSelector": {"matchExpressions": [{"scopeName": "PriorityClass", "operator": operator, "values": values}]}}});
        let pod = json!({"spec": {"priorityClassName": "high"}});
        for (operator, values, matches) in [
            ("In", json!(["high"]), true),
            ("In", json!(["low"]), false),
            ("NotIn", json!(["low"]), true),
            ("Exists", json!([]), true),
            ("DoesNotExist", json!([]), false),
        ] {
            assert_eq!(in_scope(&class(operator, values), &POD, &pod), matches, "{operator}");
        }
        assert!(!in_scope(&quota("BestEffort"), &SERVICE, &json!({})));
        assert!(in_scope(&json!({}), &SERVICE, &json!({})));
    }

    #[test]
    fn kinds_that_a_quota_counts() {
        let quota = json!({"spec": {"hard": {"requests.storage": "1", "count/deployments.apps": "1", "limits.cpu": "1"}}});
        let counted = |kind: ResourceRef| may_count(kind, &quota);
        assert!(counted(&PERSISTENT_VOLUME_CLAIM) && counted(&DEPLOYMENT) && counted(&POD) && !counted(&SERVICE));
    }
}
