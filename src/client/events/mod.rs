//! Reports what happens to objects as core/v1 Events. Reporting never waits and never fails; repetitions raise a count, and a rate limit
//! applies to each object.

mod correlate;
#[cfg(test)]
mod tests;
mod waiting;

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use parking_lot::Mutex;
use serde_json::json;
use tokio::sync::Notify;

use super::{Client, ClientError, Patch};
use crate::object::{Object, resource};
use crate::supervise::Shutdown;
use crate::util::backoff::Backoff;
use correlate::{Correlator, Write};
use waiting::Waiting;

/// Bound of the queue of events; more are dropped. Repetitions of a queued event need no room.
const WAITING: usize = 10_000;
/// Concurrent writes.
const WRITES: usize = 16;
/// Attempts of a write while the server is unreachable.
const ATTEMPTS: usize = 5;
/// Time at shutdown to write what is still queued.
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

/// The reporting component.
#[derive(Clone, Debug)]
struct Source {
    component: String,
    host: String,
}

/// Takes reports. Cheap to clone.
#[derive(Clone, Debug)]
pub struct EventRecorder {
    book: Arc<Book>,
}

/// Writes the events of an [`EventRecorder`].
#[derive(Debug)]
pub struct EventWriter {
    client: Client,
    book: Arc<Book>,
}

/// The reports that are not yet written.
#[derive(Debug)]
struct Book {
    pages: Mutex<(Correlator, Waiting)>,
    bell: Notify,
}

/// A recorder for a component on a host (empty where it does not matter), and the writer, whose task must run for reports to be written.
pub fn recorder(client: Client, component: &str, host: &str) -> (EventRecorder, EventWriter) {
    let source = Source { component: component.to_owned(), host: host.to_owned() };
    let book = Arc::new(Book { pages: Mutex::new((Correlator::new(source), Waiting::default())), bell: Notify::new() });
    (EventRecorder { book: book.clone() }, EventWriter { client, book })
}

impl EventRecorder {
    /// Reports something about an object.
    pub fn event(&self, about: &Object, kind: EventType, reason: &str, message: impl Into<String>) {
        self.event_about(reference(about), kind, reason, message);
    }

    /// As [`EventRecorder::event`], for a reference to an object or a part of one (`fieldPath`).
    pub fn event_about(&self, about: ObjectReference, kind: EventType, reason: &str, message: impl Into<String>) {
        let report = Report { about, kind, reason: reason.to_owned(), message: message.into(), at: Timestamp::now() };
        let dropped = {
            let (correlator, waiting) = &mut *self.book.pages.lock();
            correlator.observe(&report).and_then(|it| waiting.add(it, WAITING))
        };
        if let Some(write) = dropped {
            tracing::debug!("dropped an event, too many are waiting: {} {}", write.name(), report.reason);
        }
        self.book.bell.notify_one();
    }
}

/// An object reference in the form that events carry.
pub fn reference(object: &Object) -> ObjectReference {
    let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    ObjectReference {
        api_version: Some(object.resource().api_version()),
        kind: some(object.resource().kind),
        namespace: some(object.namespace()),
        name: some(object.name()),
        uid: some(&object.meta().uid),
        resource_version: (object.revision() > 0).then(|| object.revision().to_string()),
        field_path: None,
    }
}

impl EventWriter {
    /// Runs until the shutdown, then until the queue is empty or [`DRAIN`] has passed.
    ///
    /// # Errors
    /// None; the signature is that of a component's task.
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
        let mut on_their_way = FuturesUnordered::new();
        let mut ending = false;
        loop {
            while on_their_way.len() < WRITES
                && let Some(write) = self.book.pages.lock().1.take()
            {
                on_their_way.push(self.write(write, if ending { 2 } else { ATTEMPTS }));
            }
            if ending && on_their_way.is_empty() {
                return;
            }
            tokio::select! {
                Some(name) = on_their_way.next() => self.book.pages.lock().1.done(&name),
                () = self.book.bell.notified() => {}
                () = shutdown.cancelled(), if !ending => ending = true,
            }
        }
    }

    /// Writes an event if possible; returns its name.
    async fn write(&self, mut write: Write, attempts: usize) -> String {
        let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(10));
        for attempt in 1..=attempts {
            match self.send(&write).await {
                // An earlier attempt succeeded although its response was lost.
                Err(error) if error.is("AlreadyExists") => break,
                // The event has expired (they live an hour) or was never written: create it.
                Err(error) if error.is("NotFound") && !write.new => write.new = true,
                Err(ClientError::Unreachable(_)) if attempt < attempts => tokio::time::sleep(backoff.pause()).await,
                Err(error) => {
                    tracing::debug!("cannot write event {} about {:?}: {error}", write.name(), write.event.involved_object.name);
                    break;
                }
                Ok(()) => break,
            }
        }
        write.event.metadata.name.unwrap_or_default()
    }

    async fn send(&self, Write { event, new }: &Write) -> super::Result<()> {
        let namespace = event.metadata.namespace.as_deref().unwrap_or_default();
        if *new {
            self.client.create(&resource::EVENT, namespace, event).await?;
        } else {
            let patch = json!({ "count": event.count, "lastTimestamp": event.last_timestamp, "message": event.message });
            let name = event.metadata.name.as_deref().unwrap_or_default();
            self.client.patch(&resource::EVENT, namespace, name, "", &Patch::Merge(patch)).await?;
        }
        Ok(())
    }
}
