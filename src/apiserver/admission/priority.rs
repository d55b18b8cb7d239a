//! Priority classes: every pod gets its class's number, and there is one default at most.

use serde_json::Value;

use super::super::Server;
use super::super::error::Answer;
use super::{Operation, Review, refuse};
use crate::cache::Query;
use crate::codec::SYSTEM_PRIORITIES;
use crate::object::Object;
use crate::object::resource::PRIORITY_CLASS;
use crate::util::json;

/// The values of a pod without a class.
const NO_CLASS: (&str, i64, &str) = ("", 0, "PreemptLowerPriority");

/// Writes the number and the policy of its class into a pod about to be created.
pub(super) fn admit(server: &Server, review: &Review<'_>, pod: &mut Value) -> Answer<()> {
    if !review.creates("pods") {
        return Ok(());
    }
    let named = json::text(pod, "/spec/priorityClassName").to_owned();
    let class = match named.as_str() {
        "" => default_class(server),
        name => match server.cache.get(&PRIORITY_CLASS, "", name) {
            None => return Err(refuse(review, &format!("no PriorityClass with name {name} was found"))),
            Some(class) => serde_json::from_slice(class.body()).ok(),
        },
    };
    let (name, priority, policy) = match &class {
        None => NO_CLASS,
        Some(class) => {
            let policy = json::text(class, "/preemptionPolicy");
            let policy = if policy.is_empty() { NO_CLASS.2 } else { policy };
            (json::text(class, "/metadata/name"), json::integer(class, "/value").unwrap_or_default(), policy)
        }
    };
    let computed = "priority admission controller computed";
    if let Some(stated) = json::integer(pod, "/spec/priority").filter(|it| *it != priority) {
        let why = format!(
            "the integer value of priority ({stated}) must not be provided in pod spec; {computed} {priority} from the given PriorityClass name"
        );
        return Err(refuse(review, &why));
    }
    let stated = json::text(pod, "/spec/preemptionPolicy");
    if !stated.is_empty() && stated != policy {
        let why = format!(
            "the string value of PreemptionPolicy ({stated}) must not be provided in pod spec; {computed} {policy} from the given \
             PriorityClass name"
        );
        return Err(refuse(review, &why));
    }
    let spec = json::map(pod, "spec");
    if !name.is_empty() {
        spec.insert("priorityClassName".to_owned(), name.into());
    }
    spec.insert("priority".to_owned(), priority.into());
    spec.insert("preemptionPolicy".to_owned(), policy.into());
    Ok(())
}

/// Refuses a second default class, and the end of a class that the cluster itself needs.
pub(super) fn validate(server: &Server, review: &Review<'_>, class: &Value) -> Answer<()> {
    if review.key.resource != &PRIORITY_CLASS || !review.subresource.is_empty() {
        return Ok(());
    }
    let name = &*review.key.name.name;
    if review.operation == Operation::Delete {
        return match SYSTEM_PRIORITIES.iter().any(|(it, _)| *it == name) {
            true => Err(refuse(review, "this is a system priority class and cannot be deleted")),
            false => Ok(()),
        };
    }
    if class.get("globalDefault") != Some(&Value::Bool(true)) {
        return Ok(());
    }
    let other = default_class(server).map(|it| json::text(&it, "/metadata/name").to_owned());
    match other.filter(|other| review.operation == Operation::Create || other != name) {
        Some(other) => Err(refuse(review, &format!("PriorityClass {other} is already marked as default. Only one default can exist"))),
        None => Ok(()),
    }
}

/// The default class; the least important, should two have become it at once.
fn default_class(server: &Server) -> Option<Value> {
    let classes = server.cache.list(&PRIORITY_CLASS, &Query::default()).objects;
    let read = |class: &Object| serde_json::from_slice::<Value>(class.body()).ok();
    let defaults = classes.iter().filter_map(|it| read(it)).filter(|it| it.get("globalDefault") == Some(&Value::Bool(true)));
    defaults.min_by_key(|it| json::integer(it, "/value"))
}
