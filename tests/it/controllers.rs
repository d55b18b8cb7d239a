//! The controllers, as users of kubectl see their work: a control plane without nodes.

mod autoscaler;
mod deletion;
mod disruption;
mod endpoints;
mod leader;
mod quota;
mod workloads;
