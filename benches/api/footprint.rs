//! Memory of an API server on its embedded store, and time from its start until it is ready: empty, and with very many pods.

use std::path::Path;

use super::request::{self, Request};
use super::server::ApiServer;

const PODS: usize = 100_000;
const CONNECTIONS: usize = 64;
/// Variables of a pod whose JSON has about 3 kB.
const VARIABLES: usize = 18;

pub(super) async fn measure(km: &Path) {
    let mut starts = Vec::new();
    for _ in 0..5 {
        starts.push(ApiServer::on_embedded_store(km).await.start);
    }
    starts.sort_unstable();
    println!("start to ready, empty: {:.0?} (aim: 100 ms), the median of {}", starts[starts.len() / 2], starts.len());
    let server = ApiServer::on_embedded_store(km).await;
    server.process.quiet().await;
    println!("resident memory, empty: {:.1} MB (aim: 30)", server.process.resident());
    let mut made = 0;
    while made < PODS {
        let create = move |n| Request::post(request::PODS, request::pod(&super::name(made + n), VARIABLES));
        made += super::ask(&server, CONNECTIONS, PODS - made, create).await.latencies.len();
    }
    let one = super::ask(&server, 1, 1, |_| Request::get(&super::name(PODS / 2))).await;
    server.process.quiet().await;
    println!("resident memory, {PODS} pods of {} bytes just made: {:.1} MB (aim: 700)", one.bytes, server.process.resident());
    let server = server.again(km).await;
    println!("start to ready with them, after kill -9: {:.2?} (aim: 2 s)", server.start);
    server.process.quiet().await;
    println!("resident memory, started with them: {:.1} MB (aim: 700)", server.process.resident());
}
