//! Pods, from their creation on.

#[path = "../../tests/it/scheduler/executor.rs"]
mod executor;
#[path = "../../tests/it/scheduler/world.rs"]
mod world;

use std::time::Instant;

use futures_util::StreamExt as _;
use km::mesos::executor::Environment;
use serde_json::json;

use world::{World, container};

const PODS: usize = 1_000;

/// The executor of the agents.
pub(super) async fn runs_as_executor() {
    executor::run(Environment::of_process().unwrap()).await;
}

/// The scheduler.
pub(super) async fn runs_as_scheduler() {
    Box::pin(world::run_scheduler()).await;
}

/// Pods per second from creation to a launched task, and to a running one.
pub(super) async fn measure(agents: usize) {
    let world = World::start(agents).await;
    let _scheduler = world.start_scheduler().await;
    // No two of these fit on an agent, so each agent starts an executor.
    for agent in 0..agents {
        world.create_pod_with(&format!("first-{agent}"), json!({"containers": container("2")})).await;
    }
    world.wait_running(agents).await;
    let names: Vec<String> = (0..PODS).map(|pod| format!("p{pod}")).collect();
    let begun = Instant::now();
    futures_util::stream::iter(&names).for_each_concurrent(64, |name| world.create_pod(name)).await;
    let created = begun.elapsed();
    world
        .eventually("launch of all pods", || async {
            let tasks = world.tasks().await?.len();
            if tasks == agents + PODS { Ok(()) } else { Err(format!("{tasks} tasks")) }
        })
        .await;
    let launched = begun.elapsed();
    world.wait_running(agents + PODS).await;
    let running = begun.elapsed();
    for (what, took) in [("created", created), ("launched", launched), ("running", running)] {
        println!("{:.0} pods a second {what}", PODS as f64 / took.as_secs_f64());
    }
}
