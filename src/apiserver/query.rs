//! Query parameters, and the options that requests carry in them.

use std::num::{IntErrorKind, ParseIntError};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::codec::apply::Writer;
use crate::object::status::Cause;
use crate::object::{ResourceRef, Revision, Status};
use crate::util::go;

pub(crate) type Answer<T> = Result<T, Box<Status>>;

/// The parameters of a request, in their order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    pub(crate) fn parse(text: &str) -> Self {
        let pair = |part: &str| {
            let (key, value) = part.split_once('=').unwrap_or((part, ""));
            (unescape(&key.replace('+', " ")), unescape(&value.replace('+', " ")))
        };
        // Go leaves out what it cannot read.
        let is_read = |part: &&str| !part.is_empty() && !part.contains(';') && is_escaped(part);
        Self(text.split('&').filter(is_read).map(pair).collect())
    }

    /// The first value of a parameter; `None` if it is absent or empty.
    pub(crate) fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(it, _)| it == key).map(|(_, value)| value.as_str()).filter(|it| !it.is_empty())
    }

    pub(crate) fn all<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(it, _)| it == key).map(|(_, value)| value.as_str())
    }

    pub(crate) fn has(&self, key: &str) -> bool {
        self.0.iter().any(|(it, _)| it == key)
    }

    /// As Kubernetes reads it: present, and neither `false` nor `0`.
    pub(crate) fn flag(&self, key: &str) -> bool {
        self.optional_flag(key).unwrap_or_default()
    }

    pub(crate) fn optional_flag(&self, key: &str) -> Option<bool> {
        self.0.iter().find(|(it, _)| it == key).map(|(_, value)| !value.eq_ignore_ascii_case("false") && value != "0")
    }

    /// # Errors
    /// 400 if the value is not an integer.
    pub(crate) fn integer(&self, key: &str) -> Answer<Option<i64>> {
        let parse = |text: &str| text.parse().map_err(|error| not_a_number("ParseInt", text, &error));
        self.get(key).map(parse).transpose()
    }

    /// A resource version; `None` if absent.
    ///
    /// # Errors
    /// 400 if it is not one of ours.
    pub(crate) fn revision(&self, key: &str) -> Answer<Option<Revision>> {
        let parse = |text: &str| {
            let number = text.parse();
            number.map_err(|error| bad(format!("{key}: Invalid value: {text:?}: {}", not_a_number("ParseUint", text, &error))))
        };
        self.get(key).map(parse).transpose()
    }
}

/// In the words of Go's `strconv`.
fn not_a_number(function: &str, text: &str, error: &ParseIntError) -> Box<Status> {
    let why = match error.kind() {
        IntErrorKind::PosOverflow | IntErrorKind::NegOverflow => "value out of range",
        _ => "invalid syntax",
    };
    bad(format!("strconv.{function}: parsing {}: {why}", go::quote(text)))
}

pub(crate) fn bad(message: impl Into<String>) -> Box<Status> {
    Box::new(Status::bad_request(message))
}

/// Whether each `%` begins an escape.
fn is_escaped(text: &str) -> bool {
    let is_hex = |it: Option<&u8>| it.is_some_and(u8::is_ascii_hexdigit);
    text.split('%').skip(1).all(|rest| is_hex(rest.as_bytes().first()) && is_hex(rest.as_bytes().get(1)))
}

/// Resolves `%XX`; what is malformed stays as it is.
pub(crate) fn unescape(text: &str) -> String {
    if !text.contains('%') {
        return text.to_owned();
    }
    let bytes = text.as_bytes();
    let hex = |at: usize| bytes.get(at).and_then(|it| (*it as char).to_digit(16));
    let (mut out, mut at) = (Vec::with_capacity(bytes.len()), 0);
    while at < bytes.len() {
        match (bytes[at], hex(at + 1), hex(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                out.push((high * 16 + low) as u8);
                at += 3;
            }
            (byte, ..) => {
                out.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Escapes what may not stand in a query value or a path segment.
pub(crate) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(byte as char),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

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

/// What a client is to be told of its request beside the answer, be that a refusal; each thing once.
#[derive(Clone, Debug, Default)]
pub(crate) struct Warnings(Arc<Mutex<Vec<String>>>);

impl Warnings {
    pub(crate) fn add(&self, warnings: impl IntoIterator<Item = String>) {
        for warning in warnings {
            let mut all = self.0.lock();
            if !all.contains(&warning) {
                all.push(warning);
            }
        }
    }

    pub(crate) fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock())
    }
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
    fn parameters() {
        let query = Query::parse("watch=true&x=a%20b+c&empty=&labelSelector=a%3Db%2Cc&off=false&zero=0&bare&limit=5&bad=5x");
        assert!(query.flag("watch") && query.flag("bare") && query.flag("empty"));
        assert!(!query.flag("off") && !query.flag("zero") && !query.flag("absent"));
        assert_eq!(query.get("x"), Some("a b c"));
        assert_eq!(query.get("empty"), None);
        assert_eq!(query.get("labelSelector"), Some("a=b,c"));
        assert_eq!(query.integer("limit").unwrap(), Some(5));
        assert!(query.integer("bad").is_err() && query.revision("bad").is_err());
    }

    #[test]
    fn escapes_are_undone() {
        for text in ["plain", "a b", "100%", "é/?&=", "%zz", "%4"] {
            assert_eq!(unescape(&escape(text)), text);
        }
        assert_eq!(unescape("%zz%4"), "%zz%4");
    }

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
