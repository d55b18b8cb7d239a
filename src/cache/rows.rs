//! Objects ordered by name, without a second copy of the names.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::ops::Bound;
use std::sync::Arc;

use crate::object::{Name, Object};

/// A set of objects of one resource, at most one per name.
#[derive(Clone, Debug, Default)]
pub(super) struct Rows(BTreeSet<Row>);

/// An object, ordered by its namespace and name.
#[derive(Clone, Debug)]
struct Row(Arc<Object>);

/// A key of rows: a namespace and a name, owned or borrowed.
trait Key {
    fn parts(&self) -> (&str, &str);
}

impl Key for Row {
    fn parts(&self) -> (&str, &str) {
        (self.0.namespace(), self.0.name())
    }
}

impl Key for (&str, &str) {
    fn parts(&self) -> (&str, &str) {
        *self
    }
}

impl<'a> Borrow<dyn Key + 'a> for Row {
    fn borrow(&self) -> &(dyn Key + 'a) {
        self
    }
}

impl Ord for dyn Key + '_ {
    fn cmp(&self, other: &Self) -> Ordering {
        Name::order(self.parts(), other.parts())
    }
}

impl PartialOrd for dyn Key + '_ {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for dyn Key + '_ {
    fn eq(&self, other: &Self) -> bool {
        self.parts() == other.parts()
    }
}

impl Eq for dyn Key + '_ {}

impl Ord for Row {
    fn cmp(&self, other: &Self) -> Ordering {
        Name::order(self.parts(), other.parts())
    }
}

impl PartialOrd for Row {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Row {
    fn eq(&self, other: &Self) -> bool {
        self.parts() == other.parts()
    }
}

impl Eq for Row {}

impl Rows {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn get(&self, namespace: &str, name: &str) -> Option<&Arc<Object>> {
        self.0.get(&(namespace, name) as &dyn Key).map(|row| &row.0)
    }

    /// Inserts an object in place of the one with the same name, which is returned.
    pub(super) fn put(&mut self, object: Arc<Object>) -> Option<Arc<Object>> {
        self.0.replace(Row(object)).map(|row| row.0)
    }

    pub(super) fn remove(&mut self, name: &Name) -> Option<Arc<Object>> {
        self.0.take(&name.parts() as &dyn Key).map(|row| row.0)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<Object>> {
        self.0.iter().map(|row| &row.0)
    }

    /// The objects of one namespace, or of all, from `start` on.
    pub(super) fn range<'a>(&'a self, namespace: Option<&'a str>, start: Option<&'a Name>) -> impl Iterator<Item = &'a Arc<Object>> {
        let first = match (start, namespace) {
            (Some(name), Some(namespace)) if Name::order(name.parts(), (namespace, "")).is_lt() => (namespace, ""),
            (Some(name), _) => name.parts(),
            (None, namespace) => (namespace.unwrap_or_default(), ""),
        };
        let within = move |row: &&Row| namespace.is_none_or(|namespace| row.0.namespace() == namespace);
        let bounds: (Bound<&dyn Key>, Bound<&dyn Key>) = (Bound::Included(&first), Bound::Unbounded);
        self.0.range::<dyn Key, _>(bounds).take_while(within).map(|row| &row.0)
    }
}

impl FromIterator<Arc<Object>> for Rows {
    fn from_iter<I: IntoIterator<Item = Arc<Object>>>(objects: I) -> Self {
        Self(objects.into_iter().map(Row).collect())
    }
}
