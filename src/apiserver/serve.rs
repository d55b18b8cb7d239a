//! The sockets: HTTP/1.1 and HTTP/2 with prior knowledge on one port, limits against misbehaving clients, and the drain.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
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

use super::fairness::Origin;
use super::response::{self, Body, Response};
use super::{Server, Timeouts, websocket};
use crate::object::Status;
use crate::supervise::stall::Stall;
use crate::supervise::{self, Supervisor};

/// Time for connections to finish their work once the server stops.
pub(crate) const DRAIN: Duration = Duration::from_secs(5);
/// Larger bodies are refused.
const BODY_LIMIT: usize = 3 * 1024 * 1024;
/// … after this many bytes were read.
const READ_LIMIT: usize = 32 * 1024 * 1024;
/// Maximum size of all bodies together, from their first byte to the end of their requests.
const BODIES_LIMIT: usize = 256 * 1024 * 1024;
/// Smaller bodies count only while they are received: one for each of the maximum number of requests takes little memory.
const SMALL_BODY: usize = 64 * 1024;
/// Bound of the headers of a request, as in Go's servers; impersonation lists all groups in headers.
const HEADERS: usize = 500;
/// Bound of the size in bytes of a request's headers over HTTP/2. Over HTTP/1.1 they must fit into the read buffer.
const HEADERS_LIMIT: u32 = 1 << 20;
/// A client may reset this many times the streams of a connection at once before they are served, as in Go's servers.
const RESETS: usize = 4;
/// Interval of pings to clients of HTTP/2.
const PING_EVERY: Duration = Duration::from_secs(30);

/// # Errors
/// If the address is taken or not this machine's; the error names it.
pub(crate) fn bind(address: SocketAddr) -> anyhow::Result<std::net::TcpListener> {
    let listener = std::net::TcpListener::bind(address).with_context(|| format!("cannot listen on {address}"))?;
    listener.set_nonblocking(true).with_context(|| format!("cannot listen on {address}"))?;
    Ok(listener)
}

/// Accepts connections until the server stops.
pub(crate) async fn serve(server: Arc<Server>, listener: TcpListener) -> anyhow::Result<()> {
    let tasks = server.tasks.clone();
    supervise::http::accept(listener, &tasks, |stream, peer| connection(server.clone(), stream, peer)).await
}

async fn connection(server: Arc<Server>, stream: TcpStream, peer: SocketAddr) {
    let Timeouts { head, stalled, .. } = server.config.timeouts;
    let mut builder = auto::Builder::new(Executor(server.tasks.clone()));
    builder.http1().timer(TokioTimer::new()).header_read_timeout(head).max_headers(HEADERS);
    let mut http2 = builder.http2();
    http2.timer(TokioTimer::new()).max_concurrent_streams(server.config.max_streams).keep_alive_interval(PING_EVERY);
    http2.max_header_list_size(HEADERS_LIMIT);
    http2.max_pending_accept_reset_streams(RESETS * server.config.max_streams as usize);
    let asked = AtomicBool::new(false);
    let service = hyper::service::service_fn(|request| {
        asked.store(true, Ordering::Relaxed);
        let server = server.clone();
        async move { Ok::<_, std::convert::Infallible>(answer(&server, request, Origin::Remote(peer.ip())).await) }
    });
    let socket = TokioIo::new(Stall::new(stream, stalled));
    let mut connection = pin!(builder.serve_connection_with_upgrades(socket, service));
    let shutdown = server.tasks.shutdown();
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        // Before the first bytes it is not known which protocol's own timeout holds.
        () = async { tokio::time::sleep(head).await; if asked.load(Ordering::Relaxed) { std::future::pending().await } } => return,
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!("a connection ended: {error}");
    }
}

async fn answer(server: &Arc<Server>, mut request: http::Request<Incoming>, origin: Origin) -> Response {
    let socket = websocket::asked(&mut request);
    let (parts, body) = request.into_parts();
    if matches!(parts.method, Method::GET | Method::HEAD) {
        let response = server.handle(http::Request::from_parts(parts, Bytes::new()), origin).await;
        return match socket {
            Some(asked) => asked.answer(response, &server.tasks),
            None => response,
        };
    }
    let body = match tokio::time::timeout(server.config.timeouts.request, collect(body, &server.bodies)).await {
        Ok(Ok(body)) => body,
        Ok(Err(refused)) => return response::status(&refused),
        Err(_) => return response::status(&Status::failure(504, "Timeout", "Timeout: the request's body did not arrive in time")),
    };
    server.handle(http::Request::from_parts(parts, body), origin).await
}

/// A whole body. One that is too large is read on for a while: many clients look for an answer only once they have sent all.
async fn collect(mut body: Incoming, bodies: &Arc<Bodies>) -> Result<Bytes, Status> {
    // Most bodies come in one piece, which is taken as it is.
    let (mut first, mut collected, mut size) = (Bytes::new(), BytesMut::new(), 0);
    let mut room = Room { bodies: bodies.clone(), bytes: 0 };
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Status::bad_request(format!("the request body could not be read: {error}")))?;
        let Ok(data) = frame.into_data() else { continue };
        size += data.len();
        if size <= BODY_LIMIT {
            if !room.take(data.len()) {
                return Err(Status::too_many_requests("too many large requests at a time, please try again later", 1));
            }
            if collected.is_empty() && first.is_empty() {
                first = data;
            } else {
                collected.extend_from_slice(&std::mem::take(&mut first));
                collected.extend_from_slice(&data);
            }
        } else if size > READ_LIMIT {
            break;
        }
    }
    if size > BODY_LIMIT {
        let message = format!("Request entity too large: limit is {BODY_LIMIT}");
        return Err(Status::failure(413, "RequestEntityTooLarge", message));
    }
    let body = if first.is_empty() { collected.freeze() } else { first };
    Ok(if size > SMALL_BODY { Bytes::from_owner(Counted { body, _room: room }) } else { body })
}

/// Total size of the bodies of requests, in bytes.
#[derive(Debug, Default)]
pub(crate) struct Bodies(AtomicUsize);

/// One body's share.
struct Room {
    bodies: Arc<Bodies>,
    bytes: usize,
}

/// A body that takes up its room until its last owner drops it.
struct Counted {
    body: Bytes,
    _room: Room,
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.body
    }
}

impl Room {
    /// Takes more memory; returns whether the total is within the bound.
    fn take(&mut self, bytes: usize) -> bool {
        self.bytes += bytes;
        self.bodies.0.fetch_add(bytes, Ordering::Relaxed) <= BODIES_LIMIT
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.bodies.0.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// Runs hyper's background tasks under the server's supervisor.
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
            Self::Stream(chunks) | Self::Events(chunks) => chunks.as_mut().poll_next(context).map(|it| it.map(|it| it.map(Frame::data))),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Full(bytes) if bytes.is_empty())
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Stream(_) | Self::Events(_) => SizeHint::default(),
        }
    }
}
