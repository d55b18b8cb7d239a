//! The order of a merged list: elements of the patch in the patch's order, and other elements of the server between them, as before.

use std::collections::{HashMap, HashSet};

use indexmap::IndexSet;
use serde_json::Value;

use super::PatchError;
use crate::util::go;

/// How elements of a list are identified: by a field, or scalars by their value.
#[derive(Clone, Copy, Debug)]
pub(super) struct Identity(pub Option<&'static str>);

impl Identity {
    /// # Errors
    /// If the element is not an object, or lacks the field.
    pub(super) fn of(self, element: &Value) -> Result<String, PatchError> {
        let Some(key) = self.0 else { return Ok(element.to_string()) };
        let Value::Object(fields) = element else {
            return Err(PatchError::Senseless(format!("expected a map with the merge key {key}, but received {}", go::print(element))));
        };
        match fields.get(key) {
            Some(value) => Ok(value.to_string()),
            None => Err(PatchError::Senseless(format!("map: {} does not contain declared merge key: {key}", go::print(element)))),
        }
    }

    /// Where each element of a list stands.
    fn positions(self, list: &[Value]) -> Result<HashMap<String, usize>, PatchError> {
        let mut positions = HashMap::with_capacity(list.len());
        for (at, element) in list.iter().enumerate() {
            positions.entry(self.of(element)?).or_insert(at);
        }
        Ok(positions)
    }
}

/// Arranges `merged`: elements in `wanted` in its order; each other element before the first one that it preceded in `before`.
pub(super) fn arrange(merged: Vec<Value>, wanted: &[Value], before: &[Value], identity: Identity) -> Result<Vec<Value>, PatchError> {
    let wanted = identity.positions(wanted)?;
    let before = identity.positions(before)?;
    let mut named: Vec<(usize, Option<usize>, Value)> = Vec::new();
    let mut others: Vec<(usize, Option<usize>, Value)> = Vec::new();
    for element in merged {
        let id = identity.of(&element)?;
        let old = before.get(&id).copied();
        match wanted.get(&id) {
            Some(at) => named.push((*at, old, element)),
            None => others.push((old.unwrap_or(usize::MAX), old, element)),
        }
    }
    named.sort_by_key(|(at, ..)| *at);
    others.sort_by_key(|(at, ..)| *at);
    let mut out = Vec::with_capacity(named.len() + others.len());
    let mut others = others.into_iter().peekable();
    for (_, old, element) in named {
        if let Some(old) = old {
            while let Some((.., other)) = others.next_if(|(_, other, _)| other.is_some_and(|other| other < old)) {
                out.push(other);
            }
        }
        out.push(element);
    }
    out.extend(others.map(|(.., element)| element));
    Ok(out)
}

/// The former order, if a patch deletes elements of a list and adds others: added ones take the places of deleted ones, at the end.
/// (Kubernetes does both within the list that it then treats as the former one.)
pub(super) fn fill_gaps(before: Vec<Value>, patch: &[Value], identity: Identity) -> Result<Vec<Value>, PatchError> {
    let is_deletion = |it: &&Value| it.get("$patch").is_some_and(|it| it == "delete");
    let deleted: HashSet<String> = patch.iter().filter(is_deletion).map(|it| identity.of(it)).collect::<Result<_, _>>()?;
    if deleted.is_empty() {
        return Ok(before);
    }
    let places = before.len();
    let mut order = before;
    order.retain(|it| identity.of(it).is_ok_and(|id| !deleted.contains(&id)));
    let stayed = identity.positions(&order)?;
    let mut added: IndexSet<&Value> = IndexSet::new();
    for element in patch.iter().filter(|it| it.get("$patch").is_none()) {
        if !stayed.contains_key(&identity.of(element)?) {
            added.insert(element);
        }
    }
    let gaps = places - order.len();
    order.extend(added.into_iter().take(gaps).cloned());
    Ok(order)
}

/// Checks that the elements of a patch's list come in the order of its `$setElementOrder`, which names them all.
pub(super) fn check(patch: &[Value], wanted: &[Value], identity: Identity) -> Result<(), PatchError> {
    if patch.is_empty() || wanted.is_empty() {
        return Ok(());
    }
    let positions = identity.positions(wanted)?;
    let mut last = None;
    for element in patch.iter().filter(|it| it.get("$patch").is_none()) {
        let at = positions.get(&identity.of(element)?).copied();
        if at.is_none() || at < last {
            return Err(PatchError::Senseless(format!(
                "The order in patch list:\n{}\n doesn't match $setElementOrder list:\n{}\n",
                go::print(&Value::Array(patch.to_vec())),
                go::print(&Value::Array(wanted.to_vec())),
            )));
        }
        last = at;
    }
    Ok(())
}
