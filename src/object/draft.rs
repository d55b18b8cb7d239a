//! An object on its way into the store.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::Value;

use super::meta::{self, Meta};
use super::{Object, ObjectError, ResourceRef, Revision};

/// Everything of an object but its revision, which the store gives. Who writes it knows it as a tree, so that it need not be parsed when it
/// comes back.
#[derive(Debug)]
pub struct Draft {
    resource: ResourceRef,
    meta: Meta,
    stored: Bytes,
    /// Where in `stored` the metadata begins, behind its brace.
    at: usize,
}

impl Draft {
    /// The object that `stored` is as text, as the store keeps it, and `tree` as a tree; `at` is where in the text its metadata begins, behind
    /// the brace.
    ///
    /// # Errors
    /// If it has no `metadata.name`.
    pub fn new(resource: ResourceRef, tree: &Value, stored: Bytes, at: usize) -> Result<Self, ObjectError> {
        let meta = Meta { revision: 0, ..meta::of(tree, resource)? };
        debug_assert_eq!(meta::parse(&stored, resource).ok(), Some((meta.clone(), at)), "the text is that of the tree");
        Ok(Self { resource, meta, stored, at })
    }

    /// As the store keeps it.
    pub fn stored(&self) -> &Bytes {
        &self.stored
    }

    /// The object once it is stored.
    pub fn at_revision(&self, revision: Revision) -> Arc<Object> {
        Object::stamped(self.resource, self.meta.clone(), &self.stored, self.at, revision)
    }
}
