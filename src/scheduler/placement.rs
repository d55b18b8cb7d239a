//! Which pod goes where: one round over the waiting pods and the offers held. Pure and deterministic.

use std::cmp::{Ordering, Reverse};
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::demand::Demand;
use super::nodes::HOSTNAME_LABEL;
use super::offers::{Book, Lot, Slot};
use super::queue::{GroupId, Queue, Waiting};
use super::resources::{ExecutorCost, Grant, Ledger, Shortage};
use super::storage::{Chosen, Storage};
use crate::mesos::v1::{ExecutorInfo, Resource};
use crate::object::constraints::{Mismatch, NodeFacts};

/// How many of the freest agents are compared for one pod. Taking a pod makes an agent less free, so the choice rotates by itself.
const COMPARED: usize = 32;

/// Why an agent will not do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Unfit {
    Node(Mismatch),
    Resources(Shortage),
    /// There are no volumes for its claims.
    Volumes,
}

/// A pod with the place found for it.
#[derive(Debug)]
pub struct Placed {
    pub waiting: Waiting,
    pub grant: Grant,
    pub executor: Arc<ExecutorInfo>,
}

/// What to launch on each lot.
pub type Launches = BTreeMap<Slot, Vec<Placed>>;

/// How many pods of each owner run on each host.
#[derive(Debug, Default)]
pub struct Spread(HashMap<Box<str>, HashMap<Arc<str>, u32>>);

/// What placing needs to know beside pods and offers.
pub trait Surroundings {
    /// The node of a host, if it has one.
    fn node(&self, host: &str) -> Option<&NodeFacts>;
    /// What an agent's first pod pays for the executor.
    fn executor_cost(&self) -> ExecutorCost;
    fn framework_roles(&self) -> &[Box<str>];
    /// The executor for an agent that has none, with what was taken for it.
    fn executor(&self, host: &str, resources: Vec<Resource>) -> ExecutorInfo;
}

impl Spread {
    pub fn add(&mut self, owner: Option<&str>, host: &Arc<str>) {
        let Some(owner) = owner else { return };
        if !self.0.contains_key(owner) {
            self.0.insert(owner.into(), HashMap::new());
        }
        *self.0.get_mut(owner).expect("made above").entry(host.clone()).or_default() += 1;
    }

    pub fn remove(&mut self, owner: Option<&str>, host: &Arc<str>) {
        let Some(hosts) = owner.and_then(|owner| self.0.get_mut(owner)) else { return };
        if let Some(count) = hosts.get_mut(host) {
            *count -= 1;
            if *count == 0 {
                hosts.remove(host);
            }
        }
        if hosts.is_empty() {
            self.0.remove(owner.expect("it led to the hosts"));
        }
    }

    pub fn count(&self, owner: Option<&str>, host: &str) -> u32 {
        owner.and_then(|owner| self.0.get(owner)).and_then(|hosts| hosts.get(host)).copied().unwrap_or_default()
    }
}

/// Places every waiting pod for which there is a lot: in the order of the queue, each on the agent with the fewest pods of its owner among
/// the freest. Placed pods leave the queue and count in `spread`; those whose claims are to be bound first stay.
pub fn round(
    now: Duration,
    queue: &mut Queue,
    book: &mut Book,
    spread: &mut Spread,
    storage: &mut Storage,
    around: &impl Surroundings,
) -> Launches {
    let mut launches = Launches::new();
    let generation = book.generation();
    let kept = keep_promises(queue, book, storage, around);
    let mut line: BinaryHeap<_> = queue.heads().map(Reverse).collect();
    let mut candidates: HashMap<GroupId, BinaryHeap<Candidate>> = HashMap::new();
    while let Some(Reverse((_, id))) = line.pop() {
        let Some(demand) = queue.group(id).map(|it| it.demand.clone()) else { continue };
        if let Some(wanted) = &demand.storage {
            let Some(waiting) = queue.first(id) else { continue };
            if storage.are_in_use(&wanted.exclusive, &waiting.name) {
                // By a pod of this round.
                continue;
            }
            if demand.has_unbound_claims() {
                let (pod, owner) = (waiting.name.clone(), waiting.owner.clone());
                let found = queue.group_mut(id).and_then(|group| {
                    let hopeless = storage.is_hopeless(wanted);
                    group.barred = hopeless.then_some(Unfit::Volumes);
                    if hopeless {
                        None
                    } else {
                        choose(&demand, owner.as_deref(), book, spread, storage, around, &mut group.verdicts, &mut group.tried)
                    }
                });
                if let Some((host, chosen)) = found {
                    storage.begin(now, &pod, &host, chosen);
                }
                // Others that use the same claims wait for them too.
                continue;
            }
        }
        let Some(group) = queue.group_mut(id) else { continue };
        let heap = candidates.entry(id).or_insert_with(|| {
            let admitted = slots(&demand, book, group.tried, around).filter_map(|slot| {
                let lot = book.lot(slot)?;
                let judged = judge(lot, &demand, around);
                judged
                    .map(|room| Candidate { room, slot, version: lot.version })
                    .map_err(|why| group.verdicts.insert(lot.agent.clone(), why))
                    .ok()
            });
            admitted.collect()
        });
        let Some(waiting) = queue.first(id) else { continue };
        let owner = waiting.owner.clone();
        let mut verdicts = Vec::new();
        let found = place(&demand, owner.as_deref(), heap, book, spread, around, &mut verdicts);
        if let Some(group) = queue.group_mut(id) {
            group.verdicts.extend(verdicts);
            if found.is_none() {
                group.tried = generation;
            }
        }
        let Some((slot, grant, executor)) = found else { continue };
        let name = queue.first(id).expect("its head was just placed").name.clone();
        let waiting = queue.remove(&name).expect("it was queued");
        let host = &book.lot(slot).expect("it was just drawn from").host;
        spread.add(owner.as_deref(), host);
        storage.launched(&name);
        launches.entry(slot).or_default().push(Placed { waiting, grant, executor });
        if let Some(next) = queue.head(id) {
            line.push(Reverse((next, id)));
        }
    }
    for (slot, ledger) in kept {
        if let Some(lot) = book.lot_mut(slot).filter(|_| !launches.contains_key(&slot)) {
            lot.ledger = ledger;
            lot.version += 1;
        }
    }
    launches
}

/// The slots to look at for a demand. Some pods can go to one host only: those of a DaemonSet, of which there may be one for each of
/// thousands, and those whose volume is a disk there.
fn slots<'a>(demand: &'a Demand, book: &'a Book, tried: u64, around: &impl Surroundings) -> Box<dyn Iterator<Item = Slot> + 'a> {
    let is_labelled = |host: &&str| around.node(host).is_some_and(|it| it.label(HOSTNAME_LABEL) == Some(host));
    let constraints = &demand.constraints;
    match constraints.pinned().or_else(|| constraints.volume_label(HOSTNAME_LABEL).filter(is_labelled)) {
        Some(host) => Box::new(book.on_host(host, tried)),
        None => Box::new(book.since(tried)),
    }
}

/// Sets aside what pods will need whose claims are being bound. The ledgers as they were, to be put back.
fn keep_promises(queue: &Queue, book: &mut Book, storage: &Storage, around: &impl Surroundings) -> Vec<(Slot, Ledger)> {
    let mut kept: BTreeMap<Slot, Ledger> = BTreeMap::new();
    let promised: BTreeSet<_> = storage.promised().collect();
    for (pod, host) in promised {
        let Some(waiting) = queue.get(pod) else { continue };
        for slot in book.on_host(host, 0).collect::<Vec<_>>() {
            let Some(lot) = book.lot_mut(slot) else { continue };
            let (cost, before) = (cost(lot, around), lot.ledger.clone());
            if lot.ledger.take(&waiting.demand, cost, around.framework_roles()).is_ok() {
                kept.entry(slot).or_insert(before);
                break;
            }
        }
    }
    kept.into_iter().collect()
}

/// Finds a host for a pod whose claims get their volumes there, and the volumes. Nothing is drawn from its lot: the pod is launched once the
/// claims are bound. Where there are very many hosts that will do, not all are compared.
#[allow(clippy::too_many_arguments, reason = "all that a place depends on")]
fn choose(
    demand: &Demand,
    owner: Option<&str>,
    book: &Book,
    spread: &Spread,
    storage: &Storage,
    around: &impl Surroundings,
    verdicts: &mut HashMap<Arc<str>, Unfit>,
    tried: &mut u64,
) -> Option<(Arc<str>, Vec<Chosen>)> {
    let wanted = demand.storage.as_deref()?;
    let mut found: Vec<(u32, Candidate, Vec<Chosen>)> = Vec::new();
    for slot in slots(demand, book, *tried, around) {
        let Some(lot) = book.lot(slot) else { continue };
        let judged = judge(lot, demand, around).and_then(|room| {
            let chosen = around.node(&lot.host).and_then(|node| storage.choose(wanted, node)).ok_or(Unfit::Volumes)?;
            Ok((room, chosen))
        });
        match judged {
            Ok((room, chosen)) => found.push((spread.count(owner, &lot.host), Candidate { room, slot, version: lot.version }, chosen)),
            Err(why) => drop(verdicts.insert(lot.agent.clone(), why)),
        }
        if found.len() == COMPARED {
            break;
        }
    }
    let all = found.len() < COMPARED;
    found.sort_by(|(few, a, _), (many, b, _)| few.cmp(many).then_with(|| b.cmp(a)));
    let best = found.into_iter().find_map(|(_, candidate, chosen)| {
        let lot = book.lot(candidate.slot).expect("it was just looked at");
        match lot.ledger.clone().take(demand, cost(lot, around), around.framework_roles()) {
            Ok(_) => Some((lot.host.clone(), chosen)),
            Err(short) => {
                verdicts.insert(lot.agent.clone(), Unfit::Resources(short));
                None
            }
        }
    });
    if best.is_none() && all {
        *tried = book.generation();
    }
    best
}

/// A lot that would do for a group when it was last looked at.
struct Candidate {
    room: f64,
    slot: Slot,
    version: u32,
}

/// Whether a lot would do, and how much room it has.
fn judge(lot: &Lot, demand: &Demand, around: &impl Surroundings) -> Result<f64, Unfit> {
    let node = around.node(&lot.host).ok_or(Unfit::Node(Mismatch::Name))?;
    demand.constraints.admit(node, lot.executor.is_some()).map_err(Unfit::Node)?;
    lot.ledger.room(demand, cost(lot, around)).map_err(Unfit::Resources)
}

fn cost(lot: &Lot, around: &impl Surroundings) -> ExecutorCost {
    if lot.executor.is_some() { ExecutorCost::default() } else { around.executor_cost() }
}

/// Finds a lot among the candidates and draws from it. Candidates that turn out not to do are dropped; their verdicts are noted.
fn place(
    demand: &Demand,
    owner: Option<&str>,
    heap: &mut BinaryHeap<Candidate>,
    book: &mut Book,
    spread: &Spread,
    around: &impl Surroundings,
    verdicts: &mut Vec<(Arc<str>, Unfit)>,
) -> Option<(Slot, Grant, Arc<ExecutorInfo>)> {
    loop {
        let mut compared: Vec<(u32, Candidate)> = Vec::new();
        while compared.len() < COMPARED
            && let Some(mut candidate) = heap.pop()
        {
            let Some(lot) = book.lot(candidate.slot) else { continue };
            if candidate.version != lot.version {
                // Others have drawn from it since: look again, and let it take its new place among the candidates.
                match judge(lot, demand, around) {
                    Ok(room) => {
                        (candidate.room, candidate.version) = (room, lot.version);
                        heap.push(candidate);
                    }
                    Err(why) => verdicts.push((lot.agent.clone(), why)),
                }
                continue;
            }
            let count = spread.count(owner, &lot.host);
            compared.push((count, candidate));
            if count == 0 {
                break;
            }
        }
        let best = (0..compared.len()).min_by_key(|at| compared[*at].0)?;
        let (_, chosen) = compared.swap_remove(best);
        heap.extend(compared.into_iter().map(|(_, candidate)| candidate));
        let lot = book.lot_mut(chosen.slot).expect("seen above");
        match lot.ledger.take(demand, cost(lot, around), around.framework_roles()) {
            Ok(mut grant) => {
                lot.version += 1;
                let paid = std::mem::take(&mut grant.executor);
                let executor = lot.executor.get_or_insert_with(|| Arc::new(around.executor(&lot.host, paid))).clone();
                let slot = chosen.slot;
                heap.push(chosen);
                return Some((slot, grant, executor));
            }
            Err(short) => verdicts.push((lot.agent.clone(), Unfit::Resources(short))),
        }
    }
}

impl Ord for Candidate {
    /// The freest is the greatest; of two as free, the one in the lower slot.
    fn cmp(&self, other: &Self) -> Ordering {
        self.room.total_cmp(&other.room).then_with(|| other.slot.cmp(&self.slot))
    }
}

impl PartialOrd for Candidate {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Candidate {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Candidate {}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Node(Mismatch::Name) => "not the node that the pod names",
            Self::Node(Mismatch::Selector) => "node selector does not match",
            Self::Node(Mismatch::Affinity) => "node affinity does not match",
            Self::Node(Mismatch::Volume) => "node(s) didn't match PersistentVolume's node affinity",
            Self::Node(Mismatch::Unschedulable) => "unschedulable",
            Self::Node(Mismatch::Taint) => "untolerated taint",
            Self::Resources(Shortage::Roles) => "no usable role",
            Self::Resources(Shortage::Cpu) => "insufficient cpus",
            Self::Resources(Shortage::Mem) => "insufficient mem",
            Self::Resources(Shortage::Gpus) => "insufficient gpus",
            Self::Resources(Shortage::NamedPort) => "host port not offered",
            Self::Resources(Shortage::AnyPort) => "too few host ports",
            Self::Volumes => "node(s) didn't find available persistent volumes to bind",
        })
    }
}

/// What a pod's user reads while it waits, from the last verdict on each agent.
pub fn explain<'a>(verdicts: impl Iterator<Item = &'a Unfit>) -> String {
    let mut counts: BTreeMap<Unfit, usize> = BTreeMap::new();
    verdicts.for_each(|why| *counts.entry(*why).or_default() += 1);
    if counts.is_empty() {
        return "no suitable offers for pod/task: Mesos has offered no agent's resources yet".to_owned();
    }
    let total: usize = counts.values().sum();
    let listed = counts.iter().map(|(why, count)| format!("{count} {why}")).collect::<Vec<_>>().join(", ");
    format!("no suitable offers for pod/task: 0/{total} agents are suitable: {listed}")
}

#[cfg(test)]
mod tests;
