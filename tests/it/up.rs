//! `km up`, as its users run it: everything in one process, pods in a real Docker engine.

use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::support::docker::Docker;
use crate::support::host::Host;
use crate::support::process::{Process, run};
use crate::support::{km, wait_for};

const POD: &str = "apiVersion: v1
kind: Pod
metadata:
  name: web
spec:
  containers:
  - name: web
    image: busybox
    imagePullPolicy: IfNotPresent
    command: [httpd, -f, -v, -p, '80', -h, /]
    ports:
    - containerPort: 80
";

const LOCAL: &str = "apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata: {name: local}
provisioner: kubernetes.io/no-provisioner
volumeBindingMode: WaitForFirstConsumer
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: data}
spec:
  storageClassName: local
  accessModes: [ReadWriteOnce]
  resources: {requests: {storage: 1Gi}}
---
apiVersion: v1
kind: PersistentVolume
metadata: {name: elsewhere}
spec:
  storageClassName: local
  capacity: {storage: 1Gi}
  accessModes: [ReadWriteOnce]
  local: {path: /data}
  nodeAffinity:
    required:
      nodeSelectorTerms: [{matchExpressions: [{key: kubernetes.io/hostname, operator: In, values: [elsewhere]}]}]
";

const WRITER: &str = "apiVersion: v1
kind: Pod
metadata: {name: writer}
spec:
  restartPolicy: Never
  containers:
  - name: c
    image: busybox
    imagePullPolicy: IfNotPresent
    command: [sh, -c, 'echo kept > /data/file']
    volumeMounts: [{name: data, mountPath: /data}]
  volumes:
  - name: data
    persistentVolumeClaim: {claimName: data}
";

fn up(host: &Host, log: &str, engine: &str) -> Process {
    let mut command = host.command(km());
    command.arg("up").arg("--data-dir").arg(host.dir().join("data")).args(["--node-ip", Host::IP, "--docker-endpoint", engine]);
    let mut km = Process::start("km up", &mut command, &host.dir().join(log));
    wait_for("km up", Duration::from_secs(30), || {
        assert!(km.ended().is_none(), "km up ended: {}", km.said());
        let ready = kubectl(host).args(["get", "--raw", "/readyz"]).output().expect("kubectl is installed");
        if ready.status.success() { Ok(()) } else { Err(km.said()) }
    });
    km
}

/// kubectl with the kubeconfig that `km up` writes.
fn kubectl(host: &Host) -> Command {
    let mut command = host.command("kubectl");
    command.env("KUBECONFIG", host.dir().join("data/kubeconfig"));
    command
}

fn create(host: &Host, manifest: &str) {
    let file = host.dir().join("pod.yaml");
    std::fs::write(&file, manifest).unwrap();
    // The default service account is made by a controller, a moment after the server is ready.
    wait_for("the pod's creation", Duration::from_secs(20), || {
        let out = kubectl(host).arg("create").arg("-f").arg(&file).output().unwrap();
        if out.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&out.stderr).into_owned()) }
    });
}

#[test]
fn pods_outlive_km_itself() {
    let host = Host::new();
    let docker = Docker::start(&host, None);
    docker.add_busybox("busybox");
    let mut first = up(&host, "first.log", &docker.endpoint());
    assert!(first.said().contains(&format!("KUBECONFIG={}", host.dir().join("data/kubeconfig").display())), "{}", first.said());
    create(&host, POD);
    run(kubectl(&host).args(["wait", "--for=condition=Ready", "pod/web", "--timeout=60s"]));
    let containers = docker.running("io.kubernetes.pod.name=web");
    assert_eq!(containers.len(), 2, "the sandbox and the container");

    // Ctrl-C is a clean end.
    first.signal(Signal::SIGINT);
    let status = wait_for("the end of km up", Duration::from_secs(15), || first.ended().ok_or_else(|| "it runs".to_owned()));
    assert!(status.success(), "{status}: {}", first.said());

    let second = up(&host, "second.log", &docker.endpoint());
    second.kill();
    let third = up(&host, "third.log", &docker.endpoint());
    run(kubectl(&host).args(["wait", "--for=condition=Ready", "pod/web", "--timeout=60s"]));
    assert_eq!(docker.running("io.kubernetes.pod.name=web"), containers);
    assert_eq!(run(kubectl(&host).args(["get", "pod", "web", "-o", "jsonpath={.status.containerStatuses[0].restartCount}"])), "0");
    // It is really found again, and not merely left alone.
    run(kubectl(&host).args(["delete", "pod", "web", "--timeout=60s"]));
    wait_for("no container", Duration::from_secs(30), || {
        let left = docker.running("io.kubernetes.pod.name=web");
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    });
    drop(third);
}

#[test]
fn claims_keep_what_pods_write() {
    let host = Host::new();
    let docker = Docker::start(&host, None);
    docker.add_busybox("busybox");
    let _km = up(&host, "up.log", &docker.endpoint());
    let disk = host.dir().join("disk");
    let volume = format!(
        "apiVersion: v1
kind: PersistentVolume
metadata: {{name: disk}}
spec:
  capacity: {{storage: 1Gi}}
  accessModes: [ReadWriteOnce]
  hostPath: {{path: {}, type: DirectoryOrCreate}}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {{name: data}}
spec:
  accessModes: [ReadWriteOnce]
  resources: {{requests: {{storage: 1Gi}}}}
",
        disk.display()
    );
    create(&host, &volume);
    create(&host, WRITER);
    run(kubectl(&host).args(["wait", "--for=jsonpath={.status.phase}=Succeeded", "pod/writer", "--timeout=60s"]));
    assert_eq!(std::fs::read_to_string(disk.join("file")).unwrap(), "kept\n");
    assert_eq!(run(kubectl(&host).args(["get", "pvc,pv", "-o", "jsonpath={.items[*].status.phase}"])), "Bound Bound");
    // The claim stays as long as a pod uses it, and the data on the volume longer.
    run(kubectl(&host).args(["delete", "pvc", "data", "--wait=false"]));
    run(kubectl(&host).args(["delete", "pod", "writer", "--timeout=60s"]));
    run(kubectl(&host).args(["wait", "--for=delete", "pvc/data", "--timeout=60s"]));
    run(kubectl(&host).args(["wait", "--for=jsonpath={.status.phase}=Released", "pv/disk", "--timeout=60s"]));
    assert!(disk.join("file").exists());
}

/// Placed and bound, a pod need not run for this: there is no engine.
#[test]
fn claims_are_bound_where_their_pods_are_placed() {
    let host = Host::new();
    let nowhere = format!("unix://{}", host.dir().join("none.sock").display());
    let _km = up(&host, "up.log", &nowhere);
    let wait = |what: &str, args: &[&str], expected: &str| {
        wait_for(what, Duration::from_secs(60), || {
            let said = run(kubectl(&host).args(args));
            if said.contains(expected) { Ok(said) } else { Err(said) }
        })
    };
    create(&host, WRITER);
    let why = "jsonpath={.status.conditions[?(@.type=='PodScheduled')].message}";
    wait("a pod without its claim", &["get", "pod", "writer", "-o", why], "nodes are available: persistentvolumeclaim \"data\" not found.");
    let node = wait("the node", &["get", "nodes", "-o", "name"], "node/");
    let node = node.trim().trim_start_matches("node/");
    create(&host, LOCAL);
    let no_volume = "node(s) didn't find available persistent volumes to bind";
    wait("a pod without a volume", &["get", "pod", "writer", "-o", why], no_volume);
    wait("a claim that waits", &["get", "events", "--no-headers"], "waiting for pod writer to be scheduled");
    let here = LOCAL.rsplit("---\n").next().unwrap().replace("name: elsewhere", "name: here").replace("[elsewhere]", &format!("[{node}]"));
    create(&host, &here);
    wait("a placed pod", &["get", "pod", "writer", "-o", "jsonpath={.spec.nodeName}"], node);
    let seen = run(kubectl(&host).args(["get", "pvc,pv", "-o", "jsonpath={range .items[*]}{.metadata.name}={.status.phase} {end}"]));
    assert_eq!(seen.trim(), "data=Bound elsewhere=Available here=Bound");
}

#[test]
fn without_an_engine_pods_wait_and_say_why() {
    let host = Host::new();
    let nowhere = format!("unix://{}", host.dir().join("none.sock").display());
    let km = up(&host, "up.log", &nowhere);
    wait_for("the warning", Duration::from_secs(10), || {
        if km.said().contains("there is no Docker engine at") { Ok(()) } else { Err(km.said()) }
    });
    create(&host, POD);
    wait_for("an event", Duration::from_secs(60), || {
        let events = run(kubectl(&host).args(["get", "events", "--no-headers"]));
        if events.contains("ContainerRuntimeDown") || events.contains("FailedCreatePodSandBox") { Ok(()) } else { Err(events) }
    });
    assert_eq!(run(kubectl(&host).args(["get", "pod", "web", "-o", "jsonpath={.status.phase}"])), "Pending");
}

#[test]
fn a_taken_port_is_named() {
    let host = Host::new();
    let _first = up(&host, "first.log", "unix:///nowhere.sock");
    let mut second = host.command(km());
    second.arg("up").arg("--data-dir").arg(host.dir().join("other"));
    let out = second.output().unwrap();
    assert!(!out.status.success());
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(said.contains("127.0.0.1:8888"), "{said}");
}
