//! The fields that an applied configuration states, as a set of paths.

use serde_json::Value;

use super::owned;
use super::split::{self, Split, split};
use crate::codec::fields::{Node, Set, element, node};
use crate::object::schema::{Merge, Shape, Type};

/// The fields of an object of this type that has passed `check`.
pub(super) fn stated(kind: &'static Type, object: &Value) -> Set {
    let mut below = Node::new();
    fields(kind, object, &mut below);
    owned(Set::trusted(below))
}

/// As [`stated`], including the fields that identify the object.
pub(super) fn all(kind: &'static Type, object: &Value) -> Set {
    let mut below = Node::new();
    fields(kind, object, &mut below);
    Set::trusted(below)
}

fn fields(kind: &'static Type, object: &Value, below: &mut Node) {
    for (name, value) in object.as_object().into_iter().flatten() {
        let (shape, merge, _) = split::field(kind, name);
        add(below, element::field(name), self::value(shape, merge, value, false));
    }
}

fn add(below: &mut Node, element: String, found: Option<Node>) {
    if let Some(found) = found {
        below.insert(element, Value::Object(found));
    }
}

/// `is_part`: a map entry or list item, which has an owner of its own besides those of its content; an object's field has not.
fn value(shape: &Shape, merge: &Merge, value: &Value, is_part: bool) -> Option<Node> {
    let mut below = Node::new();
    match split(shape, merge, Some(value)) {
        Split::Whole => return Some(below),
        Split::Fields(kind) => fields(kind, value, &mut below),
        Split::Entries(inner) => {
            for (name, value) in value.as_object().into_iter().flatten() {
                add(&mut below, element::field(name), self::value(inner, &Merge::Default, value, true));
            }
        }
        Split::Items(identity, inner) => {
            for item in value.as_array().into_iter().flatten() {
                // An item whose key is not unique has no owner; `check` refuses to apply one.
                let Ok(element) = identity.of(item, inner) else { continue };
                let found = if below.contains_key(&element) { Some(Node::new()) } else { self::value(inner, &Merge::Default, item, true) };
                add(&mut below, element, found);
            }
        }
    }
    let is_bare = value.is_null() || value.as_object().is_some_and(serde_json::Map::is_empty);
    node(below, is_part || is_bare)
}
