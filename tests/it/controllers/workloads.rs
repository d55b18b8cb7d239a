//! Workloads as kubectl rolls them out, back and on. A thread plays the kubelets.

use std::process::Command;
use std::time::Duration;

use km::cache::Query;
use km::client::{Client, ClientError, Patch, WatchEvent};
use km::object::resource::POD;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::support::plane::Plane;
use crate::support::process::run;
use crate::support::wait_for;

/// Runs `test` while pods of the namespace `default` get the status that `kubelet` has for them, if they do not have it yet.
fn played(plane: &Plane, kubelet: impl Fn(&Value) -> Value + Sync, test: impl FnOnce()) {
    let ended = CancellationToken::new();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(ended.run_until_cancelled(play(plane.client(), &kubelet)));
        });
        // Also when the test fails.
        let _ended = ended.clone().drop_guard();
        test();
    });
}

async fn play(client: Client, kubelet: impl Fn(&Value) -> Value) {
    let mut watch = client.watch(&POD, &Query::namespace("default"), 0, 3_600).await.unwrap();
    while let Some(events) = watch.next().await.unwrap() {
        for event in events {
            let (WatchEvent::Added(pod) | WatchEvent::Modified(pod)) = event else { continue };
            let seen: Value = serde_json::from_slice(pod.body()).unwrap();
            let status = kubelet(&seen);
            if seen["status"]["phase"] != status["phase"] {
                match client.patch(&POD, "default", pod.name(), "status", &Patch::Merge(json!({"status": status}))).await {
                    // The pod may be gone by now.
                    Err(ClientError::Api(status)) if status.code == 404 => {}
                    outcome => drop(outcome.unwrap()),
                }
            }
        }
    }
    panic!("the watch ended");
}

fn ready(_: &Value) -> Value {
    json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}]})
}

/// Jobs' pods end well, unless their image is `bad`.
fn ended(pod: &Value) -> Value {
    let (phase, code) = if pod["spec"]["containers"][0]["image"] == "bad" { ("Failed", 1) } else { ("Succeeded", 0) };
    let terminated = json!({"exitCode": code, "finishedAt": "2026-01-01T00:00:00Z"});
    let container =
        json!({"name": "c", "image": "i", "imageID": "", "ready": false, "restartCount": 0, "state": {"terminated": terminated}});
    json!({"phase": phase, "containerStatuses": [container]})
}

fn events(plane: &Plane, object: &str) -> String {
    plane.ok(&[
        "get",
        "events",
        "-o",
        &format!("jsonpath={{range .items[?(@.involvedObject.name==\"{object}\")]}}{{.reason}} {{.message}}{{\"\\n\"}}{{end}}"),
    ])
}

fn images(plane: &Plane, label: &str) -> String {
    plane.ok(&["get", "pods", "-l", label, "-o", "jsonpath={.items[*].spec.containers[0].image}"])
}

#[test]
fn deployments_roll_out_back_and_on() {
    let plane = Plane::start();
    played(&plane, ready, || {
        plane.ok(&["create", "deployment", "web", "--image=i:1", "--replicas=3"]);
        let rolled = "deployment \"web\" successfully rolled out\n";
        let status = || plane.ok(&["rollout", "status", "deployment/web", "--timeout=60s"]);
        assert!(status().ends_with(rolled));
        plane.ok(&["annotate", "deployment/web", "kubernetes.io/change-cause=first"]);
        plane.ok(&["set", "image", "deployment/web", "i=i:2"]);
        plane.ok(&["annotate", "--overwrite", "deployment/web", "kubernetes.io/change-cause=second"]);
        assert!(status().ends_with(rolled));
        assert_eq!(images(&plane, "app=web"), "i:2 i:2 i:2");
        let history = plane.wait_until("the history", &["rollout", "history", "deployment/web"], |it| it.contains("second"));
        let rows: Vec<Vec<&str>> = history.lines().skip(2).filter(|it| !it.is_empty()).map(|it| it.split_whitespace().collect()).collect();
        assert_eq!(rows, [["1", "first"], ["2", "second"]], "{history}");

        plane.ok(&["rollout", "undo", "deployment/web"]);
        assert!(status().ends_with(rolled));
        assert_eq!(images(&plane, "app=web"), "i:1 i:1 i:1");
        assert_eq!(plane.get("deployment/web", r"{.metadata.annotations.deployment\.kubernetes\.io/revision}"), "3");
        assert!(plane.ok(&["rollout", "history", "deployment/web", "--revision=2"]).contains("i:2"));

        plane.ok(&["rollout", "pause", "deployment/web"]);
        plane.ok(&["set", "image", "deployment/web", "i=i:3"]);
        plane.wait(
            "the pause",
            &["get", "deployment/web", "-o", "jsonpath={.status.conditions[?(@.type==\"Progressing\")].reason}"],
            "DeploymentPaused",
        );
        assert_eq!(images(&plane, "app=web"), "i:1 i:1 i:1");
        plane.ok(&["rollout", "resume", "deployment/web"]);
        assert!(status().ends_with(rolled));
        assert_eq!(images(&plane, "app=web"), "i:3 i:3 i:3");
        plane.ok(&["rollout", "restart", "deployment/web"]);
        assert!(status().ends_with(rolled));
        plane.ok(&["wait", "--for=condition=available", "deployment/web", "--timeout=60s"]);
        plane.ok(&["scale", "deployment/web", "--replicas=1"]);
        assert!(status().ends_with(rolled));
        assert!(plane.ok(&["get", "deployment/web", "--no-headers"]).contains("1/1"));
        assert!(events(&plane, "web").contains("ScalingReplicaSet Scaled up replica set web-"), "{}", events(&plane, "web"));
    });
}

/// Conditions report rejections by a quota.
#[test]
fn pods_that_cannot_be_made_are_told_of() {
    let plane = Plane::start();
    plane.ok(&["create", "quota", "none", "--hard=pods=0"]);
    plane.wait("the quota", &["get", "quota", "none", "-o", "jsonpath={.status.used.pods}"], "0");
    plane.ok(&["create", "deployment", "web", "--image=i", "--replicas=50"]);
    let reason = "jsonpath={.status.conditions[?(@.type==\"ReplicaFailure\")].reason}";
    plane.wait("the condition", &["get", "deployment", "web", "-o", reason], "FailedCreate");
    plane.ok(&["delete", "quota", "none"]);
    played(&plane, ready, || {
        plane.ok(&["wait", "--for=condition=available", "deployment/web", "--timeout=90s"]);
    });
    plane.wait("no condition", &["get", "deployment", "web", "-o", reason], "");
}

const TEMPLATE: &str = r#"{"metadata": {"labels": {"app": "APP"}}, "spec": {"containers": [{"name": "c", "image": "i:1"}]}}"#;

fn workload(kind: &str, name: &str, more: Value) -> Value {
    let template: Value = serde_json::from_str(&TEMPLATE.replace("APP", name)).unwrap();
    let mut it = json!({"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": name}, "spec": {
        "selector": {"matchLabels": {"app": name}}, "template": template}});
    for (key, value) in more.as_object().unwrap() {
        it["spec"][key] = value.clone();
    }
    it
}

#[test]
fn stateful_sets_roll_out_back_and_on() {
    let plane = Plane::start();
    played(&plane, ready, || {
        let claim = json!({"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}});
        plane.created(&workload("StatefulSet", "db", json!({"replicas": 3, "serviceName": "db", "volumeClaimTemplates": [claim]})));
        let status = || plane.ok(&["rollout", "status", "statefulset/db", "--timeout=60s"]);
        status();
        assert_eq!(plane.pods("app=db"), ["db-0", "db-1", "db-2"]);
        assert_eq!(plane.ok(&["get", "pvc", "-o", "jsonpath={.items[*].metadata.name}"]), "data-db-0 data-db-1 data-db-2");
        plane.ok(&["set", "image", "statefulset/db", "c=i:2"]);
        status();
        assert_eq!(images(&plane, "app=db"), "i:2 i:2 i:2");
        plane.ok(&["rollout", "undo", "statefulset/db"]);
        status();
        assert_eq!(images(&plane, "app=db"), "i:1 i:1 i:1");
        let history = plane.ok(&["rollout", "history", "statefulset/db"]);
        assert!(
            history.lines().filter_map(|it| it.split_whitespace().next()).filter(|it| it.parse::<u32>().is_ok()).eq(["2", "3"]),
            "{history}"
        );
        plane.ok(&["rollout", "restart", "statefulset/db"]);
        status();
        plane.ok(&["scale", "statefulset/db", "--replicas=1"]);
        plane.wait("one pod", &["get", "pods", "-l", "app=db", "-o", "name"], "pod/db-0\n");
        plane.ok(&["scale", "statefulset/db", "--replicas=2"]);
        status();
        assert!(plane.ok(&["get", "statefulset/db", "--no-headers"]).contains("2/2"));
        assert!(events(&plane, "db").contains("SuccessfulCreate create Pod db-0 in StatefulSet db successful"));
    });
}

#[test]
fn daemon_sets_roll_out_back_and_on() {
    let mut plane = Plane::without_controllers();
    // No kubelet sends heartbeats.
    plane.manage(&["--leader-elect=false", "--node-monitor-grace-period=1h"]);
    plane.settled_namespace("default");
    for name in ["n0", "n1"] {
        let labels = json!({"kubernetes.io/hostname": name});
        plane.created(&json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}}));
        plane.set_status(&format!("/api/v1/nodes/{name}"), &json!({"conditions": [{"type": "Ready", "status": "True"}]}));
    }
    plane.wait("nodes without taints", &["get", "nodes", "-o", "jsonpath={.items[*].spec.taints}"], "");
    played(&plane, ready, || {
        plane.created(&workload("DaemonSet", "log", json!({})));
        let status = || plane.ok(&["rollout", "status", "daemonset/log", "--timeout=60s"]);
        status();
        assert_eq!(plane.pods("app=log").len(), 2);
        plane.ok(&["set", "image", "daemonset/log", "c=i:2"]);
        status();
        assert_eq!(images(&plane, "app=log"), "i:2 i:2");
        plane.ok(&["rollout", "undo", "daemonset/log"]);
        status();
        assert_eq!(images(&plane, "app=log"), "i:1 i:1");
        plane.ok(&["rollout", "restart", "daemonset/log"]);
        status();
        assert!(plane.ok(&["rollout", "history", "daemonset/log"]).contains('4'));
        plane.ok(&["label", "node", "n1", "role=log"]);
        plane.ok(&["patch", "daemonset", "log", "-p", r#"{"spec":{"template":{"spec":{"nodeSelector":{"role":"log"}}}}}"#]);
        status();
        assert_eq!(plane.get("daemonset/log", "{.status.desiredNumberScheduled}"), "1");
    });
}

#[test]
fn jobs_run_to_their_end() {
    let plane = Plane::start();
    played(&plane, ended, || {
        plane.ok(&["create", "job", "once", "--image=i"]);
        plane.ok(&["wait", "--for=condition=complete", "job/once", "--timeout=60s"]);
        assert_eq!(plane.get("job/once", "{.status.succeeded} {.status.uncountedTerminatedPods}"), "1 {}");
        assert!(plane.ok(&["get", "job/once", "--no-headers"]).contains("1/1"));
        plane.wait_until("the event", &["describe", "job", "once"], |it| it.contains("Completed") && it.contains("Job completed"));
        let finalizers = &["get", "pods", "-l", "job-name=once", "-o", "jsonpath={.items[*].metadata.finalizers}"];
        plane.wait_until("the pod is let go", finalizers, |it| !it.contains("job-tracking"));

        let spec = json!({"backoffLimit": 0, "ttlSecondsAfterFinished": 3600, "template": {"spec": {
            "restartPolicy": "Never", "containers": [{"name": "c", "image": "bad"}]}}});
        plane.created(&json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "never"}, "spec": spec}));
        plane.ok(&["wait", "--for=condition=failed", "job/never", "--timeout=60s"]);
        assert_eq!(plane.get("job/never", "{.status.conditions[?(@.type==\"Failed\")].reason}"), "BackoffLimitExceeded");
        plane.ok(&["patch", "job", "never", "-p", r#"{"spec":{"ttlSecondsAfterFinished":0}}"#]);
        plane.ok(&["wait", "--for=delete", "job/never", "--timeout=60s"]);

        let spec = json!({"completions": 5, "parallelism": 2, "completionMode": "Indexed", "template": {"spec": {
            "restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}});
        plane.created(&json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "many"}, "spec": spec}));
        plane.ok(&["wait", "--for=condition=complete", "job/many", "--timeout=60s"]);
        assert_eq!(plane.get("job/many", "{.status.completedIndexes} {.status.succeeded}"), "0-4 5");
        plane.ok(&["delete", "job", "many", "once"]);
        plane.wait("no pods", &["get", "pods", "-o", "name"], "");
    });
}

#[test]
fn cron_jobs_start_jobs() {
    let plane = Plane::start();
    played(&plane, ended, || {
        let job = json!({"spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}}});
        let cron = |name: &str, schedule: &str| {
            let spec = json!({"schedule": schedule, "jobTemplate": job, "successfulJobsHistoryLimit": 2});
            plane.created(&json!({"apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": name}, "spec": spec}));
        };
        cron("yearly", "@yearly");
        plane.ok(&["create", "job", "by-hand", "--from=cronjob/yearly"]);
        plane.ok(&["wait", "--for=condition=complete", "job/by-hand", "--timeout=60s"]);
        cron("often", "@every 1s");
        let started = "jsonpath={.status.lastSuccessfulTime}";
        plane.wait_until("a job has succeeded", &["get", "cronjob", "often", "-o", started], |it| !it.is_empty());
        plane.wait_until("the event", &["get", "events"], |it| it.contains("SawCompletedJob") && it.contains("Created job often-"));
        plane.ok(&["delete", "cronjob", "often", "yearly"]);
        plane.wait("no jobs", &["get", "jobs", "-o", "name"], "");
    });
}

#[test]
fn a_managers_metrics_show_its_queues() {
    let plane = Plane::start();
    plane.ok(&["create", "deployment", "web", "--image=i"]);
    let line = |name: &str| format!("workqueue_work_duration_seconds_count{{name=\"{name}\"}} ");
    let said = plane.manager(0).said();
    let url = said.split_once("/healthz and /metrics on ").and_then(|(_, rest)| rest.lines().next()).expect("its address");
    wait_for("a replica set that was worked on", Duration::from_secs(30), || {
        let metrics = run(Command::new("curl").args(["-s", &format!("{url}/metrics")]));
        let count = |name: &str| metrics.split_once(&line(name)).and_then(|(_, rest)| rest.lines().next()?.parse::<u64>().ok());
        let all = ["deployment", "replicaset", "namespace"].map(|it| count(it).unwrap_or_default());
        if all.iter().all(|it| *it > 0) { Ok(()) } else { Err(format!("{all:?}")) }
    });
}
