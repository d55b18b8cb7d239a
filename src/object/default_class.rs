//! Classes of storage and of ingresses that are marked as the default. Pure.

use std::sync::Arc;

use serde_json::Value;

use super::Object;

/// Annotations that mark a storage class as the default; either is enough.
pub const STORAGE_MARKS: &[&str] = &["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"];
/// As [`STORAGE_MARKS`], for ingress classes.
pub const INGRESS_MARKS: &[&str] = &["ingressclass.kubernetes.io/is-default-class"];

/// The newest class that is marked as the default; of classes created in the same second, the first by name.
pub fn newest<'a>(classes: &'a [Arc<Object>], marks: &[&str]) -> Option<&'a Arc<Object>> {
    let defaults = classes.iter().filter(|it| is_default(it, marks));
    defaults.max_by(|a, b| (&a.meta().created, b.name()).cmp(&(&b.meta().created, a.name())))
}

fn is_default(class: &Object, marks: &[&str]) -> bool {
    let class: Value = serde_json::from_slice(class.body()).unwrap_or_default();
    is_marked(|mark| class["metadata"]["annotations"][mark].as_str(), marks)
}

/// Whether the annotations mark a class as the default.
pub fn is_marked<'a>(annotation: impl Fn(&str) -> Option<&'a str>, marks: &[&str]) -> bool {
    marks.iter().any(|mark| annotation(mark) == Some("true"))
}
