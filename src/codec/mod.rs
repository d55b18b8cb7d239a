//! Bytes to objects and back, as pure functions: decoding, defaulting, validation, patches, tables. A write goes through here once as a
//! `serde_json::Value`; a read never does.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::Value;

use crate::object::status::Cause;
use crate::object::{Object, ResourceRef, Status};

/// A request body, decoded.
#[derive(Debug)]
pub struct Decoded {
    pub value: Value,
    /// Unknown and duplicate fields, each as Kubernetes words it (`unknown field "spec.foo"`); what a client with `fieldValidation=Warn` is
    /// warned of and one with `Strict` is refused for. Unknown fields are already dropped from `value`.
    pub strict_errors: Vec<String>,
}

/// Decodes an object of this resource from JSON, YAML or protobuf, by `Content-Type`.
///
/// # Errors
/// 415 for another media type, 400 for bytes that are not of it, or that do not have the shape the schema asks for.
pub fn decode(_resource: ResourceRef, _content_type: &str, _body: &Bytes) -> Result<Decoded, Box<Status>> {
    todo!()
}

/// Fills in defaults, as for a read of an object written by an older client.
pub fn default(_resource: ResourceRef, _value: &mut Value) {
    todo!()
}

/// What is wrong with an object about to be created (`old` is `None`) or to replace `old`; empty if nothing is.
pub fn validate(_resource: ResourceRef, _new: &Value, _old: Option<&Value>) -> Vec<Cause> {
    todo!()
}

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

/// How much of each object a table's rows carry (`includeObject`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IncludeObject {
    None,
    #[default]
    Metadata,
    Object,
}

/// A `meta.k8s.io/v1` Table of these objects. `list_metadata` is the JSON of the list's `metadata`.
pub fn table(
    _resource: ResourceRef,
    _objects: &[Arc<Object>],
    _include: IncludeObject,
    _list_metadata: &str,
    _with_columns: bool,
) -> Bytes {
    todo!()
}
