//! Leases for keys with a time to live. Keys that end at about the same time share one, because each lease costs etcd memory and work.

use std::collections::HashMap;
use std::time::Duration;

use etcd_client::Client;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::client::{Call, CallError, Members};

/// A lease with more keys than this would delete too many at once.
const KEYS: u32 = 1000;

/// The leases that can still be given to keys, by time to live in seconds.
#[derive(Default)]
pub(super) struct Leases {
    open: Mutex<HashMap<u64, Open>>,
}

struct Open {
    id: i64,
    /// From then on it would end too early for another key.
    until: Instant,
    room: u32,
}

impl Leases {
    /// A lease that ends at the end of `ttl` from now, or up to a twentieth of it (but at least a second) later.
    pub(super) async fn for_key(&self, members: &Members, ttl: Duration) -> Result<i64, CallError> {
        let ttl = ttl.as_secs() + u64::from(ttl.subsec_nanos() > 0);
        // Those who need the same lease wait here for it to be granted once.
        let mut open = self.open.lock().await;
        let now = Instant::now();
        if let Some(lease) = open.get_mut(&ttl)
            && lease.until > now
            && lease.room > 0
        {
            lease.room -= 1;
            return Ok(lease.id);
        }
        open.retain(|_, lease| lease.until > now);
        let share = (ttl / 20).max(1);
        let seconds = i64::try_from(ttl + share).unwrap_or(i64::MAX);
        let grant = |client: &Client| {
            let mut leases = client.lease_client();
            async move { leases.grant(seconds, None).await }
        };
        let lease = members.call(Call::Repeatable, grant).await?;
        open.insert(ttl, Open { id: lease.id(), until: now + Duration::from_secs(share), room: KEYS - 1 });
        Ok(lease.id())
    }

    /// Forgets a lease that etcd does not know (any more).
    pub(super) async fn forget(&self, id: i64) {
        self.open.lock().await.retain(|_, lease| lease.id != id);
    }
}
