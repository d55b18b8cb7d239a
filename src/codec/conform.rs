//! Checks any serde input (JSON, a value) against the schema while building the value: in one pass, with one allocation per kept value and
//! none for others. A wrong shape ends it; unknown and duplicate fields are recorded and dropped, as are zero values that count as absent.

use std::borrow::Cow;

use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use serde_json::map::{Entry, Map};
use serde_json::value::RawValue;

use super::scalar;
use crate::object::schema::{self, Field, Shape, Type};

/// Bound of the reported unknown and duplicate fields, as in Kubernetes.
const MOST_STRICT_ERRORS: usize = 100;

/// The result.
#[derive(Debug)]
pub(super) struct Conforming {
    pub(super) value: Value,
    pub(super) strict_errors: Vec<String>,
}

/// Why there is no value.
#[derive(Debug)]
pub(super) enum Failure<E> {
    /// The input is not of its format.
    Syntax(E),
    /// The input is well-formed, but a value does not match its field; with the message of Go's decoder, or of Kubernetes' converter.
    Shape(String),
}

/// Reads a document without a schema: an applied configuration, including nulls.
pub(super) fn free<'de, D: Deserializer<'de>>(input: D) -> Result<Conforming, Failure<D::Error>> {
    walk(&Shape::Any, input, scalar::Spelling::Json)
}

/// Reads an object of this kind; `spelling` selects the error messages.
pub(super) fn conform<'de, D: Deserializer<'de>>(
    kind: &'static Type,
    input: D,
    spelling: scalar::Spelling,
) -> Result<Conforming, Failure<D::Error>> {
    walk(&Shape::Object(kind.name), input, spelling)
}

fn walk<'de, D: Deserializer<'de>>(shape: &Shape, input: D, spelling: scalar::Spelling) -> Result<Conforming, Failure<D::Error>> {
    let mut walk = Walk { path: Vec::new(), owner: None, strict_errors: Vec::new(), failure: None, spelling };
    let result = Seed { shape, walk: &mut walk }.deserialize(input);
    match (result, walk.failure) {
        (_, Some(failure)) => Err(Failure::Shape(failure)),
        (Err(error), None) => Err(Failure::Syntax(error)),
        (Ok(value), None) => Ok(Conforming { value, strict_errors: walk.strict_errors }),
    }
}

enum Step {
    Field(&'static str),
    Key(Box<str>),
    Index(usize),
}

struct Walk {
    path: Vec<Step>,
    /// The type of the innermost object.
    owner: Option<&'static Type>,
    strict_errors: Vec<String>,
    failure: Option<String>,
    spelling: scalar::Spelling,
}

impl Walk {
    fn fail<T, E: Error>(&mut self, message: String) -> Result<T, E> {
        let error = E::custom(&message);
        self.failure = Some(message);
        Err(error)
    }

    fn mismatch<T, E: Error>(&mut self, found: Found, shape: &Shape) -> Result<T, E> {
        if self.spelling == scalar::Spelling::Converted
            && let Some(message) = found.unconvertible(shape)
        {
            return self.fail(message);
        }
        let got = found.in_json(shape);
        // These types parse their own text, with their own messages.
        match shape {
            Shape::Quantity => return self.fail(crate::util::quantity::QuantityError::Format.to_string()),
            Shape::Time | Shape::MicroTime => return self.fail(format!("json: cannot unmarshal {got} into Go value of type string")),
            Shape::IntOrString => return self.fail(format!("json: cannot unmarshal {got} into Go value of type int32")),
            _ => {}
        }
        let fields: Vec<&str> = self.path.iter().filter_map(|step| if let Step::Field(name) = step { Some(*name) } else { None }).collect();
        let to = go_type(shape);
        self.fail(if fields.is_empty() {
            format!("json: cannot unmarshal {got} into Go value of type {to}")
        } else {
            format!(
                "json: cannot unmarshal {got} into Go struct field {}.{} of type {to}",
                self.owner.map_or("", Type::short_name),
                fields.join(".")
            )
        })
    }

    /// Whether an empty list has a meaning in this field: an empty `metadata.managedFields` removes all owners of fields.
    fn is_reset(&self, field: &str) -> bool {
        field == "managedFields" && matches!(self.path[..], [Step::Field("metadata")])
    }

    fn strict(&mut self, what: &str, field: &str) {
        use std::fmt::Write;
        if self.strict_errors.len() >= MOST_STRICT_ERRORS {
            return;
        }
        let mut path = String::new();
        for step in &self.path {
            let dot = if path.is_empty() { "" } else { "." };
            let _ = match step {
                Step::Field(name) => write!(path, "{dot}{name}"),
                Step::Key(key) => write!(path, "{dot}{key}"),
                Step::Index(at) => write!(path, "[{at}]"),
            };
        }
        let dot = if path.is_empty() { "" } else { "." };
        let error = format!("{what} field \"{path}{dot}{field}\"");
        // Report each unknown field only once.
        if what != "unknown" || !self.strict_errors.contains(&error) {
            self.strict_errors.push(error);
        }
    }
}

/// A value in place of one of another type.
enum Found {
    Boolean,
    Integer(i128),
    Float(f64),
    String,
    List,
    Map,
}

impl Found {
    /// Go's JSON decoder's name for it; a number is shown if one is expected.
    fn in_json(&self, shape: &Shape) -> Cow<'static, str> {
        let shown = matches!(shape, Shape::Int32 | Shape::Int64 | Shape::IntOrString);
        match self {
            Self::Integer(number) if shown => format!("number {number}").into(),
            Self::Float(number) if shown => format!("number {number:?}").into(),
            Self::Boolean => "bool".into(),
            Self::Integer(_) | Self::Float(_) => "number".into(),
            Self::String => "string".into(),
            Self::List => "array".into(),
            Self::Map => "object".into(),
        }
    }

    /// The message of Kubernetes' converter for patched objects; `None` if it leaves the value to the decoder.
    fn unconvertible(&self, shape: &Shape) -> Option<String> {
        let kind = match self {
            Self::Boolean => "bool",
            Self::Integer(_) => "int64",
            Self::Float(_) => "float64",
            Self::String => "string",
            Self::List => "slice",
            Self::Map => "map",
        };
        Some(match (shape, self) {
            (Shape::Map(_), _) => format!("cannot restore map from {kind}"),
            (Shape::List(_) | Shape::Bytes, _) => format!("cannot restore slice from {kind}"),
            (Shape::Object(_), _) => format!("cannot restore struct from: {kind}"),
            (Shape::String, Self::Integer(_)) | (Shape::Int32 | Shape::Int64, Self::Float(_)) => {
                format!("cannot convert {kind} to {}", go_type(shape))
            }
            (Shape::Int32 | Shape::Int64, Self::Integer(_)) => return None,
            (Shape::String | Shape::Boolean | Shape::Int32 | Shape::Int64 | Shape::Double, _) => {
                format!("unrecognized type: {}", go_type(shape))
            }
            _ => return None,
        })
    }
}

/// How Go calls the type of a field.
fn go_type(shape: &Shape) -> String {
    match shape {
        Shape::String => "string".to_owned(),
        Shape::Boolean => "bool".to_owned(),
        Shape::Int32 => "int32".to_owned(),
        Shape::Int64 => "int64".to_owned(),
        Shape::Double => "float64".to_owned(),
        Shape::Quantity => "resource.Quantity".to_owned(),
        Shape::IntOrString => "intstr.IntOrString".to_owned(),
        Shape::Time => "v1.Time".to_owned(),
        Shape::MicroTime => "v1.MicroTime".to_owned(),
        Shape::Bytes => "[]uint8".to_owned(),
        Shape::Any => "runtime.RawExtension".to_owned(),
        Shape::Object(name) => name.rsplitn(3, '.').take(2).collect::<Vec<_>>().into_iter().rev().collect::<Vec<_>>().join("."),
        Shape::List(inner) => format!("[]{}", go_type(inner)),
        Shape::Map(inner) => format!("map[string]{}", go_type(inner)),
    }
}

/// Go's value of a `null` that cannot be omitted.
fn zero(shape: &Shape) -> Value {
    match shape {
        Shape::String | Shape::Bytes => Value::String(String::new()),
        Shape::Quantity => Value::String("0".to_owned()),
        Shape::Boolean => Value::Bool(false),
        Shape::Int32 | Shape::Int64 | Shape::Double | Shape::IntOrString => 0.into(),
        Shape::Object(_) | Shape::Map(_) => Value::Object(Map::new()),
        Shape::List(_) => Value::Array(Vec::new()),
        Shape::Time | Shape::MicroTime | Shape::Any => Value::Null,
    }
}

fn is_whole(value: f64) -> bool {
    value.fract() == 0.0 && value.abs() < i64::MAX as f64
}

struct Seed<'s, 'w> {
    shape: &'s Shape,
    walk: &'w mut Walk,
}

impl Seed<'_, '_> {
    fn quantity<E: Error>(self, text: &str) -> Result<Value, E> {
        scalar::quantity(text).or_else(|why| self.walk.fail(why))
    }
}

impl<'de> DeserializeSeed<'de> for Seed<'_, '_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, input: D) -> Result<Value, D::Error> {
        if matches!(self.shape, Shape::Quantity) {
            // A number stays as it is written, such as `1e3`.
            let written = Box::<RawValue>::deserialize(input)?;
            return match written.get().as_bytes().first() {
                Some(b'-' | b'0'..=b'9') => self.quantity(written.get()),
                _ => serde_json::Deserializer::from_str(written.get()).deserialize_any(self).map_err(Error::custom),
            };
        }
        input.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_, '_> {
    type Value = Value;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        match self.shape {
            Shape::Boolean | Shape::Any => Ok(value.into()),
            shape => self.walk.mismatch(Found::Boolean, shape),
        }
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        match self.shape {
            Shape::Int32 | Shape::IntOrString if i32::try_from(value).is_ok() => Ok(value.into()),
            Shape::Int64 | Shape::Double | Shape::Any => Ok(value.into()),
            shape => self.walk.mismatch(Found::Integer(value.into()), shape),
        }
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        match (i64::try_from(value), self.shape) {
            (Ok(value), _) => self.visit_i64(value),
            (Err(_), Shape::Double | Shape::Any) => Ok(value.into()),
            (Err(_), shape) => self.walk.mismatch(Found::Integer(value.into()), shape),
        }
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        let converted = self.walk.spelling == scalar::Spelling::Converted;
        let is_negative_zero = value == 0.0 && value.is_sign_negative();
        match self.shape {
            Shape::Double | Shape::Any => Ok(value.into()),
            // The converter accepts whole numbers in any notation. A document may contain `-0`.
            Shape::Int32 | Shape::Int64 | Shape::IntOrString if is_whole(value) && (converted || is_negative_zero) => {
                self.visit_i64(value as i64)
            }
            shape => self.walk.mismatch(Found::Float(value), shape),
        }
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Value, E> {
        self.visit_string(text.to_owned())
    }

    fn visit_string<E: Error>(self, text: String) -> Result<Value, E> {
        match scalar::string(self.shape, text) {
            Ok(value) => Ok(value),
            Err(Some(message)) => self.walk.fail(message),
            Err(None) => self.walk.mismatch(Found::String, self.shape),
        }
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let inner = match self.shape {
            Shape::List(inner) => inner,
            Shape::Any => &Shape::Any,
            shape => return self.walk.mismatch(Found::List, shape),
        };
        let mut list = Vec::new();
        loop {
            self.walk.path.push(Step::Index(list.len()));
            let item = items.next_element_seed(Seed { shape: inner, walk: self.walk })?;
            self.walk.path.pop();
            match item {
                Some(Value::Null) => list.push(zero(inner)),
                Some(item) => list.push(item),
                None => return Ok(Value::Array(list)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, entries: A) -> Result<Value, A::Error> {
        match self.shape {
            Shape::Object(name) => match schema::get(name) {
                Some(kind) => object(kind, self.walk, entries),
                None => self.walk.fail(format!("the type {name} is not described")),
            },
            Shape::Map(inner) => map(inner, self.walk, entries),
            Shape::Any => map(&Shape::Any, self.walk, entries),
            shape => self.walk.mismatch(Found::Map, shape),
        }
    }
}

fn object<'de, A: MapAccess<'de>>(kind: &'static Type, walk: &mut Walk, mut entries: A) -> Result<Value, A::Error> {
    let (mut map, mut zeroes, mut later) = (Map::new(), false, Vec::new());
    let mut nulls: Vec<&str> = Vec::new();
    let outer = walk.owner.replace(kind);
    while let Some(key) = entries.next_key_seed(FieldSeed(kind))? {
        match key {
            FieldKey::Known(field) => {
                walk.path.push(Step::Field(field.name));
                let value = entries.next_value_seed(Seed { shape: &field.shape, walk: &mut *walk })?;
                walk.path.pop();
                zeroes |= field.leaves_out(&value);
                let mut is_known = nulls.contains(&field.name);
                if value.is_null() {
                    // A null counts as absent, and removes an earlier value of the same key.
                    is_known |= map.remove(field.name).is_some();
                    nulls.push(field.name);
                } else {
                    match map.entry(field.name) {
                        Entry::Vacant(entry) => drop(entry.insert(value)),
                        Entry::Occupied(mut entry) => {
                            is_known = true;
                            match (entry.get_mut(), value) {
                                // Go reads the second into the first.
                                (Value::Object(all), Value::Object(more)) => all.extend(more),
                                (slot, value) => *slot = value,
                            }
                        }
                    }
                }
                if is_known {
                    walk.strict("duplicate", field.name);
                }
            }
            FieldKey::Unknown(name) => {
                entries.next_value::<IgnoredAny>()?;
                match walk.spelling {
                    scalar::Spelling::Converted => later.push(name),
                    _ => walk.strict("unknown", &name),
                }
            }
        }
    }
    // The converter processes known fields first.
    later.iter().for_each(|name| walk.strict("unknown", name));
    walk.owner = outer;
    // Only now: duplicates are reported even for zero values.
    if zeroes {
        map.retain(|name, value| walk.is_reset(name) || !kind.field(name).is_some_and(|it| it.leaves_out(value)));
    }
    Ok(Value::Object(map))
}

fn map<'de, A: MapAccess<'de>>(inner: &Shape, walk: &mut Walk, mut entries: A) -> Result<Value, A::Error> {
    let mut map = Map::new();
    // Paths go through the keys of maps only where something below can be unknown.
    let deep = matches!(inner, Shape::Object(_) | Shape::Any);
    while let Some(key) = entries.next_key_seed(KeySeed)? {
        if deep {
            walk.path.push(Step::Key(key.as_str().into()));
        }
        let mut value = entries.next_value_seed(Seed { shape: inner, walk: &mut *walk })?;
        if deep {
            walk.path.pop();
        }
        if value.is_null() {
            value = zero(inner);
        } else if matches!(inner, Shape::Quantity) {
            // Such maps are lists of resources, all of them.
            value = scalar::amount(value);
        }
        match map.entry(key) {
            Entry::Vacant(entry) => {
                entry.insert(value);
            }
            Entry::Occupied(mut entry) => {
                walk.strict("duplicate", entry.key());
                entry.insert(value);
            }
        }
    }
    Ok(Value::Object(map))
}

enum FieldKey {
    Known(&'static Field),
    Unknown(String),
}

struct FieldSeed(&'static Type);

impl<'de> DeserializeSeed<'de> for FieldSeed {
    type Value = FieldKey;

    fn deserialize<D: Deserializer<'de>>(self, input: D) -> Result<FieldKey, D::Error> {
        input.deserialize_str(self)
    }
}

impl Visitor<'_> for FieldSeed {
    type Value = FieldKey;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the name of a field")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<FieldKey, E> {
        Ok(self.0.field(name).map_or_else(|| FieldKey::Unknown(name.to_owned()), FieldKey::Known))
    }
}

struct KeySeed;

impl<'de> DeserializeSeed<'de> for KeySeed {
    type Value = String;

    fn deserialize<D: Deserializer<'de>>(self, input: D) -> Result<String, D::Error> {
        input.deserialize_str(self)
    }
}

impl Visitor<'_> for KeySeed {
    type Value = String;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: Error>(self, key: &str) -> Result<String, E> {
        Ok(key.to_owned())
    }

    fn visit_string<E: Error>(self, key: String) -> Result<String, E> {
        Ok(key)
    }
}
