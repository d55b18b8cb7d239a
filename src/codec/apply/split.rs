//! How a value divides into parts that can have different owners, as the schema says.

use serde_json::Value;

use crate::codec::fields::element;
use crate::object::schema::{self, Field, Merge, Shape, Type};

/// The parts of a value.
#[derive(Clone, Copy, Debug)]
pub(super) enum Split<'s> {
    /// It has one owner: a scalar, or a list or an object that is atomic.
    Whole,
    Fields(&'static Type),
    /// The entries of a map.
    Entries(&'s Shape),
    /// The items of a list.
    Items(Identity, &'s Shape),
}

/// What tells the items of a list apart.
#[derive(Clone, Copy, Debug)]
pub(super) enum Identity {
    /// These fields of theirs.
    Keys(&'static [&'static str]),
    /// Their value.
    Value,
}

/// The parts of a value of this shape; `sample` is one, whose form decides where the schema leaves it open.
pub(super) fn split<'s>(shape: &'s Shape, merge: &Merge, sample: Option<&Value>) -> Split<'s> {
    match (merge, shape) {
        (Merge::Atomic, _) => Split::Whole,
        (_, Shape::Object(name)) => match schema::get(name) {
            Some(kind) if !kind.atomic || *merge == Merge::Granular => Split::Fields(kind),
            _ => Split::Whole,
        },
        (_, Shape::Map(inner)) => Split::Entries(inner),
        (Merge::Set, Shape::List(inner)) => Split::Items(Identity::Value, inner),
        (Merge::Map(keys), Shape::List(inner)) => Split::Items(Identity::Keys(keys), inner),
        (_, Shape::Any) if sample.is_some_and(Value::is_object) => Split::Entries(&Shape::Any),
        _ => Split::Whole,
    }
}

impl Identity {
    /// The path element of an item.
    ///
    /// # Errors
    /// If the item cannot be told from others.
    pub(super) fn of(self, item: &Value, shape: &Shape) -> Result<String, String> {
        match (self, shape) {
            (Self::Keys(keys), Shape::Object(name)) => element::key(item, keys, schema::get(name)),
            (Self::Keys(keys), _) => element::key(item, keys, None),
            (Self::Value, _) => element::value(item),
        }
    }
}

/// Shape and merging of an object's field. What the schema does not know is free in form.
pub(super) fn field(kind: &'static Type, name: &str) -> (&'static Shape, &'static Merge, Option<&'static Field>) {
    match kind.field(name) {
        // A known field that may hold anything has one owner.
        Some(field) if field.shape == Shape::Any => (&field.shape, &Merge::Atomic, Some(field)),
        Some(field) => (&field.shape, &field.merge, Some(field)),
        None => (&Shape::Any, &Merge::Default, None),
    }
}
