//! The objects that a cluster begins with: namespaces, priority classes, the address range, and the service by which pods find the API
//! server. The range, the service and its endpoints are also kept up to date.

mod endpoints;
mod members;
mod range;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::Server;
use super::error::Answer;
use super::registry::create::create;
use super::registry::json;
use super::write_options::WriteOptions;
use crate::cache::{Query, Watch};
use crate::codec;
use crate::object::ResourceRef;
use crate::object::resource::{ENDPOINT_SLICE, ENDPOINTS, NAMESPACE, PRIORITY_CLASS, SERVICE, SERVICE_CIDR};
use crate::object::selector::FieldSelector;
use members::Membership;

const NAMESPACE_OF_SERVICE: &str = "default";
/// The field manager of these objects.
const MANAGER: &str = "kube-apiserver";
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
    range::make(server).await?;
    match make(server, &SERVICE, NAMESPACE_OF_SERVICE, service(server)).await {
        // Another API server may be making it at this moment: then its address is taken before it is there. `maintain` sees to it.
        Err(status) if status.is("Invalid") => Ok(()),
        outcome => outcome,
    }
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
            "sessionAffinity": "None",
            "ports": [{"name": "https", "protocol": "TCP", "port": 443, "targetPort": server.own_address().port()}],
        },
    })
}

/// Keeps the range, the service and its endpoints up to date: after changes by others, and as API servers come and go.
pub(crate) async fn maintain(server: Arc<Server>) -> anyhow::Result<()> {
    let shutdown = server.tasks.shutdown();
    let mut members = server.config.shared.then(|| Membership::of(&server));
    let mut comparison = range::Comparison::new(&server);
    let mut failures = 0_u32;
    loop {
        let watches = [&ENDPOINTS, &ENDPOINT_SLICE, &SERVICE, &SERVICE_CIDR].map(|it| watch(&server, it));
        comparison.report(&server);
        let retry = match reconcile(&server, members.as_mut()).await {
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
        let pause = retry.or_else(|| members.is_some().then_some(members::RENEW_EVERY));
        tokio::select! {
            () = shutdown.cancelled() => break,
            // Batch changes; and should two servers ever disagree, they alternate only slowly.
            () = changed(watches) => tokio::time::sleep(SETTLE).await,
            () = async { tokio::time::sleep(pause.unwrap_or_default()).await }, if pause.is_some() => {}
        }
    }
    if let Some(members) = members {
        members.leave(&server).await;
    }
    Ok(())
}

async fn reconcile(server: &Server, members: Option<&mut Membership>) -> Answer<()> {
    let servers = match members {
        Some(members) => members.renew(server).await?,
        None => BTreeSet::from([server.own_address()]),
    };
    range::make(server).await?;
    make(server, &SERVICE, NAMESPACE_OF_SERVICE, service(server)).await?;
    endpoints::reconcile(server, &servers).await
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
