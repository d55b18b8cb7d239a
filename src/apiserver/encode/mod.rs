//! Encodes objects, lists, errors and documents for a client, each once, from its stored JSON.

mod indent;
mod list;

use std::sync::Arc;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use jiff::Timestamp;

use super::error::{Answer, bad};
use super::heavy::heavy;
use super::negotiate::{Encoding, Form, Output, not_acceptable};
use super::query::Query;
use super::response::{self, Body, Response};
use crate::codec::{self, IncludeObject, TableWriter, partial_metadata};
use crate::object::{Object, ResourceRef, Status};
use indent::Indent;

impl Output {
    /// The response with one object; `query` selects the objects in a table's rows.
    pub(crate) async fn object(self, code: u16, query: &Query, object: &Arc<Object>) -> Answer<Response> {
        let json = match self.form {
            Form::Whole => object.body().clone(),
            Form::Partial(version) => partial_metadata(object, version),
            Form::Partials(_) => {
                let why = "you requested PartialObjectMetadataList, but the requested object is not a list";
                return Err(other_form(object.resource(), why, ""));
            }
            Form::Table(version) => {
                // A dry run has no resource version.
                let metadata = match object.revision() {
                    0 => "{}".to_owned(),
                    revision => format!(r#"{{"resourceVersion":"{revision}"}}"#),
                };
                let writer = TableWriter::new(object.resource(), version, include(query)?, Timestamp::now());
                writer.table(std::slice::from_ref(object), &metadata, true)
            }
        };
        self.document(code, json).await
    }

    /// The response with a JSON document.
    ///
    /// # Errors
    /// 406 for protobuf if there is no such message.
    pub(crate) async fn document(self, code: u16, json: Bytes) -> Answer<Response> {
        let bytes = match self.encoding {
            Encoding::Json => json,
            Encoding::Pretty => Indent::default().all(&json),
            Encoding::Yaml => heavy(json.len(), move || yaml(&json)).await?,
            Encoding::Protobuf => {
                let converted = heavy(json.len(), move || codec::protobuf(&json)).await;
                converted.ok_or_else(|| not_acceptable(&["application/json"]))?
            }
        };
        Ok(response::full(code, self.content_type(), bytes))
    }

    /// The response of a request; errors are in the client's encoding, too.
    pub(crate) async fn outcome(self, outcome: Answer<Response>) -> Response {
        match outcome {
            Ok(response) => response,
            Err(status) => self.status(&status).await,
        }
    }

    pub(crate) async fn status(self, status: &Status) -> Response {
        self.page(response::status(status)).await
    }

    /// Converts a JSON page to the client's encoding, with its code and headers. Other pages stay unchanged.
    pub(crate) async fn page(self, page: Response) -> Response {
        let is_json = page.headers().get(CONTENT_TYPE).is_some_and(|it| it == "application/json");
        let json = match page.body() {
            Body::Full(json) if is_json && !json.is_empty() && self.encoding != Encoding::Json => json.clone(),
            _ => return page,
        };
        match self.document(page.status().as_u16(), json).await {
            Ok(encoded) => {
                let mut page = page.map(|_| encoded.into_body());
                response::set(&mut page, CONTENT_TYPE, self.content_type());
                page
            }
            Err(status) if page.status().is_success() => response::status(&status),
            Err(_) => page,
        }
    }
}

fn yaml(json: &[u8]) -> Answer<Bytes> {
    let value: serde_json::Value = serde_json::from_slice(json).map_err(|error| Box::new(Status::internal(error)))?;
    Ok(codec::yaml::write(&value).into())
}

/// The parameter `includeObject`: the objects in a table's rows.
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

/// 406 for a form that does not exist of this. The message names Kubernetes' Go type.
fn other_form(resource: ResourceRef, why: &str, suffix: &str) -> Box<Status> {
    let group = resource.group.split('.').next().filter(|it| !it.is_empty()).unwrap_or("core");
    Box::new(Status::failure(406, "NotAcceptable", format!("{why} (*{group}.{}{suffix})", resource.kind)))
}
