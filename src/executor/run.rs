//! The executor's main loop: pods from the API and tasks from Mesos in, workers and task updates out.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::engine::Sign;
use super::names::{self, PodId};
use super::node::Registration;
use super::shared::Shared;
use super::static_pods::{self, StaticPods};
use super::statuses::Statuses;
use super::tasks::{BindFailure, Command, Tasks};
use super::volumes::disk;
use super::worker::{self, Notice, Report};
use super::{Mesos, bind};
use crate::cache::{Event, Watch};
use crate::mesos::executor::ExecutorEvent;
use crate::mesos::v1::executor::event::Subscribed;
use crate::object::{Object, Revision, resource};
use crate::supervise::Shutdown;

/// How long the executor's parts may take to stop.
pub const STOP_TIMEOUT: Duration = Duration::from_secs(20);
/// How long pods get to end when the agent ends the executor: it kills it soon after.
const SHUTDOWN_GRACE: i64 = 3;
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(15);

/// What comes from the executor's other parts.
#[derive(Debug)]
pub struct Inputs {
    pub reports: mpsc::UnboundedReceiver<Report>,
    pub signs: mpsc::UnboundedReceiver<Sign>,
    pub gone: mpsc::UnboundedReceiver<PodId>,
}

struct Worker {
    notices: mpsc::UnboundedSender<Notice>,
    id: PodId,
    revision: Revision,
}

pub struct Run {
    shared: Arc<Shared>,
    mesos: Option<Mesos>,
    tasks: Tasks,
    reports: mpsc::UnboundedSender<Report>,
    /// By uid.
    workers: HashMap<String, Worker>,
    running: JoinSet<PodId>,
    static_pods: StaticPods,
    binding: FuturesUnordered<BoxFuture<'static, (String, Result<Arc<Pod>, BindFailure>)>>,
    /// Why the executor is to end.
    ending: Option<String>,
}

impl Run {
    pub fn new(shared: Arc<Shared>, mesos: Option<Mesos>, reports: mpsc::UnboundedSender<Report>) -> Self {
        let config = &shared.config;
        let suicide_timeout = if mesos.is_some() { config.suicide_timeout } else { Duration::ZERO };
        let tasks = Tasks::new(config.product, suicide_timeout, config.launch_grace_period, Timestamp::now());
        Self {
            static_pods: StaticPods::new(shared.clone()),
            shared,
            mesos,
            tasks,
            reports,
            workers: HashMap::new(),
            running: JoinSet::new(),
            binding: FuturesUnordered::new(),
            ending: None,
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
        let mut watch = self.synchronise(true);
        while self.ending.is_none() {
            let wake = async {
                match self.tasks.wake_at() {
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
            let now = Timestamp::now();
            let commands = tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                event = watch.next() => {
                    match event {
                        Ok(event) => self.pod_event(event),
                        Err(expired) => {
                            tracing::info!("the pods are listed again: {expired}");
                            watch = self.synchronise(false);
                        }
                    }
                    Vec::new()
                }
                event = from_mesos => self.mesos_event(event, &registration, now).await,
                Some((task, result)) = self.binding.next() => self.tasks.bound(&task, result, now),
                Some(Report { pod, status, ending }) = inputs.reports.recv() => {
                    if let Some(pod) = self.static_pods.report(&pod.uid, &status) {
                        self.notify(&PodId::of(&pod).uid, Notice::Pod(pod));
                    }
                    self.tasks.status(&pod, &status, ending, now)
                }
                Some(sign) = inputs.signs.recv() => {
                    self.sign(sign).await;
                    Vec::new()
                }
                Some(pod) = inputs.gone.recv() => {
                    self.notify(&pod.uid, Notice::Gone);
                    Vec::new()
                }
                Some(ended) = self.running.join_next() => match ended {
                    Ok(pod) => {
                        self.workers.remove(&pod.uid);
                        self.tasks.gone(&pod, now)
                    }
                    Err(error) => anyhow::bail!("a pod's worker failed: {error}"),
                },
                () = wake => self.tasks.tick(now),
            };
            self.carry_out(commands);
        }
        self.end_pods(inputs).await;
        Ok(())
    }

    fn carry_out(&mut self, commands: Vec<Command>) {
        for command in commands {
            match command {
                Command::Update(status) => {
                    tracing::info!(task = status.task_id.value, "{} {}", status.state().as_str_name(), status.message());
                    if let Some(mesos) = &self.mesos {
                        mesos.updates.update(*status);
                    }
                }
                Command::Bind { task, pod } => {
                    let shared = self.shared.clone();
                    self.binding.push(Box::pin(async move { (task, bind::bind(&shared, *pod).await) }));
                }
                Command::Run(pod) => self.start_api_pod(pod, 0),
                Command::Terminate { pod, grace } => self.notify(&pod.uid, Notice::Terminate { grace }),
                Command::Shutdown(why) => self.ending = Some(why),
            }
        }
    }

    fn notify(&self, uid: &str, notice: Notice) {
        if let Some(worker) = self.workers.get(uid) {
            // A worker that has just ended needs no notice.
            let _ = worker.notices.send(notice);
        }
    }

    fn start_api_pod(&mut self, pod: Arc<Pod>, revision: Revision) {
        self.start(pod, revision, Some(self.shared.statuses.clone()));
    }

    fn start(&mut self, pod: Arc<Pod>, revision: Revision, statuses: Option<Statuses>) {
        let id = PodId::of(&pod);
        if self.workers.contains_key(&id.uid) {
            return;
        }
        let (notices, receiver) = mpsc::unbounded_channel();
        self.workers.insert(id.uid.clone(), Worker { notices, id: id.clone(), revision });
        let worker = worker::run(self.shared.clone(), pod, statuses, receiver, self.reports.clone());
        self.running.spawn(async move {
            worker.await;
            id
        });
    }

    /// Compares the pods there are with those that run, and watches them from then on. At the start (`adopt`) pods that an earlier
    /// executor of this node was given are taken over.
    fn synchronise(&mut self, adopt: bool) -> Watch {
        let query = self.shared.config.pods();
        loop {
            let listing = self.shared.cache.list(&resource::POD, &query);
            let there: BTreeSet<&str> = listing.objects.iter().map(|object| &*object.meta().uid).collect();
            for (uid, worker) in &self.workers {
                // A pod whose binding the cache has not seen yet is not gone.
                if !there.contains(uid.as_str()) && worker.revision > 0 {
                    self.notify(uid, Notice::Gone);
                }
            }
            for object in &listing.objects {
                self.pod_is(object, adopt);
            }
            match self.shared.cache.watch(&resource::POD, query.clone(), listing.revision) {
                Ok(watch) => return watch,
                Err(expired) => tracing::debug!("{expired}"),
            }
        }
    }

    fn pod_event(&mut self, event: Event) {
        match event {
            Event::Added(object) | Event::Modified(object) => self.pod_is(&object, false),
            Event::Deleted(object) => self.notify(&object.meta().uid, Notice::Gone),
            Event::Bookmark(_) => {}
        }
    }

    /// A pod of this node is so in the API.
    fn pod_is(&mut self, object: &Arc<Object>, adopt: bool) {
        let Ok(pod) = object.typed::<Pod>() else {
            return tracing::error!("{} is not understood", object.key());
        };
        if let Some(worker) = self.workers.get_mut(&*object.meta().uid) {
            if object.revision() > worker.revision {
                worker.revision = object.revision();
                let _ = worker.notices.send(Notice::Pod(Arc::new(pod.clone())));
            }
            return;
        }
        // What it shows runs by its own uid.
        if names::mirrored(pod).is_some() {
            return self.static_pods.remove_if_stray(object);
        }
        // With Mesos a pod begins with its task, which brings it along. One that nobody runs and somebody deletes still has to be let go.
        let is_ours = self.mesos.is_none() || object.meta().is_deleted() || (adopt && self.tasks.id_of(pod).is_some());
        if is_ours {
            if adopt {
                self.tasks.adopt(pod, Timestamp::now());
            }
            self.start_api_pod(Arc::new(pod.clone()), object.revision());
        }
    }

    /// The agent says what it has, and what this executor is for.
    async fn subscribed(&mut self, subscribed: Subscribed, registration: &watch::Sender<Registration>) {
        let Subscribed { executor_info: executor, agent_info: agent, .. } = subscribed;
        for pod in self.static_pods.described(&executor) {
            self.start(pod, 0, None);
        }
        let static_pods = static_pods::limits(&executor);
        registration.send_replace(Registration { executor: Some(executor), agent: Some(agent), static_pods });
        self.remove_orphans().await;
    }

    async fn mesos_event(
        &mut self,
        event: Option<ExecutorEvent>,
        registration: &watch::Sender<Registration>,
        now: Timestamp,
    ) -> Vec<Command> {
        match event {
            Some(ExecutorEvent::Subscribed(subscribed)) => {
                self.subscribed(*subscribed, registration).await;
                Vec::new()
            }
            Some(ExecutorEvent::Launch(task)) => self.tasks.launch(&task, now),
            Some(ExecutorEvent::LaunchGroup(tasks)) => tasks.iter().flat_map(|task| self.tasks.launch(task, now)).collect(),
            Some(ExecutorEvent::Kill { task_id, kill_policy }) => {
                let grace = kill_policy.and_then(|policy| policy.grace_period).map(|grace| grace.nanoseconds / 1_000_000_000);
                self.tasks.kill(&task_id.value, grace)
            }
            Some(ExecutorEvent::Message(data)) => self.tasks.message(&data),
            Some(ExecutorEvent::Disconnected(why)) => {
                tracing::warn!("the agent is away, pods go on: {why}");
                Vec::new()
            }
            Some(ExecutorEvent::Shutdown(why)) => vec![Command::Shutdown(why)],
            None => vec![Command::Shutdown("the connection to the agent has ended".to_owned())],
        }
    }

    async fn sign(&mut self, sign: Sign) {
        match sign {
            Sign::Ended(uid) => self.notify(&uid, Notice::Changed),
            Sign::Up => {
                for uid in self.workers.keys() {
                    self.notify(uid, Notice::Changed);
                }
                self.remove_orphans().await;
            }
        }
    }

    /// Ends what is left of pods that the API does not know any more: their containers, and what they had on disk.
    async fn remove_orphans(&mut self) {
        // Before the agent has said which static pods there are, theirs would look like orphans.
        if self.has_mesos() && !self.static_pods.are_known() {
            return;
        }
        let listed = match self.shared.runtime.list(names::OWNER, Some(&self.shared.config.owner)).await {
            Ok(listed) => listed,
            Err(error) => return tracing::debug!("orphans are not looked for: {error}"),
        };
        let orphans: BTreeSet<PodId> = listed.iter().filter_map(|it| PodId::of_labels(&it.labels)).collect();
        let on_disk = disk::pods(&self.shared.config.root_dir);
        let on_disk = on_disk.into_iter().filter(|uid| !orphans.iter().any(|pod| pod.uid == *uid));
        let unnamed = on_disk.map(|uid| PodId { uid, ..PodId::default() }).collect::<Vec<_>>();
        for id in orphans.into_iter().chain(unnamed) {
            if self.workers.contains_key(&id.uid) {
                continue;
            }
            tracing::info!(pod = %id, uid = id.uid, "is not in the API any more: its containers are removed");
            let metadata =
                ObjectMeta { name: Some(id.name), namespace: Some(id.namespace), uid: Some(id.uid.clone()), ..ObjectMeta::default() };
            self.start_api_pod(Arc::new(Pod { metadata, spec: Some(PodSpec::default()), ..Pod::default() }), 0);
            self.notify(&id.uid, Notice::Gone);
        }
    }

    /// Ends every pod's containers: Mesos ends the executor, and what it leaves behind would run for nobody.
    async fn end_pods(mut self, mut inputs: Inputs) {
        tracing::info!("the executor ends: {}", self.ending.as_deref().unwrap_or_default());
        for (uid, worker) in &self.workers {
            // A pod whose task is over stays in the API, with what it came to; only its containers go.
            let is_task = self.tasks.has(&worker.id);
            self.notify(uid, if is_task { Notice::Terminate { grace: Some(SHUTDOWN_GRACE) } } else { Notice::Gone });
        }
        let ends = async {
            while let Some(ended) = tokio::select! {
                ended = self.running.join_next() => ended,
                Some(pod) = inputs.gone.recv() => {
                    self.notify(&pod.uid, Notice::Gone);
                    Some(Ok(PodId::default()))
                }
            } {
                let commands = ended.map(|pod| self.tasks.gone(&pod, Timestamp::now())).unwrap_or_default();
                self.carry_out(commands);
            }
        };
        if tokio::time::timeout(SHUTDOWN_TIMEOUT, ends).await.is_err() {
            let left: Vec<String> = self.workers.values().map(|worker| worker.id.to_string()).collect();
            tracing::warn!("pods did not end in time, out of {}", left.join(", "));
        }
        self.static_pods.end().await;
    }
}
