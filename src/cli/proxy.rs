//! `km proxy` and `km dns`: the names are taken; what they do comes later.

use super::Server;
use super::flag::Values;

pub(super) const PROXY: Server = Server {
    name: "proxy",
    installed_as: &["kube-proxy"],
    about: "Give services their virtual addresses (not yet)",
    flags: &[],
    run: |_: Values| anyhow::bail!("km proxy is not there yet; services are reached at their endpoints' host ports"),
    hidden: false,
};

pub(super) const DNS: Server = Server {
    name: "dns",
    installed_as: &[],
    about: "Answer for the names of services (not yet)",
    flags: &[],
    run: |_: Values| anyhow::bail!("km dns is not there yet"),
    hidden: false,
};
