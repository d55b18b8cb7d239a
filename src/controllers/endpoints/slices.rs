//! EndpointSlices of a service: its endpoints in slices of a limited size, by address family and set of ports.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::ServiceSpec;
use serde_json::{Value, json};

use super::super::owners::controller_reference;
use super::super::plan::{Plan, Write, covers, tree};
use super::packing::{Packed, pack};
use super::{Backend, OURS, Port, SLICE_MANAGER, SLICE_SERVICE, create, delete, family, is_headless, labels, labels_patch, triggers};
use crate::cache::{Cache, Query};
use crate::client::Patch;
use crate::object::selector::LabelSelector;
use crate::object::{Object, resource};

/// The slices of a service that a controller manages.
pub(super) fn of(cache: &Cache, namespace: &str, service: &str, manager: &str) -> Vec<Arc<Object>> {
    let pairs = BTreeMap::from([(SLICE_SERVICE.to_owned(), service.to_owned()), (SLICE_MANAGER.to_owned(), manager.to_owned())]);
    let labels = LabelSelector::from_pairs(&pairs);
    cache.list(&resource::ENDPOINT_SLICE, &Query { namespace: Some(namespace.to_owned()), labels, ..Query::default() }).objects
}

/// The content of slices with the same address family and ports.
#[derive(Debug, Default)]
pub(super) struct Group {
    /// By identity.
    pub(super) endpoints: Vec<(String, Value)>,
}

/// `addressType`, and the ports as JSON text: endpoints with an equal kind can share slices.
pub(super) type Kind = (&'static str, String);

/// `trigger`: when that happened which this follows.
pub(super) fn plan(
    cache: &Cache,
    size: usize,
    service: &Object,
    spec: &ServiceSpec,
    backends: &[Backend],
    trigger: Option<&str>,
    plan: &mut Plan,
) {
    let mut groups: BTreeMap<Kind, Group> = BTreeMap::new();
    // Only if every endpoint knows its zone: traffic would be lost otherwise.
    let close =
        matches!(spec.traffic_distribution.as_deref(), Some("PreferClose")) && backends.iter().all(|it| !it.ready || it.zone.is_some());
    for backend in backends {
        for address_type in ["IPv4", "IPv6"] {
            let addresses: Vec<&String> = backend.addresses.iter().filter(|it| family(it) == address_type).collect();
            if !addresses.is_empty() {
                let ports: Vec<Value> = backend.ports.iter().map(port).collect();
                let group = groups.entry((address_type, Value::from(ports).to_string())).or_default();
                group.endpoints.push((backend.pod.meta().uid.to_string(), endpoint(backend, &addresses, close)));
            }
        }
    }
    // A slice without endpoints shows that there are none of a family.
    let mut families: Vec<&str> = spec.ip_families.iter().flatten().map(|it| if it == "IPv6" { "IPv6" } else { "IPv4" }).collect();
    if families.is_empty() && groups.is_empty() {
        families.push("IPv4");
    }
    families.retain(|family| !groups.keys().any(|(it, _)| it == family));
    groups.extend(families.into_iter().map(|family| ((family, "[]".to_owned()), Group::default())));
    let mut labels = labels(service, is_headless(spec));
    labels.insert(SLICE_SERVICE.to_owned(), service.name().to_owned());
    labels.insert(SLICE_MANAGER.to_owned(), OURS.to_owned());
    let existing = of(cache, service.namespace(), service.name(), OURS);
    let written = json!({ triggers::ANNOTATION: trigger });
    let form = Form { owner: service, name: service.name(), labels, annotations: json!({}), written };
    form.spread(groups, &existing, size, plan);
}

fn port(port: &Port) -> Value {
    let mut value = json!({ "name": port.name, "protocol": port.protocol, "port": port.number });
    if let Some(protocol) = &port.app_protocol {
        value["appProtocol"] = protocol.as_str().into();
    }
    value
}

fn endpoint(backend: &Backend, addresses: &[&String], close: bool) -> Value {
    let pod = &backend.pod;
    let mut endpoint = json!({
        "addresses": addresses,
        "conditions": { "ready": backend.ready, "serving": backend.serving, "terminating": backend.terminating },
        "targetRef": { "kind": "Pod", "namespace": pod.namespace(), "name": pod.name(), "uid": &*pod.meta().uid },
    });
    if !backend.node.is_empty() {
        endpoint["nodeName"] = backend.node.as_str().into();
    }
    if let Some(zone) = &backend.zone {
        endpoint["zone"] = zone.as_str().into();
        if close && backend.ready {
            endpoint["hints"] = json!({ "forZones": [{ "name": zone }] });
        }
    }
    if let Some(hostname) = &backend.hostname {
        endpoint["hostname"] = hostname.as_str().into();
    }
    endpoint
}

/// The common properties of one owner's slices.
pub(super) struct Form<'a> {
    pub owner: &'a Object,
    /// Prefix of their names.
    pub name: &'a str,
    pub labels: BTreeMap<String, String>,
    pub annotations: Value,
    /// Annotations that go with changes, but are no reason for one; null for those that go with the next change.
    pub written: Value,
}

impl Form<'_> {
    /// Brings the slices there are to these groups.
    pub(super) fn spread(&self, groups: BTreeMap<Kind, Group>, existing: &[Arc<Object>], size: usize, plan: &mut Plan) {
        let trees: Vec<Value> = existing.iter().map(|it| tree(it)).collect();
        let mut unused: HashSet<usize> = (0..existing.len()).collect();
        let mut fresh: Vec<(&str, Vec<Value>, Value)> = Vec::new();
        for ((address_type, ports), group) in groups {
            let ports: Value = serde_json::from_str(&ports).unwrap_or_default();
            let fits = |slice: &Value| slice["addressType"] == address_type && same_list(&slice["ports"], &ports);
            let same: Vec<usize> = (0..existing.len()).filter(|at| fits(&trees[*at])).collect();
            let there: Vec<Vec<String>> = same.iter().map(|at| identities(&trees[*at])).collect();
            let mut packed = pack(&there, group.endpoints, size);
            if packed.is_empty() {
                packed.push(Packed { slice: (!same.is_empty()).then_some(0), endpoints: Vec::new() });
            }
            for Packed { slice, endpoints } in packed {
                match slice.map(|it| same[it]) {
                    Some(at) => {
                        unused.remove(&at);
                        self.update(&existing[at], &trees[at], &endpoints, None, plan);
                    }
                    None => fresh.push((address_type, endpoints, ports.clone())),
                }
            }
        }
        for (address_type, endpoints, ports) in fresh {
            // Reuse a superfluous slice for the missing one.
            match (0..existing.len()).find(|at| unused.contains(at) && trees[*at]["addressType"] == address_type) {
                Some(at) => {
                    unused.remove(&at);
                    self.update(&existing[at], &trees[at], &endpoints, Some(ports), plan);
                }
                None => plan.writes.push(self.creation(address_type, endpoints, &ports)),
            }
        }
        plan.writes.extend(existing.iter().enumerate().filter(|(at, _)| unused.contains(at)).map(|(_, it)| delete(it)));
    }

    /// `ports`: the new ports, if they change.
    fn update(&self, slice: &Object, there: &Value, endpoints: &[Value], ports: Option<Value>, plan: &mut Plan) {
        let metadata = json!({ "labels": labels_patch(slice, &self.labels), "annotations": self.annotations });
        let mut patch = json!({ "metadata": metadata, "endpoints": endpoints });
        let same = ports.is_none() && same_list(&there["endpoints"], &patch["endpoints"]);
        if let Some(ports) = ports {
            patch["ports"] = ports;
        }
        let unchanged = same && covers_metadata(&there["metadata"], &patch["metadata"]);
        if !unchanged {
            add(&mut patch["metadata"]["annotations"], &self.written);
            plan.writes.push(Write::Patch { key: slice.key(), subresource: "", patch: Patch::Merge(patch) });
        }
    }

    fn creation(&self, address_type: &str, endpoints: Vec<Value>, ports: &Value) -> Write {
        // The name leaves room for the dash and the letters that the server appends.
        let prefix: String = self.name.chars().take(57).collect();
        let mut object = json!({
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "generateName": format!("{prefix}-"), "labels": self.labels, "ownerReferences": [controller_reference(self.owner)],
            },
            "addressType": address_type,
            "endpoints": endpoints,
            "ports": ports,
        });
        let mut annotations = self.annotations.clone();
        add(&mut annotations, &self.written);
        if let Some(annotations) = annotations.as_object_mut() {
            annotations.retain(|_, value| !value.is_null());
        }
        object["metadata"]["annotations"] = annotations;
        create(&resource::ENDPOINT_SLICE, self.owner.namespace(), object)
    }
}

/// Whether a patch of these changes nothing; no annotations are those that an object without any has.
fn covers_metadata(there: &Value, wanted: &Value) -> bool {
    let none = wanted["annotations"].as_object().is_none_or(|it| it.is_empty());
    covers(&there["labels"], &wanted["labels"]) && (none || covers(&there["annotations"], &wanted["annotations"]))
}

/// Adds the entries of a map to another.
fn add(to: &mut Value, more: &Value) {
    if let (Some(to), Some(more)) = (to.as_object_mut(), more.as_object()) {
        to.extend(more.iter().map(|(key, value)| (key.clone(), value.clone())));
    }
}

/// Empty lists may be kept as null or not at all.
fn same_list(a: &Value, b: &Value) -> bool {
    let is_empty = |it: &Value| it.as_array().is_none_or(Vec::is_empty);
    a == b || is_empty(a) && is_empty(b)
}

/// The identities of a slice's endpoints: their pods' uids, or else their addresses.
fn identities(slice: &Value) -> Vec<String> {
    let all = slice["endpoints"].as_array().into_iter().flatten();
    all.map(|it| it["targetRef"]["uid"].as_str().or_else(|| it["addresses"][0].as_str()).unwrap_or_default().to_owned()).collect()
}
