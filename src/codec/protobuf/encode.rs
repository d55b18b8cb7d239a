//! JSON to protobuf.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use prost::encoding::{WireType, encode_key, encode_varint};
use serde_json::{Map, Value};

use super::MAGIC;
use crate::object::schema::{self, Shape, Type};

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";

/// An object or a status as the body of a response; `None` if its kind has no message.
pub fn protobuf(json: &[u8]) -> Option<Bytes> {
    let value: Value = serde_json::from_slice(json).ok()?;
    let text = |key: &str| value.get(key).and_then(Value::as_str);
    let (api_version, kind) = (text("apiVersion")?, text("kind")?);
    Some(envelope(api_version, kind, &root(api_version, kind, &value)?))
}

/// A list of objects of one kind as the body of a response, from their JSON and that of its metadata.
pub fn protobuf_list<'a>(api_version: &str, kind: &str, metadata: &str, items: impl Iterator<Item = &'a [u8]>) -> Option<Bytes> {
    let mut out = Vec::new();
    bytes(1, &message(schema::get(&format!("{META}.ListMeta"))?, &serde_json::from_str(metadata).ok()?), &mut out);
    for item in items {
        bytes(2, &root(api_version, kind, &serde_json::from_slice(item).ok()?)?, &mut out);
    }
    Some(envelope(api_version, &format!("{kind}List"), &out))
}

fn envelope(api_version: &str, kind: &str, message: &[u8]) -> Bytes {
    let mut head = Vec::new();
    bytes(1, api_version.as_bytes(), &mut head);
    bytes(2, kind.as_bytes(), &mut head);
    let mut body = MAGIC.to_vec();
    bytes(1, &head, &mut body);
    bytes(2, message, &mut body);
    // Go always writes this, and some decoders need it: the content has no further encoding.
    bytes(3, b"", &mut body);
    bytes(4, b"", &mut body);
    body.into()
}

/// A watch event of this type about the object with this JSON, preceded by its length in four bytes.
pub fn protobuf_event(kind: &str, json: &[u8]) -> Option<Bytes> {
    let mut embedded = Vec::new();
    bytes(1, &protobuf(json)?, &mut embedded);
    let mut message = Vec::new();
    bytes(1, kind.as_bytes(), &mut message);
    bytes(2, &embedded, &mut message);
    let length = u32::try_from(message.len()).ok()?;
    Some([&length.to_be_bytes()[..], &message].concat().into())
}

fn root(api_version: &str, kind: &str, value: &Value) -> Option<Vec<u8>> {
    if let Some(known) = schema::of_kind(api_version, kind) {
        return Some(message(known, value));
    }
    if kind != "PartialObjectMetadata" {
        return None;
    }
    let mut out = Vec::new();
    bytes(1, &message(schema::get(&format!("{META}.ObjectMeta"))?, &value["metadata"]), &mut out);
    Some(out)
}

fn message(kind: &Type, value: &Value) -> Vec<u8> {
    value.as_object().map(|map| fields(kind, &[], map)).unwrap_or_default()
}

/// The fields of a type in the embedded message `within`, including messages embedded in that.
fn fields(kind: &Type, within: &[u32], map: &Map<String, Value>) -> Vec<u8> {
    let (mut out, mut embedded) = (Vec::new(), Vec::new());
    for field in &kind.fields {
        let (Some(rest), Some(value)) = (field.tag.strip_prefix(within), map.get(field.name)) else { continue };
        match rest {
            [] => {}
            [number] => write(&field.shape, *number, value, &mut out),
            [number, ..] if embedded.contains(number) => {}
            [number, ..] => {
                embedded.push(*number);
                bytes(*number, &fields(kind, &field.tag[..=within.len()], map), &mut out);
            }
        }
    }
    out
}

/// Writes a value of this shape as a field. Skips mismatched values, which stored objects do not have.
fn write(shape: &Shape, at: u32, value: &Value, into: &mut Vec<u8>) {
    match (shape, value) {
        (_, Value::Null) => {}
        (Shape::Boolean, Value::Bool(value)) => varint(at, (*value).into(), into),
        (Shape::Int32 | Shape::Int64, Value::Number(value)) => varint(at, value.as_i64().unwrap_or_default() as u64, into),
        (Shape::Double, Value::Number(value)) => {
            encode_key(at, WireType::SixtyFourBit, into);
            into.extend_from_slice(&value.as_f64().unwrap_or_default().to_le_bytes());
        }
        (Shape::String, Value::String(text)) => bytes(at, text.as_bytes(), into),
        (Shape::Bytes, Value::String(text)) => bytes(at, &STANDARD.decode(text).unwrap_or_default(), into),
        (Shape::Quantity, Value::String(text)) => wrapped(at, text.as_bytes(), into),
        (Shape::Quantity, Value::Number(number)) => wrapped(at, number.to_string().as_bytes(), into),
        (Shape::IntOrString, value) => {
            let mut message = Vec::new();
            varint(1, value.is_string().into(), &mut message);
            varint(2, value.as_i64().unwrap_or_default() as u64, &mut message);
            bytes(3, value.as_str().unwrap_or_default().as_bytes(), &mut message);
            bytes(at, &message, into);
        }
        (Shape::Time | Shape::MicroTime, Value::String(text)) => {
            let Ok(time) = text.parse::<jiff::Timestamp>() else { return };
            let mut message = Vec::new();
            varint(1, time.as_second() as u64, &mut message);
            varint(2, i64::from(time.subsec_nanosecond()) as u64, &mut message);
            bytes(at, &message, into);
        }
        (Shape::Any, value) => wrapped(at, value.to_string().as_bytes(), into),
        (Shape::Object(name), Value::Object(_)) => {
            if let Some(kind) = schema::get(name) {
                bytes(at, &message(kind, value), into);
            }
        }
        (Shape::List(inner), Value::Array(items)) => items.iter().for_each(|item| write(inner, at, item, into)),
        (Shape::Map(inner), Value::Object(map)) => {
            for (key, item) in map {
                let mut entry = Vec::new();
                bytes(1, key.as_bytes(), &mut entry);
                if matches!(**inner, Shape::List(_)) {
                    let mut items = Vec::new();
                    write(inner, 1, item, &mut items);
                    bytes(2, &items, &mut entry);
                } else {
                    write(inner, 2, item, &mut entry);
                }
                bytes(at, &entry, into);
            }
        }
        _ => {}
    }
}

fn bytes(number: u32, content: &[u8], into: &mut Vec<u8>) {
    encode_key(number, WireType::LengthDelimited, into);
    encode_varint(content.len() as u64, into);
    into.extend_from_slice(content);
}

/// A message with one field of this content.
fn wrapped(number: u32, content: &[u8], into: &mut Vec<u8>) {
    let mut message = Vec::new();
    bytes(1, content, &mut message);
    bytes(number, &message, into);
}

fn varint(number: u32, value: u64, into: &mut Vec<u8>) {
    encode_key(number, WireType::Varint, into);
    encode_varint(value, into);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::{decode_kind, fitting};
    use crate::object::resource::ALL;

    #[test]
    fn complete_objects_of_every_resource_come_through() {
        for resource in ALL {
            let kind = schema::get(resource.schema).unwrap();
            let mut full = fitting::full(kind, 12);
            if let Some(Value::Object(claim)) = full.pointer_mut("/spec/volumeClaimTemplates/0") {
                // Nested objects have kind and version only in JSON.
                claim.retain(|name, _| name != "apiVersion" && name != "kind");
            }
            let body = protobuf(full.to_string().as_bytes()).unwrap();
            let kind = (resource.group, resource.version, resource.kind);
            let decoded = decode_kind(kind, "application/vnd.kubernetes.protobuf", &body).unwrap();
            assert!(decoded.strict_errors.is_empty());
            assert!(decoded.value == full, "{resource:?}");
        }
    }

    /// As `k8s.io/apimachinery` 0.33 decodes them.
    #[test]
    fn bytes_on_the_wire() {
        let pod: &[u8] = br#"{"metadata": {"name": "a"}}"#;
        let expected = b"k8s\0\x0a\x0d\x0a\x02v1\x12\x07PodList\x12\x0c\x0a\x03\x12\x017\x12\x05\x0a\x03\x0a\x01a\x1a\0\x22\0";
        assert_eq!(&protobuf_list("v1", "Pod", r#"{"resourceVersion":"7"}"#, [pod].into_iter()).unwrap()[..], expected);
        let metadata = br#"{"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata", "metadata": {}}"#;
        let frame = protobuf_event("ADDED", metadata).unwrap();
        assert_eq!(frame[..4], u32::try_from(frame.len() - 4).unwrap().to_be_bytes());
        assert!(frame[4..].starts_with(b"\x0a\x05ADDED\x12"));
        assert_eq!(protobuf(br#"{"kind": "Table", "apiVersion": "meta.k8s.io/v1"}"#), None);
    }
}
