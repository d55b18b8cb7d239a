//! The Mesos v1 HTTP API: messages, calls and event streams of schedulers, executors and operators, and master detection.

pub mod call;
pub mod detect;
pub mod executor;
pub mod http;
pub mod operator;
pub mod recordio;
pub mod scheduler;
mod session;
pub mod zookeeper;

/// The messages, compiled from `proto/mesos/v1/`: [`v1`] itself has the shared ones, `v1::scheduler` and `v1::executor` those of the two
/// APIs.
#[allow(unreachable_pub, clippy::all)]
mod messages {
    include!(concat!(env!("OUT_DIR"), "/messages.rs"));
}

pub use messages::mesos::v1;
pub use session::{CallError, Reply};
