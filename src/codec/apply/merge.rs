//! An applied configuration laid over an object.

use std::collections::{HashMap, HashSet};

use serde_json::Value;

use super::split::{self, Identity, Split, split};
use crate::object::schema::{Merge, Shape, Type};

/// Merges `applied`, which has passed `check`, into `live`. A null removes a value.
pub(super) fn merge(kind: &'static Type, live: Value, applied: &Value) -> Value {
    value(&Shape::Object(kind.name), &Merge::Default, live, applied)
}

fn value(shape: &Shape, how: &Merge, live: Value, applied: &Value) -> Value {
    let sample = if applied.is_null() { &live } else { applied };
    match (split(shape, how, Some(sample)), live, applied) {
        (Split::Whole, ..) => applied.clone(),
        // A null states nothing about the content.
        (_, live @ (Value::Object(_) | Value::Array(_)), Value::Null) => live,
        (Split::Items(identity, inner), Value::Array(live), Value::Array(applied)) => items(identity, inner, live, applied).into(),
        (split @ (Split::Fields(_) | Split::Entries(_)), Value::Object(mut live), Value::Object(applied)) => {
            for (name, applied) in applied {
                let (inner, how) = below(split, name);
                let slot = live.entry(name).or_insert(Value::Null);
                *slot = value(inner, how, slot.take(), applied);
            }
            Value::Object(live)
        }
        _ => applied.clone(),
    }
}

fn below<'s>(split: Split<'s>, name: &str) -> (&'s Shape, &'s Merge) {
    match split {
        Split::Fields(kind) => {
            let (shape, merge, _) = split::field(kind, name);
            (shape, merge)
        }
        Split::Entries(inner) | Split::Items(_, inner) => (inner, &Merge::Default),
        Split::Whole => (&Shape::Any, &Merge::Default),
    }
}

/// The applied items in their order; items of only the object stay before the applied ones that they preceded.
fn items(identity: Identity, inner: &Shape, live: Vec<Value>, applied: &[Value]) -> Vec<Value> {
    let name = |item: &Value| identity.of(item, inner).unwrap_or_default();
    let names: Vec<String> = applied.iter().map(name).collect();
    let wanted: HashSet<&str> = names.iter().map(String::as_str).collect();
    let mut shared: HashMap<String, Option<Value>> = HashMap::new();
    // In the object's order: an item of the object only, or the key of a shared one.
    let mut order = Vec::with_capacity(live.len());
    for item in live {
        let name = name(&item);
        if !wanted.contains(name.as_str()) {
            order.push(Err(item));
            continue;
        }
        // A repeated item is ambiguous: the applied one replaces them all.
        shared.entry(name.clone()).and_modify(|it| *it = None).or_insert(Some(item));
        order.push(Ok(name));
    }
    let mut out = Vec::with_capacity(order.len() + applied.len());
    let is_shared = |at: &usize| shared.contains_key(&names[*at]);
    let mut next = (0..names.len()).filter(is_shared).collect::<Vec<_>>().into_iter().peekable();
    let mut put = |at: usize, out: &mut Vec<Value>| {
        let live = shared.get_mut(&names[at]).and_then(Option::take);
        out.push(live.map_or_else(|| applied[at].clone(), |live| value(inner, &Merge::Default, live, &applied[at])));
    };
    let mut done = 0;
    for item in order {
        match item {
            Err(own) => out.push(own),
            // Only the next of the shared ones takes its place; one that is to come later, or has come, does not.
            Ok(name) => {
                if let Some(at) = next.next_if(|at| names[*at] == name) {
                    (done..=at).for_each(|at| put(at, &mut out));
                    done = at + 1;
                }
            }
        }
    }
    (done..names.len()).for_each(|at| put(at, &mut out));
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::object::schema;

    #[test]
    fn applied_items_may_fill_a_request() {
        let kind = schema::get("io.k8s.api.core.v1.ConfigMap").unwrap();
        let of = |finalizers: Vec<String>| json!({"metadata": {"finalizers": finalizers}});
        let some = |prefix: &str| (0..40_000).map(|it| format!("{prefix}{it}")).collect::<Vec<_>>();
        let last = vec!["z".to_owned()];
        let live = of([some("s"), last.clone()].concat());
        let applied = of([some("n"), last, some("s")].concat());
        // The last of the live ones is the next of the applied ones: those before it are out of order.
        assert_eq!(merge(kind, live, &applied), applied);
    }
}
