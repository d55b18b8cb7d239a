//! Aggregated cluster roles: their rules are those of all roles that their selectors match.

use jiff::Timestamp;
use k8s_openapi::api::rbac::v1::ClusterRole;
use serde_json::Value;

use super::plan::{Controller, Plan, Source, tree};
use crate::cache::{Cache, Query};
use crate::object::selector::LabelSelector;
use crate::object::{Object, ObjectKey, resource};

/// Keeps the rules of roles with an `aggregationRule`.
#[derive(Debug)]
pub struct AggregationController;

impl Controller for AggregationController {
    fn name(&self) -> &'static str {
        "clusterrole-aggregation-controller"
    }

    fn sources(&self) -> Vec<Source> {
        vec![Source::leading_to(&resource::CLUSTER_ROLE, |cache, _| {
            let roles = cache.list(&resource::CLUSTER_ROLE, &Query::default()).objects;
            roles.iter().filter(|it| !selectors(it).is_empty()).map(|it| it.key()).collect()
        })]
    }

    fn plan(&self, cache: &Cache, key: &ObjectKey, _now: Timestamp) -> Plan {
        let mut plan = Plan::default();
        let Some(role) = cache.get(&resource::CLUSTER_ROLE, "", &key.name.name).filter(|it| !it.meta().is_deleted()) else { return plan };
        let mut rules: Vec<Value> = Vec::new();
        let others = cache.list(&resource::CLUSTER_ROLE, &Query::default()).objects;
        let selectors = selectors(&role);
        if selectors.is_empty() {
            return plan;
        }
        for selector in selectors {
            for other in others.iter().filter(|it| it.name() != role.name() && selector.matches(it)) {
                for rule in tree(other)["rules"].as_array().into_iter().flatten() {
                    if !rules.contains(rule) {
                        rules.push(rule.clone());
                    }
                }
            }
        }
        let rules = if rules.is_empty() { Value::Null } else { rules.into() };
        let current = tree(&role);
        if current["rules"].as_array().is_some_and(Vec::is_empty) && rules.is_null() {
            return plan;
        }
        plan.merge(role.key(), &current, serde_json::json!({ "rules": rules }));
        plan
    }
}

fn selectors(role: &Object) -> Vec<LabelSelector> {
    let rule = role.typed::<ClusterRole>().ok().and_then(|it| it.aggregation_rule.as_ref());
    let selectors = rule.and_then(|it| it.cluster_role_selectors.as_deref()).unwrap_or_default();
    selectors.iter().filter_map(|it| LabelSelector::from_spec(it).ok()).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::controllers::simulation::World;

    #[test]
    fn rules_are_those_of_the_roles_that_match() {
        let mut world = World::new(vec![Box::new(AggregationController)]);
        let rule = |resource: &str| json!({"apiGroups": [""], "resources": [resource], "verbs": ["get"]});
        let part = |name: &str, rules: Value| json!({"metadata": {"name": name, "labels": {"to": "all"}}, "rules": rules});
        let selectors = json!([{"matchLabels": {"to": "all"}}]);
        world.put(
            &resource::CLUSTER_ROLE,
            "",
            json!({"metadata": {"name": "all"}, "aggregationRule": {"clusterRoleSelectors": selectors}}),
        );
        world.put(&resource::CLUSTER_ROLE, "", part("b", json!([rule("pods")])));
        world.put(&resource::CLUSTER_ROLE, "", part("a", json!([rule("nodes"), rule("pods")])));
        world.put(&resource::CLUSTER_ROLE, "", json!({"metadata": {"name": "other"}, "rules": [rule("secrets")]}));
        let rules = |world: &World| tree(&world.cache.get(&resource::CLUSTER_ROLE, "", "all").unwrap())["rules"].take();
        world.settle(|_| ());
        assert_eq!(rules(&world), json!([rule("nodes"), rule("pods")]));
        for name in ["a", "b"] {
            world.remove(&ObjectKey::new(&resource::CLUSTER_ROLE, "", name));
        }
        world.settle(|_| ());
        assert!(rules(&world).is_null());
    }
}
