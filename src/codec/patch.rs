//! What an object becomes under a patch.

use serde_json::Value;

use crate::object::{ResourceRef, Status};

/// The kinds of patch a server takes, by their `Content-Type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PatchKind {
    Json,
    Merge,
    Strategic,
    Apply,
}

/// What `current` becomes under a patch (all kinds but `Apply`).
///
/// # Errors
/// 400 for a patch that is malformed, 422 for one that does not fit the object.
pub fn patch(_resource: ResourceRef, _current: &Value, _kind: PatchKind, _patch: &Value) -> Result<Value, Box<Status>> {
    todo!()
}
