//! The unit that all parts of km share: one API object at one resource version, and the data that describes its kind.
//! Pure data: nothing here does I/O.

pub mod constraints;
pub mod default_class;
pub mod draft;
pub mod key;
pub mod meta;
pub mod pod;
pub(crate) mod quota;
pub mod resource;
pub mod schema;
pub mod selector;
pub mod service;
pub mod service_range;
pub mod status;
pub mod storage;

mod resources;

use std::any::Any;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use serde::de::DeserializeOwned;

pub use draft::Draft;
pub use key::{Name, ObjectKey};
pub use meta::{Meta, OwnerReference};
pub use resource::{Resource, ResourceRef};
pub use status::Status;

/// A store revision, and thereby an object's `metadata.resourceVersion`: one counter for all kinds. 0 means none.
pub type Revision = u64;

/// One API object at one resource version. Immutable and shared by `Arc`; metadata and selectable fields are parsed once.
pub struct Object {
    resource: ResourceRef,
    meta: Meta,
    /// The complete JSON, `metadata.resourceVersion` included.
    body: Bytes,
    typed: OnceLock<Option<Arc<dyn Any + Send + Sync>>>,
    part: OnceLock<Box<dyn Any + Send + Sync>>,
}

/// Why bytes are not an object of the expected kind.
#[derive(Debug, thiserror::Error)]
pub enum ObjectError {
    #[error("not an object: {0}")]
    Malformed(#[from] serde_json::Error),
    #[error("the object has no metadata.{0}")]
    Missing(&'static str),
    #[error("metadata.resourceVersion {0:?} is not a revision")]
    Revision(String),
}

impl Object {
    /// Parses an object as the store keeps it, without a resource version, and writes `revision` into it.
    ///
    /// # Errors
    /// If `stored` is not JSON with a `metadata.name`.
    pub fn from_stored(resource: ResourceRef, stored: &[u8], revision: Revision) -> Result<Arc<Self>, ObjectError> {
        let (meta, at) = meta::parse(stored, resource)?;
        Ok(Self::stamped(resource, meta, stored, at, revision))
    }

    /// As [`Object::from_stored`], for bytes that are already parsed; `at` is the offset just behind the opening brace of the metadata.
    fn stamped(resource: ResourceRef, meta: Meta, stored: &[u8], at: usize, revision: Revision) -> Arc<Self> {
        let end: &[u8] = if stored[at..].trim_ascii_start().starts_with(b"}") { b"\"" } else { b"\"," };
        let body = [&stored[..at], b"\"resourceVersion\":\"", revision.to_string().as_bytes(), end, &stored[at..]].concat();
        Self::assemble(resource, Meta { revision, ..meta }, Bytes::from(body))
    }

    /// An object as a server sends it, with its `metadata.resourceVersion`.
    ///
    /// # Errors
    /// If `body` is not JSON with a `metadata.name` and a numeric resource version.
    pub fn from_wire(resource: ResourceRef, body: Bytes) -> Result<Arc<Self>, ObjectError> {
        let (meta, _) = meta::parse(&body, resource)?;
        Ok(Self::assemble(resource, meta, body))
    }

    /// The same object at another resource version, as a watch reports a deleted object.
    pub fn at_revision(&self, revision: Revision) -> Arc<Self> {
        let body = meta::with_revision(&self.body, revision);
        Arc::new(Self {
            resource: self.resource,
            meta: Meta { revision, ..self.meta.clone() },
            body,
            typed: OnceLock::new(),
            part: OnceLock::new(),
        })
    }

    fn assemble(resource: ResourceRef, meta: Meta, body: Bytes) -> Arc<Self> {
        Arc::new(Self { resource, meta, body, typed: OnceLock::new(), part: OnceLock::new() })
    }

    pub fn resource(&self) -> ResourceRef {
        self.resource
    }

    pub fn meta(&self) -> &Meta {
        &self.meta
    }

    pub fn name(&self) -> &str {
        &self.meta.name.name
    }

    /// Empty for a cluster-scoped object.
    pub fn namespace(&self) -> &str {
        &self.meta.name.namespace
    }

    pub fn revision(&self) -> Revision {
        self.meta.revision
    }

    pub fn key(&self) -> ObjectKey {
        ObjectKey { resource: self.resource, name: self.meta.name.clone() }
    }

    /// The complete JSON, as clients get it.
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// The typed form (a `k8s-openapi` struct), decoded on the first call. For reading, and for objects that km itself owns: an object of a
    /// user is never written back through it.
    ///
    /// # Panics
    /// If one object is read as two different types; each resource has one.
    ///
    /// # Errors
    /// The decoder's, if the object does not fit the type.
    pub fn typed<T>(&self) -> Result<&T, serde_json::Error>
    where
        T: DeserializeOwned + Any + Send + Sync,
    {
        let decoded = self
            .typed
            .get_or_init(|| serde_json::from_slice::<T>(&self.body).ok().map(|value| Arc::new(value) as Arc<dyn Any + Send + Sync>));
        match decoded {
            Some(any) => Ok(any.downcast_ref::<T>().expect("a resource has one typed form")),
            // Rare: decode again to get the error, rather than keep an error in every object.
            None => match serde_json::from_slice::<T>(&self.body) {
                Err(error) => Err(error),
                Ok(_) => unreachable!("decoding is deterministic"),
            },
        }
    }

    /// The few fields that controllers need of kinds with very many objects, decoded on the first call; the type's default if the object
    /// does not decode.
    ///
    /// # Panics
    /// If one object is read as two different types; each resource has one.
    pub fn part<T>(&self) -> &T
    where
        T: DeserializeOwned + Default + Any + Send + Sync,
    {
        let part = self.part.get_or_init(|| Box::new(serde_json::from_slice::<T>(&self.body).unwrap_or_default()));
        part.downcast_ref().expect("a resource has one part")
    }

    /// The value of a selectable field, such as `spec.nodeName` or `metadata.name`; the field's default if the object lacks it. `None` if
    /// the kind has no such selectable field.
    pub fn field(&self, path: &str) -> Option<&str> {
        match path {
            "metadata.name" => Some(self.name()),
            "metadata.namespace" => Some(self.namespace()),
            _ => self.resource.selectable.iter().position(|field| field.path == path).map(|at| &*self.meta.fields[at]),
        }
    }
}

impl std::fmt::Debug for Object {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} at {}", self.key(), self.revision())
    }
}
