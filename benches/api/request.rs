//! Keep-alive connections to an API server, and requests over them.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use ::http::{Method, Response, header};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use km::mesos::http::{self, Parser, Piece};
use serde_json::json;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

use super::load::Caller;

pub(super) const PODS: &str = "/api/v1/namespaces/default/pods";
/// Authenticates to a kube-apiserver.
pub(super) const TOKEN: &str = "bench";
pub(super) const CONFIG_MAPS: &str = "/api/v1/configmaps";

pub(super) struct Request {
    method: Method,
    path: String,
    body: Bytes,
}

impl Request {
    pub(super) fn create(pod_name: &str) -> Self {
        Self::post(PODS, pod(pod_name, 16))
    }

    pub(super) fn create_config_map(name: &str) -> Self {
        let body = json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": name}, "data": {"key": "value"}});
        Self::post("/api/v1/namespaces/default/configmaps", body.to_string().into())
    }

    pub(super) fn post(path: &str, body: Bytes) -> Self {
        Self { method: Method::POST, path: path.to_owned(), body }
    }

    pub(super) fn get(pod_name: &str) -> Self {
        Self::read(format!("{PODS}/{pod_name}"))
    }

    pub(super) fn list() -> Self {
        Self::read(PODS.to_owned())
    }

    pub(super) fn read(path: String) -> Self {
        Self { method: Method::GET, path, body: Bytes::new() }
    }

    /// The encoded request.
    pub(super) fn bytes(&self) -> Bytes {
        let Self { method, path, body } = self;
        // Servers without authentication ignore the token.
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: km\r\nAccept: application/json\r\nContent-Type: application/json\r\nAuthorization: Bearer {TOKEN}\r\n"
        );
        [head.as_bytes(), format!("Content-Length: {}\r\n\r\n", body.len()).as_bytes(), body].concat().into()
    }
}

/// A pod as a controller creates it; about 1.5 kB with 16 variables.
pub(super) fn pod(name: &str, variables: usize) -> Bytes {
    let env: Vec<_> = (0..variables).map(|it| json!({"name": format!("VARIABLE_{it}"), "value": format!("some value {it}")})).collect();
    let resources = json!({"limits": {"cpu": "100m", "memory": "64Mi"}, "requests": {"cpu": "100m", "memory": "64Mi"}});
    let pod = json!({
        "kind": "Pod", "apiVersion": "v1",
        "metadata": {"name": name, "labels": {"app": "web", "tier": "front"}},
        "spec": {"containers": [{"name": "web", "image": "registry.example.com/web:1.2.3", "env": env, "resources": resources,
            "ports": [{"containerPort": 80}]}]},
    });
    pod.to_string().into()
}

pub(super) struct Connection {
    sender: SendRequest<Full<Bytes>>,
    /// Drives the connection; ends with it.
    _driver: JoinSet<()>,
}

impl Connection {
    pub(super) async fn open(server: SocketAddr) -> Self {
        let stream = TcpStream::connect(server).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        let mut driver = JoinSet::new();
        driver.spawn(async move { drop(connection.await) });
        Self { sender, _driver: driver }
    }

    /// The response, which must be a success.
    pub(super) async fn send(&mut self, request: Request) -> Response<Incoming> {
        let (method, path) = (request.method.clone(), request.path.clone());
        let head = ::http::Request::builder().method(request.method).uri(request.path).header(header::HOST, "km");
        let head = head.header(header::CONTENT_TYPE, "application/json").header(header::ACCEPT, "application/json");
        self.sender.ready().await.unwrap();
        let response = self.sender.send_request(head.body(Full::new(request.body)).unwrap()).await.unwrap();
        if response.status().is_success() {
            return response;
        }
        let status = response.status();
        panic!("{method} {path}: {status} {:?}", response.into_body().collect().await.unwrap().to_bytes());
    }
}

/// Makes one request after another on its own connection. Requests are encoded beforehand, and responses parsed no further than necessary:
/// the client's CPU time is lost to the server.
pub(super) struct Ask {
    stream: Box<dyn Socket>,
    parser: Parser,
    requests: Arc<Vec<Bytes>>,
}

/// A plain or TLS connection.
trait Socket: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Socket for T {}

impl Ask {
    /// Opens a connection, with TLS if the server needs it.
    pub(super) async fn open(server: SocketAddr, tls: Option<&TlsConnector>, requests: Arc<Vec<Bytes>>) -> io::Result<Self> {
        let plain = TcpStream::connect(server).await?;
        plain.set_nodelay(true)?;
        let stream: Box<dyn Socket> = match tls {
            Some(tls) => Box::new(tls.connect(server.ip().into(), plain).await?),
            None => Box::new(plain),
        };
        Ok(Self { stream, parser: Parser::default(), requests })
    }

    /// Makes request `n`; returns the status of the response and the size of its body.
    pub(super) async fn ask(&mut self, n: usize) -> Result<(u16, usize), http::Error> {
        const READ: usize = 64 << 10;
        self.stream.write_all(&self.requests[n]).await?;
        let (mut status, mut size) = (0, 0);
        loop {
            match self.parser.next_piece()? {
                Some(Piece::Head(head)) => status = head.status,
                Some(Piece::Body(bytes)) => size += bytes.len(),
                Some(Piece::End) => return Ok((status, size)),
                None => {
                    self.parser.buffer().reserve(READ);
                    if self.stream.read_buf(self.parser.buffer()).await? == 0 {
                        return Err(http::Error::Closed);
                    }
                }
            }
        }
    }
}

impl Caller for Ask {
    async fn call(&mut self, n: usize) -> usize {
        let (status, size) = self.ask(n).await.unwrap();
        assert!((200..300).contains(&status), "{status}");
        size
    }
}
