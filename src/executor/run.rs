//! The executor's main loop: passes inputs to the core, and carries out its actions.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::core::{Action, Core, Input, Settings};
use super::engine::Sign;
use super::life::{Notice, Report};
use super::mailbox::{Mailbox, mailbox};
use super::names::{self, PodId};
use super::node::Registration;
use super::shared::Shared;
use super::static_pods::{self, StaticPods};
use super::statuses::{News, Statuses};
use super::volumes::disk;
use super::{Mesos, bind, worker};
use crate::cache::{Event, Watch};
use crate::mesos::executor::ExecutorEvent;
use crate::mesos::v1::executor::event::Subscribed;
use crate::object::resource;
use crate::supervise::Shutdown;

/// How long the executor's parts may take to stop.
pub const STOP_TIMEOUT: Duration = Duration::from_secs(20);

/// Inputs from the executor's other parts.
#[derive(Debug)]
pub struct Inputs {
    pub reports: mpsc::Receiver<Report>,
    pub signs: mpsc::Receiver<Sign>,
    pub news: mpsc::Receiver<News>,
}

pub struct Run {
    shared: Arc<Shared>,
    mesos: Option<Mesos>,
    core: Core,
    reports: mpsc::Sender<Report>,
    /// Channels to the pods' workers, by uid.
    workers: HashMap<String, Mailbox>,
    running: JoinSet<PodId>,
    static_pods: StaticPods,
    /// Requests in progress to the API, the engine and the disk.
    asked: FuturesUnordered<BoxFuture<'static, Input>>,
}

impl Run {
    pub fn new(shared: Arc<Shared>, mesos: Option<Mesos>, reports: mpsc::Sender<Report>) -> Self {
        let config = &shared.config;
        let settings = Settings {
            product: config.product,
            has_mesos: mesos.is_some(),
            suicide_timeout: config.suicide_timeout,
            launch_grace: config.launch_grace_period,
        };
        let core = Core::new(&settings, Timestamp::now());
        Self {
            static_pods: StaticPods::new(shared.clone()),
            shared,
            mesos,
            core,
            reports,
            workers: HashMap::new(),
            running: JoinSet::new(),
            asked: FuturesUnordered::new(),
        }
    }

    pub fn has_mesos(&self) -> bool {
        self.mesos.is_some()
    }

    pub async fn run(mut self, mut inputs: Inputs, registration: watch::Sender<Registration>, shutdown: Shutdown) -> anyhow::Result<()> {
        let cache = self.shared.cache.clone();
        if shutdown.run_until_cancelled(cache.wait_synced(&[&resource::POD, &resource::SERVICE])).await.is_none() {
            return Ok(());
        }
        let mut watch = self.synchronise();
        while !self.core.has_ended(Timestamp::now()) {
            let wake = async {
                match self.core.wake_at() {
                    Some(at) => tokio::time::sleep(Duration::try_from(at.duration_since(Timestamp::now())).unwrap_or_default()).await,
                    None => std::future::pending().await,
                }
            };
            let from_mesos = async {
                match &mut self.mesos {
                    Some(mesos) => mesos.events.recv().await,
                    None => std::future::pending().await,
                }
            };
            let input = tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                event = watch.next() => match event {
                    Ok(Event::Added(object) | Event::Modified(object)) => Input::Pod(object),
                    Ok(Event::Deleted(object)) => Input::Gone(object.meta().uid.to_string()),
                    Ok(Event::Bookmark(_)) => continue,
                    Err(expired) => {
                        tracing::info!("the pods are listed again: {expired}");
                        watch = self.synchronise();
                        continue;
                    }
                },
                event = from_mesos, if !self.core.is_ending() => {
                    let event = event.unwrap_or_else(|| ExecutorEvent::Shutdown("the connection to the agent has ended".to_owned()));
                    match event {
                        ExecutorEvent::Subscribed(subscribed) => self.subscribed(*subscribed, &registration),
                        event => Input::Mesos(Box::new(event)),
                    }
                }
                Some(answer) = self.asked.next() => answer,
                Some(report) = inputs.reports.recv() => {
                    if let Some(pod) = self.static_pods.report(&report.pod.uid, &report.status) {
                        self.notify(&report.pod.uid, Notice::Pod(pod));
                    }
                    Input::Status(Box::new(report))
                }
                Some(sign) = inputs.signs.recv() => Input::Engine(sign),
                Some(news) = inputs.news.recv() => news.into(),
                Some(ended) = self.running.join_next() => match ended {
                    Ok(pod) => {
                        self.workers.remove(&pod.uid);
                        Input::Ended(pod)
                    }
                    Err(error) => anyhow::bail!("a pod's worker failed: {error}"),
                },
                () = wake => Input::Tick,
            };
            self.handle(input);
        }
        let left: Vec<String> = self.core.pods().map(PodId::to_string).collect();
        if !left.is_empty() {
            tracing::warn!("pods did not end in time: {}", left.join(", "));
        }
        self.static_pods.end().await;
        Ok(())
    }

    /// The agent reports its resources, and the executor's description.
    fn subscribed(&mut self, subscribed: Subscribed, registration: &watch::Sender<Registration>) -> Input {
        let Subscribed { executor_info: executor, agent_info: agent, .. } = subscribed;
        let begun = self.static_pods.described(&executor);
        let static_pods = static_pods::limits(&executor);
        registration.send_replace(Registration { executor: Some(executor), agent: Some(agent), static_pods });
        Input::Static(begun)
    }

    fn notify(&self, uid: &str, notice: Notice) {
        if let Some(notices) = self.workers.get(uid) {
            notices.put(notice);
        }
    }

    fn handle(&mut self, input: Input) {
        for action in self.core.handle(input, Timestamp::now()) {
            match action {
                Action::Update(status) => {
                    if let Some(mesos) = &self.mesos {
                        mesos.updates.update(*status);
                    }
                }
                Action::Bind { task, pod } => {
                    let shared = self.shared.clone();
                    self.asked.push(Box::pin(async move {
                        let result = bind::bind(&shared, *pod).await;
                        Input::Bound { task, result }
                    }));
                }
                Action::Start { pod, is_static } => self.start(pod, (!is_static).then(|| self.shared.statuses.clone())),
                Action::CheckMirror(object) => self.static_pods.remove_if_stray(&object),
                Action::Tell(uid, notice) => self.notify(&uid, notice),
                Action::FindLeftovers => {
                    let shared = self.shared.clone();
                    self.asked.push(Box::pin(async move { Input::Leftovers(leftovers(&shared).await) }));
                }
            }
        }
    }

    fn start(&mut self, pod: Arc<Pod>, statuses: Option<Statuses>) {
        let id = PodId::of(&pod);
        let (notices, receiver) = mailbox();
        self.workers.insert(id.uid.clone(), notices);
        let worker = worker::run(self.shared.clone(), pod, statuses, receiver, self.reports.clone());
        self.running.spawn(async move {
            worker.await;
            id
        });
    }

    /// Tells the core of all pods there are, and watches them from then on.
    fn synchronise(&mut self) -> Watch {
        let (pods, watch) = self.shared.cache.list_and_watch(&resource::POD, &self.shared.config.pods());
        self.handle(Input::Listed(pods));
        watch
    }
}

/// The pods of which the engine has containers, or the disk something.
async fn leftovers(shared: &Shared) -> Vec<PodId> {
    let listed = match shared.runtime.list(names::OWNER, Some(&shared.config.owner)).await {
        Ok(listed) => listed,
        Err(error) => {
            tracing::debug!("leftover containers cannot be listed: {error}");
            return Vec::new();
        }
    };
    let in_engine: BTreeSet<PodId> = listed.iter().filter_map(|it| PodId::of_labels(&it.labels)).collect();
    let on_disk = disk::pods(&shared.config.root_dir);
    let unnamed = on_disk.into_iter().filter(|uid| !in_engine.iter().any(|pod| pod.uid == *uid));
    let unnamed: Vec<PodId> = unnamed.map(|uid| PodId { uid, ..PodId::default() }).collect();
    in_engine.into_iter().chain(unnamed).collect()
}
