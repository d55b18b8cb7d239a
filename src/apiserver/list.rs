//! Lists: selectors, chunks, and how new they must be. Out of the cache as far as it goes back.

use std::sync::Arc;

use base64::engine::general_purpose::{GeneralPurpose, NO_PAD, URL_SAFE_NO_PAD};
use base64::{DecodeError, Engine, alphabet};
use serde::{Deserialize, Serialize};

use super::error::{Answer, bad};
use super::freshness::Freshness;
use super::handler::Call;
use super::response::Response;
use super::{Server, list_options, stored_list};
use crate::cache::Query;
use crate::object::selector::{FieldSelector, LabelSelector};
use crate::object::{Name, Object, ResourceRef, Revision, Status};
use crate::util::go_json;

pub(crate) async fn serve(server: &Server, call: &Call) -> Answer<Response> {
    // A list ignores this timeout, but checks its syntax.
    call.query.integer("timeoutSeconds")?;
    let page = select(server, call).await?;
    let metadata = page.metadata();
    call.answer_list(&metadata, page.objects).await
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

/// The version of a [`Token`]'s form.
const VERSION: &str = "meta.k8s.io/v1";

/// A place in a list that is read in chunks.
#[derive(Debug, Default, Serialize, Deserialize, PartialEq, Eq)]
#[serde(default)]
struct Token {
    v: String,
    /// Negative: the newest.
    rv: i64,
    /// The start of the next chunk: just behind the last object sent.
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
        // As in Go, excess bits of the last character are ignored.
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

/// Reads the page that a list request selects.
pub(crate) async fn select(server: &Server, call: &Call) -> Answer<Page> {
    list_options::check(&call.query, false)?;
    let (resource, query) = (call.target.resource.storage(), selection(call)?);
    let token = call.query.get("continue").map(Token::decode).transpose()?;
    // A negative limit is none. As in Kubernetes, whoever takes any state gets all of it at once.
    let limit = usize::try_from(call.query.integer("limit")?.unwrap_or_default()).unwrap_or_default();
    let limit = if token.is_none() && call.query.get("resourceVersion") == Some("0") { 0 } else { limit };
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
            let stored = stored_list::page(server, resource, &query, start.as_ref(), most, at.unwrap_or_default()).await?;
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

/// The history that a chunked list needs is gone: the client may continue with the current objects.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::resource::{NODE, POD};

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
}
