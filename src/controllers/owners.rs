//! Owner references: matching objects that nobody manages are adopted, managed ones that no longer match are let go.

use std::sync::Arc;

use serde_json::{Value, json};

use super::plan::{Plan, Write};
use super::pods;
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

/// The objects of `resource` that `owner` controls. Those that its selector no longer matches are let go; active ones that it matches and that
/// no controller manages are adopted, and count already. An owner that is being deleted adopts none.
pub(super) fn claim(
    cache: &Cache,
    owner: &Arc<Object>,
    resource: ResourceRef,
    selector: &LabelSelector,
    plan: &mut Plan,
) -> Vec<Arc<Object>> {
    claim_with(cache, owner, resource, selector, |_| true, &[], plan)
}

/// As [`claim`], of those that `also` are what the owner makes; what is adopted also gets these finalizers.
pub(super) fn claim_with(
    cache: &Cache,
    owner: &Arc<Object>,
    resource: ResourceRef,
    selector: &LabelSelector,
    also: impl Fn(&Object) -> bool,
    finalizers: &[&str],
    plan: &mut Plan,
) -> Vec<Arc<Object>> {
    let uid = &owner.meta().uid;
    let mut owned = cache.owned(resource, uid);
    owned.retain(|it| it.meta().controller().is_some_and(|it| it.uid == *uid));
    let (mut mine, strayed): (Vec<_>, Vec<_>) = owned.into_iter().partition(|it| selector.matches(it) && also(it));
    for stray in strayed.iter().filter(|it| !it.meta().is_deleted()) {
        plan.writes.push(release(stray, owner));
    }
    if !owner.meta().is_deleted() {
        for orphan in cache.orphans(resource, owner.namespace(), selector) {
            if pods::is_active(&orphan) && also(&orphan) {
                plan.writes.push(adopt(&orphan, owner, finalizers));
                mine.push(orphan);
            }
        }
    }
    mine
}

/// Makes `owner` the controller of an object that has none, and gives it these finalizers.
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
