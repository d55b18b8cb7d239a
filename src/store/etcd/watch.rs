//! Watches of etcd, and how they learn their progress.
//!
//! etcd reports progress on request, but before 3.4.25 and 3.5.8 the report may overtake earlier changes. For such a server the store
//! writes a key of its own next to the watched prefix, within the watched range: its change arrives in order.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use etcd_client::{Client, Event, EventType, GetOptions, KvClient, WatchOptions, WatchStream};
use futures_util::stream::{self, BoxStream, StreamExt};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::timeout;

use super::client::{Call, CallError, MESSAGE, Members};
use super::{prefix_end, to_i64, to_revision, utf8};
use crate::object::Revision;
use crate::store::{Batch, Change, Result, StoreError};

/// How long etcd may take to begin a watch.
const CREATION: Duration = Duration::from_secs(5);
/// Suffix of the store's own keys.
const MARK: &[u8] = b"\0km-progress";

/// The running watches of a store.
#[derive(Default)]
pub(super) struct Watches {
    /// Count of progress requests.
    asked: watch::Sender<u64>,
    /// Whether the server's progress reports are in order.
    in_order: AtomicBool,
    /// The number of watches per prefix.
    prefixes: Mutex<BTreeMap<String, usize>>,
}

/// Whether an entry is one of the store's own marks. Marks are empty, which objects are not; the name alone is not enough, as names of some
/// kinds may contain any character.
pub(super) fn is_mark(key: &[u8], value: &[u8]) -> bool {
    value.is_empty() && key.ends_with(MARK)
}

/// The key whose changes signal progress to watches of this prefix. It sorts behind all keys with the prefix; `None` if no key can.
fn mark(prefix: &str) -> Option<Vec<u8>> {
    prefix_end(prefix).map(|end| [&end[..], MARK].concat())
}

impl Watches {
    /// Makes every watch report its progress.
    pub(super) async fn request_progress(&self, members: &Members) -> Result<()> {
        if self.in_order.load(Ordering::Relaxed) {
            self.asked.send_modify(|asked| *asked += 1);
            return Ok(());
        }
        let prefixes: Vec<String> = self.prefixes.lock().keys().cloned().collect();
        for key in prefixes.iter().map(|prefix| mark(prefix).unwrap_or_else(|| MARK.to_vec())) {
            let put = |mut kv: KvClient| {
                let key = key.clone();
                async move { kv.put(key, "", None).await }
            };
            members.kv(Call::Repeatable, put).await?;
        }
        Ok(())
    }

    pub(super) async fn watch(
        self: Arc<Self>,
        members: Arc<Members>,
        prefix: &str,
        after: Revision,
    ) -> Result<BoxStream<'static, Result<Batch>>> {
        let asked = self.asked.subscribe();
        let status = |client: &Client| {
            let mut maintenance = client.maintenance_client();
            async move { maintenance.status().await }
        };
        let status = members.call(Call::Repeatable, status).await?;
        self.in_order.store(answers_in_order(status.version()), Ordering::Relaxed);

        let stream = create(&members, prefix, after).await?;
        if after > 0 && check_compacted(&members, after).await? {
            // etcd begins a watch even at the compacted revision, although a deletion at that revision is lost.
            return Err(compacted(&members, after).await?);
        }
        let registration = Registration::new(self, prefix);
        let watcher = Watcher { members, stream, registration, position: after, asked };
        Ok(stream::try_unfold(watcher, |mut watcher| async { Ok(Some((watcher.next().await?, watcher))) }).boxed())
    }
}

/// Begins a watch and waits until etcd confirms it.
async fn create(members: &Members, prefix: &str, after: Revision) -> Result<WatchStream> {
    let end = mark(prefix).map_or_else(|| b"\0".to_vec(), |mark| [&mark[..], b"\0"].concat());
    let start = if prefix.is_empty() { b"\0".to_vec() } else { prefix.as_bytes().to_vec() };
    let options = WatchOptions::new().with_range(end).with_start_revision(to_i64(after).saturating_add(1)).with_progress_notify();
    let call = |client: &Client| {
        let (start, options, mut watches) = (start.clone(), options.clone(), client.watch_client().max_decoding_message_size(MESSAGE));
        async move { watches.watch(start, Some(options)).await }
    };
    let mut stream = members.call(Call::Repeatable, call).await?;
    let created = timeout(CREATION, stream.message()).await;
    match created {
        Ok(Ok(Some(answer))) if answer.canceled() => Err(ended(after, answer.compact_revision(), answer.cancel_reason())),
        Ok(Ok(Some(_))) => Ok(stream),
        Ok(Ok(None)) => Err(StoreError::Unavailable(anyhow::anyhow!("etcd closed a new watch"))),
        Ok(Err(error)) => Err(members.broken(&error)),
        Err(_) => Err(StoreError::Unavailable(anyhow::anyhow!("etcd did not begin a watch for {CREATION:?}"))),
    }
}

/// Whether the state at a revision is compacted.
async fn check_compacted(members: &Members, revision: Revision) -> Result<bool> {
    let options = GetOptions::new().with_revision(to_i64(revision)).with_count_only();
    let get = |mut kv: KvClient| {
        let options = options.clone();
        async move { kv.get("\0", Some(options)).await }
    };
    match members.kv(Call::Repeatable, get).await {
        Ok(_) | Err(CallError::ToCome) => Ok(false),
        Err(CallError::Compacted) => Ok(true),
        Err(error) => Err(error.into()),
    }
}

/// The error for a compacted revision. etcd reports the oldest kept revision only to a watch that begins too early.
pub(super) async fn compacted(members: &Members, asked: Revision) -> Result<StoreError> {
    let options = WatchOptions::new().with_start_revision(to_i64(asked.max(1)));
    let call = |client: &Client| {
        let (options, mut watches) = (options.clone(), client.watch_client());
        async move { watches.watch("\0", Some(options)).await }
    };
    let mut stream = members.call(Call::Repeatable, call).await?;
    let end = async {
        loop {
            match stream.message().await {
                Ok(Some(answer)) if answer.canceled() => return Ok(ended(asked, answer.compact_revision(), answer.cancel_reason())),
                Ok(Some(_)) => {}
                Ok(None) => return Err(StoreError::Unavailable(anyhow::anyhow!("etcd closed a watch"))),
                Err(error) => return Err(members.broken(&error)),
            }
        }
    };
    match timeout(CREATION, end).await {
        Ok(error) => error,
        Err(_) => Ok(StoreError::Compacted { asked, oldest: asked + 1 }),
    }
}

/// Why etcd ended a watch.
fn ended(asked: Revision, compact_revision: i64, reason: &str) -> StoreError {
    match compact_revision {
        0 => StoreError::Unavailable(anyhow::anyhow!("etcd ended a watch: {reason}")),
        oldest => StoreError::Compacted { asked, oldest: to_revision(oldest) },
    }
}

/// Whether the progress reports of this version never overtake changes.
fn answers_in_order(version: &str) -> bool {
    let mut numbers = version.split(['.', '-']).map_while(|number| number.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    match version {
        (3, 4, patch) => patch >= 25,
        (3, 5, patch) => patch >= 8,
        version => version >= (3, 6, 0),
    }
}

/// Counts a watch under its prefix for as long as it lives.
struct Registration {
    watches: Arc<Watches>,
    prefix: String,
}

impl Registration {
    fn new(watches: Arc<Watches>, prefix: &str) -> Self {
        *watches.prefixes.lock().entry(prefix.to_owned()).or_default() += 1;
        Self { watches, prefix: prefix.to_owned() }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let mut prefixes = self.watches.prefixes.lock();
        if let Some(count) = prefixes.get_mut(&self.prefix) {
            *count -= 1;
            if *count == 0 {
                prefixes.remove(&self.prefix);
            }
        }
    }
}

/// One watch.
struct Watcher {
    members: Arc<Members>,
    stream: WatchStream,
    registration: Registration,
    /// Everything up to this revision has been delivered.
    position: Revision,
    asked: watch::Receiver<u64>,
}

impl Watcher {
    async fn next(&mut self) -> Result<Batch> {
        loop {
            let answer = tokio::select! {
                answer = self.stream.message() => answer.map_err(|error| self.members.broken(&error))?,
                Ok(()) = self.asked.changed() => {
                    self.stream.request_progress().await.map_err(|error| self.members.broken(&error))?;
                    continue;
                }
            };
            let answer = answer.ok_or_else(|| StoreError::Unavailable(anyhow::anyhow!("etcd closed a watch")))?;
            if answer.canceled() {
                return Err(ended(self.position, answer.compact_revision(), answer.cancel_reason()));
            }
            if answer.created() {
                continue;
            }
            let head = answer.header().map_or(0, |header| to_revision(header.revision()));
            let last = answer.events().last().and_then(Event::kv).map(|kv| to_revision(kv.mod_revision()));
            // The revision in the header may be ahead of the changes: more may follow.
            self.position = last.unwrap_or(head).max(self.position);
            let changes = answer.events().iter().filter_map(|event| self.change(event).transpose()).collect::<Result<Vec<_>>>()?;
            return Ok(Batch { changes, revision: self.position });
        }
    }

    /// The change of a key with the watched prefix.
    fn change(&self, event: &Event) -> Result<Option<Change>> {
        let Some(kv) = event.kv() else { return Ok(None) };
        let put = event.event_type() == EventType::Put;
        // Marks are never deleted.
        if put && is_mark(kv.key(), kv.value()) || !kv.key().starts_with(self.registration.prefix.as_bytes()) {
            return Ok(None);
        }
        let value = put.then(|| Bytes::copy_from_slice(kv.value()));
        Ok(Some(Change { key: utf8(kv.key().to_vec())?, revision: to_revision(kv.mod_revision()), value }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_that_answer_in_order() {
        for (version, expected) in [
            ("3.4.23", false),
            ("3.4.25", true),
            ("3.5.7", false),
            ("3.5.8", true),
            ("3.6.0-rc.1", true),
            ("3.3.9", false),
            ("4.0.0", true),
            ("", false),
        ] {
            assert_eq!(answers_in_order(version), expected, "{version}");
        }
    }

    #[test]
    fn marks_are_behind_their_prefix() {
        assert_eq!(mark("/registry/").unwrap(), b"/registry0\0km-progress");
        assert!(mark("/registry/").unwrap().as_slice() > "/registry/\u{10ffff}".as_bytes());
        assert_eq!(mark(""), None);
        assert!(is_mark(&mark("/registry/").unwrap(), b""));
        assert!(!is_mark(b"/registry/clusterroles/x\0km-progress", b"{}"));
        assert!(!is_mark(b"/registry/clusterroles/x", b""));
    }
}
