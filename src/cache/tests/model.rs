//! Random changes, queries, watches and relists, compared with a list of all states.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::json;

use super::*;

#[derive(Clone, Debug)]
enum Action {
    Put {
        namespace: usize,
        name: usize,
        app: usize,
        node: usize,
    },
    Delete {
        namespace: usize,
        name: usize,
    },
    /// Several changes at one revision.
    Both(Box<[Action; 2]>),
    Progress,
    /// A relist that shows only the outcome of these changes.
    Relist(Vec<Action>),
    Watch {
        query: usize,
        back: u64,
    },
    /// A watcher reads at most this many events.
    Read {
        watcher: usize,
        events: usize,
    },
    List {
        query: usize,
        back: u64,
        start: usize,
        limit: usize,
    },
}

fn change() -> impl Strategy<Value = Action> {
    prop_oneof![
        3 => (0..2usize, 0..4usize, 0..2usize, 0..3usize).prop_map(|(namespace, name, app, node)| Action::Put { namespace, name, app, node }),
        1 => (0..2usize, 0..4usize).prop_map(|(namespace, name)| Action::Delete { namespace, name }),
    ]
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        8 => change(),
        1 => (change(), change()).prop_map(|(a, b)| Action::Both(Box::new([a, b]))),
        1 => Just(Action::Progress),
        1 => prop::collection::vec(change(), 0..5).prop_map(Action::Relist),
        2 => (0..QUERIES, 0..12u64).prop_map(|(query, back)| Action::Watch { query, back }),
        4 => (0..8usize, 1..6usize).prop_map(|(watcher, events)| Action::Read { watcher, events }),
        3 => (0..QUERIES, 0..12u64, 0..5usize, 1..6usize).prop_map(|(query, back, start, limit)| Action::List { query, back, start, limit }),
    ]
}

const QUERIES: usize = 9;

fn query(at: usize) -> Query {
    let labels = |text| Query { labels: LabelSelector::parse(text).unwrap(), ..Query::default() };
    match at {
        0 => Query::default(),
        1 => Query::namespace("b"),
        2 => labels("app=web"),
        3 => labels("app notin (web)"),
        4 => Query::field("spec.nodeName", "n1"),
        5 => Query { namespace: Some("a".to_owned()), ..Query::field("spec.nodeName", "") },
        6 => Query::field("metadata.name", "x1"),
        7 => Query { namespace: Some("a".to_owned()), ..Query::field("metadata.name", "x1") },
        _ => Query { fields: FieldSelector::parse(&resource::POD, "metadata.namespace=a,spec.nodeName!=n1").unwrap(), ..labels("app=db") },
    }
}

type State = BTreeMap<Name, Arc<Object>>;

fn matching(state: &State, query: &Query) -> Vec<(String, Revision)> {
    state.values().filter(|it| query.matches(it)).map(|it| (it.meta().name.to_string(), it.revision())).collect()
}

fn shown(objects: &[Arc<Object>]) -> Vec<(String, Revision)> {
    objects.iter().map(|it| (it.meta().name.to_string(), it.revision())).collect()
}

/// A watcher, with the sum of its events.
struct Watcher {
    watch: Watch,
    query: Query,
    state: BTreeMap<String, Revision>,
    relisted: bool,
}

struct Model {
    cache: Arc<Cache>,
    /// The objects at each revision.
    states: BTreeMap<Revision, State>,
    /// The cache does not know every state before this revision.
    relisted: Revision,
    revision: Revision,
    watchers: Vec<Watcher>,
}

impl Model {
    fn now(&self) -> &State {
        &self.states[&self.revision]
    }

    fn at(&self, revision: Revision) -> &State {
        self.states.range(..=revision).next_back().unwrap().1
    }

    /// The changes as a feeder reports them.
    fn changes(&mut self, actions: &[Action]) -> Vec<Change> {
        self.revision += 1;
        let mut state = self.at(self.revision).clone();
        let mut changes = Vec::new();
        for action in actions {
            match action {
                Action::Put { namespace, name, app, node } => {
                    let (namespace, name) = (["a", "b"][*namespace], format!("x{name}"));
                    let object = pod(namespace, &name, ["web", "db"][*app], ["", "n1", "n2"][*node], "o", self.revision);
                    state.insert(object.meta().name.clone(), object.clone());
                    changes.push(put(object));
                }
                Action::Delete { namespace, name } => {
                    let name = Name::new(["a", "b"][*namespace], &format!("x{name}"));
                    if state.remove(&name).is_some() {
                        changes.push(delete(&name.namespace, &name.name, self.revision));
                    }
                }
                _ => unreachable!("not a change"),
            }
        }
        self.states.insert(self.revision, state);
        changes
    }

    fn read(&mut self, at: usize, events: usize) {
        let Some(watcher) = self.watchers.get_mut(at) else { return };
        for _ in 0..events {
            match watcher.watch.try_next() {
                Ok(Some(Event::Added(it))) => {
                    assert!(watcher.query.matches(&it));
                    assert_eq!(watcher.state.insert(it.meta().name.to_string(), it.revision()), None, "{it:?} was there");
                }
                Ok(Some(Event::Modified(it))) => {
                    assert!(watcher.query.matches(&it));
                    assert!(watcher.state.insert(it.meta().name.to_string(), it.revision()) < Some(it.revision()), "{it:?} is not newer");
                }
                Ok(Some(Event::Deleted(it))) => {
                    assert!(watcher.query.matches(&it));
                    assert!(watcher.state.remove(&it.meta().name.to_string()).is_some(), "{it:?} was not there");
                }
                Ok(Some(Event::Bookmark(_))) => {}
                Ok(None) => {
                    // No event is left: their sum is the current state.
                    let now: BTreeMap<_, _> = matching(&self.states[&self.revision], &watcher.query).into_iter().collect();
                    assert_eq!(watcher.state, now, "{:?}", watcher.query);
                    assert_eq!(watcher.watch.revision(), self.revision);
                    watcher.relisted = false;
                    return;
                }
                Err(_) => {
                    self.watchers.remove(at);
                    return;
                }
            }
            // In between, the sum is the state at the watch's revision, unless a relist hid steps or more changes of that revision follow.
            let revision = watcher.watch.revision();
            if revision > 0 && !watcher.relisted && self.states.contains_key(&revision) && revision != self.revision {
                let then: BTreeMap<_, _> = matching(&self.states[&revision], &watcher.query).into_iter().collect();
                let missing = then.iter().filter(|(name, at)| watcher.state.get(*name) != Some(at)).count();
                assert!(missing <= 1, "at {revision}: {:?} is not {then:?}", watcher.state);
            }
        }
    }

    fn act(&mut self, action: &Action) {
        match action {
            Action::Put { .. } | Action::Delete { .. } => {
                let changes = self.changes(std::slice::from_ref(action));
                self.cache.apply(changes, self.revision);
            }
            Action::Both(both) => {
                // A key changes once per revision.
                let key = |action: &Action| match action {
                    Action::Put { namespace, name, .. } | Action::Delete { namespace, name } => (*namespace, *name),
                    _ => unreachable!("not a change"),
                };
                let changes = if key(&both[0]) == key(&both[1]) { self.changes(&both[..1]) } else { self.changes(&both[..]) };
                self.cache.apply(changes.clone(), self.revision);
                // A feeder that repeats changes does no harm.
                self.cache.apply(changes, self.revision);
            }
            Action::Progress => {
                self.changes(&[]);
                self.cache.apply(vec![], self.revision);
            }
            Action::Relist(hidden) => {
                for action in hidden {
                    self.changes(std::slice::from_ref(action));
                }
                self.changes(&[]);
                self.relisted = self.revision;
                self.watchers.iter_mut().for_each(|watcher| watcher.relisted = true);
                self.cache.replace_all(self.now().values().cloned().collect(), self.revision);
            }
            Action::Watch { query: at, back } => {
                let (query, after) = (query(*at), self.revision.saturating_sub(*back));
                // Every other watch begins with the existing objects.
                let after = if back % 2 == 0 { 0 } else { after };
                if let Ok(watch) = self.cache.watch(&resource::POD, query.clone(), after) {
                    let state = if after == 0 { BTreeMap::new() } else { matching(self.at(after), &query).into_iter().collect() };
                    assert!(after == 0 || after >= self.relisted);
                    self.watchers.push(Watcher { watch, query, state, relisted: false });
                } else {
                    assert!(after > 0);
                }
            }
            Action::Read { watcher, events } => self.read(*watcher, *events),
            Action::List { query: at, back, start, limit } => {
                let (query, revision) = (query(*at), self.revision.saturating_sub(*back));
                let start = Name::new("a", &format!("x{start}"));
                assert_eq!(shown(&self.cache.list(&resource::POD, &query).objects), matching(self.now(), &query));
                let Ok(page) = self.cache.page(&resource::POD, &query, Some(&start), *limit, Some(revision)) else {
                    assert!(*back > 2 || revision < self.relisted, "revision {revision} of {} should be in the history", self.revision);
                    return;
                };
                let state: State =
                    self.at(revision).iter().filter(|(name, _)| **name >= start).map(|(a, b)| (a.clone(), b.clone())).collect();
                let expected = matching(&state, &query);
                assert_eq!(shown(&page.objects), expected[..expected.len().min(*limit)]);
                assert_eq!((page.more, page.revision), (expected.len() > *limit, revision));
                assert!(page.remaining.is_none_or(|remaining| remaining == expected.len().saturating_sub(*limit)));
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]
    #[test]
    fn the_cache_is_what_the_model_says(history in 4..12usize, actions in prop::collection::vec(action(), 1..80)) {
        let cache = Cache::new(history);
        cache.replace_all(vec![], 1);
        let states = BTreeMap::from([(1, State::new())]);
        let mut model = Model { cache, states, relisted: 1, revision: 1, watchers: Vec::new() };
        for action in &actions {
            model.act(action);
        }
        for watcher in 0..8 {
            model.read(watcher, 1_000);
        }
        let owned = model.cache.owned_by("o").len();
        prop_assert_eq!(owned, model.now().len());
    }

    /// Indexes are built only for many objects.
    #[test]
    fn indexes_follow(changes in prop::collection::vec((0..200usize, prop::option::of((0..3usize, 0..3usize))), 1..60)) {
        let cache = Cache::new(10);
        let mut state = State::new();
        let object = |name: usize, app: usize, node: usize, revision| {
            pod("a", &format!("x{name}"), &format!("a{app}"), &format!("n{node}"), &format!("o{app}"), revision)
        };
        for name in 0..200 {
            let object = object(name, name % 3, name % 2, 1);
            state.insert(object.meta().name.clone(), object);
        }
        cache.replace_all(state.values().cloned().collect(), 1);
        let queries = [
            Query { labels: LabelSelector::parse("app=a1").unwrap(), ..Query::field("spec.nodeName", "n1") },
            Query { namespace: Some("a".to_owned()), ..Query::field("spec.nodeName", "n2") },
            Query { labels: LabelSelector::parse("app=a2,!none").unwrap(), ..Query::default() },
            Query::field("metadata.name", "x7"),
        ];
        for (revision, (name, change)) in (2..).zip(changes) {
            let key = Name::new("a", &format!("x{name}"));
            let change = match change {
                Some((app, node)) => {
                    let object = object(name, app, node, revision);
                    state.insert(key, object.clone());
                    put(object)
                }
                None => {
                    state.remove(&key);
                    delete("a", &key.name, revision)
                }
            };
            cache.apply(vec![change], revision);
            for query in &queries {
                prop_assert_eq!(shown(&cache.list(&resource::POD, query).objects), matching(&state, query));
            }
            let owned = state.values().filter(|it| &*it.meta().owners[0].uid == "o1").count();
            prop_assert_eq!(cache.owned_by("o1").len(), owned);
        }
    }

    /// Objects are found by their selectors, whatever is added and removed.
    #[test]
    fn selecting_is_matching(changes in prop::collection::vec((0..8usize, prop::option::of(0..6usize)), 1..60)) {
        let selectors = [
            json!({"app": "a0"}), json!({"app": "a1"}), json!({"app": "a0", "none": "x"}), json!({}), json!(null), json!({"app": "a2"}),
        ];
        let cache = Cache::new(10);
        cache.replace_all(Vec::new(), 1);
        let pods: Vec<_> = (0..3).map(|app| pod("a", "p", &format!("a{app}"), "", "", 1)).collect();
        for (step, (name, selector)) in changes.into_iter().enumerate() {
            let revision = step as Revision + 2;
            let object = selector.map(|at| {
                let service = json!({"metadata": {"namespace": if name < 6 { "a" } else { "b" }, "name": format!("s{name}")}, "spec": {"selector": selectors[at]}});
                Object::from_stored(&resource::SERVICE, service.to_string().as_bytes(), revision).unwrap()
            });
            let key = ObjectKey::new(&resource::SERVICE, if name < 6 { "a" } else { "b" }, &format!("s{name}"));
            cache.apply(vec![Change { key, revision, object }], revision);
            let services = cache.list(&resource::SERVICE, &Query::namespace("a")).objects;
            for pod in &pods {
                let selects = |it: &&Arc<Object>| LabelSelector::in_spec(it).is_some_and(|it| it.matches(pod));
                let expected: Vec<_> = services.iter().filter(selects).map(|it| it.name().to_owned()).collect();
                let mut found: Vec<_> = cache.selecting(&resource::SERVICE, pod).iter().map(|it| it.name().to_owned()).collect();
                found.sort();
                prop_assert_eq!(found, expected);
            }
        }
    }
}
