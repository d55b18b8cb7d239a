//! When that happened which endpoints follow: Kubernetes' annotation of it, by which proxies measure how long that takes.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;
use parking_lot::Mutex;

use super::super::pods::facts;
use crate::object::{Object, ObjectKey};

pub(super) const ANNOTATION: &str = "endpoints.kubernetes.io/last-change-trigger-time";

/// When each pod of a service last became ready or ceased to be, by the pod's uid.
type Turns = HashMap<Box<str>, Timestamp>;

/// What has been seen of the pods of each service.
#[derive(Debug, Default)]
pub(super) struct Triggers(Mutex<HashMap<ObjectKey, Turns>>);

impl Triggers {
    /// The first change of a pod since this was last asked; for a service that is new here, its creation. `None` if what has changed has no
    /// time, such as the deletion of a pod.
    pub fn since_last(&self, service: &Object, pods: &[Arc<Object>]) -> Option<Timestamp> {
        let turned = |pod: &Arc<Object>| Some((pod.meta().uid.clone(), facts(pod).ready_since.or(facts(pod).unready_since)?));
        let turns: Turns = pods.iter().filter_map(turned).collect();
        let mut all = self.0.lock();
        let first = match all.get(&service.key()) {
            None => service.meta().created.parse().ok(),
            Some(before) => turns.iter().filter(|(uid, at)| before.get(*uid).is_none_or(|it| it < at)).map(|(_, at)| *at).min(),
        };
        all.insert(service.key(), turns);
        first
    }

    pub fn forget(&self, service: &ObjectKey) {
        self.0.lock().remove(service);
    }
}
