//! Objects as JSON values, while they are being written.

use serde_json::{Map, Value};

use crate::codec::apply::Managers;

/// The value at a path of fields such as `/metadata/name`. Only fields, and none with a slash in its name; [`Value::pointer`] supports
/// these, at two allocations per field.
pub(crate) fn at<'a>(value: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('/').skip(1).try_fold(value, |it, field| it.get(field))
}

/// The string at a path of fields; empty if there is none.
pub(crate) fn text<'a>(value: &'a Value, path: &str) -> &'a str {
    at(value, path).and_then(Value::as_str).unwrap_or_default()
}

pub(crate) fn integer(value: &Value, path: &str) -> Option<i64> {
    at(value, path).and_then(Value::as_i64)
}

pub(crate) fn items<'a>(value: &'a Value, path: &str) -> &'a [Value] {
    at(value, path).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// The object at a key of an object, made if it is not there (or is no object).
pub(crate) fn map<'a>(value: &'a mut Value, key: &str) -> &'a mut Map<String, Value> {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    let Value::Object(parent) = value else { unreachable!("it was just made one") };
    entry_map(parent, key)
}

pub(crate) fn entry_map<'a>(parent: &'a mut Map<String, Value>, key: &str) -> &'a mut Map<String, Value> {
    let child = parent.entry(key).or_insert_with(|| Value::Object(Map::new()));
    if !child.is_object() {
        *child = Value::Object(Map::new());
    }
    let Value::Object(child) = child else { unreachable!("it was just made one") };
    child
}

pub(crate) fn metadata(value: &mut Value) -> &mut Map<String, Value> {
    map(value, "metadata")
}

/// Copies a key from another value; removes it if the other value lacks it.
pub(crate) fn take_over(new: &mut Map<String, Value>, old: Option<&Value>, key: &str) {
    match old.and_then(|it| it.get(key)) {
        Some(value) => {
            new.insert(key.to_owned(), value.clone());
        }
        None => {
            new.remove(key);
        }
    }
}

/// As [`take_over`], from a value that is not needed any more.
pub(crate) fn move_over(new: &mut Map<String, Value>, old: Option<&mut Value>, key: &str) {
    match old.and_then(|it| it.as_object_mut()?.remove(key)) {
        Some(value) => drop(new.insert(key.to_owned(), value)),
        None => drop(new.remove(key)),
    }
}

/// Sets a key if it is absent or null.
pub(crate) fn set_default(map: &mut Map<String, Value>, key: &str, value: impl Into<Value>) {
    if map.get(key).is_none_or(Value::is_null) {
        map.insert(key.to_owned(), value.into());
    }
}

/// The current time as `metav1.Time`.
pub(crate) fn now() -> String {
    time(jiff::Timestamp::now())
}

pub(crate) fn time(at: jiff::Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Most objects are smaller.
const SIZE: usize = 4096;

/// An object as the store keeps it: kind and version first, then the metadata without a resource version, then the rest. Its managed
/// fields may lie beside it. Also where its metadata begins, behind the brace.
pub(crate) fn encode(value: &Value, managers: Option<&Managers>) -> (Vec<u8>, usize) {
    let mut out = Vec::with_capacity(SIZE);
    let empty = Map::new();
    let top = value.as_object().unwrap_or(&empty);
    out.push(b'{');
    for key in ["kind", "apiVersion"] {
        if let Some(value) = top.get(key) {
            pair(&mut out, key, value);
        }
    }
    if out.len() > 1 {
        out.push(b',');
    }
    out.extend_from_slice(b"\"metadata\":{");
    let metadata = out.len();
    for (key, value) in top.get("metadata").and_then(Value::as_object).unwrap_or(&empty) {
        if !matches!(key.as_str(), "resourceVersion" | "selfLink") && !value.is_null() {
            pair(&mut out, key, value);
        }
    }
    if let Some(managers) = managers {
        name(&mut out, "managedFields");
        out.extend_from_slice(managers.json().as_bytes());
    }
    out.push(b'}');
    for (key, value) in top {
        if !matches!(key.as_str(), "kind" | "apiVersion" | "metadata") {
            pair(&mut out, key, value);
        }
    }
    out.push(b'}');
    (out, metadata)
}

fn pair(out: &mut Vec<u8>, key: &str, value: &Value) {
    name(out, key);
    write(out, value);
}

fn name(out: &mut Vec<u8>, key: &str) {
    if !out.ends_with(b"{") {
        out.push(b',');
    }
    write(out, &key);
    out.push(b':');
}

fn write(out: &mut Vec<u8>, value: &impl serde::Serialize) {
    serde_json::to_writer(out, value).expect("JSON values are always JSON");
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn paths_of_fields() {
        let value = json!({"metadata": {"name": "x", "generation": 3, "finalizers": ["a"]}, "a": 1});
        assert_eq!((text(&value, "/metadata/name"), integer(&value, "/metadata/generation")), ("x", Some(3)));
        assert_eq!(items(&value, "/metadata/finalizers"), ["a"]);
        assert_eq!((text(&value, "/metadata/uid"), text(&value, "/a/name"), text(&value, "/metadata/finalizers/0")), ("", "", ""));
        assert_eq!(at(&value, ""), Some(&value));
    }

    #[test]
    fn the_stored_form() {
        let value = json!({"spec": {"a": {}}, "metadata": {"resourceVersion": "3", "name": "x", "labels": {"a": "{"}}, "apiVersion": "v1", "kind": "Pod"});
        let expected = r#"{"kind":"Pod","apiVersion":"v1","metadata":{"labels":{"a":"{"},"name":"x"},"spec":{"a":{}}}"#;
        let text = |value: &Value, managers| String::from_utf8(encode(value, managers).0).unwrap();
        assert_eq!(text(&value, None), expected);
        assert!(expected[encode(&value, None).1..].starts_with(r#""labels":{"#));
        assert_eq!(text(&json!({}), None), r#"{"metadata":{}}"#);
        assert_eq!(text(&json!({"metadata": {"resourceVersion": "1"}, "data": {}}), None), r#"{"metadata":{},"data":{}}"#);
        let managers = Managers::from(&json!([{"manager": "a"}]));
        assert_eq!(
            text(&json!({"metadata": {"name": "x"}, "data": {}}), Some(&managers)),
            r#"{"metadata":{"name":"x","managedFields":[{"manager":"a"}]},"data":{}}"#
        );
    }
}
