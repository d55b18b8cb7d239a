//! Endpoints and EndpointSlices of services: the addresses of the selected pods, by host ports (the default, as the cluster needs no
//! routable pod network) or by the pods' own addresses; and slices that mirror Endpoints of users.

mod legacy;
mod mirror;
mod packing;
mod slices;
#[cfg(test)]
mod tests;
mod triggers;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::{Map, Value};

use super::conditions;
use super::plan::{Controller, Plan, Source, Write};
use super::pods::{self, Declared, Serving};
use crate::cache::{Cache, Query};
use crate::client::DeleteOptions;
use crate::client::events::EventType;
use crate::object::selector::LabelSelector;
use crate::object::{Object, ObjectKey, ResourceRef, resource};
use crate::util::product::Product;
pub use mirror::MirroringController;
use triggers::Triggers;

const SLICE_SERVICE: &str = "kubernetes.io/service-name";
const SLICE_MANAGER: &str = "endpointslice.kubernetes.io/managed-by";
/// On Endpoints, with the name of the controller.
const ENDPOINTS_MANAGER: &str = "endpoints.kubernetes.io/managed-by";
const HEADLESS: &str = "service.kubernetes.io/headless";
const OURS: &str = "endpointslice-controller.k8s.io";
/// Interval of checks whether a pod's missing node has returned.
const LOST: Duration = Duration::from_secs(10);
const ZONE: &str = "topology.kubernetes.io/zone";

/// Keeps both kinds for every service with a selector.
#[derive(Debug)]
pub struct EndpointsController {
    pub product: &'static Product,
    /// `--host-port-endpoints`.
    pub host_ports: bool,
    /// `--max-endpoints-per-slice`.
    pub slice_size: usize,
    triggers: Triggers,
}

/// Where a pod serves a service.
#[derive(Clone, Debug)]
struct Backend {
    pod: Arc<Object>,
    /// Addresses of the service's families.
    addresses: Vec<String>,
    /// Empty for a headless service without ports, or if the pod has none of the ports that the service names.
    ports: Vec<Port>,
    node: String,
    zone: Option<String>,
    /// If the pod is one that DNS names within the service.
    hostname: Option<String>,
    /// Takes new connections.
    ready: bool,
    /// Would, if it were not being deleted.
    serving: bool,
    terminating: bool,
}

/// A port of a service, as one pod serves it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Port {
    name: String,
    protocol: String,
    number: i32,
    app_protocol: Option<String>,
    /// The port in the container; another than `number` if it is mapped.
    container_port: i32,
}

impl Controller for EndpointsController {
    fn name(&self) -> &'static str {
        "endpoint-controller"
    }

    fn sources(&self) -> Vec<Source> {
        vec![
            Source::own(&resource::SERVICE),
            Source::leading_to(&resource::POD, |cache, pod| cache.selecting(&resource::SERVICE, pod).iter().map(|it| it.key()).collect())
                .remembered(),
            // Foreign changes and deletions are repaired. Endpoints that are created before their service are left alone.
            Source::leading_to(&resource::ENDPOINTS, |cache, it| {
                let served = || cache.get(&resource::SERVICE, it.namespace(), it.name()).is_some();
                let key = ObjectKey::new(&resource::SERVICE, it.namespace(), it.name());
                (it.meta().label(ENDPOINTS_MANAGER).is_some() || served()).then_some(key).into_iter().collect()
            }),
            Source::leading_to(&resource::ENDPOINT_SLICE, |_, it| {
                let service = it.meta().label(SLICE_SERVICE).filter(|_| it.meta().label(SLICE_MANAGER) == Some(OURS));
                service.map(|name| ObjectKey::new(&resource::SERVICE, it.namespace(), name)).into_iter().collect()
            }),
        ]
    }

    /// The zones of nodes.
    fn reads(&self) -> Vec<ResourceRef> {
        vec![&resource::NODE]
    }

    fn plan(&self, cache: &Cache, key: &ObjectKey, _now: Timestamp) -> Plan {
        let mut plan = Plan::default();
        let (namespace, name) = (&*key.name.namespace, &*key.name.name);
        let service = cache.get(&resource::SERVICE, namespace, name);
        let Some(service) = service.filter(|it| !it.meta().is_deleted()) else {
            plan.writes.extend(cache.get(&resource::ENDPOINTS, namespace, name).map(|it| delete(&it)));
            plan.writes.extend(slices::of(cache, namespace, name, OURS).iter().map(|it| delete(it)));
            self.triggers.forget(key);
            return plan;
        };
        let (Ok(typed), Some(labels)) = (service.typed::<Service>(), LabelSelector::in_spec(&service)) else { return plan };
        let spec = typed.spec.clone().unwrap_or_default();
        if spec.type_.as_deref() == Some("ExternalName") {
            return plan;
        }
        let query = Query { namespace: Some(namespace.to_owned()), labels, ..Query::default() };
        let pods = cache.list(&resource::POD, &query).objects;
        let trigger = self.triggers.since_last(&service, &pods).map(conditions::time);
        let backends: Vec<Backend> =
            pods.into_iter().filter(|it| !pods::has_ended(it)).filter_map(|pod| self.backend(cache, &service, &spec, pod)).collect();
        legacy::plan(cache, self.mapping_prefix().as_deref(), &service, &spec, &backends, trigger.as_deref(), &mut plan);
        let backends = leave_out_lost(cache, &service, &spec, backends, &mut plan);
        slices::plan(cache, self.slice_size, &service, &spec, &backends, trigger.as_deref(), &mut plan);
        plan
    }
}

impl EndpointsController {
    pub fn new(product: &'static Product, host_ports: bool, slice_size: usize) -> Self {
        Self { product, host_ports, slice_size, triggers: Triggers::default() }
    }

    /// The prefix of annotations that name the container port behind a host port.
    fn mapping_prefix(&self) -> Option<String> {
        self.host_ports.then(|| self.product.annotation("containerPort_"))
    }

    /// The backend of `pod`; `None` if it has no address yet, or needs a host port and has none.
    fn backend(&self, cache: &Cache, service: &Object, spec: &ServiceSpec, pod: Arc<Object>) -> Option<Backend> {
        let serving = &pods::facts(&pod).serving;
        let service_ports = spec.ports.as_deref().unwrap_or_default();
        let mapped = self.host_ports && !serving.host_network && !service_ports.is_empty();
        let ports: Vec<Port> = service_ports.iter().filter_map(|it| self.port(serving, it, mapped)).collect();
        let addresses = addresses(spec, serving, mapped);
        if addresses.is_empty() || ports.is_empty() && (mapped || service_ports.is_empty() && !is_headless(spec)) {
            return None;
        }
        let node = pods::node(&pod).unwrap_or_default().to_owned();
        let zone = cache.get(&resource::NODE, "", &node).and_then(|it| it.meta().label(ZONE).map(str::to_owned));
        let hostname = serving.hostname.as_deref().filter(|it| !it.is_empty() && serving.subdomain.as_deref() == Some(service.name()));
        let hostname = hostname.map(str::to_owned);
        let (serving, terminating) = (pods::is_ready(&pod), pod.meta().is_deleted());
        let ready = spec.publish_not_ready_addresses == Some(true) || serving && !terminating;
        Some(Backend { pod: pod.clone(), addresses, ports, node, zone, hostname, ready, serving, terminating })
    }

    /// How `pod` serves a port of a service; not at all if it declares no port of that name (or, where ports are mapped, number).
    fn port(&self, pod: &Serving, port: &ServicePort, mapped: bool) -> Option<Port> {
        let protocol = port.protocol.as_deref().unwrap_or("TCP");
        let declared = declared_port(&pod.ports, port, protocol);
        let (number, container_port) = if mapped {
            let declared = declared?;
            let annotation = match &port.target_port {
                Some(IntOrString::String(name)) => self.product.annotation(&format!("portName_{protocol}_{name}")),
                _ => self.product.annotation(&format!("port_{protocol}_{}", declared.container_port)),
            };
            (pod.given(&annotation).or(declared.host_port.filter(|it| *it != 0))?, declared.container_port)
        } else {
            let number = match (&port.target_port, declared) {
                (_, Some(declared)) => declared.container_port,
                (Some(IntOrString::Int(number)), None) if *number != 0 => *number,
                (Some(IntOrString::String(_)), None) => return None,
                (Some(IntOrString::Int(_)) | None, None) => port.port,
            };
            (number, number)
        };
        let name = port.name.clone().unwrap_or_default();
        Some(Port { name, protocol: protocol.to_owned(), number, app_protocol: port.app_protocol.clone(), container_port })
    }
}

/// Removes pods without a node from slices: they will be deleted. A service that publishes all addresses keeps them.
fn leave_out_lost(cache: &Cache, service: &Arc<Object>, spec: &ServiceSpec, mut all: Vec<Backend>, plan: &mut Plan) -> Vec<Backend> {
    if spec.publish_not_ready_addresses == Some(true) {
        return all;
    }
    let is_there = |it: &Backend| it.node.is_empty() || cache.get(&resource::NODE, "", &it.node).is_some();
    let of = service.meta().name.to_string();
    let lost: Vec<_> = all.extract_if(.., |it| !is_there(it)).collect();
    if !lost.is_empty() {
        let skipped = lost.iter().map(|it| format!("skipping Pod {} for Service {of}: Node {} Not Found", it.pod.name(), it.node));
        let skipped = skipped.collect::<Vec<_>>().join(", ");
        let message = format!("Error updating Endpoint Slices for Service {of}: {skipped}");
        plan.note(service, EventType::Warning, "FailedToUpdateEndpointSlices", message);
        plan.look_again(LOST);
    }
    all
}

/// The addresses of a pod, or (`mapped`) of its host, that are of the service's families.
fn addresses(spec: &ServiceSpec, pod: &Serving, mapped: bool) -> Vec<String> {
    let all = if mapped { &pod.host_addresses } else { &pod.addresses };
    let families: Vec<&str> = spec.ip_families.iter().flatten().map(String::as_str).collect();
    let wanted = |it: &&str| !it.is_empty() && (families.is_empty() || families.contains(&family(it)));
    all.iter().map(|it| &**it).filter(wanted).map(str::to_owned).collect()
}

/// The family of an address, as `ipFamilies` and `addressType` name it.
fn family(address: &str) -> &'static str {
    if address.contains(':') { "IPv6" } else { "IPv4" }
}

fn is_headless(spec: &ServiceSpec) -> bool {
    spec.cluster_ip.as_deref().is_none_or(|it| it.is_empty() || it == "None")
}

/// The container port that a service's port leads to.
fn declared_port<'a>(declared: &'a [Declared], port: &ServicePort, protocol: &str) -> Option<&'a Declared> {
    let mut all = declared.iter().filter(|it| it.protocol() == protocol);
    match &port.target_port {
        Some(IntOrString::String(name)) => all.find(|it| it.name() == name),
        Some(IntOrString::Int(number)) if *number != 0 => all.find(|it| it.container_port == *number),
        _ => all.find(|it| it.container_port == port.port),
    }
}

/// The labels of a service, as its endpoints carry them.
fn labels(service: &Object, headless: bool) -> BTreeMap<String, String> {
    let kept = |key: &str| !matches!(key, SLICE_SERVICE | SLICE_MANAGER | ENDPOINTS_MANAGER | HEADLESS);
    let mut labels: BTreeMap<_, _> =
        service.meta().labels.iter().filter(|it| kept(&it.0)).map(|(key, value)| (key.to_string(), value.to_string())).collect();
    if headless {
        labels.insert(HEADLESS.to_owned(), String::new());
    }
    labels
}

/// A merge patch that makes the labels of an object these.
fn labels_patch(current: &Object, wanted: &BTreeMap<String, String>) -> Map<String, Value> {
    let stale = current.meta().labels.iter().filter(|(key, _)| !wanted.contains_key(&**key)).map(|(key, _)| (key.to_string(), Value::Null));
    stale.chain(wanted.iter().map(|(key, value)| (key.clone(), value.as_str().into()))).collect()
}

fn create(resource: ResourceRef, namespace: &str, object: Value) -> Write {
    Write::Create { resource, namespace: namespace.to_owned(), object, tell: None }
}

fn delete(object: &Object) -> Write {
    let options = DeleteOptions { uid: Some(object.meta().uid.to_string()), ..DeleteOptions::default() };
    Write::Delete { key: object.key(), options, tell: None }
}
