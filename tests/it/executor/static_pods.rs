//! Static pods and the mirror pods that show them.

use std::io::Write as _;
use std::time::Duration;

use km::client::DeleteOptions;
use km::mesos::executor::ExecutorEvent;
use km::mesos::v1::ExecutorInfo;
use km::object::resource::POD;
use km::runtime::fake::Fake;
use serde_json::{Value, json};

use super::agent::{Agent, NAME, scalar, sleeper};

/// An executor that is to run these static pods, as the scheduler describes it.
fn info(pods: &[&str]) -> ExecutorInfo {
    let pod = |name: &&str| {
        let container = json!({"name": "c", "image": "i:1", "resources": {"limits": {"cpu": "250m", "memory": "64Mi"}}});
        let annotations = json!({"k8s.mesosphere.io/staticPodFilename": format!("{name}.yaml")});
        let metadata = json!({"name": name, "namespace": "default", "labels": {"app": name}, "annotations": annotations});
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"containers": [container], "terminationGracePeriodSeconds": 1}})
    };
    let list = json!({"kind": "PodList", "apiVersion": "v1", "items": pods.iter().map(pod).collect::<Vec<_>>()});
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(list.to_string().as_bytes()).unwrap();
    let count = pods.len() as f64;
    ExecutorInfo {
        data: Some(gzip.finish().unwrap().into()),
        resources: vec![scalar("cpus", 0.25 + 0.25 * count), scalar("mem", 128.0 + 64.0 * count)],
        ..ExecutorInfo::default()
    }
}

fn is_running(pod: Option<&Value>) -> bool {
    pod.is_some_and(|pod| pod["status"]["phase"] == "Running")
}

/// Names of the running containers that are no task's.
fn running(runtime: &Fake, pod: &str) -> Vec<String> {
    let mut names: Vec<String> = runtime.running().into_iter().filter(|name| name.contains(&format!("_{pod}-{NAME}_"))).collect();
    names.sort();
    names
}

#[tokio::test(flavor = "multi_thread")]
async fn a_static_pod_is_shown_by_a_mirror_that_comes_back() {
    let runtime = Fake::new();
    let agent = Agent::start_with(runtime.clone(), info(&["dns"])).await;
    let mirror = agent.until("dns-agent-1", "it runs", is_running).await.unwrap();
    let (meta, annotations) = (&mirror["metadata"], &mirror["metadata"]["annotations"]);
    assert_eq!((&meta["labels"]["app"], &mirror["spec"]["nodeName"]), (&json!("dns"), &json!(NAME)));
    assert_eq!(annotations["kubernetes.io/config.source"], "file");
    assert_eq!(annotations["kubernetes.io/config.mirror"], annotations["kubernetes.io/config.hash"]);
    let node = agent.node().await;
    assert_eq!(meta["ownerReferences"][0]["uid"], node["metadata"]["uid"]);
    // The resources that the scheduler reserved with the executor are available for static pods, and no more.
    assert_eq!((&node["status"]["capacity"]["cpu"], &node["status"]["capacity"]["memory"]), (&json!("3750m"), &json!("896Mi")));
    let before = running(&runtime, "dns");
    assert_eq!(before.len(), 2, "sandbox and container of {:?}", runtime.running());

    agent.client.delete(&POD, "default", "dns-agent-1", &DeleteOptions::default()).await.unwrap();
    let is_new = |pod: Option<&Value>| is_running(pod) && pod.is_some_and(|pod| pod["metadata"]["uid"] != meta["uid"]);
    agent.until("dns-agent-1", "its mirror is back", is_new).await;
    assert_eq!(running(&runtime, "dns"), before, "it was the mirror that was deleted");

    let container = before.iter().find(|name| name.starts_with("k8s_c_")).unwrap();
    runtime.crash(container, 1);
    let restarted = |pod: Option<&Value>| pod.is_some_and(|pod| pod["status"]["containerStatuses"][0]["restartCount"] == 1);
    agent.until("dns-agent-1", "it was restarted", |pod| is_running(pod) && restarted(pod)).await;

    agent.events.send(ExecutorEvent::Shutdown("the agent asks for it".to_owned())).await.unwrap();
    agent.until("dns-agent-1", "it goes with its executor", |pod| pod.is_none()).await;
    assert_eq!(runtime.running(), Vec::<String>::new());
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn static_pods_outlive_a_restart_of_their_executor_but_not_a_change() {
    let runtime = Fake::new();
    let mut agent = Agent::start_with(runtime.clone(), info(&["keeps", "goes"])).await;
    for name in ["keeps-agent-1", "goes-agent-1"] {
        agent.until(name, "it runs", is_running).await;
    }
    agent.launch("task", sleeper()).await;
    agent.until("task", "it runs", is_running).await;
    let before = agent.until("keeps-agent-1", "it runs", is_running).await.unwrap();
    let containers = running(&runtime, "keeps");

    agent.restart(info(&["keeps", "comes"]), "task").await;
    agent.until("comes-agent-1", "it runs", is_running).await;
    agent.until("goes-agent-1", "its mirror is gone", |pod| pod.is_none()).await;
    // Static pods of the previous executor that this one does not have are ended.
    let ended = async {
        while runtime.running().len() > 4 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), ended).await.unwrap_or_else(|_| panic!("{:?}", runtime.running()));
    assert_eq!(running(&runtime, "keeps"), containers);
    let made = runtime.calls().iter().filter(|call| call.starts_with("create") && call.contains("_keeps-")).count();
    assert_eq!(made, 2, "sandbox and container, once each: {:?}", runtime.calls());
    assert_eq!((running(&runtime, "comes").len(), runtime.running().len()), (2, 4), "{:?}", runtime.running());
    let after = agent.until("keeps-agent-1", "it runs", is_running).await.unwrap();
    assert_eq!(after["metadata"]["uid"], before["metadata"]["uid"]);
    assert_eq!(after["status"]["startTime"], before["status"]["startTime"]);
    agent.stop().await;
}
