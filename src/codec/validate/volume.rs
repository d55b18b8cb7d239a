//! The volumes of a pod.

use std::collections::HashSet;

use serde_json::Value;

use super::at::At;
use super::container::{absolute, field_reference, present, resource_reference};
use super::names;
use crate::object::status::Cause;
use crate::util::quantity::Quantity;

const HOST_PATH_TYPES: [&str; 8] = ["", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"];
/// Fields of the pod that a file may hold.
const FILE_FIELDS: [&str; 5] = ["metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"];

/// Checks the volumes of a pod; returns their names.
pub(super) fn volumes<'a>(spec: &At<'a>, out: &mut Vec<Cause>) -> HashSet<&'a str> {
    let mut seen = HashSet::new();
    for volume in spec.items("volumes") {
        volume.must("name", names::label, out);
        let name = volume.text("name");
        if !name.is_empty() && !seen.insert(name) && names::label(name).is_empty() {
            volume.duplicate("name", out);
        }
        let mut sources = volume.value.as_object().into_iter().flatten().filter(|(key, value)| *key != "name" && !value.is_null());
        let Some((first, _)) = sources.next() else {
            out.push(Cause::required(volume.path, "must specify a volume type"));
            continue;
        };
        source(&volume.at(first), first, out);
        for (other, _) in sources {
            volume.forbidden(other, "may not specify more than 1 volume type", out);
        }
    }
    seen
}

/// Checks a source of a volume, of a pod's or of a persistent one.
pub(super) fn source(it: &At<'_>, kind: &str, out: &mut Vec<Cause>) {
    let required = |keys: &[&str], out: &mut Vec<Cause>| {
        for key in keys.iter().filter(|key| it.text(key).is_empty()) {
            it.required(key, "", out);
        }
    };
    match kind {
        "emptyDir" if Quantity::from_json(it.get("sizeLimit")).is_ok_and(Quantity::is_negative) => {
            it.forbidden("sizeLimit", "SizeLimit field must be a valid resource quantity", out);
        }
        "hostPath" => {
            required(&["path"], out);
            if names::has_parent(it.text("path")) {
                it.invalid("path", "must not contain '..'", out);
            }
            it.one_of("type", &HOST_PATH_TYPES, out);
        }
        "secret" => {
            required(&["secretName"], out);
            files(it, out);
        }
        "configMap" => {
            required(&["name"], out);
            files(it, out);
        }
        "persistentVolumeClaim" => required(&["claimName"], out),
        "nfs" => {
            required(&["server", "path"], out);
            it.may("path", absolute, out);
        }
        "downwardAPI" => {
            mode(it, "defaultMode", out);
            downward(it, out);
        }
        "projected" => {
            mode(it, "defaultMode", out);
            for projection in it.items("sources") {
                projected(it, &projection, out);
            }
        }
        "local" => required(&["path"], out),
        "csi" => it.must_be("driver", names::driver, out),
        "iscsi" => required(&["targetPortal", "iqn"], out),
        "cephfs" if it.list("monitors").is_empty() => it.required("monitors", "", out),
        "glusterfs" => required(&["endpoints", "path"], out),
        "rbd" => {
            if it.list("monitors").is_empty() {
                it.required("monitors", "", out);
            }
            required(&["image"], out);
        }
        "flexVolume" => required(&["driver"], out),
        "ephemeral" if !it.has("volumeClaimTemplate") => it.required("volumeClaimTemplate", "", out),
        _ => {}
    }
}

fn mode(of: &At<'_>, key: &str, out: &mut Vec<Cause>) {
    if of.number(key).is_some_and(|it| !(0..=0o777).contains(&it)) {
        of.invalid(key, "must be a number between 0 and 0777 (octal), both inclusive", out);
    }
}

/// Checks which keys of a secret or config map become which files.
fn files(of: &At<'_>, out: &mut Vec<Cause>) {
    mode(of, "defaultMode", out);
    for item in of.items("items") {
        if item.text("key").is_empty() {
            item.required("key", "", out);
        }
        item.must("path", file_path, out);
        mode(&item, "mode", out);
    }
}

fn file_path(path: &str) -> names::Faults {
    let faults = names::local_path(path);
    if faults.is_empty() && path.starts_with("..") { vec!["must not start with '..'".to_owned()] } else { faults }
}

fn downward(of: &At<'_>, out: &mut Vec<Cause>) {
    for item in of.items("items") {
        item.must("path", file_path, out);
        mode(&item, "mode", out);
        match present(&item, &["fieldRef", "resourceFieldRef"])[..] {
            [] => out.push(Cause::required(of.path.as_str(), "one of fieldRef and resourceFieldRef is required")),
            ["fieldRef"] => field_reference(&item.at("fieldRef"), &FILE_FIELDS, out),
            ["resourceFieldRef"] => {
                let reference = item.at("resourceFieldRef");
                if reference.text("containerName").is_empty() {
                    reference.required("containerName", "", out);
                }
                resource_reference(&reference, out);
            }
            _ => out.push(Cause::invalid(
                item.path,
                &Value::from("resource"),
                "fieldRef and resourceFieldRef can not be specified simultaneously",
            )),
        }
    }
}

fn projected(volume: &At<'_>, of: &At<'_>, out: &mut Vec<Cause>) {
    let kinds = present(of, &["secret", "configMap", "downwardAPI", "serviceAccountToken"]);
    for extra in kinds.iter().skip(1) {
        of.forbidden(extra, "may not specify more than 1 volume type per source", out);
    }
    let Some(kind) = kinds.first() else { return };
    let it = of.at(kind);
    match *kind {
        "secret" | "configMap" => {
            if it.text("name").is_empty() {
                it.required("name", "", out);
            }
            files(&it, out);
        }
        "downwardAPI" => downward(&it, out),
        "serviceAccountToken" => {
            if it.number("expirationSeconds").is_some_and(|it| it < 600) {
                it.invalid("expirationSeconds", "may not specify a duration less than 10 minutes", out);
            }
            match it.text("path") {
                // Kubernetes leaves out where exactly.
                "" => volume.required("path", "", out),
                _ => it.must("path", file_path, out),
            }
        }
        _ => {}
    }
}
