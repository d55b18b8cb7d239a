//! `km minion` with its flags: the command that Mesos starts on an agent. It runs the executor.

use std::time::Duration;

use anyhow::Context;

use super::flag::{Flag, Kind, Status, Values};
use super::{Server, common, executor};
use crate::executor::minion::{self, Config, LogLimits};
use crate::supervise::Supervisor;
use crate::util::quantity::Quantity;

/// The minion's own flags; the executor's are accepted too and passed on.
const OWN: &[Flag] = &[
    Flag::new("mesos-cgroup-prefix", Kind::Text, "mesos", "Parent cgroup of Mesos' containers"),
    Flag::new("contain-pod-resources", Kind::Bool, "true", "Put pods below this task's cgroup"),
    Flag::new("path-override", Kind::Text, "", "PATH for the processes that it starts"),
    Flag::new("max-log-size", Kind::Text, "10Mi", "Size at which a log file is rotated"),
    Flag::new("max-log-age", Kind::Integer, "7", "How many days rotated logs are kept"),
    Flag::new("max-log-backups", Kind::Integer, "5", "How many rotated logs are kept"),
    // Schedulers still pass these: the id of an executor depends on its arguments.
    Flag::new("run-proxy", Kind::Bool, "true", "No effect yet: km has no proxy"),
    Flag::new("proxy-kubeconfig", Kind::Text, "", "No effect yet: km has no proxy"),
    Flag::new("proxy-logv", Kind::Integer, "0", "No effect yet: km has no proxy"),
    Flag::new("proxy-bindall", Kind::Bool, "false", "No effect yet: km has no proxy"),
    Flag::new("proxy-mode", Kind::Text, "", "No effect yet: km has no proxy"),
    Flag::new("conntrack-max", Kind::Integer, "0", "No effect yet: km has no proxy"),
    Flag::new("conntrack-max-per-core", Kind::Integer, "0", "No effect yet: km has no proxy"),
    Flag::new("conntrack-tcp-timeout-established", Kind::Integer, "0", "No effect yet: km has no proxy"),
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
    let config = config(&values)?;
    common::run(async move |supervisor: Supervisor| {
        let shutdown = supervisor.shutdown();
        supervisor.spawn("minion", async move {
            let ran = minion::run(config, shutdown.clone()).await;
            shutdown.cancel();
            ran
        });
        Ok(())
    })
}

fn config(values: &Values) -> anyhow::Result<Config> {
    let directory = std::env::var("MESOS_DIRECTORY").ok();
    let container_uuid = minion::container_uuid(directory.as_deref());
    if container_uuid.is_empty() {
        tracing::warn!("MESOS_DIRECTORY is not set: is this not started by a Mesos agent?");
    }
    let is_executors = |flag: &String| {
        let name = flag.trim_start_matches('-').split('=').next().unwrap_or_default();
        // The minion itself reports flags without effect, once.
        name == "v" || name == "vmodule" || executor::FLAGS.iter().any(|it| it.name == name && it.status == Status::Live)
    };
    let mut arguments = vec!["executor".to_owned()];
    arguments.extend(values.given_flags().into_iter().filter(is_executors));
    let cgroup = minion::cgroup(&values.text("mesos-cgroup-prefix"), &container_uuid);
    if let Some(cgroup) = cgroup.filter(|_| values.bool("contain-pod-resources") && !values.given("cgroup-root")) {
        arguments.push(format!("--cgroup-root={cgroup}"));
    }
    let size: Quantity = values.text("max-log-size").parse().context("--max-log-size")?;
    let days: u64 = values.integer("max-log-age")?;
    let log = LogLimits {
        size: u64::try_from(size.value()).unwrap_or_default(),
        age: Duration::from_hours(24 * days),
        backups: values.integer("max-log-backups")?,
    };
    Ok(Config {
        executable: std::env::current_exe().context("the running executable")?,
        executor: arguments,
        directory: std::env::current_dir().context("the current directory")?,
        path: values.maybe("path-override"),
        container_uuid,
        log,
    })
}
