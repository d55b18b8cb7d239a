//! Docker, through its HTTP API. The only part of km that knows bollard.

mod image;
mod observe;
mod session;
mod spec;

use std::time::Duration;

use bollard::query_parameters as query;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use futures_util::{FutureExt, StreamExt};
use jiff::Timestamp;
use parking_lot::Mutex;

use super::{
    Container, ContainerSpec, Credentials, Event, ExecSession, ExecSpec, Image, LogChunk, LogOptions, Result, Runtime, RuntimeError, Stats,
    Summary, Version,
};

/// How long the engine may take to begin its answer.
const TIMEOUT: Duration = Duration::from_secs(120);
/// Extra time for a stop, beyond the grace period.
const STOP_SLACK: Duration = Duration::from_secs(30);
/// How far back a stream of events begins.
const EVENTS_OVERLAP: Duration = Duration::from_secs(2);

/// A Docker engine at `unix:///path` or `tcp://host:port`.
#[derive(Debug)]
pub struct Docker {
    endpoint: String,
    /// Connected to on the first call, so that the engine may come up later than km.
    api: Mutex<Option<bollard::Docker>>,
}

impl Docker {
    pub fn new(endpoint: &str) -> Self {
        Self { endpoint: endpoint.to_owned(), api: Mutex::new(None) }
    }

    /// The engine's client, speaking a version of the API that both sides know.
    async fn api(&self) -> Result<bollard::Docker> {
        if let Some(api) = &*self.api.lock() {
            return Ok(api.clone());
        }
        let (timeout, version) = (TIMEOUT.as_secs(), bollard::API_DEFAULT_VERSION);
        let connected = match self.endpoint.strip_prefix("unix://") {
            Some(path) => bollard::Docker::connect_with_unix(path, timeout, version),
            None => bollard::Docker::connect_with_http(&self.endpoint, timeout, version),
        };
        let api = match connected {
            Ok(api) => api.negotiate_version().await,
            Err(error) => Err(error),
        };
        let api = api.map_err(|error| RuntimeError::Unavailable(anyhow::Error::new(error).context(self.endpoint.clone())))?;
        *self.api.lock() = Some(api.clone());
        Ok(api)
    }

    /// Translates an error. An unreachable engine may come back as another version, so its cached API is dropped.
    fn failed(&self, error: bollard::errors::Error) -> RuntimeError {
        match translate(error) {
            RuntimeError::Unavailable(error) => {
                *self.api.lock() = None;
                // The intermediate errors add nothing to the innermost one.
                RuntimeError::Unavailable(anyhow::anyhow!("{}: {}", self.endpoint, error.root_cause()))
            }
            error => error,
        }
    }
}

fn translate(error: bollard::errors::Error) -> RuntimeError {
    use bollard::errors::Error;
    match error {
        Error::DockerResponseServerError { status_code: 404, message } => RuntimeError::NotFound(message),
        Error::DockerResponseServerError { status_code: 409, message } => RuntimeError::Conflict(message),
        Error::DockerResponseServerError { message, .. } => RuntimeError::Refused(message),
        Error::DockerStreamError { error } => RuntimeError::Refused(error),
        error => RuntimeError::Unavailable(error.into()),
    }
}

/// A stream that first needs the engine's client.
fn deferred<T, S, F>(client: impl Future<Output = Result<bollard::Docker>> + Send + 'static, open: F) -> BoxStream<'static, Result<T>>
where
    T: Send + 'static,
    S: futures_util::Stream<Item = Result<T>> + Send + 'static,
    F: FnOnce(bollard::Docker) -> S + Send + 'static,
{
    client
        .map(|client| match client {
            Ok(client) => open(client).left_stream(),
            Err(error) => futures_util::stream::iter([Err(error)]).right_stream(),
        })
        .flatten_stream()
        .boxed()
}

impl Runtime for Docker {
    fn version(&self) -> BoxFuture<'_, Result<Version>> {
        async move {
            let api = self.api().await?;
            let version = api.version().await.map_err(|error| self.failed(error))?;
            let info = api.info().await.map_err(|error| self.failed(error))?;
            Ok(observe::version(version, info))
        }
        .boxed()
    }

    fn image<'a>(&'a self, reference: &'a str) -> BoxFuture<'a, Result<Option<Image>>> {
        async move {
            match self.api().await?.inspect_image(reference).await.map_err(|error| self.failed(error)) {
                Ok(image) => Ok(Some(observe::image(image))),
                Err(RuntimeError::NotFound(_)) => Ok(None),
                Err(error) => Err(error),
            }
        }
        .boxed()
    }

    fn pull<'a>(
        &'a self,
        reference: &'a str,
        auth: Option<&'a Credentials>,
        progress: &'a (dyn Fn(&str) + Send + Sync),
    ) -> BoxFuture<'a, Result<Image>> {
        async move {
            image::pull(&self.api().await?, reference, auth, progress).await.map_err(|error| self.failed(error))?;
            self.image(reference).await?.ok_or_else(|| RuntimeError::NotFound(format!("the image {reference} is not there after its pull")))
        }
        .boxed()
    }

    fn import<'a>(&'a self, reference: &'a str, entrypoint: &'a [String], root: BoxStream<'static, Bytes>) -> BoxFuture<'a, Result<()>> {
        async move {
            // The whole upload comes before the answer begins.
            let api = self.api().await?.with_timeout(TIMEOUT * 5);
            image::import(&api, reference, entrypoint, root).await.map_err(|error| self.failed(error))
        }
        .boxed()
    }

    fn create<'a>(&'a self, spec: &'a ContainerSpec) -> BoxFuture<'a, Result<String>> {
        async move {
            let options = query::CreateContainerOptions { name: Some(spec.name.clone()), ..Default::default() };
            let created = self.api().await?.create_container(Some(options), spec::body(spec)).await.map_err(|error| self.failed(error))?;
            for warning in created.warnings {
                tracing::debug!(container = spec.name, "the engine warns: {warning}");
            }
            Ok(created.id)
        }
        .boxed()
    }

    fn start<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<()>> {
        async move {
            let none = None::<query::StartContainerOptions>;
            self.api().await?.start_container(id, none).await.map_err(|error| self.failed(error))
        }
        .boxed()
    }

    fn stop<'a>(&'a self, id: &'a str, grace: Duration) -> BoxFuture<'a, Result<()>> {
        async move {
            let seconds = grace.as_secs() + u64::from(grace.subsec_nanos() > 0);
            let options = query::StopContainerOptions { t: Some(i32::try_from(seconds).unwrap_or(i32::MAX)), ..Default::default() };
            let api = self.api().await?.with_timeout(TIMEOUT.max(grace + STOP_SLACK));
            match api.stop_container(id, Some(options)).await.map_err(|error| self.failed(error)) {
                Err(RuntimeError::NotFound(_)) => Ok(()),
                other => other,
            }
        }
        .boxed()
    }

    fn kill<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<()>> {
        async move {
            let options = query::KillContainerOptions { signal: "KILL".to_owned() };
            match self.api().await?.kill_container(id, Some(options)).await.map_err(|error| self.failed(error)) {
                // Missing, or not running.
                Err(RuntimeError::NotFound(_) | RuntimeError::Conflict(_)) => Ok(()),
                other => other,
            }
        }
        .boxed()
    }

    fn remove<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<()>> {
        async move {
            let options = query::RemoveContainerOptions { v: true, force: true, link: false };
            match self.api().await?.remove_container(id, Some(options)).await.map_err(|error| self.failed(error)) {
                Err(RuntimeError::NotFound(_)) => Ok(()),
                // Another request is already removing it.
                Err(RuntimeError::Conflict(why)) if why.contains("already in progress") => Ok(()),
                other => other,
            }
        }
        .boxed()
    }

    fn list<'a>(&'a self, label: &'a str, value: Option<&'a str>) -> BoxFuture<'a, Result<Vec<Summary>>> {
        async move {
            let label = value.map_or_else(|| label.to_owned(), |value| format!("{label}={value}"));
            let filters = Some([("label".to_owned(), vec![label])].into());
            let options = query::ListContainersOptions { all: true, filters, ..Default::default() };
            let listed = self.api().await?.list_containers(Some(options)).await.map_err(|error| self.failed(error))?;
            Ok(listed.into_iter().map(observe::summary).collect())
        }
        .boxed()
    }

    fn inspect<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<Container>> {
        async move {
            let none = None::<query::InspectContainerOptions>;
            let answer = self.api().await?.inspect_container(id, none).await.map_err(|error| self.failed(error))?;
            Ok(observe::container(answer))
        }
        .boxed()
    }

    fn logs(&self, id: &str, options: &LogOptions) -> BoxStream<'static, Result<LogChunk>> {
        let (id, options) = (id.to_owned(), options.clone());
        deferred(self.client(), move |api| session::logs(&api, &id, &options))
    }

    fn exec<'a>(&'a self, id: &'a str, spec: &'a ExecSpec) -> BoxFuture<'a, Result<ExecSession>> {
        async move { session::exec(&self.api().await?, id, spec).await.map_err(|error| self.failed(error)) }.boxed()
    }

    fn exec_exit_code<'a>(&'a self, exec: &'a str) -> BoxFuture<'a, Result<Option<i64>>> {
        async move {
            let state = self.api().await?.inspect_exec(exec).await.map_err(|error| self.failed(error))?;
            Ok(state.exit_code.filter(|_| state.running != Some(true)))
        }
        .boxed()
    }

    fn exec_resize<'a>(&'a self, exec: &'a str, width: u16, height: u16) -> BoxFuture<'a, Result<()>> {
        async move {
            let size = bollard::exec::ResizeExecOptions { height, width };
            self.api().await?.resize_exec(exec, size).await.map_err(|error| self.failed(error))
        }
        .boxed()
    }

    fn events(&self, label: &str) -> BoxStream<'static, Result<Event>> {
        let filters = [
            ("type".to_owned(), vec!["container".to_owned()]),
            ("label".to_owned(), vec![label.to_owned()]),
            ("event".to_owned(), ["start", "die", "oom", "destroy"].map(str::to_owned).to_vec()),
        ];
        // From a moment ago, so that no event is missed while the request is on its way; some may be reported twice.
        let since = (Timestamp::now() - EVENTS_OVERLAP).as_second().to_string();
        let options = query::EventsOptions { since: Some(since), filters: Some(filters.into()), ..Default::default() };
        deferred(self.client(), move |api| {
            api.events(Some(options)).filter_map(async |event| event.map(observe::event).map_err(translate).transpose())
        })
    }

    fn stats<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<Stats>> {
        async move {
            let options = query::StatsOptions { stream: false, one_shot: true };
            let stats = self.api().await?.stats(id, Some(options)).next().await;
            let stats = stats.ok_or_else(|| RuntimeError::NotFound(format!("no statistics of {id}")))?;
            Ok(observe::stats(&stats.map_err(|error| self.failed(error))?))
        }
        .boxed()
    }
}

impl Docker {
    /// A client for a stream that outlives the call: the existing one, or a new connection.
    fn client(&self) -> impl Future<Output = Result<bollard::Docker>> + Send + 'static {
        let known = Self { endpoint: self.endpoint.clone(), api: Mutex::new(self.api.lock().clone()) };
        async move { known.api().await }
    }
}
