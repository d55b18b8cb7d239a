//! Calls to etcd: the choice of a member, timeouts, failover, and the meaning of errors.

use std::error::Error as _;
use std::future::Future;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::Context;
use etcd_client::{Certificate, Client, ConnectOptions, Error, Identity, KvClient, TlsOptions};
use tokio::time::{Instant, sleep, timeout};

use crate::store::{Result, StoreError};

/// Deadline of a call, after which its outcome is unknown.
const ANSWER: Duration = Duration::from_secs(5);
/// Deadline of a connection attempt.
const CONNECT: Duration = Duration::from_secs(2);
/// Interval of pings on a connection (etcd by default allows at most one in 5 s) …
const PING: Duration = Duration::from_secs(10);
/// … and the time for an answer, after which the connection is given up.
const PONG: Duration = Duration::from_secs(5);
/// No limit of our own on the size of a message: etcd sends all changes of a revision at once.
pub(super) const MESSAGE: usize = i32::MAX as usize;
/// Pause between attempts to reach a member at the start.
const PAUSE: Duration = Duration::from_millis(200);

/// Files for TLS, in PEM.
#[derive(Clone, Debug, Default)]
pub struct Tls {
    /// The certificate authority of the servers.
    pub ca: Option<PathBuf>,
    /// The client's certificate and key.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// The members of an etcd cluster. One is used until it fails, then the next.
pub(super) struct Members {
    members: Vec<(String, Client)>,
    current: AtomicUsize,
}

/// Whether a call may be repeated if its outcome is unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Call {
    /// The call changes nothing, or is idempotent.
    Repeatable,
    Once,
}

/// What an error of the client library means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// There was no connection to send the call on.
    NotSent,
    /// The member does not answer, or not usefully; another one may.
    Unreachable,
    Compacted,
    ToCome,
    LeaseNotFound,
    Full,
    Other,
}

/// A failed call, before its meaning to the caller of the store is known.
#[derive(Debug)]
pub(super) enum CallError {
    /// The revision in the call is compacted.
    Compacted,
    /// The revision that the call is about is newer than the newest.
    ToCome,
    LeaseNotFound,
    Store(StoreError),
}

impl From<CallError> for StoreError {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Store(error) => error,
            CallError::Compacted => Self::Failed(anyhow::anyhow!("the revision has been compacted")),
            CallError::ToCome => Self::Failed(anyhow::anyhow!("etcdserver: mvcc: required revision is a future revision")),
            CallError::LeaseNotFound => Self::Unavailable(anyhow::anyhow!("the lease ended early")),
        }
    }
}

impl Members {
    /// Prepares connections without waiting for them.
    pub(super) async fn new(endpoints: &[String], tls: &Tls) -> anyhow::Result<Self> {
        let mut options = ConnectOptions::new()
            .with_connect_timeout(CONNECT)
            .with_keep_alive(PING, PONG)
            .with_keep_alive_while_idle(false)
            .with_require_leader(true);
        if let Some(tls) = tls.options()? {
            options = options.with_tls(tls);
        }
        let mut members = Vec::new();
        for endpoint in endpoints {
            check_endpoint(endpoint)?;
            let client = Client::connect([endpoint], Some(options.clone())).await;
            members.push((endpoint.clone(), client.with_context(|| format!("etcd server {endpoint}"))?));
        }
        anyhow::ensure!(!members.is_empty(), "no etcd server is named");
        Ok(Self { members, current: AtomicUsize::new(0) })
    }

    /// Waits until a member answers, at most until `deadline`.
    pub(super) async fn wait(&self, deadline: Duration) -> Result<()> {
        let deadline = Instant::now() + deadline;
        loop {
            let answer = self.kv(Call::Repeatable, |mut kv| async move { kv.get("\0", None).await });
            let error = match answer.await {
                Ok(_) => return Ok(()),
                Err(CallError::Store(error @ StoreError::Unavailable(_))) => error,
                Err(error) => return Err(error.into()),
            };
            if Instant::now() + PAUSE >= deadline {
                return Err(error);
            }
            sleep(PAUSE).await;
        }
    }

    /// [`Members::call`] with a client for keys.
    pub(super) async fn kv<T, F>(&self, kind: Call, call: impl Fn(KvClient) -> F) -> std::result::Result<T, CallError>
    where
        F: Future<Output = std::result::Result<T, Error>>,
    {
        self.call(kind, |client| call(client.kv_client().max_decoding_message_size(MESSAGE))).await
    }

    /// Makes a call to the member that answered last, or to the next ones if that is unreachable. The client is borrowed: cloning it, with
    /// all its parts, takes as long as a call.
    pub(super) async fn call<T, F>(&self, kind: Call, call: impl Fn(&Client) -> F) -> std::result::Result<T, CallError>
    where
        F: Future<Output = std::result::Result<T, Error>>,
    {
        let mut unreachable = Vec::new();
        loop {
            let index = self.current.load(Ordering::Relaxed) % self.members.len();
            let (endpoint, client) = &self.members[index];
            let (kind_of, text) = match timeout(ANSWER, call(client)).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(error)) if classify(&error) == Kind::Full => {
                    tracing::warn!("etcd server {endpoint}: {}", describe(&error));
                    return Err(CallError::Store(StoreError::Full(anyhow::anyhow!(describe(&error)))));
                }
                Ok(Err(error)) => (classify(&error), describe(&error)),
                Err(_) => (Kind::Unreachable, format!("no answer for {ANSWER:?}")),
            };
            let text = format!("etcd server {endpoint}: {text}");
            match kind_of {
                Kind::Compacted => return Err(CallError::Compacted),
                Kind::ToCome => return Err(CallError::ToCome),
                Kind::LeaseNotFound => return Err(CallError::LeaseNotFound),
                Kind::Full | Kind::Other => return Err(CallError::Store(StoreError::Failed(anyhow::anyhow!(text)))),
                Kind::NotSent | Kind::Unreachable => {}
            }
            let next = (index + 1) % self.members.len();
            // A concurrent call may already have moved on to the next member.
            let _ = self.current.compare_exchange(index, next, Ordering::Relaxed, Ordering::Relaxed);
            unreachable.push(text);
            if unreachable.len() >= self.members.len() || (kind == Call::Once && kind_of == Kind::Unreachable) {
                return Err(CallError::Store(StoreError::Unavailable(anyhow::anyhow!(unreachable.join("; ")))));
            }
        }
    }

    /// The error for a broken connection to the current member.
    pub(super) fn broken(&self, error: &Error) -> StoreError {
        StoreError::Unavailable(anyhow::anyhow!("the connection to etcd broke: {}", describe(error)))
    }
}

/// Rejects endpoints that cannot be a server's address. Without a scheme, `http` is assumed (`https` with TLS options).
fn check_endpoint(endpoint: &str) -> anyhow::Result<()> {
    let (scheme, rest) = endpoint.split_once("://").unwrap_or(("http", endpoint));
    let authority = rest.trim_end_matches('/').parse::<http::uri::Authority>().with_context(|| format!("etcd server {endpoint:?}"))?;
    let port = authority.as_str().strip_prefix(authority.host()).and_then(|rest| rest.strip_prefix(':'));
    anyhow::ensure!(
        matches!(scheme, "http" | "https") && !authority.host().is_empty() && port.is_none_or(|port| port.parse::<u16>().is_ok()),
        "etcd server {endpoint:?}: expected http://host:port or https://host:port"
    );
    Ok(())
}

impl Tls {
    fn options(&self) -> anyhow::Result<Option<TlsOptions>> {
        if self.ca.is_none() && self.identity.is_none() {
            return Ok(None);
        }
        let read = |path: &PathBuf| std::fs::read(path).with_context(|| format!("reading {}", path.display()));
        let mut options = TlsOptions::new();
        if let Some(ca) = &self.ca {
            options = options.ca_certificate(Certificate::from_pem(read(ca)?));
        }
        if let Some((certificate, key)) = &self.identity {
            options = options.identity(Identity::from_pem(read(certificate)?, read(key)?));
        }
        Ok(Some(options))
    }
}

fn classify(error: &Error) -> Kind {
    let Error::GRpcStatus(status) = error else {
        return match error {
            Error::TransportError(_) | Error::IoError(_) | Error::WatchError(_) => Kind::Unreachable,
            _ => Kind::Other,
        };
    };
    let message = status.message();
    // gRPC status codes. Where etcd has several errors under one code, the message distinguishes them.
    match i32::from(status.code()) {
        11 if message.contains("compacted") => Kind::Compacted,
        11 if message.contains("future revision") => Kind::ToCome,
        5 if message.contains("lease not found") => Kind::LeaseNotFound,
        8 if message.contains("space") => Kind::Full,
        1 | 4 | 8 | 14 if causes(error).any(|cause| cause.starts_with("tcp connect error") || cause.starts_with("dns error")) => {
            Kind::NotSent
        }
        // Cancelled, unknown, deadline exceeded, too many requests, aborted, unavailable.
        1 | 2 | 4 | 8 | 10 | 14 => Kind::Unreachable,
        // An internal error of etcd has no cause here; one of the connection has, such as the GOAWAY of a stopping etcd.
        13 if causes(error).next().is_some() => Kind::Unreachable,
        _ => Kind::Other,
    }
}

/// The messages of an error's causes.
fn causes(error: &Error) -> impl Iterator<Item = String> {
    let first = match error {
        Error::GRpcStatus(status) => status.source(),
        Error::TransportError(error) => error.source(),
        error => error.source(),
    };
    std::iter::successors(first, |cause| (*cause).source()).map(ToString::to_string)
}

/// An error in one line: etcd's message, or the innermost cause.
fn describe(error: &Error) -> String {
    let own = match error {
        Error::GRpcStatus(status) => status.message().to_owned(),
        error => error.to_string(),
    };
    match causes(error).last() {
        Some(cause) if !own.contains(&cause) => format!("{own}: {cause}"),
        _ => own,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn a_connection_that_ends_is_no_answer() {
        let status = |message: &str| tonic::Status::internal(message);
        assert_eq!(classify(&Error::GRpcStatus(status("etcdserver: corrupt"))), Kind::Other);
        let mut ended = status("h2 protocol error: http2 error");
        ended.set_source(Arc::new(std::io::Error::other("connection error received: not a result of an error")));
        assert_eq!(classify(&Error::GRpcStatus(ended)), Kind::Unreachable);
    }

    #[test]
    fn endpoints() {
        for good in ["http://127.0.0.1:4001/", "https://etcd.example:2379", "etcd-1", "[::1]:2379", "http://[::1]:2379"] {
            check_endpoint(good).unwrap();
        }
        for bad in ["", "http://", "http://:2379", "127.0.0.1:port", "ftp://etcd:1", "http://etcd:99999", "http://etcd:2379/path", "a b"] {
            let error = check_endpoint(bad).unwrap_err().to_string();
            assert!(error.contains(&format!("{bad:?}")), "{error}");
        }
    }
}
