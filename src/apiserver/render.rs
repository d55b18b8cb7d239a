//! Objects in the form and media type that was agreed on.

use std::sync::Arc;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::negotiate::{Accepted, Encoding, Form};
use super::query::{Answer, Query, bad};
use super::respond::{self, Response};
use crate::codec::{self, IncludeObject};
use crate::object::{Object, ResourceRef, Status};

/// One object as an answer.
pub(crate) fn object(code: u16, accepted: Accepted, query: &Query, object: &Arc<Object>) -> Answer<Response> {
    let bytes = match accepted.form {
        Form::Whole => object.body().clone(),
        Form::Partial => partial(object),
        Form::Partials => {
            let why = "you requested PartialObjectMetadataList, but the requested object is not a list";
            return Err(other_form(object.resource(), why, ""));
        }
        Form::Table => {
            // What was only tried is at no version.
            let metadata = match object.revision() {
                0 => "{}".to_owned(),
                revision => format!("{{\"resourceVersion\":\"{revision}\"}}"),
            };
            codec::table(object.resource(), std::slice::from_ref(object), include(query)?, &metadata, true, jiff::Timestamp::now())
        }
    };
    encoded(code, accepted, in_version(accepted, bytes))
}

/// A form of objects (not one of them as a whole), in the version of it that was agreed on.
pub(crate) fn in_version(accepted: Accepted, form: Bytes) -> Bytes {
    const NEWER: &[u8] = br#""apiVersion":"meta.k8s.io/v1""#;
    const OLDER: &[u8] = br#""apiVersion":"meta.k8s.io/v1beta1""#;
    if !accepted.older {
        return form;
    }
    // Within texts there are no quotes that are not escaped.
    let mut out = Vec::with_capacity(form.len());
    let mut rest = &form[..];
    while let Some(at) = rest.windows(NEWER.len()).position(|it| it == NEWER) {
        out.extend_from_slice(&rest[..at]);
        out.extend_from_slice(OLDER);
        rest = &rest[at + NEWER.len()..];
    }
    out.extend_from_slice(rest);
    out.into()
}

/// The refusal of a form that these objects do not have. Kubernetes names its own type of them.
pub(crate) fn other_form(resource: ResourceRef, why: &str, suffix: &str) -> Box<Status> {
    let group = resource.group.split('.').next().filter(|it| !it.is_empty()).unwrap_or("core");
    Box::new(Status::failure(406, "NotAcceptable", format!("{why} (*{group}.{}{suffix})", resource.kind)))
}

/// A JSON document in the media type asked for.
pub(crate) fn encoded(code: u16, accepted: Accepted, json: Bytes) -> Answer<Response> {
    let bytes = match accepted.encoding {
        Encoding::Json => json,
        Encoding::Yaml => {
            let value: serde_json::Value = serde_json::from_slice(&json).map_err(|error| Box::new(Status::internal(error)))?;
            codec::yaml::write(&value).into()
        }
    };
    Ok(respond::full(code, accepted.content_type(), bytes))
}

/// The parameter `includeObject`: what a table's rows carry.
pub(crate) fn include(query: &Query) -> Answer<IncludeObject> {
    match query.get("includeObject") {
        None | Some("Metadata") => Ok(IncludeObject::Metadata),
        Some("None") => Ok(IncludeObject::None),
        Some("Object") => Ok(IncludeObject::Object),
        Some(other) => Err(bad(format!(
            "Unable to convert to Table as requested: includeObject: Invalid value: {other:?}: must be 'Metadata', 'Object', 'None', or empty"
        ))),
    }
}

/// `PartialObjectMetadata`: the metadata alone.
pub(crate) fn partial(object: &Object) -> Bytes {
    #[derive(Deserialize)]
    struct OnlyMetadata<'a> {
        #[serde(borrow)]
        metadata: &'a RawValue,
    }
    let parsed: Option<OnlyMetadata<'_>> = serde_json::from_slice(object.body()).ok();
    let metadata = parsed.map_or("{}", |it| it.metadata.get());
    format!("{{\"kind\":\"PartialObjectMetadata\",\"apiVersion\":\"meta.k8s.io/v1\",\"metadata\":{metadata}}}").into()
}

/// The kind of a list of these, in this form.
pub(crate) fn list_head(resource: ResourceRef, form: Form, metadata: &str) -> String {
    match form {
        Form::Partials => {
            format!("{{\"kind\":\"PartialObjectMetadataList\",\"apiVersion\":\"meta.k8s.io/v1\",\"metadata\":{metadata},\"items\":[")
        }
        _ => format!(
            "{{\"kind\":\"{}List\",\"apiVersion\":\"{}\",\"metadata\":{metadata},\"items\":[",
            resource.kind,
            resource.api_version()
        ),
    }
}

#[test]
fn older_forms_differ_by_name() {
    let bytes = Bytes::from_static(br#"{"kind":"Table","apiVersion":"meta.k8s.io/v1","x":"\"apiVersion\":\"meta.k8s.io/v1\""}"#);
    let accepted = |older| Accepted { older, ..Accepted::default() };
    assert_eq!(in_version(accepted(false), bytes.clone()), bytes);
    assert_eq!(
        in_version(accepted(true), bytes),
        &br#"{"kind":"Table","apiVersion":"meta.k8s.io/v1beta1","x":"\"apiVersion\":\"meta.k8s.io/v1\""}"#[..]
    );
}
