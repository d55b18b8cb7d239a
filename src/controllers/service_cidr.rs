//! The ranges of service addresses: ready until they are deleted, and kept until none of their addresses is in use or another range
//! contains them.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::conditions::Conditions;
use super::plan::{Controller, Plan, Source, Write, since, tree};
use crate::cache::{Cache, Query};
use crate::client::Patch;
use crate::object::resource::{IP_ADDRESS, SERVICE_CIDR};
use crate::object::service_range::{FINALIZER, READY, has_host, is_managed, ranges};
use crate::object::{Object, ObjectKey};

/// A deleted range is kept at least this long, so that every API server has learnt that it must not allocate from it.
const GRACE: Duration = Duration::from_secs(10);
const IS_READY: &str = "Kubernetes Service CIDR is ready";
const IN_USE: &str = "There are still IPAddresses referencing the ServiceCIDR, please remove them or create a new ServiceCIDR";

#[derive(Debug)]
pub struct ServiceCidrController;

impl Controller for ServiceCidrController {
    fn name(&self) -> &'static str {
        "service-cidr-controller"
    }

    fn sources(&self) -> Vec<Source> {
        vec![
            Source::own(&SERVICE_CIDR),
            // A new range may release others, and a deleted one may retain another.
            Source::leading_to(&SERVICE_CIDR, |cache, range| deleted(cache, |other| overlap(range, other))),
            Source::leading_to(&IP_ADDRESS, |cache, address| match address.name().parse() {
                Ok(ip) if is_managed(address) => deleted(cache, |it| has_host(it, ip)),
                _ => Vec::new(),
            }),
        ]
    }

    fn plan(&self, cache: &Cache, key: &ObjectKey, now: Timestamp) -> Plan {
        let mut plan = Plan::default();
        let Some(object) = cache.get(&SERVICE_CIDR, "", &key.name.name) else { return plan };
        let held = object.meta().finalizers.iter().any(|it| **it == *FINALIZER);
        let status = &tree(&object)["status"];
        let mut conditions = Conditions::of(status, None);
        match object.meta().deleted.as_deref() {
            None => {
                if conditions.get(READY).is_none_or(|it| it["status"] != "True" || it["message"] != IS_READY) {
                    conditions.renew(READY, "True", "", IS_READY, now);
                }
                if !held {
                    plan.writes.push(finalizers(&object, |all| all.push(FINALIZER)));
                }
            }
            Some(_) if is_needed(cache, &object) => conditions.set(READY, "False", "Terminating", IN_USE, now),
            Some(deleted) => {
                let gone = deleted.parse().map_or(GRACE, |it| since(it, now));
                match GRACE.checked_sub(gone).filter(|it| !it.is_zero()) {
                    Some(rest) => plan.look_again(rest),
                    None if held => plan.writes.push(finalizers(&object, |all| all.retain(|it| *it != FINALIZER))),
                    None => {}
                }
            }
        }
        if plan.writes_nothing() {
            plan.set_status(key.clone(), status, json!({"conditions": conditions.into_json()}));
        }
        plan
    }
}

/// The ranges that are about to go and of which `concerns` holds.
fn deleted(cache: &Cache, concerns: impl Fn(&Object) -> bool) -> Vec<ObjectKey> {
    let all = cache.list(&SERVICE_CIDR, &Query::default()).objects;
    all.iter().filter(|it| it.meta().is_deleted() && concerns(it)).map(|it| it.key()).collect()
}

fn overlap(one: &Object, other: &Object) -> bool {
    ranges(one).iter().any(|it| ranges(other).iter().any(|other| it.overlaps(other)))
}

/// Whether services use addresses of a range that are in no other range.
fn is_needed(cache: &Cache, object: &Object) -> bool {
    let all = cache.list(&SERVICE_CIDR, &Query::default()).objects;
    let others = || all.iter().filter(|it| it.name() != object.name());
    if ranges(object).iter().all(|it| others().any(|other| ranges(other).iter().any(|other| other.covers(it)))) {
        return false;
    }
    let addresses = cache.list(&IP_ADDRESS, &Query::default()).objects;
    let used = addresses.iter().filter(|it| is_managed(it)).filter_map(|it| it.name().parse().ok());
    used.into_iter().any(|ip| has_host(object, ip) && !others().any(|it| has_host(it, ip)))
}

fn finalizers(object: &Object, change: impl FnOnce(&mut Vec<&str>)) -> Write {
    let mut all: Vec<&str> = object.meta().finalizers.iter().map(|it| &**it).collect();
    change(&mut all);
    let finalizers = if all.is_empty() { Value::Null } else { json!(all) };
    let metadata = json!({"uid": &*object.meta().uid, "resourceVersion": object.revision().to_string(), "finalizers": finalizers});
    Write::Patch { key: object.key(), subresource: "", patch: Patch::Merge(json!({ "metadata": metadata })) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controllers::simulation::World;

    fn range(world: &mut World, name: &str, cidrs: Value) -> ObjectKey {
        world.put(&SERVICE_CIDR, "", json!({"metadata": {"name": name}, "spec": {"cidrs": cidrs}})).key()
    }

    fn address(world: &mut World, ip: &str, managed_by: &str) -> ObjectKey {
        let labels = json!({"ipaddress.kubernetes.io/managed-by": managed_by});
        let parent = json!({"resource": "services", "namespace": "default", "name": "web"});
        world.put(&IP_ADDRESS, "", json!({"metadata": {"name": ip, "labels": labels}, "spec": {"parentRef": parent}})).key()
    }

    /// Status and reason of a range; `None` if deleted.
    fn ready(world: &World, key: &ObjectKey) -> Option<String> {
        let object = world.cache.get(&SERVICE_CIDR, "", &key.name.name)?;
        let condition = &tree(&object)["status"]["conditions"][0];
        Some(format!("{} {}", condition["status"].as_str().unwrap(), condition["reason"].as_str().unwrap()))
    }

    fn world() -> World {
        World::new(vec![Box::new(ServiceCidrController)])
    }

    #[test]
    fn a_range_is_ready_and_held() {
        let mut world = world();
        let key = range(&mut world, "a", json!(["10.0.0.0/24"]));
        world.settle(|_| ());
        assert_eq!(ready(&world, &key).as_deref(), Some("True "));
        let object = world.cache.get(&SERVICE_CIDR, "", "a").unwrap();
        assert_eq!(*object.meta().finalizers, [FINALIZER.into()]);
        world.delete(&key, None);
        world.settle(|_| ());
        assert!(ready(&world, &key).is_some(), "API servers may not know yet");
        world.pass(11);
        world.settle(|_| ());
        assert_eq!(ready(&world, &key), None);
    }

    #[test]
    fn a_range_in_use_stays() {
        let mut world = world();
        let key = range(&mut world, "a", json!(["10.0.0.0/24"]));
        address(&mut world, "10.0.0.9", "somebody.else");
        let used = address(&mut world, "10.0.0.7", "ipallocator.k8s.io");
        world.settle(|_| ());
        world.delete(&key, None);
        world.pass(11);
        world.settle(|_| ());
        assert_eq!(ready(&world, &key).as_deref(), Some("False Terminating"));
        world.remove(&used);
        world.settle(|_| ());
        assert_eq!(ready(&world, &key), None);
    }

    #[test]
    fn another_range_may_have_its_addresses() {
        let mut world = world();
        let key = range(&mut world, "a", json!(["10.0.0.0/24"]));
        address(&mut world, "10.0.0.7", "ipallocator.k8s.io");
        world.settle(|_| ());
        world.delete(&key, None);
        world.pass(11);
        world.settle(|_| ());
        assert_eq!(ready(&world, &key).as_deref(), Some("False Terminating"));
        // A /32 has no host address besides the network's own.
        range(&mut world, "narrow", json!(["10.0.0.7/32"]));
        world.settle(|_| ());
        assert_eq!(ready(&world, &key).as_deref(), Some("False Terminating"));
        range(&mut world, "part", json!(["10.0.0.0/28"]));
        world.settle(|_| ());
        assert_eq!(ready(&world, &key), None);
    }
}
