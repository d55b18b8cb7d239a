//! The scheduler against the real Mesos and km's API server, with an executor that binds pods but runs nothing.

#![allow(clippy::unwrap_used, reason = "a test stops where something is wrong")]

mod executor;
mod standby;
mod world;

use std::collections::BTreeMap;
use std::time::Duration;

use km::mesos::executor::Environment;

use world::World;

/// Not a test: the real agent's executor is this program, which runs this function.
#[tokio::test]
#[ignore = "run by the Mesos agent"]
async fn runs_as_executor() {
    if let Ok(environment) = Environment::of_process() {
        executor::run(environment).await;
    }
}

/// Not a test: the scheduler that a test kills is this program, which runs this function.
#[tokio::test]
#[ignore = "run by a test"]
async fn runs_as_scheduler() {
    if std::env::var_os(world::MASTER).is_some() {
        Box::pin(world::run_scheduler()).await;
    }
}

const PODS: usize = 200;

/// Hundreds of pods in a handful of calls; then the scheduler, the pods, and Mesos itself disappear, one after another.
#[tokio::test(flavor = "multi_thread")]
async fn pods_are_launched_in_few_calls_and_survive_everything() {
    let mut world = World::start(3).await;
    for pod in 0..PODS {
        world.create_pod(&format!("p{pod}")).await;
    }
    let mut scheduler = world.start_scheduler().await;
    let running = world.wait_running(PODS).await;
    let accepted = scheduler.metric("mesos_offers_acquired").await;
    assert!(accepted <= 15.0, "{PODS} pods took {accepted} offers");
    let pod = world.pod("p0").await.expect("it was created");
    let note = |name: &str| pod["metadata"]["annotations"][format!("k8s.mesosphere.io/{name}")].as_str().unwrap_or_default().to_owned();
    assert_eq!(note("bindingHost"), "127.0.0.1");
    assert_eq!(pod["spec"]["nodeName"], "127.0.0.1");
    assert!(running.contains_key(&note("taskId")), "{pod:#}");
    let node = world.node("127.0.0.1").await;
    assert_eq!(node["metadata"]["labels"]["k8s.mesosphere.io/attribute-rack"], "7");
    assert_eq!(node["status"]["conditions"][0]["reason"], "SlaveReady");
    assert_eq!(world.service().await["spec"]["ports"][0]["port"], 10251);

    // The scheduler is killed, and a pod is deleted before it restarts: nothing else changes.
    scheduler.kill();
    world.delete_pod("p1").await;
    world.create_pod("late").await;
    scheduler = world.start_scheduler().await;
    let after = world.wait_running_pod("late", PODS).await;
    assert_eq!(survivors(&running, &after), PODS - 1, "tasks were restarted");

    // The same with Mesos: its agents find their executors again.
    world.restart_mesos().await;
    world.create_pod("later").await;
    let after = world.wait_running_pod("later", PODS + 1).await;
    assert_eq!(survivors(&running, &after), PODS - 1, "tasks were restarted");
    assert!(scheduler.get("/healthz").await == "ok" && scheduler.get("/debug/scheduler/podqueue").await.is_empty());
    assert!(scheduler.get("/debug/registry/tasks").await.starts_with(&format!("task_count={}\n", PODS + 1)));
    scheduler.kill();
}

/// How many tasks are in both, on the same agent.
fn survivors(before: &BTreeMap<String, String>, after: &BTreeMap<String, String>) -> usize {
    before.iter().filter(|(task, agent)| after.get(*task) == Some(agent)).count()
}

/// A pod that fits nowhere waits, with an event that says why; it is launched once it fits.
#[tokio::test(flavor = "multi_thread")]
async fn pods_that_fit_nowhere_wait_and_say_why() {
    let world = World::start(1).await;
    world.create_pod_with("ssd", serde_json::json!({"nodeSelector": {"disk": "ssd"}})).await;
    let scheduler = world.start_scheduler().await;
    let told = world.event("ssd", "FailedScheduling").await;
    assert!(told.contains("1 node selector does not match"), "{told}");
    world.label_node("127.0.0.1", "disk", "ssd").await;
    world.wait_running(1).await;
    let told = world.event("ssd", "Scheduled").await;
    assert_eq!(told, "Successfully assigned default/ssd to 127.0.0.1");
    tokio::time::timeout(Duration::from_secs(10), async { scheduler.kill() }).await.expect("a kill is quick");
}
