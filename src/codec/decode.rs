//! Request bodies to values: strict about shapes, tolerant of (but not silent about) fields that the schema does not know.

use bytes::Bytes;
use serde_json::Value;

use crate::object::{ResourceRef, Status};

/// A request body, decoded.
#[derive(Debug)]
pub struct Decoded {
    pub value: Value,
    /// Unknown and duplicate fields, each as Kubernetes words it (`unknown field "spec.foo"`); what a client with `fieldValidation=Warn` is
    /// warned of and one with `Strict` is refused for. Unknown fields are already dropped from `value`.
    pub strict_errors: Vec<String>,
}

/// Decodes an object of this resource from JSON, YAML or protobuf, by `Content-Type`. `apiVersion` and `kind` are filled in if absent.
///
/// # Errors
/// 415 for another media type, 400 for bytes that are not of it, or that do not have the shape the schema asks for.
pub fn decode(resource: ResourceRef, content_type: &str, body: &Bytes) -> Result<Decoded, Box<Status>> {
    decode_kind((resource.group, resource.version, resource.kind), content_type, body)
}

/// Decodes an object of this group, version and kind: the body of a subresource, or `("", "v1", "DeleteOptions")`.
///
/// # Errors
/// As [`decode`].
pub fn decode_kind(_kind: (&str, &str, &str), _content_type: &str, _body: &Bytes) -> Result<Decoded, Box<Status>> {
    todo!()
}

/// Holds a value that did not come through [`decode`], such as the outcome of a patch, against the schema: drops unknown fields.
///
/// # Errors
/// What does not have the shape the schema asks for, as [`decode`] words it.
pub fn conform(_resource: ResourceRef, _value: Value) -> Result<Decoded, String> {
    todo!()
}
