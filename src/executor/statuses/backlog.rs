//! Pending writes, without I/O: the newest status of each pod, one write per pod at a time, retried until it is accepted; then, if the pod
//! has ended, its deletion.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::PodStatus;

use crate::client::ClientError;
use crate::executor::names::PodId;
use crate::object::pod::is_final;

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

/// Pending work for one pod.
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

/// What a write reveals about its pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// The API has the pod's final status, or will never accept it.
    Ended(PodId),
    /// The pod no longer exists in the API.
    Gone(PodId),
}

impl Backlog {
    pub fn publish(&mut self, pod: &PodId, status: PodStatus) {
        self.pods.entry(pod.clone()).or_default().status = Some(Box::new(status));
    }

    /// Delete the pod from the API, after earlier statuses.
    pub fn finish(&mut self, pod: &PodId) {
        self.pods.entry(pod.clone()).or_default().finish = true;
    }

    /// The pods of which something is still to be written.
    pub fn pods(&self) -> impl Iterator<Item = &PodId> {
        self.pods.keys()
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

    /// Takes in how a write ended.
    pub fn written(&mut self, pod: &PodId, write: Write, result: Result<(), &ClientError>) -> Option<News> {
        self.under_way = self.under_way.saturating_sub(1);
        let pending = self.pods.get_mut(pod)?;
        pending.writing = false;
        let ended = |status: &PodStatus| status.phase.as_deref().is_some_and(is_final).then(|| News::Ended(pod.clone()));
        let news = match (result, write) {
            (Ok(()), Write::Status(status)) => {
                pending.failures = 0;
                ended(&status)
            }
            // With finalizers the object stays until they are done; its containers need not.
            (Ok(()), Write::Delete) => Some(News::Gone(pod.clone())),
            // A conflict is one of uids: another pod has the name by now.
            (Err(error), _) if error.is("NotFound") || error.is("Conflict") => Some(News::Gone(pod.clone())),
            (Err(error), write) => {
                tracing::warn!(%pod, "the pod's status cannot be written: {error}");
                pending.failures += 1;
                let refused = matches!(error, ClientError::Api(status) if status.code < 500 && status.code != 429);
                match write {
                    // An invalid status would be rejected again.
                    Write::Status(status) if refused => {
                        pending.failures = 0;
                        ended(&status)
                    }
                    Write::Status(status) => {
                        pending.status = pending.status.take().or(Some(status));
                        None
                    }
                    Write::Delete => None,
                }
            }
        };
        if let Some(News::Gone(_)) = news {
            (pending.status, pending.finish) = (None, false);
        }
        if pending.status.is_none() && !pending.finish {
            self.pods.remove(pod);
        }
        news
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::{Status, resource};

    fn pod() -> PodId {
        PodId { name: "web".to_owned(), namespace: "a".to_owned(), uid: "u".to_owned() }
    }

    fn refusal(code: u16, reason: &'static str) -> ClientError {
        let status = Status { code, ..Status::conflict(&resource::POD, "web", reason) };
        ClientError::Api(Box::new(Status { reason: reason.into(), ..status }))
    }

    /// What a write with this phase and result reveals, and the number of subsequent writes.
    fn after(phase: &str, result: Result<(), &ClientError>) -> (Option<News>, usize) {
        let mut backlog = Backlog::default();
        backlog.publish(&pod(), PodStatus { phase: Some(phase.to_owned()), ..PodStatus::default() });
        let begun = backlog.begin().remove(0);
        (backlog.written(&pod(), begun.write, result), backlog.begin().len())
    }

    #[test]
    fn a_pod_has_ended_once_the_api_says_so() {
        let ended = || Some(News::Ended(pod()));
        assert_eq!(after("Running", Ok(())), (None, 0));
        assert_eq!(after("Succeeded", Ok(())), (ended(), 0));
        assert_eq!(after("Failed", Ok(())), (ended(), 0));
        let away = ClientError::Unreachable(anyhow::anyhow!("away"));
        assert_eq!(after("Failed", Err(&away)), (None, 1), "it is written again");
        assert_eq!(after("Failed", Err(&refusal(500, "InternalError"))), (None, 1));
        assert_eq!(after("Failed", Err(&refusal(422, "Invalid"))), (ended(), 0), "nothing will ever write it");
        assert_eq!(after("Running", Err(&refusal(422, "Invalid"))), (None, 0));
        assert_eq!(after("Failed", Err(&refusal(404, "NotFound"))), (Some(News::Gone(pod())), 0));
    }
}
