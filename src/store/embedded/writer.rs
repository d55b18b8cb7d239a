//! The one thread that writes: takes all waiting requests, decides on each, appends their changes to the log as one group, and replies once
//! the group is durable. It also deletes expired keys and forgets old history.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::feed::Feed;
use super::index::Place;
use super::log::Log;
use super::reclaim::Reclaim;
use super::record::{Group, Record, What};
use super::tail::{Refused, Tail};
use crate::object::Revision;
use crate::store::{Change, Entry, Expect, Outcome, Result, StoreError};

/// Bound of the requests in a group, so that none waits long for the others.
const REQUESTS: usize = 1024;
/// Bound of the bytes of values in a group.
const BYTES: usize = 4 << 20;
/// How many keys a group expires besides its requests.
const EXPIRIES: usize = 512;
/// After a group of at least this many requests, the next one also waits for as many, for [`LINGER`] at most. One sync for many takes less
/// of the processors than several for a few, and callers in such numbers come again at once. Fewer callers would lose more by waiting.
const CROWD: usize = 16;
const LINGER: Duration = Duration::from_micros(250);
/// Pause of chores after a failure, such as a full disk.
const CHORES_PAUSE: Duration = Duration::from_secs(1);

pub(super) enum Write {
    Put { key: String, value: Bytes, expect: Expect, ttl: Option<Duration> },
    Delete { key: String, revision: Revision },
    Compact { revision: Revision },
}

pub(super) struct Request {
    pub(super) write: Write,
    pub(super) reply: oneshot::Sender<Result<Outcome>>,
    /// The request's share of the room for waiting requests.
    pub(super) _room: OwnedSemaphorePermit,
}

pub(super) enum Message {
    Request(Request),
    Stop,
}

/// How much history is kept without a call of `compact`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Retention {
    pub(super) age: Duration,
    pub(super) revisions: u64,
}

pub(super) struct Writer {
    log: Arc<Log>,
    tail: Tail,
    feed: Arc<Feed>,
    reclaim: Reclaim,
    retention: Retention,
    /// The newest revision at some time; older history is forgotten once that time is `retention.age` ago.
    mark: (Instant, Revision),
    chores_from: Option<Instant>,
    /// The size of the last group.
    crowd: usize,
}

impl Writer {
    pub(super) fn new(log: Arc<Log>, tail: Tail, feed: Arc<Feed>, retention: Retention) -> Self {
        let mark = (Instant::now(), feed.head());
        Self { log, tail, feed, reclaim: Reclaim::default(), retention, mark, chores_from: None, crowd: 0 }
    }

    /// Works until told to stop; earlier requests are still completed.
    pub(super) fn run(mut self, inbox: &Receiver<Message>) {
        loop {
            let (batch, go_on) = self.gather(inbox);
            self.crowd = batch.len();
            self.step(batch);
            if !go_on {
                self.reclaim.stop();
                self.tail.stop();
                return;
            }
            self.reclaim.check(&self.log, &mut self.tail);
        }
    }

    /// Waits for a request or a chore, then takes all waiting requests. Also returns whether to continue afterwards.
    fn gather(&self, inbox: &Receiver<Message>) -> (Vec<Request>, bool) {
        let mut batch = Vec::new();
        let mut bytes = 0;
        let mut linger = self.crowd >= CROWD;
        let mut message = match self.due() {
            Some(due) => inbox.recv_timeout(due),
            None => inbox.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        loop {
            match message {
                Ok(Message::Request(request)) => {
                    bytes += request.write.size();
                    batch.push(request);
                }
                Err(RecvTimeoutError::Timeout) => return (batch, true),
                Ok(Message::Stop) | Err(RecvTimeoutError::Disconnected) => return (batch, false),
            }
            if batch.len() >= REQUESTS || bytes >= BYTES {
                return (batch, true);
            }
            message = inbox.recv_timeout(Duration::ZERO);
            if linger && batch.len() < self.crowd && matches!(message, Err(RecvTimeoutError::Timeout)) {
                linger = false;
                // Not in the channel, which would wake this thread for each request.
                std::thread::sleep(LINGER);
                message = inbox.recv_timeout(Duration::ZERO);
            }
        }
    }

    /// The time until the next chore; `None` if there is none without a write.
    fn due(&self) -> Option<Duration> {
        let state = self.log.state.read();
        let expiry = state.index.next_expiry().map(|due| Duration::from_millis(due.saturating_sub(unix_millis())));
        let history = state.index.head() > state.index.forgotten();
        let forgetting = history.then(|| self.retention.age.saturating_sub(self.mark.0.elapsed()));
        let due = expiry.into_iter().chain(forgetting).min()?;
        Some(self.chores_from.map_or(due, |from| due.max(from.saturating_duration_since(Instant::now()))))
    }

    /// Writes one group, then replies.
    fn step(&mut self, batch: Vec<Request>) {
        let mut draft = Draft::new(&self.log);
        let outcomes: Vec<Result<Outcome>> = batch.iter().map(|request| draft.take(&request.write)).collect();
        let due = if self.chores_from.is_some_and(|from| Instant::now() < from) {
            Vec::new()
        } else {
            self.log.state.write().index.take_expired(unix_millis(), EXPIRIES + batch.len())
        };
        for (key, revision) in &due {
            // A change of the key in this group takes precedence.
            let _ = draft.take(&Write::Delete { key: (**key).to_owned(), revision: *revision });
        }
        let forget = self.forgetting(draft.next - 1);
        if forget > self.log.state.read().index.forgotten() {
            let _ = draft.take(&Write::Compact { revision: forget });
        }
        let Draft { mut group, changes, first, .. } = draft;
        let appended = if group.is_empty() { Ok((0, 0)) } else { self.tail.append(&mut group, first) };
        match appended {
            Ok((segment, offset)) => {
                self.chores_from = None;
                self.show(changes, segment, offset);
                for (request, outcome) in batch.into_iter().zip(outcomes) {
                    // The caller may be gone.
                    let _ = request.reply.send(outcome);
                }
            }
            Err(Refused { error, certain }) => {
                if self.chores_from.is_none() {
                    tracing::warn!("{error}");
                }
                self.chores_from = Some(Instant::now() + CHORES_PAUSE);
                let later = unix_millis().saturating_add(CHORES_PAUSE.as_millis() as u64);
                self.log.state.write().index.expires_again(later, due);
                for request in batch {
                    let _ = request.reply.send(Err(again(&error, certain)));
                }
            }
        }
    }

    /// Makes durable changes visible to readers.
    fn show(&mut self, changes: Vec<Drafted>, segment: u32, offset: u64) {
        let (head, forgotten) = {
            let mut state = self.log.state.write();
            for drafted in &changes {
                let record = drafted.record();
                let place = Place::of(&record, segment, offset + drafted.value_at as u64);
                state.index.apply(&record, place).expect("the draft numbers its changes in order");
            }
            (state.index.head(), state.index.forgotten())
        };
        if self.mark.0.elapsed() >= self.retention.age {
            self.mark = (Instant::now(), head);
        }
        self.feed.publish(changes.into_iter().filter_map(|drafted| drafted.change), head, forgotten);
    }

    /// The revision up to which history is to be forgotten now; 0 for none.
    fn forgetting(&self, head: Revision) -> Revision {
        let by_age = if self.mark.0.elapsed() >= self.retention.age { self.mark.1 } else { 0 };
        by_age.max(head.saturating_sub(self.retention.revisions))
    }
}

/// A copy of a group's error, for one of its requests.
fn again(error: &StoreError, certain: bool) -> StoreError {
    match error.again() {
        StoreError::Full(cause) | StoreError::Failed(cause) if !certain => StoreError::Unavailable(cause),
        error => error,
    }
}

/// A group under construction.
struct Draft<'a> {
    log: &'a Log,
    group: Group,
    changes: Vec<Drafted>,
    /// Index of the newest of `changes` per key.
    newest: HashMap<String, usize>,
    /// The revisions of the first and of the next change.
    first: Revision,
    next: Revision,
}

/// One record of a draft.
struct Drafted {
    /// `None`: history up to `revision` is to be forgotten.
    change: Option<Change>,
    revision: Revision,
    expires: u64,
    /// The offset of the value in the group.
    value_at: usize,
}

impl Drafted {
    fn record(&self) -> Record<'_> {
        let what = match &self.change {
            None => What::Forget,
            Some(Change { key, value: None, .. }) => What::Delete { key },
            Some(Change { key, value: Some(value), .. }) => What::Put { key, value, expires: self.expires },
        };
        Record { revision: self.revision, what }
    }
}

impl<'a> Draft<'a> {
    fn new(log: &'a Log) -> Self {
        let first = log.state.read().index.head() + 1;
        Self { log, group: Group::new(), changes: Vec::new(), newest: HashMap::new(), first, next: first }
    }

    fn take(&mut self, write: &Write) -> Result<Outcome> {
        match write {
            Write::Put { key, value, expect, ttl } => {
                let current = self.current(key);
                let expected = match expect {
                    Expect::Absent => current.is_none(),
                    Expect::At(revision) => current == Some(*revision),
                };
                if !expected {
                    return self.conflict(key);
                }
                let expires = ttl.map_or(0, |ttl| unix_millis().saturating_add(u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX)).max(1));
                Ok(Outcome::Done(self.change(key, Some(value.clone()), expires)))
            }
            Write::Delete { key, revision } if self.current(key) == Some(*revision) => Ok(Outcome::Done(self.change(key, None, 0))),
            Write::Delete { key, .. } => self.conflict(key),
            Write::Compact { revision } => {
                let revision = (*revision).min(self.next - 1);
                self.push(Drafted { change: None, revision, expires: 0, value_at: 0 });
                Ok(Outcome::Done(revision))
            }
        }
    }

    /// The revision of an existing key.
    fn current(&self, key: &str) -> Option<Revision> {
        match self.newest.get(key) {
            Some(at) => self.changes[*at].change.as_ref().and_then(|change| change.value.is_some().then_some(change.revision)),
            None => self.log.state.read().index.get(key).map(|(revision, _)| revision),
        }
    }

    fn conflict(&self, key: &str) -> Result<Outcome> {
        let Some(at) = self.newest.get(key) else { return Ok(Outcome::Conflict(self.log.get(key)?)) };
        let change = self.changes[*at].change.clone();
        Ok(Outcome::Conflict(change.and_then(|Change { key, revision, value }| Some(Entry { key, value: value?, revision }))))
    }

    fn change(&mut self, key: &str, value: Option<Bytes>, expires: u64) -> Revision {
        let revision = self.next;
        self.next += 1;
        self.newest.insert(key.to_owned(), self.changes.len());
        let change = Change { key: key.to_owned(), revision, value };
        self.push(Drafted { change: Some(change), revision, expires, value_at: 0 });
        revision
    }

    fn push(&mut self, mut drafted: Drafted) {
        drafted.value_at = self.group.push(&drafted.record());
        self.changes.push(drafted);
    }
}

impl Write {
    /// Approximate memory of the request.
    pub(super) fn size(&self) -> usize {
        match self {
            Self::Put { key, value, .. } => key.len() + value.len(),
            Self::Delete { key, .. } => key.len(),
            Self::Compact { .. } => 0,
        }
    }
}

/// Expiry uses wall-clock time, which goes on while no process runs.
fn unix_millis() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
