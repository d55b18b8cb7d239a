//! Conditions of a status: a list with one entry a type.

use jiff::Timestamp;
use serde_json::{Value, json};

/// A moment as the API writes it, to the second.
pub(super) fn time(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// The entry of a type.
pub(super) fn find<'a>(conditions: &'a Value, kind: &str) -> Option<&'a Value> {
    conditions.as_array()?.iter().find(|it| it["type"] == kind)
}

/// Replaces the condition of the same type, or appends it. The transition time is now if the status differs.
pub(super) fn set(conditions: &mut Value, mut condition: Value, now: Timestamp) {
    let before = find(conditions, condition["type"].as_str().unwrap_or_default());
    let since = before.filter(|it| it["status"] == condition["status"]).map(|it| it["lastTransitionTime"].clone());
    condition["lastTransitionTime"] = since.filter(|it| !it.is_null()).unwrap_or_else(|| time(now).into());
    if !conditions.is_array() {
        *conditions = json!([]);
    }
    let Value::Array(list) = conditions else { unreachable!("it was just made one") };
    match list.iter_mut().find(|it| it["type"] == condition["type"]) {
        Some(there) => *there = condition,
        None => list.push(condition),
    }
}

/// The conditions of a status that is being made.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Conditions {
    list: Value,
    /// The field with the time of a condition's last write: `lastUpdateTime` or `lastProbeTime`.
    written: Option<&'static str>,
    newest_last: bool,
}

impl Conditions {
    pub fn of(status: &Value, written: Option<&'static str>) -> Self {
        Self { list: status["conditions"].clone(), written, newest_last: false }
    }

    /// Moves each condition that is set to the end, even if it replaces one: users read them in this order.
    pub fn newest_last(self) -> Self {
        Self { newest_last: true, ..self }
    }

    pub fn get(&self, kind: &str) -> Option<&Value> {
        find(&self.list, kind)
    }

    pub fn is_true(&self, kind: &str) -> bool {
        self.get(kind).is_some_and(|it| it["status"] == "True")
    }

    /// The reason of a condition; empty without one.
    pub fn reason(&self, kind: &str) -> &str {
        self.get(kind).and_then(|it| it["reason"].as_str()).unwrap_or_default()
    }

    /// Puts a condition in, unless it is there with the same status and reason.
    pub fn set(&mut self, kind: &str, status: &str, reason: &str, message: &str, now: Timestamp) {
        if self.get(kind).is_none_or(|it| it["status"] != status || it["reason"] != reason) {
            self.renew(kind, status, reason, message, now);
        }
    }

    /// Puts a condition in, as of now.
    pub fn renew(&mut self, kind: &str, status: &str, reason: &str, message: &str, now: Timestamp) {
        let mut condition = json!({ "type": kind, "status": status, "reason": reason, "message": message });
        if let Some(written) = self.written {
            condition[written] = time(now).into();
        }
        set(&mut self.list, condition, now);
        if let (true, Some(list)) = (self.newest_last, self.list.as_array_mut())
            && let Some(at) = list.iter().position(|it| it["type"] == kind)
        {
            list[at..].rotate_left(1);
        }
    }

    pub fn remove(&mut self, kind: &str) {
        if let Some(list) = self.list.as_array_mut() {
            list.retain(|it| it["type"] != kind);
        }
    }

    /// For the status: null if empty.
    pub fn into_json(self) -> Value {
        if self.list.as_array().is_none_or(Vec::is_empty) { Value::Null } else { self.list }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_is_the_last_where_that_is_wanted() {
        let now = "2026-01-01T00:00:00Z".parse().unwrap();
        let kinds = |conditions: &Conditions| -> Vec<String> {
            conditions.list.as_array().unwrap().iter().map(|it| it["type"].as_str().unwrap().to_owned()).collect()
        };
        for (conditions, expected) in [(Conditions::default(), ["A", "B"]), (Conditions::default().newest_last(), ["B", "A"])] {
            let mut conditions = conditions;
            for (kind, reason) in [("A", "X"), ("B", "X"), ("A", "Y"), ("B", "X")] {
                conditions.set(kind, "True", reason, "", now);
            }
            assert_eq!(kinds(&conditions), expected);
        }
    }

    #[test]
    fn a_transition_is_a_change_of_status() {
        let (one, two): (Timestamp, Timestamp) = ("2026-01-01T00:00:00Z".parse().unwrap(), "2026-01-02T00:00:00Z".parse().unwrap());
        let mut list = Value::Null;
        set(&mut list, json!({"type": "A", "status": "True", "reason": "X"}), one);
        set(&mut list, json!({"type": "B", "status": "True"}), one);
        set(&mut list, json!({"type": "A", "status": "True", "reason": "Y"}), two);
        set(&mut list, json!({"type": "B", "status": "False"}), two);
        let a = json!({"type": "A", "status": "True", "reason": "Y", "lastTransitionTime": "2026-01-01T00:00:00Z"});
        let b = json!({"type": "B", "status": "False", "lastTransitionTime": "2026-01-02T00:00:00Z"});
        assert_eq!(list, json!([a, b]));
        let mut latest = Conditions::of(&json!({ "conditions": list }), None).newest_last();
        latest.set("A", "True", "Y", "", two);
        assert_eq!(latest.list, json!([a, b]), "nothing new");
        latest.set("A", "True", "Z", "", two);
        assert_eq!(latest.list[1]["reason"], "Z");
    }
}
