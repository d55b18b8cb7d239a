//! Drives callers at full speed, within bounds, and sums up their results.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

/// Time limit of each number.
const LIMIT: Duration = Duration::from_secs(15);

pub(super) trait Caller: Send + 'static {
    /// Makes request `n` and returns the size of its response in bytes.
    fn call(&mut self, n: usize) -> impl Future<Output = usize> + Send;
}

/// The result of a run.
pub(super) struct Measured {
    /// Latencies of all answered requests, ascending.
    pub(super) latencies: Vec<Duration>,
    pub(super) bytes: usize,
    pub(super) took: Duration,
    /// CPU time of the server meanwhile, if measured.
    pub(super) computed: Option<Duration>,
}

impl Measured {
    pub(super) fn new(mut latencies: Vec<Duration>, bytes: usize, took: Duration) -> Self {
        latencies.sort_unstable();
        Self { latencies, bytes, took, computed: None }
    }

    /// Requests per second.
    pub(super) fn rate(&self) -> f64 {
        self.latencies.len() as f64 / self.took.as_secs_f64()
    }

    pub(super) fn quantile(&self, part: f64) -> Duration {
        self.latencies.get((self.latencies.len().saturating_sub(1) as f64 * part) as usize).copied().unwrap_or_default()
    }
}

impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let megabytes = self.bytes as f64 / 1e6 / self.took.as_secs_f64();
        write!(f, "{:>10.0} {:>10.2?} {:>10.2?} {megabytes:>10.1}", self.rate(), self.quantile(0.5), self.quantile(0.99))?;
        let each = self.computed.map(|it| it.as_secs_f64() * 1e6 / self.latencies.len() as f64);
        each.map_or(Ok(()), |each| write!(f, " {each:>10.0}"))
    }
}

/// Lets all callers make one request after another, until `count` are made or the time is over. The requests made are the first ones,
/// without gaps.
pub(super) async fn drive<C: Caller>(callers: Vec<C>, count: usize) -> Measured {
    let next = Arc::new(AtomicUsize::new(0));
    let begun = Instant::now();
    let mut tasks = JoinSet::new();
    for mut caller in callers {
        let next = next.clone();
        tasks.spawn(async move {
            let (mut latencies, mut bytes) = (Vec::new(), 0);
            while begun.elapsed() < LIMIT {
                let n = next.fetch_add(1, Ordering::Relaxed);
                if n >= count {
                    break;
                }
                let sent = Instant::now();
                bytes += caller.call(n).await;
                latencies.push(sent.elapsed());
            }
            (latencies, bytes)
        });
    }
    let (mut latencies, mut bytes) = (Vec::new(), 0);
    while let Some(task) = tasks.join_next().await {
        let (seen, size) = task.unwrap();
        latencies.extend(seen);
        bytes += size;
    }
    Measured::new(latencies, bytes, begun.elapsed())
}
