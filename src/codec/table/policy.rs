//! Pod disruption budgets.

use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::row::Row;
use super::{AGE, Column, NAME, Printer, named};
use crate::object::resource;

pub(super) static PRINTERS: &[Printer] = &[Printer {
    resource: &resource::POD_DISRUPTION_BUDGET,
    columns: &[
        NAME,
        Column::text("Min Available", "How many pods have to stay."),
        Column::text("Max Unavailable", "How many pods may be gone."),
        Column::integer("Allowed Disruptions", "How many pods may be evicted now."),
        AGE,
    ],
    cells: |object, row| named(object, row, budget),
}];

fn budget(it: &PodDisruptionBudget, row: &mut Row<'_>) {
    let bound = |bound: Option<&IntOrString>| match bound {
        Some(IntOrString::Int(count)) => count.to_string(),
        Some(IntOrString::String(percentage)) => percentage.clone(),
        None => "N/A".to_owned(),
    };
    let spec = it.spec.as_ref();
    row.text(bound(spec.and_then(|it| it.min_available.as_ref())));
    row.text(bound(spec.and_then(|it| it.max_unavailable.as_ref())));
    row.integer(it.status.as_ref().map_or(0, |it| it.disruptions_allowed));
    row.created();
}
