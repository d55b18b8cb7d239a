//! The flags that every subcommand has, and what several of them share.

use std::future::Future;
use std::net::IpAddr;
use std::time::Duration;

use anyhow::Context;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::flag::{Flag, Kind, Values};
use crate::supervise::{Supervisor, cancel_on_signals};
use crate::telemetry::logs;

const LOGS_GO_TO_STDERR: &str = "logs go to standard error";
pub(super) const NO_CADVISOR: &str = "km does not run cAdvisor";
pub(super) const HOST_NETWORK: &str = "any pod may use the host's network";
pub(super) const DOCKER_NETWORK: &str = "pods are on Docker's network";

pub(super) const FLAGS: &[Flag] = &[
    Flag::new("version", Kind::Text, "false", "Print the version and quit; `raw` prints more"),
    Flag::new("v", Kind::Integer, "0", "How much to log: 4 is debugging, 6 is everything"),
    Flag::new("vmodule", Kind::List, "", "Verbosity of single modules, such as scheduler=6,mesos=4"),
    Flag::obsolete("logtostderr", Kind::Bool, LOGS_GO_TO_STDERR),
    Flag::obsolete("alsologtostderr", Kind::Bool, LOGS_GO_TO_STDERR),
    Flag::obsolete("stderrthreshold", Kind::Text, LOGS_GO_TO_STDERR),
    Flag::obsolete("log-backtrace-at", Kind::Text, "set RUST_BACKTRACE=1 instead"),
    Flag::obsolete("log-dir", Kind::Text, LOGS_GO_TO_STDERR),
    Flag::obsolete("log-flush-frequency", Kind::Duration, LOGS_GO_TO_STDERR),
    Flag::obsolete("housekeeping-interval", Kind::Duration, NO_CADVISOR),
    Flag::obsolete("global-housekeeping-interval", Kind::Duration, NO_CADVISOR),
];

/// How long a component may take to stop after the first signal.
pub(super) const GRACE: Duration = Duration::from_secs(10);

/// An address at which others reach a server that listens on `address`: the address itself, unless it is unspecified (0.0.0.0).
pub(super) fn reachable(address: IpAddr) -> IpAddr {
    if !address.is_unspecified() {
        return address;
    }
    // The source address of packets to other networks; nothing is sent.
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").and_then(|it| it.connect("192.0.2.1:9").map(|()| it));
    socket.and_then(|it| it.local_addr()).map_or(IpAddr::from([127, 0, 0, 1]), |it| it.ip())
}

/// The host name of this machine.
pub(super) fn hostname() -> String {
    nix::unistd::gethostname().ok().and_then(|it| it.into_string().ok()).unwrap_or_else(|| "localhost".to_owned())
}

pub(super) fn start_logs(values: &Values) {
    let modules = values.list("vmodule");
    let modules =
        modules.iter().filter_map(|it| it.split_once('=')).filter_map(|(name, level)| Some((name.to_owned(), level.parse().ok()?)));
    logs::init(&logs::Config { verbosity: values.integer("v").unwrap_or_default(), modules: modules.collect() });
}

/// Raises the soft limit of open files to the hard one: the usual soft limit is meant for programs that use `select`.
fn allow_many_files() {
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < hard
        && let Err(error) = setrlimit(Resource::RLIMIT_NOFILE, hard, hard)
    {
        tracing::warn!("the limit of open files stays at {soft}: {error}");
    }
}

/// Runs a component until it stops by itself or on a signal. `start` gets the supervisor that owns its tasks.
pub(super) fn run<F, Fut>(start: F) -> anyhow::Result<()>
where
    F: FnOnce(Supervisor) -> Fut,
    Fut: Future<Output = anyhow::Result<()>>,
{
    allow_many_files();
    // Two worker threads suffice for a control plane on a small machine and keep its idle memory low; larger machines get more.
    let workers = std::thread::available_parallelism().map_or(2, |it| it.get().max(2));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(workers).enable_all().build()?;
    let outcome = runtime.block_on(async {
        let supervisor = Supervisor::default();
        let shutdown = supervisor.shutdown();
        let work = async {
            let started = tokio::select! {
                started = start(supervisor.clone()) => started,
                () = shutdown.cancelled() => Ok(()),
            };
            if started.is_err() {
                shutdown.cancel();
            }
            let drained = supervisor.wait(GRACE).await;
            started.and(drained)
        };
        tokio::select! {
            outcome = work => outcome,
            // Keeps listening: a second signal must be noticed while the first one's stop takes its time.
            failed = cancel_on_signals(shutdown.clone()) => failed.context("signals cannot be received"),
        }
    });
    // A thread that still blocks (in a resolver, on a file) does not hold up the process.
    runtime.shutdown_timeout(Duration::from_millis(200));
    outcome
}
