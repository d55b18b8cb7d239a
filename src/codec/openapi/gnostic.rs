//! OpenAPI v2 in protobuf, as old clients of Kubernetes want it: the messages of gnostic's `openapi.v2`, written from the JSON form. Only
//! the fields that this server's documents use are known here.

use prost::encoding::WireType;
use prost::encoding::{encode_key, encode_varint};
use serde_json::{Map, Value};

/// A message, as its bytes so far.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn bytes(&mut self, number: u32, bytes: &[u8]) {
        encode_key(number, WireType::LengthDelimited, &mut self.0);
        encode_varint(bytes.len() as u64, &mut self.0);
        self.0.extend_from_slice(bytes);
    }

    fn string(&mut self, number: u32, value: Option<&Value>) {
        if let Some(text) = value.and_then(Value::as_str) {
            self.bytes(number, text.as_bytes());
        }
    }

    fn strings(&mut self, number: u32, value: Option<&Value>) {
        value.and_then(Value::as_array).into_iter().flatten().for_each(|item| self.string(number, Some(item)));
    }

    fn boolean(&mut self, number: u32, value: Option<&Value>) {
        if value.and_then(Value::as_bool) == Some(true) {
            encode_key(number, WireType::Varint, &mut self.0);
            encode_varint(1, &mut self.0);
        }
    }

    fn message(&mut self, number: u32, message: Self) {
        self.bytes(number, &message.0);
    }

    fn optional(&mut self, number: u32, value: Option<&Value>, write: fn(&Value) -> Self) {
        if let Some(value) = value {
            self.message(number, write(value));
        }
    }

    fn list(&mut self, number: u32, value: Option<&Value>, write: fn(&Value) -> Self) {
        value.and_then(Value::as_array).into_iter().flatten().for_each(|item| self.message(number, write(item)));
    }

    /// The entries of an object, each a message of its name and value.
    fn named(&mut self, number: u32, value: Option<&Value>, write: fn(&Value) -> Self) {
        for (name, value) in value.and_then(Value::as_object).into_iter().flatten() {
            let mut entry = Self::default();
            entry.bytes(1, name.as_bytes());
            entry.message(2, write(value));
            self.message(number, entry);
        }
    }

    fn extensions(&mut self, number: u32, map: &Value) {
        let extensions: Map<String, Value> = map
            .as_object()
            .into_iter()
            .flatten()
            .filter(|(name, _)| name.starts_with("x-"))
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        self.named(number, Some(&Value::Object(extensions)), any);
    }

    /// Wraps this message as the only field of another: the form of messages that stand for a choice.
    fn chosen(self, number: u32) -> Self {
        let mut choice = Self::default();
        choice.message(number, self);
        choice
    }
}

/// The whole document.
pub(super) fn document(json: &Value) -> Vec<u8> {
    let mut document = Message::default();
    document.string(1, json.get("swagger"));
    document.optional(2, json.get("info"), info);
    document.optional(8, json.get("paths"), |paths| {
        let mut message = Message::default();
        message.named(2, Some(paths), path_item);
        message
    });
    document.optional(9, json.get("definitions"), |definitions| {
        let mut message = Message::default();
        message.named(1, Some(definitions), schema);
        message
    });
    document.list(12, json.get("security"), |requirement| {
        let mut message = Message::default();
        message.named(1, Some(requirement), |scopes| {
            let mut message = Message::default();
            message.strings(1, Some(scopes));
            message
        });
        message
    });
    document.optional(13, json.get("securityDefinitions"), |definitions| {
        let mut message = Message::default();
        message.named(1, Some(definitions), |it| api_key(it).chosen(2));
        message
    });
    document.0
}

fn api_key(json: &Value) -> Message {
    let mut key = Message::default();
    for (number, field) in [(1, "type"), (2, "name"), (3, "in"), (4, "description")] {
        key.string(number, json.get(field));
    }
    key
}

fn info(json: &Value) -> Message {
    let mut info = Message::default();
    info.string(1, json.get("title"));
    info.string(2, json.get("version"));
    info
}

/// Any value is carried as YAML, of which JSON is a part.
fn any(json: &Value) -> Message {
    let mut any = Message::default();
    any.bytes(2, json.to_string().as_bytes());
    any
}

fn path_item(json: &Value) -> Message {
    let mut item = Message::default();
    for (number, method) in [(2, "get"), (3, "put"), (4, "post"), (5, "delete"), (6, "options"), (7, "head"), (8, "patch")] {
        item.optional(number, json.get(method), operation);
    }
    item.list(9, json.get("parameters"), parameter);
    item
}

fn operation(json: &Value) -> Message {
    let mut operation = Message::default();
    operation.strings(1, json.get("tags"));
    operation.string(3, json.get("description"));
    operation.string(5, json.get("operationId"));
    operation.strings(6, json.get("produces"));
    operation.strings(7, json.get("consumes"));
    operation.list(8, json.get("parameters"), parameter);
    operation.optional(9, json.get("responses"), |responses| {
        let mut message = Message::default();
        message.named(1, Some(responses), response);
        message
    });
    operation.strings(10, json.get("schemes"));
    operation.extensions(13, json);
    operation
}

/// An entry of a list of parameters.
fn parameter(json: &Value) -> Message {
    let mut parameter = Message::default();
    let place = json.get("in").and_then(Value::as_str).unwrap_or_default();
    if place == "body" {
        parameter.string(2, json.get("name"));
        parameter.string(3, json.get("in"));
        parameter.boolean(4, json.get("required"));
        parameter.optional(5, json.get("schema"), schema);
        return parameter.chosen(1).chosen(1);
    }
    // The messages for query and path differ in one field, which shifts later ones.
    let (choice, from) = if place == "query" { (3, 6) } else { (4, 5) };
    parameter.boolean(1, json.get("required"));
    parameter.string(2, json.get("in"));
    parameter.string(3, json.get("description"));
    parameter.string(4, json.get("name"));
    parameter.string(from, json.get("type"));
    parameter.boolean(from + 14, json.get("uniqueItems"));
    parameter.chosen(choice).chosen(2).chosen(1)
}

fn response(json: &Value) -> Message {
    let mut response = Message::default();
    response.string(1, json.get("description"));
    response.optional(2, json.get("schema"), |it| schema(it).chosen(1));
    response.chosen(1)
}

fn schema(json: &Value) -> Message {
    let mut message = Message::default();
    message.string(1, json.get("$ref"));
    message.string(2, json.get("format"));
    message.string(4, json.get("description"));
    message.optional(5, json.get("default"), any);
    message.strings(19, json.get("required"));
    message.list(20, json.get("enum"), any);
    message.optional(21, json.get("additionalProperties"), |it| schema(it).chosen(1));
    message.optional(22, json.get("type"), |it| {
        let mut kind = Message::default();
        kind.string(1, Some(it));
        kind
    });
    message.optional(23, json.get("items"), |it| schema(it).chosen(1));
    message.optional(25, json.get("properties"), |it| {
        let mut properties = Message::default();
        properties.named(1, Some(it), schema);
        properties
    });
    message.extensions(31, json);
    message
}
