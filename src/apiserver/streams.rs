//! `pods/exec`, `attach` and `portforward`. Streaming is not implemented yet, but invalid requests get Kubernetes' errors.

use std::sync::Arc;

use serde_json::Value;

use super::Server;
use super::container::container;
use super::error::{Answer, bad};
use super::handler::Call;
use super::response::Response;
use crate::object::Status;

pub(crate) async fn serve(server: &Arc<Server>, call: &Call) -> Answer<Response> {
    let subresource = call.target.subresource.as_str();
    let pod = server.read(&call.key(), None).await?;
    if subresource != "portforward" {
        let value: Value = serde_json::from_slice(pod.body()).map_err(|error| Box::new(Status::internal(error)))?;
        container(&value, call.query.get("container"))?;
    }
    if pod.field("spec.nodeName").unwrap_or_default().is_empty() {
        return Err(bad(format!("pod {} does not have a host assigned", pod.name())));
    }
    Err(Box::new(Status::failure(501, "NotImplemented", format!("pods {subresource} is not implemented"))))
}
