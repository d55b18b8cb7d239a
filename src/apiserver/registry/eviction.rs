//! Evicting a pod: deleting it if the disruption budgets that cover it allow.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use serde_json::Value;

use super::super::Server;
use super::super::feed::Freshness;
use super::super::handler::Call;
use super::super::query::{Answer, WriteOptions, bad};
use super::super::respond::{self, Response};
use super::create::check_namespace;
use super::update::{Part, modify};
use super::{accept_fields, delete, json};
use crate::cache::Query;
use crate::codec;
use crate::object::resource::POD_DISRUPTION_BUDGET;
use crate::object::selector::LabelSelector;
use crate::object::status::Cause;
use crate::object::{Object, ObjectKey, Status};

/// A budget that remembers this many disrupted pods is not kept up by its controller.
const MOST_DISRUPTED: usize = 2000;

pub(crate) fn create<'a>(server: &'a Arc<Server>, call: &'a Call) -> BoxFuture<'a, Answer<Response>> {
    Box::pin(async move {
        let mut write = WriteOptions::parse(&call.query)?;
        let decoded = codec::decode_kind(("policy", "v1", "Eviction"), call.content_type(), &call.body)?;
        let (mut eviction, _) = accept_fields(decoded, write.fields)?;
        let key = call.key();
        check_namespace(json::text(&eviction, "/metadata/namespace"), &key.name.namespace)?;
        let named = json::text(&eviction, "/metadata/name");
        if !named.is_empty() && named != &*key.name.name {
            return Err(bad("name in URL does not match name in Eviction object"));
        }
        let options = eviction.as_object_mut().and_then(|it| it.shift_remove("deleteOptions"));
        write.dry_run |= options.as_ref().is_some_and(|it| !json::items(it, "/dryRun").is_empty());
        let options: delete::Options =
            options.map(serde_json::from_value).transpose().map_err(|error| bad(error.to_string()))?.unwrap_or_default();
        let pod = server.read(&key, None).await?;
        if !may_always_go(&pod) {
            spend(server, &key, &pod, &write).await?;
        }
        delete::delete(server, &key, &options, write.dry_run).await?;
        Ok(respond::status(&Status { status: "Success".to_owned(), ..Status::failure(201, "", "") }))
    })
}

/// Pods that serve nobody are in no budget.
fn may_always_go(pod: &Object) -> bool {
    pod.meta().is_deleted() || matches!(pod.field("status.phase"), Some("Succeeded" | "Failed" | "Pending"))
}

/// Takes one disruption out of the pod's budget, if it has one.
async fn spend(server: &Server, key: &ObjectKey, pod: &Object, options: &WriteOptions) -> Answer<()> {
    server.freshen(&POD_DISRUPTION_BUDGET, Freshness::Newest).await?;
    let query = Query { namespace: Some(key.name.namespace.to_string()), ..Query::default() };
    let budgets = server.cache.list(&POD_DISRUPTION_BUDGET, &query).objects;
    let mut covering = budgets.into_iter().filter(|it| covers(it, pod));
    let Some(budget) = covering.next() else { return Ok(()) };
    if covering.next().is_some() {
        let message = "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.";
        return Err(Box::new(Status::internal(message)));
    }
    let name = key.name.name.to_string();
    let ready = is_ready(pod);
    modify(server, &budget.key(), Part::Status, options, &|_: &Object, budget: &Value| disrupt(budget, &name, ready, &json::now())).await?;
    Ok(())
}

fn covers(budget: &Object, pod: &Object) -> bool {
    let selector =
        budget.typed::<k8s_openapi::api::policy::v1::PodDisruptionBudget>().ok().and_then(|it| it.spec.as_ref()?.selector.clone());
    selector.and_then(|it| LabelSelector::from_spec(&it).ok()).is_some_and(|it| it.matches(pod))
}

fn is_ready(pod: &Object) -> bool {
    let typed = pod.typed::<k8s_openapi::api::core::v1::Pod>().ok();
    let conditions = typed.and_then(|it| it.status.as_ref()?.conditions.as_ref());
    conditions.is_some_and(|it| it.iter().any(|it| it.type_ == "Ready" && it.status == "True"))
}

/// The budget after this pod's disruption.
///
/// # Errors
/// 429 if it allows none now.
fn disrupt(budget: &Value, pod: &str, ready: bool, now: &str) -> Answer<Value> {
    let (name, status) =
        (json::text(budget, "/metadata/name"), |field: &str| json::integer(budget, &format!("/status/{field}")).unwrap_or_default());
    let refuse = |seconds: u32, message: String| {
        let mut status = Status::too_many_requests("Cannot evict pod as it would violate the pod's disruption budget.", seconds);
        if let Some(details) = &mut status.details {
            details.causes.push(Cause { reason: "DisruptionBudget".to_owned(), message, field: String::new() });
        }
        Err(Box::new(status))
    };
    // An unready pod does not count as healthy: losing it loses nothing.
    let healthy_enough = status("currentHealthy") >= status("desiredHealthy") && status("desiredHealthy") > 0;
    match json::text(budget, "/spec/unhealthyPodEvictionPolicy") {
        "AlwaysAllow" if !ready => return Ok(budget.clone()),
        _ if !ready && healthy_enough => return Ok(budget.clone()),
        _ => {}
    }
    if status("observedGeneration") < json::integer(budget, "/metadata/generation").unwrap_or_default() {
        return refuse(10, format!("The disruption budget {name} is still being processed by the server."));
    }
    let allowed = status("disruptionsAllowed");
    let disrupted = budget.pointer("/status/disruptedPods").and_then(Value::as_object);
    if disrupted.is_some_and(|it| it.len() > MOST_DISRUPTED) {
        return Err(Box::new(Status::forbidden(
            &POD_DISRUPTION_BUDGET,
            name,
            "DisruptedPods map too big - too many evictions not confirmed by PDB controller",
        )));
    }
    if allowed <= 0 {
        let (needs, has) = (status("desiredHealthy"), status("currentHealthy"));
        return refuse(0, format!("The disruption budget {name} needs {needs} healthy pods and has {has} currently"));
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
        let spent = disrupt(&budget, "web", true, "now").unwrap();
        assert_eq!(spent["status"]["disruptionsAllowed"], 0);
        assert_eq!(spent["status"]["disruptedPods"]["web"], "now");
        let refused = disrupt(&spent, "web2", true, "now").unwrap_err();
        assert_eq!(refused.code, 429);
        assert_eq!(refused.details.unwrap().causes[0].message, "The disruption budget b needs 2 healthy pods and has 3 currently");
        assert_eq!(disrupt(&spent, "web2", false, "now").unwrap(), spent);
        let mut unseen = budget;
        unseen["metadata"]["generation"] = 2.into();
        assert_eq!(disrupt(&unseen, "web", true, "now").unwrap_err().details.unwrap().retry_after_seconds, Some(10));
    }
}
