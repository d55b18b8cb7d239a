//! CPU-bound work, kept off the threads that serve all clients.

/// Work on fewer bytes is fast enough for any thread.
const HEAVY: usize = 256 * 1024;

/// Does the work, on a thread of its own if it processes at least [`HEAVY`] bytes.
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
            // The runtime shuts down, and this task with it.
            Err(_) => std::future::pending().await,
        },
    }
}
