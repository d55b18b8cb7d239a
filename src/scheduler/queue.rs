//! Waiting pods, grouped by equal demand. A group without a fitting offer sleeps until there is an offer that it has not seen.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use super::demand::{Demand, PodFacts};
use super::placement::Unfit;
use super::storage::{Hold, Wanted};
use super::taskid;
use crate::object::{Name, Object};

/// The index of a group of pods with equal demands.
pub type GroupId = usize;

/// By descending priority, then first come, first served.
pub type Order = (Reverse<i32>, u64);

/// A pod that waits.
#[derive(Clone, Debug)]
pub struct Waiting {
    pub pod: Arc<Object>,
    pub name: Name,
    pub uid: Box<str>,
    pub owner: Option<Box<str>>,
    pub demand: Arc<Demand>,
    pub wanted: Wanted,
    /// When the pod was first queued.
    pub since: Duration,
    /// The number of failed launches.
    pub attempts: u32,
    order: Order,
    pub group: GroupId,
    /// Why the pod cannot be launched, regardless of offers.
    pub hold: Option<Hold>,
    /// The end of its back-off.
    not_before: Option<Duration>,
    /// When the next event about its waiting is due, and the number of past ones.
    tell_at: Duration,
    told: u32,
    /// The message in its condition in the API, if one was written.
    marked: Option<String>,
}

/// Pods with equal demands.
#[derive(Debug)]
pub struct Group {
    pub demand: Arc<Demand>,
    /// Lots up to this generation did not fit.
    pub tried: u64,
    /// Why no agent can fit, if that is known without checking each.
    pub barred: Option<Unfit>,
    ready: BTreeMap<Order, Name>,
    members: usize,
}

#[derive(Debug, Default)]
pub struct Queue {
    pods: HashMap<Name, Waiting>,
    groups: Vec<Option<Group>>,
    free: Vec<GroupId>,
    by_demand: HashMap<Arc<Demand>, GroupId>,
    by_task_stem: HashMap<taskid::Stem, Name>,
    delayed: BTreeSet<(Duration, Name)>,
    tell: BTreeSet<(Duration, Name)>,
    next: u64,
    ready: usize,
    /// Where the last round stopped: pods from here on have not had their turn.
    rest: Option<Order>,
    /// There are groups with ready pods that are new, or had none, since the last call of [`Queue::take_new_groups`].
    new_groups: bool,
    first_tell: Duration,
    longest_tell: Duration,
}

impl Queue {
    /// The first event about a waiting pod comes after `first_tell`, later ones less and less often, but at least every `longest_tell`.
    pub fn new(first_tell: Duration, longest_tell: Duration) -> Self {
        Self { first_tell, longest_tell, ..Self::default() }
    }

    /// Queues a pod, or updates a queued one, which keeps its place.
    pub fn put(&mut self, now: Duration, facts: PodFacts, pod: Arc<Object>) {
        if let Some(old) = self.pods.get_mut(&facts.name)
            && (&old.uid, old.order.0, &old.hold) == (&facts.uid, Reverse(facts.priority), &facts.hold)
            && *old.demand == facts.demand
        {
            // No relevant change: the group's results still hold.
            (old.pod, old.owner, old.wanted) = (pod, facts.owner, facts.wanted);
            return;
        }
        let mut old = self.remove(&facts.name).filter(|old| old.uid == facts.uid);
        let marked = old.as_mut().and_then(|it| it.marked.take());
        let (since, attempts, not_before, mut tell_at, mut told, seq) = match &old {
            Some(old) => (old.since, old.attempts, old.not_before, old.tell_at, old.told, old.order.1),
            None => {
                self.next += 1;
                (now, 0, None, now + self.first_tell, 0, self.next)
            }
        };
        if old.as_ref().is_some_and(|it| it.hold != facts.hold) {
            (tell_at, told) = (now + self.first_tell, 0);
        }
        let demand = match old {
            Some(old) if *old.demand == facts.demand => old.demand,
            _ => Arc::new(facts.demand),
        };
        let order = (Reverse(facts.priority), seq);
        let PodFacts { name, uid, owner, wanted, hold, .. } = facts;
        let group = 0;
        self.insert(Waiting {
            pod,
            name,
            uid,
            owner,
            demand,
            wanted,
            since,
            attempts,
            order,
            group,
            hold,
            not_before,
            tell_at,
            told,
            marked,
        });
    }

    /// Requeues a pod after a failed launch.
    pub fn requeue(&mut self, now: Duration, facts: PodFacts, pod: Arc<Object>, attempts: u32, delay: Duration) {
        let name = facts.name.clone();
        self.put(now, facts, pod);
        let mut waiting = self.remove(&name).expect("it was just put");
        (waiting.attempts, waiting.not_before) = (attempts, Some(now + delay));
        self.insert(waiting);
    }

    fn insert(&mut self, mut waiting: Waiting) {
        let id = match self.by_demand.get(&waiting.demand) {
            Some(id) => *id,
            None => self.open(waiting.demand.clone()),
        };
        waiting.group = id;
        let group = self.groups[id].as_mut().expect("the index points at groups");
        waiting.demand = group.demand.clone();
        group.members += 1;
        match waiting.not_before {
            _ if waiting.hold.is_some() => {}
            Some(at) => {
                self.delayed.insert((at, waiting.name.clone()));
            }
            None => {
                self.new_groups |= group.ready.is_empty();
                group.ready.insert(waiting.order, waiting.name.clone());
                self.ready += 1;
            }
        }
        self.tell.insert((waiting.tell_at, waiting.name.clone()));
        self.by_task_stem.insert(taskid::stem(&waiting.uid), waiting.name.clone());
        self.pods.insert(waiting.name.clone(), waiting);
    }

    fn open(&mut self, demand: Arc<Demand>) -> GroupId {
        let group = Group { demand: demand.clone(), tried: 0, barred: None, ready: BTreeMap::new(), members: 0 };
        let id = self.free.pop().unwrap_or_else(|| {
            self.groups.push(None);
            self.groups.len() - 1
        });
        self.groups[id] = Some(group);
        self.by_demand.insert(demand, id);
        id
    }

    /// Removes a pod that was launched or is gone.
    pub fn remove(&mut self, name: &Name) -> Option<Waiting> {
        let waiting = self.pods.remove(name)?;
        self.by_task_stem.remove(&taskid::stem(&waiting.uid));
        self.tell.remove(&(waiting.tell_at, name.clone()));
        if let Some(at) = waiting.not_before {
            self.delayed.remove(&(at, name.clone()));
        }
        let group = self.groups[waiting.group].as_mut().expect("a pod's group lasts as long as the pod");
        if group.ready.remove(&waiting.order).is_some() {
            self.ready -= 1;
        }
        group.members -= 1;
        if group.members == 0 {
            self.by_demand.remove(&waiting.demand);
            self.groups[waiting.group] = None;
            self.free.push(waiting.group);
        }
        Some(waiting)
    }

    /// Ends the back-off of due pods.
    pub fn release(&mut self, now: Duration) {
        while let Some((at, _)) = self.delayed.first()
            && *at <= now
        {
            let (_, name) = self.delayed.pop_first().expect("seen above");
            let waiting = self.pods.get_mut(&name).expect("delayed pods are queued");
            waiting.not_before = None;
            let group = self.groups[waiting.group].as_mut().expect("a pod's group lasts as long as the pod");
            group.ready.insert(waiting.order, name);
            self.ready += 1;
        }
    }

    /// The groups whose turn it is, each with the order of its first pod: all, or those behind the point where the last round stopped and those
    /// that have checked no offer yet.
    pub fn take_turns(&mut self) -> Vec<(Order, GroupId)> {
        let Some(from) = self.rest.take() else { return self.heads().collect() };
        let is_new = |id: GroupId| self.group(id).is_some_and(|it| it.tried == 0);
        self.heads().filter(|(order, id)| *order >= from || is_new(*id)).collect()
    }

    /// Stops a round before this pod; the next one begins with it.
    pub fn stop_at(&mut self, order: Option<Order>) {
        self.rest = order;
    }

    /// Whether the last round stopped before all pods had their turn.
    pub fn is_behind(&self) -> bool {
        self.rest.is_some()
    }

    /// The groups with ready pods, each with the order of its first pod.
    pub fn heads(&self) -> impl Iterator<Item = (Order, GroupId)> {
        let head = |(id, group): (GroupId, &Option<Group>)| Some((*group.as_ref()?.ready.first_key_value()?.0, id));
        self.groups.iter().enumerate().filter_map(head)
    }

    /// The order of the group's next pod after this one.
    pub fn after(&self, id: GroupId, order: Order) -> Option<Order> {
        Some(*self.group(id)?.ready.range((Bound::Excluded(order), Bound::Unbounded)).next()?.0)
    }

    pub fn group(&self, id: GroupId) -> Option<&Group> {
        self.groups.get(id)?.as_ref()
    }

    pub fn group_mut(&mut self, id: GroupId) -> Option<&mut Group> {
        self.groups.get_mut(id)?.as_mut()
    }

    /// The pod at this order.
    pub fn at(&self, id: GroupId, order: Order) -> Option<&Waiting> {
        self.group(id)?.ready.get(&order).map(|name| &self.pods[name])
    }

    /// Pods with a due event about their waiting, at most `limit`.
    pub fn untold(&mut self, now: Duration, limit: usize) -> Vec<Name> {
        let mut due = Vec::new();
        while due.len() < limit
            && let Some((at, _)) = self.tell.first()
            && *at <= now
        {
            let (_, name) = self.tell.pop_first().expect("seen above");
            let waiting = self.pods.get_mut(&name).expect("pods to tell about are queued");
            waiting.told += 1;
            waiting.tell_at = now + self.first_tell.saturating_mul(1 << waiting.told.min(20)).min(self.longest_tell);
            self.tell.insert((waiting.tell_at, name.clone()));
            due.push(name);
        }
        due
    }

    /// Records the message for a pod's condition; returns whether it is new.
    pub fn mark(&mut self, name: &Name, message: &str) -> bool {
        let Some(waiting) = self.pods.get_mut(name).filter(|it| it.marked.as_deref() != Some(message)) else { return false };
        waiting.marked = Some(message.to_owned());
        true
    }

    /// Makes the pod's group check all offers again.
    pub fn try_again(&mut self, name: &Name) {
        let Some(id) = self.pods.get(name).map(|it| it.group) else { return };
        if let Some(group) = self.group_mut(id) {
            group.tried = 0;
        }
    }

    /// Makes all groups check all offers again.
    pub fn forget_tried(&mut self) {
        for group in self.groups.iter_mut().flatten() {
            group.tried = 0;
        }
    }

    /// Whether there are demands with ready pods that had none at the last call.
    pub fn take_new_groups(&mut self) -> bool {
        std::mem::take(&mut self.new_groups)
    }

    pub fn get(&self, name: &Name) -> Option<&Waiting> {
        self.pods.get(name)
    }

    /// The waiting pod of a task that an earlier run launched.
    pub fn of_task(&self, task: &str) -> Option<&Waiting> {
        self.by_task_stem.get(&taskid::stem_of(task)?).map(|name| &self.pods[name])
    }

    /// The waiting pods, in no order, each with the end of its back-off.
    pub fn iter(&self) -> impl Iterator<Item = (&Waiting, Option<Duration>)> {
        self.pods.values().map(|it| (it, it.not_before))
    }

    /// The number of ready pods.
    pub fn ready(&self) -> usize {
        self.ready
    }

    pub fn len(&self) -> usize {
        self.pods.len()
    }

    pub fn is_empty(&self) -> bool {
        self.pods.is_empty()
    }

    /// When the next back-off ends.
    pub fn next_release(&self) -> Option<Duration> {
        self.delayed.first().map(|(at, _)| *at)
    }

    /// When the next event about a waiting pod is due.
    pub fn next_tell(&self) -> Option<Duration> {
        self.tell.first().map(|(at, _)| *at)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::demand::tests::{object, rules};
    use super::*;

    const S: Duration = Duration::from_secs(1);

    fn put(queue: &mut Queue, now: Duration, name: &str, cpu: &str, priority: i32) {
        let pod = object(&json!({"metadata": {"name": name, "namespace": "n", "uid": name}, "spec": {"priority": priority,
            "containers": [{"name": "c", "resources": {"limits": {"cpu": cpu}}}]}}));
        queue.put(now, PodFacts::read(&pod, &rules()).unwrap(), pod);
    }

    fn name(it: &str) -> Name {
        Name::new("n", it)
    }

    #[test]
    fn alike_pods_share_a_group_in_order() {
        let mut queue = Queue::new(S, S * 60);
        put(&mut queue, S, "a", "1", 0);
        put(&mut queue, S, "b", "1", 5);
        put(&mut queue, S, "c", "2", 0);
        let mut heads: Vec<_> = queue.heads().collect();
        heads.sort_unstable();
        assert_eq!(heads.iter().map(|(order, id)| &*queue.at(*id, *order).unwrap().name.name).collect::<Vec<_>>(), ["b", "c"]);
        assert!(queue.take_new_groups() && !queue.take_new_groups());
        put(&mut queue, S * 2, "a", "1", 0);
        assert!(!queue.take_new_groups());
        assert_eq!(queue.get(&name("a")).unwrap().since, S, "an update keeps the place");
        put(&mut queue, S * 2, "a", "2", 0);
        assert_eq!((queue.ready(), queue.len()), (3, 3));
        for pod in ["a", "b", "c"] {
            queue.remove(&name(pod)).unwrap();
        }
        assert_eq!((queue.heads().count(), queue.ready(), queue.next_tell()), (0, 0, None));
    }

    #[test]
    fn a_new_state_of_a_pod_is_no_news_to_its_group() {
        let mut queue = Queue::new(S, S * 60);
        put(&mut queue, S, "a", "1", 0);
        assert!(queue.take_new_groups());
        let (_, id) = queue.heads().next().unwrap();
        queue.group_mut(id).unwrap().tried = 7;
        put(&mut queue, S * 2, "a", "1", 0);
        assert_eq!((queue.group(id).map(|it| it.tried), queue.take_new_groups()), (Some(7), false));
    }

    #[test]
    fn pods_that_are_held_back_are_news_when_they_are_not() {
        let mut queue = Queue::new(S, S * 60);
        let gates =
            |gates: Value| object(&json!({"metadata": {"name": "a", "namespace": "n", "uid": "a"}, "spec": {"schedulingGates": gates}}));
        let held = gates(json!([{"name": "later"}]));
        queue.put(S, PodFacts::read(&held, &rules()).unwrap(), held);
        assert_eq!((queue.ready(), queue.len(), queue.take_new_groups(), queue.next_release()), (0, 1, false, None));
        let free = gates(json!([]));
        queue.put(S * 9, PodFacts::read(&free, &rules()).unwrap(), free);
        assert_eq!((queue.ready(), queue.take_new_groups(), queue.next_tell()), (1, true, Some(S * 10)));
    }

    #[test]
    fn back_off_and_notices() {
        let mut queue = Queue::new(S, S * 4);
        put(&mut queue, S, "a", "1", 0);
        let waiting = queue.remove(&name("a")).unwrap();
        let facts = PodFacts::read(&waiting.pod, &rules()).unwrap();
        queue.requeue(S * 2, facts, waiting.pod, 1, S);
        assert_eq!((queue.ready(), queue.get(&name("a")).unwrap().attempts), (0, 1));
        queue.release(S * 3);
        assert_eq!(queue.ready(), 1);
        assert_eq!(queue.untold(S * 2, 9).len(), 0);
        let mut told = Vec::new();
        for second in 0..20 {
            if !queue.untold(S * second, 9).is_empty() {
                told.push(second);
            }
        }
        assert_eq!(told, [3, 5, 9, 13, 17]);
    }

    #[test]
    fn tasks_lead_to_their_pods() {
        let mut queue = Queue::new(S, S);
        put(&mut queue, S, "a", "1", 0);
        assert_eq!(&*queue.of_task(&taskid::task_id("a", 7)).unwrap().name.name, "a");
        assert!(queue.of_task(&taskid::task_id("b", 7)).is_none() && queue.of_task("x").is_none());
    }
}
