//! The subresource `scale`: the number of replicas of anything that has one, in one form.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use serde_json::{Value, json};

use super::super::Server;
use super::super::error::{Answer, bad};
use super::super::handler::Call;
use super::super::negotiate::patch_kind;
use super::super::response::Response;
use super::super::write_options::Way;
use super::patch::Patch;
use super::update::{check_uid, modify};
use super::{Before, Part, accept_fields, json};
use crate::codec::{self, PatchKind};
use crate::object::resource::SCALE;
use crate::object::status::Cause;
use crate::object::{Object, ResourceRef, Status};

const KIND: (&str, &str, &str) = ("autoscaling", "v1", "Scale");

pub(crate) async fn get(server: &Arc<Server>, call: &Call) -> Answer<Response> {
    let object = server.read(&call.key(), None).await?;
    answer(call, &of(&value(&object)?)).await
}

/// PUT.
pub(crate) fn replace<'a>(server: &'a Arc<Server>, call: &'a Call) -> BoxFuture<'a, Answer<Response>> {
    Box::pin(async move {
        let (options, key) = (call.write_options(Way::Update)?, call.key());
        let decoded = codec::decode_kind(KIND, call.content_type(), &call.body)?;
        let scale = accept_fields(decoded, &options)?;
        check_name(call, &scale)?;
        let change = |before: &Before<'_>| {
            check_uid(server, &key, &scale, Some(before))?;
            with(key.resource, before.value, &scale)
        };
        let object = modify(server, &key, Part::SCALE, &options, &change).await?;
        answer(call, &of(&value(&object)?)).await
    })
}

/// PATCH.
pub(crate) fn patch<'a>(server: &'a Arc<Server>, call: &'a Call) -> BoxFuture<'a, Answer<Response>> {
    Box::pin(async move {
        let (kind, key) = (patch_kind(&call.headers)?, call.key());
        if kind == PatchKind::Apply {
            return apply(server, call).await;
        }
        let options = call.write_options(Way::Patch)?;
        let patch = Patch::read(call, kind, &options)?;
        let change = |before: &Before<'_>| {
            let scale = patch.on(&SCALE, &of(before.value))?;
            check_name(call, &scale)?;
            with(key.resource, before.value, &scale)
        };
        let object = modify(server, &key, Part::SCALE, &options, &change).await?;
        answer(call, &of(&value(&object)?)).await
    })
}

/// Server-side apply: of the object, as far as the scale states something of it.
async fn apply(server: &Arc<Server>, call: &Call) -> Answer<Response> {
    let (options, key) = (call.write_options(Way::Apply)?, call.key());
    let scale = super::apply::accept(codec::decode_applied(&call.body)?, &options)?;
    codec::apply::check(&SCALE, &scale)?;
    check_name(call, &scale)?;
    let applied = applied_to(key.resource, &scale);
    let change = |before: &Before<'_>| {
        let now = json::now();
        let writer = options.writer(key.resource, Part::SCALE.subresource, &now);
        codec::apply::apply(Some((before.value, before.managers)), &applied, &writer, options.force)
    };
    let object = modify(server, &key, Part::SCALE, &options, &change).await.map_err(|status| as_of_scale(*status, key.resource))?;
    answer(call, &of(&value(&object)?)).await
}

/// Conflicts name owners by the version of the scale.
fn as_of_scale(mut status: Status, resource: ResourceRef) -> Box<Status> {
    let (from, to) = (format!("using {}", resource.api_version()), format!("using {}", SCALE.api_version()));
    status.message = status.message.replace(&from, &to);
    for cause in status.details.iter_mut().flat_map(|it| &mut it.causes) {
        cause.message = cause.message.replace(&from, &to);
    }
    Box::new(status)
}

/// The applied fields of the object that an applied scale stands for.
fn applied_to(resource: ResourceRef, scale: &Value) -> Value {
    let mut metadata = serde_json::Map::new();
    for key in ["name", "namespace", "uid", "resourceVersion"] {
        json::take_over(&mut metadata, scale.get("metadata"), key);
    }
    let mut applied = json!({"kind": resource.kind, "apiVersion": resource.api_version(), "metadata": metadata});
    if let Some(replicas) = scale.pointer("/spec/replicas") {
        applied["spec"] = json!({ "replicas": replicas });
    }
    applied
}

fn check_name(call: &Call, scale: &Value) -> Answer<()> {
    let (stated, asked) = (json::text(scale, "/metadata/name"), &call.target.name);
    if stated.is_empty() || stated == asked {
        return Ok(());
    }
    Err(bad(format!("the name of the object ({stated}) does not match the name on the URL ({asked})")))
}

async fn answer(call: &Call, scale: &Value) -> Answer<Response> {
    let object = Object::from_wire(&SCALE, scale.to_string().into()).map_err(|error| Box::new(Status::internal(error)))?;
    call.output.object(200, &call.query, &object).await
}

fn value(object: &Object) -> Answer<Value> {
    serde_json::from_slice(object.body()).map_err(|error| Box::new(Status::internal(error)))
}

/// The scale of an object.
fn of(object: &Value) -> Value {
    let mut metadata = serde_json::Map::new();
    for key in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        json::take_over(&mut metadata, object.get("metadata"), key);
    }
    let mut scale = json!({
        "kind": KIND.2,
        "apiVersion": "autoscaling/v1",
        "metadata": metadata,
        "spec": {},
        "status": {"replicas": json::integer(object, "/status/replicas").unwrap_or_default()},
    });
    if let Some(replicas) = json::integer(object, "/spec/replicas").filter(|it| *it != 0) {
        scale["spec"]["replicas"] = replicas.into();
    }
    if let Some(selector) = object.pointer("/spec/selector").map(selector_text).filter(|it| !it.is_empty()) {
        scale["status"]["selector"] = selector.into();
    }
    scale
}

/// The object with the replicas (and, for the check of it, the version) of a scale.
fn with(resource: ResourceRef, object: &Value, scale: &Value) -> Answer<Value> {
    let replicas = json::integer(scale, "/spec/replicas").unwrap_or_default();
    if replicas < 0 {
        let name = json::text(object, "/metadata/name");
        let cause = Cause::invalid("spec.replicas", &replicas.into(), "must be greater than or equal to 0");
        return Err(Box::new(Status::invalid(&SCALE, name, vec![cause])));
    }
    let (stated, known) = (json::text(scale, "/metadata/uid"), json::text(object, "/metadata/uid"));
    if !stated.is_empty() && stated != known {
        let why = format!("Precondition failed: UID in precondition: {stated}, UID in object meta: {known}");
        return Err(Box::new(Status::conflict_in_part(resource, "scale", json::text(object, "/metadata/name"), &why)));
    }
    let mut object = object.clone();
    json::map(&mut object, "spec").insert("replicas".to_owned(), replicas.into());
    for key in ["resourceVersion", "uid"] {
        let stated = scale.get("metadata").and_then(|it| it.get(key)).cloned();
        if let Some(stated) = stated.filter(|it| it.as_str().is_some_and(|it| !it.is_empty())) {
            json::metadata(&mut object).insert(key.to_owned(), stated);
        }
    }
    Ok(object)
}

/// A selector in its text form: the map of a replication controller, or a `LabelSelector`.
fn selector_text(selector: &Value) -> String {
    let structured =
        selector.get("matchLabels").is_some_and(Value::is_object) || selector.get("matchExpressions").is_some_and(Value::is_array);
    let pairs = if structured { selector.get("matchLabels").unwrap_or(&Value::Null) } else { selector };
    let mut terms: Vec<String> =
        pairs.as_object().into_iter().flatten().filter_map(|(key, value)| Some(format!("{key}={}", value.as_str()?))).collect();
    for expression in json::items(selector, "/matchExpressions") {
        let key = json::text(expression, "/key");
        let mut values: Vec<&str> = json::items(expression, "/values").iter().filter_map(Value::as_str).collect();
        values.sort_unstable();
        let values = values.join(",");
        terms.push(match json::text(expression, "/operator") {
            "In" => format!("{key} in ({values})"),
            "NotIn" => format!("{key} notin ({values})"),
            "DoesNotExist" => format!("!{key}"),
            _ => key.to_owned(),
        });
    }
    terms.sort();
    terms.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::resource::DEPLOYMENT;

    #[test]
    fn there_and_back() {
        let object = json!({
            "metadata": {"name": "web", "namespace": "a", "uid": "u", "resourceVersion": "7", "labels": {"x": "y"}},
            "spec": {"replicas": 2, "selector": {"matchLabels": {"b": "2", "a": "1"}, "matchExpressions": [{"key": "c", "operator": "In", "values": ["z", "y"]}]}},
            "status": {"replicas": 1},
        });
        let mut scale = of(&object);
        assert_eq!(scale["status"], json!({"replicas": 1, "selector": "a=1,b=2,c in (y,z)"}));
        assert_eq!(scale["metadata"], json!({"name": "web", "namespace": "a", "uid": "u", "resourceVersion": "7"}));
        scale["spec"]["replicas"] = 5.into();
        let changed = with(&DEPLOYMENT, &object, &scale).unwrap();
        assert_eq!(changed["spec"]["replicas"], 5);
        assert_eq!(changed["metadata"], object["metadata"]);
        assert_eq!(with(&DEPLOYMENT, &object, &json!({"spec": {"replicas": -1}})).unwrap_err().code, 422);
        scale["metadata"]["uid"] = "other".into();
        let refused = with(&DEPLOYMENT, &object, &scale).unwrap_err();
        assert_eq!(
            (refused.code, &*refused.message),
            (
                409,
                r#"Operation cannot be fulfilled on deployments/scale.apps "web": Precondition failed: UID in precondition: other, UID in object meta: u"#
            )
        );
        assert_eq!(of(&json!({"metadata": {"name": "web"}, "spec": {"replicas": 0}}))["spec"], json!({}));
        assert_eq!(selector_text(&json!({"app": "x"})), "app=x");
    }
}
