//! Evicting a pod: deleting it if the disruption budgets that cover it allow.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use serde_json::Value;

use super::super::Server;
use super::super::error::{Answer, bad};
use super::super::freshness::Freshness;
use super::super::handler::Call;
use super::super::response::Response;
use super::super::write_options::{Way, WriteOptions};
use super::create::check_namespace;
use super::update::modify;
use super::{Before, Part, accept_fields, delete, json};
use crate::codec;
use crate::object::pod::has_ended;
use crate::object::resource::POD_DISRUPTION_BUDGET;
use crate::object::status::Cause;
use crate::object::{Object, ObjectKey, Revision, Status};

/// A budget that remembers this many disrupted pods is not kept up by its controller.
const MOST_DISRUPTED: usize = 2000;
/// How often a pod may change while it is being evicted.
const ATTEMPTS: usize = 20;

pub(crate) fn create<'a>(server: &'a Arc<Server>, call: &'a Call) -> BoxFuture<'a, Answer<Response>> {
    Box::pin(async move {
        let mut write = call.write_options(Way::Create)?;
        let decoded = codec::decode_kind(("policy", "v1", "Eviction"), call.content_type(), &call.body)?;
        let mut eviction = accept_fields(decoded, &write)?;
        let key = call.key();
        check_namespace(json::text(&eviction, "/metadata/namespace"), &key.name.namespace)?;
        if json::text(&eviction, "/metadata/name") != &*key.name.name {
            return Err(bad("name in URL does not match name in Eviction object"));
        }
        let options = eviction.as_object_mut().and_then(|it| it.remove("deleteOptions"));
        let options = options.map(delete::Options::read).transpose()?.unwrap_or_default();
        write.dry_run |= options.is_dry_run()?;
        evict(server, &key, &options, &write).await?;
        Ok(call.output.status(&Status { status: "Success".to_owned(), ..Status::failure(201, "", "") }).await)
    })
}

/// Deletes the pod if its budget allows; begins again when the pod changes meanwhile.
async fn evict(server: &Server, key: &ObjectKey, options: &delete::Options, write: &WriteOptions) -> Answer<()> {
    let own_revision = options.preconditions.as_ref().is_some_and(|it| it.resource_version.is_some());
    for _ in 0..ATTEMPTS {
        let pod = server.read(key, None).await?;
        // A pod that is not meant costs no budget.
        delete::check(key, &pod, options)?;
        let passage = if serves_nobody(&pod) { Passage::free(&pod) } else { spend(server, key, &pod, write).await? };
        let outcome = match &passage {
            // It may have become ready since, and would then count.
            Passage::WhileUnchanged(_) if !own_revision => remove(server, key, at_revision(options, pod.revision()), write).await,
            Passage::Counted | Passage::WhileUnchanged(_) => remove(server, key, options.clone(), write).await,
        };
        match (outcome, passage) {
            (Err(status), _) if !status.is("Conflict") || own_revision => return Err(status),
            (Err(_), Passage::WhileUnchanged(Some(budget))) => return Err(busy(&budget)),
            (Err(_), _) => {}
            (Ok(()), _) => return Ok(()),
        }
    }
    Err(Box::new(Status::timeout(format!("couldn't evict pod {:?} due to conflicts", &*key.name.name), 10)))
}

/// The options, for the pod as it is at a revision.
fn at_revision(options: &delete::Options, revision: Revision) -> delete::Options {
    let mut options = options.clone();
    options.preconditions.get_or_insert_default().resource_version = Some(revision.to_string());
    options
}

/// Marks the pod as evicted (for controllers that judge failures, such as that of Jobs), and deletes it.
async fn remove(server: &Server, key: &ObjectKey, mut options: delete::Options, write: &WriteOptions) -> Answer<()> {
    if !write.dry_run {
        let mark = |before: &Before<'_>| {
            delete::check(key, before.object, &options)?;
            Ok(marked(before.value, &json::now()))
        };
        let pod = modify(server, key, Part::INTERNAL, write, &mark).await?;
        if options.preconditions.as_ref().is_some_and(|it| it.resource_version.is_some()) {
            // Still the same pod, only marked.
            options = at_revision(&options, pod.revision());
        }
    }
    delete::delete(server, key, &options, write.dry_run).await.map(drop)
}

/// The pod with the condition `DisruptionTarget`.
fn marked(pod: &Value, now: &str) -> Value {
    let mut pod = pod.clone();
    let conditions = json::map(&mut pod, "status").entry("conditions").or_insert_with(|| Value::Array(Vec::new()));
    let Value::Array(conditions) = conditions else { return pod };
    let before = conditions.iter().position(|it| it["type"] == "DisruptionTarget");
    if before.is_some_and(|at| conditions[at]["status"] == "True") {
        return pod;
    }
    let condition = serde_json::json!({
        "type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI", "message": "Eviction API: evicting",
        "lastProbeTime": null, "lastTransitionTime": now,
    });
    match before {
        Some(at) => conditions[at] = condition,
        None => conditions.push(condition),
    }
    pod
}

/// Pods that have ended, have not begun or are going are in no budget.
fn serves_nobody(pod: &Object) -> bool {
    pod.meta().is_deleted() || has_ended(pod) || pod.field("status.phase") == Some("Pending")
}

/// Why a pod may go.
#[derive(Debug, PartialEq)]
enum Passage {
    /// It was counted against its budget, or has none.
    Counted,
    /// It does not count in this budget, as long as it does not change.
    WhileUnchanged(Option<String>),
}

impl Passage {
    fn free(pod: &Object) -> Self {
        if pod.field("status.phase") == Some("Pending") && !pod.meta().is_deleted() { Self::WhileUnchanged(None) } else { Self::Counted }
    }
}

/// Takes one disruption out of the pod's budget, if it has one.
async fn spend(server: &Server, key: &ObjectKey, pod: &Object, options: &WriteOptions) -> Answer<Passage> {
    server.freshen(&POD_DISRUPTION_BUDGET, Freshness::Newest).await?;
    let budgets = server.cache.selecting(&POD_DISRUPTION_BUDGET, pod);
    let budget = match budgets.as_slice() {
        [] => return Ok(Passage::Counted),
        [budget] => budget,
        _ => {
            let message = "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.";
            return Err(Box::new(Status::failure(500, "", message)));
        }
    };
    let value: Value = serde_json::from_slice(budget.body()).map_err(|error| Box::new(Status::internal(error)))?;
    if !is_ready(pod) && spares_unready(&value) {
        return Ok(Passage::WhileUnchanged(Some(budget.name().to_owned())));
    }
    let name = key.name.name.to_string();
    modify(server, &budget.key(), Part::STATUS, options, &|it: &Before<'_>| disrupt(it.value, &name, &json::now())).await?;
    Ok(Passage::Counted)
}

fn is_ready(pod: &Object) -> bool {
    let typed = pod.typed::<k8s_openapi::api::core::v1::Pod>().ok();
    let conditions = typed.and_then(|it| it.status.as_ref()?.conditions.as_ref());
    conditions.is_some_and(|it| it.iter().any(|it| it.type_ == "Ready" && it.status == "True"))
}

fn number(budget: &Value, field: &str) -> i64 {
    json::integer(budget, &format!("/status/{field}")).unwrap_or_default()
}

/// Whether pods that are not ready may be evicted without counting: they are not among the healthy ones.
fn spares_unready(budget: &Value) -> bool {
    let healthy_enough = number(budget, "currentHealthy") >= number(budget, "desiredHealthy") && number(budget, "desiredHealthy") > 0;
    healthy_enough || json::text(budget, "/spec/unhealthyPodEvictionPolicy") == "AlwaysAllow"
}

/// 429, to be tried again: the budget's controller has not caught up.
fn busy(budget: &str) -> Box<Status> {
    refusal(10, format!("The disruption budget {budget} is still being processed by the server."))
}

fn refusal(seconds: u32, message: String) -> Box<Status> {
    let mut status = Status::too_many_requests("Cannot evict pod as it would violate the pod's disruption budget.", seconds);
    if let Some(details) = &mut status.details {
        details.causes.push(Cause { reason: "DisruptionBudget".to_owned(), message, field: String::new() });
        details.retry_after_seconds = Some(seconds).filter(|it| *it > 0);
    }
    Box::new(status)
}

/// The budget after this pod's disruption.
///
/// # Errors
/// 429 if the budget allows none now.
fn disrupt(budget: &Value, pod: &str, now: &str) -> Answer<Value> {
    let name = json::text(budget, "/metadata/name");
    if number(budget, "observedGeneration") < json::integer(budget, "/metadata/generation").unwrap_or_default() {
        return Err(busy(name));
    }
    let allowed = number(budget, "disruptionsAllowed");
    let forbidden = |why: &str| Err(Box::new(Status::forbidden(&POD_DISRUPTION_BUDGET, name, why)));
    if allowed < 0 {
        return forbidden("pdb disruptions allowed is negative");
    }
    let disrupted = budget.pointer("/status/disruptedPods").and_then(Value::as_object);
    if disrupted.is_some_and(|it| it.len() > MOST_DISRUPTED) {
        return forbidden("DisruptedPods map too big - too many evictions not confirmed by PDB controller");
    }
    if allowed == 0 {
        let (needs, has) = (number(budget, "desiredHealthy"), number(budget, "currentHealthy"));
        return Err(refusal(0, format!("The disruption budget {name} needs {needs} healthy pods and has {has} currently")));
    }
    let mut budget = budget.clone();
    let status = json::map(&mut budget, "status");
    status.insert("disruptionsAllowed".to_owned(), (allowed - 1).into());
    json::entry_map(status, "disruptedPods").insert(pod.to_owned(), now.into());
    Ok(budget)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn budgets_are_spent_one_by_one() {
        let budget = json!({"metadata": {"name": "b", "generation": 1}, "spec": {}, "status": {"observedGeneration": 1, "disruptionsAllowed": 1, "currentHealthy": 3, "desiredHealthy": 2}});
        let spent = disrupt(&budget, "web", "now").unwrap();
        assert_eq!(spent["status"]["disruptionsAllowed"], 0);
        assert_eq!(spent["status"]["disruptedPods"]["web"], "now");
        let refused = disrupt(&spent, "web2", "now").unwrap_err();
        assert_eq!(refused.code, 429);
        assert_eq!(refused.details.unwrap().causes[0].message, "The disruption budget b needs 2 healthy pods and has 3 currently");
        let mut unseen = budget;
        unseen["metadata"]["generation"] = 2.into();
        assert_eq!(disrupt(&unseen, "web", "now").unwrap_err().details.unwrap().retry_after_seconds, Some(10));
    }

    #[test]
    fn unready_pods_go_free_while_enough_are_healthy() {
        for (healthy, desired, policy, expected) in
            [(3, 2, "", true), (1, 2, "", false), (1, 2, "IfHealthyBudget", false), (1, 2, "AlwaysAllow", true), (0, 0, "", false)]
        {
            let budget =
                json!({"spec": {"unhealthyPodEvictionPolicy": policy}, "status": {"currentHealthy": healthy, "desiredHealthy": desired}});
            assert_eq!(spares_unready(&budget), expected, "{budget}");
        }
    }

    #[test]
    fn evicted_pods_say_so() {
        let pod = json!({"status": {"conditions": [{"type": "Ready", "status": "True"}]}});
        let once = marked(&pod, "now");
        assert_eq!(once["status"]["conditions"][1]["reason"], "EvictionByEvictionAPI");
        assert_eq!(marked(&once, "later"), once);
    }
}
