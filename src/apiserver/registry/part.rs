//! The parts of an object that are written by themselves, each under a URL of its own: what is particular to a write of each.

use serde_json::Value;

use super::{json, pods, strategy};
use crate::codec;
use crate::object::ResourceRef;
use crate::object::pod::qos_class_of;
use crate::object::resource::POD;
use crate::object::status::Cause;

/// What a write is about; the rest of the object stays as it is.
#[derive(Debug)]
pub(crate) struct Part {
    /// Its name in URLs, reviews and managed fields. Empty for the object itself.
    pub(crate) subresource: &'static str,
    /// Whether a client writes it, so that the write is tracked, admitted and validated.
    pub(super) is_reviewed: bool,
    /// Restores in a changed object what such a write does not change.
    pub(super) keep: fn(ResourceRef, new: &mut Value, old: &Value),
    /// Counts or dates an admitted change. Nobody owns these fields.
    pub(super) record: fn(ResourceRef, new: &mut Value, old: &Value),
    /// The faults of a new object, or of one that replaces another.
    pub(super) validate: fn(ResourceRef, new: &Value, old: Option<&Value>) -> Vec<Cause>,
}

impl Part {
    /// All but the status (of a kind that has a subresource for it).
    pub(crate) const WHOLE: &'static Self =
        &Self { subresource: "", is_reviewed: true, keep: keep_status, record: strategy::bump_generation, validate: codec::validate };

    pub(crate) const STATUS: &'static Self = &Self {
        subresource: "status",
        keep: |resource, new, old| {
            // For pods, a sent deletionTimestamp is ignored here.
            let deletion = if resource == &POD { &DELETION[1..] } else { &DELETION };
            keep_all_but(("", "status"), &[strategy::described_by_status(resource), deletion], new, old);
            strategy::update_status(resource, new, old);
        },
        record: strategy::date_status,
        ..*Self::WHOLE
    };

    /// A namespace's `spec.finalizers`.
    const FINALIZERS: &'static Self = &Self {
        subresource: "finalize",
        keep: |_, new, old| keep_all_but(("spec", "finalizers"), &[strategy::DESCRIPTION], new, old),
        ..*Self::WHOLE
    };

    const EPHEMERAL_CONTAINERS: &'static Self = &Self {
        subresource: "ephemeralcontainers",
        keep: |_, new, old| keep_all_but(("spec", "ephemeralContainers"), &[], new, old),
        validate: |_, new, old| old.map_or_else(Vec::new, |old| codec::validate_ephemeral(new, old)),
        ..*Self::WHOLE
    };

    /// The requests and limits of a pod's running containers.
    const RESIZE: &'static Self = &Self {
        subresource: "resize",
        keep: |_, new, old| pods::keep_but_sizes(new, old),
        validate: |_, new, old| old.map_or_else(Vec::new, |old| codec::validate_resize(new, old, qos_class_of(new))),
        ..*Self::WHOLE
    };

    /// The conditions of a certificate signing request.
    const APPROVAL: &'static Self = &Self {
        subresource: "approval",
        keep: |_, new, old| keep_all_but(("status", "conditions"), &[strategy::DESCRIPTION], new, old),
        record: strategy::date_status,
        ..*Self::WHOLE
    };

    /// The number of replicas, written in another form.
    pub(crate) const SCALE: &'static Self = &Self { subresource: "scale", ..*Self::WHOLE };

    /// A change by the server itself: no fields are protected, and nothing is validated.
    pub(crate) const INTERNAL: &'static Self =
        &Self { subresource: "", is_reviewed: false, keep: |_, _, _| {}, record: |_, _, _| {}, validate: |_, _, _| Vec::new() };

    pub(crate) fn of(subresource: &str) -> &'static Self {
        let parts = [Self::STATUS, Self::FINALIZERS, Self::EPHEMERAL_CONTAINERS, Self::RESIZE, Self::APPROVAL, Self::SCALE];
        parts.into_iter().find(|it| it.subresource == subresource).unwrap_or(Self::WHOLE)
    }

    /// Whether a client writes the object itself.
    pub(crate) fn is_whole(&self) -> bool {
        self.is_reviewed && self.subresource.is_empty()
    }
}

/// The deletion fields, which clients cannot set.
pub(super) const DELETION: [&str; 2] = ["deletionTimestamp", "deletionGracePeriodSeconds"];

/// For writes of the object itself, in any form.
fn keep_status(resource: ResourceRef, new: &mut Value, old: &Value) {
    if resource.subresource("status").is_some()
        && let Some(new) = new.as_object_mut()
    {
        json::take_over(new, Some(old), "status");
    }
    strategy::update(resource, new, old);
}

/// Leaves of the new object only a field of `parent` (empty for the top of the object) and these fields of the metadata; the rest is as
/// before.
fn keep_all_but((parent, field): (&str, &str), described: &[&[&str]], new: &mut Value, old: &Value) {
    let mut kept = old.clone();
    let (to, from) = match parent {
        "" => (kept.as_object_mut(), Some(&mut *new)),
        parent => (Some(json::map(&mut kept, parent)), new.get_mut(parent)),
    };
    if let Some(to) = to {
        json::move_over(to, from, field);
    }
    for field in described.iter().copied().flatten() {
        json::move_over(json::metadata(&mut kept), new.get_mut("metadata"), field);
    }
    *new = kept;
}
