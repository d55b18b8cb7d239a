//! Rules about services that several components share.

use serde_json::Value;

use crate::util::json;

/// The type; `ClusterIP` by default.
pub fn kind(service: &Value) -> &str {
    match json::text(service, "/spec/type") {
        "" => "ClusterIP",
        kind => kind,
    }
}

/// Whether each of its ports has a node port.
pub fn has_node_ports(service: &Value) -> bool {
    match kind(service) {
        "NodePort" => true,
        "LoadBalancer" => service.pointer("/spec/allocateLoadBalancerNodePorts") != Some(&Value::Bool(false)),
        _ => false,
    }
}

/// Load balancers that keep to local endpoints ask each node on a port of its own whether it has any.
pub fn has_check_port(service: &Value) -> bool {
    kind(service) == "LoadBalancer" && json::text(service, "/spec/externalTrafficPolicy") == "Local"
}
