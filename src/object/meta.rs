//! The metadata every reader needs, parsed once per object without decoding the rest: name, labels, owners, and the fields that can be
//! selected.

use std::fmt;

use bytes::Bytes;
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

use super::resource::Selectable;
use super::{Name, ObjectError, ResourceRef, Revision};

/// An object's `metadata`, without annotations and managed fields, which are long and read through the typed form.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Meta {
    pub name: Name,
    pub uid: Box<str>,
    pub revision: Revision,
    pub generation: i64,
    /// RFC 3339.
    pub created: Box<str>,
    /// RFC 3339; set while the object is being deleted.
    pub deleted: Option<Box<str>>,
    pub deletion_grace_seconds: Option<i64>,
    /// Sorted by key.
    pub labels: Box<[(Box<str>, Box<str>)]>,
    pub owners: Box<[OwnerReference]>,
    pub finalizers: Box<[Box<str>]>,
    /// The values of the resource's selectable fields, in its order.
    pub(super) fields: Box<[Box<str>]>,
}

/// An entry of `metadata.ownerReferences`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OwnerReference {
    #[serde(default)]
    pub api_version: Box<str>,
    #[serde(default)]
    pub kind: Box<str>,
    #[serde(default)]
    pub name: Box<str>,
    #[serde(default)]
    pub uid: Box<str>,
    /// Whether the owner is the managing controller; an object has at most one.
    #[serde(default)]
    pub controller: Option<bool>,
    #[serde(default)]
    pub block_owner_deletion: Option<bool>,
}

impl Meta {
    pub fn label(&self, key: &str) -> Option<&str> {
        self.labels.binary_search_by(|(it, _)| (**it).cmp(key)).ok().map(|at| &*self.labels[at].1)
    }

    /// The owner that manages the object.
    pub fn controller(&self) -> Option<&OwnerReference> {
        self.owners.iter().find(|owner| owner.controller == Some(true))
    }

    pub fn is_deleted(&self) -> bool {
        self.deleted.is_some()
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Wire {
    #[serde(default)]
    name: Box<str>,
    #[serde(default)]
    namespace: Option<Box<str>>,
    #[serde(default)]
    uid: Option<Box<str>>,
    #[serde(default)]
    resource_version: Option<Box<str>>,
    #[serde(default)]
    generation: Option<i64>,
    #[serde(default)]
    creation_timestamp: Option<Box<str>>,
    #[serde(default)]
    deletion_timestamp: Option<Box<str>>,
    #[serde(default)]
    deletion_grace_period_seconds: Option<i64>,
    #[serde(default)]
    labels: Option<Labels>,
    #[serde(default)]
    owner_references: Option<Box<[OwnerReference]>>,
    #[serde(default)]
    finalizers: Option<Box<[Box<str>]>>,
}

/// Parses the metadata and the selectable fields of `json`. Also returns the offset just behind the opening brace of `metadata`.
pub(super) fn parse(json: &[u8], resource: ResourceRef) -> Result<(Meta, usize), ObjectError> {
    let mut fields: Vec<Box<str>> = resource.selectable.iter().map(|field| field.absent.into()).collect();
    let mut reader = serde_json::Deserializer::from_slice(json);
    let raw = reader.deserialize_map(Top { selectable: resource.selectable, out: &mut fields })?.ok_or(ObjectError::Missing("name"))?;
    reader.end()?;
    let at = raw.as_ptr() as usize - json.as_ptr() as usize + 1;
    Ok((assemble(serde_json::from_str(raw)?, fields)?, at))
}

/// As [`parse`], from a tree.
pub(super) fn of(object: &Value, resource: ResourceRef) -> Result<Meta, ObjectError> {
    let fields = resource.selectable.iter().map(|field| {
        let value = field.path.split('.').try_fold(object, |value, step| value.get(step));
        match value {
            Some(Value::String(text)) => text.as_str().into(),
            Some(Value::Bool(flag)) => flag.to_string().into(),
            Some(Value::Number(number)) => match number.as_f64().filter(|_| number.is_f64()) {
                Some(number) => number.to_string().into(),
                None => number.to_string().into(),
            },
            _ => field.absent.into(),
        }
    });
    let metadata = object.get("metadata").ok_or(ObjectError::Missing("name"))?;
    assemble(Wire::deserialize(metadata)?, fields.collect())
}

fn assemble(wire: Wire, fields: Vec<Box<str>>) -> Result<Meta, ObjectError> {
    if wire.name.is_empty() {
        return Err(ObjectError::Missing("name"));
    }
    let revision: Revision = match wire.resource_version {
        None => 0,
        Some(text) => text.parse().map_err(|_| ObjectError::Revision(text.into()))?,
    };
    Ok(Meta {
        name: Name { namespace: wire.namespace.unwrap_or_default(), name: wire.name },
        uid: wire.uid.unwrap_or_default(),
        revision,
        generation: wire.generation.unwrap_or_default(),
        created: wire.creation_timestamp.unwrap_or_default(),
        deleted: wire.deletion_timestamp,
        deletion_grace_seconds: wire.deletion_grace_period_seconds,
        labels: wire.labels.map(|it| it.0).unwrap_or_default(),
        owners: wire.owner_references.unwrap_or_default(),
        finalizers: wire.finalizers.unwrap_or_default(),
        fields: fields.into_boxed_slice(),
    })
}

/// The object `json` with its `metadata.resourceVersion` set or replaced.
pub(super) fn with_revision(json: &[u8], revision: Revision) -> Bytes {
    #[derive(Deserialize)]
    struct Outer<'a> {
        #[serde(borrow)]
        metadata: &'a RawValue,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Inner<'a> {
        #[serde(borrow, default)]
        resource_version: Option<&'a RawValue>,
    }
    let outer: Outer<'_> = serde_json::from_slice(json).expect("an object's bytes were parsed before");
    let inner: Inner<'_> = serde_json::from_str(outer.metadata.get()).expect("an object's bytes were parsed before");
    let offset = |part: &RawValue| part.get().as_ptr() as usize - json.as_ptr() as usize;
    let (at, until, stamp) = match inner.resource_version {
        Some(old) => (offset(old), offset(old) + old.get().len(), format!("\"{revision}\"")),
        None => (offset(outer.metadata) + 1, offset(outer.metadata) + 1, format!("\"resourceVersion\":\"{revision}\",")),
    };
    [&json[..at], stamp.as_bytes(), &json[until..]].concat().into()
}

struct Labels(Box<[(Box<str>, Box<str>)]>);

impl<'de> Deserialize<'de> for Labels {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pairs;
        impl<'de> Visitor<'de> for Pairs {
            type Value = Labels;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map of strings")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Labels, A::Error> {
                let mut pairs: Vec<(Box<str>, Box<str>)> = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                pairs.sort_unstable();
                Ok(Labels(pairs.into_boxed_slice()))
            }
        }
        deserializer.deserialize_map(Pairs)
    }
}

/// Reads an object's top level: the raw `metadata`, and the selectable fields.
struct Top<'a> {
    selectable: &'static [Selectable],
    out: &'a mut [Box<str>],
}

impl<'de> Visitor<'de> for Top<'_> {
    type Value = Option<&'de str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut metadata = None;
        let Top { selectable, out } = self;
        while let Some(key) = map.next_key::<std::borrow::Cow<'de, str>>()? {
            if key == "metadata" {
                metadata = Some(map.next_value::<&RawValue>()?.get());
            } else {
                descend(&mut map, &key, selectable, 0, &(0..selectable.len()).collect::<Vec<_>>(), out)?;
            }
        }
        Ok(metadata.filter(|it| it.starts_with('{')))
    }
}

/// Reads the value of `key`, which is `depth` steps into the paths of `candidates`: stored in `out` where a path ends here, ignored where
/// no path continues.
fn descend<'de, A: MapAccess<'de>>(
    map: &mut A,
    key: &str,
    selectable: &'static [Selectable],
    depth: usize,
    candidates: &[usize],
    out: &mut [Box<str>],
) -> Result<(), A::Error> {
    let segment = |at: usize| selectable[at].path.split('.').nth(depth);
    let onward: Vec<usize> = candidates.iter().copied().filter(|at| segment(*at) == Some(key)).collect();
    if onward.is_empty() {
        map.next_value::<IgnoredAny>()?;
        return Ok(());
    }
    map.next_value_seed(Below { selectable, depth: depth + 1, candidates: &onward, out })
}

struct Below<'a> {
    selectable: &'static [Selectable],
    depth: usize,
    candidates: &'a [usize],
    out: &'a mut [Box<str>],
}

impl Below<'_> {
    fn found<E>(self, value: &str) -> Result<(), E> {
        for at in self.candidates {
            if self.selectable[*at].path.split('.').count() == self.depth {
                self.out[*at] = value.into();
            }
        }
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Below<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Below<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_str<E>(self, value: &str) -> Result<(), E> {
        self.found(value)
    }

    fn visit_bool<E>(self, value: bool) -> Result<(), E> {
        self.found(if value { "true" } else { "false" })
    }

    fn visit_i64<E>(self, value: i64) -> Result<(), E> {
        self.found(&value.to_string())
    }

    fn visit_u64<E>(self, value: u64) -> Result<(), E> {
        self.found(&value.to_string())
    }

    fn visit_f64<E>(self, value: f64) -> Result<(), E> {
        self.found(&value.to_string())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<std::borrow::Cow<'de, str>>()? {
            descend(&mut map, &key, self.selectable, self.depth, self.candidates, self.out)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Object, resource};

    #[test]
    fn stored_bytes_get_their_revision_and_nothing_else() {
        let stored = br#"{"kind":"Pod","apiVersion":"v1","metadata":{"name":"web","namespace":"a","labels":{"b":"2","a":"1"}},
            "spec":{"nodeName":"n\"1","containers":[{"name":"c"}]},"status":{"phase":"Running"}}"#;
        let object = Object::from_stored(&resource::POD, stored, 42).unwrap();
        let value: serde_json::Value = serde_json::from_slice(object.body()).unwrap();
        assert_eq!(value["metadata"]["resourceVersion"], "42");
        let mut without = value.clone();
        without["metadata"].as_object_mut().unwrap().remove("resourceVersion");
        assert_eq!(without, serde_json::from_slice::<serde_json::Value>(stored).unwrap());
        assert_eq!(object.field("spec.nodeName"), Some("n\"1"));
        assert_eq!(object.field("status.phase"), Some("Running"));
        assert_eq!(object.field("spec.hostNetwork"), Some("false"));
        assert_eq!(object.field("spec.containers"), None);
        assert_eq!(object.meta().label("a"), Some("1"));
        assert_eq!(object.meta().label("c"), None);
        let again = Object::from_wire(&resource::POD, object.body().clone()).unwrap();
        assert_eq!(again.revision(), 42);
    }

    #[test]
    fn another_revision_changes_nothing_else() {
        for json in [
            r#"{"metadata":{"name":"a","resourceVersion":"7"},"spec":{"metadata":{"resourceVersion":"x"}}}"#,
            r#"{"spec":{"metadata":{"resourceVersion":"x"}},"metadata": {"resourceVersion" : "7", "name":"a"}}"#,
            r#"{"metadata":{"name":"a"}}"#,
        ] {
            let object = Object::from_wire(&resource::POD, json.into()).unwrap();
            let moved = object.at_revision(12_345);
            assert_eq!((moved.revision(), moved.name()), (12_345, "a"));
            let mut expected: serde_json::Value = serde_json::from_str(json).unwrap();
            expected["metadata"]["resourceVersion"] = "12345".into();
            assert_eq!(serde_json::from_slice::<serde_json::Value>(moved.body()).unwrap(), expected);
        }
    }

    #[test]
    fn only_whole_named_objects_are_objects() {
        for bad in ["", "{", "[]", "{}", r#"{"metadata":{}}"#, r#"{"metadata":3}"#, r#"{"metadata":{"name":"a"}} x"#] {
            assert!(Object::from_stored(&resource::POD, bad.as_bytes(), 1).is_err(), "{bad}");
        }
        let bare = Object::from_stored(&resource::NODE, br#"{"metadata":{"name":"a"}}"#, 1).unwrap();
        assert_eq!(&bare.body()[..], br#"{"metadata":{"resourceVersion":"1","name":"a"}}"#);
    }
}
