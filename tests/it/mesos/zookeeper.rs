//! A ZooKeeper server of our own, as Debian packages it.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use km::mesos::zookeeper::{Client, Ensemble};
use tempfile::TempDir;

pub(crate) struct ZooKeeper {
    pub(crate) port: u16,
    process: Child,
    directory: TempDir,
}

impl ZooKeeper {
    /// Starts a server and waits until it takes sessions.
    pub(crate) async fn start() -> Self {
        let (port, directory) = (super::real::free_port(), tempfile::tempdir().expect("a directory"));
        let settings = format!(
            "tickTime=500\ndataDir={}\nclientPort={port}\nclientPortAddress=127.0.0.1\nadmin.enableServer=false\n",
            directory.path().display()
        );
        std::fs::write(directory.path().join("zoo.cfg"), settings).expect("the settings");
        let zookeeper = Self { port, process: spawn(&directory), directory };
        zookeeper.ready().await;
        zookeeper
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("zk://127.0.0.1:{}{path}", self.port)
    }

    pub(crate) async fn client(&self) -> Client {
        Client::open(&self.ensemble(), 0).await.expect("a session")
    }

    pub(crate) async fn restart(&mut self) {
        self.kill();
        self.process = spawn(&self.directory);
        self.ready().await;
    }

    fn ensemble(&self) -> Ensemble {
        Ensemble::parse(&format!("127.0.0.1:{}", self.port)).expect("an ensemble")
    }

    async fn ready(&self) {
        let ready = async {
            while Client::open(&self.ensemble(), 0).await.is_err() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), ready).await.expect("ZooKeeper did not start");
    }

    fn kill(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Drop for ZooKeeper {
    fn drop(&mut self) {
        self.kill();
    }
}

fn spawn(directory: &TempDir) -> Child {
    let log = std::fs::File::create(directory.path().join("log")).expect("a log file");
    Command::new("java")
        .args(["-Xmx128m", "-cp", "/usr/share/java/*", "org.apache.zookeeper.server.quorum.QuorumPeerMain"])
        .arg(directory.path().join("zoo.cfg"))
        .stdout(log.try_clone().expect("the log file"))
        .stderr(log)
        .stdin(Stdio::null())
        .spawn()
        .expect("java and the package zookeeper")
}
