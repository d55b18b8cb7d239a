//! Pods that nobody else would remove: ended ones beyond a threshold, and those placed on nodes that are gone.

use std::time::Duration;

use jiff::Timestamp;

use super::plan::{Controller, Plan, Source, Write};
use super::pods;
use crate::cache::{Cache, Query};
use crate::client::DeleteOptions;
use crate::object::{Object, ObjectKey, ResourceRef, resource};

/// Removes them by looking at all pods now and then.
#[derive(Debug)]
pub struct PodGc {
    /// `--terminated-pod-gc-threshold`: how many ended pods are kept; 0 keeps all.
    pub threshold: usize,
}

/// How often everything is looked at, and how long a node must be gone: its pods may come back with it.
const PERIOD: Duration = Duration::from_secs(20);

impl Controller for PodGc {
    fn name(&self) -> &'static str {
        "pod-garbage-collector"
    }

    fn sources(&self) -> Vec<Source> {
        // One key stands for everything: the namespace `default`, which is always there; a node's end is a reason to look at once.
        vec![
            Source::leading_to(&resource::NAMESPACE, |_, _| vec![everything()]),
            Source::leading_to(&resource::NODE, |_, _| vec![everything()]),
        ]
    }

    fn reads(&self) -> Vec<ResourceRef> {
        vec![&resource::POD]
    }

    fn plan(&self, cache: &Cache, _key: &ObjectKey, now: Timestamp) -> Plan {
        let mut plan = Plan::default();
        plan.look_again(PERIOD);
        let all = cache.list(&resource::POD, &Query::default()).objects;
        let mut ended: Vec<&std::sync::Arc<Object>> = all.iter().filter(|pod| pods::has_ended(pod) && !pod.meta().is_deleted()).collect();
        if self.threshold > 0 && ended.len() > self.threshold {
            ended.sort_by(|a, b| a.meta().created.cmp(&b.meta().created));
            let surplus = ended.len() - self.threshold;
            plan.writes.extend(ended.into_iter().take(surplus).map(|pod| remove(pod)));
        }
        for pod in &all {
            let node = pod.field("spec.nodeName").unwrap_or_default();
            let settled = pod
                .meta()
                .created
                .parse::<Timestamp>()
                .is_ok_and(|it| Duration::try_from(now.duration_since(it)).unwrap_or_default() > PERIOD);
            if !node.is_empty() && settled && cache.get(&resource::NODE, "", node).is_none() {
                plan.writes.push(remove(pod));
            }
        }
        plan
    }
}

fn everything() -> ObjectKey {
    ObjectKey::new(&resource::NAMESPACE, "", "default")
}

fn remove(pod: &Object) -> Write {
    let options = DeleteOptions { uid: Some(pod.meta().uid.to_string()), grace_period_seconds: Some(0), ..DeleteOptions::default() };
    Write::Delete { key: pod.key(), options, tell: None }
}
