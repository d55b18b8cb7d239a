//! The initial objects of a cluster: namespaces, priority classes, the address range, and the service by which pods find the API server,
//! with its endpoints.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};

use super::Server;
use super::error::{Answer, store_status};
use super::local_transport::LocalTransport;
use super::registry::create::create;
use super::registry::json;
use super::registry::update::modify;
use super::registry::{Before, Part};
use super::write_options::WriteOptions;
use crate::cache::{Query, Watch};
use crate::client::Client;
use crate::client::events::{self, EventRecorder, EventType};
use crate::codec;
use crate::object::resource::{ENDPOINT_SLICE, ENDPOINTS, NAMESPACE, PRIORITY_CLASS, SERVICE, SERVICE_CIDR};
use crate::object::selector::FieldSelector;
use crate::object::{Object, ObjectKey, ResourceRef, Revision, Status, service_range};
use crate::store::{Expect, Outcome};

const NAMESPACE_OF_SERVICE: &str = "default";
/// The field manager of these objects.
const MANAGER: &str = "kube-apiserver";
/// The field manager of the range's status, and reporter of its events.
const RANGE_MANAGER: &str = "kubernetes-service-cidr-controller";
/// API servers that share a store each renew a lease in it; one without a lease is removed from the endpoints.
const LEASE: Duration = Duration::from_secs(15);
const RENEW_EVERY: Duration = Duration::from_secs(10);
const RETRY_AFTER: Duration = Duration::from_secs(1);
const SETTLE: Duration = Duration::from_millis(50);

/// Creates the missing objects.
pub(crate) async fn run(server: &Server) -> Answer<()> {
    for name in ["default", server.config.product.system_namespace, "kube-public", "kube-node-lease"] {
        let namespace = json!({"kind": "Namespace", "apiVersion": "v1", "metadata": {"name": name}});
        make(server, &NAMESPACE, "", namespace).await?;
    }
    for (name, value) in codec::SYSTEM_PRIORITIES {
        let whole = if name.contains("node") { "a node" } else { "the cluster" };
        let description = format!("For pods that {whole} cannot do without.");
        let class = json!({"kind": "PriorityClass", "apiVersion": "scheduling.k8s.io/v1", "metadata": {"name": name}, "value": value, "description": description});
        make(server, &PRIORITY_CLASS, "", class).await?;
    }
    make_range(server).await?;
    match make(server, &SERVICE, NAMESPACE_OF_SERVICE, service(server)).await {
        // Another API server may be making it at this moment: then its address is taken before it is there. `maintain` sees to it.
        Err(status) if status.is("Invalid") => Ok(()),
        outcome => outcome,
    }
}

/// The range of the command line, which is ready at once: there need be no controller.
async fn make_range(server: &Server) -> Answer<()> {
    let name = server.config.product.api_service;
    let range = json!({
        "kind": "ServiceCIDR",
        "apiVersion": "networking.k8s.io/v1",
        "metadata": {"name": name},
        "spec": {"cidrs": [server.config.service_range.to_string()]},
    });
    make(server, &SERVICE_CIDR, "", range).await?;
    let key = ObjectKey::new(&SERVICE_CIDR, "", name);
    let lacks = |it: &Object| service_range::condition(it).is_none() && !it.meta().is_deleted() && is_own(server, it);
    if !server.cached(&key).is_some_and(|it| lacks(&it)) {
        return Ok(());
    }
    let options = WriteOptions { manager: RANGE_MANAGER.to_owned(), ..WriteOptions::default() };
    let change = |before: &Before<'_>| {
        let mut value = before.whole();
        if lacks(before.object) {
            let message = "Kubernetes default Service CIDR is ready";
            let ready = json!({
                "type": service_range::READY, "status": "True", "reason": "", "message": message, "lastTransitionTime": json::now(),
            });
            json::map(&mut value, "status").insert("conditions".to_owned(), vec![ready].into());
        }
        Ok(value)
    };
    match modify(server, &key, Part::STATUS, &options, &change).await {
        Err(status) if !status.is("NotFound") => Err(status),
        _ => Ok(()),
    }
}

/// Whether a range is the one on the command line.
fn is_own(server: &Server, range: &Object) -> bool {
    service_range::ranges(range) == [server.config.service_range]
}

/// Reports once if the range in the store, which every API server uses, differs from the one on the command line.
fn compare_range(server: &Server, events: &EventRecorder, said: &mut bool) {
    let there = server.cache.get(&SERVICE_CIDR, "", server.config.product.api_service);
    let Some(there) = there.filter(|it| !*said && !it.meta().is_deleted() && !is_own(server, it)) else { return };
    *said = true;
    let ranges: Vec<String> = service_range::ranges(&there).iter().map(ToString::to_string).collect();
    let (ranges, own) = (ranges.join(" "), server.config.service_range);
    tracing::warn!("service addresses come from {ranges} of the ServiceCIDR {}, not from {own} of the command line", there.name());
    let message = format!("The default ServiceCIDR [{ranges}] does not match the flag configurations [{own}]");
    events.event(&there, EventType::Warning, "KubernetesDefaultServiceCIDRInconsistent", message);
}

async fn make(server: &Server, resource: ResourceRef, namespace: &str, value: Value) -> Answer<()> {
    if server.cache.get(resource, namespace, json::text(&value, "/metadata/name")).is_some() {
        return Ok(());
    }
    let options = WriteOptions { manager: MANAGER.to_owned(), ..WriteOptions::default() };
    match create(server, resource, namespace, value, &options).await {
        Err(status) if !status.is("AlreadyExists") => Err(status),
        _ => Ok(()),
    }
}

fn service(server: &Server) -> Value {
    let product = server.config.product;
    let address = server.config.service_range.nth(1).map(|it| it.to_string()).unwrap_or_default();
    json!({
        "kind": "Service",
        "apiVersion": "v1",
        "metadata": {"name": product.api_service, "labels": {"component": "apiserver", "provider": product.api_service}},
        "spec": {
            "type": "ClusterIP",
            "clusterIP": address,
            "sessionAffinity": "ClientIP",
            "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 10800}},
            "ports": [{"name": "https", "protocol": "TCP", "port": 443, "targetPort": server.own_address().port()}],
        },
    })
}

/// Keeps the range, the service and its endpoints up to date: after changes by others, and as API servers come and go.
pub(crate) async fn maintain(server: Arc<Server>) -> anyhow::Result<()> {
    let shutdown = server.tasks.shutdown();
    let (events, writer) =
        events::recorder(Client::new(Arc::new(LocalTransport::new(server.clone()))).named(RANGE_MANAGER), RANGE_MANAGER, "");
    server.tasks.spawn("events of the range", writer.run(shutdown.clone()));
    let (mut sign, mut said) = (None, false);
    let mut failures = 0_u32;
    loop {
        let watches = [&ENDPOINTS, &ENDPOINT_SLICE, &SERVICE, &SERVICE_CIDR].map(|it| watch(&server, it));
        compare_range(&server, &events, &mut said);
        let retry = match reconcile(&server, &mut sign).await {
            Ok(()) => {
                failures = 0;
                None
            }
            // A service that was just deleted still has its address for a moment.
            Err(_) if failures == 0 => {
                failures = 1;
                Some(RETRY_AFTER / 10)
            }
            Err(status) => {
                tracing::warn!("the service of the API server: {status}");
                Some(RETRY_AFTER)
            }
        };
        let pause = retry.or_else(|| server.config.shared.then_some(RENEW_EVERY));
        tokio::select! {
            () = shutdown.cancelled() => break,
            // Batch changes; and should two servers ever disagree, they alternate only slowly.
            () = changed(watches) => tokio::time::sleep(SETTLE).await,
            () = async { tokio::time::sleep(pause.unwrap_or_default()).await }, if pause.is_some() => {}
        }
    }
    if let Some(revision) = sign {
        // Remove the endpoint at once; otherwise its lease expires.
        let _ = server.store.delete(&lease_key(&server), revision).await;
    }
    Ok(())
}

/// A watch of the objects that carry the service's name, from now on.
fn watch(server: &Server, resource: ResourceRef) -> Option<Watch> {
    let fields = FieldSelector::equal("metadata.name", server.config.product.api_service);
    let namespace = resource.namespaced.then(|| NAMESPACE_OF_SERVICE.to_owned());
    let query = Query { namespace, fields, ..Query::default() };
    server.cache.watch(resource, query, server.cache.revision(resource)).ok()
}

async fn changed(mut watches: [Option<Watch>; 4]) {
    let waits: Vec<_> = watches.iter_mut().flatten().map(|it| Box::pin(it.next())).collect();
    if waits.is_empty() {
        tokio::time::sleep(RETRY_AFTER).await;
        return;
    }
    let _ = futures_util::future::select_all(waits).await;
}

async fn reconcile(server: &Server, sign: &mut Option<Revision>) -> Answer<()> {
    let servers = if server.config.shared { live_servers(server, sign).await? } else { BTreeSet::from([server.own_address()]) };
    make_range(server).await?;
    make(server, &SERVICE, NAMESPACE_OF_SERVICE, service(server)).await?;
    let mut by_port: BTreeMap<u16, Vec<IpAddr>> = BTreeMap::new();
    servers.iter().for_each(|it| by_port.entry(it.port()).or_default().push(it.ip()));
    let name = server.config.product.api_service;
    let ports = |port: u16| json!([{"name": "https", "port": port, "protocol": "TCP"}]);
    let subset = |(port, addresses): (&u16, &Vec<IpAddr>)| {
        let addresses: Vec<Value> = addresses.iter().map(|it| json!({"ip": it.to_string()})).collect();
        json!({"addresses": addresses, "ports": ports(*port)})
    };
    let endpoints = json!({
        "kind": "Endpoints",
        "apiVersion": "v1",
        "metadata": {"name": name, "namespace": NAMESPACE_OF_SERVICE, "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"}},
        "subsets": by_port.iter().map(subset).collect::<Vec<_>>(),
    });
    ensure(server, &ENDPOINTS, endpoints, &["subsets"]).await?;
    let mut slices = BTreeSet::new();
    for (port, addresses) in &by_port {
        // The endpoints of a slice have their ports in common.
        let slice_name = if slices.is_empty() { name.to_owned() } else { format!("{name}-{port}") };
        let ready = |it: &IpAddr| json!({"addresses": [it.to_string()], "conditions": {"ready": true}});
        let slice = json!({
            "kind": "EndpointSlice",
            "apiVersion": "discovery.k8s.io/v1",
            "metadata": {
                "name": slice_name, "namespace": NAMESPACE_OF_SERVICE, "labels": {"kubernetes.io/service-name": name}, "generation": 1,
            },
            "addressType": if server.config.advertise.is_ipv4() { "IPv4" } else { "IPv6" },
            "endpoints": addresses.iter().map(ready).collect::<Vec<_>>(),
            "ports": ports(*port),
        });
        ensure(server, &ENDPOINT_SLICE, slice, &["addressType", "endpoints", "ports"]).await?;
        slices.insert(slice_name);
    }
    let is_ours = |it: &str| it.strip_prefix(name).is_some_and(|it| it.strip_prefix('-').is_some_and(|port| port.parse::<u16>().is_ok()));
    let there = server.cache.list(&ENDPOINT_SLICE, &Query::namespace(NAMESPACE_OF_SERVICE)).objects;
    for gone in there.iter().filter(|it| is_ours(it.name()) && !slices.contains(it.name())) {
        // On a conflict, the watch reports the change.
        let _ = server.remove(&gone.key(), gone.revision()).await?;
    }
    Ok(())
}

/// Writes an object if one of `fields` differs. Bypasses the API's checks: the address of a server for one machine may be a loopback
/// address, which users may not set in endpoints.
async fn ensure(server: &Server, resource: ResourceRef, mut wanted: Value, fields: &[&str]) -> Answer<()> {
    let key = ObjectKey::new(resource, NAMESPACE_OF_SERVICE, json::text(&wanted, "/metadata/name"));
    let mut expect = Expect::Absent;
    let mut current = server.cached(&key);
    loop {
        let (mut old, mut held) = (None, None);
        if let Some(object) = current {
            let (there, managers) = codec::apply::stored(object.body()).map_err(|error| Box::new(Status::internal(error)))?;
            if fields.iter().all(|it| there.get(it) == wanted.get(it)) {
                return Ok(());
            }
            let mut new = there.clone();
            for field in fields {
                new[*field] = wanted[*field].clone();
            }
            (wanted, expect) = (new, Expect::At(object.revision()));
            (old, held) = (Some(there), managers);
        } else {
            let metadata = json::metadata(&mut wanted);
            metadata.insert("uid".to_owned(), uuid::Uuid::new_v4().to_string().into());
            metadata.insert("creationTimestamp".to_owned(), json::now().into());
        }
        let (now, options) = (json::now(), WriteOptions { manager: MANAGER.to_owned(), ..WriteOptions::default() });
        let managers = codec::apply::track((None, held), old.as_ref(), &wanted, &options.writer(resource, "", &now));
        match server.put(&key, &wanted, managers.as_ref(), expect).await? {
            Ok(_) => return Ok(()),
            Err(Some(entry)) => current = Some(server.adopt(&key, Some(entry))?.object),
            Err(None) => (current, expect) = (None, Expect::Absent),
        }
    }
}

fn lease_key(server: &Server) -> String {
    format!("{}/masterleases/{}", server.config.prefix, server.own_address())
}

/// Renews this server's lease, and reads those of all servers.
async fn live_servers(server: &Server, sign: &mut Option<Revision>) -> Answer<BTreeSet<SocketAddr>> {
    let key = lease_key(server);
    loop {
        let expect = sign.map_or(Expect::Absent, Expect::At);
        match server.store.put(&key, Bytes::from_static(b"{}"), expect, Some(LEASE)).await.map_err(store_status)? {
            Outcome::Done(revision) => {
                *sign = Some(revision);
                break;
            }
            Outcome::Conflict(entry) => *sign = entry.map(|it| it.revision),
        }
    }
    let prefix = format!("{}/masterleases/", server.config.prefix);
    let page = server.store.range(&prefix, &prefix, 1000, 0).await.map_err(store_status)?;
    Ok(page.entries.iter().filter_map(|it| it.key.strip_prefix(&prefix)?.parse().ok()).collect())
}
