//! YAML as Kubernetes reads and writes it: YAML 1.1 as its Go library has it, in which `yes` and `0644` are no texts.
//!
//! What is read is made into JSON first, as Kubernetes does; from there on it is treated like any other JSON.

mod lenient;
mod read;
mod resolve;
mod write;

pub use read::{DUPLICATES, Document, make_whole, read};
pub use write::write;
