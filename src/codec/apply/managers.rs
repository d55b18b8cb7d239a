//! `metadata.managedFields`: who owns what, one entry a manager and way of writing.

use serde_json::{Map, Value};

use crate::codec::fields::{Node, Set};

/// How a manager came to own fields.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Operation {
    /// By stating, in a server-side apply, what it wants.
    Apply,
    /// By any other write.
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

/// What one manager owns.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Entry {
    pub(super) manager: String,
    pub(super) operation: Operation,
    pub(super) api_version: String,
    pub(super) subresource: String,
    /// RFC 3339; empty if it is not known.
    pub(super) time: String,
    pub(super) fields: Set,
}

/// More updating managers than this are not told apart: the oldest of them become one.
const MOST_UPDATERS: usize = 10;
const OLDEST: &str = "ancient-changes";

impl Entry {
    /// Whether two entries are of the same manager and kind of writing, and so one.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        self.manager == other.manager
            && self.operation == other.operation
            && self.subresource == other.subresource
            // Who applies in another version than before still means the same.
            && (self.operation == Operation::Apply || self.api_version == other.api_version)
    }

    fn seconds(&self) -> i64 {
        self.time.parse::<jiff::Timestamp>().map_or(0, jiff::Timestamp::as_second)
    }

    fn into_value(self) -> Value {
        let mut entry = Map::with_capacity(7);
        let mut put = |key: &str, value: Value| {
            if value != "" {
                entry.insert(key.to_owned(), value);
            }
        };
        put("manager", self.manager.into());
        put("operation", self.operation.name().into());
        put("apiVersion", self.api_version.into());
        put("time", self.time.into());
        put("fieldsType", "FieldsV1".into());
        put("fieldsV1", self.fields.into_value());
        put("subresource", self.subresource.into());
        Value::Object(entry)
    }
}

/// Reads the entries of an object; `make` takes their fields.
///
/// # Errors
/// What Kubernetes says of an entry that is none.
fn read(entries: Value, make: fn(Node) -> Result<Set, String>) -> Result<Vec<Entry>, String> {
    let Value::Array(entries) = entries else { return Ok(Vec::new()) };
    let mut all: Vec<Entry> = Vec::with_capacity(entries.len());
    for (at, mut entry) in entries.into_iter().enumerate() {
        let mut text = |key: &str| match entry.get_mut(key).map(Value::take) {
            Some(Value::String(text)) => text,
            _ => String::new(),
        };
        let operation = match text("operation").as_str() {
            "Apply" => Operation::Apply,
            "Update" => Operation::Update,
            _ => return Err("operation must be `Apply` or `Update`".to_owned()),
        };
        let api_version = text("apiVersion");
        if api_version.is_empty() {
            return Err("apiVersion must not be empty".to_owned());
        }
        match text("fieldsType").as_str() {
            "FieldsV1" => {}
            "" => return Err(format!("missing fieldsType in managed fields entry {at}")),
            other => return Err(format!("invalid fieldsType {other:?} in managed fields entry {at}")),
        }
        let (manager, subresource, time) = (text("manager"), text("subresource"), text("time"));
        let fields = match entry.get_mut("fieldsV1").map(Value::take) {
            Some(Value::Object(fields)) => make(fields)?,
            _ => Set::default(),
        };
        let entry = Entry { manager, operation, api_version, subresource, time, fields };
        all.retain(|it| !it.is_like(&entry));
        all.push(entry);
    }
    Ok(all)
}

/// The entries of a stored object. What cannot be read is dropped.
pub(super) fn stored(entries: Option<Value>) -> Vec<Entry> {
    read(entries.unwrap_or_default(), |fields| Ok(Set::trusted(fields))).unwrap_or_default()
}

/// The entries that a write begins with: those that the client states, or else those of the object in the store. A client that knows
/// nothing of managed fields leaves them out, and one that means to be rid of them sends no entry, or one without content.
pub(super) fn begin(stated: Option<Value>, held: Option<Value>) -> Vec<Entry> {
    match stated {
        None => stored(held),
        Some(stated) if held.as_ref() == Some(&stated) => stored(held),
        Some(Value::Array(entries)) if is_reset(&entries) => Vec::new(),
        Some(stated) => match read(stated, Set::parse) {
            Ok(entries) if !entries.is_empty() => entries,
            _ => stored(held),
        },
    }
}

fn is_reset(entries: &[Value]) -> bool {
    match entries {
        [] => true,
        [one] => one.as_object().is_some_and(Map::is_empty),
        _ => false,
    }
}

/// The entries as an object carries them: none that is empty, not too many, in order.
pub(super) fn finish(mut entries: Vec<Entry>) -> Option<Value> {
    entries.retain(|it| !it.fields.is_empty());
    if entries.is_empty() {
        return None;
    }
    let mut entries = cap(entries);
    entries.sort_by(|a, b| {
        let key = |it: &Entry| (it.operation.name(), it.seconds());
        let names = |it: &'_ Entry| (it.manager.clone(), it.api_version.clone(), it.subresource.clone());
        key(a).cmp(&key(b)).then_with(|| names(a).cmp(&names(b)))
    });
    Some(entries.into_iter().map(Entry::into_value).collect())
}

/// Makes one entry a version of the oldest of too many updating managers.
fn cap(entries: Vec<Entry>) -> Vec<Entry> {
    let (mut updaters, mut out): (Vec<Entry>, Vec<Entry>) = entries.into_iter().partition(|it| it.operation == Operation::Update);
    let mut count = updaters.len();
    if count <= MOST_UPDATERS {
        out.append(&mut updaters);
        return out;
    }
    updaters.sort_by(|a, b| a.seconds().cmp(&b.seconds()).then_with(|| a.manager.cmp(&b.manager)));
    let mut kept: Vec<Entry> = Vec::with_capacity(MOST_UPDATERS);
    for entry in updaters {
        // A single one of its version stays what it is until a second one joins it.
        match kept.iter_mut().find(|it| it.api_version == entry.api_version) {
            Some(oldest) if count > MOST_UPDATERS => {
                oldest.manager = OLDEST.to_owned();
                oldest.subresource = String::new();
                oldest.fields.union(&entry.fields);
                oldest.time = entry.time;
                count -= 1;
            }
            _ => kept.push(entry),
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

    #[test]
    fn entries_are_read_and_written() {
        let mut applied = entry("b", "v1", "2026-01-01T00:00:00Z", "f:a");
        applied["operation"] = "Apply".into();
        applied["subresource"] = "status".into();
        let entries = json!([applied, entry("a", "v1", "2025-01-01T00:00:00Z", "f:b"), entry("c", "v1", "2024-01-01T00:00:00Z", "f:c")]);
        let written = finish(stored(Some(entries.clone()))).unwrap();
        assert_eq!(written, json!([entries[0], entries[2], entries[1]]));
        assert_eq!(finish(stored(Some(json!([])))), None);
    }

    #[test]
    fn what_a_client_states_counts_unless_it_is_nothing() {
        let held = Some(json!([entry("a", "v1", "2026-01-01T00:00:00Z", "f:a")]));
        let stated = |value: Value| finish(begin(Some(value), held.clone()));
        let other = json!([entry("b", "v1", "2026-01-01T00:00:00Z", "f:b")]);
        assert_eq!(finish(begin(None, held.clone())), held);
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
            let Some(Value::Array(entries)) = finish(stored(Some(entries.into()))) else { panic!() };
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
