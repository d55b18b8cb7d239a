//! Creating an object.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use serde_json::Value;

use super::super::Server;
use super::super::error::{Answer, bad};
use super::super::handler::Call;
use super::super::response::Response;
use super::super::write_options::{Way, WriteOptions};
use super::write::{Outcome, Write};
use super::{accept_fields, json, owners, refuse, strategy};
use crate::codec;
use crate::object::resource::LIMIT_RANGE;
use crate::object::status::Cause;
use crate::object::{Object, ObjectKey, ResourceRef, Status};
use crate::store::Entry;

pub(crate) fn serve<'a>(server: &'a Arc<Server>, call: &'a Call) -> BoxFuture<'a, Answer<Response>> {
    Box::pin(async move {
        let (target, options) = (&call.target, call.write_options(Way::Create)?);
        let decoded = codec::decode(target.resource, call.content_type(), &call.body)?;
        let mut value = accept_fields(decoded, &options)?;
        options.warnings.add(owners::merge(&mut value, owners::Found::Sent));
        strategy::sign(target.resource, &mut value, &call.user);
        if target.resource != target.resource.storage() {
            codec::default::fill(target.resource, &mut value);
            codec::convert(&mut value, target.resource, target.resource.storage());
        }
        let key = ObjectKey::new(target.resource.storage(), &target.namespace, json::text(&value, "/metadata/name"));
        check_version(target.resource, &key, &mut value)?;
        call.answer(201, &create(server, key.resource, &target.namespace, value, &options).await?).await
    })
}

/// Creates an object from a client's request.
pub(crate) async fn create(
    server: &Server,
    resource: ResourceRef,
    namespace: &str,
    value: Value,
    options: &WriteOptions,
) -> Answer<Arc<Object>> {
    let key = ObjectKey::new(resource, namespace, provisional_name(&value));
    let mut write = Write::create(server, key, options, value);
    match write.run().await? {
        Outcome::Written(object, _) | Outcome::Unwritten(object) => Ok(object),
        Outcome::Conflict(entry) if !write.is_generated => Err(exists(server, &write.key, entry)),
        Outcome::Conflict(_) => {
            let mut status = Status::already_exists(resource, &write.key.name.name);
            status.message = format!("{}, the server was not able to generate a unique name for the object", status.message);
            Err(Box::new(status))
        }
    }
}

/// Why an object was not created where this entry is.
fn exists(server: &Server, key: &ObjectKey, entry: Option<Entry>) -> Box<Status> {
    let mut status = Status::already_exists(key.resource, &key.name.name);
    if server.adopt(key, entry).is_ok_and(|it| it.object.meta().is_deleted()) {
        status.message = format!("object is being deleted: {}", status.message);
    }
    Box::new(status)
}

/// The name of an object until one is generated: an error names all attempts of its author alike.
fn provisional_name(value: &Value) -> &str {
    let names = ["/metadata/name", "/metadata/generateName"].map(|it| json::text(value, it));
    names.into_iter().find(|it| !it.is_empty()).unwrap_or("Unknown")
}

/// Generates a name for an object that only has a prefix; without a prefix, the name is empty.
pub(super) fn make_up_name(like: &ObjectKey, value: &mut Value) -> ObjectKey {
    let base = json::text(value, "/metadata/generateName");
    let name = match base {
        // These need none.
        "" if like.resource == &LIMIT_RANGE => uuid::Uuid::new_v4().to_string(),
        "" => String::new(),
        base => generate(base),
    };
    json::metadata(value).insert("name".to_owned(), name.as_str().into());
    ObjectKey::new(like.resource, &like.name.namespace, &name)
}

/// Fills in the metadata that only the server sets. True if the name is to be made up.
pub(super) fn complete(resource: ResourceRef, namespace: &str, value: &mut Value) -> Answer<bool> {
    let metadata = json::metadata(value);
    let stated = |key: &str| metadata.get(key).and_then(Value::as_str).unwrap_or_default();
    check_namespace(stated("namespace"), namespace)?;
    if stated("resourceVersion").parse::<u64>().is_ok_and(|it| it != 0) {
        return Err(Box::new(Status::failure(500, "", "resourceVersion should not be set on objects to be created")));
    }
    let generated = stated("name").is_empty() && !stated("generateName").is_empty();
    for key in ["resourceVersion", "selfLink", "deletionTimestamp", "deletionGracePeriodSeconds", "uid", "creationTimestamp"] {
        metadata.remove(key);
    }
    if namespace.is_empty() {
        metadata.remove("namespace");
    } else {
        metadata.insert("namespace".to_owned(), namespace.into());
    }
    metadata.insert("uid".to_owned(), uuid::Uuid::new_v4().to_string().into());
    metadata.insert("creationTimestamp".to_owned(), json::now().into());
    if resource.counts_generations {
        metadata.insert("generation".to_owned(), 1.into());
    }
    Ok(generated)
}

/// # Errors
/// 422 if an object is not one that may be created in this version, which it came in.
pub(super) fn check_version(version: ResourceRef, key: &ObjectKey, value: &mut Value) -> Answer<()> {
    let faults = codec::validate_version(version, value);
    if faults.is_empty() {
        return Ok(());
    }
    json::set_default(json::metadata(value), "namespace", &*key.name.namespace);
    refuse(key, codec::validate(key.resource, value, None).into_iter().chain(faults).collect())
}

/// # Errors
/// 400 if an object names another namespace than its URL.
pub(crate) fn check_namespace(stated: &str, requested: &str) -> Answer<()> {
    if stated.is_empty() || stated == requested {
        return Ok(());
    }
    Err(bad("the namespace of the provided object does not match the namespace sent on the request"))
}

/// Names become parts of paths, here and in the store, so they must not contain path syntax, whatever else a kind allows.
pub(super) fn check_name(key: &ObjectKey) -> Option<Cause> {
    let name: &str = &key.name.name;
    let value = Value::from(name);
    match name {
        "" => Some(Cause::required("metadata.name", "name or generateName is required")),
        "." | ".." => Some(Cause::invalid("metadata.name", &value, &format!("may not be '{name}'"))),
        _ if name.contains('/') => Some(Cause::invalid("metadata.name", &value, "may not contain '/'")),
        _ if name.contains('%') => Some(Cause::invalid("metadata.name", &value, "may not contain '%'")),
        _ => None,
    }
}

/// A name out of a prefix: with five letters and digits that spell no word.
fn generate(base: &str) -> String {
    const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    const LONGEST: usize = 63 - 5;
    let mut cut = base.len().min(LONGEST);
    while !base.is_char_boundary(cut) {
        cut -= 1;
    }
    let suffix = (0..5).map(|_| LETTERS[rand::random_range(0..LETTERS.len())] as char);
    base[..cut].chars().chain(suffix).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::object::resource::{CONFIG_MAP, NODE, POD};

    #[test]
    fn metadata_is_the_servers() {
        let mut value =
            json!({"metadata": {"generateName": "web-", "uid": "mine", "creationTimestamp": null, "selfLink": "/x", "labels": {"a": "b"}}});
        assert!(complete(&POD, "default", &mut value).unwrap());
        assert_eq!(provisional_name(&value), "web-");
        let key = make_up_name(&ObjectKey::new(&POD, "default", "web-"), &mut value);
        assert_eq!(&*key.name.name, json::text(&value, "/metadata/name"));
        assert!(key.name.name.starts_with("web-"));
        assert_eq!(json::text(&value, "/metadata/name").len(), 9);
        assert_eq!(json::text(&value, "/metadata/uid").len(), 36);
        assert_eq!(json::text(&value, "/metadata/namespace"), "default");
        assert_eq!(value["metadata"]["generation"], 1);
        assert_eq!(value["metadata"]["labels"]["a"], "b");
        let mut value = json!({"metadata": {"name": "n", "generateName": "x-"}});
        assert!(!complete(&NODE, "", &mut value).unwrap());
        assert_eq!(json::text(&value, "/metadata/name"), "n");
        assert!(value["metadata"].get("generation").is_none());
    }

    #[test]
    fn what_a_client_may_not_state() {
        let status = |mut value: Value| complete(&CONFIG_MAP, "a", &mut value).unwrap_err();
        assert_eq!(status(json!({"metadata": {"name": "x", "resourceVersion": "3"}})).code, 500);
        // Invalid versions are ignored.
        for version in ["", "0", "junk"] {
            assert!(complete(&CONFIG_MAP, "a", &mut json!({"metadata": {"name": "x", "resourceVersion": version}})).is_ok());
        }
        let other = status(json!({"metadata": {"name": "x", "namespace": "b"}}));
        assert_eq!((other.code, other.reason.as_str()), (400, "BadRequest"));
        for (name, ok) in [("a", true), ("a.b", true), ("", false), ("a/b", false), ("..", false), ("a%", false)] {
            assert_eq!(check_name(&ObjectKey::new(&CONFIG_MAP, "a", name)).is_none(), ok, "{name:?}");
        }
    }

    #[test]
    fn generated_names_fit() {
        assert_eq!(generate(&"x".repeat(100)).len(), 63);
        assert_ne!(generate("a"), generate("a"));
        generate(&"é".repeat(50));
    }
}
