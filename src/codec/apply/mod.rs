//! Server-side apply: who owns which fields of an object, and what becomes of it when somebody states what it should be. Pure; the time is
//! passed in.
//!
//! Every write but an apply makes its author the owner of what it changed (`track`). An apply states all that its author wants: fields that
//! it states are set and owned, fields that it stated before and nobody else owns go, and a field whose value somebody else owns is a
//! conflict (`apply`).

mod body;
mod check;
mod compare;
mod conflict;
mod created;
mod extract;
mod last_applied;
mod managers;
mod merge;
mod prune;
mod split;
#[cfg(test)]
mod tests;
mod versions;

use serde_json::{Map, Value};

use super::fields::Set;
use crate::object::resource::CERTIFICATE_SIGNING_REQUEST;
use crate::object::{ResourceRef, Status};
pub use managers::Managers;
use managers::{Entry, Fields, Operation};
use versions::{Versions, in_version, kind, served};

/// Who writes, and how.
#[derive(Clone, Copy, Debug)]
pub struct Writer<'a> {
    /// The version of the resource that the request is about.
    pub version: ResourceRef,
    /// The request's `fieldManager`, or what its `User-Agent` begins with.
    pub manager: &'a str,
    /// Empty for the object itself.
    pub subresource: &'a str,
    /// RFC 3339.
    pub now: &'a str,
}

/// Who owned the fields of an object before any manager was known.
const BEFORE_FIRST_APPLY: &str = "before-first-apply";
/// A writer that gives no name.
const UNKNOWN: &str = "unknown";
/// Fields of the metadata that the server or the URL sets: nobody owns them.
const UNOWNED_METADATA: &[&str] =
    &[".", "f:name", "f:namespace", "f:creationTimestamp", "f:selfLink", "f:uid", "f:generation", "f:managedFields", "f:resourceVersion"];

impl<'a> Writer<'a> {
    fn entry(&self, operation: Operation, fields: Fields<'a>) -> Entry<'a> {
        Entry {
            manager: if self.manager.is_empty() { UNKNOWN } else { self.manager }.into(),
            operation,
            api_version: self.version.api_version().into(),
            subresource: self.subresource.into(),
            time: self.now.into(),
            fields,
        }
    }
}

/// The managed fields of an object after any write but an apply, from what the client states of them (taken out of the object), what the
/// object in the store has, and the object before (`None` if it is new) and after, both in the stored version.
pub fn track((stated, held): (Option<Value>, Option<Managers>), old: Option<&Value>, new: &Value, writer: &Writer<'_>) -> Option<Managers> {
    let version = writer.version;
    let managers = managers::begin(stated, held);
    let mut entries = managers::stored(managers.as_ref());
    let mut own = writer.entry(Operation::Update, Fields::Set(Set::default()));
    match old {
        // Whoever took its managers from an object gets it left alone, until somebody applies to it.
        Some(_) if entries.is_empty() => return None,
        None if entries.is_empty() && version.stored_as.is_none() => own.fields = Fields::Text(all(version, new).into()),
        _ => {
            let mut versions = Versions::new(version.storage(), old, new);
            disown(&mut entries, &mut versions);
            if let Some(changes) = versions.changes(&own.api_version) {
                let mut written = std::mem::take(&mut changes.written);
                if old.is_none() {
                    let fields: Vec<String> = left(version).iter().map(|it| format!("f:{it}")).collect();
                    written.drop_at(&[], &fields.iter().map(String::as_str).collect::<Vec<_>>());
                }
                own.fields = Fields::Set(written);
            }
        }
    }
    if !own.fields.is_empty() {
        match entries.iter_mut().find(|it| it.is_like(&own)) {
            Some(entry) => {
                entry.fields.set().union(own.fields.set());
                entry.time = own.time;
            }
            None => entries.push(own),
        }
    }
    managers::finish(entries)
}

/// What the creator of an object owns.
fn all(version: ResourceRef, object: &Value) -> String {
    kind(version).map(|kind| created::created(kind, object, left(version))).unwrap_or_default()
}

/// The object after an apply, its managed fields included: of `live`, as the store has it, its managed fields beside it (`None` if it does
/// not exist), and an applied configuration as [`super::decode_applied`] reads it. What it gives is again of the stored version.
///
/// # Errors
/// 400 for a configuration that may not be applied, 409 with a cause for every field whose value somebody else owns (unless `force`), and
/// as Kubernetes 500 for one that does not have the form that the schema asks for.
pub fn apply(live: Option<(&Value, Option<&Managers>)>, applied: &Value, writer: &Writer<'_>, force: bool) -> Result<Value, Box<Status>> {
    let (version, storage) = (writer.version, writer.version.storage());
    check(version, applied)?;
    let applied = &about(version, writer.subresource, applied.clone());
    let kind = kind(version).ok_or_else(|| undescribed(version))?;
    let (before, held) = live.unzip();
    let mut entries = managers::stored(held.flatten());
    entries.retain(|it| served(storage, &it.api_version).is_some());
    if let (true, Some(before)) = (entries.is_empty(), before) {
        let shown = in_version(before.clone(), storage, version);
        let writer = Writer { manager: BEFORE_FIRST_APPLY, ..*writer };
        entries.push(writer.entry(Operation::Update, Fields::Text(all(version, &shown).into())));
    }
    let stated = extract::stated(kind, applied);
    let mut own = writer.entry(Operation::Apply, Fields::Set(stated.clone()));
    let mut last = entries.iter().position(|it| it.is_like(&own)).map(|at| entries.swap_remove(at));
    let as_last = last.as_mut().is_some_and(|it| *it.fields.set() == stated);

    let base = before.map_or_else(|| Value::Object(Map::new()), |it| in_version(it.clone(), storage, version));
    let mut merged = merge::merge(kind, base, applied);
    if let Some(last) = last.as_mut().filter(|_| !as_last) {
        merged = drop_unapplied(merged, last, applied, &mut entries, version);
    }
    // Owners are asked about what is written down, not about what it comes to: `1000` is not `1k`, nor an item without its defaults one with them.
    let written = in_version(merged.clone(), version, storage);
    let merged = super::conform(version, merged).map_err(|why| fault(version, applied, "convert new object", &why))?.value;
    let mut merged = in_version(merged, version, storage);
    super::default::zeroes(storage, &mut merged);

    let mut versions = Versions::new(storage, before, &written);
    if !force {
        let conflicts = conflict::find(&mut entries, &mut versions, &stated);
        let allowed = || before.filter(|_| writer.manager == last_applied::MANAGER).map(|it| last_applied::claimed(version, it));
        if let Some(status) = conflict::refuse(conflicts, allowed) {
            return Err(Box::new(status));
        }
    }
    disown(&mut entries, &mut versions);
    let changed = versions.changes(&own.api_version).is_some_and(|it| !it.written.is_empty() || !it.removed.is_empty());
    // Who states what is there already is not noted to have done anything.
    if !changed {
        own.time = last.map(|it| it.time).unwrap_or_default();
    }
    entries.push(own);
    if writer.manager == last_applied::MANAGER {
        last_applied::refresh(&mut merged, applied);
    }
    let managers = managers::finish(entries);
    put(&mut merged, managers.as_ref());
    Ok(merged)
}

/// `merged`, of `version`, without what `last` owned alone and `applied` does not state. Managers of other versions are taken to mean by a
/// path what `last` means by it.
fn drop_unapplied(merged: Value, last: &mut Entry<'_>, applied: &Value, others: &mut [Entry<'_>], version: ResourceRef) -> Value {
    let storage = version.storage();
    let Some((then, kind)) = served(storage, &last.api_version).and_then(|it| Some((it, kind(it)?))) else { return merged };
    // With the object's identity, which is nobody's, but must stay.
    let mut owned = extract::all(kind, &in_version(applied.clone(), version, then));
    others.iter_mut().for_each(|it| owned.union(it.fields.set()));
    in_version(prune::prune(kind, in_version(merged, version, then), last.fields.set(), &owned), then, version)
}

/// A stored object, and its managed fields beside it.
///
/// # Errors
/// If it is not JSON.
pub fn stored(body: &[u8]) -> serde_json::Result<(Value, Option<Managers>)> {
    body::parse(body)
}

/// Takes what a client states of the managed fields out of an object.
pub fn take(object: &mut Value) -> Option<Value> {
    object.get_mut("metadata").and_then(Value::as_object_mut).and_then(|it| it.remove("managedFields"))
}

/// Puts managed fields into an object that has none.
pub fn put(object: &mut Value, managers: Option<&Managers>) {
    if let (Some(managers), Some(metadata)) = (managers, object.get_mut("metadata").and_then(Value::as_object_mut)) {
        metadata.insert("managedFields".to_owned(), managers.value());
    }
}

/// Checks that an applied configuration can be one of this resource.
///
/// # Errors
/// As [`apply`].
pub fn check(version: ResourceRef, applied: &Value) -> Result<(), Box<Status>> {
    check_identity(version, applied)?;
    let kind = kind(version).ok_or_else(|| undescribed(version))?;
    check::check(kind, applied).map_err(|why| fault(version, applied, "create typed patch object", &why))
}

fn undescribed(version: ResourceRef) -> Box<Status> {
    Box::new(Status::internal(format!("the type {} is not described", version.schema)))
}

/// What Kubernetes, which has no status for it, makes an internal error of.
fn fault(resource: ResourceRef, applied: &Value, what: &str, why: &str) -> Box<Status> {
    Box::new(Status::failure(500, "", format!("failed to {what} ({}): {why}", describe(resource, applied))))
}

fn check_identity(resource: ResourceRef, applied: &Value) -> Result<(), Box<Status>> {
    let text = |key: &str| applied.get(key).and_then(Value::as_str).unwrap_or_default();
    let refuse = |message: String| Err(Box::new(Status::bad_request(message)));
    let (api_version, kind) = (text("apiVersion"), text("kind"));
    if kind != resource.kind || api_version != resource.api_version() {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        return refuse(format!("invalid object type: {}", group_version_kind(group, version, kind)));
    }
    if applied.pointer("/metadata/managedFields").is_some_and(Value::is_array) {
        return refuse("metadata.managedFields must be nil".to_owned());
    }
    Ok(())
}

/// An applied configuration, as errors about it begin.
fn describe(resource: ResourceRef, applied: &Value) -> String {
    let text = |pointer: &str| applied.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let kind = group_version_kind(resource.group, resource.version, resource.kind);
    format!("{}/{}; {kind}", text("/metadata/namespace"), text("/metadata/name"))
}

fn group_version_kind(group: &str, version: &str, kind: &str) -> String {
    format!("{group}/{version}, Kind={kind}")
}

/// Takes from every manager what has been written and what is gone. Managers of a version that is no longer served are forgotten.
fn disown(entries: &mut Vec<Entry<'_>>, versions: &mut Versions<'_>) {
    entries.retain_mut(|entry| {
        let Some(changes) = versions.changes(&entry.api_version) else { return false };
        entry.fields.subtract(&changes.written);
        entry.fields.subtract(&changes.removed);
        true
    });
}

/// Without what nobody owns: what the object is, and what the server or the URL sets.
fn owned(mut fields: Set) -> Set {
    fields.drop_at(&[], &["f:apiVersion", "f:kind"]);
    fields.drop_at(&["f:metadata"], UNOWNED_METADATA);
    fields
}

/// What an applied configuration says of the part of an object that it is applied to.
fn about(version: ResourceRef, subresource: &str, mut applied: Value) -> Value {
    const IDENTITY: [&str; 4] = ["name", "namespace", "uid", "resourceVersion"];
    let kept: &[&str] = match subresource {
        "status" | "approval" => &["status"],
        "ephemeralcontainers" | "resize" => &["spec"],
        _ => {
            if let Some(fields) = applied.as_object_mut() {
                fields.retain(|key, _| !left(version).contains(&key.as_str()));
            }
            return applied;
        }
    };
    let keep = |value: Option<&mut Value>, keys: &[&[&str]]| {
        if let Some(fields) = value.and_then(Value::as_object_mut) {
            fields.retain(|key, _| keys.iter().any(|it| it.contains(&key.as_str())));
        }
    };
    keep(Some(&mut applied), &[&["apiVersion", "kind", "metadata"], kept]);
    keep(applied.get_mut("metadata"), &[&IDENTITY, if kept == ["status"] { &["labels", "annotations"] } else { &[] }]);
    keep(applied.get_mut("spec"), &[if subresource == "resize" { &["containers", "initContainers"] } else { &["ephemeralContainers"] }]);
    applied
}

/// What of an object nobody owns who creates it: a status that has a subresource of its own, and what a request for a certificate asks for,
/// in which the server writes who asks.
fn left(resource: ResourceRef) -> &'static [&'static str] {
    match resource.subresource("status") {
        Some(_) if resource.storage() == &CERTIFICATE_SIGNING_REQUEST => &["spec", "status"],
        Some(_) => &["status"],
        None => &[],
    }
}
