//! Starts the real parts that tests run against, each on a host of its own (a network namespace without a way out), and stops them again.

#![allow(dead_code, reason = "every area uses some of it")]

pub mod apiserver;
pub mod cluster;
pub mod docker;
pub mod etcd;
pub mod host;
pub mod plane;
pub mod process;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use km::client::kubeconfig::Access;
use km::client::{Client, Http};

/// The executable under test.
pub fn km() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_km"))
}

/// A client of the server at a URL, without credentials.
pub fn client(url: &str) -> Client {
    let access = Access { servers: vec![url.parse().expect("a URL")], ..Access::default() };
    Client::new(Arc::new(Http::new(&access).expect("a client")))
}

/// A path in the source tree.
pub fn source(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The kubectl on the PATH; or, if that is a wrapper that selects one of several beside it, the selected one, which is twice as fast.
pub fn kubectl() -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|it| it.join("kubectl")).find(|it| it.exists()).expect("kubectl is installed");
    let real = found.canonicalize().expect("a path");
    let chosen = real.with_file_name("kubectl.1.33");
    if chosen.exists() { chosen } else { real }
}

/// Polls until there is a result: for states of other programs that are not announced.
///
/// # Panics
/// With `what` and the last failure, once `deadline` has passed.
pub fn wait_for<T>(what: &str, deadline: Duration, mut look: impl FnMut() -> Result<T, String>) -> T {
    let start = Instant::now();
    loop {
        match look() {
            Ok(found) => return found,
            Err(seen) if start.elapsed() > deadline => panic!("{what}: not within {deadline:?}; last seen: {seen}"),
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}

/// A port that is not in use.
pub fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback has free ports");
    listener.local_addr().expect("a bound listener has an address").port()
}
