//! The cluster for a session: an API server on its own store, a controller manager, and no node. Or the cluster of a kubeconfig, to check
//! that a session is what Kubernetes prints.

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::plane::Plane;
use crate::support::process::run;
use crate::support::{kubectl, source, wait_for};

/// Names the kubeconfig of a cluster to play against.
const ELSEWHERE: &str = "KM_SESSIONS_KUBECONFIG";

pub struct Cluster {
    dir: tempfile::TempDir,
    /// From a kubeconfig: the cluster and the user.
    cluster: Value,
    user: Value,
    minor: u32,
    /// Processes started for it.
    own: Option<Plane>,
    /// Namespaces to delete, in a cluster that outlives the test.
    namespaces: Vec<String>,
}

impl Cluster {
    pub fn start() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let bin = dir.path().join("bin");
        std::fs::create_dir(&bin).expect("a directory");
        for (program, name) in [(kubectl(), "kubectl"), (source("tests/it/kubectl/ready.sh"), "ready")] {
            std::os::unix::fs::symlink(program, bin.join(name)).expect("a link");
        }
        let said = |args: &[&str]| -> Value { serde_json::from_str(&run(Command::new(kubectl()).args(args))).expect("JSON") };
        let version = said(&["version", "--client", "-o", "json"]);
        let minor = version["clientVersion"]["minor"].as_str().expect("a minor version");
        let minor = minor.trim_end_matches(|it: char| !it.is_ascii_digit()).parse().expect("a number");
        let (own, mut config) = if let Some(path) = std::env::var_os(ELSEWHERE) {
            let path = path.to_str().expect("a path");
            (None, said(&["config", "view", "--kubeconfig", path, "--minify", "--flatten", "--raw", "-o", "json"]))
        } else {
            let plane = Plane::start();
            let config = json!({"clusters": [{"cluster": {"server": plane.url}}], "users": [{"user": {}}]});
            (Some(plane), config)
        };
        let (cluster, user) = (config["clusters"][0]["cluster"].take(), config["users"][0]["user"].take());
        Self { dir, cluster, user, minor, own, namespaces: Vec::new() }
    }

    /// 33 for a kubectl of version 1.33.
    pub fn minor(&self) -> u32 {
        self.minor
    }

    /// Makes these namespaces, and a directory for each with a kubeconfig that leads there.
    pub fn prepare(&mut self, namespaces: &[String]) {
        for namespace in std::iter::once("default").chain(namespaces.iter().map(String::as_str)) {
            let home = self.home(namespace);
            std::fs::create_dir(&home).expect("a directory of its own: titles differ");
            let config = json!({
                "apiVersion": "v1", "kind": "Config", "current-context": "test",
                "clusters": [{"name": "test", "cluster": self.cluster}],
                "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test", "namespace": namespace}}],
                "users": [{"name": "test", "user": self.user}],
            });
            std::fs::write(home.join("kubeconfig"), config.to_string()).expect("a kubeconfig");
        }
        if self.own.is_none() {
            namespaces.clone_into(&mut self.namespaces);
        }
        let namespace = |name: &String| json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        let list = json!({"apiVersion": "v1", "kind": "List", "items": namespaces.iter().map(namespace).collect::<Vec<_>>()});
        std::fs::write(self.home("default").join("namespaces.json"), list.to_string()).expect("a file");
        self.ok("kubectl create -f namespaces.json");
        // Pods need the account that a controller makes in every namespace.
        wait_for("service accounts", Duration::from_secs(60), || {
            let said = self.ok("kubectl get serviceaccounts -A --no-headers -o custom-columns=:metadata.namespace");
            if namespaces.iter().all(|it| said.lines().any(|line| line == it)) { Ok(()) } else { Err(said) }
        });
    }

    /// The directory of a namespace's case.
    pub fn home(&self, namespace: &str) -> PathBuf {
        self.dir.path().join(format!("case-{namespace}"))
    }

    /// Runs a line of shell in the directory of a case.
    pub fn shell(&self, namespace: &str, line: &str) -> Output {
        self.command(namespace, line).output().expect("bash is installed")
    }

    fn ok(&self, line: &str) -> String {
        run(&mut self.command("default", line))
    }

    fn command(&self, namespace: &str, line: &str) -> Command {
        let (dir, home) = (self.dir.path(), self.home(namespace));
        let path = format!("{}:{}", dir.join("bin").display(), std::env::var("PATH").unwrap_or_default());
        let mut command = Command::new("timeout");
        command.args(["60", "bash", "-c", line]).current_dir(&home).stdin(Stdio::null());
        // kubectl's discovery cache is shared.
        command.env("HOME", dir).env("KUBECONFIG", home.join("kubeconfig")).env("PATH", path).env("NS", namespace);
        command.env("LC_ALL", "C").env("TZ", "UTC").env_remove("RUST_LOG");
        command
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if !self.namespaces.is_empty() {
            let _ = self.shell("default", &format!("kubectl delete namespace {}", self.namespaces.join(" ")));
        }
    }
}
