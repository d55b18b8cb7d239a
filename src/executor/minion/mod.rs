//! `km minion`: the command that Mesos starts on an agent. It runs the executor, keeps its log, and restarts it when it dies unasked: a
//! restarted executor finds its containers again, so a crash costs no pod.

mod log;

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::Context;
use futures_util::future::{FusedFuture, FutureExt};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::process::Command;
use tokio::time::Instant;

use crate::supervise::{Shutdown, Supervisor};

pub use log::Limits as LogLimits;

/// Time for the executor to end after SIGTERM, and then after SIGKILL.
const TERM_GRACE: Duration = Duration::from_secs(5);
const KILL_GRACE: Duration = Duration::from_millis(2500);
/// How long to read the remaining output of a program that has ended.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// Pause before the executor is restarted.
const PAUSE: Duration = Duration::from_secs(1);
/// An executor that dies this often within this time is given up.
const TRIES: usize = 5;
const TRIES_WITHIN: Duration = Duration::from_mins(2);

/// Configuration of a minion.
#[derive(Clone, Debug)]
pub struct Config {
    /// The executable to run, usually its own.
    pub executable: PathBuf,
    /// Arguments of the executor, its subcommand first.
    pub executor: Vec<String>,
    /// The directory of the logs and of the programs: the sandbox.
    pub directory: PathBuf,
    /// PATH of the programs; `None` for the minion's own. `<directory>/bin` follows in either case.
    pub path: Option<String>,
    /// Mesos' id of the container.
    pub container_uuid: String,
    pub log: LogLimits,
}

/// Mesos' id of the container that this process runs in: the last part of the sandbox's path. Empty outside of Mesos.
pub fn container_uuid(mesos_directory: Option<&str>) -> String {
    let name = mesos_directory.and_then(|path| Path::new(path).file_name());
    name.map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// The cgroup of that container.
pub fn cgroup(prefix: &str, container_uuid: &str) -> Option<String> {
    (!container_uuid.is_empty()).then(|| format!("/{}/{container_uuid}", prefix.trim_matches('/')))
}

/// Runs until `shutdown`, or until the executor ends because it is done.
///
/// # Errors
/// If the executor cannot be started, or dies again and again.
pub async fn run(config: Config, shutdown: Shutdown) -> anyhow::Result<()> {
    let supervisor = Supervisor::new(shutdown.child_token());
    let stop = supervisor.shutdown();
    supervisor.spawn("executor", async move {
        let ended = keep_executor(&config, &stop).await;
        stop.cancel();
        ended
    });
    supervisor.wait(TERM_GRACE + KILL_GRACE * 2).await
}

async fn keep_executor(config: &Config, stop: &Shutdown) -> anyhow::Result<()> {
    let mut deaths = VecDeque::new();
    loop {
        let Some(status) = run_once(config, "executor", &config.executor, stop).await? else { return Ok(()) };
        if status.success() {
            tracing::info!("the executor has ended by itself");
            return Ok(());
        }
        let now = Instant::now();
        deaths.push_back(now);
        deaths.retain(|at| now.duration_since(*at) < TRIES_WITHIN);
        anyhow::ensure!(
            deaths.len() < TRIES,
            "the executor died {TRIES} times in {TRIES_WITHIN:?}, the last time with {status}; see executor.log"
        );
        tracing::warn!("the executor died ({status}): it is started again and finds its containers");
        if stop.run_until_cancelled(tokio::time::sleep(PAUSE)).await.is_none() {
            return Ok(());
        }
    }
}

/// Runs a program to its end; `None` if it was stopped.
async fn run_once(config: &Config, name: &str, arguments: &[String], stop: &Shutdown) -> anyhow::Result<Option<ExitStatus>> {
    let log = log::Rotated::open(&config.directory, &format!("{name}.log"), config.log)?;
    let mut child = command(config, arguments).spawn().with_context(|| format!("{} {name}", config.executable.display()))?;
    let group = child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw);
    let said = child.stderr.take();
    let mut running = pin!(async move {
        let mut copying = pin!(log::copy(said, log).fuse());
        let status = tokio::select! {
            status = child.wait() => status,
            () = &mut copying => child.wait().await,
        };
        // Others that it started may hold its output open for longer.
        if !copying.is_terminated() {
            let _ = tokio::time::timeout(LAST_WORDS, copying).await;
        }
        status
    });
    tokio::select! {
        status = &mut running => return Ok(Some(status?)),
        () = stop.cancelled() => {}
    }
    // SIGTERM to the program's process group, then SIGKILL if necessary.
    for (signal, grace) in [(Signal::SIGTERM, TERM_GRACE), (Signal::SIGKILL, KILL_GRACE)] {
        if let Some(group) = group {
            let _ = killpg(group, signal);
        }
        if tokio::time::timeout(grace, &mut running).await.is_ok() {
            break;
        }
    }
    Ok(None)
}

fn command(config: &Config, arguments: &[String]) -> Command {
    let path = config.path.clone().or_else(|| std::env::var("PATH").ok()).unwrap_or_default();
    let mut command = Command::new(&config.executable);
    command
        .args(arguments)
        .current_dir(&config.directory)
        .env("PATH", format!("{path}:{}", config.directory.join("bin").display()))
        .env("MESOS_EXECUTOR_CONTAINER_UUID", &config.container_uuid)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(dir: &Path, script: &str) -> Config {
        Config {
            executable: "/bin/sh".into(),
            executor: vec!["-c".to_owned(), script.to_owned()],
            directory: dir.to_owned(),
            path: None,
            container_uuid: "c1".to_owned(),
            log: LogLimits::default(),
        }
    }

    #[test]
    fn cgroups_are_found() {
        let uuid = container_uuid(Some("/var/lib/mesos/slaves/s/frameworks/f/executors/e/runs/0a1b"));
        assert_eq!(cgroup("mesos", &uuid).as_deref(), Some("/mesos/0a1b"));
        assert_eq!(cgroup("mesos", &container_uuid(None)), None);
    }

    #[tokio::test]
    async fn a_dead_executor_is_started_again_until_it_is_done() {
        let dir = tempfile::tempdir().unwrap();
        let script = "echo run $MESOS_EXECUTOR_CONTAINER_UUID >&2; test -e died && exit 0; touch died; kill -9 $$";
        run(config(dir.path(), script), Shutdown::new()).await.unwrap();
        assert_eq!(std::fs::read_to_string(dir.path().join("executor.log")).unwrap(), "run c1\nrun c1\n");
    }

    #[tokio::test]
    async fn it_stops_its_programs() {
        let dir = tempfile::tempdir().unwrap();
        let script = "trap 'touch told; exit 0' TERM; touch up; while :; do sleep 0.02; done";
        let shutdown = Shutdown::new();
        let stopping = async {
            while !dir.path().join("up").exists() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            shutdown.cancel();
        };
        let (ran, ()) = tokio::join!(run(config(dir.path(), script), shutdown.clone()), stopping);
        ran.unwrap();
        assert!(dir.path().join("told").exists());
    }
}
