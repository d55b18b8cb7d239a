//! What a write takes up before it happens: its part of the quotas, and the addresses and ports of a service.

use serde_json::Value;

use super::super::Server;
use super::super::admission::Charge;
use super::super::allocate::Claims;
use super::super::error::Answer;
use crate::object::{ObjectKey, Revision};

/// Reserved for one write, which must say how it ended. If the store does not know whether it wrote the object, neither is said: the repair of
/// addresses and the quotas' controller find out by what there is.
#[derive(Debug)]
#[must_use]
pub(super) struct Reserved {
    charge: Charge,
    claims: Claims,
}

impl Reserved {
    /// Adds to `charge` what a service claims, and writes its addresses and ports into `new`.
    ///
    /// # Errors
    /// If a claim is refused. Nothing is reserved then.
    pub(super) async fn make(
        server: &Server,
        charge: Charge,
        key: &ObjectKey,
        new: &mut Value,
        old: Option<&Value>,
        dry_run: bool,
    ) -> Answer<Self> {
        match Claims::make(server, key, new, old, dry_run).await {
            Ok(claims) => Ok(Self { charge, claims }),
            Err(status) => {
                charge.refund(server).await;
                Err(status)
            }
        }
    }

    /// The object was written at this revision: frees what it no longer has.
    pub(super) async fn settle(self, server: &Server, revision: Revision) {
        self.claims.settle(server, revision).await;
    }

    /// The object was not written.
    pub(super) async fn give_back(self, server: &Server) {
        self.claims.abandon(server).await;
        self.charge.refund(server).await;
    }
}
