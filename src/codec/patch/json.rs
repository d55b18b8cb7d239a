//! RFC 6902: a list of operations.

use json_patch::PatchOperation;
use serde_json::Value;

use super::PatchError;
use crate::util::go_json;

/// The most operations in one patch.
const OPERATIONS: usize = 10_000;
/// The most bytes that the `copy` operations of one patch may add; without a limit a small patch could fill the memory.
const COPIED: usize = 3 * 1024 * 1024;

pub(super) fn apply(current: &Value, patch: &Value) -> Result<Value, PatchError> {
    let none = Vec::new();
    let operations = match patch {
        Value::Array(operations) => operations,
        Value::Null => &none,
        other => return Err(malformed(other, "[]handlers.jsonPatchOp")),
    };
    if let Some(other) = operations.iter().find(|it| !it.is_object()) {
        return Err(malformed(other, "handlers.jsonPatchOp"));
    }
    if operations.len() > OPERATIONS {
        let count = operations.len();
        return Err(PatchError::TooLarge(format!("The allowed maximum operations in a JSON patch is {OPERATIONS}, got {count}")));
    }
    let mut document = current.clone();
    let mut copied = 0;
    for operation in operations {
        let operation = read(operation).ok_or(PatchError::Unfit)?;
        if let PatchOperation::Copy(copy) = &operation {
            copied += document.pointer(copy.from.as_str()).map_or(0, |it| it.to_string().len());
            if copied > COPIED {
                return Err(PatchError::Unfit);
            }
        }
        let done = json_patch::patch_unsafe(&mut document, std::slice::from_ref(&operation)).is_ok();
        if !done && !tests_for_absence(&operation, &document) && !puts(&operation, &mut document) {
            return Err(PatchError::Unfit);
        }
    }
    Ok(document)
}

fn malformed(value: &Value, into: &str) -> PatchError {
    PatchError::Malformed(format!("error decoding patch: {}", go_json::unmarshal(value, into)))
}

pub(super) const MAP: &str = "map[string]interface {}";

/// An operation without a value has null for one.
fn read(operation: &Value) -> Option<PatchOperation> {
    let mut operation = operation.clone();
    operation.as_object_mut()?.entry("value").or_insert(Value::Null);
    serde_json::from_value(operation).ok()
}

/// Replaces a field of an object that is not there, as Kubernetes does; false if it is no such operation, or there is no such object.
fn puts(operation: &PatchOperation, document: &mut Value) -> bool {
    let PatchOperation::Replace(it) = operation else { return false };
    let Some((parent, last)) = it.path.split_back() else { return false };
    let Some(Value::Object(parent)) = document.pointer_mut(parent.as_str()) else { return false };
    parent.insert(last.decoded().into_owned(), it.value.clone());
    true
}

/// Kubernetes lets a test for null pass where there is nothing.
fn tests_for_absence(operation: &PatchOperation, document: &Value) -> bool {
    matches!(operation, PatchOperation::Test(test) if test.value.is_null() && document.pointer(test.path.as_str()).is_none())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn operations() {
        let current = json!({"a": {"b": 1}, "list": [1, 2]});
        for (patch, expected) in [
            (json!([]), Ok(current.clone())),
            (json!([{"op": "add", "path": "/c", "value": "x"}]), Ok(json!({"a": {"b": 1}, "list": [1, 2], "c": "x"}))),
            (json!([{"op": "add", "path": "/list/-", "value": 3}]), Ok(json!({"a": {"b": 1}, "list": [1, 2, 3]}))),
            (json!([{"op": "remove", "path": "/a/b"}, {"op": "remove", "path": "/list/0"}]), Ok(json!({"a": {}, "list": [2]}))),
            (json!([{"op": "move", "from": "/a/b", "path": "/b"}]), Ok(json!({"a": {}, "list": [1, 2], "b": 1}))),
            (json!([{"op": "copy", "from": "/list/1", "path": "/list/0"}]), Ok(json!({"a": {"b": 1}, "list": [2, 1, 2]}))),
            (json!([{"op": "test", "path": "/none", "value": null}]), Ok(current.clone())),
            (json!([{"op": "add", "path": "/c"}]), Ok(json!({"a": {"b": 1}, "list": [1, 2], "c": null}))),
            (json!(null), Ok(current.clone())),
            (json!([{"op": "test", "path": "/a/b", "value": 2}]), Err(PatchError::Unfit)),
            (json!([{"op": "remove", "path": "/x"}]), Err(PatchError::Unfit)),
            (json!([{"op": "replace", "path": "/a/x~1y", "value": 1}]), Ok(json!({"a": {"b": 1, "x/y": 1}, "list": [1, 2]}))),
            (json!([{"op": "replace", "path": "/x/y", "value": 1}]), Err(PatchError::Unfit)),
            (json!([{"op": "replace", "path": "/list/2", "value": 1}]), Err(PatchError::Unfit)),
            (json!([{"op": "add", "path": "/x/y", "value": 1}]), Err(PatchError::Unfit)),
            (json!([{"op": "copy", "from": "/x", "path": "/y"}]), Err(PatchError::Unfit)),
            (json!([{"op": "jump", "path": "/a"}]), Err(PatchError::Unfit)),
            (json!([{"op": "add", "path": "x", "value": 1}]), Err(PatchError::Unfit)),
            (json!([{"op": "add"}]), Err(PatchError::Unfit)),
        ] {
            assert_eq!(apply(&current, &patch), expected, "{patch}");
        }
    }

    #[test]
    fn what_is_not_a_patch() {
        for (patch, kind) in [
            (json!({}), "object into Go value of type []handlers.jsonPatchOp"),
            (json!("x"), "string into Go value of type []handlers.jsonPatchOp"),
            (json!(["x"]), "string into Go value of type handlers.jsonPatchOp"),
        ] {
            let message = format!("error decoding patch: json: cannot unmarshal {kind}");
            assert_eq!(apply(&json!({}), &patch), Err(PatchError::Malformed(message)));
        }
        let many = json!(vec![json!({"op": "remove", "path": "/a"}); OPERATIONS + 1]);
        assert!(matches!(apply(&json!({}), &many), Err(PatchError::TooLarge(_))));
    }

    #[test]
    fn copies_cannot_fill_the_memory() {
        let current = json!({"a": ["x".repeat(1000)]});
        let bomb = json!(vec![json!({"op": "copy", "from": "/a", "path": "/a/-"}); 40]);
        assert_eq!(apply(&current, &bomb), Err(PatchError::Unfit));
    }
}
