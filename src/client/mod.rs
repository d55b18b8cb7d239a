//! How components read and write the API: the same client code over HTTP to a server elsewhere, or straight into an API server in this
//! process.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use serde::Serialize;
use serde_json::Value;

use crate::cache::Listing;
use crate::object::{Object, ResourceRef, Revision, Status};

/// Sends requests to an API server. Requests carry a path and query (no scheme or host); the transport adds what it needs.
pub trait Transport: std::fmt::Debug + Send + Sync {
    fn send(&self, request: http::Request<Bytes>) -> BoxFuture<'_, Result<http::Response<ResponseBody>>>;
}

/// A body as it arrives: one chunk, or for watches and logs as many as come.
pub type ResponseBody = BoxStream<'static, Result<Bytes>>;

/// Why a call of the API had no result.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The server answered with a failure.
    #[error("{0}")]
    Api(#[from] Box<Status>),
    /// The server did not answer. A write may or may not have happened.
    #[error("the API server is out of reach: {0}")]
    Unreachable(#[source] anyhow::Error),
    /// The server answered with something that is not what was asked for.
    #[error("the API server's answer is not understood: {0}")]
    Malformed(#[source] anyhow::Error),
}

/// Reads and writes objects, each call one request.
#[derive(Clone, Debug)]
pub struct Client {
    transport: Arc<dyn Transport>,
}

pub type Result<T> = std::result::Result<T, ClientError>;

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
        Self { transport }
    }

    pub fn transport(&self) -> &Arc<dyn Transport> {
        &self.transport
    }

    /// The newest state of an object, from the server.
    pub async fn get(&self, _resource: ResourceRef, _namespace: &str, _name: &str) -> Result<Arc<Object>> {
        todo!()
    }

    /// `namespace` is empty for all namespaces, or a cluster-scoped resource.
    pub async fn list(&self, _resource: ResourceRef, _namespace: &str) -> Result<Listing> {
        todo!()
    }

    pub async fn create<T: Serialize + Sync>(&self, _resource: ResourceRef, _namespace: &str, _object: &T) -> Result<Arc<Object>> {
        todo!()
    }

    /// Replaces an object; its `metadata.resourceVersion`, if it has one, must be the newest.
    pub async fn update<T: Serialize + Sync>(
        &self,
        _resource: ResourceRef,
        _namespace: &str,
        _name: &str,
        _object: &T,
    ) -> Result<Arc<Object>> {
        todo!()
    }

    pub async fn update_status<T: Serialize + Sync>(
        &self,
        _resource: ResourceRef,
        _namespace: &str,
        _name: &str,
        _object: &T,
    ) -> Result<Arc<Object>> {
        todo!()
    }

    /// `subresource` is empty for the object itself.
    pub async fn patch(
        &self,
        _resource: ResourceRef,
        _namespace: &str,
        _name: &str,
        _subresource: &str,
        _patch: &Patch,
    ) -> Result<Arc<Object>> {
        todo!()
    }

    /// The object as it now is, if it is not gone yet (grace, finalizers).
    pub async fn delete(
        &self,
        _resource: ResourceRef,
        _namespace: &str,
        _name: &str,
        _options: &DeleteOptions,
    ) -> Result<Option<Arc<Object>>> {
        todo!()
    }

    /// POSTs to a subresource, such as `binding` or `eviction`.
    pub async fn post<T: Serialize + Sync>(
        &self,
        _resource: ResourceRef,
        _namespace: &str,
        _name: &str,
        _subresource: &str,
        _body: &T,
    ) -> Result<Bytes> {
        todo!()
    }
}

impl ClientError {
    /// Whether the server answered with this reason, such as `NotFound` or `Conflict`.
    pub fn is(&self, reason: &str) -> bool {
        matches!(self, Self::Api(status) if status.is(reason))
    }
}
