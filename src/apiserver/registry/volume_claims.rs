//! Claims of volumes: what their volumes begin with has two fields, of which the newer one may name anything.

use serde_json::{Map, Value};

use super::json;

const OLDER: &str = "dataSource";
const NEWER: &str = "dataSourceRef";

pub(crate) fn create(claim: &mut Value) {
    json::map(claim, "status").insert("phase".to_owned(), "Pending".into());
    settle_source(claim, None);
}

/// Copies the source between the two fields if one is absent. The older field alone may only name claims and snapshots; other kinds are
/// ignored, as before the newer field existed.
pub(crate) fn settle_source(new: &mut Value, old: Option<&Value>) {
    let names = |value: &Value, key: &str| value.pointer("/spec").and_then(|it| it.get(key)).is_some_and(|it| !it.is_null());
    let had_source = old.is_some_and(|it| names(it, OLDER) || names(it, NEWER));
    drop_off(json::map(new, "spec"), |key| old.is_some_and(|it| names(it, key)));
    let (older, newer) = (names(new, OLDER), names(new, NEWER));
    let spec = json::map(new, "spec");
    match (older, newer) {
        (true, false) if !had_source && !is_known(&spec[OLDER]) => drop(spec.remove(OLDER)),
        (true, false) => copy(spec, OLDER, NEWER),
        (false, true) if !is_elsewhere(&spec[NEWER]) => copy(spec, NEWER, OLDER),
        _ => {}
    }
}

/// Drops fields of disabled features, unless the claim had them: a source in another namespace, and a class of attributes. Claim templates
/// keep them.
fn drop_off(spec: &mut Map<String, Value>, had: impl Fn(&str) -> bool) {
    const CLASS: &str = "volumeAttributesClassName";
    if !had(CLASS) {
        spec.remove(CLASS);
    }
    if !had(NEWER) && spec.get(NEWER).is_some_and(is_elsewhere) {
        spec.remove(NEWER);
    }
}

fn is_elsewhere(source: &Value) -> bool {
    !source.get("namespace").and_then(Value::as_str).unwrap_or_default().is_empty()
}

/// Whether the older field may name this source.
fn is_known(source: &Value) -> bool {
    let text = |key: &str| source.get(key).and_then(Value::as_str).unwrap_or_default();
    matches!((text("apiGroup"), text("kind")), ("", "PersistentVolumeClaim") | ("snapshot.storage.k8s.io", "VolumeSnapshot"))
}

fn copy(spec: &mut Map<String, Value>, from: &str, to: &str) {
    let fields = ["apiGroup", "kind", "name"].into_iter().filter_map(|key| Some((key.to_owned(), spec[from].get(key)?.clone())));
    let copied = fields.collect::<Map<_, _>>();
    spec.insert(to.to_owned(), copied.into());
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn both_fields_name_the_same() {
        let (claim, other) =
            (json!({"apiGroup": null, "kind": "PersistentVolumeClaim", "name": "c"}), json!({"kind": "Other", "name": "o"}));
        for (spec, expected) in [
            (json!({ OLDER: claim }), json!({ OLDER: claim, NEWER: claim })),
            (json!({ NEWER: other }), json!({ OLDER: other, NEWER: other })),
            (json!({ NEWER: {"kind": "Other", "name": "o", "namespace": "n"}, "volumeAttributesClassName": "c" }), json!({})),
            (json!({ OLDER: other }), json!({})),
            (json!({ OLDER: claim, NEWER: other }), json!({ OLDER: claim, NEWER: other })),
            (json!({}), json!({})),
        ] {
            let mut new = json!({ "spec": spec });
            settle_source(&mut new, None);
            assert_eq!(new["spec"], expected);
        }
        let old = json!({ "spec": { OLDER: other } });
        let mut new = old.clone();
        settle_source(&mut new, Some(&old));
        assert_eq!(new["spec"][NEWER], other, "what is there stays");
        let old = json!({ "spec": { NEWER: {"kind": "Other", "name": "o", "namespace": "n"} } });
        let mut new = old.clone();
        settle_source(&mut new, Some(&old));
        assert_eq!(new, old);
    }
}
