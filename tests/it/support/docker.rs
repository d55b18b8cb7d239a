//! A Docker engine for a test, and images built on the spot.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::host::Host;
use super::process::{Process, run};
use super::wait_for;

/// An engine on a [`Host`], with its own bridge, containers and images.
#[derive(Debug)]
pub struct Docker {
    socket: PathBuf,
    root: PathBuf,
    engine: Option<Process>,
}

impl Docker {
    /// Starts an engine; images not found locally come from the registry at `mirror` (`http://host:port`).
    pub fn start(host: &Host, mirror: Option<&str>) -> Self {
        Self::start_with(host.command("dockerd"), host.dir(), mirror)
    }

    /// Starts an engine in the network of the test itself, on a bridge of this name that is there.
    pub fn start_here(dir: &Path, bridge: &str) -> Self {
        let mut command = Command::new("dockerd");
        command.args(["--bridge", bridge, "--iptables=false", "--ip6tables=false", "--ip-masq=false"]);
        Self::start_with(command, dir, None)
    }

    /// An engine that does not run, where [`Docker::start_here`] would start one.
    pub fn stopped(dir: &Path) -> Self {
        let root = dir.join("docker");
        Self { socket: root.join("docker.sock"), root, engine: None }
    }

    fn start_with(mut command: Command, dir: &Path, mirror: Option<&str>) -> Self {
        let root = dir.join("docker");
        std::fs::create_dir_all(&root).expect("a directory for the engine");
        let socket = root.join("docker.sock");
        command.args(["--log-level", "warn", "--storage-driver", "overlay2"]);
        for (flag, path) in [("--data-root", "data"), ("--exec-root", "exec"), ("--pidfile", "pid")] {
            command.arg(flag).arg(root.join(path));
        }
        command.arg("--host").arg(format!("unix://{}", socket.display()));
        if let Some(mirror) = mirror {
            command.arg("--registry-mirror").arg(mirror);
        }
        let mut docker = Self { socket, root, engine: None };
        let mut engine = Process::start("dockerd", &mut command, &dir.join("dockerd.log"));
        wait_for("the Docker engine", Duration::from_secs(60), || {
            assert!(engine.ended().is_none(), "dockerd ended: {}", engine.said());
            let answer = docker.command().args(["version", "--format", "{{.Server.Version}}"]).output();
            if answer.is_ok_and(|it| it.status.success()) { Ok(()) } else { Err("no answer".to_owned()) }
        });
        docker.engine = Some(engine);
        docker
    }

    /// In the form of DOCKER_HOST.
    pub fn endpoint(&self) -> String {
        format!("unix://{}", self.socket.display())
    }

    /// The client, for this engine.
    pub fn command(&self) -> Command {
        let mut command = Command::new("docker");
        command.arg("--host").arg(self.endpoint());
        command
    }

    /// The ids of running containers that have this label (`key` or `key=value`).
    pub fn running(&self, label: &str) -> Vec<String> {
        let out = run(self.command().args(["ps", "--quiet", "--no-trunc", "--filter", &format!("label={label}")]));
        out.lines().map(str::to_owned).collect()
    }

    /// An image of busybox, with everything it can do on the PATH.
    pub fn add_busybox(&self, name: &str) {
        let files = tempfile::tempdir().expect("a scratch directory");
        let bin = files.path().join("bin");
        std::fs::create_dir_all(&bin).expect("a directory");
        std::fs::copy("/bin/busybox", bin.join("busybox")).expect("busybox-static is installed");
        for applet in run(Command::new("/bin/busybox").arg("--list")).lines().filter(|it| *it != "busybox") {
            let _ = std::os::unix::fs::symlink("busybox", bin.join(applet));
        }
        std::fs::create_dir_all(files.path().join("tmp")).expect("a directory");
        self.import(name, files.path(), &["CMD [\"/bin/sh\"]", "ENV PATH=/bin"]);
    }

    /// An image of the files below `root`.
    pub fn import(&self, name: &str, root: &Path, changes: &[&str]) {
        let archive = root.with_extension("tar");
        run(Command::new("tar").arg("-cf").arg(&archive).arg("-C").arg(root).arg("."));
        let mut command = self.command();
        command.arg("import");
        for change in changes {
            command.args(["--change", change]);
        }
        run(command.arg(&archive).arg(name));
        let _ = std::fs::remove_file(archive);
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        if self.engine.is_none() {
            return;
        }
        // Containers first: they do not end with their engine.
        let all = self.command().args(["ps", "--all", "--quiet"]).output();
        let all = all.map(|it| String::from_utf8_lossy(&it.stdout).into_owned()).unwrap_or_default();
        if !all.trim().is_empty() {
            let _ = self.command().args(["rm", "--force", "--volumes"]).args(all.split_whitespace()).output();
        }
        self.engine.take();
        // The engine's mounts would prevent the removal of the scratch directory.
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let below = mounts.lines().filter_map(|it| it.split(' ').nth(1)).filter(|it| Path::new(it).starts_with(&self.root));
        for mount in below {
            let _ = Command::new("umount").args(["--lazy", mount]).output();
        }
    }
}
