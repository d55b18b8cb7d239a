//! The scheduler's HTTP server: health, metrics, files for the agents, and a look inside.

use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use bytes::Bytes;
use futures_util::TryStreamExt as _;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_util::io::ReaderStream;

use super::artifacts::Files;
use super::core::{Core, Input};
use crate::supervise::Supervisor;
use crate::telemetry::metrics::Registry;

type Body = BoxBody<Bytes, std::io::Error>;

/// What requests are answered from.
#[derive(Debug)]
pub(super) struct Site {
    pub(super) files: Files,
    pub(super) metrics: Registry,
    pub(super) core: Arc<Mutex<Core>>,
    /// Wakes the scheduler with what a request asks of it.
    pub(super) inputs: mpsc::UnboundedSender<Input>,
}

/// Answers on a listener until the supervisor stops.
pub(super) async fn serve(listener: TcpListener, site: Arc<Site>, supervisor: Supervisor) -> anyhow::Result<()> {
    let shutdown = supervisor.shutdown();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shutdown.cancelled() => return Ok(()),
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of descriptors, most likely: some will be free in a moment.
                tracing::warn!("scheduler HTTP: {error}");
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                continue;
            }
        };
        let (site, shutdown) = (site.clone(), shutdown.clone());
        supervisor.spawn_quiet(async move {
            let answer = service_fn(move |request| {
                let site = site.clone();
                async move { Ok::<_, Infallible>(site.answer(&request).await) }
            });
            let connection = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), answer);
            shutdown.run_until_cancelled(connection).await.transpose().unwrap_or_else(|error| {
                tracing::debug!("scheduler HTTP: {error}");
                None
            });
        });
    }
}

impl Site {
    async fn answer(&self, request: &Request<Incoming>) -> Response<Body> {
        if !matches!(*request.method(), Method::GET | Method::HEAD | Method::POST) {
            return text(StatusCode::METHOD_NOT_ALLOWED, "only GET, HEAD and POST\n");
        }
        let query = request.uri().query().unwrap_or_default();
        match request.uri().path() {
            "/healthz" if query.split('&').any(|it| it.starts_with("verbose")) => {
                text(StatusCode::OK, "[+]ping ok\nhealthz check passed\n")
            }
            "/healthz" | "/healthz/ping" | "/livez" | "/readyz" => text(StatusCode::OK, "ok"),
            "/metrics" => text(StatusCode::OK, self.metrics.render()),
            "/debug/scheduler/podqueue" => text(StatusCode::OK, self.core.lock().debug_queue()),
            // Updates are taken in as they come, so there never is one that waits.
            "/debug/scheduler/podstore" => text(StatusCode::OK, ""),
            "/debug/registry/tasks" => text(StatusCode::OK, self.core.lock().debug_tasks()),
            path if path.starts_with("/debug/actions/") => self.act(&path["/debug/actions/".len()..]),
            path => self.file(path.trim_start_matches('/'), request.method() == Method::HEAD).await,
        }
    }

    fn act(&self, action: &str) -> Response<Body> {
        let input = match action {
            "requestExplicit" => Input::WantExplicit,
            "requestImplicit" => Input::WantImplicit,
            "kamikaze" => Input::Tick,
            _ => return not_found(),
        };
        let mut core = self.core.lock();
        if !core.is_started() {
            return not_found();
        }
        if !core.is_connected() {
            return text(StatusCode::SERVICE_UNAVAILABLE, "not connected to a Mesos master\n");
        }
        let report = (action == "kamikaze").then(|| core.kamikaze());
        drop(core);
        let _ = self.inputs.send(input);
        report.map_or_else(|| text(StatusCode::NO_CONTENT, ""), |report| text(StatusCode::OK, report))
    }

    async fn file(&self, name: &str, head: bool) -> Response<Body> {
        let Some(path) = self.files.get(name) else { return not_found() };
        match open(path).await {
            Ok((length, body)) => {
                let body = if head { Full::default().map_err(|never: Infallible| match never {}).boxed() } else { body };
                let response = Response::builder().header(header::CONTENT_TYPE, "application/octet-stream");
                response.header(header::CONTENT_LENGTH, length).body(body).expect("the header is valid")
            }
            Err(error) => {
                tracing::error!("{error:#}");
                text(StatusCode::INTERNAL_SERVER_ERROR, format!("{name} cannot be read\n"))
            }
        }
    }
}

async fn open(path: &Path) -> anyhow::Result<(u64, Body)> {
    let file = tokio::fs::File::open(path).await.with_context(|| path.display().to_string())?;
    let length = file.metadata().await?.len();
    let stream = ReaderStream::with_capacity(file, 256 << 10);
    Ok((length, BodyExt::boxed(StreamBody::new(stream.map_ok(Frame::data)))))
}

fn not_found() -> Response<Body> {
    text(StatusCode::NOT_FOUND, "404 page not found\n")
}

fn text(status: StatusCode, text: impl Into<Bytes>) -> Response<Body> {
    let body = Full::new(text.into()).map_err(|never| match never {}).boxed();
    let response = Response::builder().status(status).header(header::CONTENT_TYPE, "text/plain; charset=utf-8");
    response.body(body).expect("the header is valid")
}
