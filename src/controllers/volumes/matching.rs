//! Which volume suits a claim. Pure.

use k8s_openapi::api::core::v1::{NodeSelectorRequirement, ObjectReference, PersistentVolume, PersistentVolumeClaim};

use crate::object::Object;
use crate::object::selector::{LabelSelector, Operator, Requirement};
use crate::util::quantity::Quantity;

/// The older way to name a storage class.
const CLASS: &str = "volume.beta.kubernetes.io/storage-class";

/// A volume with its typed form.
#[derive(Clone, Copy, Debug)]
pub(super) struct Volume<'a> {
    pub object: &'a Object,
    pub typed: &'a PersistentVolume,
}

impl<'a> Volume<'a> {
    pub fn of(object: &'a Object) -> Option<Self> {
        Some(Self { object, typed: object.typed().ok()? })
    }

    pub fn claim_ref(&self) -> Option<&'a ObjectReference> {
        self.typed.spec.as_ref()?.claim_ref.as_ref()
    }

    pub fn phase(&self) -> &'a str {
        self.typed.status.as_ref().and_then(|it| it.phase.as_deref()).unwrap_or_default()
    }

    fn capacity(&self) -> Quantity {
        let stated = self.typed.spec.as_ref().and_then(|it| it.capacity.as_ref()?.get("storage"));
        stated.and_then(|it| Quantity::try_from(it).ok()).unwrap_or_default()
    }

    /// Whether it is meant for this claim: by name, and by uid if it has one.
    pub fn is_for(&self, claim: &Object) -> bool {
        let same = |field: &Option<String>, value: &str| field.as_deref() == Some(value);
        self.claim_ref().is_some_and(|it| {
            same(&it.name, claim.name())
                && same(&it.namespace, claim.namespace())
                && it.uid.as_deref().is_none_or(|uid| uid.is_empty() || uid == &*claim.meta().uid)
        })
    }
}

/// The storage class of a claim; empty for none.
pub(super) fn class_of_claim(claim: &PersistentVolumeClaim) -> &str {
    let annotated = claim.metadata.annotations.as_ref().and_then(|it| it.get(CLASS));
    annotated.or_else(|| claim.spec.as_ref()?.storage_class_name.as_ref()).map_or("", String::as_str)
}

fn class_of_volume(volume: &PersistentVolume) -> &str {
    let annotated = volume.metadata.annotations.as_ref().and_then(|it| it.get(CLASS));
    annotated.or_else(|| volume.spec.as_ref()?.storage_class_name.as_ref()).map_or("", String::as_str)
}

/// Why a volume that was chosen by name does not suit a claim, in Kubernetes' words.
pub(super) fn mismatch(volume: Volume<'_>, claim: &PersistentVolumeClaim) -> Option<&'static str> {
    if volume.capacity() < requested(claim) {
        return Some("requested PV is too small");
    }
    if class_of_volume(volume.typed) != class_of_claim(claim) {
        return Some("storageClassName does not match");
    }
    if !same_mode(volume.typed, claim) {
        return Some("incompatible volumeMode");
    }
    (!has_access_modes(volume.typed, claim)).then_some("incompatible accessMode")
}

/// Who may take which volume at all.
#[derive(Clone, Copy, Debug)]
pub(super) enum Choice<'a> {
    /// Any that is free.
    Any,
    /// Only those that can be used on this node, by its name and labels.
    On(&'a Object),
    /// Only one that is meant for the claim: the others wait until it is known where it is used.
    Meant,
}

/// The volume for a claim that names none: the one that is meant for it, or else the smallest that suits it.
pub(super) fn best<'a>(
    volumes: impl Iterator<Item = Volume<'a>>,
    claim: &Object,
    typed: &PersistentVolumeClaim,
    choice: Choice<'_>,
) -> Option<Volume<'a>> {
    let spec = typed.spec.as_ref()?;
    let selector = spec.selector.as_ref().map(LabelSelector::from_spec).transpose().ok()?;
    let mut best: Option<Volume<'a>> = None;
    for volume in volumes.filter(|it| has_access_modes(it.typed, typed) && same_mode(it.typed, typed)) {
        let fits = volume.capacity() >= requested(typed);
        if volume.is_for(claim) && fits {
            return Some(volume);
        }
        let free = volume.claim_ref().is_none() && volume.phase() == "Available" && !volume.object.meta().is_deleted();
        let there = match choice {
            Choice::Any => true,
            Choice::On(node) => is_usable_on(volume.typed, node),
            Choice::Meant => false,
        };
        let suits = free
            && there
            && fits
            && class_of_volume(volume.typed) == class_of_claim(typed)
            && selector.as_ref().is_none_or(|it| it.matches(volume.object));
        if suits && best.is_none_or(|it| volume.capacity() < it.capacity()) {
            best = Some(volume);
        }
    }
    best
}

fn requested(claim: &PersistentVolumeClaim) -> Quantity {
    let stated = claim.spec.as_ref().and_then(|it| it.resources.as_ref()?.requests.as_ref()?.get("storage"));
    stated.and_then(|it| Quantity::try_from(it).ok()).unwrap_or_default()
}

fn has_access_modes(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let has = volume.spec.as_ref().and_then(|it| it.access_modes.as_deref()).unwrap_or_default();
    let asked = claim.spec.as_ref().and_then(|it| it.access_modes.as_deref()).unwrap_or_default();
    asked.iter().all(|it| has.contains(it))
}

fn same_mode(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let mode = |it: Option<&String>| it.map_or("Filesystem", String::as_str).to_owned();
    mode(volume.spec.as_ref().and_then(|it| it.volume_mode.as_ref())) == mode(claim.spec.as_ref().and_then(|it| it.volume_mode.as_ref()))
}

/// Whether the volume's node affinity admits a node.
fn is_usable_on(volume: &PersistentVolume, node: &Object) -> bool {
    let Some(required) = volume.spec.as_ref().and_then(|it| it.node_affinity.as_ref()?.required.as_ref()) else { return true };
    let holds = |it: &NodeSelectorRequirement, value: Option<&str>| {
        let operator = match it.operator.as_str() {
            "In" => Operator::In,
            "NotIn" => Operator::NotIn,
            "Exists" => Operator::Exists,
            "DoesNotExist" => Operator::DoesNotExist,
            "Gt" => Operator::GreaterThan,
            "Lt" => Operator::LessThan,
            _ => return false,
        };
        Requirement::new(&it.key, operator, it.values.clone().unwrap_or_default()).is_ok_and(|it| it.matches(value))
    };
    required.node_selector_terms.iter().any(|term| {
        let labels = term.match_expressions.as_deref().unwrap_or_default();
        let fields = term.match_fields.as_deref().unwrap_or_default();
        !(labels.is_empty() && fields.is_empty())
            && labels.iter().all(|it| holds(it, node.meta().label(&it.key)))
            && fields.iter().all(|it| it.key == "metadata.name" && holds(it, Some(node.name())))
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::{Value, json};

    use super::*;
    use crate::object::resource::{NODE, PERSISTENT_VOLUME, PERSISTENT_VOLUME_CLAIM};

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
        let claim = claim(claim_spec);
        best(volumes.iter().filter_map(|it| Volume::of(it)), &claim, claim.typed().unwrap(), choice).map(|it| it.object.name().to_owned())
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

    #[test]
    fn volumes_of_a_node() {
        for (disk, expected) in [("ssd", Some("local")), ("hdd", None)] {
            let node = json!({"metadata": {"name": "n", "labels": {"disk": disk}}});
            let node = Object::from_stored(&NODE, node.to_string().as_bytes(), 1).unwrap();
            assert_eq!(chosen(json!({"storageClassName": "local"}), Choice::On(&node)).as_deref(), expected, "{disk}");
        }
    }

    #[test]
    fn one_that_is_meant_for_the_claim_comes_first() {
        let reference = json!({"claimRef": {"namespace": "default", "name": "c"}, "storageClassName": "another"});
        let volumes = [volume("right", "5Gi", json!({})), volume("meant", "9Gi", reference)];
        let claim = claim(json!({}));
        let typed = claim.typed().unwrap();
        for choice in [Choice::Any, Choice::Meant] {
            assert_eq!(best(volumes.iter().filter_map(|it| Volume::of(it)), &claim, typed, choice).unwrap().object.name(), "meant");
        }
        assert_eq!(mismatch(Volume::of(&volumes[0]).unwrap(), typed), None);
        assert_eq!(mismatch(Volume::of(&volumes[1]).unwrap(), typed), Some("storageClassName does not match"));
    }
}
