//! Allowed changes when running containers are resized: CPU and memory, requests and limits.

use serde_json::{Map, Value};

use super::at::At;
use crate::object::status::Cause;
use crate::util::quantity::Quantity;

const LISTS: [&str; 2] = ["containers", "initContainers"];
const SIZES: [&str; 2] = ["cpu", "memory"];

/// Checks the whole pod, which would get this class; each container by itself is checked elsewhere.
pub(super) fn resize(new: &At<'_>, old: &At<'_>, class: &str, out: &mut Vec<Cause>) {
    let (spec, before) = (new.at("spec"), old.at("spec"));
    let never = [
        (has_amounts(&spec) || has_amounts(&before), "pods with pod-level resources cannot be resized"),
        (old.at("metadata").at("annotations").has("kubernetes.io/config.mirror"), "static pods cannot be resized"),
        (before.at("os").text("name") == "windows", "windows pods cannot be resized"),
    ];
    if let Some((_, why)) = never.into_iter().find(|(holds, _)| *holds) {
        *out = vec![Cause::forbidden("", why)];
        return;
    }
    // The class of a pod is decided once.
    let decided = old.at("status").get("qosClass");
    if decided.is_string() && decided != class {
        out.push(Cause::invalid(spec.path.as_str(), decided, "Pod QOS Class may not change as a result of resizing"));
    }
    if !is_supported(old) {
        out.push(Cause::forbidden(spec.path.as_str(), "Pod running on node without support for resize"));
    }
    if !same_containers(&spec, &before, out) {
        return;
    }
    let restartable = |it: &At<'_>| it.text("restartPolicy") == "Always";
    for (new, old) in pairs(&spec, &before, "initContainers").filter(|(_, old)| restartable(old)) {
        sizes(&new, &old, out);
    }
    for (new, old) in pairs(&spec, &before, "containers") {
        sizes(&new, &old, out);
    }
    let frozen = |new: &At<'_>, old: &At<'_>| without_sizes(new, old) == *old.value;
    for (new, old) in pairs(&spec, &before, "containers") {
        if !frozen(&new, &old) {
            out.push(Cause::forbidden(spec.path.as_str(), "only cpu and memory resources are mutable"));
        }
    }
    for (new, old) in pairs(&spec, &before, "initContainers") {
        if restartable(&new) {
            if !frozen(&new, &old) {
                out.push(Cause::forbidden(spec.path.as_str(), "only cpu and memory resources for sidecar containers are mutable"));
            }
        } else if new.value != old.value {
            out.push(Cause::forbidden(spec.path.as_str(), "resources for non-sidecar init containers are immutable"));
        }
    }
}

fn has_amounts(spec: &At<'_>) -> bool {
    let resources = spec.at("resources");
    ["requests", "limits"].iter().any(|it| resources.count(it) != 0)
}

/// A node that supports resizing reports the resources of running containers. Without a running one, this is unknown.
fn is_supported(pod: &At<'_>) -> bool {
    let running = pod.at("status").items("containerStatuses").find(|it| it.at("state").has("running"));
    running.is_none_or(|it| it.has("resources"))
}

fn same_containers(new: &At<'_>, old: &At<'_>, out: &mut Vec<Cause>) -> bool {
    let before = out.len();
    for list in LISTS {
        if new.list(list).len() != old.list(list).len() {
            new.forbidden(list, &format!("{list} may not be added or removed on resize"), out);
            continue;
        }
        for (new, _) in pairs(new, old, list).filter(|(new, old)| new.get("name") != old.get("name")) {
            new.forbidden("name", &format!("{list} may not be renamed or reordered on resize"), out);
        }
    }
    out.len() == before
}

fn pairs<'a>(new: &At<'a>, old: &At<'a>, list: &str) -> impl Iterator<Item = (At<'a>, At<'a>)> + use<'a> {
    new.items(list).zip(old.items(list).collect::<Vec<_>>())
}

fn sizes(new: &At<'_>, old: &At<'_>, out: &mut Vec<Cause>) {
    let (resources, before) = (new.at("resources"), old.at("resources"));
    for (list, what) in [("requests", "requests"), ("limits", "limits")] {
        let (after, before) = (resources.at(list), before.at(list));
        if before.value.as_object().into_iter().flatten().any(|(name, _)| !after.has(name)) {
            resources.forbidden(list, &format!("resource {what} cannot be removed"), out);
        }
    }
    let restarts = new
        .items("resizePolicy")
        .find(|it| it.text("resourceName") == "memory")
        .is_some_and(|it| it.text("restartPolicy") == "RestartContainer");
    let limit = |of: &At<'_>| Quantity::from_json(of.at("limits").get("memory")).ok();
    let changed = match (limit(&resources), limit(&before)) {
        (Some(new), Some(old)) if new.millis() < old.millis() => "decreased",
        (Some(_), None) => "added",
        _ => return,
    };
    if !restarts {
        let why = format!("memory limits cannot be {changed} unless resizePolicy is RestartContainer");
        out.push(Cause::forbidden(resources.at("limits").entry_path("memory"), &why));
    }
}

/// The new container with the sizes that the old one has.
fn without_sizes(new: &At<'_>, old: &At<'_>) -> Value {
    let mut container = new.value.clone();
    let amounts = |list: &str| -> Option<Value> {
        let before = old.at("resources").get(list).as_object()?;
        let mut amounts: Map<String, Value> = new.at("resources").get(list).as_object().cloned().unwrap_or_default();
        for size in SIZES {
            amounts.remove(size);
            amounts.extend(before.get(size).map(|it| (size.to_owned(), it.clone())));
        }
        Some(amounts.into())
    };
    let kept = ["limits", "requests"].into_iter().filter_map(|list| Some((list.to_owned(), amounts(list)?)));
    container["resources"] = kept.collect::<Map<_, _>>().into();
    container
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::validate_resize;
    use super::*;

    fn pod(resources: Value, policy: Value) -> Value {
        let mut pod = json!({"metadata": {"name": "p"}, "status": {"qosClass": "Burstable"}, "spec": {"containers": [
            {"name": "c", "image": "i", "resources": resources, "resizePolicy": policy}]}});
        super::super::super::default(&crate::object::resource::POD, &mut pod);
        pod
    }

    #[test]
    fn only_sizes_change() {
        let old = pod(json!({"requests": {"cpu": "1"}, "limits": {"memory": "2Gi"}}), json!([]));
        let restarts = json!([{"resourceName": "memory", "restartPolicy": "RestartContainer"}]);
        let complaints = |new: &Value, old: &Value, class: &str| -> Vec<String> {
            validate_resize(new, old, class).into_iter().map(|it| format!("{}: {}", it.field, it.message)).collect()
        };
        for (resources, policy, expected) in [
            (json!({"requests": {"cpu": "2", "memory": "2Gi"}, "limits": {"memory": "3Gi"}}), json!([]), vec![]),
            (json!({"requests": {"cpu": "2"}, "limits": {"memory": "1Gi"}}), restarts.clone(), vec![]),
            (
                json!({"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"memory": "1Gi"}}),
                json!([]),
                vec![
                    "spec.containers[0].resources.limits[memory]: Forbidden: memory limits cannot be decreased unless resizePolicy is RestartContainer",
                ],
            ),
            (
                json!({"requests": {"memory": "2Gi"}, "limits": {"memory": "2Gi"}}),
                json!([]),
                vec!["spec.containers[0].resources.requests: Forbidden: resource requests cannot be removed"],
            ),
            (
                json!({"requests": {"cpu": "1", "example.com/x": "1"}, "limits": {"memory": "2Gi", "example.com/x": "1"}}),
                json!([]),
                vec!["spec: Forbidden: only cpu and memory resources are mutable"],
            ),
        ] {
            let mut old = old.clone();
            if policy == restarts {
                old["spec"]["containers"][0]["resizePolicy"] = policy.clone();
            }
            assert_eq!(complaints(&pod(resources.clone(), policy), &old, "Burstable"), expected, "{resources}");
        }
        let best_effort = pod(json!({}), json!([]));
        let why = "spec: Invalid value: \"Burstable\": Pod QOS Class may not change as a result of resizing";
        assert!(complaints(&best_effort, &old, "BestEffort").contains(&why.to_owned()));
        let mut running = old.clone();
        running["status"]["containerStatuses"] = json!([{"name": "c", "state": {"running": {}}}]);
        assert_eq!(complaints(&old, &running, "Burstable"), ["spec: Forbidden: Pod running on node without support for resize"]);
    }
}
