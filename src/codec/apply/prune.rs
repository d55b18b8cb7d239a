//! Removes fields that a manager no longer applies.

use serde_json::Value;

use super::extract::all;
use super::split::{self, Split, split};
use crate::codec::fields::{Node, Set, child, elements, goes_on, is_end, node};
use crate::object::schema::{Merge, Shape, Type};

/// `merged` without the fields that only the applying manager owned, and no longer owns.
///
/// `last` is the manager's last applied set, `owned` the union of all current ones. Fields without an owner are removed with the last owned
/// field around them, unless an owner has a field below.
pub(super) fn prune(kind: &'static Type, merged: Value, last: &Set, owned: &Set) -> Value {
    let named = |set: &Set| Set::trusted(named(&Shape::Object(kind.name), &Merge::Default, set.nodes(), false).unwrap_or_default());
    let without = |gone: &Set| {
        let mut value = merged.clone();
        remove(&Shape::Object(kind.name), &Merge::Default, &mut value, gone.nodes());
        value
    };
    let (last, mut kept, present) = (named(last), named(owned), named(&all(kind, &merged)));
    // Remove all of the last applied set, including all below it...
    let pruned = without(&last);
    // ...except owned fields, and their parents.
    kept.union(&named(&all(kind, &pruned)));
    let mut gone = present.clone();
    gone.subtract(&kept);
    let pruned = without(&gone);
    // Restore fields below that the manager never owned.
    let mut gone = present;
    gone.subtract(&named(&all(kind, &pruned)));
    without(&gone.intersection(&last))
}

/// A set including the object fields that its paths pass through. The set itself has only the ends of paths, which for a field of an object
/// mean only its value.
fn named(shape: &Shape, merge: &Merge, set: &Node, end: bool) -> Option<Node> {
    let mut below = Node::new();
    for (element, inner) in elements(set) {
        let (shape, merge, is_field) = step(shape, merge, element);
        if let Some(inner) = named(shape, merge, inner, is_end(inner) || is_field) {
            below.insert(element.clone(), Value::Object(inner));
        }
    }
    node(below, end)
}

/// Shape and merge rule at an element, and whether it is a field of an object.
fn step<'s>(shape: &'s Shape, merge: &Merge, element: &str) -> (&'s Shape, &'s Merge, bool) {
    static SAMPLE: std::sync::LazyLock<Value> = std::sync::LazyLock::new(|| Value::Object(serde_json::Map::new()));
    match (split(shape, merge, Some(&SAMPLE)), element.strip_prefix("f:")) {
        (Split::Fields(kind), Some(name)) => {
            let (shape, merge, field) = split::field(kind, name);
            (shape, merge, field.is_some())
        }
        (Split::Entries(inner) | Split::Items(_, inner), _) => (inner, &Merge::Default, false),
        _ => (&Shape::Any, &Merge::Default, false),
    }
}

/// Removes the values at the paths of a set. An object or list that becomes empty becomes null.
fn remove(shape: &Shape, merge: &Merge, value: &mut Value, set: &Node) {
    let split = split(shape, merge, Some(value));
    match (split, &mut *value) {
        (Split::Fields(_) | Split::Entries(_), Value::Object(map)) if !map.is_empty() => {
            map.retain(|name, value| {
                let element = crate::codec::fields::element::field(name);
                let (shape, merge, _) = step(shape, merge, &element);
                keep(shape, merge, value, child(set, &element))
            });
            if map.is_empty() {
                *value = Value::Null;
            }
        }
        (Split::Items(identity, inner), Value::Array(items)) if !items.is_empty() => {
            items.retain_mut(|item| {
                let found = identity.of(item, inner).ok();
                keep(inner, &Merge::Default, item, found.and_then(|it| child(set, &it)))
            });
            if items.is_empty() {
                *value = Value::Null;
            }
        }
        _ => {}
    }
}

fn keep(shape: &Shape, merge: &Merge, value: &mut Value, gone: Option<&Node>) -> bool {
    match gone {
        Some(gone) if is_end(gone) => return false,
        Some(gone) if goes_on(gone) => remove(shape, merge, value, gone),
        _ => {}
    }
    true
}
