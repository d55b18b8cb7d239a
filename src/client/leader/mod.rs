//! Leader election: of the replicas of a component, the holder of a Lease works and the others wait.

mod election;
#[cfg(test)]
mod tests;

use std::future::Future;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{Client, Patch, Result};
use crate::object::resource;
use crate::supervise::Shutdown;
use election::{Election, Record, Step};

/// Leadership has ended: another replica may lead by now.
#[derive(Debug, thiserror::Error)]
#[error("lost the lease {0}")]
pub struct Lost(String);

/// One replica's part in an election.
#[derive(Clone, Debug)]
pub struct Candidate {
    pub namespace: String,
    /// Name of the Lease; all replicas use the same.
    pub lease: String,
    /// Unique among the replicas.
    pub identity: String,
    /// How long the others wait after the leader's last renewal.
    pub lease_duration: Duration,
    /// A leader stops after this long without a renewal. Shorter than `lease_duration`.
    pub renew_deadline: Duration,
    /// The interval of checks and renewals.
    pub retry_period: Duration,
}

impl Candidate {
    /// With Kubernetes' default times of 15, 10 and 2 seconds.
    pub fn new(namespace: &str, lease: &str, identity: &str) -> Self {
        Self {
            namespace: namespace.to_owned(),
            lease: lease.to_owned(),
            identity: identity.to_owned(),
            lease_duration: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            retry_period: Duration::from_secs(2),
        }
    }

    /// Waits to be elected, then runs `work` for as long as this replica leads. The token passed to `work` is cancelled at the shutdown and
    /// when the lease is lost. At the shutdown the lease is released, so that the next leader need not wait.
    ///
    /// # Errors
    /// That of `work`, or [`Lost`]: another replica may work already, and this process must start over.
    pub async fn run<F, W>(self, client: Client, shutdown: Shutdown, work: F) -> anyhow::Result<()>
    where
        F: FnOnce(Shutdown) -> W,
        W: Future<Output = anyhow::Result<()>>,
    {
        let mut voter = Voter { election: Election::new(&self), candidate: self, client };
        tokio::select! {
            () = voter.elected() => {}
            () = shutdown.cancelled() => return Ok(()),
        }
        tracing::info!("{} leads {}", voter.candidate.identity, voter.candidate.lease);
        let stop = shutdown.child_token();
        let mut work = Box::pin(work(stop.clone()));
        let (lost, done) = tokio::select! {
            done = &mut work => (false, Some(done)),
            () = voter.lost() => (true, None),
        };
        stop.cancel();
        let done = match done {
            Some(done) => done,
            // The next leader waits no longer than this either.
            None => {
                let grace = voter.candidate.lease_duration.saturating_sub(voter.candidate.renew_deadline);
                tokio::time::timeout(grace, work).await.unwrap_or(Ok(()))
            }
        };
        if lost {
            done?;
            return Err(Lost(format!("{}/{}", voter.candidate.namespace, voter.candidate.lease)).into());
        }
        voter.release().await;
        done
    }
}

/// Carries out the election's decisions.
struct Voter {
    candidate: Candidate,
    election: Election,
    client: Client,
}

impl Voter {
    async fn elected(&mut self) {
        while !self.election.leads(Instant::now()) {
            self.attempt(self.candidate.renew_deadline).await;
            if !self.election.leads(Instant::now()) {
                // Randomised, so that replicas do not always collide.
                tokio::time::sleep(self.candidate.retry_period.mul_f64(rand::random_range(1.0..1.2))).await;
            }
        }
    }

    async fn lost(&mut self) {
        while let Some(left) = self.election.left(Instant::now()) {
            tokio::time::sleep(self.candidate.retry_period.min(left)).await;
            if let Some(left) = self.election.left(Instant::now()) {
                self.attempt(left).await;
            }
        }
    }

    async fn attempt(&mut self, at_most: Duration) {
        match tokio::time::timeout(at_most, self.vote()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!("lease {}: {error}", self.candidate.lease),
            Err(_) => tracing::debug!("lease {}: no answer within {at_most:?}", self.candidate.lease),
        }
    }

    /// Reads the lease and, if it is ours or free, takes it for another term.
    async fn vote(&mut self) -> Result<()> {
        let Candidate { namespace, lease, .. } = &self.candidate;
        let record = match self.client.get(&resource::LEASE, namespace, lease).await {
            Ok(object) => Some(Record::of(&object)),
            Err(error) if error.is("NotFound") => None,
            Err(error) => return Err(error),
        };
        let begun = Instant::now();
        match self.election.look(record, begun, Timestamp::now()) {
            Step::Wait => return Ok(()),
            Step::Create(spec) => {
                let lease = json!({
                    "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
                    "metadata": {"name": lease, "namespace": namespace}, "spec": spec,
                });
                self.client.create(&resource::LEASE, namespace, &lease).await?;
            }
            Step::Take(revision, spec) => self.take(revision, spec).await?,
        }
        // The other replicas count from when they see the lease, which is no earlier than this.
        self.election.renewed(begun);
        Ok(())
    }

    /// Writes the lease, unless another writer came first.
    async fn take(&self, revision: u64, spec: Value) -> Result<()> {
        let Candidate { namespace, lease, .. } = &self.candidate;
        let patch = json!({"metadata": {"resourceVersion": revision.to_string()}, "spec": spec});
        self.client.patch(&resource::LEASE, namespace, lease, "", &Patch::Merge(patch)).await.map(drop)
    }

    async fn release(&self) {
        let Candidate { namespace, lease, identity, .. } = &self.candidate;
        let give_back = async {
            let object = self.client.get(&resource::LEASE, namespace, lease).await?;
            if Record::of(&object).holder == *identity {
                self.take(object.revision(), json!({"holderIdentity": "", "leaseDurationSeconds": 1})).await?;
            }
            Ok::<(), super::ClientError>(())
        };
        match tokio::time::timeout(Duration::from_secs(2), give_back).await {
            Ok(Ok(())) => tracing::info!("{identity} gave back {lease}"),
            _ => tracing::info!("{identity} leaves {lease} to expire"),
        }
    }
}
