//! Looking at a pod's containers, and at what those that ended said last.

use std::path::{Path, PathBuf};

use futures_util::StreamExt;
use k8s_openapi::api::core::v1::Container as Spec;

use super::names;
use super::shared::Shared;
use super::status::{MESSAGE_LIMIT, Messages};
use crate::runtime::{Container, LogOptions, Result, RuntimeError, State};

/// Lines and bytes of the log that stand in for a message.
const FALLBACK: (u64, usize) = (80, 2048);

/// Every container of a pod, sandboxes included.
///
/// # Errors
/// Those of the engine.
pub async fn containers(shared: &Shared, uid: &str) -> Result<Vec<Container>> {
    let mut containers = Vec::new();
    for summary in shared.runtime.list(names::POD_UID, Some(uid)).await? {
        if !names::is_owned(&summary, &shared.config.owner) {
            continue;
        }
        match shared.runtime.inspect(&summary.id).await {
            Ok(container) => containers.push(container),
            // Removed in between.
            Err(RuntimeError::NotFound(_)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(containers)
}

/// The file of the host that a container writes its message to.
pub fn message_path(pod_dir: &Path, container: &str, attempt: u32) -> PathBuf {
    pod_dir.join("containers").join(container).join(format!("{attempt}.message"))
}

/// What containers that ended said last, beyond what is `known`.
pub async fn messages(shared: &Shared, uid: &str, specs: &[&Spec], containers: &[Container], known: &Messages) -> Messages {
    let mut messages = Messages::new();
    for container in containers {
        let State::Exited(exit) = &container.state else { continue };
        let Some(names::Role::Container { name, .. }) = names::role(container) else { continue };
        if known.contains_key(&container.id) {
            continue;
        }
        let path = message_path(&shared.pod_dir(uid), &name, names::attempt(container));
        let mut text = tokio::fs::read(&path).await.unwrap_or_default();
        let falls_back =
            specs.iter().any(|spec| spec.name == name && spec.termination_message_policy.as_deref() == Some("FallbackToLogsOnError"));
        if text.is_empty() && falls_back && exit.code != 0 {
            text = tail(shared, &container.id).await;
        }
        let from = text.len().saturating_sub(MESSAGE_LIMIT);
        messages.insert(container.id.clone(), String::from_utf8_lossy(&text[from..]).into_owned());
    }
    messages
}

async fn tail(shared: &Shared, id: &str) -> Vec<u8> {
    let mut chunks = shared.runtime.logs(id, &LogOptions { tail: Some(FALLBACK.0), ..LogOptions::default() });
    let mut text = Vec::new();
    while let Some(Ok(chunk)) = chunks.next().await {
        text.extend_from_slice(&chunk.data);
    }
    text.split_off(text.len().saturating_sub(FALLBACK.1))
}
