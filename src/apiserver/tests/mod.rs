//! A server in this process, on an embedded store in a directory of its own.

mod admission;
mod apply;
mod lagging;
mod lists;
mod objects;
mod protocol;
mod services;
mod shapes;
mod sockets;
mod tokens;
mod versions;
mod watches;
mod writes;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use http::Method;
use serde_json::{Value, json};

use super::{ApiServer, Config};
use crate::client::ResponseBody;
use crate::store::Store;
use crate::store::embedded::{self, Embedded};
use crate::supervise::Supervisor;
use crate::util::product::KUBERNETES;

pub(super) struct Fixture {
    pub(super) server: ApiServer,
    pub(super) store: Arc<Embedded>,
    supervisor: Supervisor,
    _dir: tempfile::TempDir,
}

/// A server with these changes to the usual configuration.
pub(super) async fn start_with(change: impl FnOnce(&mut Config)) -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    let store = Embedded::open(embedded::Config::new(dir.path())).unwrap();
    let supervisor = Supervisor::default();
    let server = serve(store.clone() as Arc<dyn Store>, &supervisor, change).await;
    Fixture { server, store, supervisor, _dir: dir }
}

pub(super) async fn serve(store: Arc<dyn Store>, supervisor: &Supervisor, change: impl FnOnce(&mut Config)) -> ApiServer {
    let mut config = Config::new(KUBERNETES, "127.0.0.1:0".parse().unwrap(), "10.10.10.0/24".parse().unwrap());
    config.admission = vec!["NamespaceLifecycle".to_owned(), "LimitRanger".to_owned(), "ResourceQuota".to_owned()];
    change(&mut config);
    let server = ApiServer::build(config, store).unwrap();
    server.start(supervisor).await.unwrap();
    server
}

pub(super) async fn start() -> Fixture {
    start_with(|_| ()).await
}

/// An answer, with its body read as far as it is JSON.
#[derive(Debug)]
pub(super) struct Answered {
    pub(super) code: u16,
    pub(super) headers: http::HeaderMap,
    pub(super) bytes: Vec<u8>,
    pub(super) text: String,
    pub(super) json: Value,
}

impl Answered {
    /// The body, of an answer that must be a success.
    #[track_caller]
    pub(super) fn ok(self) -> Value {
        assert!((200..300).contains(&self.code), "{} {}", self.code, self.text);
        self.json
    }

    /// Code, reason and message of an answer that must be a failure.
    #[track_caller]
    pub(super) fn failed(self) -> (u16, String, String) {
        assert_eq!(self.json["status"], "Failure", "{}", self.text);
        let text = |key: &str| self.json[key].as_str().unwrap_or_default().to_owned();
        (self.code, text("reason"), text("message"))
    }
}

impl Fixture {
    pub(super) async fn send(&self, request: http::Request<Bytes>) -> Answered {
        let response = self.server.transport().send(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes: Vec<u8> = body.map(|it| it.unwrap().to_vec()).concat().await;
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let json = serde_json::from_str(&text).unwrap_or_default();
        Answered { code: parts.status.as_u16(), headers: parts.headers, bytes, text, json }
    }

    pub(super) async fn call(&self, method: Method, path: &str, body: Value) -> Answered {
        let content_type = if method == Method::PATCH { "application/merge-patch+json" } else { "application/json" };
        let body = if body.is_null() { Bytes::new() } else { body.to_string().into() };
        self.send(http::Request::builder().method(method).uri(path).header("content-type", content_type).body(body).unwrap()).await
    }

    pub(super) async fn get(&self, path: &str) -> Answered {
        self.call(Method::GET, path, Value::Null).await
    }

    pub(super) async fn create(&self, path: &str, object: Value) -> Answered {
        self.call(Method::POST, path, object).await
    }

    pub(super) async fn put(&self, path: &str, object: Value) -> Answered {
        self.call(Method::PUT, path, object).await
    }

    pub(super) async fn patch(&self, path: &str, patch: Value) -> Answered {
        self.call(Method::PATCH, path, patch).await
    }

    /// A server-side apply; `query` names the field manager.
    pub(super) async fn apply(&self, path: &str, query: &str, applied: impl std::fmt::Display) -> Answered {
        let request = http::Request::builder().method(Method::PATCH).uri(format!("{path}?{query}"));
        let request = request.header("content-type", "application/apply-patch+yaml").body(applied.to_string().into());
        self.send(request.unwrap()).await
    }

    pub(super) async fn delete(&self, path: &str, options: Value) -> Answered {
        self.call(Method::DELETE, path, options).await
    }

    pub(super) async fn watch(&self, path: &str) -> Events {
        let request = http::Request::builder().uri(path).body(Bytes::new()).unwrap();
        let response = self.server.transport().send(request).await.unwrap();
        assert_eq!(response.status(), 200);
        Events { body: response.into_body(), rest: Vec::new() }
    }

    pub(super) async fn stop(self) {
        self.supervisor.shutdown().cancel();
        self.supervisor.wait(Duration::from_secs(10)).await.unwrap();
    }
}

/// The events of a watch.
pub(super) struct Events {
    body: ResponseBody,
    rest: Vec<u8>,
}

impl Events {
    /// The next event: its type and object. `None` at the watch's end.
    pub(super) async fn next(&mut self) -> Option<(String, Value)> {
        loop {
            if let Some(end) = self.rest.iter().position(|it| *it == b'\n') {
                let line: Vec<u8> = self.rest.drain(..=end).collect();
                let event: Value = serde_json::from_slice(&line).unwrap();
                return Some((event["type"].as_str().unwrap().to_owned(), event["object"].clone()));
            }
            self.rest.extend_from_slice(&self.body.next().await?.unwrap());
        }
    }

    /// Type and name of the next event.
    pub(super) async fn next_name(&mut self) -> (String, String) {
        let (kind, object) = self.next().await.expect("the watch goes on");
        (kind, object["metadata"]["name"].as_str().unwrap_or_default().to_owned())
    }
}

pub(super) fn config_map(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"a": "1"}})
}

pub(super) fn pod(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "i"}]}})
}

pub(super) const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";
pub(super) const PODS: &str = "/api/v1/namespaces/default/pods";
