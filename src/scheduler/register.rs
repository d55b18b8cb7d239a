//! Writes the nodes of agents to the API server.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::nodes::HOSTNAME_LABEL;
use crate::client::{Client, ClientError, Patch, Result};
use crate::object::resource;
use crate::util::product::Product;

/// Creates an agent's node, or replaces its attribute labels. Tries several times.
pub(super) async fn write_node(client: &Client, product: &Product, host: &str, labels: &BTreeMap<String, String>) -> bool {
    for attempt in 0..5 {
        tokio::time::sleep(Duration::from_secs(attempt)).await;
        match try_write_node(client, product, host, labels).await {
            Ok(()) => return true,
            Err(error) => tracing::warn!("node {host}: {error}"),
        }
    }
    false
}

async fn try_write_node(client: &Client, product: &Product, host: &str, labels: &BTreeMap<String, String>) -> Result<()> {
    match client.get(&resource::NODE, "", host).await {
        Err(error) if error.is("NotFound") => create_node(client, host, labels).await,
        Err(error) => Err(error),
        Ok(node) => {
            let prefix = product.annotation("attribute-");
            let mut patch: Map<String, Value> = labels.iter().map(|(key, value)| (key.clone(), value.as_str().into())).collect();
            for (key, _) in node.meta().labels.iter().filter(|(key, _)| key.starts_with(&prefix)) {
                patch.entry(&**key).or_insert(Value::Null);
            }
            let patch = Patch::Merge(json!({"metadata": {"labels": patch}}));
            client.patch(&resource::NODE, "", host, "", &patch).await.map(drop)
        }
    }
}

async fn create_node(client: &Client, host: &str, labels: &BTreeMap<String, String>) -> Result<()> {
    let mut all: Map<String, Value> = labels.iter().map(|(key, value)| (key.clone(), value.as_str().into())).collect();
    all.insert(HOSTNAME_LABEL.to_owned(), host.into());
    let now = jiff::Timestamp::now().round(jiff::Unit::Second).unwrap_or_default().to_string();
    let ready = json!({"type": "Ready", "status": "True", "reason": "SlaveReady", "message": "mesos reports ready status",
        "lastHeartbeatTime": now, "lastTransitionTime": now});
    let status = json!({"phase": "Pending", "conditions": [ready]});
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": host, "labels": all}, "spec": {"externalID": host},
        "status": status});
    match client.create(&resource::NODE, "", &node).await {
        Ok(created) => {
            let has_status = serde_json::from_slice::<Value>(created.body()).is_ok_and(|it| it["status"]["conditions"].is_array());
            if !has_status {
                let patch = Patch::Merge(json!({"status": status}));
                client.patch(&resource::NODE, "", host, "status", &patch).await?;
            }
            Ok(())
        }
        // Another writer was faster; the next attempt sets the labels.
        Err(error) if error.is("AlreadyExists") => Err(ClientError::Unreachable(anyhow::anyhow!("it was just created by somebody else"))),
        Err(error) => Err(error),
    }
}
