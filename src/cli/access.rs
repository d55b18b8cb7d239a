//! API access of a component that runs in a process of its own.

use std::path::Path;
use std::sync::Arc;

use super::flag::Values;
use crate::cache::{Cache, Query};
use crate::client::Client;
use crate::client::Http;
use crate::client::kubeconfig::Access;
use crate::client::{Feeder, Outage};
use crate::object::ResourceRef;
use crate::supervise::Supervisor;

/// How many changes of each resource a component's cache keeps for its watches.
const HISTORY: usize = 4096;

/// A client for the servers that `flag` names, or the file of `--kubeconfig`.
///
/// # Errors
/// If neither names a server, or an address is invalid.
pub(super) fn client(values: &Values, flag: &str, component: &'static str) -> anyhow::Result<Client> {
    let kubeconfig = values.maybe("kubeconfig");
    let servers = values.list(flag);
    if servers.is_empty() && kubeconfig.is_none() {
        anyhow::bail!("--{flag} is missing: the API server's address, as host:port or a URL (or give --kubeconfig)");
    }
    let access = Access::load(&servers, kubeconfig.as_deref().map(Path::new))?;
    Ok(Client::new(Arc::new(Http::new(&access)?)).named(component))
}

/// The client, limited to `--kube-api-qps` and `--kube-api-burst`; a rate of 0 is no limit.
///
/// # Errors
/// Names the flag whose value is invalid.
pub(super) fn limited(client: Client, values: &Values) -> anyhow::Result<Client> {
    let (qps, burst) = (values.number("kube-api-qps"), values.integer("kube-api-burst")?);
    if qps < 0.0 {
        anyhow::bail!("--kube-api-qps: {qps} is negative");
    }
    Ok(if qps == 0.0 { client } else { client.limited(qps, burst) })
}

/// A cache of these resources, fed by `client` until the supervisor stops. Each query selects the objects of its resource.
pub(super) fn cache(client: &Client, resources: impl IntoIterator<Item = (ResourceRef, Query)>, supervisor: &Supervisor) -> Arc<Cache> {
    let (cache, outage) = (Cache::new(HISTORY), Outage::default());
    for (resource, query) in resources {
        let feeder = Feeder { client: client.clone(), cache: cache.clone(), resource, query, outage: outage.clone() };
        supervisor.spawn(format!("watching {}", resource.plural), feeder.run(supervisor.shutdown()));
    }
    cache
}
