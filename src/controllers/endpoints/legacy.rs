//! Endpoints: all addresses of a service in one object, as older clients read them.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ServiceSpec;
use serde_json::{Value, json};

use super::super::plan::{Plan, Write, covers, tree};
use super::{Backend, ENDPOINTS_MANAGER, Port, create, is_headless, labels, labels_patch, triggers};
use crate::cache::Cache;
use crate::client::Patch;
use crate::object::{Object, resource};

/// More addresses than this are left out.
const MOST: usize = 1000;
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";

/// `mapping_prefix` is that of the annotations by container port, if host ports are published; `trigger` when that happened which this
/// follows.
pub(super) fn plan(
    cache: &Cache,
    mapping_prefix: Option<&str>,
    service: &Object,
    spec: &ServiceSpec,
    backends: &[Backend],
    trigger: Option<&str>,
    plan: &mut Plan,
) {
    let publish_all = spec.publish_not_ready_addresses == Some(true);
    let portless = spec.ports.as_ref().is_none_or(Vec::is_empty);
    let serves = |it: &&Backend| (publish_all || !it.terminating) && (portless || !it.ports.is_empty());
    let shown: Vec<&Backend> = backends.iter().filter(serves).collect();
    let (shown, truncated) = truncate(shown);
    let mut labels = labels(service, is_headless(spec));
    labels.insert(ENDPOINTS_MANAGER.to_owned(), "endpoint-controller".to_owned());
    let subsets = subsets(&shown);
    let mut annotations: BTreeMap<String, Value> = BTreeMap::new();
    if let Some(prefix) = mapping_prefix {
        for (backend, port) in shown.iter().filter(|it| it.ready).flat_map(|it| it.ports.iter().map(move |port| (it, port))) {
            let key = format!("{prefix}{}_{}_{}", port.protocol, backend.addresses[0], port.number);
            annotations.insert(key, port.container_port.to_string().into());
        }
    }
    if truncated {
        annotations.insert(OVER_CAPACITY.to_owned(), "truncated".into());
    }
    let trigger = trigger.map_or(Value::Null, Value::from);
    let Some(current) = cache.get(&resource::ENDPOINTS, service.namespace(), service.name()) else {
        annotations.extend((!trigger.is_null()).then(|| (triggers::ANNOTATION.to_owned(), trigger)));
        let object = json!({
            "apiVersion": "v1",
            "kind": "Endpoints",
            "metadata": { "name": service.name(), "labels": labels, "annotations": annotations },
            "subsets": subsets,
        });
        plan.writes.push(create(&resource::ENDPOINTS, service.namespace(), object));
        return;
    };
    let there = tree(&current);
    // Stale mappings of host ports are removed, other annotations stay.
    let ours = |key: &str| key == OVER_CAPACITY || mapping_prefix.is_some_and(|it| key.starts_with(it));
    for stale in there["metadata"]["annotations"].as_object().into_iter().flatten().map(|it| it.0).filter(|it| ours(it)) {
        annotations.entry(stale.clone()).or_insert(Value::Null);
    }
    let mut metadata = json!({ "labels": labels_patch(&current, &labels), "annotations": annotations });
    let none = there["subsets"].as_array().is_none_or(Vec::is_empty);
    if !covers(&there["metadata"], &metadata) || there["subsets"] != subsets && !(none && subsets == json!([])) {
        metadata["annotations"][triggers::ANNOTATION] = trigger;
        let patch = json!({ "metadata": metadata, "subsets": subsets });
        plan.writes.push(Write::Patch { key: current.key(), subresource: "", patch: Patch::Merge(patch) });
    }
}

/// Prefers ready backends.
fn truncate(mut backends: Vec<&Backend>) -> (Vec<&Backend>, bool) {
    let truncated = backends.len() > MOST;
    if truncated {
        backends.sort_by_key(|it| !it.ready);
        backends.truncate(MOST);
    }
    (backends, truncated)
}

/// One subset for each set of addresses that serve the same ports: a subset is the product of its addresses and ports. As in Kubernetes, an
/// address is in several subsets if its ports are served by different sets of addresses.
fn subsets(backends: &[&Backend]) -> Value {
    let mut backends = backends.to_vec();
    backends.sort_by(|a, b| (&a.addresses, a.pod.name()).cmp(&(&b.addresses, b.pod.name())));
    // The backends that serve each port; `None` for backends without ports.
    let mut servers: BTreeMap<Option<&Port>, Vec<usize>> = BTreeMap::new();
    for (at, backend) in backends.iter().enumerate() {
        for port in backend.ports.iter().map(Some).chain(backend.ports.is_empty().then_some(None)) {
            servers.entry(port).or_default().push(at);
        }
    }
    let mut groups: BTreeMap<Vec<usize>, Vec<&Port>> = BTreeMap::new();
    for (port, of) in servers {
        groups.entry(of).or_default().extend(port);
    }
    let mut groups: Vec<_> = groups.into_iter().collect();
    groups.sort_by(|a, b| (&a.1, &a.0).cmp(&(&b.1, &b.0)));
    let subsets = groups.into_iter().map(|(of, ports)| {
        let mut subset = json!({});
        for (field, ready) in [("addresses", true), ("notReadyAddresses", false)] {
            let addresses: Vec<Value> = of.iter().map(|at| backends[*at]).filter(|it| it.ready == ready).map(address).collect();
            if !addresses.is_empty() {
                subset[field] = addresses.into();
            }
        }
        if !ports.is_empty() {
            subset["ports"] = ports.into_iter().map(port).collect();
        }
        subset
    });
    subsets.collect::<Vec<_>>().into()
}

fn address(backend: &Backend) -> Value {
    let pod = &backend.pod;
    let target = json!({ "kind": "Pod", "namespace": pod.namespace(), "name": pod.name(), "uid": &*pod.meta().uid });
    let mut address = json!({ "ip": backend.addresses[0], "targetRef": target });
    if !backend.node.is_empty() {
        address["nodeName"] = backend.node.as_str().into();
    }
    if let Some(hostname) = &backend.hostname {
        address["hostname"] = hostname.as_str().into();
    }
    address
}

fn port(port: &Port) -> Value {
    let mut value = json!({ "port": port.number, "protocol": port.protocol });
    if !port.name.is_empty() {
        value["name"] = port.name.as_str().into();
    }
    if let Some(protocol) = &port.app_protocol {
        value["appProtocol"] = protocol.as_str().into();
    }
    value
}
