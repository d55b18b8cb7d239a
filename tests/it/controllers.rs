//! The controllers, as users of kubectl see their work: a control plane without nodes.

mod disruption;
mod quota;
