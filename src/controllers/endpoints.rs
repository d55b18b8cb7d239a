//! Endpoints and EndpointSlices of the services that select pods: by the hosts' ports (the default, as the cluster needs no routable pod
//! network), or by the pods' own addresses.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, ContainerPort, Pod, Service, ServicePort};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::{Value, json};

use super::owners::controller_reference;
use super::plan::{Controller, Plan, Source, Write, covers, tree};
use super::pods;
use crate::cache::{Cache, Query};
use crate::client::{DeleteOptions, Patch};
use crate::object::selector::LabelSelector;
use crate::object::{Object, ObjectKey, resource};
use crate::util::product::Product;

const SLICE_SERVICE: &str = "kubernetes.io/service-name";
const SLICE_MANAGER: &str = "endpointslice.kubernetes.io/managed-by";
const OURS: &str = "endpointslice-controller.k8s.io";

/// Keeps both kinds for every service with a selector.
#[derive(Debug)]
pub struct EndpointsController {
    pub product: &'static Product,
    /// `--host-port-endpoints`.
    pub host_ports: bool,
}

/// A place where a pod serves a port of a service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Backend {
    port_name: String,
    protocol: String,
    address: String,
    port: i32,
    container_port: i32,
    pod: (String, String),
    node: String,
    /// Takes new connections.
    ready: bool,
    /// Would, if it were not being deleted.
    serving: bool,
    terminating: bool,
}

impl Controller for EndpointsController {
    fn name(&self) -> &'static str {
        "endpoint-controller"
    }

    fn sources(&self) -> Vec<Source> {
        vec![
            Source::own(&resource::SERVICE),
            Source::leading_to(&resource::POD, services_of).remembered(),
            // What somebody else changed or deleted is put right.
            Source::leading_to(&resource::ENDPOINTS, |_, it| vec![ObjectKey::new(&resource::SERVICE, it.namespace(), it.name())]),
            Source::leading_to(&resource::ENDPOINT_SLICE, |_, it| {
                let service = it.meta().label(SLICE_SERVICE).filter(|_| it.meta().label(SLICE_MANAGER) == Some(OURS));
                service.map(|name| ObjectKey::new(&resource::SERVICE, it.namespace(), name)).into_iter().collect()
            }),
        ]
    }

    fn plan(&self, cache: &Cache, key: &ObjectKey, _now: Timestamp) -> Plan {
        let mut plan = Plan::default();
        let (namespace, name) = (&*key.name.namespace, &*key.name.name);
        let service = cache.get(&resource::SERVICE, namespace, name);
        let Some(service) = service.filter(|it| !it.meta().is_deleted()) else {
            self.remove_leftovers(cache, namespace, name, &mut plan);
            return plan;
        };
        let Ok(typed) = service.typed::<Service>() else { return plan };
        let Some(selector) = selector(typed) else { return plan };
        let spec = typed.spec.clone().unwrap_or_default();
        if spec.type_.as_deref() == Some("ExternalName") {
            return plan;
        }
        let query = Query { namespace: Some(namespace.to_owned()), labels: selector, ..Query::default() };
        let mut backends = Vec::new();
        for pod in cache.list(&resource::POD, &query).objects {
            if pods::has_ended(&pod) {
                continue;
            }
            for port in spec.ports.iter().flatten() {
                backends.extend(self.backend(&pod, port, spec.publish_not_ready_addresses == Some(true)));
            }
        }
        backends.sort();
        self.endpoints(cache, &service, &backends, &mut plan);
        self.slice(cache, &service, &backends, &mut plan);
        plan
    }
}

impl EndpointsController {
    /// Where `pod` serves this port; nowhere if it does not declare it, or has no address yet.
    fn backend(&self, pod: &Object, port: &ServicePort, publish_not_ready: bool) -> Option<Backend> {
        let typed = pod.typed::<Pod>().ok()?;
        let (spec, status) = (typed.spec.as_ref()?, typed.status.as_ref()?);
        let protocol = port.protocol.as_deref().unwrap_or("TCP");
        let declared = declared_port(&spec.containers, port, protocol);
        let (address, host_port, container_port) = if self.host_ports && spec.host_network != Some(true) {
            let declared = declared?;
            let annotation = match (&port.target_port, &declared.name) {
                (Some(IntOrString::String(name)), _) => self.product.annotation(&format!("portName_{protocol}_{name}")),
                _ => self.product.annotation(&format!("port_{protocol}_{}", declared.container_port)),
            };
            let mapped = typed.metadata.annotations.as_ref().and_then(|it| it.get(&annotation)).and_then(|it| it.parse().ok());
            (status.host_ip.clone()?, mapped.or(declared.host_port.filter(|it| *it != 0))?, declared.container_port)
        } else {
            let number = match (&port.target_port, declared) {
                (_, Some(declared)) => declared.container_port,
                (Some(IntOrString::Int(number)), None) => *number,
                (None, None) => port.port,
                (Some(IntOrString::String(_)), None) => return None,
            };
            (status.pod_ip.clone()?, number, number)
        };
        if address.is_empty() {
            return None;
        }
        let terminating = pod.meta().is_deleted();
        Some(Backend {
            port_name: port.name.clone().unwrap_or_default(),
            protocol: protocol.to_owned(),
            address,
            port: host_port,
            container_port,
            pod: (pod.name().to_owned(), pod.meta().uid.to_string()),
            node: spec.node_name.clone().unwrap_or_default(),
            ready: publish_not_ready || (pods::is_ready(pod) && !terminating),
            serving: publish_not_ready || pods::is_ready(pod),
            terminating,
        })
    }

    fn endpoints(&self, cache: &Cache, service: &Object, backends: &[Backend], plan: &mut Plan) {
        let wanted = json!({
            "labels": labels(service),
            "subsets": subsets(service, backends.iter().filter(|it| !it.terminating)),
        });
        let prefix = self.product.annotation("containerPort_");
        let mut annotations: BTreeMap<String, Value> = BTreeMap::new();
        if self.host_ports {
            for it in backends.iter().filter(|it| it.ready) {
                annotations.insert(format!("{prefix}{}_{}_{}", it.protocol, it.address, it.port), it.container_port.to_string().into());
            }
        }
        let Some(current) = cache.get(&resource::ENDPOINTS, service.namespace(), service.name()) else {
            let object = json!({
                "apiVersion": "v1",
                "kind": "Endpoints",
                "metadata": { "name": service.name(), "labels": wanted["labels"], "annotations": annotations },
                "subsets": wanted["subsets"],
            });
            plan.writes.push(create(&resource::ENDPOINTS, service, object));
            return;
        };
        let there = tree(&current);
        // Mappings of hosts' ports that are gone are removed, other annotations stay.
        for stale in there["metadata"]["annotations"].as_object().into_iter().flatten().map(|it| it.0) {
            if stale.starts_with(&prefix) {
                annotations.entry(stale.clone()).or_insert(Value::Null);
            }
        }
        let patch = json!({ "metadata": { "labels": wanted["labels"], "annotations": annotations }, "subsets": wanted["subsets"] });
        if !covers(&there, &patch) {
            plan.writes.push(Write::Patch { key: current.key(), subresource: "", patch: Patch::Merge(patch) });
        }
    }

    fn slice(&self, cache: &Cache, service: &Object, backends: &[Backend], plan: &mut Plan) {
        // A slice has one set of ports for all of its endpoints: host ports differ from pod to pod, so there is a slice for each distinct set.
        let mut by_ports: BTreeMap<Vec<(String, String, i32)>, Vec<&Backend>> = BTreeMap::new();
        let mut of_pod: BTreeMap<&(String, String), Vec<&Backend>> = BTreeMap::new();
        for backend in backends {
            of_pod.entry(&backend.pod).or_default().push(backend);
        }
        for all in of_pod.values() {
            let ports = all.iter().map(|it| (it.port_name.clone(), it.protocol.clone(), it.port)).collect();
            by_ports.entry(ports).or_default().push(all[0]);
        }
        if by_ports.is_empty() {
            by_ports.insert(Vec::new(), Vec::new());
        }
        let mut unused = slices(cache, service.namespace(), service.name());
        for (ports, backends) in by_ports {
            let endpoints: Vec<Value> = backends.iter().map(|it| endpoint(service, it)).collect();
            let ports: Vec<Value> =
                ports.iter().map(|(name, protocol, port)| json!({"name": name, "protocol": protocol, "port": port})).collect();
            let mut labels = labels(service);
            labels[SLICE_SERVICE] = service.name().into();
            labels[SLICE_MANAGER] = OURS.into();
            let patch = json!({ "metadata": { "labels": labels }, "endpoints": endpoints, "ports": ports });
            let same_ports = unused.iter().position(|it| tree(it)["ports"] == patch["ports"]);
            if let Some(at) = same_ports.or_else(|| (!unused.is_empty()).then_some(0)) {
                let current = unused.remove(at);
                if !covers(&tree(&current), &patch) {
                    plan.writes.push(Write::Patch { key: current.key(), subresource: "", patch: Patch::Merge(patch) });
                }
                continue;
            }
            let mut object = patch;
            object["apiVersion"] = "discovery.k8s.io/v1".into();
            object["kind"] = "EndpointSlice".into();
            object["addressType"] = "IPv4".into();
            object["metadata"]["generateName"] = format!("{}-", service.name()).into();
            object["metadata"]["ownerReferences"] = json!([controller_reference(service)]);
            plan.writes.push(create(&resource::ENDPOINT_SLICE, service, object));
        }
        plan.writes.extend(unused.into_iter().map(|it| delete(&it)));
    }

    fn remove_leftovers(&self, cache: &Cache, namespace: &str, name: &str, plan: &mut Plan) {
        if let Some(endpoints) = cache.get(&resource::ENDPOINTS, namespace, name) {
            plan.writes.push(delete(&endpoints));
        }
        plan.writes.extend(slices(cache, namespace, name).iter().map(|it| delete(it)));
    }
}

fn create(resource: crate::object::ResourceRef, service: &Object, object: Value) -> Write {
    Write::Create { resource, namespace: service.namespace().to_owned(), object, tell: None }
}

fn delete(object: &Object) -> Write {
    let options = DeleteOptions { uid: Some(object.meta().uid.to_string()), ..DeleteOptions::default() };
    Write::Delete { key: object.key(), options, tell: None }
}

fn slices(cache: &Cache, namespace: &str, service: &str) -> Vec<std::sync::Arc<Object>> {
    let pairs = BTreeMap::from([(SLICE_SERVICE.to_owned(), service.to_owned()), (SLICE_MANAGER.to_owned(), OURS.to_owned())]);
    let labels = LabelSelector::from_pairs(&pairs);
    cache.list(&resource::ENDPOINT_SLICE, &Query { namespace: Some(namespace.to_owned()), labels, ..Query::default() }).objects
}

fn labels(service: &Object) -> Value {
    service.meta().labels.iter().map(|(key, value)| (key.to_string(), Value::from(&**value))).collect::<serde_json::Map<_, _>>().into()
}

fn selector(service: &Service) -> Option<LabelSelector> {
    let labels = service.spec.as_ref()?.selector.as_ref().filter(|it| !it.is_empty())?;
    Some(LabelSelector::from_pairs(labels))
}

/// The container port that a service's port leads to.
fn declared_port<'a>(containers: &'a [Container], port: &ServicePort, protocol: &str) -> Option<&'a ContainerPort> {
    let mut all =
        containers.iter().flat_map(|it| it.ports.iter().flatten()).filter(|it| it.protocol.as_deref().unwrap_or("TCP") == protocol);
    match &port.target_port {
        Some(IntOrString::String(name)) => all.find(|it| it.name.as_ref() == Some(name)),
        Some(IntOrString::Int(number)) if *number != 0 => all.find(|it| it.container_port == *number),
        _ => all.find(|it| it.container_port == port.port),
    }
}

fn target(service: &Object, backend: &Backend) -> Value {
    json!({ "kind": "Pod", "namespace": service.namespace(), "name": backend.pod.0, "uid": backend.pod.1 })
}

fn endpoint(service: &Object, backend: &Backend) -> Value {
    let mut endpoint = json!({
        "addresses": [backend.address],
        "conditions": { "ready": backend.ready, "serving": backend.serving, "terminating": backend.terminating },
        "targetRef": target(service, backend),
    });
    if !backend.node.is_empty() {
        endpoint["nodeName"] = backend.node.clone().into();
    }
    endpoint
}

/// Name, number and protocol.
type NamedPort<'a> = (&'a str, i32, &'a str);

/// Endpoints' subsets: addresses that serve the same ports are one subset, each subset the product of its addresses and ports.
fn subsets<'a>(service: &Object, backends: impl Iterator<Item = &'a Backend>) -> Value {
    let mut ports_of: BTreeMap<(&str, &(String, String)), (bool, &str, Vec<NamedPort<'_>>)> = BTreeMap::new();
    for it in backends {
        let (_, _, ports) = ports_of.entry((&it.address, &it.pod)).or_insert_with(|| (it.ready, &it.node, Vec::new()));
        ports.push((&it.port_name, it.port, &it.protocol));
    }
    let mut by_ports: BTreeMap<Vec<NamedPort<'_>>, (Vec<Value>, Vec<Value>)> = BTreeMap::new();
    for ((address, pod), (ready, node, ports)) in ports_of {
        let mut entry =
            json!({ "ip": address, "targetRef": { "kind": "Pod", "namespace": service.namespace(), "name": pod.0, "uid": pod.1 } });
        if !node.is_empty() {
            entry["nodeName"] = node.into();
        }
        let (ready_ones, others) = by_ports.entry(ports).or_default();
        if ready { ready_ones.push(entry) } else { others.push(entry) }
    }
    let subsets = by_ports.into_iter().map(|(ports, (ready, not_ready))| {
        let ports: Vec<Value> = ports
            .into_iter()
            .map(|(name, port, protocol)| {
                if name.is_empty() {
                    json!({"port": port, "protocol": protocol})
                } else {
                    json!({"name": name, "port": port, "protocol": protocol})
                }
            })
            .collect();
        let mut subset = json!({ "ports": ports });
        if !ready.is_empty() {
            subset["addresses"] = ready.into();
        }
        if !not_ready.is_empty() {
            subset["notReadyAddresses"] = not_ready.into();
        }
        subset
    });
    subsets.collect::<Vec<_>>().into()
}

/// The services that select a pod.
fn services_of(cache: &Cache, pod: &Object) -> Vec<ObjectKey> {
    let query = Query::namespace(pod.namespace());
    let services = cache.list(&resource::SERVICE, &query).objects;
    let selecting = services.iter().filter(|it| it.typed::<Service>().ok().and_then(selector).is_some_and(|it| it.matches(pod)));
    selecting.map(|it| it.key()).collect()
}
