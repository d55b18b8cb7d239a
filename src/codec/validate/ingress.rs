//! Ingresses and their classes.

use super::at::At;
use super::{meta, names};
use crate::object::status::Cause;

const CLASS_ANNOTATION: &str = "kubernetes.io/ingress.class";

pub(super) fn ingress(ingress: &At<'_>, out: &mut Vec<Cause>) {
    let spec = ingress.at("spec");
    if spec.list("rules").is_empty() && !spec.has("defaultBackend") {
        let why = "either `defaultBackend` or `rules` must be specified";
        out.push(Cause::invalid_shown(spec.path.as_str(), "[]networking.IngressRule(nil)", why));
    }
    if spec.has("defaultBackend") {
        backend(&spec.at("defaultBackend"), out);
    }
    for rule in spec.items("rules") {
        let host = rule.text("host");
        if host.parse::<std::net::IpAddr>().is_ok() {
            rule.invalid("host", "must be a DNS name, not an IP address", out);
        }
        rule.may("host", host_name, out);
        if rule.has("http") {
            let http = rule.at("http");
            if http.list("paths").is_empty() {
                http.required("paths", "", out);
            }
            http.items("paths").for_each(|it| path(&it, out));
        }
    }
    for tls in spec.items("tls") {
        for (at, host) in tls.list("hosts").iter().enumerate() {
            let faults = host_name(host.as_str().unwrap_or_default());
            out.extend(faults.iter().map(|fault| Cause::invalid(format!("{}[{at}]", tls.path("hosts")), host, fault)));
        }
        tls.may("secretName", names::subdomain, out);
    }
    spec.may("ingressClassName", names::subdomain, out);
}

/// A new ingress that names its class in both ways names the same one.
pub(super) fn creation(ingress: &At<'_>, out: &mut Vec<Cause>) {
    let annotations = ingress.at("metadata").at("annotations");
    let (older, newer) = (annotations.get(CLASS_ANNOTATION), ingress.at("spec").get("ingressClassName"));
    if !older.is_null() && !newer.is_null() && older != newer {
        // Kubernetes leaves out where the annotations are.
        let why = "must match `ingressClassName` when both are specified";
        out.push(Cause::invalid(format!("annotations.{CLASS_ANNOTATION}"), older, why));
    }
}

/// A name, or `*.` and a name.
fn host_name(host: &str) -> names::Faults {
    if host.contains('*') { names::wildcard_subdomain(host) } else { names::subdomain(host) }
}

fn path(path: &At<'_>, out: &mut Vec<Cause>) {
    if !path.has("pathType") {
        return path.required("pathType", "pathType must be specified", out);
    }
    let text = path.text("path");
    match path.text("pathType") {
        "Exact" | "Prefix" => {
            if !text.starts_with('/') {
                out.push(Cause::invalid(path.path("path"), &text.into(), "must be an absolute path"));
            }
            for wrong in ["//", "/./", "/../", "%2f", "%2F"].into_iter().filter(|it| text.contains(it)) {
                path.invalid("path", &format!("must not contain '{wrong}'"), out);
            }
            for wrong in ["/..", "/."].into_iter().filter(|it| text.ends_with(it)) {
                path.invalid("path", &format!("cannot end with '{wrong}'"), out);
            }
        }
        "ImplementationSpecific" => {
            if !text.is_empty() && !text.starts_with('/') {
                path.invalid("path", "must be an absolute path", out);
            }
        }
        _ => path.one_of("pathType", &["Exact", "ImplementationSpecific", "Prefix"], out),
    }
    backend(&path.at("backend"), out);
}

fn backend(backend: &At<'_>, out: &mut Vec<Cause>) {
    let mut refuse = |why: &str| out.push(Cause::invalid(backend.path.as_str(), &"".into(), why));
    match (backend.has("resource"), backend.has("service")) {
        (true, true) => refuse("cannot set both resource and service backends"),
        (false, false) => refuse("resource or service backend is required"),
        (true, false) => meta::typed_reference(&backend.at("resource"), out),
        (false, true) => {
            let service = backend.at("service");
            service.must("name", names::label_1035, out);
            let port = service.at("port");
            match (port.text("name"), port.number("number").unwrap_or_default()) {
                ("", 0) => out.push(Cause::required(backend.path.as_str(), "port name or number is required")),
                ("", number) => port.faults("number", names::port_number(number), out),
                (name, 0) => port.faults("name", names::port_name(name), out),
                _ => out.push(Cause::invalid(backend.path.as_str(), &"".into(), "cannot set both port name & port number")),
            }
        }
    }
}

/// The longest name of a controller.
const CONTROLLER: usize = 250;

pub(super) fn class(class: &At<'_>, out: &mut Vec<Cause>) {
    let spec = class.at("spec");
    let controller = spec.text("controller");
    if controller.len() > CONTROLLER {
        out.push(Cause::too_long(spec.path("controller"), CONTROLLER));
    }
    match controller.split_once('/') {
        _ if controller.is_empty() => spec.required("controller", "", out),
        Some((domain, path)) if !domain.is_empty() && !path.is_empty() => {
            out.extend(names::subdomain(domain).iter().map(|fault| Cause::invalid(spec.path("controller"), &domain.into(), fault)));
        }
        _ => spec.invalid("controller", "must be a domain-prefixed path (such as \"acme.io/foo\")", out),
    }
    let parameters = spec.at("parameters");
    if !parameters.is_absent() {
        meta::typed_reference(&parameters, out);
        scope(&parameters, out);
    }
}

fn scope(parameters: &At<'_>, out: &mut Vec<Cause>) {
    match (parameters.text("scope"), parameters.has("namespace")) {
        _ if !parameters.has("scope") => parameters.required("scope", "", out),
        ("Namespace", false) => parameters.required("namespace", "`parameters.scope` is set to 'Namespace'", out),
        ("Namespace", true) => parameters.may("namespace", names::label, out),
        ("Cluster", true) => parameters.forbidden("namespace", "`parameters.scope` is set to 'Cluster'", out),
        _ => parameters.one_of("scope", &["Cluster", "Namespace"], out),
    }
}

pub(super) fn class_update(new: &At<'_>, old: &At<'_>, out: &mut Vec<Cause>) {
    new.at("spec").unchanged(&old.at("spec"), &["controller"], out);
}
