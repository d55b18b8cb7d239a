//! Placement of pods: one round over the waiting pods and the held offers. Pure and deterministic.

use std::cmp::{Ordering, Reverse};
use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::demand::Demand;
use super::nodes::HOSTNAME_LABEL;
use super::offers::{Book, Lot, Slot};
use super::queue::{Group, GroupId, Order, Queue, Waiting};
use super::resources::{ExecutorCost, Grant, Shortage};
use super::storage::Storage;
use crate::mesos::v1::{ExecutorInfo, Resource};
use crate::object::Name;
use crate::object::constraints::{Mismatch, NodeFacts};

/// How many of the freest agents are compared for one pod. A placed pod makes its agent less free, so that the choice rotates by itself.
const COMPARED: usize = 32;

/// About how many checks of an agent a round may make: a tenth of a second. With thousands of different demands and agents, one that makes them
/// all would keep the scheduler from everything else.
const WORK: usize = 1 << 20;

/// Why an agent does not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Unfit {
    Node(Mismatch),
    Resources(Shortage),
    /// It has no volumes for the pod's claims.
    Volumes,
}

/// A pod and its place.
#[derive(Debug)]
pub struct Placed {
    pub waiting: Waiting,
    pub grant: Grant,
    pub executor: Arc<ExecutorInfo>,
}

/// The pods to launch on each lot.
pub type Launches = BTreeMap<Slot, Vec<Placed>>;

/// The number of pods of each owner on each host.
#[derive(Debug, Default)]
pub struct Spread(HashMap<Box<str>, HashMap<Arc<str>, u32>>);

/// The environment of placement, besides pods and offers.
pub trait Surroundings {
    /// The node of a host, if it has one.
    fn node(&self, host: &str) -> Option<&NodeFacts>;
    /// The price of the executor, which an agent's first pod pays.
    fn executor_cost(&self) -> ExecutorCost;
    fn framework_roles(&self) -> &[Box<str>];
    /// The executor for an agent without one, with the resources taken for it.
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

/// Places every waiting pod that fits a lot: in the order of the queue, each on the agent with the fewest pods of its owner among the
/// freest ones. Placed pods leave the queue and count in `spread`; pods whose claims must be bound first stay queued. A round that takes too
/// long stops early ([`Queue::is_behind`]); then the next one continues.
pub fn round(
    now: Duration,
    queue: &mut Queue,
    book: &mut Book,
    spread: &mut Spread,
    storage: &mut Storage,
    around: &impl Surroundings,
) -> Launches {
    let round = Round { book, spread, storage, around, promises: Vec::new(), checks: 0 };
    round.run(now, queue, WORK)
}

struct Round<'a, S> {
    book: &'a mut Book,
    spread: &'a mut Spread,
    storage: &'a mut Storage,
    around: &'a S,
    /// Pods with a host that are not launched yet, because their claims are being bound there: their places in this round, by owner.
    promises: Vec<(Option<Slot>, Option<Box<str>>, Arc<str>)>,
    /// How often a lot was checked.
    checks: usize,
}

/// A lot that fitted a group when last checked.
struct Candidate {
    room: f64,
    slot: Slot,
    version: u32,
}

impl<S: Surroundings> Round<'_, S> {
    fn run(mut self, now: Duration, queue: &mut Queue, work: usize) -> Launches {
        let mut launches = Launches::new();
        let generation = self.book.generation();
        self.keep_promises(queue);
        let mut line: BinaryHeap<_> = queue.take_turns().into_iter().map(Reverse).collect();
        let mut candidates: HashMap<GroupId, BinaryHeap<Candidate>> = HashMap::new();
        // The first pod of a group that has to wait for the next round. Pods of lower priority wait with it.
        let mut rest: Option<Order> = None;
        while let Some(Reverse((order, id))) = line.pop() {
            if rest.is_some_and(|rest| rest.0 != order.0) {
                break;
            }
            let Some(waiting) = queue.at(id, order) else { continue };
            let (pod, owner, wanted, demand) =
                (waiting.name.clone(), waiting.owner.clone(), waiting.wanted.clone(), waiting.demand.clone());
            let next = queue.after(id, order).map(|order| Reverse((order, id)));
            if self.storage.are_taken(&wanted, &pod) {
                // Taken by a pod of this round.
                line.extend(next);
                continue;
            }
            let Some(group) = queue.group_mut(id) else { continue };
            let heap = match candidates.entry(id) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(_) if self.is_barred(group) => continue,
                Entry::Vacant(_) if self.checks >= work => {
                    rest.get_or_insert(order);
                    continue;
                }
                Entry::Vacant(unknown) => unknown.insert(self.candidates(&demand, group.tried)),
            };
            let Some((slot, grant, volumes)) = self.place(&demand, owner.as_deref(), heap) else {
                group.tried = generation;
                candidates.remove(&id);
                continue;
            };
            if next.is_none() {
                candidates.remove(&id);
            }
            line.extend(next);
            let Some(lot) = self.book.lot_mut(slot) else { continue };
            self.spread.add(owner.as_deref(), &lot.host);
            if !demand.needs.is_empty() {
                let host = lot.host.clone();
                self.storage.begin(now, &pod, &host, wanted.unbound, volumes);
                self.promises.push((Some(slot), owner, host));
                continue;
            }
            let executor = lot.executor.get_or_insert_with(|| Arc::new(self.around.executor(&lot.host, grant.executor.clone()))).clone();
            self.storage.launched(&pod);
            if let Some(waiting) = queue.remove(&pod) {
                launches.entry(slot).or_default().push(Placed { waiting, grant, executor });
            }
        }
        queue.stop_at(rest);
        self.take_back_promises(&launches);
        launches
    }

    /// Sets aside the resources for pods whose claims are being bound.
    fn keep_promises(&mut self, queue: &Queue) {
        let promised: BTreeSet<(Name, Arc<str>)> = self.storage.promised().map(|(pod, host)| (pod.clone(), host.clone())).collect();
        for (pod, host) in promised {
            let Some(waiting) = queue.get(&pod) else { continue };
            let slots: Vec<Slot> = self.book.on_host(&host, 0).collect();
            let slot = slots.into_iter().find(|slot| self.draw(&waiting.demand, *slot).is_some());
            self.spread.add(waiting.owner.as_deref(), &host);
            self.promises.push((slot, waiting.owner.clone(), host));
        }
    }

    fn take_back_promises(self, launches: &Launches) {
        for (slot, owner, host) in self.promises {
            self.spread.remove(owner.as_deref(), &host);
            if let Some(slot) = slot.filter(|it| !launches.contains_key(it)) {
                self.book.restore(slot);
            }
        }
    }

    /// Whether no agent can fit; records the reason.
    fn is_barred(&self, group: &mut Group) -> bool {
        group.barred = self.storage.are_hopeless(&group.demand.needs).then_some(Unfit::Volumes);
        group.barred.is_some()
    }

    /// The lots that fit a group, among those newer than the ones that it has tried.
    fn candidates(&mut self, demand: &Demand, tried: u64) -> BinaryHeap<Candidate> {
        let (mut admitted, mut checks) = (Vec::new(), 0);
        for lot in self.slots(demand, tried).filter_map(|slot| Some((slot, self.book.lot(slot)?))) {
            checks += 1;
            let (slot, lot) = lot;
            if let Ok(room) = judge(lot, demand, self.around) {
                admitted.push(Candidate { room, slot, version: lot.version });
            }
        }
        self.checks += checks;
        admitted.into()
    }

    /// The slots to check for a demand.
    fn slots<'b>(&'b self, demand: &'b Demand, tried: u64) -> Box<dyn Iterator<Item = Slot> + 'b> {
        match only_host(demand, self.around) {
            Some(host) => Box::new(self.book.on_host(host, tried)),
            None => Box::new(self.book.since(tried)),
        }
    }

    /// Chooses one of the candidate lots and draws from it, including the pod's volumes there. Candidates that do not fit are dropped.
    fn place(
        &mut self,
        demand: &Demand,
        owner: Option<&str>,
        heap: &mut BinaryHeap<Candidate>,
    ) -> Option<(Slot, Grant, Vec<Option<Box<str>>>)> {
        loop {
            let mut compared: Vec<(u32, Candidate)> = Vec::new();
            while compared.len() < COMPARED
                && let Some(mut candidate) = heap.pop()
            {
                let Some(lot) = self.book.lot(candidate.slot) else { continue };
                if candidate.version != lot.version {
                    // The lot has been drawn from: check it again, and sort it in anew.
                    self.checks += 1;
                    if let Ok(room) = judge(lot, demand, self.around) {
                        (candidate.room, candidate.version) = (room, lot.version);
                        heap.push(candidate);
                    }
                    continue;
                }
                let count = self.spread.count(owner, &lot.host);
                compared.push((count, candidate));
                if count == 0 {
                    break;
                }
            }
            let best = (0..compared.len()).min_by_key(|at| compared[*at].0)?;
            let (_, chosen) = compared.swap_remove(best);
            heap.extend(compared.into_iter().map(|(_, candidate)| candidate));
            let slot = chosen.slot;
            if let Some(volumes) = self.volumes(demand, slot)
                && let Some(grant) = self.draw(demand, slot)
            {
                heap.push(chosen);
                return Some((slot, grant, volumes));
            }
        }
    }

    fn volumes(&self, demand: &Demand, slot: Slot) -> Option<Vec<Option<Box<str>>>> {
        if demand.needs.is_empty() {
            return Some(Vec::new());
        }
        self.storage.choose(&demand.needs, self.around.node(&self.book.lot(slot)?.host)?)
    }

    fn draw(&mut self, demand: &Demand, slot: Slot) -> Option<Grant> {
        let lot = self.book.lot_mut(slot)?;
        let grant = lot.ledger.take(demand, executor_cost(lot, self.around), self.around.framework_roles()).ok()?;
        lot.version += 1;
        Some(grant)
    }
}

/// The only host that some pods can go to: those of a DaemonSet, which may have one for each of thousands, and those with a local volume there.
fn only_host<'a>(demand: &'a Demand, around: &impl Surroundings) -> Option<&'a str> {
    let is_labelled = |host: &&str| around.node(host).is_some_and(|it| it.label(HOSTNAME_LABEL) == Some(host));
    demand.constraints.pinned().or_else(|| demand.constraints.volume_label(HOSTNAME_LABEL).filter(is_labelled))
}

/// Whether a lot fits, and how much room it has. Volumes are checked when a lot is chosen: their number only decreases during a round.
fn judge(lot: &Lot, demand: &Demand, around: &impl Surroundings) -> Result<f64, Unfit> {
    let node = around.node(&lot.host).ok_or(Unfit::Node(Mismatch::Name))?;
    demand.constraints.admit(node, lot.executor.is_some()).map_err(Unfit::Node)?;
    lot.ledger.room(demand, executor_cost(lot, around)).map_err(Unfit::Resources)
}

fn executor_cost(lot: &Lot, around: &impl Surroundings) -> ExecutorCost {
    if lot.executor.is_some() { ExecutorCost::default() } else { around.executor_cost() }
}

impl Ord for Candidate {
    /// By room, then the lower slot.
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

/// The explanation for the user of a waiting pod of this group, from what was left of each agent when it was last offered. To keep all verdicts
/// would take memory for each pair of group and agent.
pub fn explain(group: &Group, book: &Book, storage: &Storage, around: &impl Surroundings) -> String {
    if let Some(why) = group.barred {
        return format!("no suitable offers for pod/task: {why}");
    }
    let demand = &*group.demand;
    let unfit = |lot: &Lot| {
        if let Err(why) = judge(lot, demand, around) {
            return Some(why);
        }
        if !demand.needs.is_empty() && around.node(&lot.host).is_none_or(|it| storage.choose(&demand.needs, it).is_none()) {
            return Some(Unfit::Volumes);
        }
        lot.ledger.clone().take(demand, executor_cost(lot, around), around.framework_roles()).err().map(Unfit::Resources)
    };
    let host = only_host(demand, around);
    let lots = book.known().filter(|lot| host.is_none_or(|host| *lot.host == *host));
    let mut counts: BTreeMap<Unfit, usize> = BTreeMap::new();
    lots.filter_map(unfit).for_each(|why| *counts.entry(why).or_default() += 1);
    if counts.is_empty() {
        return "no suitable offers for pod/task: Mesos has offered no agent's resources yet".to_owned();
    }
    let total: usize = counts.values().sum();
    let listed = counts.iter().map(|(why, count)| format!("{count} {why}")).collect::<Vec<_>>().join(", ");
    format!("no suitable offers for pod/task: 0/{total} agents are suitable: {listed}")
}

#[cfg(test)]
mod tests;
