//! The core, one input after another: its requests to Mesos and to the API server.

mod claims;

use serde_json::{Value, json};

use super::*;
use crate::mesos::v1::scheduler::call;
use crate::mesos::v1::task_status::{Reason, Source};
use crate::mesos::v1::{ExecutorId, Offer, TaskState};
use crate::object::resource;
use crate::scheduler::demand::tests::{object, rules};
use crate::scheduler::offers::tests::offer;
use crate::scheduler::resources::ExecutorCost;
use crate::telemetry::metrics::Registry;
use crate::util::product::KUBERNETES;

const S: Duration = Duration::from_secs(1);

fn settings(seed: u64, resumed: bool) -> Settings {
    let cost = ExecutorCost { cpu: 250, mem: 128_000 };
    Settings {
        rules: rules(),
        prototype: Prototype::new(KUBERNETES, "./km", vec!["./km".into()], &[], None, cost),
        discovery: false,
        offer_ttl: Duration::from_secs(5),
        initial_pod_backoff: Duration::from_secs(1),
        max_pod_backoff: Duration::from_secs(60),
        reconcile: Pace {
            cooldown: Duration::from_secs(15),
            interval: Duration::from_secs(300),
            initial_delay: Duration::from_secs(15),
            max_backoff: Duration::from_secs(120),
        },
        resumed,
        // Time leaps in these tests; with a shorter gate, pods could be launched twice.
        gate: Duration::MAX / 2,
        bind_timeout: BIND_TIMEOUT,
        seed,
    }
}

struct Bench {
    core: Core,
    now: Duration,
    /// Actions that the test has not looked at yet.
    done: Vec<Action>,
}

fn pod(name: &str, change: impl FnOnce(&mut Value)) -> Arc<Object> {
    let mut pod = json!({"metadata": {"name": name, "namespace": "n", "uid": format!("uid-{name}")},
        "spec": {"containers": [{"name": "c", "resources": {"limits": {"cpu": "100m"}}}]}});
    change(&mut pod);
    object(&pod)
}

/// The id of a task of the pod of this name.
fn task_of(name: &str) -> String {
    crate::scheduler::taskid::task_id(&format!("uid-{name}"), 1)
}

/// The pod as bound by its executor.
fn bound(name: &str, task: &str, change: impl FnOnce(&mut Value)) -> Arc<Object> {
    let note = |it: &str| format!("k8s.mesosphere.io/{it}");
    pod(name, |pod| {
        pod["metadata"]["annotations"] =
            json!({note("bindingHost"): "host-a", note("taskId"): task, note("slaveId"): "a", note("offerId"): "o"});
        pod["spec"]["nodeName"] = "host-a".into();
        change(pod);
    })
}

impl Bench {
    fn new(resumed: bool) -> Self {
        Self { core: Core::new(settings(7, resumed), Metrics::new(Registry::default())), now: S, done: Vec::new() }
    }

    fn subscribed() -> Self {
        let mut bench = Self::new(false);
        bench.input(Input::Subscribed("f".to_owned()));
        bench.done.clear();
        bench
    }

    fn input(&mut self, input: Input) {
        self.core.input(self.now, input);
        self.done.extend(self.core.act(self.now));
    }

    fn wait(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(at) = self.core.wake_at().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.done.extend(self.core.act(self.now));
        }
        self.now = end;
    }

    fn offer(&mut self, offer: Offer) {
        let offers = Some(event::Offers { offers: vec![offer] });
        self.input(Input::Event(Box::new(Event { r#type: Some(event::Type::Offers.into()), offers, ..Event::default() })));
    }

    fn status(&mut self, task: &str, state: TaskState, source: Source, reason: Option<Reason>) {
        let timestamp = Some(self.now.as_secs_f64());
        self.update(TaskStatus { timestamp, ..Self::task_status(task, state, source, reason) });
    }

    fn task_status(task: &str, state: TaskState, source: Source, reason: Option<Reason>) -> TaskStatus {
        TaskStatus {
            task_id: task.into(),
            agent_id: Some("a".into()),
            state: state.into(),
            source: Some(source.into()),
            reason: reason.map(Into::into),
            uuid: Some(bytes::Bytes::from_static(b"uuid")),
            ..TaskStatus::default()
        }
    }

    fn update(&mut self, status: TaskStatus) {
        let update = Some(event::Update { status });
        self.input(Input::Event(Box::new(Event { r#type: Some(event::Type::Update.into()), update, ..Event::default() })));
    }

    /// The calls since the last time.
    fn calls(&mut self) -> Vec<Call> {
        let done = std::mem::take(&mut self.done);
        let call = |action| if let Action::Call(call) = action { Some(*call) } else { None };
        done.into_iter().filter_map(call).collect()
    }

    fn kinds(&mut self) -> Vec<call::Type> {
        self.calls().iter().map(Call::r#type).collect()
    }

    /// Launches a pod on agent `a`; returns the id of its task.
    fn launch(&mut self, name: &str) -> String {
        self.input(Input::Pod(pod(name, |_| {})));
        self.offer(offer(&format!("o-{name}"), "a", 4000));
        let launched = self.calls().into_iter().find_map(|call| call.accept).expect("a launch");
        launched.operations[0].launch.as_ref().unwrap().task_infos[0].task_id.value.clone()
    }
}

#[test]
fn an_agents_first_offer_makes_its_node_and_is_used() {
    let mut bench = Bench::subscribed();
    for name in ["p1", "p2", "p3"] {
        bench.input(Input::Pod(pod(name, |_| {})));
    }
    bench.done.clear();
    bench.offer(offer("o1", "a", 4000));
    assert!(matches!(&bench.done[0], Action::WriteNode { host, .. } if &**host == "host-a"), "{:?}", bench.done[0]);
    let told = bench.done.iter().filter(|it| matches!(it, Action::Tell { reason: "Scheduled", .. })).count();
    let accepts: Vec<_> = bench.calls().into_iter().filter_map(|call| call.accept).collect();
    assert_eq!((told, accepts.len()), (3, 1));
    assert_eq!(accepts[0].operations[0].launch.as_ref().unwrap().task_infos.len(), 3);
}

#[test]
fn offers_nobody_wants_are_held_then_declined_then_suppressed() {
    let mut bench = Bench::subscribed();
    bench.offer(offer("o1", "a", 4000));
    bench.wait(S * 4);
    assert_eq!(bench.kinds(), []);
    bench.wait(S * 2);
    let calls = bench.calls();
    assert_eq!(calls[0].decline.as_ref().unwrap().filters.unwrap().refuse_seconds(), 120.0);
    bench.wait(S * 60);
    assert_eq!(bench.kinds(), [call::Type::Reconcile, call::Type::Suppress]);
    bench.input(Input::Pod(pod("p", |_| {})));
    assert_eq!(bench.kinds(), [call::Type::Revive]);
    bench.offer(offer("o2", "a", 4000));
    assert_eq!(bench.kinds()[0], call::Type::Accept);
}

#[test]
fn a_status_is_acknowledged_when_its_pod_is_deleted() {
    let mut bench = Bench::subscribed();
    let task = bench.launch("p");
    bench.status(&task, TaskState::TaskStarting, Source::Executor, None);
    assert_eq!(bench.kinds().last(), Some(&call::Type::Acknowledge));
    bench.input(Input::Pod(bound("p", &task, |_| {})));
    bench.status(&task, TaskState::TaskFailed, Source::Agent, Some(Reason::ExecutorTerminated));
    let deletes = |bench: &Bench| bench.done.iter().filter(|it| matches!(it, Action::DeletePod { .. })).count();
    assert_eq!(deletes(&bench), 1);
    assert!(!bench.kinds().contains(&call::Type::Acknowledge));
    let pod = Name::new("n", "p");
    bench.input(Input::PodDeletion { pod: pod.clone(), done: false });
    bench.wait(S * 3);
    assert_eq!(deletes(&bench), 1, "a failed deletion is tried again");
    bench.done.clear();
    bench.input(Input::PodDeletion { pod, done: true });
    assert!(bench.kinds().contains(&call::Type::Acknowledge));
}

#[test]
fn what_an_agent_says_of_a_lost_executor_counts_whoever_spoke_before() {
    let deletes = |bench: &Bench| bench.done.iter().filter(|it| matches!(it, Action::DeletePod { .. })).count();
    for (phase, reason, expected) in [
        ("Running", Reason::ExecutorTerminated, 1),
        ("Running", Reason::ContainerLimitationMemory, 1),
        // It ended by itself, and its executor reported that to the user.
        ("Failed", Reason::ExecutorTerminated, 0),
    ] {
        let mut bench = Bench::subscribed();
        bench.input(Input::Pod(bound("p", &task_of("p"), |pod| pod["status"] = json!({"phase": phase}))));
        bench.input(Input::Pod(bound("q", &task_of("q"), |pod| pod["status"] = json!({"phase": "Running"}))));
        bench.status(&task_of("p"), TaskState::TaskFailed, Source::Master, Some(Reason::AgentReregistered));
        assert_eq!(deletes(&bench), 0);
        bench.status(&task_of("p"), TaskState::TaskFailed, Source::Agent, Some(reason));
        assert_eq!(deletes(&bench), expected, "{phase} {reason:?}");
        bench.status(&task_of("q"), TaskState::TaskFailed, Source::Agent, Some(reason));
        assert_eq!(deletes(&bench), expected + 1, "{reason:?}");
    }
}

#[test]
fn a_pod_that_has_ended_stays_whatever_becomes_of_its_task() {
    for (state, source, reason) in
        [(TaskState::TaskGone, Source::Master, Reason::Reconciliation), (TaskState::TaskFailed, Source::Agent, Reason::ExecutorTerminated)]
    {
        let mut bench = Bench::subscribed();
        let task = bench.launch("p");
        bench.status(&task, TaskState::TaskRunning, Source::Executor, None);
        bench.input(Input::Pod(bound("p", &task, |pod| pod["status"] = json!({"phase": "Failed"}))));
        bench.done.clear();
        bench.status(&task, state, source, Some(reason));
        assert_eq!(bench.kinds(), [call::Type::Acknowledge], "{state:?}");
        assert!(bench.core.debug_tasks().contains("\t2\t"), "it is over");
    }
}

#[test]
fn how_a_task_ended_is_not_for_the_master_to_say() {
    let mut bench = Bench::subscribed();
    let task = bench.launch("p");
    bench.input(Input::Pod(bound("p", &task, |_| {})));
    bench.status(&task, TaskState::TaskRunning, Source::Executor, None);
    bench.done.clear();
    bench.status(&task, TaskState::TaskFailed, Source::Master, Some(Reason::Reconciliation));
    assert!(bench.done.is_empty(), "its agent's update is still to come: {:?}", bench.done);
    bench.status(&task, TaskState::TaskFailed, Source::Executor, None);
    assert!(!bench.done.iter().any(|it| matches!(it, Action::DeletePod { .. })), "a pod that failed keeps its status");
    assert_eq!(bench.kinds(), [call::Type::Acknowledge]);
}

#[test]
fn a_bound_pod_whose_task_is_dropped_is_deleted() {
    let mut bench = Bench::subscribed();
    let task = bench.launch("p");
    bench.input(Input::Pod(bound("p", &task, |_| {})));
    bench.done.clear();
    bench.status(&task, TaskState::TaskDropped, Source::Agent, Some(Reason::AgentRestarted));
    assert!(matches!(bench.done[..], [Action::DeletePod { .. }]), "{:?}", bench.done);
}

#[test]
fn a_launch_that_came_to_nothing_is_repeated_under_another_id() {
    let mut bench = Bench::subscribed();
    let task = bench.launch("p");
    bench.status(&task, TaskState::TaskDropped, Source::Master, Some(Reason::InvalidOffers));
    assert!(bench.done.iter().any(|it| matches!(it, Action::Tell { reason: "FailedScheduling", .. })));
    bench.wait(S * 2);
    bench.done.clear();
    bench.offer(offer("o9", "a", 4000));
    let again = bench.calls().into_iter().find_map(|call| call.accept).expect("a launch");
    assert_ne!(again.operations[0].launch.as_ref().unwrap().task_infos[0].task_id.value, task);
}

#[test]
fn deleted_pods_are_killed_with_their_grace_and_again() {
    let mut bench = Bench::subscribed();
    let task = bench.launch("p");
    let deleted = bound("p", &task, |pod| {
        pod["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
        pod["metadata"]["deletionGracePeriodSeconds"] = 30.into();
    });
    bench.input(Input::Pod(deleted.clone()));
    let kill = bench.calls().into_iter().find_map(|call| call.kill).expect("a kill");
    assert_eq!(kill.kill_policy.unwrap().grace_period.unwrap().nanoseconds, 30_000_000_000);
    bench.wait(S * 34);
    assert!(!bench.kinds().contains(&call::Type::Kill));
    bench.wait(S * 2);
    assert!(bench.kinds().contains(&call::Type::Kill));
    bench.input(Input::PodGone(deleted));
    bench.status(&task, TaskState::TaskKilled, Source::Executor, None);
    bench.done.clear();
    bench.wait(S * 200);
    assert!(!bench.kinds().contains(&call::Type::Kill));
    assert!(bench.core.debug_tasks().starts_with("task_count=0"));
}

#[test]
fn after_a_restart_bound_pods_run_and_nothing_is_launched_before_mesos_has_spoken() {
    let mut bench = Bench::new(true);
    let task = task_of("p2");
    bench.input(Input::Pod(bound("p1", &task_of("p1"), |_| {})));
    bench.input(Input::Pod(pod("p2", |_| {})));
    bench.input(Input::Pod(pod("p3", |_| {})));
    bench.input(Input::Subscribed("f".to_owned()));
    bench.offer(offer("o1", "b", 4000));
    let calls = bench.calls();
    assert!(calls.iter().all(|call| call.r#type() == call::Type::Reconcile), "{calls:?}");
    let fence = calls.iter().filter_map(|call| call.reconcile.clone()).flat_map(|it| it.tasks).find(|it| it.agent_id.is_none()).unwrap();
    bench.status(&task_of("p1"), TaskState::TaskRunning, Source::Master, Some(Reason::Reconciliation));
    bench.status(&task, TaskState::TaskStaging, Source::Master, Some(Reason::Reconciliation));
    bench.status("pod.stray", TaskState::TaskRunning, Source::Master, Some(Reason::Reconciliation));
    let kill = bench.calls().into_iter().find_map(|call| call.kill).expect("a kill");
    assert_eq!(kill.task_id.value, "pod.stray");
    bench.status(&fence.task_id.value, TaskState::TaskUnknown, Source::Master, Some(Reason::Reconciliation));
    let launched = bench.calls().into_iter().find_map(|call| call.accept).expect("a launch");
    let tasks = &launched.operations[0].launch.as_ref().unwrap().task_infos;
    assert_eq!(tasks.iter().map(|it| it.name.as_str()).collect::<Vec<_>>(), ["p3.n.pod"]);
}

#[test]
fn executors_of_an_earlier_run_are_used_when_their_node_says_how_they_were_started() {
    let mut bench = Bench::subscribed();
    let id = bench.core.settings.prototype.id().to_owned();
    bench.input(Input::Pod(pod("p", |_| {})));
    bench.done.clear();
    let with_executor = |id: &str, offered: &str| Offer { executor_ids: vec![ExecutorId::from(id)], ..offer(offered, "a", 4000) };
    bench.offer(with_executor(&id, "o1"));
    assert_eq!(bench.kinds(), [call::Type::Decline]);
    let resources = crate::scheduler::executorinfo::encode_resources(&[crate::scheduler::resources::scalar("cpus", 250)]);
    let notes = json!({"k8s.mesosphere.io/executorId": id, "k8s.mesosphere.io/executorResources": resources});
    let node = json!({"metadata": {"name": "host-a", "annotations": notes}}).to_string();
    bench.input(Input::Node(Object::from_stored(&resource::NODE, node.as_bytes(), 1).unwrap()));
    bench.done.clear();
    bench.offer(with_executor(&id, "o2"));
    let launched = bench.calls().into_iter().find_map(|call| call.accept).expect("a launch");
    let executor = launched.operations[0].launch.as_ref().unwrap().task_infos[0].executor.clone().unwrap();
    assert_eq!((executor.executor_id.value, executor.resources.len()), (id, 1));
}

#[test]
fn an_outdated_executor_goes_when_its_last_pod_has() {
    let mut bench = Bench::subscribed();
    bench.input(Input::Pod(bound("old", &task_of("old"), |_| {})));
    let outdated = |offered: &str| Offer { executor_ids: vec!["1_k8sm-executor".into()], ..offer(offered, "a", 4000) };
    bench.done.clear();
    bench.offer(outdated("o1"));
    assert_eq!(bench.kinds(), [call::Type::Decline]);
    bench.status(&task_of("old"), TaskState::TaskFinished, Source::Executor, None);
    bench.wait(S * 20);
    bench.done.clear();
    bench.offer(outdated("o2"));
    assert_eq!(bench.kinds(), [call::Type::Shutdown, call::Type::Decline]);
    bench.offer(Offer { executor_ids: vec!["of-another-framework".into()], ..offer("o3", "a", 4000) });
    assert_eq!(bench.kinds(), [call::Type::Decline]);
}

#[test]
fn pods_that_others_look_after_are_left_alone() {
    let mut bench = Bench::subscribed();
    bench.input(Input::Pod(pod("mirror", |it| it["metadata"]["annotations"] = json!({"kubernetes.io/config.mirror": "x"}))));
    bench.input(Input::Pod(pod("foreign", |it| it["spec"]["schedulerName"] = "mine".into())));
    bench.input(Input::Pod(pod("done", |it| it["status"] = json!({"phase": "Succeeded"}))));
    bench.input(Input::Pod(pod("deleting", |it| {
        it["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
        it["spec"]["nodeName"] = "host-a".into();
    })));
    assert!(bench.done.iter().any(|it| matches!(it, Action::DeletePod { pod, .. } if &*pod.name == "deleting")));
    bench.done.clear();
    bench.offer(offer("o1", "a", 4000));
    assert_eq!((bench.kinds(), bench.core.debug_queue().as_str()), (Vec::new(), ""));
}

#[test]
fn a_launch_that_may_never_have_reached_its_unreachable_agent_is_repeated() {
    let mut bench = Bench::subscribed();
    let task = bench.launch("p");
    let unreachable = |bench: &mut Bench| bench.status(&task, TaskState::TaskUnreachable, Source::Master, Some(Reason::Reconciliation));
    bench.wait(S * 20);
    unreachable(&mut bench);
    bench.done.clear();
    bench.wait(S * 20);
    assert!(bench.kinds().contains(&call::Type::Reconcile), "it is asked for again");
    unreachable(&mut bench);
    assert_eq!(bench.core.debug_queue(), "", "its agent may come back with it");
    bench.wait(S * 121);
    unreachable(&mut bench);
    unreachable(&mut bench);
    bench.wait(S * 2);
    bench.done.clear();
    bench.offer(offer("o9", "b", 4000));
    let again = bench.calls().into_iter().find_map(|call| call.accept).expect("a launch");
    let again = again.operations[0].launch.as_ref().unwrap().task_infos[0].task_id.value.clone();
    assert_ne!(again, task);
    // The fate of a bound pod is up to its node.
    bench.input(Input::Pod(bound("p", &again, |_| {})));
    let unreachable = |bench: &mut Bench| bench.status(&again, TaskState::TaskUnreachable, Source::Master, Some(Reason::Reconciliation));
    unreachable(&mut bench);
    bench.wait(S * 1000);
    unreachable(&mut bench);
    assert!(bench.core.debug_queue().is_empty() && bench.core.debug_tasks().contains(&again));
}

#[test]
fn of_two_launches_of_a_pod_the_one_that_binds_it_stays() {
    let mut bench = Bench::subscribed();
    let (first, second) = (task_of("p"), bench.launch("p"));
    bench.done.clear();
    bench.status(&first, TaskState::TaskStaging, Source::Master, Some(Reason::AgentReregistered));
    assert!(!bench.kinds().contains(&call::Type::Kill), "it may have bound the pod already");
    bench.input(Input::Pod(bound("p", &first, |_| {})));
    let known = bench.core.debug_tasks();
    assert!(known.contains(&first) && !known.contains(&second), "{known}");
    bench.done.clear();
    bench.status(&second, TaskState::TaskFailed, Source::Executor, None);
    assert_eq!((bench.kinds(), bench.core.debug_queue().as_str()), (vec![call::Type::Acknowledge], ""));
    bench.status(&second, TaskState::TaskStaging, Source::Master, Some(Reason::Reconciliation));
    assert_eq!(bench.kinds()[0], call::Type::Kill, "its pod is another task's");
}

#[test]
fn a_task_that_a_new_master_does_not_know_yet_is_waited_for() {
    let mut bench = Bench::subscribed();
    bench.input(Input::Pod(bound("p", &task_of("p"), |_| {})));
    bench.wait(S * 20);
    bench.input(Input::Disconnected);
    bench.input(Input::Subscribed("f".to_owned()));
    let unknown = |bench: &mut Bench| bench.status(&task_of("p"), TaskState::TaskUnknown, Source::Master, Some(Reason::Reconciliation));
    unknown(&mut bench);
    bench.done.clear();
    bench.wait(S * 5);
    assert!(bench.kinds().contains(&call::Type::Reconcile), "it is asked for again");
    bench.status(&task_of("p"), TaskState::TaskRunning, Source::Master, Some(Reason::Reconciliation));
    let deletes = |bench: &Bench| bench.done.iter().filter(|it| matches!(it, Action::DeletePod { .. })).count();
    bench.wait(S * 601);
    unknown(&mut bench);
    assert_eq!(deletes(&bench), 0);
    bench.wait(S * 601);
    unknown(&mut bench);
    assert_eq!(deletes(&bench), 1, "the agent is not expected back any more");
}

#[test]
fn an_agent_is_away_only_as_long_as_the_answers_are_apart() {
    let mut bench = Bench::subscribed();
    bench.input(Input::Pod(bound("p", &task_of("p"), |_| {})));
    let unknown = |bench: &mut Bench, given: f64| {
        let status = Bench::task_status(&task_of("p"), TaskState::TaskUnknown, Source::Master, Some(Reason::Reconciliation));
        bench.update(TaskStatus { timestamp: Some(given), ..status });
        bench.done.iter().filter(|it| matches!(it, Action::DeletePod { .. })).count()
    };
    assert_eq!(unknown(&mut bench, 1_000.0), 0);
    bench.wait(S * 700);
    assert_eq!(unknown(&mut bench, 1_001.0), 0, "it was on its way for long, and says nothing of now");
    assert_eq!(unknown(&mut bench, 1_601.0), 1);
    // The clock of another master may be ahead.
    let mut bench = Bench::subscribed();
    bench.input(Input::Pod(bound("p", &task_of("p"), |_| {})));
    assert_eq!(unknown(&mut bench, 1_000.0), 0);
    bench.wait(S);
    assert_eq!(unknown(&mut bench, 9_000.0), 0);
}

#[test]
fn a_bound_pod_that_nobody_launched_here_is_asked_for_at_once() {
    let mut bench = Bench::subscribed();
    bench.wait(S * 40);
    bench.done.clear();
    bench.input(Input::Pod(bound("p", &task_of("p"), |_| {})));
    let asked: Vec<_> = bench.calls().into_iter().filter_map(|call| call.reconcile).collect();
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0].tasks.iter().map(|it| &*it.task_id.value).collect::<Vec<_>>(), [task_of("p")]);
}

/// Another pod's binding, as in a copy of its manifest.
#[test]
fn a_copied_pod_is_launched_and_its_original_lives() {
    let mut bench = Bench::subscribed();
    let task = bench.launch("a");
    let annotate = |pod: &mut Value| pod["metadata"]["annotations"]["x"] = "y".into();
    bench.input(Input::Pod(bound("a", &task, |_| {})));
    bench.done.clear();
    bench.input(Input::Pod(bound("b", &task, |_| {})));
    assert!(bench.core.debug_queue().contains("n/b") && bench.core.debug_tasks().starts_with("task_count=1"));
    bench.input(Input::Pod(bound("a", &task, annotate)));
    bench.input(Input::Pod(bound("b", &task, annotate)));
    bench.input(Input::PodGone(bound("b", &task, |_| {})));
    bench.wait(S * 10);
    assert!(!bench.kinds().contains(&call::Type::Kill));
    assert!(bench.core.debug_tasks().contains(&task));
}

#[test]
fn a_grace_of_any_length_ends_with_the_pod() {
    for grace in [i64::MIN, 0, i64::MAX] {
        let mut bench = Bench::subscribed();
        let task = bench.launch("p");
        bench.input(Input::Pod(bound("p", &task, |pod| {
            pod["metadata"]["deletionTimestamp"] = "9999-12-30T22:00:00Z".into();
            pod["metadata"]["deletionGracePeriodSeconds"] = grace.into();
        })));
        for _ in 0..4 {
            assert!(bench.kinds().contains(&call::Type::Kill), "{grace}");
            // As long as it takes until the next.
            while bench.done.iter().all(|it| !matches!(it, Action::Call(call) if call.r#type() == call::Type::Kill)) {
                bench.now = bench.core.tasks.next_kill().unwrap();
                bench.done.extend(bench.core.act(bench.now));
            }
        }
        bench.status(&task, TaskState::TaskKilled, Source::Executor, None);
        assert!(bench.core.tasks.next_kill().is_none(), "{grace}");
    }
}

#[test]
fn lost_agents_are_forgotten_once_they_have_no_tasks() {
    let mut bench = Bench::subscribed();
    let lose = |bench: &mut Bench, agent: &str| {
        let failure = Some(event::Failure { agent_id: Some(agent.into()), ..event::Failure::default() });
        bench.input(Input::Event(Box::new(Event { r#type: Some(event::Type::Failure.into()), failure, ..Event::default() })));
    };
    let task = bench.launch("p");
    bench.offer(offer("o2", "b", 4000));
    let agents = |bench: &Bench| {
        let mut agents: Vec<String> = bench.core.agents.keys().map(ToString::to_string).collect();
        agents.sort_unstable();
        agents.concat()
    };
    assert_eq!(agents(&bench), "ab");
    lose(&mut bench, "a");
    lose(&mut bench, "b");
    assert_eq!(agents(&bench), "a", "it may come back with its task");
    bench.status(&task, TaskState::TaskGone, Source::Master, None);
    assert_eq!((agents(&bench).as_str(), bench.core.lost.len()), ("", 0));
    // It is back before its task ends.
    let task = bench.launch("q");
    lose(&mut bench, "a");
    bench.offer(offer("o3", "a", 4000));
    bench.status(&task, TaskState::TaskFinished, Source::Executor, None);
    assert_eq!((agents(&bench).as_str(), bench.core.lost.len()), ("a", 0));
    // Lost while nobody was there to hear of it.
    bench.input(Input::Disconnected);
    bench.input(Input::Subscribed("f".to_owned()));
    assert_eq!(agents(&bench), "");
}
