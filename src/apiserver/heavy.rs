//! CPU-bound work, kept off the threads that serve all clients.

use std::sync::LazyLock;

use tokio::sync::Semaphore;

/// Work on fewer bytes is fast enough for any thread.
const HEAVY: usize = 256 * 1024;
/// Bound of concurrent heavy work: half of the processors remain free for small requests.
static PLACES: LazyLock<Semaphore> =
    LazyLock::new(|| Semaphore::new((std::thread::available_parallelism().map_or(1, usize::from) / 2).max(1)));

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

#[cfg(test)]
mod tests {
    use super::*;

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
