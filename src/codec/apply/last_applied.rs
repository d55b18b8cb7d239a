//! Client-side apply (`kubectl apply` without `--server-side`) keeps the applied configuration in an annotation. When kubectl switches to
//! server-side apply, it already owns the fields in the annotation, and the annotation is kept up to date.

use serde_json::Value;

use super::compare::Changes;
use super::versions::{in_version, kind};
use super::{check, extract};
use crate::codec::fields::Set;
use crate::object::ResourceRef;

/// The only manager with this treatment.
pub(super) const MANAGER: &str = "kubectl";
const ANNOTATION: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// The most that all annotations of an object may take, in bytes.
const MOST: usize = 256 * 1024;

/// The fields that a stored object's annotation claims, in a version: those that still have the annotation's value.
pub(super) fn claimed(version: ResourceRef, live: &Value) -> Set {
    let Some(kind) = kind(version) else { return Set::default() };
    let text = live.get("metadata").and_then(|it| it.get("annotations")?.get(ANNOTATION)?.as_str()).unwrap_or_default();
    let Ok(applied) = serde_json::from_str::<Value>(text) else { return Set::default() };
    if applied.get("apiVersion").and_then(Value::as_str) != Some(&version.api_version()) || check::check(kind, &applied).is_err() {
        return Set::default();
    }
    let mut claimed = extract::stated(kind, &applied);
    let changes = Changes::between(kind, Some(&applied), &in_version(live.clone(), version.storage(), version));
    claimed.subtract(&changes.written);
    claimed.subtract(&changes.removed);
    claimed
}

/// Writes an applied configuration into the annotation, of an object that has it.
pub(super) fn refresh(object: &mut Value, applied: &Value) {
    let Some(annotations) = object.get_mut("metadata").and_then(|it| it.get_mut("annotations")?.as_object_mut()) else { return };
    if !annotations.contains_key(ANNOTATION) {
        return;
    }
    let mut applied = applied.clone();
    if let Some(own) = applied.get_mut("metadata").and_then(|it| it.get_mut("annotations")?.as_object_mut()) {
        own.remove(ANNOTATION);
    }
    applied.sort_all_objects();
    annotations.insert(ANNOTATION.to_owned(), format!("{applied}\n").into());
    let size: usize = annotations.iter().map(|(key, value)| key.len() + value.as_str().map_or(0, str::len)).sum();
    if size > MOST {
        annotations.remove(ANNOTATION);
    }
}
