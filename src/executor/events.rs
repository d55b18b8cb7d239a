//! Object references in Events about a pod.

use k8s_openapi::api::core::v1::{ObjectReference, Pod};

use super::pod::{Role, units};

/// The pod, or the container of it, that an event is about.
pub fn reference(pod: &Pod, container: Option<&str>) -> ObjectReference {
    let path = container.and_then(|name| {
        let unit = units(pod.spec.as_ref()?).find(|unit| unit.spec.name == name)?;
        let list = if unit.role == Role::Main { "containers" } else { "initContainers" };
        Some(format!("spec.{list}{{{name}}}"))
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
