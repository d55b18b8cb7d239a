//! `metadata.managedFields`: the owners of fields, one entry per manager and operation.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::codec::fields::{Node, Set, touches};

/// `metadata.managedFields` as JSON text, kept beside the object during a write. It is often longer than the rest of the object, and most
/// writes leave most of it unchanged.
#[derive(Clone, Debug)]
pub struct Managers(Box<str>);

/// Equal if the content is, in any order of keys.
impl PartialEq for Managers {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0 || self.value() == other.value()
    }
}

impl Managers {
    pub(super) fn new(json: impl Into<Box<str>>) -> Self {
        Self(json.into())
    }

    /// The JSON in objects.
    pub fn json(&self) -> &str {
        &self.0
    }

    pub(super) fn value(&self) -> Value {
        serde_json::from_str(&self.0).unwrap_or_default()
    }
}

impl From<&Value> for Managers {
    fn from(entries: &Value) -> Self {
        Self(entries.to_string().into())
    }
}

/// How a manager came to own fields.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Operation {
    /// A server-side apply.
    Apply,
    /// Any other write.
    #[default]
    Update,
}

impl Operation {
    fn name(self) -> &'static str {
        match self {
            Self::Apply => "Apply",
            Self::Update => "Update",
        }
    }
}

/// The fields of one manager.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Entry<'a> {
    pub(super) manager: Cow<'a, str>,
    pub(super) operation: Operation,
    pub(super) api_version: Cow<'a, str>,
    pub(super) subresource: Cow<'a, str>,
    /// RFC 3339; empty if it is not known.
    pub(super) time: Cow<'a, str>,
    pub(super) fields: Fields<'a>,
}

/// A set that is read only if it is needed.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Fields<'a> {
    Text(Cow<'a, str>),
    Set(Set),
}

impl Fields<'_> {
    pub(super) fn is_empty(&self) -> bool {
        match self {
            Self::Text(text) => matches!(&**text, "" | "{}"),
            Self::Set(set) => set.is_empty(),
        }
    }

    pub(super) fn set(&mut self) -> &mut Set {
        if let Self::Text(text) = self {
            *self = Self::Set(Set::trusted(serde_json::from_str::<Node>(text).unwrap_or_default()));
        }
        match self {
            Self::Set(set) => set,
            Self::Text(_) => unreachable!("it was just read"),
        }
    }

    pub(super) fn subtract(&mut self, other: &Set) {
        if match self {
            Self::Text(text) => touches(text, other),
            Self::Set(_) => !other.is_empty(),
        } {
            self.set().subtract(other);
        }
    }
}

/// Beyond this number of updating managers, the oldest are merged into one.
const MOST_UPDATERS: usize = 10;
const OLDEST: &str = "ancient-changes";

impl Entry<'_> {
    /// Whether two entries are of the same manager and kind of writing, and so one.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        self.identity() == other.identity()
    }

    fn identity(&self) -> (&str, Operation, &str, &str) {
        // An apply in another version than before replaces the same manager's entry.
        let version = if self.operation == Operation::Apply { "" } else { &*self.api_version };
        (&self.manager, self.operation, &self.subresource, version)
    }

    fn seconds(&self) -> i64 {
        self.time.parse::<jiff::Timestamp>().map_or(0, jiff::Timestamp::as_second)
    }

    fn write(self, out: &mut String) {
        let pair = |out: &mut String, key: &str, text: &str| {
            if !text.is_empty() {
                let comma = if out.ends_with('{') { "" } else { "," };
                out.extend([comma, "\"", key, "\":", &Value::from(text).to_string()]);
            }
        };
        out.push('{');
        pair(out, "manager", &self.manager);
        pair(out, "operation", self.operation.name());
        pair(out, "apiVersion", &self.api_version);
        pair(out, "time", &self.time);
        out.push_str(",\"fieldsType\":\"FieldsV1\",\"fieldsV1\":");
        match self.fields {
            Fields::Text(text) => out.push_str(&text),
            Fields::Set(set) => out.push_str(&set.into_value().to_string()),
        }
        pair(out, "subresource", &self.subresource);
        out.push('}');
    }
}

/// An entry as objects have it.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Stored<'a> {
    #[serde(borrow)]
    manager: Cow<'a, str>,
    operation: Cow<'a, str>,
    #[serde(borrow)]
    api_version: Cow<'a, str>,
    #[serde(borrow)]
    time: Cow<'a, str>,
    fields_type: Cow<'a, str>,
    #[serde(borrow)]
    fields_v1: Option<&'a RawValue>,
    #[serde(borrow)]
    subresource: Cow<'a, str>,
}

/// Decodes entries.
///
/// # Errors
/// Kubernetes' message for an invalid entry.
fn read(entries: Vec<Stored<'_>>) -> Result<Vec<Entry<'_>>, String> {
    let mut all: Vec<Entry<'_>> = Vec::with_capacity(entries.len() + 1);
    for (at, entry) in entries.into_iter().enumerate() {
        let operation = match &*entry.operation {
            "Apply" => Operation::Apply,
            "Update" => Operation::Update,
            _ => return Err("operation must be `Apply` or `Update`".to_owned()),
        };
        if entry.api_version.is_empty() {
            return Err("apiVersion must not be empty".to_owned());
        }
        match &*entry.fields_type {
            "FieldsV1" => {}
            "" => return Err(format!("missing fieldsType in managed fields entry {at}")),
            other => return Err(format!("invalid fieldsType {other:?} in managed fields entry {at}")),
        }
        let Stored { manager, api_version, subresource, time, .. } = entry;
        let fields = Fields::Text(entry.fields_v1.map_or("{}", RawValue::get).into());
        let entry = Entry { manager, operation, api_version, subresource, time, fields };
        all.push(entry);
    }
    Ok(last_of_each(all))
}

/// The last entry of each manager, in their order.
fn last_of_each(mut all: Vec<Entry<'_>>) -> Vec<Entry<'_>> {
    let mut seen = HashSet::with_capacity(all.len());
    let mut is_last: Vec<bool> = all.iter().rev().map(|it| seen.insert(it.identity())).collect();
    if seen.len() < all.len() {
        all.retain(|_| is_last.pop() == Some(true));
    }
    all
}

/// The entries of a stored object; invalid ones are dropped.
pub(super) fn stored(managers: Option<&Managers>) -> Vec<Entry<'_>> {
    let entries = managers.and_then(|it| serde_json::from_str(&it.0).ok());
    entries.and_then(|it| read(it).ok()).unwrap_or_default()
}

/// The entries that a write starts from: those that the client sends, or else the stored ones. A client that does not know managed fields
/// omits them; one that wants to clear them sends an empty list, or one empty entry.
pub(super) fn begin(stated: Option<Value>, held: Option<Managers>) -> Option<Managers> {
    let Some(Value::Array(entries)) = stated else { return held };
    if is_reset(&entries) {
        return None;
    }
    let text = Value::Array(entries).to_string();
    if held.as_ref().is_some_and(|it| *it.0 == *text) {
        return held;
    }
    match canonical(&text) {
        Ok(entries) if !entries.is_empty() => finish(entries),
        _ => held,
    }
}

/// Reads entries that a client wrote.
fn canonical(text: &str) -> Result<Vec<Entry<'_>>, String> {
    let mut entries = read(serde_json::from_str(text).map_err(|error| error.to_string())?)?;
    for entry in &mut entries {
        let fields = std::mem::take(entry.fields.set());
        entry.fields = Fields::Set(Set::parse(fields.into_nodes())?);
    }
    Ok(entries)
}

fn is_reset(entries: &[Value]) -> bool {
    match entries {
        [] => true,
        [one] => one.as_object().is_some_and(Map::is_empty),
        _ => false,
    }
}

/// The entries for an object: none that is empty, not too many, in order.
pub(super) fn finish(mut entries: Vec<Entry<'_>>) -> Option<Managers> {
    entries.retain(|it| !it.fields.is_empty());
    if entries.is_empty() {
        return None;
    }
    let mut entries = cap(entries);
    if entries.len() > 1 {
        entries.sort_by(|a, b| {
            let key = |it: &Entry<'_>| (it.operation.name(), it.seconds());
            key(a)
                .cmp(&key(b))
                .then_with(|| (&a.manager, &a.api_version, &a.subresource).cmp(&(&b.manager, &b.api_version, &b.subresource)))
        });
    }
    let mut out = String::with_capacity(1024);
    for entry in entries {
        out.push(if out.is_empty() { '[' } else { ',' });
        entry.write(&mut out);
    }
    out.push(']');
    Some(Managers(out.into()))
}

/// Makes one entry a version of the oldest of too many updating managers.
fn cap(entries: Vec<Entry<'_>>) -> Vec<Entry<'_>> {
    let mut count = entries.iter().filter(|it| it.operation == Operation::Update).count();
    if count <= MOST_UPDATERS {
        return entries;
    }
    let (mut updaters, mut out): (Vec<_>, Vec<_>) = entries.into_iter().partition(|it| it.operation == Operation::Update);
    updaters.sort_by(|a, b| a.seconds().cmp(&b.seconds()).then_with(|| a.manager.cmp(&b.manager)));
    let mut kept: Vec<Entry<'_>> = Vec::with_capacity(MOST_UPDATERS);
    let mut oldest_of: HashMap<Cow<'_, str>, usize> = HashMap::new();
    for mut entry in updaters {
        // A single one of its version stays unchanged until a second one joins it.
        match oldest_of.get(&entry.api_version) {
            Some(at) if count > MOST_UPDATERS => {
                let oldest = &mut kept[*at];
                oldest.manager = OLDEST.into();
                oldest.subresource = "".into();
                oldest.fields.set().union(entry.fields.set());
                oldest.time = entry.time;
                count -= 1;
            }
            _ => {
                oldest_of.entry(entry.api_version.clone()).or_insert(kept.len());
                kept.push(entry);
            }
        }
    }
    out.append(&mut kept);
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn entry(manager: &str, api_version: &str, time: &str, field: &str) -> Value {
        json!({"manager": manager, "operation": "Update", "apiVersion": api_version, "time": time, "fieldsType": "FieldsV1",
            "fieldsV1": {field: {}}})
    }

    fn rewritten(entries: &Value) -> Option<Value> {
        finish(stored(Some(&Managers::new(entries.to_string())))).map(|it| it.value())
    }

    #[test]
    fn entries_are_read_and_written() {
        let mut applied = entry("b", "v1", "2026-01-01T00:00:00Z", "f:a");
        applied["operation"] = "Apply".into();
        applied["subresource"] = "status".into();
        let entries = json!([applied, entry("a", "v1", "2025-01-01T00:00:00Z", "f:b"), entry("c", "v1", "2024-01-01T00:00:00Z", "f:c")]);
        let written = rewritten(&entries).unwrap();
        assert_eq!(written, json!([entries[0], entries[2], entries[1]]));
        assert_eq!(rewritten(&json!([])), None);
    }

    #[test]
    fn a_request_may_be_full_of_managers() {
        let many: Value = (0..10_000).map(|it| entry(&format!("m{it}"), &format!("v{it}"), "2026-01-01T00:00:00Z", "f:a")).collect();
        assert_eq!(begin(Some(many.clone()), None).unwrap().value().as_array().unwrap().len(), 10_000);
        let mut twice = many.clone();
        twice.as_array_mut().unwrap().extend(many.as_array().unwrap().iter().cloned());
        assert_eq!(stored(Some(&Managers::new(twice.to_string()))), stored(Some(&Managers::new(many.to_string()))));
    }

    #[test]
    fn what_a_client_states_counts_unless_it_is_nothing() {
        let held = Some(json!([entry("a", "v1", "2026-01-01T00:00:00Z", "f:a")]));
        let text = held.as_ref().map(|it| Managers::new(it.to_string()));
        let stated = |value: Value| begin(Some(value), text.clone()).map(|it| it.value());
        let other = json!([entry("b", "v1", "2026-01-01T00:00:00Z", "f:b")]);
        assert_eq!(begin(None, text.clone()), text);
        assert_eq!(stated(other.clone()), Some(other.clone()));
        assert_eq!(stated(json!([])), None);
        assert_eq!(stated(json!([{}])), None);
        for wrong in [
            json!([{"manager": "x"}]),
            json!([{"operation": "Update", "fieldsType": "FieldsV1"}]),
            json!([{"operation": "Update", "apiVersion": "v1"}]),
            json!([{"operation": "Update", "apiVersion": "v1", "fieldsType": "FieldsV2"}]),
            json!([{"operation": "Update", "apiVersion": "v1", "fieldsType": "FieldsV1", "fieldsV1": {"a": {}}}]),
        ] {
            assert_eq!(stated(wrong.clone()), held, "{wrong}");
        }
    }

    #[test]
    fn the_oldest_of_too_many_become_one_a_version() {
        let many = |count: usize| -> Vec<Value> {
            (0..count).map(|it| entry(&format!("m{it:02}"), "v1", &format!("2026-01-01T00:00:{it:02}Z"), &format!("f:{it:02}"))).collect()
        };
        let finished = |entries: Vec<Value>| -> Vec<Value> {
            let Some(Value::Array(entries)) = rewritten(&entries.into()) else { panic!() };
            entries
        };
        assert_eq!(finished(many(10)), many(10));
        let capped = finished(many(12));
        assert_eq!(capped.len(), 10);
        assert_eq!(
            capped[0],
            json!({"manager": "ancient-changes", "operation": "Update", "apiVersion": "v1", "time": "2026-01-01T00:00:02Z",
                "fieldsType": "FieldsV1", "fieldsV1": {"f:00": {}, "f:01": {}, "f:02": {}}})
        );
        assert_eq!(capped[1], many(12)[3]);
        let mut mixed = many(11);
        mixed[0]["apiVersion"] = "v0".into();
        let capped = finished(mixed.clone());
        assert_eq!((capped.len(), &capped[0]), (10, &mixed[0]));
        assert_eq!(capped[1]["manager"], "ancient-changes");
        // Applied ones are not counted.
        let mut applied = many(11);
        applied[0]["operation"] = "Apply".into();
        assert_eq!(finished(applied).len(), 11);
    }
}
