//! The fields that an object's creator owns, written as text in one walk: the same result as [`super::compare`], without a set in between.
//! Creation is the most frequent write.

use serde_json::{Map, Value};

use super::UNOWNED_METADATA;
use super::split::{self, Identity, Split, split};
use crate::codec::fields::element;
use crate::object::schema::{self, Field, Merge, Shape, Type};

/// The fields of a new object as the JSON of a set, without those `left` to others.
pub(super) fn created(kind: &'static Type, object: &Value, left: &[&str]) -> String {
    let Value::Object(object) = object else { return String::new() };
    let mut out = Vec::with_capacity(1024);
    out.push(b'{');
    for (name, value) in object {
        let (shape, merge, field) = split::field(kind, name);
        match (name.as_str(), shape, value) {
            ("apiVersion" | "kind", ..) => {}
            (name, ..) if left.contains(&name) => {}
            ("metadata", Shape::Object(of), Value::Object(metadata)) => {
                let Some(of) = schema::get(of) else { continue };
                let owned = |name: &str| !UNOWNED_METADATA.iter().any(|it| it.strip_prefix("f:") == Some(name));
                named(&mut out, name, |out| open(out, true, |out| fields(of, true, metadata, out, owned)));
            }
            _ => named(&mut out, name, |out| self::value(shape, merge, field.and_then(Field::zero), value, out)),
        }
    }
    out.push(b'}');
    String::from_utf8(out).unwrap_or_default()
}

/// Writes a value's node; false if there is nothing to write. `zero` is the earlier value, if there was one.
fn value(shape: &Shape, merge: &Merge, zero: Option<&Value>, value: &Value, out: &mut Vec<u8>) -> bool {
    let leaf = |out: &mut Vec<u8>| {
        let is_new = zero != Some(value);
        if is_new {
            out.extend_from_slice(b"{}");
        }
        is_new
    };
    match (split(shape, merge, Some(value)), value) {
        (Split::Fields(kind), Value::Object(map)) if !map.is_empty() => {
            open(out, zero.is_some(), |out| fields(kind, zero.is_some(), map, out, |_| true))
        }
        (Split::Entries(inner), Value::Object(map)) if !map.is_empty() => open(out, zero.is_some(), |out| {
            for (name, value) in map {
                named(out, name, |out| self::value(inner, &Merge::Default, None, value, out));
            }
        }),
        (Split::Items(identity, inner), Value::Array(list)) if !list.is_empty() => match elements(identity, inner, list) {
            Ok(elements) => open(out, zero.is_some(), |out| items(inner, &elements, out)),
            Err(_) => leaf(out),
        },
        _ => leaf(out),
    }
}

fn fields(kind: &'static Type, was_there: bool, object: &Map<String, Value>, out: &mut Vec<u8>, owned: impl Fn(&str) -> bool) {
    for (name, value) in object.iter().filter(|(name, _)| owned(name)) {
        let (shape, merge, field) = split::field(kind, name);
        let zero = if was_there { field.and_then(Field::zero) } else { None };
        named(out, name, |out| self::value(shape, merge, zero, value, out));
    }
}

fn elements<'a>(identity: Identity, inner: &Shape, list: &'a [Value]) -> Result<Vec<(String, &'a Value)>, String> {
    let mut elements = list.iter().map(|item| Ok((identity.of(item, inner)?, item))).collect::<Result<Vec<_>, String>>()?;
    elements.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(elements)
}

fn items(inner: &Shape, elements: &[(String, &Value)], out: &mut Vec<u8>) {
    for same in elements.chunk_by(|a, b| a.0 == b.0) {
        member(out, &same[0].0, |out| match same {
            [(_, item)] => value(inner, &Merge::Default, None, item, out),
            // Repeated items have one common owner.
            _ => {
                out.extend_from_slice(b"{}");
                true
            }
        });
    }
}

/// Writes a node with what `below` writes; a value that was there before is not new itself.
fn open(out: &mut Vec<u8>, was_there: bool, below: impl FnOnce(&mut Vec<u8>)) -> bool {
    out.push(b'{');
    let start = out.len();
    if !was_there {
        out.extend_from_slice(b"\".\":{}");
    }
    below(out);
    if out.len() == start {
        out.pop();
        return false;
    }
    out.push(b'}');
    true
}

/// Writes a field's element and node, unless the node is empty.
fn named(out: &mut Vec<u8>, name: &str, node: impl FnOnce(&mut Vec<u8>) -> bool) {
    let start = out.len();
    comma(out);
    if name.bytes().all(element::is_plain) {
        out.extend_from_slice(b"\"f:");
        out.extend_from_slice(name.as_bytes());
        out.push(b'"');
    } else {
        string(out, &element::field(name));
    }
    out.push(b':');
    if !node(out) {
        out.truncate(start);
    }
}

fn member(out: &mut Vec<u8>, element: &str, node: impl FnOnce(&mut Vec<u8>) -> bool) {
    let start = out.len();
    comma(out);
    string(out, element);
    out.push(b':');
    if !node(out) {
        out.truncate(start);
    }
}

fn comma(out: &mut Vec<u8>) {
    if !out.ends_with(b"{") {
        out.push(b',');
    }
}

fn string(out: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(out, text).expect("a string is always JSON");
}
