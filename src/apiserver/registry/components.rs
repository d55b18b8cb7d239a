//! `componentstatuses`, the older way to ask how the parts of a control plane are. Of them all, only the store is known to this server.

use std::sync::Arc;

use serde_json::json;

use super::super::error::Answer;
use super::super::handler::Call;
use super::super::list;
use super::super::response::Response;
use super::super::{Server, health};
use crate::object::resource::COMPONENT_STATUS;
use crate::object::{Object, Status};

/// Kubernetes' name for the first server of the store.
const STORE: &str = "etcd-0";

/// GET of all, or of one.
pub(crate) async fn serve(server: &Arc<Server>, call: &Call) -> Answer<Response> {
    let query = list::selection(call)?;
    let name = call.target.name.as_str();
    if !matches!(name, "" | STORE) {
        let mut status = Status::not_found(&COMPONENT_STATUS, name);
        // Kubernetes has the singular here.
        status.message = format!("componentstatus {name:?} not found");
        if let Some(details) = &mut status.details {
            details.kind = COMPONENT_STATUS.singular.to_owned();
        }
        return Err(Box::new(status));
    }
    let (holds, message) = match health::store(server).await {
        Ok(()) => ("True", "ok".to_owned()),
        Err(why) => ("False", why),
    };
    let status = json!({
        "kind": COMPONENT_STATUS.kind, "apiVersion": COMPONENT_STATUS.api_version(),
        "metadata": {"name": STORE, "creationTimestamp": null},
        "conditions": [{"type": "Healthy", "status": holds, "message": message}],
    });
    let status = Object::from_wire(&COMPONENT_STATUS, status.to_string().into()).map_err(|error| Box::new(Status::internal(error)))?;
    if !name.is_empty() {
        return call.answer(200, &status).await;
    }
    let all = if query.matches(&status) { vec![status] } else { Vec::new() };
    call.answer_list("{}", all).await
}
