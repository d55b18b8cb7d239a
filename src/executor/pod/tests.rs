//! The machine against a small world: containers exit at random, operations are slow or fail, executors restart. Throughout, no two
//! containers of one name run at once; finally the state is what the pod specifies.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::executor::names;
use crate::executor::status::{Host, Messages, pod_status};
use crate::runtime::{Container as Real, Exit, State};

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_000_000 + seconds).unwrap()
}

fn pod(spec: serde_json::Value) -> Arc<Pod> {
    let pod = json!({"metadata": {"name": "web", "namespace": "default", "uid": "u1"}, "spec": spec});
    Arc::new(serde_json::from_value(pod).unwrap())
}

fn deleted(pod: &Pod, grace: i64) -> Arc<Pod> {
    let mut pod = pod.clone();
    pod.metadata.deletion_timestamp = Some(Time(at(0)));
    pod.metadata.deletion_grace_period_seconds = Some(grace);
    Arc::new(pod)
}

/// Stands in for the runtime.
#[derive(Debug, Default)]
struct World {
    now: i64,
    next: u64,
    containers: BTreeMap<String, Real>,
    /// Operations under way.
    ops: Vec<Action>,
    looks: Vec<u64>,
    events: Vec<Happening>,
    probes: Vec<(String, String, ProbeKind)>,
    volumes: bool,
    /// Containers that the engine makes but cannot start.
    broken: Vec<&'static str>,
    finished: bool,
    ended: bool,
}

impl World {
    fn make(&mut self, name: String, labels: BTreeMap<String, String>) {
        assert!(self.containers.values().all(|it| it.name != name || !it.state.is_running()), "{name} runs already");
        self.containers.retain(|_, it| it.name != name);
        let container = labels[names::CONTAINER_NAME].clone();
        let twin = self.containers.values().find(|it| it.labels[names::CONTAINER_NAME] == container && it.state.is_running());
        assert!(twin.is_none(), "two {container} run");
        self.next += 1;
        let id = format!("c{}", self.next);
        let state = State::Running { started: at(self.now) };
        let ips = if container == "POD" { vec!["10.0.0.9".to_owned()] } else { vec![] };
        let made =
            Real { id: id.clone(), name, labels, image: "i".into(), image_id: "sha".into(), created: at(self.now), state, ips, pid: None };
        self.containers.insert(id, made);
    }

    fn finish(&mut self, id: &str, code: i64) {
        let now = at(self.now);
        if let Some(it) = self.containers.get_mut(id)
            && let State::Running { started } = it.state
        {
            it.state = State::Exited(Exit { code, started, finished: now, oom_killed: false, error: String::new() });
        }
    }

    fn running(&self) -> Vec<&str> {
        let names = self.containers.values().filter(|it| it.state.is_running()).map(|it| it.labels[names::CONTAINER_NAME].as_str());
        let mut names: Vec<&str> = names.collect();
        names.sort_unstable();
        names
    }

    fn id_of(&self, name: &str) -> Option<String> {
        let mut of_name = self.containers.values().filter(|it| it.labels[names::CONTAINER_NAME] == name && it.state.is_running());
        of_name.next().map(|it| it.id.clone())
    }

    fn take(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Look(epoch) => self.looks.push(epoch),
                Action::Event(happening) => self.events.push(happening),
                Action::Probe { container, id, kind } => self.probes.push((container, id, kind)),
                Action::Finish => {
                    assert!(self.running().is_empty(), "finished while {:?} run", self.running());
                    self.finished = true;
                }
                Action::End => {
                    assert!(self.containers.is_empty());
                    self.ended = true;
                }
                op => self.ops.push(op),
            }
        }
    }

    /// Carries out an operation, and returns the machine's next input.
    fn perform(&mut self, action: Action, fail: bool) -> Input {
        let id = PodId { uid: "u1".into(), namespace: "default".into(), name: "web".into() };
        let op = action.op().expect("an operation");
        if fail {
            return Input::Done(op, Err(Failure::new("ErrImagePull", "no luck")));
        }
        match action {
            Action::SetUpVolumes => self.volumes = true,
            Action::TearDownVolumes => {
                assert!(self.running().is_empty());
                self.volumes = false;
            }
            Action::CreateSandbox { attempt } => self.make(names::sandbox_name(&id, attempt), names::sandbox_labels(&id, "o", attempt)),
            Action::Start { container, attempt, sandbox } => {
                assert!(self.volumes);
                let labels = names::container_labels(&id, "o", attempt, &container, &sandbox);
                self.make(names::container_name(&id, &container, attempt), labels);
                if self.broken.contains(&container.as_str()) {
                    let made = self.containers.get_mut(&format!("c{}", self.next)).expect("just made");
                    let (started, finished) = (made.created, made.created);
                    made.state = State::Exited(Exit { code: 127, started, finished, oom_killed: false, error: "no such file".into() });
                    return Input::Done(op, Err(Failure::new("RunContainerError", "no such file")));
                }
            }
            Action::Stop { id, .. } => self.finish(&id, 143),
            Action::Kill { id, .. } => self.finish(&id, 137),
            Action::Remove { id } => {
                self.containers.remove(&id);
            }
            _ => unreachable!(),
        }
        Input::Done(op, Ok(()))
    }

    /// Does everything there is to do, without delay or failure, until the machine waits for time or for something to happen.
    fn settle(&mut self, machine: &mut Machine) {
        for _ in 0..1000 {
            let input = if let Some(op) = self.ops.pop() {
                self.perform(op, false)
            } else if let Some(epoch) = self.looks.pop() {
                Input::Seen { epoch, containers: self.containers.values().cloned().collect() }
            } else if let Some((container, id, kind)) = self.probes.pop() {
                Input::Probed { container, id, kind, outcome: Outcome::Success }
            } else if machine.wake_at().is_some_and(|wake| wake <= at(self.now)) {
                Input::Tick
            } else {
                return;
            };
            let actions = machine.handle(input, at(self.now));
            self.take(actions);
        }
        panic!("it does not settle: {machine:?}");
    }

    fn tell(&mut self, machine: &mut Machine, input: Input) {
        let actions = machine.handle(input, at(self.now));
        self.take(actions);
        self.settle(machine);
    }

    /// Lets time pass, waking the machine whenever it wants.
    fn pass(&mut self, machine: &mut Machine, seconds: i64) {
        let end = self.now + seconds;
        while let Some(wake) = machine.wake_at().filter(|wake| *wake <= at(end)) {
            self.now = self.now.max(wake.as_second() - 1_000_000);
            self.tell(machine, Input::Tick);
        }
        self.now = end;
    }

    fn crash(&mut self, machine: &mut Machine, name: &str, code: i64) {
        let id = self.id_of(name).unwrap_or_else(|| panic!("{name} does not run"));
        self.finish(&id, code);
        self.tell(machine, Input::Changed);
    }

    fn start(spec: serde_json::Value) -> (Self, Machine) {
        let (mut world, mut machine) = (Self::default(), Machine::new(pod(spec)));
        world.tell(&mut machine, Input::Tick);
        (world, machine)
    }
}

fn two() -> serde_json::Value {
    json!({"containers": [{"name": "a"}, {"name": "b"}]})
}

fn waiting(machine: &Machine, name: &str) -> Option<String> {
    let view = machine.view();
    let unit = view.units.iter().find(|unit| unit.unit.spec.name == name)?;
    unit.waiting.map(|(reason, _)| reason.to_owned())
}

#[test]
fn a_pod_comes_up_and_goes_down() {
    let (mut world, mut machine) = World::start(two());
    assert_eq!(world.running(), ["POD", "a", "b"]);
    assert!(machine.view().units.iter().all(|unit| unit.ready && unit.started));
    assert_eq!(machine.wake_at(), None);
    let pod = machine.pod().clone();
    world.tell(&mut machine, Input::Pod(deleted(&pod, 30)));
    assert!(world.running().is_empty() && world.finished && !world.volumes && !world.ended);
    assert_eq!(world.containers.len(), 2, "the containers are kept for their logs");
    world.tell(&mut machine, Input::Gone);
    assert!(world.ended && world.containers.is_empty());
}

#[test]
fn a_grace_may_be_longer_than_clocks_go() {
    let spec = json!({"containers": [{"name": "a"}], "terminationGracePeriodSeconds": i64::MAX, "activeDeadlineSeconds": i64::MAX});
    let (mut world, mut machine) = World::start(spec);
    world.tell(&mut machine, Input::Terminate { grace: None });
    world.tell(&mut machine, Input::Terminate { grace: Some(i64::MAX) });
    world.now += 100;
    world.tell(&mut machine, Input::Tick);
}

#[test]
fn what_volumes_are_made_of_is_looked_at_again() {
    let spec = json!({"containers": [{"name": "a"}], "volumes": [{"name": "v", "configMap": {"name": "m"}}]});
    let mut world = World::default();
    let mut machine = Machine::new(pod(spec)).refreshed_every(SignedDuration::from_secs(10));
    world.tell(&mut machine, Input::Tick);
    world.now += 10;
    assert_eq!(machine.wake_at(), Some(at(world.now)));
    let actions = machine.handle(Input::Tick, at(world.now));
    assert_eq!(actions, [Action::SetUpVolumes]);
    // Deleted meanwhile: running containers continue, and are restarted when they exit.
    let missing = Failure::new("FailedMount", "configmap \"m\" not found");
    let actions = machine.handle(Input::Done(Op::SetUpVolumes, Err(missing)), at(world.now));
    assert!(matches!(&actions[..], [Action::Event(told), Action::Look(_)] if told.reason == "FailedMount"), "{actions:?}");
    world.take(actions);
    world.settle(&mut machine);
    world.crash(&mut machine, "a", 1);
    assert_eq!(world.running(), ["POD", "a"]);
    assert_eq!(machine.wake_at(), Some(at(world.now + 10)));
    // An end is not held up by it, and ends it.
    let pod = machine.pod().clone();
    world.tell(&mut machine, Input::Pod(deleted(&pod, 30)));
    assert!(world.finished && !world.volumes);
}

#[test]
fn crashes_are_followed_by_ever_longer_waits() {
    let (mut world, mut machine) = World::start(two());
    world.now += 1;
    world.crash(&mut machine, "a", 1);
    assert_eq!(world.running(), ["POD", "a", "b"], "the first restart is at once");
    for wait in [10, 20, 40, 80, 160, 300, 300] {
        world.crash(&mut machine, "a", 1);
        assert_eq!(waiting(&machine, "a").as_deref(), Some("CrashLoopBackOff"));
        world.pass(&mut machine, wait - 1);
        assert_eq!(world.running(), ["POD", "b"]);
        world.pass(&mut machine, 1);
        assert_eq!(world.running(), ["POD", "a", "b"]);
    }
    assert_eq!(world.events.iter().filter(|event| event.reason == "BackOff").count(), 7);
    assert_eq!(world.containers.values().filter(|it| it.labels[names::CONTAINER_NAME] == "a").count(), 2, "old ones are removed");
}

#[test]
fn a_container_that_cannot_be_started_is_tried_ever_more_rarely() {
    let mut world = World { broken: vec!["a"], ..World::default() };
    let mut machine = Machine::new(pod(json!({"containers": [{"name": "a"}]})));
    let attempt = |machine: &Machine| machine.view().units[0].newest.map(|seen| seen.attempt);
    world.tell(&mut machine, Input::Tick);
    assert_eq!(attempt(&machine), Some(1), "the first restart is at once");
    for (wait, restarts) in [(10, 1), (20, 2), (40, 3)] {
        assert_eq!((waiting(&machine, "a").as_deref(), attempt(&machine)), (Some("CrashLoopBackOff"), Some(restarts)));
        world.pass(&mut machine, wait - 1);
        assert_eq!(attempt(&machine), Some(restarts));
        world.pass(&mut machine, 1);
    }
    assert_eq!(attempt(&machine), Some(4));
    let mut again = Machine::new(machine.pod().clone());
    world.pass(&mut again, 5);
    world.tell(&mut again, Input::Tick);
    assert_eq!(waiting(&again, "a").as_deref(), Some("CrashLoopBackOff"), "another executor waits on");
    world.pass(&mut again, 74);
    assert_eq!(attempt(&again), Some(4));
    world.broken.clear();
    world.pass(&mut again, 1);
    assert_eq!((attempt(&again), world.running()), (Some(5), vec!["POD", "a"]));
}

#[test]
fn a_failed_start_seen_before_it_is_reported_is_a_failure_of_that_attempt() {
    let mut world = World { broken: vec!["a"], ..World::default() };
    let mut machine = Machine::new(pod(json!({"containers": [{"name": "a"}]})));
    let actions = machine.handle(Input::Tick, at(0));
    world.take(actions);
    while !matches!(world.ops.last(), Some(Action::Start { .. })) {
        let input = match world.ops.pop() {
            Some(op) => world.perform(op, false),
            None => Input::Seen { epoch: world.looks.pop().unwrap(), containers: world.containers.values().cloned().collect() },
        };
        let actions = machine.handle(input, at(0));
        world.take(actions);
    }
    let op = world.ops.pop().unwrap();
    let done = world.perform(op, false);
    world.tell(&mut machine, Input::Changed);
    world.tell(&mut machine, done);
    assert_eq!(waiting(&machine, "a").as_deref(), Some("CrashLoopBackOff"), "it was restarted at once");
}

#[test]
fn a_pod_that_has_begun_stays_running_while_a_container_is_made_anew() {
    let (mut world, mut machine) = World::start(two());
    let phase = |machine: &Machine| pod_status(&machine.view(), &Host::default(), &Messages::new(), None, at(0)).phase.unwrap();
    assert_eq!(phase(&machine), "Running");
    let id = world.id_of("a").unwrap();
    world.finish(&id, 1);
    let mut made = world.containers[&id].clone();
    (made.id, made.state) = ("next".to_owned(), State::Created);
    made.labels = names::container_labels(machine.id(), "o", 1, "a", &world.id_of("POD").unwrap());
    let mut containers: Vec<Real> = world.containers.values().cloned().collect();
    containers.push(made);
    machine.handle(Input::Changed, at(1));
    machine.handle(Input::Seen { epoch: machine.epoch, containers }, at(1));
    assert_eq!(phase(&machine), "Running");
}

#[test]
fn restart_policies() {
    for (policy, code, restarted) in [
        ("Always", 0, true),
        ("Always", 1, true),
        ("OnFailure", 0, false),
        ("OnFailure", 1, true),
        ("Never", 0, false),
        ("Never", 1, false),
    ] {
        let (mut world, mut machine) = World::start(json!({"restartPolicy": policy, "containers": [{"name": "a"}]}));
        world.crash(&mut machine, "a", code);
        let expected: &[&str] = if restarted { &["POD", "a"] } else { &[] };
        assert_eq!(world.running(), expected, "{policy} {code}");
        assert_eq!(machine.view().outcome, (!restarted).then_some(code == 0), "{policy} {code}");
    }
}

#[test]
fn init_containers_run_in_order_and_sidecars_stay() {
    let (mut world, mut machine) = World::start(json!({
        "initContainers": [{"name": "one"}, {"name": "side", "restartPolicy": "Always"}, {"name": "two"}],
        "containers": [{"name": "main"}],
        "restartPolicy": "OnFailure",
    }));
    assert_eq!(world.running(), ["POD", "one"]);
    assert_eq!(waiting(&machine, "main").as_deref(), Some("PodInitializing"));
    world.crash(&mut machine, "one", 3);
    assert_eq!(world.running(), ["POD", "one"], "tried again");
    world.crash(&mut machine, "one", 0);
    assert_eq!(world.running(), ["POD", "side", "two"]);
    world.crash(&mut machine, "two", 0);
    assert_eq!(world.running(), ["POD", "main", "side"]);
    world.crash(&mut machine, "side", 0);
    assert_eq!(world.running(), ["POD", "main", "side"]);
    world.crash(&mut machine, "main", 0);
    assert!(world.running().is_empty());
    assert_eq!(machine.view().outcome, Some(true));
}

#[test]
fn a_failed_init_container_fails_a_pod_that_never_restarts() {
    let (mut world, mut machine) =
        World::start(json!({"initContainers": [{"name": "one"}], "containers": [{"name": "main"}], "restartPolicy": "Never"}));
    world.crash(&mut machine, "one", 1);
    assert_eq!(machine.view().outcome, Some(false));
    assert!(world.running().is_empty());
}

#[test]
fn a_dead_sandbox_takes_its_containers_along() {
    let (mut world, mut machine) = World::start(two());
    world.crash(&mut machine, "POD", 137);
    assert_eq!(world.running(), ["POD", "a", "b"]);
    let sandbox = world.id_of("POD").unwrap();
    let newest = machine.view().units.iter().map(|unit| unit.newest.unwrap().sandbox.clone()).collect::<Vec<_>>();
    assert_eq!(newest, [sandbox.clone(), sandbox]);
    assert!(world.events.iter().any(|event| event.reason == "SandboxChanged"));
}

#[test]
fn a_liveness_failure_restarts_the_container() {
    let probe = json!({"exec": {"command": ["false"]}, "periodSeconds": 5, "failureThreshold": 2});
    let (mut world, mut machine) = World::start(json!({"containers": [{"name": "a", "livenessProbe": probe}]}));
    let id = world.id_of("a").unwrap();
    for _ in 0..2 {
        let input = Input::Probed {
            container: "a".into(),
            id: id.clone(),
            kind: ProbeKind::Liveness,
            outcome: Outcome::Failure("no answer".into()),
        };
        world.tell(&mut machine, input);
    }
    assert_ne!(world.id_of("a"), Some(id));
    let reasons: Vec<&str> = world.events.iter().map(|event| event.reason).collect();
    assert_eq!(reasons, ["Unhealthy", "Unhealthy", "Killing"]);
}

#[test]
fn a_missing_image_is_tried_again_and_again() {
    let mut machine = Machine::new(pod(json!({"containers": [{"name": "a", "image": "none"}]})));
    let mut world = World::default();
    let actions = machine.handle(Input::Tick, at(0));
    world.take(actions);
    let mut tries = Vec::new();
    for _ in 0..10_000 {
        let input = if let Some(op) = world.ops.pop() {
            let fail = matches!(op, Action::Start { .. });
            if fail {
                tries.push(world.now);
            }
            world.perform(op, fail)
        } else if let Some(epoch) = world.looks.pop() {
            Input::Seen { epoch, containers: world.containers.values().cloned().collect() }
        } else {
            let wake = machine.wake_at().expect("it tries again").as_second() - 1_000_000;
            if wake > 200 {
                break;
            }
            assert!(wake > world.now);
            world.now = wake;
            Input::Tick
        };
        let actions = machine.handle(input, at(world.now));
        world.take(actions);
        if world.now == 5 {
            assert_eq!(waiting(&machine, "a").as_deref(), Some("ImagePullBackOff"));
        }
    }
    assert_eq!(tries, [0, 10, 30, 70, 150]);
    let last = waiting(&machine, "a");
    assert_eq!(last.as_deref(), Some("ImagePullBackOff"));
}

#[test]
fn a_deadline_ends_the_pod() {
    let mut pod = (*pod(json!({"activeDeadlineSeconds": 60, "containers": [{"name": "a"}]}))).clone();
    pod.status = Some(serde_json::from_value(json!({"startTime": at(0).to_string()})).unwrap());
    let (mut world, mut machine) = (World::default(), Machine::new(Arc::new(pod)));
    world.tell(&mut machine, Input::Tick);
    world.pass(&mut machine, 59);
    assert_eq!(world.running(), ["POD", "a"]);
    world.pass(&mut machine, 1);
    assert!(world.running().is_empty());
    assert_eq!(machine.view().failed.map(|(reason, _)| reason), Some("DeadlineExceeded"));
}

#[test]
fn times_at_the_end_of_all_time_are_times_like_others() {
    let last = "9999-12-30T21:00:00Z";
    let mut begun = (*pod(json!({"activeDeadlineSeconds": 1_000_000, "containers": [{"name": "a"}]}))).clone();
    begun.status = Some(serde_json::from_value(json!({"startTime": last})).unwrap());
    let (mut world, mut machine) = (World::default(), Machine::new(Arc::new(begun)));
    world.tell(&mut machine, Input::Tick);
    world.pass(&mut machine, 3600);
    assert_eq!(world.running(), ["POD", "a"]);
    // Deleted with a grace that has no end, and then taken over by another executor.
    let mut endless = (*deleted(machine.pod(), i64::MAX)).clone();
    for time in [Timestamp::MAX, last.parse().unwrap()] {
        endless.metadata.deletion_timestamp = Some(Time(time));
        let (mut world, mut again) =
            (World { containers: world.containers.clone(), ..World::default() }, Machine::new(Arc::new(endless.clone())));
        let actions = again.handle(Input::Tick, at(world.now));
        world.take(actions);
        let epoch = world.looks.pop().expect("a look");
        let seen = Input::Seen { epoch, containers: world.containers.values().cloned().collect() };
        let actions = again.handle(seen, at(world.now));
        let stop = actions.iter().find_map(|it| if let Action::Stop { grace, .. } = it { Some(*grace) } else { None });
        assert_eq!(stop, Some(of_user(i64::MAX)));
        // Still under way when it is woken.
        again.handle(Input::Tick, at(world.now));
    }
}

#[test]
fn another_executor_continues() {
    let (mut world, machine) = World::start(two());
    let before = world.containers.clone();
    let mut again = Machine::new(machine.pod().clone());
    world.volumes = true;
    world.tell(&mut again, Input::Tick);
    assert_eq!(world.containers, before);
    assert!(again.view().units.iter().all(|unit| unit.ready));
}

#[test]
fn a_machine_that_failed_is_followed_by_one_that_finishes_its_work() {
    let (mut world, machine) = World::start(two());
    let mut again = machine.afresh();
    assert!(again.wake_at().is_some_and(|it| it <= at(world.now)), "it is woken");
    world.tell(&mut again, Input::Tick);
    assert_eq!(world.running(), ["POD", "a", "b"]);
    world.tell(&mut again, Input::Terminate { grace: Some(5) });
    let (mut world, mut machine) = World::start(two());
    machine.handle(Input::Terminate { grace: Some(5) }, at(world.now));
    let mut again = machine.afresh();
    world.volumes = true;
    world.tell(&mut again, Input::Tick);
    assert!(world.finished && world.running().is_empty(), "it is to end");
    machine.handle(Input::Gone, at(world.now));
    world.tell(&mut machine.afresh(), Input::Tick);
    assert!(world.ended, "and to leave nothing");
}

#[test]
fn an_engine_that_is_back_before_its_absence_is_seen_is_looked_at_again() {
    let mut machine = Machine::new(pod(two()));
    assert_eq!(machine.handle(Input::Tick, at(0)), [Action::Look(0)]);
    assert_eq!(machine.handle(Input::Changed, at(0)), []);
    assert!(machine.handle(Input::Blind("off".into()), at(0)).contains(&Action::Look(0)));
    let actions = machine.handle(Input::Blind("off".into()), at(0));
    assert!(!actions.contains(&Action::Look(0)), "until the engine says something again");
}

#[test]
fn a_pod_that_is_deleted_when_it_comes_is_only_ended() {
    let source = pod(two());
    let (mut world, mut machine) = (World::default(), Machine::new(deleted(&source, 30)));
    world.tell(&mut machine, Input::Tick);
    assert!(world.finished && world.containers.is_empty(), "never started");
    let (mut world, _) = World::start(two());
    let mut ended = (*deleted(&source, 30)).clone();
    ended.status = Some(serde_json::from_value(json!({"phase": "Failed"})).unwrap());
    let mut again = Machine::new(Arc::new(ended));
    world.tell(&mut again, Input::Tick);
    assert!(world.finished && world.running().is_empty(), "another executor completes what one began");
}

#[derive(Clone, Debug)]
enum Chance {
    /// Carry out the operation with this index, perhaps failing.
    Perform(usize, bool),
    Look,
    Pass(u8),
    Exit(usize, i64),
    Restart,
    Probe(usize, bool),
    Blind,
}

fn chances() -> impl Strategy<Value = Vec<Chance>> {
    let one = prop_oneof![
        6 => (0usize..8, prop::bool::weighted(0.15)).prop_map(|(index, fail)| Chance::Perform(index, fail)),
        6 => Just(Chance::Look),
        3 => (0u8..40).prop_map(Chance::Pass),
        2 => (0usize..8, prop_oneof![Just(0i64), Just(1), Just(137)]).prop_map(|(index, code)| Chance::Exit(index, code)),
        1 => Just(Chance::Restart),
        2 => (0usize..4, any::<bool>()).prop_map(|(index, well)| Chance::Probe(index, well)),
        1 => Just(Chance::Blind),
    ];
    prop::collection::vec(one, 0..120)
}

fn specs() -> impl Strategy<Value = serde_json::Value> {
    let policy = prop_oneof![Just("Always"), Just("OnFailure"), Just("Never")];
    (policy, any::<bool>(), any::<bool>(), 1usize..3).prop_map(|(policy, init, probed, mains)| {
        let probe = probed.then(|| json!({"exec": {"command": ["x"]}, "periodSeconds": 3, "failureThreshold": 1}));
        let mains: Vec<_> = (0..mains).map(|n| json!({"name": format!("m{n}"), "livenessProbe": probe})).collect();
        let inits = if init { json!([{"name": "i0"}, {"name": "s0", "restartPolicy": "Always"}]) } else { json!([]) };
        json!({"restartPolicy": policy, "initContainers": inits, "containers": mains, "terminationGracePeriodSeconds": 5})
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// [`World::make`] and [`World::perform`] assert that no two containers of one name run.
    #[test]
    fn whatever_happens_it_converges(spec in specs(), chances in chances(), delete in any::<bool>()) {
        let policy = spec["restartPolicy"].as_str().unwrap().to_owned();
        let source = pod(spec);
        let (mut world, mut machine) = (World::default(), Machine::new(source.clone()));
        let actions = machine.handle(Input::Tick, at(0));
        world.take(actions);
        for chance in chances {
            let input = match chance {
                Chance::Perform(index, fail) if !world.ops.is_empty() => {
                    let op = world.ops.remove(index % world.ops.len());
                    world.perform(op, fail)
                }
                Chance::Look if !world.looks.is_empty() => {
                    let epoch = world.looks.remove(0);
                    Input::Seen { epoch, containers: world.containers.values().cloned().collect() }
                }
                Chance::Blind if !world.looks.is_empty() => {
                    world.looks.clear();
                    let actions = machine.handle(Input::Blind("off".into()), at(world.now));
                    world.take(actions);
                    Input::Changed
                }
                Chance::Exit(index, code) => {
                    let running: Vec<String> = world.containers.values().filter(|it| it.state.is_running()).map(|it| it.id.clone()).collect();
                    if let Some(id) = running.get(index) {
                        world.finish(id, code);
                    }
                    Input::Changed
                }
                Chance::Restart => {
                    // Operations in progress are either done or not; the new executor does not know them.
                    for op in std::mem::take(&mut world.ops) {
                        if world.next % 2 == 0 {
                            world.perform(op, false);
                        }
                    }
                    (world.looks, world.probes) = (vec![], vec![]);
                    machine = Machine::new(source.clone());
                    Input::Tick
                }
                Chance::Probe(index, well) if !world.probes.is_empty() => {
                    let (container, id, kind) = world.probes.remove(index % world.probes.len());
                    let outcome = if well { Outcome::Success } else { Outcome::Failure("no".into()) };
                    Input::Probed { container, id, kind, outcome }
                }
                Chance::Pass(seconds) => {
                    world.now += i64::from(seconds);
                    Input::Tick
                }
                _ => Input::Tick,
            };
            let actions = machine.handle(input, at(world.now));
            world.take(actions);
        }
        world.settle(&mut machine);
        if delete {
            world.tell(&mut machine, Input::Pod(deleted(&source, 5)));
            world.pass(&mut machine, 60);
            prop_assert!(world.finished && world.running().is_empty() && !world.volumes, "{:?}", machine);
            world.tell(&mut machine, Input::Gone);
            world.pass(&mut machine, 60);
            prop_assert!(world.ended, "{:?}", machine);
        } else {
            // Let init containers end; then either the pod has an outcome, or all that should run does.
            for _ in 0..20 {
                world.pass(&mut machine, 700);
                if let Some(id) = world.id_of("i0") {
                    world.finish(&id, 0);
                    world.tell(&mut machine, Input::Changed);
                }
            }
            let mains = source.spec.as_ref().unwrap().containers.len();
            let up = world.running().iter().filter(|name| name.starts_with('m')).count();
            match machine.view().outcome {
                Some(_) => prop_assert!(world.running().is_empty() && policy != "Always", "{:?}", machine),
                None if policy == "Always" => prop_assert_eq!(up, mains, "{:?}", machine),
                None => prop_assert!(up > 0, "{:?}", machine),
            }
        }
    }
}
