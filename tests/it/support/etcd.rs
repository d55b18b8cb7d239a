//! An etcd of one or more members on free ports.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::process::{Process, run};
use super::{free_port, wait_for};

#[derive(Debug)]
pub struct Etcd {
    dir: PathBuf,
    members: Vec<Member>,
}

#[derive(Debug)]
struct Member {
    client: String,
    peer: String,
    process: Option<Process>,
}

impl Etcd {
    /// Starts this many members, and waits until they have a leader.
    pub fn start(dir: &Path, members: usize) -> Self {
        let url = || format!("http://127.0.0.1:{}", free_port());
        let members = (0..members).map(|_| Member { client: url(), peer: url(), process: None }).collect();
        let mut etcd = Self { dir: dir.to_owned(), members };
        (0..etcd.members.len()).for_each(|at| etcd.run(at));
        wait_for("etcd", Duration::from_secs(60), || etcd.leader().map(drop).ok_or_else(|| "no leader".to_owned()));
        etcd
    }

    /// Runs a member, on its earlier data if there is any.
    pub fn run(&mut self, at: usize) {
        let cluster: Vec<String> = self.members.iter().enumerate().map(|(at, it)| format!("m{at}={}", it.peer)).collect();
        let Member { client, peer, process } = &mut self.members[at];
        let mut command = Command::new("etcd");
        command.args(["--name", &format!("m{at}"), "--data-dir"]).arg(self.dir.join(format!("etcd-{at}")));
        command.args(["--listen-client-urls", client, "--advertise-client-urls", client]);
        command.args(["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", &cluster.join(",")]);
        *process = Some(Process::start("etcd", &mut command, &self.dir.join(format!("etcd-{at}.log"))));
    }

    /// `kill -9`.
    pub fn kill(&mut self, at: usize) {
        self.members[at].process.take().expect("the member runs").kill();
    }

    /// The member that leads, if they agree on one.
    pub fn leader(&self) -> Option<usize> {
        (0..self.members.len()).filter(|at| self.members[*at].process.is_some()).find(|at| {
            let status = Command::new("etcdctl")
                .env("ETCDCTL_API", "3")
                .args(["--endpoints", &self.members[*at].client, "endpoint", "status", "-w", "json"])
                .output();
            let status = status.ok().and_then(|it| serde_json::from_slice::<serde_json::Value>(&it.stdout).ok()).unwrap_or_default();
            let (leader, own) = (&status[0]["Status"]["leader"], &status[0]["Status"]["header"]["member_id"]);
            leader.is_number() && leader == own
        })
    }

    /// The flag that leads an API server here.
    pub fn flag(&self) -> String {
        format!("--etcd-servers={}", self.members.iter().map(|it| it.client.as_str()).collect::<Vec<_>>().join(","))
    }

    /// The output of `etcdctl`.
    pub fn ctl(&self, args: &[&str]) -> String {
        let endpoint = self.members.iter().find(|it| it.process.is_some()).map(|it| it.client.as_str()).unwrap_or_default();
        run(Command::new("etcdctl").env("ETCDCTL_API", "3").args(["--endpoints", endpoint]).args(args))
    }
}
