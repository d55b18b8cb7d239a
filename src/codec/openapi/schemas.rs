//! Types as OpenAPI schemas.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::{Dialect, group_version_kind, list_of, reference};
use crate::codec::decode::api_version;
use crate::object::schema::{self, Field, Merge, Shape, Type};
use crate::object::{ResourceRef, resource};

pub(super) const STATUS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Status";
pub(super) const DELETE_OPTIONS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions";
pub(super) const PATCH: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Patch";
pub(super) const RESOURCE_LIST: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.APIResourceList";
pub(super) const WATCH_EVENT: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.WatchEvent";
const LIST_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta";
const QUANTITY: &str = "io.k8s.apimachinery.pkg.api.resource.Quantity";
const INT_OR_STRING: &str = "io.k8s.apimachinery.pkg.util.intstr.IntOrString";
const TIME: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Time";
const MICRO_TIME: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.MicroTime";
/// The one field that holds a [`FIELDS`].
const FIELDS_V1: &str = "fieldsV1";
const FIELDS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.FieldsV1";
const RAW: &str = "io.k8s.apimachinery.pkg.runtime.RawExtension";

/// The schemas of these resources and their lists, and of all they refer to, by name.
pub(super) fn schemas(resources: &[ResourceRef], dialect: Dialect) -> Value {
    let mut names = BTreeSet::new();
    reach(RESOURCE_LIST, &mut names);
    if resources.iter().any(|it| it.allows("list")) {
        reach(LIST_META, &mut names);
    }
    if resources.iter().any(|it| it.allows("watch")) {
        [STATUS, DELETE_OPTIONS, PATCH, WATCH_EVENT].into_iter().for_each(|name| reach(name, &mut names));
    }
    let mut all: Vec<(String, Value)> = Vec::new();
    for resource in resources {
        reach(resource.schema, &mut names);
        if resource.allows("list") {
            all.push((list_of(resource.schema), list(resource, dialect)));
        }
        for (group, version, kind) in resource.subresources.iter().map(|it| it.kind) {
            if let Some(kind) = schema::of_kind(&api_version(group, version), kind) {
                reach(kind.name, &mut names);
            }
        }
    }
    all.extend(scalars(dialect).into_iter().filter(|(name, _)| names.contains(name.as_str())));
    all.extend(names.iter().filter_map(|name| schema::get(name)).map(|kind| (kind.name.to_owned(), object(kind, dialect))));
    all.sort_by(|(a, _), (b, _)| a.cmp(b));
    Value::Object(all.into_iter().collect())
}

fn reach(name: &'static str, into: &mut BTreeSet<&'static str>) {
    fn of(shape: &Shape) -> Option<&'static str> {
        match shape {
            Shape::Object(name) => Some(name),
            Shape::List(inner) | Shape::Map(inner) => of(inner),
            Shape::Quantity => Some(QUANTITY),
            Shape::IntOrString => Some(INT_OR_STRING),
            Shape::Time => Some(TIME),
            Shape::MicroTime => Some(MICRO_TIME),
            Shape::Any => Some(RAW),
            _ => None,
        }
    }
    if into.insert(name)
        && let Some(kind) = schema::get(name)
    {
        let of = |field: &Field| if field.name == FIELDS_V1 { Some(FIELDS) } else { of(&field.shape) };
        kind.fields.iter().filter_map(of).for_each(|name| reach(name, into));
    }
}

fn scalars(dialect: Dialect) -> Vec<(String, Value)> {
    let v3 = dialect == Dialect::V3;
    let quantity = if v3 { json!({"oneOf": [{"type": "string"}, {"type": "number"}]}) } else { json!({"type": "string"}) };
    let int_or_string = if v3 {
        json!({"format": "int-or-string", "oneOf": [{"type": "integer"}, {"type": "string"}]})
    } else {
        json!({"format": "int-or-string", "type": "string"})
    };
    let described = |mut schema: Value, text: &str| {
        schema["description"] = text.into();
        schema
    };
    vec![
        (QUANTITY.to_owned(), described(quantity, "An amount: a number, with an optional suffix such as m, k, M, G, Ki, Mi or Gi.")),
        (INT_OR_STRING.to_owned(), described(int_or_string, "A number or a string.")),
        (TIME.to_owned(), described(json!({"type": "string", "format": "date-time"}), "A time in the format of RFC 3339.")),
        (
            MICRO_TIME.to_owned(),
            described(json!({"type": "string", "format": "date-time"}), "A time in the format of RFC 3339, with microseconds."),
        ),
        (PATCH.to_owned(), described(json!({"type": "object"}), "A change to an object.")),
        (FIELDS.to_owned(), described(json!({"type": "object"}), "A set of fields, as a tree of their names.")),
        (RAW.to_owned(), described(json!({"type": "object"}), "Any object.")),
    ]
}

fn list(resource: ResourceRef, dialect: Dialect) -> Value {
    let kind = format!("{}List", resource.kind);
    let string = |text: &str| json!({"type": "string", "description": text});
    json!({
        "description": format!("A list of objects of kind {}.", resource.kind),
        "type": "object",
        "required": ["items"],
        "properties": {
            "apiVersion": string("The group and version of the kind."),
            "items": {"type": "array", "description": "The objects.", "items": part(&Shape::Object(resource.schema), &[], dialect)},
            "kind": string("Kind of the list: the kind of its objects with the suffix List."),
            "metadata": part(&Shape::Object(LIST_META), &[], dialect),
        },
        "x-kubernetes-group-version-kind": [group_version_kind((resource.group, resource.version, &kind))],
    })
}

fn object(kind: &Type, dialect: Dialect) -> Value {
    let mut schema = Map::new();
    if !kind.doc.is_empty() {
        schema.insert("description".to_owned(), kind.doc.into());
    }
    schema.insert("type".to_owned(), "object".into());
    let required: Vec<&str> = kind.fields.iter().filter(|field| field.required).map(|field| field.name).collect();
    if !required.is_empty() {
        schema.insert("required".to_owned(), required.into());
    }
    if !kind.fields.is_empty() {
        schema.insert("properties".to_owned(), kind.fields.iter().map(|it| (it.name.to_owned(), property(it, dialect))).collect());
    }
    if matches!(kind.name, DELETE_OPTIONS | WATCH_EVENT) {
        // They belong to the group and version of the object concerned.
        let mut versions: Vec<(&str, &str)> = resource::ALL.iter().map(|it| (it.group, it.version)).collect();
        versions.dedup();
        let kinds = versions.into_iter().map(|(group, version)| group_version_kind((group, version, kind.short_name()))).collect();
        schema.insert("x-kubernetes-group-version-kind".to_owned(), kinds);
    } else if let Some(api_version) = kind.api_version {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        schema.insert("x-kubernetes-group-version-kind".to_owned(), json!([group_version_kind((group, version, kind.short_name()))]));
    }
    if kind.atomic {
        schema.insert("x-kubernetes-map-type".to_owned(), "atomic".into());
    }
    Value::Object(schema)
}

fn property(field: &Field, dialect: Dialect) -> Value {
    let mut schema = match (&field.shape, field.name) {
        (Shape::Any, FIELDS_V1) => referring(reference(FIELDS, dialect), dialect),
        (shape, _) => self::shape(shape, field.allowed, dialect),
    };
    let Some(map) = schema.as_object_mut() else { return schema };
    let mut add = |name: &str, value: Value| drop(map.insert(name.to_owned(), value));
    if !field.doc.is_empty() {
        add("description", field.doc.into());
    }
    if dialect == Dialect::V3
        && let Some(default) = default(field)
    {
        add("default", default);
    }
    match (&field.merge, &field.shape) {
        (Merge::Default, _) => {}
        (Merge::Atomic, Shape::List(_)) => add("x-kubernetes-list-type", "atomic".into()),
        (Merge::Atomic, Shape::Object(_)) => {} // said of the type
        (Merge::Atomic, _) => add("x-kubernetes-map-type", "atomic".into()),
        (Merge::Granular, _) => add("x-kubernetes-map-type", "granular".into()),
        (Merge::Set, _) => add("x-kubernetes-list-type", "set".into()),
        (Merge::Map(keys), _) => {
            add("x-kubernetes-list-map-keys", (*keys).into());
            add("x-kubernetes-list-type", "map".into());
        }
    }
    if let Some(key) = field.patch_key {
        add("x-kubernetes-patch-merge-key", key.into());
    }
    let strategy = match (field.patch_merge, field.retain_keys) {
        (true, true) => "merge,retainKeys",
        (true, false) => "merge",
        (false, true) => "retainKeys",
        (false, false) => return schema,
    };
    add("x-kubernetes-patch-strategy", strategy.into());
    schema
}

/// The default shown in the document: the declared one, or Go's zero value where it is always written.
fn default(field: &Field) -> Option<Value> {
    match (field.declared_default, &field.shape) {
        (Some(default), _) => serde_json::from_str(default).ok(),
        (None, _) if field.nullable => None,
        (None, shape @ Shape::Object(_)) => nothing(shape),
        (None, _) if field.omitempty => None,
        (None, shape) => nothing(shape),
    }
}

/// The zero value of a list item, map entry or required field of this shape.
fn nothing(shape: &Shape) -> Option<Value> {
    match shape {
        Shape::String => Some("".into()),
        Shape::Boolean => Some(false.into()),
        Shape::Int32 | Shape::Int64 | Shape::Double => Some(0.into()),
        Shape::Object(_) => Some(json!({})),
        _ => None,
    }
}

/// An item of a list, or an entry of a map.
fn part(shape: &Shape, allowed: &[&str], dialect: Dialect) -> Value {
    let mut part = self::shape(shape, allowed, dialect);
    match (dialect, nothing(shape), shape) {
        (Dialect::V3, Some(nothing), _) => part["default"] = nothing,
        // A reference without siblings needs no wrapper.
        (Dialect::V3, None, Shape::Quantity | Shape::IntOrString | Shape::Time | Shape::MicroTime | Shape::Any) => {
            if let Some(reference) = part.get_mut("allOf").and_then(|it| it.get_mut(0)) {
                part = reference.take();
            }
        }
        _ => {}
    }
    part
}

fn shape(shape: &Shape, allowed: &[&str], dialect: Dialect) -> Value {
    let named = |name: &str| referring(reference(name, dialect), dialect);
    match shape {
        Shape::String if !allowed.is_empty() => json!({"type": "string", "enum": allowed}),
        Shape::String => json!({"type": "string"}),
        Shape::Boolean => json!({"type": "boolean"}),
        Shape::Int32 => json!({"type": "integer", "format": "int32"}),
        Shape::Int64 => json!({"type": "integer", "format": "int64"}),
        Shape::Double => json!({"type": "number", "format": "double"}),
        Shape::Bytes => json!({"type": "string", "format": "byte"}),
        Shape::Quantity => named(QUANTITY),
        Shape::IntOrString => named(INT_OR_STRING),
        Shape::Time => named(TIME),
        Shape::MicroTime => named(MICRO_TIME),
        Shape::Any => named(RAW),
        Shape::Object(name) => named(name),
        Shape::List(inner) => json!({"type": "array", "items": part(inner, allowed, dialect)}),
        Shape::Map(inner) => json!({"type": "object", "additionalProperties": part(inner, allowed, dialect)}),
    }
}

/// A reference that allows siblings: v3 ignores the siblings of a `$ref`.
fn referring(reference: Value, dialect: Dialect) -> Value {
    if dialect == Dialect::V2 { reference } else { json!({"allOf": [reference]}) }
}
