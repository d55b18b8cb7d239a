//! Updates of objects: PUT, and the loop of all changes, including patches and those of the server itself.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use serde_json::Value;

use super::super::Server;
use super::super::admission::{Charge, Operation, Review};
use super::super::allocate::Claims;
use super::super::error::{Answer, bad};
use super::super::handler::Call;
use super::super::response::Response;
use super::super::write_options::{Way, WriteOptions};
use super::create::{check_namespace, check_version, create, refuse};
use super::reserved::Reserved;
use super::{Current, accept_fields, json, not_found, owners, pods, strategy};
use crate::codec;
use crate::codec::apply::Managers;
use crate::object::resource::POD;
use crate::object::status::Cause;
use crate::object::{Object, ObjectKey, Status};
use crate::store::{Entry, Expect};

/// Which part of an object a write is about; the rest stays as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// All but the status (of a kind that has a subresource for it).
    Whole,
    Status,
    /// A namespace's `spec.finalizers`.
    Finalizers,
    EphemeralContainers,
    /// The requests and limits of a pod's running containers.
    Resize,
    /// The conditions of a certificate signing request.
    Approval,
    /// The number of replicas, written in another form.
    Scale,
    /// A change by the server itself: no fields are protected, and nothing is validated.
    Internal,
}

impl Part {
    pub(crate) fn of(subresource: &str) -> Self {
        match subresource {
            "status" => Self::Status,
            "finalize" => Self::Finalizers,
            "ephemeralcontainers" => Self::EphemeralContainers,
            "resize" => Self::Resize,
            "approval" => Self::Approval,
            "scale" => Self::Scale,
            _ => Self::Whole,
        }
    }

    pub(crate) fn subresource(self) -> &'static str {
        match self {
            Self::Whole | Self::Internal => "",
            Self::Status => "status",
            Self::Finalizers => "finalize",
            Self::EphemeralContainers => "ephemeralcontainers",
            Self::Resize => "resize",
            Self::Approval => "approval",
            Self::Scale => "scale",
        }
    }
}

/// The object that a write begins with.
#[derive(Debug)]
pub(crate) struct Before<'a> {
    pub(crate) object: &'a Object,
    /// All of it but the managed fields, which few writes are about and which are long.
    pub(crate) value: &'a Value,
    pub(crate) managers: Option<&'a Managers>,
}

impl Before<'_> {
    pub(crate) fn whole(&self) -> Value {
        let mut whole = self.value.clone();
        codec::apply::put(&mut whole, self.managers);
        whole
    }
}

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
        let creates = part == Part::Whole && key.resource.created_by_put;
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
    part: Part,
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
    part: Part,
    options: &WriteOptions,
    change: &Change<'_>,
) -> Answer<Arc<Object>> {
    let mut current = server.current(key).await?;
    loop {
        let outcome = match attempt(server, key, part, options, change, &current).await {
            Ok(Attempt::Written(object)) => return Ok(object),
            Ok(Attempt::Conflict(entry)) => {
                current = server.adopt(key, entry)?;
                continue;
            }
            Ok(Attempt::Unwritten(object)) => Ok(object),
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

enum Attempt {
    Written(Arc<Object>),
    /// There was no change, or it is a dry run.
    Unwritten(Arc<Object>),
    Conflict(Option<Entry>),
}

async fn attempt(
    server: &Server,
    key: &ObjectKey,
    part: Part,
    options: &WriteOptions,
    change: &Change<'_>,
    current: &Current,
) -> Answer<Attempt> {
    let object = &current.object;
    let (old, held) = codec::apply::stored(object.body()).map_err(|error| Box::new(Status::internal(error)))?;
    let mut new = change(&Before { object, value: &old, managers: held.as_ref() })?;
    let stated = codec::apply::take(&mut new);
    check_revision(key, &new, object)?;
    prepare(key, part, &mut new, &old)?;
    let is_kept = part == Part::Internal || !codec::default::fill(key.resource, &mut new);
    let managers = match part {
        Part::Internal => held.clone(),
        _ if options.applies => stated.as_ref().map(Managers::from),
        _ => {
            // Only a write of the object itself may set managed fields.
            let stated = stated.filter(|_| part == Part::Whole);
            let now = json::now();
            let writer = options.writer(key.resource, part.subresource(), &now);
            codec::apply::track((stated, held.clone()), Some(&old), &new, &writer)
        }
    };
    // Fields of disabled features survive if the stored object already has them.
    if !is_kept && !codec::default::fill(key.resource, &mut old.clone()) {
        codec::default(key.resource, &mut new);
    }
    let review = Review { operation: Operation::Update, key, subresource: part.subresource(), dry_run: options.dry_run };
    if part != Part::Internal {
        server.admission.admit(server, &review, &mut new).await?;
        let doubled = owners::merge(&mut new, owners::Found::Admitted);
        if matches!(part, Part::Status | Part::Approval) {
            strategy::date_status(key.resource, &mut new, &old);
        }
        if part != Part::Status {
            strategy::bump_generation(key.resource, &mut new, &old);
        }
        let causes = match part {
            Part::Resize => codec::validate_resize(&new, &old, pods::qos_class(&new)),
            Part::EphemeralContainers => codec::validate_ephemeral(&new, &old),
            _ => codec::validate(key.resource, &new, Some(&old)),
        };
        let more = options.version.map(|version| codec::validate_version_update(version, &new, &old));
        refuse(key, causes.into_iter().chain(more.into_iter().flatten()).collect())?;
        if part == Part::Whole {
            options.warnings.add(doubled);
            options.warnings.add(codec::warnings(key.resource, &new, Some(&old)));
        }
    }
    if new == old && managers == held {
        return Ok(Attempt::Unwritten(object.clone()));
    }
    let charge = if part == Part::Internal { Charge::default() } else { server.admission.validate(server, &review, &new).await? };
    let reserved = Reserved::make(server, charge, key, &mut new, Some(&old), options.dry_run).await?;
    let rendered = |new: &Value| {
        Object::from_stored(key.resource, &json::encode(new, managers.as_ref()).0, object.revision())
            .map_err(|error| Box::new(Status::internal(error)))
    };
    if options.dry_run {
        return rendered(&new).map(Attempt::Unwritten);
    }
    let written = if strategy::is_finished(key.resource, &new) {
        let last = rendered(&new)?;
        let gone = server.remove(key, object.revision()).await?;
        if let Ok(deleted) = gone {
            Claims::release(server, key, &last, deleted).await;
        }
        gone.map(|deleted| (last, deleted))
    } else {
        server.put(key, &new, managers.as_ref(), Expect::At(object.revision())).await?.map(|it| (it.clone(), it.revision()))
    };
    match written {
        Ok((object, revision)) => {
            reserved.settle(server, revision).await;
            Ok(Attempt::Written(object))
        }
        Err(entry) => {
            reserved.give_back(server).await;
            Ok(Attempt::Conflict(entry))
        }
    }
}

/// The version a change was made of must be the newest, if it names one.
fn check_revision(key: &ObjectKey, new: &Value, current: &Object) -> Answer<()> {
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

/// Restores the parts of the old object that this write may not change.
fn prepare(key: &ObjectKey, part: Part, new: &mut Value, old: &Value) -> Answer<()> {
    settle_metadata(key, part, new, old)?;
    let has_status = key.resource.subresource("status").is_some();
    match part {
        Part::Whole | Part::Scale => {
            if has_status && let Some(new) = new.as_object_mut() {
                json::take_over(new, Some(old), "status");
            }
            strategy::update(key.resource, new, old);
        }
        Part::Status => {
            let mut merged = old.clone();
            if let Some(merged) = merged.as_object_mut() {
                json::take_over(merged, Some(new), "status");
            }
            describe(&mut merged, new, strategy::described_by_status(key.resource));
            // For pods, a sent deletionTimestamp is ignored here.
            describe(&mut merged, new, if key.resource == &POD { &DELETION[1..] } else { &DELETION });
            *new = merged;
            strategy::update_status(key.resource, new, old);
        }
        Part::Finalizers => {
            let mut merged = old.clone();
            json::take_over(json::map(&mut merged, "spec"), new.get("spec"), "finalizers");
            describe(&mut merged, new, strategy::DESCRIPTION);
            *new = merged;
        }
        Part::EphemeralContainers => {
            let mut merged = old.clone();
            json::take_over(json::map(&mut merged, "spec"), new.get("spec"), "ephemeralContainers");
            *new = merged;
        }
        Part::Resize => pods::keep_but_sizes(new, old),
        Part::Approval => {
            let mut merged = old.clone();
            json::take_over(json::map(&mut merged, "status"), new.get("status"), "conditions");
            describe(&mut merged, new, strategy::DESCRIPTION);
            *new = merged;
        }
        Part::Internal => {}
    }
    Ok(())
}

/// Copies these metadata fields from another object.
fn describe(object: &mut Value, as_in: &Value, fields: &[&str]) {
    let metadata = json::metadata(object);
    for field in fields {
        json::take_over(metadata, as_in.get("metadata"), field);
    }
}

/// The deletion fields, which clients cannot set.
const DELETION: [&str; 2] = ["deletionTimestamp", "deletionGracePeriodSeconds"];

/// The metadata that no client changes.
fn settle_metadata(key: &ObjectKey, part: Part, new: &mut Value, old: &Value) -> Answer<()> {
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
    if part != Part::Internal {
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
