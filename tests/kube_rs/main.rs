//! Programs written with kube-rs against a running km, one module per part of the library. A separate binary, because kube-rs takes long to
//! compile.

#![allow(clippy::unwrap_used, reason = "a test may stop at any failure")]

mod api;
mod discovery;
mod runtime;
#[path = "../it/support/mod.rs"]
mod support;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::{Api, Client, Config, Resource};
use serde_json::json;
use support::plane::Plane;

/// A cluster, with a client for its namespace `default`.
struct Cluster {
    client: Client,
    /// Stopped with the cluster.
    _plane: Plane,
}

impl Cluster {
    fn start() -> Self {
        let plane = Plane::start();
        let config = Config::new(plane.url.parse().unwrap());
        Self { client: Client::try_from(config).unwrap(), _plane: plane }
    }

    fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::default_namespaced(self.client.clone())
    }
}

fn config_map(name: &str) -> ConfigMap {
    serde_json::from_value(json!({"metadata": {"name": name, "labels": {"app": "test"}}, "data": {"x": "1"}})).unwrap()
}

fn pod(name: &str) -> Pod {
    let containers = json!([{"name": "web", "image": "nginx"}]);
    serde_json::from_value(json!({"metadata": {"name": name, "labels": {"app": "test"}}, "spec": {"containers": containers}})).unwrap()
}

/// The status in an API error.
fn refused<T: std::fmt::Debug>(outcome: Result<T, kube::Error>) -> Box<kube::core::Status> {
    match outcome {
        Err(kube::Error::Api(status)) => status,
        other => panic!("not refused: {other:?}"),
    }
}
