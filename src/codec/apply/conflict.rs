//! Fields that an apply would take from their owners.

use super::managers::{Entry, Operation};
use super::versions::Versions;
use crate::codec::fields::{Set, element};
use crate::object::Status;
use crate::object::status::{Cause, Details};
use crate::util::go;

/// What an apply takes from one manager.
#[derive(Debug)]
pub(super) struct Conflict<'a> {
    owner: &'a Entry,
    fields: Set,
}

/// The managers that own something of what an apply writes.
pub(super) fn find<'a>(entries: &'a [Entry], versions: &mut Versions<'_>) -> Vec<Conflict<'a>> {
    let conflict = |owner: &'a Entry| {
        let written = &versions.changes(&owner.api_version)?.written;
        Some(Conflict { owner, fields: owner.fields.intersection(written) })
    };
    let mut conflicts: Vec<_> = entries.iter().filter_map(conflict).filter(|it| !it.fields.is_empty()).collect();
    conflicts.sort_by_key(|it| name(it.owner));
    conflicts
}

/// The refusal, if there is a conflict about more than what is `allowed` (asked for only then).
pub(super) fn refuse(mut conflicts: Vec<Conflict<'_>>, allowed: impl FnOnce() -> Option<Set>) -> Option<Status> {
    if !conflicts.is_empty()
        && let Some(allowed) = allowed()
    {
        conflicts.iter_mut().for_each(|it| it.fields.subtract(&allowed));
        conflicts.retain(|it| !it.fields.is_empty());
    }
    let listed: Vec<(String, Vec<String>)> =
        conflicts.iter().map(|it| (name(it.owner), it.fields.paths().iter().map(|path| element::print(path)).collect())).collect();
    let causes: Vec<Cause> = listed
        .iter()
        .flat_map(|(name, paths)| paths.iter().map(move |path| (name, path)))
        .map(|(name, path)| Cause {
            reason: "FieldManagerConflict".to_owned(),
            message: format!("conflict with {name}"),
            field: path.clone(),
        })
        .collect();
    let message = match (causes.as_slice(), listed.as_slice()) {
        ([], _) => return None,
        ([only], _) => format!("Apply failed with 1 conflict: {}: {}", only.message, only.field),
        (all, listed) => {
            let lines: Vec<String> = listed
                .iter()
                .flat_map(|(name, paths)| {
                    std::iter::once(format!("conflicts with {name}:")).chain(paths.iter().map(|path| format!("- {path}")))
                })
                .collect();
            format!("Apply failed with {} conflicts: {}", all.len(), lines.join("\n"))
        }
    };
    let mut status = Status::failure(409, "Conflict", message);
    status.details = Some(Details { causes, ..Details::default() });
    Some(status)
}

/// A manager as conflicts name it.
fn name(entry: &Entry) -> String {
    let mut name = go::quote(&entry.manager);
    if !entry.subresource.is_empty() {
        name = format!("{name} with subresource {}", go::quote(&entry.subresource));
    }
    match entry.operation {
        Operation::Update => format!("{name} using {}", entry.api_version),
        Operation::Apply => name,
    }
}
