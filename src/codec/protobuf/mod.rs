//! Protobuf, which `kubectl create KIND` sends and some clients insist on, from and to the JSON values it stands for. Driven by the
//! schema's field numbers alone: a type that has a schema has both.
//!
//! Go writes every field that is not a pointer, set or not, and JSON leaves out those that are zero: so does the decoder. The encoder
//! writes what there is.

mod decode;
mod encode;

pub(super) use decode::open;
pub use encode::{protobuf, protobuf_event, protobuf_list};

/// Before every message that is a body: `k8s` and a zero. The message is a `runtime.Unknown` with the object in it.
const MAGIC: &[u8] = b"k8s\0";
