//! `metadata`, which every kind has.

use std::collections::HashSet;

use serde_json::Value;

use super::at::At;
use super::names::{self, Faults, IMMUTABLE};
use super::selector;
use crate::object::status::Cause;
use crate::object::{ResourceRef, resource};
use crate::util::go;

/// The most that all annotations of an object may take, in bytes.
const ANNOTATIONS: usize = 256 * 1024;
/// Finalizers that need no domain before them.
const STANDARD_FINALIZERS: [&str; 3] = ["kubernetes", "orphan", "foregroundDeletion"];

/// Resources whose objects have any name that fits into a path, beside those of RBAC.
const NAMED_AT_WILL: [ResourceRef; 3] = [&resource::IP_ADDRESS, &resource::EVENT, &resource::POD_DISRUPTION_BUDGET];
/// Resources whose finalizers need no domain.
const FINALIZED_AT_WILL: [ResourceRef; 4] =
    [&resource::EVENT, &resource::LEASE, &resource::POD_DISRUPTION_BUDGET, &resource::RUNTIME_CLASS];

/// The syntax of names of a resource's objects.
fn name_rule(of: ResourceRef) -> fn(&str) -> Faults {
    if of == &resource::SERVICE {
        names::label_1035
    } else if of == &resource::NAMESPACE || of == &resource::STATEFUL_SET {
        names::label
    } else if of.group == "rbac.authorization.k8s.io" || NAMED_AT_WILL.contains(&of) {
        names::path_segment
    } else {
        names::subdomain
    }
}

/// Checks the metadata. That there is a name at all, and a namespace where there should be one, is for the server to see to.
pub(super) fn metadata(of: ResourceRef, metadata: &At<'_>, out: &mut Vec<Cause>) {
    let rule = name_rule(of);
    // A generated name continues after the base, which may therefore end in a hyphen.
    let base = metadata.text("generateName");
    if !base.is_empty() {
        let probe = if base.len() > 1 && base.ends_with('-') { format!("{}a", &base[..base.len() - 1]) } else { base.to_owned() };
        metadata.faults("generateName", rule(&probe), out);
    }
    metadata.may_say("name", rule, out);
    match (of.namespaced, metadata.text("namespace")) {
        (_, "") => {}
        (true, namespace) => metadata.faults("namespace", names::label(namespace), out),
        (false, _) => metadata.forbidden("namespace", "not allowed on this type", out),
    }
    metadata.not_negative(&["generation"], out);
    selector::labels(metadata, "labels", out);
    annotations(metadata, out);
    owners(metadata, out);
    finalizers(of, metadata, out);
}

/// Checks the annotations of an object or of a pod template.
pub(super) fn annotations(metadata: &At<'_>, out: &mut Vec<Cause>) {
    let path = metadata.path("annotations");
    let mut size = 0;
    for (key, value) in metadata.strings("annotations") {
        size += key.len() + value.len();
        out.extend(names::qualified(&key.to_lowercase()).iter().map(|fault| Cause::invalid(&path, &key.into(), fault)));
    }
    if size > ANNOTATIONS {
        out.push(Cause::too_long(path, ANNOTATIONS));
    }
}

/// Checks a reference to an object of some kind.
pub(super) fn typed_reference(reference: &At<'_>, out: &mut Vec<Cause>) {
    reference.may("apiGroup", names::subdomain, out);
    for key in ["kind", "name"] {
        match reference.text(key) {
            "" => reference.required(key, &format!("{key} is required"), out),
            text => reference.faults(key, names::path_segment(text), out),
        }
    }
}

fn owners(metadata: &At<'_>, out: &mut Vec<Cause>) {
    let mut controller: Option<At<'_>> = None;
    // As in Kubernetes, without the index of the entry.
    let path = metadata.path("ownerReferences");
    for owner in metadata.items("ownerReferences") {
        let field = |key: &str| if path.is_empty() { String::new() } else { format!("{path}.{key}") };
        let api_version = owner.text("apiVersion");
        let version = api_version.split_once('/').map_or(api_version, |it| it.1);
        if version.is_empty() || version.contains('/') {
            out.push(Cause::invalid(field("apiVersion"), &api_version.into(), "version must not be empty"));
        }
        for key in ["kind", "name", "uid"] {
            if owner.text(key).is_empty() {
                out.push(Cause::invalid(field(key), &"".into(), &format!("{key} must not be empty")));
            }
        }
        if api_version == "v1" && owner.text("kind") == "Event" {
            out.push(Cause::invalid(path.as_str(), owner.value, "/v1, Kind=Event is disallowed from being an owner"));
        }
        if owner.flag("controller") {
            if let Some(first) = &controller {
                let why = format!(
                    "Only one reference can have Controller set to true. Found \"true\" in references for {} and {}",
                    first.text("name"),
                    owner.text("name")
                );
                metadata.invalid("ownerReferences", &why, out);
            }
            controller = Some(owner);
        }
    }
}

fn finalizers(of: ResourceRef, metadata: &At<'_>, out: &mut Vec<Cause>) {
    let all = metadata.list("finalizers");
    if all.is_empty() {
        return;
    }
    for finalizer in all {
        let faults = names::qualified(finalizer.as_str().unwrap_or_default());
        out.extend(faults.iter().map(|fault| Cause::invalid(metadata.path("finalizers"), finalizer, fault)));
    }
    if ["orphan", "foregroundDeletion"].iter().all(|it| all.iter().any(|finalizer| finalizer == it)) {
        metadata.invalid("finalizers", "finalizer orphan and foregroundDeletion cannot be both set", out);
    }
    named_finalizers(of, metadata, out);
}

/// Checks that finalizers say whose they are.
pub(super) fn named_finalizers(of: ResourceRef, metadata: &At<'_>, out: &mut Vec<Cause>) {
    if !FINALIZED_AT_WILL.contains(&of) {
        for finalizer in metadata.items("finalizers") {
            self::finalizer(&finalizer.path, finalizer.as_text(), out);
        }
    }
}

/// Checks the name of a finalizer.
pub(super) fn finalizer(path: &str, finalizer: &str, out: &mut Vec<Cause>) {
    if !finalizer.contains('/') && !STANDARD_FINALIZERS.contains(&finalizer) {
        let why = "name is neither a standard finalizer name nor is it fully qualified";
        out.push(Cause::invalid(path, &finalizer.into(), why));
    }
}

/// Checks immutable metadata. Fields that the new metadata omits count as unchanged.
pub(super) fn update(new: &At<'_>, old: &At<'_>, out: &mut Vec<Cause>) {
    if old.has("deletionTimestamp") {
        let had: HashSet<&Value> = old.list("finalizers").iter().collect();
        let added: Vec<String> = new.list("finalizers").iter().filter(|it| !had.contains(it)).map(|it| it.to_string()).collect();
        if !added.is_empty() {
            let why = format!(
                "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
                added.join(", ")
            );
            new.forbidden("finalizers", &why, out);
        }
    }
    if new.number("generation").zip(old.number("generation")).is_some_and(|(new, old)| new < old) {
        new.invalid("generation", "must not be decremented", out);
    }
    for key in ["name", "namespace", "uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"] {
        if new.has(key) && new.get(key) != old.get(key) {
            match key.ends_with("Timestamp") {
                true => out.push(Cause::invalid_shown(new.path(key), &go::shown_time(new.text(key)), IMMUTABLE)),
                false => new.invalid(key, IMMUTABLE, out),
            }
        }
    }
}
