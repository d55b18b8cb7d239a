//! The kubelet's HTTP API: health, the node's pods, containers' logs, metrics. The API server calls it for users.

mod logs;
mod respond;

use std::sync::Arc;

use futures_util::StreamExt;
use hyper::Request;
use hyper::body::Incoming;
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::node::EngineState;
use super::shared::Shared;
use crate::object::resource;
use crate::supervise::{Supervisor, http};
use respond::{Response, json, not_found, text};

/// The state for answering requests.
#[derive(Clone, Debug)]
struct Server {
    shared: Arc<Shared>,
    engine: watch::Receiver<Option<EngineState>>,
}

/// Serves until the supervisor stops.
pub async fn serve(
    shared: Arc<Shared>,
    listener: TcpListener,
    engine: watch::Receiver<Option<EngineState>>,
    supervisor: Supervisor,
) -> anyhow::Result<()> {
    let server = Server { shared, engine };
    let answer = move |request| {
        let server = server.clone();
        async move { server.answer(request).await }
    };
    http::serve(listener, supervisor, answer).await
}

impl Server {
    async fn answer(&self, request: Request<Incoming>) -> Response {
        let path: Vec<&str> = request.uri().path().trim_matches('/').split('/').collect();
        match path.as_slice() {
            ["healthz", ..] => text(200, "ok"),
            ["pods"] => self.pods(),
            ["metrics"] => text(200, self.metrics()),
            ["containerLogs" | "exec" | "attach" | "portForward" | "run" | "runningpods", ..] if !self.shared.config.debugging_handlers => {
                text(405, "Debug endpoints are disabled.")
            }
            ["containerLogs", namespace, pod, container] => {
                let query = request.uri().query().unwrap_or_default();
                logs::answer(&self.shared, namespace, pod, container, query).await.unwrap_or_else(|failure| text(failure.0, failure.1))
            }
            ["exec" | "attach" | "portForward" | "run", ..] => text(501, "commands in containers are not served by this version of km"),
            _ => not_found(),
        }
    }

    /// The pods of this node, as a PodList.
    fn pods(&self) -> Response {
        let mut body = br#"{"kind":"PodList","apiVersion":"v1","metadata":{},"items":["#.to_vec();
        for (index, pod) in self.shared.cache.list(&resource::POD, &self.shared.config.pods()).objects.iter().enumerate() {
            if index > 0 {
                body.push(b',');
            }
            body.extend_from_slice(pod.body());
        }
        body.extend_from_slice(b"]}");
        json(body)
    }

    fn metrics(&self) -> String {
        let ready = u8::from(matches!(&*self.engine.borrow(), Some(Ok(_))));
        let pods = self.shared.cache.list(&resource::POD, &self.shared.config.pods()).objects.len();
        format!(
            "# HELP kubelet_container_runtime_up Whether the container engine answers.\n\
             # TYPE kubelet_container_runtime_up gauge\nkubelet_container_runtime_up {ready}\n\
             # HELP kubelet_pods Pods bound to this node.\n# TYPE kubelet_pods gauge\nkubelet_pods {pods}\n"
        )
    }
}

/// A log as a body: chunks until one fails.
fn chunks(
    logs: futures_util::stream::BoxStream<'static, crate::runtime::Result<crate::runtime::LogChunk>>,
    limit: Option<usize>,
) -> futures_util::stream::BoxStream<'static, bytes::Bytes> {
    let mut left = limit.unwrap_or(usize::MAX);
    logs.take_while(|chunk| {
        if let Err(error) = chunk {
            tracing::debug!("a log broke off: {error}");
        }
        std::future::ready(chunk.is_ok())
    })
    .filter_map(|chunk| std::future::ready(chunk.ok()))
    .map(move |chunk| {
        let part = chunk.data.slice(..chunk.data.len().min(left));
        left -= part.len();
        (part, left == 0)
    })
    .scan(false, |done, (part, last)| {
        let ended = std::mem::replace(done, last);
        std::future::ready((!ended).then_some(part))
    })
    .boxed()
}
