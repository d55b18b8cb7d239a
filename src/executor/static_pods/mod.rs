//! Static pods, which the scheduler sends in the executor's description rather than as tasks. Every agent runs them for as long as its
//! executor lives. The API server does not schedule them; each appears there as a copy, its mirror pod.

mod list;
mod mirror;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::names::{self, PodId};
use super::shared::Shared;
use crate::mesos::v1::ExecutorInfo;
use crate::object::{Object, resource};

pub use list::limits;

/// How long the mirrors' removal may take.
const REMOVAL: Duration = Duration::from_secs(5);

/// The static pods of this node, with their mirrors.
#[derive(Debug)]
pub struct StaticPods {
    shared: Arc<Shared>,
    /// By uid; `None` until the agent has reported them.
    pods: Option<BTreeMap<String, Shown>>,
    mirrors: JoinSet<()>,
}

#[derive(Debug)]
struct Shown {
    pod: Arc<Pod>,
    /// The newest status, for the mirror.
    status: watch::Sender<Option<PodStatus>>,
}

impl StaticPods {
    pub fn new(shared: Arc<Shared>) -> Self {
        Self { shared, pods: None, mirrors: JoinSet::new() }
    }

    /// Whether the agent has reported the static pods.
    pub fn are_known(&self) -> bool {
        self.pods.is_some()
    }

    /// The agent describes this executor; the same every time it does. The result is to be run.
    pub fn described(&mut self, executor: &ExecutorInfo) -> Vec<Arc<Pod>> {
        if self.are_known() {
            return Vec::new();
        }
        let pods = list::read(executor.data(), &self.shared.config, Timestamp::now()).unwrap_or_else(|error| {
            tracing::error!("the static pods in this executor's description: {error:#}");
            Vec::new()
        });
        let mut shown = BTreeMap::new();
        for mut pod in pods {
            let id = PodId::of(&pod);
            // An executor before this one may have run it already.
            let earlier = self.shared.cache.get(&resource::POD, &id.namespace, &id.name);
            let earlier = earlier.as_ref().and_then(|object| object.typed::<Pod>().ok()).filter(|it| names::mirrored(it) == Some(&id.uid));
            pod.status = earlier.and_then(|mirror| mirror.status.clone());
            let (pod, (status, statuses)) = (Arc::new(pod), watch::channel(None));
            self.mirrors.spawn(mirror::show(self.shared.clone(), pod.clone(), statuses));
            shown.insert(id.uid, Shown { pod, status });
        }
        let begun = shown.values().map(|it| it.pod.clone()).collect();
        self.pods = Some(shown);
        let there = self.shared.cache.list(&resource::POD, &self.shared.config.pods()).objects;
        there.iter().for_each(|object| self.remove_if_stray(object));
        begun
    }

    /// A static pod's status has changed. Returns the pod with that status, as the API server would send it for a pod of its own.
    pub fn report(&self, uid: &str, status: &PodStatus) -> Option<Arc<Pod>> {
        let shown = self.pods.as_ref()?.get(uid)?;
        shown.status.send_replace(Some(status.clone()));
        Some(Arc::new(Pod { status: Some(status.clone()), ..Pod::clone(&shown.pod) }))
    }

    /// Deletes a mirror pod of this node whose static pod no longer exists.
    pub fn remove_if_stray(&mut self, object: &Object) {
        let is_mirror = object.typed::<Pod>().is_ok_and(|pod| names::mirrored(pod).is_some());
        let Some(pods) = &self.pods else { return };
        let shows = |it: &Shown| {
            let id = PodId::of(&it.pod);
            id.namespace == object.namespace() && id.name == object.name()
        };
        if is_mirror && !pods.values().any(shows) {
            let (client, meta) = (self.shared.client.clone(), object.meta().clone());
            self.mirrors.spawn(async move {
                tracing::info!("removing the mirror pod {}: no static pod of this node belongs to it", meta.name);
                if let Err(error) = mirror::remove(&client, &meta.name.namespace, &meta.name.name, &meta.uid).await {
                    tracing::warn!("mirror pod {}: {error}", meta.name);
                }
            });
        }
    }

    /// The static pods have ended with their executor: deletes their mirrors.
    pub async fn end(mut self) {
        self.mirrors.shutdown().await;
        for shown in self.pods.take().unwrap_or_default().into_values() {
            let (shared, id) = (self.shared.clone(), PodId::of(&shown.pod));
            self.mirrors.spawn(async move {
                let Some(object) = shared.cache.get(&resource::POD, &id.namespace, &id.name) else { return };
                if object.typed::<Pod>().is_ok_and(|pod| names::mirrored(pod) == Some(&id.uid)) {
                    // If it remains, it is deleted with its node.
                    let _ = mirror::remove(&shared.client, &id.namespace, &id.name, &object.meta().uid).await;
                }
            });
        }
        let removed = async { while self.mirrors.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(REMOVAL, removed).await;
    }
}
