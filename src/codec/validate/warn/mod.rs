//! Warnings about odd but accepted objects.

mod address;
mod paths;
mod pod;

use serde_json::Value;

use super::at::At;
use super::names;
use super::storage::MOUNT_OPTIONS;
use crate::object::ResourceRef;
use crate::util::quantity::Quantity;

/// The warnings for creating `new` (`old` is `None`) or replacing `old` by it, in Kubernetes' words.
pub fn warnings(resource: ResourceRef, new: &Value, old: Option<&Value>) -> Vec<String> {
    // As with faults: nearly no object has any, and then paths are not needed.
    match find(resource.kind, &At::unplaced(new), old).is_empty() {
        true => Vec::new(),
        false => find(resource.kind, &At::root(new), old),
    }
}

fn find(kind: &str, new: &At<'_>, old: Option<&Value>) -> Vec<String> {
    let mut out = Vec::new();
    let spec = new.at("spec");
    // Workloads are checked when they are created, and when their specification has changed.
    let changed = old.is_none_or(|old| old["metadata"]["generation"] != new.get("metadata")["generation"]);
    if old.is_none() {
        name(kind, &new.at("metadata"), &mut out);
    }
    match kind {
        "Pod" if old.is_none() => pod::pod(new, false, &mut out),
        "PodTemplate" if changed => pod::pod(&new.at("template"), true, &mut out),
        "ReplicationController" | "ReplicaSet" | "Deployment" | "DaemonSet" | "StatefulSet" | "Job" if changed => {
            pod::pod(&spec.at("template"), true, &mut out);
        }
        "CronJob" => {
            if changed {
                indexes(&spec.at("jobTemplate").at("spec"), &mut out);
                pod::pod(&spec.at("jobTemplate").at("spec").at("template"), true, &mut out);
            }
            if old.is_some() && spec.text("schedule").contains("TZ") {
                out.push(
                    "cannot use TZ or CRON_TZ in spec.spec.schedule, use timeZone instead, see \
                     https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/ for more details"
                        .to_owned(),
                );
            }
        }
        "Secret" => secret(new, &mut out),
        "ServiceAccount" if old.is_none_or(|old| old["metadata"]["annotations"][MOUNTABLE[0].0].is_null()) => {
            annotations(new, &MOUNTABLE, &mut out);
        }
        "RuntimeClass" => {
            let scheduling = new.at("scheduling");
            for (key, _) in scheduling.strings("nodeSelector") {
                out.extend(deprecated_label(key).map(|why| format!("{}: {why}", scheduling.path("nodeSelector"))));
            }
        }
        "Service" => service(new, &mut out),
        "Endpoints" => address::endpoints(new, &mut out),
        "NetworkPolicy" => address::network_policy(&spec, &mut out),
        "PersistentVolume" => volume(new, &mut out),
        "PersistentVolumeClaim" => {
            annotations(new, &CLASS, &mut out);
            claim(&spec, &mut out);
        }
        "Ingress" if old.is_none() && new.at("metadata").at("annotations").has(INGRESS_CLASS) && !spec.has("ingressClassName") => {
            out.push(format!("annotation {INGRESS_CLASS:?} is deprecated, please use 'spec.ingressClassName' instead"));
        }
        "EndpointSlice" => {
            if old.is_none() && new.text("addressType") == "FQDN" {
                out.push("spec.addressType: FQDN endpoints are deprecated".to_owned());
            }
            address::slice(new, &mut out);
        }
        "StorageClass" => {
            for term in new.items("allowedTopologies").flat_map(|it| it.items("matchLabelExpressions").collect::<Vec<_>>()) {
                if let Some(why) = deprecated_label(term.text("key")) {
                    out.push(format!("{}: {why}", term.path("key")));
                }
            }
        }
        "Node" => {
            for (field, why) in
                [("configSource", "the feature is removed"), ("externalID", "this field is deprecated, and is unused by Kubernetes")]
            {
                if spec.has(field) {
                    out.push(format!("{}: {why}", spec.path(field)));
                }
            }
            address::node(&spec, &mut out);
        }
        _ => {}
    }
    if kind == "Job" && changed {
        indexes(&spec, &mut out);
    }
    if kind == "StatefulSet" {
        for template in spec.items("volumeClaimTemplates") {
            claim(&template.at("spec"), &mut out);
        }
        if spec.number("revisionHistoryLimit").is_some_and(|it| it < 0) {
            out.push(
                "spec.revisionHistoryLimit: a negative value retains all historical revisions; a value >= 0 is recommended".to_owned(),
            );
        }
    }
    out
}

/// The older name of an annotation of services.
const HINTS: &str = "service.kubernetes.io/topology-aware-hints";
const INGRESS_CLASS: &str = "kubernetes.io/ingress.class";

/// Objects whose names become host names.
fn name(kind: &str, metadata: &At<'_>, out: &mut Vec<String>) {
    let where_used = match kind {
        "Pod" => "the Pod's hostname",
        "ReplicationController" | "ReplicaSet" | "Deployment" | "Job" | "CronJob" => "Pod names and hostnames",
        _ => return,
    };
    let faults = names::label(metadata.text("name"));
    if !faults.is_empty() {
        let faults = faults.join(" ");
        out.push(format!(
            "metadata.name: this is used in {where_used}, which can result in surprising behavior; a DNS label is recommended: [{faults}]"
        ));
    }
}

fn service(service: &At<'_>, out: &mut Vec<String>) {
    let spec = service.at("spec");
    if service.at("metadata").at("annotations").has(HINTS) {
        out.push(format!("annotation {HINTS} is deprecated, please use service.kubernetes.io/topology-mode instead"));
    }
    address::service(&spec, out);
    let external = spec.text("type") == "ExternalName";
    if external && !spec.list("externalIPs").is_empty() {
        out.push("spec.externalIPs is ignored when spec.type is \"ExternalName\"".to_owned());
    }
    if !external && !spec.text("externalName").is_empty() {
        out.push("spec.externalName is ignored when spec.type is not \"ExternalName\"".to_owned());
    }
}

/// Jobs with so many indexes that `status.completedIndexes` may become too long.
fn indexes(spec: &At<'_>, out: &mut Vec<String>) {
    let above = |key: &str, most: i64| spec.number(key).is_some_and(|it| it > most);
    if spec.text("completionMode") == "Indexed" && above("completions", 100_000) && above("parallelism", 10_000) {
        out.push(format!(
            "{}: In Indexed Jobs with a number of completions higher than 10^5 and a parallelism higher than 10^4, Kubernetes might not be \
             able to track completedIndexes when a big number of indexes fail",
            spec.path
        ));
    }
}

/// Checks only that a certificate exists, not that it matches the key.
fn secret(secret: &At<'_>, out: &mut Vec<String>) {
    use base64::Engine;
    if secret.text("type") != "kubernetes.io/tls" {
        return;
    }
    let is_pem = |key: &str| {
        let text = base64::engine::general_purpose::STANDARD.decode(secret.at("data").text(key)).unwrap_or_default();
        String::from_utf8_lossy(&text).contains("-----BEGIN ")
    };
    if let Some((_, what)) = [("tls.crt", "certificate"), ("tls.key", "key")].into_iter().find(|(key, _)| !is_pem(key)) {
        out.push(format!("tls: failed to find any PEM data in {what} input"));
    }
}

/// A deprecated annotation, and the warning.
type Deprecated = (&'static str, &'static str);

const CLASS: [Deprecated; 1] =
    [("volume.beta.kubernetes.io/storage-class", "deprecated since v1.8; use \"storageClassName\" attribute instead")];

const MOUNTABLE: [Deprecated; 1] =
    [("kubernetes.io/enforce-mountable-secrets", "deprecated in v1.32+; prefer separate namespaces to isolate access to mounted secrets")];

fn annotations(object: &At<'_>, deprecated: &[Deprecated], out: &mut Vec<String>) {
    let annotations = object.at("metadata").at("annotations");
    for (key, why) in deprecated.iter().filter(|(key, _)| annotations.has(key)) {
        out.push(format!("{}: {why}", annotations.entry_path(key)));
    }
}

/// Kinds of volumes that can no longer be mounted.
const GONE: [(&str, &str); 8] = [
    ("photonPersistentDisk", "deprecated in v1.11, non-functional in v1.16+"),
    ("scaleIO", "deprecated in v1.16, non-functional in v1.22+"),
    ("flocker", "deprecated in v1.22, non-functional in v1.25+"),
    ("storageos", "deprecated in v1.22, non-functional in v1.25+"),
    ("quobyte", "deprecated in v1.22, non-functional in v1.25+"),
    ("glusterfs", "deprecated in v1.25, non-functional in v1.26+"),
    ("cephfs", "deprecated in v1.28, non-functional in v1.31+"),
    ("rbd", "deprecated in v1.28, non-functional in v1.31+"),
];

/// As in [`GONE`], except one that Kubernetes spells differently. Skips those in `untold`.
fn gone(source: &At<'_>, untold: &[&str], out: &mut Vec<String>) {
    for (kind, why) in GONE.iter().filter(|(kind, _)| source.has(kind) && !untold.contains(kind)) {
        out.push(format!("{}: {why}", source.path(if *kind == "storageos" { "storageOS" } else { kind })));
    }
}

fn volume(volume: &At<'_>, out: &mut Vec<String>) {
    annotations(volume, &CLASS, out);
    annotations(volume, &[(MOUNT_OPTIONS, "deprecated since v1.31; use \"mountOptions\" attribute instead")], out);
    let spec = volume.at("spec");
    if spec.text("persistentVolumeReclaimPolicy") == "Recycle" {
        let path = spec.path("persistentVolumeReclaimPolicy");
        out.push(format!(
            "{path}: The Recycle reclaim policy is deprecated. Instead, the recommended approach is to use dynamic provisioning."
        ));
    }
    for term in spec.at("nodeAffinity").at("required").items("nodeSelectorTerms") {
        node_term(&term, out);
    }
    gone(&spec, &["flocker", "quobyte"], out);
}

fn claim(spec: &At<'_>, out: &mut Vec<String>) {
    for kind in ["requests", "limits"] {
        whole_bytes(&spec.at("resources").at(kind), "storage", out);
    }
}

/// Bytes come in whole numbers.
fn whole_bytes(amounts: &At<'_>, name: &str, out: &mut Vec<String>) {
    if amounts.has(name)
        && let Ok(amount) = Quantity::from_json(amounts.get(name))
        && !amount.is_integer()
    {
        let amount = amount.to_string();
        out.push(format!("{}: fractional byte value {amount:?} is invalid, must be an integer", amounts.entry_path(name)));
    }
}

/// The warning for a node label that has been renamed.
fn deprecated_label(key: &str) -> Option<&'static str> {
    Some(match key {
        "beta.kubernetes.io/arch" => "deprecated since v1.14; use \"kubernetes.io/arch\" instead",
        "beta.kubernetes.io/os" => "deprecated since v1.14; use \"kubernetes.io/os\" instead",
        "failure-domain.beta.kubernetes.io/region" => "deprecated since v1.17; use \"topology.kubernetes.io/region\" instead",
        "failure-domain.beta.kubernetes.io/zone" => "deprecated since v1.17; use \"topology.kubernetes.io/zone\" instead",
        "beta.kubernetes.io/instance-type" => "deprecated since v1.17; use \"node.kubernetes.io/instance-type\" instead",
        "app.kubernetes.io/created-by" => "deprecated since v1.9",
        "scheduler.alpha.kubernetes.io/preferAvoidPods" => "deprecated since v1.22; use Taints and Tolerations instead",
        "node-role.kubernetes.io/master" => "use \"node-role.kubernetes.io/control-plane\" instead",
        _ => return None,
    })
}

fn node_term(term: &At<'_>, out: &mut Vec<String>) {
    for expression in term.items("matchExpressions") {
        let key = expression.text("key");
        if let Some(why) = deprecated_label(key) {
            out.push(format!("{}: {key} is {why}", expression.path("key")));
        }
    }
}

#[cfg(test)]
mod tests;
