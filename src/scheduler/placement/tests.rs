//! Placement of pods on offers, and the resulting tasks.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::super::demand::{
    PodFacts,
    tests::{object, rules},
};
use super::super::offers::tests::offer;
use super::super::resources::tests::ports;
use super::*;

const NOW: Duration = Duration::ZERO;

struct World {
    queue: Queue,
    book: Book,
    spread: Spread,
    storage: Storage,
    nodes: HashMap<String, NodeFacts>,
    roles: Vec<Box<str>>,
    cost: ExecutorCost,
}

struct Around<'a>(&'a HashMap<String, NodeFacts>, &'a [Box<str>], ExecutorCost);

impl Surroundings for Around<'_> {
    fn node(&self, host: &str) -> Option<&NodeFacts> {
        self.0.get(host)
    }

    fn executor_cost(&self) -> ExecutorCost {
        self.2
    }

    fn framework_roles(&self) -> &[Box<str>] {
        self.1
    }

    fn executor(&self, _host: &str, resources: Vec<Resource>) -> ExecutorInfo {
        ExecutorInfo { resources, ..ExecutorInfo::default() }
    }
}

impl World {
    fn new(agents: &[(&str, u64)]) -> Self {
        let mut world = Self {
            queue: Queue::default(),
            book: Book::default(),
            spread: Spread::default(),
            storage: Storage::new(Duration::from_secs(600)),
            nodes: HashMap::new(),
            roles: rules().framework_roles,
            cost: ExecutorCost::default(),
        };
        for (agent, cpu) in agents {
            world.offer(agent, *cpu);
        }
        world
    }

    fn offer(&mut self, agent: &str, cpu: u64) {
        let mut offer = offer(&format!("o-{agent}-{}", self.book.generation()), agent, cpu);
        offer.resources.push(ports(&[(80, 80)]));
        let facts = NodeFacts { name: offer.hostname.as_str().into(), ..NodeFacts::default() };
        self.nodes.entry(offer.hostname.clone()).or_insert(facts);
        self.book.add(offer, None, NOW).unwrap();
    }

    fn pod(&mut self, name: &str, spec: &Value) {
        let owner = spec.get("owner").map(|uid| json!([{"uid": uid, "controller": true}]));
        let pod = object(&json!({"metadata": {"name": name, "namespace": "n", "uid": name, "ownerReferences": owner}, "spec": spec}));
        self.queue.put(NOW, PodFacts::read(&pod, &rules()).unwrap(), pod);
    }

    /// `pod@agent` of all placements, ordered by pod.
    fn round(&mut self) -> Vec<String> {
        self.round_of(WORK)
    }

    /// A round of this many checks.
    fn round_of(&mut self, work: usize) -> Vec<String> {
        let around = &Around(&self.nodes, &self.roles, self.cost);
        let (book, spread, storage) = (&mut self.book, &mut self.spread, &mut self.storage);
        let launches = Round { book, spread, storage, around, promises: Vec::new(), checks: 0 }.run(NOW, &mut self.queue, work);
        let mut placed = Vec::new();
        for (slot, pods) in launches {
            let lot = self.book.take(slot);
            placed.extend(pods.iter().map(|pod| format!("{}@{}", pod.waiting.name.name, lot.agent)));
            self.book.remember(lot);
        }
        placed.sort_unstable();
        placed
    }

    fn explain(&self, pod: &str) -> String {
        let waiting = self.queue.get(&crate::object::Name::new("n", pod)).unwrap();
        let around = Around(&self.nodes, &self.roles, self.cost);
        explain(self.queue.group(waiting.group).unwrap(), &self.book, &self.storage, &around)
    }
}

fn cpu(amount: &str) -> Value {
    json!({"containers": [{"name": "c", "resources": {"limits": {"cpu": amount}}}]})
}

#[test]
fn pods_of_an_owner_are_spread_and_others_go_where_there_is_room() {
    let mut world = World::new(&[("a", 4000), ("b", 2000), ("c", 1000)]);
    let mut replica = cpu("1");
    replica["owner"] = "rs".into();
    for name in ["1", "2", "3", "4"] {
        world.pod(name, &replica);
    }
    assert_eq!(world.round(), ["1@a", "2@b", "3@c", "4@a"]);
    let mut world = World::new(&[("a", 4000), ("b", 2000)]);
    for name in ["1", "2", "3", "4"] {
        world.pod(name, &cpu("1"));
    }
    assert_eq!(world.round(), ["1@a", "2@a", "3@a", "4@b"]);
}

#[test]
fn many_pods_share_one_agents_offers_and_one_executor() {
    let mut world = World::new(&[("a", 1000)]);
    world.cost = ExecutorCost { cpu: 250, mem: 128_000 };
    for name in ["1", "2", "3", "4"] {
        world.pod(name, &cpu("250m"));
    }
    world.offer("a", 100);
    let around = Around(&world.nodes, &world.roles, world.cost);
    let launches = round(NOW, &mut world.queue, &mut world.book, &mut world.spread, &mut world.storage, &around);
    let pods = launches.into_values().next().unwrap();
    assert_eq!(pods.len(), 3);
    assert!(pods.iter().all(|pod| Arc::ptr_eq(&pod.executor, &pods[0].executor)));
    assert_eq!(pods[0].executor.resources.len(), 2);
    let waiting = world.queue.iter().next().unwrap().0.name.name.to_string();
    let why = "no suitable offers for pod/task: 0/1 agents are suitable: 1 insufficient cpus";
    assert_eq!(world.explain(&waiting), why);
}

#[test]
fn groups_that_found_nothing_look_only_at_what_is_new() {
    let mut world = World::new(&[("a", 1000)]);
    world.pod("big", &cpu("2"));
    world.pod("small", &cpu("1"));
    assert_eq!(world.round(), ["small@a"]);
    let (_, id) = world.queue.heads().next().unwrap();
    let tried = world.queue.group(id).unwrap().tried;
    assert_eq!(world.book.since(tried).count(), 0);
    world.offer("b", 3000);
    assert_eq!(world.book.since(tried).count(), 1);
    assert_eq!(world.round(), ["big@b"]);
}

#[test]
fn constraints_priorities_and_ports() {
    let mut world = World::new(&[("a", 1000), ("b", 1000), ("c", 1000)]);
    world.nodes.get_mut("host-b").unwrap().labels = vec![("disk".into(), "ssd".into())];
    world.nodes.get_mut("host-c").unwrap().unschedulable = true;
    let mut selecting = cpu("1");
    selecting["nodeSelector"] = json!({"disk": "ssd"});
    world.pod("late", &selecting);
    selecting["priority"] = 7.into();
    world.pod("urgent", &selecting);
    let mut named = cpu("500m");
    named["nodeName"] = "host-a".into();
    named["containers"][0]["ports"] = json!([{"containerPort": 80, "hostPort": 80}]);
    world.pod("named", &named);
    world.pod("same-port", &named);
    assert_eq!(world.round(), ["named@a", "urgent@b"]);
    let why = |name: &str| world.explain(name);
    assert!(why("late").contains("1 insufficient cpus") && why("late").contains("node selector does not match"), "{}", why("late"));
    assert!(why("same-port").contains("1 host port not offered"), "{}", why("same-port"));
}

#[test]
fn a_full_cluster_takes_all_that_fits_and_nothing_twice() {
    let mut world = World::new(&[]);
    for agent in 0..200 {
        world.offer(&agent.to_string(), 2000);
    }
    for pod in 0..1000 {
        let mut spec = cpu(["250m", "500m", "1"][pod % 3]);
        spec["owner"] = format!("rs-{}", pod % 7).into();
        world.pod(&pod.to_string(), &spec);
    }
    let started = Instant::now();
    let placed = world.round();
    tracing::info!("placed {} in {:?}", placed.len(), started.elapsed());
    let unique: HashSet<&str> = placed.iter().map(|it| it.split('@').next().unwrap()).collect();
    assert_eq!(unique.len(), placed.len());
    assert_eq!(placed.len() + world.queue.len(), 1000);
    assert!(placed.len() >= 650, "{}", placed.len());
}

#[test]
fn a_long_round_is_done_in_parts_and_priority_comes_first() {
    let mut world = World::new(&[]);
    for agent in 0..20 {
        world.offer(&agent.to_string(), 4000);
    }
    for pod in 0..60 {
        let mut spec = cpu(&format!("{}m", 100 + pod % 30));
        spec["priority"] = (pod / 30 * 10).into();
        world.pod(&pod.to_string(), &spec);
    }
    let (mut placed, mut rounds) = (Vec::new(), 0);
    while !world.queue.is_empty() {
        let now = world.round_of(100);
        assert!(!now.is_empty() && world.queue.is_behind() != world.queue.is_empty());
        let is_urgent = |it: &String| it.split('@').next().unwrap().parse::<u32>().unwrap() >= 30;
        let urgent_wait = (30..60).any(|it| world.queue.get(&Name::new("n", &it.to_string())).is_some());
        assert!(!urgent_wait || now.iter().all(is_urgent), "{now:?}");
        placed.extend(now);
        rounds += 1;
        // What is left of the agents is offered again.
        (0..20).for_each(|agent| {
            if world.book.lot(agent).is_none() {
                world.offer(&agent.to_string(), 4000)
            }
        });
    }
    assert!(rounds > 5, "{rounds}");
    assert_eq!(placed.iter().map(|it| it.split('@').next().unwrap()).collect::<HashSet<_>>().len(), 60);
}

/// However many new offers there are for those that come first.
#[test]
fn each_pod_gets_its_turn() {
    let mut world = World::new(&[]);
    for pod in 0..50 {
        world.pod(&format!("big-{pod}"), &cpu(&(100 + pod).to_string()));
    }
    world.pod("last", &cpu("1"));
    let mut rounds = 0;
    loop {
        if rounds == 3 {
            // Who comes later, but is more urgent, does not wait for all the others.
            let mut urgent = cpu("1");
            urgent["priority"] = 1.into();
            world.pod("urgent", &urgent);
        }
        (0..10).for_each(|agent| world.offer(&format!("{rounds}-{agent}"), 4000));
        rounds += 1;
        let placed = world.round_of(20);
        assert_eq!(placed.iter().any(|it| it.starts_with("urgent@")), rounds == 4);
        if placed.iter().any(|it| it.starts_with("last@")) {
            break;
        }
        assert!(rounds < 60);
    }
    assert!(world.explain("big-0").ends_with("insufficient cpus"));
}
