//! Server-side apply: a patch with the fields that its author wants in an object, which is created if missing.

use std::sync::Arc;

use serde_json::Value;

use super::super::Server;
use super::super::error::{Answer, bad};
use super::super::handler::Call;
use super::super::response::Response;
use super::super::write_options::{FieldValidation, Way, WriteOptions};
use super::create::check_namespace;
use super::update::{check_identity, modify_or_create};
use super::{Before, Part, json, not_found};
use crate::codec::{self, Decoded};
use crate::object::{ObjectKey, Status};

/// PATCH of an object, or of a part of it that has its form.
pub(super) async fn serve(server: &Arc<Server>, call: &Call) -> Answer<Response> {
    let (options, key) = (call.write_options(Way::Apply)?, call.key());
    let applied = accept(codec::decode_applied(&call.body)?, &options)?;
    check_namespace(json::text(&applied, "/metadata/namespace"), &key.name.namespace)?;
    let part = Part::of(&call.target.subresource);
    let make = |before: Option<&Before<'_>>| {
        if before.is_none() {
            check_absence(&key, part, &applied)?;
        }
        let now = json::now();
        let live = before.map(|it| (it.value, it.managers));
        let mut merged = codec::apply::apply(live, &applied, &options.writer(key.resource, part.subresource, &now), options.force)?;
        check_identity(&key, &mut merged)?;
        Ok(merged)
    };
    let (code, object) = modify_or_create(server, &key, part, &options, &make).await?;
    call.answer(code, &object).await
}

/// # Errors
/// 404 if it is a part of an object that is not there, 409 if it is of one that was.
fn check_absence(key: &ObjectKey, part: &Part, applied: &Value) -> Answer<()> {
    if !part.is_whole() {
        return Err(not_found(key));
    }
    let uid = json::text(applied, "/metadata/uid");
    if uid.is_empty() {
        return Ok(());
    }
    let why = format!("uid mismatch: the provided object specified uid {uid}, and no existing object was found");
    Err(Box::new(Status::conflict(key.resource, &key.name.name, &why)))
}

/// Accepts an applied configuration as strictly as the client wishes. That choice concerns only duplicate fields: unknown ones are always
/// rejected.
///
/// # Errors
/// 400 for duplicate fields in strict mode.
pub(super) fn accept(decoded: Decoded, options: &WriteOptions) -> Answer<Value> {
    match options.fields {
        FieldValidation::Strict if !decoded.strict_errors.is_empty() => {
            let why = decoded.strict_errors.join(", ");
            Err(bad(format!("error strict decoding YAML: error converting YAML to JSON: {why}")))
        }
        FieldValidation::Ignore => Ok(decoded.value),
        FieldValidation::Strict | FieldValidation::Warn => {
            let (value, warnings) = decoded.warnings();
            options.warnings.add(warnings);
            Ok(value)
        }
    }
}
