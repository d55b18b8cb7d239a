//! Pods: the server's decisions at creation, and dependent parts of their status.

use serde_json::{Map, Value, json};

use super::{app_armor, json};
use crate::object::pod::{self, qos_class_of};
use crate::util::product::Product;

/// Completes a pod about to be created; returns warnings.
pub(crate) fn create(pod: &mut Value) -> Vec<String> {
    let class = qos_class_of(pod);
    let gated = !json::items(pod, "/spec/schedulingGates").is_empty();
    if let Some(Value::Object(affinity)) = pod.pointer("/spec/affinity").cloned() {
        let affinity = with_own_labels(affinity, json::at(pod, "/metadata/labels"));
        json::map(pod, "spec").insert("affinity".to_owned(), affinity.into());
    }
    // The shortest period that is not the default.
    if json::integer(pod, "/spec/terminationGracePeriodSeconds").is_some_and(|it| it < 0) {
        json::map(pod, "spec").insert("terminationGracePeriodSeconds".to_owned(), 1.into());
    }
    let status = json::map(pod, "status");
    status.insert("phase".to_owned(), "Pending".into());
    if gated {
        let message = "Scheduling is blocked due to non-empty scheduling gates";
        status.insert(
            "conditions".to_owned(),
            json!([{"type": "PodScheduled", "status": "False", "reason": "SchedulingGated", "message": message,
                    "lastProbeTime": null, "lastTransitionTime": json::now()}]),
        );
    }
    status.insert("qosClass".to_owned(), class.into());
    app_armor::complete(pod)
}

/// The annotations of a pod's binding: its place, and its task there.
const BINDING: [&str; 5] = ["bindingHost", "taskId", "slaveId", "offerId", "executorId"];

/// Takes the binding of another pod from a pod about to be created as its copy. A mirror pod is made with its place.
pub(crate) fn unbind(copy: &mut Value, product: &Product) {
    let metadata = json::metadata(copy);
    let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut) else { return };
    let all = annotations.len();
    if !annotations.contains_key(pod::MIRROR) {
        annotations.retain(|key, _| key.strip_prefix(product.annotation_prefix).is_none_or(|it| !BINDING.contains(&it)));
    }
    if annotations.is_empty() && all > 0 {
        metadata.remove("annotations");
    }
}

/// Kept only with a feature of Kubernetes that is off yet.
const OBSERVED: &str = "observedGeneration";

/// Keeps decisions of admission that an update does not repeat.
pub(crate) fn update(pod: &mut Value, old: &Value) {
    let spec = json::map(pod, "spec");
    for key in ["priority", "preemptionPolicy"] {
        if let Some(decided) = old.get("spec").and_then(|it| it.get(key)) {
            json::set_default(spec, key, decided.clone());
        }
    }
}

/// Resolves label keys in a pod's affinity (`matchLabelKeys`, `mismatchLabelKeys`) to the pod's own values.
fn with_own_labels(mut affinity: Map<String, Value>, labels: Option<&Value>) -> Map<String, Value> {
    const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
    const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";
    for (kind, list) in
        [("podAffinity", REQUIRED), ("podAffinity", PREFERRED), ("podAntiAffinity", REQUIRED), ("podAntiAffinity", PREFERRED)]
    {
        let terms = affinity.get_mut(kind).and_then(|it| it.get_mut(list)).and_then(Value::as_array_mut);
        for term in terms.into_iter().flatten() {
            let term = if list == PREFERRED { term.get_mut("podAffinityTerm") } else { Some(term) };
            let Some(term) = term else { continue };
            let wanted = [("matchLabelKeys", "In"), ("mismatchLabelKeys", "NotIn")].into_iter().flat_map(|(keys, operator)| {
                let keys = term.get(keys).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
                keys.filter_map(move |key| Some(json!({"key": key, "operator": operator, "values": [labels?.get(key)?]})))
            });
            let wanted: Vec<Value> = wanted.collect();
            // An absent selector selects nothing, regardless of keys.
            let Some(Value::Object(selector)) = term.get_mut("labelSelector").filter(|_| !wanted.is_empty()) else { continue };
            if let Value::Array(all) = selector.entry("matchExpressions").or_insert_with(|| Value::Array(Vec::new())) {
                all.extend(wanted);
            }
        }
    }
    affinity
}

/// An update need not repeat the class; `podIPs` begins with `podIP`; the status has no observed generation yet.
pub(crate) fn update_status(pod: &mut Value, old: &Value) {
    let class = json::text(old, "/status/qosClass");
    let class = if class.is_empty() { qos_class_of(old) } else { class };
    let status = json::map(pod, "status");
    json::set_default(status, "qosClass", class);
    status.remove(OBSERVED);
    for condition in status.get_mut("conditions").and_then(Value::as_array_mut).into_iter().flatten().filter_map(Value::as_object_mut) {
        condition.remove(OBSERVED);
    }
    let first = status.get("podIPs").and_then(|it| it.pointer("/0/ip")).and_then(Value::as_str).unwrap_or_default().to_owned();
    let single = status.get("podIP").and_then(Value::as_str).unwrap_or_default().to_owned();
    if single.is_empty() && !first.is_empty() {
        status.insert("podIP".to_owned(), first.into());
    } else if !single.is_empty() && first != single {
        status.insert("podIPs".to_owned(), json!([{"ip": single}]));
    }
}

/// Keeps the old pod except its containers' requests and limits. If the list of containers differs, the pod stays unchanged, and the check
/// rejects it.
pub(crate) fn keep_but_sizes(pod: &mut Value, old: &Value) {
    const LISTS: [&str; 2] = ["/spec/containers", "/spec/initContainers"];
    let names = |of: &Value, list: &str| json::items(of, list).iter().map(|it| it.get("name").cloned()).collect::<Vec<_>>();
    if LISTS.iter().any(|list| names(pod, list) != names(old, list)) {
        return;
    }
    let mut kept = old.clone();
    for list in LISTS {
        let asked = json::items(pod, list);
        let containers = kept.pointer_mut(list).and_then(Value::as_array_mut).into_iter().flatten().filter_map(Value::as_object_mut);
        for (container, asked) in containers.zip(asked) {
            for key in ["resources", "resizePolicy"] {
                json::take_over(container, Some(asked), key);
            }
        }
    }
    *pod = kept;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::util::product::KUBERNETES;

    #[test]
    fn labels_are_matched_by_name() {
        let pod = |term: Value| {
            let affinity = json!({"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term.clone()],
                "preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1, "podAffinityTerm": term}]}});
            let mut pod = json!({"metadata": {"labels": {"x": "1"}}, "spec": {"containers": [], "affinity": affinity}});
            create(&mut pod);
            let made = pod.pointer("/spec/affinity/podAntiAffinity").unwrap().clone();
            assert_eq!(
                made["requiredDuringSchedulingIgnoredDuringExecution"][0],
                made["preferredDuringSchedulingIgnoredDuringExecution"][0]["podAffinityTerm"]
            );
            made["requiredDuringSchedulingIgnoredDuringExecution"][0]["labelSelector"].clone()
        };
        let made = pod(json!({"matchLabelKeys": ["x", "none"], "mismatchLabelKeys": ["x"], "labelSelector": {"matchLabels": {"a": "b"}}}));
        let both = json!([{"key": "x", "operator": "In", "values": ["1"]}, {"key": "x", "operator": "NotIn", "values": ["1"]}]);
        assert_eq!(made, json!({"matchLabels": {"a": "b"}, "matchExpressions": both}));
        assert_eq!(pod(json!({"matchLabelKeys": ["x"]})), Value::Null);
        assert_eq!(pod(json!({"labelSelector": {}})), json!({}));
    }

    #[test]
    fn a_copy_of_a_pod_is_not_bound_as_it_is() {
        let unbound = |annotations: Value| {
            let mut copy = json!({"metadata": {"name": "b", "annotations": annotations}});
            unbind(&mut copy, KUBERNETES);
            copy["metadata"]["annotations"].take()
        };
        let note = |name: &str| KUBERNETES.annotation(name);
        assert_eq!(unbound(json!({note("taskId"): "t", note("bindingHost"): "h", note("executorId"): "e"})), Value::Null);
        let kept = json!({"mine": "1", note("roles"): "*", "other/taskId": "t"});
        let mut copied = kept.clone();
        copied[note("taskId")] = "t".into();
        assert_eq!((unbound(copied), unbound(kept.clone())), (kept.clone(), kept));
        let mirror = json!({pod::MIRROR: "x", note("bindingHost"): "h"});
        assert_eq!((unbound(mirror.clone()), unbound(json!({})), unbound(Value::Null)), (mirror, json!({}), Value::Null));
    }

    #[test]
    fn there_is_no_negative_grace() {
        for (asked, given) in [(-1, 1), (0, 0), (30, 30)] {
            let mut pod = json!({"spec": {"terminationGracePeriodSeconds": asked, "containers": []}});
            create(&mut pod);
            assert_eq!(pod["spec"]["terminationGracePeriodSeconds"], given);
        }
    }

    #[test]
    fn a_resize_is_about_sizes() {
        let old = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"nodeName": "n", "containers": [{"name": "c", "image": "i"}]}});
        let mut new = json!({"metadata": {}, "spec": {"containers": [{"name": "c", "image": "j", "resources": {"limits": {"cpu": "1"}}}]}});
        keep_but_sizes(&mut new, &old);
        assert_eq!(new["spec"]["containers"][0], json!({"name": "c", "image": "i", "resources": {"limits": {"cpu": "1"}}}));
        assert_eq!((&new["spec"]["nodeName"], &new["metadata"]), (&json!("n"), &old["metadata"]));
        let others = json!({"spec": {"containers": []}});
        let mut new = others.clone();
        keep_but_sizes(&mut new, &old);
        assert_eq!(new, others);
    }

    #[test]
    fn addresses_agree() {
        let mut pod = json!({"status": {"podIP": "10.0.0.1"}});
        update_status(&mut pod, &json!({"status": {"qosClass": "Burstable"}}));
        assert_eq!((&pod["status"]["podIPs"], &pod["status"]["qosClass"]), (&json!([{"ip": "10.0.0.1"}]), &json!("Burstable")));
        let mut pod =
            json!({"status": {"podIPs": [{"ip": "10.0.0.1"}], "observedGeneration": 3, "conditions": [{"observedGeneration": 3}]}});
        update_status(&mut pod, &json!({}));
        assert_eq!(pod["status"]["podIP"], "10.0.0.1");
        assert_eq!((&pod["status"]["observedGeneration"], &pod["status"]["conditions"]), (&Value::Null, &json!([{}])));
    }
}
