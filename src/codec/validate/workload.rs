//! Controllers of pods: replication controllers and the kinds of `apps`.

use serde_json::Value;

use super::at::At;
use super::names::{self, IMMUTABLE};
use super::{pod, selector};
use crate::object::status::Cause;
use crate::util::go;

/// Checks counts, a selector, a template with matching labels, and a strategy, in the order of Kubernetes for each kind.
pub(super) fn workload(kind: &str, object: &At<'_>, out: &mut Vec<Cause>) {
    let spec = object.at("spec");
    match kind {
        "Deployment" => {
            spec.not_negative(&["replicas"], out);
            label_selector(kind, &spec, out);
            deployment_strategy(&spec.at("strategy"), out);
            spec.not_negative(&["minReadySeconds", "revisionHistoryLimit", "progressDeadlineSeconds"], out);
            if spec.number("progressDeadlineSeconds").is_some_and(|it| it <= spec.number("minReadySeconds").unwrap_or_default()) {
                spec.invalid("progressDeadlineSeconds", "must be greater than minReadySeconds", out);
            }
        }
        "StatefulSet" => {
            stateful_set(&spec, out);
            // A negative `revisionHistoryLimit` keeps everything.
            spec.not_negative(&["replicas", "minReadySeconds"], out);
            spec.at("ordinals").not_negative(&["start"], out);
            spec.may_say("serviceName", names::label, out);
            label_selector(kind, &spec, out);
        }
        "DaemonSet" => {
            label_selector(kind, &spec, out);
            spec.not_negative(&["minReadySeconds"], out);
            daemon_set_strategy(&spec.at("updateStrategy"), out);
            spec.not_negative(&["revisionHistoryLimit"], out);
        }
        "ReplicaSet" => {
            spec.not_negative(&["replicas", "minReadySeconds"], out);
            label_selector(kind, &spec, out);
        }
        _ => {
            spec.not_negative(&["minReadySeconds"], out);
            if spec.count("selector") == 0 {
                spec.required("selector", "", out);
            }
            spec.not_negative(&["replicas"], out);
            plain_template(&spec, out);
        }
    }
}

fn plain_template(spec: &At<'_>, out: &mut Vec<Cause>) {
    if !spec.has("template") {
        return spec.required("template", "", out);
    }
    let labels = spec.at("template").at("metadata").at("labels");
    if spec.strings("selector").any(|(key, value)| labels.text(key) != value) {
        mismatch(spec, out);
    }
    template("ReplicationController", spec, out);
}

fn label_selector(kind: &str, spec: &At<'_>, out: &mut Vec<Cause>) {
    let selector = spec.at("selector");
    if selector.is_absent() {
        if kind != "DaemonSet" {
            spec.required("selector", "", out);
        }
        // An absent selector selects nothing.
        mismatch(spec, out);
    } else {
        selector::label_selector(&selector, out);
        if selector::is_empty(&selector) {
            // Kubernetes calls a replica set so too.
            let called = if kind == "ReplicaSet" { "deployment" } else { &*kind.to_lowercase() };
            let why = format!("empty selector is invalid for {called}");
            out.push(Cause::invalid_shown(selector.path.as_str(), &selector::show_selector(&selector), &why));
        }
        if selector::is_invalid(&selector) {
            return invalid_selector(kind, spec, out);
        }
        if !selector::matches(&selector, spec.at("template").at("metadata").get("labels")) {
            mismatch(spec, out);
        }
    }
    template(kind, spec, out);
}

/// After the faults of a selector, Kubernetes mentions it once more for some kinds, and then leaves out the template.
fn invalid_selector(kind: &str, spec: &At<'_>, out: &mut Vec<Cause>) {
    let selector = spec.at("selector");
    let why = match kind {
        "DaemonSet" => return template(kind, spec, out),
        "StatefulSet" => "",
        _ => "invalid label selector",
    };
    out.push(Cause::invalid_shown(selector.path.as_str(), &selector::show_selector(&selector), why));
    if kind == "StatefulSet" {
        kept_running(kind, &spec.at("template").at("spec"), out);
    }
}

/// The error that the template's labels do not match the selector.
pub(super) fn mismatch(spec: &At<'_>, out: &mut Vec<Cause>) {
    let metadata = spec.at("template").at("metadata");
    let shown = selector::show_labels(&metadata, "labels");
    out.push(Cause::invalid_shown(metadata.path("labels"), &shown, "`selector` does not match template `labels`"));
}

fn template(kind: &str, spec: &At<'_>, out: &mut Vec<Cause>) {
    let template = spec.at("template");
    match kind {
        // Other faults of the template surface when its pods are created.
        "StatefulSet" => drop(pod::template_metadata(&template, out)),
        _ => pod::template(&template, out),
    }
    kept_running(kind, &template.at("spec"), out);
}

/// Pods that are kept running are always restarted, and have no deadline.
fn kept_running(kind: &str, pod: &At<'_>, out: &mut Vec<Cause>) {
    pod.one_of("restartPolicy", &["Always"], out);
    if pod.has("activeDeadlineSeconds") {
        let of = if kind == "Deployment" { "ReplicaSet" } else { kind };
        pod.forbidden("activeDeadlineSeconds", &format!("activeDeadlineSeconds in {of} is not Supported"), out);
    }
}

fn deployment_strategy(strategy: &At<'_>, out: &mut Vec<Cause>) {
    match strategy.text("type") {
        "" => {}
        "Recreate" if strategy.has("rollingUpdate") => {
            strategy.forbidden("rollingUpdate", "may not be specified when strategy `type` is 'Recreate'", out);
        }
        "Recreate" => {}
        "RollingUpdate" => rolling_update(&strategy.at("rollingUpdate"), out),
        _ => unknown_strategy(strategy, "Deployment", &["Recreate", "RollingUpdate"], out),
    }
}

/// A strategy as Go shows it, where pointers appear as addresses.
fn show_strategy(strategy: &At<'_>, name: &str) -> String {
    let rolling = match name {
        "Deployment" => "RollingUpdateDeployment",
        "DaemonSetUpdate" => "RollingUpdateDaemonSet",
        _ => "RollingUpdateStatefulSetStrategy",
    };
    format!("apps.{name}Strategy{{Type:{}, RollingUpdate:(*apps.{rolling})(nil)}}", go::quote(strategy.text("type")))
}

fn unknown_strategy(strategy: &At<'_>, name: &str, known: &[&str], out: &mut Vec<Cause>) {
    let cause = Cause::not_supported(strategy.path.as_str(), "", known);
    let message = cause.message.replacen("\"\"", &show_strategy(strategy, name), 1);
    out.push(Cause { message, ..cause });
}

fn rolling_update(rolling: &At<'_>, out: &mut Vec<Cause>) {
    for key in ["maxUnavailable", "maxSurge"] {
        count_or_percent(rolling, key, out);
    }
    let zero = |key: &str| matches!(rolling.get(key), Value::Number(it) if it.as_i64() == Some(0)) || percent(rolling.get(key)) == Some(0);
    if zero("maxUnavailable") && zero("maxSurge") {
        rolling.invalid_count("maxUnavailable", "may not be 0 when `maxSurge` is 0", out);
    }
    if percent(rolling.get("maxUnavailable")).is_some_and(|it| it > 100) {
        rolling.invalid_count("maxUnavailable", "must not be greater than 100%", out);
    }
}

fn percent(value: &Value) -> Option<i64> {
    value.as_str()?.strip_suffix('%')?.parse().ok()
}

/// Checks a count of pods that may be a percentage.
pub(super) fn count_or_percent(of: &At<'_>, key: &str, out: &mut Vec<Cause>) {
    match of.get(key) {
        Value::String(text) => names::percent(text).iter().for_each(|fault| of.invalid_count(key, fault, out)),
        _ => of.not_negative(&[key], out),
    }
}

fn stateful_set(spec: &At<'_>, out: &mut Vec<Cause>) {
    if !matches!(spec.text("podManagementPolicy"), "" | "OrderedReady" | "Parallel") {
        spec.invalid("podManagementPolicy", "must be 'OrderedReady' or 'Parallel'", out);
    }
    let strategy = spec.at("updateStrategy");
    match strategy.text("type") {
        "" => {}
        "OnDelete" if strategy.has("rollingUpdate") => {
            let partition = strategy.at("rollingUpdate").number("partition").unwrap_or_default();
            let shown =
                format!("apps.RollingUpdateStatefulSetStrategy{{Partition:{partition}, MaxUnavailable:(*intstr.IntOrString)(nil)}}");
            out.push(Cause::invalid_shown(strategy.path("rollingUpdate"), &shown, "only allowed for updateStrategy 'RollingUpdate'"));
        }
        "OnDelete" => {}
        "RollingUpdate" => {
            let rolling = strategy.at("rollingUpdate");
            rolling.not_negative(&["partition"], out);
            count_or_percent(&rolling, "maxUnavailable", out);
        }
        _ => {
            let shown = show_strategy(&strategy, "StatefulSetUpdate");
            out.push(Cause::invalid_shown(strategy.path.as_str(), &shown, "must be 'RollingUpdate' or 'OnDelete'"));
        }
    }
    let retention = spec.at("persistentVolumeClaimRetentionPolicy");
    for key in ["whenDeleted", "whenScaled"] {
        retention.one_of(key, &["Retain", "Delete"], out);
    }
}

fn daemon_set_strategy(strategy: &At<'_>, out: &mut Vec<Cause>) {
    match strategy.text("type") {
        "" | "OnDelete" => {}
        "RollingUpdate" => {
            let rolling = strategy.at("rollingUpdate");
            for key in ["maxUnavailable", "maxSurge"] {
                count_or_percent(&rolling, key, out);
            }
            let some = |key: &str| rolling.number(key).is_some_and(|it| it != 0) || percent(rolling.get(key)).is_some_and(|it| it != 0);
            match (some("maxUnavailable"), some("maxSurge")) {
                (true, true) => rolling.invalid_count("maxSurge", "may not be set when maxUnavailable is non-zero", out),
                (false, false) if rolling.has("maxUnavailable") => {
                    rolling.required("maxUnavailable", "cannot be 0 when maxSurge is 0", out);
                }
                _ => {}
            }
        }
        _ => unknown_strategy(strategy, "DaemonSetUpdate", &["RollingUpdate", "OnDelete"], out),
    }
}

/// Checks immutable fields.
pub(super) fn update(kind: &str, new: &At<'_>, old: &At<'_>, out: &mut Vec<Cause>) {
    let (new, old) = (new.at("spec"), old.at("spec"));
    match kind {
        "StatefulSet" => {
            const CHANGEABLE: [&str; 7] = [
                "replicas",
                "ordinals",
                "template",
                "updateStrategy",
                "revisionHistoryLimit",
                "persistentVolumeClaimRetentionPolicy",
                "minReadySeconds",
            ];
            let fixed = |spec: &At<'_>| {
                let mut fields = spec.value.as_object().cloned().unwrap_or_default();
                fields.retain(|key, _| !CHANGEABLE.contains(&key.as_str()));
                fields
            };
            if fixed(&new) != fixed(&old) {
                let (most, last) = (CHANGEABLE[..6].join("', '"), CHANGEABLE[6]);
                let why = format!("updates to statefulset spec for fields other than '{most}' and '{last}' are forbidden");
                out.push(Cause::forbidden("spec", &why));
            }
        }
        _ => {
            let selector = new.at("selector");
            if selector.value != old.get("selector") {
                out.push(Cause::invalid_shown(selector.path.as_str(), &selector::show_selector(&selector), IMMUTABLE));
            }
        }
    }
}

pub(super) fn controller_revision(revision: &At<'_>, out: &mut Vec<Cause>) {
    match revision.get("data") {
        Value::Null => revision.required("data", "data is mandatory", out),
        Value::Object(_) => {}
        _ => revision.required("data", "data must be a valid JSON object", out),
    }
    revision.not_negative(&["revision"], out);
}

pub(super) fn controller_revision_update(new: &At<'_>, old: &At<'_>, out: &mut Vec<Cause>) {
    if new.get("data") != old.get("data") {
        new.invalid("data", IMMUTABLE, out);
    }
}
