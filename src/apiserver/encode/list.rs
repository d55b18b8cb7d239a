//! Lists, assembled from the encoded objects, and sent while they are being assembled.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;
use jiff::Timestamp;

use super::super::error::Answer;
use super::super::heavy::heavy;
use super::super::negotiate::{Encoding, Form, Output, not_acceptable};
use super::super::query::Query;
use super::super::response::{self, Body, Response};
use super::indent::Indent;
use super::{include, other_form, yaml};
use crate::codec::{self, MetaVersion, TableWriter, partial_metadata, write_partial_metadata};
use crate::object::{Object, ResourceRef};

/// Longer lists are sent in pieces of about this size.
const PIECE: usize = 256 * 1024;

impl Output {
    /// Responds with a list of `resource`; the objects may be of another version. `metadata` is the JSON of the list's metadata.
    pub(crate) async fn list(self, query: &Query, resource: ResourceRef, metadata: &str, objects: Vec<Arc<Object>>) -> Answer<Response> {
        let items = match self.form {
            Form::Whole => Items::Whole { start: format!(r#"{{"kind":"{}","apiVersion":"{}","#, resource.kind, resource.api_version()) },
            Form::Partials(version) => Items::Metadata(version),
            Form::Table(version) => Items::Rows(TableWriter::new(resource, version, include(query)?, Timestamp::now())),
            Form::Partial(_) => {
                return Err(other_form(resource, "you requested PartialObjectMetadata, but the requested object is a list", "List"));
            }
        };
        let size = || objects.iter().map(|it| it.body().len()).sum();
        match self.encoding {
            Encoding::Protobuf => {
                let (size, metadata) = (size(), metadata.to_owned());
                let made = heavy(size, move || protobuf(resource, &items, &metadata, &objects)).await;
                let bytes = made.ok_or_else(|| not_acceptable(&["application/json"]))?;
                Ok(response::full(200, self.content_type(), bytes))
            }
            Encoding::Yaml => {
                let (size, pieces) = (size(), Pieces::new(resource, items, metadata, objects));
                Ok(response::full(200, self.content_type(), heavy(size, move || yaml(&pieces.all())).await?))
            }
            Encoding::Json | Encoding::Pretty => {
                let indent = (self.encoding == Encoding::Pretty).then(Indent::default);
                let only_copied = indent.is_none() && resource.stored_as.is_none() && !matches!(items, Items::Rows(_));
                let size = if only_copied { 0 } else { size() };
                let pieces = Pieces { indent, ..Pieces::new(resource, items, metadata, objects) };
                Ok(if only_copied { copied(pieces) } else { made(pieces, size).await })
            }
        }
    }
}

/// The response with a list that only needs copying.
fn copied(mut pieces: Pieces) -> Response {
    let first = pieces.next().unwrap_or_default();
    if pieces.ended {
        return response::json(200, first);
    }
    let chunks = futures_util::stream::iter(std::iter::once(first).chain(pieces).map(Ok));
    response::build(200, "application/json", Body::Stream(chunks.boxed()))
}

/// The response with a list that needs computation, on objects of `size` bytes in total.
async fn made(pieces: Pieces, size: usize) -> Response {
    let next = move |mut pieces: Pieces| {
        heavy(size, move || {
            let piece = pieces.next();
            (piece, pieces)
        })
    };
    let (first, pieces) = next(pieces).await;
    let first = first.unwrap_or_default();
    if pieces.ended {
        return response::json(200, first);
    }
    let rest = futures_util::stream::unfold(pieces, move |pieces| async move {
        let (piece, pieces) = next(pieces).await;
        Some((piece?, pieces))
    });
    let chunks = futures_util::stream::iter([first]).chain(rest).map(Ok);
    response::build(200, "application/json", Body::Stream(chunks.boxed()))
}

/// `None` if there is no such message.
fn protobuf(resource: ResourceRef, items: &Items, metadata: &str, objects: &[Arc<Object>]) -> Option<Bytes> {
    let objects: Vec<Arc<Object>> = objects.iter().map(|it| codec::in_version(it, resource)).collect();
    match items {
        Items::Whole { .. } => {
            codec::protobuf_list(&resource.api_version(), resource.kind, metadata, objects.iter().map(|it| it.body().as_ref()))
        }
        Items::Metadata(version) => {
            let all: Vec<Bytes> = objects.iter().map(|it| partial_metadata(it, *version)).collect();
            codec::protobuf_list(version.api_version(), "PartialObjectMetadata", metadata, all.iter().map(AsRef::as_ref))
        }
        Items::Rows(_) => None,
    }
}

/// The form of a list's items.
enum Items {
    /// `start`, the kind and version, is left out of each object.
    Whole {
        start: String,
    },
    Metadata(MetaVersion),
    Rows(TableWriter),
}

/// A list's JSON, made piece by piece.
struct Pieces {
    resource: ResourceRef,
    items: Items,
    head: Option<Vec<u8>>,
    objects: std::vec::IntoIter<Arc<Object>>,
    first: bool,
    ended: bool,
    indent: Option<Indent>,
}

impl Pieces {
    fn new(resource: ResourceRef, items: Items, metadata: &str, objects: Vec<Arc<Object>>) -> Self {
        let list = |kind: &str, api_version: &str| {
            format!(r#"{{"kind":"{kind}List","apiVersion":"{api_version}","metadata":{metadata},"items":["#).into_bytes()
        };
        let head = match &items {
            Items::Whole { .. } => list(resource.kind, &resource.api_version()),
            Items::Metadata(version) => list("PartialObjectMetadata", version.api_version()),
            Items::Rows(writer) => {
                let mut head = Vec::new();
                writer.head(metadata, true, &mut head);
                head
            }
        };
        Self { resource, items, head: Some(head), objects: objects.into_iter(), first: true, ended: false, indent: None }
    }

    fn all(self) -> Vec<u8> {
        let mut out = Vec::new();
        self.for_each(|piece| out.extend_from_slice(&piece));
        out
    }

    fn add(&self, object: &Arc<Object>, out: &mut Vec<u8>) {
        let converted = self.resource.stored_as.map(|_| codec::in_version(object, self.resource));
        let object = converted.as_ref().unwrap_or(object);
        match &self.items {
            Items::Whole { start } => match object.body().strip_prefix(start.as_bytes()) {
                Some(rest) => {
                    out.push(b'{');
                    out.extend_from_slice(rest);
                }
                None => out.extend_from_slice(object.body()),
            },
            Items::Metadata(version) => write_partial_metadata(object, *version, out),
            Items::Rows(writer) => writer.row(object, out),
        }
    }
}

impl Iterator for Pieces {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        if self.ended {
            return None;
        }
        let mut out = Vec::with_capacity(if self.objects.len() > 8 { PIECE + PIECE / 8 } else { 8 * 1024 });
        if let Some(head) = self.head.take() {
            out.extend_from_slice(&head);
        }
        while out.len() < PIECE {
            let Some(object) = self.objects.next() else {
                out.extend_from_slice(match self.items {
                    Items::Rows(_) => TableWriter::END,
                    _ => b"]}\n",
                });
                self.ended = true;
                break;
            };
            if !std::mem::take(&mut self.first) {
                out.push(b',');
            }
            self.add(&object, &mut out);
        }
        if let Some(indent) = &mut self.indent {
            out = indent.lines(&out);
            if self.ended {
                out.extend_from_slice(Indent::END);
            }
        }
        Some(out.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::resource::POD;

    fn pod(namespace: &str, name: &str) -> Arc<Object> {
        let json = format!(r#"{{"kind":"Pod","apiVersion":"v1","metadata":{{"name":"{name}","namespace":"{namespace}"}}}}"#);
        Object::from_stored(&POD, json.as_bytes(), 3).unwrap()
    }

    #[tokio::test]
    async fn lists_are_whole_documents() {
        let query = Query::parse("includeObject=None");
        for count in [0, 1, 2, 5000] {
            let objects: Vec<_> = (0..count).map(|n| pod("a", &format!("p{n}"))).collect();
            for form in [Form::Whole, Form::Partials(MetaVersion::V1), Form::Table(MetaVersion::V1Beta1)] {
                for encoding in [Encoding::Json, Encoding::Pretty] {
                    let output = Output { form, encoding };
                    let response = output.list(&query, &POD, "{\"resourceVersion\":\"3\"}", objects.clone()).await.unwrap();
                    let bytes = match response.into_body() {
                        Body::Full(bytes) => bytes.to_vec(),
                        Body::Stream(chunks) | Body::Events(chunks) => chunks.map(|it| it.unwrap().to_vec()).concat().await,
                    };
                    let value: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
                    let items = value[if matches!(form, Form::Table(_)) { "rows" } else { "items" }].as_array().unwrap();
                    assert_eq!(items.len(), count);
                    assert!(form != Form::Whole || items.iter().all(|it| it.get("kind").is_none()));
                    assert_eq!(value["metadata"]["resourceVersion"], "3");
                    assert_eq!(bytes.ends_with(b"\n}\n"), encoding == Encoding::Pretty);
                }
            }
        }
    }
}
