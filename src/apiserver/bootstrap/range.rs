//! The range of service addresses on the command line: it is made an object, and compared with the one that every API server uses.

use std::sync::Arc;

use serde_json::json;

use super::super::Server;
use super::super::error::Answer;
use super::super::local_transport::LocalTransport;
use super::super::registry::update::modify;
use super::super::registry::{Before, Part, json};
use super::super::write_options::WriteOptions;
use crate::client::Client;
use crate::client::events::{self, EventRecorder, EventType};
use crate::object::resource::SERVICE_CIDR;
use crate::object::{Object, ObjectKey, service_range};

/// The field manager of the range's status, and reporter of its events.
const MANAGER: &str = "kubernetes-service-cidr-controller";

/// The range of the command line, which is ready at once: there need be no controller.
pub(super) async fn make(server: &Server) -> Answer<()> {
    let name = server.config.product.api_service;
    let range = json!({
        "kind": "ServiceCIDR",
        "apiVersion": "networking.k8s.io/v1",
        "metadata": {"name": name},
        "spec": {"cidrs": [server.config.service_range.to_string()]},
    });
    super::make(server, &SERVICE_CIDR, "", range).await?;
    let key = ObjectKey::new(&SERVICE_CIDR, "", name);
    let lacks = |it: &Object| service_range::condition(it).is_none() && !it.meta().is_deleted() && is_own(server, it);
    if !server.cached(&key).is_some_and(|it| lacks(&it)) {
        return Ok(());
    }
    let options = WriteOptions { manager: MANAGER.to_owned(), ..WriteOptions::default() };
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

/// Compares the range in the store, which every API server uses, with the one on the command line.
#[derive(Debug)]
pub(super) struct Comparison {
    events: EventRecorder,
    is_reported: bool,
}

impl Comparison {
    pub(super) fn new(server: &Arc<Server>) -> Self {
        let client = Client::new(Arc::new(LocalTransport::new(server.clone()))).named(MANAGER);
        let (events, writer) = events::recorder(client, MANAGER, "");
        server.tasks.spawn("events of the range", writer.run(server.tasks.shutdown()));
        Self { events, is_reported: false }
    }

    /// Reports a difference, once.
    pub(super) fn report(&mut self, server: &Server) {
        let there = server.cache.get(&SERVICE_CIDR, "", server.config.product.api_service);
        let Some(there) = there.filter(|it| !self.is_reported && !it.meta().is_deleted() && !is_own(server, it)) else { return };
        self.is_reported = true;
        let ranges: Vec<String> = service_range::ranges(&there).iter().map(ToString::to_string).collect();
        let (ranges, own) = (ranges.join(" "), server.config.service_range);
        tracing::warn!("service addresses come from {ranges} of the ServiceCIDR {}, not from {own} of the command line", there.name());
        let message = format!("The default ServiceCIDR [{ranges}] does not match the flag configurations [{own}]");
        self.events.event(&there, EventType::Warning, "KubernetesDefaultServiceCIDRInconsistent", message);
    }
}
