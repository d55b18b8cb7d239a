//! Calls of the kubelets' HTTP API.

use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;

use super::error::Answer;
use crate::object::resource::POD;
use crate::object::status::{Cause, Details};
use crate::object::{Object, Status};
use crate::util::json;

#[derive(Clone, Debug)]
pub(crate) struct Kubelets {
    client: Client<HttpConnector, Empty<Bytes>>,
    timeout: Duration,
}

/// A kubelet's error text is read up to this size.
const ERROR_LIMIT: usize = 64 * 1024;
const KUBELET_PORT: i64 = 10250;

impl Kubelets {
    pub(crate) fn new(timeout: Duration) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(timeout));
        connector.set_nodelay(true);
        Self { client: Client::builder(TokioExecutor::new()).build(connector), timeout }
    }

    /// # Errors
    /// 500 if the kubelet cannot be reached, or does not begin to answer in time.
    pub(crate) async fn get(&self, url: &str) -> Answer<http::Response<Incoming>> {
        let fail = |why: String| Box::new(Status::internal(format!("Get {url:?}: {why}")));
        let uri = url.parse().map_err(|error: http::uri::InvalidUri| fail(error.to_string()))?;
        match tokio::time::timeout(self.timeout, self.client.get(uri)).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => Err(fail(describe(&error))),
            Err(_) => Err(fail(format!("no answer within {:?}", self.timeout))),
        }
    }
}

/// An error with its causes.
fn describe(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |it| it.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// `http://ADDRESS:PORT` of a node's kubelet.
///
/// # Errors
/// 500 if the node says no address.
pub(crate) fn url(node: &Object) -> Answer<String> {
    let value: Value = serde_json::from_slice(node.body()).map_err(|error| Box::new(Status::internal(error)))?;
    let addresses = json::items(&value, "/status/addresses");
    let of_kind = |kind: &str| addresses.iter().find(|it| json::text(it, "/type") == kind).map(|it| json::text(it, "/address"));
    let address = ["InternalIP", "ExternalIP", "Hostname"].into_iter().find_map(of_kind);
    let address =
        address.ok_or_else(|| Box::new(Status::internal(format!("no preferred addresses found; known addresses: {addresses:?}"))))?;
    let port = json::integer(&value, "/status/daemonEndpoints/kubeletEndpoint/Port").filter(|it| *it != 0).unwrap_or(KUBELET_PORT);
    Ok(match address.parse() {
        Ok(IpAddr::V6(address)) => format!("http://[{address}]:{port}"),
        _ => format!("http://{address}:{port}"),
    })
}

/// What the client is told of a pod when the kubelet refused.
pub(crate) async fn refusal(response: http::Response<Incoming>, pod: &str) -> Box<Status> {
    let code = response.status().as_u16();
    let text = match Limited::new(response.into_body(), ERROR_LIMIT).collect().await {
        Ok(collected) => String::from_utf8_lossy(&collected.to_bytes()).trim().to_owned(),
        Err(_) => String::new(),
    };
    Box::new(match code {
        400 => Status::bad_request(text),
        404 => {
            let message = format!("the server could not find the requested resource ( {} {pod})", POD.plural);
            let mut status = Status::failure(404, "NotFound", message);
            status.details = Some(Details {
                name: pod.to_owned(),
                kind: POD.plural.to_owned(),
                causes: vec![Cause { reason: "UnexpectedServerResponse".to_owned(), message: text, field: String::new() }],
                ..Details::default()
            });
            status
        }
        500 => Status::internal(text),
        _ => Status::failure(code, "", format!("the kubelet answered {code}: {text}")),
    })
}
