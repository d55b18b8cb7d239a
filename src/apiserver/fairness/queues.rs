//! The choice of the next request when there are more requests than seats: the pure part of priority and fairness.
//!
//! A free seat goes to the flow with the fewest seats and, among those, to the one whose last seat was longest ago: however many requests
//! one flow sends, the others get as many seats as soon as they ask. The number of waiting requests is bounded; beyond the bound, the flow
//! with the most waiting requests loses its newest.

use std::collections::{HashMap, VecDeque};

/// Identifies a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Flow(pub(crate) u64);

/// A request that waits.
pub(crate) type Ticket = u64;

/// The outcome of an arriving request.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Arrival<T> {
    Seated,
    /// It waits; if there was no room, another request has lost its place.
    Queued(Ticket, Option<T>),
    Refused,
}

/// Seats, and the queues of waiting requests.
#[derive(Debug)]
pub(crate) struct Queues<T> {
    seats: usize,
    room: usize,
    seated: usize,
    waiting: usize,
    flows: HashMap<Flow, State<T>>,
    /// Counts tickets and seatings.
    clock: u64,
}

#[derive(Debug)]
struct State<T> {
    seated: usize,
    queue: VecDeque<(Ticket, T)>,
    /// When it was last given a seat; when it came, before that.
    since: u64,
}

impl<T> Queues<T> {
    /// With this many seats, and room for this many waiting requests.
    pub(crate) fn new(seats: usize, room: usize) -> Self {
        Self { seats, room, seated: 0, waiting: 0, flows: HashMap::new(), clock: 0 }
    }

    /// A request that `waiter` stands for, if it has to wait.
    pub(crate) fn arrive(&mut self, flow: Flow, waiter: impl FnOnce() -> T) -> Arrival<T> {
        self.clock += 1;
        if self.seated < self.seats {
            self.seat(flow);
            return Arrival::Seated;
        }
        let mut displaced = None;
        if self.waiting >= self.room {
            let own = self.flows.get(&flow).map_or(0, |it| it.queue.len());
            let longest = self.flows.iter_mut().max_by_key(|(flow, it)| (it.queue.len(), **flow));
            match longest.filter(|(_, it)| it.queue.len() > own + 1).and_then(|(_, it)| it.queue.pop_back()) {
                Some((_, waiter)) => displaced = Some(waiter),
                None => return Arrival::Refused,
            }
            self.waiting -= 1;
        }
        self.waiting += 1;
        let fresh = State { seated: 0, queue: VecDeque::new(), since: self.clock };
        self.flows.entry(flow).or_insert(fresh).queue.push_back((self.clock, waiter()));
        Arrival::Queued(self.clock, displaced)
    }

    /// Ends a seated request of this flow; returns the next request for its seat.
    pub(crate) fn leave(&mut self, flow: Flow) -> Option<(Flow, T)> {
        self.seated -= 1;
        if let Some(state) = self.flows.get_mut(&flow) {
            state.seated -= 1;
        }
        self.forget(flow);
        let waiting = self.flows.iter_mut().filter(|(_, it)| !it.queue.is_empty());
        let (next, state) = waiting.min_by_key(|(flow, it)| (it.seated, it.since, **flow))?;
        let (next, waiter) = (*next, state.queue.pop_front()?.1);
        self.waiting -= 1;
        self.clock += 1;
        self.seat(next);
        Some((next, waiter))
    }

    /// A request waits no longer. False if it was given a seat, or displaced, before.
    pub(crate) fn give_up(&mut self, flow: Flow, ticket: Ticket) -> bool {
        let Some(state) = self.flows.get_mut(&flow) else { return false };
        let Ok(at) = state.queue.binary_search_by_key(&ticket, |(it, _)| *it) else { return false };
        state.queue.remove(at);
        self.waiting -= 1;
        self.forget(flow);
        true
    }

    /// How many have a seat, and how many wait.
    pub(crate) fn counts(&self) -> (usize, usize) {
        (self.seated, self.waiting)
    }

    fn seat(&mut self, flow: Flow) {
        self.seated += 1;
        let state = self.flows.entry(flow).or_insert(State { seated: 0, queue: VecDeque::new(), since: 0 });
        state.seated += 1;
        state.since = self.clock;
    }

    /// Removes a flow without requests.
    fn forget(&mut self, flow: Flow) {
        if self.flows.get(&flow).is_some_and(|it| it.seated == 0 && it.queue.is_empty()) {
            self.flows.remove(&flow);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::hash_map::Entry;

    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        Arrive(u64),
        /// The seated request that came first, counted from here.
        Leave(usize),
        GiveUp(usize),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        // Flow 0 is the noisy one.
        let step = prop_oneof![
            4 => Just(Step::Arrive(0)),
            3 => (1u64..5).prop_map(Step::Arrive),
            4 => any::<usize>().prop_map(Step::Leave),
            1 => any::<usize>().prop_map(Step::GiveUp),
        ];
        prop::collection::vec(step, 0..200)
    }

    proptest! {
        /// Throughout: never more requests seated than seats, none waits while a seat is free, waiting is bounded, every request ends in
        /// exactly one way, and a seat never goes to a flow with more seats than another waiting one.
        #[test]
        fn seats_are_shared(seats in 1usize..6, room in 0usize..8, steps in steps()) {
            let mut queues = Queues::new(seats, room);
            let (mut seated, mut waiting): (Vec<(Flow, u64)>, Vec<(Flow, Ticket, u64)>) = Default::default();
            for (id, step) in (0u64..).zip(steps) {
                match step {
                    Step::Arrive(flow) => {
                        let flow = Flow(flow);
                        let waits = |flow: Flow, waiting: &[(Flow, Ticket, u64)]| waiting.iter().filter(|it| it.0 == flow).count();
                        match queues.arrive(flow, || id) {
                            Arrival::Seated => seated.push((flow, id)),
                            Arrival::Queued(ticket, displaced) => {
                                if let Some(lost) = displaced {
                                    let at = waiting.iter().position(|it| it.2 == lost).expect("it waited");
                                    prop_assert!(waits(waiting[at].0, &waiting) > waits(flow, &waiting) + 1);
                                    waiting.remove(at);
                                }
                                waiting.push((flow, ticket, id));
                            }
                            Arrival::Refused => {
                                prop_assert!(seated.len() == seats && waiting.len() == room);
                                // No waiting flow has more waiting requests than this flow would have.
                                prop_assert!(waiting.iter().all(|it| waits(it.0, &waiting) <= waits(flow, &waiting) + 1));
                            }
                        }
                    }
                    Step::Leave(at) if !seated.is_empty() => {
                        let (flow, _) = seated.remove(at % seated.len());
                        let holds = |flow: Flow, seated: &[(Flow, u64)]| seated.iter().filter(|it| it.0 == flow).count();
                        if let Some((flow, next)) = queues.leave(flow) {
                            let at = waiting.iter().position(|it| it.2 == next).expect("it waited");
                            prop_assert_eq!(waiting[at].0, flow);
                            prop_assert!(waiting.iter().all(|it| holds(flow, &seated) <= holds(it.0, &seated)));
                            // Within a flow, first come, first served.
                            prop_assert!(waiting.iter().all(|it| it.0 != flow || it.1 >= waiting[at].1));
                            waiting.remove(at);
                            seated.push((flow, next));
                        } else {
                            prop_assert!(waiting.is_empty());
                        }
                    }
                    Step::GiveUp(at) if !waiting.is_empty() => {
                        let (flow, ticket, _) = waiting.remove(at % waiting.len());
                        prop_assert!(queues.give_up(flow, ticket));
                        prop_assert!(!queues.give_up(flow, ticket));
                    }
                    _ => {}
                }
                prop_assert_eq!(queues.counts(), (seated.len(), waiting.len()));
                prop_assert!(seated.len() <= seats && waiting.len() <= room);
                prop_assert!(waiting.is_empty() || seated.len() == seats);
                let known: std::collections::HashSet<Flow> = seated.iter().map(|it| it.0).chain(waiting.iter().map(|it| it.0)).collect();
                prop_assert_eq!(queues.flows.len(), known.len());
            }
        }

        /// One flow always has more requests, the others send one after another: none waits longer than one round of the others.
        #[test]
        fn nobody_starves(seats in 1usize..8, quiet in 1u64..6, leaves in prop::collection::vec(any::<usize>(), 50..300)) {
            let mut queues = Queues::new(seats, 64);
            let mut seated = Vec::new();
            let mut passed: HashMap<Flow, usize> = HashMap::new();
            let (noisy, noise) = (Flow(0), seats + 32);
            for _ in 0..noise {
                if queues.arrive(noisy, || ()) == Arrival::Seated {
                    seated.push(noisy);
                }
            }
            for leave in leaves {
                for flow in (1..=quiet).map(Flow).filter(|it| !seated.contains(it)).collect::<Vec<_>>() {
                    if let Entry::Vacant(new) = passed.entry(flow) {
                        prop_assert!(matches!(queues.arrive(flow, || ()), Arrival::Queued(..)));
                        new.insert(0);
                    }
                }
                queues.arrive(noisy, || ());
                let left = seated.swap_remove(leave % seated.len());
                let (next, ()) = queues.leave(left).expect("somebody waits");
                seated.push(next);
                passed.remove(&next);
                for (flow, passed) in &mut passed {
                    *passed += 1;
                    prop_assert!(*passed <= quiet as usize, "{flow:?} was passed over {passed} times");
                }
            }
        }
    }
}
