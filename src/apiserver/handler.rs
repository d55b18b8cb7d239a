//! Handles one request: routing, authorization, response. Knows nothing of sockets.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use http::{HeaderMap, Method};
use tokio::sync::oneshot;

use super::auth::{self, Attributes, User};
use super::error::{Answer, bad};
use super::fairness::{Origin, Seat};
use super::heavy::heavy_write;
use super::metrics::Subject;
use super::negotiate::{self, Negotiated, Output};
use super::path::{self, Route, Target};
use super::query::Query;
use super::response::{self, Body, Response};
use super::verb::Verb;
use super::warnings::Warnings;
use super::write_options::{Way, WriteOptions};
use super::{Server, discovery, gzip, health, list, logs, pages, registry, streams, watch};
use crate::codec;
use crate::object::{Object, ObjectKey, ResourceRef, Status, resource};
use crate::util::duration::{self, DurationError};

/// A request for objects, with everything known of it.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) user: User,
    pub(crate) target: Target,
    pub(crate) query: Query,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) warnings: Warnings,
    /// The format of the response.
    pub(crate) output: Output,
    /// Held as long as the call is: a write that its client has given up on still counts as under way.
    _seat: Option<Arc<Seat>>,
}

impl Call {
    pub(crate) fn key(&self) -> ObjectKey {
        ObjectKey::new(self.target.resource.storage(), &self.target.namespace, &self.target.name)
    }

    /// An object as the client asked for it.
    pub(crate) async fn answer(&self, code: u16, object: &Arc<Object>) -> Answer<Response> {
        self.output.object(code, &self.query, &codec::in_version(object, self.target.resource)).await
    }

    /// Objects as the list that the client asked for. `metadata` is the JSON of the list's.
    pub(crate) async fn answer_list(&self, metadata: &str, objects: Vec<Arc<Object>>) -> Answer<Response> {
        self.output.list(&self.query, self.target.resource, metadata, objects).await
    }

    /// A refusal in the name of the resource that was asked for.
    pub(crate) fn named(&self, status: Box<Status>) -> Box<Status> {
        Box::new(status.renamed(self.target.resource.storage(), self.target.resource))
    }

    /// The options of the request, which writes in this way.
    ///
    /// # Errors
    /// 422 for values that Kubernetes refuses.
    pub(crate) fn write_options(&self, way: Way) -> Answer<WriteOptions> {
        let options = WriteOptions::parse(&self.query, negotiate::user_agent(&self.headers), way)?;
        Ok(WriteOptions { version: Some(self.target.resource), warnings: self.warnings.clone(), ..options })
    }

    pub(crate) fn content_type(&self) -> &str {
        negotiate::content_type(&self.headers)
    }
}

/// A client that reads nothing for this long loses its seat.
const READS_ON: Duration = Duration::from_secs(1);

impl Server {
    /// Answers a request.
    pub(crate) async fn handle(self: &Arc<Self>, request: http::Request<Bytes>, origin: Origin) -> Response {
        let started = Instant::now();
        let (parts, body) = request.into_parts();
        let route = path::parse(parts.uri.path());
        let query = Query::parse(parts.uri.query().unwrap_or_default());
        let verb = Verb::of(&parts.method, &route, &query);
        let negotiated = negotiate::negotiate(&parts.headers, &query);
        let output = negotiated.output;
        let target = if let Route::Target(target) = &route { Some(target) } else { None };
        let subject = Subject::of(verb, &parts.method, target, &query, &parts.headers);
        let _under_way = self.requests.begin(subject);
        let answer = async {
            let user = auth::authenticate(&parts.headers)?;
            let deadline = started + self.patience(verb, &query)?;
            let work = async {
                let seat = self.fairness.admit(origin, &user, &parts.method, &parts.headers, &route).await?.map(Arc::new);
                let response = match route {
                    Route::Target(target) => {
                        auth::authorize(&user, Attributes::Resource { verb, target: &target })?;
                        let warnings = Warnings::default();
                        warnings.add(deprecation(target.resource));
                        let (headers, seat) = (parts.headers, seat.clone());
                        let call = Call { user, target, query, headers, body, warnings: warnings.clone(), output, _seat: seat };
                        let mut response = output.outcome(self.dispatch(verb, call, negotiated).await).await;
                        response::warn(&mut response, &warnings.take());
                        response
                    }
                    other => {
                        auth::authorize(&user, Attributes::Path(parts.uri.path()))?;
                        let output = if pages::is_version(parts.uri.path()) { negotiate::only_json(&parts.headers)? } else { output };
                        output.page(self.page(&other, &parts, &query, negotiated).await).await
                    }
                };
                Ok(self.keep(seat, response, deadline))
            };
            tokio::time::timeout_at(deadline.into(), work).await.unwrap_or_else(|_| Err(timed_out()))
        };
        let response = output.outcome(answer.await).await;
        self.requests.count(subject, response.status().as_u16(), started.elapsed());
        response
    }

    /// Time limit until the head of the response: the client's timeout (0 is none), or the server's if that is shorter.
    fn patience(&self, verb: Verb, query: &Query) -> Answer<Duration> {
        let most = self.config.timeouts.request;
        match query.get("timeout") {
            Some(text) if verb != Verb::Watch => match duration::parse(text) {
                Ok(asked) => Ok(if asked.is_zero() { most } else { asked.min(most) }),
                Err(DurationError::Negative(_)) => Ok(most),
                Err(error) => Err(bad(format!("invalid timeout specified in the request URL - {error}"))),
            },
            _ => Ok(most),
        }
    }

    /// A streamed answer keeps its seat until it is through, but no longer than a request may take, and only as long as it is being read. A
    /// watch that has begun needs none.
    fn keep(&self, seat: Option<Arc<Seat>>, response: Response, deadline: Instant) -> Response {
        let Some(seat) = seat else { return response };
        response.map(|body| match body {
            body @ (Body::Full(_) | Body::Events(_)) => body,
            Body::Stream(chunks) => {
                let (taken, mut reads) = tokio::sync::watch::channel(());
                self.tasks.spawn_quiet(async move {
                    let reading = async { while let Ok(Ok(())) = tokio::time::timeout(READS_ON, reads.changed()).await {} };
                    let _ = tokio::time::timeout_at(deadline.into(), reading).await;
                    drop(seat);
                });
                Body::Stream(chunks.inspect(move |_| taken.send_replace(())).boxed())
            }
        })
    }

    async fn page(self: &Arc<Self>, route: &Route, parts: &http::request::Parts, query: &Query, negotiated: Negotiated) -> Response {
        let page = match discovery::serve(self, route, parts.uri.path(), query, &parts.headers, negotiated) {
            Some(page) => Some(page),
            None => match self.tokens().ok().and_then(|it| it.serve(self, parts.uri.path())) {
                Some(page) => Some(page),
                None => match health::serve(self, parts.uri.path(), query).await {
                    Some(page) => Some(page),
                    None => pages::serve(self, parts.uri.path()),
                },
            },
        };
        match page {
            None if discovery::has_group(parts.uri.path()) => response::resource_not_found(),
            None => response::page_not_found(),
            Some(_) if !matches!(parts.method, Method::GET | Method::HEAD) => response::status(&not_allowed()),
            Some(page) => page,
        }
    }

    async fn dispatch(self: &Arc<Self>, verb: Verb, call: Call, negotiated: Negotiated) -> Answer<Response> {
        let (target, served) = (&call.target, call.target.resource);
        if !verb.is_allowed(target) {
            return Err(not_allowed());
        }
        if verb == Verb::Patch {
            negotiate::patch_kind(&call.headers)?;
        }
        negotiated.for_objects(verb)?;
        match (verb, target.subresource.as_str()) {
            (Verb::Get | Verb::List, "") if served == &resource::COMPONENT_STATUS => registry::components::serve(self, &call).await,
            (Verb::Get, "scale") => registry::scale::get(self, &call).await,
            (Verb::Get, "log") => logs::serve(self, &call).await,
            (Verb::Get | Verb::Create, "exec" | "attach" | "portforward") => streams::serve(self, &call).await,
            (Verb::Get, "" | "status" | "approval" | "ephemeralcontainers" | "resize") => get(self, &call).await,
            (Verb::List, "") => Ok(gzip::compress(&call.headers, list::serve(self, &call).await?)),
            (Verb::Watch, "") => watch::serve(self, &call).await,
            (Verb::Create, "") if served == &resource::BINDING => self.write(call, registry::binding::create).await,
            (Verb::Create, "") if !served.allows("get") => registry::reviews::create(self, &call).await,
            (Verb::Create, "") => self.write(call, registry::create::serve).await,
            (Verb::Create, "token") => registry::tokens::create(self, &call).await,
            (Verb::Create, "binding") => self.write(call, registry::binding::create).await,
            (Verb::Create, "eviction") => self.write(call, registry::eviction::create).await,
            (Verb::Update, "scale") => self.write(call, registry::scale::replace).await,
            (Verb::Patch, "scale") => self.write(call, registry::scale::patch).await,
            (Verb::Update, _) => self.write(call, registry::update::replace).await,
            (Verb::Patch, _) => self.write(call, registry::patch::serve).await,
            (Verb::Delete, "") => self.write(call, registry::delete::serve).await,
            (Verb::DeleteCollection, "") => self.write(call, registry::delete::serve_collection).await,
            _ => {
                let mut key = call.key();
                // A service and a node may be named with a scheme and a port.
                if let [_, name, _] | [name, _] = key.name.name.split(':').collect::<Vec<_>>().as_slice() {
                    key = ObjectKey::new(key.resource, &key.name.namespace, name);
                }
                self.read(&key, None).await?;
                Err(Box::new(Status::failure(
                    501,
                    "NotImplemented",
                    format!("{} {} is not implemented", served.plural, target.subresource),
                )))
            }
        }
    }

    /// Runs a write on a task of its own: a client that hangs up does not stop it half-way.
    async fn write<F>(self: &Arc<Self>, call: Call, work: F) -> Answer<Response>
    where
        F: for<'a> FnOnce(&'a Arc<Self>, &'a Call) -> BoxFuture<'a, Answer<Response>> + Send + 'static,
    {
        let (done, outcome) = oneshot::channel();
        let server = self.clone();
        self.tasks.spawn_quiet(async move {
            // The client, and so the receiver, may be gone.
            let _ = done.send(heavy_write(call.body.len(), work(&server, &call)).await);
        });
        outcome.await.unwrap_or_else(|_| Err(Box::new(Status::internal("the write was aborted"))))
    }
}

async fn get(server: &Arc<Server>, call: &Call) -> Answer<Response> {
    let revision = call.query.revision("resourceVersion")?;
    let object = server.read(&call.key(), revision).await.map_err(|it| call.named(it))?;
    Ok(gzip::compress(&call.headers, call.answer(200, &object).await?))
}

/// The warning for every request that uses a deprecated resource.
fn deprecation(resource: ResourceRef) -> Option<String> {
    let since = resource.deprecated;
    (!since.is_empty()).then(|| format!("{} {} is deprecated in {since}", resource.api_version(), resource.kind))
}

fn not_allowed() -> Box<Status> {
    Box::new(Status::undirected(405, "MethodNotAllowed", "the server does not allow this method on the requested resource"))
}

fn timed_out() -> Box<Status> {
    // Without a hint when to try again: clients would repeat a write that may have been done.
    Box::new(Status::failure(504, "Timeout", "Timeout: request did not complete within the allotted timeout"))
}
