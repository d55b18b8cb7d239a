//! Owner references: matching objects without a controller are adopted, controlled ones that no longer match are released.

use std::sync::Arc;

use serde_json::{Value, json};

use super::plan::{Plan, Write};
use crate::cache::Cache;
use crate::client::Patch;
use crate::object::selector::LabelSelector;
use crate::object::{Object, ObjectKey, ResourceRef};

/// The key of the object's controller owner if that is of this resource.
pub(super) fn controller_key(object: &Object, resource: ResourceRef) -> Option<ObjectKey> {
    let owner = object.meta().controller()?;
    let ours = *owner.kind == *resource.kind && *owner.api_version == *resource.api_version();
    ours.then(|| ObjectKey::new(resource, if resource.namespaced { object.namespace() } else { "" }, &owner.name))
}

/// An owner reference that makes `owner` the managing controller.
pub(super) fn controller_reference(owner: &Object) -> Value {
    let mut reference = reference(owner);
    reference["controller"] = true.into();
    reference["blockOwnerDeletion"] = true.into();
    reference
}

/// An owner reference that only ties an object's life to its owner's.
pub(super) fn reference(owner: &Object) -> Value {
    json!({
        "apiVersion": owner.resource().api_version(),
        "kind": owner.resource().kind,
        "name": owner.name(),
        "uid": &*owner.meta().uid,
    })
}

/// The selector of a workload; `None` if it would select everything, which no workload may.
pub(super) fn selector(object: &Object) -> Option<LabelSelector> {
    LabelSelector::in_spec(object).filter(|it| !it.is_empty())
}

/// The objects of `resource` that `owner` controls, by [`Claim`].
pub(super) fn claim(
    cache: &Cache,
    owner: &Arc<Object>,
    resource: ResourceRef,
    selector: &LabelSelector,
    plan: &mut Plan,
) -> Vec<Arc<Object>> {
    Claim::new(resource, selector).take(cache, owner, plan)
}

/// The objects that an owner claims.
pub(super) struct Claim<'a> {
    resource: ResourceRef,
    selector: &'a LabelSelector,
    among: fn(&Object) -> bool,
    also: &'a dyn Fn(&Object) -> bool,
    finalizers: &'a [&'a str],
}

impl<'a> Claim<'a> {
    /// Everything of `resource` that the selector matches.
    pub fn new(resource: ResourceRef, selector: &'a LabelSelector) -> Self {
        Self { resource, selector, among: |_| true, also: &|_| true, finalizers: &[] }
    }

    /// Other objects are neither adopted nor released.
    pub fn among(self, among: fn(&Object) -> bool) -> Self {
        Self { among, ..self }
    }

    /// Only objects that also meet this condition.
    pub fn also(self, also: &'a dyn Fn(&Object) -> bool) -> Self {
        Self { also, ..self }
    }

    /// Adopted objects also get these finalizers.
    pub fn with_finalizers(self, finalizers: &'a [&'a str]) -> Self {
        Self { finalizers, ..self }
    }

    /// The objects that `owner` controls. Those that no longer match are released; matching ones without a controller are adopted, and
    /// count already. An owner that is being deleted does neither.
    pub fn take(&self, cache: &Cache, owner: &Arc<Object>, plan: &mut Plan) -> Vec<Arc<Object>> {
        let uid = &owner.meta().uid;
        let mut owned = cache.owned(self.resource, uid);
        owned.retain(|it| it.meta().controller().is_some_and(|it| it.uid == *uid) && (self.among)(it));
        let (mut mine, strayed): (Vec<_>, Vec<_>) = owned.into_iter().partition(|it| self.selector.matches(it) && (self.also)(it));
        if owner.meta().is_deleted() {
            return mine;
        }
        for stray in strayed.iter().filter(|it| !it.meta().is_deleted()) {
            plan.writes.push(release(stray, owner));
        }
        for orphan in cache.orphans(self.resource, owner.namespace(), self.selector) {
            if !orphan.meta().is_deleted() && (self.among)(&orphan) && (self.also)(&orphan) {
                plan.writes.push(adopt(&orphan, owner, self.finalizers));
                mine.push(orphan);
            }
        }
        mine
    }
}

/// Makes `owner` the controller of an object without one, and adds finalizers.
pub(super) fn adopt(orphan: &Object, owner: &Object, finalizers: &[&str]) -> Write {
    set_owner(orphan, controller_reference(owner), finalizers)
}

/// Takes an object from its owner.
pub(super) fn release(stray: &Object, owner: &Object) -> Write {
    set_owner(stray, json!({ "$patch": "delete", "uid": &*owner.meta().uid }), &[])
}

fn set_owner(object: &Object, reference: Value, finalizers: &[&str]) -> Write {
    let mut metadata = json!({ "uid": &*object.meta().uid, "ownerReferences": [reference] });
    if !finalizers.is_empty() {
        metadata["finalizers"] = finalizers.into();
    }
    Write::Patch { key: object.key(), subresource: "", patch: Patch::Strategic(json!({ "metadata": metadata })) }
}

/// The objects of `resource` that a change of `object` concerns: its controller, or all that would adopt it.
pub(super) fn concerned(cache: &Cache, object: &Object, resource: ResourceRef) -> Vec<ObjectKey> {
    if object.meta().controller().is_some() {
        return controller_key(object, resource).into_iter().collect();
    }
    cache.selecting(resource, object).iter().filter(|it| selector(it).is_some()).map(|it| it.key()).collect()
}
