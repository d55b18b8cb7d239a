//! Failure zones. If many nodes become silent at once, the network is the more likely cause, or there is nowhere to move pods to. So pods
//! leave a zone slowly; if most of its nodes are not ready, more slowly, or not at all if the zone is small; and not at all while no node
//! anywhere is ready.

use std::collections::HashMap;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;

use super::is_ready;
use crate::cache::{Cache, Query};
use crate::controllers::plan::since;
use crate::object::{Object, resource};

/// How fast nodes that are not ready may be emptied.
#[derive(Clone, Copy, Debug)]
pub struct EvictionRates {
    /// `--node-eviction-rate`: nodes a second in each zone.
    pub normal: f64,
    /// `--secondary-node-eviction-rate`: the same in a zone where most are not ready, if it is large.
    pub secondary: f64,
    /// `--large-cluster-size-threshold`: more nodes than that make a zone large.
    pub large: usize,
    /// `--unhealthy-zone-threshold`: the part of a zone's nodes that must be not ready for it to be slow.
    pub unhealthy: f64,
}

impl Default for EvictionRates {
    fn default() -> Self {
        Self { normal: 0.1, secondary: 0.01, large: 50, unhealthy: 0.55 }
    }
}

/// Whether a node that is not ready may be emptied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Eviction {
    /// It begins now, unless it has begun.
    Begins,
    /// It continues if it has begun.
    GoesOn,
    /// It ends: no node anywhere is ready.
    Ends,
}

/// The state of the zones. Their nodes are counted periodically, not for each node.
#[derive(Debug, Default)]
pub(super) struct Zones {
    counted: Option<Timestamp>,
    nodes: HashMap<String, Count>,
    /// When the last node of a zone began to be emptied.
    last: HashMap<String, Timestamp>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Count {
    ready: usize,
    not_ready: usize,
}

impl Count {
    /// Nodes a second that may begin to be emptied.
    fn rate(self, rates: &EvictionRates) -> f64 {
        let Self { ready, not_ready } = self;
        let most = not_ready > 2 && not_ready as f64 / (ready + not_ready) as f64 >= rates.unhealthy;
        match most && ready > 0 {
            false => rates.normal,
            true if ready + not_ready > rates.large => rates.secondary,
            true => 0.0,
        }
    }
}

impl Zones {
    /// The eviction of a node that is not ready; where it makes no difference, a count may be as old as `age`.
    pub fn judge(&mut self, cache: &Cache, node: &Object, begun: bool, rates: &EvictionRates, age: Duration, now: Timestamp) -> Eviction {
        if self.counted.is_none_or(|at| at > now || since(at, now) >= age) {
            self.count(cache, now);
        }
        let zone = zone(node);
        if self.none_is_ready() || begun || !self.may_begin(&zone, rates, now) {
            return if self.none_is_ready() { Eviction::Ends } else { Eviction::GoesOn };
        }
        self.count(cache, now);
        if !self.may_begin(&zone, rates, now) {
            return Eviction::GoesOn;
        }
        self.last.insert(zone, now);
        Eviction::Begins
    }

    fn none_is_ready(&self) -> bool {
        !self.nodes.values().any(|it| it.ready > 0)
    }

    fn may_begin(&self, zone: &str, rates: &EvictionRates, now: Timestamp) -> bool {
        let rate = self.nodes.get(zone).copied().unwrap_or_default().rate(rates);
        let pause = Duration::try_from_secs_f64(1.0 / rate).unwrap_or(Duration::MAX);
        rate > 0.0 && self.last.get(zone).is_none_or(|it| since(*it, now) >= pause)
    }

    fn count(&mut self, cache: &Cache, now: Timestamp) {
        self.nodes = count(cache);
        self.counted = Some(now);
    }
}

fn count(cache: &Cache) -> HashMap<String, Count> {
    let mut zones: HashMap<String, Count> = HashMap::new();
    for node in cache.list(&resource::NODE, &Query::default()).objects {
        if node.meta().label("node.kubernetes.io/exclude-disruption").is_some() {
            continue;
        }
        let count = zones.entry(zone(&node)).or_default();
        let number = if node.typed::<Node>().is_ok_and(is_ready) { &mut count.ready } else { &mut count.not_ready };
        *number += 1;
    }
    zones
}

/// Where a node is.
fn zone(node: &Object) -> String {
    let label = |names: [&str; 2]| names.into_iter().find_map(|it| node.meta().label(it)).unwrap_or_default();
    let region = label(["failure-domain.beta.kubernetes.io/region", "topology.kubernetes.io/region"]);
    let zone = label(["failure-domain.beta.kubernetes.io/zone", "topology.kubernetes.io/zone"]);
    format!("{region}\0{zone}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_fast_a_zone_is_emptied() {
        let rates = EvictionRates::default();
        for (ready, not_ready, rate) in [
            (3, 0, 0.1),
            (1, 2, 0.1),
            (1, 3, 0.0),
            (9, 11, 0.0),
            (10, 11, 0.1),
            (0, 2, 0.1),
            (0, 60, 0.1),
            (22, 28, 0.0),
            (22, 29, 0.01),
            (30, 29, 0.1),
        ] {
            assert!((Count { ready, not_ready }.rate(&rates) - rate).abs() < 1e-9, "{ready} ready, {not_ready} not");
        }
    }
}
