//! For tests: values that match the schema, random or complete.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::scalar;
use crate::object::schema::{self, Shape, Type};

/// An object of this type, at most `depth` deep, that decoding would leave as it is.
pub(super) fn object(kind: &'static Type, depth: u32) -> BoxedStrategy<Value> {
    if depth == 0 || kind.fields.is_empty() {
        return Just(json!({})).boxed();
    }
    let field = (0..kind.fields.len()).prop_flat_map(move |at| {
        let field = &kind.fields[at];
        value(&field.shape, depth - 1).prop_map(move |value| (!field.leaves_out(&value)).then(|| (field.name.to_owned(), value)))
    });
    prop::collection::vec(field, 0..6).prop_map(|fields| Value::Object(fields.into_iter().flatten().collect())).boxed()
}

fn value(shape: &'static Shape, depth: u32) -> BoxedStrategy<Value> {
    match shape {
        Shape::String => "[a-z]{0,5}".prop_map(Value::from).boxed(),
        Shape::Boolean => any::<bool>().prop_map(Value::from).boxed(),
        Shape::Int32 | Shape::IntOrString => any::<i32>().prop_map(Value::from).boxed(),
        Shape::Int64 => any::<i64>().prop_map(Value::from).boxed(),
        Shape::Double => (-1e9..1e9f64).prop_map(Value::from).boxed(),
        Shape::Quantity => "[1-9][0-9]{0,3}(|m|k|Mi|Gi)".prop_map(|text| scalar::quantity(&text).expect("a quantity")).boxed(),
        Shape::List(inner) => prop::collection::vec(value(inner, depth), 0..3).prop_map(Value::from).boxed(),
        Shape::Map(inner) => prop::collection::btree_map("[a-z]{1,4}", value(inner, depth), 0..3)
            .prop_map(|map| Value::Object(map.into_iter().collect()))
            .boxed(),
        Shape::Object(name) => object(schema::get(name).expect("described"), depth),
        shape => Just(full_value(shape, 0, &mut Vec::new())).boxed(),
    }
}

/// An object with every field of its type set, at most `depth` deep. Recursive types are nested once.
pub(super) fn full(kind: &'static Type, depth: u32) -> Value {
    full_within(kind, depth, &mut Vec::new())
}

fn full_within(kind: &'static Type, depth: u32, around: &mut Vec<&'static str>) -> Value {
    if depth == 0 || around.contains(&kind.name) {
        return json!({});
    }
    around.push(kind.name);
    let mut value: Value = kind.fields.iter().map(|field| (field.name.to_owned(), full_value(&field.shape, depth, around))).collect();
    around.pop();
    if let Some(api_version) = kind.api_version {
        value["apiVersion"] = api_version.into();
        value["kind"] = kind.short_name().into();
    }
    value
}

fn full_value(shape: &Shape, depth: u32, around: &mut Vec<&'static str>) -> Value {
    match shape {
        Shape::String => json!("text"),
        Shape::Boolean => json!(true),
        Shape::Int32 | Shape::Int64 | Shape::IntOrString => json!(7),
        Shape::Double => json!(0.5),
        Shape::Quantity => json!("100m"),
        Shape::Time => json!("2026-01-02T03:04:05Z"),
        Shape::MicroTime => json!("2026-01-02T03:04:05.000006Z"),
        Shape::Bytes => json!("aGk="),
        Shape::Any => json!({"any": [1, null, {"thing": "x"}]}),
        Shape::List(inner) => json!([full_value(inner, depth, around)]),
        Shape::Map(inner) => json!({"key": full_value(inner, depth, around)}),
        Shape::Object(name) => full_within(schema::get(name).expect("described"), depth - 1, around),
    }
}
