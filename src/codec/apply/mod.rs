//! Server-side apply: ownership of an object's fields, and the effect of an applied configuration. Pure; the time is passed in.
//!
//! Every write except an apply makes its author the owner of the changed fields (`track`). An apply states all fields that its author
//! wants: these are set and owned; fields that it stated before and that no one else owns are removed; a field whose value another manager
//! owns is a conflict (`apply`).

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
use crate::util::json;
pub use managers::Managers;
use managers::{Entry, Fields, Operation};
use versions::{Versions, in_version, kind, served};

/// The author and the kind of a write.
#[derive(Clone, Copy, Debug)]
pub struct Writer<'a> {
    /// The version of the request.
    pub version: ResourceRef,
    /// The request's `fieldManager`, or the beginning of its `User-Agent`.
    pub manager: &'a str,
    /// Empty for the object itself.
    pub subresource: &'a str,
    /// RFC 3339.
    pub now: &'a str,
}

/// The owner of an object's fields from before managers were tracked.
const BEFORE_FIRST_APPLY: &str = "before-first-apply";
/// A writer without a name.
const UNKNOWN: &str = "unknown";
/// Metadata that the server or the URL determines: it has no owner.
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

/// The managed fields of an object after a write other than an apply: from those that the client sends (taken out of the object), those of
/// the stored object, and the object before (`None` if new) and after, both in the stored version.
pub fn track((stated, held): (Option<Value>, Option<Managers>), old: Option<&Value>, new: &Value, writer: &Writer<'_>) -> Option<Managers> {
    let version = writer.version;
    let managers = managers::begin(stated, held);
    let mut entries = managers::stored(managers.as_ref());
    let mut own = writer.entry(Operation::Update, Fields::Set(Set::default()));
    match old {
        // After the managers have been cleared, none are recorded until the next apply.
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

/// The fields that the creator of an object owns.
fn all(version: ResourceRef, object: &Value) -> String {
    kind(version).map(|kind| created::created(kind, object, left(version))).unwrap_or_default()
}

/// The object after an apply, including managed fields. `live` is the stored object, with its managed fields beside it (`None` if it does
/// not exist); `applied` is as read by [`super::decode_applied`]. The result is of the stored version.
///
/// # Errors
/// 400 for an invalid configuration; 409 with a cause for every field whose value another manager owns (unless `force`); and, as in
/// Kubernetes, 500 for a configuration that does not match the schema.
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
    // Ownership is compared on the text as written: `1000` differs from `1k`, and an item without its defaults from one with them.
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
    // Stating existing values again is not recorded as a change.
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

/// `merged`, of `version`, without the fields that only `last` owned and `applied` does not state. Paths of managers in other versions are
/// taken to mean the same as those of `last`.
fn drop_unapplied(merged: Value, last: &mut Entry<'_>, applied: &Value, others: &mut [Entry<'_>], version: ResourceRef) -> Value {
    let storage = version.storage();
    let Some((then, kind)) = served(storage, &last.api_version).and_then(|it| Some((it, kind(it)?))) else { return merged };
    // Include the object's identity, which has no owner but must stay.
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

/// Removes the managed fields that a client sends from an object.
pub fn take(object: &mut Value) -> Option<Value> {
    object.get_mut("metadata").and_then(Value::as_object_mut).and_then(|it| it.remove("managedFields"))
}

/// Adds managed fields to an object without any.
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

/// The internal error by which Kubernetes reports this fault.
fn fault(resource: ResourceRef, applied: &Value, what: &str, why: &str) -> Box<Status> {
    Box::new(Status::failure(500, "", format!("failed to {what} ({}): {why}", describe(resource, applied))))
}

fn check_identity(resource: ResourceRef, applied: &Value) -> Result<(), Box<Status>> {
    let text = |path: &str| json::text(applied, path);
    let refuse = |message: String| Err(Box::new(Status::bad_request(message)));
    let (api_version, kind) = (text("/apiVersion"), text("/kind"));
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
    let text = |path: &str| json::text(applied, path);
    let kind = group_version_kind(resource.group, resource.version, resource.kind);
    format!("{}/{}; {kind}", text("/metadata/namespace"), text("/metadata/name"))
}

fn group_version_kind(group: &str, version: &str, kind: &str) -> String {
    format!("{group}/{version}, Kind={kind}")
}

/// Removes written and deleted fields from every manager. Managers of versions that are no longer served are dropped.
fn disown(entries: &mut Vec<Entry<'_>>, versions: &mut Versions<'_>) {
    entries.retain_mut(|entry| {
        let Some(changes) = versions.changes(&entry.api_version) else { return false };
        entry.fields.subtract(&changes.written);
        entry.fields.subtract(&changes.removed);
        true
    });
}

/// Without fields that have no owner: the object's identity, and those that the server or the URL determines.
fn owned(mut fields: Set) -> Set {
    fields.drop_at(&[], &["f:apiVersion", "f:kind"]);
    fields.drop_at(&["f:metadata"], UNOWNED_METADATA);
    fields
}

/// The part of an applied configuration that concerns the subresource.
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

/// The fields of a new object that its creator does not own: a status with its own subresource, and the specification of a certificate
/// signing request, into which the server writes the requester.
fn left(resource: ResourceRef) -> &'static [&'static str] {
    match resource.subresource("status") {
        Some(_) if resource.storage() == &CERTIFICATE_SIGNING_REQUEST => &["spec", "status"],
        Some(_) => &["status"],
        None => &[],
    }
}
