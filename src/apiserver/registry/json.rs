//! Objects as JSON values, while they are being written: [`crate::util::json`], the current time, and the form in the store.

use serde_json::{Map, Value};

use crate::codec::apply::Managers;
pub(crate) use crate::util::json::*;

/// The current time as `metav1.Time`.
pub(crate) fn now() -> String {
    time(jiff::Timestamp::now())
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
