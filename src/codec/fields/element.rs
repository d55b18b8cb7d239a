//! The elements of paths, each a string with its kind before a colon: `f:` a field or a key of a map, `k:` an item of a list by the fields
//! that identify it, `v:` an item of a set of scalars, `i:` an item by its place.

use std::fmt::Write;

use serde_json::{Map, Value};

use crate::object::schema::{Shape, Type};
use crate::util::go;

pub(crate) fn field(name: &str) -> String {
    let mut element = String::with_capacity(2 + name.len());
    element.push_str("f:");
    element.push_str(name);
    element
}

/// The element of an item in a list of objects of type `kind` with these `keys`. A missing key has its default or zero value: validation
/// reports missing keys better.
///
/// # Errors
/// If the item is not an object.
pub(crate) fn key(item: &Value, keys: &[&'static str], kind: Option<&Type>) -> Result<String, String> {
    let fields = match item {
        Value::Object(fields) => fields,
        Value::Null => return Err("associative list with keys may not have a null element".to_owned()),
        _ => return Err("associative list with keys may not have non-map elements".to_owned()),
    };
    let mut element = String::with_capacity(64);
    element.push_str("k:{");
    let mut sorted = keys.to_vec();
    sorted.sort_unstable();
    for (at, name) in sorted.into_iter().enumerate() {
        element.extend([if at == 0 { "\"" } else { ",\"" }, name, "\":"]);
        match (fields.get(name), kind.and_then(|it| it.field(name))) {
            (Some(value), _) => push(&mut element, value),
            (None, Some(field)) => element.push_str(field.default.unwrap_or(match field.shape {
                Shape::Int32 | Shape::Int64 => "0",
                _ => "\"\"",
            })),
            (None, None) => {
                return Err(format!(
                    "associative list with keys has an element that omits key field {name:?} (and doesn't have default value)"
                ));
            }
        }
    }
    element.push('}');
    Ok(element)
}

/// The element of an item of a set.
///
/// # Errors
/// If it is not a scalar.
pub(crate) fn value(item: &Value) -> Result<String, String> {
    match item {
        Value::Object(_) => Err("associative list without keys has an element that's a map type".to_owned()),
        Value::Array(_) => Err("not supported: associative list with lists as elements".to_owned()),
        Value::Null => Err("associative list without keys has an element that's an explicit null".to_owned()),
        scalar => {
            let mut element = String::from("v:");
            push(&mut element, scalar);
            Ok(element)
        }
    }
}

fn push(element: &mut String, value: &Value) {
    let _ = match value {
        Value::String(text) if text.bytes().all(is_plain) => {
            element.extend(["\"", text.as_str(), "\""]);
            Ok(())
        }
        value => write!(element, "{value}"),
    };
}

/// Whether a byte of a string stands for itself in JSON.
pub(crate) fn is_plain(byte: u8) -> bool {
    byte >= b' ' && byte != b'"' && byte != b'\\'
}

/// The canonical form of an element; `None` if its kind is unknown.
///
/// # Errors
/// If it is not an element.
pub(super) fn canonical(element: String) -> Result<Option<String>, String> {
    let Some((kind, text)) = element.split_once(':') else { return Err(format!("missing colon: {element:?}")) };
    match kind {
        "f" => Ok(Some(element)),
        "k" => {
            let mut fields: Map<String, Value> =
                serde_json::from_str(text).map_err(|_| format!("unable to parse key {text:?} as a map"))?;
            fields.sort_keys();
            Ok(Some(format!("k:{}", Value::Object(fields))))
        }
        "v" => {
            let value: Value = serde_json::from_str(text).map_err(|_| format!("unable to parse value {text:?}"))?;
            Ok(Some(format!("v:{value}")))
        }
        "i" => {
            let index: u64 = text.parse().map_err(|_| format!("unable to parse index {text:?}"))?;
            Ok(Some(format!("i:{index}")))
        }
        _ => Ok(None),
    }
}

/// A path as people read it: `.spec.template.spec.containers[name="web"].image`.
pub(crate) fn print(path: &[&str]) -> String {
    path.iter().map(|it| print_one(it)).collect()
}

/// An element as people read it.
pub(crate) fn print_one(element: &str) -> String {
    let (kind, text) = element.split_once(':').unwrap_or(("", element));
    match kind {
        "f" => format!(".{text}"),
        "k" => {
            let fields: Map<String, Value> = serde_json::from_str(text).unwrap_or_default();
            let pairs: Vec<String> = fields.iter().map(|(name, value)| format!("{name}={}", scalar(value))).collect();
            format!("[{}]", pairs.join(","))
        }
        "v" => format!("[={}]", serde_json::from_str(text).map_or_else(|_| text.to_owned(), |it: Value| scalar(&it))),
        _ => format!("[{text}]"),
    }
}

fn scalar(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), go::quote)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::object::schema;

    #[test]
    fn elements_of_items() {
        let port = schema::get("io.k8s.api.core.v1.ContainerPort");
        let keys = ["containerPort", "protocol"];
        let element = |item| key(&item, &keys, port);
        assert_eq!(element(json!({"containerPort": 80, "name": "x"})).unwrap(), r#"k:{"containerPort":80,"protocol":"TCP"}"#);
        assert_eq!(element(json!({"protocol": "UDP", "containerPort": 80})).unwrap(), r#"k:{"containerPort":80,"protocol":"UDP"}"#);
        assert_eq!(element(json!({"name": "x"})).unwrap(), r#"k:{"containerPort":0,"protocol":"TCP"}"#);
        assert_eq!(key(&json!({}), &["name"], schema::get("io.k8s.api.core.v1.Container")).unwrap(), r#"k:{"name":""}"#);
        for (item, why) in [
            (json!("x"), "associative list with keys may not have non-map elements"),
            (json!(null), "associative list with keys may not have a null element"),
        ] {
            assert_eq!(element(item).unwrap_err(), why);
        }
        assert_eq!(value(&json!("a\"b")).unwrap(), r#"v:"a\"b""#);
        assert!(value(&json!({})).is_err() && value(&json!([])).is_err() && value(&json!(null)).is_err());
    }

    #[test]
    fn paths_are_printed() {
        let path = ["f:spec", "f:containers", r#"k:{"name":"web"}"#, "f:ports", r#"k:{"containerPort":80,"protocol":"TCP"}"#];
        assert_eq!(print(&path), r#".spec.containers[name="web"].ports[containerPort=80,protocol="TCP"]"#);
        assert_eq!(print(&["f:metadata", "f:finalizers", "v:\"a/b\""]), r#".metadata.finalizers[="a/b"]"#);
        assert_eq!(print(&["f:data", "f:a.b", "i:3"]), ".data.a.b[3]");
    }
}
