//! Persistent volumes and the claims to them.

use serde_json::{Map, Value};

use super::at::At;
use super::names::{self, NOT_ZERO};
use super::{placement, pod_change, resources, selector, volume};
use crate::object::status::Cause;
use crate::util::quantity::Quantity;

/// The older way for a claim to name its class.
const CLASS: &str = "volume.beta.kubernetes.io/storage-class";
/// The older way to give the options of a volume's mount.
pub(super) const MOUNT_OPTIONS: &str = "volume.beta.kubernetes.io/mount-options";
/// Kinds of volumes that may be mounted with options of [`MOUNT_OPTIONS`].
const WITH_OPTIONS: [&str; 13] = [
    "awsElasticBlockStore",
    "azureDisk",
    "azureFile",
    "cephfs",
    "cinder",
    "gcePersistentDisk",
    "glusterfs",
    "iscsi",
    "nfs",
    "photonPersistentDisk",
    "quobyte",
    "rbd",
    "vsphereVolume",
];
const MODES: [&str; 4] = ["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];
/// The fields of a volume besides its source.
const VOLUME_FIELDS: [&str; 9] = [
    "accessModes",
    "capacity",
    "claimRef",
    "mountOptions",
    "nodeAffinity",
    "persistentVolumeReclaimPolicy",
    "storageClassName",
    "volumeAttributesClassName",
    "volumeMode",
];

fn access_modes(spec: &At<'_>, out: &mut Vec<Cause>) {
    for mode in spec.list("accessModes").iter().filter_map(Value::as_str).filter(|mode| !MODES.contains(mode)) {
        out.push(Cause::not_supported(spec.path("accessModes"), mode, &MODES));
    }
    let modes = spec.list("accessModes");
    if modes.len() > 1 && modes.iter().any(|mode| mode == "ReadWriteOncePod") {
        spec.forbidden("accessModes", "may not use ReadWriteOncePod with other access modes", out);
    }
}

fn class_and_mode(spec: &At<'_>, out: &mut Vec<Cause>) {
    spec.may_say("storageClassName", names::subdomain, out);
    spec.one_of("volumeMode", &["Block", "Filesystem"], out);
}

fn sources(spec: &At<'_>) -> Map<String, Value> {
    let mut fields = spec.value.as_object().cloned().unwrap_or_default();
    fields.retain(|key, value| !VOLUME_FIELDS.contains(&key.as_str()) && !value.is_null());
    fields
}

pub(super) fn persistent_volume(object: &At<'_>, out: &mut Vec<Cause>) {
    let spec = object.at("spec");
    if spec.list("accessModes").is_empty() {
        spec.required("accessModes", "", out);
    }
    access_modes(&spec, out);
    class_and_mode(&spec, out);
    let capacity = spec.at("capacity");
    if spec.count("capacity") == 0 {
        spec.required("capacity", "", out);
        let message = "Unsupported value: core.ResourceList(nil): supported values: \"storage\"".to_owned();
        out.push(Cause { message, ..Cause::not_supported(capacity.path.as_str(), "", &[]) });
    }
    for (name, value) in spec.entries("capacity") {
        if name != "storage" {
            out.push(Cause::not_supported(capacity.path.as_str(), name, &["storage"]));
        }
        if let Ok(quantity) = Quantity::from_json(value)
            && quantity < Quantity::ZERO
        {
            let shown = quantity.value().to_string();
            out.push(Cause::invalid_shown(capacity.entry_path(name), &shown, "must be a valid resource quantity"));
        }
        resources::positive(&capacity.entry_path(name), value, NOT_ZERO, out);
    }
    spec.one_of("persistentVolumeReclaimPolicy", &["Delete", "Recycle", "Retain"], out);
    if spec.text("persistentVolumeReclaimPolicy") == "Recycle" && spec.at("hostPath").text("path") == "/" {
        spec.forbidden("persistentVolumeReclaimPolicy", "may not be 'recycle' for a hostPath mount of '/'", out);
    }
    let found = sources(&spec);
    let mut kinds = found.keys();
    match kinds.next() {
        None => out.push(Cause::required("spec", "must specify a volume type")),
        Some(first) => volume::source(&spec.at(first), first, out),
    }
    if names::has_parent(spec.at("local").text("path")) {
        spec.at("local").invalid("path", "must not contain '..'", out);
    }
    driven(&spec.at("csi"), out);
    for extra in kinds {
        spec.forbidden(extra, "may not specify more than 1 volume type", out);
    }
    let required = spec.at("nodeAffinity").at("required");
    if !required.is_absent() {
        placement::node_selector(&required, out);
    } else if spec.has("nodeAffinity") {
        spec.at("nodeAffinity").required("required", "must specify required node constraints", out);
    } else if spec.has("local") {
        spec.required("nodeAffinity", "Local volume requires node affinity", out);
    }
    let annotations = object.at("metadata").at("annotations");
    if annotations.has(MOUNT_OPTIONS) && !WITH_OPTIONS.iter().any(|it| spec.has(it)) {
        annotations.forbidden(MOUNT_OPTIONS, "may not specify mount options for this volume type", out);
    }
}

/// Checks a volume of a driver, and the secrets for it.
fn driven(volume: &At<'_>, out: &mut Vec<Cause>) {
    if volume.is_absent() {
        return;
    }
    if volume.text("volumeHandle").is_empty() {
        volume.required("volumeHandle", "", out);
    }
    for key in ["controllerPublishSecretRef", "controllerExpandSecretRef", "nodePublishSecretRef", "nodeExpandSecretRef"] {
        let secret = volume.at(key);
        if !secret.is_absent() {
            secret.must("name", names::subdomain, out);
            secret.must("namespace", names::label, out);
        }
    }
}

pub(super) fn persistent_volume_update(new: &At<'_>, old: &At<'_>, out: &mut Vec<Cause>) {
    let (new, old) = (new.at("spec"), old.at("spec"));
    let (after, before) = (Value::Object(sources(&new)), Value::Object(sources(&old)));
    if after != before {
        let mut changes = String::new();
        pod_change::differences("spec", &before, &after, &mut changes);
        let why = format!("spec.persistentvolumesource is immutable after creation\n{changes}");
        out.push(Cause::forbidden("spec.persistentvolumesource", &why));
    }
    if new.get("volumeMode") != old.get("volumeMode") {
        out.push(Cause::invalid("volumeMode", new.get("volumeMode"), names::IMMUTABLE));
    }
    let (affinity, before) = (new.get("nodeAffinity"), old.get("nodeAffinity"));
    if !before.is_null() && affinity != before && *affinity != with_stable_labels(before) {
        let why = format!("{}, except for updating from beta label to GA", names::IMMUTABLE);
        out.push(Cause::invalid("nodeAffinity", affinity, &why));
    }
}

/// The affinity of a volume by the names that labels of nodes have today.
fn with_stable_labels(affinity: &Value) -> Value {
    const NAMES: [(&str, &str); 5] = [
        ("failure-domain.beta.kubernetes.io/zone", "topology.kubernetes.io/zone"),
        ("failure-domain.beta.kubernetes.io/region", "topology.kubernetes.io/region"),
        ("beta.kubernetes.io/instance-type", "node.kubernetes.io/instance-type"),
        ("beta.kubernetes.io/os", "kubernetes.io/os"),
        ("beta.kubernetes.io/arch", "kubernetes.io/arch"),
    ];
    let mut affinity = affinity.clone();
    let terms = affinity.pointer_mut("/required/nodeSelectorTerms").and_then(Value::as_array_mut);
    for term in terms.into_iter().flatten() {
        for requirement in term.get_mut("matchExpressions").and_then(Value::as_array_mut).into_iter().flatten() {
            if let Some((_, stable)) = NAMES.iter().find(|(beta, _)| requirement["key"] == **beta) {
                requirement["key"] = (*stable).into();
            }
        }
    }
    affinity
}

pub(super) fn claim(object: &At<'_>, out: &mut Vec<Cause>) {
    claim_spec(&object.at("spec"), out);
}

/// Checks a claim's specification.
pub(super) fn claim_spec(spec: &At<'_>, out: &mut Vec<Cause>) {
    if spec.list("accessModes").is_empty() {
        spec.required("accessModes", "at least 1 access mode is required", out);
    }
    if spec.has("selector") {
        selector::label_selector(&spec.at("selector"), out);
    }
    access_modes(spec, out);
    let requests = spec.at("resources").at("requests");
    let path = spec.at("resources").entry_path("storage");
    match requests.get("storage") {
        Value::Null => out.push(Cause::required(path, "")),
        storage => resources::positive(&path, storage, "must be greater than zero", out),
    }
    class_and_mode(spec, out);
    for key in ["dataSource", "dataSourceRef"] {
        let source = spec.at(key);
        for field in ["kind", "name"] {
            if !source.is_absent() && source.text(field).is_empty() {
                source.required(field, "", out);
            }
        }
        let (group, kind) = (source.text("apiGroup"), source.text("kind"));
        if !source.is_absent() && group.is_empty() && kind != "PersistentVolumeClaim" {
            let why = "must be 'PersistentVolumeClaim' when referencing the default apiGroup";
            out.push(Cause::invalid(source.path.as_str(), &kind.into(), why));
        }
        source.may_say("apiGroup", names::subdomain, out);
    }
    let (older, newer) = (spec.at("dataSource"), spec.at("dataSourceRef"));
    if older.is_absent() || newer.is_absent() {
        return;
    }
    if !newer.text("namespace").is_empty() {
        out.push(Cause::invalid_shown(spec.path.as_str(), DATA_SOURCE, "may not be specified when dataSourceRef.namespace is specified"));
    } else if ["apiGroup", "kind", "name"].iter().any(|it| older.get(it) != newer.get(it)) {
        out.push(Cause::invalid_shown(spec.path.as_str(), DATA_SOURCE, "must match dataSourceRef"));
    }
}

/// Go's form of the field, which contains the memory address of its parent.
const DATA_SOURCE: &str = "field.Path{name:\"dataSource\", index:\"\", parent:(*field.Path)(nil)}";

pub(super) fn claim_update(new: &At<'_>, old: &At<'_>, out: &mut Vec<Cause>) {
    let class = |object: &At<'_>| object.at("metadata").at("annotations").text(CLASS).to_owned();
    let annotations = (class(new), class(old));
    let bound = new.at("status").text("phase") == "Bound";
    let capacity = Quantity::from_json(old.at("status").at("capacity").get("storage")).unwrap_or_default();
    let (new, old) = (new.at("spec"), old.at("spec"));
    // A class is given once: to a claim that has none, or that names it in the annotation.
    let given = !old.has("storageClassName") && new.has("storageClassName");
    let given = given && (annotations.1.is_empty() || annotations.1 == new.text("storageClassName"));
    if annotations.0 != annotations.1 && !(given && annotations.0.is_empty()) {
        let path = format!("metadata.annotations.{CLASS}");
        out.push(Cause::invalid(path, &annotations.0.into(), names::IMMUTABLE));
    }
    let mut after = new.value.clone();
    if old.text("volumeName").is_empty() {
        after["volumeName"] = old.get("volumeName").clone();
    }
    if given {
        after["storageClassName"] = Value::Null;
    }
    // A bound claim may ask for another size.
    if let Some(size) = after.pointer_mut("/resources/requests/storage").filter(|_| bound) {
        *size = old.at("resources").at("requests").get("storage").clone();
    }
    if let Some(fields) = after.as_object_mut() {
        fields.retain(|_, value| !value.is_null());
    }
    if after != *old.value {
        let mut changes = String::new();
        pod_change::differences("spec", old.value, &after, &mut changes);
        let why =
            format!("spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims\n{changes}");
        out.push(Cause::forbidden("spec", &why));
    }
    // After an expansion that failed, it may be asked for less again.
    let size = |spec: &At<'_>| Quantity::from_json(spec.at("resources").at("requests").get("storage")).unwrap_or_default();
    if size(&new) < size(&old) && size(&new) <= capacity {
        out.push(Cause::forbidden("spec.resources.requests.storage", "field can not be less than status.capacity"));
    }
    if new.get("volumeMode") != old.get("volumeMode") {
        out.push(Cause::invalid("volumeMode", new.get("volumeMode"), names::IMMUTABLE));
    }
}
