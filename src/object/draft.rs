//! An object on its way into the store.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::Value;

use super::meta::{self, Meta};
use super::{Object, ObjectError, ResourceRef, Revision};

/// An object without its revision, which the store assigns. The metadata comes from the writer's JSON tree, so that the stored bytes need
/// not be parsed again.
#[derive(Debug)]
pub struct Draft {
    resource: ResourceRef,
    meta: Meta,
    stored: Bytes,
    /// Offset in `stored` just behind the opening brace of the metadata.
    at: usize,
}

impl Draft {
    /// `stored` is the object's JSON as the store keeps it, `tree` the same object as a tree, and `at` the offset in `stored` just behind
    /// the opening brace of the metadata.
    ///
    /// # Errors
    /// If it has no `metadata.name`.
    pub fn new(resource: ResourceRef, tree: &Value, stored: Bytes, at: usize) -> Result<Self, ObjectError> {
        let meta = Meta { revision: 0, ..meta::of(tree, resource)? };
        debug_assert_eq!(meta::parse(&stored, resource).ok(), Some((meta.clone(), at)), "the text is that of the tree");
        Ok(Self { resource, meta, stored, at })
    }

    /// The bytes that the store keeps.
    pub fn stored(&self) -> &Bytes {
        &self.stored
    }

    /// The object once it is stored.
    pub fn at_revision(&self, revision: Revision) -> Arc<Object> {
        Object::stamped(self.resource, self.meta.clone(), &self.stored, self.at, revision)
    }
}
