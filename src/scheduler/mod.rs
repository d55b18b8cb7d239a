//! The scheduler matches Kubernetes' pods with Mesos' offers and launches them. The decisions are pure: [`core`] is one state machine; the
//! code around it does the I/O.

mod artifacts;
mod bind;
pub mod config;
pub mod core;
pub mod demand;
pub mod executorinfo;
pub mod frameworkid;
mod http;
pub mod launch;
pub mod limits;
pub mod metrics;
pub mod nodes;
pub mod offers;
pub mod pace;
pub mod placement;
pub mod ports;
mod publish;
pub mod queue;
pub mod reconcile;
mod register;
pub mod resources;
mod shell;
mod staticpods;
pub mod storage;
pub mod taskid;
pub mod tasks;

pub use config::{Config, ExecutorFlags, Tuning};
pub use frameworkid::{InStore, InZooKeeper, StateStore, StoreUri};
pub use shell::{READS, Scheduler};
