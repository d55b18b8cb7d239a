//! Labels and selectors.

use serde_json::Value;

use super::at::At;
use super::names;
use crate::object::selector::LabelSelector;
use crate::object::status::Cause;
use crate::util::go;

/// Checks a map of labels.
pub(super) fn labels(of: &At<'_>, key: &str, out: &mut Vec<Cause>) {
    let path = of.path(key);
    for (key, value) in of.strings(key) {
        out.extend(names::qualified(key).iter().map(|fault| Cause::invalid(&path, &key.into(), fault)));
        out.extend(names::label_value(value).iter().map(|fault| Cause::invalid(&path, &value.into(), fault)));
    }
}

/// Checks a `metav1.LabelSelector`.
pub(super) fn label_selector(selector: &At<'_>, out: &mut Vec<Cause>) {
    labels(selector, "matchLabels", out);
    for requirement in selector.items("matchExpressions") {
        expression(&requirement, &["In", "NotIn", "Exists", "DoesNotExist"], "not a valid selector operator", out);
        requirement.faults("key", names::qualified(requirement.text("key")), out);
        values(&requirement, out);
    }
}

/// Checks that the values of a requirement are such that labels can have.
pub(super) fn values(requirement: &At<'_>, out: &mut Vec<Cause>) {
    for (at, value) in requirement.list("values").iter().enumerate() {
        for fault in names::label_value(value.as_str().unwrap_or_default()) {
            out.push(Cause::invalid(format!("{}[{at}]", requirement.path("values")), value, &fault));
        }
    }
}

/// Checks that the operator of a requirement is known and has as many values as it needs.
pub(super) fn expression(requirement: &At<'_>, operators: &[&str], unknown: &str, out: &mut Vec<Cause>) {
    let operator = requirement.text("operator");
    let values = requirement.list("values").len();
    match operator {
        _ if !operators.contains(&operator) => requirement.invalid("operator", unknown, out),
        "In" | "NotIn" if values == 0 => requirement.required("values", "must be specified when `operator` is 'In' or 'NotIn'", out),
        "Exists" | "DoesNotExist" if values > 0 => {
            requirement.forbidden("values", "may not be specified when `operator` is 'Exists' or 'DoesNotExist'", out);
        }
        "Gt" | "Lt" if values != 1 => {
            requirement.required("values", "must be specified single value when `operator` is 'Lt' or 'Gt'", out);
        }
        _ => {}
    }
}

pub(super) fn is_empty(selector: &At<'_>) -> bool {
    selector.count("matchLabels") == 0 && selector.list("matchExpressions").is_empty()
}

/// Whether a `metav1.LabelSelector` cannot select at all.
pub(super) fn is_invalid(selector: &At<'_>) -> bool {
    serde_json::from_value(selector.value.clone()).is_ok_and(|it| LabelSelector::from_spec(&it).is_err())
}

/// Whether a `metav1.LabelSelector` selects these labels. Invalid selectors, which are reported elsewhere, count as matching.
pub(super) fn matches(selector: &At<'_>, labels: &Value) -> bool {
    let parsed = serde_json::from_value(selector.value.clone()).ok().and_then(|it| LabelSelector::from_spec(&it).ok());
    parsed.is_none_or(|it| it.matches_labels(|key| labels.get(key).and_then(Value::as_str)))
}

/// A map of strings as messages show it.
pub(super) fn show_labels(of: &At<'_>, key: &str) -> String {
    if of.has(key) { go::string_map(of.strings(key)) } else { "map[string]string(nil)".to_owned() }
}

/// A `metav1.LabelSelector` as messages show it.
pub(super) fn show_selector(selector: &At<'_>) -> String {
    let expressions: Vec<String> = selector
        .items("matchExpressions")
        .map(|it| {
            let values: Vec<String> = it.list("values").iter().map(|it| go::quote(it.as_str().unwrap_or_default())).collect();
            let values = if it.has("values") { format!("[]string{{{}}}", values.join(", ")) } else { "[]string(nil)".to_owned() };
            let (key, operator) = (go::quote(it.text("key")), go::quote(it.text("operator")));
            format!("v1.LabelSelectorRequirement{{Key:{key}, Operator:{operator}, Values:{values}}}")
        })
        .collect();
    let expressions = match selector.has("matchExpressions") {
        true => format!("[]v1.LabelSelectorRequirement{{{}}}", expressions.join(", ")),
        false => "[]v1.LabelSelectorRequirement(nil)".to_owned(),
    };
    format!("v1.LabelSelector{{MatchLabels:{}, MatchExpressions:{expressions}}}", show_labels(selector, "matchLabels"))
}
