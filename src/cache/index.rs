//! Secondary indexes of a resource's objects: by a label's value, by a selectable field, by owner, or by the labels that the objects
//! themselves select. An index is built once queries have missed it a few times; beyond a limit the least used one is dropped.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::Query;
use super::rows::Rows;
use crate::object::Object;
use crate::object::selector::LabelSelector;

/// A query that could have used an index counts as a miss only from this many objects on.
const SMALL: usize = 128;
/// An index is built after this many misses.
const MISSES: u32 = 3;
/// Bound of the indexes of one resource.
const MOST: usize = 12;

/// The key of objects without a managing controller in the index by owner. No uid is empty.
pub(super) const NOBODY: &str = "";

/// The key of an index.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum By {
    Label(Box<str>),
    Field(Box<str>),
    /// The uid of an owner; also [`NOBODY`].
    Owner,
    /// A label, as `key=value`, that the object's own selector requires; empty if there is none.
    Selector,
}

/// The indexes of one resource.
#[derive(Debug, Default)]
pub(super) struct Indexes {
    all: Vec<Index>,
    misses: Mutex<HashMap<By, u32>>,
    clock: AtomicU64,
}

#[derive(Debug)]
struct Index {
    by: By,
    values: HashMap<Box<str>, Rows>,
    last_used: AtomicU64,
}

/// Where to look for the objects of a query.
#[derive(Debug)]
pub(super) enum Found<'a> {
    /// Only in these rows of an index.
    Among(&'a Rows),
    /// An index shows that no object matches.
    Nothing,
    /// No index helps.
    Unknown,
}

impl Indexes {
    /// The smallest set known to hold all matches of a query.
    pub(super) fn find(&self, query: &Query, objects: usize) -> Found<'_> {
        let mut best = Found::Unknown;
        for (by, value) in terms(query) {
            match self.all.iter().find(|index| index.by.is(&by)) {
                Some(index) => {
                    index.last_used.store(self.clock.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
                    match (index.values.get(value), &best) {
                        (None, _) => return Found::Nothing,
                        (Some(rows), Found::Among(other)) if rows.len() >= other.len() => {}
                        (Some(rows), _) => best = Found::Among(rows),
                    }
                }
                None if objects >= SMALL => self.miss(by),
                None => {}
            }
        }
        best
    }

    /// The objects owned by the object with this uid, if there is an index by owner.
    pub(super) fn owned(&self, uid: &str) -> Found<'_> {
        match self.all.iter().find(|index| index.by == By::Owner) {
            Some(index) => index.values.get(uid).map_or(Found::Nothing, Found::Among),
            None => {
                self.misses.lock().insert(By::Owner, MISSES);
                Found::Unknown
            }
        }
    }

    /// Sets of objects that together hold all whose selector can match an object, if there is an index by selector.
    pub(super) fn selecting(&self, object: &Object) -> Option<Vec<&Rows>> {
        let Some(index) = self.all.iter().find(|index| index.by == By::Selector) else {
            self.misses.lock().insert(By::Selector, MISSES);
            return None;
        };
        let labels = object.meta().labels.iter().map(|(key, value)| Cow::from(term(key, value)));
        Some(labels.chain([Cow::from("")]).filter_map(|it| index.values.get(&*it)).collect())
    }

    fn miss(&self, by: Term<'_>) {
        let mut misses = self.misses.lock();
        if misses.len() > 4 * MOST {
            misses.clear();
        }
        *misses.entry(by.owned()).or_default() += 1;
    }

    /// An index with enough misses to be built now.
    pub(super) fn wanted(&self) -> Option<By> {
        let misses = self.misses.lock();
        misses.iter().find(|(_, count)| **count >= MISSES).map(|(by, _)| by.clone())
    }

    pub(super) fn make(&mut self, by: By, rows: &Rows) {
        self.misses.get_mut().remove(&by);
        if self.all.iter().any(|index| index.by == by) {
            return;
        }
        if self.all.len() >= MOST
            && let Some(at) = (0..self.all.len()).min_by_key(|at| self.all[*at].last_used.load(Ordering::Relaxed))
        {
            self.all.swap_remove(at);
        }
        let mut index = Index { by, values: HashMap::new(), last_used: AtomicU64::new(self.clock.fetch_add(1, Ordering::Relaxed)) };
        rows.iter().for_each(|object| index.add(object));
        self.all.push(index);
    }

    /// Updates the indexes after a change of one object.
    pub(super) fn change(&mut self, old: Option<&Arc<Object>>, new: Option<&Arc<Object>>) {
        for index in &mut self.all {
            if let Some(old) = old {
                index.remove(old, new);
            }
            if let Some(new) = new {
                index.add(new);
            }
        }
    }

    /// Rebuilds all indexes.
    pub(super) fn rebuild(&mut self, rows: &Rows) {
        for index in &mut self.all {
            index.values.clear();
            rows.iter().for_each(|object| index.add(object));
        }
    }
}

impl Index {
    fn add(&mut self, object: &Arc<Object>) {
        for value in self.by.values(object) {
            match self.values.get_mut(&*value) {
                Some(rows) => {
                    rows.put(object.clone());
                }
                None => {
                    self.values.insert(value.into(), Rows::from_iter([object.clone()]));
                }
            }
        }
    }

    /// Removes `old`, except where `new` replaces it under the same value.
    fn remove(&mut self, old: &Arc<Object>, new: Option<&Arc<Object>>) {
        for value in self.by.values(old) {
            if new.is_some_and(|new| self.by.values(new).any(|other| other == value)) {
                continue;
            }
            if let Some(rows) = self.values.get_mut(&*value) {
                rows.remove(&old.meta().name);
                if rows.is_empty() {
                    self.values.remove(&*value);
                }
            }
        }
    }
}

impl By {
    /// The values under which the index lists this object.
    pub(super) fn values<'a>(&self, object: &'a Object) -> impl Iterator<Item = Cow<'a, str>> + use<'a> {
        let (one, many) = match self {
            Self::Label(key) => (object.meta().label(key).map(Cow::from), &[][..]),
            Self::Field(path) => (object.field(path).map(Cow::from), &[][..]),
            Self::Owner => (object.meta().controller().is_none().then_some(NOBODY.into()), &*object.meta().owners),
            Self::Selector => (LabelSelector::in_spec(object).map(|it| needed(&it).into()), &[][..]),
        };
        one.into_iter().chain(many.iter().map(|owner| Cow::from(&*owner.uid)))
    }

    fn is(&self, term: &Term<'_>) -> bool {
        match (self, term) {
            (Self::Label(key), Term::Label(other)) => **key == **other,
            (Self::Field(path), Term::Field(other)) => **path == **other,
            _ => false,
        }
    }
}

/// An equality that a query requires.
#[derive(Clone, Copy)]
enum Term<'a> {
    Label(&'a str),
    Field(&'a str),
}

impl Term<'_> {
    fn owned(self) -> By {
        match self {
            Self::Label(key) => By::Label(key.into()),
            Self::Field(path) => By::Field(path.into()),
        }
    }
}

/// A label that the selector requires; the longest, as likely the rarest.
fn needed(selector: &LabelSelector) -> String {
    let labels = selector.requirements.iter().filter_map(|it| Some(term(&it.key, it.sole_value()?)));
    labels.max_by_key(String::len).unwrap_or_default()
}

fn term(key: &str, value: &str) -> String {
    format!("{key}={value}")
}

fn terms(query: &Query) -> impl Iterator<Item = (Term<'_>, &str)> {
    let labels = query.labels.requirements.iter().filter_map(|it| Some((Term::Label(&it.key), it.sole_value()?)));
    let fields = query.fields.terms.iter().filter(|it| it.equal && it.path != "metadata.namespace");
    labels.chain(fields.map(|it| (Term::Field(&it.path), &*it.value)))
}
