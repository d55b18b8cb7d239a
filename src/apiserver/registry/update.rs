//! Updates of objects: PUT, and the loop of all changes, including patches and those of the server itself.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use serde_json::Value;

use super::super::Server;
use super::super::error::{Answer, bad};
use super::super::handler::Call;
use super::super::response::Response;
use super::super::write_options::{Way, WriteOptions};
use super::create::{check_namespace, check_version, create};
use super::part::{DELETION, Part};
use super::write::{Before, Outcome, Write};
use super::{Current, accept_fields, json, not_found, owners};
use crate::codec;
use crate::object::status::Cause;
use crate::object::{Object, ObjectKey, Status};

/// The change that a write makes. May be called again, with a newer object.
pub(crate) type Change<'a> = dyn Fn(&Before<'_>) -> Answer<Value> + Send + Sync + 'a;

/// PUT.
pub(crate) fn replace<'a>(server: &'a Arc<Server>, call: &'a Call) -> BoxFuture<'a, Answer<Response>> {
    Box::pin(async move {
        let (version, options, key) = (call.target.resource, call.write_options(Way::Update)?, call.key());
        let decoded = codec::decode(version, call.content_type(), &call.body)?;
        let mut value = accept_fields(decoded, &options)?;
        options.warnings.add(owners::merge(&mut value, owners::Found::Sent));
        check_identity(&key, &mut value)?;
        if version != key.resource {
            codec::default::fill(version, &mut value);
            codec::convert(&mut value, version, key.resource);
        }
        codec::default::fill(key.resource, &mut value);
        let part = Part::of(&call.target.subresource);
        let creates = part.is_whole() && key.resource.created_by_put;
        let make = |before: Option<&Before<'_>>| {
            check_uid(server, &key, &value, before)?;
            let mut value = value.clone();
            match before {
                Some(_) => {}
                None if creates => check_version(version, &key, &mut value)?,
                None => return Err(not_found(&key)),
            }
            Ok(value)
        };
        let (code, object) = modify_or_create(server, &key, part, &options, &make).await?;
        call.answer(code, &object).await
    })
}

/// # Errors
/// 400 if the object is not the one in the URL.
pub(super) fn check_identity(key: &ObjectKey, value: &mut Value) -> Answer<()> {
    check_namespace(json::text(value, "/metadata/namespace"), &key.name.namespace)?;
    let asked: &str = &key.name.name;
    match json::text(value, "/metadata/name") {
        "" => return Err(bad(format!("the name of the object ({asked} based on URL) was undeterminable: name must be provided"))),
        stated if stated != asked => {
            return Err(bad(format!("the name of the object ({stated}) does not match the name on the URL ({asked})")));
        }
        _ => {}
    }
    if !key.name.namespace.is_empty() {
        json::metadata(value).insert("namespace".to_owned(), (*key.name.namespace).into());
    }
    Ok(())
}

/// If the request carries a uid, it must be that of the stored object.
///
/// # Errors
/// 409 if there is another object, or none.
pub(super) fn check_uid(server: &Server, key: &ObjectKey, put: &Value, before: Option<&Before<'_>>) -> Answer<()> {
    let (uid, is) = (json::text(put, "/metadata/uid"), before.map_or("", |it| json::text(it.value, "/metadata/uid")));
    if uid.is_empty() || uid == is { Ok(()) } else { Err(precondition_failed(server, key, ("UID", uid, is))) }
}

/// 409: a precondition of the client does not hold.
pub(super) fn precondition_failed(server: &Server, key: &ObjectKey, (what, asked, is): (&str, &str, &str)) -> Box<Status> {
    let why = format!(
        "StorageError: invalid object, Code: 4, Key: {}, ResourceVersion: 0, AdditionalErrorMsg: \
         Precondition failed: {what} in precondition: {asked}, {what} in object meta: {is}",
        key.to_path(&server.config.prefix)
    );
    Box::new(Status::conflict(key.resource, &key.name.name, &why))
}

/// How often an object that was not there, and then was, is looked at anew.
const TRIES: usize = 5;

/// The change that a write makes to an object, which may be missing. May be called again, with a newer one.
pub(super) type Making<'a> = dyn Fn(Option<&Before<'_>>) -> Answer<Value> + Send + Sync + 'a;

/// Changes an object like [`modify`], or creates it if missing; also returns the code of the response.
///
/// # Errors
/// Those of both.
pub(super) async fn modify_or_create(
    server: &Server,
    key: &ObjectKey,
    part: &'static Part,
    options: &WriteOptions,
    make: &Making<'_>,
) -> Answer<(u16, Arc<Object>)> {
    let mut tries = 0;
    loop {
        tries += 1;
        match modify(server, key, part, options, &|before| make(Some(before))).await {
            Err(status) if status.is("NotFound") => {}
            outcome => return Ok((200, outcome?)),
        }
        let mut value = make(None)?;
        // It has no meaning for an object that does not exist.
        json::metadata(&mut value).remove("resourceVersion");
        match create(server, key.resource, &key.name.namespace, value, options).await {
            Err(status) if status.is("AlreadyExists") && tries < TRIES => {}
            outcome => return Ok((201, outcome?)),
        }
    }
}

/// Changes an object: reads it, changes it, writes it unless it has changed meanwhile, and otherwise starts over.
///
/// # Errors
/// 404 if it does not exist, 409 if the change is based on an older version, and errors of the change or its checks.
pub(crate) async fn modify(
    server: &Server,
    key: &ObjectKey,
    part: &'static Part,
    options: &WriteOptions,
    change: &Change<'_>,
) -> Answer<Arc<Object>> {
    let mut current = server.current(key).await?;
    loop {
        let outcome = match attempt(server, key, part, options, change, &current).await {
            Ok(Outcome::Written(object, _)) => return Ok(object),
            Ok(Outcome::Conflict(entry)) => {
                current = server.adopt(key, entry)?;
                continue;
            }
            Ok(Outcome::Unwritten(object)) => Ok(object),
            Err(status) => Err(status),
        };
        if current.live {
            return outcome;
        }
        // A stale cache may have caused the error, or the lack of a change.
        let live = server.live(key).await?;
        if live.object.revision() == current.object.revision() {
            return outcome;
        }
        current = live;
    }
}

async fn attempt(
    server: &Server,
    key: &ObjectKey,
    part: &'static Part,
    options: &WriteOptions,
    change: &Change<'_>,
    current: &Current,
) -> Answer<Outcome> {
    let object = &current.object;
    let (value, managers) = codec::apply::stored(object.body()).map_err(|error| Box::new(Status::internal(error)))?;
    let old = Before { object, value: &value, managers: managers.as_ref() };
    let new = change(&old)?;
    Write::update(server, key, part, options, old, new).run().await
}

/// The version a change was made of must be the newest, if it names one.
pub(super) fn check_revision(key: &ObjectKey, new: &Value, current: &Object) -> Answer<()> {
    match json::text(new, "/metadata/resourceVersion") {
        "" | "0" if !key.resource.updates_need_a_revision => Ok(()),
        "" | "0" => {
            let cause = Cause::invalid_shown("metadata.resourceVersion", "0x0", "must be specified for an update");
            Err(Box::new(Status::invalid_kind(key.resource.group, key.resource.plural, &key.name.name, vec![cause])))
        }
        text => match text.parse::<u64>() {
            Ok(revision) if revision == current.revision() => Ok(()),
            Ok(_) => Err(Box::new(Status::modified(key.resource, &key.name.name))),
            Err(_) => {
                let cause = Cause::invalid("metadata.resourceVersion", &Value::from(text), "is not a resource version of this server");
                Err(Box::new(Status::invalid(key.resource, &key.name.name, vec![cause])))
            }
        },
    }
}

/// The metadata that no client changes.
pub(super) fn settle_metadata(key: &ObjectKey, part: &Part, new: &mut Value, old: &Value) -> Answer<()> {
    let uid = json::text(old, "/metadata/uid");
    let stated = |path| json::text(new, path);
    for (field, stated, is, kept) in [
        ("name", stated("/metadata/name"), &*key.name.name, false),
        ("namespace", stated("/metadata/namespace"), &*key.name.namespace, false),
        ("uid", stated("/metadata/uid"), uid, true),
    ] {
        if stated != is && !(kept && stated.is_empty()) {
            let cause = Cause::invalid(format!("metadata.{field}"), &Value::from(stated), "field is immutable");
            // Kubernetes finds it twice.
            return Err(Box::new(Status::invalid(key.resource, &key.name.name, vec![cause; 2])));
        }
    }
    let metadata = json::metadata(new);
    metadata.remove("selfLink");
    for kept in ["uid", "creationTimestamp", "resourceVersion"] {
        json::take_over(metadata, old.get("metadata"), kept);
    }
    if part.is_reviewed {
        json::take_over(metadata, old.get("metadata"), "generation");
        // A client that sends other values is rejected.
        for field in DELETION {
            if let Some(decided) = old.get("metadata").and_then(|it| it.get(field)) {
                json::set_default(metadata, field, decided.clone());
            }
        }
    }
    Ok(())
}
