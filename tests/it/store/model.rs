//! The embedded store against the simplest store there can be: the list of all changes.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use km::object::Revision;
use km::store::embedded::{Config, Embedded};
use km::store::{Change, Entry, Expect, Outcome, StoreError};
use proptest::prelude::*;

use super::contract::{Follower, Shared, read_all};

#[derive(Default)]
struct Model {
    changes: Vec<Change>,
    head: Revision,
    compacted: Revision,
}

impl Model {
    fn state(&self, at: Revision) -> BTreeMap<&str, Entry> {
        let mut state = BTreeMap::new();
        for change in self.changes.iter().filter(|change| change.revision <= at) {
            match &change.value {
                Some(value) => {
                    let entry = Entry { key: change.key.clone(), value: value.clone(), revision: change.revision };
                    state.insert(change.key.as_str(), entry)
                }
                None => state.remove(change.key.as_str()),
            };
        }
        state
    }

    fn write(&mut self, key: &str, value: Option<Bytes>, expect: Expect) -> Outcome {
        let current = self.state(self.head).remove(key);
        let expected = match expect {
            Expect::Absent => current.is_none(),
            Expect::At(revision) => current.as_ref().is_some_and(|entry| entry.revision == revision),
        };
        if !expected {
            return Outcome::Conflict(current);
        }
        self.head += 1;
        self.changes.push(Change { key: key.into(), revision: self.head, value });
        Outcome::Done(self.head)
    }
}

#[derive(Clone, Debug)]
enum Step {
    Create(u8),
    /// Updates or deletes a key, at its revision plus this (0: as it should be).
    Update(u8, u8),
    Delete(u8, u8),
    /// Forgets the history before the newest revision less this.
    Compact(u8),
    Range {
        keys: u8,
        limit: u8,
        back: u8,
    },
    Watch {
        back: u8,
    },
    Reopen,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let key = 0..6u8;
    let off = prop_oneof![4 => Just(0u8), 1 => 1..4u8];
    let step = prop_oneof![
        6 => key.clone().prop_map(Step::Create),
        6 => (key.clone(), off.clone()).prop_map(|(key, off)| Step::Update(key, off)),
        4 => (key.clone(), off).prop_map(|(key, off)| Step::Delete(key, off)),
        1 => (0..20u8).prop_map(Step::Compact),
        2 => (key, 1..4u8, 0..20u8).prop_map(|(keys, limit, back)| Step::Range { keys, limit, back }),
        2 => (0..20u8).prop_map(|back| Step::Watch { back }),
        1 => Just(Step::Reopen),
    ];
    prop::collection::vec(step, 1..60)
}

/// Keys, some of which are prefixes of others.
fn name(key: u8) -> &'static str {
    ["/a", "/a/1", "/a/10", "/a/2", "/b", "/b/é"][usize::from(key)]
}

async fn compare(steps: Vec<Step>) {
    let dir = tempfile::tempdir().unwrap();
    // Small enough that history is also forgotten unasked.
    let open = || -> Shared { Embedded::open(Config { history_revisions: 25, ..Config::new(dir.path()) }).unwrap() };
    let mut store = open();
    let start = store.revision().await.unwrap();
    let mut model = Model { head: start, ..Model::default() };
    for (n, step) in steps.into_iter().enumerate() {
        let value = Bytes::from(n.to_string());
        match step {
            Step::Create(key) => {
                let outcome = store.put(name(key), value.clone(), Expect::Absent, None).await.unwrap();
                assert_eq!(outcome, model.write(name(key), Some(value), Expect::Absent));
            }
            Step::Update(key, off) => {
                let at = model.state(model.head).get(name(key)).map_or(1, |entry| entry.revision) + u64::from(off);
                let outcome = store.put(name(key), value.clone(), Expect::At(at), None).await.unwrap();
                assert_eq!(outcome, model.write(name(key), Some(value), Expect::At(at)));
            }
            Step::Delete(key, off) => {
                let at = model.state(model.head).get(name(key)).map_or(1, |entry| entry.revision) + u64::from(off);
                assert_eq!(store.delete(name(key), at).await.unwrap(), model.write(name(key), None, Expect::At(at)));
            }
            Step::Compact(back) => {
                let at = model.head.saturating_sub(back.into());
                store.compact(at).await.unwrap();
                model.compacted = model.compacted.max(at);
            }
            Step::Range { keys, limit, back } => {
                let at = model.head.saturating_sub(back.into()).max(start);
                let found = read_all(&store, name(keys), limit.into(), at).await;
                if let Some((entries, revision)) = kept(&mut model, at, found) {
                    let expected: Vec<_> = model.state(at).into_values().filter(|entry| entry.key.starts_with(name(keys))).collect();
                    assert_eq!((entries, revision), (expected, at));
                }
            }
            Step::Watch { back } => {
                let after = model.head.saturating_sub(back.into()).max(start);
                let found = match store.watch("/", after).await {
                    Ok(_) => Follower::new(&store, "/", after).await.until(model.head).await,
                    Err(error) => Err(error),
                };
                if let Some(changes) = kept(&mut model, after, found) {
                    let expected: Vec<_> = model.changes.iter().filter(|change| change.revision > after).cloned().collect();
                    assert_eq!(changes, expected);
                }
            }
            Step::Reopen => {
                drop(store);
                store = open();
            }
        }
        assert_eq!(store.revision().await.unwrap(), model.head);
    }
    let (entries, _) = read_all(&store, "", 100, 0).await.unwrap();
    assert_eq!(entries, model.state(model.head).into_values().collect::<Vec<_>>());
    assert_eq!(Arc::strong_count(&store), 1, "nothing holds on to the store");
}

/// Checks that only history beyond the retention is forgotten.
fn kept<T>(model: &mut Model, asked: Revision, found: Result<T, StoreError>) -> Option<T> {
    match found {
        Ok(found) => {
            assert!(asked >= model.compacted);
            Some(found)
        }
        Err(StoreError::Compacted { asked: reported, oldest }) => {
            assert_eq!(reported, asked);
            assert!(asked < oldest, "{asked} is kept, the oldest is {oldest}");
            assert!(oldest == model.compacted || oldest <= model.head.saturating_sub(25), "{oldest} of {}", model.head);
            model.compacted = oldest;
            None
        }
        Err(error) => panic!("{error}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]
    #[test]
    fn embedded_does_what_the_model_does(steps in steps()) {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(compare(steps));
    }
}
