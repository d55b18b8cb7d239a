//! Disruption budgets: how many pods of each are healthy, how many must be, and so how many may be evicted now.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::{Map, Value, json};

use super::conditions;
use super::plan::{Controller, Note, Plan, Source, Write, tree};
use super::pods;
use crate::cache::{Cache, Query};
use crate::client::events::EventType;
use crate::object::resource::{self, of_kind};
use crate::object::selector::LabelSelector;
use crate::object::{Object, ObjectKey, OwnerReference, ResourceRef};
use crate::util::portion::{Round, portion};

/// Keeps the status of every budget.
#[derive(Debug)]
pub struct DisruptionController;

/// An evicted pod counts as deleted for this long, until its deletion is seen.
const DELETION_TIMEOUT: SignedDuration = SignedDuration::from_mins(2);

impl Controller for DisruptionController {
    fn name(&self) -> &'static str {
        "controllermanager"
    }

    fn sources(&self) -> Vec<Source> {
        // Scaling a pod's controller changes the number of pods that the budget expects.
        let of_owned = |cache: &Cache, owner: &Object| {
            let owned = cache.owned(&resource::POD, &owner.meta().uid);
            owned.iter().flat_map(|it| budgets_of(cache, it)).collect()
        };
        let of_deployed = |cache: &Cache, owner: &Object| {
            let sets = cache.owned(&resource::REPLICA_SET, &owner.meta().uid);
            let pods = sets.iter().flat_map(|it| cache.owned(&resource::POD, &it.meta().uid));
            pods.flat_map(|it| budgets_of(cache, &it)).collect()
        };
        vec![
            Source::own(&resource::POD_DISRUPTION_BUDGET),
            Source::leading_to(&resource::POD, budgets_of).remembered(),
            Source::leading_to(&resource::REPLICATION_CONTROLLER, of_owned),
            Source::leading_to(&resource::REPLICA_SET, of_owned),
            Source::leading_to(&resource::STATEFUL_SET, of_owned),
            Source::leading_to(&resource::DEPLOYMENT, of_deployed),
        ]
    }

    fn plan(&self, cache: &Cache, key: &ObjectKey, now: Timestamp) -> Plan {
        let mut plan = Plan::default();
        let Some(budget) = cache.get(key.resource, &key.name.namespace, &key.name.name) else { return plan };
        if budget.meta().is_deleted() {
            return plan;
        }
        let Ok(typed) = budget.typed::<PodDisruptionBudget>() else { return plan };
        let pods = pods_of(cache, &budget);
        let mut object = tree(&budget);
        let (before, selector) = (object["status"].clone(), object["spec"]["selector"].clone());
        let mut seen = Seen { notes: Vec::new(), again: None };
        if pods.is_empty() {
            seen.note(&budget, EventType::Normal, "NoPods", "No matching pods found".to_owned());
        }
        match expectation(cache, typed, &pods) {
            Ok(expectation) => {
                if expectation.unmanaged {
                    seen.note(&budget, EventType::Warning, "UnmanagedPods", unmanaged(&selector));
                }
                let disrupted = disrupted(&pods, &before, &budget, now, &mut seen);
                let healthy = pods.iter().filter(|it| is_healthy(it, &disrupted)).count() as i64;
                set_status(&mut object, &expectation, healthy, disrupted, now);
            }
            Err(why) => {
                let message = format!("Failed to calculate the number of expected pods: {why}");
                seen.note(&budget, EventType::Warning, "CalculateExpectedPodCountFailed", message);
                object["status"]["disruptionsAllowed"] = 0.into();
                set_condition(&mut object, "False", "SyncFailed", &why, now);
            }
        }
        plan.again = seen.again;
        // Evictions write the status, too: it is replaced only if unchanged. Events accompany a change.
        if object["status"] != before {
            plan.writes.push(Write::Replace { key: budget.key(), subresource: "status", object });
            plan.notes = seen.notes;
        }
        plan
    }
}

fn pods_of(cache: &Cache, budget: &Object) -> Vec<Arc<Object>> {
    let Some(labels) = LabelSelector::in_spec(budget) else { return Vec::new() };
    let query = Query { namespace: Some(budget.namespace().to_owned()), labels, ..Query::default() };
    cache.list(&resource::POD, &query).objects
}

/// The results of a plan besides the status.
struct Seen {
    notes: Vec<Note>,
    again: Option<Duration>,
}

impl Seen {
    fn note(&mut self, about: &Arc<Object>, kind: EventType, reason: &'static str, message: String) {
        self.notes.push(Note { about: about.clone(), kind, reason, message });
    }
}

fn budgets_of(cache: &Cache, pod: &Object) -> Vec<ObjectKey> {
    cache.selecting(&resource::POD_DISRUPTION_BUDGET, pod).iter().map(|it| it.key()).collect()
}

/// The expectation of a budget.
#[derive(Debug, PartialEq, Eq)]
struct Expectation {
    expected: i64,
    desired_healthy: i64,
    /// Whether there are pods without a controller.
    unmanaged: bool,
}

/// Percentages and `maxUnavailable` refer to the number of pods that the pods' controllers should have, not of existing pods.
fn expectation(cache: &Cache, budget: &PodDisruptionBudget, pods: &[Arc<Object>]) -> Result<Expectation, String> {
    let spec = budget.spec.clone().unwrap_or_default();
    let part = |value: &IntOrString, of: i64| {
        portion(value, of, Round::Up).ok_or_else(|| "invalid value for IntOrString: invalid type: string is not a percentage".to_owned())
    };
    match (&spec.max_unavailable, &spec.min_available) {
        (Some(unavailable), _) => {
            let (expected, unmanaged) = scale_of_controllers(cache, pods)?;
            Ok(Expectation { expected, desired_healthy: (expected - part(unavailable, expected)?).max(0), unmanaged })
        }
        (None, Some(IntOrString::Int(available))) => {
            Ok(Expectation { expected: pods.len() as i64, desired_healthy: i64::from(*available), unmanaged: false })
        }
        (None, Some(available)) => {
            let (expected, unmanaged) = scale_of_controllers(cache, pods)?;
            Ok(Expectation { expected, desired_healthy: part(available, expected)?, unmanaged })
        }
        (None, None) => Ok(Expectation { expected: 0, desired_healthy: 0, unmanaged: false }),
    }
}

fn scale_of_controllers(cache: &Cache, pods: &[Arc<Object>]) -> Result<(i64, bool), String> {
    let (mut asked, mut counted) = (HashSet::new(), HashSet::new());
    let (mut total, mut unmanaged) = (0, false);
    for pod in pods {
        let Some(owner) = pod.meta().controller() else {
            unmanaged = true;
            continue;
        };
        if !asked.insert(&*owner.uid) {
            continue;
        }
        let scaled = scaled(cache, pod, owner)?.ok_or_else(|| format!("found no controllers for pod {:?}", pod.name()))?;
        if counted.insert(scaled.meta().uid.clone()) {
            total += tree(&scaled)["spec"]["replicas"].as_i64().unwrap_or(1);
        }
    }
    Ok((total, unmanaged))
}

/// The object whose scale determines the number of such pods: the pod's controller, or the Deployment of its ReplicaSet.
fn scaled(cache: &Cache, pod: &Object, owner: &OwnerReference) -> Result<Option<Arc<Object>>, String> {
    let find = |owner: &OwnerReference| {
        let resource: ResourceRef = of_kind(&owner.api_version, &owner.kind)?;
        let found = cache.get(resource, if resource.namespaced { pod.namespace() } else { "" }, &owner.name)?;
        (found.meta().uid == owner.uid).then_some(found)
    };
    if let Some(resource) = of_kind(&owner.api_version, &owner.kind).filter(|it| it.subresource("scale").is_none()) {
        return Err(format!("{} does not implement the scale subresource", resource.qualified()));
    }
    let controller = find(owner);
    let deployment = controller.as_ref().filter(|it| it.resource() == &resource::REPLICA_SET);
    let deployment = deployment.and_then(|it| it.meta().controller()).filter(|it| *it.kind == *"Deployment");
    Ok(deployment.map_or(controller.clone(), find))
}

/// Kubernetes' message, with the selector as Go prints it.
fn unmanaged(selector: &Value) -> String {
    let text = |it: &Value| it.as_str().unwrap_or_default().to_owned();
    let mut labels: Vec<_> = selector["matchLabels"].as_object().into_iter().flatten().collect();
    labels.sort_unstable_by_key(|(key, _)| *key);
    let labels: String = labels.iter().map(|(key, value)| format!("{key}: {},", text(value))).collect();
    let requirement = |it: &Value| {
        let values: Vec<_> = it["values"].as_array().into_iter().flatten().map(text).collect();
        format!("LabelSelectorRequirement{{Key:{},Operator:{},Values:[{}],}},", text(&it["key"]), text(&it["operator"]), values.join(" "))
    };
    let requirements: String = selector["matchExpressions"].as_array().into_iter().flatten().map(requirement).collect();
    format!(
        "Pods selected by this PodDisruptionBudget (selector: &LabelSelector{{MatchLabels:map[string]string{{{labels}}},\
         MatchExpressions:[]LabelSelectorRequirement{{{requirements}}},}}) were found to be unmanaged. As a result, the status of the PDB cannot \
         be calculated correctly, which may result in undefined behavior. To account for these pods please set \".spec.minAvailable\" field of \
         the PDB to an integer value."
    )
}

/// The evicted pods that are still on their way (with the time of their eviction), as `status.disruptedPods`.
fn disrupted(pods: &[Arc<Object>], status: &Value, budget: &Object, now: Timestamp, seen: &mut Seen) -> Map<String, Value> {
    let mut on_their_way = Map::new();
    for pod in pods.iter().filter(|it| !it.meta().is_deleted()) {
        let stamp = &status["disruptedPods"][pod.name()];
        let Some(at) = stamp.as_str().and_then(|it| it.parse::<Timestamp>().ok()) else { continue };
        let until = at.saturating_add(DELETION_TIMEOUT).unwrap_or(Timestamp::MAX);
        match Duration::try_from(until.duration_since(now)) {
            Ok(left) if !left.is_zero() => {
                on_their_way.insert(pod.name().to_owned(), stamp.clone());
                seen.again = Some(seen.again.map_or(left, |it| it.min(left)));
            }
            _ => {
                let message = format!("Pod was expected by PDB {}/{} to be deleted but it wasn't", budget.namespace(), budget.name());
                seen.note(pod, EventType::Warning, "NotDeleted", message);
            }
        }
    }
    on_their_way
}

fn is_healthy(pod: &Object, disrupted: &Map<String, Value>) -> bool {
    !pod.meta().is_deleted() && !disrupted.contains_key(pod.name()) && pods::is_ready(pod)
}

fn set_status(budget: &mut Value, expectation: &Expectation, healthy: i64, disrupted: Map<String, Value>, now: Timestamp) {
    let Expectation { expected, desired_healthy, .. } = *expectation;
    let allowed = if expected <= 0 { 0 } else { (healthy - desired_healthy).max(0) };
    let generation = budget["metadata"]["generation"].clone();
    let status = &mut budget["status"];
    for (field, value) in [
        ("observedGeneration", generation),
        ("expectedPods", expected.into()),
        ("desiredHealthy", desired_healthy.into()),
        ("currentHealthy", healthy.into()),
        ("disruptionsAllowed", allowed.into()),
    ] {
        status[field] = value;
    }
    if !disrupted.is_empty() {
        status["disruptedPods"] = disrupted.into();
    } else if let Some(status) = status.as_object_mut() {
        status.remove("disruptedPods");
    }
    match allowed {
        0 => set_condition(budget, "False", "InsufficientPods", "", now),
        _ => set_condition(budget, "True", "SufficientPods", "", now),
    }
}

fn set_condition(budget: &mut Value, status: &str, reason: &str, message: &str, now: Timestamp) {
    let generation = &budget["metadata"]["generation"];
    let condition = json!({
        "type": "DisruptionAllowed", "status": status, "reason": reason, "message": message, "observedGeneration": generation,
    });
    conditions::set(&mut budget["status"]["conditions"], condition, now);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controllers::replicas::Replicas;
    use crate::controllers::simulation::World;

    fn world() -> World {
        World::new(vec![Box::new(Replicas::replica_sets()), Box::new(DisruptionController)])
    }

    fn replica_set(name: &str, replicas: u32) -> Value {
        let template = json!({"metadata": {"labels": {"app": "a"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
        json!({"metadata": {"name": name}, "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "a"}}, "template": template}})
    }

    fn budget(spec: Value) -> Value {
        let mut budget = json!({"metadata": {"name": "b", "generation": 1}, "spec": spec});
        budget["spec"]["selector"] = json!({"matchLabels": {"app": "a"}});
        budget
    }

    fn status(world: &World) -> Value {
        tree(&world.cache.get(&resource::POD_DISRUPTION_BUDGET, "default", "b").unwrap())["status"].take()
    }

    /// Expected, desired, healthy, allowed.
    fn numbers(world: &World) -> [i64; 4] {
        let status = status(world);
        ["expectedPods", "desiredHealthy", "currentHealthy", "disruptionsAllowed"].map(|it| status[it].as_i64().unwrap_or(-1))
    }

    #[test]
    fn what_a_budget_allows() {
        // Of 7 pods that a ReplicaSet keeps, this many are ready.
        for (spec, ready, expected) in [
            (json!({"minAvailable": 5}), 7, [7, 5, 7, 2]),
            (json!({"minAvailable": 5}), 4, [7, 5, 4, 0]),
            (json!({"minAvailable": 9}), 7, [7, 9, 7, 0]),
            (json!({"minAvailable": "50%"}), 7, [7, 4, 7, 3]),
            (json!({"maxUnavailable": 2}), 6, [7, 5, 6, 1]),
            (json!({"maxUnavailable": "30%"}), 7, [7, 4, 7, 3]),
            (json!({"maxUnavailable": 10}), 0, [7, 0, 0, 0]),
            (json!({"maxUnavailable": 0}), 7, [7, 7, 7, 0]),
        ] {
            let mut world = world();
            world.put(&resource::REPLICA_SET, "default", replica_set("rs", 7));
            world.put(&resource::POD_DISRUPTION_BUDGET, "default", budget(spec.clone()));
            world.settle(|_| ());
            let pods = world.list(&resource::POD);
            world.make_ready(&pods[..ready]);
            world.settle(|_| ());
            assert_eq!(numbers(&world), expected, "{spec}, {ready} ready");
            let condition = &status(&world)["conditions"][0];
            let reason = if expected[3] > 0 { "SufficientPods" } else { "InsufficientPods" };
            assert_eq!((&condition["type"], &condition["reason"]), (&json!("DisruptionAllowed"), &json!(reason)));
        }
    }

    #[test]
    fn evicted_pods_are_counted_until_they_go_or_time_is_up() {
        let mut world = world();
        world.put(&resource::REPLICA_SET, "default", replica_set("rs", 3));
        let key = world.put(&resource::POD_DISRUPTION_BUDGET, "default", budget(json!({"maxUnavailable": 1}))).key();
        world.settle(|_| ());
        let pods = world.list(&resource::POD);
        world.make_ready(&pods);
        world.settle(|_| ());
        assert_eq!(numbers(&world), [3, 2, 3, 1]);
        let at = conditions::time(world.now);
        world.patch(&key, &json!({"status": {"disruptionsAllowed": 0, "disruptedPods": {pods[0].name(): at}}}));
        world.settle(|_| ());
        assert_eq!(numbers(&world), [3, 2, 2, 0]);
        world.pass(119);
        world.settle(|_| ());
        assert_eq!(numbers(&world), [3, 2, 2, 0]);
        world.pass(1);
        world.settle(|_| ());
        assert_eq!((numbers(&world), status(&world).get("disruptedPods")), ([3, 2, 3, 1], None));
    }

    #[test]
    fn pods_that_nobody_scales() {
        let mut world = world();
        let pod = |name: &str, owner: Value| json!({"metadata": {"name": name, "labels": {"app": "a"}, "ownerReferences": owner}});
        world.put(&resource::POD_DISRUPTION_BUDGET, "default", budget(json!({"maxUnavailable": 1})));
        world.put(&resource::POD, "default", pod("bare", json!([])));
        world.settle(|_| ());
        assert_eq!(numbers(&world), [0, 0, 0, 0]);
        let owner = |kind: &str, version: &str| json!([{"apiVersion": version, "kind": kind, "name": "x", "uid": "u", "controller": true}]);
        for (owner, why) in [
            (owner("ReplicaSet", "apps/v1"), "found no controllers for pod \"owned\""),
            (owner("DaemonSet", "apps/v1"), "daemonsets.apps does not implement the scale subresource"),
        ] {
            world.put(&resource::POD, "default", pod("owned", owner));
            world.settle(|_| ());
            let condition = &status(&world)["conditions"][0];
            assert_eq!((&condition["reason"], &condition["message"]), (&json!("SyncFailed"), &json!(why)));
        }
    }
}
