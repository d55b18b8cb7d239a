//! Jobs, and the times at which they are started.

use std::collections::HashSet;

use serde_json::Value;

use super::at::At;
use super::names::{self, IMMUTABLE};
use super::workload::mismatch;
use super::{indexes, pod, pod_change, selector};
use crate::object::status::Cause;
use crate::util::cron::Schedule;

/// The most pods of an indexed job at a time, and the most that may fail; and the most rules about it.
const PARALLELISM: i64 = 100_000;
const RULES: usize = 20;
/// The most exit codes, and the most conditions of pods, of a rule.
const EXIT_CODES: usize = 255;
const CONDITIONS: usize = 20;
/// The longest text of indexes that make a success.
const SUCCEEDED_INDEXES: usize = 64 * 1024;
/// The longest name of another controller.
const MANAGER: usize = 63;
/// For jobs with a back-off limit per index and more completions than this, smaller limits apply to parallelism and failures.
const MANY: i64 = 100_000;
const OF_MANY: i64 = 10_000;
/// The longest name of a cron job: its jobs' names are eleven characters longer.
const CRON_JOB_NAME: usize = 52;
/// The parts of its template that a job may change until it has first started.
const DIRECTIVES: [&str; 3] = ["nodeSelector", "tolerations", "schedulingGates"];

pub(super) fn job(job: &At<'_>, out: &mut Vec<Cause>) {
    let spec = job.at("spec");
    job_spec(&spec, out);
    job_selector(&spec, out);
}

fn job_selector(spec: &At<'_>, out: &mut Vec<Cause>) {
    let selector = spec.at("selector");
    if !selector.is_absent() {
        selector::label_selector(&selector, out);
        if !selector::matches(&selector, spec.at("template").at("metadata").get("labels")) {
            mismatch(spec, out);
        }
    }
}

fn job_spec(spec: &At<'_>, out: &mut Vec<Cause>) {
    const COUNTS: [&str; 7] = [
        "parallelism",
        "completions",
        "activeDeadlineSeconds",
        "backoffLimit",
        "ttlSecondsAfterFinished",
        "backoffLimitPerIndex",
        "maxFailedIndexes",
    ];
    spec.not_negative(&COUNTS, out);
    if spec.has("maxFailedIndexes") && !spec.has("backoffLimitPerIndex") {
        spec.required("backoffLimitPerIndex", "when maxFailedIndexes is specified", out);
    }
    if let Some(manager) = spec.get("managedBy").as_str() {
        match manager {
            "" => spec.required("managedBy", "", out),
            _ => spec.faults("managedBy", domain_path(manager), out),
        }
        if manager.len() > MANAGER {
            out.push(Cause::too_long(spec.path("managedBy"), MANAGER));
        }
    }
    spec.one_of("completionMode", &["NonIndexed", "Indexed"], out);
    match spec.get("completionMode").as_str() {
        Some("Indexed") => indexed(spec, out),
        None | Some("NonIndexed") => {
            for key in ["backoffLimitPerIndex", "maxFailedIndexes"].into_iter().filter(|it| spec.has(it)) {
                spec.invalid(key, "requires indexed completion mode", out);
            }
        }
        Some(_) => {}
    }
    let (failure, success) = (spec.at("podFailurePolicy"), spec.at("successPolicy"));
    if !failure.is_absent() {
        failure_policy(spec, &failure, out);
    }
    if spec.text("completionMode") == "Indexed" {
        success_policy(spec, &success, out);
    } else if !success.is_absent() {
        spec.invalid("successPolicy", "requires indexed completion mode", out);
    }
    match failure.is_absent() {
        true => spec.one_of("podReplacementPolicy", &["Failed", "TerminatingOrFailed"], out),
        false => spec.one_of("podReplacementPolicy", &["Failed"], out),
    }
    pod::template(&spec.at("template"), out);
    let pod = spec.at("template").at("spec");
    match pod.text("restartPolicy") {
        "Always" => pod.required("restartPolicy", r#"valid values: "OnFailure", "Never""#, out),
        "OnFailure" if !failure.is_absent() => {
            pod.invalid("restartPolicy", "only \"Never\" is supported when podFailurePolicy is specified", out);
        }
        _ => pod.one_of("restartPolicy", &["OnFailure", "Never"], out),
    }
}

/// Checks that the pods of a new job can have names, and what selects them if its author took that over.
pub(super) fn job_creation(job: &At<'_>, out: &mut Vec<Cause>) {
    let spec = job.at("spec");
    // Labels that are all generated come from the template, where their faults have been told.
    let (metadata, of_pods) = (job.at("metadata"), spec.at("template").at("metadata"));
    let generated = of_pods.strings("labels").all(|(key, _)| GENERATED_LABELS.iter().any(|it| it.0 == key));
    if generated && metadata.get("labels") == of_pods.get("labels") {
        out.retain(|it| it.field != "metadata.labels");
    }
    if spec.flag("manualSelector") && !spec.has("selector") {
        spec.required("selector", "", out);
        mismatch(&spec, out);
    }
    if let Some(last) = spec.number("completions").filter(|it| *it > 0 && spec.text("completionMode") == "Indexed") {
        // The name of its last pod.
        let name = format!("{}-{}", job.at("metadata").text("name"), last - 1);
        if !names::label(&name).is_empty() {
            job.at("metadata").invalid("name", &format!("will not able to create pod with invalid DNS label: {name}"), out);
        }
    }
}

/// Checks how a new job finds its pods: as the server has it, unless its author took that over.
pub(super) fn job_generated(job: &At<'_>, out: &mut Vec<Cause>) {
    let (metadata, spec) = (job.at("metadata"), job.at("spec"));
    let of_pods = spec.at("template").at("metadata");
    let selector = spec.at("selector");
    if spec.flag("manualSelector") || selector.is_absent() {
        return;
    }
    let labels = of_pods.at("labels");
    for (key, from) in GENERATED_LABELS {
        let wanted = metadata.text(from);
        if labels.text(key) != wanted {
            let shown = selector::show_labels(&of_pods, "labels");
            out.push(Cause::invalid_shown(labels.entry_path(key), &shown, &format!("must be '{wanted}'")));
        }
    }
    if selector.count("matchLabels") > 1 || !selector.list("matchExpressions").is_empty() {
        out.push(Cause::invalid_shown(selector.path.as_str(), &selector::show_selector(&selector), "`selector` not auto-generated"));
    }
}

/// The labels by which a job selects its pods, and the metadata that they contain.
const GENERATED_LABELS: [(&str, &str); 4] = [
    ("controller-uid", "uid"),
    ("job-name", "name"),
    ("batch.kubernetes.io/controller-uid", "uid"),
    ("batch.kubernetes.io/job-name", "name"),
];

/// A name with a domain before it.
fn domain_path(text: &str) -> names::Faults {
    match text.split_once('/') {
        Some((domain, path)) if !domain.is_empty() && !path.is_empty() => names::subdomain(domain),
        _ => vec!["must be a domain-prefixed path (such as \"acme.io/foo\")".to_owned()],
    }
}

/// Checks the counts of an indexed job.
fn indexed(spec: &At<'_>, out: &mut Vec<Cause>) {
    let (completions, most) = (spec.number("completions"), spec.number("maxFailedIndexes"));
    if completions.is_none() {
        spec.required("completions", "when completion mode is Indexed", out);
    }
    if spec.number("parallelism").is_some_and(|it| it > PARALLELISM) {
        let why = format!("must be less than or equal to {PARALLELISM} when completion mode is Indexed");
        spec.invalid("parallelism", &why, out);
    }
    if most.zip(completions).is_some_and(|(most, all)| most > all) {
        spec.invalid("maxFailedIndexes", "must be less than or equal to completions", out);
    }
    if most.is_some_and(|it| it > PARALLELISM) {
        spec.invalid("maxFailedIndexes", &format!("must be less than or equal to {PARALLELISM}"), out);
    }
    if spec.has("backoffLimitPerIndex") && completions.is_some_and(|it| it > MANY) {
        if most.is_none() {
            spec.required("maxFailedIndexes", &format!("must be specified when completions is above {MANY}"), out);
        }
        for key in ["parallelism", "maxFailedIndexes"].into_iter().filter(|key| spec.number(key).is_some_and(|it| it > OF_MANY)) {
            let why =
                format!("must be less than or equal to {OF_MANY} when completions are above {MANY} and used with backoff limit per index");
            spec.invalid(key, &why, out);
        }
    }
}

fn success_policy(spec: &At<'_>, success: &At<'_>, out: &mut Vec<Cause>) {
    if success.is_absent() {
        return;
    }
    let rules = success.list("rules").len();
    if rules > RULES {
        out.push(Cause::too_many(success.path("rules"), rules, RULES));
    }
    if rules == 0 {
        success.required("rules", "at least one rules must be specified when the successPolicy is specified", out);
    }
    for rule in success.items("rules") {
        if !rule.has("succeededCount") && !rule.has("succeededIndexes") {
            out.push(Cause::required(rule.path.as_str(), "at least one of succeededCount or succeededIndexes must be specified"));
        }
        let completions = spec.number("completions").unwrap_or_default();
        if rule.text("succeededIndexes").len() > SUCCEEDED_INDEXES {
            out.push(Cause::too_long(rule.path("succeededIndexes"), SUCCEEDED_INDEXES));
        }
        let listed = rule.get("succeededIndexes").as_str().map(|it| indexes::count(it, completions));
        if let Some(Err(why)) = &listed {
            rule.invalid("succeededIndexes", &format!("error parsing succeededIndexes: {why}"), out);
        }
        rule.not_negative(&["succeededCount"], out);
        let count = rule.number("succeededCount").unwrap_or_default();
        if count > completions {
            let why = format!("must be less than or equal to {completions} (the number of specified completions)");
            rule.invalid("succeededCount", &why, out);
        }
        // Kubernetes finds none in a faulty text.
        if let Some(listed) = listed.map(Result::unwrap_or_default).filter(|it| count > *it) {
            let why = format!("must be less than or equal to {listed} (the number of indexes in the specified succeededIndexes field)");
            rule.invalid("succeededCount", &why, out);
        }
    }
}

fn failure_policy(spec: &At<'_>, policy: &At<'_>, out: &mut Vec<Cause>) {
    if policy.list("rules").len() > RULES {
        out.push(Cause::too_many(policy.path("rules"), policy.list("rules").len(), RULES));
    }
    for rule in policy.items("rules") {
        match rule.text("action") {
            "" => rule.required("action", r#"valid values: ["Count" "FailIndex" "FailJob" "Ignore"]"#, out),
            "FailIndex" if !spec.has("backoffLimitPerIndex") => rule.invalid("action", "requires the backoffLimitPerIndex to be set", out),
            _ => rule.one_of("action", &["Count", "FailIndex", "FailJob", "Ignore"], out),
        }
        if rule.has("onExitCodes") {
            exit_codes(&rule.at("onExitCodes"), spec, out);
        }
        let conditions = rule.list("onPodConditions").len();
        if conditions > CONDITIONS {
            out.push(Cause::too_many(rule.path("onPodConditions"), conditions, CONDITIONS));
        }
        for condition in rule.items("onPodConditions") {
            condition.faults("type", names::qualified(condition.text("type")), out);
            condition.one_of("status", &["False", "True", "Unknown"], out);
        }
        let mut refuse = |why: &str| {
            let message = format!("Invalid value: {why}");
            out.push(Cause { reason: "FieldValueInvalid".to_owned(), message, field: rule.path.clone() });
        };
        match (rule.has("onExitCodes"), conditions) {
            (true, 1..) => refuse("specifying both OnExitCodes and OnPodConditions is not supported"),
            (false, 0) => refuse("specifying one of OnExitCodes and OnPodConditions is required"),
            _ => {}
        }
    }
}

fn exit_codes(codes: &At<'_>, spec: &At<'_>, out: &mut Vec<Cause>) {
    match codes.text("operator") {
        "" => codes.required("operator", r#"valid values: ["In" "NotIn"]"#, out),
        _ => codes.one_of("operator", &["In", "NotIn"], out),
    }
    let containers = || ["containers", "initContainers"].into_iter().flat_map(|key| spec.at("template").at("spec").items(key));
    if codes.has("containerName") && !containers().any(|it| it.text("name") == codes.text("containerName")) {
        codes.invalid("containerName", "must be one of the container or initContainer names in the pod template", out);
    }
    let values = codes.list("values");
    if values.is_empty() {
        out.push(Cause::invalid_shown(codes.path("values"), "[]int32{}", "at least one value is required"));
    } else if values.len() > EXIT_CODES {
        out.push(Cause::too_many(codes.path("values"), values.len(), EXIT_CODES));
    }
    let mut seen = HashSet::new();
    for (at, value) in values.iter().enumerate() {
        let path = || format!("{}[{at}]", codes.path("values"));
        if codes.text("operator") == "In" && value.as_i64() == Some(0) {
            out.push(Cause::invalid(path(), value, "must not be 0 for the In operator"));
        }
        if !seen.insert(value) {
            out.push(Cause::duplicate(path(), value));
        }
    }
    if !values.is_sorted_by_key(|it| it.as_i64()) {
        codes.invalid("values", "must be ordered", out);
    }
}

/// Checks the immutable fields of a job.
pub(super) fn job_update(new: &At<'_>, old: &At<'_>, out: &mut Vec<Cause>) {
    let waiting = old.at("spec").flag("suspend") && !old.at("status").has("startTime");
    let (new, old) = (new.at("spec"), old.at("spec"));
    let unselected = |out: &mut Vec<Cause>| {
        if !new.has("selector") {
            new.required("selector", "", out);
            mismatch(&new, out);
        }
    };
    unselected(out);
    // Kubernetes checks the spec twice, which shows only if there are errors.
    if !out.is_empty() {
        job_spec(&new, out);
        job_selector(&new, out);
        unselected(out);
    }
    let elastic = new.text("completionMode") == "Indexed" && new.get("completions") == new.get("parallelism");
    if new.get("completions") != old.get("completions") && !elastic {
        new.invalid("completions", IMMUTABLE, out);
    }
    let selector = new.at("selector");
    match selector.value == old.get("selector") {
        true => {}
        false if selector.is_absent() => new.invalid("selector", IMMUTABLE, out),
        false => out.push(Cause::invalid_shown(selector.path.as_str(), &selector::show_selector(&selector), IMMUTABLE)),
    }
    let template = |spec: &At<'_>| {
        let mut template = spec.get("template").clone();
        if waiting {
            for (part, keys) in [("/spec", &DIRECTIVES[..]), ("/metadata", &["labels", "annotations"])] {
                if let Some(Value::Object(fields)) = template.pointer_mut(part) {
                    fields.retain(|key, _| !keys.contains(&key.as_str()));
                    pod_change::drop_node_affinity(fields);
                }
            }
        }
        template
    };
    if template(&new) != template(&old) {
        new.invalid("template", IMMUTABLE, out);
    }
    new.unchanged(&old, &["completionMode", "podFailurePolicy", "backoffLimitPerIndex", "managedBy", "successPolicy"], out);
}

pub(super) fn cron_job(job: &At<'_>, out: &mut Vec<Cause>) {
    let spec = job.at("spec");
    match spec.text("schedule") {
        "" => spec.required("schedule", "", out),
        schedule if schedule.contains("TZ") => {
            spec.invalid("schedule", "cannot use TZ or CRON_TZ in schedule, use timeZone field instead", out);
        }
        schedule => spec.faults("schedule", schedule.parse::<Schedule>().err().map(|it| it.to_string()).into_iter().collect(), out),
    }
    spec.not_negative(&["startingDeadlineSeconds"], out);
    match spec.get("timeZone").as_str() {
        None => {}
        Some("") => spec.invalid("timeZone", "timeZone must be nil or non-empty string", out),
        Some(zone) if zone.eq_ignore_ascii_case("local") => {
            spec.invalid("timeZone", "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones", out);
            // Go knows this one spelling.
            if zone != "Local" {
                spec.invalid("timeZone", &format!("unknown time zone {zone}"), out);
            }
        }
        // A host may have no time zone data; the controller then reports the fault.
        Some(zone) if !jiff::tz::db().is_definitively_empty() && !jiff::tz::db().get(zone).is_ok_and(|it| it.iana_name() == Some(zone)) => {
            spec.invalid("timeZone", &format!("unknown time zone {zone}"), out);
        }
        Some(_) => {}
    }
    match spec.text("concurrencyPolicy") {
        "" => spec.required("concurrencyPolicy", "", out),
        _ => spec.one_of("concurrencyPolicy", &["Allow", "Forbid", "Replace"], out),
    }
    let job = spec.at("jobTemplate").at("spec");
    job_spec(&job, out);
    let selector = job.at("selector");
    if !selector.is_absent() {
        out.push(Cause::invalid_shown(selector.path.as_str(), &selector::show_selector(&selector), "`selector` will be auto-generated"));
    }
    if job.flag("manualSelector") {
        let cause = Cause::not_supported(job.path("manualSelector"), "", &["nil", "false"]);
        out.push(Cause { message: cause.message.replacen("\"\"", "true", 1), ..cause });
    }
    spec.not_negative(&["successfulJobsHistoryLimit", "failedJobsHistoryLimit"], out);
}

pub(super) fn cron_job_name(metadata: &At<'_>, out: &mut Vec<Cause>) {
    if metadata.text("name").len() > CRON_JOB_NAME {
        metadata.invalid("name", &format!("must be no more than {CRON_JOB_NAME} characters"), out);
    }
}
