//! Nothing is made in a namespace that does not exist or is being deleted, and the namespaces that hold the cluster together stay.

use super::super::Server;
use super::super::error::Answer;
use super::super::freshness::Freshness;
use super::{Operation, Review, refuse};
use crate::object::Status;
use crate::object::resource::NAMESPACE;
use crate::object::status::Cause;

/// Namespaces that may not be deleted.
fn is_immortal(server: &Server, name: &str) -> bool {
    matches!(name, "default" | "kube-public") || name == server.config.product.system_namespace
}

pub(super) async fn check(server: &Server, review: &Review<'_>) -> Answer<()> {
    let key = review.key;
    match review.operation {
        Operation::Delete if key.resource == &NAMESPACE && is_immortal(server, &key.name.name) => {
            Err(refuse(review, "this namespace may not be deleted"))
        }
        Operation::Create if !key.name.namespace.is_empty() => may_create(server, review).await,
        _ => Ok(()),
    }
}

async fn may_create(server: &Server, review: &Review<'_>) -> Answer<()> {
    let name = &*review.key.name.namespace;
    let mut namespace = server.cache.get(&NAMESPACE, "", name);
    if namespace.is_none() {
        // It may be too new for the cache.
        server.freshen(&NAMESPACE, Freshness::Newest).await?;
        namespace = server.cache.get(&NAMESPACE, "", name);
    }
    let namespace = namespace.ok_or_else(|| Box::new(Status::not_found(&NAMESPACE, name)))?;
    if !namespace.meta().is_deleted() {
        return Ok(());
    }
    let mut status = refuse(review, &format!("unable to create new content in namespace {name} because it is being terminated"));
    if let Some(details) = &mut status.details {
        details.causes.push(Cause {
            reason: "NamespaceTerminating".to_owned(),
            message: format!("namespace {name} is being terminated"),
            field: "metadata.namespace".to_owned(),
        });
    }
    Err(status)
}
