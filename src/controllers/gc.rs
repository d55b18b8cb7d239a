//! Garbage collection by owner references: what nothing owns any more is deleted; owners that are deleted in the foreground wait for their
//! dependents, and those that orphan them let them go.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::plan::{Controller, Plan, Source, Write, tree};
use crate::cache::Cache;
use crate::client::{DeleteOptions, Patch};
use crate::object::resource::{self, of_kind};
use crate::object::{Object, ObjectKey, OwnerReference, ResourceRef};

const FOREGROUND: &str = "foregroundDeletion";
const ORPHAN: &str = "orphan";

/// Collects the garbage of every resource.
#[derive(Debug)]
pub struct GarbageCollector;

/// What an owner reference leads to.
enum Owner {
    Lives,
    /// Being deleted in the foreground: it waits for its dependents.
    Waits,
    /// Not in the cache, as far as that goes.
    Gone(ObjectKey),
}

impl Controller for GarbageCollector {
    fn name(&self) -> &'static str {
        "garbage-collector"
    }

    fn sources(&self) -> Vec<Source> {
        resource::ALL
            .iter()
            .copied()
            .filter(|it| it.is_stored() && *it != &resource::EVENT)
            .map(|it| Source::leading_to(it, concerned))
            .collect()
    }

    fn plan(&self, cache: &Cache, key: &ObjectKey, _now: Timestamp) -> Plan {
        let mut plan = Plan::default();
        let Some(object) = cache.get(key.resource, &key.name.namespace, &key.name.name) else { return plan };
        if object.meta().is_deleted() {
            finish_deletion(cache, &object, &mut plan);
        } else if !object.meta().owners.is_empty() {
            judge(cache, &object, &mut plan);
        }
        plan
    }
}

/// The keys that a change of `object` concerns: itself if an owner of it does not simply live or it holds a deletion up, its owners if they wait for it, and its
/// dependents when it is gone.
fn concerned(cache: &Cache, object: &Object) -> Vec<ObjectKey> {
    let meta = object.meta();
    let there = cache.get(object.resource(), object.namespace(), object.name()).is_some_and(|it| it.meta().uid == meta.uid);
    let mut keys: Vec<ObjectKey> = Vec::new();
    if !there || meta.is_deleted() {
        for owner in &meta.owners {
            keys.extend(owner_key(object, owner).filter(|it| holds_deletion(cache, it)));
        }
    }
    if !there {
        keys.extend(cache.owned_by(&meta.uid).iter().map(|it| it.key()));
    } else if meta.is_deleted() || meta.owners.iter().any(|it| !matches!(find(cache, object, it), Owner::Lives)) {
        keys.push(object.key());
        if meta.is_deleted() && meta.finalizers.iter().any(|it| **it == *FOREGROUND) {
            keys.extend(cache.owned_by(&meta.uid).iter().map(|it| it.key()));
        }
    }
    keys
}

fn holds_deletion(cache: &Cache, key: &ObjectKey) -> bool {
    let owner = cache.get(key.resource, &key.name.namespace, &key.name.name);
    owner.is_some_and(|it| it.meta().is_deleted() && it.meta().finalizers.iter().any(|it| **it == *FOREGROUND || **it == *ORPHAN))
}

fn owner_key(object: &Object, owner: &OwnerReference) -> Option<ObjectKey> {
    let resource: ResourceRef = of_kind(&owner.api_version, &owner.kind)?;
    Some(ObjectKey::new(resource, if resource.namespaced { object.namespace() } else { "" }, &owner.name))
}

fn find(cache: &Cache, object: &Object, owner: &OwnerReference) -> Owner {
    // A kind that is not known here cannot be judged; nor can an object without a namespace be owned by one that has one.
    let Some(key) = owner_key(object, owner) else { return Owner::Lives };
    if key.resource.namespaced && !object.resource().namespaced {
        return Owner::Lives;
    }
    match cache.get(key.resource, &key.name.namespace, &key.name.name).filter(|it| it.meta().uid == owner.uid) {
        None => Owner::Gone(key),
        Some(it) if it.meta().is_deleted() && it.meta().finalizers.iter().any(|it| **it == *FOREGROUND) => Owner::Waits,
        Some(_) => Owner::Lives,
    }
}

/// Deletes an object whose owners are all gone; takes references to gone owners off one that still has another.
fn judge(cache: &Cache, object: &Arc<Object>, plan: &mut Plan) {
    let (mut lives, mut waits, mut gone) = (false, false, Vec::new());
    for owner in &object.meta().owners {
        match find(cache, object, owner) {
            Owner::Lives => lives = true,
            Owner::Waits => waits = true,
            Owner::Gone(key) => gone.push((key, owner.uid.to_string())),
        }
    }
    let uid = object.meta().uid.to_string();
    if lives {
        if !gone.is_empty() {
            let uids: Vec<&str> = gone.iter().map(|it| it.1.as_str()).collect();
            plan.writes.push(without_owners(object, |owner| uids.contains(&owner)));
        }
        return;
    }
    // A dependent with dependents of its own that block it goes in the foreground too.
    let blocked = waits
        && cache.owned_by(&uid).iter().any(|it| it.meta().owners.iter().any(|it| *it.uid == *uid && it.block_owner_deletion == Some(true)));
    let propagation = if blocked { "Foreground" } else { "Background" };
    let options = DeleteOptions { uid: Some(uid), propagation: Some(propagation), ..DeleteOptions::default() };
    // A cache that is fed by several watches may know a dependent before its owner: ask before deleting.
    plan.writes.push(Write::DeleteUnlessFound { key: object.key(), options, owners: gone });
}

fn finish_deletion(cache: &Cache, object: &Arc<Object>, plan: &mut Plan) {
    let meta = object.meta();
    let has = |finalizer: &str| meta.finalizers.iter().any(|it| **it == *finalizer);
    let dependents = if has(ORPHAN) || has(FOREGROUND) { cache.owned_by(&meta.uid) } else { return };
    if has(ORPHAN) {
        if dependents.is_empty() {
            plan.writes.push(without_finalizer(object, ORPHAN));
        } else {
            plan.writes.extend(dependents.iter().map(|it| without_owners(it, |owner| *owner == *meta.uid)));
            // What no longer names this owner does not lead back here.
            plan.look_again(Duration::ZERO);
        }
        return;
    }
    let blocks = |it: &Object| it.meta().owners.iter().any(|it| it.uid == meta.uid && it.block_owner_deletion == Some(true));
    if !dependents.iter().any(|it| blocks(it)) {
        plan.writes.push(without_finalizer(object, FOREGROUND));
    }
}

fn without_owners(object: &Object, drop: impl Fn(&str) -> bool) -> Write {
    let owners = tree(object)["metadata"]["ownerReferences"].take();
    let kept: Vec<Value> =
        owners.as_array().into_iter().flatten().filter(|it| !drop(it["uid"].as_str().unwrap_or_default())).cloned().collect();
    let kept = if kept.is_empty() { Value::Null } else { kept.into() };
    patch(object, json!({ "ownerReferences": kept }))
}

fn without_finalizer(object: &Object, finalizer: &str) -> Write {
    let kept: Vec<&str> = object.meta().finalizers.iter().map(|it| &**it).filter(|it| *it != finalizer).collect();
    let kept = if kept.is_empty() { Value::Null } else { json!(kept) };
    patch(object, json!({ "finalizers": kept }))
}

/// A patch of metadata that only applies to the object as it was seen: lists are replaced whole.
fn patch(object: &Object, mut metadata: Value) -> Write {
    metadata["uid"] = (*object.meta().uid).into();
    metadata["resourceVersion"] = object.revision().to_string().into();
    Write::Patch { key: object.key(), subresource: "", patch: Patch::Merge(json!({ "metadata": metadata })) }
}
