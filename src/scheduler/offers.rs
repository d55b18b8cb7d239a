//! The offer book: the offers that are still held, by agent. The offers of one agent form one lot and are used up together.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use super::resources::Ledger;
use crate::mesos::v1::{ExecutorInfo, Offer, Resource};

/// The index of a lot in the book; constant while the lot is held.
pub type Slot = usize;

/// All offers of one agent.
#[derive(Debug)]
pub struct Lot {
    pub agent: Arc<str>,
    pub host: Arc<str>,
    pub ledger: Ledger,
    /// The executor that pods launched here share. `None`: there is none yet, and the first pod must pay for it.
    pub executor: Option<Arc<ExecutorInfo>>,
    /// Counts the changes of the ledger.
    pub version: u32,
    offers: Vec<Held>,
    /// Set aside in the ledger before anything else: the resources of a known executor that may not run yet.
    reserved: Vec<Resource>,
    generation: u64,
}

#[derive(Debug)]
struct Held {
    id: Box<str>,
    expires: Duration,
    resources: Vec<Resource>,
}

/// Held offers. Newer or changed lots have a higher generation, so a pod that found no place only needs to look at newer ones.
#[derive(Debug, Default)]
pub struct Book {
    lots: Vec<Option<Lot>>,
    free: Vec<Slot>,
    by_agent: HashMap<Arc<str>, Slot>,
    by_host: HashMap<Arc<str>, Vec<Slot>>,
    by_offer: HashMap<Box<str>, Slot>,
    by_generation: BTreeMap<u64, Slot>,
    /// What was left of each agent that has no lot now, to explain why pods wait.
    past: HashMap<Arc<str>, Lot>,
    expiries: BTreeSet<(Duration, Box<str>)>,
    generation: u64,
}

impl Lot {
    pub fn offer_ids(&self) -> impl Iterator<Item = &str> {
        self.offers.iter().map(|it| &*it.id)
    }

    /// Computes the ledger from the held offers; returns whether it contained the reserved resources.
    fn recount(&mut self) -> bool {
        self.ledger = Ledger::default();
        for offer in &self.offers {
            self.ledger.add(&offer.resources);
        }
        self.version += 1;
        self.ledger.take_exactly(&self.reserved)
    }
}

impl Book {
    /// Adds an offer to its agent's lot. `executor` is the one that pods there must use, with the resources to set aside for it. Returns
    /// the offers of the lot if they do not suffice for it.
    pub fn add(
        &mut self,
        offer: Offer,
        executor: Option<(Arc<ExecutorInfo>, Vec<Resource>)>,
        expires: Duration,
    ) -> Result<Slot, Vec<Box<str>>> {
        let slot = match self.by_agent.get(&*offer.agent_id.value) {
            Some(slot) => *slot,
            None => self.open(&offer),
        };
        let (executor, reserved) = executor.map_or((None, Vec::new()), |(info, reserved)| (Some(info), reserved));
        let id: Box<str> = offer.id.value.into();
        self.by_offer.insert(id.clone(), slot);
        self.expiries.insert((expires, id.clone()));
        let lot = self.lots[slot].as_mut().expect("the index points at lots");
        lot.offers.push(Held { id, expires, resources: offer.resources });
        (lot.executor, lot.reserved) = (executor, reserved);
        if lot.recount() {
            self.renew(slot);
            return Ok(slot);
        }
        Err(self.take(slot).offers.into_iter().map(|it| it.id).collect())
    }

    fn open(&mut self, offer: &Offer) -> Slot {
        let agent: Arc<str> = offer.agent_id.value.as_str().into();
        self.generation += 1;
        let lot = Lot {
            agent: agent.clone(),
            host: offer.hostname.as_str().into(),
            ledger: Ledger::default(),
            executor: None,
            version: 0,
            offers: Vec::new(),
            reserved: Vec::new(),
            generation: self.generation,
        };
        let slot = self.free.pop().unwrap_or_else(|| {
            self.lots.push(None);
            self.lots.len() - 1
        });
        self.past.remove(&agent);
        self.by_generation.insert(lot.generation, slot);
        self.by_host.entry(lot.host.clone()).or_default().push(slot);
        self.lots[slot] = Some(lot);
        self.by_agent.insert(agent, slot);
        slot
    }

    /// Makes a lot newer than all others: it may fit pods now that it did not fit before.
    fn renew(&mut self, slot: Slot) {
        self.generation += 1;
        let lot = self.lots[slot].as_mut().expect("the caller has the slot of a lot");
        self.by_generation.remove(&lot.generation);
        lot.generation = self.generation;
        self.by_generation.insert(lot.generation, slot);
    }

    /// Renews the lots of agents with this host name, whose node has changed; returns whether there are any.
    pub fn renew_host(&mut self, host: &str) -> bool {
        let slots = self.by_host.get(host).cloned().unwrap_or_default();
        slots.iter().for_each(|slot| self.renew(*slot));
        !slots.is_empty()
    }

    /// The highest generation so far.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The slots of all lots newer than a generation, oldest first.
    pub fn since(&self, generation: u64) -> impl Iterator<Item = Slot> {
        self.by_generation.range(generation + 1..).map(|(_, slot)| *slot)
    }

    /// The slots of lots newer than a generation, on agents with this host name.
    pub fn on_host(&self, host: &str, generation: u64) -> impl Iterator<Item = Slot> {
        let slots = self.by_host.get(host).into_iter().flatten().copied();
        slots.filter(move |slot| self.lots[*slot].as_ref().is_some_and(|lot| lot.generation > generation))
    }

    pub fn lot(&self, slot: Slot) -> Option<&Lot> {
        self.lots[slot].as_ref()
    }

    pub fn lot_mut(&mut self, slot: Slot) -> Option<&mut Lot> {
        self.lots[slot].as_mut()
    }

    /// Undoes draws from a lot since its last change.
    pub fn restore(&mut self, slot: Slot) {
        if let Some(lot) = self.lots[slot].as_mut() {
            // The reserved resources were there when the lot was held.
            let _ = lot.recount();
        }
    }

    /// Removes a lot, to accept its offers.
    ///
    /// # Panics
    /// If no lot is held there.
    pub fn take(&mut self, slot: Slot) -> Lot {
        let lot = self.lots[slot].take().expect("a lot is taken once");
        self.free.push(slot);
        self.by_agent.remove(&lot.agent);
        self.by_generation.remove(&lot.generation);
        if let Some(slots) = self.by_host.get_mut(&lot.host) {
            slots.retain(|it| *it != slot);
            if slots.is_empty() {
                self.by_host.remove(&lot.host);
            }
        }
        for offer in &lot.offers {
            self.by_offer.remove(&offer.id);
            self.expiries.remove(&(offer.expires, offer.id.clone()));
        }
        lot
    }

    /// Forgets an offer that Mesos has rescinded; returns whether it was held, and the offers that have become useless without it.
    pub fn rescind(&mut self, offer: &str) -> (bool, Vec<Box<str>>) {
        let Some(slot) = self.by_offer.remove(offer) else { return (false, Vec::new()) };
        let lot = self.lots[slot].as_mut().expect("the index points at lots");
        let at = lot.offers.iter().position(|it| &*it.id == offer).expect("the index is of the lot's offers");
        let held = lot.offers.swap_remove(at);
        self.expiries.remove(&(held.expires, held.id));
        if !lot.offers.is_empty() && lot.recount() {
            return (true, Vec::new());
        }
        let mut lot = self.take(slot);
        let useless = std::mem::take(&mut lot.offers);
        self.remember(lot);
        (true, useless.into_iter().map(|it| it.id).collect())
    }

    /// Keeps what is left of a lot that was taken, until its agent is offered again.
    pub fn remember(&mut self, lot: Lot) {
        self.past.insert(lot.agent.clone(), Lot { offers: Vec::new(), ..lot });
    }

    /// The last lot of each agent, held or not.
    pub fn known(&self) -> impl Iterator<Item = &Lot> {
        self.lots.iter().flatten().chain(self.past.values())
    }

    /// Forgets all offers of a lost agent, without declining them.
    pub fn lose_agent(&mut self, agent: &str) {
        self.forget_agent(agent);
    }

    /// Removes the offers of an agent, to be declined.
    pub fn forget_agent(&mut self, agent: &str) -> Option<Vec<Box<str>>> {
        self.past.remove(agent);
        let slot = *self.by_agent.get(agent)?;
        Some(self.take(slot).offers.into_iter().map(|it| it.id).collect())
    }

    /// Forgets all offers: the master that made them is gone.
    pub fn clear(&mut self) {
        *self = Self { generation: self.generation, ..Self::default() };
    }

    /// Removes expired offers, to be declined, with their agents' host names.
    pub fn expire(&mut self, now: Duration) -> Vec<(Box<str>, Arc<str>)> {
        let mut out = Vec::new();
        while let Some((at, id)) = self.expiries.first().cloned()
            && at <= now
        {
            let slot = self.by_offer[&id];
            let host = self.lots[slot].as_ref().expect("the index points at lots").host.clone();
            let (_, useless) = self.rescind(&id);
            out.push((id, host.clone()));
            out.extend(useless.into_iter().map(|id| (id, host.clone())));
        }
        out
    }

    /// When the next offer expires.
    pub fn next_expiry(&self) -> Option<Duration> {
        self.expiries.first().map(|(at, _)| *at)
    }

    /// The number of held lots.
    pub fn len(&self) -> usize {
        self.by_agent.len()
    }

    pub fn is_empty(&self) -> bool {
        self.by_agent.is_empty()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::limits::Milli;
    use super::super::resources::scalar;
    use super::*;

    pub(in crate::scheduler) fn offer(id: &str, agent: &str, cpu: Milli) -> Offer {
        let mut offer = Offer { hostname: format!("host-{agent}"), ..Offer::default() };
        offer.id.value = id.to_owned();
        offer.agent_id.value = agent.to_owned();
        offer.resources = vec![scalar("cpus", cpu), scalar("mem", 4_000_000), super::super::resources::tests::ports(&[(31_000, 31_999)])];
        offer
    }

    const TTL: Duration = Duration::from_secs(5);

    #[test]
    fn offers_of_an_agent_are_one_lot() {
        let mut book = Book::default();
        let slot = book.add(offer("o1", "a", 1000), None, TTL).unwrap();
        let seen = book.generation();
        assert_eq!(book.add(offer("o2", "a", 1000), None, TTL * 2), Ok(slot));
        assert_eq!(book.since(seen).collect::<Vec<_>>(), [slot], "a lot that grew is new again");
        assert_eq!(book.lot(slot).unwrap().offer_ids().collect::<Vec<_>>(), ["o1", "o2"]);
        assert_eq!(book.rescind("o1"), (true, Vec::new()));
        assert_eq!(book.rescind("o1"), (false, Vec::new()));
        assert_eq!(book.expire(TTL).len(), 0);
        assert_eq!(book.next_expiry(), Some(TTL * 2));
        assert_eq!(book.expire(TTL * 2), [("o2".into(), "host-a".into())]);
        assert!(book.is_empty() && book.next_expiry().is_none());
        assert_eq!(book.known().count(), 1, "what is left of it");
        book.add(offer("o3", "a", 1000), None, TTL).unwrap();
        assert_eq!(book.known().count(), 1);
        let lot = book.take(slot);
        book.remember(lot);
        assert_eq!(book.known().count(), 1);
        book.lose_agent("a");
        assert_eq!(book.known().count(), 0);
    }

    #[test]
    fn a_lot_too_small_for_its_executor_is_given_back() {
        let mut book = Book::default();
        let reserved = vec![scalar("cpus", 1500)];
        let executor = || Some((Arc::new(ExecutorInfo::default()), reserved.clone()));
        assert_eq!(book.add(offer("o1", "a", 1000), executor(), TTL), Err(vec!["o1".into()]));
        book.add(offer("o2", "a", 2000), executor(), TTL).unwrap();
        book.add(offer("o3", "a", 100), executor(), TTL).unwrap();
        assert_eq!(book.rescind("o2"), (true, vec!["o3".into()]));
        assert!(book.is_empty());
    }

    #[test]
    fn lost_agents_are_forgotten() {
        let mut book = Book::default();
        book.add(offer("o1", "a", 1000), None, TTL).unwrap();
        book.add(offer("o2", "b", 1000), None, TTL).unwrap();
        book.lose_agent("a");
        assert_eq!((book.len(), book.rescind("o1").0), (1, false));
        let seen = book.generation();
        assert!(book.renew_host("host-b") && !book.renew_host("host-a"));
        assert_eq!(
            (book.on_host("host-b", seen).count(), book.on_host("host-b", book.generation()).count(), book.on_host("host-a", 0).count()),
            (1, 0, 0)
        );
        book.clear();
        assert!(book.is_empty());
    }
}
