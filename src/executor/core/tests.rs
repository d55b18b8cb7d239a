//! The core's end: status updates to Mesos for pods that end shortly before the executor.

use serde_json::json;

use super::*;
use crate::mesos::v1::{TaskInfo, TaskState};
use crate::util::product::KUBERNETES;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).unwrap()
}

/// An executor that runs one pod, which has just failed, and the id of that.
fn with_failed_pod() -> (Core, PodId) {
    let settings = Settings { product: KUBERNETES, has_mesos: true, suicide_timeout: Duration::ZERO, launch_grace: Duration::ZERO };
    let mut core = Core::new(&settings, at(0));
    let pod = json!({
        "metadata": {"name": "web", "namespace": "a", "uid": "u", "annotations": {"k8s.mesosphere.io/taskId": "t"}},
        "spec": {"containers": [{"name": "c"}]},
    });
    let task = TaskInfo { task_id: "t".into(), data: Some(pod.to_string().into()), ..TaskInfo::default() };
    let pod: Pod = serde_json::from_value(pod).unwrap();
    let id = PodId::of(&pod);
    core.handle(Input::Listed(Vec::new()), at(0));
    core.handle(Input::Mesos(Box::new(ExecutorEvent::Launch(Box::new(task)))), at(1));
    core.handle(Input::Bound { task: "t".to_owned(), result: Ok(Arc::new(pod)) }, at(1));
    let status = serde_json::from_value(json!({"phase": "Failed"})).unwrap();
    let actions = core.handle(Input::Status(Box::new(Report { pod: id.clone(), status, ending: false })), at(2));
    assert_eq!(told(&actions), [TaskState::TaskRunning]);
    (core, id)
}

fn told(actions: &[Action]) -> Vec<TaskState> {
    actions.iter().filter_map(|action| if let Action::Update(status) = action { Some(status.state()) } else { None }).collect()
}

fn shutdown(core: &mut Core, now: Timestamp) -> Vec<Action> {
    core.handle(Input::Mesos(Box::new(ExecutorEvent::Shutdown("test".to_owned()))), now)
}

#[test]
fn its_end_waits_for_what_the_api_is_to_be_told_first() {
    let (mut core, pod) = with_failed_pod();
    let actions = shutdown(&mut core, at(3));
    assert!(matches!(&actions[..], [Action::Tell(_, Notice::Gone)]), "a pod that has failed stays in the API: {actions:?}");
    assert_eq!(told(&core.handle(Input::Ended(pod.clone()), at(4))), []);
    assert!(!core.has_ended(at(4)), "its failure is still to be told");
    assert_eq!(told(&core.handle(Input::Written(pod), at(5))), [TaskState::TaskFailed]);
    assert!(core.has_ended(at(5)));
}

#[test]
fn its_end_does_not_wait_for_ever() {
    let (mut core, pod) = with_failed_pod();
    shutdown(&mut core, at(3));
    core.handle(Input::Ended(pod), at(4));
    let until = core.wake_at().unwrap();
    assert!(!core.has_ended(at(4)) && core.has_ended(until));
    assert_eq!(until, at(3) + SHUTDOWN_TIMEOUT);
}
