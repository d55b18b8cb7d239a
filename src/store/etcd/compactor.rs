//! Compacts old history in etcd, as every API server on it does, coordinated so that it happens once per interval.

use std::sync::Arc;
use std::time::Duration;

use etcd_client::{Compare, CompareOp, GetOptions, KvClient, Txn, TxnOp, TxnOpResponse};
use tokio::time::sleep;

use super::client::{Call, CallError, Members};

/// The key that Kubernetes API servers use for this, so that they and km can share an etcd. Its version counts the compactions.
const KEY: &str = "compact_rev_key";

/// The last compaction known to this process, whichever server did it.
#[derive(Clone, Copy, Debug, Default)]
struct Turn {
    version: i64,
    /// The newest revision at that time.
    revision: i64,
}

/// In each interval, compacts the history that was old at the last turn, so that at least one interval's history is always kept.
pub(super) async fn run(members: Arc<Members>, interval: Duration) {
    let mut turn = Turn::default();
    loop {
        sleep(interval).await;
        match take(&members, turn).await {
            Ok(next) => turn = next,
            // If etcd is down, its callers report it; compaction just tries again.
            Err(error) => tracing::debug!("compacting etcd: {error:?}"),
        }
    }
}

/// Takes the next turn, unless another server has since `last`.
async fn take(members: &Members, last: Turn) -> Result<Turn, CallError> {
    let call = |mut kv: KvClient| {
        let txn = Txn::new()
            .when([Compare::version(KEY, CompareOp::Equal, last.version)])
            .and_then([TxnOp::put(KEY, last.revision.to_string(), None)])
            .or_else([TxnOp::get(KEY, Some(GetOptions::new()))]);
        async move { kv.txn(txn).await }
    };
    let answer = members.kv(Call::Once, call).await?;
    let revision = answer.header().map_or(0, |header| header.revision());
    if !answer.succeeded() {
        let version = answer.op_responses().iter().find_map(|response| match response {
            TxnOpResponse::Get(get) => get.kvs().first().map(|kv| kv.version()),
            _ => None,
        });
        return Ok(Turn { version: version.unwrap_or(0), revision });
    }
    if last.revision > 0 {
        let compact = |mut kv: KvClient| async move { kv.compact(last.revision, None).await };
        match members.kv(Call::Repeatable, compact).await {
            Ok(_) => tracing::debug!("compacted etcd up to revision {}", last.revision),
            Err(CallError::Compacted) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(Turn { version: last.version + 1, revision })
}
