//! `km minion`: its flags. What Mesos starts on an agent: it runs the executor, and later the proxy.

use super::Server;
use super::flag::{Flag, Kind, Values};

/// Its own flags; those of the executor come with them and are passed on.
const OWN: &[Flag] = &[
    Flag::new("mesos-cgroup-prefix", Kind::Text, "mesos", "cgroup below which Mesos keeps its containers"),
    Flag::new("contain-pod-resources", Kind::Bool, "true", "Pods are put below this task's cgroup"),
    Flag::new("path-override", Kind::Text, "", "PATH of what it starts"),
    Flag::new("max-log-size", Kind::Text, "10Mi", "Size at which a log file is rotated"),
    Flag::new("max-log-age", Kind::Integer, "7", "Days for which rotated logs are kept"),
    Flag::new("max-log-backups", Kind::Integer, "5", "How many rotated logs are kept"),
    Flag::new("run-proxy", Kind::Bool, "true", "Run a proxy"),
    Flag::new("proxy-kubeconfig", Kind::Text, "", "kubeconfig for the proxy"),
    Flag::new("proxy-logv", Kind::Integer, "0", "--v of the proxy"),
    Flag::new("proxy-bindall", Kind::Bool, "false", "The proxy serves on all addresses"),
    Flag::new("proxy-mode", Kind::Text, "", "Mode of the proxy"),
    Flag::new("conntrack-max", Kind::Integer, "0", "Connections tracked; 0 leaves it"),
    Flag::new("conntrack-max-per-core", Kind::Integer, "0", "Connections tracked per core; 0 leaves it"),
    Flag::new("conntrack-tcp-timeout-established", Kind::Integer, "0", "Seconds an idle connection is tracked; 0 leaves it"),
    Flag::obsolete("private-mountns", Kind::Bool, "volumes are Docker's"),
];

const COUNT: usize = OWN.len() + super::executor::FLAGS.len();

const FLAGS: [Flag; COUNT] = {
    let mut all = [OWN[0]; COUNT];
    let mut at = 0;
    while at < COUNT {
        all[at] = if at < OWN.len() { OWN[at] } else { super::executor::FLAGS[at - OWN.len()] };
        at += 1;
    }
    all
};

pub(super) const SERVER: Server = Server {
    name: "minion",
    installed_as: &[],
    about: "Run the executor of an agent and keep its logs",
    flags: &FLAGS,
    run,
    hidden: false,
};

fn run(values: Values) -> anyhow::Result<()> {
    let _ = values;
    anyhow::bail!("being wired")
}
