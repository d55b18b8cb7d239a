//! Where a pod may run: affinity, tolerations, spreading.

use std::collections::{HashMap, HashSet};

use serde_json::Value;

use super::at::At;
use super::names::{self, NOT_ZERO};
use super::selector;
use crate::object::status::Cause;

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";
pub(super) const EFFECTS: [&str; 3] = ["NoSchedule", "PreferNoSchedule", "NoExecute"];

pub(super) fn affinity(affinity: &At<'_>, out: &mut Vec<Cause>) {
    let node = affinity.at("nodeAffinity");
    if node.has(REQUIRED) {
        node_selector(&node.at(REQUIRED), out);
    }
    for term in node.items(PREFERRED) {
        weight(&term, out);
        // What is only preferred may ask for what no label can be.
        node_selector_term(&term.at("preference"), false, out);
    }
    for kind in ["podAffinity", "podAntiAffinity"] {
        let pods = affinity.at(kind);
        for term in pods.items(REQUIRED) {
            pod_term(&term, out);
        }
        for term in pods.items(PREFERRED) {
            weight(&term, out);
            pod_term(&term.at("podAffinityTerm"), out);
        }
    }
}

fn weight(term: &At<'_>, out: &mut Vec<Cause>) {
    if !(1..=100).contains(&term.number("weight").unwrap_or_default()) {
        term.invalid("weight", "must be in the range 1-100", out);
    }
}

/// Checks a `NodeSelector`.
pub(super) fn node_selector(of: &At<'_>, out: &mut Vec<Cause>) {
    if of.list("nodeSelectorTerms").is_empty() {
        of.required("nodeSelectorTerms", "must have at least one node selector term", out);
    }
    for term in of.items("nodeSelectorTerms") {
        node_selector_term(&term, true, out);
    }
}

/// Whether this is about a value in required node affinity that no label can have. Objects that have had one may keep it.
pub(super) fn is_of_label_value(cause: &Cause) -> bool {
    let field = &cause.field;
    field.contains(".nodeAffinity.required") && field.contains(".matchExpressions[") && field.contains("].values[")
}

fn node_selector_term(term: &At<'_>, required: bool, out: &mut Vec<Cause>) {
    for requirement in term.items("matchExpressions") {
        let operators = ["In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"];
        selector::expression(&requirement, &operators, "not a valid selector operator", out);
        requirement.faults("key", names::qualified(requirement.text("key")), out);
        if required {
            selector::values(&requirement, out);
        }
    }
    for requirement in term.items("matchFields") {
        if requirement.list("values").len() != 1 && matches!(requirement.text("operator"), "In" | "NotIn") {
            requirement.required("values", "must be only one value when `operator` is 'In' or 'NotIn' for node field selector", out);
        } else if !matches!(requirement.text("operator"), "In" | "NotIn") {
            requirement.invalid("operator", "not a valid selector operator", out);
        }
        if requirement.text("key") != "metadata.name" {
            requirement.invalid("key", "not a valid field selector key", out);
            continue;
        }
        for (at, value) in requirement.list("values").iter().enumerate() {
            for fault in names::subdomain(value.as_str().unwrap_or_default()) {
                out.push(Cause::invalid(format!("{}[{at}]", requirement.path("values")), value, &fault));
            }
        }
    }
}

fn pod_term(term: &At<'_>, out: &mut Vec<Cause>) {
    for key in ["labelSelector", "namespaceSelector"] {
        if term.has(key) {
            selector::label_selector(&term.at(key), out);
        }
    }
    for namespace in term.list("namespaces") {
        let faults = names::label(namespace.as_str().unwrap_or_default());
        out.extend(faults.iter().map(|fault| Cause::invalid(term.path("namespace"), namespace, fault)));
    }
    label_keys(term, out);
    let key = term.text("topologyKey");
    if key.is_empty() {
        term.required("topologyKey", "can not be empty", out);
    }
    out.extend(names::qualified(key).iter().map(|fault| Cause::invalid(term.path("topologyKey"), &key.into(), fault)));
}

/// Checks the label keys of a term. Their values have already been merged into its selector.
fn label_keys(term: &At<'_>, out: &mut Vec<Cause>) {
    const MATCHING: &str = "matchLabelKeys";
    let selector = term.at("labelSelector");
    for keys in [MATCHING, "mismatchLabelKeys"] {
        if !term.list(keys).is_empty() && selector.is_absent() {
            term.forbidden(keys, "must not be specified when labelSelector is not set", out);
        } else {
            labels(term, keys, out);
        }
    }
    let matching: Vec<&str> = term.list(MATCHING).iter().filter_map(Value::as_str).collect();
    if matching.is_empty() {
        return;
    }
    let mut selected: HashSet<&str> = selector.strings("matchLabels").map(|(key, _)| key).collect();
    for expression in selector.items("matchExpressions") {
        let key = expression.text("key");
        if let Some(at) = matching.iter().position(|it| *it == key).filter(|_| selected.contains(key)) {
            out.push(Cause::invalid(format!("{}[{at}]", term.path), &key.into(), "exists in both matchLabelKeys and labelSelector"));
        }
        selected.insert(key);
    }
    let others = term.list("mismatchLabelKeys");
    for (at, key) in term.list(MATCHING).iter().enumerate().filter(|(_, key)| others.contains(key)) {
        let path = format!("{}[{at}]", term.path(MATCHING));
        out.push(Cause::invalid(path, key, "exists in both matchLabelKeys and mismatchLabelKeys"));
    }
}

/// Checks a list of keys of labels.
fn labels(of: &At<'_>, keys: &str, out: &mut Vec<Cause>) {
    for (at, key) in of.list(keys).iter().enumerate() {
        let faults = names::qualified(key.as_str().unwrap_or_default());
        out.extend(faults.iter().map(|fault| Cause::invalid(format!("{}[{at}]", of.path(keys)), key, fault)));
    }
}

pub(super) fn tolerations(spec: &At<'_>, out: &mut Vec<Cause>) {
    for toleration in spec.items("tolerations") {
        let operator = toleration.text("operator");
        toleration.may("key", names::qualified, out);
        if toleration.text("key").is_empty() && operator != "Exists" {
            let why = "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
            out.push(Cause::invalid(toleration.path("operator"), &operator.into(), why));
        }
        if toleration.has("tolerationSeconds") && toleration.text("effect") != "NoExecute" {
            let why = "effect must be 'NoExecute' when `tolerationSeconds` is set";
            out.push(Cause::invalid(toleration.path("effect"), &toleration.text("effect").into(), why));
        }
        match operator {
            "" | "Equal" => {
                let value = toleration.text("value");
                let faults = names::label_value(value);
                if !faults.is_empty() {
                    out.push(Cause::invalid(toleration.path("operator"), &value.into(), &faults.join(";")));
                }
            }
            "Exists" if !toleration.text("value").is_empty() => {
                let why = "value must be empty when `operator` is 'Exists'";
                out.push(Cause::invalid(toleration.path("operator"), toleration.get("value"), why));
            }
            _ => toleration.one_of("operator", &["Equal", "Exists"], out),
        }
        toleration.one_of("effect", &EFFECTS, out);
    }
}

pub(super) fn spread(spec: &At<'_>, out: &mut Vec<Cause>) {
    const KEY: &str = "topologySpreadConstraints";
    fn pair<'a>(constraint: &At<'a>) -> (&'a str, &'a str) {
        (constraint.text("topologyKey"), constraint.text("whenUnsatisfiable"))
    }
    let last: HashMap<_, usize> = spec.items(KEY).enumerate().map(|(at, it)| (pair(&it), at)).collect();
    for (at, constraint) in spec.items(KEY).enumerate() {
        if constraint.number("maxSkew").unwrap_or_default() <= 0 {
            constraint.invalid("maxSkew", NOT_ZERO, out);
        }
        if constraint.text("topologyKey").is_empty() {
            constraint.required("topologyKey", "can not be empty", out);
        }
        let action = constraint.text("whenUnsatisfiable");
        if !matches!(action, "DoNotSchedule" | "ScheduleAnyway") {
            out.push(Cause::not_supported(constraint.path("whenUnsatisfiable"), action, &["DoNotSchedule", "ScheduleAnyway"]));
        }
        if last[&pair(&constraint)] > at {
            let shown = format!("{{{}, {}}}", constraint.text("topologyKey"), constraint.text("whenUnsatisfiable"));
            out.push(Cause::duplicate(format!("{}.{{topologyKey, whenUnsatisfiable}}", constraint.path), &shown.into()));
        }
        if let Some(domains) = constraint.number("minDomains") {
            if domains <= 0 {
                constraint.invalid("minDomains", NOT_ZERO, out);
            }
            if constraint.text("whenUnsatisfiable") != "DoNotSchedule" {
                let why =
                    format!("can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {}", constraint.text("whenUnsatisfiable"));
                constraint.invalid("minDomains", &why, out);
            }
        }
        for key in ["nodeAffinityPolicy", "nodeTaintsPolicy"] {
            constraint.one_of(key, &["Honor", "Ignore"], out);
        }
        if !constraint.list("matchLabelKeys").is_empty() {
            let selector = constraint.at("labelSelector");
            if selector.is_absent() {
                constraint.forbidden("matchLabelKeys", "must not be specified when labelSelector is not set", out);
            }
            labels(&constraint, "matchLabelKeys", out);
            let selected: HashSet<_> = selector.items("matchExpressions").map(|it| it.text("key")).collect();
            for (at, key) in constraint.list("matchLabelKeys").iter().enumerate() {
                let text = key.as_str().unwrap_or_default();
                if selector.at("matchLabels").has(text) || selected.contains(text) {
                    let path = format!("{}[{at}]", constraint.path("matchLabelKeys"));
                    out.push(Cause::invalid(path, key, "exists in both matchLabelKeys and labelSelector"));
                }
            }
        }
        if constraint.has("labelSelector") {
            selector::label_selector(&constraint.at("labelSelector"), out);
        }
    }
}
