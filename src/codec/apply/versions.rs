//! One change of an object, in each version that a manager uses.

use serde_json::Value;

use super::compare::Changes;
use crate::codec::convert;
use crate::object::schema::{self, Type};
use crate::object::{ResourceRef, resource};

/// The states of an object before (if it was there) and after, in the stored version.
#[derive(Debug)]
pub(super) struct Versions<'a> {
    old: Option<&'a Value>,
    new: &'a Value,
    found: Vec<(String, Option<Changes>)>,
    storage: ResourceRef,
}

impl<'a> Versions<'a> {
    pub(super) fn new(storage: ResourceRef, old: Option<&'a Value>, new: &'a Value) -> Self {
        Self { old, new, found: Vec::new(), storage }
    }

    /// The changes in a version, given by its `apiVersion`; `None` if it is not, or no longer, served.
    pub(super) fn changes(&mut self, api_version: &str) -> Option<&mut Changes> {
        let at = match self.found.iter().position(|(it, _)| it == api_version) {
            Some(at) => at,
            None => {
                let changes = self.compare(api_version);
                self.found.push((api_version.to_owned(), changes));
                self.found.len() - 1
            }
        };
        self.found[at].1.as_mut()
    }

    fn compare(&self, api_version: &str) -> Option<Changes> {
        let version = served(self.storage, api_version)?;
        if version == self.storage {
            return Some(Changes::between(kind(version)?, self.old, self.new));
        }
        let shown = |value: &Value| in_version(value.clone(), self.storage, version);
        Some(Changes::between(kind(version)?, self.old.map(shown).as_ref(), &shown(self.new)))
    }
}

/// The version of a resource with this `apiVersion`.
pub(super) fn served(storage: ResourceRef, api_version: &str) -> Option<ResourceRef> {
    let is = |it: ResourceRef| it.storage() == storage && it.api_version() == api_version;
    if is(storage) { Some(storage) } else { resource::ALL.iter().copied().find(|it| is(it)) }
}

pub(super) fn kind(version: ResourceRef) -> Option<&'static Type> {
    schema::get(version.schema)
}

/// An object in another version, by way of the stored one.
pub(super) fn in_version(mut value: Value, from: ResourceRef, to: ResourceRef) -> Value {
    convert(&mut value, from, from.storage());
    convert(&mut value, from.storage(), to);
    value
}
