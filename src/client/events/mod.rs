//! Reports what happens to objects as core/v1 Events. Reporting never waits and never fails; repetitions are counted instead of
//! written again, and objects that have too much to say are cut short.

mod correlate;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use tokio::sync::mpsc;

use super::{Client, ClientError, Patch};
use crate::object::{Object, resource};
use crate::supervise::Shutdown;
use crate::util::backoff::Backoff;
use correlate::{Correlator, Write};

/// So many reports wait to be written; more are dropped.
const QUEUE: usize = 1_000;
/// A write is tried so often while the server is out of reach.
const ATTEMPTS: usize = 5;
/// What is still queued at the shutdown is given this long.
const DRAIN: Duration = Duration::from_secs(2);

/// `type` of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventType {
    Normal,
    Warning,
}

/// Something that happened to an object.
#[derive(Clone, Debug)]
struct Report {
    about: ObjectReference,
    kind: EventType,
    /// Why, in one CamelCase word, such as `FailedScheduling`.
    reason: String,
    message: String,
    at: Timestamp,
}

/// Who reports.
#[derive(Clone, Debug)]
struct Source {
    component: String,
    host: String,
}

/// Takes reports. Cheap to clone.
#[derive(Clone, Debug)]
pub struct EventRecorder {
    queue: mpsc::Sender<Report>,
}

/// Writes what an [`EventRecorder`] took.
#[derive(Debug)]
pub struct EventWriter {
    client: Client,
    queue: mpsc::Receiver<Report>,
    correlator: Correlator,
}

/// A recorder for a component on a host (empty where it does not matter), and the task that must run for it to have an effect.
pub fn recorder(client: Client, component: &str, host: &str) -> (EventRecorder, EventWriter) {
    let (sender, queue) = mpsc::channel(QUEUE);
    let source = Source { component: component.to_owned(), host: host.to_owned() };
    (EventRecorder { queue: sender }, EventWriter { client, queue, correlator: Correlator::new(source) })
}

impl EventRecorder {
    /// Reports something about an object.
    pub fn event(&self, about: &Object, kind: EventType, reason: &str, message: impl Into<String>) {
        self.event_about(reference(about), kind, reason, message);
    }

    /// Reports something about an object, or a part of one (`fieldPath`), that need not be at hand.
    pub fn event_about(&self, about: ObjectReference, kind: EventType, reason: &str, message: impl Into<String>) {
        let report = Report { about, kind, reason: reason.to_owned(), message: message.into(), at: Timestamp::now() };
        if let Err(mpsc::error::TrySendError::Full(report)) = self.queue.try_send(report) {
            tracing::debug!("dropped an event, too many are waiting: {} {}", report.about.name.unwrap_or_default(), report.reason);
        }
    }
}

/// A reference to an object as events carry it.
pub fn reference(object: &Object) -> ObjectReference {
    let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    ObjectReference {
        api_version: Some(object.resource().api_version()),
        kind: some(object.resource().kind),
        namespace: some(object.namespace()),
        name: some(object.name()),
        uid: some(&object.meta().uid),
        resource_version: some(&object.revision().to_string()),
        field_path: None,
    }
}

impl EventWriter {
    /// Runs until the shutdown, and then until all that waits is written, or a moment is over.
    ///
    /// # Errors
    /// None; it has the form of a component's task.
    pub async fn run(mut self, shutdown: Shutdown) -> anyhow::Result<()> {
        let stop = async {
            shutdown.cancelled().await;
            tokio::time::sleep(DRAIN).await;
        };
        tokio::select! {
            () = self.write_all(&shutdown) => {}
            () = stop => {}
        }
        Ok(())
    }

    async fn write_all(&mut self, shutdown: &Shutdown) {
        while let Some(report) = tokio::select! {
            report = self.queue.recv() => report,
            () = shutdown.cancelled() => None,
        } {
            self.write(&report, ATTEMPTS).await;
        }
        self.queue.close();
        while let Some(report) = self.queue.recv().await {
            self.write(&report, 1).await;
        }
    }

    async fn write(&mut self, report: &Report, attempts: usize) {
        let Some(mut write) = self.correlator.observe(report) else { return };
        let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(10));
        for attempt in 1..=attempts {
            match self.send(&write).await {
                Ok(()) => return,
                // The event went (they live an hour): it begins anew.
                Err(error) if error.is("NotFound") && matches!(write, Write::Count { .. }) => {
                    write = Write::Create(Arc::new(self.correlator.begin(report)));
                }
                Err(ClientError::Unreachable(_)) if attempt < attempts => tokio::time::sleep(backoff.pause()).await,
                Err(error) => {
                    tracing::debug!("cannot write event {} about {:?}: {error}", report.reason, report.about.name);
                    return;
                }
            }
        }
    }

    async fn send(&self, write: &Write) -> super::Result<()> {
        match write {
            Write::Create(event) => {
                let namespace = event.metadata.namespace.as_deref().unwrap_or_default();
                self.client.create(&resource::EVENT, namespace, &**event).await?;
            }
            Write::Count { namespace, name, patch } => {
                self.client.patch(&resource::EVENT, namespace, name, "", &Patch::Merge(patch.clone())).await?;
            }
        }
        Ok(())
    }
}
