//! Status fields other than counts, by any writer. An unchanged status is not checked.

use std::collections::HashSet;

use serde_json::Value;

use super::at::At;
use super::names;
use crate::object::status::Cause;

/// A pod has an address of each family at most.
pub(super) fn addresses(new: &At<'_>, old: &At<'_>, out: &mut Vec<Cause>) {
    for (key, field) in [("podIPs", "PodIP"), ("hostIPs", "HostIP")] {
        if new.get(key) == old.get(key) {
            continue;
        }
        let texts: Vec<&str> = new.items(key).map(|it| it.text("ip")).collect();
        if key == "hostIPs" && texts.first().is_some_and(|it| *it != new.text("hostIP")) {
            let path = new.items(key).next().map(|it| it.path("ip")).unwrap_or_default();
            out.push(Cause::invalid(path, &texts[0].into(), "must be equal to `hostIP`"));
        }
        let before: HashSet<&Value> = old.list(key).iter().collect();
        for it in new.items(key).filter(|it| !before.contains(it.value)) {
            let faults = names::ip(it.text("ip"));
            out.extend(faults.iter().map(|fault| Cause::invalid(it.path.as_str(), &it.text("ip").into(), fault)));
        }
        let is_six = |text: &str| text.contains(':');
        if texts.len() > 2 || texts.len() == 2 && is_six(texts[0]) == is_six(texts[1]) {
            let shown: Vec<String> = texts.iter().map(|it| format!("core.{field}{{IP:{it:?}}}")).collect();
            let shown = format!("[]core.{field}{{{}}}", shown.join(", "));
            out.push(Cause::invalid_shown(new.path(key), &shown, "may specify no more than one IP for each IP family"));
        }
    }
}

/// Where requests from outside reach an ingress.
pub(super) fn balancer(status: &At<'_>, out: &mut Vec<Cause>) {
    for point in status.items("ingress") {
        point.may("ip", names::ip, out);
        point.may("hostname", names::subdomain, out);
        if !point.text("hostname").is_empty() && names::ip(point.text("hostname")).is_empty() {
            point.invalid("hostname", "must be a DNS name, not an IP address", out);
        }
    }
}

/// How far changes of a claim's size are.
pub(super) fn resizing(status: &At<'_>, out: &mut Vec<Cause>) {
    const STATES: [&str; 5] =
        ["ControllerResizeInProgress", "ControllerResizeInfeasible", "NodeResizeInProgress", "NodeResizeInfeasible", "NodeResizePending"];
    for (name, state) in status.strings("allocatedResourceStatuses") {
        if !STATES.contains(&state) {
            // Kubernetes shows the resource's name here.
            let cause = Cause::not_supported(status.path("allocatedResourceStatus"), name, &STATES);
            out.push(Cause { message: cause.message.replacen(&format!("{name:?}"), name, 1), ..cause });
        }
    }
}
