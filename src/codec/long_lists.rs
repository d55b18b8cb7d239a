//! Every list of the schema, with many elements: whatever a request is full of, what is done with it takes time in proportion to its length.
//!
//! That is measured in the CPU time of this thread, which other work of the machine does not change, and only where it is long: a fourth of
//! the elements must take much more than a sixteenth of the time.

use std::collections::{HashSet, VecDeque};
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::{PatchKind, conform, default, patch, validate, warnings};
use crate::codec::apply::{self, Writer};
use crate::object::schema::{self, Shape, Type};
use crate::object::{ResourceRef, resource};

/// The way to a value: fields, the only item of a list, the only entry of a map.
#[derive(Clone)]
enum Step {
    Field(&'static str),
    Item,
    Entry,
}

/// `value` in an object of this kind, at the end of the path.
fn wrapped(resource: ResourceRef, path: &[Step], value: Value) -> Value {
    let mut object = path.iter().rev().fold(value, |value, step| match step {
        Step::Field(name) => json!({ *name: value }),
        Step::Item => json!([value]),
        Step::Entry => json!({ "a": value }),
    });
    object["apiVersion"] = resource.api_version().into();
    object["kind"] = resource.kind.into();
    object["metadata"]["name"] = "x".into();
    object
}

/// An element that differs from those of other numbers.
fn element(shape: &Shape, number: usize, depth: usize) -> Value {
    match shape {
        Shape::String | Shape::Any | Shape::Bytes => format!("a{number:06}").into(),
        Shape::Int32 | Shape::Int64 | Shape::Double | Shape::IntOrString | Shape::Quantity => (number + 1).into(),
        Shape::Object(name) if depth < 2 => {
            let fields = schema::get(name).into_iter().flat_map(|it| &it.fields);
            let some = fields.filter(|it| it.required || matches!(it.shape, Shape::String | Shape::Int32));
            some.map(|it| (it.name.to_owned(), element(&it.shape, number, depth + 1)))
                .filter(|it| !it.1.is_null())
                .collect::<Map<_, _>>()
                .into()
        }
        _ => Value::Null,
    }
}

/// All that a server does with objects and patches.
fn handle(resource: ResourceRef, new: &Value, old: &Value) {
    let ready = |value: &Value| {
        let mut value = conform(resource, value.clone()).ok()?.value;
        default(resource, &mut value);
        Some(value)
    };
    let (Some(new), Some(old)) = (ready(new), ready(old)) else { return };
    validate(resource, &new, None);
    validate(resource, &new, Some(&old));
    warnings(resource, &new, None);
    warnings(resource, &new, Some(&old));
    let _ = patch(resource, &old, PatchKind::Strategic, &new);
    let writer = Writer { version: resource, manager: "m", subresource: "", now: "2026-01-01T00:00:00Z" };
    let _ = apply::apply(Some((&old, None)), &new, &writer, true);
}

const ITEMS: usize = 2000;
/// Less is not worth a second look.
const LONG: Duration = Duration::from_millis(150);
/// Between 4, for time in proportion to the length, and 16, for a loop in a loop.
const GROWTH: u32 = 8;

/// The CPU time for so many elements.
fn measured(resource: ResourceRef, path: &[Step], inner: &Shape, count: usize) -> Duration {
    let some = |from: usize| (from..from + count).map(|it| element(inner, it, 0)).collect::<Value>();
    let (new, old) = (wrapped(resource, path, some(0)), wrapped(resource, path, some(count / 2)));
    let worked = || nix::time::clock_gettime(nix::time::ClockId::CLOCK_THREAD_CPUTIME_ID).map(Duration::from).unwrap();
    let begun = worked();
    handle(resource, &new, &old);
    worked() - begun
}

#[test]
fn no_list_is_looped_over_for_each_of_its_elements() {
    let is_slow = |resource, path: &[Step], inner: &Shape| {
        let took = measured(resource, path, inner, ITEMS);
        took > LONG && took > measured(resource, path, inner, ITEMS / 4) * GROWTH
    };
    let mut slow = Vec::new();
    let mut seen: HashSet<(&str, &str)> = HashSet::new();
    let mut waiting: VecDeque<(ResourceRef, &'static Type, Vec<Step>)> = VecDeque::new();
    for resource in resource::ALL.iter().copied().filter(|it| it.is_stored()) {
        waiting.extend(schema::get(resource.schema).map(|it| (resource, it, Vec::new())));
    }
    let mut lists = 0;
    while let Some((resource, kind, path)) = waiting.pop_front() {
        for field in &kind.fields {
            if !seen.insert((kind.name, field.name)) {
                continue;
            }
            let mut path = [&path[..], &[Step::Field(field.name)]].concat();
            let mut shape = &field.shape;
            while let Shape::List(inner) | Shape::Map(inner) = shape {
                if let Shape::List(_) = shape {
                    lists += 1;
                    // Once may be chance.
                    if (0..3).all(|_| is_slow(resource, &path, inner)) {
                        slow.push(format!("{} of {}", field.name, kind.name));
                    }
                }
                path.push(if let Shape::List(_) = shape { Step::Item } else { Step::Entry });
                shape = inner;
            }
            if let Shape::Object(name) = shape {
                waiting.extend(schema::get(name).map(|it| (resource, it, path)));
            }
        }
    }
    assert!(lists > 150, "{lists} lists");
    assert!(slow.is_empty(), "{slow:#?}");
}
