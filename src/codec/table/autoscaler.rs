//! Autoscalers, and the Scale of their targets.

use k8s_openapi::api::autoscaling::v1::Scale;
use k8s_openapi::api::autoscaling::v2::{
    HorizontalPodAutoscaler, HorizontalPodAutoscalerSpec, HorizontalPodAutoscalerStatus, MetricSpec, MetricStatus, MetricTarget,
    MetricValueStatus,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::row::{NONE, Row, UNKNOWN, UNSET};
use super::{AGE, Column, NAME, Printer, named};
use crate::object::resource;

pub(super) static PRINTERS: &[Printer] = &[
    Printer {
        resource: &resource::HORIZONTAL_POD_AUTOSCALER,
        columns: &[
            NAME,
            Column::text("Reference", "What is scaled."),
            Column::text("Targets", "What is measured, and what it is to be."),
            Column::text("MinPods", "At least so many pods."),
            Column::text("MaxPods", "At most so many pods."),
            Column::text("Replicas", "How many pods there are."),
            AGE,
        ],
        cells: |object, row| named(object, row, autoscaler),
    },
    Printer {
        resource: &resource::SCALE,
        columns: &[
            NAME,
            Column::integer("Desired", "How many pods there are to be."),
            Column::integer("Available", "How many pods there are."),
            AGE,
        ],
        cells: |object, row| named(object, row, scale),
    },
];

fn scale(it: &Scale, row: &mut Row<'_>) {
    row.integer(it.spec.as_ref().and_then(|it| it.replicas).unwrap_or_default());
    row.integer(it.status.as_ref().map_or(0, |it| it.replicas));
    row.created();
}

fn autoscaler(it: &HorizontalPodAutoscaler, row: &mut Row<'_>) {
    let (no_spec, no_status) = (HorizontalPodAutoscalerSpec::default(), HorizontalPodAutoscalerStatus::default());
    let (spec, status) = (it.spec.as_ref().unwrap_or(&no_spec), it.status.as_ref().unwrap_or(&no_status));
    row.text(format!("{}/{}", spec.scale_target_ref.kind, spec.scale_target_ref.name));
    row.text(targets(spec.metrics.as_deref().unwrap_or_default(), status.current_metrics.as_deref().unwrap_or_default()));
    row.text(spec.min_replicas.map_or_else(|| UNSET.to_owned(), |it| it.to_string()));
    row.integer(spec.max_replicas);
    row.integer(status.current_replicas.unwrap_or_default());
    row.created();
}

/// Each metric as `cpu: 40%/80%`; the measurements are in the order of the metrics.
fn targets(metrics: &[MetricSpec], measured: &[MetricStatus]) -> String {
    const SHOWN: usize = 2;
    if metrics.is_empty() {
        return NONE.to_owned();
    }
    let shown: Vec<String> = metrics.iter().enumerate().map(|(at, metric)| target(metric, measured.get(at))).take(SHOWN).collect();
    let more = metrics.len().saturating_sub(SHOWN);
    if more > 0 { format!("{} + {more} more...", shown.join(", ")) } else { shown.join(", ") }
}

fn target(metric: &MetricSpec, measured: Option<&MetricStatus>) -> String {
    if let Some(it) = &metric.pods {
        return pair(measured.and_then(|it| it.pods.as_ref()).map(|it| &it.current), &it.target, "");
    }
    if let Some(it) = &metric.object {
        return pair(measured.and_then(|it| it.object.as_ref()).map(|it| &it.current), &it.target, AVERAGE);
    }
    if let Some(it) = &metric.external {
        return pair(measured.and_then(|it| it.external.as_ref()).map(|it| &it.current), &it.target, AVERAGE);
    }
    if let Some(it) = &metric.resource {
        let current = measured.and_then(|it| it.resource.as_ref()).map(|it| &it.current);
        return format!("{}: {}", it.name, pair(current, &it.target, ""));
    }
    if let Some(it) = &metric.container_resource {
        let current = measured.and_then(|it| it.container_resource.as_ref()).map(|it| &it.current);
        return format!("{}: {}", it.name, pair(current, &it.target, ""));
    }
    "<unknown type>".to_owned()
}

/// Behind the values of a metric that may also be measured as a whole.
const AVERAGE: &str = " (avg)";

/// The current and the target value, in the unit of the target.
fn pair(current: Option<&MetricValueStatus>, target: &MetricTarget, average: &str) -> String {
    let text = |it: Option<&Quantity>| it.map_or_else(|| UNKNOWN.to_owned(), |it| it.0.clone());
    if let Some(wanted) = &target.average_value {
        return format!("{}/{}{average}", text(current.and_then(|it| it.average_value.as_ref())), wanted.0);
    }
    if let Some(wanted) = &target.value {
        return format!("{}/{}", text(current.and_then(|it| it.value.as_ref())), wanted.0);
    }
    let percent = |it: Option<i32>, otherwise: &str| it.map_or_else(|| otherwise.to_owned(), |it| format!("{it}%"));
    format!("{}/{}", percent(current.and_then(|it| it.average_utilization), UNKNOWN), percent(target.average_utilization, "<auto>"))
}
