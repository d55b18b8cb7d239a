//! Namespaces: their label, their phase, and the finalizer that keeps them until their content is deleted.

use serde_json::Value;

use super::json;

/// Held by the controller that empties a namespace.
const FINALIZER: &str = "kubernetes";

pub(crate) fn create(namespace: &mut Value) {
    let name = json::text(namespace, "/metadata/name").to_owned();
    let labels = json::entry_map(json::metadata(namespace), "labels");
    labels.insert("kubernetes.io/metadata.name".to_owned(), name.into());
    let finalizers = json::map(namespace, "spec").entry("finalizers").or_insert_with(|| Value::Array(Vec::new()));
    if let Value::Array(list) = finalizers
        && !list.iter().any(|it| it == FINALIZER)
    {
        list.push(FINALIZER.into());
    }
    json::map(namespace, "status").insert("phase".to_owned(), "Active".into());
}

/// Marks a namespace as terminating: nothing new may be created in it.
pub(crate) fn terminate(namespace: &mut Value, now: &str) {
    json::set_default(json::metadata(namespace), "deletionTimestamp", now);
    json::map(namespace, "status").insert("phase".to_owned(), "Terminating".into());
}
