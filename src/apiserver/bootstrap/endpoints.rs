//! The endpoints of the service by which pods find the API server, in both of their forms.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use serde_json::{Value, json};

use super::super::Server;
use super::super::error::Answer;
use super::super::registry::json;
use super::super::write_options::WriteOptions;
use super::{MANAGER, NAMESPACE_OF_SERVICE};
use crate::cache::Query;
use crate::codec;
use crate::object::resource::{ENDPOINT_SLICE, ENDPOINTS};
use crate::object::{ObjectKey, ResourceRef, Status};
use crate::store::Expect;

/// Makes the endpoints those of these API servers.
pub(super) async fn reconcile(server: &Server, servers: &BTreeSet<SocketAddr>) -> Answer<()> {
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
