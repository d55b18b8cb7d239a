//! Events.

use super::at::At;
use crate::object::status::Cause;

/// An event is in the namespace of what it is about; one about something without a namespace is in `default`, or in `kube-system`.
pub(super) fn event(event: &At<'_>, out: &mut Vec<Cause>) {
    let (own, about) = (event.at("metadata").text("namespace"), event.at("involvedObject"));
    let fits = match about.text("namespace") {
        "" => matches!(own, "" | "default" | "kube-system"),
        namespace => namespace == own || own.is_empty(),
    };
    if !fits {
        let stated = about.text("namespace");
        out.push(Cause::invalid(about.path("namespace"), &stated.into(), "does not match event.namespace"));
    }
}
