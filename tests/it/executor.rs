//! An executor in this process, with a real Docker engine and a real API server.

#![allow(clippy::unwrap_used, reason = "a test stops where something is wrong")]

mod agent;
mod node;
mod static_pods;
mod tasks;

use std::time::Duration;

use k8s_openapi::api::core::v1::PodStatus;
use km::client::{DeleteOptions, Patch};
use km::object::resource::{CONFIG_MAP, NODE, POD};
use serde_json::json;

use node::{Node, reason, running, terminated};

#[tokio::test(flavor = "multi_thread")]
async fn containers_of_a_pod_share_and_say_what_they_do() {
    let node = Node::start().await;
    node.client
        .create(
            &CONFIG_MAP,
            "default",
            &json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}, "data": {"greeting": "hello"}}),
        )
        .await
        .unwrap();
    let host_dir = node.path("on-host");
    let pod = json!({
        "metadata": {"name": "web", "labels": {"app": "web"}},
        "spec": {
            "containers": [
                {
                    "name": "server", "image": "test/busybox:1", "command": ["sh", "-c"],
                    "args": ["echo $GREETING $(ME) > /www/index.html; echo serving >&2; exec httpd -f -p 80 -h /www"],
                    "env": [
                        {"name": "GREETING", "valueFrom": {"configMapKeyRef": {"name": "m", "key": "greeting"}}},
                        {"name": "ME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['app']"}}},
                    ],
                    "ports": [{"containerPort": 80}],
                    "resources": {"limits": {"cpu": "250m", "memory": "64Mi"}},
                    "readinessProbe": {"httpGet": {"port": 80}, "periodSeconds": 1},
                    "volumeMounts": [{"name": "www", "mountPath": "/www"}],
                },
                {
                    "name": "client", "image": "test/busybox:1", "command": ["sh", "-c"],
                    "args": ["until wget -q -O /out/got http://127.0.0.1/ 2> /dev/null; do sleep 0.1; done; cat /out/got /www/index.html /config/greeting; echo; exec sleep 600"],
                    "volumeMounts": [
                        {"name": "www", "mountPath": "/www", "readOnly": true},
                        {"name": "out", "mountPath": "/out"},
                        {"name": "config", "mountPath": "/config"},
                    ],
                    "livenessProbe": {"exec": {"command": ["test", "-e", "/out"]}, "periodSeconds": 1},
                },
            ],
            "volumes": [
                {"name": "www", "emptyDir": {"medium": "Memory"}},
                {"name": "out", "hostPath": {"path": host_dir, "type": "DirectoryOrCreate"}},
                {"name": "config", "configMap": {"name": "m"}},
            ],
            "terminationGracePeriodSeconds": 1,
        },
    });
    node.create(&pod).await;
    let status = node.until("web", "both containers are ready", |status| condition(status, "Ready") == "True").await;
    assert_eq!(status.phase.as_deref(), Some("Running"));
    assert!(status.pod_ip.as_deref().is_some_and(|ip| ip.starts_with("172.")), "{:?}", status.pod_ip);
    assert_eq!(status.qos_class.as_deref(), Some("Burstable"));
    assert_eq!(node.log_until("web", "client", 3).await, "hello web\nhello web\nhello\n");
    assert_eq!(std::fs::read_to_string(node.path("on-host").join("got")).unwrap(), "hello web\n");
    assert_eq!(node.log("web", "server", "tailLines=1").await, (200, "serving\n".to_owned()));
    assert_eq!(node.log("web", "none", "").await.0, 404);

    // Mounted files follow their source.
    let greeting = Patch::Merge(json!({"data": {"greeting": "good evening"}}));
    node.client.patch(&CONFIG_MAP, "default", "m", "", &greeting).await.unwrap();
    node.until_file("web", "kubernetes.io~projected/config/greeting", "good evening").await;

    let server = node.inspect("k8s_server_web_default_");
    assert_eq!(server["HostConfig"]["Memory"], 64 << 20);
    assert_eq!(server["HostConfig"]["CpuQuota"], 25_000);
    assert_eq!(server["HostConfig"]["CpuShares"], 256);
    assert!(server["HostConfig"]["NetworkMode"].as_str().unwrap().starts_with("container:"));

    let events = node.events_until("web", "Started", 2).await;
    for reason in ["Pulled", "Created", "Started"] {
        assert!(events.iter().any(|it| it == reason), "{reason} in {events:?}");
    }
    let object = node.client.get(&NODE, "", node::NAME).await.unwrap();
    let seen: k8s_openapi::api::core::v1::Node = object.typed::<k8s_openapi::api::core::v1::Node>().unwrap().clone();
    let ready = seen.status.unwrap().conditions.unwrap().into_iter().find(|it| it.type_ == "Ready").unwrap();
    assert_eq!((ready.status.as_str(), ready.reason.as_deref()), ("True", Some("KubeletReady")));

    node.delete("web", None).await;
    assert_eq!(node.docker.running("io.kubernetes.pod.name=web"), Vec::<String>::new());
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn containers_end_and_start_again() {
    let node = Node::start().await;
    let once = |name: &str, policy: &str, script: &str| {
        json!({
            "metadata": {"name": name},
            "spec": {
                "restartPolicy": policy,
                "containers": [{"name": "c", "image": "test/busybox:1", "command": ["sh", "-c", script]}],
                "terminationGracePeriodSeconds": 30,
            },
        })
    };
    node.create(&once("fails", "Never", "echo the end > /dev/termination-log; exit 3")).await;
    node.create(&once("works", "OnFailure", "echo done")).await;
    node.create(&once("again", "Always", "echo once more; exit 1")).await;
    node.create(&once("stays", "Always", "trap 'echo bye; exit 0' TERM; while :; do sleep 0.1; done")).await;
    let mut missing = once("missing", "Always", "true");
    missing["spec"]["containers"][0]["image"] = json!("test/none:1");
    missing["spec"]["containers"][0]["imagePullPolicy"] = json!("Never");
    node.create(&missing).await;
    let mut mistyped = once("mistyped", "Always", "");
    mistyped["spec"]["containers"][0]["command"] = json!(["no-such-command"]);
    node.create(&mistyped).await;

    let failed = node.until("fails", "it has failed", |status| status.phase.as_deref() == Some("Failed")).await;
    let end = terminated(&failed, "c").unwrap();
    assert_eq!((end.exit_code, end.reason.as_deref(), end.message.as_deref()), (3, Some("Error"), Some("the end\n")));
    node.until("works", "it has succeeded", |status| status.phase.as_deref() == Some("Succeeded")).await;
    assert_eq!(node.log("works", "c", "").await, (200, "done\n".to_owned()), "the log of a pod that has ended");
    let again = node.until("again", "it waits after a restart", |status| reason(status, "c") == Some("CrashLoopBackOff")).await;
    assert_eq!(again.phase.as_deref(), Some("Running"));
    assert_eq!(again.container_statuses.as_ref().unwrap()[0].restart_count, 1);
    assert_eq!(node.log("again", "c", "previous=true").await, (200, "once more\n".to_owned()));
    let mistyped = node.until("mistyped", "it waits after a restart", |status| reason(status, "c") == Some("CrashLoopBackOff")).await;
    assert_eq!(mistyped.phase.as_deref(), Some("Running"));
    let container = &mistyped.container_statuses.as_ref().unwrap()[0];
    assert_eq!(container.restart_count, 1);
    let end = container.last_state.as_ref().unwrap().terminated.as_ref().unwrap();
    assert_eq!((end.exit_code, end.reason.as_deref()), (127, Some("ContainerCannotRun")));
    assert!(end.message.as_ref().unwrap().contains("no-such-command"), "{end:?}");
    assert!(end.started_at.as_ref().unwrap().0 >= mistyped.start_time.as_ref().unwrap().0, "{end:?}");
    node.until("missing", "its image is missing", |status| reason(status, "c") == Some("ErrImageNeverPull")).await;
    let (code, text) = node.log("missing", "c", "").await;
    assert_eq!((code, text.contains("is waiting to start: ErrImageNeverPull")), (400, true), "{text}");

    node.until("stays", "it runs", |status| running(status, "c")).await;
    let log = node.follow("stays", "c");
    node.delete("stays", None).await;
    assert_eq!(log.await.unwrap(), "bye\n", "it was asked to end, and not killed");
    for name in ["fails", "works", "again", "missing", "mistyped"] {
        node.delete(name, Some(0)).await;
    }
    node.until_no_containers().await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sub_paths_stay_in_their_volumes() {
    let node = Node::start().await;
    let outside = node.path("outside");
    std::fs::create_dir(&outside).unwrap();
    let prepare = format!("cd /v; mkdir data; echo one > data/file; ln -s data inside; ln -s {} out", outside.display());
    let mount = |path: &str, sub_path: &str| json!({"name": "v", "mountPath": path, "subPath": sub_path});
    let pod = json!({
        "metadata": {"name": "paths"},
        "spec": {
            "restartPolicy": "Never",
            "initContainers": [{
                "name": "prepare", "image": "test/busybox:1", "command": ["sh", "-c", prepare],
                "volumeMounts": [{"name": "v", "mountPath": "/v"}],
            }],
            "containers": [
                {
                    "name": "good", "image": "test/busybox:1", "command": ["sh", "-c", "cat /a/file /b/file /file; echo two > /new/file"],
                    "volumeMounts": [mount("/a", "data"), mount("/b", "inside"), mount("/file", "data/file"), mount("/new", "some/new")],
                },
                {"name": "bad", "image": "test/busybox:1", "command": ["sleep", "600"], "volumeMounts": [mount("/a", "out/made")]},
            ],
            "volumes": [{"name": "v", "emptyDir": {}}],
            "terminationGracePeriodSeconds": 0,
        },
    });
    node.create(&pod).await;
    let status = node.until("paths", "the good container has ended", |status| terminated(status, "good").is_some()).await;
    assert_eq!(terminated(&status, "good").unwrap().exit_code, 0);
    assert_eq!(node.log("paths", "good", "").await, (200, "one\none\none\n".to_owned()));
    node.until_file("paths", "kubernetes.io~empty-dir/v/some/new/file", "two\n").await;
    node.until("paths", "the bad one is refused", |status| reason(status, "bad") == Some("CreateContainerConfigError")).await;
    assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0, "nothing is made outside");
    node.delete("paths", None).await;
    node.until_no_containers().await;
    let (mounted, below) = (std::fs::read_to_string("/proc/self/mountinfo").unwrap(), node.path("executor"));
    assert!(!mounted.contains(below.to_str().unwrap()), "{mounted}");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_executor_takes_the_pods_over() {
    let mut node = Node::start().await;
    for name in ["keeps", "goes"] {
        let pod = json!({
            "metadata": {"name": name},
            "spec": {
                "containers": [{"name": "c", "image": "test/busybox:1", "command": ["sleep", "600"], "volumeMounts": [{"name": "v", "mountPath": "/v"}]}],
                "volumes": [{"name": "v", "emptyDir": {}}],
                "terminationGracePeriodSeconds": 0,
            },
        });
        node.create(&pod).await;
        node.until(name, "it runs", |status| running(status, "c")).await;
    }
    let before = node.docker.running("io.kubernetes.pod.name=keeps");
    assert_eq!(before.len(), 2, "sandbox and container");
    node.stop_executor().await;
    assert_eq!(node.docker.running("io.kubernetes.pod.name=keeps"), before);
    let now = DeleteOptions { grace_period_seconds: Some(0), ..DeleteOptions::default() };
    node.client.delete(&POD, "default", "goes", &now).await.unwrap();

    node.start_executor().await;
    node.until_ended("io.kubernetes.pod.name=goes").await;
    let status = node.until("keeps", "it runs", |status| running(status, "c")).await;
    assert_eq!(status.container_statuses.unwrap()[0].restart_count, 0);
    assert_eq!(node.docker.running("io.kubernetes.pod.name=keeps"), before);

    // And when its sandbox dies under it.
    node.kill("k8s_POD_keeps_");
    let after = node.until("keeps", "it runs again", |status| {
        status.container_statuses.as_ref().unwrap()[0].restart_count == 1 && running(status, "c")
    });
    after.await;
    assert!(node.docker.running("io.kubernetes.pod.name=keeps").iter().all(|id| !before.contains(id)));
    node.delete("keeps", None).await;
    node.until_no_containers().await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_wait_for_an_engine() {
    let mut node = Node::without_engine().await;
    let container = json!({"name": "c", "image": "test/busybox:1", "command": ["sleep", "600"]});
    node.create(&json!({"metadata": {"name": "waits"}, "spec": {"containers": [container], "terminationGracePeriodSeconds": 0}})).await;
    let events = node.events_until("waits", "ContainerRuntimeDown", 1).await;
    assert!(events.contains(&"ContainerRuntimeDown".to_owned()));
    node.start_engine();
    let up = node.until("waits", "it runs", |status| running(status, "c"));
    tokio::time::timeout(Duration::from_secs(60), up).await.unwrap();
    node.delete("waits", None).await;
    node.stop().await;
}

fn condition<'a>(status: &'a PodStatus, kind: &str) -> &'a str {
    status.conditions.iter().flatten().find(|it| it.type_ == kind).map_or("", |it| &it.status)
}
