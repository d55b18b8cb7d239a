//! Writes pods' statuses to the API, and completes the deletion of pods that have ended.

mod backlog;

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt};
use futures_util::stream::{FuturesUnordered, StreamExt};
use k8s_openapi::api::core::v1::PodStatus;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::{Notify, mpsc};

use super::names::PodId;
use crate::client::{Client, ClientError, DeleteOptions, Patch};
use crate::object::resource;
use crate::supervise::Shutdown;

pub use backlog::{Backlog, Begin, News, Write};

/// Time at shutdown for the remaining writes.
const LAST_WRITES: Duration = Duration::from_secs(10);

/// The queue of statuses to write, with only the newest of each pod. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Statuses(Arc<Owed>);

#[derive(Debug, Default)]
struct Owed {
    backlog: Mutex<Backlog>,
    changed: Notify,
}

impl Statuses {
    pub fn publish(&self, pod: &PodId, status: PodStatus) {
        self.0.backlog.lock().publish(pod, status);
        self.0.changed.notify_one();
    }

    /// Deletes the pod from the API, after earlier statuses.
    pub fn finish(&self, pod: &PodId) {
        self.0.backlog.lock().finish(pod);
        self.0.changed.notify_one();
    }
}

/// The writing end.
#[derive(Debug)]
pub struct Writer {
    client: Client,
    owed: Arc<Owed>,
    /// Receives what writes reveal about their pods.
    news: mpsc::Sender<News>,
}

pub fn statuses(client: Client, news: mpsc::Sender<News>) -> (Statuses, Writer) {
    let statuses = Statuses::default();
    let owed = statuses.0.clone();
    (statuses, Writer { client, owed, news })
}

/// A write that has ended.
type Written = (PodId, Write, Result<(), ClientError>);

impl Writer {
    /// Writes until `shutdown`, then the remaining queue as far as `LAST_WRITES` allows.
    pub async fn run(self, shutdown: Shutdown) {
        let mut writes: FuturesUnordered<BoxFuture<'static, Written>> = FuturesUnordered::new();
        loop {
            tokio::select! {
                Some(written) = writes.next() => self.written(written).await,
                () = self.owed.changed.notified() => {}
                () = shutdown.cancelled() => break,
            }
            self.begin(&mut writes);
        }
        self.begin(&mut writes);
        let rest = async {
            while let Some(written) = writes.next().await {
                self.written(written).await;
                self.begin(&mut writes);
            }
        };
        if tokio::time::timeout(LAST_WRITES, rest).await.is_err() {
            let left: Vec<String> = self.owed.backlog.lock().pods().map(PodId::to_string).collect();
            tracing::warn!("the API does not know the last of {}", left.join(", "));
        }
    }

    async fn written(&self, (pod, write, result): Written) {
        let news = self.owed.backlog.lock().written(&pod, write, result.as_ref().copied());
        if let Some(news) = news {
            let _ = self.news.send(news).await;
        }
    }

    fn begin(&self, writes: &mut FuturesUnordered<BoxFuture<'static, Written>>) {
        let begun = self.owed.backlog.lock().begin();
        for Begin { pod, write, pause } in begun {
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

/// The patch that replaces the status in the API by ours: lists are replaced, unset fields removed, conditions of others kept.
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;
    use http::{Request, Response};
    use parking_lot::Mutex;

    use super::*;
    use crate::client::{ResponseBody, Transport};

    /// A slow server that accepts all writes, except for occasional failures.
    #[derive(Debug, Default)]
    struct Api {
        lines: Mutex<Vec<String>>,
        /// Never answers.
        hangs: bool,
    }

    impl Transport for Api {
        fn send(&self, request: Request<Bytes>) -> BoxFuture<'_, Result<Response<ResponseBody>, ClientError>> {
            async move {
                if self.hangs {
                    std::future::pending::<()>().await;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
                let line = format!("{} {}", request.method(), request.uri().path().rsplit('/').next().unwrap_or_default());
                let count = {
                    let mut lines = self.lines.lock();
                    lines.push(line);
                    lines.len()
                };
                let body = json!({"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "p", "namespace": "a", "resourceVersion": "1"}});
                let body: ResponseBody = futures_util::stream::iter([Ok(Bytes::from(body.to_string()))]).boxed();
                let status = if count % 10 == 9 { 500 } else { 200 };
                Ok(Response::builder().status(status).body(body).unwrap())
            }
            .boxed()
        }
    }

    fn pod(number: usize) -> PodId {
        PodId { name: format!("p{number}"), namespace: "a".to_owned(), uid: number.to_string() }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_left_at_the_end_is_written() {
        const PODS: usize = 50;
        let api = Arc::new(Api::default());
        let (news, mut heard) = mpsc::channel(4 * PODS);
        let (statuses, writer) = statuses(Client::new(api.clone()), news);
        let shutdown = Shutdown::new();
        let mut running = tokio::task::JoinSet::new();
        running.spawn(writer.run(shutdown.clone()));
        for number in 0..PODS {
            statuses.publish(&pod(number), PodStatus { phase: Some("Running".to_owned()), ..PodStatus::default() });
        }
        // Some are being written, and there is something newer of each.
        tokio::time::sleep(Duration::from_millis(10)).await;
        for number in 0..PODS {
            statuses.publish(&pod(number), PodStatus { phase: Some("Failed".to_owned()), ..PodStatus::default() });
            statuses.finish(&pod(number));
        }
        shutdown.cancel();
        running.join_all().await;
        let mut gone: Vec<PodId> = std::iter::from_fn(|| heard.try_recv().ok())
            .filter_map(|news| if let News::Gone(pod) = news { Some(pod) } else { None })
            .collect();
        gone.sort();
        let mut all: Vec<PodId> = (0..PODS).map(pod).collect();
        all.sort();
        assert_eq!(gone, all);
    }

    #[tokio::test(start_paused = true)]
    async fn an_api_that_hangs_does_not_hold_up_the_end() {
        let (news, _heard) = mpsc::channel(1);
        let (statuses, writer) = statuses(Client::new(Arc::new(Api { hangs: true, ..Api::default() })), news);
        statuses.finish(&pod(1));
        let shutdown = Shutdown::new();
        shutdown.cancel();
        let began = tokio::time::Instant::now();
        writer.run(shutdown).await;
        assert_eq!(began.elapsed(), LAST_WRITES);
    }
}
