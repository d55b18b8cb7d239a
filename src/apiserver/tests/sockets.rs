//! Over real connections: bad clients, several protocols, the drain.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::super::{ApiServer, Config};
use super::{CONFIG_MAPS, Fixture, config_map, start, start_with};
use crate::store::embedded::{self, Embedded};
use crate::supervise::Supervisor;
use crate::util::product::KUBERNETES;

pub(super) async fn raw(it: &Fixture, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(it.server.addresses()[0]).await.unwrap();
    stream.write_all(request).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn http_1_on_a_socket() {
    let it = start().await;
    let version = raw(&it, b"GET /version HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
    assert!(version.starts_with("HTTP/1.1 200 OK\r\n") && version.contains("\"minor\": \"33\""), "{version}");
    let ready = raw(&it, b"GET /readyz?verbose HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
    assert!(ready.contains("[+]etcd ok\n") && ready.ends_with("readyz check passed\n"), "{ready}");
    let odd = raw(&it, b"GET /livez?verbose&exclude=etcd&exclude=b&exclude=a HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
    assert!(odd.contains("[+]log ok\n[+]etcd excluded: ok\n[+]poststarthook/generic-apiserver-start-informers ok\n"), "{odd}");
    assert!(odd.ends_with("warn: some health checks cannot be excluded: no matches for \"a\",\"b\"\nlivez check passed\n"), "{odd}");
    for (path, found) in [
        ("/readyz/etcd", true),
        ("/livez/poststarthook/start-system-namespaces-controller", true),
        ("/livez/shutdown", false),
        ("/readyz/", false),
        ("/healthz/etcd/", false),
    ] {
        let answer = raw(&it, format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").as_bytes()).await;
        assert_eq!(answer.starts_with("HTTP/1.1 200 OK\r\n"), found, "{path}: {answer}");
    }
    let platform = format!("\"platform\": \"{}/{}\"", std::env::consts::OS, crate::util::version::architecture());
    assert!(version.contains(&platform), "{version}");
    let missing = raw(&it, b"GET /none HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
    assert!(missing.contains(" 404 ") && missing.ends_with("404 page not found\n"), "{missing}");
    it.stop().await;
}

#[tokio::test]
async fn headers_may_be_many() {
    let it = start().await;
    for (count, code) in [(120, "200"), (600, "431")] {
        let groups: String = (0..count).map(|n| format!("x-group: some-group-of-an-organization-{n}\r\n")).collect();
        let answer = raw(&it, format!("GET /version HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{groups}\r\n").as_bytes()).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {code} ")), "{answer}");
    }
    it.stop().await;
}

#[tokio::test]
async fn bad_bodies_are_refused() {
    let it = start().await;
    let post = |content_type: &str, body: &str| {
        let head = format!(
            "POST {CONFIG_MAPS} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: {content_type}\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        let it = &it;
        async move { raw(it, head.as_bytes()).await }
    };
    assert!(post("application/json", "{").await.starts_with("HTTP/1.1 400 "));
    assert!(post("application/json", "[]").await.starts_with("HTTP/1.1 400 "));
    assert!(post("application/json", r#"{"kind":"Pod","apiVersion":"v1"}"#).await.starts_with("HTTP/1.1 400 "));
    assert!(post("text/plain", "a").await.starts_with("HTTP/1.1 415 "));
    let huge = format!(r#"{{"kind":"ConfigMap","apiVersion":"v1","metadata":{{"name":"a"}},"data":{{"a":"{}"}}}}"#, "x".repeat(4 << 20));
    let refused = post("application/json", &huge).await;
    assert!(refused.starts_with("HTTP/1.1 413 ") && refused.contains("RequestEntityTooLarge"), "{}", &refused[..refused.len().min(200)]);
    it.stop().await;
}

/// A client that hangs up after its request still has its write done, whole.
#[tokio::test]
async fn a_write_outlives_its_client() {
    let it = start().await;
    let body = super::config_map("gone").to_string();
    let mut watch = it.watch(&format!("{CONFIG_MAPS}?watch=true")).await;
    let mut stream = TcpStream::connect(it.server.addresses()[0]).await.unwrap();
    let head =
        format!("POST {CONFIG_MAPS} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    stream.write_all(head.as_bytes()).await.unwrap();
    drop(stream);
    assert_eq!(watch.next_name().await, ("ADDED".to_owned(), "gone".to_owned()));
    it.stop().await;
}

/// Open connections and watches do not hold up the stop.
#[tokio::test]
async fn the_stop_ends_watches_and_idle_connections() {
    let it = start().await;
    let mut watch = TcpStream::connect(it.server.addresses()[0]).await.unwrap();
    watch.write_all(b"GET /api/v1/pods?watch=true HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut head = [0; 15];
    watch.read_exact(&mut head).await.unwrap();
    assert_eq!(&head, b"HTTP/1.1 200 OK");
    let _idle = TcpStream::connect(it.server.addresses()[0]).await.unwrap();
    let _half = {
        let mut half = TcpStream::connect(it.server.addresses()[0]).await.unwrap();
        half.write_all(b"GET /api/v1/pods HT").await.unwrap();
        half
    };
    it.supervisor.shutdown().cancel();
    let mut rest = Vec::new();
    tokio::time::timeout(Duration::from_secs(8), watch.read_to_end(&mut rest)).await.expect("the watch ends").unwrap();
    assert!(rest.ends_with(b"0\r\n\r\n"), "the watch ends as it should");
    it.stop().await;
}

#[tokio::test]
async fn a_taken_port_is_named() {
    let it = start().await;
    let taken = it.server.addresses()[0];
    let config = Config::new(KUBERNETES, taken, "10.10.10.0/24".parse().unwrap());
    let error = ApiServer::build(config, it.store.clone()).unwrap_err();
    assert!(format!("{error:#}").starts_with(&format!("cannot listen on {taken}: ")), "{error:#}");
    it.stop().await;
}

/// Silent, slow and incomplete clients are disconnected in time; a missing body is reported.
#[tokio::test]
async fn slow_clients_are_not_waited_for() {
    let it = start_with(|config| {
        config.timeouts.head = Duration::from_millis(200);
        config.timeouts.request = Duration::from_millis(400);
    })
    .await;
    let head = format!("POST {CONFIG_MAPS} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{{");
    for (said, answer) in [("", ""), ("G", ""), ("PRI * HTT", ""), ("GET /version HTTP/1.1\r\nx: y", ""), (&head, "HTTP/1.1 504 ")] {
        let heard = tokio::time::timeout(Duration::from_secs(20), raw(&it, said.as_bytes())).await.expect("the connection ends");
        assert!(heard.starts_with(answer) && heard.is_empty() == answer.is_empty(), "{said:?}: {heard}");
    }
    // A drop now and then does not help.
    let mut drip = TcpStream::connect(it.server.addresses()[0]).await.unwrap();
    let dripped = async {
        while drip.write_all(b"GET /").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), dripped).await.expect("the connection ends");
    it.stop().await;
}

/// A client that never reads its watch loses it without using memory; others see everything.
#[tokio::test]
async fn a_watch_that_nobody_reads_ends() {
    let it = start_with(|config| config.timeouts.stalled = Duration::from_millis(300)).await;
    let mut large = config_map("large");
    it.create(CONFIG_MAPS, large.clone()).await.ok();
    let mut keen = it.watch(&format!("{CONFIG_MAPS}?watch=true")).await;
    keen.next().await.unwrap();
    let tasks = it.server.server.tasks.running();
    let mut lazy = TcpStream::connect(it.server.addresses()[0]).await.unwrap();
    lazy.write_all(format!("GET {CONFIG_MAPS}?watch=true HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes()).await.unwrap();
    for n in 0..60 {
        large["data"]["a"] = format!("{n}{}", "x".repeat(500_000)).into();
        it.put(&format!("{CONFIG_MAPS}/large"), large.clone()).await.ok();
        assert_eq!(keen.next_name().await.0, "MODIFIED");
    }
    let mut heard = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(20), async {
        // Until the connection's task has ended.
        while it.server.server.tasks.running() > tasks {
            tokio::task::yield_now().await;
        }
        lazy.read_to_end(&mut heard).await
    });
    // The end may be a reset, which cuts off earlier data.
    let _ = read.await.expect("the watch ends");
    assert!(heard.len() < 25_000_000, "{} bytes", heard.len());
    it.stop().await;
}

/// HTTP/2 without an upgrade: concurrent requests on one connection, and a graceful end.
#[tokio::test]
async fn http_2_with_prior_knowledge() {
    use http_body_util::{BodyExt, Empty};
    use hyper_util::rt::{TokioExecutor, TokioIo};
    let it = start_with(|config| config.max_streams = 10).await;
    let stream = TcpStream::connect(it.server.addresses()[0]).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake::<_, _, Empty<bytes::Bytes>>(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    let mut driver = tokio::task::JoinSet::new();
    driver.spawn(connection);
    let mut get = |path: &str| sender.send_request(http::Request::get(format!("http://x{path}")).body(Empty::new()).unwrap());
    let version = get("/version").await.unwrap();
    assert_eq!((version.status(), version.version()), (http::StatusCode::OK, http::Version::HTTP_2));
    let mut watches = Vec::new();
    for _ in 0..10 {
        watches.push(get(&format!("{CONFIG_MAPS}?watch=true")).await.unwrap());
    }
    let mut one_more = Box::pin(get("/version"));
    assert!(tokio::time::timeout(Duration::from_millis(100), &mut one_more).await.is_err(), "all streams are taken");
    drop(watches.pop());
    assert_eq!(one_more.await.unwrap().status(), 200);
    it.supervisor.shutdown().cancel();
    for watch in watches {
        watch.into_body().collect().await.expect("the watch ends as it should");
    }
    driver.join_next().await.unwrap().unwrap().expect("the connection ends as it should");
    it.stop().await;
}

/// A frame of HTTP/2 (RFC 9113, section 4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

#[tokio::test]
async fn a_client_that_gives_up_many_requests_keeps_its_connection() {
    const HEADERS: u8 = 1;
    const RST_STREAM: u8 = 3;
    const SETTINGS: u8 = 4;
    const PING: u8 = 6;
    const GOAWAY: u8 = 7;
    let it = start().await;
    let mut stream = TcpStream::connect(it.server.addresses()[0]).await.unwrap();
    let mut sent = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    sent.extend(frame(SETTINGS, 0, 0, &[]));
    for id in (1..200).step_by(2) {
        // `GET http:/`, as HPACK's table has it; then CANCEL.
        sent.extend(frame(HEADERS, 0x5, id, &[0x82, 0x86, 0x84]));
        sent.extend(frame(RST_STREAM, 0, id, &8_u32.to_be_bytes()));
    }
    sent.extend(frame(PING, 0, 0, b"are you?"));
    stream.write_all(&sent).await.unwrap();
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await.unwrap();
        let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        stream.read_exact(&mut payload).await.unwrap();
        assert_ne!(head[3], GOAWAY, "{}", String::from_utf8_lossy(&payload));
        if (head[3], head[4]) == (PING, 1) && payload == b"are you?" {
            break;
        }
    }
    drop(stream);
    it.stop().await;
}

/// The next message of a server, which are short here.
async fn message(stream: &mut TcpStream) -> (u8, Vec<u8>) {
    let mut head = [0; 2];
    stream.read_exact(&mut head).await.unwrap();
    let length = match head[1] {
        126 => usize::from(stream.read_u16().await.unwrap()),
        length => usize::from(length),
    };
    let mut payload = vec![0; length];
    stream.read_exact(&mut payload).await.unwrap();
    (head[0], payload)
}

#[tokio::test]
async fn a_watch_over_a_websocket() {
    let it = start().await;
    it.create(CONFIG_MAPS, config_map("first")).await.ok();
    let ask = |path: &str| {
        format!(
            "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
             sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
    };
    let mut stream = TcpStream::connect(it.server.addresses()[0]).await.unwrap();
    stream.write_all(ask(&format!("{CONFIG_MAPS}?watch=true")).as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap().to_lowercase();
    assert!(head.starts_with("http/1.1 101 ") && head.contains("sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo="), "{head}");
    let mut next = async || {
        let (first, payload) = message(&mut stream).await;
        assert_eq!(first, 0x81, "a whole text");
        let event: serde_json::Value = serde_json::from_slice(&payload).unwrap();
        (event["type"].as_str().unwrap().to_owned(), event["object"]["metadata"]["name"].as_str().unwrap().to_owned())
    };
    assert_eq!(next().await, ("ADDED".to_owned(), "first".to_owned()));
    it.create(CONFIG_MAPS, config_map("second")).await.ok();
    assert_eq!(next().await, ("ADDED".to_owned(), "second".to_owned()));
    // A ping, its mask all zero, and a close.
    stream.write_all(b"\x89\x82\0\0\0\0hi\x88\x80\0\0\0\0").await.unwrap();
    assert_eq!(message(&mut stream).await, (0x8a, b"hi".to_vec()));
    assert_eq!(message(&mut stream).await, (0x88, vec![3, 232]));
    assert_eq!(stream.read(&mut [0]).await.unwrap(), 0, "the connection ends with it");
    let mut missing = TcpStream::connect(it.server.addresses()[0]).await.unwrap();
    missing.write_all(ask(&format!("{CONFIG_MAPS}?watch=true&labelSelector=(")).as_bytes()).await.unwrap();
    let mut head = [0; 12];
    missing.read_exact(&mut head).await.unwrap();
    assert_eq!(&head, b"HTTP/1.1 400", "what is refused is refused in HTTP");
    it.stop().await;
}

/// Each check says how far its own step has come.
#[tokio::test]
async fn a_server_that_has_not_started_is_not_ready() {
    let (dir, supervisor) = (tempfile::tempdir().unwrap(), Supervisor::default());
    let config = Config::new(KUBERNETES, "127.0.0.1:0".parse().unwrap(), "10.10.10.0/24".parse().unwrap());
    let server = ApiServer::build(config, Embedded::open(embedded::Config::new(dir.path())).unwrap()).unwrap();
    let ask = async |path: &str| {
        let response = server.transport().send(http::Request::get(path).body("".into()).unwrap()).await.unwrap();
        response.status().as_u16()
    };
    const PATHS: [&str; 4] = [
        "/readyz",
        "/readyz/informer-sync",
        "/livez/poststarthook/bootstrap-controller",
        "/livez/poststarthook/priority-and-fairness-filter",
    ];
    let before = [ask(PATHS[0]).await, ask(PATHS[1]).await, ask(PATHS[2]).await, ask(PATHS[3]).await];
    assert_eq!(before, [500, 500, 500, 200]);
    server.start(&supervisor).await.unwrap();
    for path in PATHS {
        assert_eq!(ask(path).await, 200, "{path}");
    }
    supervisor.shutdown().cancel();
    supervisor.wait(Duration::from_secs(10)).await.unwrap();
}
