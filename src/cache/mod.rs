//! The in-process cache of API objects, from which lists, watches, controllers and the scheduler read. Fed by the store inside an API
//! server, by list and watch over HTTP elsewhere; readers cannot tell the difference.

mod blocks;
mod history;
mod index;
mod interest;
mod progress;
mod rows;
mod table;
mod watch;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::RwLock;
use tokio::sync::Notify;

use crate::object::selector::{FieldSelector, LabelSelector};
use crate::object::{Name, Object, ObjectKey, ResourceRef, Revision};
use progress::Progress;
use table::Table;
pub use watch::Watch;

/// Objects by resource, ordered by name, with the recent history that watches are served from.
///
/// There are two ways to feed it. A store reports the changes of all resources in one order: [`Cache::replace_all`], then [`Cache::apply`].
/// Over HTTP each resource has its own list and watch: [`Cache::replace`], then [`Cache::apply_to`] and [`Cache::advance`].
#[derive(Debug)]
pub struct Cache {
    /// How many changes are kept per resource.
    history: usize,
    tables: RwLock<Tables>,
    /// Every change of every resource up to this revision is applied. Advances without touching the tables.
    progress: Arc<Progress>,
    /// Notified when resources have been filled.
    filled: Notify,
}

#[derive(Debug, Default)]
struct Tables {
    by_resource: HashMap<ResourceRef, Arc<Table>>,
    /// Whether a store feeds the cache. Then a resource without a table has no objects, and has had none since the revision `base`.
    complete: bool,
    base: Revision,
}

/// Selects objects of a resource; by default all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Query {
    /// `None`: all namespaces.
    pub namespace: Option<String>,
    pub labels: LabelSelector,
    pub fields: FieldSelector,
}

/// One change, as a feeder reports it.
#[derive(Clone, Debug)]
pub struct Change {
    pub key: ObjectKey,
    pub revision: Revision,
    /// `None`: deleted.
    pub object: Option<Arc<Object>>,
}

/// The objects that match a [`Query`], in name order, all as of one revision.
#[derive(Clone, Debug, Default)]
pub struct Listing {
    pub objects: Vec<Arc<Object>>,
    pub revision: Revision,
}

/// Part of a [`Listing`].
#[derive(Clone, Debug, Default)]
pub struct Page {
    pub objects: Vec<Arc<Object>>,
    pub revision: Revision,
    /// Whether there are more matches behind the last object.
    pub more: bool,
    /// How many there are: counted with the first chunk of a list without selectors. A count for each chunk would take quadratic time.
    pub remaining: Option<usize>,
}

/// What a watch delivers.
#[derive(Clone, Debug)]
pub enum Event {
    /// The object now matches the query.
    Added(Arc<Object>),
    Modified(Arc<Object>),
    /// The object is gone or no longer matches: its last matching state, at the revision of the change.
    Deleted(Arc<Object>),
    /// All changes up to this revision have been delivered. A watch that begins with the existing objects sends one after the last of them.
    Bookmark(Revision),
}

/// The encoded form of what a watch delivers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// Events in the watch's format, at least one, and the revision of the last change. In JSON each is a line of
    /// `{"type":"ADDED|MODIFIED|DELETED","object":…}`.
    Events(Bytes, Revision),
    /// As [`Event::Bookmark`]. The encoding depends on the client's request.
    Bookmark(Revision),
}

/// The requested revision is older than the history, or the watcher fell behind it. The client must list again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too old resource version: {asked} ({oldest})")]
pub struct Expired {
    pub asked: Revision,
    pub oldest: Revision,
}

impl Query {
    /// Everything in one namespace.
    pub fn namespace(namespace: &str) -> Self {
        Self { namespace: Some(namespace.to_owned()), ..Self::default() }
    }

    /// The objects with this value in a selectable field, such as `spec.nodeName`.
    pub fn field(path: &str, value: &str) -> Self {
        Self { fields: FieldSelector::equal(path, value), ..Self::default() }
    }

    pub fn matches(&self, object: &Object) -> bool {
        self.namespace.as_deref().is_none_or(|namespace| namespace.is_empty() || namespace == object.namespace())
            && self.labels.matches(object)
            && self.fields.matches(object)
    }

    /// Whether it has no selector.
    pub fn is_unselective(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    /// The only namespace that can hold matches.
    fn namespace_wanted(&self) -> Option<&str> {
        self.namespace.as_deref().filter(|it| !it.is_empty()).or_else(|| self.fields.value_of("metadata.namespace"))
    }
}

impl Cache {
    /// An empty cache that keeps this many changes of each resource for watches.
    pub fn new(history: usize) -> Arc<Self> {
        Arc::new(Self { history, tables: RwLock::default(), progress: Arc::default(), filled: Notify::new() })
    }

    pub fn get(&self, resource: ResourceRef, namespace: &str, name: &str) -> Option<Arc<Object>> {
        let table = self.known(resource)?;
        let state = table.state.read();
        state.get(namespace, name).cloned()
    }

    pub fn list(&self, resource: ResourceRef, query: &Query) -> Listing {
        let page = self.page(resource, query, None, usize::MAX, None).unwrap_or_default();
        Listing { objects: page.objects, revision: page.revision }
    }

    /// At most `limit` objects of the list, from the name `start` on, as of a revision (`None`: now): for chunked lists. Takes time
    /// proportional to the chunk; for a past revision also to the history since then, and to count one namespace to its size.
    ///
    /// # Errors
    /// If the revision is no longer in the history.
    pub fn page(
        &self,
        resource: ResourceRef,
        query: &Query,
        start: Option<&Name>,
        limit: usize,
        at: Option<Revision>,
    ) -> Result<Page, Expired> {
        // Read before the objects, which show at least this revision.
        let progress = self.progress.get();
        self.table(resource).page(query, start, limit, at, progress)
    }

    /// The number of objects of a resource.
    pub fn count(&self, resource: ResourceRef) -> usize {
        self.known(resource).map_or(0, |table| table.state.read().len())
    }

    /// Objects (of any resource) owned by the object with this uid.
    pub fn owned_by(&self, uid: &str) -> Vec<Arc<Object>> {
        let tables: Vec<_> = self.tables.read().by_resource.values().cloned().collect();
        let mut owned = Vec::new();
        for table in tables {
            table.owned_by(uid, &mut owned);
        }
        owned
    }

    /// The objects of a resource that select `object`: they are in its namespace, and the label selector in their spec matches it. The time
    /// depends on the number of matches, not of objects.
    pub fn selecting(&self, resource: ResourceRef, object: &Object) -> Vec<Arc<Object>> {
        self.known(resource).map(|table| table.selecting(object)).unwrap_or_default()
    }

    /// Objects of a resource owned by the object with this uid.
    pub fn owned(&self, resource: ResourceRef, uid: &str) -> Vec<Arc<Object>> {
        let mut owned = Vec::new();
        if let Some(table) = self.known(resource) {
            table.owned_by(uid, &mut owned);
        }
        owned
    }

    /// Objects of a resource in a namespace that no controller manages and that have these labels.
    pub fn orphans(&self, resource: ResourceRef, namespace: &str, labels: &LabelSelector) -> Vec<Arc<Object>> {
        let query = Query { namespace: Some(namespace.to_owned()), labels: labels.clone(), ..Query::default() };
        self.known(resource).map(|table| table.orphans(&query)).unwrap_or_default()
    }

    /// The changes after a revision. With `after` 0 the watch begins with an `Added` for every existing object, once the resource has been
    /// filled.
    ///
    /// # Errors
    /// If the changes after this revision are no longer in the history.
    pub fn watch(&self, resource: ResourceRef, query: Query, after: Revision) -> Result<Watch, Expired> {
        Watch::new(self.table(resource), self.progress.clone(), query, after)
    }

    /// All there is, as `Added`, once the resource has been filled, and all changes after that.
    pub fn follow(&self, resource: ResourceRef, query: Query) -> Watch {
        self.watch(resource, query, 0).expect("a watch from the beginning needs no history")
    }

    /// The objects there are, and the changes after those.
    pub fn list_and_watch(&self, resource: ResourceRef, query: &Query) -> (Vec<Arc<Object>>, Watch) {
        loop {
            let listing = self.list(resource, query);
            if let Ok(watch) = self.watch(resource, query.clone(), listing.revision) {
                return (listing.objects, watch);
            }
        }
    }

    /// The newest revision the cache has seen of this resource.
    pub fn revision(&self, resource: ResourceRef) -> Revision {
        let progress = self.progress.get();
        self.known(resource).map_or(progress, |table| table.progress.get().max(progress))
    }

    /// Waits until the cache has seen this revision of the resource.
    pub async fn wait_for(&self, resource: ResourceRef, revision: Revision) {
        let table = self.table(resource);
        tokio::select! {
            () = self.progress.wait(revision) => {}
            () = table.progress.wait(revision) => {}
        }
    }

    /// Whether a resource has been filled.
    pub fn is_synced(&self, resource: ResourceRef) -> bool {
        self.table(resource).state.read().synced
    }

    /// Waits until each of these resources has been filled for the first time.
    pub async fn wait_synced(&self, resources: &[ResourceRef]) {
        loop {
            let filled = self.filled.notified();
            tokio::pin!(filled);
            filled.as_mut().enable();
            if resources.iter().all(|resource| self.is_synced(resource)) {
                return;
            }
            filled.await;
        }
    }

    /// Feeder: replaces the objects of a resource by a list taken at `revision`. Watchers see the difference.
    pub fn replace(&self, resource: ResourceRef, objects: Vec<Arc<Object>>, revision: Revision) {
        self.table(resource).replace(objects, revision);
        self.filled.notify_waiters();
    }

    /// Feeder: replaces the objects of all resources by a list of everything, taken at `revision`.
    pub fn replace_all(&self, objects: Vec<Arc<Object>>, revision: Revision) {
        let mut by_resource: HashMap<ResourceRef, Vec<Arc<Object>>> = HashMap::new();
        for object in objects {
            by_resource.entry(object.resource()).or_default().push(object);
        }
        let known: Vec<_> = self.tables.read().by_resource.keys().copied().collect();
        for resource in known {
            by_resource.entry(resource).or_default();
        }
        for (resource, objects) in by_resource {
            self.table(resource).replace(objects, revision);
        }
        self.progress.reset(revision);
        self.complete(revision);
    }

    /// Feeder: applies changes in revision order, then notes that every change of every resource up to `revision` is applied. Skips changes
    /// that are already applied.
    pub fn apply(&self, changes: Vec<Change>, revision: Revision) {
        let mut groups: Vec<(ResourceRef, Vec<Change>)> = Vec::new();
        for change in changes {
            match groups.iter_mut().find(|(resource, _)| *resource == change.key.resource) {
                Some((_, group)) => group.push(change),
                None => groups.push((change.key.resource, vec![change])),
            }
        }
        for (resource, changes) in groups {
            self.table(resource).apply(changes);
        }
        self.progress.advance(revision);
        let complete = self.tables.read().complete;
        if !complete {
            self.complete(revision);
        }
    }

    /// Feeder: applies changes of one resource in revision order. Skips those that are already applied.
    pub fn apply_to(&self, resource: ResourceRef, changes: Vec<Change>) {
        self.table(resource).apply(changes);
    }

    /// Feeder: notes that every change of one resource up to `revision` is applied.
    pub fn advance(&self, resource: ResourceRef, revision: Revision) {
        self.table(resource).advance(revision);
    }

    /// Marks the cache as complete: from now on, an object that is not here does not exist.
    fn complete(&self, revision: Revision) {
        let tables: Vec<_> = {
            let mut tables = self.tables.write();
            (tables.complete, tables.base) = (true, revision);
            tables.by_resource.values().cloned().collect()
        };
        tables.iter().for_each(|table| table.complete());
        self.filled.notify_waiters();
    }

    fn known(&self, resource: ResourceRef) -> Option<Arc<Table>> {
        self.tables.read().by_resource.get(resource).cloned()
    }

    fn table(&self, resource: ResourceRef) -> Arc<Table> {
        if let Some(table) = self.known(resource) {
            return table;
        }
        let Tables { by_resource, complete, base } = &mut *self.tables.write();
        let table = || Arc::new(Table::new(resource, self.history, *base, *complete));
        by_resource.entry(resource).or_insert_with(table).clone()
    }
}
