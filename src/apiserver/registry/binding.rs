//! Placing a pod on a node: `pods/binding`, and the older `bindings` collection.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use serde_json::{Value, json};

use super::super::Server;
use super::super::error::{Answer, bad};
use super::super::handler::Call;
use super::super::response::Response;
use super::super::write_options::Way;
use super::create::check_namespace;
use super::update::{check_uid, modify, precondition_failed};
use super::{Before, Part, accept_fields, json};
use crate::codec;
use crate::object::resource::{BINDING, POD};
use crate::object::status::Cause;
use crate::object::{ObjectKey, Status};

pub(crate) fn create<'a>(server: &'a Arc<Server>, call: &'a Call) -> BoxFuture<'a, Answer<Response>> {
    Box::pin(async move {
        let options = call.write_options(Way::Create)?;
        let decoded = codec::decode(&BINDING, call.content_type(), &call.body)?;
        let mut binding = accept_fields(decoded, &options)?;
        check_namespace(json::text(&binding, "/metadata/namespace"), &call.target.namespace)?;
        let named = json::text(&binding, "/metadata/name");
        let name = if call.target.name.is_empty() { named } else { &call.target.name };
        if named != name {
            return Err(bad("name in URL does not match name in Binding object"));
        }
        let key = ObjectKey::new(&POD, &call.target.namespace, name);
        check_target(&key, &binding)?;
        if call.target.name.is_empty() {
            // As an object of a collection, it would get its own uid.
            json::metadata(&mut binding).remove("uid");
        }
        let change = |before: &Before<'_>| {
            check_uid(server, &key, &binding, Some(before))?;
            let asked = json::text(&binding, "/metadata/resourceVersion");
            if !asked.is_empty() && asked.parse() != Ok(before.object.revision()) {
                let is = before.object.revision().to_string();
                return Err(precondition_failed(server, &key, ("ResourceVersion", asked, &is)));
            }
            place(&key, before.value, &binding)
        };
        modify(server, &key, Part::INTERNAL, &options, &change).await?;
        Ok(call.output.status(&Status { status: "Success".to_owned(), ..Status::failure(201, "", "") }).await)
    })
}

fn check_target(key: &ObjectKey, binding: &Value) -> Answer<()> {
    let cause = match (json::text(binding, "/target/kind"), json::text(binding, "/target/name")) {
        (_, "") => Cause::required("target.name", ""),
        ("" | "Node", _) => return Ok(()),
        (kind, _) => Cause::not_supported("target.kind", kind, &["Node", "<empty>"]),
    };
    Err(Box::new(Status::invalid(&BINDING, &key.name.name, vec![cause])))
}

/// Places the pod on its node, with the binding's annotations, by which schedulers inform executors.
fn place(key: &ObjectKey, pod: &Value, binding: &Value) -> Answer<Value> {
    let refuse = |why: &str| Err(Box::new(Status::conflict_in_part(&POD, "binding", &key.name.name, why)));
    let (name, node) = (&key.name.name, json::text(binding, "/target/name"));
    if !json::text(pod, "/metadata/deletionTimestamp").is_empty() {
        return refuse(&format!("pod {name} is being deleted, cannot be assigned to a host"));
    }
    let placed = json::text(pod, "/spec/nodeName");
    if !placed.is_empty() {
        return refuse(&format!("pod {name} is already assigned to node {placed:?}"));
    }
    if !json::items(pod, "/spec/schedulingGates").is_empty() {
        return refuse(&format!("pod {name} has non-empty .spec.schedulingGates"));
    }
    let mut pod = pod.clone();
    json::map(&mut pod, "spec").insert("nodeName".to_owned(), node.into());
    if let Some(annotations) = binding.pointer("/metadata/annotations").and_then(Value::as_object).filter(|it| !it.is_empty()) {
        let merged = json::entry_map(json::metadata(&mut pod), "annotations");
        merged.extend(annotations.iter().map(|(key, value)| (key.clone(), value.clone())));
    }
    let scheduled = json!({"type": "PodScheduled", "status": "True", "lastProbeTime": null, "lastTransitionTime": json::now()});
    let conditions = json::map(&mut pod, "status").entry("conditions").or_insert_with(|| Value::Array(Vec::new()));
    if let Value::Array(conditions) = conditions {
        conditions.retain(|it| json::text(it, "/type") != "PodScheduled");
        conditions.push(scheduled);
    }
    Ok(pod)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_is_placed_once() {
        let key = ObjectKey::new(&POD, "default", "web");
        let pod = json!({"metadata": {"name": "web", "generation": 1, "annotations": {"a": "1"}}, "spec": {}, "status": {"conditions": [{"type": "PodScheduled", "status": "False"}]}});
        let binding = json!({"metadata": {"annotations": {"b": "2"}}, "target": {"kind": "Node", "name": "n1"}});
        let placed = place(&key, &pod, &binding).unwrap();
        // Its author has not changed it.
        assert_eq!((&placed["spec"]["nodeName"], &placed["metadata"]["generation"]), (&json!("n1"), &json!(1)));
        assert_eq!(placed["metadata"]["annotations"], json!({"a": "1", "b": "2"}));
        assert_eq!(placed["status"]["conditions"].as_array().unwrap().len(), 1);
        assert_eq!(placed["status"]["conditions"][0]["status"], "True");
        let again = place(&key, &placed, &binding).unwrap_err();
        assert_eq!(again.code, 409);
        assert_eq!(again.message, "Operation cannot be fulfilled on pods/binding \"web\": pod web is already assigned to node \"n1\"");
        let gated = json!({"metadata": {}, "spec": {"schedulingGates": [{"name": "x"}]}});
        assert_eq!(place(&key, &gated, &binding).unwrap_err().code, 409);
    }

    #[test]
    fn targets_are_nodes() {
        let key = ObjectKey::new(&POD, "default", "web");
        for (target, ok) in [
            (json!({"kind": "Node", "name": "a"}), true),
            (json!({"name": "a"}), true),
            (json!({}), false),
            (json!({"kind": "Pod", "name": "a"}), false),
        ] {
            assert_eq!(check_target(&key, &json!({ "target": target })).is_ok(), ok);
        }
    }
}
