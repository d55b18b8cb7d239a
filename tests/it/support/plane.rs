//! A control plane without nodes: `km apiserver` on an embedded store and `km controller-manager`, with kubectl. The test plays the
//! kubelets.

use std::io::Write;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use km::client::Client;
use serde_json::{Value, json};

use super::process::{Process, run};
use super::{client, free_port, km, kubectl, wait_for};

/// Stopped when it is dropped.
pub struct Plane {
    pub url: String,
    pub dir: tempfile::TempDir,
    managers: Vec<Process>,
    apiserver: Process,
}

impl Plane {
    /// With one controller manager.
    pub fn start() -> Self {
        let mut plane = Self::without_controllers();
        plane.manage(&["--leader-elect=false"]);
        plane.settled_namespace("default");
        plane
    }

    pub fn without_controllers() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let port = free_port();
        let mut command = Command::new(km());
        command.arg("apiserver").arg(format!("--port={port}")).arg(format!("--data-dir={}", dir.path().join("data").display()));
        command.args(["--address=127.0.0.1", "--secure-port=0", "--service-cluster-ip-range=10.10.10.0/24"]);
        let apiserver = Process::start("apiserver", &mut command, &dir.path().join("apiserver.log"));
        let mut plane = Self { url: format!("http://127.0.0.1:{port}"), dir, managers: Vec::new(), apiserver };
        wait_for("the API server", Duration::from_secs(30), || {
            assert!(plane.apiserver.ended().is_none(), "the API server ended: {}", plane.apiserver.said());
            let out = plane.kubectl(&["get", "--raw", "/readyz"]);
            if out.status.success() { Ok(()) } else { Err(text(&out.stderr)) }
        });
        plane
    }

    /// Starts a controller manager with more flags; which one it is.
    pub fn manage(&mut self, flags: &[&str]) -> usize {
        let at = self.managers.len();
        let mut command = Command::new(km());
        command.arg("controller-manager").arg(format!("--master={}", self.url)).args(["--address=127.0.0.1", "--port=0"]);
        // No kubelet speaks for the nodes, and tests may take their time.
        command.arg("--node-monitor-grace-period=1h").args(flags);
        // No Mesos: the test creates the nodes.
        command.arg(format!("--cloud-config={}", self.cloud_config()));
        let log = self.dir.path().join(format!("controller-manager-{at}.log"));
        self.managers.push(Process::start("controller-manager", &mut command, &log));
        at
    }

    fn cloud_config(&self) -> String {
        let path = self.dir.path().join("cloud.conf");
        if !path.exists() {
            std::fs::write(&path, format!("[mesos-cloud]\n\tmesos-master = 127.0.0.1:{}\n", free_port())).expect("a file");
        }
        path.display().to_string()
    }

    pub fn manager(&self, at: usize) -> &Process {
        &self.managers[at]
    }

    /// `kill -9`; its log stays.
    pub fn kill_manager(&self, at: usize) {
        self.managers[at].signal(nix::sys::signal::Signal::SIGKILL);
    }

    pub fn apiserver(&self) -> &Process {
        &self.apiserver
    }

    /// Waits for the service account without which a namespace takes no pods.
    pub fn settled_namespace(&self, name: &str) {
        self.wait("the service account", &["get", "serviceaccount", "default", "-n", name, "-o", "name"], "serviceaccount/default\n");
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(kubectl());
        command.arg(format!("--server={}", self.url)).args(args);
        command.env("HOME", self.dir.path()).env("KUBECONFIG", "/dev/null");
        command
    }

    pub fn kubectl(&self, args: &[&str]) -> Output {
        self.command(args).stdin(Stdio::null()).output().expect("kubectl is installed")
    }

    /// The output of a command, which must succeed.
    #[track_caller]
    pub fn ok(&self, args: &[&str]) -> String {
        run(&mut self.command(args))
    }

    /// The error output of a command, which must fail.
    #[track_caller]
    pub fn fails(&self, args: &[&str]) -> String {
        let output = self.kubectl(args);
        assert!(!output.status.success(), "kubectl {args:?}: {}", text(&output.stdout));
        text(&output.stderr)
    }

    /// Runs a command until it prints this.
    #[track_caller]
    pub fn wait(&self, what: &str, args: &[&str], expected: &str) {
        self.wait_until(what, args, |said| said == expected);
    }

    /// Repeats a command until its output is as wanted; returns the output.
    #[track_caller]
    pub fn wait_until(&self, what: &str, args: &[&str], wanted: impl Fn(&str) -> bool) -> String {
        wait_for(what, Duration::from_secs(60), || {
            let out = self.kubectl(args);
            let said = text(&out.stdout);
            if wanted(&said) { Ok(said) } else { Err(format!("{said}{}", text(&out.stderr))) }
        })
    }

    /// `kubectl create -f -`.
    #[track_caller]
    pub fn create(&self, object: &Value) -> Output {
        self.with(&["create", "-f", "-"], object)
    }

    #[track_caller]
    pub fn created(&self, object: &Value) {
        let out = self.create(object);
        assert!(out.status.success(), "{object}: {}", text(&out.stderr));
    }

    /// A command with a manifest as standard input.
    pub fn with(&self, args: &[&str], manifest: &Value) -> Output {
        let mut command = self.command(args);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("kubectl is installed");
        child.stdin.take().expect("piped").write_all(manifest.to_string().as_bytes()).expect("kubectl reads");
        child.wait_with_output().expect("kubectl ends")
    }

    /// A request that kubectl has no command for: its status and answer.
    pub fn request(&self, method: &str, path: &str, content_type: &str, body: &Value) -> (u16, Value) {
        let mut command = Command::new("curl");
        command.args(["-s", "-X", method, "-w", "\n%{http_code}", "-H", &format!("content-type: {content_type}"), "--data-binary"]);
        let said = run(command.arg(body.to_string()).arg(format!("{}{path}", self.url)));
        let (answer, code) = said.trim_end().rsplit_once('\n').expect("a code behind the answer");
        (code.parse().expect("a code"), serde_json::from_str(answer).unwrap_or_default())
    }

    pub fn client(&self) -> Client {
        client(&self.url)
    }

    /// A JSON path of an object, as kubectl prints it.
    #[track_caller]
    pub fn get(&self, object: &str, path: &str) -> String {
        self.ok(&["get", object, "-o", &format!("jsonpath={path}")])
    }

    /// Plays the kubelet: patches an object's status.
    #[track_caller]
    pub fn set_status(&self, path: &str, status: &Value) {
        let (code, answer) =
            self.request("PATCH", &format!("{path}/status"), "application/strategic-merge-patch+json", &json!({"status": status}));
        assert_eq!(code, 200, "{answer}");
    }

    /// Names of the pods with a label.
    pub fn pods(&self, label: &str) -> Vec<String> {
        let said = self.ok(&["get", "pods", "-l", label, "-o", "jsonpath={.items[*].metadata.name}"]);
        said.split_whitespace().map(str::to_owned).collect()
    }

    /// Says of a pod in the namespace `default` that it runs and is ready.
    pub fn make_ready(&self, pod: &str) {
        let status = json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]});
        let path = format!("/api/v1/namespaces/default/pods/{pod}/status");
        // The object may be gone by now.
        self.request("PATCH", &path, "application/strategic-merge-patch+json", &json!({"status": status}));
    }
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
