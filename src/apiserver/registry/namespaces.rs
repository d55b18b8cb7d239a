//! Namespaces: their phase, and the finalizer that keeps them until their content is deleted.

use serde_json::Value;

use super::json;

/// Held by the controller that empties a namespace.
const FINALIZER: &str = "kubernetes";

pub(crate) fn create(namespace: &mut Value) {
    let finalizers = json::map(namespace, "spec").entry("finalizers").or_insert_with(|| Value::Array(Vec::new()));
    if let Value::Array(list) = finalizers
        && !list.iter().any(|it| it == FINALIZER)
    {
        list.push(FINALIZER.into());
    }
    json::map(namespace, "status").insert("phase".to_owned(), "Active".into());
}

/// Only a subresource changes them.
pub(crate) fn keep_finalizers(new: &mut Value, old: &Value) {
    json::take_over(json::map(new, "spec"), old.get("spec"), "finalizers");
}

/// Marks a namespace as terminating: nothing new may be created in it.
pub(crate) fn terminate(namespace: &mut Value, now: &str) {
    json::set_default(json::metadata(namespace), "deletionTimestamp", now);
    json::map(namespace, "status").insert("phase".to_owned(), "Terminating".into());
}
