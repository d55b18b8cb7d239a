//! What a session is played against: an API server on a store of its own, a controller manager, and no node.

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

use crate::support::plane::Plane;
use crate::support::{kubectl, source};

pub struct Cluster {
    plane: Plane,
    minor: u32,
}

impl Cluster {
    pub fn start() -> Self {
        let plane = Plane::start();
        let bin = plane.dir.path().join("bin");
        std::fs::create_dir(&bin).expect("a directory");
        for (program, name) in [(kubectl(), "kubectl"), (source("tests/it/kubectl/ready.sh"), "ready")] {
            std::os::unix::fs::symlink(program, bin.join(name)).expect("a link");
        }
        let version: serde_json::Value = serde_json::from_str(&plane.ok(&["version", "--client", "-o", "json"])).expect("JSON");
        let minor = version["clientVersion"]["minor"].as_str().expect("a minor version");
        let minor = minor.trim_end_matches(|it: char| !it.is_ascii_digit()).parse().expect("a number");
        Self { plane, minor }
    }

    /// 33 for a kubectl of version 1.33.
    pub fn minor(&self) -> u32 {
        self.minor
    }

    /// Makes these namespaces, and a directory for each with a kubeconfig that leads there.
    pub fn prepare(&self, namespaces: &[String]) {
        for namespace in namespaces {
            let home = self.home(namespace);
            std::fs::create_dir(&home).expect("a directory of its own: titles differ");
            let config = json!({
                "apiVersion": "v1", "kind": "Config", "current-context": "test",
                "clusters": [{"name": "test", "cluster": {"server": self.plane.url}}],
                "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test", "namespace": namespace}}],
                "users": [{"name": "test", "user": {}}],
            });
            std::fs::write(home.join("kubeconfig"), config.to_string()).expect("a kubeconfig");
        }
        let namespace = |name: &String| json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        let items: Vec<Value> = namespaces.iter().map(namespace).collect();
        self.plane.created(&json!({"apiVersion": "v1", "kind": "List", "items": items}));
        // Pods need the account that a controller makes in every namespace.
        let accounts = ["get", "serviceaccounts", "-A", "-o", "jsonpath={.items[*].metadata.namespace}"];
        self.plane.wait_until("service accounts", &accounts, |said| {
            namespaces.iter().all(|namespace| said.split_whitespace().any(|it| it == namespace))
        });
    }

    /// The directory of a namespace's case.
    pub fn home(&self, namespace: &str) -> PathBuf {
        self.plane.dir.path().join(format!("case-{namespace}"))
    }

    /// Runs a line of shell in the directory of a case.
    pub fn shell(&self, namespace: &str, line: &str) -> Output {
        let (dir, home) = (self.plane.dir.path(), self.home(namespace));
        let path = format!("{}:{}", dir.join("bin").display(), std::env::var("PATH").unwrap_or_default());
        let mut command = Command::new("timeout");
        command.args(["60", "bash", "-c", line]).current_dir(&home).stdin(Stdio::null());
        // What kubectl remembers of discovery is shared.
        command.env("HOME", dir).env("KUBECONFIG", home.join("kubeconfig")).env("PATH", path).env("NS", namespace);
        command.env("LC_ALL", "C").env("TZ", "UTC").env_remove("RUST_LOG");
        command.output().expect("bash is installed")
    }
}
