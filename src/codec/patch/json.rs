//! RFC 6902 as in Kubernetes: an index may count from the end, a replaced value need not exist, and only `replace` and `test` support the
//! whole document.

use std::borrow::Cow;

use serde_json::{Map, Value};

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
    let (mut document, mut copied) = (current.clone(), 0);
    for operation in operations {
        perform(&mut document, operation, &mut copied).ok_or(PatchError::Unfit)?;
    }
    Ok(document)
}

fn malformed(value: &Value, into: &str) -> PatchError {
    PatchError::Malformed(format!("error decoding patch: {}", go_json::unmarshal(value, into)))
}

pub(super) const MAP: &str = "map[string]interface {}";

/// Performs one operation, with null for a missing value. `None` if it cannot be applied to the document.
fn perform(document: &mut Value, operation: &Value, copied: &mut usize) -> Option<()> {
    let text = |key: &str| operation.get(key)?.as_str();
    let value = || operation.get("value").cloned().unwrap_or_default();
    let path = || text("path");
    match text("op")? {
        "add" => Place::of(document, path()?)?.add(value()),
        "remove" => Place::of(document, path()?)?.remove().map(drop),
        "replace" if path()?.is_empty() => {
            // Anything else is passed over.
            if let it @ (Value::Object(_) | Value::Array(_)) = value() {
                *document = it;
            }
            Some(())
        }
        "replace" => {
            *Place::of(document, path()?)?.slot()? = value();
            Some(())
        }
        "move" => {
            let moved = Place::of(document, text("from")?)?.remove()?;
            Place::of(document, path()?)?.add(moved)
        }
        "copy" => {
            let copy = Place::of(document, text("from")?)?.get()?.into_owned();
            *copied += copy.to_string().len();
            if *copied > COPIED {
                return None;
            }
            Place::of(document, path()?)?.add(copy)
        }
        "test" if path()?.is_empty() => (*document == value()).then_some(()),
        "test" => (*Place::of(document, path()?)?.get()? == value()).then_some(()),
        _ => None,
    }
}

/// Where a pointer leads: a key of an object, or an index of a list. The whole document is no such place.
enum Place<'a> {
    Key(&'a mut Map<String, Value>, String),
    Index(&'a mut Vec<Value>, String),
}

impl<'a> Place<'a> {
    /// Text before the first slash is ignored.
    fn of(document: &'a mut Value, pointer: &str) -> Option<Self> {
        let (_, tokens) = pointer.split_once('/')?;
        let (above, last) = tokens.rsplit_once('/').map_or((None, tokens), |(above, last)| (Some(above), last));
        let mut parent = document;
        for token in above.into_iter().flat_map(|it| it.split('/')) {
            parent = match Self::in_parent(parent, token)? {
                Self::Key(map, key) => map.get_mut(&key)?,
                Self::Index(list, index) => {
                    let at = position(&index, list.len())?;
                    &mut list[at]
                }
            };
        }
        Self::in_parent(parent, last)
    }

    fn in_parent(parent: &'a mut Value, token: &str) -> Option<Self> {
        let token = token.replace("~1", "/").replace("~0", "~");
        match parent {
            Value::Object(map) => Some(Self::Key(map, token)),
            Value::Array(list) => Some(Self::Index(list, token)),
            _ => None,
        }
    }

    /// The value there; null for a missing key of an object.
    fn get(&self) -> Option<Cow<'_, Value>> {
        match self {
            Self::Key(map, key) => Some(map.get(key).map_or(Cow::Owned(Value::Null), Cow::Borrowed)),
            Self::Index(list, index) => position(index, list.len()).map(|at| Cow::Borrowed(&list[at])),
        }
    }

    /// Where a value is to go: a key that an object does not have comes into being.
    fn slot(self) -> Option<&'a mut Value> {
        match self {
            Self::Key(map, key) => Some(map.entry(key).or_insert(Value::Null)),
            Self::Index(list, index) => {
                let at = position(&index, list.len())?;
                Some(&mut list[at])
            }
        }
    }

    fn add(self, value: Value) -> Option<()> {
        match self {
            Self::Key(map, key) => drop(map.insert(key, value)),
            Self::Index(list, index) if index == "-" => list.push(value),
            Self::Index(list, index) => {
                let at = position(&index, list.len() + 1)?;
                list.insert(at, value);
            }
        }
        Some(())
    }

    fn remove(self) -> Option<Value> {
        match self {
            Self::Key(map, key) => map.remove(&key),
            Self::Index(list, index) => position(&index, list.len()).map(|at| list.remove(at)),
        }
    }
}

/// An index within this many places. A negative one counts from the end.
fn position(index: &str, places: usize) -> Option<usize> {
    let index: i64 = index.parse().ok()?;
    let at = if index < 0 { places.checked_sub(usize::try_from(index.unsigned_abs()).ok()?)? } else { usize::try_from(index).ok()? };
    (at < places).then_some(at)
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
            (json!([{"op": "jump", "path": "/a"}]), Err(PatchError::Unfit)),
            (json!([{"op": "add", "path": "x", "value": 1}]), Err(PatchError::Unfit)),
            (json!([{"op": "add"}]), Err(PatchError::Unfit)),
            (json!([{"op": "add", "path": null, "value": 1}]), Err(PatchError::Unfit)),
            (json!([{"op": "test", "path": "/x/y", "value": null}]), Err(PatchError::Unfit)),
            (json!([{"op": "test", "path": "/list/2", "value": null}]), Err(PatchError::Unfit)),
            (json!([{"op": "copy", "from": "/a/x", "path": "/y"}]), Ok(json!({"a": {"b": 1}, "list": [1, 2], "y": null}))),
            (json!([{"op": "add", "path": "x/a/c", "value": 2}]), Ok(json!({"a": {"b": 1, "c": 2}, "list": [1, 2]}))),
            (json!([{"op": "add", "path": "/a/~01", "value": 2}]), Ok(json!({"a": {"b": 1, "~1": 2}, "list": [1, 2]}))),
        ] {
            assert_eq!(apply(&current, &patch), expected, "{patch}");
        }
    }

    #[test]
    fn indexes_count_from_either_end() {
        let current = json!({"list": [1, 2, 3]});
        for (operation, expected) in [
            (json!({"op": "remove", "path": "/list/-1"}), Some(json!([1, 2]))),
            (json!({"op": "remove", "path": "/list/-3"}), Some(json!([2, 3]))),
            (json!({"op": "remove", "path": "/list/-4"}), None),
            (json!({"op": "add", "path": "/list/-1", "value": 4}), Some(json!([1, 2, 3, 4]))),
            (json!({"op": "add", "path": "/list/-4", "value": 4}), Some(json!([4, 1, 2, 3]))),
            (json!({"op": "add", "path": "/list/-5", "value": 4}), None),
            (json!({"op": "add", "path": "/list/3", "value": 4}), Some(json!([1, 2, 3, 4]))),
            (json!({"op": "add", "path": "/list/4", "value": 4}), None),
            (json!({"op": "add", "path": "/list/+1", "value": 4}), Some(json!([1, 4, 2, 3]))),
            (json!({"op": "add", "path": "/list/01", "value": 4}), Some(json!([1, 4, 2, 3]))),
            (json!({"op": "add", "path": "/list/x", "value": 4}), None),
            (json!({"op": "replace", "path": "/list/-2", "value": 4}), Some(json!([1, 4, 3]))),
            (json!({"op": "replace", "path": "/list/-", "value": 4}), None),
            (json!({"op": "test", "path": "/list/-1", "value": 3}), Some(json!([1, 2, 3]))),
            (json!({"op": "copy", "from": "/list/-1", "path": "/list/-"}), Some(json!([1, 2, 3, 3]))),
            (json!({"op": "move", "from": "/list/-1", "path": "/list/0"}), Some(json!([3, 1, 2]))),
        ] {
            let expected = expected.map(|list| json!({ "list": list })).ok_or(PatchError::Unfit);
            assert_eq!(apply(&current, &json!([operation])), expected, "{operation}");
        }
    }

    #[test]
    fn the_whole_document_is_only_replaced_and_tested() {
        let current = json!({"a": {"b": 1}});
        for (operation, expected) in [
            (json!({"op": "replace", "path": "", "value": {"x": 1}}), Some(json!({"x": 1}))),
            (json!({"op": "replace", "path": "", "value": 5}), Some(current.clone())),
            (json!({"op": "test", "path": "", "value": current}), Some(current.clone())),
            (json!({"op": "test", "path": "", "value": {}}), None),
            (json!({"op": "add", "path": "", "value": {}}), None),
            (json!({"op": "remove", "path": ""}), None),
            (json!({"op": "copy", "from": "/a", "path": ""}), None),
            (json!({"op": "move", "from": "", "path": "/x"}), None),
        ] {
            assert_eq!(apply(&current, &json!([operation])), expected.ok_or(PatchError::Unfit), "{operation}");
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
