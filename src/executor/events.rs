//! What happens to pods, as Event objects.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{ObjectReference, Pod};
use tokio::sync::mpsc;

use super::pod::{Happening, units};
use super::shared::Shared;
use crate::supervise::Shutdown;

/// Something to be recorded, and the pod it happened to.
pub type Told = (Arc<Pod>, Happening);

/// The pod, or the container of it, that an event is about.
fn reference(pod: &Pod, container: Option<&str>) -> ObjectReference {
    let path = container.and_then(|name| {
        let of_init = |init: bool| if init { "initContainers" } else { "containers" };
        let unit = units(pod.spec.as_ref()?).find(|unit| unit.spec.name == name)?;
        Some(format!("spec.{}{{{name}}}", of_init(unit.role != super::pod::Role::Main)))
    });
    ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Pod".to_owned()),
        namespace: pod.metadata.namespace.clone(),
        name: pod.metadata.name.clone(),
        uid: pod.metadata.uid.clone(),
        resource_version: pod.metadata.resource_version.clone(),
        field_path: path,
    }
}

/// Records until `shutdown`.
pub async fn record(_shared: Arc<Shared>, mut happenings: mpsc::UnboundedReceiver<Told>, shutdown: Shutdown) {
    while let Some(Some((pod, happening))) = shutdown.run_until_cancelled(happenings.recv()).await {
        let about = reference(&pod, happening.container.as_deref());
        tracing::debug!(pod = about.name, "{}: {}", happening.reason, happening.message);
    }
}
