//! The verdict on one node: a pure judgement of the node and the set's pods there.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::Set;
use crate::controllers::pods;
use crate::object::Object;
use crate::object::constraints::{Constraints, NodeFacts};

/// How far a place is with the newest template, by its living pods.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Stage {
    /// Nothing lives there.
    #[default]
    Empty,
    /// Only a pod of an older template, that is available or not.
    Old { available: bool },
    /// Only a pod of the newest.
    New { available: bool },
    /// One of each.
    Both,
}

/// The counts and actions for one node.
#[derive(Debug, Default)]
pub(super) struct Verdict {
    /// The node should have a pod.
    pub wanted: bool,
    /// A pod is there, and of that: it is ready, it is available, it is of the newest template.
    pub present: bool,
    pub ready: bool,
    pub available: bool,
    pub updated: bool,
    /// A pod is to be made.
    pub missing: bool,
    /// Pods to delete, by name; `ended` are those to be recreated because they have ended.
    pub surplus: Vec<Box<str>>,
    pub ended: Vec<Box<str>>,
    pub stage: Stage,
    /// When the verdict becomes another by time alone.
    pub due: Option<Timestamp>,
}

impl Verdict {
    /// `node` is `None` for pods of a node that does not exist. `pods`: oldest first. `stay`: how long the failed ones (by their uids)
    /// still stay.
    pub(super) fn of(set: &Set<'_>, node: Option<&NodeFacts>, pods: &[Arc<Object>], stay: impl FnOnce(&[&str]) -> Duration) -> Self {
        let mut verdict = Self::default();
        let living = || pods.iter().filter(|it| !it.meta().is_deleted());
        let Some(node) = node else {
            // An adopted pod may have no node at all: it does not count yet.
            let waits_for_it = |it: &&Arc<Object>| pods::node(it).is_none() && pods::facts(it).pinned_to.is_some();
            verdict.surplus = living().filter(waits_for_it).map(|it| it.name().into()).collect();
            return verdict;
        };
        let (wanted, allowed) = judge(&set.constraints, node);
        verdict.wanted = wanted;
        verdict.missing = wanted && pods.is_empty();
        let running: Vec<_> = living().filter(|it| !pods::has_ended(it)).collect();
        if !allowed {
            verdict.surplus = living().map(|it| it.name().into()).collect();
        } else {
            verdict.bury(living().filter(|it| pods::has_ended(it)), stay, set.now);
            verdict.surplus =
                if set.surges { verdict.superseded(set, &running) } else { running.iter().skip(1).map(|it| it.name().into()).collect() };
        }
        let (old, new) = (running.iter().find(|it| !set.is_updated(it)), running.iter().find(|it| set.is_updated(it)));
        verdict.stage = match (old, new) {
            (None, None) => Stage::Empty,
            (Some(old), None) => Stage::Old { available: verdict.is_available(set, old) },
            (None, Some(new)) => Stage::New { available: verdict.is_available(set, new) },
            (Some(_), Some(_)) => Stage::Both,
        };
        if let Some(pod) = pods.first() {
            verdict.present = true;
            verdict.ready = pods::is_ready(pod);
            verdict.available = verdict.is_available(set, pod);
            verdict.updated = set.is_updated(pod);
        }
        verdict
    }

    /// Pods that have ended are deleted, failed ones perhaps after a while.
    fn bury<'a>(&mut self, ended: impl Iterator<Item = &'a Arc<Object>>, stay: impl FnOnce(&[&str]) -> Duration, now: Timestamp) {
        let (failed, succeeded): (Vec<_>, Vec<_>) = ended.partition(|it| it.field("status.phase") == Some("Failed"));
        let left = stay(&failed.iter().map(|it| &*it.meta().uid).collect::<Vec<_>>());
        if left.is_zero() {
            self.ended.extend(failed.iter().map(|it| it.name().into()));
        } else {
            self.look_again(now, left);
        }
        self.ended.extend(succeeded.iter().map(|it| it.name().into()));
    }

    /// Superfluous pods among several that run on one node: all but the oldest of either template, and the old one if it does not work, or
    /// once the new one does.
    fn superseded(&mut self, set: &Set<'_>, running: &[&Arc<Object>]) -> Vec<Box<str>> {
        let (new, old): (Vec<&Object>, Vec<&Object>) = running.iter().map(|it| &***it).partition(|it| set.is_updated(it));
        let mut superseded: Vec<_> = new.iter().skip(1).chain(old.iter().skip(1)).map(|it| it.name().into()).collect();
        if let (Some(new), Some(old)) = (new.first(), old.first())
            && (!pods::is_ready(old) || self.is_available(set, new))
        {
            superseded.push(old.name().into());
        }
        superseded
    }

    fn is_available(&mut self, set: &Set<'_>, pod: &Object) -> bool {
        let (available, missing) = pods::is_available(pod, set.min_ready, set.now);
        if let Some(missing) = missing {
            self.look_again(set.now, missing);
        }
        available
    }

    fn look_again(&mut self, now: Timestamp, pause: Duration) {
        let at = now.saturating_add(SignedDuration::try_from(pause).unwrap_or(SignedDuration::MAX)).unwrap_or(Timestamp::MAX);
        self.due = Some(self.due.map_or(at, |due| due.min(at)));
    }
}

/// Whether a pod should be placed on the node, and whether an existing one may stay: only NoExecute taints evict existing pods.
fn judge(constraints: &Constraints, node: &NodeFacts) -> (bool, bool) {
    if constraints.suits(node).is_err() {
        return (false, false);
    }
    let stays = constraints.tolerates_all(node, "NoExecute");
    (stays && constraints.tolerates_all(node, "NoSchedule"), stays)
}
