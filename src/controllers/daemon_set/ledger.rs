//! The places of a set, kept from one plan to the next: a plan examines only nodes with changes, so that a pod that becomes ready on one of
//! ten thousand nodes costs one look. The ledger holds names and numbers, no objects. The cache's history provides the changes; where it
//! does not reach back far enough, every node is examined again. Given the same failures, a plan with an old ledger equals the plan with a
//! new one.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use jiff::Timestamp;

use super::failures::Failures;
use super::place::{Stage, Verdict};
use super::{HASH, Set, daemon};
use crate::cache::{Cache, Event, Expired, Query, Watch};
use crate::object::{Object, resource};

/// The inputs of all verdicts. If they change, each verdict must be renewed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Basis {
    pub uid: String,
    pub generation: i64,
    pub deleted: bool,
    /// Of the newest template.
    pub hash: String,
}

#[derive(Debug)]
pub(super) struct Ledger {
    basis: Basis,
    nodes: Watch,
    pods: Watch,
    /// The pods that count, by name, and by the node they are on or for.
    members: HashMap<Box<str>, Member>,
    on_node: HashMap<Box<str>, BTreeSet<Box<str>>>,
    /// Pods of the set that its selector no longer matches, and matching pods without a controller.
    pub strayed: BTreeSet<Box<str>>,
    pub orphans: BTreeSet<Box<str>>,
    /// The number of pods of each template.
    hashes: HashMap<Box<str>, usize>,
    verdicts: HashMap<Box<str>, Verdict>,
    pub counts: Counts,
    /// Places where a pod is missing, and where one is too many.
    pub missing: BTreeSet<Box<str>>,
    pub surplus: BTreeSet<Box<str>>,
    /// Wanted places with only a pod of an older template: those where it does not work, and those where it is available.
    pub useless: BTreeSet<Box<str>>,
    pub candidates: BTreeSet<Box<str>>,
    due: BTreeMap<Timestamp, HashSet<Box<str>>>,
    /// How often a place was looked at.
    #[cfg(test)]
    pub looks: usize,
}

#[derive(Debug)]
struct Member {
    node: Box<str>,
    hash: Box<str>,
}

/// Numbers of places. The last two are of wanted ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub desired: i64,
    pub current: i64,
    pub misscheduled: i64,
    pub ready: i64,
    pub available: i64,
    pub updated: i64,
    /// Without an available pod, or with one of each template.
    pub unavailable: i64,
    pub doubled: i64,
}

/// How a pod stands to a set.
enum Bond {
    None,
    /// A pod of the set.
    Member,
    /// A pod of the set that is to be adopted.
    Orphan,
    /// A pod that is to be released.
    Strayed,
}

impl Ledger {
    /// An empty ledger.
    pub(super) fn new(cache: &Cache, set: &Set<'_>) -> Self {
        Self {
            basis: set.basis.clone(),
            nodes: cache.follow(&resource::NODE, Query::default()),
            pods: cache.follow(&resource::POD, Query::namespace(set.object.namespace())),
            members: HashMap::new(),
            on_node: HashMap::new(),
            strayed: BTreeSet::new(),
            orphans: BTreeSet::new(),
            hashes: HashMap::new(),
            verdicts: HashMap::new(),
            counts: Counts::default(),
            missing: BTreeSet::new(),
            surplus: BTreeSet::new(),
            useless: BTreeSet::new(),
            candidates: BTreeSet::new(),
            due: BTreeMap::new(),
            #[cfg(test)]
            looks: 0,
        }
    }

    /// Follows the cache.
    pub(super) fn refresh(&mut self, cache: &Cache, set: &Set<'_>, failures: &mut Failures) {
        if self.basis != set.basis {
            *self = Self::new(cache, set);
        }
        let mut places = loop {
            match self.changed(set) {
                Ok(places) => break places,
                Err(Expired { .. }) => *self = Self::new(cache, set),
            }
        };
        while let Some(due) = self.due.first_entry().filter(|it| *it.key() <= set.now) {
            places.extend(due.remove());
        }
        for place in places {
            self.look(cache, set, failures, place);
        }
    }

    pub(super) fn next_due(&self) -> Option<Timestamp> {
        self.due.keys().next().copied()
    }

    /// Whether there are pods of this template.
    pub(super) fn has_pods_of(&self, hash: &str) -> bool {
        self.hashes.contains_key(hash)
    }

    /// The verdict on a place.
    pub(super) fn at(&self, place: &str) -> Option<&Verdict> {
        self.verdicts.get(place)
    }

    /// The pods at a place.
    pub(super) fn pods_at(&self, cache: &Cache, set: &Set<'_>, place: &str) -> Vec<Arc<Object>> {
        let names = self.on_node.get(place).into_iter().flatten();
        let mut pods: Vec<_> = names.filter_map(|it| cache.get(&resource::POD, set.object.namespace(), it)).collect();
        pods.sort_by(|a, b| (&a.meta().created, a.name()).cmp(&(&b.meta().created, b.name())));
        pods
    }

    /// The places where something changed since the last time.
    fn changed(&mut self, set: &Set<'_>) -> Result<HashSet<Box<str>>, Expired> {
        let mut places = HashSet::new();
        while let Some(event) = self.nodes.try_next()? {
            if let Event::Added(node) | Event::Modified(node) | Event::Deleted(node) = event {
                places.insert(node.name().into());
            }
        }
        while let Some(event) = self.pods.try_next()? {
            match event {
                Event::Added(pod) | Event::Modified(pod) => self.note_pod(&pod, bond(set, &pod), &mut places),
                Event::Deleted(pod) => self.note_pod(&pod, Bond::None, &mut places),
                Event::Bookmark(_) => {}
            }
        }
        Ok(places)
    }

    fn note_pod(&mut self, pod: &Object, bond: Bond, places: &mut HashSet<Box<str>>) {
        self.strayed.remove(pod.name());
        self.orphans.remove(pod.name());
        if let Some(Member { node, hash }) = self.members.remove(pod.name()) {
            if let Some(names) = self.on_node.get_mut(&node) {
                names.remove(pod.name());
                if names.is_empty() {
                    self.on_node.remove(&node);
                }
            }
            if let Some(count) = self.hashes.get_mut(&hash) {
                *count -= 1;
                if *count == 0 {
                    self.hashes.remove(&hash);
                }
            }
            places.insert(node);
        }
        let told = match bond {
            Bond::None | Bond::Member => None,
            Bond::Orphan => Some(&mut self.orphans),
            Bond::Strayed => Some(&mut self.strayed),
        };
        told.into_iter().for_each(|it| _ = it.insert(pod.name().into()));
        if matches!(bond, Bond::None | Bond::Strayed) {
            return;
        }
        let node: Box<str> = daemon::node(pod).unwrap_or_default().into();
        let hash: Box<str> = pod.meta().label(HASH).unwrap_or_default().into();
        self.on_node.entry(node.clone()).or_default().insert(pod.name().into());
        *self.hashes.entry(hash.clone()).or_default() += 1;
        places.insert(node.clone());
        self.members.insert(pod.name().into(), Member { node, hash });
    }

    fn look(&mut self, cache: &Cache, set: &Set<'_>, failures: &mut Failures, place: Box<str>) {
        #[cfg(test)]
        {
            self.looks += 1;
        }
        let node = cache.get(&resource::NODE, "", &place);
        let pods = self.pods_at(cache, set, &place);
        if let Some(before) = self.verdicts.remove(&place) {
            self.counts.add(&before, -1);
            for places in [&mut self.missing, &mut self.surplus, &mut self.useless, &mut self.candidates] {
                places.remove(&place);
            }
            if let Some(due) = before.due
                && let Some(places) = self.due.get_mut(&due)
            {
                places.remove(&place);
                if places.is_empty() {
                    self.due.remove(&due);
                }
            }
        }
        if node.is_none() && pods.is_empty() {
            return;
        }
        let verdict = Verdict::of(set, node.as_ref().map(|it| it.part()), &pods, |failed| failures.left(&place, failed, set.now));
        self.counts.add(&verdict, 1);
        if verdict.missing {
            self.missing.insert(place.clone());
        }
        if !verdict.surplus.is_empty() || !verdict.ended.is_empty() {
            self.surplus.insert(place.clone());
        }
        if let (true, Stage::Old { available }) = (verdict.wanted, verdict.stage) {
            if available { &mut self.candidates } else { &mut self.useless }.insert(place.clone());
        }
        if let Some(due) = verdict.due {
            self.due.entry(due).or_default().insert(place.clone());
        }
        self.verdicts.insert(place, verdict);
    }
}

impl Counts {
    fn add(&mut self, verdict: &Verdict, sign: i64) {
        let Verdict { wanted, present, ready, available, updated, stage, .. } = *verdict;
        let count = |it: bool| if it { sign } else { 0 };
        self.desired += count(wanted);
        self.current += count(wanted && present);
        self.misscheduled += count(!wanted && present);
        self.ready += count(wanted && ready);
        self.available += count(wanted && available);
        self.updated += count(wanted && updated);
        self.unavailable += count(wanted && !matches!(stage, Stage::Old { available: true } | Stage::New { available: true }));
        self.doubled += count(wanted && stage == Stage::Both);
    }
}

fn bond(set: &Set<'_>, pod: &Object) -> Bond {
    let matches = || set.selector.matches(pod);
    match pod.meta().controller() {
        Some(owner) if *owner.uid == *set.basis.uid && matches() => Bond::Member,
        Some(owner) if *owner.uid == *set.basis.uid && !pod.meta().is_deleted() => Bond::Strayed,
        None if !set.basis.deleted && !pod.meta().is_deleted() && matches() => Bond::Orphan,
        _ => Bond::None,
    }
}
