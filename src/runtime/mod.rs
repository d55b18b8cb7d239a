//! The container runtime: a contract for the executor, its implementation on Docker, and a recording fake for tests and simulations. It
//! knows containers but not pods; the executor assigns names and labels.

pub mod docker;
pub mod fake;
pub mod pause;

mod types;

use std::fmt::Debug;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;

pub use types::*;

/// Why a request to the runtime failed.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// The engine does not answer at all.
    #[error("the container engine is out of reach: {0:#}")]
    Unavailable(#[source] anyhow::Error),
    /// No such container or image.
    #[error("{0}")]
    NotFound(String),
    /// The name is taken, or the container is in another state than the call needs.
    #[error("{0}")]
    Conflict(String),
    /// The engine answered with a failure, in its own words.
    #[error("{0}")]
    Refused(String),
}

pub type Result<T> = std::result::Result<T, RuntimeError>;

/// A container runtime. Every call is one request to the engine; no state is kept between calls.
pub trait Runtime: Debug + Send + Sync {
    /// Name and version of the engine. Also the health check.
    fn version(&self) -> BoxFuture<'_, Result<Version>>;

    /// The local image of this reference, if there is one.
    fn image<'a>(&'a self, reference: &'a str) -> BoxFuture<'a, Result<Option<Image>>>;

    /// Fetches an image from its registry. `progress` is called with each step, in the engine's words.
    fn pull<'a>(
        &'a self,
        reference: &'a str,
        auth: Option<&'a Credentials>,
        progress: &'a (dyn Fn(&str) + Send + Sync),
    ) -> BoxFuture<'a, Result<Image>>;

    /// Makes an image of a tar of its root directory.
    fn import<'a>(&'a self, reference: &'a str, entrypoint: &'a [String], root: BoxStream<'static, Bytes>) -> BoxFuture<'a, Result<()>>;

    /// Creates a container and answers its id.
    ///
    /// # Errors
    /// `Conflict` if the name is taken, `NotFound` if the image is not there.
    fn create<'a>(&'a self, spec: &'a ContainerSpec) -> BoxFuture<'a, Result<String>>;

    fn start<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<()>>;

    /// Asks the container to end, and kills it when it has not within `grace`. Returns when it has ended.
    fn stop<'a>(&'a self, id: &'a str, grace: Duration) -> BoxFuture<'a, Result<()>>;

    /// Sends SIGKILL.
    fn kill<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<()>>;

    /// Removes a container with its anonymous volumes, killing it if it runs. A container that is not there is no error.
    fn remove<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<()>>;

    /// Every container, running or not, that has the label (with this value, if one is given).
    fn list<'a>(&'a self, label: &'a str, value: Option<&'a str>) -> BoxFuture<'a, Result<Vec<Summary>>>;

    fn inspect<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<Container>>;

    /// The container's log, and with `follow` also its further output until it exits.
    fn logs(&self, id: &str, options: &LogOptions) -> BoxStream<'static, Result<LogChunk>>;

    /// Runs a command in a running container.
    fn exec<'a>(&'a self, id: &'a str, spec: &'a ExecSpec) -> BoxFuture<'a, Result<ExecSession>>;

    /// The exit code of a command whose output has ended; `None` while it is running.
    fn exec_exit_code<'a>(&'a self, exec: &'a str) -> BoxFuture<'a, Result<Option<i64>>>;

    /// Sets the size of a command's terminal, in characters.
    fn exec_resize<'a>(&'a self, exec: &'a str, width: u16, height: u16) -> BoxFuture<'a, Result<()>>;

    /// State changes of containers with the label, as they happen. The stream ends when the engine becomes unreachable.
    fn events(&self, label: &str) -> BoxStream<'static, Result<Event>>;

    fn stats<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<Stats>>;
}
