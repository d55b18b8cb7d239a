//! EndpointSlices that mirror Endpoints of users: those of services without a selector.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::super::plan::{Controller, Plan, Source, tree};
use super::slices::{self, Form, Group, Kind};
use super::{SLICE_MANAGER, SLICE_SERVICE, delete, family, triggers};
use crate::cache::Cache;
use crate::object::selector::LabelSelector;
use crate::object::{Object, ObjectKey, resource};

const OURS: &str = "endpointslicemirroring-controller.k8s.io";
const SKIP: &str = "endpointslice.kubernetes.io/skip-mirror";
/// Endpoints that are locks of an older kind of leader election.
const LEADER: &str = "control-plane.alpha.kubernetes.io/leader";
/// The record of `kubectl apply` belongs only to the original.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Keeps the mirrors.
#[derive(Debug)]
pub struct MirroringController {
    /// `--mirroring-max-endpoints-per-subset`: the size of a slice; further endpoints of a subset are dropped.
    pub most: usize,
}

impl Controller for MirroringController {
    fn name(&self) -> &'static str {
        "endpoint-slice-mirroring-controller"
    }

    fn sources(&self) -> Vec<Source> {
        let same_name = |_: &Cache, it: &Object| vec![ObjectKey::new(&resource::ENDPOINTS, it.namespace(), it.name())];
        vec![
            Source::own(&resource::ENDPOINTS),
            Source::leading_to(&resource::SERVICE, same_name),
            Source::leading_to(&resource::ENDPOINT_SLICE, |_, it| {
                let service = it.meta().label(SLICE_SERVICE).filter(|_| it.meta().label(SLICE_MANAGER) == Some(OURS));
                service.map(|name| ObjectKey::new(&resource::ENDPOINTS, it.namespace(), name)).into_iter().collect()
            }),
        ]
    }

    fn plan(&self, cache: &Cache, key: &ObjectKey, _now: Timestamp) -> Plan {
        let mut plan = Plan::default();
        let (namespace, name) = (&*key.name.namespace, &*key.name.name);
        let existing = slices::of(cache, namespace, name, OURS);
        match mirrored(cache, namespace, name) {
            Some(endpoints) => self.mirror(&endpoints, &existing, &mut plan),
            None => plan.writes.extend(existing.iter().map(|it| delete(it))),
        }
        plan
    }
}

/// The Endpoints, if they are to be mirrored.
fn mirrored(cache: &Cache, namespace: &str, name: &str) -> Option<Arc<Object>> {
    let service = cache.get(&resource::SERVICE, namespace, name).filter(|it| !it.meta().is_deleted())?;
    let endpoints = cache.get(&resource::ENDPOINTS, namespace, name).filter(|it| !it.meta().is_deleted())?;
    let skipped = endpoints.meta().label(SKIP) == Some("true") || tree(&endpoints)["metadata"]["annotations"].get(LEADER).is_some();
    (LabelSelector::in_spec(&service).is_none() && !skipped).then_some(endpoints)
}

impl MirroringController {
    fn mirror(&self, endpoints: &Object, existing: &[Arc<Object>], plan: &mut Plan) {
        let content = tree(endpoints);
        let mut groups: BTreeMap<Kind, Group> = BTreeMap::new();
        for subset in content["subsets"].as_array().into_iter().flatten() {
            let ports: Vec<Value> = subset["ports"].as_array().into_iter().flatten().map(port).collect();
            let ports = Value::from(ports).to_string();
            let of = |field: &str, ready: bool| -> Vec<(bool, &Value)> {
                subset[field].as_array().into_iter().flatten().map(|it| (ready, it)).collect()
            };
            for (ready, address) in of("addresses", true).into_iter().chain(of("notReadyAddresses", false)).take(self.most) {
                let ip = address["ip"].as_str().unwrap_or_default();
                let identity = address["targetRef"]["uid"].as_str().unwrap_or(ip).to_owned();
                groups.entry((family(ip), ports.clone())).or_default().endpoints.push((identity, endpoint(address, ready)));
            }
        }
        let mut labels: BTreeMap<String, String> =
            endpoints.meta().labels.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
        labels.insert(SLICE_SERVICE.to_owned(), endpoints.name().to_owned());
        labels.insert(SLICE_MANAGER.to_owned(), OURS.to_owned());
        let mut annotations = content["metadata"]["annotations"].as_object().cloned().unwrap_or_default();
        annotations.retain(|key, _| ![LAST_APPLIED, triggers::ANNOTATION].contains(&key.as_str()));
        let (annotations, written) = (annotations.into(), Value::Null);
        let form = Form { owner: endpoints, name: endpoints.name(), labels, annotations, written };
        form.spread(groups, existing, self.most, plan);
    }
}

fn port(port: &Value) -> Value {
    let mut mirrored = json!({ "name": port["name"].as_str().unwrap_or_default(), "protocol": port["protocol"], "port": port["port"] });
    if let Some(protocol) = port.get("appProtocol") {
        mirrored["appProtocol"] = protocol.clone();
    }
    mirrored
}

fn endpoint(address: &Value, ready: bool) -> Value {
    let mut endpoint = json!({ "addresses": [address["ip"]], "conditions": { "ready": ready } });
    for field in ["hostname", "nodeName", "targetRef"] {
        if let Some(value) = address.get(field) {
            endpoint[field] = value.clone();
        }
    }
    endpoint
}
