//! Owned tasks: every background task of a component belongs to a [`Supervisor`], stops by the same token, and is waited for. Panics: the end of
//! the process, unless contained.

mod contain;
pub mod http;
pub(crate) mod stall;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use contain::{abort_on_panic, contain};

/// Signals a component to stop: take no new work, finish the current work, return.
pub type Shutdown = CancellationToken;

/// Owns the tasks of a process or of one component. The first task that fails stops all the others; [`Supervisor::wait`] returns its error.
#[derive(Clone, Debug)]
pub struct Supervisor {
    shutdown: Shutdown,
    tasks: TaskTracker,
    /// Cancelled when [`Supervisor::wait`] ends or is dropped.
    abandoned: CancellationToken,
    first_error: Arc<Mutex<Option<anyhow::Error>>>,
}

impl Default for Supervisor {
    fn default() -> Self {
        Self::new(Shutdown::new())
    }
}

impl Supervisor {
    /// A supervisor whose tasks stop when `shutdown` is cancelled.
    pub fn new(shutdown: Shutdown) -> Self {
        Self { shutdown, tasks: TaskTracker::new(), abandoned: CancellationToken::new(), first_error: Arc::default() }
    }

    /// The token that stops every task of this supervisor.
    pub fn shutdown(&self) -> Shutdown {
        self.shutdown.clone()
    }

    /// A supervisor for a part: it stops with this one, and can be stopped on its own.
    pub fn child(&self) -> Self {
        Self::new(self.shutdown.child_token())
    }

    /// Runs a task until it returns. An error stops every other task. So does a panic in tests; in km itself it ends the process
    /// ([`abort_on_panic`]).
    pub fn spawn<F>(&self, name: impl Into<String>, task: F)
    where
        F: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        let (shutdown, first_error, name) = (self.shutdown.clone(), self.first_error.clone(), name.into());
        let inner = self.tasks.spawn(self.abandoned.clone().run_until_cancelled_owned(task));
        self.tasks.spawn(async move {
            let error = match inner.await {
                Ok(None | Some(Ok(()))) => return,
                Ok(Some(Err(error))) => error.context(name),
                Err(join) => anyhow::anyhow!("{name}: {join}"),
            };
            if !shutdown.is_cancelled() {
                tracing::error!("{error:#}");
            }
            first_error.lock().get_or_insert(error);
            shutdown.cancel();
        });
    }

    /// Runs a task without a result, such as a connection.
    pub fn spawn_quiet<F>(&self, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let abandoned = self.abandoned.clone();
        self.tasks.spawn(async move { abandoned.run_until_cancelled(task).await });
    }

    /// How many tasks have not returned.
    #[cfg(test)]
    pub(crate) fn running(&self) -> usize {
        self.tasks.len()
    }

    /// Waits until the shutdown token is cancelled, then at most `grace` for every task to return. Tasks that run longer, or whose
    /// supervisor is no longer waited for, are dropped at their next await.
    ///
    /// # Errors
    /// The first error of a task, or that tasks were still running after `grace`.
    pub async fn wait(self, grace: Duration) -> anyhow::Result<()> {
        let _abandoned = self.abandoned.clone().drop_guard();
        self.shutdown.cancelled().await;
        self.tasks.close();
        let drained = tokio::time::timeout(grace, self.tasks.wait()).await;
        if let Some(error) = self.first_error.lock().take() {
            return Err(error);
        }
        drained.map_err(|_| anyhow::anyhow!("{} tasks were still running {grace:?} after the stop", self.tasks.len()))
    }
}

/// Cancels `shutdown` on the first SIGINT or SIGTERM; a second one ends the process at once with status 130.
///
/// # Errors
/// If the signal handlers cannot be installed.
pub async fn cancel_on_signals(shutdown: Shutdown) -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    for turn in 0.. {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        if turn == 0 {
            tracing::info!("stopping");
            shutdown.cancel();
        } else {
            std::process::exit(130);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Dropping the wait, as a leader does that has lost its lease, leaves no task running.
    #[tokio::test(start_paused = true)]
    async fn what_nobody_waits_for_ends() {
        let (alive, supervisor) = (Arc::new(()), Supervisor::default());
        let (one, other) = (alive.clone(), alive.clone());
        supervisor.spawn("deaf", async move {
            let _alive = one;
            std::future::pending().await
        });
        supervisor.spawn_quiet(async move {
            let _alive = other;
            std::future::pending().await
        });
        let tasks = supervisor.tasks.clone();
        assert!(tokio::time::timeout(Duration::from_secs(1), supervisor.wait(Duration::from_secs(10))).await.is_err());
        tasks.close();
        tasks.wait().await;
        assert_eq!(Arc::strong_count(&alive), 1);
    }
}
