//! Patches of the kinds that need only the object: JSON, merge and strategic merge.

use std::borrow::Cow;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use serde_json::Value;

use super::super::Server;
use super::super::error::Answer;
use super::super::handler::Call;
use super::super::negotiate::patch_kind;
use super::super::response::Response;
use super::super::write_options::{FieldValidation, Way, WriteOptions};
use super::apply;
use super::update::{check_identity, modify};
use super::{Before, Part};
use crate::codec::{self, Decoded, PatchKind};
use crate::object::status::Cause;
use crate::object::{ResourceRef, Status};
use crate::util::go;

const MANAGED_FIELDS: &[u8] = b"managedFields";

/// A patch, and how it is to be taken.
#[derive(Debug)]
pub(super) struct Patch<'a> {
    kind: PatchKind,
    body: Value,
    /// Fields that the patch itself has twice.
    duplicates: Vec<String>,
    options: &'a WriteOptions,
}

impl<'a> Patch<'a> {
    /// Reads the body of a request.
    ///
    /// # Errors
    /// 400 if it is not JSON.
    pub(super) fn read(call: &Call, kind: PatchKind, options: &'a WriteOptions) -> Answer<Self> {
        let Decoded { value: body, strict_errors: duplicates } = codec::decode_patch(kind, &call.body)?;
        Ok(Self { kind, body, duplicates, options })
    }

    /// Applies the patch to `current`, an object of this version.
    ///
    /// # Errors
    /// Those of the patch, and 422 if the result does not fit the schema; in strict mode also for unknown and duplicate fields.
    pub(super) fn on(&self, version: ResourceRef, current: &Value) -> Answer<Value> {
        let patched = codec::patch(version, current, self.kind, &self.body)?;
        let refuse = |why: String| {
            // Rare: patched once more for the error, rather than kept for every patch.
            let shown = match self.kind {
                PatchKind::Strategic => go::print(&self.body),
                _ => codec::patch(version, current, self.kind, &self.body).map(|it| it.to_string()).unwrap_or_default(),
            };
            Box::new(Status::invalid_kind("", "", "", vec![Cause::invalid("patch", &shown.into(), &why)]))
        };
        let conform = if self.kind == PatchKind::Strategic { codec::conform_converted } else { codec::conform };
        let decoded = conform(version, patched).map_err(refuse)?;
        let mut faults = self.duplicates.clone();
        faults.extend(decoded.strict_errors);
        match self.options.fields {
            FieldValidation::Strict if !faults.is_empty() => {
                return Err(refuse(format!("strict decoding error: {}", faults.join(", "))));
            }
            FieldValidation::Ignore => {}
            FieldValidation::Strict | FieldValidation::Warn => self.options.warnings.add(faults),
        }
        Ok(decoded.value)
    }
}

/// PATCH.
pub(crate) fn serve<'a>(server: &'a Arc<Server>, call: &'a Call) -> BoxFuture<'a, Answer<Response>> {
    Box::pin(async move {
        let kind = patch_kind(&call.headers)?;
        if kind == PatchKind::Apply {
            return apply::serve(server, call).await;
        }
        let (version, options, key) = (call.target.resource, call.write_options(Way::Patch)?, call.key());
        let patch = Patch::read(call, kind, &options)?;
        let about_managers = call.body.windows(MANAGED_FIELDS.len()).any(|it| it == MANAGED_FIELDS);
        let change = |before: &Before<'_>| {
            let mut shown = if about_managers { Cow::Owned(before.whole()) } else { Cow::Borrowed(before.value) };
            if version != key.resource {
                codec::convert(shown.to_mut(), key.resource, version);
            }
            let mut value = patch.on(version, &shown)?;
            check_identity(&key, &mut value)?;
            codec::convert(&mut value, version, key.resource);
            Ok(value)
        };
        let outcome = modify(server, &key, Part::of(&call.target.subresource), &options, &change).await;
        call.answer(200, &outcome.map_err(|it| call.named(it))?).await
    })
}
