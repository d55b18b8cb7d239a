//! Roles and their bindings.

use super::at::At;
use super::{names, selector};
use crate::object::status::Cause;
use crate::util::go;

const GROUP: &str = "rbac.authorization.k8s.io";

pub(super) fn role(role: &At<'_>, namespaced: bool, out: &mut Vec<Cause>) {
    for rule in role.items("rules") {
        self::rule(&rule, namespaced, out);
    }
    let aggregation = role.at("aggregationRule");
    if aggregation.is_absent() {
        return;
    }
    if aggregation.list("clusterRoleSelectors").is_empty() {
        let why = "at least one clusterRoleSelector required if aggregationRule is non-nil";
        aggregation.required("clusterRoleSelectors", why, out);
    }
    for it in aggregation.items("clusterRoleSelectors") {
        selector::label_selector(&it, out);
        if selector::is_invalid(&it) {
            // Kubernetes shows the parsed selector.
            out.push(Cause::invalid_shown(it.path.as_str(), "\"null\"", "invalid label selector."));
        }
    }
}

fn rule(rule: &At<'_>, namespaced: bool, out: &mut Vec<Cause>) {
    const PATHS: &str = "nonResourceURLs";
    let empty = |key: &str| rule.list(key).is_empty();
    if empty("verbs") {
        rule.required("verbs", "verbs must contain at least one value", out);
    }
    if !empty(PATHS) {
        if namespaced {
            rule.invalid_texts(PATHS, "namespaced rules cannot apply to non-resource URLs", out);
        }
        if !empty("apiGroups") || !empty("resources") || !empty("resourceNames") {
            rule.invalid_texts(PATHS, "rules cannot apply to both regular resources and non-resource URLs", out);
        }
        return;
    }
    if empty("apiGroups") {
        rule.required("apiGroups", "resource rules must supply at least one api group", out);
    }
    if empty("resources") {
        rule.required("resources", "resource rules must supply at least one resource", out);
    }
}

pub(super) fn binding(binding: &At<'_>, namespaced: bool, out: &mut Vec<Cause>) {
    let role = binding.at("roleRef");
    if role.text("apiGroup") != GROUP {
        out.push(Cause::not_supported(role.path("apiGroup"), role.text("apiGroup"), &[GROUP]));
    }
    let kinds: &[&str] = if namespaced { &["Role", "ClusterRole"] } else { &["ClusterRole"] };
    if !kinds.contains(&role.text("kind")) {
        out.push(Cause::not_supported(role.path("kind"), role.text("kind"), kinds));
    }
    role.must("name", names::path_segment, out);
    for it in binding.items("subjects") {
        subject(&it, namespaced, out);
    }
}

fn subject(subject: &At<'_>, namespaced: bool, out: &mut Vec<Cause>) {
    let (kind, name, group) = (subject.text("kind"), subject.text("name"), subject.text("apiGroup"));
    if name.is_empty() {
        subject.required("name", "", out);
    }
    match kind {
        "ServiceAccount" => {
            subject.may_say("name", names::subdomain, out);
            if !group.is_empty() {
                out.push(Cause::not_supported(subject.path("apiGroup"), group, &[""]));
            }
            if !namespaced && subject.text("namespace").is_empty() {
                subject.required("namespace", "", out);
            }
        }
        "User" | "Group" if group != GROUP => out.push(Cause::not_supported(subject.path("apiGroup"), group, &[GROUP])),
        "User" | "Group" => {}
        _ => out.push(Cause::not_supported(subject.path("kind"), kind, &["ServiceAccount", "User", "Group"])),
    }
}

/// The role of a binding is immutable: permission to bind one role must not allow binding another.
pub(super) fn binding_update(new: &At<'_>, old: &At<'_>, out: &mut Vec<Cause>) {
    if new.get("roleRef") != old.get("roleRef") {
        let role = new.at("roleRef");
        let [group, kind, name] = ["apiGroup", "kind", "name"].map(|key| go::quote(role.text(key)));
        let shown = format!("rbac.RoleRef{{APIGroup:{group}, Kind:{kind}, Name:{name}}}");
        out.push(Cause::invalid_shown(role.path.as_str(), &shown, "cannot change roleRef"));
    }
}
