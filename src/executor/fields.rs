//! The downward API: fields of a pod's object, and resources of its containers.

use k8s_openapi::api::core::v1::{Container, Pod, ResourceFieldSelector};

use crate::util::quantity::Quantity;

/// Facts about a pod that its object may not show yet.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    pub node_name: String,
    pub host_ip: String,
    pub pod_ips: Vec<String>,
    /// The CPU, in thousandths, that a container without a limit may use.
    pub node_cpu: i64,
    /// Bytes.
    pub node_memory: i64,
}

/// The value of a field, such as `metadata.name` or `metadata.labels['app']`; `None` if there is no such field to be had.
pub fn field(pod: &Pod, facts: &Facts, path: &str) -> Option<String> {
    let meta = &pod.metadata;
    let spec = pod.spec.as_ref();
    if let Some((map, key)) = path.strip_suffix("']").and_then(|path| path.split_once("['")) {
        let map = match map {
            "metadata.labels" => meta.labels.as_ref(),
            "metadata.annotations" => meta.annotations.as_ref(),
            _ => return None,
        };
        return Some(map.and_then(|map| map.get(key)).cloned().unwrap_or_default());
    }
    let text = |text: Option<&String>| Some(text.cloned().unwrap_or_default());
    match path {
        "metadata.name" => text(meta.name.as_ref()),
        "metadata.namespace" => text(meta.namespace.as_ref()),
        "metadata.uid" => text(meta.uid.as_ref()),
        "metadata.labels" => Some(listing(meta.labels.as_ref())),
        "metadata.annotations" => Some(listing(meta.annotations.as_ref())),
        "spec.nodeName" => Some(facts.node_name.clone()),
        "spec.serviceAccountName" => text(spec.and_then(|spec| spec.service_account_name.as_ref())),
        "status.hostIP" | "status.hostIPs" => Some(facts.host_ip.clone()),
        "status.podIP" => Some(facts.pod_ips.first().cloned().unwrap_or_default()),
        "status.podIPs" => Some(facts.pod_ips.join(",")),
        _ => None,
    }
}

fn listing(map: Option<&std::collections::BTreeMap<String, String>>) -> String {
    map.into_iter().flatten().map(|(key, value)| format!("{key}={value:?}")).collect::<Vec<_>>().join("\n")
}

/// The value of a resource of `container`, or of the container that the selector names, rounded up to whole divisors.
pub fn resource(pod: &Pod, container: Option<&Container>, facts: &Facts, selector: &ResourceFieldSelector) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    let named = selector.container_name.as_deref().filter(|name| !name.is_empty());
    let container = match named {
        Some(name) => spec.init_containers.iter().flatten().chain(&spec.containers).find(|it| it.name == name)?,
        None => container?,
    };
    let (kind, resource) = selector.resource.split_once('.')?;
    let resources = container.resources.as_ref();
    let map = match kind {
        "limits" => resources.and_then(|it| it.limits.as_ref()),
        "requests" => resources.and_then(|it| it.requests.as_ref()),
        _ => return None,
    };
    let parse = |text: &str| text.parse::<Quantity>().ok();
    let given = map.and_then(|map| map.get(resource)).and_then(|it| parse(&it.0));
    // Thousandths for CPU, so that 1m divides without loss.
    let (amount, scale) = match (resource, given) {
        ("cpu", Some(quantity)) => (quantity.millis(), 1000),
        ("cpu", None) => (if kind == "limits" { facts.node_cpu } else { 0 }, 1000),
        ("memory", None) if kind == "limits" => (facts.node_memory, 1),
        (_, Some(quantity)) => (quantity.value(), 1),
        (_, None) => (0, 1),
    };
    let divisor = selector.divisor.as_ref().and_then(|it| parse(&it.0)).filter(|it| !it.is_zero());
    let divisor = divisor.map_or(scale, |it| if scale == 1000 { it.millis() } else { it.value() }).max(1);
    Some((amount + divisor - 1).div_euclid(divisor).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_and_resources() {
        let pod: Pod = serde_json::from_value(serde_json::json!({
            "metadata": {"name": "web", "namespace": "a", "uid": "u", "labels": {"app": "x", "tier": "\"q\""}},
            "spec": {"containers": [{"name": "c", "resources": {"limits": {"cpu": "250m", "memory": "64Mi"}}}, {"name": "d"}]},
        }))
        .unwrap();
        let facts = Facts { node_name: "n".into(), pod_ips: vec!["10.0.0.1".into(), "fd::1".into()], node_cpu: 4000, ..Facts::default() };
        for (path, expected) in [
            ("metadata.name", Some("web")),
            ("metadata.labels['app']", Some("x")),
            ("metadata.labels['none']", Some("")),
            ("metadata.labels", Some("app=\"x\"\ntier=\"\\\"q\\\"\"")),
            ("status.podIP", Some("10.0.0.1")),
            ("status.podIPs", Some("10.0.0.1,fd::1")),
            ("spec.nodeName", Some("n")),
            ("spec.containers", None),
        ] {
            assert_eq!(field(&pod, &facts, path).as_deref(), expected, "{path}");
        }
        for (name, of, divisor, expected) in [
            ("c", "limits.cpu", None, "1"),
            ("c", "limits.cpu", Some("1m"), "250"),
            ("c", "limits.memory", Some("1Mi"), "64"),
            ("c", "limits.memory", None, "67108864"),
            ("c", "requests.cpu", None, "0"),
            ("d", "limits.cpu", None, "4"),
        ] {
            let selector: ResourceFieldSelector =
                serde_json::from_value(serde_json::json!({"containerName": name, "resource": of, "divisor": divisor})).unwrap();
            assert_eq!(resource(&pod, None, &facts, &selector).as_deref(), Some(expected), "{name} {of} {divisor:?}");
        }
    }
}
