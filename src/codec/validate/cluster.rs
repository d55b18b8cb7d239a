//! Settings of the cluster: priorities, ways to run containers, requests for certificates.

use std::collections::HashSet;

use super::at::At;
use super::{meta, names, placement, resources, selector};
use crate::object::schema;
use crate::object::status::Cause;
use crate::util::go;

/// Names that begin so are the cluster's own.
const SYSTEM: &str = "system-";
/// The most important that users' pods can be.
const HIGHEST: i64 = 1_000_000_000;
/// The priority classes that every cluster has, with their values.
pub const SYSTEM_PRIORITIES: [(&str, i64); 2] = [("system-node-critical", 2_000_001_000), ("system-cluster-critical", 2_000_000_000)];

pub(super) fn namespace(namespace: &At<'_>, out: &mut Vec<Cause>) {
    let spec = namespace.at("spec");
    for finalizer in spec.list("finalizers") {
        meta::finalizer(&spec.path("finalizers"), finalizer.as_str().unwrap_or_default(), out);
    }
}

/// A namespace is terminating once it is deleted, and not before.
pub(super) fn namespace_update(new: &At<'_>, old: &At<'_>, out: &mut Vec<Cause>) {
    let phase = new.at("status").text("phase");
    if phase == old.at("status").text("phase") {
        return;
    }
    let (expected, state) = match new.at("metadata").has("deletionTimestamp") {
        true => ("Terminating", "not empty"),
        false => ("Active", "empty"),
    };
    if phase != expected {
        let why = format!("may only be '{expected}' if `deletionTimestamp` is {state}");
        out.push(Cause::invalid(new.at("status").path("Phase"), &phase.into(), &why));
    }
}

pub(super) fn priority(class: &At<'_>, out: &mut Vec<Cause>) {
    let name = class.at("metadata").text("name");
    let value = class.number("value").unwrap_or_default();
    if name.starts_with(SYSTEM) {
        let error = match SYSTEM_PRIORITIES.iter().find(|(it, _)| *it == name) {
            None => Some(format!("{name} is not a known system priority class")),
            Some((_, known)) if *known != value => Some(format!("value of {name} PriorityClass must be {known}")),
            Some(_) if class.flag("globalDefault") => Some(format!("globalDefault of {name} PriorityClass must be false")),
            Some(_) => None,
        };
        if let Some(error) = error {
            let why = format!("priority class names with '{SYSTEM}' prefix are reserved for system use only. error: {error}");
            out.push(Cause::forbidden("metadata.name", &why));
        }
    } else if value > HIGHEST {
        class.forbidden("value", &format!("maximum allowed value of a user defined priority is {HIGHEST}"), out);
    }
    match class.get("preemptionPolicy").as_str() {
        Some("") => class.required("preemptionPolicy", "", out),
        _ => class.one_of("preemptionPolicy", &["PreemptLowerPriority", "Never"], out),
    }
}

pub(super) fn priority_update(new: &At<'_>, old: &At<'_>, out: &mut Vec<Cause>) {
    if new.number("value").unwrap_or_default() != old.number("value").unwrap_or_default() {
        new.forbidden("value", "may not be changed in an update.", out);
    }
    new.unchanged(old, &["preemptionPolicy"], out);
}

pub(super) fn runtime(class: &At<'_>, out: &mut Vec<Cause>) {
    class.faults("handler", names::label(class.text("handler")), out);
    let overhead = class.at("overhead");
    resources::overhead(&overhead, overhead.get("podFixed"), out);
    let scheduling = class.at("scheduling");
    selector::labels(&scheduling, "nodeSelector", out);
    // Kubernetes names them twice.
    placement::tolerations(&scheduling.at("tolerations").holding(scheduling.value), out);
    let mut seen = HashSet::new();
    for toleration in scheduling.items("tolerations").filter(|it| !seen.insert(it.value)) {
        let [key, operator, value, effect] = ["key", "operator", "value", "effect"].map(|key| go::quote(toleration.text(key)));
        // Go's output contains the memory address of the seconds, which is omitted here.
        let shown =
            format!("core.Toleration{{Key:{key}, Operator:{operator}, Value:{value}, Effect:{effect}, TolerationSeconds:(*int64)(nil)}}");
        let message = format!("Duplicate value: {shown}");
        out.push(Cause { message, ..Cause::duplicate(toleration.path, toleration.value) });
    }
}

pub(super) fn runtime_update(new: &At<'_>, old: &At<'_>, out: &mut Vec<Cause>) {
    new.unchanged(old, &["handler"], out);
}

/// The shortest life of a certificate that can be asked for, in seconds.
const CERTIFICATE_LIFE: i64 = 600;
/// Conditions that only the subresource `approval` sets, and that stay.
const DECISIONS: [&str; 2] = ["Approved", "Denied"];

pub(super) fn certificate(request: &At<'_>, out: &mut Vec<Cause>) {
    let spec = request.at("spec");
    let given = spec.get("request").as_str().map(decoded);
    if !given.as_deref().is_some_and(is_pem) {
        out.push(Cause::invalid_shown(spec.path("request"), &bytes(given.as_deref()), "PEM block type must be CERTIFICATE REQUEST"));
    }
    usages(&spec, out);
    signer(&spec, out);
    if spec.number("expirationSeconds").is_some_and(|it| it < CERTIFICATE_LIFE) {
        let why = "may not specify a duration less than 600 seconds (10 minutes)";
        spec.invalid("expirationSeconds", why, out);
    }
    let status = request.at("status");
    if let Some(why) = status.get("certificate").as_str().and_then(|it| not_certificates(&String::from_utf8_lossy(&decoded(it)))) {
        out.push(Cause::invalid(status.path("certificate"), &"<certificate data>".into(), &why));
    }
    for condition in status.items("conditions") {
        match condition.text("type") {
            "" => condition.required("type", "", out),
            "Approved" | "Denied" | "Failed" if condition.text("status") != "True" => {
                out.push(Cause::not_supported(condition.path("status"), condition.text("status"), &["True"]));
            }
            _ => {}
        }
    }
}

/// Checks a signer's name: a domain, and a path with dots between its parts.
fn signer(spec: &At<'_>, out: &mut Vec<Cause>) {
    let name = spec.text("signerName");
    if name == "kubernetes.io/legacy-unknown" {
        return spec.invalid("signerName", "the legacy signerName is not allowed via this API version", out);
    }
    let (domain, path) = match name.split('/').collect::<Vec<_>>()[..] {
        _ if name.is_empty() => return spec.required("signerName", "", out),
        [domain, path] => (domain, path),
        _ => return spec.invalid("signerName", "must be a fully qualified domain and path of the form 'example.com/signer-name'", out),
    };
    let mut refuse = |part: &str, why: &str| out.push(Cause::invalid(spec.path("signerName"), &part.into(), why));
    let rules: [(&str, fn(&str) -> names::Faults); 2] = [(domain, names::label), (path, names::subdomain)];
    for (at, (part, rule)) in rules.into_iter().enumerate() {
        if let Some((label, faults)) = part.split('.').map(|it| (it, rule(it))).find(|it| !it.1.is_empty()) {
            faults.iter().for_each(|fault| refuse(part, &format!("validating label {label:?}: {fault}")));
        }
        if at == 0 && !domain.contains('.') {
            refuse(domain, "should be a domain with at least two segments separated by dots");
        }
    }
}

fn usages(spec: &At<'_>, out: &mut Vec<Cause>) {
    if spec.list("usages").is_empty() {
        spec.required("usages", "", out);
    }
    let known = schema::get("io.k8s.api.certificates.v1.CertificateSigningRequestSpec").and_then(|it| it.field("usages"));
    let known = known.map(|it| it.allowed).unwrap_or_default();
    let mut seen = HashSet::new();
    for (at, usage) in spec.list("usages").iter().enumerate() {
        let (path, text) = (format!("{}[{at}]", spec.path("usages")), usage.as_str().unwrap_or_default());
        if !known.contains(&text) {
            out.push(Cause::not_supported(path, text, known));
        } else if !seen.insert(text) {
            out.push(Cause::duplicate(path, usage));
        }
    }
}

fn decoded(base64: &str) -> Vec<u8> {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.decode(base64).unwrap_or_default()
}

/// Why a text in PEM holds something else than certificates.
fn not_certificates(text: &str) -> Option<String> {
    const KIND: &str = "CERTIFICATE";
    if text.is_empty() {
        return None;
    }
    let mut kinds = text.split("-----BEGIN ").skip(1).filter_map(|it| it.split_once("-----")).map(|it| it.0).peekable();
    if kinds.peek().is_none() {
        return Some(format!("must contain at least one {KIND} PEM block"));
    }
    kinds.find(|it| *it != KIND).map(|other| format!("only {KIND} PEM blocks are allowed, found {other:?}"))
}

fn is_pem(bytes: &[u8]) -> bool {
    String::from_utf8_lossy(bytes).contains("-----BEGIN CERTIFICATE REQUEST-----")
}

/// Bytes as Go shows them.
fn bytes(bytes: Option<&[u8]>) -> String {
    bytes.map_or_else(
        || "[]byte(nil)".to_owned(),
        |bytes| format!("[]byte{{{}}}", bytes.iter().map(|it| format!("{it:#x}")).collect::<Vec<_>>().join(", ")),
    )
}

/// Decisions are taken through `approval` and never taken back.
pub(super) fn certificate_update(new: &At<'_>, old: &At<'_>, out: &mut Vec<Cause>) {
    let has = |request: &At<'_>, kind: &str| request.at("status").items("conditions").any(|it| it.text("type") == kind);
    for kind in DECISIONS.into_iter().chain(["Failed"]) {
        if has(old, kind) && !has(new, kind) {
            out.push(Cause::forbidden("status.conditions", &format!("updates may not remove a condition of type {kind:?}")));
        }
    }
    if DECISIONS.iter().all(|kind| has(new, kind)) {
        let why = "Approved and Denied conditions are mutually exclusive";
        out.push(Cause::invalid("status.conditions", new.at("status").get("conditions"), why));
    }
}
