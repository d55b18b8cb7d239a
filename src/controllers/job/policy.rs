//! A job's policies on its pods: `podFailurePolicy` for failed ones, `successPolicy` for successful ones.

use k8s_openapi::api::core::v1::Pod;
use serde_json::Value;

use super::indexes::Indexes;
use crate::object::Object;

/// The consequence of a failed pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The default: the failure counts towards the limits.
    Count,
    /// The failure is ignored.
    Ignore,
    /// Its index has failed, regardless of its limit.
    FailIndex,
    /// The job has failed, for this reason.
    FailJob(String),
}

/// The verdict of the first rule of `policy` that matches.
pub(super) fn judge(policy: &Value, pod: &Object) -> Verdict {
    let Some(rules) = policy["rules"].as_array().filter(|it| !it.is_empty()) else { return Verdict::Count };
    if pod.field("status.phase") != Some("Failed") {
        return Verdict::Count;
    }
    let Ok(typed) = pod.typed::<Pod>() else { return Verdict::Count };
    for (at, rule) in rules.iter().enumerate() {
        let action = rule["action"].as_str().unwrap_or_default();
        let matched = if rule["onExitCodes"].is_object() {
            by_exit_code(&rule["onExitCodes"], typed).map(|(container, code)| {
                format!("Container {container} for pod {}/{} failed with exit code {code}", pod.namespace(), pod.name())
            })
        } else {
            by_condition(&rule["onPodConditions"], typed)
                .map(|condition| format!("Pod {}/{} has condition {condition}", pod.namespace(), pod.name()))
        };
        let Some(what) = matched else { continue };
        return match action {
            "FailJob" => Verdict::FailJob(format!("{what} matching FailJob rule at index {at}")),
            "FailIndex" => Verdict::FailIndex,
            "Ignore" => Verdict::Ignore,
            _ => Verdict::Count,
        };
    }
    Verdict::Count
}

/// The first container with a matching exit code; 0 never matches.
fn by_exit_code<'a>(wanted: &Value, pod: &'a Pod) -> Option<(&'a str, i32)> {
    let status = pod.status.as_ref()?;
    let containers = status.container_statuses.iter().chain(&status.init_container_statuses).flatten();
    let mut ended = containers.filter_map(|it| Some((&*it.name, it.state.as_ref()?.terminated.as_ref()?.exit_code))).filter(|it| it.1 != 0);
    let codes = || wanted["values"].as_array().into_iter().flatten();
    ended.find(|(name, code)| {
        let listed = codes().any(|it| *it == *code);
        let named = wanted["containerName"].as_str().is_none_or(|it| it == *name);
        named && if wanted["operator"] == "NotIn" { !listed } else { listed }
    })
}

/// The type of the first condition that is meant.
fn by_condition<'a>(wanted: &Value, pod: &'a Pod) -> Option<&'a str> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    let patterns = wanted.as_array().into_iter().flatten();
    let matches = |pattern: &Value| {
        let status = pattern["status"].as_str().unwrap_or("True");
        conditions.iter().find(|it| pattern["type"] == it.type_ && it.status == status)
    };
    patterns.filter_map(matches).next().map(|it| &*it.type_)
}

/// The position of the first rule of a success policy that holds.
pub(super) fn success(policy: &Value, succeeded: &Indexes, completions: i64) -> Option<usize> {
    policy["rules"].as_array()?.iter().position(|rule| {
        let count = rule["succeededCount"].as_i64();
        match rule["succeededIndexes"].as_str() {
            Some(text) => {
                let wanted = Indexes::read(text, completions);
                wanted.count_common(succeeded) >= count.unwrap_or(wanted.count())
            }
            None => count.is_some_and(|it| succeeded.count() >= it),
        }
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::object::resource;

    fn failed(code: i32, condition: &str) -> std::sync::Arc<Object> {
        let pod = json!({"metadata": {"name": "p", "namespace": "n"}, "spec": {"containers": []}, "status": {
            "phase": "Failed",
            "conditions": [{"type": condition, "status": "True"}],
            "containerStatuses": [
                {"name": "good", "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": {"terminated": {"exitCode": 0}}},
                {"name": "main", "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": {"terminated": {"exitCode": code}}}],
        }});
        Object::from_stored(&resource::POD, pod.to_string().as_bytes(), 1).unwrap()
    }

    #[test]
    fn the_first_rule_that_matches_decides() {
        let codes = |operator: &str, values: Value| json!({"operator": operator, "values": values});
        let rule = |action: &str, codes: Value| json!({"action": action, "onExitCodes": codes});
        let named = json!({"containerName": "good", "operator": "In", "values": [42]});
        let disrupted = json!({"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]});
        let fail_job = Verdict::FailJob("Container main for pod n/p failed with exit code 42 matching FailJob rule at index 1".to_owned());
        for (rules, pod, expected) in [
            (json!([]), failed(1, "X"), Verdict::Count),
            (json!([disrupted]), failed(1, "DisruptionTarget"), Verdict::Ignore),
            (json!([disrupted]), failed(1, "X"), Verdict::Count),
            (json!([disrupted, rule("FailJob", codes("In", json!([41, 42])))]), failed(42, "X"), fail_job),
            (json!([rule("FailJob", named)]), failed(42, "X"), Verdict::Count),
            (json!([rule("FailIndex", codes("NotIn", json!([1])))]), failed(42, "X"), Verdict::FailIndex),
            (json!([rule("FailIndex", codes("NotIn", json!([1])))]), failed(1, "X"), Verdict::Count),
            (json!([rule("Count", codes("In", json!([1]))), rule("Ignore", codes("In", json!([1])))]), failed(1, "X"), Verdict::Count),
        ] {
            assert_eq!(judge(&json!({"rules": rules}), &pod), expected, "{rules}");
        }
    }

    #[test]
    fn success_is_by_indexes_or_by_number() {
        for (rules, succeeded, expected) in [
            (json!([{"succeededIndexes": "0,2-3"}]), "0,2", None),
            (json!([{"succeededIndexes": "0,2-3"}]), "0,2,3", Some(0)),
            (json!([{"succeededIndexes": "0,2-3", "succeededCount": 1}]), "2", Some(0)),
            (json!([{"succeededIndexes": "0"}, {"succeededCount": 2}]), "1,4", Some(1)),
            (json!([]), "0-9", None),
        ] {
            assert_eq!(success(&json!({"rules": rules}), &Indexes::read(succeeded, 10), 10), expected, "{rules}");
        }
    }
}
