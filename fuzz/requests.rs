//! A whole API server in this process, and requests to it. Writes are dry runs, so that every input meets the same state.

use std::future::Future;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use km::apiserver::{ApiServer, Config};
use km::client::Transport;
use km::store::embedded::{self, Embedded};
use km::supervise::Supervisor;
use km::util::product::KUBERNETES;

static RUNTIME: LazyLock<tokio::runtime::Runtime> =
    LazyLock::new(|| tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime"));

/// Runs a future on the shared runtime.
pub fn run<T>(work: impl Future<Output = T>) -> T {
    RUNTIME.block_on(work)
}

static SERVER: LazyLock<Arc<dyn Transport>> = LazyLock::new(|| {
    run(async {
        let dir = tempfile::tempdir().expect("a directory").keep();
        let store = Embedded::open(embedded::Config::new(&dir)).expect("a store");
        let config = Config::new(KUBERNETES, "127.0.0.1:0".parse().expect("an address"), "10.0.0.0/24".parse().expect("a range"));
        let server = ApiServer::build(config, store).expect("a server");
        server.start(&Supervisor::default()).await.expect("a server");
        let transport = server.transport();
        std::mem::forget(server);
        transport
    })
});

/// Longer responses wait for future revisions; waiting is not tested.
const PATIENCE: Duration = Duration::from_millis(20);

/// Input: `METHOD path`, headers one per line, an empty line, the body.
pub fn serve(data: &[u8]) {
    let split = data.windows(2).position(|it| it == b"\n\n").unwrap_or(data.len());
    let Ok(head) = std::str::from_utf8(&data[..split]) else { return };
    let body = Bytes::copy_from_slice(data.get(split + 2..).unwrap_or_default());
    let mut lines = head.lines();
    let Some((method, path)) = lines.next().and_then(|it| it.split_once(' ')) else { return };
    let dry = if matches!(method, "GET" | "HEAD") {
        ""
    } else if path.contains('?') {
        "&dryRun=All"
    } else {
        "?dryRun=All"
    };
    let mut request = http::Request::builder().method(method).uri(format!("{path}{dry}"));
    for (name, value) in lines.filter_map(|it| it.split_once(": ")) {
        request = request.header(name, value);
    }
    let Ok(request) = request.body(body) else { return };
    let server = SERVER.clone();
    run(async move {
        let Ok(answer) = tokio::time::timeout(PATIENCE, server.send(request)).await else { return };
        let (head, mut body) = answer.expect("the server answers").into_parts();
        let (mut bytes, mut ended) = (Vec::new(), false);
        for _ in 0..64 {
            match futures_util::poll!(body.next()) {
                std::task::Poll::Ready(Some(chunk)) => bytes.extend_from_slice(&chunk.expect("the answer goes on")),
                std::task::Poll::Ready(None) => {
                    ended = true;
                    break;
                }
                std::task::Poll::Pending => break,
            }
        }
        let is = |name, what: &str| head.headers.get(name).is_some_and(|it| it == what);
        if ended && is("content-type", "application/json") && !is("content-encoding", "gzip") && !bytes.is_empty() {
            // For a watch, the first event.
            let mut values = serde_json::Deserializer::from_slice(&bytes).into_iter::<serde_json::Value>();
            let value = values.next().expect("what is not empty has a value").expect("what says that it is JSON is JSON");
            if head.status.is_client_error() || head.status.is_server_error() {
                assert_eq!((&value["kind"], &value["code"]), (&"Status".into(), &head.status.as_u16().into()));
            }
            // Kubernetes responds with 500 to some client errors too; this message is our own.
            assert!(!value["message"].as_str().unwrap_or_default().starts_with("Internal error occurred"), "{value}");
        }
    });
}
