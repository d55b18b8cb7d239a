//! Protobuf to JSON.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Number, Value};

use super::MAGIC;
use crate::object::schema::{self, Field, Shape, Type};

/// Maximum nesting of messages.
const DEPTH: u32 = 64;

/// A body, out of its envelope.
pub(in crate::codec) struct Envelope<'a> {
    pub(in crate::codec) api_version: &'a str,
    pub(in crate::codec) kind: &'a str,
    raw: &'a [u8],
}

/// A fault of a message, in words for users.
pub(in crate::codec) type Error = &'static str;

const TRUNCATED: Error = "unexpected EOF in protobuf";

/// Opens the envelope: `runtime.Unknown` behind the magic.
///
/// # Errors
/// If the bytes are not an envelope, or the content has a further encoding.
pub(in crate::codec) fn open(body: &[u8]) -> Result<Envelope<'_>, Error> {
    let body = body.strip_prefix(MAGIC).ok_or("provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]")?;
    let mut envelope = Envelope { api_version: "", kind: "", raw: &[] };
    for part in parts(body) {
        match part? {
            (1, Wire::Bytes(kind)) => {
                for part in parts(kind) {
                    match part? {
                        (1, Wire::Bytes(text)) => envelope.api_version = utf8(text)?,
                        (2, Wire::Bytes(text)) => envelope.kind = utf8(text)?,
                        _ => {}
                    }
                }
            }
            (2, Wire::Bytes(raw)) => envelope.raw = raw,
            (3, Wire::Bytes([_, ..])) => return Err("the content encoding of the protobuf envelope is not supported"),
            _ => {}
        }
    }
    Ok(envelope)
}

impl Envelope<'_> {
    /// The message as a value of this type.
    ///
    /// # Errors
    /// If the bytes are not such a message.
    pub(in crate::codec) fn decode(&self, kind: &'static Type) -> Result<Value, Error> {
        let mut map = Map::new();
        for (name, text) in [("apiVersion", self.api_version), ("kind", self.kind)] {
            if !text.is_empty() {
                map.insert(name.to_owned(), text.into());
            }
        }
        message(kind, &[], self.raw, &mut map, DEPTH)?;
        Ok(Value::Object(map))
    }
}

/// A field's contents on the wire.
#[derive(Clone, Copy)]
enum Wire<'a> {
    Varint(u64),
    Fixed64(u64),
    Fixed32,
    Bytes(&'a [u8]),
}

/// The fields of a message, in order; ends after an error.
fn parts(mut bytes: &[u8]) -> impl Iterator<Item = Result<(u32, Wire<'_>), Error>> {
    std::iter::from_fn(move || {
        if bytes.is_empty() {
            return None;
        }
        let part = part(&mut bytes);
        if part.is_err() {
            bytes = &[];
        }
        Some(part)
    })
}

fn part<'a>(bytes: &mut &'a [u8]) -> Result<(u32, Wire<'a>), Error> {
    let key = varint(bytes)?;
    let number = u32::try_from(key >> 3).map_err(|_| "a protobuf field number is out of range")?;
    let wire = match key & 7 {
        0 => Wire::Varint(varint(bytes)?),
        1 => {
            let (fixed, rest) = bytes.split_first_chunk::<8>().ok_or(TRUNCATED)?;
            *bytes = rest;
            Wire::Fixed64(u64::from_le_bytes(*fixed))
        }
        2 => {
            let length = usize::try_from(varint(bytes)?).map_err(|_| TRUNCATED)?;
            let (part, rest) = bytes.split_at_checked(length).ok_or(TRUNCATED)?;
            *bytes = rest;
            Wire::Bytes(part)
        }
        5 => {
            *bytes = bytes.get(4..).ok_or(TRUNCATED)?;
            Wire::Fixed32
        }
        _ => return Err("a protobuf wire type is not supported"),
    };
    Ok((number, wire))
}

fn varint(bytes: &mut &[u8]) -> Result<u64, Error> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first().ok_or(TRUNCATED)?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err("a protobuf number is too long")
}

fn utf8(bytes: &[u8]) -> Result<&str, Error> {
    std::str::from_utf8(bytes).map_err(|_| "a protobuf string is not UTF-8")
}

/// Reads a message into the fields of its type; `within` is the path of the embedded message that is being read, if one is.
fn message(kind: &'static Type, within: &[u32], bytes: &[u8], map: &mut Map<String, Value>, depth: u32) -> Result<(), Error> {
    let depth = depth.checked_sub(1).ok_or("protobuf messages are nested too deep")?;
    for part in parts(bytes) {
        let (number, wire) = part?;
        let below = |field: &&Field| field.tag.strip_prefix(within).is_some_and(|rest| rest.first() == Some(&number));
        match (kind.fields.iter().find(below), wire) {
            (Some(found), _) if found.tag.len() == within.len() + 1 => field(found, wire, map, depth)?,
            (Some(found), Wire::Bytes(inner)) => message(kind, &found.tag[..=within.len()], inner, map, depth)?,
            // A field of a later release.
            _ => {}
        }
    }
    Ok(())
}

fn field(field: &'static Field, wire: Wire<'_>, map: &mut Map<String, Value>, depth: u32) -> Result<(), Error> {
    match &field.shape {
        Shape::List(inner) => {
            let item = value(inner, wire, depth)?;
            match map.entry(field.name).or_insert_with(|| Value::Array(Vec::new())) {
                Value::Array(items) => items.push(item),
                _ => return Err("a protobuf field is of two kinds"),
            }
        }
        Shape::Map(inner) => {
            let (key, item) = entry(inner, wire, depth)?;
            match map.entry(field.name).or_insert_with(|| Value::Object(Map::new())) {
                Value::Object(entries) => drop(entries.insert(key, item)),
                _ => return Err("a protobuf field is of two kinds"),
            }
        }
        shape => {
            let value = value(shape, wire, depth)?;
            if !value.is_null() && (field.nullable || !is_zero(&value)) {
                map.insert(field.name.to_owned(), value);
            }
        }
    }
    Ok(())
}

fn is_zero(value: &Value) -> bool {
    match value {
        Value::Bool(value) => !value,
        Value::Number(value) => value.as_f64() == Some(0.0),
        Value::String(value) => value.is_empty(),
        Value::Object(value) => value.is_empty(),
        _ => false,
    }
}

fn entry(inner: &'static Shape, wire: Wire<'_>, depth: u32) -> Result<(String, Value), Error> {
    let Wire::Bytes(bytes) = wire else { return Err("a protobuf map has an entry that is no message") };
    let (mut key, mut item) = (String::new(), None);
    for part in parts(bytes) {
        match part? {
            (1, Wire::Bytes(text)) => key = utf8(text)?.to_owned(),
            (2, wire) => item = Some(value(inner, wire, depth)?),
            _ => {}
        }
    }
    match item {
        Some(item) => Ok((key, item)),
        None => Ok((key, value(inner, Wire::Bytes(&[]), depth).unwrap_or_default())),
    }
}

fn value(shape: &'static Shape, wire: Wire<'_>, depth: u32) -> Result<Value, Error> {
    Ok(match (shape, wire) {
        (Shape::Boolean, Wire::Varint(value)) => (value != 0).into(),
        // Both are cut to their size: negative numbers are written in 64 bits.
        (Shape::Int32, Wire::Varint(value)) => (value as i32).into(),
        (Shape::Int64, Wire::Varint(value)) => (value as i64).into(),
        (Shape::Double, Wire::Fixed64(bits)) => Number::from_f64(f64::from_bits(bits)).map_or(Value::Null, Value::Number),
        (Shape::String, Wire::Bytes(bytes)) => utf8(bytes)?.into(),
        (Shape::Bytes, Wire::Bytes(bytes)) => STANDARD.encode(bytes).into(),
        (Shape::Quantity, Wire::Bytes(bytes)) => match only(bytes, 1)? {
            Some(text @ [_, ..]) => utf8(text)?.into(),
            _ => "0".into(),
        },
        (Shape::IntOrString, Wire::Bytes(bytes)) => int_or_string(bytes)?,
        (Shape::Time | Shape::MicroTime, Wire::Bytes(bytes)) => time(bytes, *shape == Shape::MicroTime)?,
        (Shape::Any, Wire::Bytes(bytes)) => match only(bytes, 1)? {
            Some(raw @ [_, ..]) => serde_json::from_slice(raw).map_err(|_| "an embedded object is not JSON")?,
            _ => Value::Null,
        },
        (Shape::Object(name), Wire::Bytes(bytes)) => {
            let mut map = Map::new();
            let kind = schema::get(name).ok_or("a type is not described")?;
            message(kind, &[], bytes, &mut map, depth)?;
            Value::Object(map)
        }
        // A list that is a map's value is a message with its items.
        (Shape::List(inner), Wire::Bytes(bytes)) => {
            let depth = depth.checked_sub(1).ok_or("protobuf messages are nested too deep")?;
            let items = parts(bytes).filter(|part| part.as_ref().map_or(true, |(number, _)| *number == 1));
            Value::Array(items.map(|part| part.and_then(|(_, wire)| value(inner, wire, depth))).collect::<Result<_, _>>()?)
        }
        _ => return Err("a protobuf field has another wire type than its declaration"),
    })
}

/// The last field of this number in a message of bytes.
fn only(bytes: &[u8], number: u32) -> Result<Option<&[u8]>, Error> {
    let mut found = None;
    for part in parts(bytes) {
        if let (at, Wire::Bytes(inner)) = part?
            && at == number
        {
            found = Some(inner);
        }
    }
    Ok(found)
}

fn int_or_string(bytes: &[u8]) -> Result<Value, Error> {
    let (mut is_string, mut number, mut text) = (false, 0, "");
    for part in parts(bytes) {
        match part? {
            (1, Wire::Varint(kind)) => is_string = kind != 0,
            (2, Wire::Varint(value)) => number = value as i32,
            (3, Wire::Bytes(value)) => text = utf8(value)?,
            _ => {}
        }
    }
    Ok(if is_string { text.into() } else { number.into() })
}

/// Seconds and nanoseconds since 1970; Go's zero time has none.
fn time(bytes: &[u8], micros: bool) -> Result<Value, Error> {
    let (mut seconds, mut nanos) = (0i64, 0i32);
    for part in parts(bytes) {
        match part? {
            (1, Wire::Varint(value)) => seconds = value as i64,
            (2, Wire::Varint(value)) => nanos = value as i32,
            _ => {}
        }
    }
    if seconds == 0 && nanos == 0 {
        return Ok(Value::Null);
    }
    let time = jiff::Timestamp::new(seconds, nanos).map_err(|_| "a time is out of range")?;
    Ok(if micros { format!("{time:.6}").into() } else { format!("{time:.0}").into() })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::codec::decode_kind;

    fn decoded(kind: (&str, &str, &str), body: Vec<u8>) -> Value {
        let decoded = decode_kind(kind, "application/vnd.kubernetes.protobuf", &body.into()).unwrap();
        assert!(decoded.strict_errors.is_empty());
        decoded.value
    }

    /// Bodies as kubectl 1.32 sends them.
    #[test]
    fn what_kubectl_creates_is_read() {
        for (kind, body, value) in [
            (
                ("apps", "v1", "Deployment"), // --image=nginx --replicas=0 --port=80
                "azhzAAoVCgdhcHBzL3YxEgpEZXBsb3ltZW50ErgBCh8KA3dlYhIAGgAiACoAMgA4AEIAWgoKA2FwcBIDd2ViEoYBCAASDAoKCgNhcHASA3dlYhpsChwKABIAGgAiACoAMgA4AEIAWgoKA2FwcBIDd2ViEkwSLgoFbmdpbngSBW5naW54KgAyCgoAEAAYUCIAKgBCAGoAcgCAAQCIAQCQAQCiAQAaADIAQgBKAFIAWABgAGgAggEAigEAmgEAwgEAIgIKACgAOAAaDAgAEAAYACAAKAA4ABoAIgA=",
                json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "labels": {"app": "web"}}, "spec": {
                    "replicas": 0, "selector": {"matchLabels": {"app": "web"}}, "template": {"metadata": {"labels": {"app": "web"}},
                        "spec": {"containers": [{"name": "nginx", "image": "nginx", "ports": [{"containerPort": 80}]}]}}}}),
            ),
            (
                ("", "v1", "ConfigMap"),
                "azhzAAoPCgJ2MRIJQ29uZmlnTWFwEiYKEQoBYxIAGgAiACoAMgA4AEIAEgYKAWESAWISCQoFZW1wdHkSABoAIgA=",
                json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"a": "b", "empty": ""}}),
            ),
            (
                ("", "v1", "Secret"),
                "azhzAAoMCgJ2MRIGU2VjcmV0Eh0KEQoBcxIAGgAiACoAMgA4AEIAEgYKAXASAXcaABoAIgA=",
                json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "data": {"p": "dw=="}}),
            ),
            (
                ("", "v1", "Service"),
                "azhzAAoNCgJ2MRIHU2VydmljZRJlChsKAW4SABoAIgAqADIAOABCAFoICgNhcHASAW4SQgoeCgc4MC1odHRwEgNUQ1AYUCIKCAEQABoEaHR0cCgAEggKA2FwcBIBbhoAIghOb2RlUG9ydDoAQgBSAFoAYABoABoCCgAaACIA",
                json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "n", "labels": {"app": "n"}}, "spec": {
                    "ports": [{"name": "80-http", "protocol": "TCP", "port": 80, "targetPort": "http"}],
                    "selector": {"app": "n"}, "type": "NodePort"}}),
            ),
            (
                ("", "v1", "ResourceQuota"),
                "azhzAAoTCgJ2MRINUmVzb3VyY2VRdW90YRIwChEKAXESABoAIgAqADIAOABCABIZCgoKA2NwdRIDCgExCgsKBHBvZHMSAwoBMhoAGgAiAA==",
                json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "q"}, "spec": {"hard": {"cpu": "1", "pods": "2"}}}),
            ),
            (
                ("policy", "v1", "PodDisruptionBudget"),
                "azhzAAogCglwb2xpY3kvdjESE1BvZERpc3J1cHRpb25CdWRnZXQSNgoRCgFwEgAaACIAKgAyADgAQgASFQoJCAEQABoDNTAlEggKBgoBYRIBYhoKCAAYACAAKAAwABoAIgA=",
                json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "p"},
                    "spec": {"minAvailable": "50%", "selector": {"matchLabels": {"a": "b"}}}}),
            ),
            (
                ("authentication.k8s.io", "v1", "TokenRequest"),
                "azhzAAooChhhdXRoZW50aWNhdGlvbi5rOHMuaW8vdjESDFRva2VuUmVxdWVzdBIdChAKABIAGgAiACoAMgA4AEIAEgMg2AQaBAoAEgAaACIA",
                json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 600}}),
            ),
        ] {
            assert_eq!(decoded(kind, STANDARD.decode(body).unwrap()), value);
        }
    }

    #[test]
    fn what_is_wrong_is_told() {
        let refusal = |body: &[u8]| {
            let kind = ("", "v1", "Secret");
            decode_kind(kind, "application/vnd.kubernetes.protobuf", &body.to_vec().into()).unwrap_err().message
        };
        assert!(refusal(b"{}").contains("expected prefix"));
        assert!(refusal(b"k8s\0\x0a\x7f").contains("unexpected EOF"));
        let config_map =
            STANDARD.decode("azhzAAoPCgJ2MRIJQ29uZmlnTWFwEiYKEQoBYxIAGgAiACoAMgA4AEIAEgYKAWESAWISCQoFZW1wdHkSABoAIgA=").unwrap();
        assert_eq!(
            refusal(&config_map),
            r#"ConfigMap in version "v1" cannot be handled as a Secret: converting (v1.ConfigMap) to (core.Secret): unknown conversion"#
        );
    }
}
