//! Names and labels of a pod's containers, by which others find them: this executor after a restart, `docker ps`, and tools that read the
//! kubelet's labels.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Pod;

use crate::object::pod::MIRROR;
use crate::runtime::{Container, Summary};

pub const POD_NAME: &str = "io.kubernetes.pod.name";
pub const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
pub const POD_UID: &str = "io.kubernetes.pod.uid";
pub const CONTAINER_NAME: &str = "io.kubernetes.container.name";
const ATTEMPT: &str = "io.kubernetes.container.restartCount";
const KIND: &str = "io.kubernetes.docker.type";
const SANDBOX: &str = "io.kubernetes.sandbox.id";
/// Which executor a container belongs to: several may share an engine.
pub const OWNER: &str = "io.km.executor";

/// Takes the place of the container's name in a sandbox's name.
const SANDBOX_NAME: &str = "POD";

/// Identifies a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PodId {
    pub uid: String,
    pub namespace: String,
    pub name: String,
}

impl PodId {
    pub fn of(pod: &Pod) -> Self {
        let meta = &pod.metadata;
        Self {
            uid: meta.uid.clone().unwrap_or_default(),
            namespace: meta.namespace.clone().unwrap_or_default(),
            name: meta.name.clone().unwrap_or_default(),
        }
    }

    pub fn of_labels(labels: &BTreeMap<String, String>) -> Option<Self> {
        let get = |label| labels.get(label).cloned();
        Some(Self { uid: get(POD_UID)?, namespace: get(POD_NAMESPACE)?, name: get(POD_NAME)? })
    }
}

/// The uid of the static pod that this pod of the API shows, if it is a mirror pod.
pub fn mirrored(pod: &Pod) -> Option<&String> {
    pod.metadata.annotations.as_ref()?.get(MIRROR)
}

/// The uid that a pod of the API has on its node.
pub fn uid_on_node(pod: &Pod) -> &str {
    mirrored(pod).or(pod.metadata.uid.as_ref()).map_or("", String::as_str)
}

/// The form of log lines.
impl std::fmt::Display for PodId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// `k8s_<container>_<pod>_<namespace>_<uid>_<attempt>`; no part can contain an underscore.
pub fn container_name(pod: &PodId, container: &str, attempt: u32) -> String {
    format!("k8s_{container}_{}_{}_{}_{attempt}", pod.name, pod.namespace, pod.uid)
}

pub fn sandbox_name(pod: &PodId, attempt: u32) -> String {
    container_name(pod, SANDBOX_NAME, attempt)
}

fn common(pod: &PodId, owner: &str, attempt: u32) -> BTreeMap<String, String> {
    BTreeMap::from([
        (POD_NAME.to_owned(), pod.name.clone()),
        (POD_NAMESPACE.to_owned(), pod.namespace.clone()),
        (POD_UID.to_owned(), pod.uid.clone()),
        (ATTEMPT.to_owned(), attempt.to_string()),
        (OWNER.to_owned(), owner.to_owned()),
    ])
}

pub fn sandbox_labels(pod: &PodId, owner: &str, attempt: u32) -> BTreeMap<String, String> {
    let mut labels = common(pod, owner, attempt);
    labels.insert(KIND.to_owned(), "podsandbox".to_owned());
    labels.insert(CONTAINER_NAME.to_owned(), SANDBOX_NAME.to_owned());
    labels
}

pub fn container_labels(pod: &PodId, owner: &str, attempt: u32, container: &str, sandbox: &str) -> BTreeMap<String, String> {
    let mut labels = common(pod, owner, attempt);
    labels.insert(KIND.to_owned(), "container".to_owned());
    labels.insert(CONTAINER_NAME.to_owned(), container.to_owned());
    labels.insert(SANDBOX.to_owned(), sandbox.to_owned());
    labels
}

/// The role of a container in its pod, read from its labels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    Sandbox,
    Container { name: String, sandbox: String },
}

pub fn role(container: &Container) -> Option<Role> {
    let get = |label| container.labels.get(label).cloned();
    match get(KIND)?.as_str() {
        "podsandbox" => Some(Role::Sandbox),
        "container" => Some(Role::Container { name: get(CONTAINER_NAME)?, sandbox: get(SANDBOX).unwrap_or_default() }),
        _ => None,
    }
}

pub fn attempt(container: &Container) -> u32 {
    container.labels.get(ATTEMPT).and_then(|text| text.parse().ok()).unwrap_or_default()
}

/// Whether a listed container is one of this executor's.
pub fn is_owned(summary: &Summary, owner: &str) -> bool {
    summary.labels.get(OWNER).is_some_and(|it| it == owner)
}
