//! km's own master and agent, with executors in this process.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use km::local_mesos::{self, AgentOptions, Cluster, Launcher, Options, Running};
use km::mesos::executor::Environment;
use km::mesos::v1::ExecutorInfo;
use km::supervise::{Shutdown, Supervisor};
use tokio::net::TcpListener;

/// A local cluster of one agent.
pub(super) struct Local {
    supervisor: Supervisor,
    pub(super) cluster: Cluster,
}

struct InProcess(Shutdown);

impl Launcher for InProcess {
    fn launch(&self, _: &ExecutorInfo, environment: BTreeMap<String, String>) -> Running {
        let environment = Environment::read(|name| environment.get(name).cloned()).expect("the environment of an executor");
        let shutdown = self.0.child_token();
        Box::pin(async move {
            super::executor::run(environment, shutdown).await;
            0
        })
    }
}

impl Local {
    pub(super) async fn start() -> Self {
        Self::start_in(None, "127.0.0.1:0".parse().expect("an address")).await
    }

    /// Starts on the directory of an earlier cluster.
    pub(super) async fn start_in(directory: Option<&Path>, address: SocketAddr) -> Self {
        let supervisor = Supervisor::default();
        let options = Options {
            cluster: "test".into(),
            agents: vec![AgentOptions {
                hostname: "localhost".into(),
                resources: "cpus:4;mem:4096;disk:10000;ports:[31000-31009]".into(),
                attributes: "rack:7;zone:a".into(),
            }],
            directory: directory.map(PathBuf::from),
            allocation_interval: Duration::from_millis(20),
        };
        let listener = TcpListener::bind(address).await.expect("a port");
        let cluster = local_mesos::start(listener, options, InProcess(supervisor.shutdown()), &supervisor).expect("a local cluster");
        Self { supervisor, cluster }
    }

    pub(super) fn address(&self) -> String {
        self.cluster.address().to_string()
    }

    pub(super) async fn stop(self) {
        self.supervisor.shutdown().cancel();
        self.supervisor.clone().wait(Duration::from_secs(10)).await.expect("the local cluster's end");
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        self.supervisor.shutdown().cancel();
    }
}
