//! Requests to the API, as values: nothing here sends them.

use bytes::Bytes;
use http::{Method, Request, header};
use serde::Serialize;
use serde_json::json;

use super::{ClientError, DeleteOptions, Patch, Result};
use crate::cache::Query;
use crate::object::{ResourceRef, Revision};
use crate::util::url;

const JSON: &str = "application/json";

/// A request target under construction: a path, then query parameters.
#[derive(Clone, Debug)]
pub(super) struct Target(String);

impl Target {
    /// The collection, of one namespace if one is given.
    pub(super) fn collection(resource: ResourceRef, namespace: &str) -> Self {
        Self(resource.url(namespace))
    }

    /// An object, or its subresource if `subresource` is not empty.
    pub(super) fn object(resource: ResourceRef, namespace: &str, name: &str, subresource: &str) -> Self {
        let mut target = resource.url(namespace);
        for part in [name, subresource].into_iter().filter(|part| !part.is_empty()) {
            target.push('/');
            url::escape_into(part, &mut target);
        }
        Self(target)
    }

    /// The collection with the selectors of a query.
    pub(super) fn query(resource: ResourceRef, query: &Query) -> Self {
        let mut target = Self::collection(resource, query.namespace.as_deref().unwrap_or_default());
        if !query.labels.is_empty() {
            target = target.with("labelSelector", &query.labels.to_string());
        }
        if !query.fields.is_empty() {
            target = target.with("fieldSelector", &query.fields.to_string());
        }
        target
    }

    /// Adds a parameter.
    pub(super) fn with(mut self, name: &str, value: &str) -> Self {
        self.0.push(if self.0.contains('?') { '&' } else { '?' });
        self.0.push_str(name);
        self.0.push('=');
        url::escape_into(value, &mut self.0);
        self
    }

    pub(super) fn get(self) -> Result<Request<Bytes>> {
        self.send(Method::GET, None)
    }

    pub(super) fn send_json<T: Serialize>(self, method: Method, body: &T) -> Result<Request<Bytes>> {
        let body = serde_json::to_vec(body).map_err(|error| ClientError::Malformed(error.into()))?;
        self.send(method, Some((JSON, body.into())))
    }

    pub(super) fn patch(self, patch: &Patch) -> Result<Request<Bytes>> {
        let (kind, body) = match patch {
            Patch::Json(body) => ("application/json-patch+json", body),
            Patch::Merge(body) => ("application/merge-patch+json", body),
            Patch::Strategic(body) => ("application/strategic-merge-patch+json", body),
        };
        self.send(Method::PATCH, Some((kind, body.to_string().into())))
    }

    pub(super) fn delete(self, options: &DeleteOptions) -> Result<Request<Bytes>> {
        let mut body = json!({"apiVersion": "v1", "kind": "DeleteOptions"});
        if let Some(seconds) = options.grace_period_seconds {
            body["gracePeriodSeconds"] = seconds.into();
        }
        if let Some(policy) = options.propagation {
            body["propagationPolicy"] = policy.into();
        }
        if let Some(uid) = &options.uid {
            body["preconditions"]["uid"] = uid.as_str().into();
        }
        if let Some(revision) = options.revision {
            body["preconditions"]["resourceVersion"] = revision.to_string().into();
        }
        self.send_json(Method::DELETE, &body)
    }

    fn send(self, method: Method, body: Option<(&str, Bytes)>) -> Result<Request<Bytes>> {
        request(method, &self.0, body)
    }
}

/// A request for any path, which may include a query.
pub(super) fn request(method: Method, path: &str, body: Option<(&str, Bytes)>) -> Result<Request<Bytes>> {
    let request = Request::builder().method(method).uri(path).header(header::ACCEPT, JSON);
    let request = match body {
        Some((kind, body)) => request.header(header::CONTENT_TYPE, kind).body(body),
        None => request.body(Bytes::new()),
    };
    request.map_err(|error| ClientError::Malformed(error.into()))
}

/// The parameters of a watch after `revision`, for at most `seconds`.
pub(super) fn watch(resource: ResourceRef, query: &Query, revision: Revision, seconds: u64) -> Result<Request<Bytes>> {
    Target::query(resource, query)
        .with("watch", "true")
        .with("resourceVersion", &revision.to_string())
        .with("allowWatchBookmarks", "true")
        .with("timeoutSeconds", &seconds.to_string())
        .get()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::resource;
    use crate::object::selector::LabelSelector;

    #[test]
    fn request_lines() {
        let query = Query { labels: LabelSelector::parse("app in (a,b)").unwrap(), ..Query::field("spec.nodeName", "n=1") };
        for (request, line) in [
            (Target::object(&resource::POD, "default", "web", "").get(), "GET /api/v1/namespaces/default/pods/web"),
            (Target::object(&resource::POD, "default", "web", "status").get(), "GET /api/v1/namespaces/default/pods/web/status"),
            (Target::object(&resource::NODE, "", "a/b c", "").get(), "GET /api/v1/nodes/a%2Fb%20c"),
            (Target::collection(&resource::DEPLOYMENT, "").get(), "GET /apis/apps/v1/deployments"),
            (Target::collection(&resource::POD, "a").send_json(Method::POST, &1), "POST /api/v1/namespaces/a/pods"),
            (
                watch(&resource::POD, &query, 7, 300),
                "GET /api/v1/pods?labelSelector=app%20in%20%28a%2Cb%29&fieldSelector=spec.nodeName%3Dn%5C%3D1&watch=true&resourceVersion=7\
                 &allowWatchBookmarks=true&timeoutSeconds=300",
            ),
        ] {
            let request = request.unwrap();
            assert_eq!(format!("{} {}", request.method(), request.uri()), line);
        }
    }

    #[test]
    fn bodies() {
        let options =
            DeleteOptions { grace_period_seconds: Some(0), uid: Some("u".to_owned()), revision: Some(3), propagation: Some("Orphan") };
        let request = Target::object(&resource::POD, "a", "b", "").delete(&options).unwrap();
        assert_eq!(
            serde_json::from_slice::<serde_json::Value>(request.body()).unwrap(),
            json!({"apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0, "propagationPolicy": "Orphan",
                   "preconditions": {"uid": "u", "resourceVersion": "3"}})
        );
        let request = Target::object(&resource::POD, "a", "b", "").patch(&Patch::Strategic(json!({"a": 1}))).unwrap();
        assert_eq!(request.headers()[header::CONTENT_TYPE], "application/strategic-merge-patch+json");
        assert_eq!(&request.body()[..], br#"{"a":1}"#);
    }
}
