//! The API servers that share a store: each renews a lease in it, and counts as alive as long as the lease does.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;

use super::super::Server;
use super::super::error::{Answer, store_status};
use crate::object::Revision;
use crate::store::{Expect, Outcome};

const LEASE: Duration = Duration::from_secs(15);
pub(super) const RENEW_EVERY: Duration = Duration::from_secs(10);

/// The lease of this server.
#[derive(Debug)]
pub(super) struct Membership {
    key: String,
    /// As it is in the store, once it is there.
    revision: Option<Revision>,
}

impl Membership {
    pub(super) fn of(server: &Server) -> Self {
        Self { key: format!("{}{}", prefix(server), server.own_address()), revision: None }
    }

    /// Renews the lease, and reads those of all servers.
    pub(super) async fn renew(&mut self, server: &Server) -> Answer<BTreeSet<SocketAddr>> {
        loop {
            let expect = self.revision.map_or(Expect::Absent, Expect::At);
            match server.store.put(&self.key, Bytes::from_static(b"{}"), expect, Some(LEASE)).await.map_err(store_status)? {
                Outcome::Done(revision) => {
                    self.revision = Some(revision);
                    break;
                }
                Outcome::Conflict(entry) => self.revision = entry.map(|it| it.revision),
            }
        }
        let prefix = prefix(server);
        let page = server.store.range(&prefix, &prefix, 1000, 0).await.map_err(store_status)?;
        Ok(page.entries.iter().filter_map(|it| it.key.strip_prefix(&prefix)?.parse().ok()).collect())
    }

    /// Ends the lease, which would otherwise only expire.
    pub(super) async fn leave(self, server: &Server) {
        if let Some(revision) = self.revision {
            let _ = server.store.delete(&self.key, revision).await;
        }
    }
}

fn prefix(server: &Server) -> String {
    format!("{}/masterleases/", server.config.prefix)
}
