//! What is still to be written of pods, without I/O: the newest status of each, one write at a time a pod, again and again until it is
//! accepted; then, if the pod has ended, its deletion.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::PodStatus;

use crate::client::ClientError;
use crate::executor::names::PodId;

/// First and longest pause between tries.
const RETRY: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(15));
/// Writes under way at a time.
const WRITES: usize = 16;

/// All that is left to do.
#[derive(Debug, Default)]
pub struct Backlog {
    pods: BTreeMap<PodId, Pending>,
    under_way: usize,
}

/// What is left to do for one pod.
#[derive(Debug, Default)]
struct Pending {
    status: Option<Box<PodStatus>>,
    finish: bool,
    writing: bool,
    failures: u32,
}

/// One request to the API.
#[derive(Clone, Debug, PartialEq)]
pub enum Write {
    Status(Box<PodStatus>),
    /// Delete the pod for good.
    Delete,
}

/// A write to begin after a pause. Answered by [`Backlog::written`].
#[derive(Clone, Debug, PartialEq)]
pub struct Begin {
    pub pod: PodId,
    pub write: Write,
    pub pause: Duration,
}

impl Backlog {
    pub fn publish(&mut self, pod: &PodId, status: PodStatus) {
        self.pods.entry(pod.clone()).or_default().status = Some(Box::new(status));
    }

    /// The pod is to be deleted from the API, after what was published before.
    pub fn finish(&mut self, pod: &PodId) {
        self.pods.entry(pod.clone()).or_default().finish = true;
    }

    /// The writes to begin now.
    pub fn begin(&mut self) -> Vec<Begin> {
        let room = WRITES.saturating_sub(self.under_way);
        let waiting = self.pods.iter_mut().filter(|(_, pending)| !pending.writing).take(room);
        let begun: Vec<_> = waiting
            .map(|(pod, pending)| {
                pending.writing = true;
                let pause = match pending.failures {
                    0 => Duration::ZERO,
                    failures => (RETRY.0 * 2u32.saturating_pow(failures.min(10) - 1)).min(RETRY.1),
                };
                let write = pending.status.take().map_or(Write::Delete, Write::Status);
                Begin { pod: pod.clone(), write, pause }
            })
            .collect();
        self.under_way += begun.len();
        begun
    }

    /// Takes in how a write ended. Whether the pod turned out not to be in the API any more.
    pub fn written(&mut self, pod: &PodId, write: Write, result: Result<(), &ClientError>) -> bool {
        self.under_way = self.under_way.saturating_sub(1);
        let Some(pending) = self.pods.get_mut(pod) else { return false };
        pending.writing = false;
        let gone = match (result, write) {
            (Ok(()), Write::Status(_)) => {
                pending.failures = 0;
                false
            }
            // With finalizers the object stays until they are done; its containers need not.
            (Ok(()), Write::Delete) => true,
            // A conflict is one of uids: the name belongs to another pod by now.
            (Err(error), _) if error.is("NotFound") || error.is("Conflict") => true,
            (Err(error), write) => {
                tracing::warn!(%pod, "the pod's status cannot be written: {error}");
                pending.failures += 1;
                let refused = matches!(error, ClientError::Api(status) if status.code < 500 && status.code != 429);
                match write {
                    // Refused for what it is, it would be refused again.
                    Write::Status(_) if refused => pending.failures = 0,
                    Write::Status(status) => pending.status = pending.status.take().or(Some(status)),
                    Write::Delete => {}
                }
                false
            }
        };
        if gone {
            (pending.status, pending.finish) = (None, false);
        }
        if pending.status.is_none() && !pending.finish {
            self.pods.remove(pod);
        }
        gone
    }
}
