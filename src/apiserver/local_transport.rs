//! The transport for components of this process: a call of the handler.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::BoxFuture;

use super::Server;
use super::fairness::Origin;
use super::response::Body;
use crate::client::{ClientError, ResponseBody, Result, Transport};

#[derive(Debug)]
pub(crate) struct LocalTransport {
    server: Arc<Server>,
}

impl LocalTransport {
    pub(crate) fn new(server: Arc<Server>) -> Self {
        Self { server }
    }
}

impl Transport for LocalTransport {
    fn send(&self, request: http::Request<Bytes>) -> BoxFuture<'_, Result<http::Response<ResponseBody>>> {
        Box::pin(async move {
            let response = self.server.handle(request, Origin::Process).await;
            Ok(response.map(|body| match body {
                Body::Full(bytes) => futures_util::stream::iter([Ok(bytes)]).boxed(),
                Body::Stream(chunks) | Body::Events(chunks) => {
                    chunks.map(|chunk| chunk.map_err(|error| ClientError::Unreachable(error.into()))).boxed()
                }
            }))
        })
    }
}
