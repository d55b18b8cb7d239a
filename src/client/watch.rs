//! The events of a watch, decoded from its stream.

use std::borrow::Cow;
use std::sync::Arc;

use anyhow::anyhow;
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::response::{malformed, object};
use super::{ClientError, ResponseBody, Result};
use crate::object::{Object, ResourceRef, Revision, Status};

/// Bound of an event's size in bytes.
const LONGEST: usize = 64 << 20;

/// One event as a server sends it.
#[derive(Clone, Debug)]
pub enum WatchEvent {
    Added(Arc<Object>),
    Modified(Arc<Object>),
    /// The last state, at the revision of the deletion.
    Deleted(Arc<Object>),
    Bookmark(Revision),
}

/// A running watch. It ends when the server ends it, usually after some minutes.
pub struct WatchStream {
    resource: ResourceRef,
    body: ResponseBody,
    lines: Lines,
}

impl std::fmt::Debug for WatchStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "watch of {}", self.resource.plural)
    }
}

impl WatchStream {
    pub(super) fn new(resource: ResourceRef, body: ResponseBody) -> Self {
        Self { resource, body, lines: Lines::default() }
    }

    /// Waits for the next events: all that one chunk of the response completes. `None` once the server has ended the watch.
    ///
    /// # Errors
    /// The failure that the server reports (`Expired` if the required history is gone), or that of the connection.
    pub async fn next(&mut self) -> Result<Option<Vec<WatchEvent>>> {
        loop {
            let mut events = Vec::new();
            while let Some(line) = self.lines.next() {
                match decode(self.resource, &line) {
                    Ok(event) => events.push(event),
                    // Earlier events are returned first; the next call reports the failure.
                    Err(_) if !events.is_empty() => {
                        self.lines.put_back(&line);
                        break;
                    }
                    Err(error) => return Err(error),
                }
            }
            if !events.is_empty() {
                return Ok(Some(events));
            }
            match self.body.next().await {
                None if self.lines.is_empty() => return Ok(None),
                None => return Err(ClientError::Unreachable(anyhow!("the watch broke off within an event"))),
                Some(chunk) => self.lines.push(&chunk?)?,
            }
        }
    }
}

fn decode(resource: ResourceRef, line: &[u8]) -> Result<WatchEvent> {
    #[derive(Deserialize)]
    struct Wire<'a> {
        #[serde(rename = "type", borrow)]
        kind: Cow<'a, str>,
        #[serde(borrow)]
        object: &'a RawValue,
    }
    let Wire { kind, object: raw } = serde_json::from_slice(line).map_err(malformed)?;
    let raw = raw.get().as_bytes();
    match &*kind {
        "ADDED" => object(resource, raw).map(WatchEvent::Added),
        "MODIFIED" => object(resource, raw).map(WatchEvent::Modified),
        "DELETED" => object(resource, raw).map(WatchEvent::Deleted),
        "BOOKMARK" => bookmark(raw).map(WatchEvent::Bookmark),
        "ERROR" => {
            let status: Status = serde_json::from_slice(raw).map_err(malformed)?;
            Err(ClientError::Api(Box::new(status)))
        }
        other => Err(malformed(anyhow!("a watch event of type {other:?}"))),
    }
}

fn bookmark(raw: &[u8]) -> Result<Revision> {
    #[derive(Deserialize)]
    struct Bookmark<'a> {
        #[serde(borrow)]
        metadata: Meta<'a>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Meta<'a> {
        resource_version: &'a str,
    }
    let Bookmark { metadata } = serde_json::from_slice(raw).map_err(malformed)?;
    metadata.resource_version.parse().map_err(malformed)
}

/// Cuts a byte stream into lines.
#[derive(Debug, Default)]
struct Lines {
    buffer: BytesMut,
    /// The buffer has no line end before this offset.
    searched: usize,
}

impl Lines {
    fn push(&mut self, chunk: &[u8]) -> Result<()> {
        self.buffer.extend_from_slice(chunk);
        if self.buffer.len() > LONGEST {
            return Err(malformed(anyhow!("a watch event of more than {LONGEST} bytes")));
        }
        Ok(())
    }

    fn next(&mut self) -> Option<Bytes> {
        loop {
            let Some(at) = self.buffer[self.searched..].iter().position(|byte| *byte == b'\n') else {
                self.searched = self.buffer.len();
                return None;
            };
            let line = self.buffer.split_to(self.searched + at + 1).freeze();
            self.searched = 0;
            if !line.trim_ascii().is_empty() {
                return Some(line);
            }
        }
    }

    fn put_back(&mut self, line: &[u8]) {
        let rest = std::mem::take(&mut self.buffer);
        self.buffer = BytesMut::from(line);
        self.buffer.unsplit(rest);
        self.searched = 0;
    }

    fn is_empty(&self) -> bool {
        self.buffer.trim_ascii().is_empty()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::stream;
    use proptest::prelude::*;

    use super::*;
    use crate::object::resource;

    fn run(chunks: Vec<Result<Bytes>>) -> Vec<String> {
        let mut watch = WatchStream::new(&resource::POD, stream::iter(chunks).boxed());
        let mut seen = Vec::new();
        loop {
            match futures_util::FutureExt::now_or_never(watch.next()).unwrap() {
                Ok(Some(events)) => seen.extend(events.into_iter().map(|event| format!("{event:?}"))),
                Ok(None) => break,
                Err(error) => {
                    seen.push(error.to_string());
                    break;
                }
            }
        }
        seen
    }

    proptest! {
        #[test]
        fn events_do_not_depend_on_chunks(cuts in prop::collection::vec(0..400usize, 0..12)) {
            let text = concat!(
                r#"{"type":"ADDED","object":{"metadata":{"name":"a","resourceVersion":"3"}}}"#, "\n",
                r#"{"type":"DELETED","object":{"metadata":{"name":"a","resourceVersion":"4"}}}"#, "\r\n\n",
                r#"{"type":"BOOKMARK","object":{"metadata":{"resourceVersion":"7"}}}"#, "\n",
                r#"{"type":"ERROR","object":{"kind":"Status","message":"too old","code":410}}"#, "\n",
            );
            let mut cuts: Vec<usize> = cuts.into_iter().map(|at| at.min(text.len())).chain([0, text.len()]).collect();
            cuts.sort_unstable();
            let chunks = cuts.windows(2).map(|cut| Ok(Bytes::from(text[cut[0]..cut[1]].to_owned()))).collect();
            prop_assert_eq!(run(chunks), ["Added(pods a at 3)", "Deleted(pods a at 4)", "Bookmark(7)", "too old"]);
        }
    }

    #[test]
    fn what_is_not_an_event() {
        for (text, why) in [
            ("{\"type\":\"ADDED\"", "the API server is out of reach: the watch broke off within an event"),
            ("{\"type\":\"X\",\"object\":{}}\n", "the API server's answer is not understood: a watch event of type \"X\""),
        ] {
            assert_eq!(run(vec![Ok(Bytes::from(text))]), [why]);
        }
    }
}
