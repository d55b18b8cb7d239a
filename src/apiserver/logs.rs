//! `pods/log`: the container's log, streamed from the kubelet of the pod's node.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;
use http_body_util::BodyExt;
use serde_json::Value;

use super::Server;
use super::container::container;
use super::error::Answer;
use super::handler::Call;
use super::kubelet;
use super::query::Query;
use super::response::{self, Body, Response};
use crate::object::Status;
use crate::object::resource::NODE;
use crate::object::status::{Cause, Details};
use crate::util::url::escape;

pub(crate) async fn serve(server: &Arc<Server>, call: &Call) -> Answer<Response> {
    let query = pass_on(&call.query, &call.target.name)?;
    let pod = server.read(&call.key(), None).await?;
    let value: Value = serde_json::from_slice(pod.body()).map_err(|error| Box::new(Status::internal(error)))?;
    let container = container(&value, call.query.get("container"))?;
    let node = pod.field("spec.nodeName").unwrap_or_default();
    // A pod that was never placed has no log.
    if node.is_empty() {
        return Ok(response::full(204, "text/plain", Bytes::new()));
    }
    let node = server.cache.get(&NODE, "", node).ok_or_else(|| Box::new(Status::not_found(&NODE, node)))?;
    let url = format!("{}/containerLogs/{}/{}/{container}{query}", kubelet::url(&node)?, pod.namespace(), pod.name());
    let response = server.kubelets.get(&url).await?;
    if !(200..=206).contains(&response.status().as_u16()) {
        return Err(kubelet::refusal(response, pod.name()).await);
    }
    let shutdown = server.tasks.shutdown();
    let chunks = response.into_body().into_data_stream().map(|chunk| chunk.map_err(io::Error::other));
    let chunks = chunks.take_until(async move { shutdown.cancelled().await });
    Ok(response::build(200, "text/plain", Body::Stream(chunks.boxed())))
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

#[cfg(test)]
mod tests {
    use super::*;

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
