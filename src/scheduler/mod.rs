//! The scheduler: Mesos' offers and Kubernetes' pods in, launches out. The decisions are pure: [`core`] is one state machine; what is
//! around it does the I/O.

pub mod config;
pub mod constraints;
pub mod core;
pub mod demand;
pub mod executorinfo;
pub mod launch;
pub mod limits;
pub mod metrics;
pub mod nodes;
pub mod offers;
pub mod pace;
pub mod placement;
pub mod ports;
pub mod queue;
pub mod reconcile;
pub mod resources;
pub mod taskid;
pub mod tasks;
