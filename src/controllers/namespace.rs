//! Deletion of namespaces: the pods in one are deleted, then everything else, then the finalizer that held it is taken off.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::conditions;
use super::plan::{Controller, Plan, Source, Write, tree};
use crate::cache::{Cache, Query};
use crate::client::DeleteOptions;
use crate::object::{Object, ObjectKey, ResourceRef, resource};

/// Empties and finalizes namespaces that are being deleted.
#[derive(Debug)]
pub struct NamespaceController;

/// The resources that are deleted object by object, from the cache. Events, which are not cached, are deleted as a collection.
fn contents() -> impl Iterator<Item = ResourceRef> {
    super::reads().filter(|it| it.namespaced)
}

impl Controller for NamespaceController {
    fn name(&self) -> &'static str {
        "namespace-controller"
    }

    fn sources(&self) -> Vec<Source> {
        // While a namespace is being emptied, the end of each thing in it is a reason to look again.
        let things = contents().map(|resource| Source::leading_to(resource, namespace_of));
        std::iter::once(Source::own(&resource::NAMESPACE)).chain(things).collect()
    }

    fn plan(&self, cache: &Cache, key: &ObjectKey, now: Timestamp) -> Plan {
        let mut plan = Plan::default();
        let Some(namespace) = cache.get(&resource::NAMESPACE, "", &key.name.name).filter(|it| it.meta().is_deleted()) else { return plan };
        let query = Query::namespace(namespace.name());
        let mut left = Left::default();
        // As long as a pod runs, it keeps its network policies, its account and its configuration.
        let has_pods = !cache.list(&resource::POD, &query).objects.is_empty();
        for resource in contents() {
            let objects = cache.list(resource, &query).objects;
            left.count(resource, &objects);
            if has_pods && resource != &resource::POD {
                continue;
            }
            for object in objects.iter().filter(|it| !it.meta().is_deleted()) {
                let options = DeleteOptions { propagation: Some("Background"), ..DeleteOptions::default() };
                plan.writes.push(Write::Delete { key: object.key(), options, tell: None });
            }
        }
        let mut object = tree(&namespace);
        let finalizers = object["spec"]["finalizers"].as_array().cloned().unwrap_or_default();
        let (ours, others): (Vec<_>, Vec<_>) = finalizers.into_iter().partition(|it| it == "kubernetes");
        // Clears the content conditions while a foreign finalizer holds the namespace; skips them if it is removed in this plan.
        let held = !ours.is_empty() && (!others.is_empty() || !namespace.meta().finalizers.is_empty());
        if held || !left.resources.is_empty() {
            let current = &object["status"];
            let mut status = json!({ "phase": "Terminating", "conditions": current["conditions"] });
            left.conditions().into_iter().for_each(|it| conditions::set(&mut status["conditions"], it, now));
            plan.set_status(namespace.key(), current, status);
        }
        if !ours.is_empty() && left.resources.is_empty() && plan.writes_nothing() {
            object["spec"]["finalizers"] = others.into();
            plan.writes.push(Write::DeleteAll { resource: &resource::EVENT, namespace: namespace.name().to_owned() });
            plan.writes.push(Write::Replace { key: namespace.key(), subresource: "finalize", object });
        }
        plan
    }
}

/// The remaining content of a namespace that is being deleted.
#[derive(Debug, Default)]
struct Left {
    /// The number of objects of each resource.
    resources: Vec<(ResourceRef, usize)>,
    /// How many objects each finalizer holds.
    finalizers: BTreeMap<String, usize>,
}

impl Left {
    fn count(&mut self, resource: ResourceRef, objects: &[Arc<Object>]) {
        if !objects.is_empty() {
            self.resources.push((resource, objects.len()));
        }
        for finalizer in objects.iter().flat_map(|it| it.meta().finalizers.iter()) {
            *self.finalizers.entry(finalizer.to_string()).or_default() += 1;
        }
    }

    /// The conditions in Kubernetes' words.
    fn conditions(&self) -> [Value; 5] {
        let condition = |kind: &str, status: bool, reason: &str, message: String| json!({ "type": kind, "status": if status { "True" } else { "False" }, "reason": reason, "message": message });
        let fine = |kind: &str, reason: &str, message: &str| condition(kind, false, reason, message.to_owned());
        let resources = self.resources.iter().map(|(it, count)| format!("{}.{} has {count} resource instances", it.plural, it.group));
        let resources = resources.collect::<Vec<_>>().join(", ");
        let finalizers = self.finalizers.iter().map(|(it, count)| format!("{it} in {count} resource instances"));
        let finalizers = finalizers.collect::<Vec<_>>().join(", ");
        let remaining = format!("Some resources are remaining: {resources}");
        let held = format!("Some content in the namespace has finalizers remaining: {finalizers}");
        [
            fine("NamespaceDeletionDiscoveryFailure", "ResourcesDiscovered", "All resources successfully discovered"),
            fine("NamespaceDeletionGroupVersionParsingFailure", "ParsedGroupVersions", "All legacy kube types successfully parsed"),
            fine("NamespaceDeletionContentFailure", "ContentDeleted", "All content successfully deleted, may be waiting on finalization"),
            match self.resources.is_empty() {
                true => fine("NamespaceContentRemaining", "ContentRemoved", "All content successfully removed"),
                false => condition("NamespaceContentRemaining", true, "SomeResourcesRemain", remaining),
            },
            match self.finalizers.is_empty() {
                true => fine("NamespaceFinalizersRemaining", "ContentHasNoFinalizers", "All content-preserving finalizers finished"),
                false => condition("NamespaceFinalizersRemaining", true, "SomeFinalizersRemain", held),
            },
        ]
    }
}

fn namespace_of(cache: &Cache, object: &Object) -> Vec<ObjectKey> {
    let namespace = cache.get(&resource::NAMESPACE, "", object.namespace());
    namespace.filter(|it| it.meta().is_deleted()).map(|it| it.key()).into_iter().collect()
}
