//! Latency and throughput of watches, and their cost for the server.
//!
//! The watchers parse HTTP and events only as far as they must to identify each event's object: they run on the server's machine, and a
//! client library would use more CPU time than the server. Each checks that it sees every object once.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use http_body_util::BodyExt as _;
use km::mesos::http::{Parser, Piece};
use memchr::{memchr_iter, memmem::Finder};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::Barrier;
use tokio::task::JoinSet;

use super::load::{Caller as _, Measured};
use super::request::{Ask, CONFIG_MAPS, Connection, PODS, Request};
use super::server::ApiServer;

const WRITERS: usize = 8;
/// Time to wait for events.
const PATIENCE: Duration = Duration::from_secs(60);

/// The writes, and the number of watchers.
struct Load {
    /// Prefix of the objects' names.
    label: &'static str,
    watched: &'static str,
    create: fn(&str) -> Request,
    watchers: usize,
    /// By all writers together.
    writes: usize,
    /// Writes per second; `None`: as fast as possible.
    pace: Option<u32>,
}

/// Writes well below the server's capacity, for latencies; as many as possible; and to a crowd of watchers.
const LOADS: [Load; 3] = [
    Load { label: "paced", watched: PODS, create: Request::create, watchers: 100, writes: 2_000, pace: Some(200) },
    Load { label: "flat-out", watched: PODS, create: Request::create, watchers: 100, writes: 2_000, pace: None },
    Load { label: "crowd", watched: CONFIG_MAPS, create: Request::create_config_map, watchers: 1_000, writes: 5_000, pace: Some(1_000) },
];

pub(super) async fn measure(store: &str, server: &ApiServer) {
    for load in LOADS {
        let rate = load.pace.map_or("flat out".to_owned(), |pace| format!("{pace} writes/s"));
        let what = format!("{rate}, {} watchers", load.watchers);
        let before = server.process.computed();
        let measured = run(server.address, load).await;
        let cores = (server.process.computed() - before).as_secs_f64() / measured.took.as_secs_f64();
        println!("{store:<12} {what:<28} {WRITERS:>6} {measured}");
        println!("{store:<12} {:<28} {:>6} {cores:>10.2}", "  cores that the server used", "");
    }
}

/// Creates objects while all watchers listen. Counts every event that a watcher sees, with its latency since the creation was sent.
async fn run(server: SocketAddr, load: Load) -> Measured {
    let Load { label, watched, create, watchers: count, writes, pace } = load;
    let sent: Arc<Vec<OnceLock<Instant>>> = Arc::new((0..writes).map(|_| OnceLock::new()).collect());
    // Every watch is open before the first write.
    let ready = Arc::new(Barrier::new(count + 1));
    let mut watchers = JoinSet::new();
    for _ in 0..count {
        let (sent, ready) = (sent.clone(), ready.clone());
        watchers.spawn(async move {
            // Without a resource version, a watch begins with the existing objects; from the latest one, it does not.
            let latest = latest(&mut Connection::open(server).await, watched).await;
            let mut stream = Stream::open(server, &format!("{watched}?watch=true&resourceVersion={latest}")).await;
            let mut events = Events::new(label, writes);
            ready.wait().await;
            let (mut latencies, mut bytes) = (Vec::with_capacity(writes), 0);
            while latencies.len() < writes {
                let data = stream.next().await;
                let now = Instant::now();
                bytes += data.len();
                events.read(&data, |n| latencies.push(now - *sent[n].get().expect("it was sent")));
            }
            (latencies, bytes)
        });
    }
    let requests = Arc::new((0..writes).map(|n| create(&format!("{label}-{n:06}")).bytes()).collect());
    ready.wait().await;
    let begun = Instant::now();
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let sent = sent.clone();
        let mut ask = Ask::open(server, None, Arc::clone(&requests)).await.unwrap();
        writers.spawn(async move {
            for n in (writer..writes).step_by(WRITERS) {
                if let Some(pace) = pace {
                    tokio::time::sleep_until((begun + Duration::from_secs(1) / pace * u32::try_from(n).unwrap()).into()).await;
                }
                sent[n].set(Instant::now()).unwrap();
                ask.call(n).await;
            }
        });
    }
    writers.join_all().await;
    let seen = tokio::time::timeout(PATIENCE, watchers.join_all()).await.expect("every watcher sees every object");
    let took = begun.elapsed();
    let bytes = seen.iter().map(|(_, bytes)| bytes).sum();
    Measured::new(seen.into_iter().flat_map(|(latencies, _)| latencies).collect(), bytes, took)
}

/// The newest revision of the store.
async fn latest(connection: &mut Connection, watched: &str) -> String {
    let body = connection.send(Request::read(format!("{watched}?limit=1"))).await.into_body().collect().await.unwrap().to_bytes();
    let list: serde_json::Value = serde_json::from_slice(&body).unwrap();
    list["metadata"]["resourceVersion"].as_str().unwrap().to_owned()
}

/// The body of an endless response, in the pieces in which it arrives.
struct Stream {
    socket: TcpStream,
    parser: Parser,
}

impl Stream {
    async fn open(server: SocketAddr, path: &str) -> Self {
        let mut socket = TcpStream::connect(server).await.unwrap();
        socket.set_nodelay(true).unwrap();
        socket.write_all(format!("GET {path} HTTP/1.1\r\nHost: km\r\nAccept: application/json\r\n\r\n").as_bytes()).await.unwrap();
        let mut stream = Self { socket, parser: Parser::default() };
        let Piece::Head(head) = stream.piece().await else { panic!("no head") };
        assert_eq!(head.status, 200, "{path}");
        stream
    }

    async fn piece(&mut self) -> Piece {
        loop {
            if let Some(piece) = self.parser.next_piece().unwrap() {
                return piece;
            }
            self.parser.buffer().reserve(64 << 10);
            assert_ne!(self.socket.read_buf(self.parser.buffer()).await.unwrap(), 0, "the watch goes on");
        }
    }

    async fn next(&mut self) -> bytes::Bytes {
        match self.piece().await {
            Piece::Body(data) => data,
            other => panic!("the watch goes on, not {other:?}"),
        }
    }
}

/// Finds the object of each event in a watch's bytes by search instead of parsing, to leave the CPU to the server.
struct Events {
    name: Finder<'static>,
    seen: Vec<bool>,
    /// The beginning of an incomplete event.
    rest: Vec<u8>,
}

impl Events {
    fn new(label: &str, writes: usize) -> Self {
        Self { name: Finder::new(&format!("\"name\":\"{label}-")).into_owned(), seen: vec![false; writes], rest: Vec::new() }
    }

    fn read(&mut self, data: &[u8], mut each: impl FnMut(usize)) {
        let mut begins = 0;
        for ends in memchr_iter(b'\n', data) {
            let n = if self.rest.is_empty() {
                self.number(&data[begins..ends])
            } else {
                self.rest.extend_from_slice(&data[begins..ends]);
                let event = std::mem::take(&mut self.rest);
                self.number(&event)
            };
            if let Some(n) = n {
                assert!(!std::mem::replace(&mut self.seen[n], true), "object {n} is seen twice");
                each(n);
            }
            begins = ends + 1;
        }
        self.rest.extend_from_slice(&data[begins..]);
    }

    fn number(&self, event: &[u8]) -> Option<usize> {
        let digits = self.name.find(event)? + self.name.needle().len();
        std::str::from_utf8(&event[digits..digits + 6]).unwrap().parse().ok()
    }
}
