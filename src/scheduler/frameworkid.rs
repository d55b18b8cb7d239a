//! Where the framework id is kept between runs, so that a new scheduler takes over the tasks of the one before.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;

use crate::store::{Expect, Outcome, Store};
use crate::supervise::Shutdown;
use crate::util::backoff::Backoff;
use crate::util::product::Product;

/// Keeps small texts under keys. Writes are unconditional.
pub trait StateStore: Debug + Send + Sync {
    fn get<'a>(&'a self, key: &'a str) -> BoxFuture<'a, anyhow::Result<Option<String>>>;

    /// With a `ttl` the key vanishes unless it is set again within that time.
    fn set<'a>(&'a self, key: &'a str, value: &'a str, ttl: Option<Duration>) -> BoxFuture<'a, anyhow::Result<()>>;

    fn delete<'a>(&'a self, key: &'a str) -> BoxFuture<'a, anyhow::Result<()>>;
}

/// State in the store of the API objects, beside them.
#[derive(Clone, Debug)]
pub struct InStore(pub Arc<dyn Store>);

impl InStore {
    /// Writes (or, without a value, deletes) whatever is there now; somebody else may be writing too.
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

/// The key of a framework's id: `/k8sm/<framework>/frameworkid`, or below the path of an `etcd:///path` URI.
///
/// # Errors
/// For a URI of another scheme.
pub fn key(product: &Product, uri: &str, framework: &str) -> anyhow::Result<String> {
    let Some(rest) = uri.strip_prefix("etcd://") else {
        bail!("--framework-store-uri {uri:?}: only etcd:// is supported");
    };
    // What stands where a URI has its host never counted.
    let path = rest.find('/').map_or("", |at| &rest[at..]).trim_matches('/');
    let root = if path.is_empty() { product.state_root } else { path };
    Ok(format!("/{root}/{framework}/frameworkid"))
}

/// Keeps one framework's id.
#[derive(Clone, Debug)]
pub(super) struct Keeper {
    pub(super) store: Arc<dyn StateStore>,
    pub(super) key: String,
    /// How long the id is of use after its scheduler is gone; `None`: it is not kept at all.
    pub(super) failover: Option<Duration>,
    pub(super) refresh: Duration,
}

/// A time to live beyond this is none.
const FOR_EVER: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
const PAUSE: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));

impl Keeper {
    /// The id of the run before, waiting for the store if it is out of reach. If ids are not kept, one that is there is removed.
    pub(super) async fn load(&self) -> Option<String> {
        let mut backoff = Backoff::new(PAUSE.0, PAUSE.1);
        loop {
            let loaded = match self.failover {
                Some(_) => self.store.get(&self.key).await.map(|it| it.filter(|id| !id.trim().is_empty())),
                None => self.store.delete(&self.key).await.map(|()| None),
            };
            match loaded {
                Ok(id) => return id,
                Err(error) => tracing::warn!("the framework id cannot be read: {error:#}"),
            }
            tokio::time::sleep(backoff.pause()).await;
        }
    }

    /// Stores an id, again and again if it has a time to live.
    pub(super) async fn keep(self, id: String, shutdown: Shutdown) -> anyhow::Result<()> {
        let Some(failover) = self.failover else { return Ok(()) };
        let ttl = (failover < FOR_EVER).then(|| Duration::from_secs(failover.as_secs().max(1)));
        let refresh = self.refresh.min((failover / 2).max(Duration::from_secs(1)));
        let mut backoff = Backoff::new(PAUSE.0, PAUSE.1);
        let keeping = async {
            loop {
                let pause = match self.store.set(&self.key, &id, ttl).await {
                    Ok(()) if ttl.is_none() => return,
                    Ok(()) => {
                        backoff.reset();
                        refresh
                    }
                    Err(error) => {
                        tracing::warn!("the framework id cannot be stored: {error:#}");
                        backoff.pause()
                    }
                };
                tokio::time::sleep(pause).await;
            }
        };
        shutdown.run_until_cancelled(keeping).await;
        Ok(())
    }

    /// Forgets the id: Mesos will never take it again.
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
        let at = |uri: &str| key(KUBERNETES, uri, "Kubernetes");
        assert_eq!(at("etcd://").unwrap(), "/k8sm/Kubernetes/frameworkid");
        assert_eq!(at("etcd:///a/b/").unwrap(), "/a/b/Kubernetes/frameworkid");
        assert_eq!(at("etcd://host").unwrap(), "/k8sm/Kubernetes/frameworkid");
        assert!(at("zk://h:2181/a").is_err());
    }
}
