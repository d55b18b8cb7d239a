//! The in-process cache of API objects: what lists, watches, controllers, the scheduler, the proxy and the DNS server read. Fed by the
//! store inside an API server, by list and watch over HTTP elsewhere; readers cannot tell the difference.

use std::sync::Arc;

use crate::object::selector::{FieldSelector, LabelSelector};
use crate::object::{Object, ObjectKey, ResourceRef, Revision};

/// Objects by resource, ordered by name, with the recent history that watches are served from.
#[derive(Debug)]
pub struct Cache {}

/// Which objects of a resource. The default is all of them.
#[derive(Clone, Debug, Default)]
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

/// What a watch delivers.
#[derive(Clone, Debug)]
pub enum Event {
    /// The object came to match the query.
    Added(Arc<Object>),
    Modified(Arc<Object>),
    /// The object is gone or no longer matches: its last matching state, at the revision of the change.
    Deleted(Arc<Object>),
    /// Nothing up to this revision is missing.
    Bookmark(Revision),
}

/// The revision asked for is older than the history kept, or the watcher fell behind it. List again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too old resource version: {asked} ({oldest})")]
pub struct Expired {
    pub asked: Revision,
    pub oldest: Revision,
}

/// A running watch: events in revision order, none missed, none twice.
#[derive(Debug)]
pub struct Watch {}

impl Watch {
    /// Waits for the next event.
    ///
    /// # Errors
    /// If this reader is so slow that the history it still needs was dropped.
    pub async fn next(&mut self) -> Result<Event, Expired> {
        todo!()
    }
}

impl Cache {
    /// An empty cache that keeps this many changes of each resource for watches.
    pub fn new(history: usize) -> Arc<Self> {
        todo!("{history}")
    }

    pub fn get(&self, _resource: ResourceRef, _namespace: &str, _name: &str) -> Option<Arc<Object>> {
        todo!()
    }

    pub fn list(&self, _resource: ResourceRef, _query: &Query) -> Listing {
        todo!()
    }

    /// The list as it was at a revision still in the history, for the later chunks of a chunked list.
    pub fn list_at(&self, _resource: ResourceRef, _query: &Query, _revision: Revision) -> Result<Listing, Expired> {
        todo!()
    }

    /// Objects (of any resource) owned by the object with this uid.
    pub fn owned_by(&self, _uid: &str) -> Vec<Arc<Object>> {
        todo!()
    }

    /// Changes after a revision. With `after` 0 the watch begins with an `Added` for every object there is.
    pub fn watch(&self, _resource: ResourceRef, _query: Query, _after: Revision) -> Result<Watch, Expired> {
        todo!()
    }

    /// The newest revision the cache has seen of this resource.
    pub fn revision(&self, _resource: ResourceRef) -> Revision {
        todo!()
    }

    /// Waits until the cache has seen this revision of the resource.
    pub async fn wait_for(&self, _resource: ResourceRef, _revision: Revision) {
        todo!()
    }

    /// Waits until each of these resources has been filled for the first time.
    pub async fn wait_synced(&self, _resources: &[ResourceRef]) {
        todo!()
    }

    /// Feeder: replaces what is known of a resource by a list taken at `revision`. Watchers see the difference.
    pub fn replace(&self, _resource: ResourceRef, _objects: Vec<Arc<Object>>, _revision: Revision) {
        todo!()
    }

    /// Feeder: applies changes in revision order, then notes that every change of every resource up to `revision` is in.
    pub fn apply(&self, _changes: Vec<Change>, _revision: Revision) {
        todo!()
    }

    /// Feeder: notes that every change of one resource up to `revision` is in.
    pub fn advance(&self, _resource: ResourceRef, _revision: Revision) {
        todo!()
    }
}
