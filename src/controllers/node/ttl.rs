//! The annotation of every node with the time for which its kubelet may cache secrets and config maps, by the size of the cluster.

use std::sync::atomic::{AtomicUsize, Ordering};

use jiff::Timestamp;
use serde_json::json;

use super::super::plan::{Controller, Plan, Source, tree};
use crate::cache::{Cache, Query};
use crate::object::{Object, ObjectKey, resource};

const ANNOTATION: &str = "node.alpha.kubernetes.io/ttl";
/// Minimum and maximum number of nodes of each size of cluster, and its time in seconds. The ranges overlap, so that one node more or less
/// does not change the annotations of all others.
const SIZES: [(usize, usize, &str); 5] = [(0, 100, "0"), (90, 500, "15"), (450, 1000, "30"), (900, 2000, "60"), (1800, usize::MAX, "300")];

/// Keeps the annotation.
#[derive(Debug, Default)]
pub struct NodeTtlController {
    /// Index into [`SIZES`] of the cluster's last size.
    size: AtomicUsize,
}

impl NodeTtlController {
    fn seconds(&self, nodes: usize) -> &'static str {
        let mut size = self.size.load(Ordering::Relaxed);
        while nodes > SIZES[size].1 {
            size += 1;
        }
        while nodes < SIZES[size].0 {
            size -= 1;
        }
        self.size.store(size, Ordering::Relaxed);
        SIZES[size].2
    }
}

impl Controller for NodeTtlController {
    fn name(&self) -> &'static str {
        "ttl-controller"
    }

    fn sources(&self) -> Vec<Source> {
        // Not woken by heartbeats.
        vec![Source::own(&resource::NODE).when(told)]
    }

    fn plan(&self, cache: &Cache, key: &ObjectKey, _now: Timestamp) -> Plan {
        let mut plan = Plan::default();
        let seconds = self.seconds(cache.list(&resource::NODE, &Query::default()).objects.len());
        if let Some(node) = cache.get(&resource::NODE, "", &key.name.name).filter(|it| !it.meta().is_deleted()) {
            plan.merge(node.key(), &tree(&node), json!({ "metadata": { "annotations": { ANNOTATION: seconds } } }));
        }
        plan
    }
}

/// The value of a node's annotation.
fn told(node: &Object) -> u64 {
    tree(node)["metadata"]["annotations"][ANNOTATION].as_str().and_then(|it| it.parse().ok()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controllers::simulation::World;

    #[test]
    fn nodes_are_told_by_how_many_they_are() {
        let mut world = World::new(vec![Box::<NodeTtlController>::default()]);
        let node = world.put(&resource::NODE, "", json!({"metadata": {"name": "n"}})).key();
        let told = |world: &World| tree(&world.cache.get(&resource::NODE, "", "n").unwrap())["metadata"]["annotations"][ANNOTATION].clone();
        world.settle(|_| ());
        assert_eq!(told(&world), "0");
        world.patch(&node, &json!({"metadata": {"annotations": {ANNOTATION: "7"}}}));
        world.settle(|_| ());
        assert_eq!(told(&world), "0");

        let controller = NodeTtlController::default();
        let sizes = [(1, "0"), (100, "0"), (101, "15"), (95, "15"), (89, "0"), (3000, "300"), (1800, "300"), (1799, "60"), (0, "0")];
        for (nodes, seconds) in sizes {
            assert_eq!(controller.seconds(nodes), seconds, "{nodes}");
        }
    }
}
