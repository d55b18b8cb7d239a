//! Properties of pods that controllers need.

mod serving;

use std::cmp::Reverse;
use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};

use super::conditions;
use super::owners::controller_reference;
use super::plan::{Failure, Write, since, tree};
use crate::client::Patch;
use crate::object::Object;
pub(super) use crate::object::pod::has_ended;
pub(super) use serving::{Declared, Serving};

/// Maximum length of a pod's name, in bytes.
const LONGEST_NAME: usize = 253;

/// The fields of a pod that controllers need besides its metadata and selectable fields. Much smaller than the pod: there may be 500,000 of
/// them.
#[derive(Debug, Default, Deserialize)]
#[serde(from = "Wire")]
pub(super) struct Facts {
    /// Since when it has been ready, if it is.
    pub ready_since: Option<Timestamp>,
    /// Since when it has not been ready, if that is known.
    pub unready_since: Option<Timestamp>,
    /// How often the container that was restarted most often was.
    pub restarts: i32,
    /// All restarts of all containers.
    pub all_restarts: i32,
    /// When the last of its containers and sidecars ended, if all report that; otherwise since when it has not been ready.
    pub finished: Option<Timestamp>,
    /// Annotation `controller.kubernetes.io/pod-deletion-cost`.
    pub deletion_cost: i32,
    /// Annotation `batch.kubernetes.io/job-completion-index`.
    pub completion_index: Option<u32>,
    /// Annotations `batch.kubernetes.io/job-index-failure-count` and `job-index-ignored-failure-count`: of the pods before it at its index.
    pub index_failures: u32,
    pub index_ignored: u32,
    /// The node that its affinity names: where a daemon belongs before it is placed.
    pub pinned_to: Option<Box<str>>,
    /// The claims that its volumes name.
    pub claims: Box<[Box<str>]>,
    /// Some of them are made for it.
    pub brings_claims: bool,
    /// Condition `DisruptionTarget`, unless the kubelet set it: the pod is about to be deleted.
    pub disrupted: bool,
    pub serving: Serving,
}

/// The fields of a pod that controllers need, read once per resource version.
pub(super) fn facts(pod: &Object) -> &Facts {
    pod.part()
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[derive(Default)]
struct Wire {
    metadata: WireMeta,
    spec: WireSpec,
    status: WireStatus,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct WireMeta {
    name: Box<str>,
    annotations: Option<Annotations>,
}

#[derive(Default)]
struct Annotations {
    deletion_cost: Option<i32>,
    completion_index: Option<u32>,
    index_failures: Option<u32>,
    index_ignored: Option<u32>,
    ports: Vec<(Box<str>, i32)>,
}

impl<'de> Deserialize<'de> for Annotations {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_map(Annotations::default())
    }
}

/// Takes the few that matter out of all there are.
impl<'de> Visitor<'de> for Annotations {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("annotations")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<Self, A::Error> {
        while let Some(name) = map.next_key::<String>()? {
            match name.as_str() {
                "controller.kubernetes.io/pod-deletion-cost" => self.deletion_cost = map.next_value::<String>()?.parse().ok(),
                "batch.kubernetes.io/job-completion-index" => self.completion_index = map.next_value::<String>()?.parse().ok(),
                "batch.kubernetes.io/job-index-failure-count" => self.index_failures = map.next_value::<String>()?.parse().ok(),
                "batch.kubernetes.io/job-index-ignored-failure-count" => self.index_ignored = map.next_value::<String>()?.parse().ok(),
                port if serving::tells_port(port) => {
                    let number = map.next_value::<String>()?.parse();
                    self.ports.extend(number.ok().map(|it| (name.into(), it)));
                }
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(self)
    }
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct WireSpec {
    affinity: Option<Affinity>,
    volumes: Option<Vec<Volume>>,
    host_network: Option<bool>,
    hostname: Option<Box<str>>,
    subdomain: Option<Box<str>>,
    containers: Option<Vec<serving::Container>>,
    init_containers: Option<Vec<serving::Container>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Volume {
    #[serde(default)]
    name: Box<str>,
    #[serde(default)]
    persistent_volume_claim: Option<Claim>,
    #[serde(default)]
    ephemeral: Option<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Claim {
    claim_name: Box<str>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Affinity {
    #[serde(default)]
    node_affinity: Option<NodeAffinity>,
}

#[derive(Deserialize)]
struct NodeAffinity {
    #[serde(default, rename = "requiredDuringSchedulingIgnoredDuringExecution")]
    required: Option<Required>,
}

#[derive(Deserialize)]
struct Required {
    #[serde(default, rename = "nodeSelectorTerms")]
    terms: Vec<Term>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Term {
    #[serde(default)]
    match_fields: Vec<Expression>,
}

#[derive(Deserialize)]
struct Expression {
    key: Box<str>,
    operator: Box<str>,
    #[serde(default)]
    values: Vec<Box<str>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct WireStatus {
    conditions: Option<Vec<Condition>>,
    container_statuses: Option<Vec<Container>>,
    init_container_statuses: Option<Vec<Container>>,
    #[serde(rename = "podIP")]
    pod_ip: Option<Box<str>>,
    #[serde(rename = "podIPs")]
    pod_ips: Option<Vec<serving::Address>>,
    #[serde(rename = "hostIP")]
    host_ip: Option<Box<str>>,
    #[serde(rename = "hostIPs")]
    host_ips: Option<Vec<serving::Address>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Condition {
    #[serde(rename = "type")]
    kind: Box<str>,
    #[serde(default)]
    status: Box<str>,
    #[serde(default)]
    reason: Option<Box<str>>,
    #[serde(default)]
    last_transition_time: Option<Timestamp>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Container {
    #[serde(default)]
    name: Box<str>,
    #[serde(default)]
    restart_count: i32,
    #[serde(default)]
    state: Option<State>,
}

#[derive(Deserialize)]
struct State {
    #[serde(default)]
    terminated: Option<Terminated>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Terminated {
    #[serde(default)]
    finished_at: Option<Timestamp>,
}

impl Container {
    fn finished(&self) -> Option<Timestamp> {
        self.state.as_ref()?.terminated.as_ref()?.finished_at
    }
}

impl From<Wire> for Facts {
    fn from(mut pod: Wire) -> Self {
        let mut annotations = pod.metadata.annotations.take().unwrap_or_default();
        let sidecars = pod.spec.init_containers.iter().flatten().filter(|it| it.is_sidecar());
        let sidecars: Vec<Box<str>> = sidecars.map(|it| it.name.clone()).collect();
        let serving = Serving::of(&mut pod, std::mem::take(&mut annotations.ports));
        let containers = pod.status.container_statuses.unwrap_or_default();
        let init = pod.status.init_container_statuses.unwrap_or_default();
        let conditions = pod.status.conditions.unwrap_or_default();
        let condition = |kind: &str, status: &str| conditions.iter().find(|it| *it.kind == *kind && *it.status == *status);
        let (ready, disrupted) = (condition("Ready", "True"), condition("DisruptionTarget", "True"));
        let ended = containers.iter().chain(init.iter().filter(|it| sidecars.contains(&it.name))).map(Container::finished);
        let ended = ended.collect::<Option<Vec<_>>>().and_then(|it| it.into_iter().max());
        let volumes = pod.spec.volumes.unwrap_or_default();
        let brings_claims = volumes.iter().any(|it| it.ephemeral.is_some());
        let brought = |it: &Volume| it.ephemeral.is_some().then(|| format!("{}-{}", pod.metadata.name, it.name).into());
        let claims = volumes.into_iter().filter_map(|it| brought(&it).or_else(|| it.persistent_volume_claim.map(|it| it.claim_name)));
        let terms = pod.spec.affinity.and_then(|it| it.node_affinity?.required).into_iter().flat_map(|it| it.terms);
        let mut named = terms.flat_map(|it| it.match_fields).filter(|it| *it.key == *"metadata.name" && *it.operator == *"In");
        Self {
            ready_since: ready.map(|it| it.last_transition_time.unwrap_or(Timestamp::UNIX_EPOCH)),
            unready_since: conditions
                .iter()
                .find(|it| *it.kind == *"Ready" && *it.status != *"True")
                .and_then(|it| it.last_transition_time),
            restarts: containers.iter().map(|it| it.restart_count).max().unwrap_or_default(),
            all_restarts: containers.iter().chain(&init).map(|it| it.restart_count).sum(),
            finished: ended.or_else(|| condition("Ready", "False")?.last_transition_time),
            deletion_cost: annotations.deletion_cost.unwrap_or_default(),
            completion_index: annotations.completion_index,
            index_failures: annotations.index_failures.unwrap_or_default(),
            index_ignored: annotations.index_ignored.unwrap_or_default(),
            pinned_to: named.find_map(|it| it.values.into_iter().next()),
            claims: claims.collect(),
            brings_claims,
            disrupted: disrupted.is_some_and(|it| it.reason.as_deref() != Some("TerminationByKubelet")),
            serving,
        }
    }
}

/// A pod that still counts: neither ended nor being deleted.
pub(super) fn is_active(pod: &Object) -> bool {
    !pod.meta().is_deleted() && !has_ended(pod)
}

pub(super) fn is_ready(pod: &Object) -> bool {
    facts(pod).ready_since.is_some()
}

/// Whether a pod has been ready for `min_ready`; if it is ready but not for that long, also the missing time.
pub(super) fn is_available(pod: &Object, min_ready: Duration, now: Timestamp) -> (bool, Option<Duration>) {
    let Some(ready) = facts(pod).ready_since else { return (false, None) };
    let missing = min_ready.saturating_sub(since(ready, now));
    if missing.is_zero() { (true, None) } else { (false, Some(missing)) }
}

/// The node that a pod is on.
pub(super) fn node(pod: &Object) -> Option<&str> {
    pod.field("spec.nodeName").filter(|it| !it.is_empty())
}

/// Orders pods by which to delete first: unplaced before placed, pending before running, not ready before ready, low deletion cost before
/// high, many of its kind on the node before few (`together`), young before old, many restarts before few.
pub(super) fn deletion_rank(pod: &Object, together: usize) -> impl Ord + use<> {
    let Facts { ready_since, restarts, deletion_cost, .. } = facts(pod);
    let phase = match pod.field("status.phase") {
        Some("Running") => 2,
        Some("Unknown") => 1,
        _ => 0,
    };
    let place = (node(pod).is_some(), phase, ready_since.is_some(), *deletion_cost, Reverse(together));
    (place, Reverse(*ready_since), Reverse(*restarts), Reverse(pod.meta().created.clone()))
}

/// Marks a pod that is about to be deleted from outside with the reason (condition `DisruptionTarget` with this reason and message) and, if
/// it `fails`, with phase Failed, for controllers that judge failures, such as that of Jobs. `None` if it is marked already.
pub(super) fn disruption(pod: &Object, (reason, message): (&str, &str), fails: bool, now: Timestamp) -> Option<Write> {
    let status = tree(pod)["status"].take();
    let told = conditions::find(&status["conditions"], "DisruptionTarget").is_some_and(|it| it["status"] == "True");
    if told && (has_ended(pod) || !fails) || pod.meta().is_deleted() {
        return None;
    }
    let mut all = status["conditions"].clone();
    conditions::set(&mut all, json!({"type": "DisruptionTarget", "status": "True", "reason": reason, "message": message}), now);
    let mut patch = json!({ "metadata": { "uid": &*pod.meta().uid }, "status": { "conditions": all } });
    if fails && !has_ended(pod) {
        patch["status"]["phase"] = "Failed".into();
    }
    Some(Write::Patch { key: pod.key(), subresource: "status", patch: Patch::Merge(patch) })
}

/// Why a pod is not created: without labels no selector matches it. Controllers that add labels of their own (daemon sets, stateful sets,
/// indexed jobs) need not ask.
pub(super) fn hindrance(pod: &Value) -> Option<Failure> {
    let labelled = pod["metadata"]["labels"].as_object().is_some_and(|it| !it.is_empty());
    (!labelled).then(|| Failure { reason: "FailedCreate", message: "unable to create pods, no labels".to_owned() })
}

/// A pod from a template (`{metadata, spec}`), owned by `owner`. The server shortens the prefix of its name where it is too long.
pub(super) fn from_template(template: &Value, owner: &Object) -> Value {
    let metadata = &template["metadata"];
    let dash = if owner.name().len() < LONGEST_NAME { "-" } else { "" };
    let mut pod = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "generateName": format!("{}{dash}", owner.name()), "ownerReferences": [controller_reference(owner)] },
        "spec": template["spec"],
    });
    for part in ["labels", "annotations", "finalizers"] {
        if !metadata[part].is_null() {
            pod["metadata"][part] = metadata[part].clone();
        }
    }
    pod
}
