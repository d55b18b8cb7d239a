//! `PartialObjectMetadata`: objects reduced to their metadata.

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::object::Object;

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
    let parts = [r#"{"kind":"PartialObjectMetadata","apiVersion":""#, version.api_version(), r#"","metadata":"#, metadata, "}"];
    parts.iter().for_each(|it| out.extend_from_slice(it.as_bytes()));
}
