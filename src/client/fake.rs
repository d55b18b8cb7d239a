//! For tests: an API server that is a map of objects, and can be made unreachable.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::{FutureExt, StreamExt, stream};
use parking_lot::Mutex;
use serde_json::Value;

use super::*;
use crate::codec::{self, PatchKind};
use crate::object::resource;

/// A server that many clients may share.
#[derive(Debug, Default)]
pub(crate) struct Server {
    /// By URL path.
    pub(crate) objects: Mutex<BTreeMap<String, Value>>,
    revision: Mutex<Revision>,
}

/// One client's connection to the server.
#[derive(Debug, Default)]
pub(crate) struct Line {
    pub(crate) server: Arc<Server>,
    /// Requests are never answered.
    pub(crate) cut: Mutex<bool>,
}

impl Transport for Line {
    fn send(&self, request: Request<Bytes>) -> BoxFuture<'_, Result<Response<ResponseBody>>> {
        if *self.cut.lock() {
            return std::future::pending().boxed();
        }
        let (status, body) = match self.server.answer(&request) {
            Ok(value) => (200, value.to_string()),
            Err(status) => (status.code, serde_json::to_string(&status).unwrap()),
        };
        let body: ResponseBody = stream::iter([Ok(Bytes::from(body))]).boxed();
        std::future::ready(Ok(Response::builder().status(status).body(body).unwrap())).boxed()
    }
}

impl Server {
    fn answer(&self, request: &Request<Bytes>) -> std::result::Result<Value, Box<Status>> {
        let (path, mut objects) = (request.uri().path().to_owned(), self.objects.lock());
        let body = || serde_json::from_slice::<Value>(request.body()).unwrap();
        let missing = || Box::new(Status::failure(404, "NotFound", "not found"));
        let (path, mut object) = match request.method().as_str() {
            "GET" => return objects.get(&path).cloned().ok_or_else(missing),
            "POST" => {
                let path = format!("{path}/{}", body()["metadata"]["name"].as_str().unwrap());
                if objects.contains_key(&path) {
                    return Err(Box::new(Status::failure(409, "AlreadyExists", "it exists")));
                }
                (path, body())
            }
            "PATCH" => {
                let (object, patch) = (objects.get(&path).cloned().ok_or_else(missing)?, body());
                let wanted = &patch["metadata"]["resourceVersion"];
                if !wanted.is_null() && *wanted != object["metadata"]["resourceVersion"] {
                    return Err(Box::new(Status::failure(409, "Conflict", "it changed")));
                }
                (path, codec::patch(&resource::LEASE, &object, PatchKind::Merge, &patch)?)
            }
            other => panic!("{other} is not served"),
        };
        let mut revision = self.revision.lock();
        *revision += 1;
        object["metadata"]["resourceVersion"] = revision.to_string().into();
        objects.insert(path, object.clone());
        Ok(object)
    }
}
