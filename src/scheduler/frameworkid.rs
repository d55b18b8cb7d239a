//! Storage of the framework id between runs, so that a new scheduler takes over the tasks of the previous one.

use std::fmt::Debug;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;

use crate::mesos::zookeeper::{self, Ensemble, ServerError};
use crate::store::{Expect, Outcome, Store};
use crate::supervise::Shutdown;
use crate::util::backoff::Backoff;
use crate::util::product::Product;

/// A store of small texts by key.
pub trait StateStore: Debug + Send + Sync {
    fn get<'a>(&'a self, key: &'a str) -> BoxFuture<'a, anyhow::Result<Option<String>>>;

    /// With a `ttl` the key expires unless it is set again within that time, if the store supports that.
    ///
    /// # Errors
    /// [`Mismatch`] if the store keeps another text and does not replace it.
    fn set<'a>(&'a self, key: &'a str, value: &'a str, ttl: Option<Duration>) -> BoxFuture<'a, anyhow::Result<()>>;

    fn delete<'a>(&'a self, key: &'a str) -> BoxFuture<'a, anyhow::Result<()>>;
}

/// Another scheduler has registered the framework meanwhile: only one of the two can continue.
#[derive(Debug, thiserror::Error)]
#[error("framework ID mismatch: {key} holds {found:?}, and this scheduler's is {ours:?}")]
pub struct Mismatch {
    pub key: String,
    pub found: String,
    pub ours: String,
}

/// State in ZooKeeper. It lives until it is deleted, and is never replaced.
#[derive(Clone, Debug)]
pub struct InZooKeeper(pub Ensemble);

impl InZooKeeper {
    /// Opens a session per call: there is one call at the start, and one at a registration.
    async fn session<T>(&self, work: impl AsyncFnOnce(&mut zookeeper::Client) -> anyhow::Result<T>) -> anyhow::Result<T> {
        let start = rand::random_range(0..self.0.servers.len());
        let mut client = zookeeper::Client::open(&self.0, start).await.with_context(|| self.0.to_string())?;
        let outcome = work(&mut client).await;
        client.close().await;
        outcome
    }
}

/// Maps the error for a missing node to `None`.
fn if_there<T>(outcome: Result<T, zookeeper::Error>) -> Result<Option<T>, zookeeper::Error> {
    match outcome {
        Err(zookeeper::Error::Server(ServerError::NoNode)) => Ok(None),
        other => other.map(Some),
    }
}

impl StateStore for InZooKeeper {
    fn get<'a>(&'a self, key: &'a str) -> BoxFuture<'a, anyhow::Result<Option<String>>> {
        self.session(async move |client| {
            let Some(data) = if_there(client.data(key).await)? else { return Ok(None) };
            Ok(Some(String::from_utf8(data.to_vec()).with_context(|| format!("{key} is not text"))?))
        })
        .boxed()
    }

    fn set<'a>(&'a self, key: &'a str, value: &'a str, _ttl: Option<Duration>) -> BoxFuture<'a, anyhow::Result<()>> {
        self.session(async move |client| {
            for (at, _) in key.match_indices('/').skip(1) {
                match client.create(&key[..at], b"").await {
                    Err(zookeeper::Error::Server(ServerError::NodeExists)) => {}
                    made => made?,
                }
            }
            match client.create(key, value.as_bytes()).await {
                Err(zookeeper::Error::Server(ServerError::NodeExists)) => {}
                made => return Ok(made?),
            }
            let found = String::from_utf8_lossy(&client.data(key).await?).into_owned();
            if found == value { Ok(()) } else { Err(Mismatch { key: key.to_owned(), found, ours: value.to_owned() }.into()) }
        })
        .boxed()
    }

    fn delete<'a>(&'a self, key: &'a str) -> BoxFuture<'a, anyhow::Result<()>> {
        self.session(async move |client| Ok(if_there(client.delete(key).await).map(drop)?)).boxed()
    }
}

/// State in the store of the API objects, next to them.
#[derive(Clone, Debug)]
pub struct InStore(pub Arc<dyn Store>);

impl InStore {
    /// Writes (or, without a value, deletes) the key, retrying on conflicts with other writers.
    async fn write(&self, key: &str, value: Option<&str>, ttl: Option<Duration>) -> anyhow::Result<()> {
        let mut current = self.0.get(key).await?;
        loop {
            let expect = current.as_ref().map_or(Expect::Absent, |entry| Expect::At(entry.revision));
            let outcome = match (value, &current) {
                (Some(value), _) => self.0.put(key, Bytes::copy_from_slice(value.as_bytes()), expect, ttl).await?,
                (None, Some(entry)) => self.0.delete(key, entry.revision).await?,
                (None, None) => return Ok(()),
            };
            match outcome {
                Outcome::Done(_) => return Ok(()),
                Outcome::Conflict(newer) => current = newer,
            }
        }
    }
}

impl StateStore for InStore {
    fn get<'a>(&'a self, key: &'a str) -> BoxFuture<'a, anyhow::Result<Option<String>>> {
        async move {
            let Some(entry) = self.0.get(key).await? else { return Ok(None) };
            Ok(Some(String::from_utf8(entry.value.to_vec()).with_context(|| format!("{key} is not text"))?))
        }
        .boxed()
    }

    fn set<'a>(&'a self, key: &'a str, value: &'a str, ttl: Option<Duration>) -> BoxFuture<'a, anyhow::Result<()>> {
        self.write(key, Some(value), ttl).boxed()
    }

    fn delete<'a>(&'a self, key: &'a str) -> BoxFuture<'a, anyhow::Result<()>> {
        self.write(key, None, None).boxed()
    }
}

/// The location of a framework's id, given by `--framework-store-uri`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreUri {
    /// `etcd://`, or `etcd:///path` for another path than the default.
    Etcd { path: String },
    /// `zk://hosts/path`.
    ZooKeeper(Ensemble),
}

impl Default for StoreUri {
    fn default() -> Self {
        Self::Etcd { path: String::new() }
    }
}

impl FromStr for StoreUri {
    type Err = anyhow::Error;

    fn from_str(uri: &str) -> anyhow::Result<Self> {
        let ensemble = uri.strip_prefix("zk://").and_then(Ensemble::parse);
        if let Some(ensemble) = ensemble.filter(|it| !it.path.is_empty()) {
            return Ok(Self::ZooKeeper(ensemble));
        }
        let Some(rest) = uri.strip_prefix("etcd://") else {
            bail!("{uri:?} is neither etcd://, etcd:///path nor zk://host:port,.../path");
        };
        // The host part of the URI has always been ignored.
        let path = rest.find('/').map_or("", |at| &rest[at..]).trim_matches('/');
        Ok(Self::Etcd { path: path.to_owned() })
    }
}

impl StoreUri {
    /// The key of a framework's id: `/k8sm/<framework>/frameworkid` in etcd, `<path>/<framework>` in ZooKeeper.
    pub fn key(&self, product: &Product, framework: &str) -> String {
        match self {
            Self::Etcd { path } => format!("/{}/{framework}/frameworkid", if path.is_empty() { product.state_root } else { path }),
            Self::ZooKeeper(ensemble) => format!("{}/{framework}", ensemble.path),
        }
    }
}

/// Stores one framework's id.
#[derive(Clone, Debug)]
pub(super) struct Keeper {
    pub(super) store: Arc<dyn StateStore>,
    pub(super) key: String,
    /// How long the id is valid after its scheduler has gone; `None`: it is not stored at all.
    pub(super) failover: Option<Duration>,
    pub(super) refresh: Duration,
}

/// A longer time to live counts as none.
const FOR_EVER: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
const PAUSE: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));

impl Keeper {
    /// The id of the previous run. Waits for the store if that is unreachable. If ids are not kept, removes a stored one.
    pub(super) async fn load(&self) -> Option<String> {
        let (mut backoff, mut told) = (Backoff::new(PAUSE.0, PAUSE.1), String::new());
        loop {
            let loaded = match self.failover {
                Some(_) => self.store.get(&self.key).await.map(|it| it.filter(|id| !id.trim().is_empty())),
                None => self.store.delete(&self.key).await.map(|()| None),
            };
            match loaded {
                Ok(id) => return id,
                Err(error) => {
                    let why = format!("{error:#}");
                    if why != told {
                        tracing::warn!("the framework id cannot be read: {why}");
                        told = why;
                    }
                }
            }
            tokio::time::sleep(backoff.pause()).await;
        }
    }

    /// Stores an id, repeatedly if it has a time to live.
    ///
    /// # Errors
    /// [`Mismatch`]; other errors are retried.
    pub(super) async fn keep(self, id: String, shutdown: Shutdown) -> anyhow::Result<()> {
        let Some(failover) = self.failover else { return Ok(()) };
        let ttl = (failover < FOR_EVER).then(|| Duration::from_secs(failover.as_secs().max(1)));
        let refresh = self.refresh.min((failover / 2).max(Duration::from_secs(1)));
        let mut backoff = Backoff::new(PAUSE.0, PAUSE.1);
        let keeping = async {
            loop {
                let pause = match self.store.set(&self.key, &id, ttl).await {
                    Ok(()) if ttl.is_none() => return Ok(()),
                    Ok(()) => {
                        backoff.reset();
                        refresh
                    }
                    Err(error) if error.is::<Mismatch>() => return Err(error),
                    Err(error) => {
                        tracing::warn!("the framework id cannot be stored: {error:#}");
                        backoff.pause()
                    }
                };
                tokio::time::sleep(pause).await;
            }
        };
        shutdown.run_until_cancelled(keeping).await.unwrap_or(Ok(()))
    }

    /// Deletes the id: Mesos will never accept it again.
    pub(super) async fn forget(&self) -> anyhow::Result<()> {
        self.store.delete(&self.key).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::util::product::KUBERNETES;

    #[test]
    fn keys_follow_the_uri() {
        for (uri, key) in [
            ("etcd://", "/k8sm/Kubernetes/frameworkid"),
            ("etcd:///a/b/", "/a/b/Kubernetes/frameworkid"),
            ("etcd://host", "/k8sm/Kubernetes/frameworkid"),
            ("zk://h1:2181,h2/a/b", "/a/b/Kubernetes"),
        ] {
            assert_eq!(uri.parse::<StoreUri>().unwrap().key(KUBERNETES, "Kubernetes"), key, "{uri}");
        }
        for uri in ["", "/a", "zk://", "zk://h:2181", "zk://h:port/a", "http://h"] {
            assert!(uri.parse::<StoreUri>().is_err(), "{uri}");
        }
    }
}
