//! A small Mesos of our own: a master and its agents in one process, behind the v1 scheduler and executor APIs and the part of the operator
//! API that km reads. For `km up` on a machine without Mesos, and for simulations of many agents.
//!
//! [`master::Master`] and [`agent::Agent`] contain the rules and do no I/O, with time and seeds passed in; [`start`] serves them over HTTP.
//! `tests/it/mesos` runs the same suite against them and against Apache Mesos.
//!
//! Not supported: roles with quotas or weights, reservations at run time, volumes, maintenance, and executors for bare commands. Failover
//! of frameworks, repeated updates, reconciliation and validation behave as in Mesos.

pub mod agent;
pub mod master;
pub mod resources;
mod server;
mod state;
mod store;
mod validation;

use std::collections::BTreeMap;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::time::Duration;

pub use server::{Cluster, start};

use crate::mesos::v1::ExecutorInfo;

/// An executor that runs: ends with its exit status; dropping it kills it.
pub type Running = Pin<Box<dyn Future<Output = i32> + Send>>;

/// Starts executors, in whatever way: as a task of this process, as a child process, or only as a pretence.
pub trait Launcher: Send + Sync + 'static {
    /// Starts an executor with this environment: the variables of [`crate::mesos::executor::Environment`] and those of the executor's
    /// command. After a restart on the same directory, an executor that had tasks is launched again and gets its tasks again.
    fn launch(&self, executor: &ExecutorInfo, environment: BTreeMap<String, String>) -> Running;
}

/// One simulated agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentOptions {
    pub hostname: String,
    /// In agents' syntax: `cpus:4;mem:4096;ports:[31000-32000]`.
    pub resources: String,
    /// Likewise: `rack:7;zone:a`.
    pub attributes: String,
}

/// A cluster to start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Shown in `/state`.
    pub cluster: String,
    pub agents: Vec<AgentOptions>,
    /// Directory for records of frameworks, executors and tasks, and for sandboxes. Without it, nothing survives a restart.
    pub directory: Option<PathBuf>,
    /// Shortest interval between offers; 1 s in Mesos, less where latency matters.
    pub allocation_interval: Duration,
}
