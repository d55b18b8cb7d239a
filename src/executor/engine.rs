//! Watches the container engine: whether it answers, and which pods' containers ended.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use tokio::sync::{mpsc, watch};

use super::names;
use super::node::EngineState;
use super::shared::{Engine, Shared};
use crate::runtime::EventKind;
use crate::supervise::Shutdown;

/// First and longest pause between tries to reach an engine.
const RETRY: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(5));

/// A signal from the engine to the executor.
#[derive(Debug, PartialEq, Eq)]
pub enum Sign {
    /// The engine responds, for the first time or again: events before this may have been missed.
    Up,
    /// A container of the pod with this uid has ended.
    Ended(String),
}

/// Watches until `shutdown`.
pub async fn watch(shared: Arc<Shared>, state: watch::Sender<Option<EngineState>>, signs: mpsc::Sender<Sign>, shutdown: Shutdown) {
    let mut pause = RETRY.0;
    loop {
        let watched = shutdown.run_until_cancelled(follow(&shared, &state, &signs, &mut pause)).await;
        let Some(why) = watched else { return };
        let is_news = state.borrow().as_ref().is_none_or(|known| known.as_ref().err() != Some(&why));
        if is_news {
            tracing::error!("{why}. Pods wait until a Docker engine runs: install one (Debian: apt-get install docker.io) and start it");
            state.send_replace(Some(Err(why)));
            // Wakes pods that wait to start, so that they report this to their users.
            let _ = signs.send(Sign::Up).await;
        }
        if shutdown.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
            return;
        }
        pause = (pause * 2).min(RETRY.1);
    }
}

/// Follows an engine's events until it becomes unreachable; returns why.
async fn follow(shared: &Shared, state: &watch::Sender<Option<EngineState>>, signs: &mpsc::Sender<Sign>, pause: &mut Duration) -> String {
    let version = match shared.runtime.version().await {
        Ok(version) => version,
        Err(error) => return error.to_string(),
    };
    let mut events = shared.runtime.events(names::POD_UID);
    tracing::info!("container engine: {} {}", version.name, version.version);
    *shared.engine.write() = Engine { name: version.name.clone(), cgroup_paths: version.cgroup_paths };
    state.send_replace(Some(Ok(version)));
    *pause = RETRY.0;
    let _ = signs.send(Sign::Up).await;
    while let Some(event) = events.next().await {
        let event = match event {
            Ok(event) => event,
            Err(error) => return error.to_string(),
        };
        let ours = event.labels.get(names::OWNER) == Some(&shared.config.owner);
        if let (EventKind::Died, true, Some(uid)) = (event.kind, ours, event.labels.get(names::POD_UID)) {
            let _ = signs.send(Sign::Ended(uid.clone())).await;
        }
    }
    "the container engine closed its event stream".to_owned()
}
