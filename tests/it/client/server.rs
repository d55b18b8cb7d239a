//! An HTTP server with scripted responses, including where they break off.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::{self, BoxStream};
use futures_util::{FutureExt, StreamExt};
use http::{Request, Response};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::TokioIo;
use km::client::kubeconfig::Access;
use km::client::{Client, Http};
use km::supervise::Supervisor;
use tokio::net::TcpListener;

/// The response to a request.
pub enum Reply {
    /// The connection breaks before a response.
    Drop,
    Body(u16, String),
    /// A streamed response; an error breaks the connection.
    Stream(BoxStream<'static, std::io::Result<Bytes>>),
}

pub type Handler = Arc<dyn Fn(Request<Bytes>) -> Reply + Send + Sync>;

/// A server that runs as long as its supervisor.
pub async fn serve(tasks: &Supervisor, handler: Handler) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (shutdown, connections) = (tasks.shutdown(), tasks.clone());
    tasks.spawn_quiet(async move {
        while let Some(Ok((stream, _))) = tokio::select! { it = listener.accept() => Some(it), () = shutdown.cancelled() => None } {
            let (handler, shutdown) = (handler.clone(), shutdown.clone());
            connections.spawn_quiet(async move {
                tokio::select! {
                    () = connection(stream, handler) => {}
                    () = shutdown.cancelled() => {}
                }
            });
        }
    });
    address
}

pub async fn connection<S>(stream: S, handler: Handler)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
        let handler = handler.clone();
        async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await.map_err(std::io::Error::other)?.to_bytes();
            let (status, body) = match handler(Request::from_parts(head, body)) {
                Reply::Drop => return Err(std::io::Error::other("dropped")),
                Reply::Body(status, body) => (status, stream::iter([Ok(Bytes::from(body))]).boxed()),
                Reply::Stream(body) => (200, body),
            };
            Ok(Response::builder().status(status).body(StreamBody::new(body.map(|chunk| chunk.map(Frame::data)))).unwrap())
        }
    });
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

pub fn client(addresses: &[String]) -> Client {
    Client::new(Arc::new(Http::new(&Access::load(addresses, None).unwrap()).unwrap()))
}

/// A stream of these, and then the connection stays open and silent.
pub fn then_silence(chunks: Vec<Bytes>) -> BoxStream<'static, std::io::Result<Bytes>> {
    stream::iter(chunks)
        .map(Ok::<_, std::io::Error>)
        .chain(std::future::pending::<Infallible>().into_stream().map(|never| match never {}))
        .boxed()
}
