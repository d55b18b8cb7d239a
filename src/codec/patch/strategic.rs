//! Strategic merge patches: like a merge patch, but lists whose elements have an identity are merged element by element, and directives
//! (`$patch`, `$retainKeys`, `$deleteFromPrimitiveList/…`, `$setElementOrder/…`) express further changes.
//!
//! The schema determines which lists merge, and by which key. Without a schema (free-form values), objects merge and lists are replaced.

use std::collections::HashSet;
use std::collections::hash_map::{Entry, HashMap};

use serde_json::{Map, Value};

use super::order::{self, Identity};
use super::{PatchError, json};
use crate::object::schema::{Field, Shape, Type};
use crate::util::{go, go_json};

const DIRECTIVE: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const DELETE_PREFIX: &str = "$deleteFromPrimitiveList";
const ORDER_PREFIX: &str = "$setElementOrder";

/// Finds a schema type by its name.
pub(super) type Lookup<'a> = &'a dyn Fn(&str) -> Option<&'static Type>;

/// Applies a patch to `current`, of the schema type `name`.
pub(super) fn apply(lookup: Lookup<'_>, name: &'static str, current: &Value, patch: &Value) -> Result<Value, PatchError> {
    let patch = match patch {
        Value::Object(patch) => patch,
        Value::Null => return Ok(current.clone()),
        other => return Err(PatchError::Malformed(go_json::unmarshal(other, json::MAP))),
    };
    let current = current.as_object().cloned().unwrap_or_default();
    Merger { lookup }.object(current, patch, Some(&Shape::Object(name))).map(Value::Object)
}

/// How a list comes together with one in a patch.
#[derive(Clone, Copy)]
enum ListMerge {
    Replace,
    Scalars,
    Elements(&'static str),
}

impl ListMerge {
    fn of(field: Option<&Field>) -> Self {
        match field {
            Some(Field { patch_key: Some(key), .. }) => Self::Elements(key),
            Some(Field { patch_merge: true, .. }) => Self::Scalars,
            _ => Self::Replace,
        }
    }

    fn identity(self) -> Identity {
        match self {
            Self::Elements(key) => Identity(Some(key)),
            Self::Replace | Self::Scalars => Identity(None),
        }
    }
}

struct Merger<'a> {
    lookup: Lookup<'a>,
}

impl Merger<'_> {
    /// The field `key` of an object of this shape, and the shape of its value.
    fn child<'s>(&self, shape: Option<&'s Shape>, key: &str) -> (Option<&'static Field>, Option<&'s Shape>) {
        match shape {
            Some(Shape::Object(name)) => {
                let field = (self.lookup)(name).and_then(|of| of.field(key));
                (field, field.map(|field| &field.shape))
            }
            Some(Shape::Map(of)) => (None, Some(of)),
            _ => (None, None),
        }
    }

    fn object(
        &self,
        current: Map<String, Value>,
        patch: &Map<String, Value>,
        shape: Option<&Shape>,
    ) -> Result<Map<String, Value>, PatchError> {
        let mut merged = match patch.get(DIRECTIVE).map(|it| (it, it.as_str())) {
            None => current,
            // The replacement is taken as it is: directives in it have no effect.
            Some((_, Some("replace"))) => {
                return Ok(patch.iter().filter(|(key, _)| *key != DIRECTIVE).map(|(key, value)| (key.clone(), value.clone())).collect());
            }
            Some((_, Some("delete"))) => return Ok(Map::new()),
            Some((other, _)) => return Err(unknown_directive(other, patch)),
        };
        retain_keys(&mut merged, patch)?;
        let before: Vec<(&str, &Value, Vec<Value>)> = orders(patch)
            .map(|found| {
                let (key, wanted) = found?;
                let before = merged.get(key).and_then(Value::as_array).cloned().unwrap_or_default();
                Ok((key, wanted, before))
            })
            .collect::<Result<_, PatchError>>()?;
        for (key, value) in patch.iter().filter(|(key, _)| !is_directive(key)) {
            if value.is_null() {
                merged.remove(key);
                continue;
            }
            let (field, below) = self.child(shape, key);
            match (merged.get_mut(key), value) {
                (Some(slot @ Value::Object(_)), Value::Object(_)) | (Some(slot @ Value::Array(_)), Value::Array(_)) => {
                    *slot = self.value(slot.take(), value, field, below)?;
                }
                _ => match fresh(value) {
                    Some(value) => drop(merged.insert(key.clone(), value)),
                    None => drop(merged.remove(key)),
                },
            }
        }
        delete_scalars(&mut merged, patch)?;
        for (key, wanted, before) in before {
            let Value::Array(wanted) = wanted else {
                return Err(PatchError::Malformed("invalid patch format of setElementOrder list".to_owned()));
            };
            let how = ListMerge::of(self.child(shape, key).0);
            let mut before = before;
            if let Some(Value::Array(list)) = patch.get(key) {
                order::check(list, wanted, how.identity())?;
                before = order::fill_gaps(before, list, how.identity())?;
            }
            match merged.get_mut(key) {
                Some(Value::Array(list)) if !matches!(how, ListMerge::Replace) => {
                    *list = order::arrange(std::mem::take(list), wanted, &before, how.identity())?;
                }
                _ => {}
            }
        }
        Ok(merged)
    }

    fn value(&self, current: Value, patch: &Value, field: Option<&'static Field>, shape: Option<&Shape>) -> Result<Value, PatchError> {
        match (current, patch) {
            (Value::Object(current), Value::Object(patch)) => self.object(current, patch, shape).map(Value::Object),
            (_, Value::Object(patch)) => self.object(Map::new(), patch, shape).map(Value::Object),
            (current, Value::Array(patch)) => {
                let current = if let Value::Array(list) = current { list } else { Vec::new() };
                let of = if let Some(Shape::List(of)) = shape { Some(&**of) } else { None };
                match ListMerge::of(field) {
                    ListMerge::Elements(key) => self.elements(current, patch, key, of),
                    ListMerge::Scalars => scalars(current, patch),
                    // Nor are such lists looked into.
                    ListMerge::Replace => Ok(patch.clone()),
                }
                .map(Value::Array)
            }
            (_, scalar) => Ok(scalar.clone()),
        }
    }

    /// Merges a list of objects identified by `key`.
    fn elements(&self, current: Vec<Value>, patch: &[Value], key: &'static str, shape: Option<&Shape>) -> Result<Vec<Value>, PatchError> {
        let objects = current.iter().chain(patch).filter(|it| it.is_object()).count();
        if objects != 0 && objects != current.len() + patch.len() {
            let lists = Value::Array(vec![Value::Array(current), Value::Array(patch.to_vec())]);
            return Err(PatchError::Senseless(format!("list element types are not identical: {}", go::print(&lists))));
        }
        let identity = Identity(Some(key));
        let (mut deleted, mut replace) = (HashSet::new(), false);
        let mut changed: Vec<&Value> = Vec::with_capacity(patch.len());
        for element in patch {
            let id = identity.of(element);
            match element.get(DIRECTIVE).map(|it| (it, it.as_str())) {
                None => {
                    id?;
                    changed.push(element);
                }
                Some((_, Some("delete"))) => {
                    deleted.insert(id?);
                }
                // The patch's other elements are the whole new list, regardless of their keys.
                Some((_, Some("replace"))) => replace = true,
                Some((_, Some("merge"))) => {
                    return Err(PatchError::Senseless("merging lists cannot yet be specified in the patch".to_owned()));
                }
                Some((other, _)) => return Err(unknown_directive(other, element.as_object().unwrap_or(&Map::new()))),
            }
        }
        if replace {
            return Ok(changed.into_iter().cloned().collect());
        }
        let before = current;
        let mut slots: Vec<Option<Value>> = Vec::with_capacity(before.len() + changed.len());
        let mut at: HashMap<String, usize> = HashMap::with_capacity(before.len());
        for element in &before {
            // An element without its key cannot be meant by the patch, and stays.
            match identity.of(element) {
                Ok(id) if deleted.contains(&id) => continue,
                Ok(id) => {
                    at.entry(id).or_insert(slots.len());
                }
                Err(_) => {}
            }
            slots.push(Some(element.clone()));
        }
        for element in &changed {
            match at.entry(identity.of(element)?) {
                Entry::Vacant(entry) => {
                    entry.insert(slots.len());
                    slots.push(element.as_object().map(|it| fresh_fields(it).into()));
                }
                Entry::Occupied(entry) => {
                    let slot = &mut slots[*entry.get()];
                    *slot = Some(self.value(slot.take().unwrap_or(Value::Null), element, None, shape)?);
                }
            }
        }
        let merged = slots.into_iter().flatten().collect();
        let wanted: Vec<Value> = changed.into_iter().cloned().collect();
        order::arrange(merged, &wanted, &before, identity)
    }
}

/// A value without a current one, or with one of another type: taken as it is, without a merge. `None` for one that is itself a directive.
fn fresh(patch: &Value) -> Option<Value> {
    Some(match patch {
        Value::Object(map) if map.contains_key(DIRECTIVE) => return None,
        Value::Object(map) => fresh_fields(map).into(),
        Value::Array(items) => Value::Array(items.iter().filter_map(fresh).collect()),
        scalar => scalar.clone(),
    })
}

fn fresh_fields(patch: &Map<String, Value>) -> Map<String, Value> {
    let kept = patch.iter().filter(|(key, value)| !value.is_null() && !is_directive(key));
    kept.filter_map(|(key, value)| Some((key.clone(), fresh(value)?))).collect()
}

/// Merges a list of scalars: a set union, in the order of `arrange`.
fn scalars(current: Vec<Value>, patch: &[Value]) -> Result<Vec<Value>, PatchError> {
    let identity = Identity(None);
    let mut seen = HashSet::new();
    let mut merged = Vec::with_capacity(current.len() + patch.len());
    for element in current.iter().chain(patch) {
        if seen.insert(identity.of(element)?) {
            merged.push(element.clone());
        }
    }
    order::arrange(merged, patch, &current, identity)
}

fn is_directive(key: &str) -> bool {
    key == DIRECTIVE || key == RETAIN_KEYS || key.starts_with(DELETE_PREFIX) || key.starts_with(ORDER_PREFIX)
}

fn unknown_directive(directive: &Value, patch: &Map<String, Value>) -> PatchError {
    let patch = go::print(&Value::Object(patch.clone()));
    PatchError::Senseless(format!("unknown patch type: {} in map: {patch}", go::print(directive)))
}

/// Removes fields that `$retainKeys` does not list; it must list all fields that the patch sets.
fn retain_keys(merged: &mut Map<String, Value>, patch: &Map<String, Value>) -> Result<(), PatchError> {
    let Some(kept) = patch.get(RETAIN_KEYS) else { return Ok(()) };
    let invalid = || PatchError::Malformed("invalid patch format of retainKeys".to_owned());
    let kept: HashSet<&str> = kept.as_array().ok_or_else(invalid)?.iter().filter_map(Value::as_str).collect();
    if patch.iter().any(|(key, value)| !value.is_null() && !is_directive(key) && !kept.contains(key.as_str())) {
        return Err(invalid());
    }
    merged.retain(|key, _| kept.contains(key.as_str()));
    Ok(())
}

/// The `$setElementOrder` directives of a patch: of which list, and in which order.
fn orders(patch: &Map<String, Value>) -> impl Iterator<Item = Result<(&str, &Value), PatchError>> {
    patch.iter().filter_map(|(key, value)| {
        let rest = key.strip_prefix(ORDER_PREFIX)?;
        let invalid = || PatchError::Malformed("invalid patch format of setElementOrder list".to_owned());
        Some(rest.strip_prefix('/').map(|list| (list, value)).ok_or_else(invalid))
    })
}

/// Removes the values in `$deleteFromPrimitiveList` directives from lists of scalars.
fn delete_scalars(merged: &mut Map<String, Value>, patch: &Map<String, Value>) -> Result<(), PatchError> {
    for (key, value) in patch {
        let Some(rest) = key.strip_prefix(DELETE_PREFIX) else { continue };
        let invalid = || PatchError::Malformed("invalid patch format of primitive list".to_owned());
        let list = rest.strip_prefix('/').ok_or_else(invalid)?;
        let deleted: HashSet<&Value> = value.as_array().ok_or_else(invalid)?.iter().collect();
        if let Some(Value::Array(list)) = merged.get_mut(list) {
            list.retain(|element| !deleted.contains(element));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
