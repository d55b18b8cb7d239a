//! Events in the stored form of the core group, and in that of `events.k8s.io`: the same except for names.

use serde_json::{Map, Value};

/// Fields as the core group and as `events.k8s.io` call them.
const NAMES: [(&str, &str); 7] = [
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("reportingComponent", "reportingController"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
];

/// Converts to the core group's form (`stored`) or the other.
pub(super) fn convert(event: &mut Value, stored: bool) {
    let Value::Object(fields) = event else { return };
    let renamed: Map<String, Value> = std::mem::take(fields)
        .into_iter()
        .map(|(name, value)| {
            let other = NAMES.iter().find_map(|(core, newer)| match stored {
                true => (*newer == name).then_some(*core),
                false => (*core == name).then_some(*newer),
            });
            (other.map_or(name, str::to_owned), value)
        })
        .collect();
    *fields = renamed;
    if !stored {
        // Empty ones are written in the core group only.
        fields.retain(|name, value| !(name.starts_with("reporting") && value == ""));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::convert;
    use crate::object::resource::{EVENT, EVENT_V1};

    #[test]
    fn one_event_has_two_forms() {
        let core = json!({"kind": "Event", "apiVersion": "v1", "metadata": {"name": "e"}, "involvedObject": {"kind": "Pod"}, "message": "m",
            "reason": "r", "source": {"component": "c"}, "count": 2, "firstTimestamp": "2026-01-01T00:00:00Z", "reportingComponent": "c/d"});
        let mut event = core.clone();
        convert(&mut event, &EVENT, &EVENT_V1);
        let newer = json!({"kind": "Event", "apiVersion": "events.k8s.io/v1", "metadata": {"name": "e"}, "regarding": {"kind": "Pod"},
            "note": "m", "reason": "r", "deprecatedSource": {"component": "c"}, "deprecatedCount": 2,
            "deprecatedFirstTimestamp": "2026-01-01T00:00:00Z", "reportingController": "c/d"});
        assert_eq!(event, newer);
        convert(&mut event, &EVENT_V1, &EVENT);
        assert_eq!(event, core);
    }
}
