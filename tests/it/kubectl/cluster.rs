//! What a session is played against: an API server on a store of its own, a controller manager, and no node.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use crate::support::process::Process;
use crate::support::{free_port, km, source, wait_for};

#[derive(Debug)]
pub struct Cluster {
    url: String,
    kubectl: PathBuf,
    minor: u32,
    _controllers: Process,
    _server: Process,
    dir: tempfile::TempDir,
}

impl Cluster {
    pub fn start() -> Self {
        let dir = tempfile::Builder::new().prefix("km-test-").tempdir().expect("a scratch directory");
        let (port, health) = (free_port(), free_port());
        let mut command = Command::new(km());
        command.arg("apiserver").arg(format!("--port={port}")).arg(format!("--data-dir={}", dir.path().join("data").display()));
        command.arg("--service-cluster-ip-range=10.0.0.0/16");
        let mut server = Process::start("apiserver", &mut command, &dir.path().join("apiserver.log"));
        wait_for("the API server", Duration::from_secs(30), || {
            assert!(server.ended().is_none(), "the API server ended");
            std::net::TcpStream::connect(("127.0.0.1", port)).map_err(|error| error.to_string())
        });
        let mut command = Command::new(km());
        command.arg("controller-manager").arg(format!("--master=127.0.0.1:{port}"));
        command.args(["--address=127.0.0.1", &format!("--port={health}"), "--leader-elect=false"]);
        let controllers = Process::start("controller-manager", &mut command, &dir.path().join("controller-manager.log"));
        let kubectl = kubectl();
        let minor = minor(&kubectl);
        Self { url: format!("http://127.0.0.1:{port}"), kubectl, minor, _controllers: controllers, _server: server, dir }
    }

    /// 33 for a kubectl of version 1.33.
    pub fn minor(&self) -> u32 {
        self.minor
    }

    /// Makes these namespaces, and a directory for each with a kubeconfig that leads there.
    pub fn prepare(&self, namespaces: impl Iterator<Item = String>) {
        let bin = self.dir.path().join("bin");
        std::fs::create_dir(&bin).expect("a directory");
        for (program, name) in [(self.kubectl.clone(), "kubectl"), (source("tests/it/kubectl/ready.sh"), "ready")] {
            std::os::unix::fs::symlink(program, bin.join(name)).expect("a link");
        }
        let (mut manifests, mut count) = (String::new(), 0);
        for namespace in namespaces {
            manifests.push_str(&format!("{{apiVersion: v1, kind: Namespace, metadata: {{name: {namespace}}}}}\n---\n"));
            count += 1;
            let dir = self.home(&namespace);
            std::fs::create_dir(&dir).expect("a directory of its own: titles differ");
            let config = format!(
                "apiVersion: v1\nkind: Config\ncurrent-context: test\nclusters: [{{name: test, cluster: {{server: \"{}\"}}}}]\n\
                 contexts: [{{name: test, context: {{cluster: test, user: test, namespace: {namespace}}}}}]\nusers: [{{name: test, user: {{}}}}]\n",
                self.url
            );
            std::fs::write(dir.join("kubeconfig"), config).expect("a kubeconfig");
        }
        let file = self.dir.path().join("namespaces.yaml");
        std::fs::write(&file, manifests).expect("a manifest");
        let run = |args: &[&str]| {
            let mut command = Command::new(&self.kubectl);
            command.env("HOME", self.dir.path()).env("KUBECONFIG", "/dev/null").arg("--server").arg(&self.url).args(args);
            command.output().expect("kubectl is installed")
        };
        let made = run(&["create", "-f", &file.display().to_string()]);
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        // Pods need the account that a controller makes in every namespace.
        wait_for("service accounts", Duration::from_secs(30), || {
            let seen = String::from_utf8_lossy(&run(&["get", "serviceaccounts", "-A", "--no-headers"]).stdout).into_owned();
            if seen.lines().count() >= count { Ok(()) } else { Err(seen) }
        });
    }

    /// The directory of a namespace's case.
    pub fn home(&self, namespace: &str) -> PathBuf {
        self.dir.path().join(format!("case-{namespace}"))
    }

    /// Runs a line of shell in the directory of a case.
    pub fn shell(&self, namespace: &str, line: &str) -> Output {
        let home = self.home(namespace);
        let path = format!("{}:{}", self.dir.path().join("bin").display(), std::env::var("PATH").unwrap_or_default());
        let mut command = Command::new("timeout");
        command.args(["60", "bash", "-c", line]).current_dir(&home).stdin(std::process::Stdio::null());
        // What kubectl remembers of discovery is shared.
        command.env("HOME", self.dir.path()).env("KUBECONFIG", home.join("kubeconfig")).env("PATH", path);
        command.env("NS", namespace).env("SERVER", &self.url).env("LC_ALL", "C").env("TZ", "UTC").env_remove("RUST_LOG");
        command.output().expect("bash is installed")
    }
}

/// The kubectl on the PATH; or, where that is one that only chooses among several beside it, the one it would choose for km, which halves
/// the time of every command.
fn kubectl() -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|it| it.join("kubectl")).find(|it| it.exists()).expect("kubectl is installed");
    let real = found.canonicalize().expect("a path");
    let chosen = real.with_file_name("kubectl.1.33");
    if chosen.exists() { chosen } else { real }
}

fn minor(kubectl: &Path) -> u32 {
    let output = Command::new(kubectl).args(["version", "--client", "-o", "json"]).output().expect("kubectl is installed");
    let version: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let minor = version["clientVersion"]["minor"].as_str().expect("a minor version");
    minor.trim_end_matches(|it: char| !it.is_ascii_digit()).parse().expect("a number")
}
