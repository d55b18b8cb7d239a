//! The objects of one resource, and all that follows their changes: indexes, history, watchers.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::RwLock;
use tokio::sync::Notify;

use super::blocks::Blocks;
use super::history::History;
use super::index::{By, Found, Indexes, NOBODY};
use super::interest::Interests;
use super::progress::Progress;
use super::rows::Rows;
use super::{Change, Expired, Page, Query};
use crate::object::selector::LabelSelector;
use crate::object::{Name, Object, ResourceRef, Revision};

/// Up to this many orphans are searched one by one.
const FEW: usize = 64;

/// One resource.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) resource: ResourceRef,
    pub(super) state: RwLock<State>,
    pub(super) blocks: Blocks,
    /// Follows `State::revision`; tasks wait on it.
    pub(super) progress: Progress,
}

/// The state under one lock.
#[derive(Debug)]
pub(super) struct State {
    namespaced: bool,
    rows: Rows,
    indexes: Indexes,
    pub(super) history: History,
    pub(super) interests: Interests,
    /// Every change up to this revision is applied.
    pub(super) revision: Revision,
    /// Whether the table holds all objects of the resource, and not only those that have changed.
    pub(super) synced: bool,
}

impl Table {
    /// An empty table that will see every change after `base`.
    pub(super) fn new(resource: ResourceRef, history: usize, base: Revision, synced: bool) -> Self {
        let state = State {
            namespaced: resource.namespaced,
            rows: Rows::default(),
            indexes: Indexes::default(),
            history: History::new(history, base),
            interests: Interests::default(),
            revision: base,
            synced,
        };
        Self { resource, state: RwLock::new(state), blocks: Blocks::default(), progress: Progress::at(base) }
    }

    /// Applies changes in revision order. Skips those that are already applied.
    pub(super) fn apply(&self, changes: impl IntoIterator<Item = Change>) {
        let mut wake = Vec::new();
        let revision = {
            let mut state = self.state.write();
            for change in changes {
                if !state.has(&change) {
                    state.set(&change.key.name, change.object, change.revision, &mut wake);
                    state.history.trim();
                    state.revision = state.revision.max(change.revision);
                }
            }
            state.revision
        };
        self.progress.advance(revision);
        tell(&wake);
    }

    /// Replaces all objects by a list.
    pub(super) fn replace(&self, objects: Vec<Arc<Object>>, revision: Revision) {
        let wake = {
            let mut state = self.state.write();
            // Watches of a resource that was never filled have not begun yet, so no watcher needs these changes.
            if !state.synced && state.rows.is_empty() {
                state.rows = objects.into_iter().collect();
                let State { rows, indexes, .. } = &mut *state;
                indexes.rebuild(rows);
            } else {
                state.difference(objects.into_iter().collect(), revision);
            }
            state.history.rebase(revision);
            state.revision = revision;
            state.synced = true;
            state.interests.all()
        };
        self.progress.reset(revision);
        tell(&wake);
    }

    /// Notes that every change up to `revision` is applied.
    pub(super) fn advance(&self, revision: Revision) {
        {
            let mut state = self.state.write();
            state.revision = state.revision.max(revision);
        }
        self.progress.advance(revision);
    }

    /// Notes that all existing objects have been applied.
    pub(super) fn complete(&self) {
        let wake = {
            let mut state = self.state.write();
            state.synced = true;
            state.interests.all()
        };
        tell(&wake);
    }

    /// Up to `limit` matches, from the name `start` on, as of revision `at` (`None`: now). `progress` is a revision up to which the caller
    /// knows all changes to be applied.
    pub(super) fn page(
        &self,
        query: &Query,
        start: Option<&Name>,
        limit: usize,
        at: Option<Revision>,
        progress: Revision,
    ) -> Result<Page, Expired> {
        let (page, make) = {
            let state = self.state.read();
            let now = state.revision.max(progress);
            let past = match at {
                Some(at) if at < state.revision => state.past(at)?,
                _ => BTreeMap::new(),
            };
            let page = state.page(query, start, limit, &past, at.unwrap_or(now).min(now));
            (page, state.indexes.wanted())
        };
        self.make(make);
        Ok(page)
    }

    /// Adds to `out` the objects owned by the object with this uid.
    pub(super) fn owned_by(&self, uid: &str, out: &mut Vec<Arc<Object>>) {
        let make = {
            let state = self.state.read();
            match state.indexes.owned(uid) {
                Found::Among(rows) => out.extend(rows.iter().cloned()),
                Found::Nothing => {}
                Found::Unknown if state.rows.is_empty() => {}
                Found::Unknown => {
                    out.extend(state.rows.iter().filter(|object| By::Owner.values(object).any(|it| it == uid)).cloned());
                }
            }
            state.indexes.wanted()
        };
        self.make(make);
    }
}

impl Table {
    /// The matches without a managing controller. The time depends on the number of orphans in the namespace or, if there are many, on the
    /// number of objects with one of the selector's labels.
    pub(super) fn orphans(&self, query: &Query) -> Vec<Arc<Object>> {
        let (found, make) = {
            let state = self.state.read();
            let namespace = query.namespace.as_deref();
            let among = match state.indexes.owned(NOBODY) {
                Found::Nothing => None,
                Found::Unknown => Some(&state.rows),
                Found::Among(orphans) if orphans.range(namespace, None).nth(FEW).is_none() => Some(orphans),
                Found::Among(orphans) => match state.indexes.find(query, state.rows.len()) {
                    Found::Nothing => None,
                    Found::Among(others) if others.len() < orphans.len() => Some(others),
                    _ => Some(orphans),
                },
            };
            let among = among.into_iter().flat_map(|rows| rows.range(namespace, None));
            let found = among.filter(|it| it.meta().controller().is_none() && query.matches(it)).cloned().collect();
            (found, state.indexes.wanted())
        };
        self.make(make);
        found
    }

    /// Builds an index, if one is wanted.
    fn make(&self, by: Option<By>) {
        if let Some(by) = by {
            let State { rows, indexes, .. } = &mut *self.state.write();
            indexes.make(by, rows);
        }
    }

    /// The objects in the namespace of `object` whose label selector matches it.
    pub(super) fn selecting(&self, object: &Object) -> Vec<Arc<Object>> {
        let (found, make) = {
            let state = self.state.read();
            let selects = |it: &&Arc<Object>| LabelSelector::in_spec(it).is_some_and(|it| it.matches(object));
            let all = [&state.rows];
            let sets = state.indexes.selecting(object);
            let among = sets.as_deref().unwrap_or(&all).iter().flat_map(|rows| rows.range(Some(object.namespace()), None));
            (among.filter(selects).cloned().collect(), state.indexes.wanted())
        };
        self.make(make);
        found
    }
}

impl State {
    /// Whether a change is already applied. Several keys may change at one revision.
    fn has(&self, change: &Change) -> bool {
        let Name { namespace, name } = &change.key.name;
        change.revision < self.revision || self.rows.get(namespace, name).is_some_and(|known| known.revision() >= change.revision)
    }

    fn set(&mut self, name: &Name, new: Option<Arc<Object>>, revision: Revision, wake: &mut Vec<Arc<Notify>>) {
        let old = match &new {
            Some(object) => self.rows.put(object.clone()),
            None => self.rows.remove(name),
        };
        if old.is_none() && new.is_none() {
            return;
        }
        self.indexes.change(old.as_ref(), new.as_ref());
        let oldest = self.history.first();
        let entry = self.history.push(revision, old, new);
        self.interests.note(entry.seq, oldest, entry.old.as_deref(), entry.new.as_deref(), wake);
    }

    /// Turns a relist into changes: the objects that still exist at their own revisions, in order, then the deleted ones.
    fn difference(&mut self, listed: Rows, revision: Revision) {
        let mut changed: Vec<_> = listed
            .iter()
            .filter(|new| {
                let old = self.rows.get(new.namespace(), new.name());
                old.is_none_or(|old| old.revision() != new.revision() || old.meta().uid != new.meta().uid)
            })
            .cloned()
            .collect();
        changed.sort_by_key(|object| object.revision());
        let gone: Vec<_> = self.rows.iter().filter(|old| listed.get(old.namespace(), old.name()).is_none()).cloned().collect();
        // The caller wakes all watchers afterwards.
        let mut wake = Vec::new();
        for object in changed {
            self.set(&object.meta().name.clone(), Some(object.clone()), object.revision(), &mut wake);
            wake.clear();
        }
        for object in gone {
            self.set(&object.meta().name, None, revision, &mut wake);
            wake.clear();
        }
    }

    /// The state at a revision of the objects that changed since.
    fn past(&self, at: Revision) -> Result<BTreeMap<&Name, Option<&Arc<Object>>>, Expired> {
        let position = self.history.position(at)?;
        // Later insertions overwrite earlier ones, so the oldest change comes last.
        let undone = self.history.since(position).rev().filter_map(|entry| {
            let object = entry.old.as_ref().or(entry.new.as_ref())?;
            Some((&object.meta().name, entry.old.as_ref()))
        });
        Ok(undone.collect())
    }

    pub(super) fn get(&self, namespace: &str, name: &str) -> Option<&Arc<Object>> {
        self.rows.get(namespace, name)
    }

    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    /// All current matches.
    pub(super) fn matching(&self, query: &Query) -> Vec<Arc<Object>> {
        self.candidates(query, None).filter(|object| query.matches(object)).cloned().collect()
    }

    fn page(
        &self,
        query: &Query,
        start: Option<&Name>,
        limit: usize,
        past: &BTreeMap<&Name, Option<&Arc<Object>>>,
        revision: Revision,
    ) -> Page {
        let mut candidates = self.candidates(query, start);
        if !past.is_empty() {
            candidates = Box::new(merge(candidates, past, start));
        }
        let mut matching = candidates.filter(|object| query.matches(object));
        let objects: Vec<_> = matching.by_ref().take(limit).cloned().collect();
        let more = objects.len() == limit && matching.next().is_some();
        let remaining = match start {
            _ if !more => Some(0),
            None if query.is_unselective() => Some(match query.namespace_wanted() {
                None if past.is_empty() => self.rows.len() - objects.len(),
                _ => 1 + matching.count(),
            }),
            _ => None,
        };
        Page { objects, revision, more, remaining }
    }

    /// A superset of the matches, in name order.
    fn candidates<'a>(&'a self, query: &'a Query, start: Option<&'a Name>) -> Box<dyn Iterator<Item = &'a Arc<Object>> + 'a> {
        let namespace = if self.namespaced { query.namespace_wanted() } else { Some("") };
        if let (Some(namespace), Some(name)) = (namespace, query.fields.value_of("metadata.name")) {
            let found = self.rows.get(namespace, name);
            return Box::new(found.into_iter().filter(move |object| start.is_none_or(|start| object.meta().name >= *start)));
        }
        match self.indexes.find(query, self.rows.len()) {
            Found::Among(rows) => Box::new(rows.range(namespace, start)),
            Found::Nothing => Box::new(std::iter::empty()),
            Found::Unknown => Box::new(self.rows.range(namespace, start)),
        }
    }
}

/// `now`, with the objects of `past` in place of newer versions.
fn merge<'a>(
    now: impl Iterator<Item = &'a Arc<Object>> + 'a,
    past: &'a BTreeMap<&'a Name, Option<&'a Arc<Object>>>,
    start: Option<&Name>,
) -> impl Iterator<Item = &'a Arc<Object>> + 'a {
    let first = start.cloned().unwrap_or_default();
    let mut now = now.filter(|object| !past.contains_key(&object.meta().name)).peekable();
    let mut past = past.iter().skip_while(move |(name, _)| ***name < first).filter_map(|(_, object)| *object).peekable();
    std::iter::from_fn(move || match (now.peek(), past.peek()) {
        (Some(a), Some(b)) if a.meta().name < b.meta().name => now.next(),
        (_, Some(_)) => past.next(),
        (_, None) => now.next(),
    })
}

fn tell(wake: &[Arc<Notify>]) {
    wake.iter().for_each(|watchers| watchers.notify_waiters());
}
