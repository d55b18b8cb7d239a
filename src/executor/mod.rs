//! The executor: the kubelet of its Mesos agent. It turns the pods bound to its node into containers, and reports what becomes of them.

mod backoff;
mod calls;
mod config;
mod env;
mod expand;
mod fields;
mod images;
mod names;
mod observe;
mod pod;
mod probes;
mod shared;
mod spec;
mod status;
mod statuses;
mod volumes;
mod worker;

pub use config::Config;
