//! The worker of one pod: carries out the actions of the pod's life, and reports their results to it.

mod operations;

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt};
use futures_util::stream::{FuturesUnordered, StreamExt};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::backoff::Backoff;
use super::life::{Life, Report};
use super::mailbox::Notices;
use super::observe;
use super::pod::{Action, Input, units};
use super::shared::Shared;
use super::status::{Host, Messages};
use super::statuses::Statuses;
use crate::supervise::contain;
use operations::Operations;

/// The result of an operation.
pub(super) enum Outcome {
    Input(Input),
    Looked(Input, Messages),
}

/// Runs a pod until it has ended completely, or the notices end: then its containers are left running. `statuses` takes the status of pods
/// that are in the API; the status of others is only reported.
pub async fn run(shared: Arc<Shared>, pod: Arc<Pod>, statuses: Option<Statuses>, mut notices: Notices, reports: mpsc::Sender<Report>) {
    let refresh = SignedDuration::try_from(shared.config.sync_period).unwrap_or_default();
    let mut worker = Worker {
        shared,
        life: Life::new(pod).refreshed_every(refresh),
        begun: FuturesUnordered::new(),
        ending: CancellationToken::new(),
        statuses,
        reports,
        failures: Backoff::brisk(),
        ended: false,
    };
    worker.handle(Input::Tick).await;
    while !worker.ended {
        let wake = async {
            match worker.life.machine().wake_at() {
                Some(at) => tokio::time::sleep(until(at)).await,
                None => std::future::pending().await,
            }
        };
        let input = tokio::select! {
            biased;
            notice = notices.next() => match notice {
                Some(notice) => notice.into(),
                None => return,
            },
            Some(outcome) = worker.begun.next() => match outcome {
                Outcome::Input(input) => input,
                Outcome::Looked(input, messages) => {
                    worker.life.learn(messages);
                    input
                }
            },
            () = wake => Input::Tick,
        };
        worker.handle(input).await;
    }
}

fn until(at: Timestamp) -> Duration {
    Duration::try_from(at.duration_since(Timestamp::now())).unwrap_or_default()
}

struct Worker {
    shared: Arc<Shared>,
    life: Life,
    begun: FuturesUnordered<BoxFuture<'static, Outcome>>,
    /// Cancels operations that only delay the pod's end, such as pulling an image.
    ending: CancellationToken,
    statuses: Option<Statuses>,
    reports: mpsc::Sender<Report>,
    /// How often the life has failed.
    failures: Backoff,
    ended: bool,
}

impl Worker {
    async fn handle(&mut self, input: Input) {
        let host = Host { ip: self.shared.config.node_ip.to_string(), engine: self.shared.engine.read().name.clone() };
        let step = match contain(|| self.life.handle(input, &host, Timestamp::now())) {
            Ok(step) => step,
            Err(panic) => return self.begin_again(&panic).await,
        };
        if self.life.machine().is_ending() {
            self.ending.cancel();
        }
        for action in step.actions {
            self.begin(action);
        }
        if let Some(report) = step.report {
            self.statuses.iter().for_each(|statuses| statuses.publish(&report.pod, report.status.clone()));
            let _ = self.reports.send(report).await;
        }
        if step.finish {
            self.statuses.iter().for_each(|statuses| statuses.finish(self.life.machine().id()));
        }
    }

    /// After a failure of this pod's life: begins it again, once the operations under way have ended. The other pods go on.
    async fn begin_again(&mut self, panic: &str) {
        self.failures.tried(Timestamp::now());
        let pause = Duration::try_from(self.failures.delay()).unwrap_or_default();
        tracing::error!(pod = %self.life.machine().id(), "this is a bug of the executor, trying again in {pause:?}: {panic}");
        tokio::time::sleep(pause).await;
        while self.begun.next().await.is_some() {}
        self.life.begin_again();
    }

    fn begin(&mut self, action: Action) {
        let machine = self.life.machine();
        let begun = match action {
            Action::Look(epoch) => self.look(epoch),
            Action::Event(happening) => return self.shared.tell(machine.pod(), happening),
            Action::Finish => return,
            Action::End => {
                self.ended = true;
                return;
            }
            action => {
                let ips = machine.view().sandbox.map(|sandbox| sandbox.container.ips.clone()).unwrap_or_default();
                let on_host = machine.spec().host_network == Some(true);
                let operations = Operations {
                    shared: self.shared.clone(),
                    pod: machine.pod().clone(),
                    spec: machine.spec().clone(),
                    ips: if on_host { vec![self.shared.config.node_ip.to_string()] } else { ips },
                    ending: self.ending.clone(),
                };
                operations.carry_out(action).map(Outcome::Input).boxed()
            }
        };
        self.begun.push(begun);
    }

    fn look(&self, epoch: u64) -> BoxFuture<'static, Outcome> {
        let machine = self.life.machine();
        let (shared, id, spec, known) = (self.shared.clone(), machine.id().clone(), machine.spec().clone(), self.life.messages().clone());
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
}
