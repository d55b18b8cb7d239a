//! Annotations that configure pods; most are older than the corresponding fields.

use std::cell::LazyCell;
use std::collections::HashSet;

use super::at::At;
use super::{container, names};
use crate::object::pod::MIRROR;
use crate::object::status::Cause;

/// Before the name of a container.
const APP_ARMOR: &str = "container.apparmor.security.beta.kubernetes.io/";
const SECCOMP: &str = "container.seccomp.security.alpha.kubernetes.io/";
const SECCOMP_OF_POD: &str = "seccomp.security.alpha.kubernetes.io/pod";
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// Checks the annotations of a pod, or of a template for pods, in themselves.
pub(super) fn annotations(metadata: &At<'_>, spec: &At<'_>, out: &mut Vec<Cause>) {
    let annotations = metadata.at("annotations");
    if annotations.is_absent() {
        return;
    }
    let invalid = |key: &str, shown: &str, why: &str| Cause::invalid(annotations.entry_path(key), &shown.into(), why);
    if annotations.has(MIRROR) && spec.text("nodeName").is_empty() {
        out.push(invalid(MIRROR, annotations.text(MIRROR), "must set spec.nodeName if mirror pod annotation is set"));
    }
    let of_pod = metadata.strings("annotations").filter(|(key, _)| *key == SECCOMP_OF_POD);
    for (key, profile) in of_pod.chain(metadata.strings("annotations").filter(|(key, _)| key.starts_with(SECCOMP))) {
        let faults = match profile.strip_prefix("localhost/") {
            Some(path) => names::local_path(path),
            None if matches!(profile, "runtime/default" | "docker/default" | "unconfined") => continue,
            None => vec!["must be a valid seccomp profile".into()],
        };
        let shown = profile.strip_prefix("localhost/").unwrap_or(profile).into();
        out.extend(faults.iter().map(|fault| Cause::invalid(annotations.path(key), &shown, fault)));
    }
    let names = LazyCell::new(|| container::all(spec).map(|it| it.text("name")).collect::<HashSet<_>>());
    for (key, profile) in metadata.strings("annotations") {
        let Some(container) = key.strip_prefix(APP_ARMOR) else { continue };
        if !names.contains(container) {
            out.push(invalid(key, container, "container not found"));
        }
        if !matches!(profile, "" | "runtime/default" | "unconfined") && !profile.starts_with("localhost/") {
            out.push(invalid(key, profile, &format!("invalid AppArmor profile name: {profile:?}")));
        }
    }
}

/// Checks that the annotations of a new pod or template agree with its fields.
pub(super) fn agree(metadata: &At<'_>, spec: &At<'_>, out: &mut Vec<Cause>) {
    const UNCONFINED: &[&str] = &["unconfined"];
    const DEFAULT: &[&str] = &["runtime/default"];
    const DEFAULTS: &[&str] = &["runtime/default", "docker/default"];
    let annotations = metadata.at("annotations");
    if annotations.is_absent() {
        return;
    }
    let compare = |at: &At<'_>, profile: &At<'_>, key: &str, name: &str, defaults: &[&str], out: &mut Vec<Cause>| {
        let annotation = annotations.text(key);
        if profile.is_absent() || !annotations.has(key) {
            return;
        }
        let of_type = match profile.text("type") {
            "Unconfined" => UNCONFINED.contains(&annotation),
            "RuntimeDefault" => defaults.contains(&annotation),
            "Localhost" => annotation.starts_with("localhost/"),
            _ => true,
        };
        if !of_type {
            at.forbidden("type", &format!("{name} type in annotation and field must match"), out);
        } else if profile.text("type") == "Localhost" && annotation.strip_prefix("localhost/") != profile.get("localhostProfile").as_str() {
            at.forbidden("localhostProfile", &format!("{name} profile in annotation and field must match"), out);
        }
    };
    let context = spec.at("securityContext");
    let (seccomp, app_armor) = (context.at("seccompProfile"), context.at("appArmorProfile"));
    compare(&seccomp, &seccomp, SECCOMP_OF_POD, "seccomp", DEFAULTS, out);
    for container in container::all(spec) {
        let own = container.at("securityContext").at("seccompProfile");
        compare(&own, &own, &format!("{SECCOMP}{}", container.text("name")), "seccomp", DEFAULTS, out);
    }
    if spec.at("os").text("name") == "windows" {
        return;
    }
    for container in container::all(spec) {
        let own = container.at("securityContext").at("appArmorProfile");
        let profile = if own.is_absent() { &app_armor } else { &own };
        compare(&own, profile, &format!("{APP_ARMOR}{}", container.text("name")), "apparmor", DEFAULT, out);
    }
}

/// Checks that annotations that define the pod are unchanged, and that the others are valid.
pub(super) fn update(new: &At<'_>, old: &At<'_>, out: &mut Vec<Cause>) {
    let (new_metadata, old_metadata) = (new.at("metadata"), old.at("metadata"));
    let (after, before) = (new_metadata.at("annotations"), old_metadata.at("annotations"));
    let what = |key: &str| match key {
        MIRROR => Some("mirror pod annotation"),
        _ => key.starts_with(APP_ARMOR).then_some("AppArmor annotations"),
    };
    for (key, _) in old_metadata.strings("annotations").filter(|(key, value)| after.get(key).as_str() != Some(value)) {
        if let Some(what) = what(key) {
            out.push(Cause::forbidden(after.entry_path(key), &format!("may not remove or update {what}")));
        }
    }
    for (key, _) in new_metadata.strings("annotations").filter(|(key, _)| !before.has(key)) {
        if let Some(what) = what(key) {
            out.push(Cause::forbidden(after.entry_path(key), &format!("may not add {what}")));
        }
    }
    if is_price(&before) {
        // Kubernetes asks twice.
        deletion_cost(&new_metadata, out);
        deletion_cost(&new_metadata, out);
    }
    annotations(&new_metadata, &new.at("spec"), out);
}

/// Checks the pod's deletion cost.
pub(super) fn deletion_cost(metadata: &At<'_>, out: &mut Vec<Cause>) {
    let annotations = metadata.at("annotations");
    if !is_price(&annotations) {
        let cause = Cause::invalid(annotations.entry_path(DELETION_COST), annotations.get(DELETION_COST), "must be a 32bit integer");
        out.push(cause);
    }
}

/// Whether the cost is a number, if there is one: without a plus, and without zeroes before it.
fn is_price(annotations: &At<'_>) -> bool {
    annotations
        .get(DELETION_COST)
        .as_str()
        .is_none_or(|it| it.parse::<i32>().is_ok() && !it.starts_with('+') && (it == "0" || !it.starts_with('0')))
}
