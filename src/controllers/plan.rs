//! A controller's decision: a plan is a pure function of the cache, one key and the time; the driver carries it out.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;

use crate::cache::{Cache, Query};
use crate::client::events::EventType;
use crate::client::{DeleteOptions, Patch};
use crate::object::{Object, ObjectKey, ResourceRef};
use crate::util::portion::{Round, portion};

/// A kind of reconciliation: the changes that wake it, and its decisions. A controller's own state only saves work or paces it (when it
/// last acted, or first saw an object); it may be lost at any time.
pub trait Controller: Send + Sync + 'static {
    /// The name in events and logs, such as `replication-controller`.
    fn name(&self) -> &'static str;

    /// The watched resources. The first is usually that of the keys.
    fn sources(&self) -> Vec<Source>;

    /// Resources that plans read without being woken by them.
    fn reads(&self) -> Vec<ResourceRef> {
        Vec::new()
    }

    /// The next steps for the object of `key`. Reads only the cache.
    fn plan(&self, cache: &Cache, key: &ObjectKey, now: Timestamp) -> Plan;

    /// The writes after the server rejected a write of the plan for `key`: usually a condition that says so.
    fn refused(&self, _cache: &Cache, _key: &ObjectKey, _failure: &Failure, _now: Timestamp) -> Plan {
        Plan::default()
    }
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
    /// A hash of the relevant fields: changes that leave it unchanged wake nothing.
    pub matters: Option<fn(&Object) -> u64>,
    /// Whether new objects wake the controller, besides changes and deletions.
    pub heeds_new: bool,
}

impl Source {
    /// Every object of a resource, for itself.
    pub fn own(resource: ResourceRef) -> Self {
        Self { resource, query: Query::default(), keys: |_, object| vec![object.key()], remember: false, matters: None, heeds_new: true }
    }

    /// Every object of a resource, for the keys it leads to.
    pub fn leading_to(resource: ResourceRef, keys: fn(&Cache, &Object) -> Vec<ObjectKey>) -> Self {
        Self { resource, query: Query::default(), keys, remember: false, matters: None, heeds_new: true }
    }

    /// Also wakes the keys that the object led to before.
    pub fn remembered(mut self) -> Self {
        self.remember = true;
        self
    }

    /// Wakes the controller only if the value of `matters` changes.
    pub fn when(mut self, matters: fn(&Object) -> u64) -> Self {
        self.matters = Some(matters);
        self
    }

    /// As [`Source::when`], but not for new objects.
    pub fn changed(self, matters: fn(&Object) -> u64) -> Self {
        Self { heeds_new: false, ..self.when(matters) }
    }
}

/// The work for one key.
#[derive(Debug, Default)]
pub struct Plan {
    /// Independent of each other, and carried out concurrently.
    pub writes: Vec<Write>,
    /// Carried out after those: first one, then two, then four and so on, until one fails. A full quota is found out by one request and not
    /// by hundreds.
    pub slowly: Vec<Write>,
    /// When to plan again even without a change.
    pub again: Option<Duration>,
    /// Events to record about objects.
    pub notes: Vec<Note>,
}

/// One API call.
#[derive(Debug)]
pub enum Write {
    Create {
        resource: ResourceRef,
        namespace: String,
        object: Value,
        tell: Option<Tell>,
    },
    Patch {
        key: ObjectKey,
        /// Empty for the object itself.
        subresource: &'static str,
        patch: Patch,
    },
    /// Replaces a subresource by POST or PUT that has no patch, such as a namespace's `finalize`.
    Replace {
        key: ObjectKey,
        subresource: &'static str,
        object: Value,
    },
    Delete {
        key: ObjectKey,
        options: DeleteOptions,
        tell: Option<Tell>,
    },
    /// Deletes every object of a resource in a namespace, without knowing them.
    DeleteAll {
        resource: ResourceRef,
        namespace: String,
    },
    /// Does another write, unless the server has one of these objects with this uid (any, if it is empty).
    UnlessFound {
        objects: Vec<(ObjectKey, String)>,
        write: Box<Write>,
    },
    /// Does another write, unless the server has an object in a namespace for which `is` holds with this name.
    UnlessAny {
        resource: ResourceRef,
        namespace: String,
        is: fn(&Object, &str) -> bool,
        name: String,
        write: Box<Write>,
    },
}

/// How to report the outcome of a write in events.
#[derive(Clone, Debug)]
pub struct Tell {
    pub about: Arc<Object>,
    /// Reason and message of the event on success; `{}` stands for the object's name.
    pub success: Option<(&'static str, String)>,
    /// The same on a rejection; `{}` stands for the server's message.
    pub failure: (&'static str, String),
}

/// A rejected write that was to be reported.
#[derive(Debug)]
pub struct Failure {
    /// The reason of the event, such as `FailedCreate`.
    pub reason: &'static str,
    /// The server's message, without the text of [`Tell`].
    pub message: String,
}

/// An event to record.
#[derive(Debug)]
pub struct Note {
    pub about: Arc<Object>,
    pub kind: EventType,
    pub reason: &'static str,
    pub message: String,
}

/// Deadlines come from users, and may be further away than clocks go.
const LONGEST_PAUSE: Duration = Duration::from_secs(24 * 60 * 60);

impl Plan {
    pub fn writes_nothing(&self) -> bool {
        self.writes.is_empty() && self.slowly.is_empty()
    }

    /// Asks to look again after `pause`, or sooner if it was asked for already, and at the latest after [`LONGEST_PAUSE`].
    pub fn look_again(&mut self, pause: Duration) {
        self.again = Some(self.again.unwrap_or(LONGEST_PAUSE).min(pause));
    }

    /// A merge patch of the object's status, unless `current` already has these values.
    pub fn set_status(&mut self, key: ObjectKey, current: &Value, status: Value) {
        if !covers(current, &status) {
            self.push_merge(key, "status", serde_json::json!({ "status": status }));
        }
    }

    /// A merge patch of the object, unless `current` already has these values.
    pub fn merge(&mut self, key: ObjectKey, current: &Value, patch: Value) {
        self.merge_part(key, "", current, patch);
    }

    /// A merge patch of a subresource (or of the object, if `subresource` is empty), unless `current` already has these values.
    pub fn merge_part(&mut self, key: ObjectKey, subresource: &'static str, current: &Value, patch: Value) {
        if !covers(current, &patch) {
            self.push_merge(key, subresource, patch);
        }
    }

    /// Two patches of the same part of an object are one request.
    fn push_merge(&mut self, key: ObjectKey, subresource: &'static str, patch: Value) {
        let earlier = self.writes.iter_mut().find_map(|it| match it {
            Write::Patch { key: of, subresource: part, patch: Patch::Merge(earlier) } if *of == key && *part == subresource => {
                Some(earlier)
            }
            _ => None,
        });
        match earlier {
            Some(earlier) => join(earlier, patch),
            None => self.writes.push(Write::Patch { key, subresource, patch: Patch::Merge(patch) }),
        }
    }

    /// Deletes this object and no later one of its name.
    pub fn delete(&mut self, object: &Object, tell: Option<Tell>) {
        let options = DeleteOptions { uid: Some(object.meta().uid.to_string()), ..DeleteOptions::default() };
        self.writes.push(Write::Delete { key: object.key(), options, tell });
    }

    /// Records an event about an object.
    pub fn note(&mut self, about: &Arc<Object>, kind: EventType, reason: &'static str, message: impl Into<String>) {
        self.notes.push(Note { about: about.clone(), kind, reason, message: message.into() });
    }
}

impl Tell {
    /// The events with which most controllers report creations of this kind.
    pub fn created(about: &Arc<Object>, singular: &str) -> Self {
        let success = Some(("SuccessfulCreate", format!("Created {singular}: {{}}")));
        Self { about: about.clone(), success, failure: ("FailedCreate", "Error creating: {}".to_owned()) }
    }

    /// The events with which most controllers report deletions of this kind.
    pub fn deleted(about: &Arc<Object>, singular: &str) -> Self {
        let success = Some(("SuccessfulDelete", format!("Deleted {singular}: {{}}")));
        Self { about: about.clone(), success, failure: ("FailedDelete", "Error deleting: {}".to_owned()) }
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

/// Adds one merge patch to another.
fn join(patch: &mut Value, more: Value) {
    match (patch, more) {
        (Value::Object(patch), Value::Object(more)) => {
            for (name, value) in more {
                match patch.get_mut(&name) {
                    Some(there) => join(there, value),
                    None => drop(patch.insert(name, value)),
                }
            }
        }
        (patch, more) => *patch = more,
    }
}

/// A number in an object's JSON, or a percentage of `total`; `None` if it is neither.
pub fn portion_of(value: &Value, total: i64, round: Round) -> Option<i64> {
    portion(&serde_json::from_value(value.clone()).ok()?, total, round)
}

/// The object's JSON as a tree, for copying parts of it.
pub fn tree(object: &Object) -> Value {
    serde_json::from_slice(object.body()).unwrap_or_default()
}

/// The time from `earlier` to `now`; zero if `earlier` is in the future.
pub fn since(earlier: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(earlier)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_waits_for_ever() {
        let mut plan = Plan::default();
        plan.look_again(Duration::MAX);
        assert_eq!(plan.again, Some(LONGEST_PAUSE));
        plan.look_again(Duration::from_secs(1));
        plan.look_again(Duration::from_secs(2));
        assert_eq!(plan.again, Some(Duration::from_secs(1)));
    }

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

    #[test]
    fn patches_of_one_part_are_one_request() {
        let (mut plan, key) = (Plan::default(), || ObjectKey::new(&crate::object::resource::DEPLOYMENT, "default", "web"));
        plan.merge_part(key(), "status", &Value::Null, serde_json::json!({"metadata": {"annotations": {"a": "1"}}}));
        plan.merge(key(), &Value::Null, serde_json::json!({"spec": {"replicas": 2}}));
        plan.set_status(key(), &Value::Null, serde_json::json!({"replicas": 1, "conditions": []}));
        plan.merge_part(key(), "status", &Value::Null, serde_json::json!({"metadata": {"annotations": {"b": null}}}));
        let written = plan.writes.iter().map(|it| match it {
            Write::Patch { subresource, patch: Patch::Merge(patch), .. } => (*subresource, patch.clone()),
            other => panic!("{other:?}"),
        });
        let status = serde_json::json!({"metadata": {"annotations": {"a": "1", "b": null}}, "status": {"replicas": 1, "conditions": []}});
        assert_eq!(written.collect::<Vec<_>>(), [("status", status), ("", serde_json::json!({"spec": {"replicas": 2}}))]);
    }
}
