//! Writes pods' statuses to the API, and completes the deletion of pods that have ended.

mod backlog;

use futures_util::future::{BoxFuture, FutureExt};
use futures_util::stream::{FuturesUnordered, StreamExt};
use k8s_openapi::api::core::v1::PodStatus;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::names::PodId;
use crate::client::{Client, ClientError, DeleteOptions, Patch};
use crate::object::resource;
use crate::supervise::Shutdown;

pub use backlog::{Backlog, Begin, News, Write};

/// Something to be written.
#[derive(Debug)]
enum Request {
    Publish(PodId, Box<PodStatus>),
    Finish(PodId),
}

/// Where workers leave what is to be written. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Statuses(mpsc::UnboundedSender<Request>);

impl Statuses {
    pub fn publish(&self, pod: &PodId, status: PodStatus) {
        let _ = self.0.send(Request::Publish(pod.clone(), Box::new(status)));
    }

    /// Deletes the pod from the API, after what was published before.
    pub fn finish(&self, pod: &PodId) {
        let _ = self.0.send(Request::Finish(pod.clone()));
    }
}

/// The writing end.
#[derive(Debug)]
pub struct Writer {
    client: Client,
    requests: mpsc::UnboundedReceiver<Request>,
    /// Told what writes say of their pods.
    news: mpsc::UnboundedSender<News>,
    backlog: Backlog,
}

pub fn statuses(client: Client, news: mpsc::UnboundedSender<News>) -> (Statuses, Writer) {
    let (sender, requests) = mpsc::unbounded_channel();
    (Statuses(sender), Writer { client, requests, news, backlog: Backlog::default() })
}

/// A write that has ended.
type Written = (PodId, Write, Result<(), ClientError>);

impl Writer {
    /// Writes until `shutdown`, then what is still waiting, once.
    pub async fn run(mut self, shutdown: Shutdown) {
        let mut writes: FuturesUnordered<BoxFuture<'static, Written>> = FuturesUnordered::new();
        loop {
            tokio::select! {
                Some((pod, write, result)) = writes.next() => {
                    if let Some(news) = self.backlog.written(&pod, write, result.as_ref().copied()) {
                        let _ = self.news.send(news);
                    }
                }
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
        match request {
            Request::Publish(pod, status) => self.backlog.publish(&pod, *status),
            Request::Finish(pod) => self.backlog.finish(&pod),
        }
    }

    fn begin(&mut self, writes: &mut FuturesUnordered<BoxFuture<'static, Written>>) {
        for Begin { pod, write, pause } in self.backlog.begin() {
            let client = self.client.clone();
            let writing = async move {
                tokio::time::sleep(pause).await;
                let result = send(&client, &pod, &write).await;
                (pod, write, result)
            };
            writes.push(writing.boxed());
        }
    }
}

async fn send(client: &Client, pod: &PodId, write: &Write) -> Result<(), ClientError> {
    match write {
        Write::Status(status) => {
            let patch = Patch::Strategic(patch(pod, status));
            client.patch(&resource::POD, &pod.namespace, &pod.name, "status", &patch).await.map(drop)
        }
        Write::Delete => {
            let options = DeleteOptions { grace_period_seconds: Some(0), uid: Some(pod.uid.clone()), ..DeleteOptions::default() };
            client.delete(&resource::POD, &pod.namespace, &pod.name, &options).await.map(drop)
        }
    }
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
