//! Tasks on Mesos without Kubernetes.

#[path = "../../tests/it/mesos/executor.rs"]
mod executor;
#[path = "../../tests/it/mesos/framework.rs"]
mod framework;
#[path = "../../tests/it/mesos/local.rs"]
mod local;
#[path = "../../tests/it/mesos/real.rs"]
pub(crate) mod real;

use std::collections::{HashMap, HashSet};
use std::time::Instant;

use km::mesos::executor::Environment;
use km::mesos::scheduler::DriverEvent;
use km::mesos::v1::scheduler::{Call, Event};
use km::mesos::v1::{FrameworkInfo, TaskInfo, TaskState};

use framework::{Framework, scalar};
use local::Local;
use real::Mesos;

/// The executor of the real agents.
pub(super) async fn runs_as_executor() {
    executor::run(Environment::of_process().unwrap(), Default::default()).await;
}

pub(super) async fn measure(agents: usize) {
    println!("{:.0} tasks a second on Mesos", rate(&Mesos::start(agents).await.address(), agents).await);
    let local = Local::start().await;
    println!("{:.0} tasks a second on km's own master, with one agent", rate(&local.address(), 1).await);
    local.stop().await;
}

/// Tasks per second from ACCEPT to acknowledged TASK_RUNNING, with executors that do nothing. A real agent sums up all tasks of an executor
/// at each update, so the tasks are spread over agents like pods. Without checkpoints, which would measure the disk.
async fn rate(master: &str, agents: usize) -> f64 {
    const EACH: usize = 50;
    let mut framework = Framework::subscribe(master, FrameworkInfo { checkpoint: Some(false), ..framework::info() }).await;
    let mut offers = HashMap::new();
    let (mut started, mut running, mut start) = (HashSet::new(), 0, Instant::now());
    while running < agents * EACH {
        match framework.wait("event", |event| Some(event.clone())).await {
            DriverEvent::Event(Event { offers: Some(new), .. }) => {
                for offer in new.offers {
                    if started.insert(offer.agent_id.clone()) {
                        let first = framework.task(&offer, "e", &format!("first-{}", offer.agent_id), b"");
                        drop(framework.calls.send(Call::launch(vec![offer.id], vec![first], Some(0.0))));
                    } else {
                        offers.insert(offer.agent_id.clone(), offer);
                    }
                }
            }
            DriverEvent::Event(Event { update: Some(update), .. }) => {
                assert_eq!(update.status.state(), TaskState::TaskRunning, "{:?}", update.status);
                drop(framework.calls.send(Call::acknowledge(&update.status).unwrap()));
                running += usize::from(!update.status.task_id.value.starts_with("first-"));
            }
            DriverEvent::Connected(_) | DriverEvent::Event(Event { rescind: Some(_), .. }) => {}
            other => panic!("{other:?}"),
        }
        if offers.len() == agents {
            start = Instant::now();
            for (agent, offer) in offers.drain() {
                let task = |number: usize| TaskInfo {
                    resources: vec![scalar("cpus", 0.01), scalar("mem", 1.0)],
                    ..framework.task(&offer, "e", &format!("{agent}-{number}"), b"")
                };
                drop(framework.calls.send(Call::launch(vec![offer.id.clone()], (0..EACH).map(task).collect(), Some(600.0))));
            }
        }
    }
    let rate = running as f64 / start.elapsed().as_secs_f64();
    framework.teardown().await;
    rate
}
