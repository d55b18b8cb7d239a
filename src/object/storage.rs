//! Claims, volumes and storage classes: the fields that binding reads, and the choice of a volume for a claim. Pure.

use std::collections::HashMap;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1;
use serde::Deserialize;
use serde_json::{Value, json};

use super::Object;
use super::constraints::{NodeFacts, Term};
use super::selector::LabelSelector;
use crate::util::quantity::Quantity;

/// On a claim: its binding was completed once.
pub const BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";
/// On claims and volumes: a controller, not the user, set the reference to the other side.
pub const BOUND_BY_CONTROLLER: &str = "pv.kubernetes.io/bound-by-controller";
/// On a volume: the provisioner that made it and deletes it.
pub const PROVISIONED_BY: &str = "pv.kubernetes.io/provisioned-by";
/// On a claim: the node of its first consumer.
pub const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
/// The provisioner of classes without dynamic provisioning.
pub const NO_PROVISIONER: &str = "kubernetes.io/no-provisioner";
/// The older way to name a storage class.
const CLASS: &str = "volume.beta.kubernetes.io/storage-class";

/// The fields of a volume that binding reads.
#[derive(Debug, Default, Deserialize)]
#[serde(from = "Wire<VolumeSpec>")]
pub struct Volume {
    /// Empty for none.
    pub class: Box<str>,
    pub capacity: Quantity,
    pub access_modes: Box<[Box<str>]>,
    mode: Mode,
    /// Node terms, one of which must hold; `None` if every node can use the volume.
    pub nodes: Option<Arc<[Term]>>,
    pub claim: Option<ClaimReference>,
    /// `persistentVolumeReclaimPolicy`.
    pub policy: Box<str>,
    pub phase: Box<str>,
    pub is_provisioned: bool,
    pub is_bound_by_controller: bool,
}

/// `spec.claimRef` of a volume. Without a uid, the user has reserved the volume in advance.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct ClaimReference {
    pub namespace: Box<str>,
    pub name: Box<str>,
    pub uid: Box<str>,
}

/// The fields of a claim that binding reads.
#[derive(Debug, Default, Deserialize)]
#[serde(from = "Wire<ClaimSpec>")]
pub struct Claim {
    pub asks: Arc<Request>,
    /// The claim names a class, or asks for none explicitly.
    pub names_class: bool,
    /// The volume that the claim names.
    pub volume: Option<Box<str>>,
    pub selected_node: Option<Box<str>>,
    /// [`BIND_COMPLETED`].
    pub is_completed: bool,
    pub phase: Box<str>,
}

/// A claim's requirements. A volume that suits one claim suits every claim with an equal request, unless it is reserved for one of them.
#[derive(Debug, Default, PartialEq, Eq, Hash)]
pub struct Request {
    /// Empty for none.
    pub class: Box<str>,
    pub size: Quantity,
    pub access_modes: Box<[Box<str>]>,
    mode: Mode,
    /// `None`: malformed, matches nothing.
    selector: Option<LabelSelector>,
}

/// The fields of a storage class that binding reads.
#[derive(Debug, Default, Deserialize)]
#[serde(from = "ClassWire")]
pub struct Class {
    pub provisioner: Box<str>,
    /// `volumeBindingMode` is `WaitForFirstConsumer`.
    pub is_delayed: bool,
    /// `allowVolumeExpansion`.
    pub is_expandable: bool,
    /// Node labels for which volumes can be provisioned: of one term, all labels must match, each with one of its values.
    topologies: Vec<Vec<Topology>>,
}

#[derive(Debug, Default, PartialEq, Eq, Hash)]
enum Mode {
    #[default]
    Filesystem,
    Block,
}

/// The binding fields of a volume.
pub fn volume(object: &Object) -> &Volume {
    object.part()
}

/// The binding fields of a claim.
pub fn claim(object: &Object) -> &Claim {
    object.part()
}

/// The binding fields of a storage class.
pub fn class(object: &Object) -> &Class {
    object.part()
}

impl Volume {
    /// Whether the volume is reserved for this claim: by name, and by uid if the reference has one.
    pub fn is_for(&self, claim: &Object) -> bool {
        self.claim.as_ref().is_some_and(|it| {
            *it.name == *claim.name() && *it.namespace == *claim.namespace() && (it.uid.is_empty() || it.uid == claim.meta().uid)
        })
    }

    /// Whether the volume can be given to a claim.
    pub fn is_free(&self, object: &Object) -> bool {
        self.claim.is_none() && &*self.phase == "Available" && !object.meta().is_deleted()
    }

    /// Whether the volume can be used on a node.
    pub fn is_usable_on(&self, node: &NodeFacts) -> bool {
        self.nodes.as_ref().is_none_or(|terms| terms.iter().any(|it| it.holds(node)))
    }

    fn has_access_modes(&self, request: &Request) -> bool {
        request.access_modes.iter().all(|it| self.access_modes.contains(it))
    }

    /// Whether size, mode and access modes allow binding at all.
    fn fits(&self, request: &Request) -> bool {
        self.capacity >= request.size && self.mode == request.mode && self.has_access_modes(request)
    }

    /// Why the volume, which the claim names, does not suit the request, in Kubernetes' words.
    pub fn mismatch(&self, request: &Request) -> Option<&'static str> {
        if self.capacity < request.size {
            return Some("requested PV is too small");
        }
        if self.class != request.class {
            return Some("storageClassName does not match");
        }
        if self.mode != request.mode {
            return Some("incompatible volumeMode");
        }
        (!self.has_access_modes(request)).then_some("incompatible accessMode")
    }
}

impl Claim {
    /// Whether the claim is bound, from both sides.
    pub fn is_bound(&self) -> bool {
        self.volume.is_some() && self.is_completed
    }
}

impl Class {
    /// Whether the class provisions volumes that can be used on a node.
    pub fn provisions_on(&self, node: &NodeFacts) -> bool {
        let there = |it: &Topology| node.label(&it.key).is_some_and(|value| it.values.iter().any(|it| **it == *value));
        self.has_provisioner() && (self.topologies.is_empty() || self.topologies.iter().any(|term| term.iter().all(there)))
    }

    /// Whether the class provisions volumes.
    pub fn has_provisioner(&self) -> bool {
        !self.provisioner.is_empty() && &*self.provisioner != NO_PROVISIONER
    }
}

/// Restricts the volumes that a claim may take.
#[derive(Clone, Copy, Debug)]
pub enum Choice<'a> {
    /// Any free one.
    Any,
    /// Only those usable on this node.
    On(&'a NodeFacts),
    /// Only one reserved for the claim, as long as the claim's node is not known.
    Meant,
}

impl Choice<'_> {
    fn admits(self, volume: &Volume) -> bool {
        match self {
            Self::Any => true,
            Self::On(node) => volume.is_usable_on(node),
            Self::Meant => false,
        }
    }
}

/// Whether the volume suits unreserved claims with this request.
pub fn suits(volume: &Object, request: &Request, choice: Choice<'_>) -> bool {
    let seen = self::volume(volume);
    seen.fits(request)
        && seen.is_free(volume)
        && seen.class == request.class
        && choice.admits(seen)
        && request.selector.as_ref().is_some_and(|it| it.matches(volume))
}

/// Whether a volume is reserved for a claim and large enough. The claim then takes no other, wherever this one can be used.
pub fn is_meant(volume: &Object, claim: &Object) -> bool {
    let seen = self::volume(volume);
    seen.is_for(claim) && seen.fits(&self::claim(claim).asks)
}

/// The volume for a claim that names none: the one reserved for it, or else the smallest that suits.
pub fn best<'a>(volumes: &'a [Arc<Object>], claim: &Object, choice: Choice<'_>) -> Option<&'a Arc<Object>> {
    if let Some(meant) = volumes.iter().find(|it| is_meant(it, claim)) {
        return Some(meant);
    }
    let asked = &self::claim(claim).asks;
    volumes.iter().filter(|it| suits(it, asked, choice)).min_by_key(|it| self::volume(it).capacity)
}

/// The merge patch that reserves a volume for a claim, unless the volume has changed.
pub fn reservation(volume: &Object, claim: &Object) -> Value {
    let mut metadata = json!({ "resourceVersion": volume.revision().to_string() });
    if self::volume(volume).claim.is_none() {
        metadata["annotations"] = json!({ BOUND_BY_CONTROLLER: "yes" });
    }
    let reference = json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "namespace": claim.namespace(), "name": claim.name(), "uid": &*claim.meta().uid,
        "resourceVersion": claim.revision().to_string(),
    });
    json!({ "metadata": metadata, "spec": { "claimRef": reference } })
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Wire<S> {
    metadata: WireMeta,
    spec: S,
    status: WireStatus,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct WireMeta {
    annotations: Option<HashMap<Box<str>, Box<str>>>,
}

impl WireMeta {
    fn take(&mut self, annotation: &str) -> Option<Box<str>> {
        self.annotations.as_mut()?.remove(annotation)
    }

    fn class(&mut self, named: Option<Box<str>>) -> Option<Box<str>> {
        self.take(CLASS).or(named)
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct WireStatus {
    phase: Option<Box<str>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct VolumeSpec {
    capacity: Option<Amounts>,
    access_modes: Option<Box<[Box<str>]>>,
    storage_class_name: Option<Box<str>>,
    volume_mode: Option<Box<str>>,
    node_affinity: Option<NodeAffinity>,
    claim_ref: Option<ClaimReference>,
    persistent_volume_reclaim_policy: Option<Box<str>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ClaimSpec {
    resources: Option<Resources>,
    access_modes: Option<Box<[Box<str>]>>,
    storage_class_name: Option<Box<str>>,
    volume_mode: Option<Box<str>>,
    volume_name: Option<Box<str>>,
    selector: Option<v1::LabelSelector>,
}

#[derive(Deserialize)]
struct Resources {
    #[serde(default)]
    requests: Option<Amounts>,
}

#[derive(Deserialize)]
struct Amounts {
    #[serde(default)]
    storage: Value,
}

#[derive(Deserialize)]
struct NodeAffinity {
    #[serde(default)]
    required: Option<Required>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Required {
    #[serde(default)]
    node_selector_terms: Vec<Term>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ClassWire {
    provisioner: Box<str>,
    volume_binding_mode: Option<Box<str>>,
    allow_volume_expansion: Option<bool>,
    allowed_topologies: Option<Vec<TopologyTerm>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct TopologyTerm {
    #[serde(default)]
    match_label_expressions: Vec<Topology>,
}

#[derive(Debug, Deserialize)]
struct Topology {
    key: Box<str>,
    #[serde(default)]
    values: Vec<Box<str>>,
}

impl Amounts {
    fn quantity(it: Option<&Self>) -> Quantity {
        it.and_then(|it| Quantity::from_json(&it.storage).ok()).unwrap_or_default()
    }
}

impl Mode {
    fn of(name: Option<&str>) -> Self {
        if name == Some("Block") { Self::Block } else { Self::Filesystem }
    }
}

impl From<Wire<VolumeSpec>> for Volume {
    fn from(Wire { mut metadata, spec, status }: Wire<VolumeSpec>) -> Self {
        Self {
            class: metadata.class(spec.storage_class_name).unwrap_or_default(),
            capacity: Amounts::quantity(spec.capacity.as_ref()),
            access_modes: spec.access_modes.unwrap_or_default(),
            mode: Mode::of(spec.volume_mode.as_deref()),
            nodes: spec.node_affinity.and_then(|it| Some(it.required?.node_selector_terms.into())),
            claim: spec.claim_ref,
            policy: spec.persistent_volume_reclaim_policy.unwrap_or_else(|| "Retain".into()),
            phase: status.phase.unwrap_or_default(),
            is_provisioned: metadata.take(PROVISIONED_BY).is_some(),
            is_bound_by_controller: metadata.take(BOUND_BY_CONTROLLER).is_some(),
        }
    }
}

impl From<Wire<ClaimSpec>> for Claim {
    fn from(Wire { mut metadata, spec, status }: Wire<ClaimSpec>) -> Self {
        let class = metadata.class(spec.storage_class_name);
        let names_class = class.is_some();
        let asks = Request {
            class: class.unwrap_or_default(),
            size: Amounts::quantity(spec.resources.and_then(|it| it.requests).as_ref()),
            access_modes: spec.access_modes.unwrap_or_default(),
            mode: Mode::of(spec.volume_mode.as_deref()),
            selector: spec.selector.map_or(Some(LabelSelector::default()), |it| LabelSelector::from_spec(&it).ok()),
        };
        Self {
            asks: Arc::new(asks),
            names_class,
            volume: spec.volume_name.filter(|it| !it.is_empty()),
            selected_node: metadata.take(SELECTED_NODE),
            is_completed: metadata.take(BIND_COMPLETED).is_some(),
            phase: status.phase.unwrap_or_default(),
        }
    }
}

impl From<ClassWire> for Class {
    fn from(wire: ClassWire) -> Self {
        Self {
            provisioner: wire.provisioner,
            is_expandable: wire.allow_volume_expansion == Some(true),
            is_delayed: wire.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer"),
            topologies: wire.allowed_topologies.unwrap_or_default().into_iter().map(|it| it.match_label_expressions).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::resource::{PERSISTENT_VOLUME, PERSISTENT_VOLUME_CLAIM, STORAGE_CLASS};

    fn volume(name: &str, size: &str, more: Value) -> Arc<Object> {
        let mut spec = json!({"capacity": {"storage": size}, "accessModes": ["ReadWriteOnce", "ReadOnlyMany"]});
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let volume =
            json!({"metadata": {"name": name, "uid": name, "labels": {"name": name}}, "spec": spec, "status": {"phase": "Available"}});
        Object::from_stored(&PERSISTENT_VOLUME, volume.to_string().as_bytes(), 1).unwrap()
    }

    fn claim(more: Value) -> Arc<Object> {
        let mut spec = json!({"resources": {"requests": {"storage": "5Gi"}}, "accessModes": ["ReadWriteOnce"]});
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let claim = json!({"metadata": {"namespace": "default", "name": "c", "uid": "u"}, "spec": spec});
        Object::from_stored(&PERSISTENT_VOLUME_CLAIM, claim.to_string().as_bytes(), 1).unwrap()
    }

    fn chosen(claim_spec: Value, choice: Choice<'_>) -> Option<String> {
        let reference = |name: &str, uid: &str| json!({"claimRef": {"namespace": "default", "name": name, "uid": uid}});
        let affinity =
            json!({"required": {"nodeSelectorTerms": [{"matchExpressions": [{"key": "disk", "operator": "In", "values": ["ssd"]}]}]}});
        let volumes = [
            volume("small", "1Gi", json!({})),
            volume("large", "50Gi", json!({})),
            volume("right", "10Gi", json!({})),
            volume("block", "5Gi", json!({"volumeMode": "Block"})),
            volume("fast", "6Gi", json!({"storageClassName": "fast"})),
            volume("local", "7Gi", json!({"storageClassName": "local", "nodeAffinity": affinity})),
            volume("taken", "5Gi", reference("other", "x")),
            volume("reborn", "5Gi", reference("c", "before")),
        ];
        best(&volumes, &claim(claim_spec), choice).map(|it| it.name().to_owned())
    }

    #[test]
    fn the_smallest_that_suits() {
        for (spec, expected) in [
            (json!({}), Some("right")),
            (json!({"storageClassName": "fast"}), Some("fast")),
            (json!({"storageClassName": "none"}), None),
            (json!({"volumeMode": "Block"}), Some("block")),
            (json!({"accessModes": ["ReadWriteMany"]}), None),
            (json!({"accessModes": ["ReadWriteOnce", "ReadOnlyMany"]}), Some("right")),
            (json!({"selector": {"matchLabels": {"name": "large"}}}), Some("large")),
            (json!({"selector": {"matchLabels": {"name": "small"}}}), None),
        ] {
            assert_eq!(chosen(spec.clone(), Choice::Any).as_deref(), expected, "{spec}");
        }
        assert_eq!(chosen(json!({}), Choice::Meant), None);
    }

    fn node(label: (&str, &str)) -> NodeFacts {
        NodeFacts { name: "n".into(), labels: vec![(label.0.into(), label.1.into())], ..NodeFacts::default() }
    }

    #[test]
    fn volumes_of_a_node() {
        for (disk, expected) in [("ssd", Some("local")), ("hdd", None)] {
            let node = node(("disk", disk));
            assert_eq!(chosen(json!({"storageClassName": "local"}), Choice::On(&node)).as_deref(), expected, "{disk}");
        }
    }

    #[test]
    fn one_that_is_meant_for_the_claim_comes_first() {
        let meant = json!({"claimRef": {"namespace": "default", "name": "c"}, "storageClassName": "another"});
        let volumes = [volume("right", "5Gi", json!({})), volume("meant", "9Gi", meant)];
        let claim = claim(json!({}));
        for choice in [Choice::Any, Choice::Meant] {
            assert_eq!(best(&volumes, &claim, choice).unwrap().name(), "meant");
        }
        assert_eq!(super::volume(&volumes[0]).mismatch(&super::claim(&claim).asks), None);
        assert_eq!(super::volume(&volumes[1]).mismatch(&super::claim(&claim).asks), Some("storageClassName does not match"));
    }

    #[test]
    fn where_a_class_provisions() {
        let class = |provisioner: &str, topologies: Value| {
            let class = json!({"metadata": {"name": "c"}, "provisioner": provisioner, "allowedTopologies": topologies});
            Object::from_stored(&STORAGE_CLASS, class.to_string().as_bytes(), 1).unwrap()
        };
        let zone = |values: Value| json!([{"matchLabelExpressions": [{"key": "zone", "values": values}]}]);
        for (provisioner, topologies, provisions) in [
            ("example.com/nfs", json!(null), true),
            ("example.com/nfs", zone(json!(["a", "b"])), true),
            ("example.com/nfs", zone(json!(["b"])), false),
            (NO_PROVISIONER, json!(null), false),
        ] {
            assert_eq!(super::class(&class(provisioner, topologies)).provisions_on(&node(("zone", "a"))), provisions, "{provisioner}");
        }
    }
}
