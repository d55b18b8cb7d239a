//! A claim may grow only if its class allows expansion.

use serde_json::Value;

use super::super::Server;
use super::super::error::Answer;
use super::{Operation, Review, refuse};
use crate::object::resource::{PERSISTENT_VOLUME_CLAIM, STORAGE_CLASS};
use crate::object::storage;
use crate::util::quantity::Quantity;

const REFUSAL: &str = "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize";

pub(super) fn validate(server: &Server, review: &Review<'_>, claim: &Value) -> Answer<()> {
    let name = &review.key.name;
    if review.operation != Operation::Update || !review.subresource.is_empty() || review.key.resource != &PERSISTENT_VOLUME_CLAIM {
        return Ok(());
    }
    let Some(old) = server.cache.get(&PERSISTENT_VOLUME_CLAIM, &name.namespace, &name.name) else { return Ok(()) };
    let asked = Quantity::from_json(&claim["spec"]["resources"]["requests"]["storage"]).unwrap_or_default();
    let old = storage::claim(&old);
    if asked <= old.asks.size {
        return Ok(());
    }
    let class = server.cache.get(&STORAGE_CLASS, "", &old.asks.class);
    if class.is_some_and(|it| storage::class(&it).is_expandable) { Ok(()) } else { Err(refuse(review, REFUSAL)) }
}
