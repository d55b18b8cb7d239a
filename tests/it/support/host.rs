//! A host for a test: a network namespace with one address and no route, so that every port is free and no packet leaves it.

use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use super::process::run;

static COUNT: AtomicU32 = AtomicU32::new(0);

/// A network namespace and a scratch directory; both go with it.
#[derive(Debug)]
pub struct Host {
    name: String,
    dir: TempDir,
}

impl Host {
    /// The address of every host; hosts do not see each other.
    pub const IP: &str = "10.76.0.1";

    pub fn new() -> Self {
        let name = format!("km{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let ip = |args: &[&str]| run(Command::new("ip").args(args));
        ip(&["netns", "add", &name]);
        let host = Self { name, dir: tempfile::Builder::new().prefix("km-test-").tempdir().expect("a scratch directory") };
        for args in [
            ["link", "set", "lo", "up"].as_slice(),
            &["link", "add", "eth0", "type", "bridge"],
            &["addr", "add", "10.76.0.1/24", "dev", "eth0"],
            &["link", "set", "eth0", "up"],
        ] {
            run(host.command("ip").args(args));
        }
        host
    }

    /// A command that will run on this host. Only the network is separate: files and cgroups are shared.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.name)).arg("--").arg(program).current_dir(self.dir());
        command.env("HOME", self.dir()).env_remove("KUBECONFIG").env_remove("DOCKER_HOST").env_remove("RUST_LOG");
        command
    }

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }
}

impl Drop for Host {
    /// Whatever still runs on it ends with it: executors outlive the agents that started them.
    fn drop(&mut self) {
        let left = Command::new("ip").args(["netns", "pids", &self.name]).output().map(|it| it.stdout).unwrap_or_default();
        for pid in String::from_utf8_lossy(&left).lines().filter_map(|line| line.trim().parse().ok()) {
            // It may have ended meanwhile.
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        let _ = Command::new("ip").args(["netns", "delete", &self.name]).status();
    }
}
