//! Tokens of service accounts, given out by POST of a TokenRequest.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::super::Server;
use super::super::admission::{Operation, Review};
use super::super::error::{Answer, bad};
use super::super::handler::Call;
use super::super::response::Response;
use super::super::tokens::{Account, Named, Term};
use super::super::write_options::Way;
use super::create::check_namespace;
use super::{accept_fields, json};
use crate::codec;
use crate::object::resource::{NODE, POD, SECRET};
use crate::object::status::Cause;
use crate::object::{Object, ObjectKey, ResourceRef, Status};

const KIND: (&str, &str, &str) = ("authentication.k8s.io", "v1", "TokenRequest");
/// The default lifetime of a token, in seconds.
const USUAL: i64 = 3600;
const SHORTEST: i64 = 600;
const LONGEST: i64 = 1 << 32;
/// Kubelets request this lifetime for tokens injected into pods. Programs that do not reread them get a year, with a warning.
const INJECTED: i64 = 3607;
const EXTENDED: i64 = 365 * 24 * 3600;

pub(crate) async fn create(server: &Arc<Server>, call: &Call) -> Answer<Response> {
    let options = call.write_options(Way::Create)?;
    let decoded = codec::decode_kind(KIND, call.content_type(), &call.body)?;
    let mut request = accept_fields(decoded, &options)?;
    let (key, tokens) = (call.key(), server.tokens()?);
    let (namespace, name) = (&key.name.namespace, &key.name.name);
    check_namespace(json::text(&request, "/metadata/namespace"), namespace)?;
    let stated = json::text(&request, "/metadata/name");
    if !stated.is_empty() && stated != &**name {
        return Err(invalid(
            name,
            vec![Cause::invalid("metadata.name", &stated.into(), "must match the service account name if specified")],
        ));
    }
    let review = Review { operation: Operation::Create, key: &key, subresource: "token", dry_run: options.dry_run };
    server.admission.admit(server, &review, &mut request).await?;
    let account = server.current(&key).await?.object;

    let audiences: Vec<String> = json::items(&request, "/spec/audiences").iter().filter_map(|it| it.as_str().map(str::to_owned)).collect();
    let audiences = if audiences.is_empty() { tokens.config.audiences.clone() } else { audiences };
    let mut seconds = json::integer(&request, "/spec/expirationSeconds").unwrap_or(USUAL);
    let refuse = |why: &str| Err(invalid("", vec![Cause::invalid("spec.expirationSeconds", &seconds.into(), why)]));
    if seconds < SHORTEST {
        return refuse("may not specify a duration less than 10 minutes");
    }
    if seconds > LONGEST {
        return refuse("may not specify a duration larger than 2^32 seconds");
    }
    let mut bound = Account {
        namespace: namespace.to_string(),
        account: Named::of(&account),
        pod: None,
        secret: None,
        node: None,
        id: uuid::Uuid::new_v4().to_string(),
    };
    bind(server, &mut bound, request.pointer("/spec/boundObjectRef").filter(|it| !it.is_null())).await?;
    let longest = tokens.config.longest.and_then(|it| i64::try_from(it.as_secs()).ok());
    if let Some(longest) = longest.filter(|it| seconds > *it) {
        call.warnings.add([format!("requested expiration of {seconds} seconds shortened to {longest} seconds")]);
        seconds = longest;
    }
    let for_us = audiences.iter().all(|it| tokens.config.audiences.contains(it));
    let term = match bound.pod {
        Some(_) if seconds == INJECTED && for_us => Term { seconds: EXTENDED, warn_after: Some(seconds) },
        _ => Term { seconds, warn_after: None },
    };
    let now = Timestamp::now();
    let token = tokens.issue(&bound, &audiences, term, now)?;

    let metadata = json::metadata(&mut request);
    for (field, value) in [("name", &**name), ("namespace", &**namespace)] {
        json::set_default(metadata, field, value);
    }
    metadata.insert("creationTimestamp".to_owned(), json::time(now).into());
    let spec = json::map(&mut request, "spec");
    spec.insert("audiences".to_owned(), audiences.into());
    spec.insert("expirationSeconds".to_owned(), seconds.into());
    spec.entry("boundObjectRef").or_insert(Value::Null);
    let until = now.saturating_add(SignedDuration::from_secs(seconds)).unwrap_or(now);
    request["status"] = json!({"token": token, "expirationTimestamp": json::time(until)});
    call.output.document(201, request.to_string().into()).await
}

/// Looks up the object to which the token is bound.
async fn bind(server: &Server, account: &mut Account, reference: Option<&Value>) -> Answer<()> {
    let Some(reference) = reference else { return Ok(()) };
    let text = |key: &str| reference.get(key).and_then(Value::as_str).unwrap_or_default();
    let (kind, version) = (text("kind"), text("apiVersion"));
    let (group, short) = version.split_once('/').unwrap_or(("", version));
    let find = async |resource: ResourceRef, namespace: &str, name: &str| -> Answer<Arc<Object>> {
        Ok(server.current(&ObjectKey::new(resource, namespace, name)).await?.object)
    };
    let object = match (group, kind) {
        ("", "Pod") => {
            let pod = find(&POD, &account.namespace, text("name")).await?;
            let spec: Value = serde_json::from_slice(pod.body()).map_err(|error| Box::new(Status::internal(error)))?;
            let name = &account.account.name;
            if json::text(&spec, "/spec/serviceAccountName") != name {
                return Err(bad(format!(
                    "cannot bind token for serviceaccount {name:?} to pod running with different serviceaccount name."
                )));
            }
            account.node = match json::text(&spec, "/spec/nodeName") {
                "" => None,
                // The name of a deleted node is still useful.
                node => Some(find(&NODE, "", node).await.map_or(Named { name: node.to_owned(), uid: String::new() }, |it| Named::of(&it))),
            };
            account.pod = Some(Named::of(&pod));
            pod
        }
        ("", "Node") => {
            let node = find(&NODE, "", text("name")).await?;
            account.node = Some(Named::of(&node));
            node
        }
        ("", "Secret") => {
            let secret = find(&SECRET, &account.namespace, text("name")).await?;
            account.secret = Some(Named::of(&secret));
            secret
        }
        _ => return Err(bad(format!("cannot bind token to object of type {group}/{short}, Kind={kind}"))),
    };
    let (asked, uid) = (text("uid"), &*object.meta().uid);
    if asked.is_empty() || asked == uid {
        return Ok(());
    }
    let why = format!(
        "the UID in the bound object reference ({asked}) does not match the UID in record. The object might have been deleted and then recreated"
    );
    Err(Box::new(Status::conflict_of_kind(object.resource(), object.name(), &why)))
}

fn invalid(name: &str, causes: Vec<Cause>) -> Box<Status> {
    Box::new(Status::invalid_kind(KIND.0, KIND.2, name, causes))
}
