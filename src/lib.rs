//! km: Kubernetes on Apache Mesos, in one executable.
//!
//! The modules are layers, listed bottom to top: a module may use only those listed before it (`cli` may use all). The test
//! `tests/it/tidy.rs` enforces this. Begin with ARCHITECTURE.md.

pub mod util;

pub mod supervise;

pub mod telemetry;

pub mod object;

pub mod tokens;

pub mod codec;

pub mod store;

pub mod cache;

pub mod client;

pub mod controllers;

pub mod apiserver;

pub mod mesos;

pub mod local_mesos;

pub mod scheduler;

pub mod runtime;

pub mod executor;

pub mod cli;
