//! Limit ranges of the namespace: defaults for containers without limits, and bounds for those with limits.

use serde_json::Value;

use super::super::Server;
use super::super::error::Answer;
use super::{Operation, Review, refuse};
use crate::cache::Query;
use crate::object::quota;
use crate::object::resource::LIMIT_RANGE;
use crate::util::json;
use crate::util::quantity::Quantity;

/// An annotation on a pod that lists the defaults that it got.
const TOLD: &str = "kubernetes.io/limit-ranger";

/// Fills in the default requests and limits of the namespace's limit ranges.
pub(super) fn admit(server: &Server, review: &Review<'_>, object: &mut Value) {
    if review.creates("pods") {
        let mut set = Vec::new();
        for range in ranges(server, review) {
            set_defaults(&range, object, &mut set);
        }
        if !set.is_empty() {
            let told = format!("LimitRanger plugin set: {}", set.join("; "));
            json::entry_map(json::metadata(object), "annotations").insert(TOLD.to_owned(), told.into());
        }
    }
}

/// Refuses pods and claims outside the bounds.
pub(super) fn validate(server: &Server, review: &Review<'_>, object: &Value) -> Answer<()> {
    let kind = review.key.resource.kind;
    let concerns = match review.operation {
        Operation::Create => review.subresource.is_empty() && matches!(kind, "Pod" | "PersistentVolumeClaim"),
        Operation::Update => review.subresource.is_empty() && kind == "PersistentVolumeClaim",
        Operation::Delete => false,
    };
    if !concerns {
        return Ok(());
    }
    let mut wrong = Vec::new();
    for range in ranges(server, review) {
        for limit in json::items(&range, "/spec/limits") {
            match (json::text(limit, "/type"), kind) {
                ("Container", "Pod") => {
                    let containers = json::items(object, "/spec/containers").iter().chain(json::items(object, "/spec/initContainers"));
                    containers.for_each(|it| check(limit, "Container", it.get("resources").unwrap_or(&Value::Null), &mut wrong));
                }
                ("Pod", "Pod") => check(limit, "Pod", &sums(object), &mut wrong),
                ("PersistentVolumeClaim", "PersistentVolumeClaim") => {
                    check(limit, kind, object.pointer("/spec/resources").unwrap_or(&Value::Null), &mut wrong);
                }
                _ => {}
            }
        }
    }
    match wrong.as_slice() {
        [] => Ok(()),
        [one] => Err(refuse(review, one)),
        many => Err(refuse(review, &format!("[{}]", many.join(", ")))),
    }
}

fn ranges(server: &Server, review: &Review<'_>) -> Vec<Value> {
    let query = Query { namespace: Some(review.key.name.namespace.to_string()), ..Query::default() };
    let objects = server.cache.list(&LIMIT_RANGE, &query).objects;
    objects.iter().filter_map(|it| serde_json::from_slice(it.body()).ok()).collect()
}

fn set_defaults(range: &Value, pod: &mut Value, set: &mut Vec<String>) {
    let limits: Vec<&Value> = json::items(range, "/spec/limits").iter().filter(|it| json::text(it, "/type") == "Container").collect();
    for (field, kind) in [("containers", "container"), ("initContainers", "init container")] {
        let Some(Value::Array(containers)) = pod.get_mut("spec").and_then(|it| it.get_mut(field)) else { continue };
        for container in containers {
            let container_name = json::text(container, "/name").to_owned();
            for limit in &limits {
                for (what, default, word) in [("requests", "defaultRequest", "request"), ("limits", "default", "limit")] {
                    let Some(Value::Object(defaults)) = limit.get(default) else { continue };
                    let have = json::entry_map(json::map(container, "resources"), what);
                    let mut given: Vec<&str> = Vec::new();
                    for (name, amount) in defaults {
                        // A request defaults to the limit, unless it is set.
                        if !have.contains_key(name) {
                            have.insert(name.clone(), amount.clone());
                            given.push(name);
                        }
                    }
                    given.sort_unstable();
                    if !given.is_empty() {
                        set.push(format!("{} {word} for {kind} {container_name}", given.join(", ")));
                    }
                }
            }
        }
    }
}

/// Holds requests and limits against the `min`, `max` and `maxLimitRequestRatio` of a limit.
fn check(limit: &Value, kind: &str, resources: &Value, wrong: &mut Vec<String>) {
    let (requests, limits) = (resources.get("requests").unwrap_or(&Value::Null), resources.get("limits").unwrap_or(&Value::Null));
    let amount = |of: &Value, name: &str| of.get(name).and_then(|it| Quantity::from_json(it).ok());
    let bounds = |field: &str| limit.get(field).and_then(Value::as_object).into_iter().flatten();
    let shown = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    for (name, least) in bounds("min") {
        let Ok(bound) = Quantity::from_json(least) else { continue };
        let least = shown(least);
        match (amount(requests, name), amount(limits, name)) {
            (None, _) => wrong.push(format!("minimum {name} usage per {kind} is {least}.  No request is specified")),
            (Some(request), _) if request < bound => {
                wrong.push(format!("minimum {name} usage per {kind} is {least}, but request is {}", shown(&requests[name])));
            }
            (_, Some(have)) if have < bound => {
                wrong.push(format!("minimum {name} usage per {kind} is {least}, but limit is {}", shown(&limits[name])))
            }
            _ => {}
        }
    }
    for (name, most) in bounds("max") {
        let Ok(bound) = Quantity::from_json(most) else { continue };
        let most = shown(most);
        // A claim for storage has requests only.
        match (amount(limits, name), amount(requests, name)) {
            (None, Some(request)) if kind == "PersistentVolumeClaim" && request <= bound => {}
            (None, Some(_)) if kind == "PersistentVolumeClaim" => {
                wrong.push(format!("maximum {name} usage per {kind} is {most}, but request is {}", shown(&requests[name])));
            }
            (None, _) => wrong.push(format!("maximum {name} usage per {kind} is {most}.  No limit is specified")),
            (Some(have), _) if have > bound => {
                wrong.push(format!("maximum {name} usage per {kind} is {most}, but limit is {}", shown(&limits[name])))
            }
            (_, Some(request)) if request > bound => {
                wrong.push(format!("maximum {name} usage per {kind} is {most}, but request is {}", shown(&requests[name])));
            }
            _ => {}
        }
    }
    let stated = |of: &Value, name: &str| amount(of, name).filter(|it| !it.is_zero());
    for (name, ratio) in bounds("maxLimitRequestRatio") {
        let (Ok(bound), most) = (Quantity::from_json(ratio), shown(ratio)) else { continue };
        let why = match (stated(requests, name), stated(limits, name)) {
            (None, _) => "no request is specified or request is 0".to_owned(),
            (_, None) => "no limit is specified or limit is 0".to_owned(),
            (Some(request), Some(have)) if have.to_f64() / request.to_f64() > bound.to_f64() => {
                format!("provided ratio is {:.6}", have.to_f64() / request.to_f64())
            }
            _ => continue,
        };
        wrong.push(format!("{name} max limit to request ratio per {kind} is {most}, but {why}"));
    }
}

/// The total requests and limits of a pod's containers, in the form of `resources`.
fn sums(pod: &Value) -> Value {
    let sum = |what: &str| quota::shown(&quota::pod_amounts(pod, what));
    serde_json::json!({"requests": sum("requests"), "limits": sum("limits")})
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn defaults_fill_gaps() {
        let range = json!({"spec": {"limits": [{"type": "Container", "default": {"cpu": "200m", "memory": "1Gi"}, "defaultRequest": {"cpu": "100m"}}]}});
        let mut pod = json!({"spec": {"containers": [{"name": "a", "resources": {"limits": {"cpu": "1"}}}, {"name": "b"}]}});
        let mut set = Vec::new();
        set_defaults(&range, &mut pod, &mut set);
        assert_eq!(pod["spec"]["containers"][0]["resources"]["limits"], json!({"cpu": "1", "memory": "1Gi"}));
        assert_eq!(pod["spec"]["containers"][1]["resources"]["requests"], json!({"cpu": "100m"}));
        let told = [
            "cpu request for container a",
            "memory limit for container a",
            "cpu request for container b",
            "cpu, memory limit for container b",
        ];
        assert_eq!(set, told);
    }

    #[test]
    fn bounds_hold() {
        let limit = json!({"min": {"cpu": "100m"}, "max": {"cpu": "1"}, "maxLimitRequestRatio": {"cpu": "2"}});
        let checked = |resources: Value| {
            let mut wrong = Vec::new();
            check(&limit, "Container", &resources, &mut wrong);
            wrong
        };
        assert!(checked(json!({"requests": {"cpu": "500m"}, "limits": {"cpu": 1}})).is_empty());
        assert_eq!(
            checked(json!({"requests": {"cpu": "50m"}, "limits": {"cpu": "100m"}})),
            ["minimum cpu usage per Container is 100m, but request is 50m"]
        );
        assert_eq!(
            checked(json!({"requests": {"cpu": "1"}, "limits": {"cpu": "2"}})),
            ["maximum cpu usage per Container is 1, but limit is 2"]
        );
        assert_eq!(
            checked(json!({"requests": {"cpu": "100m"}, "limits": {"cpu": "900m"}})),
            ["cpu max limit to request ratio per Container is 2, but provided ratio is 9.000000"]
        );
        assert_eq!(
            checked(json!({})),
            [
                "minimum cpu usage per Container is 100m.  No request is specified",
                "maximum cpu usage per Container is 1.  No limit is specified",
                "cpu max limit to request ratio per Container is 2, but no request is specified or request is 0",
            ]
        );
        let pod =
            json!({"spec": {"containers": [{"resources": {"requests": {"cpu": "100m"}}}, {"resources": {"requests": {"cpu": "1"}}}]}});
        assert_eq!(sums(&pod)["requests"]["cpu"], "1100m");
    }
}
