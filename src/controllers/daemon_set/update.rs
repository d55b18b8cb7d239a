//! Replaces the pods of a DaemonSet from an older template: by deleting old ones first, a limited number at a time (`maxUnavailable`), or
//! by adding the new one beside the old until it is available (`maxSurge`).

use super::{BURST, Set};
use crate::cache::Cache;
use crate::controllers::plan::{Plan, portion_of};
use crate::controllers::pods;
use crate::util::portion::Round;

use super::ledger::Ledger;

impl Set<'_> {
    fn rolling(&self, key: &str, ledger: &Ledger) -> i64 {
        let value = &self.written["spec"]["updateStrategy"]["rollingUpdate"][key];
        portion_of(value, ledger.counts.desired, Round::Up).unwrap_or_default()
    }

    /// The next step of a rolling update. Every node has its pod, possibly from an older template.
    pub(super) fn update(&self, cache: &Cache, ledger: &Ledger, plan: &mut Plan) {
        let (limit, busy) = if self.surges {
            (self.rolling("maxSurge", ledger), ledger.counts.doubled)
        } else {
            (self.rolling("maxUnavailable", ledger).max(1), ledger.counts.unavailable)
        };
        let spare = usize::try_from(limit - busy).unwrap_or_default();
        for place in ledger.useless.iter().chain(ledger.candidates.iter().take(spare)).take(BURST) {
            if self.surges {
                self.create(place, plan);
            } else {
                let pods = ledger.pods_at(cache, self, place);
                let old = pods.iter().find(|it| pods::is_active(it) && !self.is_updated(it));
                old.into_iter().for_each(|it| self.delete(it, plan));
            }
        }
    }
}
