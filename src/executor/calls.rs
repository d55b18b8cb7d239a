//! Probes and hooks, as they are carried out: a command inside a container, an HTTP request, a TCP connection.

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::{Container, HTTPGetAction, HTTPHeader, LifecycleHandler, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::probes::Outcome;
use crate::client::unverified;
use crate::runtime::{ExecSpec, Runtime};

/// How much of an answer is shown to users.
const SHOWN: usize = 10 * 1024;

/// The target of a call.
#[derive(Clone, Debug)]
pub struct Target {
    pub runtime: Arc<dyn Runtime>,
    /// The container's id.
    pub id: String,
    /// The pod's address.
    pub ip: String,
    pub container: Container,
}

/// The result of a call: `Ok` with its output, `Err` with the reason of a failure; the outer `Err` if it could not be made.
type Answer = Result<Result<String, String>, anyhow::Error>;

/// Runs a probe once.
pub async fn probe(target: &Target, probe: &Probe) -> Outcome {
    let timeout = Duration::from_secs(u64::try_from(probe.timeout_seconds.unwrap_or(1)).unwrap_or(1).max(1));
    let call = async {
        if let Some(action) = &probe.exec {
            command(target, action.command.as_deref().unwrap_or_default()).await
        } else if let Some(action) = &probe.http_get {
            http_get(target, action).await
        } else if let Some(action) = &probe.tcp_socket {
            tcp(target, action.host.as_deref(), &action.port).await
        } else {
            anyhow::bail!("this node probes by command, HTTP or TCP only")
        }
    };
    match tokio::time::timeout(timeout, call).await {
        Ok(Ok(Ok(_))) => Outcome::Success,
        Ok(Ok(Err(why))) => Outcome::Failure(why),
        Ok(Err(error)) => Outcome::Unknown(format!("{error:#}")),
        Err(_) => Outcome::Failure(match &probe.exec {
            Some(action) => format!(
                "command timed out: {:?} timed out after {}s",
                action.command.as_deref().unwrap_or_default().join(" "),
                timeout.as_secs()
            ),
            None if probe.tcp_socket.is_some() => "i/o timeout".to_owned(),
            None => "context deadline exceeded (Client.Timeout exceeded while awaiting headers)".to_owned(),
        }),
    }
}

/// Runs a hook to completion.
///
/// # Errors
/// With the message for the user.
pub async fn hook(target: &Target, handler: &LifecycleHandler) -> Result<(), String> {
    let answer = if let Some(action) = &handler.exec {
        command(target, action.command.as_deref().unwrap_or_default()).await
    } else if let Some(action) = &handler.http_get {
        http_get(target, action).await
    } else if let Some(action) = &handler.sleep {
        tokio::time::sleep(Duration::from_secs(u64::try_from(action.seconds).unwrap_or_default())).await;
        Ok(Ok(String::new()))
    } else if let Some(action) = &handler.tcp_socket {
        tcp(target, action.host.as_deref(), &action.port).await
    } else {
        Ok(Ok(String::new()))
    };
    answer.map_err(|error| format!("{error:#}"))?.map(drop)
}

async fn command(target: &Target, command: &[String]) -> Answer {
    let spec = ExecSpec { command: command.to_vec(), ..ExecSpec::default() };
    let mut session = match target.runtime.exec(&target.id, &spec).await {
        Ok(session) => session,
        Err(error @ crate::runtime::RuntimeError::Unavailable(_)) => return Err(error.into()),
        Err(error) => return Ok(Err(error.to_string())),
    };
    let mut output = Vec::new();
    while let Some(chunk) = session.output.next().await {
        let chunk = chunk?.data;
        output.extend_from_slice(&chunk[..chunk.len().min(SHOWN - output.len().min(SHOWN))]);
    }
    let output = String::from_utf8_lossy(&output).into_owned();
    // The engine may notice the end a moment after the output has ended.
    for pause in [0, 5, 20, 80, 300, 1000] {
        tokio::time::sleep(Duration::from_millis(pause)).await;
        match target.runtime.exec_exit_code(&session.id).await? {
            Some(0) => return Ok(Ok(output)),
            Some(code) if output.trim().is_empty() => return Ok(Err(format!("command exited with {code}"))),
            Some(_) => return Ok(Err(output)),
            None => {}
        }
    }
    anyhow::bail!("the engine reports no exit code of the command")
}

/// The number of a port, given as a number or as a name that the container defines.
fn port(container: &Container, port: &IntOrString) -> anyhow::Result<u16> {
    let number = match port {
        IntOrString::Int(number) => Some(*number),
        IntOrString::String(name) => {
            let named = container.ports.iter().flatten().find(|it| it.name.as_deref() == Some(name));
            named.map(|it| it.container_port).or_else(|| name.parse().ok())
        }
    };
    number.and_then(|number| u16::try_from(number).ok()).filter(|port| *port > 0).ok_or_else(|| anyhow::anyhow!("no such port: {port:?}"))
}

/// The target of a call as a URL's authority.
fn authority(target: &Target, host: Option<&str>, at: &IntOrString) -> anyhow::Result<String> {
    let host = host.filter(|host| !host.is_empty()).unwrap_or(&target.ip);
    anyhow::ensure!(!host.is_empty(), "the pod has no address yet");
    let port = port(&target.container, at)?;
    Ok(if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") })
}

/// # Errors
/// With the kubelet's message.
async fn dial(authority: &str) -> Result<TcpStream, String> {
    TcpStream::connect(authority).await.map_err(|error| {
        let why = match error.kind() {
            ErrorKind::ConnectionRefused => "connect: connection refused".to_owned(),
            ErrorKind::HostUnreachable => "connect: no route to host".to_owned(),
            ErrorKind::NetworkUnreachable => "connect: network is unreachable".to_owned(),
            ErrorKind::TimedOut => "i/o timeout".to_owned(),
            _ => error.to_string(),
        };
        format!("dial tcp {authority}: {why}")
    })
}

async fn tcp(target: &Target, host: Option<&str>, at: &IntOrString) -> Answer {
    Ok(dial(&authority(target, host, at)?).await.map(|_| String::new()))
}

async fn http_get(target: &Target, action: &HTTPGetAction) -> Answer {
    let authority = authority(target, action.host.as_deref(), &action.port)?;
    let path = action.path.as_deref().unwrap_or_default().trim_start_matches('/');
    let (scheme, path) = (action.scheme.as_deref().unwrap_or("HTTP").to_lowercase(), format!("/{path}"));
    let failed = |why: String| Ok(Err(format!("Get \"{scheme}://{authority}{path}\": {why}")));
    let stream = match dial(&authority).await {
        Ok(stream) => stream,
        Err(why) => return failed(why),
    };
    let request = get(&authority, &path, action.http_headers.as_deref().unwrap_or_default())?;
    let answer = if scheme == "https" {
        // No certificate is checked, as the kubelet does not either.
        let connector = TlsConnector::from(Arc::new(unverified()?.with_no_client_auth()));
        let host = action.host.clone().filter(|it| !it.is_empty()).unwrap_or_else(|| target.ip.clone());
        match connector.connect(rustls::pki_types::ServerName::try_from(host)?, stream).await {
            Ok(stream) => exchange(stream, request).await,
            Err(error) => return failed(error.to_string()),
        }
    } else {
        exchange(stream, request).await
    };
    match answer {
        Ok((status, body)) if status.as_u16() < 400 => Ok(Ok(String::from_utf8_lossy(&body).into_owned())),
        Ok((status, _)) => Ok(Err(format!("HTTP probe failed with statuscode: {}", status.as_u16()))),
        Err(error) => failed(error.to_string()),
    }
}

fn get(authority: &str, path: &str, headers: &[HTTPHeader]) -> http::Result<Request<Empty<Bytes>>> {
    let mut request = Request::get(path);
    for header in headers {
        request = request.header(&header.name, &header.value);
    }
    for (name, value) in [("Host", authority), ("User-Agent", "kube-probe/1.33"), ("Accept", "*/*"), ("Connection", "close")] {
        if !headers.iter().any(|header| header.name.eq_ignore_ascii_case(name)) {
            request = request.header(name, value);
        }
    }
    request.body(Empty::new())
}

async fn exchange<S>(stream: S, request: Request<Empty<Bytes>>) -> hyper::Result<(StatusCode, Bytes)>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let answer = async {
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body = Limited::new(response.into_body(), SHOWN).collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        Ok((status, body))
    };
    // The connection drives the exchange. When it ends, data already read may still have to be delivered.
    let connection = async {
        let _ = connection.await;
        std::future::pending::<()>().await;
    };
    tokio::select! {
        answer = answer => answer,
        () = connection => unreachable!("it is pending for ever"),
    }
}
