//! Decodes the responses of a server: objects, lists, failures.

use std::sync::Arc;
use std::time::Duration;

use anyhow::anyhow;
use bytes::Bytes;
use futures_util::TryStreamExt;
use http::{Response, StatusCode};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{ClientError, ResponseBody, Result};
use crate::object::{Object, ResourceRef, Revision, Status};

/// Part of a list.
#[derive(Debug)]
pub(super) struct ListPage {
    pub(super) objects: Vec<Arc<Object>>,
    pub(super) revision: Revision,
    /// Empty on the last page.
    pub(super) continue_token: String,
}

pub(super) fn malformed(error: impl Into<anyhow::Error>) -> ClientError {
    ClientError::Malformed(error.into())
}

/// A server that sends neither the head of a response nor more of its body for this long counts as hung. The API server itself gives up
/// after 60 s.
pub(super) const SILENCE: Duration = Duration::from_secs(75);

/// Collects a whole body, of a response other than a watch's.
///
/// # Errors
/// If the server breaks off or falls silent.
pub(super) async fn collect(mut body: ResponseBody) -> Result<Bytes> {
    let mut chunks: Vec<Bytes> = Vec::new();
    let silent = |_| ClientError::Unreachable(anyhow!("nothing more of the answer within {SILENCE:?}"));
    while let Some(chunk) = tokio::time::timeout(SILENCE, body.try_next()).await.map_err(silent)?? {
        chunks.push(chunk);
    }
    Ok(if chunks.len() == 1 { chunks.remove(0) } else { chunks.concat().into() })
}

/// The body of a success, or the failure that the server reports.
pub(super) async fn succeed(response: Response<ResponseBody>) -> Result<ResponseBody> {
    let (head, body) = response.into_parts();
    if head.status.is_success() {
        return Ok(body);
    }
    let body = collect(body).await?;
    Err(ClientError::Api(Box::new(failure(head.status, &body))))
}

/// A failure as a status, also if the server (or a proxy before it) sent none.
fn failure(code: StatusCode, body: &[u8]) -> Status {
    if let Ok(status) = serde_json::from_slice::<Status>(body)
        && status.kind == "Status"
        && status.code != 0
    {
        return status;
    }
    let reason = match code.as_u16() {
        400 => "BadRequest",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "NotFound",
        405 => "MethodNotAllowed",
        409 => "Conflict",
        410 => "Gone",
        422 => "Invalid",
        429 => "TooManyRequests",
        503 => "ServiceUnavailable",
        504 => "Timeout",
        500.. => "InternalError",
        _ => "",
    };
    let text: String = String::from_utf8_lossy(body).trim().chars().take(512).collect();
    let message = if text.is_empty() { format!("the server answered {code}") } else { format!("the server answered {code}: {text}") };
    Status::failure(code.as_u16(), reason, message)
}

pub(super) fn object(resource: ResourceRef, body: &[u8]) -> Result<Arc<Object>> {
    Object::from_wire(resource, with_kind(resource, body)).map_err(malformed)
}

/// The object in the response to a delete; `None` if it is a status.
pub(super) fn deleted(resource: ResourceRef, body: &[u8]) -> Result<Option<Arc<Object>>> {
    #[derive(Deserialize)]
    struct Kind {
        #[serde(default)]
        kind: String,
    }
    let Kind { kind } = serde_json::from_slice(body).map_err(malformed)?;
    if kind == "Status" { Ok(None) } else { object(resource, body).map(Some) }
}

pub(super) fn list(resource: ResourceRef, body: &[u8]) -> Result<ListPage> {
    #[derive(Deserialize)]
    struct List<'a> {
        metadata: ListMeta,
        #[serde(borrow, default)]
        items: Option<Vec<&'a RawValue>>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct ListMeta {
        resource_version: String,
        #[serde(rename = "continue", default)]
        continue_token: Option<String>,
    }
    let list: List<'_> = serde_json::from_slice(body).map_err(malformed)?;
    let revision = list.metadata.resource_version.parse();
    let revision = revision.map_err(|_| malformed(anyhow!("resourceVersion {:?} of a list", list.metadata.resource_version)))?;
    let objects = list.items.unwrap_or_default().into_iter().map(|item| object(resource, item.get().as_bytes()));
    Ok(ListPage { objects: objects.collect::<Result<_>>()?, revision, continue_token: list.metadata.continue_token.unwrap_or_default() })
}

/// A copy that does not keep the whole response in memory. Some servers omit the kind in list items: it is restored.
fn with_kind(resource: ResourceRef, item: &[u8]) -> Bytes {
    #[derive(Deserialize)]
    struct Kind<'a> {
        #[serde(borrow, default)]
        kind: Option<&'a RawValue>,
    }
    let first = item.get(..8).unwrap_or_default();
    let has_kind = match first {
        b"{\"kind\":" | b"{\"apiVer" => true,
        // The kind, if present, precedes the metadata.
        b"{\"metada" => false,
        _ => serde_json::from_slice::<Kind<'_>>(item).is_ok_and(|it| it.kind.is_some()),
    };
    if has_kind || !item.starts_with(b"{") {
        return Bytes::copy_from_slice(item);
    }
    let head = format!("{{\"kind\":\"{}\",\"apiVersion\":\"{}\"", resource.kind, resource.api_version());
    let comma: &[u8] = if item[1..].trim_ascii_start().starts_with(b"}") { b"" } else { b"," };
    [head.as_bytes(), comma, &item[1..]].concat().into()
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt;

    use super::*;
    use crate::object::resource;

    #[test]
    fn items_get_their_kind_back() {
        let body = br#"{"kind":"PodList","apiVersion":"v1","metadata":{"resourceVersion":"9","continue":"x"},
            "items":[{"metadata":{"name":"a","resourceVersion":"3"}}, {"kind":"Pod","metadata":{"name":"b","resourceVersion":"4"}}]}"#;
        let page = list(&resource::POD, body).unwrap();
        assert_eq!((page.revision, &*page.continue_token), (9, "x"));
        assert_eq!(&page.objects[0].body()[..], br#"{"kind":"Pod","apiVersion":"v1","metadata":{"name":"a","resourceVersion":"3"}}"#);
        assert_eq!(&page.objects[1].body()[..], br#"{"kind":"Pod","metadata":{"name":"b","resourceVersion":"4"}}"#);
        assert!(list(&resource::POD, br#"{"metadata":{"resourceVersion":"1"},"items":null}"#).unwrap().objects.is_empty());
        assert!(list(&resource::POD, br#"{"metadata":{"resourceVersion":""}}"#).is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_may_not_fall_silent_amid_an_answer() {
        let begun = || futures_util::stream::iter([Ok(Bytes::from_static(b"{")), Ok(Bytes::from_static(b"}"))]);
        assert_eq!(collect(begun().boxed()).await.unwrap(), "{}");
        let error = collect(begun().chain(futures_util::stream::pending()).boxed()).await.unwrap_err();
        assert!(matches!(error, ClientError::Unreachable(_)), "{error}");
    }

    #[test]
    fn failures_are_statuses() {
        let status = failure(StatusCode::NOT_FOUND, br#"{"kind":"Status","message":"m","reason":"NotFound","code":404}"#);
        assert_eq!((&*status.message, status.code), ("m", 404));
        let status = failure(StatusCode::BAD_GATEWAY, b"<html>\n");
        assert_eq!((&*status.reason, &*status.message), ("InternalError", "the server answered 502 Bad Gateway: <html>"));
    }

    #[test]
    fn a_delete_answers_with_an_object_or_a_status() {
        assert!(deleted(&resource::POD, br#"{"kind":"Status","status":"Success"}"#).unwrap().is_none());
        assert!(deleted(&resource::POD, br#"{"kind":"Pod","metadata":{"name":"a","resourceVersion":"3"}}"#).unwrap().is_some());
        assert!(deleted(&resource::POD, b"<").is_err());
    }
}
