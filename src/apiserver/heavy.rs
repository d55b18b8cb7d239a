//! CPU-bound work, kept off the threads that serve all clients.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::LazyLock;

use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::Semaphore;
use tokio::task::block_in_place;

/// Work on fewer bytes is fast enough for any thread.
const HEAVY: usize = 256 * 1024;
/// Bound of concurrent heavy work: half of the processors remain free for small requests.
static PLACES: LazyLock<Semaphore> = LazyLock::new(|| Semaphore::new(half()));
/// The same for writes. Theirs are other places, because a write waits for the store, and needs one of the others for its answer.
static WRITES: LazyLock<Semaphore> = LazyLock::new(|| Semaphore::new(half()));

fn half() -> usize {
    (std::thread::available_parallelism().map_or(1, usize::from) / 2).max(1)
}

/// Does the work, on a thread of its own if it processes at least [`HEAVY`] bytes.
pub(crate) async fn heavy<T, F>(bytes: usize, work: F) -> T
where
    T: Send + 'static,
    F: FnOnce() -> T + Send + 'static,
{
    if bytes < HEAVY {
        return work();
    }
    let place = PLACES.acquire().await.expect("it is never closed");
    let work = move || {
        // Held to the end of the work, even if its request has ended.
        let _place = place;
        work()
    };
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime shuts down, and this task with it.
            Err(_) => std::future::pending().await,
        },
    }
}

/// Does a write with a body of so many bytes. Each step of one that is heavy counts as blocking its thread, so that the runtime gives other
/// tasks of the thread to another one.
pub(crate) async fn heavy_write<F: Future>(bytes: usize, work: F) -> F::Output {
    if bytes < HEAVY || Handle::current().runtime_flavor() != RuntimeFlavor::MultiThread {
        return work.await;
    }
    let _place = WRITES.acquire().await.expect("it is never closed");
    let mut work = pin!(work);
    poll_fn(|context| block_in_place(|| work.as_mut().poll(context))).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn a_heavy_write_stops_no_other_task() {
        let (tell, told) = std::sync::mpsc::channel();
        let (tell_begun, begun) = tokio::sync::oneshot::channel();
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(heavy_write(HEAVY, async move {
            tell_begun.send(()).unwrap();
            told.recv().unwrap();
        }));
        begun.await.unwrap();
        tasks.spawn(async move { tell.send(()).unwrap() });
        tasks.join_all().await;
    }

    /// More work than places, and some whose caller has gone.
    #[tokio::test]
    async fn much_work_is_all_done() {
        for _ in 0..50 {
            // It may have been fast enough on a busy machine.
            let _given_up = futures_util::FutureExt::now_or_never(heavy(HEAVY, || ()));
        }
        let done = futures_util::future::join_all((0..100).map(|n| heavy(if n % 2 == 0 { HEAVY } else { 1 }, move || n))).await;
        assert_eq!(done, (0..100).collect::<Vec<_>>());
    }
}
