//! `metav1.Status`: the response to a failed request (reasons and codes as in `k8s.io/apimachinery` `api/errors`).

use indexmap::IndexSet;
use serde::{Deserialize, Serialize};

use super::ResourceRef;
use crate::util::go;

/// The response to a failed request (or to some successful deletes). Also the error type of all code that serves the API.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    #[serde(default = "kind")]
    pub kind: String,
    #[serde(default = "api_version")]
    pub api_version: String,
    #[serde(default)]
    pub metadata: serde_json::Map<String, serde_json::Value>,
    /// `Success` or `Failure`.
    #[serde(default)]
    pub status: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// A machine-readable reason, such as `NotFound`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub details: Option<Details>,
    /// The HTTP status code; 0 if the body does not repeat it.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub code: u16,
}

/// The subject of a [`Status`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Details {
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub group: String,
    /// The plural resource name, or the kind where the error is about a value of it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub kind: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub uid: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub causes: Vec<Cause>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_seconds: Option<u32>,
}

/// One of possibly several causes, with its field where there is one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Cause {
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub field: String,
}

fn is_zero(code: &u16) -> bool {
    *code == 0
}

fn kind() -> String {
    "Status".to_owned()
}

fn api_version() -> String {
    "v1".to_owned()
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Status {}

impl Status {
    /// A failure with any code and reason; the constructors below cover the usual ones.
    pub fn failure(code: u16, reason: &str, message: impl Into<String>) -> Self {
        Self {
            kind: kind(),
            api_version: api_version(),
            metadata: serde_json::Map::new(),
            status: "Failure".to_owned(),
            message: message.into(),
            reason: reason.to_owned(),
            details: None,
            code,
        }
    }

    /// As [`Status::failure`], for a request that failed before it reached a resource: `details` is empty.
    pub fn undirected(code: u16, reason: &str, message: impl Into<String>) -> Self {
        Self { details: Some(Details::default()), ..Self::failure(code, reason, message) }
    }

    /// The response to a delete whose object is gone.
    pub fn deleted(resource: ResourceRef, name: &str, uid: &str) -> Self {
        let details = Details {
            name: name.to_owned(),
            group: resource.group.to_owned(),
            kind: resource.plural.to_owned(),
            uid: uid.to_owned(),
            ..Details::default()
        };
        Self { status: "Success".to_owned(), details: Some(details), ..Self::failure(0, "", "") }
    }

    fn about(mut self, resource: ResourceRef, name: &str) -> Self {
        self.details = Some(Details {
            name: name.to_owned(),
            group: resource.group.to_owned(),
            kind: resource.plural.to_owned(),
            ..Details::default()
        });
        self
    }

    pub fn not_found(resource: ResourceRef, name: &str) -> Self {
        Self::failure(404, "NotFound", format!("{} {name:?} not found", resource.qualified())).about(resource, name)
    }

    /// Names another version of the resource in the message and details, if that version is in another group.
    #[must_use]
    pub fn renamed(mut self, from: ResourceRef, to: ResourceRef) -> Self {
        if from.group != to.group
            && let Some(details) = self.details.as_mut().filter(|it| it.kind == from.plural && it.group == from.group)
        {
            (details.group, details.kind) = (to.group.to_owned(), to.plural.to_owned());
            self.message = self.message.replacen(&from.qualified().to_string(), &to.qualified().to_string(), 1);
        }
        self
    }

    pub fn already_exists(resource: ResourceRef, name: &str) -> Self {
        Self::failure(409, "AlreadyExists", format!("{} {name:?} already exists", resource.qualified())).about(resource, name)
    }

    /// A write that failed because the object has changed or differs from the writer's precondition.
    pub fn conflict(resource: ResourceRef, name: &str, why: &str) -> Self {
        let message = format!("Operation cannot be fulfilled on {} {name:?}: {why}", resource.qualified());
        Self::failure(409, "Conflict", message).about(resource, name)
    }

    /// As [`Status::conflict`], for a subresource, which the message names: `deployments/scale.apps`.
    pub fn conflict_in_part(resource: ResourceRef, part: &str, name: &str, why: &str) -> Self {
        let plural = format!("{}/{part}", resource.plural);
        let mut status = Self::conflict(resource, name, why);
        status.message = status.message.replacen(resource.plural, &plural, 1);
        if let Some(details) = &mut status.details {
            details.kind = plural;
        }
        status
    }

    /// As [`Status::conflict`], with the kind in place of the resource: `Deployment.apps`.
    pub fn conflict_of_kind(resource: ResourceRef, name: &str, why: &str) -> Self {
        let mut status = Self::conflict(resource, name, why);
        status.message = status.message.replacen(resource.plural, resource.kind, 1);
        if let Some(details) = &mut status.details {
            resource.kind.clone_into(&mut details.kind);
        }
        status
    }

    /// The conflict of a stale resource version.
    pub fn modified(resource: ResourceRef, name: &str) -> Self {
        Self::conflict(resource, name, "the object has been modified; please apply your changes to the latest version and try again")
    }

    /// An object with invalid fields: one cause per field. The message lists them as Kubernetes does.
    pub fn invalid(resource: ResourceRef, name: &str, causes: Vec<Cause>) -> Self {
        Self::invalid_kind(resource.group, resource.kind, name, causes)
    }

    /// As [`Status::invalid`], for a request's options, such as `PatchOptions`.
    pub fn invalid_options(kind: &str, causes: Vec<Cause>) -> Self {
        Self::invalid_kind("meta.k8s.io", kind, "", causes)
    }

    /// As [`Status::invalid`], for a body that is not an object of a resource.
    pub fn invalid_kind(group: &str, kind: &str, name: &str, causes: Vec<Cause>) -> Self {
        let text =
            |cause: &Cause| if cause.field.is_empty() { cause.message.clone() } else { format!("{}: {}", cause.field, cause.message) };
        let listed: IndexSet<String> = causes.iter().map(text).collect();
        let listed: Vec<String> = listed.into_iter().collect();
        let listed = if listed.len() == 1 { listed.concat() } else { format!("[{}]", listed.join(", ")) };
        let qualified = if group.is_empty() { kind.to_owned() } else { format!("{kind}.{group}") };
        let mut status = Self::failure(422, "Invalid", format!("{qualified} {name:?} is invalid: {listed}"));
        status.details =
            Some(Details { name: name.to_owned(), group: group.to_owned(), kind: kind.to_owned(), causes, ..Details::default() });
        status
    }

    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::failure(400, "BadRequest", message)
    }

    pub fn forbidden(resource: ResourceRef, name: &str, why: &str) -> Self {
        Self::failure(403, "Forbidden", format!("{} {name:?} is forbidden: {why}", resource.qualified())).about(resource, name)
    }

    /// The requested resource version is older than the retained history.
    pub fn expired(message: impl Into<String>) -> Self {
        Self::failure(410, "Expired", message)
    }

    pub fn too_many_requests(message: impl Into<String>, retry_after_seconds: u32) -> Self {
        let mut status = Self::failure(429, "TooManyRequests", message);
        status.details = Some(Details { retry_after_seconds: Some(retry_after_seconds), ..Details::default() });
        status
    }

    /// The server cannot answer now, for example because its store is out of reach.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::failure(503, "ServiceUnavailable", message)
    }

    pub fn timeout(message: impl Into<String>, retry_after_seconds: u32) -> Self {
        let mut status = Self::failure(504, "Timeout", message);
        status.details = Some(Details { retry_after_seconds: Some(retry_after_seconds), ..Details::default() });
        status
    }

    pub fn internal(message: impl std::fmt::Display) -> Self {
        Self::failure(500, "InternalError", format!("Internal error occurred: {message}"))
    }

    /// Whether the request failed for this reason.
    pub fn is(&self, reason: &str) -> bool {
        self.reason == reason
    }
}

impl Cause {
    /// The common causes of `k8s.io/apimachinery` `util/validation/field`, each with its wording.
    pub fn required(field: impl Into<String>, detail: &str) -> Self {
        let message = if detail.is_empty() { "Required value".to_owned() } else { format!("Required value: {detail}") };
        Self { reason: "FieldValueRequired".to_owned(), message, field: field.into() }
    }

    /// `value` is printed as JSON, except strings (quoted as Go does) and null (printed as `"null"`).
    pub fn invalid(field: impl Into<String>, value: &serde_json::Value, detail: &str) -> Self {
        let shown = match value {
            serde_json::Value::Null => "\"null\"".to_owned(),
            serde_json::Value::String(text) => go::quote(text),
            value => value.to_string(),
        };
        Self::invalid_shown(field, &shown, detail)
    }

    pub fn not_supported(field: impl Into<String>, value: &str, supported: &[&str]) -> Self {
        let listed = supported.iter().map(|it| format!("{it:?}")).collect::<Vec<_>>().join(", ");
        Self {
            reason: "FieldValueNotSupported".to_owned(),
            message: format!("Unsupported value: {value:?}: supported values: {listed}"),
            field: field.into(),
        }
    }

    pub fn duplicate(field: impl Into<String>, value: &serde_json::Value) -> Self {
        Self { reason: "FieldValueDuplicate".to_owned(), message: format!("Duplicate value: {value}"), field: field.into() }
    }

    /// As [`Cause::invalid`], with `shown` as the printed value (Go's form of it).
    pub fn invalid_shown(field: impl Into<String>, shown: &str, detail: &str) -> Self {
        let colon = if detail.is_empty() { "" } else { ": " };
        Self { reason: "FieldValueInvalid".to_owned(), message: format!("Invalid value: {shown}{colon}{detail}"), field: field.into() }
    }

    /// A reference to something that does not exist in the object.
    pub fn not_found(field: impl Into<String>, value: &str) -> Self {
        Self { reason: "FieldValueNotFound".to_owned(), message: format!("Not found: {value:?}"), field: field.into() }
    }

    pub fn too_long(field: impl Into<String>, bytes: usize) -> Self {
        let message = format!("Too long: may not be more than {bytes} bytes");
        Self { reason: "FieldValueTooLong".to_owned(), message, field: field.into() }
    }

    pub fn too_many(field: impl Into<String>, found: usize, most: usize) -> Self {
        let message = format!("Too many: {found}: must have at most {most} items");
        Self { reason: "FieldValueTooMany".to_owned(), message, field: field.into() }
    }

    pub fn forbidden(field: impl Into<String>, detail: &str) -> Self {
        Self { reason: "FieldValueForbidden".to_owned(), message: format!("Forbidden: {detail}"), field: field.into() }
    }
}
