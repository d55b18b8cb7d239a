//! Work for the processor that would hold up the threads which serve everybody.

/// Work on fewer bytes is done in no time.
const HEAVY: usize = 256 * 1024;

/// Does the work, on a thread of its own if it goes through so many bytes.
pub(crate) async fn heavy<T, F>(bytes: usize, work: F) -> T
where
    T: Send + 'static,
    F: FnOnce() -> T + Send + 'static,
{
    if bytes < HEAVY {
        return work();
    }
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime ends, and whoever waits here with it.
            Err(_) => std::future::pending().await,
        },
    }
}
