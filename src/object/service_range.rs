//! ServiceCIDRs, from which service addresses are allocated, and IPAddresses, the allocated ones: what the allocator and the controller
//! that protects ranges in use read from both.

use std::net::IpAddr;

use k8s_openapi::api::networking::v1::{IPAddress, ParentReference, ServiceCIDR};

use super::Object;
use crate::util::cidr::Cidr;

/// Labels of an IPAddress.
pub const FAMILY: &str = "ipaddress.kubernetes.io/ip-family";
pub const MANAGED_BY: &str = "ipaddress.kubernetes.io/managed-by";
/// The value of [`MANAGED_BY`] on addresses of services.
pub const ALLOCATOR: &str = "ipallocator.k8s.io";
/// Protects a range until none of its addresses is in use.
pub const FINALIZER: &str = "networking.k8s.io/service-cidr-finalizer";
/// The condition of a range.
pub const READY: &str = "Ready";

/// `IPv4` or `IPv6`.
pub fn family(address: IpAddr) -> &'static str {
    if address.is_ipv4() { "IPv4" } else { "IPv6" }
}

/// The ranges of a ServiceCIDR: one, or one per family.
pub fn ranges(object: &Object) -> Vec<Cidr> {
    let Ok(it) = object.typed::<ServiceCIDR>() else { return Vec::new() };
    it.spec.iter().flat_map(|it| it.cidrs.iter().flatten()).filter_map(|it| it.parse().ok()).collect()
}

/// The `Ready` condition of a ServiceCIDR; `None` if no controller has set it yet.
pub fn condition(object: &Object) -> Option<bool> {
    let status = object.typed::<ServiceCIDR>().ok()?.status.as_ref()?;
    let mut conditions = status.conditions.iter().flatten();
    conditions.find(|it| it.type_ == READY).map(|it| it.status == "True")
}

/// Whether addresses may be allocated from a ServiceCIDR. A ServiceCIDR without the condition is ready, since no controller need run.
pub fn is_ready(object: &Object) -> bool {
    !object.meta().is_deleted() && condition(object).unwrap_or(true)
}

/// Whether an address can be allocated from a ServiceCIDR.
pub fn has_host(object: &Object, address: IpAddr) -> bool {
    ranges(object).iter().any(|it| it.has_host(address))
}

/// Whether the API server manages this IPAddress.
pub fn is_managed(address: &Object) -> bool {
    address.meta().label(MANAGED_BY) == Some(ALLOCATOR)
}

/// The object that an IPAddress is allocated to.
pub fn parent(address: &Object) -> Option<&ParentReference> {
    address.typed::<IPAddress>().ok().and_then(|it| it.spec.as_ref()).map(|it| &it.parent_ref)
}

/// The service that an IPAddress is allocated to, by namespace and name.
pub fn service(address: &Object) -> Option<(&str, &str)> {
    let parent = parent(address)?;
    let is_service = parent.resource == "services" && parent.group.as_deref().unwrap_or_default().is_empty();
    is_service.then(|| (parent.namespace.as_deref().unwrap_or_default(), parent.name.as_str()))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::object::resource::{IP_ADDRESS, SERVICE_CIDR};

    #[test]
    fn ranges_that_are_ready() {
        let ready = |metadata: Value, conditions: Value| {
            let object = json!({"metadata": metadata, "spec": {"cidrs": ["10.0.0.0/24"]}, "status": {"conditions": conditions}});
            is_ready(&Object::from_stored(&SERVICE_CIDR, object.to_string().as_bytes(), 1).unwrap())
        };
        let condition = |kind: &str, status: &str| json!([{"type": kind, "status": status, "reason": "", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}]);
        let alive = || json!({"name": "a"});
        assert!(ready(alive(), json!([])));
        assert!(ready(alive(), condition("Ready", "True")));
        assert!(ready(alive(), condition("Other", "False")));
        assert!(!ready(alive(), condition("Ready", "False")));
        assert!(!ready(json!({"name": "a", "deletionTimestamp": "2026-01-01T00:00:00Z"}), condition("Ready", "True")));
    }

    #[test]
    fn what_an_address_is_given_to() {
        let of = |parent: Value| {
            let object = json!({"metadata": {"name": "10.0.0.1"}, "spec": {"parentRef": parent}});
            let object = Object::from_stored(&IP_ADDRESS, object.to_string().as_bytes(), 1).unwrap();
            service(&object).map(|(namespace, name)| format!("{namespace}/{name}"))
        };
        assert_eq!(of(json!({"resource": "services", "namespace": "a", "name": "b"})).as_deref(), Some("a/b"));
        assert_eq!(of(json!({"resource": "services", "group": "x.org", "namespace": "a", "name": "b"})), None);
        assert_eq!(of(json!({"resource": "gateways", "namespace": "a", "name": "b"})), None);
    }
}
