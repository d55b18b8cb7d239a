//! Services: the fields that depend on their type. Addresses and ports are allocated elsewhere.

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value};

use super::json;
use crate::object::service::{has_check_port, has_node_ports, kind};

/// Makes fields agree with the type and with each other; on an update, keeps omitted fields, and drops those that the new type does not
/// have. What is absent then has a default.
pub(crate) fn complete(service: &mut Value, old: Option<&Value>) {
    let kind = kind(service).to_owned();
    if let Some(old) = old {
        keep_allocated(service, old);
    }
    let with_ports = has_node_ports(service);
    let spec = json::map(service, "spec");
    if kind == "ExternalName" {
        for key in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
            drop_kept(spec, old, key);
        }
        spec.remove("internalTrafficPolicy");
    } else {
        agree(spec);
    }
    if !matches!(kind.as_str(), "NodePort" | "LoadBalancer") {
        drop_kept(spec, old, "externalTrafficPolicy");
    }
    if kind != "LoadBalancer" {
        drop_kept(spec, old, "allocateLoadBalancerNodePorts");
        drop_kept(spec, old, "loadBalancerClass");
    }
    if kind != "LoadBalancer" || spec.get("externalTrafficPolicy").is_none_or(|it| it != "Local") {
        drop_kept(spec, old, "healthCheckNodePort");
    }
    // Where the old type was reached, the new one is not.
    if kind != "LoadBalancer" && old.is_some_and(|it| self::kind(it) == "LoadBalancer") {
        json::map(service, "status").insert("loadBalancer".to_owned(), Map::new().into());
    }
    let spec = json::map(service, "spec");
    if !with_ports && kind != "LoadBalancer" && old.is_some_and(has_node_ports) {
        drop_node_ports(spec, old.map_or(&[], |it| json::items(it, "/spec/ports")));
    }
}

/// Drops an unchanged field of the old type after a change of type; a changed one is rejected.
fn drop_kept(spec: &mut Map<String, Value>, old: Option<&Value>, key: &str) {
    if old.and_then(|it| it.get("spec")?.get(key)).is_some_and(|before| spec.get(key) == Some(before)) {
        spec.remove(key);
    }
}

/// Keeps allocated values that an update omits.
fn keep_allocated(service: &mut Value, old: &Value) {
    let (is_external, was_external) = (kind(service) == "ExternalName", kind(old) == "ExternalName");
    let (ports, had_ports) = (has_node_ports(service), has_node_ports(old));
    let checked = has_check_port(service) && has_check_port(old);
    let spec = json::map(service, "spec");
    if !is_external && !was_external {
        let empty =
            |key: &str| spec.get(key).is_none_or(|it| it.is_null() || it.as_str() == Some("") || it.as_array().is_some_and(Vec::is_empty));
        let missing: Vec<_> = ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"].into_iter().filter(|key| empty(key)).collect();
        for key in missing {
            json::take_over(spec, old.get("spec"), key);
        }
        // A change of only `clusterIP` applies to `clusterIPs` too.
        let before = |key: &str| old.get("spec").and_then(|it| it.get(key));
        if spec.get("clusterIPs") == before("clusterIPs") && spec.get("clusterIP") != before("clusterIP") {
            let single = spec.get("clusterIP").cloned();
            spec.insert("clusterIPs".to_owned(), single.into_iter().collect());
        }
    }
    if checked && spec.get("healthCheckNodePort").is_none_or(|it| it.is_null() || it == 0) {
        json::take_over(spec, old.get("spec"), "healthCheckNodePort");
    }
    if ports && had_ports {
        let Some(Value::Array(list)) = spec.get_mut("ports") else { return };
        let taken: HashSet<i64> = list.iter().map(node_port).collect();
        // Of several, the first.
        let before: HashMap<_, _> =
            json::items(old, "/spec/ports").iter().rev().map(|it| ((it.get("port"), protocol(it)), node_port(it))).collect();
        for port in list.iter_mut().filter(|it| node_port(it) == 0) {
            let number = before.get(&(port.get("port"), protocol(port))).copied();
            if let Some(number) = number.filter(|it| *it != 0 && !taken.contains(it)) {
                port["nodePort"] = number.into();
            }
        }
    }
}

fn drop_node_ports(spec: &mut Map<String, Value>, old: &[Value]) {
    let before: HashSet<i64> = old.iter().map(node_port).collect();
    let Some(Value::Array(list)) = spec.get_mut("ports") else { return };
    for port in list.iter_mut().filter(|it| before.contains(&node_port(it))) {
        if let Some(port) = port.as_object_mut() {
            port.remove("nodePort");
        }
    }
}

/// `clusterIP` is the first of `clusterIPs`.
fn agree(spec: &mut Map<String, Value>) {
    let single = spec.get("clusterIP").and_then(Value::as_str).unwrap_or_default().to_owned();
    let first = spec.get("clusterIPs").and_then(|it| it.pointer("/0")).and_then(Value::as_str).unwrap_or_default().to_owned();
    if single.is_empty() && !first.is_empty() {
        spec.insert("clusterIP".to_owned(), first.into());
    } else if !single.is_empty() && first.is_empty() {
        spec.insert("clusterIPs".to_owned(), vec![single].into());
    }
}

pub(crate) fn node_port(port: &Value) -> i64 {
    port.get("nodePort").and_then(Value::as_i64).unwrap_or_default()
}

pub(crate) fn protocol(port: &Value) -> &str {
    port.get("protocol").and_then(Value::as_str).unwrap_or("TCP")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::codec::default;
    use crate::object::resource::SERVICE;

    #[test]
    fn a_service_that_is_not_balanced_any_more_is_nowhere_reached_by_a_balancer() {
        let old = json!({"spec": {"type": "LoadBalancer"}, "status": {"loadBalancer": {"ingress": [{"ip": "1.2.3.4"}]}}});
        for (kind, kept) in [("LoadBalancer", true), ("NodePort", false), ("ClusterIP", false)] {
            let mut service = old.clone();
            service["spec"]["type"] = kind.into();
            complete(&mut service, Some(&old));
            assert_eq!(service["status"] == old["status"], kept, "{kind}");
            assert!(kept || service["status"] == json!({"loadBalancer": {}}));
        }
    }

    #[test]
    fn types_bring_their_fields() {
        let mut service = json!({"spec": {"ports": [{"port": 80}]}});
        complete(&mut service, None);
        default::fill(&SERVICE, &mut service);
        assert_eq!(service["spec"]["type"], "ClusterIP");
        assert_eq!(service["spec"]["internalTrafficPolicy"], "Cluster");
        assert!(service["spec"].get("externalTrafficPolicy").is_none());
        let mut service = json!({"spec": {"type": "LoadBalancer"}});
        complete(&mut service, None);
        default::fill(&SERVICE, &mut service);
        assert_eq!(service["spec"]["allocateLoadBalancerNodePorts"], true);
        assert_eq!(service["spec"]["externalTrafficPolicy"], "Cluster");
    }

    #[test]
    fn updates_keep_the_port_for_checks() {
        let old = json!({"spec": {"type": "LoadBalancer", "externalTrafficPolicy": "Local", "healthCheckNodePort": 30001}});
        for (policy, asked, kept) in [("Local", 0, json!(30001)), ("Local", 30002, json!(30002)), ("Cluster", 30001, Value::Null)] {
            let mut new = json!({"spec": {"type": "LoadBalancer", "externalTrafficPolicy": policy, "healthCheckNodePort": asked}});
            complete(&mut new, Some(&old));
            assert_eq!(new["spec"]["healthCheckNodePort"], kept);
        }
    }

    #[test]
    fn updates_keep_what_was_allocated() {
        let old = json!({"spec": {"type": "NodePort", "clusterIP": "10.0.0.9", "clusterIPs": ["10.0.0.9"], "ports": [{"port": 80, "nodePort": 30001}]}});
        let mut new = json!({"spec": {"type": "NodePort", "ports": [{"port": 80, "protocol": "TCP"}, {"port": 81}]}});
        complete(&mut new, Some(&old));
        assert_eq!(new["spec"]["clusterIP"], "10.0.0.9");
        assert_eq!(new["spec"]["ports"][0]["nodePort"], 30001);
        assert!(new["spec"]["ports"][1].get("nodePort").is_none());
        let mut new = json!({"spec": {"type": "NodePort", "clusterIP": "10.0.0.8", "clusterIPs": ["10.0.0.9"]}});
        complete(&mut new, Some(&old));
        assert_eq!(new["spec"]["clusterIPs"], json!(["10.0.0.8"]));
        let mut new = json!({"spec": {"type": "ClusterIP", "ports": [{"port": 80, "nodePort": 30001}]}});
        complete(&mut new, Some(&old));
        assert!(new["spec"]["ports"][0].get("nodePort").is_none());
        let mut new = json!({"spec": {"type": "ExternalName", "externalName": "x", "clusterIP": "10.0.0.9"}});
        complete(&mut new, Some(&old));
        assert!(new["spec"].get("clusterIP").is_none());
    }
}
