//! Watches: from which revision they begin, and the frames they are made of. The frames of whole objects are the cache's ready-made bytes.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use tokio::time::{Instant, Sleep, sleep_until};

use super::feed::Freshness;
use super::handler::Call;
use super::list::selection;
use super::negotiate::{Accepted, Encoding, Form, STREAM_TYPES, not_acceptable};
use super::query::{Answer, bad};
use super::respond::{self, Body, Response};
use super::websocket::Watching;
use super::{Server, list_options, render};
use crate::cache::{self, Event, Expired, Frame};
use crate::codec::{self, IncludeObject};
use crate::object::{Object, ResourceRef, Revision, Status};
use crate::supervise::Shutdown;

/// How often a client that asked for them gets bookmarks.
const BOOKMARK_EVERY: Duration = Duration::from_secs(60);

pub(crate) async fn serve(server: &Arc<Server>, call: &Call) -> Answer<Response> {
    let accepted = call.accepted()?;
    if accepted.encoding == Encoding::Yaml {
        return Err(not_acceptable(STREAM_TYPES));
    }
    let (resource, begin, timeout) = (call.target.resource, Begin::parse(call)?, timeout(server, call)?);
    let query = selection(call)?;
    let include = render::include(&call.query)?;
    server.freshen(resource.storage(), begin.freshness).await?;
    let after = begin.after.unwrap_or_else(|| server.cache.revision(resource.storage()));
    let deadline = Instant::now() + timeout;
    let bookmarks = call.query.flag("allowWatchBookmarks");
    let mut frames = Frames {
        source: None,
        resource,
        accepted,
        include,
        first_row: true,
        bookmarks,
        initial_bookmark: bookmarks && begin.announce_end,
        next_bookmark: Instant::now() + BOOKMARK_EVERY,
        deadline,
        alarm: Box::pin(sleep_until(deadline)),
        shutdown: server.tasks.shutdown(),
        ready: VecDeque::new(),
    };
    match server.cache.watch(resource.storage(), query, after) {
        Ok(watch) => frames.source = Some(watch),
        Err(expired) => frames.end_with(expired),
    }
    let body = futures_util::stream::unfold(frames, |mut frames| async move {
        let frame = frames.next().await?;
        Some((Ok(frame), frames))
    });
    let mut response = respond::build(200, "application/json", Body::Stream(body.boxed()));
    response.extensions_mut().insert(Watching);
    Ok(response)
}

fn timeout(server: &Server, call: &Call) -> Answer<Duration> {
    let seconds = call.query.integer("timeoutSeconds")?.unwrap_or_default();
    Ok(match u64::try_from(seconds) {
        // Not all at once: watches that began together end apart.
        Ok(0) => server.config.min_watch.mul_f64(1.0 + rand::random::<f64>()),
        // Longer than any connection lives, but not so long that the clock overflows.
        Ok(seconds) => Duration::from_secs(seconds.min(u64::from(u32::MAX))),
        Err(_) => return Err(bad("timeoutSeconds: must not be negative")),
    })
}

/// Where a watch begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Begin {
    freshness: Freshness,
    /// 0: with all there is. `None`: with what comes next.
    after: Option<Revision>,
    /// Say where the objects that there were end.
    announce_end: bool,
}

impl Begin {
    fn parse(call: &Call) -> Answer<Self> {
        list_options::check(&call.query, true)?;
        let revision = call.query.revision("resourceVersion")?;
        let initial = call.query.optional_flag("sendInitialEvents");
        let after = match (initial, revision) {
            (Some(true), _) | (None, None | Some(0)) => Some(0),
            (Some(false), None | Some(0)) => None,
            (_, Some(revision)) => Some(revision),
        };
        let freshness = match revision {
            None => Freshness::Newest,
            // What comes after a revision can be waited for before that has come.
            Some(revision) if revision == 0 || after == Some(revision) => Freshness::Any,
            Some(revision) => Freshness::NotOlderThan(revision),
        };
        // A watch that begins with what there is is one that asks for it.
        Ok(Self { freshness, after, announce_end: after == Some(0) })
    }
}

struct Frames {
    /// `None` once the watch has ended.
    source: Option<cache::Watch>,
    resource: ResourceRef,
    accepted: Accepted,
    include: IncludeObject,
    /// Only the first table carries the columns.
    first_row: bool,
    bookmarks: bool,
    initial_bookmark: bool,
    next_bookmark: Instant,
    deadline: Instant,
    alarm: Pin<Box<Sleep>>,
    shutdown: Shutdown,
    ready: VecDeque<Bytes>,
}

impl Frames {
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(frame) = self.ready.pop_front() {
                return Some(frame);
            }
            let source = self.source.as_mut()?;
            let due = if self.bookmarks { self.next_bookmark.min(self.deadline) } else { self.deadline };
            if self.alarm.deadline() != due {
                self.alarm.as_mut().reset(due);
            }
            let news = tokio::select! {
                biased;
                () = self.shutdown.cancelled() => return None,
                () = self.alarm.as_mut() => None,
                news = news(source, self.accepted.form == Form::Whole && self.resource.stored_as.is_none()) => Some(news),
            };
            match news {
                Some(Ok(News::Frames(frames))) => frames.into_iter().for_each(|frame| self.push(frame)),
                Some(Ok(News::Event(event))) => self.push_converted(&event),
                Some(Err(expired)) => self.end_with(expired),
                None => {
                    if self.bookmarks {
                        let revision = source.revision();
                        self.push_bookmark(revision, false);
                    }
                    self.next_bookmark = Instant::now() + BOOKMARK_EVERY;
                    if self.deadline <= Instant::now() {
                        self.source = None;
                    }
                }
            }
        }
    }

    fn push(&mut self, frame: Frame) {
        match frame {
            Frame::Events(bytes, _) => self.ready.push_back(bytes),
            Frame::Bookmark(revision) => self.initial_end(revision),
        }
    }

    fn push_converted(&mut self, event: &Event) {
        let (kind, object) = match event {
            Event::Added(object) => ("ADDED", object),
            Event::Modified(object) => ("MODIFIED", object),
            Event::Deleted(object) => ("DELETED", object),
            Event::Bookmark(revision) => return self.initial_end(*revision),
        };
        let object = codec::in_version(object, self.resource);
        let bytes = match self.accepted.form {
            Form::Table => self.table(std::slice::from_ref(&object), object.revision()),
            Form::Partial | Form::Partials => render::partial(&object),
            Form::Whole => object.body().clone(),
        };
        self.ready.push_back(frame(kind, &self.in_version(bytes)));
    }

    fn in_version(&self, form: Bytes) -> Bytes {
        if self.accepted.form == Form::Whole { form } else { render::in_version(self.accepted, form) }
    }

    fn table(&mut self, objects: &[Arc<Object>], revision: Revision) -> Bytes {
        let metadata = format!("{{\"resourceVersion\":\"{revision}\"}}");
        codec::table(self.resource, objects, self.include, &metadata, std::mem::take(&mut self.first_row), jiff::Timestamp::now())
    }

    fn initial_end(&mut self, revision: Revision) {
        if std::mem::take(&mut self.initial_bookmark) {
            self.push_bookmark(revision, true);
        }
    }

    fn push_bookmark(&mut self, revision: Revision, initial_end: bool) {
        let bytes = if self.accepted.form == Form::Table {
            self.table(&[], revision)
        } else {
            let (kind, api_version) = match self.accepted.form {
                Form::Partial | Form::Partials => ("PartialObjectMetadata", "meta.k8s.io/v1".to_owned()),
                _ => (self.resource.kind, self.resource.api_version()),
            };
            let annotations = if initial_end { r#","annotations":{"k8s.io/initial-events-end":"true"}"# } else { "" };
            let metadata = format!(r#"{{"resourceVersion":"{revision}","creationTimestamp":null{annotations}}}"#);
            format!(r#"{{"kind":"{kind}","apiVersion":"{api_version}","metadata":{metadata}}}"#).into()
        };
        self.ready.push_back(frame("BOOKMARK", &self.in_version(bytes)));
    }

    /// The last thing a client hears if history does not reach back to where it is.
    fn end_with(&mut self, expired: Expired) {
        let status = Status::expired(expired.to_string());
        self.ready.push_back(frame("ERROR", &serde_json::to_vec(&status).unwrap_or_default()));
        self.source = None;
    }
}

enum News {
    Frames(Vec<Frame>),
    Event(Event),
}

async fn news(source: &mut cache::Watch, as_stored: bool) -> Result<News, Expired> {
    match as_stored {
        true => source.next_frames().await.map(News::Frames),
        false => source.next().await.map(News::Event),
    }
}

fn frame(kind: &str, object: &[u8]) -> Bytes {
    [br#"{"type":""#, kind.as_bytes(), br#"","object":"#, object, b"}\n"].concat().into()
}
