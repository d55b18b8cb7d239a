//! RFC 7396: the fields of an object replace those of the current one; null removes.

use serde_json::{Map, Value};

use super::{PatchError, json};
use crate::util::go_json;

pub(super) fn apply(current: &Value, patch: &Value) -> Result<Value, PatchError> {
    match patch {
        Value::Object(_) => {}
        Value::Null => return Err(PatchError::Malformed("Invalid JSON Patch".to_owned())),
        other => return Err(PatchError::Malformed(format!("error decoding patch: {}", go_json::unmarshal(other, json::MAP)))),
    }
    let mut merged = current.clone();
    merge(&mut merged, patch);
    Ok(merged)
}

/// Merges `patch` into `target`; the fields that stay keep their order.
fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Value::Object(target) = target else { return };
    for (key, value) in patch {
        if value.is_null() {
            target.remove(key);
        } else {
            merge(target.entry(key.as_str()).or_insert(Value::Null), value);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::super::testing::json_value;
    use super::*;

    #[test]
    fn examples_of_the_rfc() {
        for (target, patch, result) in [
            (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "b"}), json!({"b": "c"}), json!({"a": "b", "b": "c"})),
            (json!({"a": "b"}), json!({"a": null}), json!({})),
            (json!({"a": "b", "b": "c"}), json!({"a": null}), json!({"b": "c"})),
            (json!({"a": ["b"]}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "c"}), json!({"a": ["b"]}), json!({"a": ["b"]})),
            (json!({"a": {"b": "c"}}), json!({"a": {"b": "d", "c": null}}), json!({"a": {"b": "d"}})),
            (json!({"a": [{"b": "c"}]}), json!({"a": [1]}), json!({"a": [1]})),
            (json!({"e": null}), json!({"a": 1}), json!({"e": null, "a": 1})),
            (json!([1, 2]), json!({"a": "b", "c": null}), json!({"a": "b"})),
            (json!({}), json!({"a": {"bb": {"ccc": null}}}), json!({"a": {"bb": {}}})),
        ] {
            assert_eq!(apply(&target, &patch).unwrap(), result, "{target} {patch}");
        }
        for patch in [json!([]), json!("a"), json!(null)] {
            assert!(matches!(apply(&json!({}), &patch), Err(PatchError::Malformed(_))));
        }
    }

    /// A patch that turns `from` into `to`, if `to` has no nulls.
    fn difference(from: &Map<String, Value>, to: &Map<String, Value>) -> Value {
        let mut patch = Map::new();
        for key in from.keys().filter(|key| !to.contains_key(*key)) {
            patch.insert(key.clone(), Value::Null);
        }
        for (key, value) in to {
            match (from.get(key), value) {
                (Some(old), new) if old == new => {}
                (Some(Value::Object(old)), Value::Object(new)) => {
                    patch.insert(key.clone(), difference(old, new));
                }
                _ => {
                    patch.insert(key.clone(), value.clone());
                }
            }
        }
        Value::Object(patch)
    }

    proptest! {
        #[test]
        fn a_difference_applied_gives_the_other_object(a in json_value(), b in json_value()) {
            let (a, b) = (json!({"x": a}), json!({"x": b}));
            let (Value::Object(from), Value::Object(to)) = (&a, &b) else { unreachable!() };
            let patch = difference(from, to);
            let once = apply(&a, &patch).unwrap();
            prop_assert_eq!(&once, &b);
            prop_assert_eq!(apply(&once, &patch).unwrap(), once);
            prop_assert_eq!(apply(&a, &json!({})).unwrap(), a);
        }
    }
}
