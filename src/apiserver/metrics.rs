//! Metrics of requests, with the names and labels that Kubernetes' rules and dashboards use.

use std::collections::HashMap;
use std::time::Duration;

use http::{HeaderMap, Method};
use parking_lot::RwLock;

use super::negotiate;
use super::path::Target;
use super::query::Query;
use super::verb::Verb;
use crate::object::ResourceRef;
use crate::telemetry::metrics::{Counter, Gauge, Histogram, Registry};

/// `apiserver_request_total`, `apiserver_request_duration_seconds` and `apiserver_current_inflight_requests`.
#[derive(Debug)]
pub(super) struct Metrics {
    registry: Registry,
    /// Known series; looking one up by name takes longer than many a request.
    known: RwLock<HashMap<(Subject, u16), (Counter, Histogram)>>,
    reading: Gauge,
    mutating: Gauge,
}

/// The subject of a request. `None` and empty strings for pages without a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Subject {
    verb: &'static str,
    resource: Option<ResourceRef>,
    subresource: &'static str,
    scope: &'static str,
    is_dry_run: bool,
}

impl Subject {
    pub(super) fn of(verb: Verb, method: &Method, target: Option<&Target>, query: &Query, headers: &HeaderMap) -> Self {
        let resource = target.map(|it| it.resource);
        let subresource = target.and_then(|it| Some(it.resource.subresource(&it.subresource)?.name)).unwrap_or_default();
        let scope = match target {
            None => "",
            Some(target) if !target.name.is_empty() || verb == Verb::Create => "resource",
            Some(target) if !target.namespace.is_empty() => "namespace",
            Some(_) => "cluster",
        };
        let verb = match verb {
            Verb::List => "LIST",
            Verb::Watch => "WATCH",
            Verb::Patch if negotiate::content_type(headers).starts_with("application/apply-patch") => "APPLY",
            Verb::DeleteCollection => "DELETECOLLECTION",
            _ => match *method {
                Method::GET | Method::HEAD => "GET",
                Method::POST => "POST",
                Method::PUT => "PUT",
                Method::PATCH => "PATCH",
                Method::DELETE => "DELETE",
                _ => "other",
            },
        };
        Self { verb, resource, subresource, scope, is_dry_run: query.get("dryRun").is_some() }
    }
}

/// A request that is being answered, while it is there.
#[derive(Debug)]
pub(super) struct UnderWay(Gauge);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.add(-1);
    }
}

impl Metrics {
    pub(super) fn new(registry: &Registry) -> Self {
        let inflight = |kind: &str| {
            registry.gauge("apiserver_current_inflight_requests", "Requests being answered, watches apart.", &["request_kind"], &[kind])
        };
        let (reading, mutating) = (inflight("readOnly"), inflight("mutating"));
        Self { registry: registry.clone(), known: RwLock::default(), reading, mutating }
    }

    /// Counts a request until the returned value is dropped.
    pub(super) fn begin(&self, subject: Subject) -> Option<UnderWay> {
        let gauge = match subject.verb {
            "WATCH" => return None,
            "GET" | "LIST" => &self.reading,
            _ => &self.mutating,
        };
        gauge.add(1);
        Some(UnderWay(gauge.clone()))
    }

    /// Records the head of a response after this time.
    pub(super) fn count(&self, subject: Subject, code: u16, took: Duration) {
        let known = self.known.read().get(&(subject, code)).cloned();
        let (total, duration) =
            known.unwrap_or_else(|| self.known.write().entry((subject, code)).or_insert_with(|| self.make(subject, code)).clone());
        total.inc();
        duration.observe(took.as_secs_f64());
    }

    fn make(&self, Subject { verb, resource, subresource, scope, is_dry_run }: Subject, code: u16) -> (Counter, Histogram) {
        const BOUNDS: &[f64] = &[
            0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0, 20.0, 30.0, 45.0, 60.0,
        ];
        const LABELS: &[&str] = &["code", "component", "dry_run", "group", "resource", "scope", "subresource", "verb", "version"];
        let (group, version, plural) = resource.map_or(("", "", ""), |it| (it.group, it.version, it.plural));
        let dry_run = if is_dry_run { "All" } else { "" };
        let code = code.to_string();
        let values = [&*code, "apiserver", dry_run, group, plural, scope, subresource, verb, version];
        let total = self.registry.counter("apiserver_request_total", "Requests answered.", LABELS, &values);
        let help = "Seconds to the head of an answer.";
        let duration = self.registry.histogram("apiserver_request_duration_seconds", help, BOUNDS, &LABELS[1..], &values[1..]);
        (total, duration)
    }
}
