//! YAML as Kubernetes reads and writes it: YAML 1.1 in its Go library's dialect, in which `yes` and `0644` are not strings.
//!
//! As in Kubernetes, YAML is converted to JSON first, and then treated like JSON.

mod lenient;
mod read;
mod resolve;
mod write;

pub use read::{DUPLICATES, Document, make_whole, read};
pub use write::write;
