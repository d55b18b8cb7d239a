//! `PartialObjectMetadata`: objects reduced to their metadata.

use bytes::Bytes;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::default::TEMPLATE_GENERATION;
use super::version::FIELDS_OF_V2;
use crate::object::resource::{DAEMON_SET, HORIZONTAL_POD_AUTOSCALER_V1};
use crate::object::{Object, ResourceRef};

/// The version of `meta.k8s.io`, for tables and partial metadata. The versions differ only in name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MetaVersion {
    #[default]
    V1,
    V1Beta1,
}

impl MetaVersion {
    pub fn api_version(self) -> &'static str {
        match self {
            Self::V1 => "meta.k8s.io/v1",
            Self::V1Beta1 => "meta.k8s.io/v1beta1",
        }
    }
}

pub fn partial_metadata(object: &Object, version: MetaVersion) -> Bytes {
    let mut out = Vec::with_capacity(1024);
    write_partial_metadata(object, version, &mut out);
    out.into()
}

pub fn write_partial_metadata(object: &Object, version: MetaVersion, out: &mut Vec<u8>) {
    #[derive(Deserialize)]
    struct OnlyMetadata<'a> {
        #[serde(borrow)]
        metadata: &'a RawValue,
    }
    // An object has metadata: it was parsed to make it one.
    let parsed: Option<OnlyMetadata<'_>> = serde_json::from_slice(object.body()).ok();
    let metadata = parsed.map_or("{}", |it| it.metadata.get());
    let without = without_fields(metadata, fields_in_annotations(object.resource()));
    let metadata = without.as_deref().unwrap_or(metadata);
    let parts = [r#"{"kind":"PartialObjectMetadata","apiVersion":""#, version.api_version(), r#"","metadata":"#, metadata, "}"];
    parts.iter().for_each(|it| out.extend_from_slice(it.as_bytes()));
}

/// Annotations for which an internal version of Kubernetes has fields instead: there, they are not part of the metadata.
fn fields_in_annotations(resource: ResourceRef) -> &'static [&'static str] {
    if *resource == DAEMON_SET {
        &[TEMPLATE_GENERATION]
    } else if *resource == HORIZONTAL_POD_AUTOSCALER_V1 {
        &FIELDS_OF_V2
    } else {
        &[]
    }
}

/// The metadata without these annotations; `None` if it has none of them.
fn without_fields(metadata: &str, names: &[&str]) -> Option<String> {
    if !names.iter().any(|it| metadata.contains(it)) {
        return None;
    }
    let mut metadata: Value = serde_json::from_str(metadata).ok()?;
    let annotations = metadata.get_mut("annotations")?.as_object_mut()?;
    annotations.retain(|name, _| !names.contains(&name.as_str()));
    if annotations.is_empty() {
        metadata.as_object_mut()?.remove("annotations");
    }
    Some(metadata.to_string())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::object::resource::DEPLOYMENT;

    #[test]
    fn what_has_fields_elsewhere_is_no_metadata() {
        let metrics = FIELDS_OF_V2[0];
        for (resource, annotations, shown) in [
            (&DAEMON_SET, json!({TEMPLATE_GENERATION: "1"}), None),
            (&DAEMON_SET, json!({TEMPLATE_GENERATION: "1", "a": "b"}), Some(json!({"a": "b"}))),
            (&DAEMON_SET, json!({}), Some(json!({}))),
            (&DEPLOYMENT, json!({TEMPLATE_GENERATION: "1"}), Some(json!({TEMPLATE_GENERATION: "1"}))),
            (&HORIZONTAL_POD_AUTOSCALER_V1, json!({metrics: "[]", "a": "b"}), Some(json!({"a": "b"}))),
        ] {
            let stored = json!({"metadata": {"name": "x", "annotations": annotations}}).to_string();
            let object = Object::from_stored(resource, stored.as_bytes(), 1).unwrap();
            let partial: Value = serde_json::from_slice(&partial_metadata(&object, MetaVersion::V1)).unwrap();
            assert_eq!(partial["metadata"]["name"], "x");
            assert_eq!(partial["metadata"].get("annotations"), shown.as_ref(), "{stored}");
        }
    }
}
