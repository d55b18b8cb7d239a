//! What keeps the cache equal to the store: the first load, and the watch that follows.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;

use super::Server;
use crate::cache::Change;
use crate::object::{Object, ObjectKey, Revision};
use crate::store::{self, StoreError};

/// Entries read at a time.
const PAGE: usize = 2000;
/// Pauses between attempts to reach a store that fails.
const PAUSES: [Duration; 4] = [Duration::from_millis(50), Duration::from_millis(200), Duration::from_millis(500), Duration::from_secs(1)];

/// Fills the cache from the store; returns the revision that it then shows.
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
    let ours = server.pending_writes.arrived(&change.key, &value, change.revision);
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
