//! Server-side apply: a patch that states what its author wants of an object, which it creates if it is not there.

use std::sync::Arc;

use serde_json::Value;

use super::super::Server;
use super::super::handler::Call;
use super::super::query::{Answer, FieldValidation, Way, bad};
use super::super::respond::{self, Response};
use super::create::{check_namespace, create};
use super::json;
use super::update::{Before, Part, check_identity, modify};
use crate::codec::{self, Decoded};
use crate::object::Status;

/// How often an object that was not there, and then was, is looked at anew.
const TRIES: usize = 5;

/// PATCH of an object, or of a part of it that has its form.
pub(super) async fn serve(server: &Arc<Server>, call: &Call) -> Answer<Response> {
    call.accepted()?;
    let (options, key) = (call.write_options(Way::Apply)?, call.key());
    let (applied, warnings) = accept(codec::decode_applied(&call.body)?, options.fields)?;
    check_namespace(json::text(&applied, "/metadata/namespace"), &key.name.namespace)?;
    let part = Part::of(&call.target.subresource);
    let merge = |before: Option<&Before<'_>>| {
        let now = json::now();
        let live = before.map(|it| (it.value, it.managers));
        let mut merged = codec::apply::apply(live, &applied, &options.writer(key.resource, part.subresource(), &now), options.force)?;
        check_identity(&key, &mut merged)?;
        Ok(merged)
    };
    let mut tries = 0;
    let (code, object) = loop {
        tries += 1;
        match modify(server, &key, part, &options, &|before| merge(Some(before))).await {
            Err(status) if status.is("NotFound") && part == Part::Whole => {}
            outcome => break (200, outcome?),
        }
        let uid = json::text(&applied, "/metadata/uid");
        if !uid.is_empty() {
            let why = format!("uid mismatch: the provided object specified uid {uid}, and no existing object was found");
            return Err(Box::new(Status::conflict(key.resource, &key.name.name, &why)));
        }
        match create(server, key.resource, &key.name.namespace, merge(None)?, &options).await {
            Err(status) if status.is("AlreadyExists") && tries < TRIES => {}
            outcome => break (201, outcome?),
        }
    };
    let mut response = call.answer(code, &object)?;
    respond::warn(&mut response, &warnings);
    respond::warn(&mut response, &options.warnings.take());
    Ok(response)
}

/// Takes an applied configuration as strictly as the client wishes. Only fields that are there twice are left to that: those that the
/// schema does not know are always refused.
///
/// # Errors
/// 400 for duplicate fields in strict mode.
pub(super) fn accept(decoded: Decoded, fields: FieldValidation) -> Answer<(Value, Vec<String>)> {
    let Decoded { value, strict_errors } = decoded;
    match fields {
        FieldValidation::Strict if !strict_errors.is_empty() => {
            Err(bad(format!("error strict decoding YAML: {}", strict_errors.join(", "))))
        }
        FieldValidation::Ignore => Ok((value, Vec::new())),
        FieldValidation::Strict | FieldValidation::Warn => Ok((value, strict_errors)),
    }
}
