//! Pods, and the templates that pods are made from.

use serde_json::Value;

use super::at::At;
use super::container::{Pod, Role, container};
use super::names;
use super::{annotated, meta, placement, resources, security, selector, system, volume};
use crate::object::status::Cause;

/// Checks that apply only to new pods.
pub(super) fn creation(pod: &At<'_>, out: &mut Vec<Cause>) {
    let spec = pod.at("spec");
    if !spec.list("ephemeralContainers").is_empty() {
        spec.forbidden("ephemeralContainers", "cannot be set on create", out);
    }
    if spec.has("nodeName") && !spec.list("schedulingGates").is_empty() {
        spec.forbidden("nodeName", "cannot be set until all schedulingGates have been cleared", out);
    }
    annotated::deletion_cost(&pod.at("metadata"), out);
    annotated::agree(&pod.at("metadata"), &spec, out);
}

/// Checks a pod for itself.
pub(super) fn pod(pod: &At<'_>, out: &mut Vec<Cause>) {
    let spec = pod.at("spec");
    annotated::annotations(&pod.at("metadata"), &spec, out);
    self::spec(&spec, out);
}

/// Checks `spec.template` of a workload.
pub(super) fn template(template: &At<'_>, out: &mut Vec<Cause>) {
    let metadata = template_metadata(template, out);
    let spec = template.at("spec");
    annotated::deletion_cost(&metadata, out);
    annotated::annotations(&metadata, &spec, out);
    self::spec(&spec, out);
    annotated::agree(&metadata, &spec, out);
    if !spec.list("ephemeralContainers").is_empty() {
        spec.forbidden("ephemeralContainers", "ephemeral containers not allowed in pod template", out);
    }
}

/// Checks the metadata of a template, which Kubernetes omits from paths.
pub(super) fn template_metadata<'a>(template: &At<'a>, out: &mut Vec<Cause>) -> At<'a> {
    let metadata = template.clone().holding(template.get("metadata"));
    selector::labels(&metadata, "labels", out);
    meta::annotations(&metadata, out);
    metadata
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
    security::host(spec, out);
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
    system::host_processes(spec, out);
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
    resources::overhead(&spec.at("overhead"), spec.get("overhead"), out);
    system::system(spec, out);
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
