//! The changes of a write, as sets of paths.

use indexmap::IndexMap;
use serde_json::{Map, Value};

use super::owned;
use super::split::{self, Identity, Split, split};
use crate::codec::fields::{Node, Set, element, node};
use crate::object::schema::{Field, Merge, Shape, Type};

/// The difference of two states of an object.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Changes {
    /// Paths that are new or have another value.
    pub(super) written: Set,
    pub(super) removed: Set,
}

impl Changes {
    /// From `old` (`None` for a new object) to `new`.
    pub(super) fn between(kind: &'static Type, old: Option<&Value>, new: &Value) -> Self {
        static NOTHING: Value = Value::Null;
        let mut below = Below::default();
        fields(kind, Some(old.unwrap_or(&NOTHING)), Some(new), &mut below);
        let owned = |below| owned(Set::trusted(below));
        Self { written: owned(below.written), removed: owned(below.removed) }
    }
}

/// The changes at and below a path.
#[derive(Default)]
struct Found {
    written: Option<Node>,
    removed: Option<Node>,
}

/// The changes below a path.
#[derive(Default)]
struct Below {
    written: Node,
    removed: Node,
}

impl Below {
    fn add(&mut self, found: Found, element: impl FnOnce() -> String) {
        match (found.written, found.removed) {
            (None, None) => {}
            (Some(written), None) => {
                self.written.insert(element(), Value::Object(written));
            }
            (None, Some(removed)) => {
                self.removed.insert(element(), Value::Object(removed));
            }
            (Some(written), Some(removed)) => {
                let element = element();
                self.written.insert(element.clone(), Value::Object(written));
                self.removed.insert(element, Value::Object(removed));
            }
        }
    }
}

fn value(shape: &Shape, merge: &Merge, old: Option<&Value>, new: Option<&Value>) -> Found {
    match split(shape, merge, new.or(old)) {
        Split::Whole => whole(old, new),
        Split::Entries(Shape::Any) if [old, new].into_iter().flatten().any(|it| !it.is_object()) => {
            // Free in form, and now of another one.
            Found { written: value(shape, merge, None, new).written, removed: value(shape, merge, old, None).removed }
        }
        _ if is_bare(old) && is_bare(new) => whole(old, new),
        split => {
            let mut below = Below::default();
            match split {
                Split::Fields(kind) => fields(kind, old, new, &mut below),
                Split::Entries(inner) => entries(inner, old, new, &mut below),
                Split::Items(identity, inner) if items(identity, inner, old, new, &mut below).is_err() => return whole(old, new),
                Split::Items(..) | Split::Whole => {}
            }
            Found { written: node(below.written, old.is_none()), removed: node(below.removed, new.is_none()) }
        }
    }
}

/// A value that has one owner.
fn whole(old: Option<&Value>, new: Option<&Value>) -> Found {
    match (old, new) {
        (Some(old), Some(new)) if old == new => Found::default(),
        (Some(_), None) => Found { removed: Some(Node::new()), ..Found::default() },
        (_, Some(_)) => Found { written: Some(Node::new()), ..Found::default() },
        (None, None) => Found::default(),
    }
}

fn is_bare(value: Option<&Value>) -> bool {
    match value {
        Some(Value::Object(map)) => map.is_empty(),
        Some(Value::Array(items)) => items.is_empty(),
        _ => true,
    }
}

fn map(value: Option<&Value>) -> Option<&Map<String, Value>> {
    value.and_then(Value::as_object)
}

fn fields(kind: &'static Type, old: Option<&Value>, new: Option<&Value>, below: &mut Below) {
    let (before, after) = (map(old), map(new));
    let zero = |parent: Option<&Value>, field: Option<&Field>| parent.and_then(|_| field?.zero());
    for (name, new) in after.into_iter().flatten() {
        let (shape, merge, field) = split::field(kind, name);
        let old = before.and_then(|it| it.get(name)).or_else(|| zero(old, field));
        below.add(value(shape, merge, old, Some(new)), || element::field(name));
    }
    for (name, old) in before.into_iter().flatten().filter(|(name, _)| after.is_none_or(|it| !it.contains_key(*name))) {
        let (shape, merge, field) = split::field(kind, name);
        below.add(value(shape, merge, Some(old), zero(new, field)), || element::field(name));
    }
}

fn entries(inner: &Shape, old: Option<&Value>, new: Option<&Value>, below: &mut Below) {
    let (before, after) = (map(old), map(new));
    for (name, new) in after.into_iter().flatten() {
        let old = before.and_then(|it| it.get(name));
        below.add(value(inner, &Merge::Default, old, Some(new)), || element::field(name));
    }
    for (name, old) in before.into_iter().flatten().filter(|(name, _)| after.is_none_or(|it| !it.contains_key(*name))) {
        below.add(value(inner, &Merge::Default, Some(old), None), || element::field(name));
    }
}

/// # Errors
/// If an item has no unique key; the list is then compared as a whole.
fn items(identity: Identity, inner: &Shape, old: Option<&Value>, new: Option<&Value>, below: &mut Below) -> Result<(), String> {
    let mut found: IndexMap<String, [Vec<&Value>; 2]> = IndexMap::new();
    for (side, value) in [old, new].into_iter().enumerate() {
        for item in value.and_then(Value::as_array).into_iter().flatten() {
            found.entry(identity.of(item, inner)?).or_default()[side].push(item);
        }
    }
    for (element, [old, new]) in found {
        let change = match (&*old, &*new) {
            ([] | [_], [] | [_]) => value(inner, &Merge::Default, old.first().copied(), new.first().copied()),
            // Repeated items have one common owner.
            (old, new) if old == new => Found::default(),
            ([], _) | (_, [_, ..]) => Found { written: Some(Node::new()), ..Found::default() },
            (_, []) => Found { removed: Some(Node::new()), ..Found::default() },
        };
        below.add(change, || element);
    }
    Ok(())
}
