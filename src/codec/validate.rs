//! What is wrong with an object.

use serde_json::Value;

use crate::object::ResourceRef;
use crate::object::status::Cause;

/// What is wrong with an object about to be created (`old` is `None`) or to replace `old`; empty if nothing is.
pub fn validate(_resource: ResourceRef, _new: &Value, _old: Option<&Value>) -> Vec<Cause> {
    Vec::new()
}
