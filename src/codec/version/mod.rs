//! Versions of one resource: the same object in the form that a client requests. Only the stored version is stored, validated and cached;
//! values for which one version has no field are kept in annotations, so that conversion loses nothing.

mod autoscaler;
mod event;

use std::sync::Arc;

use bytes::Bytes;
use serde_json::Value;

pub use autoscaler::FIELDS_OF_V2;

use crate::object::resource::{EVENT, HORIZONTAL_POD_AUTOSCALER};
use crate::object::{Object, ResourceRef};

/// An object of version `from` as one of version `to` of the same resource; one of them is the stored version.
pub fn convert(value: &mut Value, from: ResourceRef, to: ResourceRef) {
    if from == to {
        return;
    }
    debug_assert_eq!(from.storage(), to.storage());
    let stored = to.stored_as.is_none();
    if to.storage() == &HORIZONTAL_POD_AUTOSCALER {
        autoscaler::convert(value, stored);
    } else if to.storage() == &EVENT {
        event::convert(value, stored);
    }
    for (key, text) in [("kind", to.kind.to_owned()), ("apiVersion", to.api_version())] {
        value[key] = text.into();
    }
}

/// The object in this version of its resource: itself if it is that already.
pub fn in_version(object: &Arc<Object>, version: ResourceRef) -> Arc<Object> {
    const PARSED: &str = "an object's bytes were parsed before";
    if object.resource() == version {
        return object.clone();
    }
    let mut value: Value = serde_json::from_slice(object.body()).expect(PARSED);
    convert(&mut value, object.resource(), version);
    // This version may write zero values where the other does not.
    super::default(version, &mut value);
    // Kind and version come first, as in stored objects.
    let fields = value.as_object_mut().expect(PARSED);
    let (kind, api_version) = (fields.remove("kind").unwrap_or_default(), fields.remove("apiVersion").unwrap_or_default());
    let body = format!(r#"{{"kind":{kind},"apiVersion":{api_version},{}"#, &value.to_string()[1..]);
    Object::from_wire(version, Bytes::from(body)).expect(PARSED)
}
