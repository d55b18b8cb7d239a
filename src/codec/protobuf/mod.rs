//! Protobuf, which `kubectl create KIND` sends and some clients require, from and to JSON values. Driven by the schema's field numbers
//! alone: every type with a schema has both forms.
//!
//! Go writes every field that is not a pointer, set or not, whereas JSON omits zero values; so does the decoder. The encoder writes only
//! existing fields.

mod decode;
mod encode;

pub(super) use decode::open;
pub use encode::{protobuf, protobuf_event, protobuf_list};

/// Before every message that is a body: `k8s` and a zero. The message is a `runtime.Unknown` with the object in it.
const MAGIC: &[u8] = b"k8s\0";
