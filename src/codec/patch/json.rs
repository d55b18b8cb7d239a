//! RFC 6902: a list of operations.

use json_patch::{Patch, PatchErrorKind, PatchOperation};
use serde_json::Value;

use super::PatchError;

/// The most operations in one patch.
const OPERATIONS: usize = 10_000;
/// The most bytes that the `copy` operations of one patch may add; without a limit a small patch could fill the memory.
const COPIED: usize = 3 * 1024 * 1024;

pub(super) fn apply(current: &Value, patch: &Value) -> Result<Value, PatchError> {
    let kind = match patch {
        Value::Object(_) => "object",
        Value::String(_) => "string",
        Value::Number(_) => "number",
        Value::Bool(_) => "bool",
        Value::Array(_) | Value::Null => "",
    };
    if !kind.is_empty() {
        let message = format!("error decoding patch: json: cannot unmarshal {kind} into Go value of type jsonpatch.Patch");
        return Err(PatchError::Malformed(message));
    }
    let Patch(operations) =
        serde_json::from_value(patch.clone()).map_err(|error| PatchError::Malformed(format!("error decoding patch: {error}")))?;
    if operations.len() > OPERATIONS {
        let count = operations.len();
        return Err(PatchError::TooLarge(format!("The allowed maximum operations in a JSON patch is {OPERATIONS}, got {count}")));
    }
    let mut document = current.clone();
    let mut copied = 0;
    for operation in &operations {
        if let PatchOperation::Copy(copy) = operation {
            copied += document.pointer(copy.from.as_str()).map_or(0, |it| it.to_string().len());
            if copied > COPIED {
                return Err(PatchError::Unfit(format!(
                    "Unable to copy, the accumulated size increase of copy is {copied}, exceeding the limit {COPIED}"
                )));
            }
        }
        match json_patch::patch_unsafe(&mut document, std::slice::from_ref(operation)) {
            Err(_) if tests_for_absence(operation, &document) => {}
            Err(error) => return Err(PatchError::Unfit(describe(operation, &error.kind))),
            Ok(()) => {}
        }
    }
    Ok(document)
}

/// Kubernetes lets a test for null pass where there is nothing.
fn tests_for_absence(operation: &PatchOperation, document: &Value) -> bool {
    matches!(operation, PatchOperation::Test(test) if test.value.is_null() && document.pointer(test.path.as_str()).is_none())
}

fn describe(operation: &PatchOperation, kind: &PatchErrorKind) -> String {
    let path = operation.path();
    let name = match operation {
        PatchOperation::Add(_) => "add",
        PatchOperation::Remove(_) => "remove",
        PatchOperation::Replace(_) => "replace",
        PatchOperation::Move(_) => "move",
        PatchOperation::Copy(_) => "copy",
        PatchOperation::Test(_) => "test",
    };
    match kind {
        PatchErrorKind::TestFailed => format!("testing path {path} failed"),
        PatchErrorKind::InvalidPointer => format!("{name} operation does not apply: doc is missing path: {path}"),
        PatchErrorKind::InvalidFromPointer => match operation {
            PatchOperation::Move(it) => format!("{name} operation does not apply: doc is missing from path: {}", it.from),
            PatchOperation::Copy(it) => format!("{name} operation does not apply: doc is missing from path: {}", it.from),
            _ => format!("{name} operation does not apply: doc is missing path: {path}"),
        },
        other => format!("{name} operation does not apply: {other}: {path}"),
    }
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
            (json!([{"op": "test", "path": "/a/b", "value": 2}]), Err("testing path /a/b failed")),
            (json!([{"op": "remove", "path": "/x"}]), Err("remove operation does not apply: doc is missing path: /x")),
            (json!([{"op": "replace", "path": "/a/x", "value": 1}]), Err("replace operation does not apply: doc is missing path: /a/x")),
            (json!([{"op": "add", "path": "/x/y", "value": 1}]), Err("add operation does not apply: doc is missing path: /x/y")),
            (json!([{"op": "copy", "from": "/x", "path": "/y"}]), Err("copy operation does not apply: doc is missing from path: /x")),
        ] {
            match (apply(&current, &patch), expected) {
                (Ok(result), Ok(expected)) => assert_eq!(result, expected, "{patch}"),
                (Err(PatchError::Unfit(message)), Err(expected)) => assert_eq!(message, expected, "{patch}"),
                (result, expected) => panic!("{patch}: {result:?}, not {expected:?}"),
            }
        }
    }

    #[test]
    fn what_is_not_a_patch() {
        for patch in [json!({}), json!("x"), json!([{"op": "jump", "path": "/a"}]), json!([{"op": "add", "path": "/a"}])] {
            assert!(matches!(apply(&json!({}), &patch), Err(PatchError::Malformed(_))), "{patch}");
        }
        let many = json!(vec![json!({"op": "remove", "path": "/a"}); OPERATIONS + 1]);
        assert!(matches!(apply(&json!({}), &many), Err(PatchError::TooLarge(_))));
    }

    #[test]
    fn copies_cannot_fill_the_memory() {
        let current = json!({"a": ["x".repeat(1000)]});
        let bomb = json!(vec![json!({"op": "copy", "from": "/a", "path": "/a/-"}); 40]);
        assert!(matches!(apply(&current, &bomb), Err(PatchError::Unfit(message)) if message.starts_with("Unable to copy")));
    }
}
