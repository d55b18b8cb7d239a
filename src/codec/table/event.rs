//! Events.

use k8s_openapi::api::core::v1::Event;

use super::row::Row;
use super::{Column, NAME, Printer, typed};
use crate::object::resource;

pub(super) static PRINTERS: &[Printer] = &[Printer {
    resource: &resource::EVENT,
    columns: &[
        Column::text("Last Seen", "Time since it last happened."),
        Column::text("Type", "Whether it is normal or a warning."),
        Column::text("Reason", "What happened, in one word."),
        Column::text("Object", "What it happened to."),
        Column::text("Subobject", "Which part of the object it happened to.").wide(),
        Column::text("Source", "Who saw it happen.").wide(),
        Column::text("Message", "What happened."),
        Column::text("First Seen", "Time since it first happened.").wide(),
        Column::text("Count", "How often it has happened.").wide(),
        NAME.wide(),
    ],
    cells: |object, row| typed(object, row, event),
}];

fn event(event: &Event, row: &mut Row<'_>) {
    let first = event.first_timestamp.as_ref().map(|it| it.0).or(event.event_time.as_ref().map(|it| it.0));
    let series = event.series.as_ref();
    let last = match series {
        Some(series) => series.last_observed_time.as_ref().map(|it| it.0),
        None => event.last_timestamp.as_ref().map(|it| it.0).or(first),
    };
    let about = &event.involved_object;
    let kind = about.kind.as_deref().unwrap_or_default().to_lowercase();
    let source = event.source.as_ref();
    let or = |own: Option<&String>, reporting: &Option<String>| own.filter(|it| !it.is_empty()).or(reporting.as_ref()).cloned();
    let seen_by = [
        or(source.and_then(|it| it.component.as_ref()), &event.reporting_component),
        or(source.and_then(|it| it.host.as_ref()), &event.reporting_instance),
    ];
    row.age(last);
    row.text(event.type_.as_deref().unwrap_or_default());
    row.text(event.reason.as_deref().unwrap_or_default());
    row.text(match about.name.as_deref() {
        Some(name) if !name.is_empty() => format!("{kind}/{name}"),
        _ => kind,
    });
    row.text(about.field_path.as_deref().unwrap_or_default());
    row.text(seen_by.into_iter().flatten().filter(|it| !it.is_empty()).collect::<Vec<_>>().join(", "));
    row.text(event.message.as_deref().unwrap_or_default().trim());
    row.age(first);
    // An event that has not been counted happened once.
    row.integer(series.map_or(event.count, |it| it.count).filter(|it| *it > 0).unwrap_or(1));
    row.text(event.metadata.name.as_deref().unwrap_or_default());
}
