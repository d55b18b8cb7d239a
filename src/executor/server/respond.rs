//! Answers of the kubelet's API.

use std::convert::Infallible;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use http::header::CONTENT_TYPE;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;

pub(super) type Response = http::Response<UnsyncBoxBody<Bytes, Infallible>>;

fn build(code: u16, kind: &'static str, body: UnsyncBoxBody<Bytes, Infallible>) -> Response {
    let mut response = http::Response::new(body);
    *response.status_mut() = http::StatusCode::from_u16(code).unwrap_or(http::StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(CONTENT_TYPE, http::HeaderValue::from_static(kind));
    response
}

pub(super) fn text(code: u16, text: impl Into<String>) -> Response {
    build(code, "text/plain", Full::new(Bytes::from(text.into())).boxed_unsync())
}

pub(super) fn json(body: Vec<u8>) -> Response {
    build(200, "application/json", Full::new(Bytes::from(body)).boxed_unsync())
}

pub(super) fn not_found() -> Response {
    text(404, "404 page not found")
}

pub(super) fn stream(chunks: BoxStream<'static, Bytes>) -> Response {
    build(200, "text/plain", StreamBody::new(chunks.map(|chunk| Ok(Frame::data(chunk)))).boxed_unsync())
}
