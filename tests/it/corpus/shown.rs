//! Responses in the form in which they are compared and recorded: without values that differ each time, and with an object that was shown
//! before reduced to its changes.

use std::collections::HashMap;

use serde_json::{Map, Value, json};

use super::script::Answer;

/// The significant headers; `content-type` only if it is not JSON.
const HEADS: [&str; 8] = ["content-type", "vary", "retry-after", "allow", "location", "cache-control", "etag", "warning"];
/// The usual values of headers.
const USUAL: [(&str, &str); 2] = [("content-type", "application/json"), ("cache-control", "no-cache, private")];

/// Reasons of causes that their messages imply.
const REASONS: [(&str, &str); 5] = [
    ("Invalid value", "FieldValueInvalid"),
    ("Required value", "FieldValueRequired"),
    ("Forbidden", "FieldValueForbidden"),
    ("Unsupported value", "FieldValueNotSupported"),
    ("Duplicate value", "FieldValueDuplicate"),
];

/// A response.
#[derive(Debug)]
pub struct Reply {
    pub code: u16,
    pub heads: Vec<(String, String)>,
    pub body: String,
}

/// The objects that a case has been shown, by kind and name, as they were last.
#[derive(Debug, Default)]
pub struct Seen(HashMap<String, Value>);

impl Seen {
    /// An answer as it is written down. `namespace` is the case's own.
    pub fn show(&mut self, reply: Reply, namespace: &str) -> Answer {
        let text = reply.body.replace(namespace, "{ns}");
        let mut heads: Vec<(String, String)> =
            reply.heads.into_iter().filter(|(name, value)| HEADS.contains(&name.as_str()) && !USUAL.contains(&(name, value))).collect();
        for (name, value) in &mut heads {
            *value = if name == "etag" { "TAG".to_owned() } else { settle(&value.replace(namespace, "{ns}")) };
        }
        heads.sort();
        let body = match serde_json::from_str::<Value>(&text) {
            Ok(value) if value.is_object() => {
                let mut value = even(value, "", false);
                value.sort_all_objects();
                self.object(value).to_string()
            }
            // A watch, or no JSON.
            _ => text.trim_end().lines().map(line).collect::<Vec<_>>().join("\n"),
        };
        Answer { code: reply.code, heads, body }
    }

    fn object(&mut self, mut value: Value) -> Value {
        for item in value.get_mut("items").and_then(Value::as_array_mut).into_iter().flatten() {
            self.item(item);
        }
        let text = |pointer: &str| value.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        if text("/kind") == "Status" {
            return status(value);
        }
        if value.get("items").is_some() || text("/metadata/name").is_empty() {
            return value;
        }
        let key = format!("{} {}", text("/kind"), text("/metadata/name"));
        match self.0.insert(key, value.clone()) {
            Some(before) => json!({ "~": changes(&before, &value) }),
            None => value,
        }
    }

    /// An object in a list that is unchanged since it was shown is reduced to its name.
    fn item(&self, item: &mut Value) {
        let name = item.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default().to_owned();
        let is_same = |(key, value): (&String, &Value)| {
            let mut whole = item.clone();
            for field in ["apiVersion", "kind"] {
                whole[field] = value[field].clone();
            }
            key.rsplit_once(' ').is_some_and(|(_, it)| it == name) && whole == *value
        };
        if !name.is_empty() && self.0.iter().any(is_same) {
            *item = json!({ "=": name });
        }
    }
}

/// A frame of a watch, or a line of text.
fn line(text: &str) -> String {
    match serde_json::from_str::<Value>(text) {
        Ok(value) if value.is_object() => {
            let mut value = even(value, "", false);
            value.sort_all_objects();
            value.to_string()
        }
        _ => settle(text),
    }
}

/// A status without the fields that all errors share, and without repetitions of its causes.
fn status(mut value: Value) -> Value {
    let Some(fields) = value.as_object_mut() else { return value };
    for (key, usual) in [("apiVersion", json!("v1")), ("kind", json!("Status")), ("metadata", json!({})), ("status", json!("Failure"))] {
        if fields.get(key) == Some(&usual) {
            fields.remove(key);
        }
    }
    fields.remove("code");
    let causes: Vec<Value> = value.pointer_mut("/details/causes").and_then(Value::as_array_mut).map(std::mem::take).unwrap_or_default();
    if !causes.is_empty() {
        let text = |cause: &Value, key: &str| cause.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let mut told: Vec<String> = Vec::new();
        for it in &causes {
            let line = format!("{}: {}", text(it, "field"), text(it, "message"));
            if !told.contains(&line) {
                told.push(line);
            }
        }
        let all = if let [only] = told.as_slice() { only.clone() } else { format!("[{}]", told.join(", ")) };
        if let Some(Value::String(message)) = value.get_mut("message")
            && let Some(begin) = message.strip_suffix(&all)
        {
            *message = format!("{begin}…");
        }
        let shown = causes.iter().map(|it| {
            let (reason, message) = (text(it, "reason"), text(it, "message"));
            let implied = REASONS.iter().any(|(begin, known)| message.starts_with(begin) && *known == reason);
            let reason = if implied { String::new() } else { format!("{reason} ") };
            format!("{reason}{}: {message}", text(it, "field"))
        });
        value["details"]["causes"] = shown.collect();
    }
    value
}

/// A value without parts that differ each time. `made_up`: the server has generated its name.
fn even(value: Value, key: &str, made_up: bool) -> Value {
    match (key, value) {
        ("managedFields", Value::Array(entries)) => entries.iter().map(manager).collect(),
        ("resourceVersion", Value::String(text)) if !matches!(text.as_str(), "" | "0") => "RV".into(),
        ("continue", Value::String(_)) => "TOKEN".into(),
        ("serverAddress", Value::String(_)) => "ADDRESS".into(),
        ("clusterIP" | "clusterIPs" | "cells", Value::String(text)) if text.parse::<std::net::IpAddr>().is_ok() => "IP".into(),
        ("nodePort" | "healthCheckNodePort", Value::Number(it)) if it.as_i64().is_some_and(|it| it >= 30_000) => "PORT".into(),
        ("name", Value::String(text)) if text.starts_with("kube-api-access-") => "kube-api-access-XXXXX".into(),
        ("name", Value::String(text)) if made_up => format!("{}XXXXX", &text[..text.len().saturating_sub(5)]).into(),
        ("cells", Value::String(text)) if is_age(&text) => "AGE".into(),
        ("description", Value::String(_)) => "…".into(),
        (_, Value::String(text)) => settle(&text).into(),
        (_, Value::Array(items)) => items.into_iter().map(|it| even(it, key, false)).collect(),
        (_, Value::Object(fields)) => {
            let made_up = fields.contains_key("generateName");
            fields.into_iter().map(|(key, value)| (key.clone(), even(value, &key, made_up))).collect::<Map<_, _>>().into()
        }
        (_, other) => other,
    }
}

/// A manager and its fields, abbreviated.
fn manager(entry: &Value) -> Value {
    let mut entry = entry.clone();
    let mut take = |key: &str| entry.as_object_mut().and_then(|it| it.remove(key)).unwrap_or_default();
    let text = |value: Value| value.as_str().unwrap_or_default().to_owned();
    let fields = take("fieldsV1");
    let dated = if take("time").is_null() { " undated" } else { "" };
    let part = text(take("subresource"));
    let part = if part.is_empty() { part } else { format!("/{part}") };
    let [operation, manager, version, kind] = ["operation", "manager", "apiVersion", "fieldsType"].map(|key| text(take(key)));
    format!("{operation}{part} {manager} {version} {kind}{dated}: {}", set(&fields)).into()
}

/// A set of fields: `f:a` with its content as `a(…)`.
fn set(fields: &Value) -> String {
    let mut entries: Vec<(&String, &Value)> = fields.as_object().into_iter().flatten().collect();
    entries.sort_by_key(|it| it.0);
    let shown = entries.into_iter().map(|(key, below)| {
        let key = key.strip_prefix("f:").unwrap_or(key);
        let below = set(below);
        if below.is_empty() { settle(key) } else { format!("{}({below})", settle(key)) }
    });
    shown.collect::<Vec<_>>().join(" ")
}

/// The additions and changes of `new` against `old`; equal fields and items are omitted. A `-` precedes the name of a removed one.
fn changes(old: &Value, new: &Value) -> Value {
    let mut found = Map::new();
    match (old, new) {
        (Value::Object(before), Value::Object(after)) => {
            for (key, value) in after.iter().filter(|(key, value)| before.get(*key) != Some(value)) {
                found.insert(key.clone(), before.get(key).map_or_else(|| value.clone(), |it| changes(it, value)));
            }
            found.extend(before.keys().filter(|key| !after.contains_key(*key)).map(|key| (format!("-{key}"), Value::Null)));
        }
        (Value::Array(before), Value::Array(after)) if before.len() == after.len() && !after.is_empty() => {
            for (at, (before, after)) in before.iter().zip(after).enumerate().filter(|(_, (before, after))| before != after) {
                found.insert(format!("[{at}]"), changes(before, after));
            }
        }
        _ => return new.clone(),
    }
    found.into()
}

/// The differences of two responses, with both values.
pub fn differences(kubernetes: &Answer, km: &Answer) -> Vec<(String, Value, Value)> {
    let whole = |answer: &Answer| {
        let body: Value = serde_json::from_str(&answer.body).unwrap_or_else(|_| answer.body.as_str().into());
        json!({"code": answer.code, "heads": answer.heads, "": body})
    };
    let mut found = Vec::new();
    compare("", &whole(kubernetes), &whole(km), &mut found);
    found.into_iter().map(|(path, a, b)| (path.replacen("..", ".", 1).trim_start_matches('.').to_owned(), a, b)).collect()
}

fn compare(path: &str, kubernetes: &Value, km: &Value, found: &mut Vec<(String, Value, Value)>) {
    match (kubernetes, km) {
        (a, b) if a == b => {}
        (Value::Object(a), Value::Object(b)) => {
            let keys: std::collections::BTreeSet<&String> = a.keys().chain(b.keys()).collect();
            for key in keys {
                let [a, b] = [a, b].map(|it| it.get(key).cloned().unwrap_or_else(|| "(absent)".into()));
                compare(&format!("{path}.{key}"), &a, &b, found);
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            for (at, (a, b)) in a.iter().zip(b).enumerate() {
                compare(&format!("{path}[{at}]"), a, b, found);
            }
        }
        (a, b) => found.push((path.to_owned(), a.clone(), b.clone())),
    }
}

/// How long something has been there: `5s`, `2m3s`, `6y335d`.
fn is_age(text: &str) -> bool {
    text.starts_with(|it: char| it.is_ascii_digit())
        && text.ends_with(['s', 'm', 'h', 'd', 'y'])
        && text.chars().all(|it| it.is_ascii_digit() || "smhdy".contains(it))
}

/// A text with `UID` for every uid in it, and `TIME` for every recent time. Examples and patterns of name syntax, which are long and
/// frequent, are omitted.
fn settle(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once(" (e.g. '")
        && let Some((_, after)) = after.split_once("')")
    {
        out.push_str(&settle(before));
        out.push_str(" (…)");
        rest = after;
    }
    while let Some(first) = rest.chars().next() {
        let found = [("UID", uid(rest)), ("TIME", time(rest))].into_iter().find_map(|(name, length)| Some((name, length?)));
        match found {
            Some((name, length)) if !out.ends_with(|it: char| it.is_ascii_alphanumeric()) => {
                out.push_str(name);
                rest = &rest[length..];
            }
            _ => {
                out.push(first);
                rest = &rest[first.len_utf8()..];
            }
        }
    }
    out
}

/// The length of the uid that a text begins with.
fn uid(text: &str) -> Option<usize> {
    let found = text.as_bytes().get(..36)?;
    let fits = |(at, it): (usize, &u8)| if [8, 13, 18, 23].contains(&at) { *it == b'-' } else { it.is_ascii_hexdigit() };
    // A uid invented by a request has the same digit everywhere.
    (found.iter().enumerate().all(fits) && found[..8] != [found[0]; 8]).then_some(36)
}

/// The length of the time that a text begins with.
fn time(text: &str) -> Option<usize> {
    let end = text.get(..40).unwrap_or(text).find('Z')?;
    let found = text.get(..=end)?;
    (end >= 19 && found.parse::<jiff::Timestamp>().is_ok() && found.get(..4)? > "2024").then_some(end + 1)
}

#[test]
fn what_differs_every_time_is_left_out() {
    let uid = "0a1b2c3d-0000-4000-8000-0a1b2c3d4e5f";
    let made_up = "11111111-1111-1111-1111-111111111111";
    for (text, expected) in [
        (format!("uid {uid}, {made_up}"), format!("uid UID, {made_up}")),
        ("from 2026-01-01T00:00:00Z, 2020-01-01T00:00:00.123456Z".to_owned(), "from TIME, 2020-01-01T00:00:00.123456Z".to_owned()),
    ] {
        assert_eq!(settle(&text), expected);
    }
    let fields = json!({"f:data": {".": {}, "f:k": {}}, "f:x": {}});
    let entry =
        json!({"manager": "m", "operation": "Update", "apiVersion": "v1", "time": "t", "fieldsType": "FieldsV1", "fieldsV1": fields});
    assert_eq!(manager(&entry), "Update m v1 FieldsV1: data(. k) x");
}

#[test]
fn objects_are_shown_by_what_has_changed() {
    let mut seen = Seen::default();
    let mut show = |body: Value| {
        let reply = Reply { code: 200, heads: Vec::new(), body: body.to_string() };
        seen.show(reply, "home").body
    };
    let object = |data: Value| json!({"kind": "A", "metadata": {"name": "home-a", "resourceVersion": "5"}, "data": data});
    assert_eq!(
        show(object(json!([1, {"a": 1}]))),
        r#"{"data":[1,{"a":1}],"kind":"A","metadata":{"name":"{ns}-a","resourceVersion":"RV"}}"#
    );
    assert_eq!(show(object(json!([1, {"b": 1}]))), r#"{"~":{"data":{"[1]":{"-a":null,"b":1}}}}"#);
    assert_eq!(show(object(json!([1, {"b": 1}]))), r#"{"~":{}}"#);
    let causes = json!([{"reason": "R", "field": "f", "message": "m"}]);
    let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": 422, "message": "wrong: f: m", "details": {"causes": causes}});
    assert_eq!(show(status), r#"{"details":{"causes":["R f: m"]},"message":"wrong: …"}"#);
}
