//! The HTTP transport: pooled keep-alive connections to the first API server that answers, over TLS for `https` addresses.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, bail};
use base64::Engine as _;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{StreamExt, TryFutureExt, TryStreamExt};
use http::{HeaderValue, Method, Request, Response, Uri, header};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use parking_lot::Mutex;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::kubeconfig::{Access, Credentials, Token};
use super::response::SILENCE;
use super::{ClientError, ResponseBody, Result, Transport, verify};

/// Time to connect, after which a server counts as dead.
const CONNECT: Duration = Duration::from_secs(5);
/// Keep-alive probes are sent at this interval; after three unanswered ones the peer of an idle watch counts as gone.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// How long the content of a token file is cached.
const TOKEN_AGE: Duration = Duration::from_secs(60);

/// Sends requests over HTTP/1.1 to remote API servers.
#[derive(Debug)]
pub struct Http {
    client: hyper_util::client::legacy::Client<Connector, Full<Bytes>>,
    servers: Vec<Uri>,
    /// The server in use: an index modulo the number of servers.
    current: AtomicUsize,
    authorization: Authorization,
}

enum Authorization {
    None,
    Fixed(HeaderValue),
    File(std::path::PathBuf, Mutex<Option<(Instant, HeaderValue)>>),
}

/// Shows no secrets.
impl std::fmt::Debug for Authorization {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Authorization")
    }
}

impl Http {
    /// # Errors
    /// If the certificates, keys or credentials are unusable.
    pub fn new(access: &Access) -> anyhow::Result<Self> {
        if access.servers.is_empty() {
            bail!("no API server given");
        }
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(CONNECT));
        tcp.set_keepalive(Some(KEEP_ALIVE));
        tcp.set_keepalive_interval(Some(KEEP_ALIVE));
        tcp.set_keepalive_retries(Some(3));
        let secure = access.servers.iter().any(|server| server.scheme_str() == Some("https"));
        let connector = Connector {
            tcp,
            tls: if secure { Some(TlsConnector::from(Arc::new(verify::client_config(access)?))) } else { None },
            server_name: access.server_name.clone(),
        };
        let client = hyper_util::client::legacy::Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(Duration::from_secs(60))
            .build(connector);
        let authorization = Authorization::of(&access.credentials)?;
        Ok(Self { client, servers: access.servers.clone(), current: AtomicUsize::new(0), authorization })
    }

    async fn deliver(&self, request: Request<Bytes>) -> Result<Response<ResponseBody>> {
        let (mut head, body) = request.into_parts();
        if let Some(value) = self.authorization.header().map_err(ClientError::Unreachable)? {
            head.headers.insert(header::AUTHORIZATION, value);
        }
        let path = head.uri.path_and_query().map_or("/", |it| it.as_str()).to_owned();
        let mut failure = anyhow!("no server");
        for _ in 0..self.servers.len() {
            let turn = self.current.load(Ordering::Relaxed);
            let server = &self.servers[turn % self.servers.len()];
            head.uri = join(server, &path)?;
            let attempt = self.client.request(Request::from_parts(head.clone(), Full::new(body.clone())));
            let (error, sent) = match tokio::time::timeout(SILENCE, attempt).await {
                Ok(Ok(response)) => return Ok(response.map(stream)),
                Ok(Err(error)) => {
                    let sent = !error.is_connect();
                    (anyhow::Error::from(error), sent)
                }
                Err(_) => (anyhow!("no answer within {SILENCE:?}"), true),
            };
            // Move on to the next server, unless a concurrent request already has.
            let _ = self.current.compare_exchange(turn, turn + 1, Ordering::Relaxed, Ordering::Relaxed);
            failure = error.context(server.to_string());
            if sent && head.method != Method::GET {
                // The server may have carried the request out: the caller decides whether to retry.
                break;
            }
        }
        Err(ClientError::Unreachable(failure))
    }
}

impl Transport for Http {
    fn send(&self, request: Request<Bytes>) -> BoxFuture<'_, Result<Response<ResponseBody>>> {
        Box::pin(self.deliver(request))
    }
}

fn stream(body: hyper::body::Incoming) -> ResponseBody {
    body.into_data_stream().map_err(|error| ClientError::Unreachable(error.into())).boxed()
}

fn join(server: &Uri, path: &str) -> Result<Uri> {
    let mut parts = server.clone().into_parts();
    let joined = format!("{}{path}", server.path().trim_end_matches('/'));
    let parse = || -> anyhow::Result<Uri> {
        parts.path_and_query = Some(joined.parse()?);
        Ok(Uri::from_parts(parts)?)
    };
    parse().map_err(ClientError::Malformed)
}

impl Authorization {
    fn of(credentials: &Credentials) -> anyhow::Result<Self> {
        Ok(match (&credentials.token, &credentials.basic) {
            (Some(Token::Text(token)), _) => Self::Fixed(bearer(token)?),
            (Some(Token::File(path)), _) => Self::File(path.clone(), Mutex::default()),
            (None, Some((user, password))) => {
                let pair = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
                Self::Fixed(sensitive(&format!("Basic {pair}"))?)
            }
            (None, None) => Self::None,
        })
    }

    fn header(&self) -> anyhow::Result<Option<HeaderValue>> {
        let (path, known) = match self {
            Self::None => return Ok(None),
            Self::Fixed(value) => return Ok(Some(value.clone())),
            Self::File(path, known) => (path, known),
        };
        let mut known = known.lock();
        if let Some((read, value)) = &*known
            && read.elapsed() < TOKEN_AGE
        {
            return Ok(Some(value.clone()));
        }
        let token = std::fs::read_to_string(path).with_context(|| format!("cannot read the token in {}", path.display()))?;
        let value = bearer(token.trim())?;
        *known = Some((Instant::now(), value.clone()));
        Ok(Some(value))
    }
}

fn bearer(token: &str) -> anyhow::Result<HeaderValue> {
    sensitive(&format!("Bearer {token}"))
}

fn sensitive(text: &str) -> anyhow::Result<HeaderValue> {
    let mut value = HeaderValue::from_str(text).map_err(|_| anyhow!("the credentials have characters that a header cannot have"))?;
    value.set_sensitive(true);
    Ok(value)
}

/// Opens connections, with TLS where the scheme is `https`.
#[derive(Clone)]
struct Connector {
    tcp: HttpConnector,
    tls: Option<TlsConnector>,
    server_name: Option<String>,
}

impl std::fmt::Debug for Connector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Connector")
    }
}

impl tower_service::Service<Uri> for Connector {
    type Response = TokioIo<Stream>;
    type Error = anyhow::Error;
    type Future = BoxFuture<'static, anyhow::Result<TokioIo<Stream>>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<anyhow::Result<()>> {
        ready!(self.tcp.poll_ready(context))?;
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, server: Uri) -> Self::Future {
        let tls = self.tls.clone().filter(|_| server.scheme_str() == Some("https"));
        let host = server.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let name = self.server_name.clone().unwrap_or(host);
        let tcp = self.tcp.call(server);
        Box::pin(async move {
            let tcp = tcp.await?.into_inner();
            let Some(tls) = tls else { return Ok(TokioIo::new(Stream::Plain(tcp))) };
            let name = ServerName::try_from(name)?;
            let handshake = tls.connect(name, tcp).map_err(|error| anyhow::Error::from(error).context("TLS"));
            let stream = tokio::time::timeout(CONNECT, handshake).await.context("TLS handshake")??;
            Ok(TokioIo::new(Stream::Tls(Box::new(stream))))
        })
    }
}

/// A connection, plain or not.
enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(it) => Pin::new(it).poll_read(context, buffer),
            Self::Tls(it) => Pin::new(it).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(it) => Pin::new(it).poll_write(context, bytes),
            Self::Tls(it) => Pin::new(it).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(it) => Pin::new(it).poll_flush(context),
            Self::Tls(it) => Pin::new(it).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(it) => Pin::new(it).poll_shutdown(context),
            Self::Tls(it) => Pin::new(it).poll_shutdown(context),
        }
    }
}
