//! How components read and write the API: the same client code over HTTP to a remote server, or directly into an API server in this
//! process.

pub mod events;
#[cfg(test)]
pub(crate) mod fake;
mod feeder;
mod http;
pub mod kubeconfig;
pub mod leader;
mod limit;
mod request;
mod response;
mod verify;
mod watch;

use std::sync::Arc;

use ::http::{HeaderValue, Method, Request, Response, header};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use serde::Serialize;
use serde_json::Value;

use crate::cache::{Listing, Query};
use crate::object::{Object, ResourceRef, Revision, Status};
pub use feeder::{Feeder, Outage, feed};
pub use http::Http;
use limit::Limiter;
use request::Target;
use response::ListPage;
pub use verify::unverified;
pub use watch::{WatchEvent, WatchStream};

/// Sends requests to an API server. Requests carry a path and query, without scheme or host; the transport adds the rest.
pub trait Transport: std::fmt::Debug + Send + Sync {
    fn send(&self, request: Request<Bytes>) -> BoxFuture<'_, Result<Response<ResponseBody>>>;
}

/// A body as it arrives: one chunk, or any number for watches and logs.
pub type ResponseBody = BoxStream<'static, Result<Bytes>>;

/// Why an API call failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The server reported a failure.
    #[error("{0}")]
    Api(#[from] Box<Status>),
    /// The server did not respond. A write may or may not have happened.
    #[error("the API server is out of reach: {0:#}")]
    Unreachable(anyhow::Error),
    /// The response does not have the expected form.
    #[error("the API server's answer is not understood: {0}")]
    Malformed(#[source] anyhow::Error),
}

/// Reads and writes objects, with one request per call. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Client {
    transport: Arc<dyn Transport>,
    /// `User-Agent`, by which the server names the manager of written fields.
    agent: HeaderValue,
    limiter: Option<Arc<Limiter>>,
}

pub type Result<T> = std::result::Result<T, ClientError>;

/// Page size of lists.
const PAGE: usize = 1_000;

/// The content of a patch, with its kind.
#[derive(Clone, Debug)]
pub enum Patch {
    Json(Value),
    Merge(Value),
    Strategic(Value),
}

/// `metav1.DeleteOptions`.
#[derive(Clone, Debug, Default)]
pub struct DeleteOptions {
    pub grace_period_seconds: Option<i64>,
    pub uid: Option<String>,
    pub revision: Option<Revision>,
    /// `Background`, `Foreground` or `Orphan`.
    pub propagation: Option<&'static str>,
}

impl Client {
    pub fn new(transport: Arc<dyn Transport>) -> Self {
        Self { transport, agent: HeaderValue::from_static("km"), limiter: None }
    }

    /// The same client under a component's name, such as `km-scheduler`, which is recorded as the field manager of its writes.
    ///
    /// # Panics
    /// If the name is not ASCII.
    #[must_use]
    pub fn named(mut self, component: &'static str) -> Self {
        self.agent = HeaderValue::from_static(component);
        self
    }

    /// The same client, limited to a rate after a burst. Its clones share the limit.
    #[must_use]
    pub fn limited(mut self, per_second: f64, burst: u32) -> Self {
        self.limiter = Some(Arc::new(Limiter::new(per_second, burst)));
        self
    }

    pub fn transport(&self) -> &Arc<dyn Transport> {
        &self.transport
    }

    /// The newest state of an object, from the server.
    pub async fn get(&self, resource: ResourceRef, namespace: &str, name: &str) -> Result<Arc<Object>> {
        let body = self.call(Target::object(resource, namespace, name, "").get()?).await?;
        response::object(resource, &body)
    }

    /// `namespace` is empty for all namespaces, or a cluster-scoped resource.
    pub async fn list(&self, resource: ResourceRef, namespace: &str) -> Result<Listing> {
        self.list_matching(resource, &Query::namespace(namespace)).await
    }

    /// All objects that a query selects, as of one revision, in as many requests as needed.
    pub async fn list_matching(&self, resource: ResourceRef, query: &Query) -> Result<Listing> {
        let mut all = Listing::default();
        let mut token = String::new();
        loop {
            let ListPage { objects, revision, continue_token } = match self.list_page(resource, query, &token).await {
                // The server no longer has the list's revision: list again, in one request.
                Err(error) if error.is("Expired") && !token.is_empty() => {
                    let body = self.call(Target::query(resource, query).get()?).await?;
                    all.objects.clear();
                    response::list(resource, &body)?
                }
                page => page?,
            };
            all.objects.extend(objects);
            all.revision = revision;
            if continue_token.is_empty() {
                return Ok(all);
            }
            token = continue_token;
        }
    }

    async fn list_page(&self, resource: ResourceRef, query: &Query, token: &str) -> Result<ListPage> {
        let mut target = Target::query(resource, query).with("limit", &PAGE.to_string());
        if !token.is_empty() {
            target = target.with("continue", token);
        }
        let body = self.call(target.get()?).await?;
        response::list(resource, &body)
    }

    /// Changes after a revision, with bookmarks, until the server ends the watch (after at most `seconds`).
    pub async fn watch(&self, resource: ResourceRef, query: &Query, after: Revision, seconds: u64) -> Result<WatchStream> {
        let body = self.stream(request::watch(resource, query, after, seconds)?).await?;
        Ok(WatchStream::new(resource, body))
    }

    pub async fn create<T: Serialize + Sync>(&self, resource: ResourceRef, namespace: &str, object: &T) -> Result<Arc<Object>> {
        let body = self.call(Target::collection(resource, namespace).send_json(Method::POST, object)?).await?;
        response::object(resource, &body)
    }

    /// Replaces an object; its `metadata.resourceVersion`, if set, must be the current one.
    pub async fn update<T: Serialize + Sync>(&self, resource: ResourceRef, namespace: &str, name: &str, object: &T) -> Result<Arc<Object>> {
        let body = self.call(Target::object(resource, namespace, name, "").send_json(Method::PUT, object)?).await?;
        response::object(resource, &body)
    }

    pub async fn update_status<T: Serialize + Sync>(
        &self,
        resource: ResourceRef,
        namespace: &str,
        name: &str,
        object: &T,
    ) -> Result<Arc<Object>> {
        self.replace(resource, namespace, name, "status", object).await
    }

    /// Replaces a subresource, such as a namespace's `finalize`.
    pub async fn replace<T: Serialize + Sync>(
        &self,
        resource: ResourceRef,
        namespace: &str,
        name: &str,
        subresource: &str,
        object: &T,
    ) -> Result<Arc<Object>> {
        let body = self.call(Target::object(resource, namespace, name, subresource).send_json(Method::PUT, object)?).await?;
        response::object(resource, &body)
    }

    /// `subresource` is empty for the object itself.
    pub async fn patch(&self, resource: ResourceRef, namespace: &str, name: &str, subresource: &str, patch: &Patch) -> Result<Arc<Object>> {
        let body = self.call(Target::object(resource, namespace, name, subresource).patch(patch)?).await?;
        response::object(resource, &body)
    }

    /// Returns the object if it still exists (grace period, finalizers).
    pub async fn delete(&self, resource: ResourceRef, namespace: &str, name: &str, options: &DeleteOptions) -> Result<Option<Arc<Object>>> {
        let body = self.call(Target::object(resource, namespace, name, "").delete(options)?).await?;
        response::deleted(resource, &body)
    }

    /// Deletes every object of a resource in a namespace.
    pub async fn delete_all(&self, resource: ResourceRef, namespace: &str) -> Result<()> {
        let options = DeleteOptions { propagation: Some("Background"), ..DeleteOptions::default() };
        self.call(Target::collection(resource, namespace).delete(&options)?).await.map(drop)
    }

    /// POSTs to a subresource, such as `binding` or `eviction`.
    pub async fn post<T: Serialize + Sync>(
        &self,
        resource: ResourceRef,
        namespace: &str,
        name: &str,
        subresource: &str,
        body: &T,
    ) -> Result<Bytes> {
        self.call(Target::object(resource, namespace, name, subresource).send_json(Method::POST, body)?).await
    }

    /// GETs any path (with its query, if any).
    pub async fn get_path(&self, path: &str) -> Result<Bytes> {
        self.call(request::request(Method::GET, path, None)?).await
    }

    /// GETs any path (with its query, if any) as a stream, such as a container's log.
    pub async fn stream_get(&self, path: &str) -> Result<ResponseBody> {
        self.stream(request::request(Method::GET, path, None)?).await
    }

    async fn call(&self, request: Request<Bytes>) -> Result<Bytes> {
        response::collect(self.stream(request).await?).await
    }

    async fn stream(&self, mut request: Request<Bytes>) -> Result<ResponseBody> {
        if let Some(limiter) = &self.limiter {
            limiter.wait().await;
        }
        request.headers_mut().insert(header::USER_AGENT, self.agent.clone());
        response::succeed(self.transport.send(request).await?).await
    }
}

impl ClientError {
    /// Whether the server reported this reason, such as `NotFound` or `Conflict`.
    pub fn is(&self, reason: &str) -> bool {
        matches!(self, Self::Api(status) if status.is(reason))
    }

    /// Whether one of the causes that the server reported has this reason.
    pub fn has_cause(&self, reason: &str) -> bool {
        matches!(self, Self::Api(status) if status.details.iter().flat_map(|it| &it.causes).any(|it| it.reason == reason))
    }
}
