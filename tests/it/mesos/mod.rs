//! The Mesos drivers against a master and an agent: the real ones, and km's own, which have to behave the same.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod executor;
mod framework;
mod local;
pub(crate) mod real;
pub(crate) mod zookeeper;

use std::time::Duration;

use km::mesos::detect::{self, MasterAddress};
use km::mesos::executor::Environment;
use km::mesos::operator::{self, Operator};
use km::mesos::scheduler::DriverEvent;
use km::mesos::v1::scheduler::{Call, Event};
use km::mesos::v1::task_status::{Reason, Source};
use km::mesos::v1::{FrameworkInfo, TaskState, TaskStatus};
use km::mesos::{CallError, Reply};
use km::supervise::Supervisor;
use tokio::sync::watch;

use executor::{CRASH, FINISH};
use framework::{Framework, scalar};
use local::Local;
use real::Mesos;
use zookeeper::ZooKeeper;

/// Not a test: the real agent's executor is this program, which runs this function.
#[tokio::test]
#[ignore = "run by the Mesos agent"]
async fn runs_as_executor() {
    if let Ok(environment) = Environment::of_process() {
        executor::run(environment, Default::default()).await;
    }
}

async fn offers_hold_what_the_agent_has(master: &str) {
    let mut framework = Framework::subscribe(master, framework::info()).await;
    let offer = framework.offer().await;
    let amount = |name: &str| offer.resources.iter().find(|resource| resource.name == name)?.scalar.map(|scalar| scalar.value);
    assert_eq!((amount("cpus"), amount("mem")), (Some(4.0), Some(4096.0)));
    let ports = offer.resources.iter().find(|resource| resource.name == "ports").unwrap().ranges.clone().unwrap().range;
    assert_eq!((ports[0].begin, ports[0].end), (31000, 31009));
    let rack = offer.attributes.iter().find(|attribute| attribute.name == "rack").unwrap();
    assert_eq!(rack.scalar.map(|scalar| scalar.value), Some(7.0));
    assert_eq!(offer.allocation_info.as_ref().map(|info| info.role()), Some("*"));

    // declined for long, then wanted again
    framework.calls.send(Call::decline(vec![offer.id.clone()], Some(600.0))).await.unwrap();
    framework.calls.send(Call::revive(Vec::new())).await.unwrap();
    let again = framework.offer().await;
    assert_ne!(again.id, offer.id);
    framework.teardown().await;
}

async fn tasks_run_finish_and_are_killed(master: &str) {
    let mut framework = Framework::subscribe(master, framework::info()).await;
    let offer = framework.offer().await;
    let tasks = vec![framework.task(&offer, "e", "short", FINISH), framework.task(&offer, "e", "long", b"")];
    framework.calls.send(Call::launch(vec![offer.id.clone()], tasks, Some(0.0))).await.unwrap();
    assert_eq!(framework.state("short").await, (TaskState::TaskRunning, Source::Executor, None));
    assert_eq!(framework.state("short").await, (TaskState::TaskFinished, Source::Executor, None));
    assert_eq!(framework.state("long").await, (TaskState::TaskRunning, Source::Executor, None));

    let offer = framework.offer().await;
    assert_eq!(offer.executor_ids, ["e".into()]);
    framework.calls.send(Call::decline(vec![offer.id], None)).await.unwrap();

    framework.calls.send(Call::message("e".into(), offer.agent_id.clone(), "hello".into())).await.unwrap();
    let echoed = framework
        .wait("message", |event| match event {
            DriverEvent::Event(Event { message: Some(message), .. }) => Some(message.data.clone()),
            _ => None,
        })
        .await;
    assert_eq!(echoed, "hello");

    framework.calls.send(Call::kill("long".into(), Some(offer.agent_id.clone()), None)).await.unwrap();
    assert_eq!(framework.state("long").await, (TaskState::TaskKilled, Source::Executor, None));
    framework.teardown().await;
}

async fn wrong_launches_are_reported(master: &str) {
    let mut framework = Framework::subscribe(master, framework::info()).await;
    let offer = framework.offer().await;
    let mut greedy = framework.task(&offer, "e", "greedy", b"");
    greedy.resources[0] = scalar("cpus", 100.0);
    let mut lost = framework.task(&offer, "e", "elsewhere", b"");
    lost.agent_id = "no-such-agent".into();
    let fine = framework.task(&offer, "e", "fine", b"");
    let mut other = framework.task(&offer, "e", "other", b"");
    other.executor.as_mut().unwrap().name = Some("differs".into());
    let twin = framework.task(&offer, "e", "fine", b"");
    framework.calls.send(Call::launch(vec![offer.id.clone()], vec![greedy, lost, fine, other, twin], Some(0.0))).await.unwrap();
    for task in ["greedy", "elsewhere", "other"] {
        assert_eq!(framework.state(task).await, (TaskState::TaskError, Source::Master, Some(Reason::TaskInvalid)), "{task}");
    }
    let mut fine = [framework.state("fine").await, framework.state("fine").await];
    fine.sort_by_key(|(state, ..)| *state as i32);
    assert_eq!(fine[0], (TaskState::TaskRunning, Source::Executor, None));
    assert_eq!(fine[1], (TaskState::TaskError, Source::Master, Some(Reason::TaskInvalid)));

    // an offer can be used once
    let late = framework.task(&offer, "e", "late", b"");
    framework.calls.send(Call::launch(vec![offer.id.clone()], vec![late], None)).await.unwrap();
    assert_eq!(framework.state("late").await, (TaskState::TaskDropped, Source::Master, Some(Reason::InvalidOffers)));
    framework.teardown().await;
}

async fn reconciliation_tells_states(master: &str) {
    let mut framework = Framework::subscribe(master, framework::info()).await;
    let offer = framework.run("e", "t").await;
    let reconciled = |state| (state, Source::Master, Some(Reason::Reconciliation));

    framework.calls.send(Call::reconcile([])).await.unwrap();
    assert_eq!(framework.state("t").await, reconciled(TaskState::TaskRunning));
    let agent = Some(offer.agent_id.clone());
    let asked = [("t", agent.clone()), ("unknown", agent), ("unheard", None), ("gone", Some("no-such-agent".into()))];
    framework.calls.send(Call::reconcile(asked.map(|(task, agent)| (task.into(), agent)))).await.unwrap();
    assert_eq!(framework.state("t").await, reconciled(TaskState::TaskRunning));
    assert_eq!(framework.state("unknown").await, reconciled(TaskState::TaskGone));
    assert_eq!(framework.state("unheard").await, reconciled(TaskState::TaskUnknown));
    assert_eq!(framework.state("gone").await, reconciled(TaskState::TaskUnknown));

    // killing an unknown task is answered like reconciling it
    framework.calls.send(Call::kill("unknown".into(), None, None)).await.unwrap();
    assert_eq!(framework.state("unknown").await, reconciled(TaskState::TaskUnknown));
    framework.teardown().await;
}

async fn an_executors_end_ends_its_tasks(master: &str) {
    let mut framework = Framework::subscribe(master, framework::info()).await;
    let offer = framework.run("e", "t").await;
    framework.calls.send(Call::message("e".into(), offer.agent_id.clone(), CRASH.into())).await.unwrap();
    let (state, source, reason) = framework.state("t").await;
    assert_eq!((source, reason), (Source::Agent, Some(Reason::ExecutorTerminated)));
    assert!(matches!(state, TaskState::TaskFailed | TaskState::TaskGone), "{state:?}");
    let failed = framework
        .wait("failure", |event| match event {
            DriverEvent::Event(Event { failure: Some(failure), .. }) => Some(failure.clone()),
            _ => None,
        })
        .await;
    assert_eq!((failed.executor_id, failed.agent_id), (Some("e".into()), Some(offer.agent_id.clone())));

    // the executor's id is free again, and so are its resources
    let offer = framework.run("e", "u").await;
    framework.calls.send(Call::shutdown("e".into(), offer.agent_id.clone())).await.unwrap();
    assert_eq!(framework.state("u").await, (TaskState::TaskKilled, Source::Executor, None));
    framework.teardown().await;
}

async fn a_successor_takes_over(master: &str) {
    let mut first = Framework::subscribe(master, framework::info()).await;
    first.run("e", "t").await;
    let known = FrameworkInfo { id: Some(first.id.clone()), ..framework::info() };

    // one that takes over from a living one
    let mut second = Framework::subscribe(master, known.clone()).await;
    assert_eq!(second.id, first.id);
    let error = first.wait("error", |event| if let DriverEvent::Error(error) = event { Some(error.clone()) } else { None }).await;
    assert_eq!(error, "Framework failed over");
    assert_eq!(first.calls.send(Call::revive(Vec::new())).await, Err(CallError::Disconnected));
    second.calls.send(Call::reconcile([])).await.unwrap();
    assert_eq!(second.state("t").await.0, TaskState::TaskRunning);

    // a scheduler that starts after a crash learns what happened in between
    let offer = second.offer().await;
    second.calls.send(Call::kill("t".into(), Some(offer.agent_id), None)).await.unwrap();
    second.vanish().await;
    let mut third = Framework::subscribe(master, known).await;
    assert_eq!(third.state("t").await.0, TaskState::TaskKilled);

    let id = third.id.clone();
    third.teardown().await;
    let mut fourth = Framework::start(master, FrameworkInfo { id: Some(id), ..framework::info() });
    let error = fourth.wait("error", |event| if let DriverEvent::Error(error) = event { Some(error.clone()) } else { None }).await;
    assert_eq!(error, "Framework has been removed");
    fourth.vanish().await;
}

async fn unacknowledged_updates_are_repeated(master: &str) {
    let mut framework = Framework::subscribe(master, framework::info()).await;
    let offer = framework.offer().await;
    let task = framework.task(&offer, "e", "t", FINISH);
    framework.calls.send(Call::launch(vec![offer.id.clone()], vec![task], Some(0.0))).await.unwrap();
    let next = |event: &DriverEvent| match event {
        DriverEvent::Event(Event { update: Some(update), .. }) => Some(update.status.clone()),
        _ => None,
    };
    let first: TaskStatus = framework.wait("update", next).await;
    let again = framework.wait("repetition", next).await;
    assert_eq!((first.state(), again.state(), &first.uuid), (TaskState::TaskRunning, TaskState::TaskRunning, &again.uuid));
    framework.calls.send(Call::acknowledge(&first).unwrap()).await.unwrap();
    // only now comes the following update
    assert_eq!(framework.wait("end", next).await.state(), TaskState::TaskFinished);
    framework.teardown().await;
}

async fn refusals_are_told(master: &str) {
    let framework = Framework::subscribe(master, framework::info()).await;
    let empty: Reply = framework.calls.send(Call::default());
    let Err(CallError::Refused { status, text }) = empty.await else { panic!("accepted") };
    assert_eq!(status, 400);
    assert!(text.contains("type"), "{text}");
    framework.teardown().await;
    let nobody = FrameworkInfo { roles: vec!["a/../b".into()], ..framework::info() };
    let mut framework = Framework::start(master, nobody);
    framework.wait("error", |event| if let DriverEvent::Error(error) = event { Some(error.clone()) } else { None }).await;
}

async fn the_operator_sees_agents_and_executors(master: &str) {
    let mut framework = Framework::subscribe(master, framework::info()).await;
    framework.run("e", "t").await;
    let supervisor = Supervisor::default();
    let masters = detect::watch(master.parse().unwrap(), &supervisor);
    let operator = Operator::new(masters, None, Duration::from_secs(10), Duration::from_secs(5));
    let state = operator.state().await.unwrap();
    let [agent] = &state.agents[..] else { panic!("{state:?}") };
    assert_eq!((agent.cpus, agent.mem), (4.0, 4096.0));
    assert_eq!(agent.executors, [operator::Executor { framework_id: framework.id.to_string(), id: "e".into(), name: String::new() }]);
    assert_eq!(operator.state().await.unwrap(), state);
    framework.teardown().await;
}

/// Every test of the suite, on the real Mesos and on ours.
macro_rules! suite {
    ($($test:ident)*) => {
        mod on_mesos {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $test() {
                    super::$test(&super::Mesos::start(1).await.address()).await;
                }
            )*
        }

        mod on_local {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $test() {
                    let local = super::Local::start().await;
                    super::$test(&local.address()).await;
                    local.stop().await;
                }
            )*
        }
    };
}

suite! {
    offers_hold_what_the_agent_has
    tasks_run_finish_and_are_killed
    wrong_launches_are_reported
    reconciliation_tells_states
    an_executors_end_ends_its_tasks
    a_successor_takes_over
    unacknowledged_updates_are_repeated
    refusals_are_told
    the_operator_sees_agents_and_executors
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_executor_outlives_the_real_agent() {
    let mut mesos = Mesos::start(1).await;
    let mut framework = Framework::subscribe(&mesos.address(), framework::info()).await;
    let offer = framework.run("e", "t").await;
    mesos.restart().await;
    framework.subscribed().await;
    assert_eq!(framework.state("t").await, (TaskState::TaskRunning, Source::Master, Some(Reason::AgentReregistered)));
    framework.calls.send(Call::kill("t".into(), Some(offer.agent_id.clone()), None)).await.unwrap();
    let mut state = framework.state("t").await;
    // The agent repeats updates whose acknowledgement it may not have recorded.
    while state == (TaskState::TaskRunning, Source::Executor, None) {
        state = framework.state("t").await;
    }
    assert_eq!(state, (TaskState::TaskKilled, Source::Executor, None));
    framework.teardown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_local_cluster_remembers() {
    let directory = tempfile::tempdir().unwrap();
    let before = Local::start_in(Some(directory.path()), "127.0.0.1:0".parse().unwrap()).await;
    let address = before.cluster.address();
    let mut framework = Framework::subscribe(&before.address(), framework::info()).await;
    let id = framework.id.clone();
    let offer = framework.run("e", "t").await;
    before.stop().await;

    // the executor is launched again, and gets its task again
    let after = Local::start_in(Some(directory.path()), address).await;
    assert_eq!(framework.subscribed().await, id);
    assert_eq!(framework.state("t").await, (TaskState::TaskRunning, Source::Executor, None));
    framework.calls.send(Call::kill("t".into(), Some(offer.agent_id.clone()), None)).await.unwrap();
    assert_eq!(framework.state("t").await, (TaskState::TaskKilled, Source::Executor, None));

    framework.run("e", "u").await;
    after.cluster.remove_agent(0);
    assert_eq!(framework.state("u").await, (TaskState::TaskUnreachable, Source::Master, Some(Reason::AgentRemoved)));
    framework.teardown().await;
    after.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_leader_is_followed_through_zookeeper() {
    let mut zookeeper = ZooKeeper::start().await;
    let supervisor = Supervisor::default();
    let mut masters = detect::watch(zookeeper.url("/deep/mesos").parse().unwrap(), &supervisor);
    let json = |port: u16| format!(r#"{{"id":"m","ip":16777343,"port":{port},"address":{{"ip":"127.0.0.1","port":{port}}}}}"#);
    let mut client = zookeeper.client().await;
    for node in ["/deep", "/deep/mesos", "/deep/mesos/log_replicas"] {
        client.create(node, b"").await.unwrap();
    }
    client.create("/deep/mesos/json.info_0000000002", json(5052).as_bytes()).await.unwrap();
    let leads = async |masters: &mut watch::Receiver<Option<MasterAddress>>, port: Option<u16>| {
        let found = masters.wait_for(|master| master.as_ref().map(|master| master.port) == port);
        drop(tokio::time::timeout(Duration::from_secs(20), found).await.expect("another leader").unwrap());
    };
    leads(&mut masters, Some(5052)).await;
    client.create("/deep/mesos/json.info_0000000001", json(5051).as_bytes()).await.unwrap();
    leads(&mut masters, Some(5051)).await;

    // without ZooKeeper the leader stands; afterwards changes are seen again
    zookeeper.restart().await;
    assert_eq!(masters.borrow().as_ref().unwrap().port, 5051);
    let mut client = zookeeper.client().await;
    client.delete("/deep/mesos/json.info_0000000001").await.unwrap();
    leads(&mut masters, Some(5052)).await;
    client.set("/deep/mesos/json.info_0000000002", b"").await.unwrap();
    assert_eq!(client.data("/deep/mesos/json.info_0000000002").await.unwrap(), "");
    client.delete("/deep/mesos/json.info_0000000002").await.unwrap();
    leads(&mut masters, None).await;
    client.close().await;
    supervisor.shutdown().cancel();
    supervisor.wait(Duration::from_secs(10)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_elected_through_zookeeper_is_found() {
    let zookeeper = ZooKeeper::start().await;
    let _mesos = Mesos::start_with(1, Some(&zookeeper.url("/mesos"))).await;
    let mut framework = Framework::subscribe(&zookeeper.url("/mesos"), framework::info()).await;
    framework.run("e", "t").await;
    framework.teardown().await;
}
