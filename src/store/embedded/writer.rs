//! The one thread that writes: takes every request that waits, makes them one transaction, and answers them when that is durable.
//! Also deletes what has lived its time, and forgets old history.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::disk::Disk;
use super::feed::Feed;
use super::tables::{Done, Positions, Step};
use crate::object::Revision;
use crate::store::{Expect, Outcome, Result, StoreError};

/// A transaction takes at most so many requests, so that none waits long for the others.
const REQUESTS: usize = 1024;
/// … and so many bytes of values, which are in memory twice until it is committed.
const BYTES: usize = 4 << 20;
/// How many keys one transaction expires, and how many changes it sweeps, beside its requests.
const CHORES: usize = 512;
/// How long chores rest after a failure, such as a full disk. Further failures in that time are not logged.
const CHORES_PAUSE: Duration = Duration::from_secs(1);

pub(super) enum Write {
    Put { key: String, value: Bytes, expect: Expect, ttl: Option<Duration> },
    Delete { key: String, revision: Revision },
    Compact { revision: Revision },
}

pub(super) struct Request {
    pub(super) write: Write,
    pub(super) reply: oneshot::Sender<Result<Outcome>>,
    /// What the request takes of the room for waiting requests.
    pub(super) _room: OwnedSemaphorePermit,
}

pub(super) enum Message {
    Request(Request),
    Stop,
}

/// How much history is kept unasked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Retention {
    pub(super) age: Duration,
    pub(super) revisions: u64,
}

pub(super) struct Writer {
    disk: Arc<Disk>,
    feed: Arc<Feed>,
    retention: Retention,
    positions: Positions,
    /// The newest revision at some time; what is before it is forgotten once that is `retention.age` ago.
    mark: (Instant, Revision),
    next_expiry: Option<u64>,
    chores_from: Option<Instant>,
}

/// What a transaction has done, if it is committed.
struct Attempt {
    done: Done,
    outcomes: Vec<Outcome>,
}

/// Why a transaction failed, and whether it is certain that nothing of it was written.
struct Failure {
    error: redb::Error,
    certain: bool,
}

impl Writer {
    pub(super) fn new(disk: Arc<Disk>, feed: Arc<Feed>, positions: Positions, retention: Retention) -> Self {
        Self { disk, feed, retention, positions, mark: (Instant::now(), positions.head), next_expiry: None, chores_from: None }
    }

    /// Works until told to stop; what was asked before that is still done.
    pub(super) fn run(mut self, inbox: &Receiver<Message>) {
        self.step(Vec::new());
        loop {
            let (batch, go_on) = self.gather(inbox);
            self.step(batch);
            if !go_on {
                return;
            }
        }
    }

    /// Waits for a request or a chore, then takes what else is there. Also says whether to go on after that.
    fn gather(&self, inbox: &Receiver<Message>) -> (Vec<Request>, bool) {
        let mut batch = Vec::new();
        let mut bytes = 0;
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
        }
    }

    /// How long until the next chore; `None`: nothing to do until somebody writes.
    fn due(&self) -> Option<Duration> {
        let expiry = self.next_expiry.map(|due| Duration::from_millis(due.saturating_sub(unix_millis())));
        let history = self.positions.head > self.positions.compacted;
        let compaction = history.then(|| self.retention.age.saturating_sub(self.mark.0.elapsed()));
        let sweep = (self.positions.swept < self.positions.compacted).then_some(Duration::ZERO);
        let due = [expiry, compaction, sweep].into_iter().flatten().min()?;
        Some(self.chores_from.map_or(due, |from| due.max(from.saturating_duration_since(Instant::now()))))
    }

    /// One transaction, then the answers.
    fn step(&mut self, batch: Vec<Request>) {
        match self.transact(&batch) {
            Ok(Attempt { done, outcomes }) => {
                (self.positions, self.next_expiry, self.chores_from) = (done.positions, done.next_expiry, None);
                self.feed.publish(done.positions, done.changes);
                for (request, outcome) in batch.into_iter().zip(outcomes) {
                    // Whoever asked may have gone.
                    let _ = request.reply.send(Ok(outcome));
                }
            }
            Err(Failure { error, certain }) => {
                self.chores_from = Some(Instant::now() + CHORES_PAUSE);
                for request in batch {
                    let error = match self.disk.error(&error) {
                        StoreError::Full(cause) | StoreError::Failed(cause) if !certain => StoreError::Unavailable(cause),
                        error => error,
                    };
                    let _ = request.reply.send(Err(error));
                }
            }
        }
    }

    fn transact(&mut self, batch: &[Request]) -> std::result::Result<Attempt, Failure> {
        let compact = self.compaction_due();
        let mut attempt = None;
        let mut retried = false;
        loop {
            let written = self.disk.write(|tx| {
                let mut step = Step::new(tx)?;
                let outcomes = batch.iter().map(|request| request.write.apply(&mut step)).collect::<std::result::Result<_, _>>()?;
                step.expire(unix_millis(), CHORES + batch.len())?;
                step.compact(compact);
                step.sweep(CHORES + 2 * batch.len())?;
                let done = step.finish()?;
                let dirty = done.dirty;
                attempt = Some(Attempt { done, outcomes });
                Ok(dirty)
            });
            let Err(error) = written else { return Ok(attempt.expect("a transaction that succeeded has results")) };
            if self.chores_from.is_none() {
                tracing::warn!("{}: {error}; opening it again", self.disk.path().display());
            }
            match self.disk.reopen() {
                // The commit that failed may have happened; the file tells.
                Ok(positions) => match attempt.take() {
                    Some(attempt) if attempt.done.dirty && attempt.done.positions == positions => return Ok(attempt),
                    // A read, or the last attempt, had left the file unusable.
                    _ if !retried && matches!(error, redb::Error::PreviousIo | redb::Error::DatabaseClosed) => retried = true,
                    _ => return Err(Failure { error, certain: true }),
                },
                Err(reopening) => {
                    return Err(Failure { certain: attempt.is_none(), error: reopening });
                }
            }
        }
    }

    /// Up to where the history is to be forgotten now; 0 if it is not.
    fn compaction_due(&mut self) -> Revision {
        let by_count = self.positions.head.saturating_sub(self.retention.revisions);
        if self.mark.0.elapsed() < self.retention.age {
            return by_count;
        }
        let (_, by_age) = std::mem::replace(&mut self.mark, (Instant::now(), self.positions.head));
        by_age.max(by_count)
    }
}

impl Write {
    /// About how much memory the request holds.
    pub(super) fn size(&self) -> usize {
        match self {
            Self::Put { key, value, .. } => key.len() + value.len(),
            Self::Delete { key, .. } => key.len(),
            Self::Compact { .. } => 0,
        }
    }

    fn apply(&self, step: &mut Step<'_>) -> std::result::Result<Outcome, redb::Error> {
        match self {
            Self::Put { key, value, expect, ttl } => {
                let expires = ttl.map(|ttl| unix_millis().saturating_add(u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX)));
                step.put(key, value, *expect, expires)
            }
            Self::Delete { key, revision } => step.delete(key, *revision),
            Self::Compact { revision } => {
                step.compact(*revision);
                Ok(Outcome::Done(*revision))
            }
        }
    }
}

/// Times to live are kept in wall-clock time, because they go on while nothing runs.
fn unix_millis() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
