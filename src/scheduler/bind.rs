//! Writes to the API server for claims being bound, and for waiting pods.

use serde_json::{Value, json};

use super::storage::Write;
use crate::client::{Client, Patch, Result};
use crate::object::storage::{SELECTED_NODE, reservation};
use crate::object::{Object, Revision, resource};

/// Makes the first write of a claim's binding. Returns its revision; `None` if it failed or its outcome is unknown.
pub(super) async fn bind(client: &Client, write: &Write) -> Option<Revision> {
    let claim = write.claim();
    let select = async |metadata: Value| {
        let patch = Patch::Merge(json!({ "metadata": metadata }));
        client.patch(&resource::PERSISTENT_VOLUME_CLAIM, claim.namespace(), claim.name(), "", &patch).await
    };
    let written = match write {
        Write::Reserve { volume, claim, .. } => {
            let patch = Patch::Merge(reservation(volume, claim));
            client.patch(&resource::PERSISTENT_VOLUME, "", volume.name(), "", &patch).await
        }
        Write::Select { claim, host, .. } => {
            let seen = claim.revision().to_string();
            select(json!({ "resourceVersion": seen, "annotations": { SELECTED_NODE: &**host } })).await
        }
        Write::Unselect { claim, .. } => select(json!({ "uid": &*claim.meta().uid, "annotations": { SELECTED_NODE: null } })).await,
    };
    match written {
        Ok(object) => Some(object.revision()),
        Err(error) => {
            tracing::info!("claim {} cannot be bound: {error}", claim.meta().name);
            None
        }
    }
}

/// Writes the reason why a pod cannot be scheduled into its conditions. A pod that has changed meanwhile is left alone: its next state will
/// be judged anew.
pub(super) async fn mark_unschedulable(client: &Client, pod: &Object, message: &str) {
    if let Err(error) = try_mark(client, pod, message).await
        && !error.is("Conflict")
        && !error.is("NotFound")
    {
        tracing::warn!("pod {}: its conditions cannot be written: {error}", pod.meta().name);
    }
}

async fn try_mark(client: &Client, pod: &Object, message: &str) -> Result<()> {
    let body: Value = serde_json::from_slice(pod.body()).unwrap_or_default();
    let Some(conditions) = with_condition(&body["status"]["conditions"], message) else { return Ok(()) };
    let metadata = json!({ "uid": &*pod.meta().uid, "resourceVersion": pod.revision().to_string() });
    let patch = Patch::Merge(json!({ "metadata": metadata, "status": { "conditions": conditions } }));
    client.patch(&resource::POD, pod.namespace(), pod.name(), "status", &patch).await.map(drop)
}

/// The conditions with the reason why a pod cannot be scheduled; `None` if they already have it.
fn with_condition(conditions: &Value, message: &str) -> Option<Value> {
    let mut conditions = conditions.as_array().cloned().unwrap_or_default();
    let there = conditions.iter().position(|it| it["type"] == "PodScheduled");
    let was = there.map(|at| conditions.remove(at)).unwrap_or_default();
    let since = if was["status"] == "False" { was["lastTransitionTime"].clone() } else { Value::Null };
    let now = jiff::Timestamp::now().round(jiff::Unit::Second).unwrap_or_default().to_string();
    let condition = json!({"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message,
        "lastProbeTime": null, "lastTransitionTime": if since.is_null() { now.into() } else { since }});
    if was == condition {
        return None;
    }
    conditions.insert(there.unwrap_or(conditions.len()), condition);
    Some(conditions.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_is_added_or_replaced() {
        let first = with_condition(&Value::Null, "why").unwrap();
        assert_eq!((&first[0]["reason"], &first[0]["message"]), (&json!("Unschedulable"), &json!("why")));
        assert_eq!(with_condition(&first, "why"), None);
        let mut earlier = json!([{"type": "Ready"}, first[0]]);
        earlier[1]["lastTransitionTime"] = "2020-01-01T00:00:00Z".into();
        let next = with_condition(&earlier, "another").unwrap();
        assert_eq!((&next[1]["message"], &next[1]["lastTransitionTime"]), (&json!("another"), &json!("2020-01-01T00:00:00Z")));
        assert_eq!(next.as_array().unwrap().len(), 2);
    }
}
