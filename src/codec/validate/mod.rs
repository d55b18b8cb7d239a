//! Validation: a row of rules per kind, made of functions by family.
//!
//! Objects have been decoded and defaulted, so shapes are right and defaults are filled in.

mod annotated;
mod at;
mod autoscaler;
mod batch;
mod cluster;
mod config;
mod container;
mod counts;
mod event;
mod indexes;
mod ingress;
mod job_status;
mod meta;
mod names;
mod network;
mod node;
mod placement;
mod pod;
mod pod_change;
mod policy;
mod provision;
mod rbac;
mod resize;
mod resources;
mod rules;
mod security;
mod selector;
mod service;
mod status;
mod storage;
mod system;
mod volume;
mod warn;
mod workload;

pub use cluster::SYSTEM_PRIORITIES;
use serde_json::Value;
pub use warn::warnings;

use self::at::At;
use crate::object::ResourceRef;
use crate::object::resource::{EVENT_V1, JOB, POD};
use crate::object::status::Cause;

/// The faults of an object about to be created (`old` is `None`) or to replace `old`; empty if it is valid.
pub fn validate(resource: ResourceRef, new: &Value, old: Option<&Value>) -> Vec<Cause> {
    // Nearly every object is valid, and then paths are not needed.
    match check(resource, &At::unplaced(new), old.map(At::unplaced)).is_empty() {
        true => Vec::new(),
        false => check(resource, &At::root(new), old.map(At::root)),
    }
}

fn check(resource: ResourceRef, new: &At<'_>, old: Option<At<'_>>) -> Vec<Cause> {
    let mut out = Vec::new();
    if let Some(old) = &old {
        // Kubernetes does this for all kinds, and then for each.
        meta::update(&new.at("metadata"), &old.at("metadata"), &mut out);
    }
    meta::metadata(resource, &new.at("metadata"), &mut out);
    if old.is_none() && resource == &JOB {
        batch::job_generated(new, &mut out);
    }
    let rules = rules::of(resource);
    (rules.object)(new, &mut out);
    match old {
        None => (rules.creation)(new, &mut out),
        Some(old) => {
            if out.iter().any(placement::is_of_label_value) {
                let mut before = Vec::new();
                (rules.object)(&old, &mut before);
                if before.iter().any(placement::is_of_label_value) {
                    out.retain(|it| !placement::is_of_label_value(it));
                }
            }
            meta::update(&new.at("metadata"), &old.at("metadata"), &mut out);
            meta::named_finalizers(resource, &new.at("metadata"), &mut out);
            (rules.update)(new, &old, &mut out);
            if new.get("status") != old.get("status") {
                (rules.status)(&new.at("status"), &old.at("status"), &mut out);
            }
        }
    }
    out
}

/// The faults of a pod about to get ephemeral containers.
pub fn validate_ephemeral(new: &Value, old: &Value) -> Vec<Cause> {
    let (new, old) = (At::root(new), At::root(old));
    let mut out = Vec::new();
    meta::metadata(&POD, &new.at("metadata"), &mut out);
    meta::update(&new.at("metadata"), &old.at("metadata"), &mut out);
    pod::spec(&new.at("spec"), &mut out);
    pod_change::ephemeral(&new, &old, &mut out);
    out
}

/// The faults of a pod whose containers are to be resized, which would give it this class (`status.qosClass`).
pub fn validate_resize(new: &Value, old: &Value, class: &str) -> Vec<Cause> {
    let (new, old) = (At::root(new), At::root(old));
    let mut out = Vec::new();
    meta::metadata(&POD, &new.at("metadata"), &mut out);
    meta::update(&new.at("metadata"), &old.at("metadata"), &mut out);
    pod::pod(&new, &mut out);
    resize::resize(&new, &old, class, &mut out);
    out
}

/// The additional requirements of this version for a new object, which is in the stored version.
pub fn validate_version(version: ResourceRef, new: &Value) -> Vec<Cause> {
    let mut out = Vec::new();
    if version == &EVENT_V1 {
        event::strict(&At::root(new), &mut out);
    }
    out
}

/// As [`validate_version`], for an object that replaces another.
pub fn validate_version_update(version: ResourceRef, new: &Value, old: &Value) -> Vec<Cause> {
    let mut out = Vec::new();
    if version == &EVENT_V1 {
        event::strict_update(&At::root(new), &At::root(old), &mut out);
    }
    out
}

#[cfg(test)]
mod tests;
