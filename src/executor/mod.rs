//! The executor: the kubelet of its Mesos agent. It turns the pods bound to its node into containers, and reports what becomes of them.

pub mod backoff;
pub mod names;
pub mod pod;
pub mod probes;
pub mod status;
