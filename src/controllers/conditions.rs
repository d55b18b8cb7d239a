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

/// Puts `condition` in the place of the one of its type, or behind the others. Its transition was now if it has another status than before.
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

#[cfg(test)]
mod tests {
    use super::*;

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
    }
}
