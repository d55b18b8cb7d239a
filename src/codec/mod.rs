//! Bytes to objects and back, as pure functions: decoding, defaulting, validation, patches, apply, tables, and the documents in which
//! the API describes itself. A write goes through here once as a `serde_json::Value`; a read in JSON of the stored
//! version never does.

pub mod apply;
mod conform;
mod decode;
pub mod default;
pub mod discovery;
mod event;
mod fields;
#[cfg(test)]
mod fitting;
#[cfg(test)]
mod long_lists;
mod metadata;
pub mod openapi;
mod patch;
mod protobuf;
mod scalar;
mod table;
mod validate;
mod version;
pub mod yaml;

use std::fmt::Write;

use bytes::Bytes;

pub use decode::{Decoded, conform, conform_converted, decode, decode_applied, decode_kind, decode_patch};
pub use default::{TEMPLATE_GENERATION, default};
pub use event::{EventFormat, write_json_event};
pub use metadata::{MetaVersion, partial_metadata, write_partial_metadata};
pub use patch::{PatchKind, patch};
pub use protobuf::{protobuf, protobuf_list};
pub use table::{IncludeObject, TableWriter};
pub use validate::{SYSTEM_PRIORITIES, validate, validate_ephemeral, validate_resize, validate_version, validate_version_update, warnings};
pub use version::{convert, in_version};

/// A JSON (or protobuf) response that is the same for all clients, made once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    pub bytes: Bytes,
    /// In double quotes, as in the `ETag` header.
    pub etag: String,
}

impl Document {
    fn new(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        let etag = format!("\"{}\"", fingerprint(&bytes));
        Self { bytes, etag }
    }

    fn json(value: &serde_json::Value) -> Self {
        Self::new(value.to_string().into_bytes())
    }
}

/// Tells contents apart, in 32 hexadecimal digits; not for secrets.
pub fn fingerprint(bytes: &[u8]) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
    digest.as_ref()[..16].iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02X}");
        text
    })
}
