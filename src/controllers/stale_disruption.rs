//! Pods that were marked for disruption (condition `DisruptionTarget`) but not deleted: the mark is removed after a while.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::json;

use super::conditions;
use super::plan::{Controller, Plan, Source, Write, since, tree};
use super::pods;
use crate::cache::Cache;
use crate::client::Patch;
use crate::object::{Object, ObjectKey, resource};

/// Removes stale marks.
#[derive(Debug)]
pub struct StaleDisruptions;

/// How long a pod may be about to go.
const STALE: Duration = Duration::from_mins(2);

impl Controller for StaleDisruptions {
    fn name(&self) -> &'static str {
        "stale-disruption-controller"
    }

    fn sources(&self) -> Vec<Source> {
        vec![Source::leading_to(&resource::POD, |_, pod| if is_told(pod) { vec![pod.key()] } else { Vec::new() })]
    }

    fn plan(&self, cache: &Cache, key: &ObjectKey, now: Timestamp) -> Plan {
        let mut plan = Plan::default();
        let pod = cache.get(key.resource, &key.name.namespace, &key.name.name);
        let Some(pod) = pod.filter(|it| is_told(it)) else { return plan };
        let status = tree(&pod)["status"].take();
        let told =
            conditions::find(&status["conditions"], "DisruptionTarget").and_then(|it| it["lastTransitionTime"].as_str()?.parse().ok());
        let left = STALE.saturating_sub(since(told.unwrap_or(Timestamp::MIN), now));
        if !left.is_zero() {
            plan.look_again(left);
            return plan;
        }
        let condition = json!({
            "type": "DisruptionTarget", "status": "False", "reason": null, "message": null, "lastTransitionTime": conditions::time(now),
        });
        let metadata = json!({ "uid": &*pod.meta().uid, "resourceVersion": pod.revision().to_string() });
        let patch = Patch::Strategic(json!({ "metadata": metadata, "status": { "conditions": [condition] } }));
        plan.writes.push(Write::Patch { key: pod.key(), subresource: "status", patch });
        plan
    }
}

/// Whether a pod is marked, but not being deleted. Marks of the kubelet are final.
fn is_told(pod: &Object) -> bool {
    pods::facts(pod).disrupted && pods::is_active(pod)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::controllers::simulation::World;

    #[test]
    fn who_stays_is_told_so_after_two_minutes() {
        let condition = |reason: &str| {
            json!([{"type": "Ready", "status": "True"}, {"type": "DisruptionTarget", "status": "True", "reason": reason, "message": "m",
                    "lastTransitionTime": "2026-01-01T00:00:00Z"}])
        };
        let pod = |name: &str, phase: &str, reason: &str| json!({"metadata": {"name": name}, "status": {"phase": phase, "conditions": condition(reason)}});
        let mut world = World::new(vec![Box::new(StaleDisruptions)]);
        world.put(&resource::POD, "default", pod("evicted", "Running", "EvictionByEvictionAPI"));
        world.put(&resource::POD, "default", pod("by-its-kubelet", "Running", "TerminationByKubelet"));
        world.put(&resource::POD, "default", pod("ended", "Failed", "EvictionByEvictionAPI"));
        let mut going = pod("going", "Running", "EvictionByEvictionAPI");
        going["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
        world.put(&resource::POD, "default", going);
        let told = |world: &World| -> Vec<(String, Value)> {
            let told = |it: &Object| conditions::find(&tree(it)["status"]["conditions"], "DisruptionTarget").unwrap()["status"] == "True";
            world.list(&resource::POD).iter().map(|it| (it.name().to_owned(), told(it).into())).collect()
        };
        let expected = |evicted: bool| {
            [("by-its-kubelet", true), ("ended", true), ("evicted", evicted), ("going", true)]
                .map(|(name, it)| (name.to_owned(), json!(it)))
        };
        world.pass(119);
        world.settle(|_| ());
        assert_eq!(told(&world), expected(true));
        world.wait();
        world.settle(|_| ());
        assert_eq!(told(&world), expected(false));
        let evicted = tree(&world.cache.get(&resource::POD, "default", "evicted").unwrap())["status"]["conditions"].take();
        let reset = conditions::find(&evicted, "DisruptionTarget").unwrap();
        assert_eq!((reset.get("reason"), reset.get("message"), &reset["lastTransitionTime"]), (None, None, &json!("2026-01-01T00:02:00Z")));
        assert!(conditions::find(&evicted, "Ready").is_some());
    }
}
