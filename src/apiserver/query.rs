//! The parameters of a request's URL.

use std::num::{IntErrorKind, ParseIntError};

use super::error::{Answer, bad};
use crate::object::{Revision, Status};
use crate::util::{go, url};

/// The parameters of a request, in their order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    pub(crate) fn parse(text: &str) -> Self {
        Self(url::parameters(text).collect())
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

    /// As Kubernetes reads flags: present, and neither `false` nor `0`.
    pub(crate) fn flag(&self, key: &str) -> bool {
        self.optional_flag(key).unwrap_or_default()
    }

    pub(crate) fn optional_flag(&self, key: &str) -> Option<bool> {
        self.0.iter().find(|(it, _)| it == key).map(|(_, value)| url::is_set(value))
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
    /// 400 if it is not one of our versions.
    pub(crate) fn revision(&self, key: &str) -> Answer<Option<Revision>> {
        let parse = |text: &str| {
            let number = text.parse();
            number.map_err(|error| bad(format!("{key}: Invalid value: {text:?}: {}", not_a_number("ParseUint", text, &error))))
        };
        self.get(key).map(parse).transpose()
    }
}

/// The message of Go's `strconv`.
fn not_a_number(function: &str, text: &str, error: &ParseIntError) -> Box<Status> {
    let why = match error.kind() {
        IntErrorKind::PosOverflow | IntErrorKind::NegOverflow => "value out of range",
        _ => "invalid syntax",
    };
    bad(format!("strconv.{function}: parsing {}: {why}", go::quote(text)))
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
}
