//! One metric of an autoscaler: the API to ask, and the resulting recommendation.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::autoscaling::v2::{MetricIdentifier, MetricSpec, MetricTarget};
use k8s_openapi::api::core::v1;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Stated;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector as Selector, LabelSelectorRequirement as Requirement};
use serde_json::{Value, json};

use super::metrics::{self, Metrics, NOT_SERVED};
use super::replicas::{self, Pod, Proposal, Settings, Target};
use crate::cache::{Cache, Query};
use crate::object::Object;
use crate::object::resource::{self, of_kind};
use crate::object::selector::LabelSelector;
use crate::util::quantity::Quantity;
use crate::util::url::escape;

/// The recommendation from a metric.
#[derive(Debug)]
pub(super) struct Measured {
    pub replicas: i64,
    /// The name in conditions and events.
    pub name: String,
    /// Its part of `status.currentMetrics`.
    pub status: Value,
}

/// Why a metric gives no recommendation.
#[derive(Debug)]
pub(super) struct Failure {
    /// The reason in the event and the condition.
    pub reason: &'static str,
    pub message: String,
    /// The value that is not available.
    what: String,
}

impl Failure {
    pub fn in_context(&self) -> String {
        format!("failed to get {}: {}", self.what, self.message)
    }
}

/// The pods of the target.
#[derive(Debug)]
pub(super) struct Pods {
    namespace: String,
    selector: String,
    pub objects: Vec<Arc<Object>>,
}

impl Pods {
    pub fn new(cache: &Cache, namespace: &str, selector: &LabelSelector) -> Self {
        let query = Query { namespace: Some(namespace.to_owned()), labels: selector.clone(), ..Query::default() };
        let objects = cache.list(&resource::POD, &query).objects;
        Self { namespace: namespace.to_owned(), selector: selector.to_string(), objects }
    }

    /// The pods with their requests for a resource, in all containers or in one.
    fn asking(&self, resource: &str, container: Option<&str>) -> Vec<Pod> {
        self.objects.iter().filter_map(|it| it.typed().ok()).map(|it| pod(it, resource, container)).collect()
    }

    fn ready(&self) -> i64 {
        self.objects.iter().filter(|it| crate::controllers::pods::is_ready(it)).count() as i64
    }
}

fn pod(pod: &v1::Pod, resource: &str, container: Option<&str>) -> Pod {
    let name = pod.metadata.name.clone().unwrap_or_default();
    let (spec, status) = (pod.spec.clone().unwrap_or_default(), pod.status.clone().unwrap_or_default());
    let phase = status.phase.as_deref().unwrap_or_default();
    let ready = status.conditions.iter().flatten().find(|it| it.type_ == "Ready");
    let sidecars = spec.init_containers.iter().flatten().filter(|it| it.restart_policy.as_deref() == Some("Always"));
    let wanted = spec.containers.iter().chain(sidecars).filter(|it| container.is_none_or(|name| it.name == name));
    let request = wanted.map(|it| {
        let stated = it.resources.as_ref().and_then(|it| it.requests.as_ref()?.get(resource));
        let amount = stated.and_then(|it| Quantity::try_from(it).ok());
        amount.map(Quantity::millis).ok_or_else(|| format!("missing request for {resource} in container {} of Pod {name}", it.name))
    });
    let request = request.sum();
    Pod {
        name,
        leaving: pod.metadata.deletion_timestamp.is_some() || phase == "Failed",
        pending: phase == "Pending",
        started: status.start_time.as_ref().map(|it| it.0),
        ready: ready.map(|it| (it.status == "True", it.last_transition_time.as_ref().map_or(Timestamp::UNIX_EPOCH, |it| it.0))),
        request,
    }
}

/// Asks a metric about a target with this scale (of its spec, and of its status). `None`: its API has not answered yet.
pub(super) fn ask(
    metric: &MetricSpec,
    metrics: &Metrics,
    pods: &Pods,
    scale: (i64, i64),
    settings: &Settings,
    now: Timestamp,
) -> Option<Result<Measured, Failure>> {
    let ask = Ask { metrics, pods, current: scale.0, present: scale.1, settings, now };
    if let Some(it) = &metric.resource {
        return ask.resource(&it.name, None, &it.target);
    }
    if let Some(it) = &metric.container_resource {
        return ask.resource(&it.name, Some(&it.container), &it.target);
    }
    if let Some(it) = &metric.pods {
        return ask.pods(&it.metric, &it.target);
    }
    if let Some(it) = &metric.object {
        let described = &it.described_object;
        let reference = json!({ "apiVersion": described.api_version, "kind": described.kind, "name": described.name });
        let resource = of_kind(described.api_version.as_deref().unwrap_or_default(), &described.kind);
        let plural = resource.map_or_else(|| described.kind.to_lowercase(), |it| it.qualified());
        return ask.object(&it.metric, &it.target, &plural, &described.kind, &described.name, &reference);
    }
    if let Some(it) = &metric.external {
        return ask.external(&it.metric, &it.target);
    }
    let what = "metric".to_owned();
    Some(Err(Failure { reason: "InvalidMetricSourceType", message: format!("unknown metric source type {:?}", metric.type_), what }))
}

struct Ask<'a> {
    metrics: &'a Metrics,
    pods: &'a Pods,
    current: i64,
    present: i64,
    settings: &'a Settings,
    now: Timestamp,
}

type Asked = Option<Result<Measured, Failure>>;

impl Ask<'_> {
    fn resource(&self, name: &str, container: Option<&str>, target: &MetricTarget) -> Asked {
        let kind = if container.is_some() { "container resource" } else { "resource" };
        let what = container.map_or_else(|| format!("{name} resource metric value"), |it| format!("{it} container metric value"));
        let reason = if container.is_some() { "FailedGetContainerResourceMetric" } else { "FailedGetResourceMetric" };
        let shown = if target.average_utilization.is_some() { "utilization" } else { "usage" };
        let fail = |why: String| Failure { reason, message: format!("failed to get {name} {shown}: {why}"), what: what.clone() };
        let (namespace, selector) = (&self.pods.namespace, escape(&self.pods.selector));
        let path = format!("/apis/metrics.k8s.io/v1beta1/namespaces/{namespace}/pods?labelSelector={selector}");
        let failed = format!("unable to get metrics for resource {name}");
        let samples = match self.metrics.ask(&path)? {
            Ok(list) => metrics::of_resource(&list, name, container),
            Err(why) => {
                let why = format!("{failed}: unable to fetch metrics from resource metrics API: {why} (get pods.metrics.k8s.io)");
                return Some(Err(fail(why)));
            }
        };
        if samples.is_empty() {
            return Some(Err(fail(format!("{failed}: no metrics returned from resource metrics API"))));
        }
        let goal = match (target.average_utilization, &target.average_value) {
            (Some(percent), _) => Target::Utilization(percent.into()),
            (None, Some(value)) => Target::Average(millis(value)),
            (None, None) => return Some(Err(fail("neither a utilization nor an average value is the target".to_owned()))),
        };
        let pods = self.pods.asking(name, container);
        let proposal = match replicas::by_pods(self.current, &pods, &samples, goal, name == "cpu", self.settings, self.now) {
            Ok(proposal) => proposal,
            Err(why) => return Some(Err(fail(why))),
        };
        let mut current = json!({ "averageValue": shown_as(proposal.value) });
        let mut called = format!("{name} {kind}");
        if let Some(percent) = proposal.utilization {
            current["averageUtilization"] = percent.into();
            called.push_str(" utilization (percentage of request)");
        }
        let status = match container {
            Some(container) => json!({
                "type": "ContainerResource", "containerResource": { "name": name, "container": container, "current": current },
            }),
            None => json!({ "type": "Resource", "resource": { "name": name, "current": current } }),
        };
        Some(Ok(Measured { replicas: proposal.replicas, name: called, status }))
    }

    fn pods(&self, metric: &MetricIdentifier, target: &MetricTarget) -> Asked {
        let name = &metric.name;
        let fail = |why: String| Failure {
            reason: "FailedGetPodsMetric",
            message: format!("unable to get metric {name}: {why}"),
            what: "pods metric value".to_owned(),
        };
        let path = format!(
            "/apis/custom.metrics.k8s.io/v1beta2/namespaces/{}/pods/*/{name}?labelSelector={}{}",
            self.pods.namespace,
            escape(&self.pods.selector),
            of_metric(metric, "&metricLabelSelector=")
        );
        let samples = match self.metrics.ask(&path)? {
            Ok(list) => metrics::of_objects(&list),
            Err(why) => return Some(Err(fail(custom(&why)))),
        };
        let goal = Target::Average(target.average_value.as_ref().map(millis).unwrap_or_default());
        let pods = self.pods.asking("", None);
        match replicas::by_pods(self.current, &pods, &samples, goal, false, self.settings, self.now) {
            Err(why) => Some(Err(fail(why))),
            Ok(proposal) => {
                let current = json!({ "averageValue": shown_as(proposal.value) });
                let status = json!({ "type": "Pods", "pods": { "metric": metric, "current": current } });
                Some(Ok(Measured { replicas: proposal.replicas, name: format!("pods metric {name}"), status }))
            }
        }
    }

    fn object(&self, metric: &MetricIdentifier, target: &MetricTarget, plural: &str, kind: &str, object: &str, reference: &Value) -> Asked {
        let (name, namespace) = (&metric.name, &self.pods.namespace);
        let fail = |why: String| Failure {
            reason: "FailedGetObjectMetric",
            message: format!("unable to get metric {name}: {kind} on {namespace} {object}/{why}"),
            what: "object metric value".to_owned(),
        };
        let path = format!(
            "/apis/custom.metrics.k8s.io/v1beta2/namespaces/{namespace}/{plural}/{object}/{name}{}",
            of_metric(metric, "?metricLabelSelector=")
        );
        let value = match self.metrics.ask(&path)? {
            Ok(list) => metrics::of_objects(&list).values().next().map(|it| it.value),
            Err(why) => return Some(Err(fail(custom(&why)))),
        };
        let Some(value) = value else { return Some(Err(fail("no metrics returned from custom metrics API".to_owned()))) };
        let (proposal, current) = self.one_value(value, target);
        let status = json!({ "type": "Object", "object": { "metric": metric, "current": current, "describedObject": reference } });
        Some(Ok(Measured { replicas: proposal.replicas, name: format!("{kind} metric {name}"), status }))
    }

    fn external(&self, metric: &MetricIdentifier, target: &MetricTarget) -> Asked {
        let (name, namespace) = (&metric.name, &self.pods.namespace);
        let fail = |why: String| Failure {
            reason: "FailedGetExternalMetric",
            message: format!("unable to get external metric {namespace}/{name}/{}: {why}", shown_selector(metric.selector.as_ref())),
            what: "external metric value".to_owned(),
        };
        let path = format!("/apis/external.metrics.k8s.io/v1beta1/namespaces/{namespace}/{name}{}", of_metric(metric, "?labelSelector="));
        let value = match self.metrics.ask(&path)? {
            Ok(list) => metrics::external(&list),
            Err(why) => {
                let about = if why == NOT_SERVED { format!(" (get {name}.external.metrics.k8s.io)") } else { String::new() };
                return Some(Err(fail(format!("unable to fetch metrics from external metrics API: {why}{about}"))));
            }
        };
        let Some(value) = value else { return Some(Err(fail("no metrics returned from external metrics API".to_owned()))) };
        let (proposal, current) = self.one_value(value, target);
        let status = json!({ "type": "External", "external": { "metric": metric, "current": current } });
        Some(Ok(Measured { replicas: proposal.replicas, name: format!("external metric {name}"), status }))
    }

    /// The proposal and the `current` value for a metric with one value for all pods.
    fn one_value(&self, value: i64, target: &MetricTarget) -> (Proposal, Value) {
        match &target.average_value {
            Some(share) => {
                let proposal = replicas::by_share(self.present, value, millis(share), self.settings);
                (proposal, json!({ "averageValue": shown_as(proposal.value) }))
            }
            None => {
                let whole = target.value.as_ref().map(millis).unwrap_or_default();
                let proposal = replicas::by_value(self.current, self.pods.ready(), value, whole, self.settings);
                (proposal, json!({ "value": shown_as(value) }))
            }
        }
    }
}

/// The selector of a metric as a query parameter, if it has one.
fn of_metric(metric: &MetricIdentifier, parameter: &str) -> String {
    let selector = metric.selector.as_ref().and_then(|it| LabelSelector::from_spec(it).ok());
    selector.map(|it| format!("{parameter}{}", escape(&it.to_string()))).unwrap_or_default()
}

fn custom(why: &str) -> String {
    let why = if why == NOT_SERVED { "no custom metrics API (custom.metrics.k8s.io) registered" } else { why };
    format!("unable to fetch metrics from custom metrics API: {why}")
}

/// A selector as Go prints it.
fn shown_selector(selector: Option<&Selector>) -> String {
    let Some(selector) = selector else { return "nil".to_owned() };
    let labels: String = selector.match_labels.iter().flatten().map(|(key, value)| format!("{key}: {value},")).collect();
    let requirement = |it: &Requirement| {
        let values = it.values.as_deref().unwrap_or_default().join(" ");
        format!("LabelSelectorRequirement{{Key:{},Operator:{},Values:[{values}],}},", it.key, it.operator)
    };
    let expressions: String = selector.match_expressions.iter().flatten().map(requirement).collect();
    format!("&LabelSelector{{MatchLabels:map[string]string{{{labels}}},MatchExpressions:[]LabelSelectorRequirement{{{expressions}}},}}")
}

fn millis(quantity: &Stated) -> i64 {
    Quantity::try_from(quantity).map(Quantity::millis).unwrap_or_default()
}

fn shown_as(millis: i64) -> String {
    Quantity::from_millis(millis).to_string()
}
