//! Events.

use super::at::At;
use super::names::{self, IMMUTABLE};
use crate::object::status::Cause;

/// The longest that names in an event may be, and its text, in bytes.
const NAME: usize = 128;
const NOTE: usize = 1024;

/// An event must be in the namespace of its object; for an object without a namespace in `default` or, in the newer form, in `kube-system`.
pub(super) fn event(event: &At<'_>, out: &mut Vec<Cause>) {
    let (own, about) = (event.at("metadata").text("namespace"), event.at("involvedObject"));
    let timed = event.has("eventTime");
    let fits = match about.text("namespace") {
        "" => matches!(own, "" | "default") || timed && own == "kube-system",
        namespace => timed || namespace == own || own.is_empty(),
    };
    if !fits {
        let stated = about.text("namespace");
        out.push(Cause::invalid(about.path("namespace"), &stated.into(), "does not match event.namespace"));
    }
    if timed {
        // The newer version's name of the field.
        let controller = event.text("reportingComponent");
        if controller.is_empty() {
            event.required("reportingController", "", out);
        }
        for fault in names::qualified(controller) {
            out.push(Cause::invalid(event.path("reportingController"), &controller.into(), &fault));
        }
        for key in ["reportingInstance", "action", "reason"] {
            match event.text(key) {
                "" => event.required(key, "", out),
                text if text.len() > NAME => too_long(event, key, NAME, out),
                _ => {}
            }
        }
        if event.text("message").len() > NOTE {
            too_long(event, "message", NOTE, out);
        }
    }
}

fn series(event: &At<'_>, out: &mut Vec<Cause>) {
    let series = event.at("series");
    if series.is_absent() {
        return;
    }
    if series.number("count").unwrap_or_default() < 2 {
        out.push(Cause::invalid(series.path("count"), &"".into(), "should be at least 2"));
    }
    if !series.has("lastObservedTime") {
        series.required("lastObservedTime", "", out);
    }
}

fn too_long(event: &At<'_>, key: &str, most: usize, out: &mut Vec<Cause>) {
    out.push(Cause::invalid(event.path(key), &"".into(), &format!("can have at most {most} characters")));
}

/// The only change that `events.k8s.io` allows in an event is its series.
pub(super) fn strict_update(new: &At<'_>, old: &At<'_>, out: &mut Vec<Cause>) {
    const FIXED: [&str; 11] = [
        "involvedObject",
        "reason",
        "message",
        "source",
        "firstTimestamp",
        "lastTimestamp",
        "count",
        "type",
        "eventTime",
        "action",
        "related",
    ];
    if new.get("series") != old.get("series") {
        series(new, out);
    }
    new.unchanged(old, &FIXED, out);
    for (key, called) in [("reportingComponent", "reportingController"), ("reportingInstance", "reportingInstance")] {
        if new.get(key) != old.get(key) {
            out.push(Cause::invalid(new.path(called), &new.text(key).into(), IMMUTABLE));
        }
    }
}

/// The requirements of `events.k8s.io` for a new event: no fields of the older form.
pub(super) fn strict(event: &At<'_>, out: &mut Vec<Cause>) {
    series(event, out);
    if !event.has("eventTime") {
        event.required("eventTime", "", out);
    }
    let kind = event.text("type");
    if !matches!(kind, "Normal" | "Warning") {
        out.push(Cause::invalid("type", &"".into(), &format!("has invalid value: {kind}")));
    }
    let source = event.at("source");
    let unset = [
        ("firstTimestamp", event.has("firstTimestamp")),
        ("lastTimestamp", event.has("lastTimestamp")),
        ("count", event.number("count").is_some_and(|it| it != 0)),
        ("source", !source.text("component").is_empty() || !source.text("host").is_empty()),
    ];
    for (key, _) in unset.into_iter().filter(|(_, set)| *set) {
        out.push(Cause::invalid(event.path(key), &"".into(), "needs to be unset"));
    }
}
