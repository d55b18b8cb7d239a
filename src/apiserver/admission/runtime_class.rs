//! Runtime classes: a pod with one gets its overhead and node constraints.

use std::collections::HashSet;

use indexmap::IndexSet;
use serde_json::Value;

use super::super::Server;
use super::super::error::Answer;
use super::{Review, refuse};
use crate::object::resource::RUNTIME_CLASS;
use crate::util::json;

/// Applies the runtime class to a pod about to be created.
pub(super) fn admit(server: &Server, review: &Review<'_>, pod: &mut Value) -> Answer<()> {
    if !review.creates("pods") {
        return Ok(());
    }
    let class = match json::text(pod, "/spec/runtimeClassName") {
        "" => None,
        name => match server.cache.get(&RUNTIME_CLASS, "", name) {
            Some(class) => serde_json::from_slice(class.body()).ok(),
            None => return Err(refuse(review, &format!("pod rejected: RuntimeClass {name:?} not found"))),
        },
    };
    settle(class.as_ref(), pod).map_err(|why| refuse(review, &why))
}

/// # Errors
/// A contradiction between the pod and its class.
fn settle(class: Option<&Value>, pod: &mut Value) -> Result<(), String> {
    let of_class = |pointer: &str| class.and_then(|it| it.pointer(pointer)).cloned();
    let spec = json::map(pod, "spec");
    let stated = spec.get("overhead").is_some_and(|it| it.as_object().is_some_and(|it| !it.is_empty()));
    match of_class("/overhead/podFixed") {
        Some(fixed) if stated && spec["overhead"] != fixed => {
            return Err("pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead".to_owned());
        }
        Some(fixed) => drop(spec.insert("overhead".to_owned(), fixed)),
        None if stated => return Err("pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead".to_owned()),
        None => {}
    }
    if let Some(Value::Object(wanted)) = of_class("/scheduling/nodeSelector") {
        let selector = json::entry_map(spec, "nodeSelector");
        for (key, value) in wanted {
            if let Some(there) = selector.get(&key).filter(|it| **it != value) {
                let text = |it: &Value| it.as_str().unwrap_or_default().to_owned();
                let (value, there) = (text(&value), text(there));
                return Err(format!(
                    "conflict: runtimeClass.scheduling.nodeSelector[{key}] = {value}; pod.spec.nodeSelector[{key}] = {there}"
                ));
            }
            selector.insert(key, value);
        }
    }
    if let Some(Value::Array(more)) = of_class("/scheduling/tolerations") {
        let mut tolerations = spec.get("tolerations").and_then(Value::as_array).cloned().unwrap_or_default();
        let there: HashSet<&Value> = tolerations.iter().collect();
        let more: IndexSet<Value> = more.into_iter().filter(|it| !there.contains(it)).collect();
        tolerations.extend(more);
        spec.insert("tolerations".to_owned(), tolerations.into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_pod_gets_what_its_class_says() {
        let class = json!({"overhead": {"podFixed": {"memory": "64Mi"}},
            "scheduling": {"nodeSelector": {"vm": "yes"}, "tolerations": [{"key": "vm", "operator": "Exists"}, {"key": "own"}]}});
        let mut pod = json!({"spec": {"nodeSelector": {"disk": "ssd"}, "tolerations": [{"key": "own"}]}});
        settle(Some(&class), &mut pod).unwrap();
        let expected = json!({"spec": {"nodeSelector": {"disk": "ssd", "vm": "yes"}, "overhead": {"memory": "64Mi"},
            "tolerations": [{"key": "own"}, {"key": "vm", "operator": "Exists"}]}});
        assert_eq!(pod, expected);
        settle(Some(&class), &mut pod).unwrap();
        assert_eq!(pod, expected);
        let mut plain = json!({"spec": {"nodeSelector": {}}});
        settle(Some(&json!({"handler": "x"})), &mut plain).unwrap();
        assert_eq!(plain, json!({"spec": {"nodeSelector": {}}}));
    }

    #[test]
    fn a_pod_that_says_otherwise_is_refused() {
        let class = json!({"overhead": {"podFixed": {"memory": "64Mi"}}, "scheduling": {"nodeSelector": {"vm": "yes"}}});
        let refused = |class: Option<&Value>, spec: Value| settle(class, &mut json!({ "spec": spec })).unwrap_err();
        assert_eq!(
            refused(Some(&class), json!({"overhead": {"memory": "1Mi"}})),
            "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead"
        );
        let without = "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead";
        assert_eq!(refused(None, json!({"overhead": {"memory": "1Mi"}})), without);
        assert_eq!(refused(Some(&json!({})), json!({"overhead": {"memory": "1Mi"}})), without);
        assert_eq!(
            refused(Some(&class), json!({"nodeSelector": {"vm": "no"}})),
            "conflict: runtimeClass.scheduling.nodeSelector[vm] = yes; pod.spec.nodeSelector[vm] = no"
        );
    }
}
