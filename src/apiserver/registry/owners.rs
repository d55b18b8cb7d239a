//! References to owners: one that is there twice is one.

use indexmap::IndexSet;
use serde_json::Value;

use super::json;

/// When something was found in an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// As sent by the client.
    Sent,
    /// As about to be stored.
    Admitted,
}

/// Removes duplicate owner references; returns the warning.
pub(crate) fn merge(object: &mut Value, found: Found) -> Option<String> {
    let references = object.get_mut("metadata")?.get_mut("ownerReferences")?.as_array_mut()?;
    if references.len() < 2 {
        return None;
    }
    let (mut kept, mut doubles) = (IndexSet::with_capacity(references.len()), Vec::new());
    for reference in std::mem::take(references) {
        if let (at, false) = kept.insert_full(reference) {
            doubles.push(json::text(&kept[at], "/uid").to_owned());
        }
    }
    references.extend(kept);
    let when = if found == Found::Admitted { " after mutating admission happens" } else { "" };
    (!doubles.is_empty()).then(|| {
        format!(
            ".metadata.ownerReferences contains duplicate entries{when}; API server dedups owner references in 1.20+, and may reject such \
             requests as early as 1.24; please fix your requests; duplicate UID(s) observed: {}",
            doubles.join(", ")
        )
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn equal_references_are_one() {
        let (a, b) = (json!({"kind": "X", "name": "a", "uid": "u"}), json!({"kind": "X", "name": "b", "uid": "u"}));
        let mut object = json!({"metadata": {"ownerReferences": [a, b, a]}});
        let told = merge(&mut object, Found::Sent).unwrap();
        assert!(told.starts_with(".metadata.ownerReferences contains duplicate entries; API server dedups"), "{told}");
        assert!(told.ends_with("duplicate UID(s) observed: u"), "{told}");
        assert_eq!(object["metadata"]["ownerReferences"], json!([a, b]));
        assert_eq!(merge(&mut object, Found::Admitted), None);
        assert_eq!(merge(&mut json!({}), Found::Admitted), None);
    }

    #[test]
    fn references_may_fill_a_request() {
        let references: Vec<Value> = (0..20_000).map(|it| json!({"kind": "ConfigMap", "name": format!("a{it}"), "uid": "u"})).collect();
        let twice = [references.clone(), references.clone()].concat();
        let mut object = json!({"metadata": {"ownerReferences": twice}});
        assert!(merge(&mut object, Found::Sent).is_some());
        assert_eq!(object, json!({"metadata": {"ownerReferences": references}}));
    }
}
