//! The waits for the cache to be as new as a reader needs.

use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::Server;
use super::error::{Answer, store_status};
use crate::object::{ResourceRef, Revision, Status};

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
