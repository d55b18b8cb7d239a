//! Writes pods' statuses to the API: the newest of each pod, one write at a time a pod, again and again until it is accepted. Completes
//! the deletion of pods that have ended.

use std::collections::HashMap;
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt};
use futures_util::stream::{FuturesUnordered, StreamExt};
use k8s_openapi::api::core::v1::PodStatus;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::names::PodId;
use crate::client::{Client, ClientError, DeleteOptions, Patch};
use crate::object::resource;
use crate::supervise::Shutdown;

/// First and longest pause between tries.
const RETRY: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(15));
/// Writes under way at a time.
const WRITES: usize = 16;

/// Something to be written.
#[derive(Debug)]
struct Request {
    pod: PodId,
    status: Option<Box<PodStatus>>,
    /// Then delete the pod for good.
    finish: bool,
}

/// Where workers leave what is to be written. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Statuses(mpsc::UnboundedSender<Request>);

impl Statuses {
    pub fn publish(&self, pod: &PodId, status: PodStatus) {
        let _ = self.0.send(Request { pod: pod.clone(), status: Some(Box::new(status)), finish: false });
    }

    /// Deletes the pod from the API, after what was published before.
    pub fn finish(&self, pod: &PodId) {
        let _ = self.0.send(Request { pod: pod.clone(), status: None, finish: true });
    }
}

/// The writing end.
#[derive(Debug)]
pub struct Writer {
    client: Client,
    requests: mpsc::UnboundedReceiver<Request>,
    /// Told of pods that turn out not to be in the API any more.
    gone: mpsc::UnboundedSender<PodId>,
    pods: HashMap<PodId, Pending>,
}

/// What is left to do for one pod.
#[derive(Debug, Default)]
struct Pending {
    status: Option<Box<PodStatus>>,
    finish: bool,
    writing: bool,
    failures: u32,
}

#[derive(Debug)]
enum Outcome {
    Written,
    Deleted,
    Gone,
    /// To be tried again, with the status if that is what failed.
    Failed(Option<Box<PodStatus>>),
}

pub fn statuses(client: Client, gone: mpsc::UnboundedSender<PodId>) -> (Statuses, Writer) {
    let (sender, requests) = mpsc::unbounded_channel();
    (Statuses(sender), Writer { client, requests, gone, pods: HashMap::new() })
}

impl Writer {
    /// Writes until `shutdown`, then what is still waiting, once.
    pub async fn run(mut self, shutdown: Shutdown) {
        let mut writes: FuturesUnordered<BoxFuture<'static, (PodId, Outcome)>> = FuturesUnordered::new();
        loop {
            tokio::select! {
                Some((pod, outcome)) = writes.next() => self.written(pod, outcome),
                request = self.requests.recv() => match request {
                    Some(request) => self.take(request),
                    None => break,
                },
                () = shutdown.cancelled() => break,
            }
            self.begin(&mut writes);
        }
        while let Ok(request) = self.requests.try_recv() {
            self.take(request);
        }
        self.begin(&mut writes);
        while writes.next().await.is_some() {}
    }

    fn take(&mut self, request: Request) {
        let pending = self.pods.entry(request.pod).or_default();
        pending.status = request.status.or(pending.status.take());
        pending.finish |= request.finish;
    }

    fn begin(&mut self, writes: &mut FuturesUnordered<BoxFuture<'static, (PodId, Outcome)>>) {
        for (pod, pending) in &mut self.pods {
            if pending.writing || writes.len() >= WRITES {
                continue;
            }
            pending.writing = true;
            let pause = if pending.failures == 0 {
                Duration::ZERO
            } else {
                (RETRY.0 * 2u32.saturating_pow(pending.failures.min(10) - 1)).min(RETRY.1)
            };
            let (client, pod) = (self.client.clone(), pod.clone());
            let write = if let Some(status) = pending.status.take() {
                async move {
                    tokio::time::sleep(pause).await;
                    let outcome = write(&client, &pod, status).await;
                    (pod, outcome)
                }
                .boxed()
            } else {
                async move {
                    tokio::time::sleep(pause).await;
                    let outcome = delete(&client, &pod).await;
                    (pod, outcome)
                }
                .boxed()
            };
            writes.push(write);
        }
    }

    fn written(&mut self, pod: PodId, outcome: Outcome) {
        let Some(pending) = self.pods.get_mut(&pod) else { return };
        pending.writing = false;
        match outcome {
            Outcome::Written => pending.failures = 0,
            Outcome::Failed(status) => {
                pending.failures += 1;
                pending.status = pending.status.take().or(status);
            }
            Outcome::Deleted | Outcome::Gone => {
                (pending.status, pending.finish) = (None, false);
                let _ = self.gone.send(pod.clone());
            }
        }
        if pending.status.is_none() && !pending.finish {
            self.pods.remove(&pod);
        }
    }
}

async fn write(client: &Client, pod: &PodId, status: Box<PodStatus>) -> Outcome {
    let patch = Patch::Strategic(patch(pod, &status));
    match client.patch(&resource::POD, &pod.namespace, &pod.name, "status", &patch).await {
        Ok(_) => Outcome::Written,
        Err(error) => failed(pod, &error).unwrap_or(Outcome::Failed(Some(status))),
    }
}

async fn delete(client: &Client, pod: &PodId) -> Outcome {
    let options = DeleteOptions { grace_period_seconds: Some(0), uid: Some(pod.uid.clone()), ..DeleteOptions::default() };
    match client.delete(&resource::POD, &pod.namespace, &pod.name, &options).await {
        // With finalizers the object stays until they are done; its containers need not.
        Ok(_) => Outcome::Deleted,
        Err(error) => failed(pod, &error).unwrap_or(Outcome::Failed(None)),
    }
}

/// What an error means, if trying again is of no use.
fn failed(pod: &PodId, error: &ClientError) -> Option<Outcome> {
    // A conflict is one of uids: the name belongs to another pod by now.
    if error.is("NotFound") || error.is("Conflict") {
        return Some(Outcome::Gone);
    }
    tracing::warn!(%pod, "the pod's status cannot be written: {error}");
    let refused = matches!(error, ClientError::Api(status) if status.code < 500 && status.code != 429);
    refused.then_some(Outcome::Written)
}

/// The patch that makes the API's status ours: lists replaced, what is not set removed, conditions of others left alone.
pub fn patch(pod: &PodId, status: &PodStatus) -> Value {
    let mut value = serde_json::to_value(status).expect("a status is JSON");
    let fields = value.as_object_mut().expect("a status is an object");
    for list in ["podIPs", "hostIPs"] {
        if let Some(Value::Array(entries)) = fields.get_mut(list) {
            entries.insert(0, json!({"$patch": "replace"}));
        }
    }
    for absent in ["reason", "message", "podIP", "podIPs", "initContainerStatuses"] {
        fields.entry(absent).or_insert(Value::Null);
    }
    json!({"metadata": {"uid": pod.uid}, "status": value})
}
