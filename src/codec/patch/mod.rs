//! The three kinds of patch that need only the current object: JSON, merge and strategic merge.

mod json;
mod merge;
mod order;
mod strategic;

use serde_json::Value;

use crate::object::status::Details;
use crate::object::{ResourceRef, Status, schema};

/// The kinds of patch a server takes, by their `Content-Type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PatchKind {
    Json,
    Merge,
    Strategic,
    Apply,
}

impl PatchKind {
    /// The kind with this media type (parameters are passed over).
    pub fn of_media_type(content_type: &str) -> Option<Self> {
        match content_type.split(';').next().unwrap_or_default().trim() {
            "application/json-patch+json" => Some(Self::Json),
            "application/merge-patch+json" => Some(Self::Merge),
            "application/strategic-merge-patch+json" => Some(Self::Strategic),
            "application/apply-patch+yaml" => Some(Self::Apply),
            _ => None,
        }
    }
}

/// Why a patch cannot be applied.
#[derive(Clone, Debug, PartialEq, Eq)]
enum PatchError {
    /// It is not a patch of its kind.
    Malformed(String),
    /// It exceeds the limits of a patch.
    TooLarge(String),
    /// One of its operations cannot be applied to the object. Kubernetes does not report which, or why.
    Unfit,
    /// It is inconsistent, which Kubernetes reports as an internal error.
    Senseless(String),
}

/// Applies a patch (any kind but `Apply`) to `current`. The result must still be decoded, defaulted and validated.
///
/// # Errors
/// 400 for a malformed patch, 413 for too many operations, 422 for one that cannot be applied to the object, 500 for an inconsistent one.
pub fn patch(resource: ResourceRef, current: &Value, kind: PatchKind, patch: &Value) -> Result<Value, Box<Status>> {
    let result = match kind {
        PatchKind::Json => json::apply(current, patch),
        PatchKind::Merge => merge::apply(current, patch),
        PatchKind::Strategic => strategic::apply(&schema::get, resource.schema, current, patch),
        PatchKind::Apply => Err(PatchError::Malformed("an apply patch needs the field managers of the object".to_owned())),
    };
    result.map_err(|error| Box::new(error.into_status()))
}

impl PatchError {
    fn into_status(self) -> Status {
        match self {
            Self::Malformed(message) => Status::bad_request(message),
            Self::TooLarge(message) => Status::failure(413, "RequestEntityTooLarge", format!("Request entity too large: {message}")),
            Self::Unfit => {
                let status = Status::failure(422, "Invalid", "the server rejected our request due to an error in our request");
                Status { details: Some(Details::default()), ..status }
            }
            Self::Senseless(message) => Status::failure(500, "", message),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::object::resource;

    #[test]
    fn what_kubectl_set_sends() {
        let deployment = json!({"metadata": {"name": "web", "finalizers": ["a"]}, "spec": {"template": {"spec": {
            "containers": [
                {"name": "a", "image": "x:1", "env": [{"name": "A", "value": "1"}], "ports": [{"containerPort": 80, "protocol": "TCP"}]},
                {"name": "b", "image": "y:1"}],
            "volumes": [{"name": "v", "emptyDir": {}}],
            "tolerations": [{"key": "k"}]}}}});
        let change = json!({"metadata": {"finalizers": ["b"]}, "spec": {"template": {"spec": {
            "$setElementOrder/containers": [{"name": "a"}, {"name": "b"}],
            "containers": [
                {"name": "a", "image": "x:2", "env": [{"name": "B", "value": "2"}], "ports": [{"containerPort": 80, "name": "http"}]},
                {"name": "b", "$patch": "delete"}],
            "volumes": [{"$retainKeys": ["name", "configMap"], "name": "v", "configMap": {"name": "c"}}],
            "tolerations": [{"key": "l"}]}}}});
        let result = patch(&resource::DEPLOYMENT, &deployment, PatchKind::Strategic, &change).unwrap();
        assert_eq!(
            result,
            json!({"metadata": {"name": "web", "finalizers": ["b", "a"]}, "spec": {"template": {"spec": {
                "containers": [{"name": "a", "image": "x:2", "env": [{"name": "B", "value": "2"}, {"name": "A", "value": "1"}],
                    "ports": [{"containerPort": 80, "protocol": "TCP", "name": "http"}]}],
                "volumes": [{"name": "v", "configMap": {"name": "c"}}],
                "tolerations": [{"key": "l"}]}}}})
        );
    }

    #[test]
    fn failures_are_statuses() {
        let pod = json!({"metadata": {"name": "a"}, "spec": {"containers": [{"name": "c"}]}});
        for (kind, body, code, reason) in [
            (PatchKind::Json, json!({}), 400, "BadRequest"),
            (PatchKind::Json, json!([{"op": "remove", "path": "/x"}]), 422, "Invalid"),
            (PatchKind::Merge, json!([]), 400, "BadRequest"),
            (PatchKind::Strategic, json!([]), 400, "BadRequest"),
            (PatchKind::Strategic, json!({"$patch": "x"}), 500, ""),
            (PatchKind::Strategic, json!({"spec": {"containers": [{}]}}), 500, ""),
            (PatchKind::Apply, json!({}), 400, "BadRequest"),
        ] {
            let status = patch(&resource::POD, &pod, kind, &body).unwrap_err();
            assert_eq!((status.code, status.reason.as_str()), (code, reason), "{body}");
        }
        assert_eq!(PatchKind::of_media_type("application/merge-patch+json; charset=utf-8"), Some(PatchKind::Merge));
        assert_eq!(PatchKind::of_media_type("application/json"), None);
    }
}

#[cfg(test)]
mod testing {
    use proptest::prelude::*;
    use serde_json::Value;

    /// Any JSON without nulls, a few levels deep, of few distinct keys.
    pub(super) fn json_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![any::<bool>().prop_map(Value::from), (0..4_i64).prop_map(Value::from), "[a-c]{0,2}".prop_map(Value::from)];
        leaf.prop_recursive(4, 32, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map("[a-d]", inner, 0..4).prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }
}
