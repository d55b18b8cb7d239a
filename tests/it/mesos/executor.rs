//! A small executor: a task's data says what it does.

use std::time::Duration;

use km::mesos::executor::{Driver, Environment, ExecutorEvent};
use km::mesos::v1::{TaskId, TaskState, TaskStatus};
use km::supervise::{Shutdown, Supervisor};

/// Data of a task that ends as soon as it runs; others run until killed.
pub(super) const FINISH: &[u8] = b"finish";
/// A message on which the executor exits at once, as in a crash; others are sent back.
pub(super) const CRASH: &[u8] = b"crash";

/// Runs until the agent ends it, or `shutdown`.
pub(super) async fn run(environment: Environment, shutdown: Shutdown) {
    let supervisor = Supervisor::new(shutdown.clone());
    let (driver, mut events) = Driver::start(environment, &supervisor);
    let report = |task_id: TaskId, state: TaskState| driver.update(TaskStatus { task_id, state: state.into(), ..TaskStatus::default() });
    let mut running = Vec::new();
    while let Some(event) = tokio::select! { event = events.recv() => event, () = shutdown.cancelled() => None } {
        match event {
            ExecutorEvent::Launch(task) => {
                report(task.task_id.clone(), TaskState::TaskRunning);
                if task.data() == FINISH {
                    report(task.task_id, TaskState::TaskFinished);
                } else {
                    running.push(task.task_id);
                }
            }
            ExecutorEvent::Kill { task_id, .. } => {
                running.retain(|running| *running != task_id);
                report(task_id, TaskState::TaskKilled);
            }
            ExecutorEvent::Message(data) if data == CRASH => break,
            ExecutorEvent::Message(data) => drop(driver.message(data)),
            ExecutorEvent::Shutdown(_) => {
                running.drain(..).for_each(|task_id| report(task_id, TaskState::TaskKilled));
                let _ = tokio::time::timeout(Duration::from_secs(2), driver.settled()).await;
                break;
            }
            ExecutorEvent::Subscribed(_) | ExecutorEvent::LaunchGroup(_) | ExecutorEvent::Disconnected(_) => {}
        }
    }
    supervisor.shutdown().cancel();
    let _ = supervisor.wait(Duration::from_secs(5)).await;
}
