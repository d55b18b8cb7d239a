//! Claims without a storage class and ingresses without an ingress class get the default one.

use serde_json::Value;

use super::super::Server;
use super::{Operation, Review};
use crate::cache::Query;
use crate::object::resource::{INGRESS, INGRESS_CLASS, PERSISTENT_VOLUME_CLAIM, STORAGE_CLASS};
use crate::object::{ResourceRef, default_class};
use crate::util::json;

/// A kind that gets a default class, and the field for it.
#[derive(Debug)]
pub(super) struct Kind {
    of: ResourceRef,
    class: ResourceRef,
    /// The name of the field in the object's spec.
    field: &'static str,
    /// The older annotation that names a class.
    annotation: &'static str,
    /// Annotations that mark a class as the default; either is enough.
    marks: &'static [&'static str],
}

pub(super) static STORAGE: Kind = Kind {
    of: &PERSISTENT_VOLUME_CLAIM,
    class: &STORAGE_CLASS,
    field: "storageClassName",
    annotation: "volume.beta.kubernetes.io/storage-class",
    marks: default_class::STORAGE_MARKS,
};

pub(super) static INGRESSES: Kind = Kind {
    of: &INGRESS,
    class: &INGRESS_CLASS,
    field: "ingressClassName",
    annotation: "kubernetes.io/ingress.class",
    marks: default_class::INGRESS_MARKS,
};

pub(super) fn admit(server: &Server, kind: &Kind, review: &Review<'_>, object: &mut Value) {
    let concerns = review.operation == Operation::Create && review.subresource.is_empty() && review.key.resource == kind.of;
    if !concerns || object.pointer("/metadata/annotations").is_some_and(|it| it.get(kind.annotation).is_some()) {
        return;
    }
    let spec = json::map(object, "spec");
    // An empty name asks for no class.
    if spec.get(kind.field).is_some_and(|it| !it.is_null()) {
        return;
    }
    let classes = server.cache.list(kind.class, &Query::default()).objects;
    if let Some(class) = default_class::newest(&classes, kind.marks) {
        spec.insert(kind.field.to_owned(), class.name().into());
    }
}
