//! The real Apache Mesos 1.11.0, as scripts/mesos starts it.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use km::mesos::http;
use km::mesos::v1::CommandInfo;
use tempfile::TempDir;

/// A Master with Agents in one process.
pub(crate) struct Mesos {
    pub(crate) port: u16,
    process: Child,
    work: TempDir,
    agents: usize,
}

impl Mesos {
    /// Starts a cluster and waits for its agents.
    pub(crate) async fn start(agents: usize) -> Self {
        Self::start_with(agents, None).await
    }

    /// Likewise, with the master elected through ZooKeeper, if there is one.
    pub(crate) async fn start_with(agents: usize, zookeeper: Option<&str>) -> Self {
        let (port, work) = (free_port(), tempfile::tempdir().expect("a work directory"));
        let mesos = Self { process: spawn(port, work.path(), agents, zookeeper), port, work, agents };
        mesos.ready().await;
        mesos
    }

    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Kills Master and Agents, and restarts them on their directories.
    pub(crate) async fn restart(&mut self) {
        self.kill();
        self.process = spawn(self.port, self.work.path(), self.agents, None);
        self.ready().await;
    }

    fn kill(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }

    async fn ready(&self) {
        let activated = format!("\"activated_slaves\":{}", self.agents);
        let ready = async {
            loop {
                let state = http::get(&self.address(), "/state", None, Duration::from_secs(5)).await;
                if state.is_ok_and(|(head, body)| head.status == 200 && String::from_utf8_lossy(&body).contains(&activated)) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(120), ready).await.expect("Mesos did not start");
    }
}

impl Drop for Mesos {
    fn drop(&mut self) {
        self.kill();
    }
}

fn spawn(port: u16, work: &Path, agents: usize, zookeeper: Option<&str>) -> Child {
    Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/mesos"))
        .args(["start", "--port", &port.to_string(), "--agents", &agents.to_string(), "--work-dir"])
        .arg(work)
        .args(zookeeper.into_iter().flat_map(|url| ["--zk", url]))
        .args(["--resources", "cpus:4;mem:4096;disk:10000;ports:[31000-31009]", "--attributes", "rack:7;zone:a"])
        .env("MESOS_ALLOCATION_INTERVAL", "100ms")
        // how long an executor that the test leaves behind waits for its agent
        .env("MESOS_RECOVERY_TIMEOUT", "10secs")
        .env("GLOG_minloglevel", "1")
        .stdout(Stdio::null())
        .stderr(std::fs::File::create(work.join("log")).expect("a log file"))
        .spawn()
        .expect("scripts/mesos")
}

/// Runs the executor of [`super::executor`] by calling this test program again.
pub(super) fn executor_command() -> CommandInfo {
    let program = std::env::current_exe().expect("the path of this program");
    CommandInfo {
        value: Some(format!("exec {} --exact mesos::runs_as_executor --ignored --nocapture", program.display())),
        ..CommandInfo::default()
    }
}

/// A port that is not in use.
pub(super) fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port").port()
}
