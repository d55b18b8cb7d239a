//! Removes what is useless without the fields of disabled features.

use serde_json::Value;

use super::computed::text;
use super::{Change, Fields};

/// Removes the parts of an object of this type that make no sense without these fields.
pub(super) fn useless(name: &str) -> Option<Change> {
    Some(match name {
        "io.k8s.api.core.v1.PodSpec" => images,
        "io.k8s.api.core.v1.Container" | "io.k8s.api.core.v1.EphemeralContainer" => lifecycle,
        _ => return None,
    })
}

/// A volume with only an image is removed, together with its mounts.
fn images(spec: &mut Fields) {
    let Some(Value::Array(volumes)) = spec.get_mut("volumes") else { return };
    let mut dropped = Vec::new();
    volumes.retain(|volume| {
        let Some(volume) = volume.as_object().filter(|it| it.contains_key("image")) else { return true };
        dropped.push(text(volume, "name").to_owned());
        false
    });
    if dropped.is_empty() {
        return;
    }
    remove_empty(spec, "volumes");
    for kind in ["containers", "initContainers", "ephemeralContainers"] {
        for container in spec.get_mut(kind).and_then(Value::as_array_mut).into_iter().flatten().filter_map(Value::as_object_mut) {
            if let Some(Value::Array(mounts)) = container.get_mut("volumeMounts") {
                mounts.retain(|mount| mount.as_object().is_none_or(|it| !dropped.iter().any(|name| name == text(it, "name"))));
                remove_empty(container, "volumeMounts");
            }
        }
    }
}

/// A lifecycle with only a stop signal is removed.
fn lifecycle(container: &mut Fields) {
    let is_signal = |it: &Fields| it.len() == 1 && it.contains_key("stopSignal");
    if container.get("lifecycle").and_then(Value::as_object).is_some_and(is_signal) {
        container.remove("lifecycle");
    }
}

fn remove_empty(map: &mut Fields, list: &str) {
    if map.get(list).and_then(Value::as_array).is_some_and(Vec::is_empty) {
        map.remove(list);
    }
}
