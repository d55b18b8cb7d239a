//! The newest revision, with one read for all concurrent callers.

use std::sync::Arc;

use etcd_client::{GetOptions, KvClient};
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use parking_lot::Mutex;

use super::client::{Call, Members};
use super::to_revision;
use crate::object::Revision;
use crate::store::{Result, StoreError};

type Read = Shared<BoxFuture<'static, std::result::Result<Revision, Arc<StoreError>>>>;

/// Callers may join a read that has not begun; one that has begun may miss their writes.
pub(super) struct Newest {
    members: Arc<Members>,
    /// The next read, until it begins.
    next: Arc<Mutex<Option<Read>>>,
    /// Held by the running read.
    turn: Arc<tokio::sync::Mutex<()>>,
}

impl Newest {
    pub(super) fn new(members: Arc<Members>) -> Self {
        Self { members, next: Arc::default(), turn: Arc::default() }
    }

    /// A revision at least that of every write acknowledged before the call.
    pub(super) async fn read(&self) -> Result<Revision> {
        let read = self.next.lock().get_or_insert_with(|| self.prepare()).clone();
        read.await.map_err(|error| error.again())
    }

    fn prepare(&self) -> Read {
        let (members, next, turn) = (self.members.clone(), self.next.clone(), self.turn.clone());
        let read = async move {
            let _turn = turn.lock().await;
            next.lock().take();
            let get = |mut kv: KvClient| async move { kv.get("\0", Some(GetOptions::new().with_count_only())).await };
            let answer = members.kv(Call::Repeatable, get).await.map_err(|error| Arc::new(error.into()))?;
            Ok(answer.header().map_or(0, |header| to_revision(header.revision())))
        };
        read.boxed().shared()
    }
}
