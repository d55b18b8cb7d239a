//! Leases for keys with a time to live. Keys that expire at about the same time share a lease, because each costs etcd memory and work.

use std::collections::HashMap;
use std::time::Duration;

use etcd_client::Client;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::client::{Call, CallError, Members};

/// A lease with more keys would delete too many at once.
const KEYS: u32 = 1000;

/// Leases with room for more keys, by time to live in seconds.
#[derive(Default)]
pub(super) struct Leases {
    open: Mutex<HashMap<u64, Open>>,
}

struct Open {
    id: i64,
    /// From then on the lease would end too early for another key.
    until: Instant,
    room: u32,
}

impl Leases {
    /// A lease that ends after `ttl`, or later by up to a twentieth of it (at least a second).
    pub(super) async fn for_key(&self, members: &Members, ttl: Duration) -> Result<i64, CallError> {
        let ttl = ttl.as_secs() + u64::from(ttl.subsec_nanos() > 0);
        // Callers that need the same lease wait here until it is granted, once.
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

    /// Forgets a lease that etcd does not know, or no longer knows.
    pub(super) async fn forget(&self, id: i64) {
        self.open.lock().await.retain(|_, lease| lease.id != id);
    }
}
