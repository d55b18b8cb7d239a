//! Fields that an apply would take from their owners.

use super::managers::{Entry, Operation};
use super::versions::Versions;
use crate::codec::fields::{Set, element};
use crate::object::Status;
use crate::object::status::{Cause, Details};
use crate::util::go;

/// The fields that an apply would take from one manager.
#[derive(Debug)]
pub(super) struct Conflict {
    /// The form in messages.
    owner: String,
    fields: Set,
}

/// The managers that own part of the fields that an apply writes, or removes by stating them as empty.
pub(super) fn find(entries: &mut [Entry<'_>], versions: &mut Versions<'_>, stated: &Set) -> Vec<Conflict> {
    let mut conflicts: Vec<Conflict> = entries
        .iter_mut()
        .filter_map(|entry| {
            let changes = versions.changes(&entry.api_version)?;
            let mut taken = changes.removed.intersection(stated);
            taken.union(&changes.written);
            Some(Conflict { owner: name(entry), fields: entry.fields.set().intersection(&taken) })
        })
        .filter(|it| !it.fields.is_empty())
        .collect();
    conflicts.sort_unstable_by(|a, b| a.owner.cmp(&b.owner));
    conflicts
}

/// The error, if there is a conflict beyond the `allowed` fields (evaluated only then).
pub(super) fn refuse(mut conflicts: Vec<Conflict>, allowed: impl FnOnce() -> Option<Set>) -> Option<Status> {
    if !conflicts.is_empty()
        && let Some(allowed) = allowed()
    {
        conflicts.iter_mut().for_each(|it| it.fields.subtract(&allowed));
        conflicts.retain(|it| !it.fields.is_empty());
    }
    let listed: Vec<(String, Vec<String>)> =
        conflicts.iter().map(|it| (it.owner.clone(), it.fields.paths().iter().map(|path| element::print(path)).collect())).collect();
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
fn name(entry: &Entry<'_>) -> String {
    let mut name = go::quote(&entry.manager);
    if !entry.subresource.is_empty() {
        name = format!("{name} with subresource {}", go::quote(&entry.subresource));
    }
    match entry.operation {
        Operation::Update => format!("{name} using {}", entry.api_version),
        Operation::Apply => name,
    }
}
