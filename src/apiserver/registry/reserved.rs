//! Reservations made before a write: its share of the quotas, and the addresses and ports of a service.

use serde_json::Value;

use super::super::Server;
use super::super::admission::Charge;
use super::super::allocate::Claims;
use super::super::error::Answer;
use super::write::Outcome;
use crate::object::ObjectKey;

/// The reservations of one write, which begins when they are made ([`Reserved::commit`]).
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

    /// Carries out the write that this was reserved for. An object that was not written gives everything back; one that was frees the claims
    /// that it no longer needs. After an error, nobody knows whether the store wrote the object: the repair of addresses and the quota
    /// controller clean up.
    pub(super) async fn commit(self, server: &Server, write: impl Future<Output = Answer<Outcome>>) -> Answer<Outcome> {
        let outcome = write.await?;
        match &outcome {
            Outcome::Written(_, revision) => self.claims.settle(server, *revision).await,
            Outcome::Conflict(_) => {
                self.claims.abandon(server).await;
                self.charge.refund(server).await;
            }
            // Nothing is reserved for a dry run.
            Outcome::Unwritten(_) => {}
        }
        Ok(outcome)
    }
}
