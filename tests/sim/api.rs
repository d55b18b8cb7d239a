//! The API server from its clients' view: pods and nodes with uids, revisions, preconditions, graceful deletion, and watches.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::SignedDuration;
use k8s_openapi::api::core::v1::PodStatus;
use km::client::ClientError;
use km::executor::names::PodId;
use km::object::{Name, Object, Status, resource};
use serde_json::{Value, json};

use crate::world::timestamp;

pub const NAMESPACE: &str = "default";

/// An event of a watch.
#[derive(Clone, Debug)]
pub enum Change {
    Pod(Arc<Object>),
    /// With the last state.
    PodGone(Arc<Object>),
    Node(Arc<Object>),
    Claim(Arc<Object>),
    ClaimGone(Name),
    Volume(Arc<Object>),
    VolumeGone(String),
}

#[derive(Default)]
pub struct Api {
    pub(super) revision: u64,
    pub pods: BTreeMap<String, Value>,
    nodes: BTreeMap<String, Value>,
    pub claims: BTreeMap<String, Arc<Object>>,
    pub volumes: BTreeMap<String, Arc<Object>>,
    /// Not yet passed on to watchers.
    pub(super) changes: Vec<Change>,
}

pub fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

pub fn is_deleted(pod: &Value) -> bool {
    !text(pod, "/metadata/deletionTimestamp").is_empty()
}

pub fn has_ended(pod: &Value) -> bool {
    matches!(text(pod, "/status/phase"), "Succeeded" | "Failed")
}

pub fn unreachable() -> ClientError {
    ClientError::Unreachable(anyhow::anyhow!("the connection is cut"))
}

fn refused(status: Status) -> ClientError {
    ClientError::Api(Box::new(status))
}

type Result<T> = std::result::Result<T, ClientError>;

impl Api {
    pub fn take_changes(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.changes)
    }

    fn object(&self, pod: &Value) -> Arc<Object> {
        Object::from_stored(&resource::POD, pod.to_string().as_bytes(), self.revision).unwrap()
    }

    /// All pods, or those of a node.
    pub fn list_pods(&self, node: Option<&str>) -> Vec<Arc<Object>> {
        let wanted = |pod: &&Value| node.is_none_or(|node| text(pod, "/spec/nodeName") == node);
        self.pods.values().filter(wanted).map(|pod| self.object(pod)).collect()
    }

    pub fn list_nodes(&self) -> Vec<Arc<Object>> {
        self.nodes.values().map(|node| self.node(node)).collect()
    }

    fn node(&self, node: &Value) -> Arc<Object> {
        Object::from_stored(&resource::NODE, node.to_string().as_bytes(), self.revision).unwrap()
    }

    pub fn create(&mut self, pod: Value) {
        let name = text(&pod, "/metadata/name").to_owned();
        assert!(self.pods.insert(name.clone(), pod).is_none(), "the user takes a name twice");
        self.changed(&name);
    }

    fn changed(&mut self, name: &str) {
        self.revision += 1;
        let object = self.object(&self.pods[name]);
        self.changes.push(Change::Pod(object));
    }

    fn remove(&mut self, name: &str) {
        self.revision += 1;
        let pod = self.pods.remove(name).expect("it was just there");
        let object = self.object(&pod);
        self.changes.push(Change::PodGone(object));
    }

    fn pod(&mut self, name: &str, uid: &str) -> Result<&mut Value> {
        let pod = self.pods.get_mut(name).ok_or_else(|| refused(Status::not_found(&resource::POD, name)))?;
        if text(pod, "/metadata/uid") != uid {
            return Err(refused(Status::conflict(&resource::POD, name, "Precondition failed: UID in precondition")));
        }
        Ok(pod)
    }

    pub fn of_uid(&self, uid: &str) -> Option<&Value> {
        self.pods.values().find(|pod| text(pod, "/metadata/uid") == uid)
    }

    /// `kubectl delete pod`.
    pub fn user_deletes(&mut self, name: &str, now: Duration) {
        let pod = self.pods.get_mut(name).expect("the user sees it");
        if text(pod, "/spec/nodeName").is_empty() || has_ended(pod) {
            return self.remove(name);
        }
        if is_deleted(pod) {
            return;
        }
        let grace = pod.pointer("/spec/terminationGracePeriodSeconds").and_then(Value::as_i64).unwrap_or(30);
        let until = timestamp(now) + SignedDuration::from_secs(grace);
        pod["metadata"]["deletionTimestamp"] = format!("{until:.0}").into();
        pod["metadata"]["deletionGracePeriodSeconds"] = grace.into();
        self.changed(name);
    }

    /// Deletes a pod without grace.
    pub fn delete(&mut self, name: &str, uid: &str) -> Result<()> {
        self.pod(name, uid)?;
        self.remove(name);
        Ok(())
    }

    pub fn bind(&mut self, id: &PodId, annotations: &Value, node: &str) -> Result<()> {
        let pod = self.pod(&id.name, &id.uid)?;
        let refuse = |why: &str| Err(refused(Status::conflict(&resource::POD, &id.name, why)));
        if is_deleted(pod) {
            return refuse("is being deleted, cannot be assigned to a host");
        }
        if !text(pod, "/spec/nodeName").is_empty() {
            return refuse("is already assigned to a node");
        }
        let unplaced = pod.clone();
        pod["spec"]["nodeName"] = node.into();
        pod["metadata"]["annotations"] = annotations.clone();
        self.check_place(&unplaced, node);
        self.changed(&id.name);
        Ok(())
    }

    /// Writes the reason why a pod cannot be scheduled, unless the pod has changed.
    pub fn mark_unschedulable(&mut self, pod: &Object, message: &str) {
        let Ok(there) = self.pod(pod.name(), &pod.meta().uid) else { return };
        if text(there, "/spec/nodeName").is_empty() {
            there["status"]["conditions"] =
                json!([{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}]);
            self.changed(pod.name());
        }
    }

    pub fn write_status(&mut self, id: &PodId, status: &PodStatus) -> Result<()> {
        let pod = self.pod(&id.name, &id.uid)?;
        pod["status"] = serde_json::to_value(status).unwrap();
        self.changed(&id.name);
        Ok(())
    }

    /// Creates a node, or merges into its labels and annotations.
    pub fn write_node(&mut self, host: &str, labels: &Value, annotations: &Value) {
        self.revision += 1;
        let node = self.nodes.entry(host.to_owned()).or_insert_with(
            || json!({"metadata": {"name": host, "labels": {"kubernetes.io/hostname": host}, "annotations": {}}, "spec": {}}),
        );
        for (key, value) in labels.as_object().into_iter().flatten() {
            node["metadata"]["labels"][key] = value.clone();
        }
        for (key, value) in annotations.as_object().into_iter().flatten() {
            node["metadata"]["annotations"][key] = value.clone();
        }
        let node = node.clone();
        let object = self.node(&node);
        self.changes.push(Change::Node(object));
    }
}
