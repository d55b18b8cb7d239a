//! Valid combinations of `metav1.ListOptions`: the rules of `k8s.io/apimachinery` for lists and watches.

use super::error::Answer;
use super::query::Query;
use crate::object::Status;
use crate::object::status::Cause;

/// # Errors
/// 422 with a cause for every rule that is broken.
pub(crate) fn check(query: &Query, watch: bool) -> Answer<()> {
    let how = query.get("resourceVersionMatch");
    let initial = query.optional_flag("sendInitialEvents").is_some();
    let mut causes = Vec::new();
    let mut forbid = |field: &str, detail: &str| causes.push(Cause::forbidden(field, detail));
    if watch && initial && how != Some("NotOlderThan") {
        forbid("resourceVersionMatch", "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan");
    }
    if let Some(how) = how {
        let continued = query.get("continue").is_some();
        let unknown = |known: &[&str]| Cause::not_supported("resourceVersionMatch", how, known);
        const CONTINUED: &str = "resourceVersionMatch is forbidden when continue is provided";
        if watch {
            if !initial {
                let detail = "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided";
                forbid("resourceVersionMatch", detail);
            }
            if how != "NotOlderThan" {
                causes.push(unknown(&["NotOlderThan"]));
            }
            if continued {
                causes.push(Cause::forbidden("resourceVersionMatch", CONTINUED));
            }
        } else {
            let revision = query.get("resourceVersion");
            if revision.is_none() {
                forbid("resourceVersionMatch", "resourceVersionMatch is forbidden unless resourceVersion is provided");
            }
            if continued {
                forbid("resourceVersionMatch", CONTINUED);
            }
            if !matches!(how, "Exact" | "NotOlderThan") {
                causes.push(unknown(&["Exact", "NotOlderThan", ""]));
            }
            if how == "Exact" && revision == Some("0") {
                let detail = "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"";
                causes.push(Cause::forbidden("resourceVersionMatch", detail));
            }
        }
    }
    if !watch && initial {
        causes.push(Cause::forbidden("sendInitialEvents", "sendInitialEvents is forbidden for list"));
    }
    if causes.is_empty() { Ok(()) } else { Err(Box::new(Status::invalid_options("ListOptions", causes))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn combinations() {
        const LIST: bool = false;
        const WATCH: bool = true;
        for (query, watch, broken) in [
            ("", LIST, 0),
            ("resourceVersion=5&resourceVersionMatch=Exact", LIST, 0),
            ("resourceVersion=0&resourceVersionMatch=NotOlderThan", LIST, 0),
            ("resourceVersion=0&resourceVersionMatch=Exact", LIST, 1),
            ("resourceVersionMatch=Exact", LIST, 1),
            ("resourceVersionMatch=Latest", LIST, 2),
            ("resourceVersion=5&resourceVersionMatch=Exact&continue=x", LIST, 1),
            ("sendInitialEvents=false", LIST, 1),
            ("resourceVersionMatch=Latest&sendInitialEvents=true&continue=x", LIST, 4),
            ("resourceVersion=5", WATCH, 0),
            ("sendInitialEvents=true&resourceVersionMatch=NotOlderThan", WATCH, 0),
            ("sendInitialEvents=false&resourceVersionMatch=NotOlderThan&resourceVersion=3", WATCH, 0),
            ("sendInitialEvents=true", WATCH, 1),
            ("sendInitialEvents=true&resourceVersionMatch=Exact", WATCH, 2),
            ("resourceVersionMatch=NotOlderThan", WATCH, 1),
            ("resourceVersionMatch=Exact&continue=x", WATCH, 3),
        ] {
            let found = check(&Query::parse(query), watch).map_err(|status| {
                assert_eq!((status.code, status.reason.as_str()), (422, "Invalid"));
                status.details.map_or(0, |it| it.causes.len())
            });
            assert_eq!(found.err().unwrap_or_default(), broken, "{query} {watch}");
        }
    }
}
