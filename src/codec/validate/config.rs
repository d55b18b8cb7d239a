//! Config maps, secrets, and the limits of namespaces.

use serde_json::Value;

use super::at::At;
use super::names::{self, IMMUTABLE};
use super::resources;
use crate::object::status::Cause;
use crate::util::go;

/// The most that all values of a config map or secret may take, in bytes.
const SIZE: usize = 1024 * 1024;

/// How many bytes base64 stands for.
fn decoded(text: &str) -> usize {
    text.len() / 4 * 3 - text.bytes().rev().take_while(|it| *it == b'=').count().min(text.len() / 4 * 3)
}

/// Checks the keys of a map; returns the length of its values.
fn keys(of: &At<'_>, key: &str, length: fn(&str) -> usize, out: &mut Vec<Cause>) -> usize {
    let map = of.at(key);
    let mut size = 0;
    for (key, value) in of.strings(key) {
        size += length(value);
        out.extend(names::config_key(key).iter().map(|fault| Cause::invalid(map.entry_path(key), &key.into(), fault)));
    }
    size
}

pub(super) fn config_map(map: &At<'_>, out: &mut Vec<Cause>) {
    let size = keys(map, "data", str::len, out) + keys(map, "binaryData", decoded, out);
    let data = map.at("data");
    for (key, _) in map.entries("data").filter(|(key, _)| map.get("binaryData").get(key).is_some()) {
        out.push(Cause::invalid(data.entry_path(key), &key.into(), "duplicate of key present in binaryData"));
    }
    if size > SIZE {
        out.push(Cause::too_long("[]", SIZE));
    }
}

/// Keys that a secret of a type has to have.
const REQUIRED: [(&str, &[&str]); 5] = [
    ("kubernetes.io/dockercfg", &[".dockercfg"]),
    ("kubernetes.io/dockerconfigjson", &[".dockerconfigjson"]),
    ("kubernetes.io/ssh-auth", &["ssh-privatekey"]),
    ("kubernetes.io/tls", &["tls.crt", "tls.key"]),
    ("kubernetes.io/basic-auth", &[]),
];
const ACCOUNT_TOKEN: &str = "kubernetes.io/service-account-token";
const ACCOUNT_NAME: &str = "kubernetes.io/service-account.name";

pub(super) fn secret(secret: &At<'_>, out: &mut Vec<Cause>) {
    if keys(secret, "data", decoded, out) > SIZE {
        out.push(Cause::too_long("data", SIZE));
    }
    let kind = secret.text("type");
    let data = secret.at("data");
    if kind == ACCOUNT_TOKEN {
        let annotations = secret.at("metadata").at("annotations");
        if annotations.text(ACCOUNT_NAME).is_empty() {
            out.push(Cause::required(annotations.entry_path(ACCOUNT_NAME), ""));
        }
    }
    if kind == "kubernetes.io/basic-auth" && !data.has("username") && !data.has("password") {
        for key in ["username", "password"] {
            out.push(Cause::required(data.entry_path(key), ""));
        }
    }
    for key in REQUIRED.iter().filter(|(it, _)| *it == kind).flat_map(|(_, keys)| *keys) {
        let missing = if kind == "kubernetes.io/ssh-auth" { data.text(key).is_empty() } else { !data.has(key) };
        if missing {
            out.push(Cause::required(data.entry_path(key), ""));
        } else if key.starts_with(".docker") && !is_json(data.text(key)) {
            out.push(Cause::invalid(data.entry_path(key), &"<secret contents redacted>".into(), "invalid character in JSON"));
        }
    }
}

fn is_json(base64: &str) -> bool {
    use base64::Engine;
    let bytes = base64::engine::general_purpose::STANDARD.decode(base64).unwrap_or_default();
    serde_json::from_slice::<serde::de::IgnoredAny>(&bytes).is_ok()
}

pub(super) fn secret_update(new: &At<'_>, old: &At<'_>, out: &mut Vec<Cause>) {
    if new.get("type") != old.get("type") {
        new.invalid("type", IMMUTABLE, out);
    }
    immutable(new, old, &["data"], out);
}

/// Checks that an object that was declared immutable stays so, and is unchanged.
pub(super) fn immutable(new: &At<'_>, old: &At<'_>, keys: &[&str], out: &mut Vec<Cause>) {
    if !old.flag("immutable") {
        return;
    }
    const WHY: &str = "field is immutable when `immutable` is set";
    if !new.flag("immutable") {
        new.forbidden("immutable", WHY, out);
    }
    let empty = |it: &Value| it.as_object().is_none_or(serde_json::Map::is_empty);
    for key in keys {
        let (after, before) = (new.get(key), old.get(key));
        if after != before && !(empty(after) && empty(before)) {
            new.forbidden(key, WHY, out);
        }
    }
}

pub(super) fn limit_range(range: &At<'_>, out: &mut Vec<Cause>) {
    let mut seen = std::collections::HashSet::new();
    for item in range.at("spec").items("limits") {
        item.faults("type", qualified_or_standard(item.text("type")), out);
        if !seen.insert(item.text("type")) {
            item.duplicate("type", out);
        }
        if item.text("type") == "Pod" {
            for key in ["default", "defaultRequest"] {
                if item.count(key) != 0 {
                    item.forbidden(key, "may not be specified when `type` is 'Pod'", out);
                }
            }
        }
        if item.text("type") == "PersistentVolumeClaim" && !["min", "max"].iter().any(|key| item.at(key).has("storage")) {
            let why = "either minimum or maximum storage value is required, but neither was provided";
            item.required("limits", why, out);
        }
        resources::limit_item(&item, out);
    }
}

fn qualified_or_standard(kind: &str) -> names::Faults {
    let faults = names::qualified(kind);
    if faults.is_empty() && !kind.contains('/') && !["Pod", "Container", "PersistentVolumeClaim"].contains(&kind) {
        return vec!["must be a standard limit type or fully qualified".to_owned()];
    }
    faults
}

const SCOPES: [&str; 7] =
    ["BestEffort", "CrossNamespacePodAffinity", "NotBestEffort", "NotTerminating", "PriorityClass", "Terminating", "VolumeAttributesClass"];

pub(super) fn resource_quota(quota: &At<'_>, out: &mut Vec<Cause>) {
    let (spec, status) = (quota.at("spec"), quota.at("status"));
    quota_amounts(&spec, "hard", out);
    quota_scopes(&spec, out);
    quota_selector(&spec.at("scopeSelector"), out);
    quota_amounts(&status, "hard", out);
    quota_amounts(&status, "used", out);
}

fn quota_amounts(of: &At<'_>, key: &str, out: &mut Vec<Cause>) {
    for (name, value) in of.entries(key) {
        let path = of.at(key).entry_path(name);
        resources::name(&path, name, (resources::can_have_quota, "must be a standard resource for quota"), out);
        resources::amount_of(&path, name, value, out);
    }
}

/// The most faults of scopes that are told: there may be one for each scope and resource, and each shows all scopes.
const SCOPE_FAULTS: usize = 100;

fn quota_scopes(spec: &At<'_>, out: &mut Vec<Cause>) {
    let scopes: Vec<&str> = spec.list("scopes").iter().filter_map(Value::as_str).collect();
    let shown = go::string_list(spec.list("scopes")).replacen("[]string", "[]core.ResourceQuotaScope", 1);
    let before = out.len();
    let mut fault = |detail: &str| {
        if out.len() - before < SCOPE_FAULTS {
            out.push(Cause::invalid_shown(spec.path("scopes"), &shown, detail));
        }
        out.len() - before < SCOPE_FAULTS
    };
    for scope in &scopes {
        if !SCOPES.contains(scope) && !fault("unsupported scope") {
            return;
        }
        for (name, _) in spec.entries("hard") {
            let fits = !resources::can_have_quota(name) || resources::is_of_scope(scope, name);
            if !fits && !fault("unsupported scope applied to resource") {
                return;
            }
        }
    }
    for pair in [["BestEffort", "NotBestEffort"], ["Terminating", "NotTerminating"]] {
        if pair.iter().all(|it| scopes.contains(it)) {
            fault("conflicting scopes");
        }
    }
}

/// The error does not name the faulty requirement.
fn quota_selector(selector: &At<'_>, out: &mut Vec<Cause>) {
    let all = selector.at("matchExpressions");
    const FIXED: [&str; 5] = ["BestEffort", "NotBestEffort", "Terminating", "NotTerminating", "CrossNamespacePodAffinity"];
    for requirement in selector.items("matchExpressions") {
        let scope = requirement.text("scopeName");
        if !SCOPES.contains(&scope) {
            out.push(Cause::invalid(all.path("scopeName"), &scope.into(), "unsupported scope"));
        }
        if FIXED.contains(&scope) && requirement.text("operator") != "Exists" {
            let why = "must be 'Exists' when scope is any of ResourceQuotaScopeTerminating, ResourceQuotaScopeNotTerminating, \
                       ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or ResourceQuotaScopeCrossNamespacePodAffinity";
            out.push(Cause::invalid(all.path("operator"), requirement.get("operator"), why));
        }
        let none = requirement.list("values").is_empty();
        match requirement.text("operator") {
            "In" | "NotIn" if none => {
                let why = "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector";
                out.push(Cause::required(all.path("values"), why));
            }
            "Exists" | "DoesNotExist" if !none => {
                let shown = go::string_list(requirement.list("values"));
                let why = "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector";
                out.push(Cause::invalid_shown(all.path("values"), &shown, why));
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            other => out.push(Cause::invalid(all.path("operator"), &other.into(), "not a valid selector operator")),
        }
    }
}

/// The scopes of a quota are immutable.
pub(super) fn resource_quota_update(new: &At<'_>, old: &At<'_>, out: &mut Vec<Cause>) {
    let sorted = |of: &At<'_>| {
        let mut scopes: Vec<&str> = of.at("spec").list("scopes").iter().filter_map(Value::as_str).collect();
        scopes.sort_unstable();
        scopes.into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    if sorted(new) != sorted(old) {
        new.at("spec").invalid("scopes", IMMUTABLE, out);
    }
}
