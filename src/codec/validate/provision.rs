//! Kinds of storage, and the drivers behind them.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use serde_json::Value;

use super::at::At;
use super::names::{self, IMMUTABLE};
use super::{resources, selector};
use crate::object::status::Cause;
use crate::util::go;

/// Maximum number of parameters of a class, and of their total size in bytes.
const PARAMETERS: usize = 512;
const PARAMETERS_SIZE: usize = 256 * 1024;
/// Maximum length in bytes of a driver's name, and of its id of a node.
const DRIVER_NAME: usize = 63;
const NODE_ID: usize = 256;
/// The shortest lifetime of a token, in seconds.
const TOKEN_LIFE: i64 = 600;

pub(super) fn class(class: &At<'_>, out: &mut Vec<Cause>) {
    match class.text("provisioner") {
        "" => class.required("provisioner", "", out),
        name => {
            let name = name.to_lowercase();
            out.extend(names::qualified(&name).iter().map(|fault| Cause::invalid(class.path("provisioner"), &name.as_str().into(), fault)));
        }
    }
    let count = class.count("parameters");
    if count > PARAMETERS {
        out.push(Cause::too_many("parameters", count, PARAMETERS));
    }
    if class.strings("parameters").any(|(key, _)| key.is_empty()) {
        out.push(Cause::invalid("parameters", &"".into(), "field can not be empty."));
    }
    if class.strings("parameters").map(|(key, value)| key.len() + value.len()).sum::<usize>() > PARAMETERS_SIZE {
        out.push(Cause::too_long("parameters", PARAMETERS_SIZE));
    }
    if !class.text("reclaimPolicy").is_empty() {
        class.one_of("reclaimPolicy", &["Delete", "Retain"], out);
    }
    if !class.has("volumeBindingMode") {
        class.required("volumeBindingMode", "", out);
    }
    class.one_of("volumeBindingMode", &["Immediate", "WaitForFirstConsumer"], out);
    topologies(class, out);
}

fn topologies(class: &At<'_>, out: &mut Vec<Cause>) {
    // Kubernetes begins with empty ones, so that an empty one is always a duplicate.
    let mut known = HashSet::from([BTreeMap::new()]);
    for term in class.items("allowedTopologies") {
        let mut keys = HashSet::new();
        let mut own: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for requirement in term.items("matchLabelExpressions") {
            if requirement.list("values").is_empty() {
                requirement.required("values", "", out);
            }
            let mut values = BTreeSet::new();
            for value in requirement.items("values") {
                if !values.insert(value.as_text()) {
                    out.push(Cause::duplicate(value.path, value.value));
                }
            }
            own.insert(requirement.text("key"), values);
            requirement.faults("key", names::qualified(requirement.text("key")), out);
            if !keys.insert(requirement.text("key")) {
                requirement.duplicate("key", out);
            }
        }
        if !known.insert(own) {
            out.push(Cause::duplicate(term.path("matchLabelExpressions"), &"".into()));
        }
    }
}

pub(super) fn class_update(new: &At<'_>, old: &At<'_>, out: &mut Vec<Cause>) {
    for key in ["parameters", "provisioner", "reclaimPolicy"] {
        if new.get(key) != old.get(key) {
            new.forbidden(key, &format!("updates to {key} are forbidden."), out);
        }
    }
    new.unchanged(old, &["volumeBindingMode"], out);
}

pub(super) fn attachment(attachment: &At<'_>, out: &mut Vec<Cause>) {
    let spec = attachment.at("spec");
    if spec.text("attacher").is_empty() {
        // Kubernetes misses it twice.
        spec.required("attacher", "", out);
    }
    driver_name(&spec, "attacher", out);
    spec.faults("nodeName", names::subdomain(spec.text("nodeName")), out);
    let source = spec.at("source");
    match (source.has("inlineVolumeSpec"), source.get("persistentVolumeName")) {
        (false, Value::Null) => {
            out.push(Cause::required(source.path.as_str(), "must specify exactly one of inlineVolumeSpec and persistentVolumeName"));
        }
        (true, Value::Null) => {}
        (true, _) => {
            out.push(Cause::forbidden(source.path.as_str(), "must specify exactly one of inlineVolumeSpec and persistentVolumeName"));
        }
        (false, name) => {
            if name == "" {
                source.required("persistentVolumeName", "must specify non empty persistentVolumeName", out);
            }
            source.may("persistentVolumeName", names::subdomain, out);
        }
    }
}

pub(super) fn attachment_update(new: &At<'_>, old: &At<'_>, out: &mut Vec<Cause>) {
    new.unchanged(old, &["spec"], out);
}

pub(super) fn driver(driver: &At<'_>, out: &mut Vec<Cause>) {
    let spec = driver.at("spec");
    spec.one_of("fsGroupPolicy", &["File", "None", "ReadWriteOnceWithFSType"], out);
    for mode in spec.list("volumeLifecycleModes").iter().filter_map(Value::as_str).filter(|it| !matches!(*it, "Persistent" | "Ephemeral")) {
        out.push(Cause::not_supported(spec.path("volumeLifecycleModes"), mode, &["Persistent", "Ephemeral"]));
    }
    let mut audiences = HashSet::new();
    for request in spec.items("tokenRequests") {
        if !audiences.insert(request.text("audience")) {
            request.duplicate("audience", out);
            continue;
        }
        if request.number("expirationSeconds").is_some_and(|it| it < TOKEN_LIFE) {
            request.invalid("expirationSeconds", "may not specify a duration less than 10 minutes", out);
        }
    }
}

pub(super) fn driver_update(new: &At<'_>, old: &At<'_>, out: &mut Vec<Cause>) {
    let (new, old) = (new.at("spec"), old.at("spec"));
    if new.get("attachRequired") != old.get("attachRequired") {
        // Kubernetes spells the field so here.
        out.push(Cause::invalid("spec.attachedRequired", new.get("attachRequired"), IMMUTABLE));
    }
    new.unchanged(&old, &["volumeLifecycleModes"], out);
}

pub(super) fn node(node: &At<'_>, out: &mut Vec<Cause>) {
    let mut drivers = HashSet::new();
    for driver in node.at("spec").items("drivers") {
        driver_name(&driver, "name", out);
        if !drivers.insert(driver.text("name")) {
            driver.duplicate("name", out);
        }
        match driver.text("nodeID") {
            "" => driver.required("nodeID", "", out),
            id if id.len() > NODE_ID => driver.invalid("nodeID", &format!("must be {NODE_ID} characters or less"), out),
            _ => {}
        }
        driver.at("allocatable").not_negative(&["count"], out);
        let mut seen = HashSet::new();
        for key in driver.list("topologyKeys") {
            let faults = names::qualified(key.as_str().unwrap_or_default());
            if key == "" {
                out.push(Cause::required(driver.path.as_str(), ""));
            }
            if !seen.insert(key) {
                out.push(Cause::duplicate(driver.path.as_str(), key));
            }
            out.extend(faults.iter().map(|fault| Cause::invalid(driver.path.as_str(), key, fault)));
        }
    }
}

/// The facts that a driver has reported about a node are immutable as long as the driver is listed.
pub(super) fn node_update(new: &At<'_>, old: &At<'_>, out: &mut Vec<Cause>) {
    // Kubernetes looks at the whole once more.
    node(new, out);
    let (new, old) = (new.at("spec"), old.at("spec"));
    let mut now: HashMap<&str, Vec<At<'_>>> = HashMap::new();
    for driver in new.items("drivers") {
        now.entry(driver.text("name")).or_default().push(driver);
    }
    for before in old.items("drivers") {
        for driver in now.get(before.text("name")).into_iter().flatten() {
            let same = |key: &str| driver.get(key) == before.get(key);
            if !(same("nodeID") && same("allocatable") && driver.list("topologyKeys") == before.list("topologyKeys")) {
                out.push(Cause::invalid_shown(new.path("drivers"), &shown_driver(driver), IMMUTABLE));
            }
        }
    }
}

/// A driver of a node as Go prints it.
fn shown_driver(driver: &At<'_>) -> String {
    let [name, id] = ["name", "nodeID"].map(|key| go::quote(driver.text(key)));
    let keys = if driver.has("topologyKeys") { go::string_list(driver.list("topologyKeys")) } else { "[]string(nil)".to_owned() };
    let allocatable = if driver.has("allocatable") { "0xc000000000" } else { "nil" };
    format!(
        "storage.CSINodeDriver{{Name:{name}, NodeID:{id}, TopologyKeys:{keys}, Allocatable:(*storage.VolumeNodeResources)({allocatable})}}"
    )
}

/// Checks the name of a driver.
pub(super) fn driver_name(at: &At<'_>, key: &str, out: &mut Vec<Cause>) {
    let name = at.text(key);
    if name.is_empty() {
        at.required(key, "", out);
    }
    if name.len() > DRIVER_NAME {
        out.push(Cause::too_long(at.path(key), DRIVER_NAME));
    }
    out.extend(names::subdomain(&name.to_lowercase()).iter().map(|fault| Cause::invalid(at.path(key), &name.into(), fault)));
}

pub(super) fn capacity(capacity: &At<'_>, out: &mut Vec<Cause>) {
    let class = capacity.text("storageClassName");
    out.extend(names::subdomain(class).iter().map(|fault| Cause::invalid(capacity.path("storageClassName"), &class.into(), fault)));
    selector::label_selector(&capacity.at("nodeTopology"), out);
    for key in ["capacity", "maximumVolumeSize"] {
        if capacity.has(key) {
            resources::amount(&capacity.path(key), capacity.get(key), out);
        }
    }
}

pub(super) fn capacity_update(new: &At<'_>, old: &At<'_>, out: &mut Vec<Cause>) {
    new.unchanged(old, &["nodeTopology", "storageClassName"], out);
}
