//! Pods, and the templates of pods.

use std::collections::{HashMap, HashSet};

use super::super::at::At;
use super::super::names;
use super::{address, annotations, claim, deprecated_label, gone, node_term, paths, whole_bytes};

/// A pod, or a template of one.
pub(super) fn pod(pod: &At<'_>, template: bool, out: &mut Vec<String>) {
    let spec = pod.at("spec");
    placement(&spec, out);
    annotations(
        pod,
        &[
            ("scheduler.alpha.kubernetes.io/critical-pod", "non-functional in v1.16+; use the \"priorityClassName\" field instead"),
            ("security.alpha.kubernetes.io/sysctls", "non-functional in v1.11+; use the \"sysctls\" field instead"),
            ("security.alpha.kubernetes.io/unsafe-sysctls", "non-functional in v1.11+; use the \"sysctls\" field instead"),
        ],
        out,
    );
    for volume in spec.items("volumes") {
        if volume.has("gitRepo") {
            out.push(format!("{}: deprecated in v1.11, and disabled by default in v1.33+", volume.path("gitRepo")));
        }
        gone(&volume, &[], out);
        claim(&volume.at("ephemeral").at("volumeClaimTemplate").at("spec"), out);
    }
    paths::volumes(spec.items("volumes"), out);
    doubles(&spec, "hostAliases", "ip", out);
    doubles(&spec, "imagePullSecrets", "name", out);
    for secret in spec.items("imagePullSecrets").filter(|it| it.text("name").is_empty()) {
        out.push(format!("{}: invalid empty name \"\"", secret.path("name")));
    }
    let overhead = spec.at("overhead");
    for name in BYTES {
        whole_bytes(&overhead, name, out);
    }
    let confined = spec.at("securityContext").has("seccompProfile");
    annotated(pod, "seccomp.security.alpha.kubernetes.io/pod", SECCOMP, confined, out);
    let (mut ports, mut names) = (Ports::default(), HashMap::new());
    let (mut of_ports, mut of_names) = (Vec::new(), Vec::new());
    for container in ["initContainers", "containers", "ephemeralContainers"].into_iter().flat_map(|it| spec.items(it)) {
        if pod.at("metadata").has("annotations") {
            profiles(pod, &container, template, out);
        }
        let resources = container.at("resources");
        for (resource, kind) in BYTES.iter().flat_map(|it| [(it, "limits"), (it, "requests")]) {
            whole_bytes(&resources.at(kind), resource, out);
        }
        environment(&container, out);
        for port in container.items("ports") {
            ports.add(&port, &mut of_ports);
            let name = port.text("name");
            if name.is_empty() {
                continue;
            }
            match names.get(name) {
                Some(other) => of_names.push(format!(
                    "{}: duplicate port name {name:?} with {other}, services and probes that select ports by name will use {other}",
                    port.path
                )),
                None => {
                    names.insert(name, port.path);
                }
            }
        }
    }
    out.append(&mut of_ports);
    out.append(&mut of_names);
    // A pod's own becomes 1 without a word.
    if template && spec.number("terminationGracePeriodSeconds").is_some_and(|it| it < 0) {
        let path = spec.path("terminationGracePeriodSeconds");
        out.push(format!("{path}: must be >= 0; negative values are invalid and will be treated as 1"));
    }
    for kind in ["podAffinity", "podAntiAffinity"] {
        let affinity = spec.at("affinity").at(kind);
        let required = affinity.items("requiredDuringSchedulingIgnoredDuringExecution");
        let preferred = affinity.items("preferredDuringSchedulingIgnoredDuringExecution").map(|it| it.at("podAffinityTerm"));
        for term in required.chain(preferred) {
            selects_nothing(&term, out);
        }
    }
    address::pod(&spec, out);
}

const BYTES: [&str; 2] = ["memory", "ephemeral-storage"];
const SECCOMP: &str = "non-functional in v1.27+; use the \"seccompProfile\" field instead";
const APP_ARMOR: &str = "deprecated since v1.30; use the \"appArmorProfile\" field instead";

/// Profiles of a container that annotations of its pod name.
fn profiles(pod: &At<'_>, container: &At<'_>, template: bool, out: &mut Vec<String>) {
    let (name, own, context) = (container.text("name"), pod.at("spec").at("securityContext"), container.at("securityContext"));
    annotated(pod, &format!("container.seccomp.security.alpha.kubernetes.io/{name}"), SECCOMP, context.has("seccompProfile"), out);
    let confined = !template || own.has("appArmorProfile") || context.has("appArmorProfile");
    annotated(pod, &format!("container.apparmor.security.beta.kubernetes.io/{name}"), APP_ARMOR, confined, out);
}

fn placement(spec: &At<'_>, out: &mut Vec<String>) {
    let selector = spec.at("nodeSelector");
    for (key, _) in spec.strings("nodeSelector") {
        if let Some(why) = deprecated_label(key) {
            out.push(format!("{}: {why}", selector.entry_path(key)));
        }
    }
    let affinity = spec.at("affinity").at("nodeAffinity");
    let required = affinity.at("requiredDuringSchedulingIgnoredDuringExecution");
    for term in required.items("nodeSelectorTerms") {
        node_term(&term, out);
    }
    for term in affinity.items("preferredDuringSchedulingIgnoredDuringExecution").map(|it| it.at("preference")) {
        node_term(&term, out);
        term.items("matchExpressions").for_each(|it| label_values(&it, out));
    }
    for spread in spec.items("topologySpreadConstraints") {
        let key = spread.text("topologyKey");
        if let Some(why) = deprecated_label(key) {
            out.push(format!("{}: {key} is {why}", spread.path("topologyKey")));
        }
        selects_nothing(&spread, out);
    }
}

/// Warns of values that no label can have; in what is required, they are faults.
fn label_values(requirement: &At<'_>, out: &mut Vec<String>) {
    for (at, value) in requirement.list("values").iter().filter_map(|it| it.as_str()).enumerate() {
        for fault in names::label_value(value) {
            out.push(format!("{}[{at}]: {value} is invalid, {fault}", requirement.path("values")));
        }
    }
}

fn selects_nothing(of: &At<'_>, out: &mut Vec<String>) {
    if !of.has("labelSelector") {
        out.push(format!("{}: a null labelSelector results in matching no pod", of.path("labelSelector")));
    }
}

/// Warns of an annotation that a field stands for, unless that is set.
fn annotated(pod: &At<'_>, key: &str, why: &str, set: bool, out: &mut Vec<String>) {
    let annotations = pod.at("metadata").at("annotations");
    if !set && annotations.has(key) {
        out.push(format!("{}: {why}", annotations.entry_path(key)));
    }
}

/// Items of a list that share a key which should be unique.
fn doubles(spec: &At<'_>, list: &str, key: &str, out: &mut Vec<String>) {
    let mut seen = HashSet::new();
    for item in spec.items(list) {
        let value = item.text(key);
        if !seen.insert(value) {
            out.push(format!("{}: duplicate {key} {value:?}", item.path(key)));
        }
    }
}

/// A variable may be set twice, if the second value is made of the first.
fn environment(container: &At<'_>, out: &mut Vec<String>) {
    let mut seen = HashSet::new();
    for variable in container.items("env") {
        let (name, value) = (variable.text("name"), variable.text("value"));
        if seen.insert(name) {
            continue;
        }
        let reference = format!("$({name})");
        if variable.has("valueFrom") || value == reference || !value.contains(&reference) {
            out.push(format!("{}: hides previous definition of {name:?}, which may be dropped when using apply", variable.path));
        }
    }
}

/// After so many warnings of ports, of which there may be one for each pair, no others are looked for. A client is told fewer.
const TOLD: usize = 1000;

/// The ports of all containers so far, by number and protocol: where they are, and of which port and address of the host.
#[derive(Default)]
struct Ports<'a>(HashMap<(i64, &'a str), Vec<(String, i64, &'a str)>>);

impl<'a> Ports<'a> {
    fn add(&mut self, port: &At<'a>, out: &mut Vec<String>) {
        let number = |key: &str| port.number(key).unwrap_or_default();
        let (host, address) = (number("hostPort"), port.text("hostIP"));
        if out.len() >= TOLD {
            return;
        }
        let others = self.0.entry((number("containerPort"), port.text("protocol"))).or_default();
        for (path, other_host, other_address) in others.iter() {
            let how = if host == *other_host && address == *other_address {
                "duplicate"
            } else if host == 0 || *other_host == 0 {
                "overlapping"
            } else if host == *other_host && address.is_empty() != other_address.is_empty() {
                "dangerously ambiguous"
            } else {
                continue;
            };
            out.push(format!("{}: {how} port definition with {path}", port.path));
        }
        others.push((port.path.clone(), host, address));
    }
}
