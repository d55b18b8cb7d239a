//! The scheduler's HTTP server: health, metrics, files for the agents, and debugging.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use anyhow::Context as _;
use bytes::Bytes;
use futures_util::TryStreamExt as _;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_util::io::ReaderStream;

use super::artifacts::Files;
use super::core::{Core, Input};
use crate::supervise::{Supervisor, http as http_server};
use crate::telemetry::metrics::Registry;

type Body = BoxBody<Bytes, std::io::Error>;

/// The data that requests are answered from.
#[derive(Debug)]
pub(super) struct Site {
    pub(super) files: Files,
    pub(super) metrics: Registry,
    /// Set once this scheduler leads.
    pub(super) work: OnceLock<Work>,
}

/// The running scheduler, for requests about it.
#[derive(Debug)]
pub(super) struct Work {
    pub(super) core: Arc<Mutex<Core>>,
    /// Wakes the scheduler with a request's input.
    pub(super) inputs: mpsc::Sender<Input>,
}

/// Serves on a listener until the supervisor stops.
pub(super) async fn serve(listener: TcpListener, site: Arc<Site>, supervisor: Supervisor) -> anyhow::Result<()> {
    let answer = move |request| {
        let site = site.clone();
        async move { site.answer(&request).await }
    };
    http_server::serve(listener, supervisor, answer).await
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
            path if path.starts_with("/debug/") => match self.work.get() {
                Some(work) => work.answer(&path["/debug/".len()..]),
                None => text(StatusCode::SERVICE_UNAVAILABLE, "another scheduler leads\n"),
            },
            path => self.file(path.trim_start_matches('/'), request.method() == Method::HEAD).await,
        }
    }

    async fn file(&self, name: &str, head: bool) -> Response<Body> {
        let Some(path) = self.files.get(name) else { return not_found() };
        match open(path).await {
            Ok((length, body)) => {
                let body = if head { Full::default().map_err(|never: std::convert::Infallible| match never {}).boxed() } else { body };
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

impl Work {
    fn answer(&self, path: &str) -> Response<Body> {
        match path {
            "scheduler/podqueue" => text(StatusCode::OK, self.core.lock().debug_queue()),
            // Updates are applied as they arrive, so none is ever waiting.
            "scheduler/podstore" => text(StatusCode::OK, ""),
            "registry/tasks" => text(StatusCode::OK, self.core.lock().debug_tasks()),
            _ => path.strip_prefix("actions/").map_or_else(not_found, |action| self.act(action)),
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
        if self.inputs.try_send(input).is_err() {
            return text(StatusCode::SERVICE_UNAVAILABLE, "the scheduler is busy\n");
        }
        report.map_or_else(|| text(StatusCode::NO_CONTENT, ""), |report| text(StatusCode::OK, report))
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
