//! Binding a launched pod to this node, in the API.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use serde_json::json;

use super::names::PodId;
use super::shared::Shared;
use super::tasks::{ANNOTATION_UPDATE_FAILURE, BindFailure, CREATE_BINDING_FAILURE};
use crate::client::{ClientError, Patch};
use crate::object::resource;

/// Pauses between tries while the API server does not answer.
const PAUSES: [Duration; 6] = [
    Duration::from_millis(200),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(5),
    Duration::from_secs(10),
];

/// Binding of a pod, without I/O: begins with [`Step::Try`], and takes the result of each step.
#[derive(Debug)]
pub struct Binding {
    failure: BindFailure,
    tries: usize,
}

/// The next step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Ask the API server to bind the pod, and pass the result to [`Binding::tried`].
    Try,
    /// Check whether the pod is bound as wanted, and pass the result to [`Binding::looked`].
    Look,
    /// Wait, then try again: while the API server is unreachable, it is unknown whether the pod is bound.
    Wait(Duration),
    Bound,
    Failed(BindFailure),
}

impl Binding {
    pub fn of(pod: &Pod) -> Self {
        Self { failure: if has_node(pod) { ANNOTATION_UPDATE_FAILURE } else { CREATE_BINDING_FAILURE }, tries: 0 }
    }

    pub fn tried(&mut self, result: Result<(), &ClientError>) -> Step {
        self.tries += 1;
        match result {
            Ok(()) => Step::Bound,
            // A try that seemed to fail may have succeeded.
            Err(ClientError::Api(status)) if status.code < 500 && status.code != 429 => Step::Look,
            Err(_) => self.wait(),
        }
    }

    /// Takes whether the pod is bound; `None` if the API server did not respond.
    pub fn looked(&self, is_bound: Option<bool>) -> Step {
        match is_bound {
            Some(true) => Step::Bound,
            Some(false) => Step::Failed(self.failure),
            None => self.wait(),
        }
    }

    fn wait(&self) -> Step {
        let [.., longest] = PAUSES;
        Step::Wait(PAUSES.get(self.tries - 1).copied().unwrap_or(longest))
    }
}

/// A static pod already names its node; the scheduler only adds its annotations.
fn has_node(pod: &Pod) -> bool {
    pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).is_some_and(|node| !node.is_empty())
}

/// Sets the pod's node and the scheduler's annotations in the API. Returns the pod to run, even before the watch shows it.
///
/// # Errors
/// If the API server rejects the binding.
pub async fn bind(shared: &Shared, mut pod: Pod) -> Result<Arc<Pod>, BindFailure> {
    let (id, mut binding, mut step) = (PodId::of(&pod), Binding::of(&pod), Step::Try);
    loop {
        step = match step {
            Step::Try => {
                let result = attempt(shared, &id, &pod).await;
                if let Err(error) = &result {
                    tracing::warn!(pod = %id, "the pod cannot be bound: {error}");
                }
                binding.tried(result.as_ref().copied())
            }
            Step::Look => binding.looked(is_bound(shared, &id, &pod).await),
            Step::Wait(pause) => {
                tokio::time::sleep(pause).await;
                Step::Try
            }
            Step::Bound => break,
            Step::Failed(failure) => return Err(failure),
        }
    }
    if let Some(spec) = &mut pod.spec {
        spec.node_name = Some(shared.config.node_name.clone());
    }
    Ok(Arc::new(pod))
}

async fn attempt(shared: &Shared, id: &PodId, pod: &Pod) -> Result<(), ClientError> {
    let (client, annotations) = (&shared.client, &pod.metadata.annotations);
    if has_node(pod) {
        let patch = Patch::Merge(json!({"metadata": {"uid": id.uid, "annotations": annotations}}));
        return client.patch(&resource::POD, &id.namespace, &id.name, "", &patch).await.map(drop);
    }
    let host = annotations.as_ref().and_then(|it| it.get(&shared.config.product.annotation("bindingHost")));
    let binding = json!({
        "kind": "Binding",
        "apiVersion": "v1",
        "metadata": {"namespace": id.namespace, "name": id.name, "uid": id.uid, "annotations": annotations},
        "target": {"kind": "Node", "name": host.unwrap_or(&shared.config.node_name)},
    });
    client.post(&resource::POD, &id.namespace, &id.name, "binding", &binding).await.map(drop)
}

/// Whether the pod is already bound to this task and node; `None` if the API server does not respond.
async fn is_bound(shared: &Shared, id: &PodId, pod: &Pod) -> Option<bool> {
    let object = match shared.client.get(&resource::POD, &id.namespace, &id.name).await {
        Ok(object) => object,
        Err(error) if error.is("NotFound") => return Some(false),
        Err(_) => return None,
    };
    let there = object.typed::<Pod>().ok()?;
    let task = |pod: &Pod| pod.metadata.annotations.as_ref()?.get(&shared.config.product.annotation("taskId")).cloned();
    let is_here = object.field("spec.nodeName") == Some(&shared.config.node_name);
    Some(is_here && task(there) == task(pod) && object.meta().uid == id.uid.as_str().into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::Status;

    #[test]
    fn only_an_answer_ends_a_binding() {
        let mut binding = Binding::of(&Pod::default());
        let unreachable = ClientError::Unreachable(anyhow::anyhow!("gone"));
        for pause in PAUSES.iter().chain([&PAUSES[5]; 3]) {
            assert_eq!(binding.tried(Err(&unreachable)), Step::Wait(*pause));
        }
        let conflict = ClientError::Api(Box::new(Status::conflict(&resource::POD, "web", "is already assigned to a node")));
        assert_eq!(binding.tried(Err(&conflict)), Step::Look);
        assert_eq!(binding.looked(None), Step::Wait(PAUSES[5]), "it may be bound to this node");
        assert_eq!(binding.looked(Some(true)), Step::Bound);
        assert_eq!(binding.looked(Some(false)), Step::Failed(CREATE_BINDING_FAILURE));
        assert_eq!(binding.tried(Ok(())), Step::Bound);
    }
}
