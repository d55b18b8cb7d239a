//! Nodes, the leases they renew, and the binding of pods to them.

use std::collections::HashSet;

use super::at::At;
use super::names::{self, POSITIVE};
use super::{placement, resources};
use crate::object::status::Cause;
use crate::util::go;

fn taints(node: &At<'_>, out: &mut Vec<Cause>) {
    let mut seen = HashSet::new();
    // Kubernetes' messages have another path here.
    let taints = node.at("metadata").holding(node.get("spec"));
    for taint in taints.items("taints") {
        taint.faults("key", names::qualified(taint.text("key")), out);
        taint.may("value", names::label_value, out);
        match taint.text("effect") {
            "" => taint.required("effect", "", out),
            _ => taint.one_of("effect", &placement::EFFECTS, out),
        }
        let pair = (taint.text("key"), taint.text("effect"));
        if !seen.insert(pair) {
            let [key, value, effect] = ["key", "value", "effect"].map(|key| go::quote(taint.text(key)));
            let shown = format!("core.Taint{{Key:{key}, Value:{value}, Effect:{effect}, TimeAdded:<nil>}}");
            let message = format!("Duplicate value: {shown}: taints must be unique by key and effect pair");
            out.push(Cause { message, ..Cause::duplicate(taint.path.as_str(), taint.value) });
        }
    }
}

pub(super) fn node(node: &At<'_>, out: &mut Vec<Cause>) {
    taints(node, out);
    let spec = node.at("spec");
    let ranges = spec.list("podCIDRs");
    let is_six = |it: &serde_json::Value| it.as_str().is_some_and(|it| it.contains(':'));
    if ranges.len() > 2 || ranges.len() == 2 && is_six(&ranges[0]) == is_six(&ranges[1]) {
        spec.invalid_texts("podCIDRs", "may specify no more than one CIDR for each IP family", out);
    }
    for (at, range) in spec.list("podCIDRs").iter().enumerate() {
        let faults = names::range(range.as_str().unwrap_or_default());
        out.extend(faults.iter().map(|fault| Cause::invalid(format!("{}[{at}]", spec.path("podCIDRs")), range, fault)));
    }
    let status = node.at("status");
    for key in ["capacity", "allocatable"] {
        for (name, value) in status.entries(key) {
            resources::amount_of(&status.at(key).path(name), name, value, out);
        }
    }
}

/// Each address of a node is listed once.
pub(super) fn update(new: &At<'_>, old: &At<'_>, out: &mut Vec<Cause>) {
    taints(new, out);
    let mut seen = HashSet::new();
    for address in new.at("status").items("addresses") {
        if !seen.insert((address.text("type"), address.text("address"))) {
            let [kind, text] = ["type", "address"].map(|key| go::quote(address.text(key)));
            let message = format!("Duplicate value: core.NodeAddress{{Type:{kind}, Address:{text}}}");
            out.push(Cause { message, ..Cause::duplicate(address.path.as_str(), address.value) });
        }
    }
    let (new, old) = (new.at("spec"), old.at("spec"));
    for (key, path, called) in [("providerID", "providerID", "providerID"), ("podCIDR", "podCIDRs", "podCIDR")] {
        if !old.text(key).is_empty() && new.text(key) != old.text(key) {
            let why = format!("node updates may not change {called} except from \"\" to valid");
            new.forbidden(path, &why, out);
        }
    }
}

pub(super) fn lease(lease: &At<'_>, out: &mut Vec<Cause>) {
    let spec = lease.at("spec");
    if spec.number("leaseDurationSeconds").is_some_and(|it| it <= 0) {
        spec.invalid("leaseDurationSeconds", POSITIVE, out);
    }
    spec.not_negative(&["leaseTransitions"], out);
}

pub(super) fn binding(binding: &At<'_>, out: &mut Vec<Cause>) {
    let target = binding.at("target");
    if !matches!(target.text("kind"), "" | "Node") {
        out.push(Cause::not_supported(target.path("kind"), target.text("kind"), &["Node", "<empty>"]));
    }
    if target.text("name").is_empty() {
        target.required("name", "", out);
    }
}
