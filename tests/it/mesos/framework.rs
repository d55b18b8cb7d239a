//! A framework under a test's control.

use std::time::Duration;

use km::mesos::detect;
use km::mesos::scheduler::{self, Calls, Config, DriverEvent};
use km::mesos::v1::scheduler::{Call, Event};
use km::mesos::v1::value::{Scalar, Type};
use km::mesos::v1::{
    ExecutorInfo, FrameworkId, FrameworkInfo, Offer, Resource, TaskInfo, TaskState, TaskStatus, executor_info, framework_info, task_status,
};
use km::supervise::Supervisor;
use tokio::sync::mpsc;

/// How long anything may take that a test waits for.
const PATIENCE: Duration = Duration::from_secs(30);

pub(super) struct Framework {
    pub(super) calls: Calls,
    pub(super) id: FrameworkId,
    events: mpsc::Receiver<DriverEvent>,
    supervisor: Supervisor,
    /// Events that came while the test waited for another.
    passed: Vec<DriverEvent>,
}

/// The framework of the tests.
pub(super) fn info() -> FrameworkInfo {
    use framework_info::capability::Type;
    FrameworkInfo {
        user: "root".into(),
        name: "test".into(),
        failover_timeout: Some(60.0),
        checkpoint: Some(true),
        roles: vec!["*".into()],
        capabilities: [Type::MultiRole, Type::ReservationRefinement, Type::PartitionAware]
            .map(|capability| framework_info::Capability { r#type: Some(capability.into()) })
            .into(),
        ..FrameworkInfo::default()
    }
}

pub(super) fn scalar(name: &str, value: f64) -> Resource {
    Resource { name: name.into(), r#type: Type::Scalar.into(), scalar: Some(Scalar { value }), ..Resource::default() }
}

impl Framework {
    /// Subscribes with the master at an address, or elected through ZooKeeper; with an id in `info`, as a successor.
    pub(super) async fn subscribe(master: &str, info: FrameworkInfo) -> Self {
        let mut framework = Self::start(master, info);
        framework.id = framework.subscribed().await;
        framework
    }

    pub(super) fn start(master: &str, framework: FrameworkInfo) -> Self {
        let supervisor = Supervisor::default();
        let masters = detect::watch(master.parse().expect("a master's address"), &supervisor);
        let config = Config { framework, credential: None, suppressed_roles: Vec::new() };
        let (calls, events) = scheduler::start(config, masters, &supervisor);
        Self { calls, id: FrameworkId::default(), events, supervisor, passed: Vec::new() }
    }

    /// The next event that `pick` selects, including earlier skipped ones.
    pub(super) async fn wait<T>(&mut self, what: &str, mut pick: impl FnMut(&DriverEvent) -> Option<T>) -> T {
        if let Some((at, found)) = self.passed.iter().enumerate().find_map(|(at, event)| Some((at, pick(event)?))) {
            self.passed.remove(at);
            return found;
        }
        let search = async {
            loop {
                let event = self.events.recv().await.unwrap_or_else(|| panic!("the driver ended while waiting for {what}"));
                if let Some(found) = pick(&event) {
                    return found;
                }
                if matches!(event, DriverEvent::Disconnected(_)) {
                    // the offers of a session end with it
                    self.passed.retain(|event| !matches!(event, DriverEvent::Event(Event { offers: Some(_), .. })));
                }
                self.passed.push(event);
            }
        };
        tokio::time::timeout(PATIENCE, search).await.unwrap_or_else(|_| panic!("no {what}; passed over {:#?}", self.passed))
    }

    pub(super) async fn subscribed(&mut self) -> FrameworkId {
        self.wait("subscription", |event| match event {
            DriverEvent::Subscribed(subscribed) => Some(subscribed.framework_id.clone()),
            _ => None,
        })
        .await
    }

    pub(super) async fn offer(&mut self) -> Offer {
        self.wait("offer", |event| match event {
            DriverEvent::Event(Event { offers: Some(offers), .. }) => offers.offers.first().cloned(),
            _ => None,
        })
        .await
    }

    /// The next update of a task, acknowledged.
    pub(super) async fn update(&mut self, task: &str) -> TaskStatus {
        let status = self
            .wait(&format!("update of {task}"), |event| match event {
                DriverEvent::Event(Event { update: Some(update), .. }) if update.status.task_id.value == task => {
                    Some(update.status.clone())
                }
                _ => None,
            })
            .await;
        if let Some(acknowledge) = Call::acknowledge(&status) {
            self.calls.send(acknowledge).await.expect("an acknowledgement");
        }
        status
    }

    /// State, source and reason of the next update of a task.
    pub(super) async fn state(&mut self, task: &str) -> (TaskState, task_status::Source, Option<task_status::Reason>) {
        let status = self.update(task).await;
        (status.state(), status.source(), status.reason.map(|_| status.reason()))
    }

    /// A task of half a CPU for the executor `name`.
    pub(super) fn task(&self, offer: &Offer, name: &str, task: &str, data: &'static [u8]) -> TaskInfo {
        TaskInfo {
            name: task.into(),
            task_id: task.into(),
            agent_id: offer.agent_id.clone(),
            resources: vec![scalar("cpus", 0.5), scalar("mem", 64.0)],
            executor: Some(ExecutorInfo {
                r#type: Some(executor_info::Type::Custom.into()),
                executor_id: name.into(),
                framework_id: Some(self.id.clone()),
                command: Some(super::real::executor_command()),
                resources: vec![scalar("cpus", 0.1), scalar("mem", 32.0)],
                ..ExecutorInfo::default()
            }),
            data: Some(data.into()),
            ..TaskInfo::default()
        }
    }

    /// Launches one task on the next offer and waits until it runs.
    pub(super) async fn run(&mut self, executor: &str, task: &str) -> Offer {
        let offer = self.offer().await;
        let info = self.task(&offer, executor, task, b"");
        self.calls.send(Call::launch(vec![offer.id.clone()], vec![info], Some(0.0))).await.expect("a launch");
        assert_eq!(self.state(task).await, (TaskState::TaskRunning, task_status::Source::Executor, None));
        offer
    }

    /// Goes away without a word, as a scheduler that crashed.
    pub(super) async fn vanish(self) {
        self.supervisor.shutdown().cancel();
        self.supervisor.wait(PATIENCE).await.expect("the driver's end");
    }

    /// Removes the framework from the cluster.
    pub(super) async fn teardown(self) {
        self.calls.send(Call::teardown()).await.expect("a teardown");
        self.vanish().await;
    }
}
