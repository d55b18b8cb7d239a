//! Objects as the tables that `kubectl get` prints.

use std::sync::Arc;

use bytes::Bytes;

use crate::object::{Object, ResourceRef};

/// How much of each object a table's rows carry (`includeObject`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IncludeObject {
    None,
    #[default]
    Metadata,
    Object,
}

/// A `meta.k8s.io/v1` Table of these objects. `list_metadata` is the JSON of the list's `metadata`.
pub fn table(
    _resource: ResourceRef,
    _objects: &[Arc<Object>],
    _include: IncludeObject,
    _list_metadata: &str,
    _with_columns: bool,
) -> Bytes {
    todo!()
}
