//! Resource quotas of the namespace. What is used is counted from the objects there are, under a lock of the namespace that is held until
//! the write is done: writes through one API server never exceed a quota. (Two servers may, by what they admit at the same moment.)

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::{Map, Value};
use tokio::sync::OwnedMutexGuard;

use super::super::Server;
use super::super::feed::Freshness;
use super::super::query::{Answer, WriteOptions};
use super::super::registry::update::{Part, modify};
use super::super::registry::{json, pods, services};
use super::{Operation, Review, refuse};
use crate::cache::Query;
use crate::object::resource::RESOURCE_QUOTA;
use crate::object::{Object, ResourceRef};
use crate::util::quantity::Quantity;

type Amounts = BTreeMap<String, Quantity>;

/// The locks of namespaces that have quotas.
#[derive(Debug, Default)]
pub(crate) struct Quotas {
    locks: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
}

/// A write that was counted. Others of its namespace wait until this is dropped.
#[derive(Debug, Default)]
pub(crate) struct Charge {
    _lock: Option<OwnedMutexGuard<()>>,
}

impl Quotas {
    /// # Errors
    /// 403 if a quota would be exceeded, or asks for something that the object does not say.
    pub(super) async fn charge(&self, server: &Server, review: &Review<'_>, object: &Value) -> Answer<Charge> {
        let (resource, namespace) = (review.key.resource, &review.key.name.namespace);
        let counted = match review.operation {
            Operation::Create => true,
            Operation::Update => matches!(resource.plural, "services" | "persistentvolumeclaims"),
            Operation::Delete => false,
        };
        if !counted || namespace.is_empty() || !review.subresource.is_empty() || quotas(server, namespace).is_empty() {
            return Ok(Charge::default());
        }
        let lock = self.locks.lock().entry(namespace.to_string()).or_default().clone();
        let lock = lock.lock_owned().await;
        server.freshen(resource, Freshness::Newest).await?;
        for quota in quotas(server, namespace) {
            let Ok(value) = serde_json::from_slice::<Value>(quota.body()) else { continue };
            if in_scope(&value, resource, object) {
                let used = check(server, review, &value, object)?;
                if !used.is_empty() && !review.dry_run {
                    // A write of its own, which is reviewed in turn.
                    Box::pin(record(server, &quota, &used)).await;
                }
            }
        }
        Ok(Charge { _lock: Some(lock) })
    }
}

fn quotas(server: &Server, namespace: &str) -> Vec<Arc<Object>> {
    server.cache.list(&RESOURCE_QUOTA, &Query { namespace: Some(namespace.to_owned()), ..Query::default() }).objects
}

/// What will be used of what the quota limits and the object uses.
fn check(server: &Server, review: &Review<'_>, quota: &Value, object: &Value) -> Answer<Amounts> {
    let (resource, name) = (review.key.resource, json::text(quota, "/metadata/name"));
    let hard = quota.pointer("/spec/hard").and_then(Value::as_object).cloned().unwrap_or_default();
    if review.creates("pods") {
        let missing = unspecified(&hard, object);
        if !missing.is_empty() {
            return Err(refuse(review, &format!("failed quota: {name}: must specify {missing}")));
        }
    }
    let asked = usage(resource, object);
    let mut used = Amounts::new();
    let query = Query { namespace: Some(review.key.name.namespace.to_string()), ..Query::default() };
    for other in server.cache.list(resource, &query).objects {
        let Ok(value) = serde_json::from_slice::<Value>(other.body()) else { continue };
        if *other.name() == *review.key.name.name || !in_scope(quota, resource, &value) {
            continue;
        }
        for (what, amount) in usage(resource, &value) {
            *used.entry(what).or_default() += amount;
        }
    }
    let limited: Vec<(&String, Quantity, &Value, Quantity)> = asked
        .iter()
        .filter_map(|(what, amount)| {
            let limit = hard.get(what)?;
            Some((what, *amount, limit, Quantity::from_json(limit).ok()?))
        })
        .collect();
    let have = |what: &str| used.get(what).copied().unwrap_or_default();
    let over: Vec<_> = limited.iter().filter(|(what, amount, _, limit)| have(what) + *amount > *limit).collect();
    if !over.is_empty() {
        let list =
            |each: &dyn Fn(&(&String, Quantity, &Value, Quantity)) -> String| over.iter().map(|it| each(it)).collect::<Vec<_>>().join(",");
        let requested = list(&|(what, amount, ..)| format!("{what}={amount}"));
        let used = list(&|(what, ..)| format!("{what}={}", have(what)));
        let limits = list(&|(what, _, _, limit)| format!("{what}={limit}"));
        return Err(refuse(review, &format!("exceeded quota: {name}, requested: {requested}, used: {used}, limited: {limits}")));
    }
    Ok(limited.into_iter().map(|(what, amount, ..)| (what.clone(), have(what) + amount)).collect())
}

/// Shows in the quota's status what is used now. Only for the eye: the check counts anew.
async fn record(server: &Server, quota: &Object, used: &Amounts) {
    let change = |_: &Object, current: &Value| {
        let mut current = current.clone();
        let hard = current.pointer("/spec/hard").cloned().unwrap_or_default();
        let status = json::map(&mut current, "status");
        status.insert("hard".to_owned(), hard);
        let shown = json::entry_map(status, "used");
        shown.extend(used.iter().map(|(what, amount)| (what.clone(), Value::String(amount.to_string()))));
        Ok(current)
    };
    if let Err(status) = modify(server, &quota.key(), Part::Internal, &WriteOptions::default(), &change).await {
        tracing::warn!("{}: its usage is not shown: {status}", quota.key());
    }
}

/// Compute resources that the quota limits but a container does not state.
fn unspecified(hard: &Map<String, Value>, pod: &Value) -> String {
    let mut missing = Vec::new();
    for key in hard.keys() {
        let (what, name) = match key.split_once('.') {
            Some((what @ ("requests" | "limits"), name)) if name != "storage" => (what, name),
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

/// What an object uses, by the names that quotas have for it.
fn usage(resource: ResourceRef, object: &Value) -> Amounts {
    let mut used = Amounts::new();
    let one = count(1);
    let ended = resource.plural == "pods" && matches!(json::text(object, "/status/phase"), "Succeeded" | "Failed");
    used.insert(format!("count/{}", resource.qualified()), one);
    if ended {
        return used;
    }
    match resource.plural {
        "pods" if resource.group.is_empty() => {
            used.insert("pods".to_owned(), one);
            for what in ["requests", "limits"] {
                for (name, amount) in pod_amounts(object, what) {
                    if what == "requests" && matches!(name.as_str(), "cpu" | "memory" | "ephemeral-storage") {
                        used.insert(name.clone(), amount);
                    }
                    used.insert(format!("{what}.{name}"), amount);
                }
            }
        }
        "services" => {
            used.insert("services".to_owned(), one);
            if services::has_node_ports(object) {
                used.insert("services.nodeports".to_owned(), count(json::items(object, "/spec/ports").len()));
            }
            if services::kind(object) == "LoadBalancer" {
                used.insert("services.loadbalancers".to_owned(), one);
            }
        }
        "persistentvolumeclaims" => {
            used.insert("persistentvolumeclaims".to_owned(), one);
            if let Some(amount) = object.pointer("/spec/resources/requests/storage").and_then(|it| Quantity::from_json(it).ok()) {
                used.insert("requests.storage".to_owned(), amount);
            }
        }
        "configmaps" | "secrets" | "replicationcontrollers" | "resourcequotas" => {
            used.insert(resource.plural.to_owned(), one);
        }
        _ => {}
    }
    used
}

fn count(number: usize) -> Quantity {
    Quantity::from_json(&number.into()).unwrap_or_default()
}

/// The sum over the containers, or what the largest init container needs if that is more.
fn pod_amounts(pod: &Value, what: &str) -> Amounts {
    let amounts = |container: &Value| -> Vec<(String, Quantity)> {
        let stated = container.pointer(&format!("/resources/{what}")).and_then(Value::as_object);
        stated.into_iter().flatten().filter_map(|(name, amount)| Some((name.clone(), Quantity::from_json(amount).ok()?))).collect()
    };
    let mut total = Amounts::new();
    for (name, amount) in json::items(pod, "/spec/containers").iter().flat_map(amounts) {
        *total.entry(name).or_default() += amount;
    }
    for (name, amount) in json::items(pod, "/spec/initContainers").iter().flat_map(amounts) {
        let so_far = total.entry(name).or_default();
        *so_far = (*so_far).max(amount);
    }
    total
}

/// Whether a quota is about an object. A quota with scopes is about pods.
fn in_scope(quota: &Value, resource: ResourceRef, object: &Value) -> bool {
    let scopes = json::items(quota, "/spec/scopes").iter().filter_map(Value::as_str).map(|it| (it, "Exists", &[] as &[Value]));
    let terms = json::items(quota, "/spec/scopeSelector/matchExpressions");
    let terms = terms.iter().map(|it| (json::text(it, "/scopeName"), json::text(it, "/operator"), json::items(it, "/values")));
    scopes.chain(terms).all(|(scope, operator, values)| resource.plural == "pods" && matches(scope, operator, values, object))
}

fn matches(scope: &str, operator: &str, values: &[Value], pod: &Value) -> bool {
    let deadline = json::integer(pod, "/spec/activeDeadlineSeconds").is_some_and(|it| it >= 0);
    match scope {
        "Terminating" => deadline,
        "NotTerminating" => !deadline,
        "BestEffort" => pods::qos_class(pod) == "BestEffort",
        "NotBestEffort" => pods::qos_class(pod) != "BestEffort",
        "PriorityClass" => {
            let class = json::text(pod, "/spec/priorityClassName");
            match operator {
                "In" => values.iter().any(|it| it == class),
                "NotIn" => !values.iter().any(|it| it == class),
                "DoesNotExist" => class.is_empty(),
                _ => !class.is_empty(),
            }
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::object::resource::{POD, SERVICE};

    #[test]
    fn pods_use_what_they_ask_for() {
        let pod = json!({"spec": {
            "containers": [{"name": "a", "resources": {"requests": {"cpu": "100m", "memory": "1Gi"}}}, {"name": "b", "resources": {"requests": {"cpu": "1"}}}],
            "initContainers": [{"name": "i", "resources": {"requests": {"memory": "2Gi"}}}],
        }});
        let used = usage(&POD, &pod);
        let shown = |what: &str| used[what].to_string();
        assert_eq!((shown("cpu").as_str(), shown("requests.memory").as_str(), shown("pods").as_str()), ("1100m", "2Gi", "1"));
        let hard = json!({"limits.cpu": "1", "memory": "1Gi", "pods": "3"});
        assert_eq!(unspecified(hard.as_object().unwrap(), &pod), "limits.cpu for: a,b,i; memory for: b");
        let mut ended = pod;
        ended["status"] = json!({"phase": "Failed"});
        assert_eq!(usage(&POD, &ended).len(), 1);
    }

    #[test]
    fn scopes_choose_pods() {
        let quota = |scope: &str| json!({"spec": {"scopes": [scope]}});
        let pod = json!({"spec": {"containers": [{"name": "a"}], "activeDeadlineSeconds": 5}});
        for (scope, matches) in [("Terminating", true), ("NotTerminating", false), ("BestEffort", true), ("NotBestEffort", false)] {
            assert_eq!(in_scope(&quota(scope), &POD, &pod), matches, "{scope}");
        }
        assert!(!in_scope(&quota("BestEffort"), &SERVICE, &json!({})));
        assert!(in_scope(&json!({}), &SERVICE, &json!({})));
    }
}
