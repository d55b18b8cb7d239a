//! Defaults: what an absent field means, written into the object so that every reader sees it.

use serde_json::Value;

use crate::object::ResourceRef;

/// Fills in the defaults of an object, those of its status included. Doing it twice changes nothing.
pub fn default(_resource: ResourceRef, _value: &mut Value) {
    todo!()
}
