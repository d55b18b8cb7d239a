//! Answers: their bodies, headers and errors.

use std::io;

use bytes::Bytes;
use futures_util::stream::BoxStream;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, HeaderName, HeaderValue, IF_NONE_MATCH, LOCATION, RETRY_AFTER, VARY, WARNING};
use http::{HeaderMap, StatusCode};

use crate::codec::Document;
use crate::object::Status;

pub(crate) type Response = http::Response<Body>;

/// The body of a response.
pub(crate) enum Body {
    Full(Bytes),
    Stream(BoxStream<'static, io::Result<Bytes>>),
    /// The events of a watch, an unbounded stream of chunks of whole events.
    Events(BoxStream<'static, io::Result<Bytes>>),
}

pub(crate) fn full(code: u16, content_type: &'static str, bytes: Bytes) -> Response {
    build(code, content_type, Body::Full(bytes))
}

pub(crate) fn build(code: u16, content_type: &'static str, body: Body) -> Response {
    let mut response = http::Response::new(body);
    *response.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    set(&mut response, CONTENT_TYPE, content_type);
    set(&mut response, CACHE_CONTROL, "no-cache, private");
    response
}

pub(crate) fn json(code: u16, bytes: Bytes) -> Response {
    full(code, "application/json", bytes)
}

pub(crate) fn text(code: u16, text: impl Into<String>) -> Response {
    full(code, "text/plain; charset=utf-8", Bytes::from(text.into()))
}

/// The response for an unknown path.
pub(crate) fn page_not_found() -> Response {
    text(404, "404 page not found\n")
}

pub(crate) fn status(status: &Status) -> Response {
    let mut bytes = serde_json::to_vec(status).unwrap_or_default();
    // There are clients that compare the whole body.
    bytes.push(b'\n');
    let mut response = json(if status.code == 0 { 200 } else { status.code }, Bytes::from(bytes));
    if let Some(seconds) = status.details.as_ref().and_then(|it| it.retry_after_seconds) {
        set(&mut response, RETRY_AFTER, &seconds.to_string());
    }
    response
}

/// The response for an unknown path within a group.
pub(crate) fn resource_not_found() -> Response {
    self::status(&Status::undirected(404, "NotFound", "the server could not find the requested resource"))
}

/// A document made once.
pub(crate) fn plain_document(content_type: &'static str, document: &Document) -> Response {
    full(200, content_type, document.bytes.clone())
}

/// A document made once, or 304 if the client has it.
pub(crate) fn document(headers: &HeaderMap, content_type: &'static str, document: &'static Document) -> Response {
    let known =
        headers.get(IF_NONE_MATCH).and_then(|it| it.to_str().ok()).is_some_and(|it| it.split(',').any(|tag| tag.trim() == document.etag));
    let mut response = if known { full(304, content_type, Bytes::new()) } else { full(200, content_type, document.bytes.clone()) };
    set(&mut response, ETAG, &document.etag);
    set(&mut response, VARY, "Accept");
    set(&mut response, CACHE_CONTROL, "public");
    response
}

/// A document under a URL that names its content: it may be kept for ever.
pub(crate) fn immutable(headers: &HeaderMap, content_type: &'static str, content: &'static Document) -> Response {
    let mut response = document(headers, content_type, content);
    set(&mut response, CACHE_CONTROL, "public, immutable, max-age=31536000");
    response
}

/// Where the document is now that this URL named in an earlier release.
pub(crate) fn moved(to: &str) -> Response {
    let mut response = text(301, "");
    set(&mut response, LOCATION, to);
    response
}

/// Tells the client something without failing it; as much as fits the heads that clients read.
pub(crate) fn warn(response: &mut Response, warnings: &[String]) {
    const TOTAL: usize = 4096;
    const EACH: usize = 256;
    let long = warnings.iter().map(String::len).sum::<usize>() > TOTAL;
    for warning in warnings.iter().take(if long { TOTAL / EACH } else { usize::MAX }) {
        let text: String = warning
            .chars()
            .filter(|it| !it.is_control())
            .take(if long { EACH } else { usize::MAX })
            .flat_map(|it| if matches!(it, '"' | '\\') { vec!['\\', it] } else { vec![it] })
            .collect();
        if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{text}\"")) {
            response.headers_mut().append(WARNING, value);
        }
    }
}

pub(crate) fn set(response: &mut Response, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
}

impl std::fmt::Debug for Body {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Full(bytes) => write!(f, "{} bytes", bytes.len()),
            Self::Stream(_) => f.write_str("a stream"),
            Self::Events(_) => f.write_str("events"),
        }
    }
}
