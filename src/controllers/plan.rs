//! What a controller decides: a plan is a pure function of the cache, one key and the time; carrying it out is the driver's.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;

use crate::cache::{Cache, Query};
use crate::client::events::EventType;
use crate::client::{DeleteOptions, Patch};
use crate::object::{Object, ObjectKey, ResourceRef};

/// A kind of reconciliation: which changes wake it, and what it decides. It keeps no state of its own.
pub trait Controller: Send + Sync + 'static {
    /// As in events' source and in logs, such as `replication-controller`.
    fn name(&self) -> &'static str;

    /// What to watch. The first resource is usually that of the keys.
    fn sources(&self) -> Vec<Source>;

    /// Resources that plans read without being woken by them.
    fn reads(&self) -> Vec<ResourceRef> {
        Vec::new()
    }

    /// What is to be done so that the object of `key` becomes, or comes nearer to, what it should be. Reads the cache and nothing else.
    fn plan(&self, cache: &Cache, key: &ObjectKey, now: Timestamp) -> Plan;
}

/// Objects whose changes wake a controller.
#[derive(Debug)]
pub struct Source {
    pub resource: ResourceRef,
    pub query: Query,
    /// The keys to reconcile when this object was added, changed or deleted.
    pub keys: fn(&Cache, &Object) -> Vec<ObjectKey>,
    /// Whether the keys that an object led to before its change need work too (they are remembered then).
    pub remember: bool,
}

impl Source {
    /// Every object of a resource, for itself.
    pub fn own(resource: ResourceRef) -> Self {
        Self { resource, query: Query::default(), keys: |_, object| vec![object.key()], remember: false }
    }

    /// Every object of a resource, for the keys it leads to.
    pub fn leading_to(resource: ResourceRef, keys: fn(&Cache, &Object) -> Vec<ObjectKey>) -> Self {
        Self { resource, query: Query::default(), keys, remember: false }
    }

    /// Also wakes the keys that the object led to before.
    pub fn remembered(mut self) -> Self {
        self.remember = true;
        self
    }
}

/// What to do for one key.
#[derive(Debug, Default)]
pub struct Plan {
    /// Independent of each other: they are carried out concurrently.
    pub writes: Vec<Write>,
    /// When to look again even if nothing changes.
    pub again: Option<Duration>,
    /// Events to record about objects.
    pub notes: Vec<Note>,
}

/// One call of the API.
#[derive(Debug)]
pub enum Write {
    Create {
        resource: ResourceRef,
        namespace: String,
        object: Value,
        /// Told of by events `SuccessfulCreate` and `FailedCreate` about this owner.
        owner: Option<Arc<Object>>,
    },
    Patch {
        key: ObjectKey,
        /// Empty for the object itself.
        subresource: &'static str,
        patch: Patch,
    },
    /// Replaces a subresource by POST or PUT that has no patch, such as a namespace's `finalize`.
    Replace { key: ObjectKey, subresource: &'static str, object: Value },
    Delete {
        key: ObjectKey,
        options: DeleteOptions,
        /// Told of by an event `SuccessfulDelete` about this owner.
        owner: Option<Arc<Object>>,
    },
    /// Deletes every object of a resource in a namespace, without knowing them.
    DeleteAll { resource: ResourceRef, namespace: String },
    /// Deletes, unless the server still has one of these objects with this uid.
    DeleteUnlessFound { key: ObjectKey, options: DeleteOptions, owners: Vec<(ObjectKey, String)> },
}

/// An event to record.
#[derive(Debug)]
pub struct Note {
    pub about: Arc<Object>,
    pub kind: EventType,
    pub reason: &'static str,
    pub message: String,
}

impl Plan {
    /// Asks to look again after `pause`, or sooner if it was asked for already.
    pub fn look_again(&mut self, pause: Duration) {
        self.again = Some(self.again.map_or(pause, |it| it.min(pause)));
    }

    /// A merge patch of the object's status, unless it would change nothing of `current`.
    pub fn set_status(&mut self, key: ObjectKey, current: &Value, status: Value) {
        if !covers(current, &status) {
            let patch = Patch::Merge(serde_json::json!({ "status": status }));
            self.writes.push(Write::Patch { key, subresource: "status", patch });
        }
    }
}

/// Whether a merge patch of `wanted` would leave `current` as it is.
pub fn covers(current: &Value, wanted: &Value) -> bool {
    match (current, wanted) {
        (Value::Object(current), Value::Object(wanted)) => wanted.iter().all(|(name, value)| match current.get(name) {
            Some(there) => covers(there, value),
            None => value.is_null(),
        }),
        (current, wanted) => current == wanted,
    }
}

/// The key of the object's controller owner if that is of this resource.
pub fn controller_key(object: &Object, resource: ResourceRef) -> Option<ObjectKey> {
    let owner = object.meta().controller()?;
    let ours = *owner.kind == *resource.kind && *owner.api_version == *resource.api_version();
    ours.then(|| ObjectKey::new(resource, if resource.namespaced { object.namespace() } else { "" }, &owner.name))
}

/// An owner reference that makes `owner` the managing controller.
pub fn controller_reference(owner: &Object) -> Value {
    serde_json::json!({
        "apiVersion": owner.resource().api_version(),
        "kind": owner.resource().kind,
        "name": owner.name(),
        "uid": &*owner.meta().uid,
        "controller": true,
        "blockOwnerDeletion": true,
    })
}

/// The object's JSON as a tree, for copying what its user wrote.
pub fn tree(object: &Object) -> Value {
    serde_json::from_slice(object.body()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_that_is_there_is_not_written() {
        let current = serde_json::json!({"replicas": 1, "conditions": [{"type": "A"}], "other": 2});
        for (wanted, expected) in [
            (serde_json::json!({"replicas": 1}), true),
            (serde_json::json!({"replicas": 2}), false),
            (serde_json::json!({"ready": null}), true),
            (serde_json::json!({"other": null}), false),
            (serde_json::json!({"conditions": [{"type": "A"}]}), true),
            (serde_json::json!({"conditions": []}), false),
        ] {
            assert_eq!(covers(&current, &wanted), expected, "{wanted}");
        }
    }
}
