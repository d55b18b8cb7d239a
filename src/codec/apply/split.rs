//! The parts of a value that can have different owners, according to the schema.

use serde_json::Value;

use crate::codec::fields::element;
use crate::object::schema::{self, Field, Merge, Shape, Type};

/// The parts of a value.
#[derive(Clone, Copy, Debug)]
pub(super) enum Split<'s> {
    /// One owner: a scalar, or an atomic list or object.
    Whole,
    Fields(&'static Type),
    /// The entries of a map.
    Entries(&'s Shape),
    /// The items of a list.
    Items(Identity, &'s Shape),
}

/// How items of a list are identified.
#[derive(Clone, Copy, Debug)]
pub(super) enum Identity {
    /// By these fields.
    Keys(&'static [&'static str]),
    /// By their value.
    Value,
}

/// The parts of a value of this shape; where the schema leaves the form open, `sample` decides.
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
    /// If the item has no unique key.
    pub(super) fn of(self, item: &Value, shape: &Shape) -> Result<String, String> {
        match (self, shape) {
            (Self::Keys(keys), Shape::Object(name)) => element::key(item, keys, schema::get(name)),
            (Self::Keys(keys), _) => element::key(item, keys, None),
            (Self::Value, _) => element::value(item),
        }
    }
}

/// Shape and merge rule of an object's field. Fields unknown to the schema are free-form.
pub(super) fn field(kind: &'static Type, name: &str) -> (&'static Shape, &'static Merge, Option<&'static Field>) {
    match kind.field(name) {
        // A known field that may hold anything has one owner.
        Some(field) if field.shape == Shape::Any => (&field.shape, &Merge::Atomic, Some(field)),
        Some(field) => (&field.shape, &field.merge, Some(field)),
        None => (&Shape::Any, &Merge::Default, None),
    }
}
