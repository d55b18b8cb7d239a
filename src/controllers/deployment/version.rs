//! A ReplicaSet as a rollout sees it: one version of the template, with its scale and its place in the history.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::rollout::Limits;
use crate::controllers::fingerprint::{fingerprint, short_name};
use crate::controllers::owners::controller_reference;
use crate::controllers::plan::{Plan, Tell, Write, tree};
use crate::object::{Object, resource};

const HASH_LABEL: &str = "pod-template-hash";
pub(super) const REVISION: &str = "deployment.kubernetes.io/revision";
const REVISIONS: &str = "deployment.kubernetes.io/revision-history";
const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
const MAXIMUM: &str = "deployment.kubernetes.io/max-replicas";
/// The revision to go back to.
pub(super) const ROLLBACK: &str = "deprecated.deployment.rollback.to";
/// Annotations of a deployment that its versions do not get.
pub(super) const OWN: [&str; 6] = [REVISION, REVISIONS, DESIRED, MAXIMUM, "kubectl.kubernetes.io/last-applied-configuration", ROLLBACK];

/// A version; `replicas` is its desired size.
#[derive(Clone, Debug)]
pub(super) struct Version {
    pub object: Arc<Object>,
    pub replicas: i64,
    /// Its current size.
    pub was: i64,
    /// Existing, ready and available pods.
    pub pods: i64,
    pub ready: i64,
    pub available: i64,
    pub revision: i64,
}

/// The fields read from a ReplicaSet, once per resource version.
#[derive(Debug, Default, Deserialize)]
#[serde(from = "Wire")]
struct Facts {
    replicas: i64,
    status: Status,
    revision: i64,
    /// The recorded total size of all versions, and its maximum.
    desired: Option<i64>,
    maximum: Option<i64>,
    template: u64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Status {
    replicas: i64,
    ready_replicas: i64,
    available_replicas: i64,
    observed_generation: i64,
    conditions: Option<Value>,
}

#[derive(Deserialize)]
struct Wire {
    metadata: Metadata,
    #[serde(default)]
    spec: Spec,
    #[serde(default)]
    status: Status,
}

#[derive(Deserialize)]
struct Metadata {
    #[serde(default)]
    annotations: Annotations,
}

#[derive(Default, Deserialize)]
struct Annotations {
    #[serde(rename = "deployment.kubernetes.io/revision")]
    revision: Option<String>,
    #[serde(rename = "deployment.kubernetes.io/desired-replicas")]
    desired: Option<String>,
    #[serde(rename = "deployment.kubernetes.io/max-replicas")]
    maximum: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Spec {
    replicas: Option<i64>,
    template: Value,
}

impl From<Wire> for Facts {
    fn from(set: Wire) -> Self {
        let number = |text: Option<String>| text.and_then(|it| it.parse().ok());
        let Annotations { revision, desired, maximum } = set.metadata.annotations;
        Self {
            replicas: set.spec.replicas.unwrap_or(1),
            status: set.status,
            revision: number(revision).unwrap_or_default(),
            desired: number(desired),
            maximum: number(maximum),
            template: of_template(set.spec.template),
        }
    }
}

impl Version {
    pub fn of(object: Arc<Object>) -> Self {
        let Facts { replicas, ref status, revision, .. } = *object.part::<Facts>();
        let (pods, ready, available) = (status.replicas, status.ready_replicas, status.available_replicas);
        Self { replicas, was: replicas, pods, ready, available, revision, object }
    }

    /// Whether it was made from the template with this fingerprint.
    pub fn is_of(&self, template: u64) -> bool {
        self.object.part::<Facts>().template == template
    }

    /// The recorded total size of all versions.
    pub fn desired(&self) -> Option<i64> {
        self.object.part::<Facts>().desired
    }

    /// The recorded maximum of the total size.
    pub fn maximum(&self) -> Option<i64> {
        self.object.part::<Facts>().maximum
    }

    /// The conditions of its status, as a status.
    pub fn status(&self) -> Value {
        json!({ "conditions": self.object.part::<Facts>().status.conditions })
    }

    /// It has no pods, and its controller has no work left on it.
    pub fn is_idle(&self) -> bool {
        let observed = self.object.part::<Facts>().status.observed_generation;
        self.was == 0
            && self.replicas == 0
            && self.pods == 0
            && observed >= self.object.meta().generation
            && !self.object.meta().is_deleted()
    }

    /// Whether it was last scaled for another total size, which counts as a change of the deployment's scale.
    pub fn is_behind(&self, limits: Limits) -> bool {
        self.was > 0 && self.desired().is_some_and(|it| it != limits.desired)
    }

    /// Whether the recorded numbers are to be written: as in Kubernetes, only when it is scaled.
    fn takes_note(&self, limits: Limits) -> bool {
        self.replicas != self.was || self.is_behind(limits)
    }

    /// Plans changes of the scale and of the recorded numbers.
    pub fn write_scale(&self, limits: Limits, plan: &mut Plan) {
        if self.takes_note(limits) {
            let patch = json!({ "metadata": { "annotations": limits.noted() }, "spec": { "replicas": self.replicas } });
            plan.merge(self.object.key(), &tree(&self.object), patch);
        }
    }

    /// The same for the version that the deployment asks for, which also follows the deployment's annotations and counts its revisions.
    pub fn write_newest(&self, limits: Limits, annotations: &Map<String, Value>, min_ready: i64, plan: &mut Plan) {
        let current = tree(&self.object);
        let mut wanted = inherited(annotations);
        wanted.insert(REVISION.to_owned(), self.revision.to_string().into());
        let before = &current["metadata"]["annotations"];
        if let Some(last) = before[REVISION].as_str().filter(|it| **it != *self.revision.to_string()) {
            let earlier = before[REVISIONS].as_str().filter(|it| !it.is_empty()).map(|it| format!("{it},"));
            wanted.insert(REVISIONS.to_owned(), format!("{}{last}", earlier.unwrap_or_default()).into());
        }
        if self.takes_note(limits) {
            wanted.extend(limits.noted());
        }
        let mut patch = json!({ "metadata": { "annotations": wanted }, "spec": {} });
        if self.replicas != self.was {
            patch["spec"]["replicas"] = self.replicas.into();
        }
        if current["spec"]["minReadySeconds"].as_i64().unwrap_or_default() != min_ready {
            patch["spec"]["minReadySeconds"] = min_ready.into();
        }
        plan.merge(self.object.key(), &current, patch);
    }
}

impl Limits {
    /// The annotations with the numbers for a later scaling.
    fn noted(self) -> Map<String, Value> {
        let noted = [(DESIRED, self.desired), (MAXIMUM, self.maximum())];
        noted.into_iter().map(|(key, value)| (key.to_owned(), value.to_string().into())).collect()
    }
}

/// Annotations of a deployment that its newest version gets.
fn inherited(annotations: &Map<String, Value>) -> Map<String, Value> {
    annotations.iter().filter(|(key, _)| !OWN.contains(&key.as_str())).map(|(key, value)| (key.clone(), value.clone())).collect()
}

/// The fingerprint of a template, of a deployment or of one of its versions. Labels that only versions have are ignored, even if a user has
/// copied them to the deployment: unless both templates have the same fingerprint, new versions would be created for ever.
pub(super) fn of_template(template: Value) -> u64 {
    let mut template = without_hash(template);
    if let Some(metadata) = template.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.retain(|_, value| !value.is_null() && value.as_object().is_none_or(|it| !it.is_empty()));
        if metadata.is_empty() {
            template["metadata"] = Value::Null;
        }
    }
    if let Some(fields) = template.as_object_mut() {
        fields.retain(|_, value| !value.is_null());
    }
    fingerprint(&template)
}

/// A version's template as its deployment has it.
pub(super) fn without_hash(mut template: Value) -> Value {
    if let Some(labels) = template.pointer_mut("/metadata/labels").and_then(Value::as_object_mut) {
        labels.remove(HASH_LABEL);
    }
    template
}

/// The name of the ReplicaSet for a template.
pub(super) fn name(deployment: &Object, template: u64, collisions: i64) -> String {
    format!("{}-{}", deployment.name(), short_name(template, collisions))
}

/// The reason of the events about scaling.
pub(super) const SCALING: &str = "ScalingReplicaSet";

pub(super) fn scaling(set: &str, from: i64, to: i64) -> String {
    let direction = if to > from { "up" } else { "down" };
    format!("Scaled {direction} replica set {set} from {from} to {to}")
}

/// A new version: the ReplicaSet, with its hash in the selector and in the pods' labels.
pub(super) fn create(deployment: &Arc<Object>, written: &Value, name: &str, replicas: i64, revision: i64, limits: Limits) -> Write {
    let hash = name.rsplit('-').next().unwrap_or_default();
    let spec = &written["spec"];
    let mut template = spec["template"].clone();
    template["metadata"]["labels"][HASH_LABEL] = hash.into();
    let mut selector = spec["selector"].clone();
    selector["matchLabels"][HASH_LABEL] = hash.into();
    let mut annotations = inherited(written["metadata"]["annotations"].as_object().unwrap_or(&Map::new()));
    annotations.insert(REVISION.to_owned(), revision.to_string().into());
    annotations.extend(limits.noted());
    let mut object = json!({
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": {
            "name": name,
            "labels": template["metadata"]["labels"],
            "annotations": annotations,
            "ownerReferences": [controller_reference(deployment)],
        },
        "spec": { "replicas": replicas, "selector": selector, "template": template },
    });
    if let Some(seconds) = spec["minReadySeconds"].as_i64().filter(|it| *it > 0) {
        object["spec"]["minReadySeconds"] = seconds.into();
    }
    let tell = Tell {
        about: deployment.clone(),
        success: (replicas > 0).then(|| (SCALING, scaling(name, 0, replicas))),
        failure: ("ReplicaSetCreateError", format!("Failed to create new replica set \"{name}\": {{}}")),
    };
    Write::Create { resource: &resource::REPLICA_SET, namespace: deployment.namespace().to_owned(), object, tell: Some(tell) }
}
