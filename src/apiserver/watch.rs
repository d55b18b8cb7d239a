//! Watches: from which revision they begin, and the frames they are made of. All but tables the cache makes, once for everybody.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use tokio::time::{Instant, Sleep, sleep_until};

use super::error::{Answer, bad};
use super::freshness::Freshness;
use super::handler::Call;
use super::list::selection;
use super::negotiate::{Encoding, Form, Output, PROTOBUF_STREAM};
use super::response::{self, Body, Response};
use super::{Server, encode, list_options};
use crate::cache::{self, Event, Expired, Frame};
use crate::codec::{self, EventFormat, IncludeObject, MetaVersion, TableWriter};
use crate::object::{Object, ResourceRef, Revision, Status};
use crate::supervise::Shutdown;

/// How often a client that asked for them gets bookmarks.
const BOOKMARK_EVERY: Duration = Duration::from_secs(60);

pub(crate) async fn serve(server: &Arc<Server>, call: &Call) -> Answer<Response> {
    let (resource, begin, timeout) = (call.target.resource, Begin::parse(call)?, timeout(server, call)?);
    let query = selection(call)?;
    let encoder = Encoder::new(call)?;
    server.freshen(resource.storage(), begin.freshness).await?;
    let after = begin.after.unwrap_or_else(|| server.cache.revision(resource.storage()));
    let deadline = Instant::now() + timeout;
    let bookmarks = call.query.flag("allowWatchBookmarks");
    let content_type = encoder.content_type();
    let mut frames = Frames {
        source: None,
        encoder,
        bookmarks,
        initial_bookmark: bookmarks && begin.announce_end,
        next_bookmark: Instant::now() + BOOKMARK_EVERY,
        deadline,
        alarm: Box::pin(sleep_until(deadline)),
        shutdown: server.tasks.shutdown(),
        ready: VecDeque::new(),
    };
    match server.cache.watch(resource.storage(), query, after) {
        Ok(watch) => frames.source = Some(watch.in_format(frames.encoder.format)),
        Err(expired) => frames.end_with(expired),
    }
    let body = futures_util::stream::unfold(frames, |mut frames| async move {
        let frame = frames.next().await?;
        Some((Ok(frame), frames))
    });
    Ok(response::build(200, content_type, Body::Events(body.boxed())))
}

fn timeout(server: &Server, call: &Call) -> Answer<Duration> {
    let seconds = call.query.integer("timeoutSeconds")?.unwrap_or_default();
    Ok(match u64::try_from(seconds) {
        // Randomised: watches that began together end apart.
        Ok(0) => server.config.min_watch.mul_f64(1.0 + rand::random::<f64>()),
        // Longer than any connection lives, but without overflowing the clock.
        Ok(seconds) => Duration::from_secs(seconds.min(u64::from(u32::MAX))),
        Err(_) => return Err(bad("timeoutSeconds: must not be negative")),
    })
}

/// Where a watch begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Begin {
    freshness: Freshness,
    /// 0: begin with the existing objects. `None`: begin with the next change.
    after: Option<Revision>,
    /// Announce the end of the existing objects.
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
            // Changes after a revision can be awaited before the cache has reached it.
            Some(revision) if revision == 0 || after == Some(revision) => Freshness::Any,
            Some(revision) => Freshness::NotOlderThan(revision),
        };
        // Such a watch asks for the existing objects.
        Ok(Self { freshness, after, announce_end: after == Some(0) })
    }
}

/// Encodes events in the formats that the cache does not provide.
struct Encoder {
    resource: ResourceRef,
    /// The format of events without a table.
    format: EventFormat,
    table: Option<Table>,
}

/// How rows are shown.
#[derive(Clone, Copy)]
struct Table {
    version: MetaVersion,
    include: IncludeObject,
    /// Only the first has the columns.
    with_columns: bool,
}

impl Encoder {
    fn new(call: &Call) -> Answer<Self> {
        let (resource, Output { form, encoding }) = (call.target.resource, call.output);
        let (metadata, table) = match form {
            Form::Whole => (None, None),
            Form::Partial(version) | Form::Partials(version) => (Some(version), None),
            Form::Table(version) => (None, Some(Table { version, include: encode::include(&call.query)?, with_columns: true })),
        };
        let version = resource.stored_as.map(|_| resource);
        Ok(Self { resource, format: EventFormat { version, metadata, protobuf: encoding == Encoding::Protobuf }, table })
    }

    fn content_type(&self) -> &'static str {
        if self.format.protobuf { PROTOBUF_STREAM } else { "application/json" }
    }

    /// An event of a table, with one row or none.
    fn row(&mut self, table: Table, kind: &str, object: Option<&Arc<Object>>, revision: Revision) -> Bytes {
        let object = object.map(|it| codec::in_version(it, self.resource));
        let writer = TableWriter::new(self.resource, table.version, table.include, jiff::Timestamp::now());
        let metadata = format!(r#"{{"resourceVersion":"{revision}"}}"#);
        self.table = Some(Table { with_columns: false, ..table });
        self.format.event_of(kind, &writer.table(object.as_slice(), &metadata, table.with_columns))
    }

    fn bookmark(&mut self, revision: Revision, initial_end: bool) -> Bytes {
        if let Some(table) = self.table {
            return self.row(table, "BOOKMARK", None, revision);
        }
        let (kind, api_version) = match self.format.metadata {
            Some(version) => ("PartialObjectMetadata", version.api_version().to_owned()),
            None => (self.resource.kind, self.resource.api_version()),
        };
        let annotations = if initial_end { r#","annotations":{"k8s.io/initial-events-end":"true"}"# } else { "" };
        let metadata = format!(r#"{{"resourceVersion":"{revision}","creationTimestamp":null{annotations}}}"#);
        let json = format!(r#"{{"kind":"{kind}","apiVersion":"{api_version}","metadata":{metadata}}}"#);
        self.format.event_of("BOOKMARK", json.as_bytes())
    }
}

struct Frames {
    /// `None` once the watch has ended.
    source: Option<cache::Watch>,
    encoder: Encoder,
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
                news = news(source, self.encoder.table) => Some(news),
            };
            match news {
                Some(Ok(News::Frames(frames))) => frames.into_iter().for_each(|frame| self.push(frame)),
                Some(Ok(News::Row(table, event))) => self.push_row(table, &event),
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

    fn push_row(&mut self, table: Table, event: &Event) {
        let (kind, object) = match event {
            Event::Added(object) => ("ADDED", object),
            Event::Modified(object) => ("MODIFIED", object),
            Event::Deleted(object) => ("DELETED", object),
            Event::Bookmark(revision) => return self.initial_end(*revision),
        };
        let row = self.encoder.row(table, kind, Some(object), object.revision());
        self.ready.push_back(row);
    }

    fn initial_end(&mut self, revision: Revision) {
        if std::mem::take(&mut self.initial_bookmark) {
            self.push_bookmark(revision, true);
        }
    }

    fn push_bookmark(&mut self, revision: Revision, initial_end: bool) {
        let bookmark = self.encoder.bookmark(revision, initial_end);
        self.ready.push_back(bookmark);
    }

    /// The last thing a client hears if history does not reach back to where it is.
    fn end_with(&mut self, expired: Expired) {
        let status = serde_json::to_vec(&Status::expired(expired.to_string())).unwrap_or_default();
        self.ready.push_back(self.encoder.format.event_of("ERROR", &status));
        self.source = None;
    }
}

enum News {
    Frames(Vec<Frame>),
    Row(Table, Event),
}

async fn news(source: &mut cache::Watch, table: Option<Table>) -> Result<News, Expired> {
    match table {
        None => source.next_frames().await.map(News::Frames),
        // Ages differ from one moment to the next: rows are made for each client.
        Some(table) => Ok(News::Row(table, source.next().await?)),
    }
}
