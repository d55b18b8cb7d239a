//! A small HTTP/1.1 server for health, metrics, artifacts and the kubelet's API.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};

use super::Supervisor;
use super::stall::Stall;

/// A response body, complete or streamed.
pub type Body = BoxBody<Bytes, anyhow::Error>;

/// Time for a client to send the head of a request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// Time for a client to take something of a response, such as a log that it follows.
const STALLED: Duration = Duration::from_secs(300);
/// Time for responses to complete once the server stops.
const LINGER: Duration = Duration::from_secs(1);

/// Binds an address without serving yet. Port 0 picks a free one.
///
/// # Errors
/// If the address is taken or not on this machine; the error names it.
pub fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    let listener = std::net::TcpListener::bind(address).with_context(|| format!("cannot listen on {address}"))?;
    listener.set_nonblocking(true).and_then(|()| TcpListener::from_std(listener)).with_context(|| format!("cannot listen on {address}"))
}

/// Accepts connections until the supervisor stops; each is a task of the supervisor.
///
/// # Errors
/// None; the signature is that of a component's task.
pub async fn accept<C, F>(listener: TcpListener, supervisor: &Supervisor, connection: C) -> anyhow::Result<()>
where
    C: Fn(TcpStream, SocketAddr) -> F,
    F: Future<Output = ()> + Send + 'static,
{
    let shutdown = supervisor.shutdown();
    loop {
        let accepted = tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                // Without this option, responses are only slower.
                let _ = stream.set_nodelay(true);
                supervisor.spawn_quiet(connection(stream, peer));
            }
            Err(error) => {
                // For example too many open files; others will be closed.
                tracing::warn!("accepting a connection: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Serves until the supervisor stops. Each connection is a task of the supervisor, and may complete its current response. A client that
/// reads nothing of its response for [`STALLED`] is disconnected.
///
/// # Errors
/// None; the signature is that of a component's task.
pub async fn serve<H, F, B>(listener: TcpListener, supervisor: Supervisor, handler: H) -> anyhow::Result<()>
where
    H: Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<B>> + Send + 'static,
    B: http_body::Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send + 'static,
{
    serve_readers(listener, supervisor, handler, STALLED).await
}

async fn serve_readers<H, F, B>(listener: TcpListener, supervisor: Supervisor, handler: H, stalled: Duration) -> anyhow::Result<()>
where
    H: Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<B>> + Send + 'static,
    B: http_body::Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send + 'static,
{
    let shutdown = supervisor.shutdown();
    let connection = |stream, _| {
        let (handler, shutdown) = (handler.clone(), shutdown.clone());
        async move {
            let service = hyper::service::service_fn(move |request| {
                let answer = handler(request);
                async move { Ok::<_, Infallible>(answer.await) }
            });
            let mut builder = hyper::server::conn::http1::Builder::new();
            builder.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
            let mut connection = pin!(builder.serve_connection(TokioIo::new(Stall::new(stream, stalled)), service).with_upgrades());
            tokio::select! {
                _ = connection.as_mut() => return,
                () = shutdown.cancelled() => connection.as_mut().graceful_shutdown(),
            }
            // A followed log never ends by itself.
            let _ = tokio::time::timeout(LINGER, connection).await;
        }
    };
    accept(listener, &supervisor, connection).await
}

/// A complete body.
pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed()
}

/// A response in plain text.
pub fn text(status: StatusCode, text: impl Into<String>) -> Response<Body> {
    let mut response = Response::new(full(text.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn serves_and_drains() {
        let supervisor = Supervisor::default();
        let listener = bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        assert!(bind(address).unwrap_err().to_string().contains(&address.to_string()));
        let handler = |request: Request<Incoming>| async move { text(StatusCode::OK, request.uri().path()) };
        supervisor.spawn("serving", serve(listener, supervisor.clone(), handler));
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        let mut head = vec![0; 512];
        let count = stream.read(&mut head).await.unwrap();
        assert!(String::from_utf8_lossy(&head[..count]).ends_with("\r\n\r\n/healthz"));
        // An idle connection does not delay the stop.
        supervisor.shutdown().cancel();
        supervisor.wait(Duration::from_secs(5)).await.unwrap();
    }

    /// A log that is followed by a client that does not read it.
    #[tokio::test]
    async fn who_does_not_read_is_cut_off() {
        let supervisor = Supervisor::default();
        let listener = bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        let (ended, _) = tokio::sync::watch::channel(());
        let answers = ended.clone();
        let handler = move |_| {
            let answering = answers.subscribe();
            let chunks = futures_util::stream::repeat_with(move || {
                let _held = &answering;
                Ok::<_, anyhow::Error>(hyper::body::Frame::data(Bytes::from_static(&[0; 1 << 16])))
            });
            async move { Response::new(http_body_util::StreamBody::new(chunks)) }
        };
        supervisor.spawn("serving", serve_readers(listener, supervisor.clone(), handler, Duration::from_millis(100)));
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        stream.read_exact(&mut [0; 1024]).await.unwrap();
        ended.closed().await;
        supervisor.shutdown().cancel();
        supervisor.wait(Duration::from_secs(5)).await.unwrap();
    }
}
