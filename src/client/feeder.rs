//! Fills one resource of a cache by list and watch from a remote API server.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use super::{Client, ClientError, Result, WatchEvent};
use crate::cache::{Cache, Change, Query};
use crate::object::{Object, ResourceRef, Revision};
use crate::supervise::{Shutdown, Supervisor};
use crate::util::backoff::Backoff;

/// The first and the longest pause after a failure.
const PAUSE: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));
/// The server is asked to end each watch after about this many seconds, so that watches redistribute over servers that return.
const WATCH_SECONDS: u64 = 300;
/// A watch without data for longer is dead: bookmarks come about once a minute.
const SILENCE: Duration = Duration::from_secs(90);

/// Whether the API server is known to be unreachable. The feeders of a cache share it, so that only one of them logs.
#[derive(Clone, Debug, Default)]
pub struct Outage(Arc<AtomicBool>);

/// Lists and watches the objects of one resource that a query selects.
#[derive(Debug)]
pub struct Feeder {
    pub client: Client,
    pub cache: Arc<Cache>,
    pub resource: ResourceRef,
    /// The selection; the cache holds no other objects of the resource.
    pub query: Query,
    pub outage: Outage,
}

/// Fills these resources of a cache, as long as `tasks` run.
pub fn feed(tasks: &Supervisor, client: &Client, cache: &Arc<Cache>, resources: &[ResourceRef]) {
    let outage = Outage::default();
    for resource in resources {
        let feeder = Feeder { outage: outage.clone(), ..Feeder::new(client.clone(), cache.clone(), resource) };
        tasks.spawn(format!("feed {}", resource.plural), feeder.run(tasks.shutdown()));
    }
}

impl Feeder {
    /// A feeder for all objects of a resource.
    pub fn new(client: Client, cache: Arc<Cache>, resource: ResourceRef) -> Self {
        Self { client, cache, resource, query: Query::default(), outage: Outage::default() }
    }

    /// Runs until the shutdown. Failures are logged and retried after a pause.
    ///
    /// # Errors
    /// None; the signature is that of a component's task.
    pub async fn run(self, shutdown: Shutdown) -> anyhow::Result<()> {
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = self.feed() => {}
        }
        Ok(())
    }

    async fn feed(&self) {
        let mut backoff = Backoff::new(PAUSE.0, PAUSE.1);
        let mut known: Option<Revision> = None;
        let mut failing = false;
        loop {
            let begun = Instant::now();
            let before = known;
            let outcome = match known {
                None => self.list(&mut known).await,
                Some(_) => self.watch(&mut known).await,
            };
            if known > before || begun.elapsed() > PAUSE.1 {
                backoff.reset();
            }
            if !matches!(outcome, Err(ClientError::Unreachable(_))) && self.outage.0.swap(false, Ordering::Relaxed) {
                tracing::info!("the API server answers again");
            }
            match outcome {
                Ok(()) => {
                    if failing {
                        tracing::info!("{} is watched again", self.resource.plural);
                    }
                    failing = false;
                    // Pause before asking again, in case the server ends every watch at once.
                    if before.is_some() && begun.elapsed() < Duration::from_secs(1) {
                        tokio::time::sleep(backoff.pause()).await;
                    }
                }
                Err(error) if is_gone(&error) => {
                    tracing::debug!("{} is listed again: {error}", self.resource.plural);
                    known = None;
                    if before.is_none() || begun.elapsed() < Duration::from_secs(1) {
                        tokio::time::sleep(backoff.pause()).await;
                    }
                }
                Err(error @ ClientError::Unreachable(_)) => {
                    if !self.outage.0.swap(true, Ordering::Relaxed) {
                        tracing::warn!("{error}");
                    }
                    tracing::debug!("cannot list and watch {}: {error}", self.resource.plural);
                    tokio::time::sleep(backoff.pause()).await;
                }
                Err(error) => {
                    if !std::mem::replace(&mut failing, true) {
                        tracing::warn!("cannot list and watch {}: {:#}", self.resource.plural, anyhow::Error::from(error));
                    }
                    tokio::time::sleep(backoff.pause()).await;
                }
            }
        }
    }

    async fn list(&self, known: &mut Option<Revision>) -> Result<()> {
        let listing = self.client.list_matching(self.resource, &self.query).await?;
        *known = Some(listing.revision);
        self.cache.replace(self.resource, listing.objects, listing.revision);
        Ok(())
    }

    /// Follows one watch to its end.
    async fn watch(&self, known: &mut Option<Revision>) -> Result<()> {
        let seconds = WATCH_SECONDS + rand::random_range(0..WATCH_SECONDS);
        let mut stream = self.client.watch(self.resource, &self.query, known.unwrap_or_default(), seconds).await?;
        loop {
            let events = match tokio::time::timeout(SILENCE, stream.next()).await {
                Ok(events) => events?,
                Err(_) => return Err(ClientError::Unreachable(anyhow::anyhow!("the watch is silent since {SILENCE:?}"))),
            };
            let Some(events) = events else { return Ok(()) };
            self.apply(events, known);
        }
    }

    fn apply(&self, events: Vec<WatchEvent>, known: &mut Option<Revision>) {
        let mut changes = Vec::with_capacity(events.len());
        let mut bookmark = None;
        for event in events {
            let (object, exists): (Arc<Object>, bool) = match event {
                WatchEvent::Added(object) | WatchEvent::Modified(object) => (object, true),
                WatchEvent::Deleted(object) => (object, false),
                WatchEvent::Bookmark(revision) => {
                    bookmark = Some(revision);
                    *known = Some(revision);
                    continue;
                }
            };
            *known = Some(object.revision());
            changes.push(Change { key: object.key(), revision: object.revision(), object: exists.then_some(object) });
        }
        self.cache.apply_to(self.resource, changes);
        if let Some(revision) = bookmark {
            self.cache.advance(self.resource, revision);
        }
    }
}

/// Whether the server no longer has the history to continue the watch.
fn is_gone(error: &ClientError) -> bool {
    matches!(error, ClientError::Api(status) if status.code == 410 || status.is("Expired") || status.is("Gone"))
}
