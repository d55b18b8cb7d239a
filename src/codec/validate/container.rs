//! Containers: what they run, and their resources, mounts and environment.

use std::collections::{HashMap, HashSet};

use serde_json::Value;

use super::at::At;
use super::names::{self, Faults, POSITIVE};
use super::{resources, security};
use crate::object::status::Cause;
use crate::util::quantity::Quantity;

/// The names in a pod that containers may refer to, and those that must be unique.
pub(super) struct Pod<'a> {
    spec: At<'a>,
    volumes: HashMap<&'a str, Backing>,
    host_network: bool,
    /// Seconds.
    grace: i64,
    names: HashSet<&'a str>,
    /// The containers that ephemeral ones can look into.
    targets: HashSet<&'a str>,
    host_ports: HashSet<String>,
}

impl<'a> Pod<'a> {
    pub(super) fn new(volumes: HashMap<&'a str, Backing>, spec: &At<'a>) -> Self {
        let grace = spec.number("terminationGracePeriodSeconds").unwrap_or_default();
        Self {
            spec: spec.clone(),
            volumes,
            host_network: spec.flag("hostNetwork"),
            grace,
            names: HashSet::new(),
            targets: ["containers", "initContainers"].into_iter().flat_map(|it| spec.items(it)).map(|it| it.text("name")).collect(),
            host_ports: HashSet::new(),
        }
    }
}

/// The kind of a volume's source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Backing {
    /// A claim, which may be of a device.
    Claim,
    Files,
}

/// The containers of a pod, of every role.
pub(super) fn all<'a>(spec: &At<'a>) -> impl Iterator<Item = At<'a>> + use<'a> {
    let [first, second, third] = ["initContainers", "containers", "ephemeralContainers"].map(|it| spec.items(it));
    first.chain(second).chain(third)
}

/// The list of the pod that a container is in.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Main,
    Init,
    Ephemeral,
}

pub(super) fn container<'a>(it: &At<'a>, role: Role, pod: &mut Pod<'a>, out: &mut Vec<Cause>) {
    it.must("name", names::label, out);
    match it.text("image") {
        "" => it.required("image", "", out),
        image if image.trim() != image => it.invalid("image", "must not have leading or trailing whitespace", out),
        _ => {}
    }
    it.one_of("terminationMessagePolicy", &["File", "FallbackToLogsOnError"], out);
    ports(it, role, pod, out);
    environment(it, out);
    mounts(it, pod, out);
    it.one_of("imagePullPolicy", &["Always", "IfNotPresent", "Never"], out);
    resources::requirements(&it.at("resources"), out);
    resize_policies(it, pod, out);
    security::container(&it.at("securityContext"), out);
    // Only containers that stay can be probed and hooked into; init containers that stay are sidecars.
    let sidecar = role == Role::Init && it.text("restartPolicy") == "Always";
    match role {
        Role::Init => it.one_of("restartPolicy", &["Always"], out),
        Role::Main if it.has("restartPolicy") => it.forbidden("restartPolicy", "may not be set for non-init containers", out),
        Role::Main | Role::Ephemeral => {}
    }
    if it.at("securityContext").text("procMount") == "Unmasked" && pod.spec.get("hostUsers") != &Value::Bool(false) {
        it.at("securityContext").invalid("procMount", "`hostUsers` must be false to use `Unmasked`", out);
    }
    let name = it.text("name");
    if !name.is_empty() && !pod.names.insert(name) {
        it.duplicate("name", out);
    }
    if role == Role::Ephemeral {
        return ephemeral(it, pod, out);
    }
    for key in ["lifecycle", "livenessProbe", "readinessProbe", "startupProbe"] {
        if !it.has(key) {
            continue;
        }
        match (role, key) {
            (Role::Init, _) if !sidecar => it.forbidden(key, "may not be set for init containers without restartPolicy=Always", out),
            (_, "lifecycle") => {
                for hook in ["postStart", "preStop"] {
                    if it.at(key).has(hook) {
                        let hook = it.at(key).at(hook);
                        handler(&hook, &["exec", "httpGet", "tcpSocket", "sleep"], out);
                        let seconds = hook.at("sleep").number("seconds").unwrap_or_default();
                        if seconds < 0 || seconds > pod.grace {
                            let why = format!("must be non-negative and less than terminationGracePeriodSeconds ({})", pod.grace);
                            out.push(Cause::invalid(hook.path("sleep"), &seconds.into(), &why));
                        }
                    }
                }
            }
            _ => probe(&it.at(key), key, out),
        }
    }
}

/// Checks fields that are forbidden in ephemeral containers, which are for debugging only.
fn ephemeral(it: &At<'_>, pod: &Pod<'_>, out: &mut Vec<Cause>) {
    const WHY: &str = "cannot be set for an Ephemeral Container";
    const FIELDS: [&str; 8] =
        ["ports", "resources", "resizePolicy", "restartPolicy", "livenessProbe", "readinessProbe", "startupProbe", "lifecycle"];
    let target = it.text("targetContainerName");
    if !target.is_empty() && !pod.targets.contains(target) {
        out.push(Cause::not_found(it.path("targetContainerName"), target));
    }
    for key in FIELDS {
        let is_nothing = match it.get(key) {
            Value::Null => true,
            Value::Array(items) => items.is_empty(),
            // Probes and hooks are there even if they are empty.
            Value::Object(fields) => key == "resources" && fields.is_empty(),
            _ => false,
        };
        if !is_nothing {
            it.forbidden(key, WHY, out);
        }
    }
    for mount in it.items("volumeMounts") {
        for key in ["subPath", "subPathExpr"] {
            if !mount.text(key).is_empty() {
                mount.forbidden(key, WHY, out);
            }
        }
    }
}

fn ports(container: &At<'_>, role: Role, pod: &mut Pod<'_>, out: &mut Vec<Cause>) {
    let mut seen = HashSet::new();
    for port in container.items("ports") {
        let name = port.text("name");
        if !name.is_empty() {
            let faults = names::port_name(name);
            if faults.is_empty() && !seen.insert(name) {
                port.duplicate("name", out);
            }
            port.faults("name", faults, out);
        }
        let number = port.number("containerPort").unwrap_or_default();
        match number {
            0 => port.required("containerPort", "", out),
            number => port.faults("containerPort", names::port_number(number), out),
        }
        match port.text("protocol") {
            "" => port.required("protocol", "", out),
            _ => port.one_of("protocol", &["SCTP", "TCP", "UDP"], out),
        }
        let host = port.number("hostPort").unwrap_or_default();
        if host == 0 {
            continue;
        }
        port.faults("hostPort", names::port_number(host), out);
        if pod.host_network && host != number {
            port.invalid("hostPort", "must match `containerPort` when `hostNetwork` is true", out);
        }
        // Init containers run before the others, so they may use the same ports.
        if role == Role::Main {
            let claim = format!("{}/{}/{host}", port.text("protocol"), port.text("hostIP"));
            if !pod.host_ports.insert(claim.clone()) {
                out.push(Cause::duplicate(port.path("hostPort"), &claim.into()));
            }
        }
    }
}

const FIELD_PATHS: [&str; 9] = [
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];
/// Further fields that some references may name.
const OTHER_FIELDS: [&str; 5] = ["metadata.annotations", "metadata.labels", "spec.restartPolicy", "spec.schedulerName", "status.phase"];
const RESOURCE_FIELDS: [&str; 6] =
    ["limits.cpu", "limits.ephemeral-storage", "limits.memory", "requests.cpu", "requests.ephemeral-storage", "requests.memory"];

fn environment(container: &At<'_>, out: &mut Vec<Cause>) {
    for source in container.items("envFrom") {
        source.may("prefix", names::env_name, out);
        let all = container.path("envFrom");
        match present(&source, &["configMapRef", "secretRef"])[..] {
            [] => out.push(Cause::invalid(all, &"".into(), "must specify one of: `configMapRef` or `secretRef`")),
            [one] => source.at(one).must("name", names::subdomain, out),
            _ => out.push(Cause::invalid(all, &"".into(), "may not have more than one field specified at a time")),
        }
    }
    for variable in container.items("env") {
        variable.must("name", names::env_name, out);
        if variable.has("valueFrom") {
            value_from(&variable.at("valueFrom"), !variable.text("value").is_empty(), out);
        }
    }
}

fn value_from(from: &At<'_>, has_value: bool, out: &mut Vec<Cause>) {
    let sources = present(from, &["fieldRef", "resourceFieldRef", "configMapKeyRef", "secretKeyRef"]);
    for source in &sources {
        let it = from.at(source);
        match *source {
            "fieldRef" => field_reference(&it, &FIELD_PATHS, out),
            "resourceFieldRef" => resource_reference(&it, out),
            _ => {
                let name = it.text("name");
                out.extend(names::subdomain(name).iter().map(|fault| Cause::invalid(it.path("name"), &name.into(), fault)));
                it.must("key", names::config_key, out);
            }
        }
    }
    let why = match (sources.len(), has_value) {
        (0, _) => "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef` or `secretKeyRef`",
        (_, true) => "may not be specified when `value` is not empty",
        (1, _) => return,
        _ => "may not have more than one field specified at a time",
    };
    out.push(Cause::invalid(from.path.as_str(), &"".into(), why));
}

/// Checks a reference to a field of the pod itself.
pub(super) fn field_reference(reference: &At<'_>, supported: &[&str], out: &mut Vec<Cause>) {
    let path = reference.text("fieldPath");
    if path.is_empty() {
        return reference.required("fieldPath", "", out);
    }
    let subscript = path.strip_suffix("']").and_then(|it| it.split_once("['"));
    let mut qualified = |key: &str| {
        out.extend(names::qualified(key).iter().map(|fault| Cause::invalid(reference.path.as_str(), &key.into(), fault)));
    };
    match subscript {
        Some(("metadata.labels", key)) => qualified(key),
        Some(("metadata.annotations", key)) => qualified(&key.to_lowercase()),
        Some(_) => reference.invalid("fieldPath", "does not support subscript", out),
        None if FIELD_PATHS.contains(&path) || OTHER_FIELDS.contains(&path) => reference.one_of("fieldPath", supported, out),
        None => reference.invalid("fieldPath", &format!("error converting fieldPath: field label not supported: {path}"), out),
    }
}

/// Checks a reference to a resource limit or request of a container.
pub(super) fn resource_reference(reference: &At<'_>, out: &mut Vec<Cause>) {
    let name = reference.text("resource");
    match name {
        "" => reference.required("resource", "", out),
        _ if is_of_huge_pages(name) => {}
        _ => reference.one_of("resource", &RESOURCE_FIELDS, out),
    }
    let Ok(divisor) = Quantity::from_json(reference.get("divisor")).map(|it| it.to_string()) else { return };
    let kind = name.split_once('.').map_or(name, |(_, kind)| kind);
    let (supported, of): (&[&str], _) = match kind {
        "cpu" => (&DIVISORS_OF_CPU, "1m and 1 are supported with the cpu resource"),
        "memory" | "ephemeral-storage" => (&DIVISORS, if kind == "memory" { "memory" } else { "local ephemeral storage" }),
        _ if is_of_huge_pages(name) => (&DIVISORS, "hugepages"),
        _ => return,
    };
    if divisor == "0" || supported.contains(&divisor.as_str()) {
        return;
    }
    let why = match kind {
        "cpu" => format!("only divisor's values {of}"),
        _ => format!("only divisor's values {} are supported with the {of} resource", DIVISORS.join(", ")),
    };
    out.push(Cause::invalid(reference.path("divisor"), &name.into(), &why));
}

const DIVISORS_OF_CPU: [&str; 2] = ["1m", "1"];
/// In Kubernetes' order.
const DIVISORS: [&str; 13] = ["1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei"];

fn is_of_huge_pages(resource: &str) -> bool {
    resource.starts_with("limits.hugepages-") || resource.starts_with("requests.hugepages-")
}

fn mounts(container: &At<'_>, pod: &Pod<'_>, out: &mut Vec<Cause>) {
    let mounts = Places::of(container, "volumeMounts", "mountPath");
    let devices = Places::of(container, "volumeDevices", "devicePath");
    // For an error of the mounts as a whole, Kubernetes names no mount.
    let all = container.at("volumeMounts");
    let mut paths = HashSet::new();
    for mount in container.items("volumeMounts") {
        backing(&mount, pod, out);
        let path = mount.text("mountPath");
        if path.is_empty() {
            mount.required("mountPath", "", out);
        }
        if !paths.insert(path) {
            mount.invalid("mountPath", "must be unique", out);
        }
        is_elsewhere(&mount, "mountPath", &devices, out);
        let at = all.clone().holding(mount.value);
        at.may("subPath", names::local_path, out);
        if !mount.text("subPath").is_empty() && !mount.text("subPathExpr").is_empty() {
            mount.invalid("subPathExpr", "subPathExpr and subPath are mutually exclusive", out);
        }
        at.may("subPathExpr", names::local_path, out);
        propagation(&at, container.at("securityContext").flag("privileged"), out);
    }
    let (mut names, mut paths) = (HashSet::new(), HashSet::new());
    for device in container.items("volumeDevices") {
        if !names.insert(device.text("name")) {
            device.invalid("name", "must be unique", out);
        }
        if backing(&device, pod, out) == Some(Backing::Files) {
            let why = "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode";
            device.invalid("name", why, out);
        }
        let path = device.text("devicePath");
        if path.is_empty() {
            device.required("devicePath", "", out);
        }
        if paths.contains(path) {
            device.invalid("devicePath", "must be unique", out);
        }
        if names::has_parent(path) {
            device.invalid("devicePath", "can not contain backsteps ('..')", out);
        } else {
            paths.insert(path);
        }
        is_elsewhere(&device, "devicePath", &mounts, out);
    }
}

/// Checks the policies for a resize of the container.
fn resize_policies(it: &At<'_>, pod: &Pod<'_>, out: &mut Vec<Cause>) {
    let mut seen = HashSet::new();
    for policy in it.items("resizePolicy") {
        let name = policy.text("resourceName");
        if !seen.insert(name) {
            let message = format!("Duplicate value: {name}");
            out.push(Cause { message, ..Cause::duplicate(policy.path.as_str(), &Value::Null) });
        }
        if policy.text("restartPolicy") == "RestartContainer" && pod.spec.text("restartPolicy") == "Never" {
            let why = "must be 'NotRequired' when `restartPolicy` is 'Never'";
            out.push(Cause::invalid(it.path("resizePolicy"), &"RestartContainer".into(), why));
        }
        if name.is_empty() {
            out.push(Cause::required(it.path("resizePolicy"), ""));
        } else if !matches!(name, "cpu" | "memory") {
            let message = format!("Unsupported value: {name}: supported values: \"cpu\", \"memory\"");
            out.push(Cause { message, ..Cause::not_supported(it.path("resizePolicy"), name, &[]) });
        }
        match policy.text("restartPolicy") {
            "" => out.push(Cause::required(it.path("resizePolicy"), "")),
            "NotRequired" | "RestartContainer" => {}
            restart => out.push(Cause::not_supported(it.path("resizePolicy"), restart, &["NotRequired", "RestartContainer"])),
        }
    }
}

/// The volumes in a list of mounts or devices, and the paths at which they are.
struct Places<'a> {
    list: &'static str,
    names: HashSet<&'a str>,
    paths: HashSet<&'a str>,
}

impl<'a> Places<'a> {
    fn of(container: &At<'a>, list: &'static str, path: &str) -> Self {
        // Among repeated entries, Kubernetes uses the last.
        let last: HashMap<&str, &str> = container.items(list).map(|it| (it.text("name"), it.text(path))).collect();
        Self { list, names: last.keys().copied().collect(), paths: last.values().copied().collect() }
    }
}

/// Checks that a mount is not also a device, or vice versa. `path` is the name of its own path field.
fn is_elsewhere(it: &At<'_>, path: &str, others: &Places<'_>, out: &mut Vec<Cause>) {
    if others.names.contains(it.text("name")) {
        it.invalid("name", &format!("must not already exist in {}", others.list), out);
    }
    if others.paths.contains(it.text(path)) {
        let why = format!("must not already exist as a path in {}", others.list);
        out.push(Cause::invalid(it.path(path), &it.text(path).into(), &why));
    }
}

fn propagation(mount: &At<'_>, is_privileged: bool, out: &mut Vec<Cause>) {
    let propagation = mount.text("mountPropagation");
    mount.one_of("mountPropagation", &["Bidirectional", "HostToContainer", "None"], out);
    if propagation == "Bidirectional" && !is_privileged {
        mount.forbidden("mountPropagation", "Bidirectional mount propagation is available only to privileged containers", out);
    }
    const READ_ONLY: &str = "recursiveReadOnly";
    match mount.text(READ_ONLY) {
        "Enabled" | "IfPossible" => {
            if !mount.flag("readOnly") {
                mount.forbidden(READ_ONLY, "may only be specified when readOnly is true", out);
            }
            if !matches!(propagation, "" | "None") {
                mount.forbidden(READ_ONLY, "may only be specified when mountPropagation is None or not specified", out);
            }
        }
        _ => mount.one_of(READ_ONLY, &["Disabled", "Enabled", "IfPossible"], out),
    }
}

/// The source of the named volume; an error if there is no such volume.
fn backing(it: &At<'_>, pod: &Pod<'_>, out: &mut Vec<Cause>) -> Option<Backing> {
    let name = it.text("name");
    if name.is_empty() {
        it.required("name", "", out);
    }
    let found = pod.volumes.get(name).copied();
    if found.is_none() {
        out.push(Cause::not_found(it.path("name"), name));
    }
    found
}

fn probe(probe: &At<'_>, kind: &str, out: &mut Vec<Cause>) {
    handler(probe, &["exec", "httpGet", "tcpSocket", "grpc"], out);
    probe.not_negative(&["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"], out);
    if kind == "readinessProbe" {
        if probe.has("terminationGracePeriodSeconds") {
            probe.invalid("terminationGracePeriodSeconds", "must not be set for readinessProbes", out);
        }
        return;
    }
    if probe.number("successThreshold").is_some_and(|it| it != 1) {
        probe.invalid("successThreshold", "must be 1", out);
    }
    if probe.number("terminationGracePeriodSeconds").is_some_and(|it| it <= 0) {
        probe.invalid("terminationGracePeriodSeconds", POSITIVE, out);
    }
}

/// Checks that there is exactly one way to act, and that way.
fn handler(of: &At<'_>, kinds: &[&'static str], out: &mut Vec<Cause>) {
    let present = present(of, kinds);
    let Some((first, others)) = present.split_first() else {
        return out.push(Cause::required(of.path.as_str(), "must specify a handler type"));
    };
    for other in others {
        of.forbidden(other, "may not specify more than 1 handler type", out);
    }
    let it = of.at(first);
    match *first {
        "exec" if it.list("command").is_empty() => it.required("command", "", out),
        "httpGet" => {
            if it.text("path").is_empty() {
                it.required("path", "", out);
            }
            port_reference(&it, "port", out);
            it.one_of("scheme", &["HTTP", "HTTPS"], out);
            for header in it.items("httpHeaders") {
                let name = header.text("name");
                let faults = names::header_name(name);
                out.extend(faults.iter().map(|fault| Cause::invalid(it.path("httpHeaders"), &name.into(), fault)));
            }
        }
        "tcpSocket" => port_reference(&it, "port", out),
        "grpc" => it.faults("port", names::port_number(it.number("port").unwrap_or_default()), out),
        _ => {}
    }
}

/// Checks a port that is a number or the name of one.
pub(super) fn port_reference(of: &At<'_>, key: &str, out: &mut Vec<Cause>) {
    match of.get(key) {
        Value::String(name) => of.faults(key, names::port_name(name), out),
        value => {
            let number = value.as_i64().unwrap_or_default();
            out.extend(names::port_number(number).iter().map(|fault| Cause::invalid(of.path(key), &number.into(), fault)));
        }
    }
}

/// The fields that are present.
pub(super) fn present<'k>(of: &At<'_>, keys: &[&'k str]) -> Vec<&'k str> {
    keys.iter().copied().filter(|key| of.has(key)).collect()
}

/// Checks that a text is an absolute path.
pub(super) fn absolute(path: &str) -> Faults {
    if path.starts_with('/') { Faults::new() } else { vec!["must be an absolute path".to_owned()] }
}
