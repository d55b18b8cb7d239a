//! Autoscalers, in the stored version.

use super::at::At;
use super::names::{self, POSITIVE};
use super::resources;
use crate::object::status::Cause;

/// The longest that a decision may be put off, and the longest that a policy may look back, in seconds.
const WINDOW: i64 = 3600;
const PERIOD: i64 = 1800;

pub(super) fn autoscaler(object: &At<'_>, out: &mut Vec<Cause>) {
    let spec = object.at("spec");
    let (least, most) = (spec.number("minReplicas"), spec.number("maxReplicas").unwrap_or_default());
    if least.is_some_and(|it| it < 1) {
        spec.invalid("minReplicas", "must be greater than or equal to 1", out);
    }
    if least == Some(0) && !spec.items("metrics").any(|it| it.has("object") || it.has("external")) {
        spec.forbidden("metrics", "must specify at least one Object or External metric to support scaling to zero replicas", out);
    }
    if most < 1 {
        out.push(Cause::invalid(spec.path("maxReplicas"), &most.into(), POSITIVE));
    }
    if least.is_some_and(|it| most < it) {
        out.push(Cause::invalid(spec.path("maxReplicas"), &most.into(), "must be greater than or equal to `minReplicas`"));
    }
    reference(&spec.at("scaleTargetRef"), out);
    for metric in spec.items("metrics") {
        self::metric(&metric, out);
    }
    for key in ["scaleUp", "scaleDown"] {
        let rules = spec.at("behavior").at(key);
        if !rules.is_absent() {
            self::rules(&rules, out);
        }
    }
    object.at("status").not_negative(&["currentReplicas", "desiredReplicas"], out);
}

fn reference(reference: &At<'_>, out: &mut Vec<Cause>) {
    for key in ["kind", "name"] {
        reference.must(key, names::path_segment, out);
    }
}

/// The kinds of metric, with the field that describes each.
const KINDS: [(&str, &str); 5] = [
    ("ContainerResource", "containerResource"),
    ("External", "external"),
    ("Object", "object"),
    ("Pods", "pods"),
    ("Resource", "resource"),
];

fn metric(metric: &At<'_>, out: &mut Vec<Cause>) {
    let kind = metric.text("type");
    if kind.is_empty() {
        metric.required("type", "must specify a metric source type", out);
    }
    let described = KINDS.iter().find(|(it, _)| *it == kind).map(|it| it.1);
    let unknown = |out: &mut Vec<Cause>| out.push(Cause::not_supported(metric.path("type"), kind, &KINDS.map(|it| it.0)));
    if described.is_none() {
        unknown(out);
    }
    let sources = KINDS.iter().filter(|(_, field)| metric.has(field)).count();
    for (_, field) in KINDS.iter().filter(|(_, field)| metric.has(field)) {
        source(field, &metric.at(field), out);
        if sources > 1 && described.is_some_and(|it| it != *field) {
            metric.forbidden(field, "must populate the given metric source only", out);
        }
    }
    match described {
        Some(field) if !metric.has(field) => metric.required(field, "must populate information for the given metric source", out),
        Some(_) => {}
        // Kubernetes reports this twice.
        None => unknown(out),
    }
}

fn source(kind: &str, source: &At<'_>, out: &mut Vec<Cause>) {
    let target = source.at("target");
    if kind == "object" {
        reference(&source.at("describedObject"), out);
    }
    match kind {
        "resource" | "containerResource" => {
            let of_container = kind == "containerResource";
            match source.text("name") {
                "" => source.required("name", "must specify a resource name", out),
                name if of_container => resources::container_name(&source.path("name"), name, out),
                _ => {}
            }
            match source.text("container") {
                "" if of_container => source.required("container", "must specify a container", out),
                name if of_container => source.faults("container", names::label(name), out),
                _ => {}
            }
        }
        _ => {
            let metric = source.at("metric");
            match metric.text("name") {
                "" => metric.required("name", "must specify a metric name", out),
                name => metric.faults("name", names::path_segment(name), out),
            }
        }
    }
    self::target(&target, out);
    let (value, average, percent) = (target.has("value"), target.has("averageValue"), target.has("averageUtilization"));
    match kind {
        "pods" if !average => target.required("averageValue", "must specify a positive target averageValue", out),
        "object" | "external" if !value && !average => {
            target.required("averageValue", "must set either a target value for metric or a per-pod target", out);
        }
        "external" if value && average => {
            target.forbidden("value", "may not set both a target value for metric and a per-pod target", out);
        }
        "resource" | "containerResource" if !percent && !average => {
            target.required("averageUtilization", "must set either a target raw value or a target utilization", out);
        }
        "resource" | "containerResource" if percent && average => {
            target.forbidden("averageValue", "may not set both a target raw value and a target utilization", out);
        }
        _ => {}
    }
}

fn target(target: &At<'_>, out: &mut Vec<Cause>) {
    let kind = target.text("type");
    if kind.is_empty() {
        target.required("type", "must specify a metric target type", out);
    }
    if !matches!(kind, "Utilization" | "Value" | "AverageValue") {
        out.push(Cause::invalid(target.path("type"), &kind.into(), "must be either Utilization, Value, or AverageValue"));
    }
    for key in ["value", "averageValue"] {
        if target.has(key) {
            resources::positive(&target.path(key), target.get(key), "must be positive", out);
        }
    }
    if target.number("averageUtilization").is_some_and(|it| it < 1) {
        target.invalid("averageUtilization", POSITIVE, out);
    }
}

fn rules(rules: &At<'_>, out: &mut Vec<Cause>) {
    match rules.number("stabilizationWindowSeconds") {
        Some(seconds) if seconds < 0 => {
            rules.invalid("stabilizationWindowSeconds", "must be greater than or equal to zero", out);
        }
        Some(seconds) if seconds > WINDOW => {
            rules.invalid("stabilizationWindowSeconds", &format!("must be less than or equal to {WINDOW}"), out);
        }
        _ => {}
    }
    rules.one_of("selectPolicy", &["Disabled", "Max", "Min"], out);
    if rules.list("policies").is_empty() {
        rules.required("policies", "must specify at least one Policy", out);
    }
    for policy in rules.items("policies") {
        if !matches!(policy.text("type"), "Percent" | "Pods") {
            out.push(Cause::not_supported(policy.path("type"), policy.text("type"), &["Percent", "Pods"]));
        }
        for key in ["value", "periodSeconds"] {
            if policy.number(key).unwrap_or_default() <= 0 {
                policy.invalid(key, "must be greater than zero", out);
            }
        }
        if policy.number("periodSeconds").is_some_and(|it| it > PERIOD) {
            policy.invalid("periodSeconds", &format!("must be less than or equal to {PERIOD}"), out);
        }
    }
}
