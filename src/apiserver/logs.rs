//! `pods/log`: the container's log, streamed from the kubelet of the pod's node.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;

use super::Server;
use super::handler::Call;
use super::query::{Answer, Query, bad, escape};
use super::registry::json;
use super::respond::{self, Body, Response};
use crate::object::resource::{NODE, POD};
use crate::object::status::{Cause, Details};
use crate::object::{Object, Status};

/// Calls of the kubelets' HTTP API.
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
    async fn get(&self, url: &str) -> Answer<http::Response<Incoming>> {
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

pub(crate) async fn serve(server: &Arc<Server>, call: &Call) -> Answer<Response> {
    let query = pass_on(&call.query, &call.target.name)?;
    let pod = server.read(&call.key(), None).await?;
    let value: Value = serde_json::from_slice(pod.body()).map_err(|error| Box::new(Status::internal(error)))?;
    let container = container(&value, call.query.get("container"))?;
    let node = pod.field("spec.nodeName").unwrap_or_default();
    // Nobody has a log of a pod that was never placed.
    if node.is_empty() {
        return Ok(respond::full(204, "text/plain", Bytes::new()));
    }
    let node = server.cache.get(&NODE, "", node).ok_or_else(|| Box::new(Status::not_found(&NODE, node)))?;
    let url = format!("{}/containerLogs/{}/{}/{container}{query}", kubelet_url(&node)?, pod.namespace(), pod.name());
    let response = server.kubelets.get(&url).await?;
    let code = response.status().as_u16();
    if !(200..=206).contains(&code) {
        let text = match Limited::new(response.into_body(), ERROR_LIMIT).collect().await {
            Ok(collected) => String::from_utf8_lossy(&collected.to_bytes()).trim().to_owned(),
            Err(_) => String::new(),
        };
        return Err(kubelet_status(code, &text, pod.name()));
    }
    let shutdown = server.tasks.shutdown();
    let chunks = response.into_body().into_data_stream().map(|chunk| chunk.map_err(io::Error::other));
    let chunks = chunks.take_until(async move { shutdown.cancelled().await });
    Ok(respond::build(200, "text/plain", Body::Stream(chunks.boxed())))
}

/// `http://ADDRESS:PORT` of a node's kubelet.
///
/// # Errors
/// 500 if the node says no address.
pub(crate) fn kubelet_url(node: &Object) -> Answer<String> {
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

/// Which container is meant.
pub(crate) fn container(pod: &Value, asked: Option<&str>) -> Answer<String> {
    let name = json::text(pod, "/metadata/name");
    let names = |field: &str| -> Vec<String> {
        json::items(pod, &format!("/spec/{field}")).iter().map(|it| json::text(it, "/name").to_owned()).collect()
    };
    let (main, init, ephemeral) = (names("containers"), names("initContainers"), names("ephemeralContainers"));
    let Some(asked) = asked else {
        if let ([only], true) = (main.as_slice(), init.is_empty()) {
            return Ok(only.clone());
        }
        let mut message = format!("a container name must be specified for pod {name}, choose one of: [{}]", main.join(" "));
        for (what, names) in [("init", init), ("ephemeral", ephemeral)] {
            if !names.is_empty() {
                message.push_str(&format!(" or one of the {what} containers: [{}]", names.join(" ")));
            }
        }
        return Err(bad(message));
    };
    if [main, init, ephemeral].iter().flatten().any(|it| it == asked) {
        return Ok(asked.to_owned());
    }
    Err(bad(format!("container {asked} is not valid for pod {name}")))
}

/// The options of the log, checked, as the query for the kubelet.
fn pass_on(query: &Query, pod: &str) -> Answer<String> {
    let mut causes = Vec::new();
    let mut at_least = |key: &str, least: i64, detail: &str| -> Answer<()> {
        if let Some(value) = query.integer(key)?.filter(|it| *it < least) {
            causes.push(Cause::invalid(key, &value.into(), detail));
        }
        Ok(())
    };
    at_least("tailLines", 0, "must be greater than or equal to 0")?;
    at_least("limitBytes", 1, "must be greater than 0")?;
    at_least("sinceSeconds", 1, "must be greater than 0")?;
    if query.get("sinceSeconds").is_some() && query.get("sinceTime").is_some() {
        causes.push(Cause::forbidden("", "at most one of `sinceTime` or `sinceSeconds` may be specified"));
    }
    if !causes.is_empty() {
        let listed = causes.iter().map(|it| format!("{}: {}", it.field, it.message)).collect::<Vec<_>>().join(", ");
        let mut status = Status::failure(422, "Invalid", format!("PodLogOptions {pod:?} is invalid: {listed}"));
        status.details = Some(Details { name: pod.to_owned(), kind: "PodLogOptions".to_owned(), causes, ..Details::default() });
        return Err(Box::new(status));
    }
    let known = ["follow", "previous", "timestamps", "sinceSeconds", "sinceTime", "tailLines", "limitBytes"];
    let pairs: Vec<String> = known.iter().filter_map(|key| Some(format!("{key}={}", escape(query.get(key)?)))).collect();
    Ok(if pairs.is_empty() { String::new() } else { format!("?{}", pairs.join("&")) })
}

/// What the client is told when the kubelet refused.
fn kubelet_status(code: u16, text: &str, pod: &str) -> Box<Status> {
    Box::new(match code {
        400 => Status::bad_request(text),
        404 => {
            let message = format!("the server could not find the requested resource ( {} {pod})", POD.plural);
            let mut status = Status::failure(404, "NotFound", message);
            status.details = Some(Details {
                name: pod.to_owned(),
                kind: POD.plural.to_owned(),
                causes: vec![Cause { reason: "UnexpectedServerResponse".to_owned(), message: text.to_owned(), field: String::new() }],
                ..Details::default()
            });
            status
        }
        500 => Status::internal(text),
        _ => Status::failure(code, "", format!("the kubelet answered {code}: {text}")),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn containers_are_named_or_the_only_one() {
        let one = json!({"metadata": {"name": "web"}, "spec": {"containers": [{"name": "a"}]}});
        let two =
            json!({"metadata": {"name": "web"}, "spec": {"containers": [{"name": "a"}, {"name": "b"}], "initContainers": [{"name": "i"}]}});
        assert_eq!(container(&one, None).unwrap(), "a");
        assert_eq!(container(&two, Some("i")).unwrap(), "i");
        let message = |pod, asked| container(pod, asked).unwrap_err().message;
        assert_eq!(
            message(&two, None),
            "a container name must be specified for pod web, choose one of: [a b] or one of the init containers: [i]"
        );
        assert_eq!(message(&one, Some("x")), "container x is not valid for pod web");
    }

    #[test]
    fn options_are_checked_and_passed_on() {
        let pass = |text| pass_on(&Query::parse(text), "web");
        assert_eq!(pass("container=a").unwrap(), "");
        assert_eq!(
            pass("follow=true&tailLines=5&sinceTime=2026-01-01T00%3A00%3A00Z").unwrap(),
            "?follow=true&sinceTime=2026-01-01T00%3A00%3A00Z&tailLines=5"
        );
        for bad in ["tailLines=-1", "limitBytes=0", "sinceSeconds=0", "sinceSeconds=1&sinceTime=x"] {
            assert_eq!(pass(bad).unwrap_err().code, 422, "{bad}");
        }
        assert_eq!(pass("tailLines=x").unwrap_err().code, 400);
    }
}
