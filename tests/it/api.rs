//! The API server as its users meet it: `km apiserver` on an embedded store, driven by the kubectl on the PATH.

use std::io::Write;
use std::process::{Command, Output, Stdio};

use nix::sys::signal::Signal;

use super::support::apiserver::ApiServer;
use super::support::etcd::Etcd;

struct Server {
    api: ApiServer,
    dir: tempfile::TempDir,
    /// If it is not kept in a directory.
    _etcd: Option<Etcd>,
}

impl Server {
    fn start() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        Self { api: ApiServer::start(dir.path(), &[]), dir, _etcd: None }
    }

    fn start_on_etcd() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let etcd = Etcd::start(dir.path(), 1);
        Self { api: ApiServer::start(dir.path(), &[etcd.flag()]), dir, _etcd: Some(etcd) }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("kubectl");
        command.arg(format!("--server={}", self.api.url())).args(args);
        command.env("HOME", self.dir.path()).env("KUBECONFIG", "/dev/null");
        command
    }

    /// 33 for a kubectl of version 1.33.
    fn client_minor(&self) -> u32 {
        let version = self.ok(&["version", "--client", "-o", "json"]);
        let version: serde_json::Value = serde_json::from_str(&version).expect("JSON");
        let minor = version["clientVersion"]["minor"].as_str().expect("a minor version");
        minor.trim_end_matches(|it: char| !it.is_ascii_digit()).parse().expect("a number")
    }

    fn kubectl(&self, args: &[&str]) -> Output {
        self.command(args).stdin(Stdio::null()).output().expect("kubectl is installed")
    }

    /// The output of a command, which must succeed.
    #[track_caller]
    fn ok(&self, args: &[&str]) -> String {
        let output = self.kubectl(args);
        assert!(output.status.success(), "kubectl {args:?}: {}\n{}", text(&output.stderr), self.api.process.said());
        text(&output.stdout)
    }

    /// The error output of a command, which must fail.
    #[track_caller]
    fn fails(&self, args: &[&str]) -> String {
        let output = self.kubectl(args);
        assert!(!output.status.success(), "kubectl {args:?}: {}", text(&output.stdout));
        text(&output.stderr)
    }

    /// As [`Server::kubectl`], with a manifest as standard input.
    fn with(&self, args: &[&str], manifest: &str) -> Output {
        let mut child =
            self.command(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("kubectl is installed");
        child.stdin.take().expect("piped").write_all(manifest.as_bytes()).expect("kubectl reads");
        child.wait_with_output().expect("kubectl ends")
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

const NGINX: &str = "apiVersion: v1
kind: Pod
metadata:
  name: nginx
  labels: {app: nginx}
spec:
  containers:
  - {name: nginx, image: nginx, ports: [{containerPort: 80}]}
";

#[test]
fn kubectl_reads_and_writes() {
    reads_and_writes(&Server::start());
}

#[test]
fn kubectl_reads_and_writes_on_etcd() {
    let it = Server::start_on_etcd();
    reads_and_writes(&it);
    let address = it.ok(&["get", "endpoints", "kubernetes", "-o", "jsonpath={.subsets[*].addresses[*].ip}"]);
    assert!(!address.is_empty(), "the API server gives its sign of life");
}

fn reads_and_writes(it: &Server) {
    assert!(it.ok(&["version"]).contains("v1.33."));
    assert!(
        it.ok(&["get", "services"])
            .lines()
            .any(|line| line.starts_with("kubernetes ") && line.contains("10.10.10.1 ") && line.contains("443/TCP"))
    );
    let resources = it.ok(&["api-resources"]);
    for known in ["pods ", "deployments ", "endpointslices "] {
        assert!(resources.lines().any(|line| line.starts_with(known)), "{known}: {resources}");
    }
    assert_eq!(text(&it.with(&["create", "-f", "-"], NGINX).stdout), "pod/nginx created\n");
    assert!(it.ok(&["get", "pods"]).contains("nginx   0/1     Pending   0"), "{}", it.ok(&["get", "pods"]));
    assert!(it.ok(&["get", "pod", "nginx", "-o", "yaml"]).contains("  dnsPolicy: ClusterFirst\n"));
    assert!(it.ok(&["describe", "pod", "nginx"]).contains("Status:       Pending"));
    it.ok(&["label", "pod", "nginx", "tier=front"]);
    it.ok(&["annotate", "pod", "nginx", "note=1"]);
    it.ok(&["patch", "pod", "nginx", "-p", r#"{"metadata":{"labels":{"app":"patched"}}}"#]);
    assert_eq!(it.ok(&["get", "pods", "-l", "app=patched,tier", "-o", "name"]), "pod/nginx\n");
    assert!(it.ok(&["explain", "pod.spec.containers"]).contains("image\t<string>"));
    assert_eq!(it.ok(&["get", "pods", "--field-selector", "status.phase=Running", "-o", "name"]), "");
    assert!(it.fails(&["get", "pods", "--field-selector", "spec.none=1"]).contains("field label not supported: spec.none"));
    it.ok(&["delete", "pod", "nginx"]);
    assert_eq!(it.fails(&["get", "pod", "nginx"]), "Error from server (NotFound): pods \"nginx\" not found\n");
}

const CRON_JOB: &str = "apiVersion: batch/v1
kind: CronJob
metadata: {name: cj}
spec:
  schedule: '*/5 * * * *'
  jobTemplate:
    spec:
      template:
        spec:
          restartPolicy: Never
          containers: [{name: c, image: busybox}]
";

const BUDGET: &str = "apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {name: p}
spec:
  minAvailable: 1
  selector:
    matchLabels: {app: web}
";

#[test]
fn kubectl_makes_and_scales_workloads() {
    let it = Server::start();
    it.ok(&["create", "deployment", "web", "--image=nginx", "--replicas=2"]);
    it.ok(&["scale", "deployment", "web", "--replicas=5", "--current-replicas=2"]);
    assert_eq!(it.ok(&["get", "deployment", "web", "-o", "jsonpath={.spec.replicas}"]), "5");
    it.ok(&["set", "image", "deployment/web", "nginx=nginx:2"]);
    assert_eq!(it.ok(&["get", "deployment", "web", "-o", "jsonpath={.metadata.generation}"]), "3");
    it.ok(&["rollout", "pause", "deployment", "web"]);
    it.ok(&["expose", "deployment", "web", "--port=80", "--type=NodePort"]);
    assert!(it.ok(&["get", "service", "web"]).contains("NodePort"));
    for kind in [
        &["configmap", "c", "--from-literal=a=b"] as &[&str],
        &["secret", "generic", "s", "--from-literal=a=b"],
        &["serviceaccount", "robot"],
        &["job", "j", "--image=busybox"],
        &["quota", "q", "--hard=pods=5"],
        &["namespace", "team"],
    ] {
        it.ok(&[&["create"], kind].concat());
    }
    // Manifests: kubectl before 1.21 makes these two in versions that have been removed since.
    for manifest in [CRON_JOB, BUDGET] {
        assert!(text(&it.with(&["create", "-f", "-"], manifest).stdout).ends_with(" created\n"));
    }
    assert!(it.ok(&["get", "all"]).contains("deployment.apps/web"));
    it.ok(&["delete", "namespace", "team", "--wait=false"]);
    assert!(it.ok(&["get", "namespace", "team"]).contains("Terminating"));
    assert!(it.fails(&["create", "configmap", "x", "-n", "team"]).contains("because it is being terminated"));
}

#[test]
fn kubectl_applies_and_is_told_of_mistakes() {
    let it = Server::start();
    assert_eq!(text(&it.with(&["apply", "-f", "-"], NGINX).stdout), "pod/nginx created\n");
    assert_eq!(text(&it.with(&["apply", "-f", "-"], NGINX).stdout), "pod/nginx unchanged\n");
    let labelled = NGINX.replace("{app: nginx}", "{app: nginx, more: '1'}");
    assert_eq!(text(&it.with(&["apply", "-f", "-"], &labelled).stdout), "pod/nginx configured\n");
    assert!(it.with(&["diff", "-f", "-"], &labelled).status.success(), "no difference");
    let dry = it.with(&["apply", "--dry-run=server", "-f", "-"], NGINX);
    assert_eq!(text(&dry.stdout), "pod/nginx configured (server dry run)\n");
    let unknown = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\ndataa: {}\n";
    let strict = it.with(&["create", "-f", "-"], unknown);
    assert!(text(&strict.stderr).contains("unknown field \"dataa\""), "{}", text(&strict.stderr));
    // From 1.25 on it is the server that validates, and `warn` exists.
    if it.client_minor() >= 25 {
        assert!(text(&strict.stderr).contains("strict decoding error: unknown field \"dataa\""), "{}", text(&strict.stderr));
        let warned = it.with(&["create", "--validate=warn", "-f", "-"], unknown);
        assert_eq!(text(&warned.stderr), "Warning: unknown field \"dataa\"\n");
        it.ok(&["delete", "configmap", "x"]);
    }
    it.ok(&["create", "configmap", "x"]);
    assert!(it.fails(&["create", "configmap", "x"]).contains("configmaps \"x\" already exists"));
}

#[test]
fn kubectl_watches() {
    let it = Server::start();
    let mut watching =
        it.command(&["get", "configmaps", "-w", "--output-watch-events", "--no-headers"]).stdout(Stdio::piped()).spawn().expect("kubectl");
    let lines = std::io::BufRead::lines(std::io::BufReader::new(watching.stdout.take().expect("piped")));
    let writing = std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            it.ok(&["create", "configmap", "a", "--from-literal=x=1"]);
            it.ok(&["patch", "configmap", "a", "-p", r#"{"data":{"y":"2"}}"#]);
            it.ok(&["delete", "configmap", "a"]);
        });
        let seen: Vec<String> = lines.map_while(Result::ok).filter(|it| it.contains(" a ")).take(3).collect();
        writer.join().expect("the writer");
        seen
    });
    let kinds: Vec<&str> = writing.iter().filter_map(|it| it.split_whitespace().next()).collect();
    assert_eq!(kinds, ["ADDED", "MODIFIED", "DELETED"]);
    let _ = watching.kill();
    let _ = watching.wait();
}

/// Objects are there again after a stop, and after `kill -9`.
#[test]
fn a_restart_loses_nothing() {
    let mut it = Server::start();
    it.ok(&["create", "configmap", "a", "--from-literal=x=1"]);
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        it.api.restart(signal);
        assert_eq!(it.ok(&["get", "configmap", "a", "-o", "jsonpath={.data.x}"]), "1");
    }
}
