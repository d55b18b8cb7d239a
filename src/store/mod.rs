//! The durable order of objects: a map from keys to JSON, in which every change gets the next revision. The store handles bytes, not
//! objects. Two implementations of one contract: etcd, and the embedded one.

pub mod embedded;
pub mod etcd;

use std::fmt::Debug;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;

use crate::object::Revision;

/// A key with its value, at the revision that last changed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub key: String,
    pub value: Bytes,
    pub revision: Revision,
}

/// Part of a range, in key order, all as of one revision.
#[derive(Clone, Debug, Default)]
pub struct Page {
    pub entries: Vec<Entry>,
    /// The store revision that the page shows.
    pub revision: Revision,
    /// Whether the range continues behind the last entry.
    pub more: bool,
}

/// The condition for a write. There is no unconditional write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    Absent,
    /// The key's last change had this revision.
    At(Revision),
}

/// The result of a conditional write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Written, durably, at this revision.
    Done(Revision),
    /// Not written: the condition does not hold; the current entry.
    Conflict(Option<Entry>),
}

/// One change of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    pub key: String,
    pub revision: Revision,
    /// `None` if the key was deleted (or expired).
    pub value: Option<Bytes>,
}

/// Delivered by a watch: changes in revision order, all of one revision in one batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    pub changes: Vec<Change>,
    /// Every change up to and including this revision has been delivered. A batch without changes only reports this.
    pub revision: Revision,
}

/// Why a call of the store failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The requested revision is no longer kept; `oldest` is.
    #[error("revision {asked} has been compacted, the oldest kept is {oldest}")]
    Compacted { asked: Revision, oldest: Revision },
    /// The store is unreachable, or lost its quorum. A write may or may not have happened.
    #[error("the store is out of reach: {0:#}")]
    Unavailable(anyhow::Error),
    /// Out of space. Nothing was written, except that etcd may apply the write that crosses its quota (`quotaApplierV3` of its server).
    #[error("the store is full: {0:#}")]
    Full(anyhow::Error),
    /// Damaged data, or a failure that retries will not cure.
    #[error("the store failed: {0:#}")]
    Failed(anyhow::Error),
}

impl StoreError {
    /// A copy of the error, for each caller whose request was in the same batch.
    fn again(&self) -> Self {
        let same = |cause: &anyhow::Error| anyhow::anyhow!("{cause:#}");
        match self {
            Self::Compacted { asked, oldest } => Self::Compacted { asked: *asked, oldest: *oldest },
            Self::Unavailable(cause) => Self::Unavailable(same(cause)),
            Self::Full(cause) => Self::Full(same(cause)),
            Self::Failed(cause) => Self::Failed(same(cause)),
        }
    }
}

pub type Result<T> = std::result::Result<T, StoreError>;

/// The contract; `store::contract` (tests) is the suite that every implementation passes.
pub trait Store: Debug + Send + Sync {
    /// The newest value of a key. Linearizable.
    fn get<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Entry>>>;

    /// Up to `limit` entries whose keys begin with `prefix` and are `>= start`, as of revision `at` (0: the newest, linearizable).
    ///
    /// # Errors
    /// `Compacted` if `at` is no longer kept.
    fn range<'a>(&'a self, prefix: &'a str, start: &'a str, limit: usize, at: Revision) -> BoxFuture<'a, Result<Page>>;

    /// Writes a key if `expect` holds. With a `ttl`, the key is deleted after that time unless it is written again.
    fn put<'a>(&'a self, key: &'a str, value: Bytes, expect: Expect, ttl: Option<Duration>) -> BoxFuture<'a, Result<Outcome>>;

    /// Deletes a key if its last change had this revision.
    fn delete<'a>(&'a self, key: &'a str, revision: Revision) -> BoxFuture<'a, Result<Outcome>>;

    /// All changes after revision `after` of keys that begin with `prefix`, in order, none missed and none repeated. Also delivers empty
    /// batches, at least on [`Store::request_progress`]. The stream ends with an error; the caller then begins again after the last
    /// delivered revision.
    ///
    /// # Errors
    /// `Compacted` if changes after `after` are no longer kept.
    fn watch<'a>(&'a self, prefix: &'a str, after: Revision) -> BoxFuture<'a, Result<BoxStream<'static, Result<Batch>>>>;

    /// The newest revision. Linearizable: at least that of every write acknowledged before the call.
    fn revision(&self) -> BoxFuture<'_, Result<Revision>>;

    /// Makes every watch report its progress, by an empty batch if necessary.
    fn request_progress(&self) -> BoxFuture<'_, Result<()>>;

    /// Forgets the history before `revision`.
    fn compact(&self, revision: Revision) -> BoxFuture<'_, Result<()>>;
}
