//! Reading and changing JSON trees. Nothing here fails: a value that is absent or of another type reads as empty.

use serde_json::{Map, Value};

/// The value at a path of fields such as `/metadata/name`. Only fields, and none with a slash in its name; [`Value::pointer`] supports
/// these, at two allocations per field.
pub fn at<'a>(value: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('/').skip(1).try_fold(value, |it, field| it.get(field))
}

/// The string at a path of fields; empty if there is none.
pub fn text<'a>(value: &'a Value, path: &str) -> &'a str {
    at(value, path).and_then(Value::as_str).unwrap_or_default()
}

pub fn integer(value: &Value, path: &str) -> Option<i64> {
    at(value, path).and_then(Value::as_i64)
}

pub fn items<'a>(value: &'a Value, path: &str) -> &'a [Value] {
    at(value, path).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// The object at a key of an object, made if it is not there (or is no object).
pub fn map<'a>(value: &'a mut Value, key: &str) -> &'a mut Map<String, Value> {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    let Value::Object(parent) = value else { unreachable!("it was just made one") };
    entry_map(parent, key)
}

pub fn entry_map<'a>(parent: &'a mut Map<String, Value>, key: &str) -> &'a mut Map<String, Value> {
    let child = parent.entry(key).or_insert_with(|| Value::Object(Map::new()));
    if !child.is_object() {
        *child = Value::Object(Map::new());
    }
    let Value::Object(child) = child else { unreachable!("it was just made one") };
    child
}

pub fn metadata(value: &mut Value) -> &mut Map<String, Value> {
    map(value, "metadata")
}

/// Copies a key from another value; removes it if the other value lacks it.
pub fn take_over(new: &mut Map<String, Value>, old: Option<&Value>, key: &str) {
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
pub fn move_over(new: &mut Map<String, Value>, old: Option<&mut Value>, key: &str) {
    match old.and_then(|it| it.as_object_mut()?.remove(key)) {
        Some(value) => drop(new.insert(key.to_owned(), value)),
        None => drop(new.remove(key)),
    }
}

/// Sets a key if it is absent or null.
pub fn set_default(map: &mut Map<String, Value>, key: &str, value: impl Into<Value>) {
    if map.get(key).is_none_or(Value::is_null) {
        map.insert(key.to_owned(), value.into());
    }
}

/// A time as `metav1.Time`.
pub fn time(at: jiff::Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
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
}
