//! Reviews, such as of access or tokens: creating one returns the answer; nothing is stored.

use serde_json::{Map, Value, json};

use super::super::Server;
use super::super::auth::User;
use super::super::error::{Answer, bad};
use super::super::handler::Call;
use super::super::response::Response;
use super::super::tokens::Refusal;
use super::super::write_options::{Way, WriteOptions};
use super::create::check_namespace;
use super::{accept_fields, json};
use crate::codec;
use crate::object::resource::{
    LOCAL_SUBJECT_ACCESS_REVIEW, SELF_SUBJECT_ACCESS_REVIEW, SELF_SUBJECT_REVIEW, SELF_SUBJECT_RULES_REVIEW, SUBJECT_ACCESS_REVIEW,
    TOKEN_REVIEW,
};
use crate::object::status::Cause;
use crate::object::{ResourceRef, Status};

pub(crate) async fn create(server: &Server, call: &Call) -> Answer<Response> {
    let (options, resource) = (call.write_options(Way::Create)?, call.target.resource);
    let decoded = codec::decode(resource, call.content_type(), &call.body)?;
    let mut review = accept_fields(decoded, &options)?;
    check_namespace(json::text(&review, "/metadata/namespace"), &call.target.namespace)?;
    let causes = check(resource, &call.target.namespace, &review);
    if !causes.is_empty() {
        // Kubernetes omits the kind here.
        return Err(Box::new(Status::invalid_kind(resource.group, "", "", causes)));
    }
    codec::default(resource, &mut review);
    review["status"] = if resource == &TOKEN_REVIEW { whose(server, &review).await? } else { answer(resource, &call.user, &review)? };
    sign(call, &options, &mut review);
    call.output.document(201, review.to_string().into()).await
}

/// The account of a token.
async fn whose(server: &Server, review: &Value) -> Answer<Value> {
    let (token, tokens) = (json::text(review, "/spec/token"), server.tokens()?);
    if token.is_empty() {
        return Err(bad("token is required for TokenReview in authentication"));
    }
    let wanted: Vec<String> = json::items(review, "/spec/audiences").iter().filter_map(|it| it.as_str().map(str::to_owned)).collect();
    let wanted = if wanted.is_empty() { &tokens.config.audiences } else { &wanted };
    Ok(match tokens.verify(server, token, wanted).await {
        Ok((account, audiences)) => json!({"authenticated": true, "user": account.user_info(), "audiences": audiences}),
        Err(Refusal::NotOurs) => json!({"user": {}, "error": "invalid bearer token"}),
        Err(Refusal::Invalid(why)) => json!({"user": {}, "error": format!("[invalid bearer token, {why}]")}),
    })
}

/// Completes a response's metadata. Two of the kinds return an object of their own, without managers.
fn sign(call: &Call, options: &WriteOptions, review: &mut Value) {
    let (resource, now) = (call.target.resource, json::now());
    let about_rules = resource == &SELF_SUBJECT_RULES_REVIEW;
    if about_rules {
        review["spec"] = json!({});
    }
    let stated = codec::apply::take(review);
    if resource == &SELF_SUBJECT_REVIEW {
        json::metadata(review).insert("creationTimestamp".to_owned(), now.into());
    } else if !about_rules {
        if !call.target.namespace.is_empty() {
            json::metadata(review).insert("namespace".to_owned(), call.target.namespace.as_str().into());
        }
        let mut asked = review.clone();
        asked["status"] = json!({});
        codec::default(resource, &mut asked);
        let managers = codec::apply::track((stated, None), None, &asked, &options.writer(resource, "", &now));
        codec::apply::put(review, managers.as_ref());
    }
}

/// The status of a review. Every action is allowed, as in `AlwaysAllow`.
fn answer(resource: ResourceRef, user: &User, review: &Value) -> Answer<Value> {
    Ok(if resource == &SELF_SUBJECT_REVIEW {
        json!({"userInfo": user.fields()})
    } else if resource == &SELF_SUBJECT_RULES_REVIEW {
        if json::text(review, "/spec/namespace").is_empty() {
            return Err(bad("no namespace on request"));
        }
        json!({
            "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}],
            "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
            "incomplete": false,
        })
    } else {
        json!({"allowed": true})
    })
}

fn check(resource: ResourceRef, namespace: &str, review: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    let asks_access =
        [&SUBJECT_ACCESS_REVIEW, &SELF_SUBJECT_ACCESS_REVIEW, &LOCAL_SUBJECT_ACCESS_REVIEW].iter().any(|it| **it == *resource);
    if !asks_access {
        return causes;
    }
    let spec = |pointer: &str| review.pointer(&format!("/spec/{pointer}")).unwrap_or(&Value::Null);
    let (of_resource, of_path) = (spec("resourceAttributes"), spec("nonResourceAttributes"));
    match (of_resource.is_null(), of_path.is_null()) {
        (true, true) => {
            let why = "exactly one of nonResourceAttributes or resourceAttributes must be specified";
            causes.push(Cause::invalid("spec.resourceAttributes", of_path, why));
        }
        (false, false) => {
            let why = "cannot be specified in combination with resourceAttributes";
            causes.push(Cause::invalid("spec.nonResourceAttributes", of_path, why));
        }
        _ => {}
    }
    if resource != &SELF_SUBJECT_ACCESS_REVIEW
        && json::text(review, "/spec/user").is_empty()
        && json::items(review, "/spec/groups").is_empty()
    {
        causes.push(Cause::invalid("spec.user", &"".into(), "at least one of user or group must be specified"));
    }
    if resource == &LOCAL_SUBJECT_ACCESS_REVIEW {
        if !of_path.is_null() {
            causes.push(Cause::invalid("spec.nonResourceAttributes", of_path, "disallowed on this kind of request"));
        }
        let asked = json::text(of_resource, "/namespace");
        if asked != namespace {
            causes.push(Cause::invalid("spec.resourceAttributes.namespace", &asked.into(), "must match metadata.namespace"));
        }
    }
    let states_something = |metadata: &Map<String, Value>| {
        metadata.iter().any(|(key, value)| key != "managedFields" && key != "namespace" && !value.is_null())
    };
    if let Some(metadata) = review["metadata"].as_object().filter(|it| states_something(it)) {
        causes.push(Cause::invalid("metadata", &Value::Object(metadata.clone()), "must be empty"));
    }
    causes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_about_access_must_be_questions() {
        let fields = |resource, review: Value| -> Vec<String> { check(resource, "a", &review).into_iter().map(|it| it.field).collect() };
        let of_pods = json!({"namespace": "a", "verb": "get", "resource": "pods"});
        assert!(fields(&SELF_SUBJECT_ACCESS_REVIEW, json!({"spec": {"resourceAttributes": of_pods}})).is_empty());
        assert!(fields(&LOCAL_SUBJECT_ACCESS_REVIEW, json!({"spec": {"user": "u", "resourceAttributes": of_pods}})).is_empty());
        assert_eq!(fields(&SELF_SUBJECT_ACCESS_REVIEW, json!({"spec": {}})), ["spec.resourceAttributes"]);
        let both = json!({"metadata": {"name": "x"}, "spec": {"resourceAttributes": of_pods, "nonResourceAttributes": {"path": "/"}}});
        assert_eq!(fields(&SUBJECT_ACCESS_REVIEW, both), ["spec.nonResourceAttributes", "spec.user", "metadata"]);
        let elsewhere = json!({"spec": {"groups": ["g"], "resourceAttributes": {"namespace": "b"}}});
        assert_eq!(fields(&LOCAL_SUBJECT_ACCESS_REVIEW, elsewhere), ["spec.resourceAttributes.namespace"]);
        assert!(fields(&SELF_SUBJECT_REVIEW, json!({})).is_empty());
    }
}
