//! Resource quotas: their status records usage. The API server adds writes as it admits them; this controller counts deletions, objects
//! older than the quota, and recounts periodically.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::fingerprint::fingerprint;
use super::plan::{Controller, Plan, Source, Write, tree};
use super::pods;
use crate::cache::{Cache, Query};
use crate::object::{Object, ObjectKey, ResourceRef, quota, resource};

/// Keeps the status of every quota.
#[derive(Debug)]
pub struct ResourceQuotaController {
    /// `--resource-quota-sync-period`: how often everything is counted anew.
    pub period: Duration,
}

/// A write in progress is in a quota's status before its object can be counted; if a count is lower than the status, count again after this
/// time.
const UNDER_WAY: Duration = Duration::from_secs(5);

fn counted() -> impl Iterator<Item = ResourceRef> {
    super::reads().filter(|it| it.namespaced)
}

impl Controller for ResourceQuotaController {
    fn name(&self) -> &'static str {
        "resourcequota-controller"
    }

    fn sources(&self) -> Vec<Source> {
        // Additions by the API server need no action.
        let quotas = Source::own(&resource::RESOURCE_QUOTA).when(limits);
        let others = counted().map(|it| {
            let source = Source::leading_to(it, freed);
            // New objects were counted on admission. Recounting while other writes are in progress would lose those.
            if can_use_less(it) { source.changed(used_by) } else { source }
        });
        std::iter::once(quotas).chain(others).collect()
    }

    fn plan(&self, cache: &Cache, key: &ObjectKey, now: Timestamp) -> Plan {
        let mut plan = Plan::default();
        let Some(object) = cache.get(key.resource, &key.name.namespace, &key.name.name) else { return plan };
        plan.look_again(self.period);
        let mut value = tree(&object);
        let used = quota::recount(&value, now, |kind, namespace| cache.list(kind, &Query::namespace(namespace)).objects);
        let recorded = quota::recorded(&value);
        if recorded.as_ref().is_some_and(|it| *it == used) {
            return plan;
        }
        if recorded.is_some_and(|it| it.iter().any(|(what, amount)| used.get(what).is_none_or(|it| it < amount))) {
            plan.look_again(UNDER_WAY);
        }
        let hard = value["spec"]["hard"].clone();
        value["status"] = json!({ "hard": hard, "used": quota::shown(&used) });
        plan.writes.push(Write::Replace { key: object.key(), subresource: "status", object: value });
        plan
    }
}

/// The limits of a quota, and whether its status was written for them.
fn limits(quota: &Object) -> u64 {
    let quota = tree(quota);
    fingerprint(&json!([quota["spec"], quota::recorded(&quota).is_some()]))
}

/// Whether existing objects of a kind may change their usage.
fn can_use_less(kind: ResourceRef) -> bool {
    kind == &resource::SERVICE || kind == &resource::PERSISTENT_VOLUME_CLAIM
}

fn used_by(object: &Object) -> u64 {
    let used = quota::usage(object.resource(), &tree(object), Timestamp::UNIX_EPOCH);
    fingerprint(&Value::Object(quota::shown(&used)))
}

/// The quotas that an object no longer counts in.
fn freed(cache: &Cache, object: &Object) -> Vec<ObjectKey> {
    let there = cache.get(object.resource(), object.namespace(), object.name()).is_some_and(|it| it.meta().uid == object.meta().uid);
    let changes_use = can_use_less(object.resource()) || object.resource() == &resource::POD && pods::has_ended(object);
    if there && !changes_use {
        return Vec::new();
    }
    let quotas = cache.list(&resource::RESOURCE_QUOTA, &Query::namespace(object.namespace())).objects;
    let limits = |quota: &Object| serde_json::from_slice(quota.body()).is_ok_and(|it: Value| quota::may_count(object.resource(), &it));
    quotas.iter().filter(|it| limits(it)).map(|it| it.key()).collect()
}

#[cfg(test)]
mod tests {

    use super::*;
    use crate::controllers::simulation::World;

    fn used(world: &World) -> Value {
        tree(&world.cache.get(&resource::RESOURCE_QUOTA, "default", "q").unwrap())["status"]["used"].take()
    }

    #[test]
    fn the_status_follows_what_there_is() {
        let mut world = World::new(vec![Box::new(ResourceQuotaController { period: Duration::from_secs(300) })]);
        let pod = |name: &str| json!({"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "100m"}}}]}});
        let first = world.put(&resource::POD, "default", pod("a")).key();
        world.put(&resource::POD, "default", pod("b"));
        world.put(&resource::POD, "elsewhere", pod("c"));
        let hard = json!({"pods": "5", "requests.cpu": "1", "count/configmaps": "2"});
        let quota = world.put(&resource::RESOURCE_QUOTA, "default", json!({"metadata": {"name": "q"}, "spec": {"hard": hard}})).key();
        world.settle(|_| ());
        assert_eq!(used(&world), json!({"pods": "2", "requests.cpu": "200m", "count/configmaps": "0"}));

        world.patch(&first, &json!({"status": {"phase": "Succeeded"}}));
        let plan = ResourceQuotaController { period: Duration::from_secs(300) }.plan(&world.cache, &quota, world.now);
        assert_eq!((plan.writes.len(), plan.again), (1, Some(UNDER_WAY)));
        world.settle(|_| ());
        assert_eq!(used(&world)["requests.cpu"], "100m");

        world.patch(&quota, &json!({"spec": {"hard": {"pods": null, "requests.cpu": "2"}}}));
        world.settle(|_| ());
        assert_eq!(used(&world), json!({"requests.cpu": "100m", "count/configmaps": "0"}));
    }

    #[test]
    fn only_what_goes_wakes_the_quota() {
        let mut world = World::new(vec![]);
        let quota = world.put(&resource::RESOURCE_QUOTA, "default", json!({"metadata": {"name": "q"}, "spec": {"hard": {"pods": "5"}}}));
        let pod = world.put(&resource::POD, "default", json!({"metadata": {"name": "a"}}));
        let map = world.put(&resource::CONFIG_MAP, "default", json!({"metadata": {"name": "a"}}));
        assert!(freed(&world.cache, &pod).is_empty());
        world.remove(&pod.key());
        world.remove(&map.key());
        assert_eq!(freed(&world.cache, &pod), [quota.key()]);
        assert!(freed(&world.cache, &map).is_empty());
    }
}
