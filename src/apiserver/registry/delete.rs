//! Deletion: grace period, preconditions, finalizers and propagation decide whether an object is removed or only marked.

use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use serde_json::Value;

use super::super::admission::{Operation, Review};
use super::super::allocate::Claims;
use super::super::error::{Answer, bad};
use super::super::handler::Call;
use super::super::query::Query;
use super::super::response::Response;
use super::super::write_options::dry_run;
use super::super::{Server, list};
use super::{json, namespaces, strategy};
use crate::codec;
use crate::object::pod::is_final;
use crate::object::resource::{JOB, NAMESPACE};
use crate::object::status::Cause;
use crate::object::{Object, ObjectKey, ResourceRef, Status};
use crate::store::Expect;

/// `metav1.DeleteOptions`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Options {
    pub(crate) grace_period_seconds: Option<i64>,
    pub(crate) preconditions: Option<Preconditions>,
    pub(crate) orphan_dependents: Option<bool>,
    pub(crate) propagation_policy: Option<Propagation>,
    dry_run: Vec<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Preconditions {
    pub(crate) uid: Option<String>,
    pub(crate) resource_version: Option<String>,
}

/// What happens to the dependents of a deleted object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub(crate) enum Propagation {
    /// They are deleted after it.
    Background,
    /// It is deleted after them.
    Foreground,
    /// They stay, without an owner.
    Orphan,
}

impl Options {
    /// From a request's body, or from its query if it has none.
    fn parse(call: &Call) -> Answer<Self> {
        if call.body.is_empty() {
            return Self::from_query(&call.query)?.checked();
        }
        let decoded = codec::decode_kind(("", "v1", "DeleteOptions"), call.content_type(), &call.body)?;
        Self::read(decoded.value)
    }

    /// From an object of this form.
    ///
    /// # Errors
    /// 422 for invalid values.
    pub(super) fn read(options: Value) -> Answer<Self> {
        let policy = json::text(&options, "/propagationPolicy");
        if !policy.is_empty() && Propagation::parse(policy).is_none() {
            return Err(unknown_policy(policy));
        }
        serde_json::from_value::<Self>(options).map_err(|error| bad(format!("DeleteOptions: {error}")))?.checked()
    }

    fn checked(self) -> Answer<Self> {
        if self.orphan_dependents.is_some() && self.propagation_policy.is_some() {
            let policy = self.propagation_policy.map_or("", Propagation::name);
            let why = "orphanDependents and deletionPropagation cannot be both set";
            return Err(invalid(Cause::invalid("propagationPolicy", &policy.into(), why)));
        }
        Ok(self)
    }

    fn from_query(query: &Query) -> Answer<Self> {
        let propagation_policy = match query.get("propagationPolicy") {
            None => None,
            Some(text) => Some(Propagation::parse(text).ok_or_else(|| unknown_policy(text))?),
        };
        Ok(Self {
            grace_period_seconds: query.integer("gracePeriodSeconds")?,
            preconditions: None,
            orphan_dependents: query.optional_flag("orphanDependents"),
            propagation_policy,
            dry_run: query.all("dryRun").map(str::to_owned).collect(),
        })
    }

    /// A warning for clients that set no propagation policy.
    fn warning(&self, resource: ResourceRef) -> Option<String> {
        let asked = self.propagation_policy.is_some() || self.orphan_dependents.is_some();
        let warning = "child pods are preserved by default when jobs are deleted; set propagationPolicy=Background to remove them or set \
                       propagationPolicy=Orphan to suppress this warning";
        (resource == &JOB && !asked).then(|| warning.to_owned())
    }

    /// # Errors
    /// 422 if `dryRun` has a value other than `All`.
    pub(super) fn is_dry_run(&self) -> Answer<bool> {
        dry_run(self.dry_run.iter().map(String::as_str)).map_err(invalid)
    }
}

impl Propagation {
    fn parse(text: &str) -> Option<Self> {
        [Self::Background, Self::Foreground, Self::Orphan].into_iter().find(|it| it.name() == text)
    }

    fn name(self) -> &'static str {
        match self {
            Self::Background => "Background",
            Self::Foreground => "Foreground",
            Self::Orphan => "Orphan",
        }
    }
}

fn invalid(cause: Cause) -> Box<Status> {
    Box::new(Status::invalid_options("DeleteOptions", vec![cause]))
}

fn unknown_policy(text: &str) -> Box<Status> {
    invalid(Cause::not_supported("propagationPolicy", text, &["Foreground", "Background", "Orphan", "nil"]))
}

/// DELETE of an object.
pub(crate) fn serve<'a>(server: &'a Arc<Server>, call: &'a Call) -> BoxFuture<'a, Answer<Response>> {
    Box::pin(async move {
        let (options, key) = (Options::parse(call)?, call.key());
        call.warnings.add(options.warning(key.resource));
        let deleted = delete(server, &key, &options, options.is_dry_run()?).await.map_err(|it| call.named(it))?;
        if deleted.gone && !key.resource.shown_when_deleted {
            let status = Status::deleted(call.target.resource, &key.name.name, &deleted.object.meta().uid);
            return Ok(call.output.status(&status).await);
        }
        // With the older parameter for a cascade, the response says that it has only begun.
        let code = if !deleted.gone && options.orphan_dependents == Some(false) { 202 } else { 200 };
        call.answer(code, &deleted.object).await
    })
}

/// How many objects of a collection are deleted at a time.
const AT_A_TIME: usize = 16;

/// DELETE of a collection: responds with the former content.
pub(crate) fn serve_collection<'a>(server: &'a Arc<Server>, call: &'a Call) -> BoxFuture<'a, Answer<Response>> {
    Box::pin(async move {
        let options = Options::parse(call)?;
        call.warnings.add(options.warning(call.target.resource));
        let dry_run = options.is_dry_run()?;
        let page = list::select(server, call).await?;
        let deleting: Vec<_> = page.objects.iter().map(|object| delete_one(server, object.key(), &options, dry_run)).collect();
        let outcomes: Vec<_> = futures_util::stream::iter(deleting).buffered(AT_A_TIME).collect().await;
        // Another client may have been faster.
        if let Some(refused) = outcomes.into_iter().filter_map(Result::err).find(|it| !it.is("NotFound")) {
            return Err(refused);
        }
        let metadata = page.metadata();
        call.answer_list(&metadata, page.objects).await
    })
}

fn delete_one<'a>(server: &'a Server, key: ObjectKey, options: &'a Options, dry_run: bool) -> BoxFuture<'a, Answer<Deleted>> {
    Box::pin(async move { delete(server, &key, options, dry_run).await })
}

/// The result of a deletion.
#[derive(Debug)]
pub(crate) struct Deleted {
    pub(crate) object: Arc<Object>,
    /// Removed, rather than marked.
    pub(crate) gone: bool,
}

/// Deletes an object, or marks it as being deleted if something must happen first.
///
/// # Errors
/// 404 if it is not there, 409 if a precondition does not hold.
pub(crate) async fn delete(server: &Server, key: &ObjectKey, options: &Options, dry_run: bool) -> Answer<Deleted> {
    let review = Review { operation: Operation::Delete, key, subresource: "", dry_run };
    // Quotas charge nothing for a deletion.
    drop(server.admission.validate(server, &review, &Value::Null).await?);
    let mut current = server.current(key).await?;
    loop {
        let object = current.object.clone();
        let value: Value = serde_json::from_slice(object.body()).map_err(|error| Box::new(Status::internal(error)))?;
        let decision = check(key, &object, options).map(|()| decide(key.resource, value, options, Timestamp::now()));
        // A write would detect a stale cache. Where nothing is written, read the live object first.
        if !current.live && (dry_run || matches!(decision, Err(_) | Ok(Decision::Keep))) {
            current = server.live(key).await?;
            continue;
        }
        let conflict = match decision {
            Err(status) => return Err(status),
            Ok(Decision::Keep) => return Ok(Deleted { object, gone: false }),
            Ok(Decision::Mark(marked)) if dry_run => return Ok(Deleted { object: shown(&object, &marked)?, gone: false }),
            Ok(Decision::Remove(last)) if dry_run => {
                return Ok(Deleted { object: last.map_or(Ok(object.clone()), |it| shown(&object, &it))?, gone: true });
            }
            Ok(Decision::Mark(marked)) => match server.put(key, &marked, None, Expect::At(object.revision())).await? {
                Ok(object) => return Ok(Deleted { object, gone: false }),
                Err(entry) => entry,
            },
            Ok(Decision::Remove(last)) => match server.remove(key, object.revision()).await? {
                Ok(deleted) => {
                    Claims::release(server, key, &object, deleted).await;
                    return Ok(Deleted { object: last.map_or(Ok(object.clone()), |it| shown(&object, &it))?, gone: true });
                }
                Err(entry) => entry,
            },
        };
        current = server.adopt(key, conflict)?;
    }
}

/// # Errors
/// 409 if a precondition does not hold of an object.
pub(super) fn check(key: &ObjectKey, object: &Object, options: &Options) -> Answer<()> {
    let Some(preconditions) = &options.preconditions else { return Ok(()) };
    let refuse = |what: &str, asked: &str, is: &str, how: &str| {
        if key.resource == &NAMESPACE {
            let why = format!("Precondition failed: {what} in precondition: {asked}, {what} in object meta: {is}");
            return Err(Box::new(Status::conflict(key.resource, &key.name.name, &why)));
        }
        let why = format!(
            "the {what} in the precondition ({asked}) does not match the {what} in record ({is}). The object might have been {how}"
        );
        Err(Box::new(Status::conflict_of_kind(key.resource, &key.name.name, &why)))
    };
    if let Some(uid) = preconditions.uid.as_ref()
        && **uid != *object.meta().uid
    {
        return refuse("UID", uid, &object.meta().uid, "deleted and then recreated");
    }
    if let Some(revision) = &preconditions.resource_version
        && *revision != object.revision().to_string()
    {
        return refuse("ResourceVersion", revision, &object.revision().to_string(), "modified");
    }
    Ok(())
}

#[derive(Debug, PartialEq)]
enum Decision {
    /// Remove it; the last state for clients, if that differs from the stored one.
    Remove(Option<Value>),
    /// Keep it for now, marked like this.
    Mark(Value),
    /// It is being deleted already.
    Keep,
}

const ORPHAN: &str = "orphan";
const FOREGROUND: &str = "foregroundDeletion";

/// The effect of a deletion on an object, given its state and the options. Pure.
fn decide(resource: ResourceRef, mut value: Value, options: &Options, now: Timestamp) -> Decision {
    if resource == &NAMESPACE {
        if json::text(&value, "/metadata/deletionTimestamp").is_empty() {
            namespaces::terminate(&mut value, &json::time(now));
            return Decision::Mark(value);
        }
        if !json::items(&value, "/spec/finalizers").is_empty() {
            return Decision::Keep;
        }
    }
    let graceful = match grace(resource, &mut value, options, now) {
        Grace::Pending => return Decision::Keep,
        Grace::Marked(seconds) => Some(seconds),
        Grace::None => None,
    };
    let before = value.clone();
    let finalizers = finalizers(resource, &value, options);
    let held = !finalizers.is_empty();
    set_finalizers(&mut value, finalizers);
    match graceful {
        Some(0) if !held => Decision::Remove(Some(value)),
        None if !held => Decision::Remove(None),
        Some(_) => Decision::Mark(value),
        None => {
            mark_now(&mut value, now);
            if value == before { Decision::Keep } else { Decision::Mark(value) }
        }
    }
}

enum Grace {
    /// The kind knows no grace (or it is over).
    None,
    /// A grace period that is no longer than requested is already running.
    Pending,
    /// The grace period in seconds, now written into the object.
    Marked(i64),
}

fn grace(resource: ResourceRef, value: &mut Value, options: &Options, now: Timestamp) -> Grace {
    if !strategy::has_grace(resource) {
        return Grace::None;
    }
    let deleted: Option<Timestamp> = json::text(value, "/metadata/deletionTimestamp").parse().ok();
    let running = json::integer(value, "/metadata/deletionGracePeriodSeconds");
    let (seconds, until) = match (deleted, running, options.grace_period_seconds) {
        (Some(_), None, _) => return Grace::None,
        (Some(_), Some(_), None) => return Grace::Pending,
        (Some(_), Some(running), Some(asked)) if asked >= running => return Grace::Pending,
        (Some(deleted), Some(running), Some(asked)) => {
            let (asked, running) = (asked.max(0), SignedDuration::from_secs(running));
            // Both may have been written by anybody.
            let since = deleted.checked_sub(running).ok().filter(|it| *it >= Timestamp::UNIX_EPOCH).unwrap_or(now);
            (asked, since.saturating_add(SignedDuration::from_secs(asked)).unwrap_or(now))
        }
        (None, _, asked) => {
            let seconds = grace_of_pod(value, asked);
            if let Some(generation) = json::integer(value, "/metadata/generation").filter(|it| *it > 0) {
                json::metadata(value).insert("generation".to_owned(), generation.saturating_add(1).into());
            }
            let until = now.saturating_add(SignedDuration::from_secs(seconds)).unwrap_or(now);
            // Clocks go no further.
            (until.duration_since(now).as_secs(), until)
        }
    };
    let metadata = json::metadata(value);
    metadata.insert("deletionTimestamp".to_owned(), json::time(until).into());
    metadata.insert("deletionGracePeriodSeconds".to_owned(), seconds.into());
    Grace::Marked(seconds)
}

/// A pod that runs nowhere needs no grace.
fn grace_of_pod(pod: &Value, asked: Option<i64>) -> i64 {
    let unscheduled = json::text(pod, "/spec/nodeName").is_empty();
    let ended = is_final(json::text(pod, "/status/phase"));
    match asked.or_else(|| json::integer(pod, "/spec/terminationGracePeriodSeconds")).unwrap_or_default() {
        _ if unscheduled || ended => 0,
        // A negative period is the shortest one.
        seconds if seconds < 0 => 1,
        seconds => seconds,
    }
}

/// The object as it is answered with, of these contents.
fn shown(object: &Object, value: &Value) -> Answer<Arc<Object>> {
    let (stored, _) = json::encode(value, None);
    Object::from_stored(object.resource(), &stored, object.revision()).map_err(|error| Box::new(Status::internal(error)))
}

/// The object's finalizers, plus those for the propagation policy.
fn finalizers(resource: ResourceRef, value: &Value, options: &Options) -> Vec<Value> {
    let have = json::items(value, "/metadata/finalizers");
    if !strategy::owns(resource) {
        return have.to_vec();
    }
    let has = |name: &str| have.iter().any(|it| it == name);
    let (orphan, foreground) = match (options.orphan_dependents, options.propagation_policy) {
        (Some(orphan), _) => (orphan, false),
        (None, Some(policy)) => (policy == Propagation::Orphan, policy == Propagation::Foreground),
        (None, None) if has(ORPHAN) || has(FOREGROUND) => (has(ORPHAN), has(FOREGROUND) && !has(ORPHAN)),
        (None, None) => (strategy::orphans(resource), false),
    };
    let mut finalizers: Vec<Value> = have.iter().filter(|it| *it != ORPHAN && *it != FOREGROUND).cloned().collect();
    finalizers.extend(orphan.then(|| ORPHAN.into()));
    finalizers.extend(foreground.then(|| FOREGROUND.into()));
    finalizers
}

fn set_finalizers(value: &mut Value, finalizers: Vec<Value>) {
    let metadata = json::metadata(value);
    if finalizers.is_empty() {
        metadata.remove("finalizers");
    } else {
        metadata.insert("finalizers".to_owned(), finalizers.into());
    }
}

/// Marks an object that waits only for its finalizers.
fn mark_now(value: &mut Value, now: Timestamp) {
    let metadata = json::metadata(value);
    if metadata.get("deletionGracePeriodSeconds").is_none()
        && let Some(generation) = metadata.get("generation").and_then(Value::as_i64).filter(|it| *it > 0)
    {
        metadata.insert("generation".to_owned(), generation.saturating_add(1).into());
    }
    json::set_default(metadata, "deletionTimestamp", json::time(now));
    metadata.insert("deletionGracePeriodSeconds".to_owned(), 0.into());
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::object::resource::{CONFIG_MAP, NAMESPACE, POD};

    const NOW: &str = "2026-01-01T00:00:00Z";

    fn decided(resource: ResourceRef, value: Value, options: Value) -> Decision {
        decide(resource, value, &serde_json::from_value(options).unwrap(), NOW.parse().unwrap())
    }

    fn marked(decision: Decision) -> Value {
        match decision {
            Decision::Mark(value) => value["metadata"].clone(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn pods_have_grace_once_they_run() {
        let pod = json!({"metadata": {"generation": 1}, "spec": {"nodeName": "n", "terminationGracePeriodSeconds": 30}, "status": {"phase": "Running"}});
        let metadata = marked(decided(&POD, pod.clone(), json!({})));
        assert_eq!(metadata, json!({"generation": 2, "deletionTimestamp": "2026-01-01T00:00:30Z", "deletionGracePeriodSeconds": 30}));
        let mut going = pod.clone();
        going["metadata"] = metadata;
        assert_eq!(decided(&POD, going.clone(), json!({})), Decision::Keep);
        assert_eq!(decided(&POD, going.clone(), json!({"gracePeriodSeconds": 60})), Decision::Keep);
        let shorter = marked(decided(&POD, going.clone(), json!({"gracePeriodSeconds": 5})));
        assert_eq!(shorter["deletionTimestamp"], "2026-01-01T00:00:05Z");
        assert!(matches!(decided(&POD, going, json!({"gracePeriodSeconds": 0})), Decision::Remove(_)));
        assert!(matches!(decided(&POD, pod.clone(), json!({"gracePeriodSeconds": 0})), Decision::Remove(_)));
        let mut ended = pod.clone();
        ended["status"]["phase"] = "Succeeded".into();
        assert!(matches!(decided(&POD, ended, json!({})), Decision::Remove(_)));
        let mut unscheduled = pod;
        unscheduled["spec"]["nodeName"] = "".into();
        assert!(matches!(decided(&POD, unscheduled, json!({})), Decision::Remove(_)));
    }

    #[test]
    fn no_grace_is_longer_than_clocks_go() {
        let longest = i64::MAX;
        let pod = json!({"metadata": {}, "spec": {"nodeName": "n"}, "status": {"phase": "Running"}});
        let first = marked(decided(&POD, pod.clone(), json!({"gracePeriodSeconds": longest})));
        assert!(first["deletionTimestamp"].as_str().unwrap().starts_with("9999-"), "{first}");
        let mut going = pod;
        going["metadata"] = first;
        let shorter = marked(decided(&POD, going.clone(), json!({"gracePeriodSeconds": 30})));
        assert_eq!(shorter["deletionTimestamp"], "2026-01-01T00:00:30Z");
        // An older km stored the number as it was asked for.
        going["metadata"]["deletionGracePeriodSeconds"] = longest.into();
        let shorter = marked(decided(&POD, going, json!({"gracePeriodSeconds": 30})));
        assert_eq!(shorter["deletionTimestamp"], "2026-01-01T00:00:30Z");
    }

    #[test]
    fn finalizers_hold() {
        let held = json!({"metadata": {"finalizers": ["a/b"]}});
        let metadata = marked(decided(&CONFIG_MAP, held.clone(), json!({})));
        assert_eq!(metadata["deletionTimestamp"], NOW);
        assert_eq!(metadata["deletionGracePeriodSeconds"], 0);
        let mut going = held;
        going["metadata"] = metadata;
        assert_eq!(decided(&CONFIG_MAP, going, json!({})), Decision::Keep);
        let pod = json!({"metadata": {"finalizers": ["a/b"]}, "spec": {}});
        assert_eq!(marked(decided(&POD, pod, json!({})))["deletionGracePeriodSeconds"], 0);
    }

    #[test]
    fn propagation_is_a_finalizer() {
        let plain = || json!({"metadata": {}});
        assert!(matches!(decided(&CONFIG_MAP, plain(), json!({"propagationPolicy": "Background"})), Decision::Remove(_)));
        assert_eq!(marked(decided(&CONFIG_MAP, plain(), json!({"propagationPolicy": "Foreground"})))["finalizers"], json!([FOREGROUND]));
        assert_eq!(marked(decided(&CONFIG_MAP, plain(), json!({"orphanDependents": true})))["finalizers"], json!([ORPHAN]));
        let waiting = json!({"metadata": {"finalizers": [FOREGROUND], "deletionTimestamp": NOW, "deletionGracePeriodSeconds": 0}});
        assert_eq!(decided(&CONFIG_MAP, waiting.clone(), json!({})), Decision::Keep);
        assert!(matches!(decided(&CONFIG_MAP, waiting, json!({"propagationPolicy": "Background"})), Decision::Remove(_)));
    }

    #[test]
    fn namespaces_end_when_they_are_empty() {
        let namespace = json!({"metadata": {}, "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"}});
        let Decision::Mark(going) = decided(&NAMESPACE, namespace, json!({})) else { panic!() };
        assert_eq!(going["status"]["phase"], "Terminating");
        assert_eq!(decided(&NAMESPACE, going.clone(), json!({})), Decision::Keep);
        let mut empty = going;
        empty["spec"] = json!({});
        assert!(matches!(decided(&NAMESPACE, empty, json!({})), Decision::Remove(_)));
    }
}
