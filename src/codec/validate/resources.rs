//! Amounts: requests, limits, capacities and quotas.

use std::collections::HashMap;

use serde_json::Value;

use super::at::At;
use super::names::{self, NOT_NEGATIVE};
use crate::object::status::Cause;
use crate::util::quantity::{Format, Quantity};

const CONTAINER: [&str; 3] = ["cpu", "memory", "ephemeral-storage"];
/// Resources of a cluster that are not fractions of anything.
const COUNTED: [&str; 9] = [
    "pods",
    "services",
    "replicationcontrollers",
    "resourcequotas",
    "secrets",
    "configmaps",
    "persistentvolumeclaims",
    "services.nodeports",
    "services.loadbalancers",
];

fn is_huge_pages(name: &str) -> bool {
    name.starts_with("hugepages-")
}

/// Whether a resource has a domain other than Kubernetes' own.
fn is_extended(name: &str) -> bool {
    name.split_once('/').is_some_and(|(domain, _)| domain != "kubernetes.io" && !domain.ends_with(".kubernetes.io"))
}

/// Whether a name without a domain is one of Kubernetes' own.
fn is_standard(name: &str) -> bool {
    can_have_quota(name) || name == "storage"
}

/// Checks a resource's name; `known` decides which names without a domain are allowed, with `otherwise` as the message.
pub(super) fn name(path: &str, name: &str, (known, otherwise): (fn(&str) -> bool, &str), out: &mut Vec<Cause>) {
    let faults = names::qualified(name);
    out.extend(faults.iter().map(|fault| Cause::invalid_shown(path, name, fault)));
    if name.contains('/') {
        return;
    }
    if faults.is_empty() && !is_standard(name) {
        out.push(Cause::invalid_shown(path, name, "must be a standard resource type or fully qualified"));
    }
    if !known(name) {
        out.push(Cause::invalid_shown(path, name, otherwise));
    }
}

fn is_of_containers(name: &str) -> bool {
    CONTAINER.contains(&name) || is_huge_pages(name)
}

/// An amount as messages show it.
fn show(quantity: Quantity) -> Value {
    quantity.to_string().into()
}

/// Checks an amount that may not be negative; `None` if it is no amount at all, which is reported too.
pub(super) fn amount(path: &str, value: &Value, out: &mut Vec<Cause>) -> Option<Quantity> {
    match Quantity::from_json(value) {
        Ok(quantity) => {
            if quantity.is_negative() {
                out.push(Cause::invalid(path, &show(quantity), NOT_NEGATIVE));
            }
            Some(quantity)
        }
        Err(error) => {
            out.push(Cause::invalid(path, value, &error.to_string()));
            None
        }
    }
}

/// Checks an amount that must be positive.
pub(super) fn positive(path: &str, value: &Value, detail: &str, out: &mut Vec<Cause>) {
    match Quantity::from_json(value) {
        Ok(quantity) if quantity <= Quantity::ZERO => out.push(Cause::invalid(path, &show(quantity), detail)),
        Ok(_) => {}
        Err(error) => out.push(Cause::invalid(path, value, &error.to_string())),
    }
}

/// Checks the `resources` of a container.
pub(super) fn requirements(resources: &At<'_>, out: &mut Vec<Cause>) {
    let (limits, requests) = (resources.at("limits"), resources.at("requests"));
    let mut limited: HashMap<&str, Quantity> = HashMap::new();
    for (name, value) in resources.entries("limits") {
        limited.extend(entry(&limits, name, value, out).map(|it| (name, it)));
        whole_pages(&limits, name, value, out);
    }
    for (name, value) in resources.entries("requests") {
        let Some(requested) = entry(&requests, name, value, out) else { continue };
        whole_pages(&requests, name, value, out);
        let limit = limited.get(name).copied();
        let exact = is_extended(name) || is_huge_pages(name);
        let bound = match limit {
            Some(limit) if exact && requested != limit => Some(("equal to", limit)),
            Some(limit) if !exact && requested > limit => Some(("less than or equal to", limit)),
            None if exact => {
                out.push(Cause::required(limits.path.as_str(), "Limit must be set for non overcommitable resources"));
                None
            }
            _ => None,
        };
        if let Some((relation, limit)) = bound {
            let why = format!("must be {relation} {name} limit of {limit}");
            out.push(Cause::invalid(requests.path.as_str(), &show(requested), &why));
        }
    }
    let named = || [&limits, &requests].into_iter().flat_map(|it| it.value.as_object()).flatten().map(|(name, _)| name.as_str());
    if named().any(is_huge_pages) && !named().any(|it| matches!(it, "cpu" | "memory")) {
        out.push(Cause::forbidden(resources.path.as_str(), "HugePages require cpu or memory"));
    }
}

/// Checks that an amount is a multiple of the page size.
fn whole_pages(of: &At<'_>, name: &str, value: &Value, out: &mut Vec<Cause>) {
    let Some(size) = name.strip_prefix("hugepages-") else { return };
    let Ok(amount) = Quantity::from_json(value) else { return };
    let size = size.parse::<Quantity>().ok().filter(|it| *it > Quantity::ZERO && it.is_integer());
    if size.is_none_or(|it| amount.value() % it.value() != 0) {
        out.push(Cause::invalid(of.entry_path(name), &show(amount), &format!("{amount} is not positive integer multiple of {name}")));
    }
}

fn entry(of: &At<'_>, name: &str, value: &Value, out: &mut Vec<Cause>) -> Option<Quantity> {
    let path = of.entry_path(name);
    container_name(&path, name, out);
    amount_of(&path, name, value, out)
}

/// Checks the name of what a container can ask for.
pub(super) fn container_name(path: &str, name: &str, out: &mut Vec<Cause>) {
    self::name(path, name, (is_of_containers, "must be a standard resource for containers"), out);
}

/// Checks a pod's overhead, which Kubernetes treats like the limits of a container.
pub(super) fn overhead(of: &At<'_>, amounts: &Value, out: &mut Vec<Cause>) {
    if !amounts.is_null() {
        requirements(&of.clone().holding(&serde_json::json!({ "limits": amounts })), out);
    }
}

/// Checks amounts that limit containers.
fn container_amounts(of: &At<'_>, key: &str, out: &mut Vec<Cause>) {
    let map = of.at(key);
    for (name, value) in of.entries(key) {
        entry(&map, name, value, out);
    }
}

/// Checks amounts of arbitrary resources of a cluster (`capacity`).
pub(super) fn amounts(of: &At<'_>, key: &str, out: &mut Vec<Cause>) {
    let map = of.at(key);
    for (name, value) in of.entries(key) {
        let path = map.entry_path(name);
        out.extend(names::qualified(name).iter().map(|fault| Cause::invalid_shown(&path, name, fault)));
        amount_of(&path, name, value, out);
    }
}

/// Checks an amount of a resource, of which there may be no fractions.
pub(super) fn amount_of(path: &str, name: &str, value: &Value, out: &mut Vec<Cause>) -> Option<Quantity> {
    let quantity = amount(path, value, out)?;
    if !quantity.is_integer() && (is_extended(name) || COUNTED.contains(&name)) {
        out.push(Cause::invalid(path, &show(quantity), "must be an integer"));
    }
    Some(quantity)
}

/// Whether a quota can bound a resource without a domain.
pub(super) fn can_have_quota(name: &str) -> bool {
    let bound = name.strip_prefix("requests.").or_else(|| name.strip_prefix("limits.")).unwrap_or(name);
    let huge = name.strip_prefix("requests.").unwrap_or(name);
    COUNTED.contains(&name) || CONTAINER.contains(&bound) || is_huge_pages(huge) || name == "requests.storage"
}

/// Whether a quota's resource concerns pods, or the pods of a scope.
pub(super) fn is_of_scope(scope: &str, name: &str) -> bool {
    let bound = name.strip_prefix("requests.").or_else(|| name.strip_prefix("limits.")).unwrap_or(name);
    match scope {
        "BestEffort" => name == "pods",
        "Terminating" | "NotTerminating" | "NotBestEffort" | "PriorityClass" | "CrossNamespacePodAffinity" => {
            name == "pods" || matches!(bound, "cpu" | "memory")
        }
        "VolumeAttributesClass" => matches!(name, "persistentvolumeclaims" | "requests.storage"),
        _ => true,
    }
}

/// Checks low <= high: the names of both, the index of the one at fault, and that of the one whose value is shown.
type Bounds = ((&'static str, &'static str), (&'static str, &'static str), usize, usize);

/// With their names, in Kubernetes' order.
const BOUNDS: [Bounds; 6] = [
    (("min", "min value"), ("max", "max value"), 0, 0),
    (("min", "min value"), ("defaultRequest", "default request value"), 1, 1),
    (("defaultRequest", "default request value"), ("max", "max value"), 0, 0),
    (("defaultRequest", "default request value"), ("default", "default limit value"), 0, 0),
    (("min", "min value"), ("default", "default value"), 1, 0),
    (("default", "default value"), ("max", "max value"), 0, 1),
];

/// Checks one item of a limit range: each bound against the others.
pub(super) fn limit_item(item: &At<'_>, out: &mut Vec<Cause>) {
    const KEYS: [&str; 4] = ["max", "min", "default", "defaultRequest"];
    for key in KEYS {
        match item.text("type") {
            "Container" | "Pod" => container_amounts(item, key, out),
            _ => amounts(item, key, out),
        }
    }
    let read = |key: &str, name: &str| Quantity::from_json(item.at(key).get(name)).ok();
    let mut resources: Vec<&str> = KEYS.iter().flat_map(|key| item.entries(key)).map(|(name, _)| name).collect();
    resources.sort_unstable();
    resources.dedup();
    for name in resources {
        for ((low, lower), (high, higher), fault, shown) in BOUNDS {
            let Some((less, more)) = read(low, name).zip(read(high, name)).filter(|(less, more)| less > more) else { continue };
            let why = format!("{lower} {less} is greater than {higher} {more}");
            out.push(Cause::invalid(item.at([low, high][fault]).entry_path(name), &show([less, more][shown]), &why));
        }
    }
    for (name, value) in item.entries("maxLimitRequestRatio") {
        let path = item.at("maxLimitRequestRatio").entry_path(name);
        if let Some(ratio) = amount(&path, value, out)
            && ratio < Quantity::new(1, Format::Decimal)
        {
            out.push(Cause::invalid(path, &show(ratio), &format!("ratio {ratio} is less than 1")));
        }
    }
}
