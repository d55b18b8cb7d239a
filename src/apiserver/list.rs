//! Lists: selectors, chunks, and how new they must be. Out of the cache, by concatenation of ready-made bytes.

use std::sync::Arc;

use base64::engine::general_purpose::{GeneralPurpose, NO_PAD, URL_SAFE_NO_PAD};
use base64::{DecodeError, Engine, alphabet};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use serde::{Deserialize, Serialize};

use super::feed::Freshness;
use super::handler::Call;
use super::negotiate::{Accepted, Encoding, Form};
use super::query::{Answer, bad};
use super::respond::{self, Body, Response};
use super::{Server, list_options, past, render};
use crate::cache::Query;
use crate::codec;
use crate::object::selector::{FieldSelector, LabelSelector};
use crate::object::{Name, Object, ResourceRef, Revision, Status};
use crate::util::go_json;

/// Longer lists are sent in pieces of about this size while they are put together.
const PIECE: usize = 256 * 1024;

pub(crate) async fn serve(server: &Arc<Server>, call: &Call) -> Answer<Response> {
    let accepted = call.accepted()?;
    // A list takes no such time, but what is given has to be one.
    call.query.integer("timeoutSeconds")?;
    let (mut page, resource) = (select(server, call).await?, call.target.resource);
    if resource.stored_as.is_some() {
        page.objects.iter_mut().for_each(|it| *it = codec::in_version(it, resource));
    }
    let metadata = page.metadata();
    answer(call, accepted, page.objects, &metadata)
}

/// These objects as a list, in the form that was agreed on.
pub(crate) fn answer(call: &Call, accepted: Accepted, objects: Vec<Arc<Object>>, metadata: &str) -> Answer<Response> {
    let resource = call.target.resource;
    match accepted.form {
        Form::Table => {
            let table = codec::table(resource, &objects, render::include(&call.query)?, metadata, true, jiff::Timestamp::now());
            render::encoded(200, accepted, render::in_version(accepted, table))
        }
        Form::Partial => {
            Err(render::other_form(resource, "you requested PartialObjectMetadata, but the requested object is a list", "List"))
        }
        _ if accepted.older || accepted.encoding == Encoding::Yaml => {
            let whole = Pieces::new(resource, accepted.form, metadata, objects).all();
            render::encoded(200, accepted, render::in_version(accepted, whole))
        }
        _ => Ok(stream(accepted, Pieces::new(resource, accepted.form, metadata, objects))),
    }
}

/// The objects a list asks for, with the list's metadata.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) objects: Vec<Arc<Object>>,
    pub(crate) revision: Revision,
    next: Option<String>,
    remaining: Option<usize>,
}

impl Page {
    pub(crate) fn metadata(&self) -> String {
        let mut out = format!("{{\"resourceVersion\":\"{}\"", self.revision);
        if let Some(token) = &self.next {
            out.push_str(&format!(",\"continue\":\"{token}\""));
        }
        if let Some(remaining) = self.remaining {
            out.push_str(&format!(",\"remainingItemCount\":{remaining}"));
        }
        out.push('}');
        out
    }
}

/// The cache's query for a call's selectors.
///
/// # Errors
/// 400 for selectors that are malformed, or name a field that cannot be selected.
pub(crate) fn selection(call: &Call) -> Answer<Query> {
    let target = &call.target;
    let labels = call.query.get("labelSelector").map_or(Ok(LabelSelector::default()), LabelSelector::parse)?;
    let fields = call.query.get("fieldSelector").unwrap_or_default();
    let mut fields = FieldSelector::parse(target.resource, fields)?.stored(target.resource);
    if !target.name.is_empty() {
        if !fields.is_empty() && fields.value_of("metadata.name") != Some(&target.name) {
            return Err(bad("fieldSelector metadata.name doesn't match requested name"));
        }
        fields.terms.push(crate::object::selector::FieldTerm { path: "metadata.name".to_owned(), value: target.name.clone(), equal: true });
    }
    let namespace = (!target.namespace.is_empty()).then(|| target.namespace.clone());
    Ok(Query { namespace, labels, fields })
}

/// Of the form of a [`Token`].
const VERSION: &str = "meta.k8s.io/v1";

/// A place in a list that is read in chunks.
#[derive(Debug, Default, Serialize, Deserialize, PartialEq, Eq)]
#[serde(default)]
struct Token {
    v: String,
    /// Less than nothing: whatever is newest.
    rv: i64,
    /// Where the next chunk begins: just behind the last object sent.
    start: String,
    /// How many objects there are from `start` on, if they were counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    left: Option<usize>,
}

impl Token {
    fn new(revision: i64, last: &Name, left: Option<usize>) -> Self {
        Self { v: VERSION.to_owned(), rv: revision, start: format!("{last}\0"), left }
    }

    fn encode(&self) -> String {
        URL_SAFE_NO_PAD.encode(serde_json::to_vec(self).unwrap_or_default())
    }

    fn decode(text: &str) -> Answer<Self> {
        Self::read(text).map_err(|why| bad(format!("invalid continue token: continue key is not valid: {why}")))
    }

    fn read(text: &str) -> Result<Self, String> {
        // As Go reads it: what the last letter says too much does not matter.
        const LENIENT: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, NO_PAD.with_decode_allow_trailing_bits(true));
        let bytes = LENIENT.decode(text).map_err(|error| {
            let at = if let DecodeError::InvalidByte(at, _) = error { at } else { text.len() / 4 * 4 };
            format!("illegal base64 data at input byte {at}")
        })?;
        let token: Self =
            serde_json::from_slice(&bytes).map_err(|error| go_json::syntax_error(&bytes).unwrap_or_else(|| error.to_string()))?;
        match &token {
            Self { v, .. } if v != VERSION => Err(format!("server does not recognize this encoded version {v}")),
            Self { rv: 0, .. } => Err(format!("incorrect encoded start resourceVersion (version {VERSION})")),
            Self { start, .. } if start.is_empty() => Err(format!("encoded start key empty (version {VERSION})")),
            Self { start, .. } if !is_clean(start) => Err(start.clone()),
            _ => Ok(token),
        }
    }

    fn start(&self, resource: ResourceRef) -> Name {
        match self.start.split_once('/') {
            Some((namespace, name)) if resource.namespaced => Name::new(namespace, name),
            _ => Name::new("", &self.start),
        }
    }
}

/// Whether a place in a list is one of the names there, and leads nowhere else.
fn is_clean(start: &str) -> bool {
    start.strip_prefix('/').unwrap_or(start).split('/').all(|it| !matches!(it, "" | "." | ".."))
}

/// Which state of the resource a list shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Fresh(Freshness),
    Exactly(Revision),
}

/// Reads what a list call asks for.
pub(crate) async fn select(server: &Server, call: &Call) -> Answer<Page> {
    list_options::check(&call.query, false)?;
    let (resource, query) = (call.target.resource.storage(), selection(call)?);
    // Less than none is no limit.
    let limit = usize::try_from(call.query.integer("limit")?.unwrap_or_default()).unwrap_or_default();
    let token = call.query.get("continue").map(Token::decode).transpose()?;
    let state = match &token {
        Some(_) if call.query.get("resourceVersion").is_some_and(|it| it != "0") => {
            return Err(bad("specifying resource version is not allowed when using continue"));
        }
        Some(Token { rv: ..0, .. }) => State::Fresh(Freshness::Newest),
        Some(token) => State::Exactly(token.rv.unsigned_abs()),
        None => state(call, limit)?,
    };
    let (freshness, at) = match state {
        State::Fresh(freshness) => (freshness, None),
        State::Exactly(revision) => (Freshness::NotOlderThan(revision), Some(revision)),
    };
    server.freshen(resource, freshness).await?;
    let (start, most) = (token.as_ref().map(|it| it.start(resource)), if limit == 0 { usize::MAX } else { limit });
    let page = match server.cache.page(resource, &query, start.as_ref(), most, at) {
        Ok(page) => page,
        Err(_) => {
            let stored = past::page(server, resource, &query, start.as_ref(), most, at.unwrap_or_default()).await?;
            stored.ok_or_else(|| match &token {
                Some(token) => continue_expired(token),
                None => Box::new(Status::expired("The resourceVersion for the provided list is too old.")),
            })?
        }
    };
    let left = token.and_then(|it| it.left).filter(|_| query.is_unselective()).map(|it| it.saturating_sub(page.objects.len()));
    let remaining = page.remaining.or(left).filter(|it| *it > 0);
    let next = |last: &Arc<Object>| Token::new(page.revision.cast_signed(), &last.meta().name, remaining).encode();
    let next = page.objects.last().filter(|_| page.more).map(next);
    Ok(Page { objects: page.objects, revision: page.revision, next, remaining })
}

fn state(call: &Call, limit: usize) -> Answer<State> {
    let revision = call.query.revision("resourceVersion").map_err(|status| bad(format!("invalid resource version: {}", status.message)))?;
    Ok(match (revision, call.query.get("resourceVersionMatch")) {
        (None, _) => State::Fresh(Freshness::Newest),
        (Some(0), _) => State::Fresh(Freshness::Any),
        (Some(revision), Some("NotOlderThan")) => State::Fresh(Freshness::NotOlderThan(revision)),
        // Chunked lists had this meaning before there was a parameter for it.
        (Some(revision), None) if limit == 0 => State::Fresh(Freshness::NotOlderThan(revision)),
        (Some(revision), _) => State::Exactly(revision),
    })
}

/// The history a chunked list depends on is gone: the client may go on with what is there now.
fn continue_expired(token: &Token) -> Box<Status> {
    let mut status = Status::expired(
        "The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue \
         parameter, or use the continue token in this response to retrieve the remainder of the results. Continuing with the provided \
         token results in an inconsistent list - objects that were created, modified, or deleted between the time the first chunk was \
         returned and now may show up in the list.",
    );
    let fresh = Token { v: token.v.clone(), rv: -1, start: token.start.clone(), left: None };
    status.metadata.insert("continue".to_owned(), fresh.encode().into());
    Box::new(status)
}

/// A list's JSON, made piece by piece.
struct Pieces {
    head: Option<String>,
    partial: bool,
    /// What objects begin with that is not said of each in a list.
    kind: String,
    objects: std::vec::IntoIter<Arc<Object>>,
    first: bool,
    ended: bool,
}

impl Pieces {
    fn new(resource: ResourceRef, form: Form, metadata: &str, objects: Vec<Arc<Object>>) -> Self {
        let head = Some(render::list_head(resource, form, metadata));
        let kind = format!(r#"{{"kind":"{}","apiVersion":"{}","#, resource.kind, resource.api_version());
        Self { head, partial: form == Form::Partials, kind, objects: objects.into_iter(), first: true, ended: false }
    }

    fn all(self) -> Bytes {
        let mut out = BytesMut::new();
        self.for_each(|piece| out.extend_from_slice(&piece));
        out.freeze()
    }
}

impl Iterator for Pieces {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        if self.ended {
            return None;
        }
        let mut out = BytesMut::with_capacity(if self.objects.len() > 8 { PIECE + PIECE / 8 } else { 8 * 1024 });
        if let Some(head) = self.head.take() {
            out.extend_from_slice(head.as_bytes());
        }
        while out.len() < PIECE {
            let Some(object) = self.objects.next() else {
                out.extend_from_slice(b"]}\n");
                self.ended = true;
                break;
            };
            if !std::mem::take(&mut self.first) {
                out.extend_from_slice(b",");
            }
            if self.partial {
                out.extend_from_slice(&render::partial(&object));
            } else {
                match object.body().strip_prefix(self.kind.as_bytes()) {
                    Some(rest) => {
                        out.extend_from_slice(b"{");
                        out.extend_from_slice(rest);
                    }
                    None => out.extend_from_slice(object.body()),
                }
            }
        }
        Some(out.freeze())
    }
}

fn stream(accepted: Accepted, mut pieces: Pieces) -> Response {
    let first = pieces.next().unwrap_or_default();
    if pieces.ended {
        return respond::full(200, accepted.content_type(), first);
    }
    let body = futures_util::stream::iter(std::iter::once(first).chain(pieces).map(Ok)).boxed();
    respond::build(200, accepted.content_type(), Body::Stream(body))
}

/// A list of these objects as one document: what deleting a collection answers.
pub(crate) fn document(resource: ResourceRef, form: Form, metadata: &str, objects: Vec<Arc<Object>>) -> Bytes {
    Pieces::new(resource, form, metadata, objects).all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::resource::{NODE, POD};

    fn pod(namespace: &str, name: &str) -> Arc<Object> {
        let json = format!(r#"{{"kind":"Pod","apiVersion":"v1","metadata":{{"name":"{name}","namespace":"{namespace}"}}}}"#);
        Object::from_stored(&POD, json.as_bytes(), 3).unwrap()
    }

    #[test]
    fn tokens_are_checked() {
        let token = Token::new(7, &Name::new("", "n1"), Some(3));
        assert_eq!(Token::decode(&token.encode()).unwrap(), token);
        assert_eq!(token.start(&NODE), Name::new("", "n1\0"));
        assert_eq!(Token::new(7, &Name::new("a", "b"), None).start(&POD), Name::new("a", "b\0"));
        for (bad, why) in [
            ("", "unexpected end of JSON input"),
            ("x", "illegal base64 data at input byte 0"),
            ("a*", "illegal base64 data at input byte 1"),
            ("zzz", "invalid character '\\xcf' looking for beginning of value"),
            ("nonsense", "invalid character '\\x9e' looking for beginning of value"),
            ("e30", "server does not recognize this encoded version "),
            (&URL_SAFE_NO_PAD.encode(r#"{"v":"meta.k8s.io/v1"}"#), "incorrect encoded start resourceVersion (version meta.k8s.io/v1)"),
            (&URL_SAFE_NO_PAD.encode(r#"{"v":"meta.k8s.io/v1","rv":1}"#), "encoded start key empty (version meta.k8s.io/v1)"),
            (&URL_SAFE_NO_PAD.encode(r#"{"v":"meta.k8s.io/v1","rv":1,"start":"../x"}"#), "../x"),
        ] {
            let status = Token::decode(bad).unwrap_err();
            assert_eq!((status.code, status.message), (400, format!("invalid continue token: continue key is not valid: {why}")));
        }
    }

    #[test]
    fn lists_are_whole_documents() {
        for count in [0, 1, 2, 5000] {
            let objects: Vec<_> = (0..count).map(|n| pod("a", &format!("p{n}"))).collect();
            for form in [Form::Whole, Form::Partials] {
                let bytes = document(&POD, form, "{\"resourceVersion\":\"3\"}", objects.clone());
                let value: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
                assert_eq!(value["items"].as_array().unwrap().len(), count);
                assert!(form == Form::Partials || value["items"].as_array().unwrap().iter().all(|it| it.get("kind").is_none()));
                assert_eq!(value["metadata"]["resourceVersion"], "3");
            }
        }
    }
}
