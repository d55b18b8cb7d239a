//! The identity of a StatefulSet's pod: its name, its host name, and its labels.

use serde_json::{Map, Value};

use super::REVISION;
use super::claims::Claims;
use crate::controllers::pods;
use crate::object::Object;

const POD_NAME: &str = "statefulset.kubernetes.io/pod-name";
const POD_INDEX: &str = "apps.kubernetes.io/pod-index";

/// The name of the pod of this ordinal.
pub(super) fn name(set: &str, ordinal: i64) -> String {
    format!("{set}-{ordinal}")
}

/// The ordinal of a pod of this name, if it is one of the set's.
pub(super) fn ordinal(set: &str, pod: &str) -> Option<i64> {
    let digits = pod.strip_prefix(set)?.strip_prefix('-')?;
    let ordinal = digits.parse().ok()?;
    (name(set, ordinal) == pod && ordinal >= 0).then_some(ordinal)
}

/// The labels that identify a pod within its set.
pub(super) fn labels(name: &str, ordinal: i64) -> Map<String, Value> {
    [(POD_NAME, Value::from(name)), (POD_INDEX, ordinal.to_string().into())]
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value))
        .collect()
}

/// The pod of this ordinal, from the template of a revision.
pub(super) fn pod(set: &Object, spec: &Value, template: &Value, ordinal: i64, revision: &str, claims: &Claims<'_>) -> Value {
    let name = name(set.name(), ordinal);
    let mut pod = pods::from_template(template, set);
    pod["metadata"]["name"] = name.as_str().into();
    for (key, value) in labels(&name, ordinal) {
        pod["metadata"]["labels"][key] = value;
    }
    pod["metadata"]["labels"][REVISION] = revision.into();
    pod["spec"]["hostname"] = name.into();
    if let Some(service) = spec["serviceName"].as_str().filter(|it| !it.is_empty()) {
        pod["spec"]["subdomain"] = service.into();
    }
    claims.mount(ordinal, &mut pod["spec"]);
    pod
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinals_are_the_ends_of_names() {
        for (pod, expected) in [
            ("web-0", Some(0)),
            ("web-12", Some(12)),
            ("web", None),
            ("web-x", None),
            ("web-01", None),
            ("web--1", None),
            ("other-1", None),
            ("web-2-1", None),
        ] {
            assert_eq!(ordinal("web", pod), expected, "{pod}");
        }
        assert_eq!(ordinal("web-2", "web-2-1"), Some(1));
    }
}
