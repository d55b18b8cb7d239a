//! Static pods on a whole cluster: the scheduler reads their directory, the real Mesos takes them to the agent, and the real Docker runs
//! them.

use std::process::Command;
use std::time::Duration;

use crate::support::cluster::{etcd, kubectl, mesos, shell};
use crate::support::docker::Docker;
use crate::support::host::Host;
use crate::support::process::run;
use crate::support::wait_for;

const APISERVER: &str =
    "km apiserver --address=$IP --etcd-servers=http://$IP:4001 --service-cluster-ip-range=10.10.10.0/24 --port=8888 --secure-port=0";
const CONTROLLER_MANAGER: &str = "km controller-manager --master=$IP:8888";
const SCHEDULER: &str = "km scheduler --address=$IP --mesos-master=$MESOS_MASTER --etcd-servers=http://$IP:4001 --api-servers=$IP:8888 \
    --static-pods-config=static";

const STATIC: &str = "apiVersion: v1
kind: Pod
metadata:
  name: agent
  namespace: kube-system
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: c
    image: busybox
    imagePullPolicy: IfNotPresent
    command: [sh, -c, 'echo on $NODE; exec sleep 1000']
    env:
    - {name: NODE, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}
    resources: {limits: {cpu: 500m, memory: 64Mi}}
";

const POD: &str = "apiVersion: v1
kind: Pod
metadata:
  name: web
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - {name: c, image: busybox, imagePullPolicy: IfNotPresent, command: [sleep, '1000']}
";

#[test]
fn a_static_pod_runs_beside_the_first_task_of_its_agent() {
    let host = Host::new();
    let docker = Docker::start(&host, None);
    docker.add_busybox("busybox");
    std::fs::create_dir(host.dir().join("static")).unwrap();
    std::fs::write(host.dir().join("static/agent.yaml"), STATIC).unwrap();
    std::fs::write(host.dir().join("pod.yaml"), POD).unwrap();
    let (_etcd, _mesos) = (etcd(&host), mesos(&host, &docker.endpoint()));
    let _parts = [("apiserver", APISERVER), ("controller-manager", CONTROLLER_MANAGER), ("scheduler", SCHEDULER)]
        .map(|(name, line)| shell(&host, name, line));
    // The default service account is made by a controller, a moment after the server is ready.
    wait_for("the pod's creation", Duration::from_secs(60), || ask(kubectl(&host).args(["create", "-f", "pod.yaml"])));

    let name = format!("agent-{}", Host::IP);
    let of_static =
        |what: &str| ask(kubectl(&host).args(["get", "pod", "-n", "kube-system", &name, "-o", &format!("jsonpath={{{what}}}")]));
    let running = |what: &str| {
        wait_for(what, Duration::from_secs(60), || {
            let phase = of_static(".status.phase")?;
            if phase == "Running" { of_static(".metadata.uid") } else { Err(phase) }
        })
    };
    let mirror = running("the static pod");
    assert_eq!(run(kubectl(&host).args(["logs", "-n", "kube-system", &name])), format!("on {}\n", Host::IP));
    let containers = docker.running("io.kubernetes.pod.namespace=kube-system");
    assert_eq!(containers.len(), 2, "sandbox and container");
    // Mesos has reserved the static pod's limits for the executor, besides its own resources.
    let state = run(host.command("curl").args(["-sf", &format!("http://{}:5050/master/state", Host::IP)]));
    let state: serde_json::Value = serde_json::from_str(&state).unwrap();
    let executor = &state["frameworks"][0]["executors"][0]["resources"];
    assert_eq!((executor["cpus"].as_f64(), executor["mem"].as_f64()), (Some(0.75), Some(192.0)), "{state}");

    run(kubectl(&host).args(["delete", "pod", "-n", "kube-system", &name, "--wait=false"]));
    wait_for("another mirror", Duration::from_secs(60), || {
        let uid = of_static(".metadata.uid")?;
        if uid == mirror { Err(uid) } else { Ok(()) }
    });
    running("the static pod's other mirror");
    assert_eq!(docker.running("io.kubernetes.pod.namespace=kube-system"), containers);
}

/// The output of a command, or why it failed.
fn ask(command: &mut Command) -> Result<String, String> {
    let out = command.output().expect("kubectl is installed");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if out.status.success() { Ok(text(&out.stdout)) } else { Err(text(&out.stderr)) }
}
