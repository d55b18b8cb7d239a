//! The worker of one pod: carries out what the pod's machine asks for, and tells it what came of it.

mod operations;

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt};
use futures_util::stream::{FuturesUnordered, StreamExt};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::names::PodId;
use super::observe;
use super::pod::{Action, Input, Machine, units};
use super::shared::Shared;
use super::status::{Host, Messages, pod_status};
use super::statuses::Statuses;
use operations::Operations;

/// What a worker is told.
#[derive(Debug)]
pub enum Notice {
    Pod(Arc<Pod>),
    Gone,
    Terminate { grace: Option<i64> },
    Changed,
}

/// What a worker tells: the pod's status, whenever it changes.
#[derive(Debug)]
pub struct Report {
    pub pod: PodId,
    pub status: PodStatus,
    /// Whether the pod is on its way out.
    pub ending: bool,
}

/// What came of something begun.
pub(super) enum Outcome {
    Input(Input),
    Looked(Input, Messages),
}

/// Runs a pod until nothing is left of it, or the notices end: then its containers are left as they are. `statuses` takes what the API is
/// to know of a pod that is in it; the others' status is only reported.
pub async fn run(
    shared: Arc<Shared>,
    pod: Arc<Pod>,
    statuses: Option<Statuses>,
    mut notices: mpsc::UnboundedReceiver<Notice>,
    reports: mpsc::UnboundedSender<Report>,
) {
    let mut worker = Worker::new(shared, pod, statuses, reports);
    worker.handle(Input::Tick);
    while !worker.ended {
        let wake = async {
            match worker.machine.wake_at() {
                Some(at) => tokio::time::sleep(until(at)).await,
                None => std::future::pending().await,
            }
        };
        let input = tokio::select! {
            biased;
            notice = notices.recv() => match notice {
                Some(Notice::Pod(pod)) => Input::Pod(pod),
                Some(Notice::Gone) => Input::Gone,
                Some(Notice::Terminate { grace }) => Input::Terminate { grace },
                Some(Notice::Changed) => Input::Changed,
                None => return,
            },
            Some(outcome) = worker.begun.next() => match outcome {
                Outcome::Input(input) => input,
                Outcome::Looked(input, messages) => {
                    worker.messages.extend(messages);
                    input
                }
            },
            () = wake => Input::Tick,
        };
        worker.handle(input);
    }
}

fn until(at: Timestamp) -> Duration {
    Duration::try_from(at.duration_since(Timestamp::now())).unwrap_or_default()
}

struct Worker {
    shared: Arc<Shared>,
    machine: Machine,
    begun: FuturesUnordered<BoxFuture<'static, Outcome>>,
    /// Gives up what only delays the pod's end, such as pulling an image.
    ending: CancellationToken,
    messages: Messages,
    published: Option<PodStatus>,
    statuses: Option<Statuses>,
    reports: mpsc::UnboundedSender<Report>,
    ended: bool,
}

impl Worker {
    fn new(shared: Arc<Shared>, pod: Arc<Pod>, statuses: Option<Statuses>, reports: mpsc::UnboundedSender<Report>) -> Self {
        let published = pod.status.clone();
        Self {
            shared,
            machine: Machine::new(pod),
            begun: FuturesUnordered::new(),
            ending: CancellationToken::new(),
            messages: Messages::new(),
            published,
            statuses,
            reports,
            ended: false,
        }
    }

    fn handle(&mut self, input: Input) {
        let actions = self.machine.handle(input, Timestamp::now());
        if self.machine.is_ending() {
            self.ending.cancel();
        }
        let finish = actions.contains(&Action::Finish);
        for action in actions {
            self.begin(action);
        }
        self.publish();
        if finish && let Some(statuses) = &self.statuses {
            statuses.finish(self.machine.id());
        }
    }

    fn begin(&mut self, action: Action) {
        let begun = match action {
            Action::Look(epoch) => self.look(epoch),
            Action::Event(happening) => return self.shared.tell(self.machine.pod(), happening),
            Action::Finish => return,
            Action::End => {
                self.ended = true;
                return;
            }
            action => {
                let ips = self.machine.view().sandbox.map(|sandbox| sandbox.container.ips.clone()).unwrap_or_default();
                let on_host = self.machine.spec().host_network == Some(true);
                let operations = Operations {
                    shared: self.shared.clone(),
                    pod: self.machine.pod().clone(),
                    spec: self.machine.spec().clone(),
                    ips: if on_host { vec![self.shared.config.node_ip.to_string()] } else { ips },
                    ending: self.ending.clone(),
                };
                operations.carry_out(action).map(Outcome::Input).boxed()
            }
        };
        self.begun.push(begun);
    }

    fn look(&self, epoch: u64) -> BoxFuture<'static, Outcome> {
        let (shared, id, spec, known) =
            (self.shared.clone(), self.machine.id().clone(), self.machine.spec().clone(), self.messages.clone());
        async move {
            match observe::containers(&shared, &id.uid).await {
                Ok(containers) => {
                    let specs: Vec<_> = units(&spec).map(|unit| unit.spec).collect();
                    let messages = observe::messages(&shared, &id.uid, &specs, &containers, &known).await;
                    Outcome::Looked(Input::Seen { epoch, containers }, messages)
                }
                Err(error) => {
                    tracing::debug!(pod = %id, "its containers cannot be listed: {error}");
                    Outcome::Input(Input::Blind(error.to_string()))
                }
            }
        }
        .boxed()
    }

    /// Publishes the pod's status if it is another than the last.
    fn publish(&mut self) {
        let view = self.machine.view();
        if self.machine.is_gone() || (!view.observed && self.published.is_some()) {
            return;
        }
        let host = Host { ip: self.shared.config.node_ip.to_string(), engine: self.shared.engine.read().name.clone() };
        let status = pod_status(&view, &host, &self.messages, self.published.as_ref(), Timestamp::now());
        if self.published.as_ref() == Some(&status) {
            return;
        }
        let id = self.machine.id();
        if let Some(statuses) = &self.statuses {
            statuses.publish(id, status.clone());
        }
        if self.published.as_ref().and_then(|last| last.phase.as_ref()) != status.phase.as_ref() {
            tracing::info!(pod = %id, "{}", status.phase.as_deref().unwrap_or_default());
        }
        let _ = self.reports.send(Report { pod: id.clone(), status: status.clone(), ending: self.machine.is_ending() });
        self.published = Some(status);
    }
}
