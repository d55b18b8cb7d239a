//! Replacing the pods of a DaemonSet from an older template: by deleting the old one first, so many at a time (`maxUnavailable`), or by
//! having the new one beside it until it is available (`maxSurge`).

use std::sync::Arc;

use super::{BURST, Place, Set};
use crate::controllers::plan::{Plan, portion_of};
use crate::controllers::pods;
use crate::object::Object;
use crate::util::portion::Round;

impl<'a> Set<'a> {
    fn rolling(&self, key: &str) -> i64 {
        let value = &self.written["spec"]["updateStrategy"]["rollingUpdate"][key];
        portion_of(value, self.desired(), Round::Up).unwrap_or_default()
    }

    pub(super) fn surges(&self) -> bool {
        self.written["spec"]["updateStrategy"]["type"] == "RollingUpdate" && self.rolling("maxSurge") > 0
    }

    /// Of several pods that run on one node, those that are superfluous: all but the oldest of either template, and the old one once it
    /// is of no use, or the new one is.
    pub(super) fn superseded(&self, running: &[&'a Arc<Object>], plan: &mut Plan) -> Vec<&'a Arc<Object>> {
        let (new, old): (Vec<_>, Vec<_>) = running.iter().copied().partition(|pod| self.is_updated(pod));
        let mut superseded: Vec<_> = new.iter().skip(1).chain(old.iter().skip(1)).copied().collect();
        if let (Some(new), Some(old)) = (new.first(), old.first())
            && (!pods::is_ready(old) || self.is_available(new, plan))
        {
            superseded.push(old);
        }
        superseded
    }

    /// The next step of a rolling update. Every node has what it should have, but maybe of an older template.
    pub(super) fn update(&self, plan: &mut Plan) {
        if self.surges() { self.surge(plan) } else { self.delete_old(plan) }
    }

    fn old_and_new(&self, place: &Place<'a>) -> (Option<&'a Arc<Object>>, Option<&'a Arc<Object>>) {
        let living = || place.pods.iter().copied().filter(|pod| !pod.meta().is_deleted() && !pods::has_ended(pod));
        (living().find(|pod| !self.is_updated(pod)), living().find(|pod| self.is_updated(pod)))
    }

    fn delete_old(&self, plan: &mut Plan) {
        let limit = self.rolling("maxUnavailable").max(1);
        let (mut unavailable, mut useless, mut candidates) = (0, Vec::new(), Vec::new());
        for place in self.places.iter().filter(|it| it.wanted) {
            match self.old_and_new(place) {
                (Some(old), None) if !self.is_available(old, plan) => {
                    unavailable += 1;
                    useless.push(old);
                }
                (Some(old), None) => candidates.push(old),
                (None, Some(new)) if self.is_available(new, plan) => {}
                _ => unavailable += 1,
            }
        }
        let spare = usize::try_from(limit - unavailable).unwrap_or_default();
        useless.into_iter().chain(candidates.into_iter().take(spare)).take(BURST).for_each(|pod| self.delete(pod, plan));
    }

    fn surge(&self, plan: &mut Plan) {
        let (mut surging, mut useless, mut candidates) = (0, Vec::new(), Vec::new());
        for place in self.places.iter().filter(|it| it.wanted) {
            match self.old_and_new(place) {
                (Some(old), None) if self.is_available(old, plan) => candidates.push(place.node.name()),
                (Some(_), None) => useless.push(place.node.name()),
                (Some(_), Some(_)) => surging += 1,
                (None, _) => {}
            }
        }
        let spare = usize::try_from(self.rolling("maxSurge") - surging).unwrap_or_default();
        useless.into_iter().chain(candidates.into_iter().take(spare)).take(BURST).for_each(|node| self.create(node, plan));
    }
}
