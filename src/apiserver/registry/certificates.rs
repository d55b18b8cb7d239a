//! Certificate signing requests: the requester is recorded, the request is immutable, and its conditions are dated.

use std::collections::HashMap;

use serde_json::Value;

use super::super::auth::User;
use super::json;

/// Records the requesting user.
pub(crate) fn sign(request: &mut Value, user: &User) {
    let spec = json::map(request, "spec");
    for field in ["username", "uid", "groups", "extra"] {
        spec.remove(field);
    }
    spec.extend(user.fields());
}

pub(crate) fn keep_spec(new: &mut Value, old: &Value) {
    if let Some(new) = new.as_object_mut() {
        json::take_over(new, Some(old), "spec");
    }
}

/// Conditions without times get them: a condition that was there before with the same status has not changed since.
pub(crate) fn stamp_conditions(new: &mut Value, old: &Value) {
    let now = json::now();
    let state = |it: &Value| (json::text(it, "/type").to_owned(), json::text(it, "/status").to_owned());
    // Of several, the first.
    let before: HashMap<_, _> = json::items(old, "/status/conditions").iter().rev().map(|it| (state(it), it)).collect();
    for condition in new.pointer_mut("/status/conditions").and_then(Value::as_array_mut).into_iter().flatten() {
        let same = before.get(&state(condition));
        let since = same.and_then(|it| it.get("lastTransitionTime")).cloned().unwrap_or_else(|| now.clone().into());
        let Some(condition) = condition.as_object_mut() else { continue };
        json::set_default(condition, "lastTransitionTime", since);
        json::set_default(condition, "lastUpdateTime", now.clone());
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn requests_are_signed_and_conditions_dated() {
        let mut request = json!({"spec": {"username": "somebody else", "uid": "x", "request": "r"}});
        sign(&mut request, &User { name: "me".to_owned(), groups: vec!["g".to_owned()], ..User::default() });
        assert_eq!(request, json!({"spec": {"username": "me", "groups": ["g"], "request": "r"}}));
        let old = json!({"status": {"conditions": [{"type": "Approved", "status": "True", "lastTransitionTime": "then"}]}});
        let mut new = json!({"status": {"conditions": [{"type": "Approved", "status": "True"}, {"type": "Failed", "status": "True"}]}});
        stamp_conditions(&mut new, &old);
        assert_eq!(new["status"]["conditions"][0]["lastTransitionTime"], "then");
        assert!(new["status"]["conditions"][1]["lastTransitionTime"].is_string());
        assert!(new["status"]["conditions"][0]["lastUpdateTime"].is_string());
    }
}
