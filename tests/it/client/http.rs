//! Connections: several servers, TLS, credentials, answers that are no answers.

use std::sync::Arc;

use http::Request;
use km::client::kubeconfig::{Access, Credentials, Token};
use km::client::{Client, ClientError, Http};
use km::object::resource;
use km::supervise::Supervisor;
use parking_lot::Mutex;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::server::{Handler, Reply, client, connection, serve};
use crate::support::free_port;

const POD: &str = r#"{"kind":"Pod","apiVersion":"v1","metadata":{"name":"web","namespace":"a","resourceVersion":"7"}}"#;

fn always(status: u16, body: &'static str) -> Handler {
    Arc::new(move |_| Reply::Body(status, body.to_owned()))
}

#[tokio::test]
async fn the_next_server_is_asked_when_one_is_gone() {
    let tasks = Supervisor::default();
    let first = Arc::new(Mutex::new(true));
    let alive = first.clone();
    let wobbly = serve(&tasks, Arc::new(move |_| if *alive.lock() { Reply::Body(200, POD.to_owned()) } else { Reply::Drop })).await;
    let steady = serve(&tasks, always(404, r#"{"kind":"Status","status":"Failure","reason":"NotFound","message":"no","code":404}"#)).await;
    let client = client(&[format!("127.0.0.1:{}", free_port()), wobbly.to_string(), steady.to_string()]);
    assert_eq!(client.get(&resource::POD, "a", "web").await.unwrap().revision(), 7);
    // If a connection breaks during a write, the outcome is unknown: the call fails, and the next one uses another server.
    *first.lock() = false;
    assert!(matches!(client.create(&resource::POD, "a", &1).await, Err(ClientError::Unreachable(_))));
    assert!(client.create(&resource::POD, "a", &1).await.unwrap_err().is("NotFound"));
    // A read is simply asked of the next server.
    let client = super::server::client(&[wobbly.to_string(), steady.to_string()]);
    assert!(client.get(&resource::POD, "a", "web").await.unwrap_err().is("NotFound"));
    tasks.shutdown().cancel();
    let gone = super::server::client(&[format!("127.0.0.1:{}", free_port())]);
    assert!(matches!(gone.get(&resource::POD, "a", "web").await, Err(ClientError::Unreachable(_))));
}

#[tokio::test]
async fn answers_that_are_none() {
    let tasks = Supervisor::default();
    for (status, body, expected) in [
        (200, "<html>", "the API server's answer is not understood: not an object: expected value at line 1 column 1"),
        (
            200,
            r#"{"kind":"Pod""#,
            "the API server's answer is not understood: not an object: EOF while parsing an object at line 1 column 13",
        ),
        (502, "bad gateway", "the server answered 502 Bad Gateway: bad gateway"),
        (429, "", "the server answered 429 Too Many Requests"),
    ] {
        let address = serve(&tasks, always(status, body)).await;
        let error = client(&[address.to_string()]).get(&resource::POD, "a", "web").await.unwrap_err();
        assert_eq!(error.to_string(), expected);
    }
    tasks.shutdown().cancel();
}

#[tokio::test]
async fn tls_and_credentials() {
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec!["kubernetes".to_owned()]).unwrap().signed_by(&key, &authority).unwrap();
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], rustls::pki_types::PrivateKeyDer::Pkcs8(key.serialize_der().into()))
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let record = seen.clone();
    let handler: Handler = Arc::new(move |request: Request<_>| {
        let header = request.headers().get("authorization").map(|it| it.to_str().unwrap().to_owned());
        record.lock().push(header.unwrap_or_default());
        Reply::Body(200, POD.to_owned())
    });
    let tasks = Supervisor::default();
    let (shutdown, connections) = (tasks.shutdown(), tasks.clone());
    tasks.spawn_quiet(async move {
        while let Some(Ok((stream, _))) = tokio::select! { it = listener.accept() => Some(it), () = shutdown.cancelled() => None } {
            let (acceptor, handler, shutdown) = (acceptor.clone(), handler.clone(), shutdown.clone());
            connections.spawn_quiet(async move {
                tokio::select! {
                    () = async { if let Ok(stream) = acceptor.accept(stream).await { connection(stream, handler).await } } => {}
                    () = shutdown.cancelled() => {}
                }
            });
        }
    });

    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    std::fs::write(&token, "from-file\n").unwrap();
    let access = Access { servers: vec![format!("https://{address}").parse().unwrap()], ..Access::default() };
    let trusting = Access { ca: Some(authority.pem().into_bytes()), server_name: Some("kubernetes".to_owned()), ..access.clone() };
    let get = |access: Access| async move {
        let client = Client::new(Arc::new(Http::new(&access).unwrap()));
        client.get(&resource::POD, "a", "web").await.map(|object| object.revision())
    };
    assert_eq!(get(trusting.clone()).await.unwrap(), 7);
    for credentials in [
        Credentials { token: Some(Token::Text("abc".to_owned())), ..Credentials::default() },
        Credentials { token: Some(Token::File(token)), ..Credentials::default() },
        Credentials { basic: Some(("user".to_owned(), "word".to_owned())), ..Credentials::default() },
    ] {
        assert_eq!(get(Access { credentials, ..trusting.clone() }).await.unwrap(), 7);
    }
    assert_eq!(get(Access { insecure: true, ..access.clone() }).await.unwrap(), 7);
    for distrusting in [Access { server_name: Some("other".to_owned()), ..trusting.clone() }, Access { ca: None, ..trusting }] {
        assert!(matches!(get(distrusting).await, Err(ClientError::Unreachable(_))));
    }
    assert_eq!(*seen.lock(), ["", "Bearer abc", "Bearer from-file", "Basic dXNlcjp3b3Jk", ""]);
    tasks.shutdown().cancel();
}
