//! The options of requests that write: the rules of `k8s.io/apimachinery` for `CreateOptions`, `UpdateOptions` and `PatchOptions`.

use super::error::Answer;
use super::query::Query;
use super::warnings::Warnings;
use crate::codec::apply::Writer;
use crate::object::status::Cause;
use crate::object::{ResourceRef, Status};

/// What a client wants to happen to fields that the schema does not know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum FieldValidation {
    Ignore,
    #[default]
    Warn,
    Strict,
}

/// How a request writes: which options it has depends on that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Create,
    Update,
    Patch,
    /// Server-side apply, a patch too.
    Apply,
}

/// The options of `metav1.CreateOptions`, `UpdateOptions` and `PatchOptions`.
#[derive(Clone, Debug, Default)]
pub(crate) struct WriteOptions {
    /// Do everything but store.
    pub(crate) dry_run: bool,
    pub(crate) fields: FieldValidation,
    /// Whom the fields that are written belong to.
    pub(crate) manager: String,
    /// The version that the request is made in, if it is not the stored one.
    pub(crate) version: Option<ResourceRef>,
    /// The manager states all that it wants, and owns that.
    pub(crate) applies: bool,
    /// An apply takes fields from their owners.
    pub(crate) force: bool,
    /// Those of the request.
    pub(crate) warnings: Warnings,
}

/// The longest name of a field manager, in bytes.
const LONGEST_MANAGER: usize = 128;

impl WriteOptions {
    /// `agent` is the manager if the query names none.
    ///
    /// # Errors
    /// 422 for values that Kubernetes refuses.
    pub(crate) fn parse(query: &Query, agent: &str, way: Way) -> Answer<Self> {
        let mut causes = Vec::new();
        let (manager, applies) = (query.get("fieldManager").unwrap_or_default(), way == Way::Apply);
        if applies && manager.is_empty() {
            causes.push(Cause::required("fieldManager", "is required for apply patch"));
        }
        let force = query.optional_flag("force");
        if way == Way::Patch && force.is_some() {
            causes.push(Cause::forbidden("force", "may not be specified for non-apply patch"));
        }
        if manager.len() > LONGEST_MANAGER {
            causes.push(Cause::too_long("fieldManager", LONGEST_MANAGER));
        }
        causes.extend(manager.char_indices().filter(|(_, it)| !is_printed(*it)).map(|(at, it)| {
            let detail = format!("invalid character U+{:04X} (at position {at})", u32::from(it));
            Cause::invalid("fieldManager", &manager.into(), &detail)
        }));
        let dry_run = dry_run(query.all("dryRun")).unwrap_or_else(|cause| {
            causes.push(cause);
            false
        });
        let fields = match query.get("fieldValidation") {
            None | Some("Warn") => FieldValidation::Warn,
            Some("Ignore") => FieldValidation::Ignore,
            Some("Strict") => FieldValidation::Strict,
            Some(other) => {
                causes.push(Cause::not_supported("fieldValidation", other, &["", "Ignore", "Strict", "Warn"]));
                FieldValidation::Warn
            }
        };
        if !causes.is_empty() {
            let kind = match way {
                Way::Create => "CreateOptions",
                Way::Update => "UpdateOptions",
                Way::Patch | Way::Apply => "PatchOptions",
            };
            return Err(Box::new(Status::invalid_options(kind, causes)));
        }
        let manager = if manager.is_empty() { printed(agent) } else { manager.to_owned() };
        Ok(Self { dry_run, fields, manager, applies, force: force.unwrap_or_default(), ..Self::default() })
    }

    /// The writer, of an object that is stored as one of `resource`.
    pub(crate) fn writer<'a>(&'a self, resource: ResourceRef, subresource: &'a str, now: &'a str) -> Writer<'a> {
        let version = self.version.filter(|it| it.storage() == resource).unwrap_or(resource);
        Writer { version, manager: &self.manager, subresource, now }
    }
}

fn is_printed(character: char) -> bool {
    character == ' ' || !character.is_control() && !character.is_whitespace()
}

/// As much of a name as prints and is not too long.
fn printed(name: &str) -> String {
    let mut out = String::new();
    for character in name.chars().filter(|it| is_printed(*it)) {
        if out.len() + character.len_utf8() > LONGEST_MANAGER {
            break;
        }
        out.push(character);
    }
    out
}

/// The option `dryRun`: `All` is the only value it may have.
pub(crate) fn dry_run<'a>(values: impl Iterator<Item = &'a str>) -> Result<bool, Cause> {
    let stated: Vec<&str> = values.collect();
    if stated.iter().all(|it| *it == "All") {
        return Ok(!stated.is_empty());
    }
    let shown = stated.iter().map(|it| format!("{it:?}")).collect::<Vec<_>>().join(", ");
    let message = format!("Unsupported value: []string{{{shown}}}: supported values: \"All\"");
    Err(Cause { reason: "FieldValueNotSupported".to_owned(), message, field: "dryRun".to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn write_options() {
        let parse = |query: &str, agent: &str, way: Way| WriteOptions::parse(&Query::parse(query), agent, way);
        let options = parse("dryRun=All&fieldValidation=Strict&fieldManager=kubectl", "curl", Way::Create).unwrap();
        assert!(options.dry_run && options.fields == FieldValidation::Strict && options.manager == "kubectl");
        assert_eq!(parse("", "cu\u{7}rl", Way::Create).unwrap().manager, "curl");
        assert_eq!(parse("", &"é".repeat(100), Way::Update).unwrap().manager, "é".repeat(64));
        let applies = parse("fieldManager=a&force=true", "", Way::Apply).unwrap();
        assert!(applies.applies && applies.force && !parse("fieldManager=a", "", Way::Apply).unwrap().force);
        let long = format!("fieldManager={}", "x".repeat(129));
        for (query, way, message) in [
            (
                "dryRun=Some",
                Way::Create,
                "CreateOptions.meta.k8s.io \"\" is invalid: dryRun: Unsupported value: []string{\"Some\"}: supported values: \"All\"",
            ),
            (
                "fieldValidation=strict",
                Way::Update,
                "UpdateOptions.meta.k8s.io \"\" is invalid: fieldValidation: Unsupported value: \"strict\": supported values: \"\", \"Ignore\", \"Strict\", \"Warn\"",
            ),
            (
                "force=true",
                Way::Apply,
                "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch",
            ),
            (
                "force=true",
                Way::Patch,
                "PatchOptions.meta.k8s.io \"\" is invalid: force: Forbidden: may not be specified for non-apply patch",
            ),
            (&long, Way::Patch, "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Too long: may not be more than 128 bytes"),
            (
                "fieldManager=a%09b",
                Way::Patch,
                "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Invalid value: \"a\\tb\": invalid character U+0009 (at position 1)",
            ),
        ] {
            let status = parse(query, "", way).unwrap_err();
            assert_eq!((status.code, status.message.as_str()), (422, message));
        }
    }
}
