//! The schema of every field of every kind: shape, merge rules, requiredness, default. Strict decoding, defaulting, pruning, strategic
//! merge, server-side apply, OpenAPI and `kubectl explain` use this and nothing else.
//!
//! The data is three text files. `types.schema` is generated from the API's declarations (`scripts/schema-derive`) and not edited;
//! `facts.schema` and `facts-other.schema` are written by hand: defaults that no declaration states, and the documentation. `parse.rs`
//! describes their grammar.

mod parse;

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::{LazyLock, OnceLock};

use serde_json::Value;

/// A named type: an object with fields.
#[derive(Debug, PartialEq)]
pub struct Type {
    /// Such as `io.k8s.api.core.v1.PodSpec`.
    pub name: &'static str,
    /// Such as `apps/v1`, for a type whose objects are bodies of requests and responses, and so have `apiVersion` and `kind`.
    pub api_version: Option<&'static str>,
    /// Our own text, for `kubectl explain`.
    pub doc: &'static str,
    /// `x-kubernetes-map-type: atomic`: values of different writers do not merge.
    pub atomic: bool,
    /// Ordered by name.
    pub fields: Vec<Field>,
    pub lookup: Lookup,
}

/// A hash table from field names to fields, with linear probing. Built on first use.
#[derive(Debug, Default, PartialEq)]
pub struct Lookup(OnceLock<Box<[Option<u16>]>>);

/// A field of a [`Type`].
#[derive(Debug, PartialEq)]
pub struct Field {
    /// As it is written in JSON.
    pub name: &'static str,
    /// The protobuf field number, preceded by those of the embedded messages around it that JSON does not show. Empty if only JSON has the
    /// field.
    pub tag: &'static [u32],
    pub doc: &'static str,
    pub shape: Shape,
    pub required: bool,
    /// Whether a zero value (`""`, 0, false) differs in meaning from an absent one.
    pub nullable: bool,
    /// Go's `omitempty`: zero values, empty lists and empty maps are not written; structures and times always are.
    pub omitempty: bool,
    /// JSON text of the value that an absent field gets if its parent is present. A zero value counts as absent unless `nullable`.
    pub default: Option<&'static str>,
    /// The default, if the API's declarations state it; other defaults are set by code only.
    pub declared_default: Option<&'static str>,
    /// The strings that the field (or each item) may hold; empty if any.
    pub allowed: &'static [&'static str],
    /// `x-kubernetes-list-type` and `-map-keys`, or `x-kubernetes-map-type: atomic`: for server-side apply.
    pub merge: Merge,
    /// `x-kubernetes-patch-merge-key`: for strategic merge patches. A list without one is replaced, unless `patch_merge` is set.
    pub patch_key: Option<&'static str>,
    /// `x-kubernetes-patch-strategy: merge`, on a list of scalars if there is no `patch_key`.
    pub patch_merge: bool,
    /// `x-kubernetes-patch-strategy: retainKeys`.
    pub retain_keys: bool,
    /// Part of a feature gate that is off by default: the field is decoded and owned, but not kept.
    pub off: bool,
}

/// The type of a value.
#[derive(Clone, Debug, PartialEq)]
pub enum Shape {
    String,
    Boolean,
    Int32,
    Int64,
    Double,
    /// A number or a string, such as `100m` or `64Mi`.
    Quantity,
    IntOrString,
    /// RFC 3339, whole seconds.
    Time,
    /// RFC 3339, microseconds.
    MicroTime,
    /// Base64.
    Bytes,
    /// Any JSON (`RawExtension`, `FieldsV1`).
    Any,
    /// The name of a [`Type`].
    Object(&'static str),
    List(Box<Shape>),
    Map(Box<Shape>),
}

/// How the values of two writers merge under server-side apply.
#[derive(Clone, Debug, PartialEq)]
pub enum Merge {
    /// Lists are atomic, maps and objects granular.
    Default,
    Atomic,
    /// Merged field by field, although the type is atomic.
    Granular,
    Set,
    /// A list of objects identified by these fields.
    Map(&'static [&'static str]),
}

impl Field {
    /// Whether this value is equivalent to an absent field.
    pub fn leaves_out(&self, value: &Value) -> bool {
        self.omitempty
            && !self.nullable
            && match (&self.shape, value) {
                (Shape::String | Shape::Bytes, Value::String(text)) => text.is_empty(),
                (Shape::Boolean, Value::Bool(value)) => !value,
                (Shape::Int32 | Shape::Int64 | Shape::Double, Value::Number(number)) => number.as_f64() == Some(0.0),
                (Shape::List(_), Value::Array(items)) => items.is_empty(),
                (Shape::Map(_), Value::Object(entries)) => entries.is_empty(),
                // Go's `omitempty` never omits a structure.
                _ => false,
            }
    }

    /// The value that Kubernetes, whose objects are Go structures, writes for an absent field; `None` if it writes nothing.
    pub fn zero(&self) -> Option<&'static Value> {
        static EMPTY: LazyLock<Value> = LazyLock::new(|| Value::Object(serde_json::Map::new()));
        static NUMBER: LazyLock<Value> = LazyLock::new(|| 0.into());
        static QUANTITY: LazyLock<Value> = LazyLock::new(|| "0".into());
        static STRING: Value = Value::String(String::new());
        match self.shape {
            _ if self.nullable => (!self.omitempty).then_some(&Value::Null),
            Shape::Object(_) => Some(&EMPTY),
            Shape::Time | Shape::MicroTime | Shape::Any => Some(&Value::Null),
            Shape::Quantity => Some(&QUANTITY),
            Shape::IntOrString => Some(&NUMBER),
            _ if self.omitempty => None,
            Shape::String => Some(&STRING),
            Shape::Boolean => Some(&Value::Bool(false)),
            Shape::Int32 | Shape::Int64 | Shape::Double => Some(&NUMBER),
            Shape::Bytes | Shape::List(_) | Shape::Map(_) => Some(&Value::Null),
        }
    }
}

impl Type {
    pub fn field(&self, name: &str) -> Option<&Field> {
        let places = self.lookup.0.get_or_init(|| places(&self.fields));
        let mut at = first_place(name, places.len());
        // The table has free places, so this loop ends.
        while let Some(field) = places[at] {
            let field = &self.fields[usize::from(field)];
            if field.name == name {
                return Some(field);
            }
            at = (at + 1) % places.len();
        }
        None
    }

    /// The last part of the name: the kind, if the type is one.
    pub fn short_name(&self) -> &'static str {
        self.name.rsplit('.').next().unwrap_or(self.name)
    }
}

fn places(fields: &[Field]) -> Box<[Option<u16>]> {
    let mut places = vec![None; (2 * fields.len() + 1).next_power_of_two()].into_boxed_slice();
    for (field, number) in fields.iter().zip(0..) {
        let mut at = first_place(field.name, places.len());
        while places[at].is_some() {
            at = (at + 1) % places.len();
        }
        places[at] = Some(number);
    }
    places
}

fn first_place(name: &str, places: usize) -> usize {
    let mut hasher = NameHasher::default();
    hasher.write(name.as_bytes());
    hasher.finish() as usize & (places - 1)
}

/// The whole schema as text; its hash changes with any part of it.
pub const SOURCES: [&str; 3] = [include_str!("types.schema"), include_str!("facts.schema"), include_str!("facts-other.schema")];

struct Schema {
    types: ByName<Type>,
    /// Names by `apiVersion` and kind.
    kinds: HashMap<(&'static str, &'static str), &'static str>,
}

static SCHEMA: LazyLock<Schema> = LazyLock::new(|| {
    let types: ByName<Type> = parse::parse(SOURCES[0], &SOURCES[1..]).into_iter().collect();
    let kinds = types.values().filter_map(|it| Some(((it.api_version?, it.short_name()), it.name))).collect();
    Schema { types, kinds }
});

/// A map from type names.
pub type ByName<T> = HashMap<&'static str, T, BuildHasherDefault<NameHasher>>;

/// Every write looks up the type of every object in it, so hashing must be fast. No client chooses the names, so collisions cannot be
/// provoked.
#[derive(Debug, Default)]
pub struct NameHasher(u64);

impl Hasher for NameHasher {
    fn write(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        let rest = rest.iter().fold(0, |word, byte| word << 8 | u64::from(*byte));
        for word in words.iter().map(|it| u64::from_le_bytes(*it)).chain([rest]) {
            self.0 = (self.0.rotate_left(5) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        }
    }

    fn finish(&self) -> u64 {
        self.0 ^ self.0 >> 32
    }
}

/// The type of this full name.
pub fn get(name: &str) -> Option<&'static Type> {
    SCHEMA.types.get(name)
}

/// The type of the objects of this `apiVersion` (`apps/v1`) and kind.
pub fn of_kind(api_version: &str, kind: &str) -> Option<&'static Type> {
    SCHEMA.kinds.get(&(api_version, kind)).and_then(|name| get(name))
}

/// Every type, in no order.
pub fn all() -> impl Iterator<Item = &'static Type> {
    SCHEMA.types.values()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::resource::ALL;

    #[test]
    fn every_resource_and_everything_it_holds_is_described() {
        for resource in ALL {
            let of_kind = of_kind(&resource.api_version(), resource.kind).map(|it| it.name);
            assert_eq!(of_kind, Some(resource.schema), "{resource:?}");
            for (group, version, kind) in resource.subresources.iter().map(|it| it.kind) {
                if kind.ends_with("Options") {
                    continue; // query parameters
                }
                let api_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
                assert!(super::of_kind(&api_version, kind).is_some(), "{api_version} {kind}");
            }
        }
        fn refers(shape: &Shape) -> Option<&'static str> {
            match shape {
                Shape::Object(name) => Some(name),
                Shape::List(inner) | Shape::Map(inner) => refers(inner),
                _ => None,
            }
        }
        for kind in all() {
            assert!(kind.fields.windows(2).all(|pair| pair[0].name < pair[1].name), "{} is not ordered", kind.name);
            for field in &kind.fields {
                if let Some(name) = refers(&field.shape) {
                    assert!(get(name).is_some(), "{}.{} is a {name}", kind.name, field.name);
                }
                if let Some(default) = field.default {
                    assert!(serde_json::from_str::<Value>(default).is_ok(), "{}.{}: {default}", kind.name, field.name);
                }
                for key in [field.patch_key].into_iter().flatten().chain(match &field.merge {
                    Merge::Map(keys) => keys.iter().copied(),
                    _ => [].iter().copied(),
                }) {
                    let item = refers(&field.shape).and_then(get).expect("a list of objects");
                    assert!(item.field(key).is_some(), "{}.{} has no key {key}", kind.name, field.name);
                }
            }
        }
    }

    #[test]
    fn explain_has_something_to_say_of_everything() {
        for kind in all() {
            assert!(!kind.doc.is_empty(), "{} is not documented", kind.name);
            for field in &kind.fields {
                assert!(!field.doc.is_empty(), "{}.{} is not documented", kind.name, field.name);
            }
        }
    }

    #[test]
    fn zeroes_that_are_not_written() {
        let leaves_out = |kind: &str, field: &str, value: Value| {
            get(kind).and_then(|it| it.field(field)).unwrap_or_else(|| panic!("{kind} has no {field}")).leaves_out(&value)
        };
        let (node, pod, set) = ("io.k8s.api.core.v1.NodeSpec", "io.k8s.api.core.v1.PodSpec", "io.k8s.api.apps.v1.StatefulSetSpec");
        assert!(leaves_out(node, "unschedulable", false.into()) && !leaves_out(node, "unschedulable", true.into()));
        assert!(leaves_out(pod, "nodeSelector", serde_json::json!({})) && leaves_out(pod, "tolerations", serde_json::json!([])));
        // A pointer, a required field, a structure, and one that is optional but always written.
        assert!(!leaves_out(set, "replicas", 0.into()) && !leaves_out(pod, "containers", serde_json::json!([])));
        assert!(!leaves_out(pod, "securityContext", serde_json::json!({})) && !leaves_out(set, "serviceName", "".into()));
    }

    #[test]
    fn fields_say_how_they_merge() {
        let spec = get("io.k8s.api.core.v1.PodSpec").expect("known");
        let containers = spec.field("containers").expect("known");
        assert_eq!(containers.shape, Shape::List(Box::new(Shape::Object("io.k8s.api.core.v1.Container"))));
        assert_eq!((containers.merge.clone(), containers.patch_key, containers.required), (Merge::Map(&["name"]), Some("name"), true));
        let volumes = spec.field("volumes").expect("known");
        assert!(volumes.retain_keys && volumes.patch_merge);
        assert_eq!(spec.field("tolerations").map(|it| (&it.merge, it.patch_key)), Some((&Merge::Atomic, None)));
        assert_eq!(spec.field("restartPolicy").map(|it| it.allowed), Some(&["Always", "Never", "OnFailure"][..]));
        assert_eq!(spec.field("nodeSelector").map(|it| &it.merge), Some(&Merge::Atomic));
        let container = get("io.k8s.api.core.v1.Container").expect("known");
        assert_eq!(container.field("ports").map(|it| &it.merge), Some(&Merge::Map(&["containerPort", "protocol"])));
        let finalizers = get("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta").and_then(|it| it.field("finalizers")).expect("known");
        assert!(finalizers.patch_merge && finalizers.patch_key.is_none() && finalizers.merge == Merge::Set);
        let config_map = get("io.k8s.api.core.v1.SecretKeySelector").and_then(|it| it.field("name")).expect("known");
        assert_eq!(config_map.tag, [1, 1]);
    }
}
