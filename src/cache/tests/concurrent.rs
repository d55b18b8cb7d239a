//! Writers and watchers at the same time.

use std::collections::BTreeMap;

use super::*;

/// Follows a watch to a revision, starting anew whenever it falls behind. Returns the final state and the number of restarts.
async fn follow(cache: Arc<Cache>, query: Query, until: Revision) -> (BTreeMap<String, Revision>, usize) {
    let (mut state, mut restarts) = (BTreeMap::new(), 0);
    let mut watch = cache.watch(&resource::POD, query.clone(), 0).unwrap();
    let mut last = 0;
    let mut initial = true;
    while last < until {
        let event = match watch.next().await {
            Ok(event) => event,
            Err(_) => {
                (watch, initial) = (cache.watch(&resource::POD, query.clone(), 0).unwrap(), true);
                state.clear();
                restarts += 1;
                continue;
            }
        };
        let (object, known) = match &event {
            Event::Added(object) => (object, state.insert(object.meta().name.to_string(), object.revision()).is_some()),
            Event::Modified(object) => (object, state.insert(object.meta().name.to_string(), object.revision()).is_none()),
            Event::Deleted(object) => (object, state.remove(&object.meta().name.to_string()).is_none()),
            Event::Bookmark(revision) => {
                (last, initial) = (*revision, false);
                continue;
            }
        };
        assert!(!known, "{event:?} does not follow from what was seen");
        assert!(query.matches(object));
        if !initial {
            assert!(object.revision() > last, "{event:?} after {last}");
            last = object.revision();
        }
    }
    (state, restarts)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_watcher_ends_with_what_there_is() {
    const CHANGES: Revision = 3_000;
    let queries = [
        Query::default(),
        Query::namespace("a"),
        Query::field("spec.nodeName", "n1"),
        Query::field("metadata.name", "x1"),
        Query { labels: LabelSelector::parse("app!=web").unwrap(), ..Query::namespace("b") },
        Query { namespace: Some("a".to_owned()), ..Query::field("metadata.name", "x2") },
    ];
    for history in [8, 100_000] {
        let cache = Cache::new(history);
        cache.apply(vec![], 1);
        let mut watchers = tokio::task::JoinSet::new();
        for query in queries.iter().cycle().take(48) {
            let (cache, query) = (cache.clone(), query.clone());
            watchers.spawn(async move { (query.clone(), follow(cache, query, CHANGES + 1).await) });
        }
        for revision in 2..=CHANGES {
            let random = |salt: u64, of: u64| (revision.wrapping_mul(6_364_136_223_846_793_005).rotate_left(salt as u32) >> 33) % of;
            let (namespace, name) = (["a", "b"][random(1, 2) as usize], format!("x{}", random(5, 7)));
            let change = match random(9, 4) {
                0 => delete(namespace, &name, revision),
                _ => put(pod(namespace, &name, ["web", "db"][random(13, 2) as usize], &format!("n{}", random(17, 3)), "o", revision)),
            };
            cache.apply(vec![change], revision);
            if revision % 64 == 0 {
                tokio::task::yield_now().await;
            }
        }
        // A change that every query sees, so that every watcher ends.
        let ends = ["a", "b"].map(|namespace| ["x1", "x2"].map(|name| put(pod(namespace, name, "end", "n1", "o", CHANGES + 1))));
        cache.apply(ends.into_iter().flatten().collect(), CHANGES + 1);
        while let Some(done) = watchers.join_next().await {
            let (query, (seen, restarts)) = done.unwrap();
            let listed = cache.list(&resource::POD, &query);
            let listed: BTreeMap<_, _> = listed.objects.iter().map(|it| (it.meta().name.to_string(), it.revision())).collect();
            // Several changes share the last revision: the watcher may have stopped at the first of them.
            let before_the_end = |state: &BTreeMap<String, Revision>| state.values().filter(|it| **it <= CHANGES).count();
            assert!(before_the_end(&seen) >= before_the_end(&listed), "{query:?}");
            assert!(history == 8 || restarts == 0, "{query:?} fell behind a history that holds everything");
        }
    }
}
