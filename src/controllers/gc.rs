//! Garbage collection by owner references: objects whose owners are all gone are deleted; owners deleted in the foreground wait for their
//! dependents, and owners that orphan their dependents release them.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::plan::{Controller, Plan, Source, Write};
use crate::cache::Cache;
use crate::client::{DeleteOptions, Patch};
use crate::object::resource::{self, of_kind};
use crate::object::{Object, ObjectKey, OwnerReference, ResourceRef};

const FOREGROUND: &str = "foregroundDeletion";
const ORPHAN: &str = "orphan";

/// Collects the garbage of every resource.
#[derive(Debug)]
pub struct GarbageCollector;

/// The state of an owner.
enum Owner {
    Lives,
    /// Being deleted in the foreground: it waits for its dependents.
    Waits,
    /// Not in the cache.
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

/// The keys affected by a change of `object`: itself if one of its owners is not simply alive, or if it delays a deletion; its owners if
/// they wait for it or for its siblings; and its dependents once it is gone.
fn concerned(cache: &Cache, object: &Object) -> Vec<ObjectKey> {
    let meta = object.meta();
    let there = cache.get(object.resource(), object.namespace(), object.name()).is_some_and(|it| it.meta().uid == meta.uid);
    let mut keys: Vec<ObjectKey> = Vec::new();
    if !there || meta.is_deleted() || is_kept(cache, object) {
        for owner in &meta.owners {
            keys.extend(owner_key(object, owner).filter(|it| holds_deletion(cache, it)));
        }
    }
    if !there {
        keys.extend(cache.owned_by(&meta.uid).iter().map(|it| it.key()));
    } else if meta.is_deleted() || meta.owners.iter().any(|it| !matches!(find(cache, object, it), Owner::Lives)) {
        keys.push(object.key());
        if deletes_dependents(object) {
            keys.extend(cache.owned_by(&meta.uid).iter().map(|it| it.key()));
        }
    }
    keys
}

fn holds_deletion(cache: &Cache, key: &ObjectKey) -> bool {
    let owner = cache.get(key.resource, &key.name.namespace, &key.name.name);
    owner.is_some_and(|it| it.meta().is_deleted() && (has(&it, FOREGROUND) || has(&it, ORPHAN)))
}

fn has(object: &Object, finalizer: &str) -> bool {
    object.meta().finalizers.iter().any(|it| **it == *finalizer)
}

/// Whether it is being deleted in the foreground: it waits for its dependents.
fn deletes_dependents(object: &Object) -> bool {
    object.meta().is_deleted() && has(object, FOREGROUND)
}

/// Whether an owner waits for its end, and another keeps it.
fn is_kept(cache: &Cache, object: &Object) -> bool {
    let any = |wanted: fn(&Owner) -> bool| object.meta().owners.iter().any(|it| wanted(&find(cache, object, it)));
    object.meta().owners.len() > 1 && any(|it| matches!(it, Owner::Waits)) && any(|it| matches!(it, Owner::Lives))
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
        Some(it) if deletes_dependents(&it) => Owner::Waits,
        Some(_) => Owner::Lives,
    }
}

/// Deletes an object whose owners are all gone; removes references to gone owners from one that still has another. A cache with several
/// watches may know a dependent before its owner, so missing owners are looked up first.
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
        plan.writes.extend(gone.into_iter().map(|owner| {
            let write = Box::new(without_owner(object, &owner.1));
            Write::UnlessFound { objects: vec![owner], write }
        }));
        return;
    }
    let propagation = if waits && !cache.owned_by(&uid).is_empty() || has(object, FOREGROUND) && !has(object, ORPHAN) {
        "Foreground"
    } else if has(object, ORPHAN) {
        "Orphan"
    } else {
        "Background"
    };
    let options = DeleteOptions { uid: Some(uid), propagation: Some(propagation), ..DeleteOptions::default() };
    let write = Box::new(Write::Delete { key: object.key(), options, tell: None });
    plan.writes.push(Write::UnlessFound { objects: gone, write });
}

fn finish_deletion(cache: &Cache, object: &Arc<Object>, plan: &mut Plan) {
    let uid = &object.meta().uid;
    let dependents = if has(object, ORPHAN) || has(object, FOREGROUND) { cache.owned_by(uid) } else { return };
    if has(object, ORPHAN) {
        if dependents.is_empty() {
            plan.writes.push(without_finalizer(object, ORPHAN));
        } else {
            plan.writes.extend(dependents.iter().map(|it| without_owner(it, uid)));
            // Objects that no longer reference this owner do not trigger another plan.
            plan.look_again(Duration::ZERO);
        }
        return;
    }
    if !dependents.iter().any(|it| blocks(it, uid)) {
        plan.writes.push(without_finalizer(object, FOREGROUND));
        return;
    }
    // Dependents with another living owner are released.
    let kept: Vec<_> = dependents.iter().filter(|it| !it.meta().is_deleted() && is_kept(cache, it)).collect();
    if !kept.is_empty() {
        plan.writes.extend(kept.into_iter().map(|it| without_owner(it, uid)));
        plan.look_again(Duration::ZERO);
    }
    if waits_for_itself(cache, object) {
        plan.writes.push(unblocking(object));
    }
}

/// Whether the end of `object` blocks that of its owner with this uid.
fn blocks(object: &Object, owner: &str) -> bool {
    object.meta().owners.iter().any(|it| *it.uid == *owner && it.block_owner_deletion == Some(true))
}

/// Whether the object blocks its own deletion, directly or through others that wait for their dependents.
fn waits_for_itself(cache: &Cache, object: &Object) -> bool {
    let uid = &*object.meta().uid;
    if !object.meta().owners.iter().any(|it| it.block_owner_deletion == Some(true) && matches!(find(cache, object, it), Owner::Waits)) {
        return false;
    }
    let (mut seen, mut waiting) = (HashSet::new(), vec![uid.to_owned()]);
    while let Some(owner) = waiting.pop() {
        for dependent in cache.owned_by(&owner).iter().filter(|it| deletes_dependents(it) && blocks(it, &owner)) {
            let dependent = dependent.meta().uid.to_string();
            if dependent == uid {
                return true;
            }
            if seen.insert(dependent.clone()) {
                waiting.push(dependent);
            }
        }
    }
    false
}

fn without_owner(object: &Object, uid: &str) -> Write {
    patch_owners(object, vec![json!({ "$patch": "delete", "uid": uid })])
}

/// Lets every owner go before the object.
fn unblocking(object: &Object) -> Write {
    let blocking = object.meta().owners.iter().filter(|it| it.block_owner_deletion == Some(true));
    patch_owners(object, blocking.map(|it| json!({ "uid": &*it.uid, "blockOwnerDeletion": false })).collect())
}

fn patch_owners(object: &Object, owners: Vec<Value>) -> Write {
    let patch = Patch::Strategic(json!({ "metadata": { "uid": &*object.meta().uid, "ownerReferences": owners } }));
    Write::Patch { key: object.key(), subresource: "", patch }
}

/// Only of the object as it was seen: lists are replaced whole.
fn without_finalizer(object: &Object, finalizer: &str) -> Write {
    let kept: Vec<&str> = object.meta().finalizers.iter().map(|it| &**it).filter(|it| *it != finalizer).collect();
    let kept = if kept.is_empty() { Value::Null } else { json!(kept) };
    let metadata = json!({ "uid": &*object.meta().uid, "resourceVersion": object.revision().to_string(), "finalizers": kept });
    Write::Patch { key: object.key(), subresource: "", patch: Patch::Merge(json!({ "metadata": metadata })) }
}
