//! The sockets: HTTP/1.1 and HTTP/2 with prior knowledge on one port, limits on what clients may do to the server, and the drain.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use anyhow::Context as _;
use bytes::{Bytes, BytesMut};
use http::Method;
use http_body_util::BodyExt;
use hyper::body::{Frame, Incoming, SizeHint};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};

use super::Server;
use super::respond::{self, Body, Response};
use crate::object::Status;
use crate::supervise::Supervisor;

/// How long connections may take to finish what they do once the server stops.
pub(crate) const DRAIN: Duration = Duration::from_secs(5);
/// Larger bodies are refused.
const BODY_LIMIT: usize = 3 * 1024 * 1024;
/// … once so much of them was read.
const READ_LIMIT: usize = 32 * 1024 * 1024;
/// How long a client may take for its request's head, and for its body.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
const BODY_TIMEOUT: Duration = Duration::from_secs(60);

/// # Errors
/// If the address is taken or not this machine's; the error names it.
pub(crate) fn bind(address: SocketAddr) -> anyhow::Result<std::net::TcpListener> {
    let listener = std::net::TcpListener::bind(address).with_context(|| format!("cannot listen on {address}"))?;
    listener.set_nonblocking(true).with_context(|| format!("cannot listen on {address}"))?;
    Ok(listener)
}

/// Accepts connections until the server stops.
pub(crate) async fn serve(server: Arc<Server>, listener: TcpListener) -> anyhow::Result<()> {
    let shutdown = server.tasks.shutdown();
    let inflight = Arc::new(Inflight::default());
    loop {
        let accepted = tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => server.tasks.spawn_quiet(connection(server.clone(), inflight.clone(), stream)),
            Err(error) => {
                // Such as too many open files: some will be closed.
                tracing::warn!("accepting a connection: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn connection(server: Arc<Server>, inflight: Arc<Inflight>, stream: TcpStream) {
    let _ = stream.set_nodelay(true);
    let mut builder = auto::Builder::new(Executor(server.tasks.clone()));
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
    builder.http2().timer(TokioTimer::new()).max_concurrent_streams(1000).keep_alive_interval(HEAD_TIMEOUT);
    let service = hyper::service::service_fn(|request| {
        let (server, inflight) = (server.clone(), inflight.clone());
        async move { Ok::<_, std::convert::Infallible>(answer(&server, &inflight, request).await) }
    });
    let mut connection = pin!(builder.serve_connection_with_upgrades(TokioIo::new(stream), service));
    let shutdown = server.tasks.shutdown();
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!("a connection ended: {error}");
    }
}

async fn answer(server: &Arc<Server>, inflight: &Arc<Inflight>, request: http::Request<Incoming>) -> Response {
    let reads = matches!(*request.method(), Method::GET | Method::HEAD);
    let (parts, body) = request.into_parts();
    let body = if reads {
        Bytes::new()
    } else {
        match tokio::time::timeout(BODY_TIMEOUT, collect(body)).await {
            Ok(Ok(Some(body))) => body,
            Ok(Ok(None)) => {
                let message = format!("Request entity too large: limit is {BODY_LIMIT}");
                return respond::status(&Status::failure(413, "RequestEntityTooLarge", message));
            }
            Ok(Err(error)) => return respond::status(&Status::bad_request(format!("the request body could not be read: {error}"))),
            Err(_) => return respond::status(&Status::failure(408, "Timeout", "the request body did not arrive in time")),
        }
    };
    let (count, limit) = if reads { (&inflight.reads, server.config.max_reads) } else { (&inflight.writes, server.config.max_writes) };
    let Some(_slot) = Slot::take(count, limit) else {
        return respond::status(&Status::too_many_requests("Too many requests, please try again later.", 1));
    };
    server.handle(http::Request::from_parts(parts, body)).await
}

/// A whole body; `None` if it is too large. Such a one is read on for a while: many clients look for an answer only once they have sent all.
async fn collect(mut body: Incoming) -> hyper::Result<Option<Bytes>> {
    let (mut collected, mut size) = (BytesMut::new(), 0);
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else { continue };
        size += data.len();
        if size <= BODY_LIMIT {
            collected.extend_from_slice(&data);
        } else if size > READ_LIMIT {
            break;
        }
    }
    Ok((size <= BODY_LIMIT).then(|| collected.freeze()))
}

/// Requests being served. A watch counts until its first byte only.
#[derive(Debug, Default)]
struct Inflight {
    reads: AtomicUsize,
    writes: AtomicUsize,
}

struct Slot<'a>(&'a AtomicUsize);

impl<'a> Slot<'a> {
    fn take(count: &'a AtomicUsize, limit: usize) -> Option<Self> {
        let slot = Self(count);
        let before = count.fetch_add(1, Ordering::Relaxed);
        (limit == 0 || before < limit).then_some(slot)
    }
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Gives hyper's background work to the server's supervisor.
#[derive(Clone, Debug)]
struct Executor(Supervisor);

impl<F> hyper::rt::Executor<F> for Executor
where
    F: Future<Output: Send> + Send + 'static,
{
    fn execute(&self, task: F) {
        self.0.spawn_quiet(async move {
            task.await;
        });
    }
}

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match self.get_mut() {
            Self::Full(bytes) if bytes.is_empty() => Poll::Ready(None),
            Self::Full(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Self::Stream(chunks) => chunks.as_mut().poll_next(context).map(|it| it.map(|it| it.map(Frame::data))),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Full(bytes) if bytes.is_empty())
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Stream(_) => SizeHint::default(),
        }
    }
}
