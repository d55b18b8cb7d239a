//! The volumes of a pod.

use std::collections::{HashMap, HashSet};

use serde_json::Value;

use super::at::At;
use super::container::{Backing, absolute, field_reference, present, resource_reference};
use super::{meta, names, provision, selector, storage};
use crate::object::status::Cause;
use crate::util::quantity::Quantity;

const HOST_PATH_TYPES: [&str; 8] = ["", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"];
/// Fields of the pod that a file may hold.
const FILE_FIELDS: [&str; 5] = ["metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"];

/// Checks the volumes of a pod; returns the valid ones.
pub(super) fn volumes<'a>(spec: &At<'a>, out: &mut Vec<Cause>) -> HashMap<&'a str, Backing> {
    let mut good = HashMap::new();
    for volume in spec.items("volumes") {
        let before = out.len();
        let mut kinds = volume.fields().filter(|(key, value)| *key != "name" && !value.is_null()).map(|it| it.0);
        let (first, others) = in_order(kinds.next(), kinds.collect());
        match first {
            None => out.push(Cause::required(volume.path.as_str(), "must specify a volume type")),
            Some(kind) => source(&volume.at(kind), kind, out),
        }
        others.iter().for_each(|it| volume.forbidden(it, "may not specify more than 1 volume type", out));
        volume.must("name", names::label, out);
        let name = volume.text("name");
        if good.contains_key(name) {
            volume.duplicate("name", out);
        }
        if out.len() == before {
            let is_claim = matches!(first, Some("persistentVolumeClaim" | "ephemeral"));
            good.insert(name, if is_claim { Backing::Claim } else { Backing::Files });
        }
    }
    good
}

/// The kinds of a volume's sources in Kubernetes' order: the first, and the superfluous others.
fn in_order<'a>(first: Option<&'a str>, mut others: Vec<&'a str>) -> (Option<&'a str>, Vec<&'a str>) {
    if others.is_empty() {
        return (first, others);
    }
    others.extend(first);
    others.sort_by_key(|kind| SOURCES.iter().position(|it| it == kind));
    (Some(others.remove(0)), others)
}

/// The kinds of sources in the order in which Kubernetes looks for them.
const SOURCES: [&str; 30] = [
    "emptyDir",
    "hostPath",
    "gitRepo",
    "gcePersistentDisk",
    "awsElasticBlockStore",
    "secret",
    "nfs",
    "iscsi",
    "glusterfs",
    "flocker",
    "persistentVolumeClaim",
    "rbd",
    "cinder",
    "cephfs",
    "quobyte",
    "downwardAPI",
    "fc",
    "flexVolume",
    "configMap",
    "azureFile",
    "vsphereVolume",
    "photonPersistentDisk",
    "portworxVolume",
    "azureDisk",
    "storageos",
    "projected",
    "scaleIO",
    "csi",
    "ephemeral",
    "image",
];

/// The required fields of each kind of source.
const REQUIRED: [(&str, &[&str]); 20] = [
    ("hostPath", &["path"]),
    ("gitRepo", &["repository"]),
    ("gcePersistentDisk", &["pdName"]),
    ("awsElasticBlockStore", &["volumeID"]),
    ("secret", &["secretName"]),
    ("nfs", &["server", "path"]),
    ("iscsi", &["targetPortal", "iqn"]),
    ("glusterfs", &["endpoints", "path"]),
    ("persistentVolumeClaim", &["claimName"]),
    ("rbd", &["image"]),
    ("cinder", &["volumeID"]),
    ("flexVolume", &["driver"]),
    ("configMap", &["name"]),
    ("azureFile", &["secretName", "shareName"]),
    ("vsphereVolume", &["volumePath"]),
    ("photonPersistentDisk", &["pdID"]),
    ("portworxVolume", &["volumeID"]),
    ("azureDisk", &["diskName", "diskURI"]),
    ("scaleIO", &["gateway", "system", "volumeName"]),
    ("local", &["path"]),
];

/// Checks a source of a volume, of a pod's or of a persistent one.
pub(super) fn source(it: &At<'_>, kind: &str, out: &mut Vec<Cause>) {
    let required = REQUIRED.iter().find(|it| it.0 == kind).map_or(&[] as &[&str], |it| it.1);
    for key in required.iter().filter(|key| it.text(key).is_empty()) {
        it.required(key, "", out);
    }
    if matches!(kind, "cephfs" | "rbd") && it.list("monitors").is_empty() {
        it.required("monitors", "", out);
    }
    match kind {
        "emptyDir" if Quantity::from_json(it.get("sizeLimit")).is_ok_and(Quantity::is_negative) => {
            it.forbidden("sizeLimit", "SizeLimit field must be a valid resource quantity", out);
        }
        "hostPath" if !it.text("path").is_empty() => {
            if names::has_parent(it.text("path")) {
                it.invalid("path", "must not contain '..'", out);
            }
            it.one_of("type", &HOST_PATH_TYPES, out);
        }
        "gitRepo" => it.may("directory", names::local_path, out),
        "gcePersistentDisk" | "awsElasticBlockStore" if it.number("partition").is_some_and(|it| !(0..=255).contains(&it)) => {
            it.invalid("partition", &names::between(0, 255), out);
        }
        "secret" | "configMap" => files(it, out),
        "nfs" => {
            let path = it.text("path");
            out.extend(absolute(path).iter().map(|fault| Cause::invalid(it.path("path"), &path.into(), fault)));
        }
        "iscsi" => block_network(it, out),
        "downwardAPI" => {
            mode(it, "defaultMode", out);
            downward(it, out);
        }
        "projected" => projected(it, out),
        "csi" => driven(it, out),
        "azureDisk" => azure_disk(it, out),
        "fc" => fibre_channel(it, out),
        "ephemeral" => ephemeral(it, out),
        _ => {}
    }
}

/// Checks a volume that a driver brings with the pod.
fn driven(volume: &At<'_>, out: &mut Vec<Cause>) {
    provision::driver_name(volume, "driver", out);
    let secret = volume.at("nodePublishSecretRef");
    match secret.text("name") {
        _ if secret.is_absent() => {}
        "" => secret.required("name", "", out),
        // Kubernetes says so of the volume.
        name => out.extend(names::subdomain(name).iter().map(|fault| Cause::invalid(volume.path("name"), &name.into(), fault))),
    }
}

/// Checks a disk that is reached by iSCSI.
fn block_network(disk: &At<'_>, out: &mut Vec<Cause>) {
    disk.may_say("iqn", qualified_name, out);
    if disk.number("lun").is_some_and(|it| !(0..=255).contains(&it)) {
        disk.invalid("lun", &names::between(0, 255), out);
    }
    if (disk.flag("chapAuthDiscovery") || disk.flag("chapAuthSession")) && !disk.has("secretRef") {
        disk.required("secretRef", "", out);
    }
    if let Some(name) = disk.get("initiatorName").as_str() {
        // Kubernetes spells the field so here.
        out.extend(qualified_name(name).iter().map(|fault| Cause::invalid(disk.path("initiatorname"), &name.into(), fault)));
    }
}

/// An iSCSI qualified name, or one of the other two forms of names there.
fn qualified_name(name: &str) -> names::Faults {
    let serial = |prefix: &str, length: usize| {
        // Whatever is between the two.
        let rest = name.strip_prefix(prefix).and_then(|it| it.char_indices().nth(1).map(|(at, _)| &it[at..]));
        rest.is_some_and(|it| it.len() == length && it.bytes().all(|it| it.is_ascii_alphanumeric()))
    };
    let good = match name.get(..3) {
        Some("iqn") => is_iqn(name),
        Some("eui") => serial("eui", 16),
        Some("naa") => serial("naa", 32),
        _ => return vec!["must be valid format starting with iqn, eui, or naa".to_owned()],
    };
    if good { names::Faults::new() } else { vec!["must be valid format".to_owned()] }
}

/// `iqn.`, the year and month of a domain's registration, the reversed domain, and after a colon the owner's name of the device.
fn is_iqn(name: &str) -> bool {
    let Some((authority, own)) = name.strip_prefix("iqn.").and_then(|it| it.split_once(':')) else { return false };
    let [y, yy, yyy, yyyy, b'-', m, mm, b'.', domain @ ..] = authority.as_bytes() else { return false };
    [y, yy, yyy, yyyy, m, mm].into_iter().all(u8::is_ascii_digit)
        && !domain.is_empty()
        && domain.iter().all(|it| it.is_ascii_alphanumeric() || b"-.".contains(it))
        && !own.is_empty()
        && !own.contains(|it: char| ",;*&$|".contains(it) || it.is_ascii_whitespace())
}

fn azure_disk(disk: &At<'_>, out: &mut Vec<Cause>) {
    const MANAGED: &str = "/subscriptions/{sub-id}/resourcegroups/{group-name}/providers/microsoft.compute/disks/{disk-id}";
    const BLOB: &str = "https://{account-name}.blob.core.windows.net/{container-name}/{disk-name}.vhd";
    disk.one_of("cachingMode", &["None", "ReadOnly", "ReadWrite"], out);
    disk.one_of("kind", &["Dedicated", "Managed", "Shared"], out);
    let (kind, uri) = (disk.text("kind"), disk.text("diskURI"));
    let (prefix, form) = if kind == "Managed" { ("/subscriptions/", MANAGED) } else { ("https://", BLOB) };
    if !kind.is_empty() && !uri.starts_with(prefix) {
        out.push(Cause::not_supported(disk.path("diskURI"), uri, &[form]));
    }
}

fn fibre_channel(fc: &At<'_>, out: &mut Vec<Cause>) {
    const NAMES: &str = "targetWWNs";
    match (fc.list(NAMES).is_empty(), fc.list("wwids").is_empty()) {
        (true, true) => fc.required(NAMES, "must specify either targetWWNs or wwids, but not both", out),
        (false, false) => fc.invalid_texts(NAMES, "targetWWNs and wwids can not be specified simultaneously", out),
        _ => {}
    }
    match fc.number("lun") {
        _ if fc.list(NAMES).is_empty() => {}
        None => fc.required("lun", "lun is required if targetWWNs is specified", out),
        Some(0..=255) => {}
        Some(_) => fc.invalid("lun", &names::between(0, 255), out),
    }
}

/// Checks a volume whose claim is created with the pod.
fn ephemeral(volume: &At<'_>, out: &mut Vec<Cause>) {
    let template = volume.at("volumeClaimTemplate");
    if template.is_absent() {
        return volume.required("volumeClaimTemplate", "", out);
    }
    let metadata = template.at("metadata");
    meta::annotations(&metadata, out);
    selector::labels(&metadata, "labels", out);
    for (key, _) in metadata.fields().filter(|(key, value)| !matches!(*key, "annotations" | "labels") && !value.is_null()) {
        metadata.forbidden(key, "cannot be set", out);
    }
    storage::claim_spec(&template.at("spec"), out);
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

/// The error does not name the faulty file.
fn downward(of: &At<'_>, out: &mut Vec<Cause>) {
    for item in of.list("items") {
        let item = of.clone().holding(item);
        item.must("path", file_path, out);
        match present(&item, &["fieldRef", "resourceFieldRef"])[..] {
            [] => out.push(Cause::required(of.path.as_str(), "one of fieldRef and resourceFieldRef is required")),
            ["resourceFieldRef"] => {
                let reference = item.at("resourceFieldRef");
                if reference.text("containerName").is_empty() {
                    reference.required("containerName", "", out);
                }
                resource_reference(&reference, out);
            }
            ref kinds => {
                field_reference(&item.at("fieldRef"), &FILE_FIELDS, out);
                if kinds.len() > 1 {
                    let why = "fieldRef and resourceFieldRef can not be specified simultaneously";
                    out.push(Cause::invalid(of.path.as_str(), &Value::from("resource"), why));
                }
            }
        }
        mode(&item, "mode", out);
    }
}

/// Checks a volume of files from several sources.
fn projected(volume: &At<'_>, out: &mut Vec<Cause>) {
    mode(volume, "defaultMode", out);
    let mut paths = HashSet::new();
    for source in volume.items("sources") {
        let kinds = present(&source, &["secret", "configMap", "downwardAPI", "serviceAccountToken"]);
        for kind in &kinds {
            let it = source.at(kind);
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
                    if it.number("expirationSeconds").is_some_and(|it| it > 1 << 32) {
                        it.invalid("expirationSeconds", "may not specify a duration larger than 2^32 seconds", out);
                    }
                    // Kubernetes leaves out where exactly.
                    volume.clone().holding(it.value).must("path", file_path, out);
                }
                _ => {}
            }
            for item in it.items("items") {
                let path = item.text("path");
                if !path.is_empty() && !paths.insert(path) {
                    let name = if *kind == "downwardAPI" { path } else { it.text("name") };
                    out.push(Cause::invalid(volume.path.as_str(), &name.into(), "conflicting duplicate paths"));
                }
            }
        }
        if kinds.len() > 1 {
            out.push(Cause::forbidden(source.path, "may not specify more than 1 volume type per source"));
        }
    }
}
