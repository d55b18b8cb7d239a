//! The executor: the kubelet of its Mesos agent. It turns the pods bound to its node into containers, and reports what becomes of them.

mod backoff;
mod config;
mod env;
mod expand;
mod fields;
mod names;
mod pod;
mod probes;
mod spec;
mod status;
mod volumes;

pub use config::Config;
