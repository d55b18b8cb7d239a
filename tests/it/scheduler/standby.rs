//! Two schedulers with `--ha`, and the framework id in ZooKeeper.

use nix::sys::signal::Signal;

use super::survivors;
use super::world::World;
use crate::mesos::zookeeper::ZooKeeper;

/// The leader restarts on request, and leads again; then it is killed, and the other takes over. The framework stays the same, and running
/// tasks are not affected.
#[tokio::test(flavor = "multi_thread")]
async fn a_standby_takes_over_the_framework() {
    let (world, zookeeper) = tokio::join!(World::start(1), ZooKeeper::start());
    let store = format!("--framework-store-uri={}", zookeeper.url("/k8sm/ids"));
    let flags = ["--ha", store.as_str()];
    let first = world.start_km(&flags).await;
    world.wait_leads(&first).await;
    world.create_pod("one").await;
    let running = world.wait_running(1).await;
    let frameworks = world.frameworks().await;
    assert_eq!(frameworks.len(), 1);
    assert_eq!(zookeeper.client().await.data("/k8sm/ids/Kubernetes").await.unwrap(), frameworks[0]);

    let second = world.start_km(&flags).await;
    assert_eq!(second.status("/metrics").await, Ok(200));
    assert_eq!(second.status("/debug/registry/tasks").await, Ok(503), "it only waits");

    first.signal(Signal::SIGUSR1);
    world.wait_subscribed(2).await;
    world.create_pod("two").await;
    let after = world.wait_running_pod("two", 2).await;
    assert_eq!((survivors(&running, &after), world.frameworks().await), (1, frameworks.clone()));
    assert_eq!(first.status("/debug/registry/tasks").await, Ok(200), "it is the same process");

    first.kill();
    world.wait_leads(&second).await;
    world.create_pod("three").await;
    let last = world.wait_running_pod("three", 3).await;
    assert_eq!((survivors(&after, &last), world.frameworks().await), (2, frameworks));
}
