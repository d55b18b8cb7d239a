//! Reservations made before a write: its share of the quotas, and the addresses and ports of a service.

use serde_json::Value;

use super::super::Server;
use super::super::admission::Charge;
use super::super::allocate::Claims;
use super::super::error::Answer;
use crate::object::{ObjectKey, Revision};

/// The reservations of one write, which must call [`Reserved::settle`] or [`Reserved::give_back`]. If it is unknown whether the store wrote
/// the object, it calls neither: the repair of addresses and the quota controller clean up.
#[derive(Debug)]
#[must_use]
pub(super) struct Reserved {
    charge: Charge,
    claims: Claims,
}

impl Reserved {
    /// Adds the claims of a service to `charge`, and writes its addresses and ports into `new`.
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

    /// The object was written at this revision: frees the claims that it no longer needs.
    pub(super) async fn settle(self, server: &Server, revision: Revision) {
        self.claims.settle(server, revision).await;
    }

    /// The object was not written.
    pub(super) async fn give_back(self, server: &Server) {
        self.claims.abandon(server).await;
        self.charge.refund(server).await;
    }
}
