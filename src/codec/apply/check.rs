//! Whether an applied configuration has the form that the schema asks for, in the words of Kubernetes.

use std::collections::HashSet;

use serde_json::Value;

use super::split::{self, Identity, Split, split};
use crate::codec::fields::element;
use crate::object::schema::{Field, Merge, Shape, Type};
use crate::util::go;

/// # Errors
/// The faults: one line, or `errors:` and a line for each.
pub(super) fn check(kind: &'static Type, object: &Value) -> Result<(), String> {
    let mut check = Check { path: Vec::new(), faults: Vec::new() };
    check.fields(kind, object);
    match check.faults.as_slice() {
        [] => Ok(()),
        [fault] => Err(fault.clone()),
        faults => Err(format!("errors:\n{}", faults.iter().map(|it| format!("  {it}")).collect::<Vec<_>>().join("\n"))),
    }
}

struct Check {
    path: Vec<String>,
    faults: Vec<String>,
}

impl Check {
    fn fault(&mut self, message: &str) {
        let path: Vec<&str> = self.path.iter().map(String::as_str).collect();
        let colon = if path.is_empty() { "" } else { ": " };
        self.faults.push(format!("{}{colon}{message}", element::print(&path)));
    }

    fn below(&mut self, element: String, check: impl FnOnce(&mut Self)) {
        self.path.push(element);
        check(self);
        self.path.pop();
    }

    fn fields(&mut self, kind: &'static Type, object: &Value) {
        let Some(object) = object.as_object() else { return self.fault(&format!("expected map, got {}", unstructured(object))) };
        for (name, value) in object {
            let (shape, merge, field): (_, _, Option<&Field>) = split::field(kind, name);
            self.below(element::field(name), |it| match field {
                Some(_) => it.value(shape, merge, value),
                None => it.fault("field not declared in schema"),
            });
        }
    }

    fn value(&mut self, shape: &Shape, merge: &Merge, value: &Value) {
        if value.is_null() {
            return;
        }
        match (split(shape, merge, Some(value)), shape) {
            (Split::Fields(kind), _) => self.fields(kind, value),
            (Split::Items(identity, inner), _) => self.items(identity, inner, value),
            (Split::Entries(_), Shape::Any) => {}
            (_, Shape::Map(inner)) => match value {
                Value::Object(map) => {
                    for (name, value) in map {
                        self.below(element::field(name), |it| it.value(inner, &Merge::Default, value));
                    }
                }
                other => self.fault(&format!("expected map, got {}", unstructured(other))),
            },
            (_, Shape::Object(name)) => {
                if let Some(kind) = crate::object::schema::get(name) {
                    self.fields(kind, value);
                }
            }
            (_, Shape::List(inner)) => match value {
                Value::Array(items) => {
                    for (at, item) in items.iter().enumerate() {
                        self.below(format!("i:{at}"), |it| it.value(inner, &Merge::Default, item));
                    }
                }
                other => self.fault(&format!("expected list, got {}", unstructured(other))),
            },
            (_, shape) => self.scalar(shape, value),
        }
    }

    fn items(&mut self, identity: Identity, inner: &Shape, value: &Value) {
        let Value::Array(items) = value else { return self.fault(&format!("expected list, got {}", unstructured(value))) };
        let mut seen = HashSet::with_capacity(items.len());
        for (at, item) in items.iter().enumerate() {
            match identity.of(item, inner) {
                Ok(element) => {
                    if !seen.insert(element.clone()) {
                        self.fault(&format!("duplicate entries for key {}", element::print_one(&element)));
                    }
                    self.below(element, |it| it.value(inner, &Merge::Default, item));
                }
                // Deeper errors could not be told apart either.
                Err(why) => return self.fault(&format!("element {at}: {why}")),
            }
        }
    }

    fn scalar(&mut self, shape: &Shape, value: &Value) {
        let fits = match shape {
            Shape::Int32 | Shape::Int64 | Shape::Double => value.is_number(),
            Shape::Boolean => value.is_boolean(),
            Shape::String | Shape::Bytes => value.is_string(),
            Shape::Any => true,
            _ => !value.is_object() && !value.is_array(),
        };
        if fits {
            return;
        }
        let expected = match shape {
            Shape::Int32 | Shape::Int64 | Shape::Double => format!("numeric (int or float), got {}", go_type(value)),
            Shape::Boolean => format!("boolean, got {}", unstructured(value)),
            Shape::String | Shape::Bytes => format!("string, got &value.valueUnstructured{{Value:{}}}", literal(value)),
            _ => format!("any scalar, got {}", unstructured(value)),
        };
        self.fault(&format!("expected {expected}"));
    }
}

/// `%v` of a value of the merge library.
fn unstructured(value: &Value) -> String {
    format!("&{{{}}}", go::print(value))
}

/// `%T` of a decoded value.
fn go_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "<nil>",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "float64",
        Value::Number(_) => "int64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}

/// `%#v` of a decoded value.
fn literal(value: &Value) -> String {
    match value {
        Value::Null => "interface {}(nil)".to_owned(),
        Value::String(text) => go::quote(text),
        Value::Array(items) => format!("[]interface {{}}{{{}}}", items.iter().map(literal).collect::<Vec<_>>().join(", ")),
        Value::Object(map) => {
            let mut pairs: Vec<String> = map.iter().map(|(name, value)| format!("{}:{}", go::quote(name), literal(value))).collect();
            pairs.sort_unstable();
            format!("map[string]interface {{}}{{{}}}", pairs.join(", "))
        }
        Value::Bool(_) | Value::Number(_) => value.to_string(),
    }
}
