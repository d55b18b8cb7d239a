//! State shared by all pod workers of a node.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolume, PersistentVolumeClaim, Pod, Secret, Service};
use parking_lot::RwLock;

use super::config::Config;
use super::env::{Needs, References};
use super::events;
use super::fields::Facts;
use super::images::Registries;
use super::pod::{Failure, Happening};
use super::spec::Node;
use super::statuses::Statuses;
use super::volumes::disk;
use crate::cache::{Cache, Query};
use crate::client::Client;
use crate::client::events::{EventRecorder, EventType};
use crate::object::{Object, ResourceRef, resource};
use crate::runtime::{Runtime, pause};

/// The engine's properties, from its last response.
#[derive(Clone, Debug, Default)]
pub struct Engine {
    /// `docker`; empty until it has answered once.
    pub name: String,
    pub cgroup_paths: bool,
}

/// The node's resources for pods.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Capacity {
    /// Thousandths of a CPU.
    pub cpu: i64,
    /// Bytes.
    pub memory: i64,
}

#[derive(Debug)]
pub struct Shared {
    pub config: Config,
    pub runtime: Arc<dyn Runtime>,
    pub client: Client,
    pub cache: Arc<Cache>,
    pub statuses: Statuses,
    pub events: EventRecorder,
    pub engine: RwLock<Engine>,
    pub capacity: RwLock<Capacity>,
    /// Whether this process may lower OOM scores.
    pub may_protect: bool,
    /// The making of the pause image.
    pub pausing: Together,
}

impl Shared {
    pub fn node(&self) -> Node<'_> {
        Node {
            config: &self.config,
            memory: self.capacity.read().memory,
            may_protect: self.may_protect,
            cgroup_paths: self.engine.read().cgroup_paths,
        }
    }

    pub fn facts(&self, pod_ips: Vec<String>) -> Facts {
        let capacity = *self.capacity.read();
        Facts {
            node_name: self.config.node_name.clone(),
            host_ip: self.config.node_ip.to_string(),
            pod_ips,
            node_cpu: capacity.cpu,
            node_memory: capacity.memory,
        }
    }

    pub fn pod_dir(&self, uid: &str) -> PathBuf {
        disk::pod_dir(&self.config.root_dir, uid)
    }

    /// Emits an Event about a pod. Never waits.
    pub fn tell(&self, pod: &Pod, happening: Happening) {
        let kind = if happening.warning { EventType::Warning } else { EventType::Normal };
        let about = events::reference(pod, happening.container.as_deref());
        self.events.event_about(about, kind, happening.reason, happening.message);
    }

    /// The image of sandboxes, which is there when this returns.
    ///
    /// # Errors
    /// If it cannot be made, or pulled.
    pub async fn pause_image(&self) -> Result<String, Failure> {
        let failed = |error: crate::runtime::RuntimeError| Failure::new("FailedCreatePodSandBox", format!("the pause image: {error}"));
        let own = self.config.pause_image.is_none();
        let image = self.config.pause_image.clone().unwrap_or_else(pause::reference);
        let is_there = async || Ok(self.runtime.image(&image).await.map_err(failed)?.is_some());
        if !is_there().await? {
            let make = async {
                if own {
                    return pause::ensure(&*self.runtime, &self.config.executable).await.map_err(failed);
                }
                // Another pod's worker may have pulled it meanwhile.
                if is_there().await? {
                    return Ok(());
                }
                self.runtime.pull(&image, None, &|_| ()).await.map(drop).map_err(failed)
            };
            self.pausing.attempt(make).await?;
        }
        Ok(image)
    }

    /// The current ConfigMaps and Secrets of a namespace.
    ///
    /// # Errors
    /// If the API server does not respond.
    pub async fn references(&self, namespace: &str, needs: &Needs) -> Result<References, Failure> {
        let mut references = References::default();
        for name in &needs.config_maps {
            let found = self.get::<ConfigMap>(&resource::CONFIG_MAP, namespace, name).await?;
            references.config_maps.insert(name.clone(), found);
        }
        for name in &needs.secrets {
            let found = self.get::<Secret>(&resource::SECRET, namespace, name).await?;
            references.secrets.insert(name.clone(), found);
        }
        for name in &needs.claims {
            let volume = self.claimed(namespace, name).await?;
            references.claims.insert(name.clone(), volume);
        }
        Ok(references)
    }

    /// The volume that a claim is bound to, if it is.
    async fn claimed(&self, namespace: &str, claim: &str) -> Result<Option<PersistentVolume>, Failure> {
        let claim = self.get::<PersistentVolumeClaim>(&resource::PERSISTENT_VOLUME_CLAIM, namespace, claim).await?;
        let bound = claim.filter(|it| it.status.as_ref().is_some_and(|it| it.phase.as_deref() == Some("Bound")));
        match bound.and_then(|it| it.spec?.volume_name) {
            Some(volume) => self.get(&resource::PERSISTENT_VOLUME, "", &volume).await,
            None => Ok(None),
        }
    }

    async fn get<T>(&self, resource: ResourceRef, namespace: &str, name: &str) -> Result<Option<T>, Failure>
    where
        T: serde::de::DeserializeOwned + Clone + std::any::Any + Send + Sync,
    {
        let failed = |why: String| Failure::new("CreateContainerConfigError", why);
        match self.client.get(resource, namespace, name).await {
            Ok(object) => object.typed::<T>().cloned().map(Some).map_err(|error| failed(format!("{}: {error}", object.key()))),
            Err(error) if error.is("NotFound") => Ok(None),
            Err(error) => Err(failed(format!("{} {namespace}/{name}: {error}", resource.singular))),
        }
    }

    /// The services in the environment of a pod's containers: those of its namespace, and the API server's.
    pub fn services(&self, namespace: &str) -> Vec<Arc<Object>> {
        let query = |namespace: &str| Query { namespace: Some(namespace.to_owned()), ..Query::default() };
        let mut services = self.cache.list(&resource::SERVICE, &query(namespace)).objects;
        let api = self.config.product.api_service;
        if !services.iter().any(|service| service.name() == api) {
            services.extend(self.cache.get(&resource::SERVICE, "default", api));
        }
        services
    }

    /// Registry credentials: from the node's own file, and the pod's pull secrets. Missing secrets are skipped.
    pub async fn registries(&self, pod: &Pod) -> Registries {
        let mut registries = Registries::default();
        if let Some(path) = &self.config.docker_config
            && let Ok(content) = tokio::fs::read(path).await
        {
            registries.add_file(&content);
        }
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let secrets = pod.spec.iter().flat_map(|spec| spec.image_pull_secrets.iter().flatten());
        for secret in secrets {
            match self.get::<Secret>(&resource::SECRET, namespace, &secret.name).await {
                Ok(Some(secret)) => registries.add_secret(&secret),
                Ok(None) => tracing::warn!("pull secret {namespace}/{} is not there", secret.name),
                Err(failure) => tracing::warn!("pull secret: {}", failure.message),
            }
        }
        registries
    }
}

/// Work that one task at a time does for all that need it: if it fails, it fails for all tasks that were waiting, too.
#[derive(Debug, Default)]
pub struct Together(tokio::sync::Mutex<Option<(Instant, Failure)>>);

impl Together {
    /// # Errors
    /// The failure of `work`, or of another's work that ended after this was called.
    pub async fn attempt(&self, work: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
        let asked = Instant::now();
        let mut failed = self.0.lock().await;
        if let Some((_, failure)) = failed.as_ref().filter(|(at, _)| *at >= asked) {
            return Err(failure.clone());
        }
        work.await.inspect_err(|failure| *failed = Some((Instant::now(), failure.clone())))
    }
}

/// Borrowed typed services, for [`super::env::environment`].
pub fn typed_services(objects: &[Arc<Object>]) -> Vec<&Service> {
    let by_name: BTreeMap<&str, &Arc<Object>> = objects.iter().map(|object| (object.name(), object)).collect();
    by_name.into_values().filter_map(|object| object.typed::<Service>().ok()).collect()
}

/// Whether this process may set negative OOM scores: the capability `CAP_SYS_RESOURCE`.
pub fn may_protect() -> bool {
    const CAP_SYS_RESOURCE: u64 = 24;
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| u64::from_str_radix(line.strip_prefix("CapEff:")?.trim(), 16).ok());
    effective.is_some_and(|mask| mask & (1 << CAP_SYS_RESOURCE) != 0)
}

#[cfg(test)]
mod tests {
    use futures_util::future::join_all;

    use super::*;

    #[tokio::test]
    async fn who_waits_for_one_that_fails_does_not_try_it_again() {
        let (together, tries) = (Together::default(), std::cell::Cell::new(0));
        let attempt = |result: Result<(), Failure>| {
            together.attempt(async {
                tries.set(tries.get() + 1);
                tokio::task::yield_now().await;
                result
            })
        };
        let failure = Failure::new("FailedCreatePodSandBox", "no progress");
        let results = join_all((0..10).map(|_| attempt(Err(failure.clone())))).await;
        assert_eq!((tries.get(), results), (1, vec![Err(failure.clone()); 10]));
        // A later caller tries again.
        assert_eq!(attempt(Ok(())).await, Ok(()));
        assert_eq!(attempt(Err(failure.clone())).await, Err(failure));
        assert_eq!(tries.get(), 3);
    }
}
