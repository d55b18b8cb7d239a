//! `km proxy` and `km dns`: reserved names, not implemented yet.

use super::Server;
use super::flag::Values;

pub(super) const PROXY: Server = Server {
    name: "proxy",
    installed_as: &["kube-proxy"],
    about: "Route the services' virtual addresses (not implemented yet)",
    flags: &[],
    run: |_: Values| anyhow::bail!("km proxy is not implemented yet; services are reached at their endpoints' host ports"),
    hidden: false,
};

pub(super) const DNS: Server = Server {
    name: "dns",
    installed_as: &[],
    about: "Resolve the names of services (not implemented yet)",
    flags: &[],
    run: |_: Values| anyhow::bail!("km dns is not implemented yet"),
    hidden: false,
};
