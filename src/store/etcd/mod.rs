//! The store on etcd v3: with the same keys, and etcd's revisions. Several km servers may share one.

mod client;
mod compactor;
mod lease;
mod newest;
mod watch;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use etcd_client::{Compare, CompareOp, GetOptions, KeyValue, KvClient, PutOptions, Txn, TxnOp, TxnOpResponse};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use parking_lot::Mutex;
use tokio::task::JoinSet;

pub use self::client::Tls;
use self::client::{Call, CallError, Members};
use self::lease::Leases;
use self::newest::Newest;
use self::watch::Watches;
use super::{Batch, Entry, Expect, Outcome, Page, Result, Store, StoreError};
use crate::object::Revision;

/// The etcd cluster, and how to use it.
#[derive(Clone, Debug)]
pub struct Config {
    /// URLs of the members' client ports.
    pub endpoints: Vec<String>,
    pub tls: Tls,
    /// How long to wait at the start until a member answers.
    pub connect_timeout: Duration,
    /// How often to compact old history (which is kept at least this long); `None` leaves that to others.
    pub compaction_interval: Option<Duration>,
}

impl Config {
    /// The defaults: no TLS, 10 s to connect, compaction every five minutes as in a Kubernetes API server.
    pub fn new(endpoints: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self {
            endpoints: endpoints.into_iter().map(Into::into).collect(),
            tls: Tls::default(),
            connect_timeout: Duration::from_secs(10),
            compaction_interval: Some(Duration::from_secs(300)),
        }
    }
}

/// A store on etcd. Dropping it, or [`Etcd::close`], ends its background work.
pub struct Etcd {
    endpoints: Vec<String>,
    members: Arc<Members>,
    watches: Arc<Watches>,
    leases: Leases,
    newest: Newest,
    tasks: Mutex<JoinSet<()>>,
}

impl Etcd {
    /// Waits until one of the servers answers.
    ///
    /// # Errors
    /// `Unavailable`, naming the servers, if none answers in time; `Failed` if the configuration is wrong.
    pub async fn connect(config: Config) -> Result<Arc<Self>> {
        let members = Members::new(&config.endpoints, &config.tls).await.map_err(StoreError::Failed)?;
        members.wait(config.connect_timeout).await?;
        let members = Arc::new(members);
        let mut tasks = JoinSet::new();
        if let Some(interval) = config.compaction_interval {
            tasks.spawn(compactor::run(members.clone(), interval));
        }
        Ok(Arc::new(Self {
            endpoints: config.endpoints,
            newest: Newest::new(members.clone()),
            members,
            watches: Arc::default(),
            leases: Leases::default(),
            tasks: Mutex::new(tasks),
        }))
    }

    /// Ends the background work.
    pub async fn close(&self) {
        let mut tasks = std::mem::take(&mut *self.tasks.lock());
        tasks.shutdown().await;
    }

    /// A conditional change: `change` if the comparison holds, otherwise a read of the key.
    async fn compare_and(&self, key: &str, expect: Expect, change: impl Fn() -> TxnOp) -> std::result::Result<Outcome, CallError> {
        let condition = match expect {
            Expect::Absent => Compare::create_revision(key, CompareOp::Equal, 0),
            // In etcd, 0 stands for an absent key.
            Expect::At(0) => Compare::mod_revision(key, CompareOp::Less, 0),
            Expect::At(revision) => Compare::mod_revision(key, CompareOp::Equal, to_i64(revision)),
        };
        let call = |mut kv: KvClient| {
            let txn = Txn::new().when([condition.clone()]).and_then([change()]).or_else([TxnOp::get(key, None)]);
            async move { kv.txn(txn).await }
        };
        let answer = self.members.kv(Call::Once, call).await?;
        if answer.succeeded() {
            return Ok(Outcome::Done(answer.header().map_or(0, |header| to_revision(header.revision()))));
        }
        let current = answer.op_responses().into_iter().find_map(|response| match response {
            TxnOpResponse::Get(mut get) => get.take_kvs().pop(),
            _ => None,
        });
        Ok(Outcome::Conflict(current.map(entry).transpose().map_err(CallError::Store)?))
    }

    async fn put_with(&self, key: &str, value: &[u8], expect: Expect, lease: Option<i64>) -> std::result::Result<Outcome, CallError> {
        let options = lease.map(|lease| PutOptions::new().with_lease(lease));
        self.compare_and(key, expect, || TxnOp::put(key, value, options.clone())).await
    }
}

impl fmt::Debug for Etcd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Etcd").field("endpoints", &self.endpoints).finish_non_exhaustive()
    }
}

impl Store for Etcd {
    fn get<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Entry>>> {
        async move {
            let get = |mut kv: KvClient| async move { kv.get(key, None).await };
            let mut answer = self.members.kv(Call::Repeatable, get).await?;
            answer.take_kvs().pop().map(entry).transpose()
        }
        .boxed()
    }

    fn range<'a>(&'a self, prefix: &'a str, start: &'a str, limit: usize, at: Revision) -> BoxFuture<'a, Result<Page>> {
        async move {
            let mut from = prefix.max(start).as_bytes().to_vec();
            if from.is_empty() {
                from.push(0);
            }
            let end = prefix_end(prefix).unwrap_or_else(|| b"\0".to_vec());
            // In etcd, 0 stands for no limit.
            let limit = i64::try_from(limit.max(1)).unwrap_or(i64::MAX);
            let options = GetOptions::new().with_range(end).with_limit(limit);
            let mut revision = at;
            loop {
                let get = |mut kv: KvClient| {
                    let (from, options) = (from.clone(), options.clone().with_revision(to_i64(revision)));
                    async move { kv.get(from, Some(options)).await }
                };
                let mut answer = match self.members.kv(Call::Repeatable, get).await {
                    Err(CallError::Compacted) => return Err(watch::compacted(&self.members, at).await?),
                    answer => answer?,
                };
                if revision == 0 {
                    revision = answer.header().map_or(0, |header| to_revision(header.revision()));
                }
                let (more, mut rows) = (answer.more(), answer.take_kvs());
                let is_mark = |row: &KeyValue| watch::is_mark(row.key(), row.value());
                match rows.last() {
                    // Only the store's own marks: the requested entries come after them.
                    Some(last) if more && rows.iter().all(is_mark) => from = [last.key(), b"\0"].concat(),
                    _ => {
                        rows.retain(|row| !is_mark(row));
                        let entries = rows.into_iter().map(entry).collect::<Result<_>>()?;
                        return Ok(Page { entries, revision, more });
                    }
                }
            }
        }
        .boxed()
    }

    fn put<'a>(&'a self, key: &'a str, value: Bytes, expect: Expect, ttl: Option<Duration>) -> BoxFuture<'a, Result<Outcome>> {
        async move {
            let Some(ttl) = ttl else { return Ok(self.put_with(key, &value, expect, None).await?) };
            let lease = self.leases.for_key(&self.members, ttl).await?;
            match self.put_with(key, &value, expect, Some(lease)).await {
                // The lease ended or was revoked; nothing was written.
                Err(CallError::LeaseNotFound) => {
                    self.leases.forget(lease).await;
                    let lease = self.leases.for_key(&self.members, ttl).await?;
                    Ok(self.put_with(key, &value, expect, Some(lease)).await?)
                }
                outcome => Ok(outcome?),
            }
        }
        .boxed()
    }

    fn delete<'a>(&'a self, key: &'a str, revision: Revision) -> BoxFuture<'a, Result<Outcome>> {
        async move { Ok(self.compare_and(key, Expect::At(revision), || TxnOp::delete(key, None)).await?) }.boxed()
    }

    fn watch<'a>(&'a self, prefix: &'a str, after: Revision) -> BoxFuture<'a, Result<BoxStream<'static, Result<Batch>>>> {
        self.watches.clone().watch(self.members.clone(), prefix, after).boxed()
    }

    fn revision(&self) -> BoxFuture<'_, Result<Revision>> {
        self.newest.read().boxed()
    }

    fn request_progress(&self) -> BoxFuture<'_, Result<()>> {
        self.watches.request_progress(&self.members).boxed()
    }

    fn compact(&self, revision: Revision) -> BoxFuture<'_, Result<()>> {
        async move {
            let compact = |mut kv: KvClient| async move { kv.compact(to_i64(revision), None).await };
            match self.members.kv(Call::Repeatable, compact).await {
                // Already compacted.
                Ok(_) | Err(CallError::Compacted) => Ok(()),
                Err(error) => Err(error.into()),
            }
        }
        .boxed()
    }
}

/// The least key behind all keys that begin with `prefix`; `None` if there is none.
fn prefix_end(prefix: &str) -> Option<Vec<u8>> {
    let mut end = prefix.as_bytes().to_vec();
    // UTF-8 has no byte 0xff.
    *end.last_mut()? += 1;
    Some(end)
}

fn entry(kv: KeyValue) -> Result<Entry> {
    let revision = to_revision(kv.mod_revision());
    let (key, value) = kv.into_key_value();
    Ok(Entry { key: utf8(key)?, value: value.into(), revision })
}

fn utf8(key: Vec<u8>) -> Result<String> {
    String::from_utf8(key).map_err(|error| StoreError::Failed(anyhow::anyhow!("a key in etcd is not UTF-8: {error}")))
}

fn to_i64(revision: Revision) -> i64 {
    i64::try_from(revision).unwrap_or(i64::MAX)
}

fn to_revision(revision: i64) -> Revision {
    u64::try_from(revision).unwrap_or(0)
}
