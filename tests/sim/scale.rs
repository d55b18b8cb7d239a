//! The scheduler's core with many agents whose executors answer at once. `benches/place.rs` measures it with ten thousand.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use km::local_mesos::agent::{Agent, Output};
use km::local_mesos::master::{Action, Config, Master};
use km::local_mesos::resources::Resources;
use km::mesos::v1::executor::{self, Call, event};
use km::mesos::v1::scheduler::{Event, call};
use km::mesos::v1::task_status::Source;
use km::mesos::v1::{AgentInfo, MasterInfo, TaskInfo, TaskState, TaskStatus};
use km::object::{Object, resource};
use km::scheduler::core::{self, Core, Input};
use km::scheduler::metrics::Metrics;
use km::scheduler::storage::Write;
use km::telemetry::metrics::Registry;
use serde_json::json;

use crate::setup::{RESOURCES, framework, settings};

const STREAM: &str = "stream";

struct Cluster {
    now: Duration,
    core: Core,
    master: Master,
    to_core: VecDeque<Event>,
    /// The API's events.
    shown: VecDeque<Input>,
    running: usize,
    /// Real time spent in the scheduler's core.
    deciding: Duration,
}

impl Cluster {
    fn new(agents: usize) -> Self {
        let mut master = Master::new(Config {
            cluster: String::new(),
            master: MasterInfo { id: "master".to_owned(), ..MasterInfo::default() },
            allocation_interval: Duration::from_secs(1),
            heartbeat_interval: Duration::from_secs(15),
        });
        let resources = Resources::parse(RESOURCES).unwrap().to_messages(true, None);
        for number in 0..agents {
            let id = Some(format!("agent-{number}").into());
            let info = AgentInfo { hostname: format!("host-{number}"), resources: resources.clone(), id, ..AgentInfo::default() };
            let agent = Agent::new(info, number as u64).unwrap();
            master.add_agent(Duration::ZERO, agent, Vec::new());
        }
        let core = Core::new(settings(0, false), Metrics::new(Registry::default()));
        let (to_core, shown) = (VecDeque::new(), VecDeque::new());
        Self { now: Duration::ZERO, core, master, to_core, shown, running: 0, deciding: Duration::ZERO }
    }

    fn decide(&mut self, inputs: impl IntoIterator<Item = Input>) {
        let begun = Instant::now();
        inputs.into_iter().for_each(|input| self.core.input(self.now, input));
        let actions = self.core.act(self.now);
        self.deciding += begun.elapsed();
        for action in actions {
            match action {
                core::Action::Call(mut call) => {
                    call.framework_id = Some("master-0000".into());
                    let actions = self.master.call(self.now, *call, STREAM).expect("a call that makes sense");
                    self.carry_out(actions);
                }
                core::Action::WriteNode { host, mut labels } => {
                    labels.insert("kubernetes.io/hostname".to_owned(), host.to_string());
                    let node = json!({"metadata": {"name": host, "labels": labels}});
                    let node = Object::from_stored(&resource::NODE, node.to_string().as_bytes(), 1).unwrap();
                    self.shown.extend([Input::Node(node), Input::NodeWritten { host, done: true }]);
                }
                core::Action::KeepFrameworkId(_) | core::Action::Tell { .. } | core::Action::MarkUnschedulable { .. } => {}
                core::Action::Bind(Write::Reserve { volume, claim, serial }) => self.bind(&volume, &claim, serial),
                other => panic!("nothing fails here, yet {other:?}"),
            }
        }
    }

    /// Completes a binding, including the volume controller's part.
    fn bind(&mut self, volume: &Object, claim: &Object, serial: u64) {
        let (on, name) = (disk(volume.name(), Some(claim.name())), claim.meta().name.clone());
        let claim = claim_of(claim.name(), Some(volume.name()));
        self.shown.extend([Input::Volume(on), Input::Claim(claim), Input::Bound { claim: name, serial, at: Some(2) }]);
    }

    fn carry_out(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::ToScheduler(_, event) => self.to_core.push_back(*event),
                Action::Agent(agent, Output::Launch(launched)) => {
                    let (framework, executor) = (launched.framework.id.clone().unwrap(), launched.info.executor_id.clone());
                    let call = Call::subscribe(&executor, &framework, executor::call::Subscribe::default());
                    let actions = self.master.executor_subscribe(self.now, &agent, call).unwrap();
                    self.carry_out(actions);
                }
                Action::Agent(agent, Output::ToExecutor(key, event)) => {
                    if let event::Type::Launch = event.r#type() {
                        self.run(&agent, key.1.as_str(), &event.launch.unwrap().task);
                    }
                }
                _ => {}
            }
        }
    }

    fn run(&mut self, agent: &str, executor: &str, task: &TaskInfo) {
        self.running += 1;
        let status = TaskStatus {
            task_id: task.task_id.clone(),
            state: TaskState::TaskRunning.into(),
            source: Some(Source::Executor.into()),
            uuid: Some((self.running as u128).to_be_bytes().to_vec().into()),
            ..TaskStatus::default()
        };
        let call = Call::update(&executor.into(), &"master-0000".into(), status);
        let actions = self.master.executor_call(self.now, agent, call).unwrap();
        self.carry_out(actions);
    }

    /// Passes on pending events, a thousand at a time as the shell does.
    fn settle(&mut self) {
        while !self.to_core.is_empty() || !self.shown.is_empty() {
            let events = self.to_core.drain(..self.to_core.len().min(1024)).map(|event| match event.subscribed {
                Some(subscribed) => Input::Subscribed(subscribed.framework_id.value),
                None => Input::Event(Box::new(event)),
            });
            let inputs: Vec<Input> = events.chain(self.shown.drain(..)).collect();
            self.decide(inputs);
        }
    }
}

/// A volume whose name begins with the number of its host.
fn disk(name: &str, claim: Option<&str>) -> Arc<Object> {
    let host = format!("host-{}", name.split('-').next().unwrap());
    let term = json!({"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": [host]}]});
    let reference = claim.map(|it| json!({"namespace": "default", "name": it, "uid": it}));
    let volume = json!({"metadata": {"name": name}, "spec": {"storageClassName": "local", "capacity": {"storage": "1Gi"},
        "accessModes": ["ReadWriteOnce"], "nodeAffinity": {"required": {"nodeSelectorTerms": [term]}}, "claimRef": reference},
        "status": {"phase": "Available"}});
    Object::from_stored(&resource::PERSISTENT_VOLUME, volume.to_string().as_bytes(), 2).unwrap()
}

fn claim_of(name: &str, volume: Option<&str>) -> Arc<Object> {
    let annotations = volume.map(|_| json!({"pv.kubernetes.io/bind-completed": "yes"}));
    let claim = json!({"metadata": {"name": name, "namespace": "default", "uid": name, "annotations": annotations},
        "spec": {"storageClassName": "local", "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}},
            "volumeName": volume}});
    Object::from_stored(&resource::PERSISTENT_VOLUME_CLAIM, claim.to_string().as_bytes(), 2).unwrap()
}

/// The claims of a number of pods, and as many volumes on the agents, in a class that waits for the first consumer.
pub fn storage(agents: usize, pods: usize) -> Vec<Input> {
    let class =
        json!({"metadata": {"name": "local"}, "provisioner": "kubernetes.io/no-provisioner", "volumeBindingMode": "WaitForFirstConsumer"});
    let class = Object::from_stored(&resource::STORAGE_CLASS, class.to_string().as_bytes(), 1).unwrap();
    let volumes = (0..pods).map(|it| Input::Volume(disk(&format!("{}-{it}", it % agents), None)));
    let claims = (0..pods).map(|it| Input::Claim(claim_of(&format!("p{it}"), None)));
    [Input::Class(class)].into_iter().chain(volumes).chain(claims).collect()
}

/// How long it took until all pods ran.
#[allow(dead_code, reason = "for the measurement")]
pub struct Placed {
    /// By the cluster's clock.
    pub simulated: Duration,
    /// In real time.
    pub took: Duration,
    /// The scheduler's decisions alone.
    pub deciding: Duration,
}

pub fn place(agents: usize, pods: usize, storage: Vec<Input>) -> Placed {
    let (mut cluster, has_claims) = (Cluster::new(agents), !storage.is_empty());
    let pod = |number: usize| {
        let container = json!({"name": "c", "image": "app", "resources": {"limits": {"cpu": "100m", "memory": "64Mi"}}});
        let metadata = json!({"name": format!("p{number}"), "namespace": "default", "uid": format!("u{number}")});
        let volumes = has_claims.then(|| json!([{"name": "v", "persistentVolumeClaim": {"claimName": format!("p{number}")}}]));
        let pod = json!({"metadata": metadata, "spec": {"containers": [container], "volumes": volumes}, "status": {"phase": "Pending"}});
        Input::Pod(Object::from_stored(&resource::POD, pod.to_string().as_bytes(), 1).unwrap())
    };
    let waiting: Vec<Input> = storage.into_iter().chain((0..pods).map(pod)).collect();
    let begun = Instant::now();
    cluster.decide(waiting);
    let subscribe = call::Subscribe { framework_info: framework(None), suppressed_roles: Vec::new() };
    let actions = cluster.master.subscribe(cluster.now, subscribe, STREAM.to_owned());
    cluster.carry_out(actions);
    while cluster.running < pods {
        cluster.settle();
        cluster.now += Duration::from_millis(100);
        let actions = cluster.master.tick(cluster.now);
        cluster.carry_out(actions);
        cluster.decide([]);
        assert!(cluster.now < Duration::from_secs(600), "only {} of {pods} pods run", cluster.running);
    }
    cluster.settle();
    let took = begun.elapsed();
    let known = cluster.core.debug_tasks();
    assert_eq!(known.lines().filter(|line| line.contains("\t1\t")).count(), pods);
    Placed { simulated: cluster.now, took, deciding: cluster.deciding }
}

#[test]
fn many_agents_are_filled() {
    place(500, 5000, Vec::new());
}

#[test]
fn the_disks_of_many_agents_are_filled() {
    place(200, 1000, storage(200, 1000));
}
