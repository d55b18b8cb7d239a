//! Reads a pod's containers, and termination messages.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::{Stream, StreamExt};
use k8s_openapi::api::core::v1::Container as Spec;
use tokio::io::{AsyncReadExt, AsyncSeekExt};

use super::names;
use super::shared::Shared;
use super::status::{MESSAGE_LIMIT, Messages};
use crate::runtime::{Container, LogChunk, LogOptions, Result, RuntimeError, State};

/// Lines and bytes of the log that stand in for a message.
const FALLBACK: (u64, usize) = (80, 2048);
/// How long the engine may take to send them: a line may be as long as a container likes.
const FALLBACK_TIMEOUT: Duration = Duration::from_secs(10);

/// All containers of a pod, including sandboxes.
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

/// The termination messages of containers, beyond the `known` ones.
pub async fn messages(shared: &Shared, uid: &str, specs: &[&Spec], containers: &[Container], known: &Messages) -> Messages {
    let mut messages = Messages::new();
    for container in containers {
        let State::Exited(exit) = &container.state else { continue };
        let Some(names::Role::Container { name, .. }) = names::role(container) else { continue };
        if known.contains_key(&container.id) {
            continue;
        }
        let path = message_path(&shared.pod_dir(uid), &name, names::attempt(container));
        let mut text = end_of(&path, MESSAGE_LIMIT).await.unwrap_or_default();
        let falls_back =
            specs.iter().any(|spec| spec.name == name && spec.termination_message_policy.as_deref() == Some("FallbackToLogsOnError"));
        if text.is_empty() && falls_back && exit.code != 0 {
            text = tail(shared, &container.id).await;
        }
        messages.insert(container.id.clone(), String::from_utf8_lossy(&text).into_owned());
    }
    messages
}

/// The last bytes of a file, of which a container may have made anything.
async fn end_of(path: &Path, limit: usize) -> io::Result<Vec<u8>> {
    let mut file = tokio::fs::File::open(path).await?;
    let (length, limit) = (file.metadata().await?.len(), limit as u64);
    file.seek(io::SeekFrom::Start(length.saturating_sub(limit))).await?;
    let mut text = Vec::new();
    file.take(limit).read_to_end(&mut text).await?;
    Ok(text)
}

async fn tail(shared: &Shared, id: &str) -> Vec<u8> {
    let mut text = Vec::new();
    let chunks = shared.runtime.logs(id, &LogOptions { tail: Some(FALLBACK.0), ..LogOptions::default() });
    if tokio::time::timeout(FALLBACK_TIMEOUT, keep_end(chunks, &mut text)).await.is_err() {
        tracing::debug!("the log of {id} does not end");
    }
    text.split_off(text.len().saturating_sub(FALLBACK.1))
}

/// Reads a log to its end, and keeps little more of it than its last bytes.
async fn keep_end(mut chunks: impl Stream<Item = Result<LogChunk>> + Unpin, text: &mut Vec<u8>) {
    while let Some(Ok(chunk)) = chunks.next().await {
        text.extend_from_slice(&chunk.data[chunk.data.len().saturating_sub(FALLBACK.1)..]);
        if text.len() > 2 * FALLBACK.1 {
            text.drain(..text.len() - FALLBACK.1);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Seek, SeekFrom, Write};

    use bytes::Bytes;

    use super::*;
    use crate::runtime::LogStream;

    #[tokio::test]
    async fn messages_are_read_from_their_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("message");
        let mut file = std::fs::File::create(&path).unwrap();
        assert_eq!(end_of(&path, 4).await.unwrap(), b"");
        file.write_all(b"abc").unwrap();
        assert_eq!(end_of(&path, 4).await.unwrap(), b"abc");
        // More than there is memory, most of it a hole.
        file.seek(SeekFrom::Start(1 << 40)).unwrap();
        file.write_all(b"the end").unwrap();
        assert_eq!(end_of(&path, 3).await.unwrap(), b"end");
    }

    #[tokio::test]
    async fn of_a_log_only_the_end_is_kept() {
        let chunk = |data: Vec<u8>| Ok(LogChunk { stream: LogStream::Stdout, data: Bytes::from(data) });
        let many = (0..10_000).map(move |_| chunk(vec![b'.'; 1000])).chain([chunk(b"the end".to_vec())]);
        let mut text = Vec::new();
        keep_end(futures_util::stream::iter(many), &mut text).await;
        assert!(text.ends_with(b"the end") && (FALLBACK.1..=2 * FALLBACK.1).contains(&text.len()), "{}", text.len());
        assert!(text.capacity() <= 8 * FALLBACK.1, "{}", text.capacity());
    }
}
