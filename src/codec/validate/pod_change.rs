//! Allowed changes of a pod: few fields of its spec, and ephemeral containers only through their subresource.

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value, json};

use super::annotated;
use super::at::At;
use super::names::{self, IMMUTABLE};
use crate::object::status::Cause;
use crate::util::{go, json};

const FROZEN: &str = "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,\
                      `spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),\
                      `spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";
const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
/// A gated pod may only get more entries of this field.
const NODE_SELECTOR: &str = "nodeSelector";

/// Checks a pod that replaces another, or its status.
pub(super) fn update(new: &At<'_>, old: &At<'_>, out: &mut Vec<Cause>) {
    annotated::update(new, old, out);
    if new.get("spec") != old.get("spec") {
        spec(&new.at("spec"), &old.at("spec"), out);
    }
    if new.get("status") != old.get("status") {
        status(&new.at("status"), &old.at("status"), out);
    }
}

fn spec(new: &At<'_>, old: &At<'_>, out: &mut Vec<Cause>) {
    for key in ["containers", "initContainers"] {
        if new.list(key).len() != old.list(key).len() {
            return new.forbidden(key, "pod updates may not add or remove containers", out);
        }
    }
    deadline(new, old, out);
    tolerations(new, old, out);
    gates(new, old, out);
    let gated = !old.list("schedulingGates").is_empty();
    if gated {
        narrower(new, old, out);
    }
    let (before, after) = (frozen(old, old, gated), frozen(new, old, gated));
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

fn gates(new: &At<'_>, old: &At<'_>, out: &mut Vec<Cause>) {
    let before: HashSet<&Value> = old.list("schedulingGates").iter().collect();
    for gate in new.items("schedulingGates") {
        if !before.contains(gate.value) {
            gate.forbidden("name", &format!("only deletion is allowed, but found new scheduling gate '{}'", gate.text("name")), out);
        }
    }
}

/// While gated, a pod may add node requirements, but not remove or change any.
fn narrower(new: &At<'_>, old: &At<'_>, out: &mut Vec<Cause>) {
    if old.strings(NODE_SELECTOR).any(|(key, value)| new.get(NODE_SELECTOR).get(key).and_then(Value::as_str) != Some(value)) {
        let shown = if new.has(NODE_SELECTOR) { go::string_map(new.strings(NODE_SELECTOR)) } else { "map[string]string(nil)".to_owned() };
        let why = "only additions to spec.nodeSelector are allowed (no mutations or deletions)";
        out.push(Cause::invalid_shown(new.path(NODE_SELECTOR), &shown, why));
    }
    let terms = required_terms(new);
    let (new, old) = (terms.list("nodeSelectorTerms"), json::items(required_terms(old).value, "/nodeSelectorTerms"));
    if old.is_empty() {
        return;
    }
    if old.len() != new.len() {
        let why = "no additions/deletions to non-empty NodeSelectorTerms list are allowed";
        let shown = shown_list("core.NodeSelectorTerm", new, shown_term);
        return out.push(Cause::invalid_shown(terms.path("nodeSelectorTerms"), &shown, why));
    }
    for (term, old) in terms.items("nodeSelectorTerms").zip(old) {
        if !only_adds(term.value, old) {
            out.push(Cause::invalid_shown(term.path, &shown_term(term.value), "only additions are allowed (no mutations or deletions)"));
        }
    }
}

fn required_terms<'a>(spec: &At<'a>) -> At<'a> {
    spec.at("affinity").at("nodeAffinity").at(REQUIRED)
}

/// Whether a term has all requirements of another one, and perhaps more. An empty term, which matches no node, must stay empty.
fn only_adds(new: &Value, old: &Value) -> bool {
    const KEYS: [&str; 2] = ["/matchExpressions", "/matchFields"];
    let has_none = |term: &Value| KEYS.iter().all(|key| json::items(term, key).is_empty());
    (!has_none(old) || has_none(new)) && KEYS.iter().all(|key| json::items(new, key).starts_with(json::items(old, key)))
}

fn shown_list(kind: &str, items: &[Value], shown: fn(&Value) -> String) -> String {
    match items {
        [] => format!("[]{kind}(nil)"),
        items => format!("[]{kind}{{{}}}", items.iter().map(shown).collect::<Vec<_>>().join(", ")),
    }
}

fn shown_term(term: &Value) -> String {
    let of = |key| shown_list("core.NodeSelectorRequirement", json::items(term, key), shown_requirement);
    format!("core.NodeSelectorTerm{{MatchExpressions:{}, MatchFields:{}}}", of("/matchExpressions"), of("/matchFields"))
}

fn shown_requirement(it: &Value) -> String {
    let text = |key| go::quote(json::text(it, key));
    let values = shown_list("string", json::items(it, "/values"), |it| go::quote(it.as_str().unwrap_or_default()));
    format!("core.NodeSelectorRequirement{{Key:{}, Operator:{}, Values:{values}}}", text("/key"), text("/operator"))
}

/// A spec without the fields that may change, which are checked elsewhere.
fn frozen(spec: &At<'_>, old: &At<'_>, gated: bool) -> Value {
    let mut fields: Map<String, Value> = spec.value.as_object().cloned().unwrap_or_default();
    for key in ["activeDeadlineSeconds", "tolerations", "schedulingGates"] {
        fields.remove(key);
    }
    let grace = "terminationGracePeriodSeconds";
    if old.number(grace).is_some_and(|it| it < 0) && spec.number(grace) == Some(1) {
        fields.insert(grace.to_owned(), old.get(grace).clone());
    }
    if gated {
        fields.remove(NODE_SELECTOR);
        drop_node_affinity(&mut fields);
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

/// Removes the node affinity from a pod spec.
pub(super) fn drop_node_affinity(spec: &mut Map<String, Value>) {
    if let Some(affinity) = spec.get_mut("affinity").and_then(Value::as_object_mut) {
        affinity.remove("nodeAffinity");
        if affinity.is_empty() {
            spec.remove("affinity");
        }
    }
}

/// Checks ephemeral containers, which can only be added.
pub(super) fn ephemeral(new: &At<'_>, old: &At<'_>, out: &mut Vec<Cause>) {
    const KEY: &str = "ephemeralContainers";
    if old.at("metadata").at("annotations").has("kubernetes.io/config.mirror") {
        *out = vec![Cause::forbidden("", "static pods do not support ephemeral containers")];
        return;
    }
    let new = new.at("spec");
    let after: HashMap<&str, &Value> = new.items(KEY).map(|it| (it.text("name"), it.value)).collect();
    for before in old.at("spec").items(KEY) {
        let name = before.text("name");
        match after.get(name) {
            None => new.forbidden(KEY, &format!("existing ephemeral containers {name:?} may not be removed\n"), out),
            Some(after) if *after != before.value => {
                new.forbidden(KEY, &format!("existing ephemeral containers {name:?} may not be changed\n"), out);
            }
            Some(_) => {}
        }
    }
}

fn status(new: &At<'_>, old: &At<'_>, out: &mut Vec<Cause>) {
    for condition in new.items("conditions") {
        let kind = condition.text("type");
        if !matches!(kind, "PodScheduled" | "Ready" | "Initialized") {
            let faults = names::qualified(kind);
            out.extend(faults.iter().map(|fault| Cause::invalid(condition.path("Type"), &kind.into(), fault)));
        }
    }
    if old.has("qosClass") && new.get("qosClass") != old.get("qosClass") {
        new.invalid("qosClass", IMMUTABLE, out);
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    /// The errors for a change of these parts of a pod.
    fn told(check: fn(&At<'_>, &At<'_>, &mut Vec<Cause>), old: Value, new: Value) -> Vec<String> {
        let mut out = Vec::new();
        check(&At::root(&new), &At::root(&old), &mut out);
        out.iter().map(|it| format!("{}: {}", it.field, it.message)).collect()
    }

    #[test]
    fn a_gated_pod_may_only_ask_for_more_of_its_node() {
        let gated = |fields: Value| {
            let mut spec = json!({"schedulingGates": [{"name": "g/a"}]});
            spec.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
            json!({ "spec": spec })
        };
        let terms = |terms: Value| json!({"nodeAffinity": {REQUIRED: {"nodeSelectorTerms": terms}}});
        let (a, b) = (json!({"key": "a", "operator": "Exists"}), json!({"key": "b", "operator": "In", "values": ["x"]}));
        let of_a = json!([{"matchExpressions": [a]}]);
        let old = gated(json!({"nodeSelector": {"x": "y"}, "affinity": terms(of_a.clone())}));
        let selector = "spec.nodeSelector: Invalid value: map[string]string";
        let affinity = "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms";
        for (new, expected) in [
            (json!({"nodeSelector": {"x": "y", "z": ""}, "affinity": terms(json!([{"matchExpressions": [a, b]}]))}), vec![]),
            (json!({"nodeSelector": {"x": "y"}, "affinity": terms(json!([{"matchExpressions": [a], "matchFields": [b]}]))}), vec![]),
            (
                json!({"nodeSelector": {"x": "q"}, "affinity": terms(of_a.clone())}),
                vec![format!("{selector}{{\"x\":\"q\"}}: only additions to spec.nodeSelector are allowed (no mutations or deletions)")],
            ),
            (
                json!({"affinity": terms(of_a.clone())}),
                vec![format!("{selector}(nil): only additions to spec.nodeSelector are allowed (no mutations or deletions)")],
            ),
            (
                json!({"nodeSelector": {"x": "y"}}),
                vec![format!(
                    "{affinity}: Invalid value: []core.NodeSelectorTerm(nil): no additions/deletions to non-empty NodeSelectorTerms list are \
                     allowed"
                )],
            ),
            (
                json!({"nodeSelector": {"x": "y"}, "affinity": terms(json!([{"matchExpressions": [b]}]))}),
                vec![format!(
                    "{affinity}[0]: Invalid value: core.NodeSelectorTerm{{MatchExpressions:[]core.NodeSelectorRequirement{{\
                     core.NodeSelectorRequirement{{Key:\"b\", Operator:\"In\", Values:[]string{{\"x\"}}}}}}, \
                     MatchFields:[]core.NodeSelectorRequirement(nil)}}: only additions are allowed (no mutations or deletions)"
                )],
            ),
        ] {
            assert_eq!(told(update, old.clone(), gated(new.clone())), expected, "{new}");
        }
        let free = gated(json!({}));
        assert_eq!(told(update, free.clone(), gated(json!({"nodeSelector": {"x": "y"}, "affinity": terms(of_a)}))), Vec::<String>::new());
        let apart = json!({"podAntiAffinity": {REQUIRED: [{"topologyKey": "a"}]}});
        assert!(told(update, free, gated(json!({"affinity": apart})))[0].starts_with("spec: Forbidden: pod updates may not change"));
        let more = json!({"spec": {"schedulingGates": [{"name": "g/a"}, {"name": "g/b"}]}});
        let why = "spec.schedulingGates[1].name: Forbidden: only deletion is allowed, but found new scheduling gate 'g/b'";
        assert_eq!(told(update, gated(json!({})), more), [why]);
    }

    #[test]
    fn ephemeral_containers_are_only_added_and_only_by_their_subresource() {
        let pod = |names: &[&str]| {
            let containers: Vec<Value> = names.iter().map(|name| json!({"name": name, "image": "i"})).collect();
            json!({"spec": {"ephemeralContainers": containers}})
        };
        assert_eq!(told(ephemeral, pod(&["a"]), pod(&["a", "b"])), Vec::<String>::new());
        assert_eq!(
            told(ephemeral, pod(&["a"]), pod(&["b"])),
            ["spec.ephemeralContainers: Forbidden: existing ephemeral containers \"a\" may not be removed\n"]
        );
        assert!(told(update, pod(&[]), pod(&["a"]))[0].starts_with("spec: Forbidden: pod updates may not change"));
        let mut mirror = pod(&[]);
        mirror["metadata"] = json!({"annotations": {"kubernetes.io/config.mirror": "x"}});
        assert_eq!(told(ephemeral, mirror, pod(&["a"])), [": Forbidden: static pods do not support ephemeral containers"]);
    }

    #[test]
    fn a_status_says_what_it_may() {
        let pod = |status: Value| json!({ "status": status });
        let name = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character \
                    (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
        for (new, expected) in [
            (json!({"qosClass": "Burstable", "conditions": [{"type": "Ready"}, {"type": "a.b/c"}]}), vec![]),
            (json!({"qosClass": "BestEffort"}), vec!["status.qosClass: Invalid value: \"BestEffort\": field is immutable".to_owned()]),
            (
                json!({"qosClass": "Burstable", "conditions": [{"type": "foo bar"}]}),
                vec![format!("status.conditions[0].Type: Invalid value: \"foo bar\": {name}")],
            ),
        ] {
            assert_eq!(told(update, pod(json!({"qosClass": "Burstable"})), pod(new.clone())), expected, "{new}");
        }
    }
}
