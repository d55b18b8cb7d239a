//! Changes of a job's status, by any controller: a job that has ended stays so, and its status must be consistent.

use serde_json::Value;

use super::at::At;
use super::indexes;
use crate::object::status::Cause;

/// The final conditions of a job, and those that precede them.
const COMPLETE: &str = "Complete";
const FAILED: &str = "Failed";
const WILL_FAIL: &str = "FailureTarget";
const WILL_COMPLETE: &str = "SuccessCriteriaMet";

/// An unchanged status is not checked: it may be older than these rules.
pub(super) fn update(new: &At<'_>, old: &At<'_>, out: &mut Vec<Cause>) {
    if new.get("status") != old.get("status") {
        Change { spec: new.at("spec"), new: new.at("status"), old: old.at("status") }.check(out);
    }
}

struct Change<'a> {
    spec: At<'a>,
    new: At<'a>,
    old: At<'a>,
}

impl Change<'_> {
    fn differ(&self, keys: &[&str]) -> bool {
        keys.iter().any(|key| self.new.get(key) != self.old.get(key))
    }

    /// Whether one of these conditions has become true, or is no longer.
    fn turned(&self, kinds: &[&str]) -> bool {
        kinds.iter().any(|kind| is(&self.new, kind) != is(&self.old, kind))
    }

    fn check(&self, out: &mut Vec<Cause>) {
        let (new, old) = (&self.new, &self.old);
        new.not_negative(&["active", "succeeded", "failed", "ready", "terminating"], out);
        self.check_uncounted(out);
        self.check_end(out);
        self.check_counts(out);
        for (kind, rival) in [(WILL_COMPLETE, FAILED), (WILL_COMPLETE, WILL_FAIL)] {
            if is(new, kind) && is(new, rival) {
                let rival = if rival == FAILED { "Failed=true" } else { "FailureTarget=true" };
                refuse(new, &format!("cannot set {kind}=True and {rival} conditions"), out);
            }
        }
        if self.spec.has("successPolicy") && is(new, COMPLETE) && !is(new, WILL_COMPLETE) {
            refuse(new, "cannot set Complete=True for Job with SuccessPolicy unless SuccessCriteriaMet=True", out);
        }
        for kind in [FAILED, COMPLETE, WILL_FAIL].into_iter().filter(|kind| is(old, kind) && !is(new, kind)) {
            refuse(new, &format!("cannot disable the terminal {kind}=True condition"), out);
        }
        self.check_course(out);
    }

    /// Each uncounted pod is listed once.
    fn check_uncounted(&self, out: &mut Vec<Cause>) {
        let uncounted = self.new.at("uncountedTerminatedPods");
        let mut seen = std::collections::HashSet::new();
        for key in ["succeeded", "failed"] {
            for (at, uid) in uncounted.list(key).iter().enumerate() {
                let path = format!("{}[{at}]", uncounted.path(key));
                if uid == "" {
                    out.push(Cause::invalid(path, uid, "must not be empty"));
                } else if !seen.insert(uid.as_str()) {
                    out.push(Cause::duplicate(path, uid));
                }
            }
        }
    }

    /// The requirements at a job's end.
    fn check_end(&self, out: &mut Vec<Cause>) {
        let new = &self.new;
        let (completes, fails) = (is(new, COMPLETE), is(new, FAILED));
        let ended = completes || fails;
        let turned_out = self.turned(&[COMPLETE]) || self.differ(&["completionTime"]);
        if self.turned(&[COMPLETE, FAILED]) && completes && fails {
            refuse(new, "cannot set Complete=True and Failed=true conditions", out);
        }
        if self.turned(&[COMPLETE, WILL_FAIL]) && completes && is(new, WILL_FAIL) {
            refuse(new, "cannot set Complete=True and FailureTarget=true conditions", out);
        }
        if turned_out && new.has("completionTime") && !completes {
            new.invalid("completionTime", "cannot set completionTime when there is no Complete=True condition", out);
        }
        if turned_out && completes && !new.has("completionTime") {
            new.required("completionTime", "completionTime is required for Complete jobs", out);
        }
        let [started, completed] = ["startTime", "completionTime"].map(|key| new.text(key).parse::<jiff::Timestamp>().ok());
        if self.differ(&["startTime", "completionTime"]) && started.zip(completed).is_some_and(|(started, completed)| completed < started) {
            new.invalid("completionTime", "completionTime cannot be set before startTime", out);
        }
        if (self.turned(&[FAILED]) || self.differ(&["failedIndexes"])) && fails && !is(new, WILL_FAIL) {
            refuse(new, "cannot set Failed=True condition without the FailureTarget=true condition", out);
        }
        if self.turned(&[COMPLETE, WILL_COMPLETE]) && completes && !is(new, WILL_COMPLETE) {
            refuse(new, "cannot set Complete=True condition without the SuccessCriteriaMet=true condition", out);
        }
        let begins = self.turned(&[COMPLETE, FAILED]);
        let count = |key: &str| new.number(key).unwrap_or_default();
        if (begins || self.differ(&["active"])) && ended && count("active") > 0 {
            new.invalid("active", "active>0 is invalid for finished job", out);
        }
        let never_ran = self.spec.flag("suspend") && self.spec.number("completions") == Some(0);
        if (begins || self.differ(&["startTime"])) && ended && !never_ran && !new.has("startTime") {
            new.required("startTime", "startTime is required for finished job", out);
        }
        let uncounted = new.at("uncountedTerminatedPods");
        let some = ["succeeded", "failed"].iter().any(|key| !uncounted.list(key).is_empty());
        if (begins || self.differ(&["uncountedTerminatedPods"])) && ended && some {
            new.invalid("uncountedTerminatedPods", "uncountedTerminatedPods needs to be empty for finished job", out);
        }
    }

    fn check_counts(&self, out: &mut Vec<Cause>) {
        let new = &self.new;
        let count = |key: &str| new.number(key).unwrap_or_default();
        let completions = self.spec.number("completions");
        let per_index = self.spec.has("backoffLimitPerIndex");
        for key in
            ["completedIndexes", "failedIndexes"].into_iter().filter(|it| self.differ(&[it]) && (per_index || *it != "failedIndexes"))
        {
            let fault = completions.and_then(|it| indexes::count(new.text(key), it).err());
            fault.into_iter().for_each(|why| new.invalid(key, &format!("error parsing {key}: {why}"), out));
        }
        if self.differ(&["completedIndexes"]) && !new.text("completedIndexes").is_empty() && self.spec.text("completionMode") != "Indexed" {
            new.invalid("completedIndexes", "cannot set non-empty completedIndexes when non-indexed completion mode", out);
        }
        if self.differ(&["failedIndexes"]) && new.has("failedIndexes") && !self.spec.has("backoffLimitPerIndex") {
            new.invalid("failedIndexes", "cannot set non-null failedIndexes when backoffLimitPerIndex is null", out);
        }
        let both = completions.and_then(|it| indexes::common(new.text("completedIndexes"), new.text("failedIndexes"), it));
        if let Some(index) = both.filter(|_| self.differ(&["completedIndexes", "failedIndexes"])) {
            new.invalid("failedIndexes", &format!("failedIndexes and completedIndexes overlap at index: {index}"), out);
        }
        let ended = is(new, COMPLETE) || is(new, FAILED);
        if (self.turned(&[COMPLETE, FAILED]) || self.differ(&["terminating"])) && ended && count("terminating") > 0 {
            new.invalid("terminating", "terminating>0 is invalid for finished job", out);
        }
        if self.differ(&["ready", "active"]) && count("ready") > count("active") {
            new.invalid("ready", "cannot set more ready pods than active", out);
        }
    }

    /// Values that must not go back.
    fn check_course(&self, out: &mut Vec<Cause>) {
        let (new, old, spec) = (&self.new, &self.old, &self.spec);
        let less = |key: &str| new.number(key).unwrap_or_default() < old.number(key).unwrap_or_default();
        // A job that is as wide as it is long can be made smaller.
        let elastic = spec.text("completionMode") == "Indexed" && spec.get("completions") == spec.get("parallelism");
        for key in ["failed", "succeeded"].into_iter().filter(|key| less(key) && (*key == "failed" || !elastic)) {
            out.push(Cause::invalid(
                new.path(key),
                &new.number(key).unwrap_or_default().into(),
                &format!("cannot decrease the {key} counter"),
            ));
        }
        if new.has("completionTime") && old.has("completionTime") && self.differ(&["completionTime"]) {
            new.invalid("completionTime", "completionTime cannot be mutated", out);
        }
        let resumes = is(old, "Suspended") && condition(new, "Suspended") == Some("False");
        if old.has("startTime") && self.differ(&["startTime"]) && !resumes && !spec.flag("suspend") {
            new.required("startTime", "startTime cannot be removed for unsuspended job", out);
        }
        match (is(old, WILL_COMPLETE), is(new, WILL_COMPLETE)) {
            (true, false) => refuse(new, "cannot disable the SuccessCriteriaMet=True condition", out),
            (false, true) if is(old, COMPLETE) => {
                refuse(new, "cannot set SuccessCriteriaMet=True for Job already has Complete=true conditions", out);
            }
            _ => {}
        }
    }
}

fn condition<'a>(status: &At<'a>, kind: &str) -> Option<&'a str> {
    let found = status.list("conditions").iter().find(|it| it.get("type").and_then(Value::as_str) == Some(kind))?;
    found.get("status")?.as_str()
}

fn is(status: &At<'_>, kind: &str) -> bool {
    condition(status, kind) == Some("True")
}

/// The error does not show the conditions.
fn refuse(status: &At<'_>, why: &str, out: &mut Vec<Cause>) {
    let message = format!("Invalid value: {why}");
    out.push(Cause { reason: "FieldValueInvalid".to_owned(), message, field: status.path("conditions") });
}
