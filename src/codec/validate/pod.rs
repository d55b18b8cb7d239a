//! Pods, and the templates that pods are made from.

use std::collections::HashSet;

use serde_json::{Map, Value, json};

use super::at::At;
use super::container::{Pod, Role, container};
use super::names;
use super::{meta, placement, resources, security, selector, volume};
use crate::object::status::Cause;

/// Checks what only a pod about to be created must not have.
pub(super) fn creation(pod: &At<'_>, out: &mut Vec<Cause>) {
    let spec = pod.at("spec");
    if !spec.list("ephemeralContainers").is_empty() {
        spec.forbidden("ephemeralContainers", "cannot be set on create", out);
    }
}

/// Checks `spec.template` of what makes pods.
pub(super) fn template(template: &At<'_>, out: &mut Vec<Cause>) {
    let metadata = template.at("metadata");
    selector::labels(&metadata, "labels", out);
    meta::annotations(&metadata, out);
    let spec = template.at("spec");
    self::spec(&spec, out);
    if !spec.list("ephemeralContainers").is_empty() {
        spec.forbidden("ephemeralContainers", "ephemeral containers not allowed in pod template", out);
    }
}

/// Checks a pod spec.
pub(super) fn spec(spec: &At<'_>, out: &mut Vec<Cause>) {
    let mut pod = Pod::new(volume::volumes(spec, out), spec);
    if spec.list("containers").is_empty() {
        spec.required("containers", "", out);
    }
    for (key, role) in [("containers", Role::Main), ("initContainers", Role::Init), ("ephemeralContainers", Role::Ephemeral)] {
        for it in spec.items(key) {
            container(&it, role, &mut pod, out);
        }
    }
    spec.one_of("restartPolicy", &["Always", "OnFailure", "Never"], out);
    dns(spec, out);
    selector::labels(spec, "nodeSelector", out);
    security::pod(&spec.at("securityContext"), out);
    if spec.has("os") {
        let os = spec.at("os");
        match os.text("name") {
            "" => os.required("name", "cannot be empty", out),
            "linux" | "windows" => {}
            name => out.push(Cause::not_supported(os.path.as_str(), name, &["linux", "windows"])),
        }
    }
    for secret in spec.items("imagePullSecrets") {
        if secret.text("name").is_empty() {
            secret.required("name", "", out);
        }
    }
    placement::affinity(&spec.at("affinity"), out);
    placement::tolerations(spec, out);
    placement::spread(spec, out);
    for gate in spec.items("readinessGates") {
        gate.faults("conditionType", names::qualified(gate.text("conditionType")), out);
    }
    let mut gates = std::collections::HashSet::new();
    for gate in spec.items("schedulingGates") {
        let name = Value::from(gate.text("name"));
        out.extend(names::qualified(gate.text("name")).iter().map(|fault| Cause::invalid(gate.path.as_str(), &name, fault)));
        if !gates.insert(gate.text("name")) {
            out.push(Cause::duplicate(gate.path.as_str(), &name));
        }
    }
    for key in ["serviceAccountName", "nodeName", "priorityClassName", "runtimeClassName"] {
        spec.may(key, names::subdomain, out);
    }
    spec.may("hostname", names::label, out);
    spec.may("subdomain", names::label, out);
    if spec.number("activeDeadlineSeconds").is_some_and(|it| !(1..=i64::from(i32::MAX)).contains(&it)) {
        spec.invalid("activeDeadlineSeconds", &names::between(1, i32::MAX.into()), out);
    }
    spec.one_of("preemptionPolicy", &["Never", "PreemptLowerPriority"], out);
    for alias in spec.items("hostAliases") {
        alias.faults("ip", names::ip(alias.text("ip")), out);
        for (at, name) in alias.list("hostnames").iter().enumerate() {
            for fault in names::subdomain(name.as_str().unwrap_or_default()) {
                out.push(Cause::invalid(format!("{}[{at}]", alias.path("hostnames")), name, &fault));
            }
        }
    }
    if spec.has("overhead") {
        resources::amounts(spec, "overhead", out);
    }
}

/// The longest list of search domains, with the spaces between them.
const SEARCHES: usize = 2048;

fn dns(spec: &At<'_>, out: &mut Vec<Cause>) {
    spec.one_of("dnsPolicy", &["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"], out);
    let config = spec.at("dnsConfig");
    let servers = config.list("nameservers");
    if spec.text("dnsPolicy") == "None" {
        if config.is_absent() {
            spec.required("dnsConfig", "must provide `dnsConfig` when `dnsPolicy` is None", out);
        } else if servers.is_empty() {
            config.required("nameservers", "must provide at least one DNS nameserver when `dnsPolicy` is None", out);
        }
    }
    if servers.len() > 3 {
        config.invalid("nameservers", "must not have more than 3 nameservers", out);
    }
    for (at, server) in servers.iter().enumerate() {
        for fault in names::ip(server.as_str().unwrap_or_default()) {
            out.push(Cause::invalid(format!("{}[{at}]", config.path("nameservers")), server, &fault));
        }
    }
    if config.list("searches").len() > 32 {
        config.invalid("searches", "must not have more than 32 search paths", out);
    }
    let searches = config.list("searches").iter().filter_map(Value::as_str);
    for (at, search) in searches.clone().enumerate() {
        let faults = names::search_domain(search);
        out.extend(faults.iter().map(|fault| Cause::invalid(format!("{}[{at}]", config.path("searches")), &search.into(), fault)));
    }
    if searches.map(|it| it.len() + 1).sum::<usize>() > SEARCHES + 1 {
        let why = format!("must not have more than {SEARCHES} characters (including spaces) in the search list");
        config.invalid("searches", &why, out);
    }
    for option in config.items("options") {
        if option.text("name").is_empty() {
            out.push(Cause::required(option.path.as_str(), "must not be empty"));
        }
    }
}

const FROZEN: &str = "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,\
                      `spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),\
                      `spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

/// Checks what of a pod changes.
pub(super) fn update(new: &At<'_>, old: &At<'_>, out: &mut Vec<Cause>) {
    let (new, old) = (new.at("spec"), old.at("spec"));
    if new.value == old.value {
        return;
    }
    for key in ["containers", "initContainers"] {
        if new.list(key).len() != old.list(key).len() {
            return new.forbidden(key, "pod updates may not add or remove containers", out);
        }
    }
    deadline(&new, &old, out);
    tolerations(&new, &old, out);
    ephemeral(&new, &old, out);
    gates(&new, &old, out);
    let (before, after) = (frozen(&old, &old), frozen(&new, &old));
    if before != after {
        let mut changes = String::new();
        differences("spec", &before, &after, &mut changes);
        out.push(Cause::forbidden("spec", &format!("{FROZEN}\n{changes}")));
    }
}

fn deadline(new: &At<'_>, old: &At<'_>, out: &mut Vec<Cause>) {
    const KEY: &str = "activeDeadlineSeconds";
    match (new.number(KEY), old.number(KEY)) {
        (Some(new_value), Some(old_value)) if new_value > old_value => {
            new.invalid(KEY, "must be less than or equal to previous value", out);
        }
        (None, Some(_)) => new.invalid(KEY, "must not update from a positive integer to nil value", out),
        _ => {}
    }
}

fn tolerations(new: &At<'_>, old: &At<'_>, out: &mut Vec<Cause>) {
    let without_seconds = |it: &Value| {
        let mut it = it.clone();
        if let Some(fields) = it.as_object_mut().filter(|fields| fields.get("effect") == Some(&json!("NoExecute"))) {
            fields.remove("tolerationSeconds");
        }
        it
    };
    // A pod may be made of tolerations to its last byte.
    let kept: HashSet<Value> = new.list("tolerations").iter().map(without_seconds).collect();
    if old.list("tolerations").iter().any(|it| !kept.contains(&without_seconds(it))) {
        new.forbidden("tolerations", "existing toleration can not be modified except its tolerationSeconds", out);
    }
}

/// They can only be added, through a subresource of their own.
fn ephemeral(new: &At<'_>, old: &At<'_>, out: &mut Vec<Cause>) {
    const KEY: &str = "ephemeralContainers";
    for before in old.items(KEY) {
        let name = before.text("name");
        match new.items(KEY).find(|it| it.text("name") == name) {
            None => new.forbidden(KEY, &format!("existing ephemeral containers {name:?} may not be removed\n"), out),
            Some(after) if after.value != before.value => {
                new.forbidden(KEY, &format!("existing ephemeral containers {name:?} may not be changed\n"), out);
            }
            Some(_) => {}
        }
    }
}

fn gates(new: &At<'_>, old: &At<'_>, out: &mut Vec<Cause>) {
    for gate in new.items("schedulingGates") {
        if !old.list("schedulingGates").contains(gate.value) {
            let why = format!("only deletion is allowed, but found new scheduling gate '{}'", gate.text("name"));
            out.push(Cause::forbidden(gate.path, &why));
        }
    }
}

/// A spec without what may change, which is checked elsewhere.
fn frozen(spec: &At<'_>, old: &At<'_>) -> Value {
    let mut fields: Map<String, Value> = spec.value.as_object().cloned().unwrap_or_default();
    for key in ["activeDeadlineSeconds", "tolerations", "ephemeralContainers", "schedulingGates"] {
        fields.remove(key);
    }
    let grace = "terminationGracePeriodSeconds";
    if old.number(grace).is_some_and(|it| it < 0) && spec.number(grace) == Some(1) {
        fields.insert(grace.to_owned(), old.get(grace).clone());
    }
    if !old.list("schedulingGates").is_empty() {
        // Until it is let go, a pod's wishes may become narrower.
        for key in ["nodeSelector", "affinity"] {
            fields.remove(key);
        }
    }
    for key in ["containers", "initContainers"] {
        for container in fields.get_mut(key).and_then(Value::as_array_mut).into_iter().flatten() {
            if let Some(container) = container.as_object_mut() {
                container.remove("image");
            }
        }
    }
    Value::Object(fields)
}

/// Lists where two values differ, a line a field.
pub(super) fn differences(path: &str, before: &Value, after: &Value, out: &mut String) {
    match (before, after) {
        (Value::Object(before), Value::Object(after)) => {
            let mut keys: Vec<&String> = before.keys().chain(after.keys().filter(|key| !before.contains_key(*key))).collect();
            keys.sort_unstable();
            for key in keys {
                let of = |map: &Map<String, Value>| map.get(key).cloned().unwrap_or_default();
                differences(&format!("{path}.{key}"), &of(before), &of(after), out);
            }
        }
        (Value::Array(before), Value::Array(after)) if before.len() == after.len() => {
            for (at, (before, after)) in before.iter().zip(after).enumerate() {
                differences(&format!("{path}[{at}]"), before, after, out);
            }
        }
        _ if before != after => out.push_str(&format!("  {path}:\n-   {before}\n+   {after}\n")),
        _ => {}
    }
}
