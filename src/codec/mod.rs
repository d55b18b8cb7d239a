//! Bytes to objects and back, as pure functions: decoding, defaulting, validation, patches, tables, and the documents in which the API
//! describes itself. A write goes through here once as a `serde_json::Value`; a read never does.

mod conform;
mod decode;
mod default;
pub mod discovery;
#[cfg(test)]
mod fitting;
pub mod openapi;
mod patch;
mod scalar;
mod table;
mod validate;

use std::fmt::Write;

use bytes::Bytes;

pub use decode::{Decoded, conform, decode, decode_kind, strict_error};
pub use default::default;
pub use patch::{PatchKind, patch};
pub use table::{IncludeObject, table};
pub use validate::validate;

/// A JSON (or protobuf) answer that is the same for everybody, made once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    pub bytes: Bytes,
    /// In double quotes, as the `ETag` header carries it.
    pub etag: String,
}

impl Document {
    pub(super) fn new(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        let digest = ring::digest::digest(&ring::digest::SHA256, &bytes);
        let mut etag = String::from("\"");
        for byte in &digest.as_ref()[..16] {
            let _ = write!(etag, "{byte:02X}");
        }
        etag.push('"');
        Self { bytes, etag }
    }

    pub(super) fn json(value: &serde_json::Value) -> Self {
        Self::new(value.to_string().into_bytes())
    }
}
