//! What keeps the cache equal to the store: the first load, the watch that follows, and the waits for it to be as new as a reader needs.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use tokio::time::{Instant, timeout};

use super::Server;
use super::query::Answer;
use super::respond::store_status;
use crate::cache::Change;
use crate::object::{Object, ObjectKey, ResourceRef, Revision, Status};
use crate::store::{self, StoreError};

/// Entries read at a time.
const PAGE: usize = 2000;
/// Pauses between attempts to reach a store that fails.
const PAUSES: [Duration; 4] = [Duration::from_millis(50), Duration::from_millis(200), Duration::from_millis(500), Duration::from_secs(1)];

/// Fills the cache with what the store holds; returns the revision it then shows.
pub(crate) async fn load(server: &Server) -> store::Result<Revision> {
    let prefix = format!("{}/", server.config.prefix);
    let mut objects = Vec::new();
    let (mut start, mut revision) = (prefix.clone(), 0);
    loop {
        let page = server.store.range(&prefix, &start, PAGE, revision).await?;
        revision = page.revision;
        if let Some(last) = page.entries.last() {
            start = format!("{}\0", last.key);
        }
        objects.extend(page.entries.iter().filter_map(|it| parse(server, &it.key, &it.value, it.revision)));
        if !page.more {
            break;
        }
    }
    server.cache.replace_all(objects, revision);
    Ok(revision)
}

/// Applies the store's changes to the cache, for ever.
pub(crate) async fn follow(server: Arc<Server>, mut revision: Revision) -> anyhow::Result<()> {
    let shutdown = server.tasks.shutdown();
    let mut failures = 0;
    loop {
        let ended = tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            ended = watch(&server, &mut revision, &mut failures) => ended,
        };
        match ended {
            Ok(()) => tracing::debug!("the store ended its watch at revision {revision}"),
            Err(StoreError::Compacted { .. }) => match load(&server).await {
                Ok(loaded) => {
                    tracing::warn!("the store no longer has the changes after revision {revision}: read everything again");
                    revision = loaded;
                    continue;
                }
                Err(error) => tracing::warn!("reading the store again: {error}"),
            },
            // Once an outage is enough.
            Err(error) if failures == 0 => tracing::warn!("watching the store after revision {revision}: {error}"),
            Err(error) => tracing::debug!("watching the store after revision {revision}: {error}"),
        }
        let pause = PAUSES[failures.min(PAUSES.len() - 1)];
        failures += 1;
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            () = tokio::time::sleep(pause) => {}
        }
    }
}

async fn watch(server: &Server, revision: &mut Revision, failures: &mut usize) -> store::Result<()> {
    let mut changes = server.store.watch(&format!("{}/", server.config.prefix), *revision).await?;
    while let Some(batch) = changes.next().await.transpose()? {
        *failures = 0;
        let parsed = batch.changes.into_iter().filter_map(|change| convert(server, change)).collect();
        server.cache.apply(parsed, batch.revision);
        *revision = batch.revision;
    }
    Ok(())
}

fn convert(server: &Server, change: store::Change) -> Option<Change> {
    let key = ObjectKey::from_path(&server.config.prefix, &change.key)?;
    let Some(value) = change.value else { return Some(Change { key, revision: change.revision, object: None }) };
    let ours = server.underway.arrived(&change.key, &value, change.revision);
    // A damaged object is gone: its former state is no longer true, and after a restart it would not be there either.
    let object = ours.or_else(|| parse(server, &change.key, &value, change.revision));
    Some(Change { key, revision: change.revision, object })
}

/// The object under a key of the store. Keys that are not objects' are skipped in silence, damaged objects with a word.
pub(super) fn parse(server: &Server, key: &str, value: &[u8], revision: Revision) -> Option<Arc<Object>> {
    let parsed = ObjectKey::from_path(&server.config.prefix, key)?;
    match Object::from_stored(parsed.resource, value, revision) {
        Ok(object) => Some(object),
        Err(error) => {
            tracing::error!("the store's {key} is skipped: {error}");
            None
        }
    }
}

/// How old what a reader gets may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Freshness {
    /// At least as new as every write acknowledged before.
    Newest,
    /// As new as this revision.
    NotOlderThan(Revision),
    Any,
}

/// How long a reader waits for a revision that the cache has not seen.
const PATIENCE: Duration = Duration::from_secs(3);
/// Past this wait the store is asked how far its watch has come; a change on its way is usually faster.
const NUDGE_AFTER: Duration = Duration::from_millis(2);

impl Server {
    /// Waits until the cache is fresh enough.
    ///
    /// # Errors
    /// 504 for a revision that does not come in time, 503 without the store.
    pub(crate) async fn freshen(&self, resource: ResourceRef, freshness: Freshness) -> Answer<()> {
        let revision = match freshness {
            Freshness::Any => return Ok(()),
            Freshness::NotOlderThan(revision) => revision,
            Freshness::Newest => self.store.revision().await.map_err(store_status)?,
        };
        if self.catch_up(resource, revision).await { Ok(()) } else { Err(too_large(revision, self.cache.revision(resource))) }
    }

    /// Waits until the cache has seen a revision; false if that took too long, or the server stops.
    async fn catch_up(&self, resource: ResourceRef, revision: Revision) -> bool {
        let deadline = Instant::now() + PATIENCE;
        let mut pause = NUDGE_AFTER;
        let mut seen = self.cache.revision(resource);
        while seen < revision {
            let before = seen;
            if self.wait(resource, revision, pause).await {
                return true;
            }
            if self.tasks.shutdown().is_cancelled() || Instant::now() >= deadline {
                return false;
            }
            seen = self.cache.revision(resource);
            // What moves gets there by itself.
            if seen == before
                && let Err(error) = self.store.request_progress().await
            {
                tracing::debug!("asking the store how far its watch has come: {error}");
            }
            pause = (pause * 4).min(Duration::from_millis(200));
        }
        true
    }

    /// Waits until readers see what this server has just written. It comes with the watch, unasked.
    pub(crate) async fn show(&self, resource: ResourceRef, revision: Revision) {
        if self.cache.revision(resource) < revision && !self.wait(resource, revision, PATIENCE).await {
            tracing::debug!("a write at revision {revision} was not seen within {PATIENCE:?}");
        }
    }

    async fn wait(&self, resource: ResourceRef, revision: Revision, patience: Duration) -> bool {
        let shutdown = self.tasks.shutdown();
        tokio::select! {
            seen = timeout(patience, self.cache.wait_for(resource, revision)) => seen.is_ok(),
            () = shutdown.cancelled() => false,
        }
    }
}

fn too_large(asked: Revision, current: Revision) -> Box<Status> {
    let mut status = Status::timeout(format!("Timeout: Too large resource version: {asked}, current: {current}"), 1);
    if let Some(details) = &mut status.details {
        details.causes.push(crate::object::status::Cause {
            reason: "ResourceVersionTooLarge".to_owned(),
            message: "Too large resource version".to_owned(),
            field: String::new(),
        });
    }
    Box::new(status)
}
