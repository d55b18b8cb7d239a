//! Query parameters, and the options that requests carry in them.

use std::num::{IntErrorKind, ParseIntError};

use crate::object::{Revision, Status};
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
        Self(text.split('&').filter(|it| !it.is_empty()).map(pair).collect())
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

/// The options of `metav1.CreateOptions`, `UpdateOptions` and `PatchOptions`.
#[derive(Clone, Debug, Default)]
pub(crate) struct WriteOptions {
    /// Do everything but store.
    pub(crate) dry_run: bool,
    pub(crate) fields: FieldValidation,
}

impl WriteOptions {
    /// # Errors
    /// 400 or 422 for values that Kubernetes refuses.
    pub(crate) fn parse(query: &Query) -> Answer<Self> {
        let fields = match query.get("fieldValidation") {
            None | Some("Warn") => FieldValidation::Warn,
            Some("Ignore") => FieldValidation::Ignore,
            Some("Strict") => FieldValidation::Strict,
            Some(other) => {
                let supported = r#"supported values: "", "Ignore", "Strict", "Warn""#;
                return Err(bad(format!("fieldValidation: Unsupported value: {other:?}: {supported}")));
            }
        };
        if query.get("fieldManager").is_some_and(|it| it.chars().count() > 128) {
            return Err(bad("fieldManager: Too long: may not be more than 128 bytes"));
        }
        Ok(Self { dry_run: dry_run(query.all("dryRun"))?, fields })
    }
}

/// The option `dryRun`: `All` is the only value it may have.
pub(crate) fn dry_run<'a>(mut values: impl Iterator<Item = &'a str>) -> Answer<bool> {
    let mut seen = false;
    values.try_for_each(|value| match value {
        "" => Ok(()),
        "All" => {
            seen = true;
            Ok(())
        }
        other => Err(bad(format!("dryRun: Unsupported value: {other:?}: supported values: \"All\""))),
    })?;
    Ok(seen)
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
        let options = WriteOptions::parse(&Query::parse("dryRun=All&fieldValidation=Strict&fieldManager=kubectl")).unwrap();
        assert!(options.dry_run && options.fields == FieldValidation::Strict);
        assert!(WriteOptions::parse(&Query::parse("dryRun=Some")).is_err());
        assert!(WriteOptions::parse(&Query::parse("fieldValidation=strict")).is_err());
    }
}
